/* SPDX-License-Identifier: MIT */
/* The parts of a worker, shared between worker.c (taking), worker_run.c (running) and worker_commit.c
 * (committing, handing over). */
#ifndef PROCESS_WORKER_H
#define PROCESS_WORKER_H

#include <pthread.h>

#include "src/process/batch.h"
#include "src/process/group_commit.h"
#include "src/process/process.h"

/* Events that were sent to the stage together, from the batch's next on. */
struct pipeline {
    size_t size, left; /* left: those without an answer; of one event, or none sent ahead, too */
    uint64_t spent_ns;
};

struct worker {
    struct process process;
    const struct child_context *child;
    const struct source_config *source_config;
    const struct stage_config *config;
    struct shm_source *source;
    struct shm_stage *stage;
    const struct stage_ops *ops;
    void *state; /* the stage's */
    char name[2 * SHM_NAME_BYTES + 8];

    struct batch batch;
    struct process_group_commit group_commit;
    struct pipeline pipeline;
    uint64_t awake_ns;  /* since when it has not slept */
    uint64_t run_count; /* events that the stage has answered */
    uint64_t mean_ns;   /* of the stage's calls, moving; 0 = none yet */

    /* Guards the store's handle and what waits for its commit: the committer thread commits while a call
     * runs. */
    pthread_mutex_t lock;
    pthread_cond_t flush_timer_started;
    bool flush_timer_running;   /* the committer looks every commit_delay; false: it sleeps until armed */
    uint64_t flush_deadline_ns; /* when it looks next, while it watches */
    bool calling;               /* a call of the stage runs */
    bool leftover_pending;      /* entries were left in the ring, and nobody has been woken for them */
    uint64_t leftover_ns;       /* since when */
    struct pending pending;
};

/* Runs the batch, and commits what is due on the way; leaves the rest at a stop. */
void process_worker_run(struct worker *worker);
/* Commits what is pending if the batch is full or old, or if no more events are there. */
void process_worker_commit_due(struct worker *worker, bool more);

void process_worker_lock(struct worker *worker);
void process_worker_unlock(struct worker *worker);
/* With the lock held: commits what is pending, and hands the events over. Waits while the store cannot take
 * it. */
void process_worker_commit(struct worker *worker);
/* Starts the thread that commits answers older than commit_delay while a call runs. 0 or an errno. */
int process_worker_start_committer(struct worker *worker);
/* With the lock held, before a call runs while answers are pending: the committer looks after them. */
void process_worker_flush_timer_start(struct worker *worker);

#endif
