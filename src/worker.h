/* SPDX-License-Identifier: MIT */
/* The parts of a worker, shared between worker.c (taking and running) and worker_commit.c (committing,
 * handing over). */
#ifndef WORKER_H
#define WORKER_H

#include <pthread.h>

#include "src/batch.h"
#include "src/group.h"
#include "src/process.h"

struct worker {
    struct process process;
    const struct inherit *inherit;
    const struct source_config *source_config;
    const struct stage_config *config;
    struct shm_source *source;
    struct shm_stage *stage;
    const struct stage_ops *ops;
    void *state; /* the stage's */
    char name[2 * SHM_NAME_BYTES + 8];

    struct batch batch;
    struct group group;
    uint64_t awake_ns; /* since when it has not slept */
    uint64_t mean_ns;  /* of the stage's calls, moving; 0 = none yet */

    /* Guards the store's handle and what waits for its commit: the committer thread commits while a call
     * runs. */
    pthread_mutex_t lock;
    pthread_cond_t armed;
    bool watching; /* the committer looks every commit_delay; false: it sleeps until armed */
    bool calling;  /* a call of the stage runs */
    struct pending pending;
};

void worker_lock(struct worker *worker);
void worker_unlock(struct worker *worker);
/* With the lock held: commits what is pending, and hands the events over. Waits while the store cannot take
 * it. */
void worker_commit(struct worker *worker);
/* Starts the thread that commits answers older than commit_delay while a call runs. 0 or an errno. */
int worker_start_committer(struct worker *worker);
/* With the lock held, before a call runs while answers are pending: the committer looks after them. */
void worker_arm_committer(struct worker *worker);

#endif
