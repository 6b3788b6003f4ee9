/* SPDX-License-Identifier: MIT */
/* A range of events is read, advanced and completed with one statement. These tests check ranges in which one
 * event differs from the others: in its lock, its answer or its data. */
#include <sqlite3.h>
#include <stdio.h>

#include "tests/lib/store_files.h"

#define RUN 6

static struct store_answer answers[RUN];
static size_t seen[RUN + 1], seen_count;

static int on_row(size_t index, const struct store_row *row, void *user)
{
    (void)row, (void)user;
    seen[seen_count++] = index;
    return 0;
}

static void commit(const struct held *held, const struct store_answer *wanted)
{
    for (size_t i = 0; i < RUN; i++) {
        answers[i] = *wanted;
        answers[i].lock = held->at[i];
    }
    CU_ASSERT_EQUAL(store_commit(fixture.store, fixture.source, fixture.stages[0], answers, RUN), 0);
}

static void expect_applied(const char *pattern)
{
    for (size_t i = 0; i < RUN; i++)
        CU_ASSERT_EQUAL(answers[i].applied, pattern[i] == '1');
}

static void expect_read(const struct held *held, const char *pattern)
{
    seen_count = 0;
    CU_ASSERT_EQUAL(store_read(fixture.store, held->at, RUN, on_row, NULL), 0);
    size_t count = 0;
    for (size_t i = 0; i < RUN; i++)
        if (pattern[i] == '1' && count < seen_count)
            CU_ASSERT_EQUAL(seen[count++], i);
    CU_ASSERT_EQUAL(seen_count, count);
}

static const struct store_answer advances = {.change = STORE_ADVANCE, .done = "first\n"};
static const struct store_answer finishes = {.change = STORE_COMPLETE};

static void begin(struct held *held)
{
    fixture_begin();
    ingest_claiming("u", 0, RUN, NULL, held, RUN);
    CU_ASSERT_EQUAL(held->count, RUN);
}

static void whole_runs(void)
{
    struct held held;
    begin(&held);
    expect_read(&held, "111111");
    commit(&held, &advances);
    expect_applied("111111");
    CU_ASSERT_EQUAL(stage_totals().processed, RUN);
    commit(&held, &finishes);
    expect_applied("111111");
    CU_ASSERT_EQUAL(totals().completed, RUN);
    CU_ASSERT_EQUAL(totals().live, 0);
    expect_read(&held, "000000");
    fixture_end();
}

static void a_lock_lost_in_the_middle(void)
{
    struct held held;
    char sql[100];
    begin(&held);
    snprintf(sql, sizeof sql, "UPDATE progress SET token = 0 WHERE seq = %lld", (long long)held.at[2].event);
    store_files_meddle(sql);
    expect_read(&held, "110111");
    commit(&held, &advances);
    expect_applied("110111");
    CU_ASSERT_EQUAL(stage_totals().processed, RUN - 1); /* what was rolled back counts once */
    commit(&held, &finishes);
    expect_applied("110111");
    CU_ASSERT_EQUAL(totals().completed, RUN - 1);
    CU_ASSERT_EQUAL(totals().live, 1);
    struct held rest;
    store_rescan(fixture.store, fixture.source);
    CU_ASSERT_EQUAL(claim(&rest, 10, 1000).count, 1);
    CU_ASSERT_EQUAL(rest.at[0].event, held.at[2].event);
    CU_ASSERT_STRING_EQUAL(rest.done, "");
    fixture_end();
}

/* A context of one's own, another answer, another owner's events in between: each takes what is its own. */
static void mixed_answers(void)
{
    struct held held;
    begin(&held);
    for (size_t i = 0; i < RUN; i++)
        answers[i] = (struct store_answer){.lock = held.at[i], .change = STORE_ADVANCE, .done = "first\n"};
    answers[1].context = "{\"c\":1}";
    answers[1].context_bytes = 7;
    answers[3].change = STORE_REMOVE_BY_STAGE;
    answers[4].done = "first\nsecond\n";
    CU_ASSERT_EQUAL(store_commit(fixture.store, fixture.source, fixture.stages[0], answers, RUN), 0);
    expect_applied("111111");
    static const char *const contexts[RUN] = {"", "{\"c\":1}", "", NULL, "", ""};
    static const char *const done[RUN] = {"first\n", "first\n",         "first\n",
                                          NULL,      "first\nsecond\n", "first\n"};
    for (size_t i = 0; i < RUN; i++) {
        char sql[200];
        int64_t rows = contexts[i] != NULL;
        sqlite3 *db;
        sqlite3_stmt *statement;
        snprintf(sql, sizeof sql,
                 "SELECT count(*) FROM progress WHERE seq = %lld AND context = '%s' AND done = '%s'",
                 (long long)held.at[i].event, rows ? contexts[i] : "", rows ? done[i] : "");
        CU_ASSERT_EQUAL_FATAL(sqlite3_open(store_files_path(), &db), SQLITE_OK);
        CU_ASSERT_EQUAL_FATAL(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
        CU_ASSERT_EQUAL(sqlite3_step(statement), SQLITE_ROW);
        CU_ASSERT_EQUAL(sqlite3_column_int64(statement, 0), rows);
        sqlite3_finalize(statement);
        sqlite3_close(db);
    }
    CU_ASSERT_EQUAL(totals().removed_by_stage, 1);
    CU_ASSERT_EQUAL(totals().live, RUN - 1);
    fixture_end();
}

/* Two owners hold every other event of one claim. */
static void runs_of_two_owners(void)
{
    struct held held;
    begin(&held);
    struct store_answer mine[RUN / 2];
    for (size_t i = 0; i < RUN / 2; i++)
        mine[i] = (struct store_answer){.lock = held.at[2 * i], .change = STORE_COMPLETE};
    CU_ASSERT_EQUAL(store_commit(fixture.store, fixture.source, fixture.stages[0], mine, RUN / 2), 0);
    expect_read(&held, "010101");
    CU_ASSERT_EQUAL(totals().live, RUN / 2);
    fixture_end();
}

static void a_page_claimed_in_part_with_a_dead_event(void)
{
    fixture_begin();
    struct held held;
    struct store_event events[RUN];
    char uids[RUN][8];
    for (int i = 0; i < RUN; i++) {
        snprintf(uids[i], sizeof uids[i], "u%d", i);
        events[i] = (struct store_event){.uid = uids[i], .data = "{}", .data_bytes = 2};
    }
    events[1].dead = STORE_REASON_CORRUPT;
    events[1].error = "rubbish";
    struct store_page page = {events, RUN, NULL, false, 1000, false, NULL};
    CU_ASSERT_EQUAL(ingest_page(&page, &held, 3).stored, RUN);
    CU_ASSERT_EQUAL(held.count, 3);
    CU_ASSERT_EQUAL(held.at[2].event, held.at[0].event + 3); /* 0, 2 and 3 */
    CU_ASSERT_EQUAL(totals().dead, 1);
    struct held rest;
    CU_ASSERT_EQUAL(claim(&rest, 10, 1000).count, 2);
    CU_ASSERT_EQUAL(rest.at[0].event, held.at[0].event + 4);
    fixture_end();
}

/* By a process that has crashed before it could say so. */
static void a_run_committed_already(void)
{
    struct held held;
    begin(&held);
    commit(&held, &advances);
    for (size_t i = 0; i < RUN; i++)
        answers[i].applied = false;
    struct store_group_commit group_commit = {.count = 1};
    group_commit.member[0] = (struct store_group_member){.source = fixture.source,
                                                         .stage = fixture.stages[0],
                                                         .again = true,
                                                         .answers = answers,
                                                         .count = RUN};
    CU_ASSERT_EQUAL(store_group_commit(fixture.store, &group_commit), 0);
    expect_applied("111111");
    CU_ASSERT_EQUAL(stage_totals().processed, RUN);
    fixture_end();
}

STORE_MAIN("store: runs", {"events that came together are read, advanced and finished together", whole_runs},
           {"a lock lost in the middle loses no other, and nothing twice", a_lock_lost_in_the_middle},
           {"each answer takes what is its own", mixed_answers},
           {"two owners of one claim do not meet", runs_of_two_owners},
           {"a run that was committed already is told of and counts once", a_run_committed_already},
           {"a page claimed in part, with a dead event", a_page_claimed_in_part_with_a_dead_event})
