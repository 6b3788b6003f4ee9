/* SPDX-License-Identifier: MIT */
/* Shared by the tests of group commits in the store: a traced store with a write lock, counts of what its engine
 * did, and short functions to build members. */
#ifndef STORE_GROUP_COMMIT_RIG_H
#define STORE_GROUP_COMMIT_RIG_H

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "shm/write_lock.h"
#include "src/store/sqlite/sqlite.h"
#include "tests/unit/store_files.h"

#define MEMBER_PID 101 /* of the first member's worker */

static pthread_mutex_t *write_lock;  /* shared with children */
static int commits, rollbacks, left; /* of the fixture's handle since group_commit_begin, or the last reset */
static struct store_group_commit group_commit;
static struct store_answer answers[STORE_GROUP_COMMIT_MAX][16];
static struct held held;

static inline bool write_lock_is_free(void)
{
    if (write_lock_try(write_lock) != 0)
        return false;
    write_lock_release(write_lock);
    return true;
}

static inline void count_left(void *user)
{
    (void)user;
    left++;
    CU_ASSERT_TRUE(write_lock_is_free());
}

static inline int count_commit(void *user)
{
    (void)user;
    commits++;
    return 0;
}

static inline void count_rollback(void *user)
{
    (void)user;
    rollbacks++;
}

static inline void reset_counts(void)
{
    commits = rollbacks = left = 0;
}

static inline void count_engine(void)
{
    sqlite3 *db = store_sqlite_of(fixture.store)->db;
    sqlite3_commit_hook(db, count_commit, NULL);
    sqlite3_rollback_hook(db, count_rollback, NULL);
    reset_counts();
}

/* `count` events u0, u1 ..., all held. */
static inline void group_commit_begin(enum synchronous synchronous, int count)
{
    fixture_begin();
    write_lock =
        mmap(NULL, sizeof(pthread_mutex_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_FATAL(write_lock != MAP_FAILED);
    CU_ASSERT_EQUAL_FATAL(write_lock_init(write_lock), 0);
    fixture.options.synchronous = synchronous;
    fixture.options.trace = true;
    fixture.options.write_lock = write_lock;
    fixture.options.write_lock_released = count_left;
    fixture_restart();
    ingest("u", 0, count);
    claim(&held, (size_t)count, 1000);
    CU_ASSERT_EQUAL_FATAL(held.count, (size_t)count);
    memset(&group_commit, 0, sizeof group_commit);
    memset(answers, 0, sizeof answers);
    count_engine();
}

static inline void group_commit_end(void)
{
    CU_ASSERT_TRUE(write_lock_is_free());
    fixture_end();
    munmap(write_lock, sizeof(pthread_mutex_t));
}

/* Adds a member without answers, at this stage. */
static inline struct store_group_member *member_add(int stage)
{
    size_t at = group_commit.count++;
    group_commit.member[at] = (struct store_group_member){.source = fixture.source,
                                                          .stage = fixture.stages[stage],
                                                          .pid = MEMBER_PID + (int32_t)at,
                                                          .answers = answers[at]};
    return &group_commit.member[at];
}

static inline struct store_answer *answer_add(struct store_group_member *member, size_t event,
                                              enum store_change change)
{
    struct store_answer *answer = &member->answers[member->count++];
    *answer = (struct store_answer){
        .lock = held.at[event], .change = change, .attempt = 1, .done = "first\n", .applied = true};
    if (change == STORE_DELAY)
        answer->due_ms = 5000;
    if (change == STORE_DEAD_LETTER)
        answer->reason = STORE_REASON_REJECTED;
    return answer;
}

static inline struct store_group_member *member_of(int stage, enum store_change change, size_t first,
                                                   size_t count)
{
    struct store_group_member *member = member_add(stage);
    for (size_t i = 0; i < count; i++)
        answer_add(member, first + i, change);
    return member;
}

static inline size_t applied_in(const struct store_group_member *member)
{
    size_t count = 0;
    for (size_t i = 0; i < member->count; i++)
        count += member->answers[i].applied;
    return count;
}

static inline size_t applied(void)
{
    size_t count = 0;
    for (size_t i = 0; i < group_commit.count; i++)
        count += applied_in(&group_commit.member[i]);
    return count;
}

static inline struct store_stage_totals totals_at(int stage)
{
    struct store_stage_totals out;
    CU_ASSERT_EQUAL(store_stage_totals(fixture.store, fixture.stages[stage], &out), 0);
    return out;
}

/* How many answers the totals of a stage count. */
static inline uint64_t counted_at(int stage)
{
    struct store_stage_totals t = totals_at(stage);
    return t.processed + t.retried + t.removed + t.rejected + t.failed + t.crashed;
}

struct trace_found { /* of one event, the step told last */
    size_t count;
    struct store_trace_step last;
};

static inline int note_step(const struct store_trace_step *step, void *user)
{
    struct trace_found *found = user;
    found->count++;
    found->last = *step;
    return 0;
}

static inline struct trace_found trace_of(size_t event)
{
    struct trace_found found = {0};
    char uid[32];
    size_t live;
    snprintf(uid, sizeof uid, "u%zu", event);
    CU_ASSERT_EQUAL(store_trace(fixture.store, fixture.source, uid, note_step, &found, &live), 0);
    return found;
}

/* The event was fetched, and this step is all that was done to it since. */
static inline void expect_trace(size_t event, enum store_trace_step_kind kind, int stage, size_t member)
{
    struct trace_found found = trace_of(event);
    CU_ASSERT_EQUAL(found.count, 2);
    CU_ASSERT_EQUAL(found.last.kind, kind);
    CU_ASSERT_EQUAL(found.last.stage, fixture.stages[stage]);
    CU_ASSERT_EQUAL(found.last.pid, MEMBER_PID + (int32_t)member);
}

#endif
