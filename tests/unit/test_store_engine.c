/* SPDX-License-Identifier: MIT */
/* The SQLite engine itself: what it does when it is refused, how its statements find their rows, its WAL, its
 * write lock. */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#include "shm/write_lock.h"
#include "src/store/sqlite/sqlite.h"
#include "tests/lib/store_files.h"

/* ---- refusals at run time ---- */

static void a_locked_store_is_tried_again_later(void)
{
    fixture_begin();
    struct held held;
    ingest("u", 0, 10);
    claim(&held, 10, 1000);
    sqlite3 *other;
    CU_ASSERT_EQUAL(sqlite3_open(store_files_path(), &other), SQLITE_OK);
    CU_ASSERT_EQUAL(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    struct store_answer finish = {.lock = held.at[0], .change = STORE_COMPLETE, .applied = true};
    CU_ASSERT_EQUAL(store_commit(fixture.store, fixture.source, 0, &finish, 1), EP_ESTOREBUSY);
    CU_ASSERT_FALSE(finish.applied);
    CU_ASSERT_PTR_NOT_NULL(strstr(store_errmsg(fixture.store), "SQLITE_BUSY"));
    CU_ASSERT_PTR_NOT_NULL(strstr(store_errmsg(fixture.store), store_files_path()));
    CU_ASSERT_EQUAL(totals().live, 10); /* reading goes on */
    sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL);
    sqlite3_close(other);
    CU_ASSERT_EQUAL(store_commit(fixture.store, fixture.source, 0, &finish, 1), 0);
    CU_ASSERT_TRUE(finish.applied);
    fixture_end();
}

static void a_full_disk_acknowledges_nothing(void)
{
    fixture_begin();
    struct held held;
    ingest_with_cursor("u", 0, 10, "before");
    claim(&held, 5, 1000);
    sqlite3 *db = store_sqlite_of(fixture.store)->db; /* SQLite's own limit stands in for the disk's */
    sqlite3_exec(db, "PRAGMA max_page_count = 1", NULL, NULL,
                 NULL); /* that is: no page more than there are */
    char *big = calloc(1, 100000);
    memset(big, 'x', 99999);
    struct store_event events[] = {{.uid = "a", .data = "1", .data_bytes = 1},
                                   {.uid = "b", .data = big, .data_bytes = 99999}};
    struct store_page page = {events, 2, "after", false, 1000, false, NULL};
    struct store_ingested out;
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &out), EP_ESTOREBUSY);
    CU_ASSERT_PTR_NOT_NULL(strstr(store_errmsg(fixture.store), "disk full (SQLITE_FULL)"));
    struct store_answer answers[] = {{.lock = held.at[0], .change = STORE_ADVANCE, .done = "first\n"},
                                     {.lock = held.at[1],
                                      .change = STORE_ADVANCE,
                                      .done = "first\n",
                                      .context = big,
                                      .context_bytes = 99999}};
    CU_ASSERT_EQUAL(store_commit(fixture.store, fixture.source, fixture.stages[0], answers, 2),
                    EP_ESTOREBUSY);
    CU_ASSERT_FALSE(answers[0].applied);
    CU_ASSERT_FALSE(answers[1].applied);
    CU_ASSERT_EQUAL(totals().fetched, 10);
    CU_ASSERT_EQUAL(stage_totals().processed, 0);
    char *cursor = NULL;
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_STRING_EQUAL(cursor, "before");
    free(cursor);
    sqlite3_exec(db, "PRAGMA max_page_count = 1000000", NULL, NULL, NULL); /* there is room again */
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &out), 0);
    CU_ASSERT_EQUAL(out.stored, 2);
    CU_ASSERT_EQUAL(store_commit(fixture.store, fixture.source, fixture.stages[0], answers, 2), 0);
    CU_ASSERT_TRUE(answers[0].applied && answers[1].applied);
    free(big);
    fixture_end();
}

static void damage_is_found_and_said(void)
{
    fixture_begin();
    int faults = 0;
    ingest("u", 0, 100);
    store_files_meddle("UPDATE source SET live = live - 1; DELETE FROM progress WHERE seq % 100 = 7;"
                       "INSERT INTO suspended(seq, source, state) SELECT seq, 1, 4 FROM progress LIMIT 1;"
                       "INSERT INTO progress(seq, token) VALUES(5, 99 << 40)");
    fprintf(stderr, "(expected:)\n");
    CU_ASSERT_EQUAL(store_check(fixture.store, fixture_fault, &faults), 0);
    CU_ASSERT(faults >= 6);
    /* pages overwritten with rubbish: EP_ESTORE, and the check tells */
    CU_ASSERT_EQUAL(store_checkpoint(fixture.store, true), 0);
    store_close(&fixture.store);
    int fd = open(store_files_path(), O_WRONLY);
    char rubbish[4096];
    memset(rubbish, 0xa5, sizeof rubbish);
    for (int page = 2; page < 30; page++)
        CU_ASSERT_EQUAL(pwrite(fd, rubbish, sizeof rubbish, page * 4096L), 4096);
    close(fd);
    fixture.store = fixture_open(false);
    faults = 0;
    CU_ASSERT_EQUAL(store_check(fixture.store, fixture_fault, &faults), 0);
    CU_ASSERT(faults > 0);
    struct store_totals out;
    CU_ASSERT_EQUAL(store_source_totals(fixture.store, fixture.source, &out), EP_ESTORE);
    CU_ASSERT_PTR_NOT_NULL(strstr(store_errmsg(fixture.store), "damaged"));
    store_close(&fixture.store);
    CU_ASSERT_EQUAL(unlink(store_files_path()), 0);
    CU_ASSERT_EQUAL(fixture_prepare(), 0);
    fixture.store = fixture_open(false);
    fixture_end();
}

static int count_item(const struct store_item *item, void *user)
{
    CU_ASSERT_EQUAL(item->data_bytes, strlen(item->data));
    ++*(int *)user;
    return 0;
}

/* The number of the page that holds this text in clear, -1: none does. */
static long page_with(int fd, const char *text)
{
    char page[4096];
    for (long at = 0; pread(fd, page, sizeof page, at * 4096) == 4096; at++)
        if (memmem(page, sizeof page, text, strlen(text)) != NULL)
            return at;
    return -1;
}

static void damage_hides_nothing_else(void)
{
    fixture_begin();
    char rubbish[4096];
    memset(rubbish, 0xa5, sizeof rubbish);
    for (int i = 0; i < 30; i++)
        ingest("u", i * 100, 100);
    CU_ASSERT_EQUAL(store_checkpoint(fixture.store, true), 0);
    store_close(&fixture.store);
    int fd = open(store_files_path(), O_RDWR);
    long page = page_with(fd, "{\"n\":1500}"); /* of events, in the middle of them */
    CU_ASSERT_FATAL(page > 1);
    CU_ASSERT_EQUAL(pwrite(fd, rubbish, sizeof rubbish, page * 4096), 4096);
    close(fd);
    fixture.store = fixture_open(false);
    const struct store_select all = {.state = -1};
    int found = 0;
    CU_ASSERT_EQUAL(store_list(fixture.store, &all, true, count_item, &found), EP_ESTORE);
    CU_ASSERT_PTR_NOT_NULL(strstr(store_errmsg(fixture.store), "damaged"));
    CU_ASSERT(found > 2800 && found < 3000);
    const char *uids[] = {"u1500", "u2999", "u1"};
    const struct store_select some = {.state = -1, .uids = uids, .uid_count = 3};
    found = 0;
    CU_ASSERT_EQUAL(store_list(fixture.store, &some, true, count_item, &found), EP_ESTORE);
    CU_ASSERT_EQUAL(found, 2);
    store_close(&fixture.store);
    CU_ASSERT_EQUAL(unlink(store_files_path()), 0);
    CU_ASSERT_EQUAL(fixture_prepare(), 0);
    fixture.store = fixture_open(false);
    fixture_end();
}

/* ---- the write lock ---- */

static bool write_lock_is_free(void)
{
    int result = pthread_mutex_trylock(fixture.options.write_lock);
    if (result == 0)
        pthread_mutex_unlock(fixture.options.write_lock);
    return result == 0;
}

static void the_write_lock_is_held_by_writers_only(void)
{
    static pthread_mutex_t write_lock;
    fixture_begin();
    store_close(&fixture.store);
    CU_ASSERT_EQUAL_FATAL(write_lock_init(&write_lock), 0);
    fixture.options.write_lock = &write_lock;
    fixture.store = fixture_open(false);
    struct held held;
    struct store_claimed out;
    ingest("u", 0, 10);
    CU_ASSERT_TRUE(write_lock_is_free());
    const struct store_claim wanted = held_claim(&held, 5);
    CU_ASSERT_EQUAL(store_claim_begin(fixture.store, fixture.source, 1000, &wanted, &out), 0);
    CU_ASSERT_FALSE(write_lock_is_free());
    held_end(fixture.store, &held, &out);
    CU_ASSERT_EQUAL(held.count, 5);
    CU_ASSERT_TRUE(write_lock_is_free());
    struct store_event bad = {.uid = NULL};
    struct store_page page = {&bad, 1, NULL, false, 1000, false, NULL};
    struct store_ingested ingested;
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &ingested), EP_EINVAL);
    CU_ASSERT_TRUE(write_lock_is_free());
    answer(held.at[0], (struct store_answer){.change = STORE_COMPLETE});
    CU_ASSERT_TRUE(write_lock_is_free());
    CU_ASSERT_EQUAL(store_checkpoint(fixture.store, true), 0);
    CU_ASSERT_TRUE(write_lock_is_free());
    sqlite3 *other;
    sqlite3_open(store_files_path(), &other);
    sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    CU_ASSERT_EQUAL(store_set_cursor(fixture.store, fixture.source, "x"), EP_ESTOREBUSY);
    CU_ASSERT_TRUE(write_lock_is_free());
    sqlite3_close(other);
    /* a write lock that is not released is no reason to stop: SQLite's own lock decides */
    pthread_mutex_lock(&write_lock);
    CU_ASSERT_EQUAL(store_set_cursor(fixture.store, fixture.source, "y"), 0);
    CU_ASSERT_FALSE(write_lock_is_free()); /* still the other's */
    pthread_mutex_unlock(&write_lock);
    fixture_end();
}

/* ---- statements ---- */

static void no_statement_scans_what_grows(void)
{
    fixture_begin();
    ingest("u", 0, 100);
    sqlite3 *db = store_sqlite_of(fixture.store)->db;
    int plans = 0;
    for (int which = 0; which < SQL_STATEMENTS; which++) {
        bool small;
        char sql[2048];
        sqlite3_stmt *statement;
        snprintf(sql, sizeof sql, "EXPLAIN QUERY PLAN %s",
                 store_sqlite_sql((enum store_sqlite_statement)which, &small));
        CU_ASSERT_EQUAL_FATAL(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
        while (sqlite3_step(statement) == SQLITE_ROW) {
            const char *step = (const char *)sqlite3_column_text(statement, 3);
            bool bad = !small && (strncmp(step, "SCAN", 4) == 0 || strstr(step, "TEMP B-TREE") != NULL ||
                                  strstr(step, "event_uid (source=?)") != NULL); /* all of a source */
            if (bad)
                fprintf(stderr, "%s\n  %s\n", sql, step);
            CU_ASSERT_FALSE(bad);
            plans++;
        }
        sqlite3_finalize(statement);
    }
    CU_ASSERT(plans > 30);
    fixture_end();
}

/* ---- the WAL ---- */

static int grown;
static void note_growth(void *user)
{
    (void)user;
    grown++;
}

static void the_wal_is_kept_short(void)
{
    fixture_begin();
    store_close(&fixture.store);
    fixture.options.wal_bytes = 100000;
    fixture.options.wal_grown = note_growth;
    fixture.store = fixture_open(false);
    uint64_t bytes, wal_bytes, most = 0;
    grown = 0;
    ingest("a", 0, 10);
    CU_ASSERT_EQUAL(grown, 0);
    for (int i = 0; i < 200; i++) {
        ingest("u", i * 100, 100);
        CU_ASSERT_EQUAL(store_sizes(fixture.store, &bytes, &wal_bytes), 0);
        most = wal_bytes > most ? wal_bytes : most;
    }
    CU_ASSERT(grown > 5);
    CU_ASSERT(most > 3 * 100000 && most < 4 * 100000); /* nobody heeded the call: the writer helped itself */
    CU_ASSERT_EQUAL(store_checkpoint(fixture.store, false), 0);
    CU_ASSERT_EQUAL(store_checkpoint(fixture.store, true), 0);
    CU_ASSERT_EQUAL(store_sizes(fixture.store, &bytes, &wal_bytes), 0);
    CU_ASSERT_EQUAL(wal_bytes, 0);
    CU_ASSERT(bytes > 20000 * 30);
    fixture_end();
}

static void idle_writes_nothing(void)
{
    fixture_begin();
    struct held held;
    struct store_page page = {NULL, 0, "same", false, 1000, false, NULL};
    ingest_with_cursor("u", 0, 10, "same");
    claim(&held, 10, 1000);
    answer(held.at[0], (struct store_answer){.change = STORE_DELAY, .due_ms = 9000});
    int before = sqlite3_total_changes(store_sqlite_of(fixture.store)->db);
    CU_ASSERT_EQUAL(store_checkpoint(fixture.store, true), 0);
    for (int i = 0; i < 10; i++) {
        CU_ASSERT_EQUAL(claim(&held, 10, 1000).next_due_ms, 9000);
        CU_ASSERT_EQUAL(ingest_page(&page, &held, 10).stored, 0);
    }
    CU_ASSERT_EQUAL(sqlite3_total_changes(store_sqlite_of(fixture.store)->db), before);
    uint64_t bytes, wal_bytes;
    CU_ASSERT_EQUAL(store_sizes(fixture.store, &bytes, &wal_bytes), 0);
    CU_ASSERT_EQUAL(wal_bytes, 0);
    fixture_end();
}

STORE_MAIN("store: engine", {"a locked store is tried again later", a_locked_store_is_tried_again_later},
           {"a full disk acknowledges nothing", a_full_disk_acknowledges_nothing},
           {"damage is found and said", damage_is_found_and_said},
           {"damage hides nothing else", damage_hides_nothing_else},
           {"the write lock is held by writers only, and left", the_write_lock_is_held_by_writers_only},
           {"no statement scans what grows with the backlog", no_statement_scans_what_grows},
           {"the WAL is kept short", the_wal_is_kept_short},
           {"an idle producer writes nothing", idle_writes_nothing})
