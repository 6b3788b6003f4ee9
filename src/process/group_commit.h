/* SPDX-License-Identifier: MIT */
/* Group commit: a worker's answers are committed in a transaction of its own, or in that of another worker.
 */
#ifndef PROCESS_GROUP_COMMIT_H
#define PROCESS_GROUP_COMMIT_H

#include "shm/commit_request.h"
#include "src/store/store.h"

#define PROCESS_GROUP_COMMIT_OTHERS \
    (STORE_GROUP_COMMIT_MAX - 1)         /* commit requests of others that one transaction takes */
#define PROCESS_GROUP_COMMIT_ANSWERS 128 /* answers of others, of all together */

/* One worker's; one commit at a time. */
struct process_group_commit {
    const struct segment *segment;
    uint32_t slot; /* the worker's */
    int32_t pid;
    struct store *store;
    bool submitted; /* what is committed now stands in the slot's commit request */
    bool alone;     /* ... and is committed without others */
    bool again;     /* it may have been committed already; until a commit of it has succeeded */
    struct store_group_commit transaction;
    size_t taken; /* commit requests of others; transaction.member[1 + i] is that of slots[i] */
    uint32_t slots[PROCESS_GROUP_COMMIT_OTHERS];
    size_t answer_count;
    struct store_answer answers[PROCESS_GROUP_COMMIT_ANSWERS];
    _Alignas(8) char bodies[PROCESS_GROUP_COMMIT_OTHERS][SHM_COMMIT_REQUEST_BYTES];
};

/* As store_commit. After an error: the same answers once more, or no others ever. */
int process_group_commit(struct process_group_commit *group_commit, int64_t source, int64_t stage,
                         struct store_answer *answers, size_t count);

#endif
