/* SPDX-License-Identifier: MIT */
/*
 * Real pipelines through the public API. What stages and clients see is written into `pipeline_world`,
 * memory that all processes of a test share; what a run leaves in the store is read from the store's file.
 * Events are known by the number at the end of their uid.
 */
#ifndef TESTS_LIB_PIPELINE_FIXTURE_H
#define TESTS_LIB_PIPELINE_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "src/eventpipe.h"
#include "src/store/store.h"
#include "tests/lib/unit.h"
#include "tests/lib/until.h"

#define PIPELINE_EVENTS 4000
#define PIPELINE_STAGES 3
#define PIPELINE_PATIENCE_MS 30000

struct pipeline_world {
    struct pipeline_event {
        atomic_uint calls[PIPELINE_STAGES];    /* of each stage */
        atomic_uint attempts[PIPELINE_STAGES]; /* as the last call was told */
        char key[PIPELINE_STAGES][100];        /* of its first call */
        atomic_uint other_keys;                /* calls that were told another */
    } event[PIPELINE_EVENTS + 1];
    atomic_uint done[PIPELINE_STAGES]; /* calls that came to their end */
    atomic_uint wrong;                 /* what stages and clients found wrong */
    char what[500];                    /* the first of it */
    atomic_uint waiting, let_go;       /* stages that wait to be let go */
    atomic_uint inits, finis, alive;
    atomic_uint fetches, opens, closes, flag, lines;
    char line[16][512]; /* of the log */
};

extern struct pipeline_world *pipeline_world;

struct pipeline {
    char directory[200], storage[260];
    ep_manager *manager;
    ep_source *source;
};

extern struct pipeline pipeline;

/* In a stage or a client, where CUnit's assertions would be lost with the process. */
#define EXPECT(condition)                                                                                \
    do {                                                                                                 \
        if (!(condition) && atomic_fetch_add(&pipeline_world->wrong, 1) == 0)                            \
            snprintf(pipeline_world->what, sizeof pipeline_world->what, "%s:%d: %s", __FILE__, __LINE__, \
                     #condition);                                                                        \
    } while (0)

/* The number of an event; 0 if it has none. */
unsigned pipeline_number_of(const char *uid);

/* Notes that a stage is called; returns the event's number. */
unsigned pipeline_note_call(ep_call *call, unsigned stage);

/* The whole of a stage that does nothing but pass. */
enum ep_answer pipeline_pass(ep_call *call, unsigned stage);
enum ep_answer pipeline_pass_0(ep_call *call, void *state);

/* One for each stage: they do nothing but pass. */
extern const struct ep_stage pipeline_passers[PIPELINE_STAGES];

/* A stage waits here until it is let go; false when that takes too long. */
bool pipeline_wait_here(void);

/* Keeps a line of the log; the callback of a manager. */
void pipeline_keep_line(enum ep_severity severity, const char *line, void *user);

/* Whether this is in one of the last 16 lines of the log. */
bool pipeline_log_has(const char *message);

/* ---- a test's beginning and end. A store in a file outlives its manager, until pipeline_end(). */

void pipeline_open_manager(const char *storage);

/* Makes the memory and the directory; opens no manager. */
void pipeline_begin(void);

/* The same, with a manager on this store; NULL: the file in the directory. */
void pipeline_begin_with(const char *storage);

/* Closes the manager, and fails if a stage or a client found something wrong. */
void pipeline_end(void);
void pipeline_add(const struct ep_source_params *params);
void pipeline_add_generate(const char *id, uint64_t count);
void pipeline_push(const struct ep_stage *stage, const struct ep_stage_options *options);
void pipeline_run(void);

/* All of 1 to `last` were called once, at stages 0 to stages - 1, told attempt 1 and the right key. */
bool pipeline_each_once(unsigned last, unsigned stages);

/* ---- what is in the store's file, between runs */

struct pipeline_left {
    unsigned ready, delayed, dead, other;
    struct store_item one; /* of the last dead one: state, reason, counts */
    char uid[100], error[600], context[600];
};

struct pipeline_left pipeline_what_is_left(void);
bool pipeline_nothing_left(void);

/* A thread beside the runs, which fork: it is at work when this returns. A fork in the middle of a thread's
 * start can leave the child with locks of a sanitizer that are never released. */
void pipeline_thread_beside(pthread_t *thread, void *(*body)(void *), void *user);

#endif
