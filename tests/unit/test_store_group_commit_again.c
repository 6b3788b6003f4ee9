/* SPDX-License-Identifier: MIT */
/* Group commits that fail, that lose some locks, or that are not known to be on the disk; and answers that
 * may have been committed already. */
#include <sqlite3.h>

#include "tests/lib/store_group_rig.h"
#include "tests/lib/wal_syncs.h"

static void begin(int count)
{
    wal_syncs_begin();
    group_commit_begin(SYNCHRONOUS_FULL, count);
    wal_syncs = 0;
}

static void end(void)
{
    group_commit_end();
    wal_syncs_end();
}

/* How many syncs of the WAL make one transaction last. */
static int synced_once(void)
{
    return fixture.kind == KIND_MEMORY ? 0 : 1;
}

/* Unlocks the event and claims it with another token. */
static void lose_lock(size_t event)
{
    struct held other;
    CU_ASSERT_TRUE(unlock(group_held.at[event], (struct store_unlock){0}));
    store_rescan(fixture.store, fixture.source);
    claim(&other, 1, 1000);
    CU_ASSERT_EQUAL_FATAL(other.count, 1);
    CU_ASSERT_EQUAL(other.at[0].event, group_held.at[event].event);
}

/* ---- lost locks ---- */

static void expect_parted(uint64_t finished)
{
    CU_ASSERT_EQUAL(store_group_commit_end(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 3 + 4 + finished);
    CU_ASSERT_FALSE(group_commit.member[1].answers[2].applied);
    CU_ASSERT_EQUAL(group_commits, 1);
    CU_ASSERT_EQUAL(group_rollbacks, 1);
    CU_ASSERT_EQUAL(group_releases, 2);
    CU_ASSERT_EQUAL(wal_syncs, synced_once());
    CU_ASSERT_EQUAL(group_totals_at(0).processed, 3);
    CU_ASSERT_EQUAL(group_totals_at(0).removed, 0);
    CU_ASSERT_EQUAL(group_totals_at(2).removed, 4);
    CU_ASSERT_EQUAL(group_totals_at(1).processed, finished);
    CU_ASSERT_EQUAL(totals().completed, finished);
    CU_ASSERT_EQUAL(totals().live, 16 - 4 - finished);
    for (size_t i = 0; i < 3; i++)
        group_expect_trace(i, STORE_TRACE_STEP_PROCESSED, 0, 0);
    CU_ASSERT_EQUAL(group_trace_of(5).last.kind, STORE_TRACE_STEP_UNLOCKED);
}

static void one_lost_lock_spoils_nothing_else(void)
{
    begin(16);
    lose_lock(5);
    group_member_of(0, STORE_ADVANCE, 0, 3);
    group_member_of(2, STORE_REMOVE_BY_STAGE, 3, 5);
    group_member_of(1, STORE_COMPLETE, 8, 3);
    group_reset_counts();
    wal_syncs = 0;
    CU_ASSERT_EQUAL(store_group_commit_begin(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(store_group_commit_add(fixture.store, &group_commit), 0);
    expect_parted(3);
    group_expect_trace(4, STORE_TRACE_STEP_REMOVED_BY_STAGE, 2, 1);
    group_expect_trace(6, STORE_TRACE_STEP_REMOVED_BY_STAGE, 2, 1);
    group_expect_trace(10, STORE_TRACE_STEP_COMPLETED, 1, 2);
    end();
}

static void a_member_added_after_it_is_committed_too(void)
{
    begin(16);
    lose_lock(5);
    group_member_of(0, STORE_ADVANCE, 0, 3);
    group_member_of(2, STORE_REMOVE_BY_STAGE, 3, 5);
    group_reset_counts();
    wal_syncs = 0;
    CU_ASSERT_EQUAL(store_group_commit_begin(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(store_group_commit_add(fixture.store, &group_commit), 0);
    group_answer_add(group_member_add(1), 15, STORE_COMPLETE);
    CU_ASSERT_EQUAL(store_group_commit_add(fixture.store, &group_commit), 0);
    expect_parted(1);
    group_expect_trace(15, STORE_TRACE_STEP_COMPLETED, 1, 2);
    end();
}

/* ---- refused ---- */

static void expect_nothing(void)
{
    CU_ASSERT_EQUAL(group_applied(), 0);
    CU_ASSERT_FALSE(group_commit.committed);
    CU_ASSERT_TRUE(group_write_lock_is_free());
    CU_ASSERT_EQUAL(group_counted_at(0) + group_counted_at(1), 0);
}

static void a_locked_store_commits_nothing(void)
{
    begin(10);
    group_member_of(0, STORE_ADVANCE, 0, 3);
    group_member_of(1, STORE_COMPLETE, 3, 3);
    group_commit.committed = true;
    sqlite3 *other;
    CU_ASSERT_EQUAL(sqlite3_open(store_files_path(), &other), SQLITE_OK);
    CU_ASSERT_EQUAL(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    CU_ASSERT_EQUAL(store_group_commit_begin(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(store_group_commit_add(fixture.store, &group_commit), EP_ESTOREBUSY);
    CU_ASSERT_EQUAL(store_group_commit_add(fixture.store, &group_commit), EP_ESTOREBUSY);
    CU_ASSERT_EQUAL(store_group_commit_end(fixture.store, &group_commit), EP_ESTOREBUSY);
    CU_ASSERT_EQUAL(group_releases, 1);
    CU_ASSERT_EQUAL(wal_syncs, 0);
    expect_nothing();
    sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL);
    sqlite3_close(other);
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 6);
    CU_ASSERT_EQUAL(group_totals_at(0).processed + group_totals_at(1).processed, 6);
    end();
}

static void a_refused_commit_commits_nothing(void)
{
    begin(10);
    sqlite3 *db = store_sqlite_of(fixture.store)->db; /* SQLite's own limit stands in for the disk's */
    char *big = calloc(1, 100000);
    memset(big, 'x', 99999);
    group_member_of(0, STORE_ADVANCE, 0, 3);
    struct store_answer *full = group_answer_add(group_member_add(1), 3, STORE_ADVANCE);
    full->context = big, full->context_bytes = 99999;
    group_member_of(0, STORE_COMPLETE, 4, 3);
    sqlite3_exec(db, "PRAGMA max_page_count = 1", NULL, NULL, NULL); /* no page more than there are */
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), EP_ESTOREBUSY);
    CU_ASSERT_EQUAL(group_releases, 1);
    expect_nothing();
    CU_ASSERT_EQUAL(group_trace_of(0).count, 1);
    sqlite3_exec(db, "PRAGMA max_page_count = 1000000", NULL, NULL, NULL);
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 7);
    CU_ASSERT_EQUAL(group_totals_at(0).processed, 6);
    free(big);
    end();
}

/* ---- the disk does not sync ---- */

static void a_failed_sync_is_committed(void)
{
    begin(10);
    group_member_of(0, STORE_ADVANCE, 0, 3);
    group_member_of(1, STORE_COMPLETE, 3, 3);
    wal_syncs_refused = 1;
    wal_syncs_main_refused = true;
    int code = store_group_commit(fixture.store, &group_commit);
    wal_syncs_refused = 0;
    wal_syncs_main_refused = false;
    CU_ASSERT_EQUAL(code, fixture.kind == KIND_MEMORY ? 0 : EP_ESTORE);
    CU_ASSERT_TRUE(group_commit.committed);
    CU_ASSERT_EQUAL(group_applied(), fixture.kind == KIND_MEMORY ? 6 : 0);
    if (code != 0)
        CU_ASSERT_PTR_NOT_NULL(strstr(store_errmsg(fixture.store), "not known to be on the disk"));
    CU_ASSERT_EQUAL(group_totals_at(0).processed, 3);
    CU_ASSERT_EQUAL(totals().completed, 3);
    end();
}

/* ---- again ---- */

static struct store_group_member *ask_again(enum store_change change)
{
    group_commit.count = 0;
    struct store_group_member *member = group_member_of(0, change, 0, 3); /* a run, where there are runs */
    struct store_answer *last = group_answer_add(member, 4, change);
    last->context = "{\"n\":1}", last->context_bytes = 7;
    if (change == STORE_ADVANCE)
        last->data = "[4]", last->data_bytes = 3;
    group_answer_add(member, 6, change)->done = "first\nanother\n";
    return member;
}

static void commit_again(enum store_change change, bool committed)
{
    begin(10);
    ask_again(change);
    if (committed) {
        CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
        CU_ASSERT_EQUAL(group_applied(), 5);
    }
    for (int times = 0; times < 2; times++) { /* and again */
        ask_again(change)->again = true;
        wal_syncs = 0;
        CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
        CU_ASSERT_EQUAL(group_applied(), 5);
        CU_ASSERT_EQUAL(wal_syncs, synced_once()); /* also of what it did not write itself */
        CU_ASSERT_EQUAL(group_counted_at(0), 5);
    }
    struct store_totals t = totals();
    CU_ASSERT_EQUAL(t.completed, change == STORE_COMPLETE ? 5 : 0);
    CU_ASSERT_EQUAL(t.removed_by_stage, change == STORE_REMOVE_BY_STAGE ? 5 : 0);
    CU_ASSERT_EQUAL(t.delayed, change == STORE_DELAY ? 5 : 0);
    CU_ASSERT_EQUAL(t.dead, change == STORE_DEAD_LETTER ? 5 : 0);
    CU_ASSERT_EQUAL(t.live, change == STORE_COMPLETE || change == STORE_REMOVE_BY_STAGE ? 5 : 10);
    CU_ASSERT_EQUAL(group_trace_of(0).count, 2);
    CU_ASSERT_EQUAL(group_trace_of(2).count, 2);
    CU_ASSERT_EQUAL(group_trace_of(4).count, 2);
    CU_ASSERT_EQUAL(group_trace_of(6).count, 2);
    end();
}

static void again_counts_once(void)
{
    for (enum store_change change = STORE_ADVANCE; change <= STORE_DEAD_LETTER; change++)
        commit_again(change, true);
}

static void again_does_what_was_not_done(void)
{
    for (enum store_change change = STORE_ADVANCE; change <= STORE_DEAD_LETTER; change++)
        commit_again(change, false);
}

static void what_others_have_is_left_alone(void)
{
    for (enum store_change change = STORE_ADVANCE; change <= STORE_DEAD_LETTER; change++) {
        begin(10);
        lose_lock(0);
        lose_lock(1);
        ask_again(change)->again = true;
        CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
        CU_ASSERT_EQUAL(group_applied(), 3);
        CU_ASSERT_FALSE(group_answers[0][0].applied || group_answers[0][1].applied);
        CU_ASSERT_EQUAL(group_counted_at(0), 3);
        CU_ASSERT_EQUAL(group_trace_of(0).last.kind, STORE_TRACE_STEP_UNLOCKED);
        end();
    }
}

/* The event was delayed, has become due since, and another worker holds it now. */
static void what_was_due_since_is_left_alone(void)
{
    struct held other;
    begin(10);
    ask_again(STORE_DELAY);
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(claim(&other, 5, 100000).count, 5);
    ask_again(STORE_DELAY)->again = true;
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 0);
    CU_ASSERT_EQUAL(group_counted_at(0), 5);
    CU_ASSERT_EQUAL(totals().delayed, 0);
    for (size_t i = 0; i < other.count; i++)
        CU_ASSERT_TRUE(answer(other.at[i], (struct store_answer){.change = STORE_COMPLETE}));
    end();
}

/* An operator has held event 0, and another worker has completed event 1. */
static void what_is_no_longer_at_work_is_left_alone(void)
{
    for (enum store_change change = STORE_ADVANCE; change <= STORE_DEAD_LETTER; change++) {
        struct held other;
        uint64_t changed;
        bool ends = change == STORE_COMPLETE || change == STORE_REMOVE_BY_STAGE;
        bool sets_aside = change == STORE_DELAY || change == STORE_DEAD_LETTER;
        begin(10);
        CU_ASSERT_TRUE(unlock(group_held.at[0], (struct store_unlock){0}));
        struct store_select select = {.uids = (const char *const[]){"u0"}, .uid_count = 1, .state = -1};
        CU_ASSERT_EQUAL(store_change(fixture.store, &select, STORE_HOLD, false, NULL, NULL, &changed), 0);
        CU_ASSERT_TRUE(unlock(group_held.at[1], (struct store_unlock){0}));
        store_rescan(fixture.store, fixture.source);
        CU_ASSERT_EQUAL(claim(&other, 1, 1000).count, 1);
        CU_ASSERT_TRUE(answer(other.at[0], (struct store_answer){.change = STORE_COMPLETE}));
        ask_again(change)->again = true;
        CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
        CU_ASSERT_EQUAL(group_answers[0][0].applied, sets_aside); /* nothing is left to be done */
        CU_ASSERT_EQUAL(group_answers[0][1].applied, ends);
        CU_ASSERT_EQUAL(group_counted_at(0), 1 + 3);
        CU_ASSERT_EQUAL(totals().held, 1);
        CU_ASSERT_EQUAL(group_trace_of(0).last.kind, STORE_TRACE_STEP_HELD);
        end();
    }
}

static void again_beside_others(void)
{
    begin(10);
    ask_again(STORE_ADVANCE);
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    group_commit.count = 0;
    group_member_of(1, STORE_COMPLETE, 7, 3);
    struct store_group_member *member = group_member_add(0);
    member->again = true;
    for (size_t i = 0; i < 4; i++) /* of these the one at 3 had not been answered before */
        group_answer_add(member, i, STORE_ADVANCE);
    wal_syncs = 0;
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 7);
    CU_ASSERT_EQUAL(wal_syncs, synced_once());
    CU_ASSERT_EQUAL(group_counted_at(0), 6);
    CU_ASSERT_EQUAL(group_counted_at(1), 3);
    ask_again(STORE_ADVANCE)->again = true;
    group_member_of(1, STORE_COMPLETE, 7, 1); /* void: nothing is written */
    wal_syncs = 0;
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 5);
    CU_ASSERT_EQUAL(wal_syncs, synced_once());
    end();
}

static void locks_of_an_older_start_are_void(void)
{
    begin(10);
    fixture_restart();
    group_count_engine();
    ask_again(STORE_COMPLETE)->again = true;
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    CU_ASSERT_EQUAL(group_applied(), 0);
    CU_ASSERT_EQUAL(totals().live, 10);
    end();
}

STORE_MAIN("store: group commit again",
           {"one lost lock spoils nothing else", one_lost_lock_spoils_nothing_else},
           {"a member added after it is committed, too", a_member_added_after_it_is_committed_too},
           {"a locked store commits nothing", a_locked_store_commits_nothing},
           {"nor does a refused commit", a_refused_commit_commits_nothing},
           {"a failed sync is committed, and told of", a_failed_sync_is_committed},
           {"again, it counts once", again_counts_once},
           {"again does what was not done", again_does_what_was_not_done},
           {"what others have is left alone", what_others_have_is_left_alone},
           {"so is what was due since", what_was_due_since_is_left_alone},
           {"so is what is no longer at work", what_is_no_longer_at_work_is_left_alone},
           {"again beside others", again_beside_others},
           {"locks of an older start are void", locks_of_an_older_start_are_void})
