/* SPDX-License-Identifier: MIT */
/* Shared by the tests of group commits in the store: a traced store with a write lock, counts of what its
 * engine did, and short functions to build members. */
#ifndef TESTS_LIB_STORE_GROUP_RIG_H
#define TESTS_LIB_STORE_GROUP_RIG_H

#include "shm/write_lock.h"
#include "src/store/sqlite/sqlite.h"
#include "tests/lib/store_files.h"

extern pthread_mutex_t *group_write_lock; /* shared with children */
/* Of the fixture's handle since group_commit_begin, or the last reset; releases are those of the write lock.
 * */
extern int group_commits, group_rollbacks, group_releases;
extern struct store_group_commit group_commit;
extern struct store_answer group_answers[STORE_GROUP_COMMIT_MAX][16];
extern struct held group_held;

/* Whether nobody holds the write lock. */
bool group_write_lock_is_free(void);
void group_reset_counts(void);

/* Counts from now on, in the store that the fixture has open. */
void group_count_engine(void);

/* `count` events u0, u1 ..., all held. */
void group_commit_begin(enum synchronous synchronous, int count);

/* Also checks that the write lock is free. */
void group_commit_end(void);

/* Adds a member without answers, at this stage. */
struct store_group_member *group_member_add(int stage);

/* Adds an answer to a member, for the event of this number. */
struct store_answer *group_answer_add(struct store_group_member *member, size_t event,
                                      enum store_change change);

/* Adds a member with `count` answers, from this event on. */
struct store_group_member *group_member_of(int stage, enum store_change change, size_t first, size_t count);

/* How many answers of all members were applied. */
size_t group_applied(void);
struct store_stage_totals group_totals_at(int stage);

/* How many answers the totals of a stage count. */
uint64_t group_counted_at(int stage);

struct group_trace_found { /* of one event, the step told last */
    size_t count;
    struct store_trace_step last;
};

/* What is in the trace of an event. */
struct group_trace_found group_trace_of(size_t event);

/* The event was fetched, and this step is all that was done to it since. */
void group_expect_trace(size_t event, enum store_trace_step_kind kind, int stage, size_t member);

#endif
