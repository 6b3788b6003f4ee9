/* SPDX-License-Identifier: MIT */
/* Group commit: a worker's answers are committed in a transaction of its own, or in that of another worker.
 */
#ifndef GROUP_H
#define GROUP_H

#include "shm/commit_request.h"
#include "src/store/store.h"

#define GROUP_OTHERS (STORE_GROUPS_MAX - 1) /* offers of others that one transaction takes */
#define GROUP_ANSWERS 128                   /* answers of others, of all together */

/* One worker's; one commit at a time. */
struct group {
    const struct segment *segment;
    uint32_t slot; /* the worker's */
    int32_t pid;
    struct store *store;
    bool offered; /* what is committed now stands in the slot's offer */
    bool alone;   /* ... and is committed without others */
    bool again;   /* it may have been committed already; until a commit of it has succeeded */
    struct store_groups groups;
    size_t taken; /* offers of others; groups.group[1 + i] is that of slots[i] */
    uint32_t slots[GROUP_OTHERS];
    size_t answer_count;
    struct store_answer answers[GROUP_ANSWERS];
    _Alignas(8) char bodies[GROUP_OTHERS][SHM_OFFER_BYTES];
};

/* As store_commit. After an error: the same answers once more, or no others ever. */
int group_commit(struct group *group, int64_t source, int64_t stage, struct store_answer *answers,
                 size_t count);

#endif
