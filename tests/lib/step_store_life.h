/* SPDX-License-Identifier: MIT */
/* What producers and workers of test_step_store do with store and segment, step by step, in the order in
 * which the daemon's do it; and what outlives them. */
#ifndef TESTS_LIB_STEP_STORE_LIFE_H
#define TESTS_LIB_STEP_STORE_LIFE_H

#include "src/store/store.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/shm_steps.h"
#include "tests/lib/step_rig.h"

#define STORE_LIFE_PRODUCER 1
#define STORE_LIFE_WORKER(stage) (2 + (stage))
#define STORE_LIFE_STAGES 2
#define STORE_LIFE_EVENTS 4 /* in the store before */
#define STORE_LIFE_PAGE 2   /* come with the ingest */
#define STORE_LIFE_NOW_MS 100000

extern const char *const store_life_names[STORE_LIFE_STAGES];
extern const char *const store_life_done_texts[STORE_LIFE_STAGES + 1];

struct store_life { /* what outlives the processes beside segment and store: the test's own notes */
    uint64_t start;
    int64_t source, stages[STORE_LIFE_STAGES];
    int64_t other, other_stages[STORE_LIFE_STAGES]; /* a source whose events nobody counts */
    int64_t committed;                              /* this event's first stage was acknowledged */
    bool paged;                                     /* the page was acknowledged */
    uint32_t faults;
};

extern struct store_life *store_life;
extern struct segment store_life_segment;
extern struct shm_source *store_life_source;
extern struct store_options store_life_options;
extern char store_life_path[256];
extern char store_life_where[96];

/* Counts a fault and reports where it was seen. */
void store_life_fault(const char *what, const char *message);

/* Ends the process with a fault unless the result is 0. */
void store_life_must(struct store *store, int result, const char *what);

/* Opens the store as a process of the daemon does. */
struct store *store_life_open(void);

/* --- what producers and workers do */
/* Claims at most `limit` events and hands them to the workers. */
void store_life_claim(struct store *store, size_t limit);

/* Ingests and claims `count` events, the first of them "uid-FIRST". */
void store_life_ingest(struct store *store, uint32_t first, uint32_t count, const char *cursor, size_t limit);

/* Ingests the page that the test counts on. */
void store_life_ingest_page(struct store *store);

/* Writes how many stages are done into a uint32_t, the user. */
int store_life_on_row(size_t index, const struct store_row *row, void *user);

/* Commits the answer of one event, and passes its ticket on or frees it. */
void store_life_commit(struct store *store, uint32_t slot, uint32_t ticket, enum store_change change);

/* One event of this worker; false if there is none. */
bool store_life_turn(struct store *store, uint32_t slot, enum store_change change);

/* Releases all orphans. */
void store_life_unlock(struct store *store);

#endif
