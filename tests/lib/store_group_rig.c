/* SPDX-License-Identifier: MIT */
/* Counts what the engine does, and builds members of a group commit. */
#include "tests/lib/store_group_rig.h"

#include <sqlite3.h>
#include <stdio.h>
#include <sys/mman.h>

#define MEMBER_PID 101 /* of the first member's worker */

pthread_mutex_t *group_write_lock;
int group_commits, group_rollbacks, group_releases;
struct store_group_commit group_commit;
struct store_answer group_answers[STORE_GROUP_COMMIT_MAX][16];
struct held group_held;

bool group_write_lock_is_free(void)
{
    if (write_lock_try(group_write_lock) != 0)
        return false;
    write_lock_release(group_write_lock);
    return true;
}

static void count_release(void *user)
{
    (void)user;
    group_releases++;
    CU_ASSERT_TRUE(group_write_lock_is_free());
}

static int count_commit(void *user)
{
    (void)user;
    group_commits++;
    return 0;
}

static void count_rollback(void *user)
{
    (void)user;
    group_rollbacks++;
}

void group_reset_counts(void)
{
    group_commits = group_rollbacks = group_releases = 0;
}

void group_count_engine(void)
{
    sqlite3 *db = store_sqlite_of(fixture.store)->db;
    sqlite3_commit_hook(db, count_commit, NULL);
    sqlite3_rollback_hook(db, count_rollback, NULL);
    group_reset_counts();
}

void group_commit_begin(enum synchronous synchronous, int count)
{
    fixture_begin();
    group_write_lock =
        mmap(NULL, sizeof(pthread_mutex_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_FATAL(group_write_lock != MAP_FAILED);
    CU_ASSERT_EQUAL_FATAL(write_lock_init(group_write_lock), 0);
    fixture.options.synchronous = synchronous;
    fixture.options.trace = true;
    fixture.options.write_lock = group_write_lock;
    fixture.options.write_lock_released = count_release;
    fixture_restart();
    ingest("u", 0, count);
    claim(&group_held, (size_t)count, 1000);
    CU_ASSERT_EQUAL_FATAL(group_held.count, (size_t)count);
    memset(&group_commit, 0, sizeof group_commit);
    memset(group_answers, 0, sizeof group_answers);
    group_count_engine();
}

void group_commit_end(void)
{
    CU_ASSERT_TRUE(group_write_lock_is_free());
    fixture_end();
    munmap(group_write_lock, sizeof(pthread_mutex_t));
}

struct store_group_member *group_member_add(int stage)
{
    size_t at = group_commit.count++;
    group_commit.member[at] = (struct store_group_member){.source = fixture.source,
                                                          .stage = fixture.stages[stage],
                                                          .pid = MEMBER_PID + (int32_t)at,
                                                          .answers = group_answers[at]};
    return &group_commit.member[at];
}

struct store_answer *group_answer_add(struct store_group_member *member, size_t event,
                                      enum store_change change)
{
    struct store_answer *answer = &member->answers[member->count++];
    *answer = (struct store_answer){
        .lock = group_held.at[event], .change = change, .attempt = 1, .done = "first\n", .applied = true};
    if (change == STORE_DELAY)
        answer->due_ms = 5000;
    if (change == STORE_DEAD_LETTER)
        answer->reason = STORE_REASON_REJECTED;
    return answer;
}

struct store_group_member *group_member_of(int stage, enum store_change change, size_t first, size_t count)
{
    struct store_group_member *member = group_member_add(stage);
    for (size_t i = 0; i < count; i++)
        group_answer_add(member, first + i, change);
    return member;
}

static size_t applied_in(const struct store_group_member *member)
{
    size_t count = 0;
    for (size_t i = 0; i < member->count; i++)
        count += member->answers[i].applied;
    return count;
}

size_t group_applied(void)
{
    size_t count = 0;
    for (size_t i = 0; i < group_commit.count; i++)
        count += applied_in(&group_commit.member[i]);
    return count;
}

struct store_stage_totals group_totals_at(int stage)
{
    struct store_stage_totals out;
    CU_ASSERT_EQUAL(store_stage_totals(fixture.store, fixture.stages[stage], &out), 0);
    return out;
}

uint64_t group_counted_at(int stage)
{
    struct store_stage_totals t = group_totals_at(stage);
    return t.processed + t.retried + t.removed + t.rejected + t.failed + t.crashed;
}

static int note_step(const struct store_trace_step *step, void *user)
{
    struct group_trace_found *found = user;
    found->count++;
    found->last = *step;
    return 0;
}

struct group_trace_found group_trace_of(size_t event)
{
    struct group_trace_found found = {0};
    char uid[32];
    size_t live;
    snprintf(uid, sizeof uid, "u%zu", event);
    CU_ASSERT_EQUAL(store_trace(fixture.store, fixture.source, uid, note_step, &found, &live), 0);
    return found;
}

void group_expect_trace(size_t event, enum store_trace_step_kind kind, int stage, size_t member)
{
    struct group_trace_found found = group_trace_of(event);
    CU_ASSERT_EQUAL(found.count, 2);
    CU_ASSERT_EQUAL(found.last.kind, kind);
    CU_ASSERT_EQUAL(found.last.stage, fixture.stages[stage]);
    CU_ASSERT_EQUAL(found.last.pid, MEMBER_PID + (int32_t)member);
}
