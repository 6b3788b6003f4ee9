/* SPDX-License-Identifier: MIT */
/* What the tests of groups in one transaction share: a traced store behind a gate, what its engine did, and
 * short forms of groups. */
#ifndef STORE_GROUPS_RIG_H
#define STORE_GROUPS_RIG_H

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "shm/write_lock.h"
#include "src/store/sqlite/sqlite.h"
#include "tests/unit/store_files.h"

#define GROUP_PID 101 /* of the first group's worker */

static pthread_mutex_t *gate;        /* shared with children */
static int commits, rollbacks, left; /* of the fixture's handle since groups_begin, or the last reset */
static struct store_groups groups;
static struct store_answer answers[STORE_GROUPS_MAX][16];
static struct held held;

static inline bool gate_is_free(void)
{
    if (gate_try(gate) != 0)
        return false;
    gate_leave(gate);
    return true;
}

static inline void count_left(void *user)
{
    (void)user;
    left++;
    CU_ASSERT_TRUE(gate_is_free());
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
static inline void groups_begin(enum synchronous synchronous, int count)
{
    fixture_begin();
    gate = mmap(NULL, sizeof(pthread_mutex_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_FATAL(gate != MAP_FAILED);
    CU_ASSERT_EQUAL_FATAL(gate_init(gate), 0);
    fixture.options.synchronous = synchronous;
    fixture.options.trace = true;
    fixture.options.gate = gate;
    fixture.options.gate_left = count_left;
    fixture_restart();
    ingest("u", 0, count);
    claim(&held, (size_t)count, 1000);
    CU_ASSERT_EQUAL_FATAL(held.count, (size_t)count);
    memset(&groups, 0, sizeof groups);
    memset(answers, 0, sizeof answers);
    count_engine();
}

static inline void groups_end(void)
{
    CU_ASSERT_TRUE(gate_is_free());
    fixture_end();
    munmap(gate, sizeof(pthread_mutex_t));
}

/* A group of no answer yet, at this stage. */
static inline struct store_group *group_add(int stage)
{
    size_t at = groups.count++;
    groups.group[at] = (struct store_group){.source = fixture.source,
                                            .stage = fixture.stages[stage],
                                            .pid = GROUP_PID + (int32_t)at,
                                            .answers = answers[at]};
    return &groups.group[at];
}

static inline struct store_answer *answer_add(struct store_group *group, size_t event,
                                              enum store_change change)
{
    struct store_answer *answer = &group->answers[group->count++];
    *answer = (struct store_answer){
        .lease = held.at[event], .change = change, .attempt = 1, .done = "first\n", .applied = true};
    if (change == STORE_DELAY)
        answer->due_ms = 5000;
    if (change == STORE_BURY)
        answer->reason = STORE_REASON_REJECTED;
    return answer;
}

static inline struct store_group *group_of(int stage, enum store_change change, size_t first, size_t count)
{
    struct store_group *group = group_add(stage);
    for (size_t i = 0; i < count; i++)
        answer_add(group, first + i, change);
    return group;
}

static inline size_t applied_in(const struct store_group *group)
{
    size_t count = 0;
    for (size_t i = 0; i < group->count; i++)
        count += group->answers[i].applied;
    return count;
}

static inline size_t applied(void)
{
    size_t count = 0;
    for (size_t i = 0; i < groups.count; i++)
        count += applied_in(&groups.group[i]);
    return count;
}

static inline struct store_stage_totals totals_at(int stage)
{
    struct store_stage_totals out;
    CU_ASSERT_EQUAL(store_stage_totals(fixture.store, fixture.stages[stage], &out), 0);
    return out;
}

/* All answers that were counted at a stage. */
static inline uint64_t counted_at(int stage)
{
    struct store_stage_totals t = totals_at(stage);
    return t.processed + t.retried + t.removed + t.rejected + t.failed + t.crashed;
}

struct told { /* of one event, the step told last */
    size_t count;
    struct store_step last;
};

static inline int note_step(const struct store_step *step, void *user)
{
    struct told *told = user;
    told->count++;
    told->last = *step;
    return 0;
}

static inline struct told told_of(size_t event)
{
    struct told told = {0};
    char uid[32];
    size_t live;
    snprintf(uid, sizeof uid, "u%zu", event);
    CU_ASSERT_EQUAL(store_trace(fixture.store, fixture.source, uid, note_step, &told, &live), 0);
    return told;
}

/* It was fetched, and this is all that was done to it since. */
static inline void expect_told(size_t event, enum store_step_kind kind, int stage, size_t group)
{
    struct told told = told_of(event);
    CU_ASSERT_EQUAL(told.count, 2);
    CU_ASSERT_EQUAL(told.last.kind, kind);
    CU_ASSERT_EQUAL(told.last.stage, fixture.stages[stage]);
    CU_ASSERT_EQUAL(told.last.pid, GROUP_PID + (int32_t)group);
}

#endif
