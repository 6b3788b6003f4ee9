/* SPDX-License-Identifier: MIT */
/* The worker's parts: worker.c (taking events), worker_run.c (running the stage), worker_commit.c
 * (committing answers and handing the events on). */
#ifndef PROCESS_WORKER_H
#define PROCESS_WORKER_H

#include <pthread.h>

#include "src/process/batch.h"
#include "src/process/group_commit.h"
#include "src/process/process.h"

/* Events that were sent to the stage together, from the batch's next one; event_count 0: none. */
struct pipeline {
    size_t event_count, unanswered_count;
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
    uint64_t awake_since_ns; /* since when it has not slept */
    uint64_t run_count;      /* events that the stage has answered */
    uint64_t mean_call_ns;   /* of the stage's calls, moving; 0 = none yet */

    /* Guards the store handle and the pending answers: the committer thread commits while a call runs. */
    pthread_mutex_t lock;
    pthread_cond_t flush_timer_started;
    bool is_flush_timer_running; /* false: the committer sleeps until flush_timer_started */
    uint64_t flush_deadline_ns;  /* when it looks next, while the timer runs */
    bool is_call_running;        /* a call of the stage runs */
    bool has_leftover;           /* entries were left in the ring, and no worker was woken for them */
    uint64_t leftover_since_ns;  /* since when */
    struct pending pending;
};

/* Runs the batch and commits what is due on the way. At a stop it leaves the rest. */
void process_worker_run_batch(struct worker *worker);
/* Commits what is pending if the batch is full or old, or if no more events are there. */
void process_worker_commit_if_due(struct worker *worker, bool more);

void process_worker_lock(struct worker *worker);
void process_worker_unlock(struct worker *worker);
/* With the lock held: commits the pending answers and hands the events on. Waits while the store cannot
 * take them. */
void process_worker_commit_pending(struct worker *worker);
/* Starts the thread that commits answers older than commit_delay while a call runs. 0 or an errno. */
int process_worker_start_committer(struct worker *worker);
/* With the lock held, before a call runs while answers or leftover entries wait: the committer takes care
 * of them. */
void process_worker_flush_timer_start(struct worker *worker);

#endif
