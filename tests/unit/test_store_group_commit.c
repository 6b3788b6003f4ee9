/* SPDX-License-Identifier: MIT */
/* The answers of several workers in one transaction: all are committed, or none; who comes late; the gate. */
#include "tests/unit/store_group_commit_rig.h"

/* ---- one transaction ---- */

static void groups_of_two_stages(void)
{
    groups_begin(SYNCHRONOUS_NORMAL, 20);
    struct store_group *group = group_of(0, STORE_ADVANCE, 0, 4);
    answer_add(group, 4, STORE_DELAY)->words = "not yet";
    group = group_of(1, STORE_FINISH, 5, 3);
    answer_add(group, 8, STORE_REMOVE);
    group = group_of(0, STORE_BURY, 9, 1);
    answer_add(group, 10, STORE_DELAY)->failed = true;
    struct store_answer *changed = answer_add(group, 11, STORE_ADVANCE);
    changed->data = "{\"n\":-11}", changed->data_bytes = 9;
    CU_ASSERT_EQUAL(store_commit_groups(fixture.store, &groups), 0);
    CU_ASSERT_EQUAL(applied(), 12);
    CU_ASSERT_EQUAL(commits, 1);
    CU_ASSERT_EQUAL(rollbacks, 0);
    CU_ASSERT_EQUAL(left, 1);
    struct store_stage_totals first = totals_at(0), second = totals_at(1);
    CU_ASSERT_EQUAL(first.processed, 5);
    CU_ASSERT_EQUAL(first.retried, 1);
    CU_ASSERT_EQUAL(first.failed, 1);
    CU_ASSERT_EQUAL(first.rejected, 1);
    CU_ASSERT_EQUAL(counted_at(0), 8);
    CU_ASSERT_EQUAL(second.processed, 3);
    CU_ASSERT_EQUAL(second.removed, 1);
    CU_ASSERT_EQUAL(counted_at(1), 4);
    CU_ASSERT_EQUAL(counted_at(2), 0);
    struct store_totals t = totals();
    CU_ASSERT_EQUAL(t.finished, 3);
    CU_ASSERT_EQUAL(t.removed, 1);
    CU_ASSERT_EQUAL(t.delayed, 2);
    CU_ASSERT_EQUAL(t.dead, 1);
    CU_ASSERT_EQUAL(t.live, 16);
    for (size_t i = 0; i < 4; i++)
        expect_told(i, STORE_STEP_PROCESSED, 0, 0);
    expect_told(4, STORE_STEP_RETRIED, 0, 0);
    for (size_t i = 5; i < 8; i++)
        expect_told(i, STORE_STEP_FINISHED, 1, 1);
    expect_told(8, STORE_STEP_REMOVED, 1, 1);
    expect_told(9, STORE_STEP_REJECTED, 0, 2);
    expect_told(10, STORE_STEP_FAILED, 0, 2);
    expect_told(11, STORE_STEP_PROCESSED, 0, 2);
    CU_ASSERT_EQUAL(told_of(12).count, 1);
    groups_end();
}

static void as_many_as_there_may_be(void)
{
    groups_begin(SYNCHRONOUS_NORMAL, 3 * STORE_GROUPS_MAX);
    for (size_t i = 0; i < STORE_GROUPS_MAX; i++)
        group_of((int)i % 3, STORE_FINISH, 3 * i, 3);
    CU_ASSERT_EQUAL(store_commit_groups(fixture.store, &groups), 0);
    CU_ASSERT_EQUAL(applied(), 3 * STORE_GROUPS_MAX);
    CU_ASSERT_EQUAL(commits, 1);
    for (int stage = 0; stage < 3; stage++)
        CU_ASSERT_EQUAL(totals_at(stage).processed, STORE_GROUPS_MAX);
    CU_ASSERT_EQUAL(totals().finished, 3 * STORE_GROUPS_MAX);
    groups_end();
}

/* ---- gather ---- */

static int gathers, gathers_until; /* adds a group each time up to this one */
static bool gather_answer;

static bool gather(struct store_groups *asked, void *user)
{
    bool first = gathers++ == 0;
    CU_ASSERT_PTR_EQUAL(asked, &groups);
    CU_ASSERT_PTR_EQUAL(user, &gathers);
    CU_ASSERT_FALSE(gate_is_free());
    CU_ASSERT_EQUAL(sqlite3_get_autocommit(store_sqlite_of(fixture.store)->db) != 0, first);
    if (gathers <= gathers_until)
        group_of(1, STORE_FINISH, 5 * (size_t)gathers, 5);
    return gather_answer;
}

static void gather_with(bool answer, int until)
{
    gathers = 0;
    gathers_until = until;
    gather_answer = answer;
    groups.gather = gather;
    groups.user = &gathers;
}

static void late_ones_are_committed(void)
{
    for (int until = 0; until <= 3; until++) {
        groups_begin(SYNCHRONOUS_NORMAL, 20);
        group_of(0, STORE_FINISH, 0, 5);
        gather_with(true, until);
        CU_ASSERT_EQUAL(store_commit_groups(fixture.store, &groups), 0);
        CU_ASSERT_EQUAL(groups.count, 1 + (size_t)until);
        CU_ASSERT_EQUAL(applied(), 5 + 5 * (size_t)until);
        CU_ASSERT_EQUAL(commits, 1);
        CU_ASSERT_EQUAL(gathers, until < 2 ? 2 : until + 1); /* until nobody comes */
        CU_ASSERT_EQUAL(totals().finished, 5 + 5 * (uint64_t)until);
        CU_ASSERT_EQUAL(totals_at(1).processed, 5 * (uint64_t)until);
        groups_end();
    }
}

static void nothing_is_done_for_nobody(void)
{
    groups_begin(SYNCHRONOUS_NORMAL, 10);
    group_of(0, STORE_FINISH, 0, 5);
    for (int at_once = 0; at_once < 2; at_once++) {
        reset_counts();
        groups.at_once = at_once != 0;
        gather_with(false, 0);
        CU_ASSERT_EQUAL(store_commit_groups(fixture.store, &groups), EP_EBUSY);
        CU_ASSERT_FALSE(groups.committed);
        CU_ASSERT_EQUAL(gathers, 1);
        CU_ASSERT_EQUAL(commits, 0);
        CU_ASSERT_EQUAL(left, 1);
        CU_ASSERT_TRUE(gate_is_free());
        CU_ASSERT_EQUAL(totals().live, 10);
        CU_ASSERT_EQUAL(counted_at(0), 0);
    }
    gather_with(true, 0);
    CU_ASSERT_EQUAL(store_commit_groups(fixture.store, &groups), 0);
    CU_ASSERT_EQUAL(applied(), 5);
    groups_end();
}

/* ---- the gate ---- */

/* A child that holds the gate until it is killed. */
static pid_t holder(void)
{
    int ready[2];
    char byte = 0;
    CU_ASSERT_EQUAL_FATAL(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        if (gate_enter(gate, 120000) == 0 && write(ready[1], "x", 1) == 1)
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
    groups_begin(SYNCHRONOUS_NORMAL, 10);
    group_of(0, STORE_FINISH, 0, 5);
    pid_t child = holder();
    groups.at_once = true;
    gather_with(true, 0);
    CU_ASSERT_EQUAL(store_commit_groups(fixture.store, &groups), EP_EBUSY);
    CU_ASSERT_FALSE(groups.committed);
    CU_ASSERT_EQUAL(gathers, 0);
    CU_ASSERT_EQUAL(left, 0);
    CU_ASSERT_EQUAL(totals().live, 10);
    CU_ASSERT_FALSE(gate_is_free());
    kill(child, SIGKILL);
    CU_ASSERT_EQUAL(waitpid(child, NULL, 0), child);
    CU_ASSERT_EQUAL(store_commit_groups(fixture.store, &groups), 0);
    CU_ASSERT_EQUAL(applied(), 5);
    CU_ASSERT_EQUAL(left, 1);
    groups_end();
}

static void a_gate_that_stays_shut_stops_nobody(void)
{
    groups_begin(SYNCHRONOUS_NORMAL, 10);
    group_of(0, STORE_FINISH, 0, 5);
    pid_t child = holder();
    CU_ASSERT_EQUAL(store_commit_groups(fixture.store, &groups), 0); /* after busy_timeout */
    CU_ASSERT_EQUAL(applied(), 5);
    CU_ASSERT_EQUAL(left, 0); /* never at it */
    CU_ASSERT_FALSE(gate_is_free());
    kill(child, SIGKILL);
    CU_ASSERT_EQUAL(waitpid(child, NULL, 0), child);
    groups_end();
}

static void each_leaving_is_told(void)
{
    groups_begin(SYNCHRONOUS_NORMAL, 10);
    struct held more;
    ingest("v", 0, 5);
    CU_ASSERT_EQUAL(left, 1);
    claim(&more, 1, 1000);
    CU_ASSERT_EQUAL(left, 2);
    CU_ASSERT_TRUE(release(more.at[0], (struct store_release){0}));
    CU_ASSERT_EQUAL(left, 3);
    CU_ASSERT_EQUAL(store_set_cursor(fixture.store, fixture.source, "x"), 0);
    CU_ASSERT_EQUAL(left, 4);
    CU_ASSERT_TRUE(answer(held.at[0], (struct store_answer){.change = STORE_FINISH}));
    CU_ASSERT_EQUAL(left, 5);
    CU_ASSERT_EQUAL(totals().live, 14); /* readers are never there */
    CU_ASSERT_EQUAL(left, 5);
    struct store_event bad = {.uid = NULL};
    struct store_page page = {&bad, 1, NULL, false, 1000, false, NULL};
    struct store_ingested ingested;
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, NULL, &ingested), EP_EINVAL);
    CU_ASSERT(left == 5 || left == 6);
    groups_end();
}

STORE_MAIN("store: groups", {"groups of two stages in one transaction", groups_of_two_stages},
           {"as many as there may be", as_many_as_there_may_be},
           {"who comes late is committed, too", late_ones_are_committed},
           {"nothing is done for nobody", nothing_is_done_for_nobody},
           {"at once does not queue", no_queue_at_once},
           {"a gate that stays shut stops nobody", a_gate_that_stays_shut_stops_nobody},
           {"each leaving of the gate is told", each_leaving_is_told})
