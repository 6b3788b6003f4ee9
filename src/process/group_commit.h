/* SPDX-License-Identifier: MIT */
/*
 * Group commit: a worker's answers are committed in a transaction of its own, or in that of another worker.
 */
#ifndef PROCESS_GROUP_COMMIT_H
#define PROCESS_GROUP_COMMIT_H

#include "shm/commit_request.h"
#include "src/store/store.h"

/* How many commit requests of others one transaction takes, and how many answers all of them have together.
 * */
#define PROCESS_GROUP_COMMIT_OTHERS (STORE_GROUP_COMMIT_MAX - 1)
#define PROCESS_GROUP_COMMIT_ANSWERS 128

/* The state of one worker, which commits one batch at a time. The worker sets segment, slot, pid and store.
 * */
struct process_group_commit {
    const struct segment *segment;
    uint32_t slot; /* the worker's */
    int32_t pid;
    struct store *store;
    bool has_submitted;     /* our answers are in the slot's commit request */
    bool must_commit_alone; /* take no commit requests of others */
    bool may_be_committed; /* our answers may have been committed already; true until their commit succeeds */
    struct store_group_commit transaction;
    size_t taken_count; /* commit requests of others; member[1 + i] of the transaction is from slots[i] */
    uint32_t slots[PROCESS_GROUP_COMMIT_OTHERS];
    size_t answer_count;
    struct store_answer answers[PROCESS_GROUP_COMMIT_ANSWERS];
    _Alignas(8) char bodies[PROCESS_GROUP_COMMIT_OTHERS][SHM_COMMIT_REQUEST_BYTES];
};

/*
 * Commits a worker's answers, as store_commit does. Blocks until they are committed, by this worker or
 * another. After an error the worker calls again with the same answers, or exits: it must not commit
 * others.
 */
int process_group_commit(struct process_group_commit *group_commit, int64_t source, int64_t stage,
                         struct store_answer *answers, size_t count);

#endif
