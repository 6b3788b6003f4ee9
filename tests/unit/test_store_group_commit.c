/* SPDX-License-Identifier: MIT */
/* The answers of several workers in one transaction: all are committed, or none; late members; the write
 * lock. */
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/store_group_rig.h"

/* ---- one transaction ---- */

static void members_of_two_stages(void)
{
    group_commit_begin(SYNCHRONOUS_NORMAL, 20);
    struct store_group_member *member = group_member_of(0, STORE_ADVANCE, 0, 4);
    group_answer_add(member, 4, STORE_DELAY)->error = "not yet";
    member = group_member_of(1, STORE_COMPLETE, 5, 3);
    group_answer_add(member, 8, STORE_REMOVE_BY_STAGE);
    member = group_member_of(0, STORE_DEAD_LETTER, 9, 1);
    group_answer_add(member, 10, STORE_DELAY)->failed = true;
    struct store_answer *changed = group_answer_add(member, 11, STORE_ADVANCE);
    changed->data = "{\"n\":-11}", changed->data_bytes = 9;
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 12);
    CU_ASSERT_EQUAL(group_commits, 1);
    CU_ASSERT_EQUAL(group_rollbacks, 0);
    CU_ASSERT_EQUAL(group_releases, 1);
    struct store_stage_totals first = group_totals_at(0), second = group_totals_at(1);
    CU_ASSERT_EQUAL(first.processed, 5);
    CU_ASSERT_EQUAL(first.retried, 1);
    CU_ASSERT_EQUAL(first.failed, 1);
    CU_ASSERT_EQUAL(first.rejected, 1);
    CU_ASSERT_EQUAL(group_counted_at(0), 8);
    CU_ASSERT_EQUAL(second.processed, 3);
    CU_ASSERT_EQUAL(second.removed, 1);
    CU_ASSERT_EQUAL(group_counted_at(1), 4);
    CU_ASSERT_EQUAL(group_counted_at(2), 0);
    struct store_totals t = totals();
    CU_ASSERT_EQUAL(t.completed, 3);
    CU_ASSERT_EQUAL(t.removed_by_stage, 1);
    CU_ASSERT_EQUAL(t.delayed, 2);
    CU_ASSERT_EQUAL(t.dead, 1);
    CU_ASSERT_EQUAL(t.live, 16);
    for (size_t i = 0; i < 4; i++)
        group_expect_trace(i, STORE_TRACE_STEP_PROCESSED, 0, 0);
    group_expect_trace(4, STORE_TRACE_STEP_RETRIED, 0, 0);
    for (size_t i = 5; i < 8; i++)
        group_expect_trace(i, STORE_TRACE_STEP_COMPLETED, 1, 1);
    group_expect_trace(8, STORE_TRACE_STEP_REMOVED_BY_STAGE, 1, 1);
    group_expect_trace(9, STORE_TRACE_STEP_REJECTED, 0, 2);
    group_expect_trace(10, STORE_TRACE_STEP_FAILED, 0, 2);
    group_expect_trace(11, STORE_TRACE_STEP_PROCESSED, 0, 2);
    CU_ASSERT_EQUAL(group_trace_of(12).count, 1);
    group_commit_end();
}

static void as_many_as_there_may_be(void)
{
    group_commit_begin(SYNCHRONOUS_NORMAL, 3 * STORE_GROUP_COMMIT_MAX);
    for (size_t i = 0; i < STORE_GROUP_COMMIT_MAX; i++)
        group_member_of((int)i % 3, STORE_COMPLETE, 3 * i, 3);
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 3 * STORE_GROUP_COMMIT_MAX);
    CU_ASSERT_EQUAL(group_commits, 1);
    for (int stage = 0; stage < 3; stage++)
        CU_ASSERT_EQUAL(group_totals_at(stage).processed, STORE_GROUP_COMMIT_MAX);
    CU_ASSERT_EQUAL(totals().completed, 3 * STORE_GROUP_COMMIT_MAX);
    group_commit_end();
}

/* ---- in steps ---- */

static bool in_transaction(void)
{
    return sqlite3_get_autocommit(store_sqlite_of(fixture.store)->db) == 0;
}

static void late_members_are_committed(void)
{
    for (int late = 0; late <= 3; late++) {
        group_commit_begin(SYNCHRONOUS_NORMAL, 20);
        group_member_of(0, STORE_COMPLETE, 0, 5);
        CU_ASSERT_EQUAL(store_group_commit_begin(fixture.store, &group_commit), 0);
        CU_ASSERT_FALSE(group_write_lock_is_free());
        CU_ASSERT_FALSE(in_transaction());
        for (int added = 0; added <= late; added++) {
            if (added > 0)
                group_member_of(1, STORE_COMPLETE, 5 * (size_t)added, 5);
            CU_ASSERT_EQUAL(store_group_commit_add(fixture.store, &group_commit), 0);
            CU_ASSERT_FALSE(group_write_lock_is_free());
            CU_ASSERT_TRUE(in_transaction());
            CU_ASSERT_EQUAL(group_commits, 0);
        }
        CU_ASSERT_EQUAL(store_group_commit_end(fixture.store, &group_commit), 0);
        CU_ASSERT_TRUE(group_write_lock_is_free());
        CU_ASSERT_EQUAL(group_applied(), 5 + 5 * (size_t)late);
        CU_ASSERT_EQUAL(group_commits, 1);
        CU_ASSERT_EQUAL(group_releases, 1);
        CU_ASSERT_EQUAL(totals().completed, 5 + 5 * (uint64_t)late);
        CU_ASSERT_EQUAL(group_totals_at(1).processed, 5 * (uint64_t)late);
        group_commit_end();
    }
}

static void an_end_without_an_add_changes_nothing(void)
{
    group_commit_begin(SYNCHRONOUS_NORMAL, 10);
    group_member_of(0, STORE_COMPLETE, 0, 5);
    for (int at_once = 0; at_once < 2; at_once++) {
        group_reset_counts();
        group_commit.at_once = at_once != 0;
        CU_ASSERT_EQUAL(store_group_commit_begin(fixture.store, &group_commit), 0);
        CU_ASSERT_FALSE(group_write_lock_is_free());
        CU_ASSERT_EQUAL(store_group_commit_end(fixture.store, &group_commit), 0);
        CU_ASSERT_FALSE(group_commit.committed);
        CU_ASSERT_EQUAL(group_commits, 0);
        CU_ASSERT_EQUAL(group_releases, 1);
        CU_ASSERT_TRUE(group_write_lock_is_free());
        CU_ASSERT_EQUAL(totals().live, 10);
        CU_ASSERT_EQUAL(group_counted_at(0), 0);
    }
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 5);
    group_commit_end();
}

/* ---- the write lock ---- */

/* Starts a child that holds the write lock until it is killed. */
static pid_t holder(void)
{
    int ready[2];
    char byte = 0;
    CU_ASSERT_EQUAL_FATAL(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        if (write_lock_acquire(group_write_lock, 120000) == 0 && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    close(ready[1]);
    CU_ASSERT_EQUAL(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void no_queue_at_once(void)
{
    group_commit_begin(SYNCHRONOUS_NORMAL, 10);
    group_member_of(0, STORE_COMPLETE, 0, 5);
    pid_t child = holder();
    group_commit.at_once = true;
    CU_ASSERT_EQUAL(store_group_commit_begin(fixture.store, &group_commit), EP_EBUSY);
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), EP_EBUSY);
    CU_ASSERT_FALSE(group_commit.committed);
    CU_ASSERT_FALSE(in_transaction());
    CU_ASSERT_EQUAL(group_releases, 0);
    CU_ASSERT_EQUAL(totals().live, 10);
    CU_ASSERT_FALSE(group_write_lock_is_free());
    kill(child, SIGKILL);
    CU_ASSERT_EQUAL(waitpid(child, NULL, 0), child);
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 5);
    CU_ASSERT_EQUAL(group_releases, 1);
    group_commit_end();
}

static void a_write_lock_that_stays_held_stops_nobody(void)
{
    group_commit_begin(SYNCHRONOUS_NORMAL, 10);
    group_member_of(0, STORE_COMPLETE, 0, 5);
    pid_t child = holder();
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0); /* after busy_timeout */
    CU_ASSERT_EQUAL(group_applied(), 5);
    CU_ASSERT_EQUAL(group_releases, 0); /* never at it */
    CU_ASSERT_FALSE(group_write_lock_is_free());
    kill(child, SIGKILL);
    CU_ASSERT_EQUAL(waitpid(child, NULL, 0), child);
    group_commit_end();
}

static void each_leaving_is_told(void)
{
    group_commit_begin(SYNCHRONOUS_NORMAL, 10);
    struct held more;
    ingest("v", 0, 5);
    CU_ASSERT_EQUAL(group_releases, 1);
    claim(&more, 1, 1000);
    CU_ASSERT_EQUAL(group_releases, 2);
    CU_ASSERT_TRUE(unlock(more.at[0], (struct store_unlock){0}));
    CU_ASSERT_EQUAL(group_releases, 3);
    CU_ASSERT_EQUAL(store_set_cursor(fixture.store, fixture.source, "x"), 0);
    CU_ASSERT_EQUAL(group_releases, 4);
    CU_ASSERT_TRUE(answer(group_held.at[0], (struct store_answer){.change = STORE_COMPLETE}));
    CU_ASSERT_EQUAL(group_releases, 5);
    CU_ASSERT_EQUAL(totals().live, 14); /* readers are never there */
    CU_ASSERT_EQUAL(group_releases, 5);
    struct store_event bad = {.uid = NULL};
    struct store_page page = {&bad, 1, NULL, false, 1000, false, NULL};
    struct store_ingested ingested;
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &ingested), EP_EINVAL);
    CU_ASSERT(group_releases == 5 || group_releases == 6);
    group_commit_end();
}

STORE_MAIN("store: group commit", {"members of two stages in one transaction", members_of_two_stages},
           {"as many as there may be", as_many_as_there_may_be},
           {"late members are committed, too", late_members_are_committed},
           {"an end without an add changes nothing", an_end_without_an_add_changes_nothing},
           {"at once does not queue", no_queue_at_once},
           {"a write lock that stays held stops nobody", a_write_lock_that_stays_held_stops_nobody},
           {"each release of the write lock is told", each_leaving_is_told})
