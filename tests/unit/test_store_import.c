/* SPDX-License-Identifier: MIT */
/* The store's import: all in one transaction, nothing twice, and a store of version 1 that is migrated for
 * it. */
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/lib/store_files.h"

struct feed { /* rows to be imported, and what became of them */
    const struct store_import_row *rows;
    size_t count, at, stored, known;
    int code; /* at the end, instead of 0 */
};

static int feed_next(struct store_import_row *row, void *user)
{
    struct feed *feed = user;
    if (feed->at == feed->count)
        return feed->code;
    *row = feed->rows[feed->at++];
    return 1;
}

static void feed_took(const struct store_import_row *row, bool stored, void *user)
{
    struct feed *feed = user;
    CU_ASSERT_STRING_EQUAL(row->event.uid, feed->rows[feed->at - 1].event.uid);
    feed->stored += stored;
    feed->known += !stored;
}

/* Imports into `store`; *set tells of the cursor, where there is one. */
static int take(struct store *store, struct feed *feed, const char *cursor, bool trial, bool *set)
{
    struct store_import_cursor wanted = {.source = fixture.source, .cursor = cursor, .set = true};
    struct store_import import = {.next = feed_next,
                                  .took = feed_took,
                                  .user = feed,
                                  .cursors = &wanted,
                                  .cursor_count = 1,
                                  .now_ms = 5000,
                                  .trial = trial};
    feed->at = feed->stored = feed->known = 0;
    int code = store_import(store, &import);
    if (code != feed->code)
        fprintf(stderr, "store_import: %s\n", store_errmsg(store));
    if (set != NULL)
        *set = wanted.set;
    return code;
}

static struct store_import_row row_of(const char *uid, const char *done, const char *context)
{
    return (struct store_import_row){
        .source = fixture.source,
        .event = {.uid = uid, .address = "device-1", .type = "t", .data = "{\"n\": 1}", .data_bytes = 8},
        .done = done,
        .context = context,
        .context_bytes = strlen(context)};
}

/* ---- what is stored ---- */

struct found {
    char text[4096];
};

static int on_item(const struct store_item *item, void *user)
{
    struct found *found = user;
    size_t used = strlen(found->text);
    char done[64];
    snprintf(done, sizeof done, "%s", item->done);
    for (char *at = done; *at != '\0'; at++)
        *at = *at == '\n' ? ' ' : *at;
    snprintf(found->text + used, sizeof found->text - used, "%s %s %s [%s] %.*s %.*s %s %llu\n", item->uid,
             store_state_name(item->state), store_reason_name(item->reason), done, (int)item->context_bytes,
             item->context, (int)item->data_bytes, item->data, item->error,
             (unsigned long long)item->arrival_ms);
    return 0;
}

static const char *stored_events(struct store *store)
{
    static struct found found;
    struct store_select all = {.state = -1};
    found.text[0] = '\0';
    CU_ASSERT_EQUAL(store_list(store, &all, true, on_item, &found), 0);
    return found.text;
}

static int64_t count_rows(const char *table)
{
    sqlite3 *db;
    sqlite3_stmt *statement;
    char sql[80];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", table);
    CU_ASSERT_EQUAL_FATAL(sqlite3_open(store_files_path(), &db), SQLITE_OK);
    CU_ASSERT_EQUAL_FATAL(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    CU_ASSERT_EQUAL(sqlite3_step(statement), SQLITE_ROW);
    int64_t count = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return count;
}

static void all_that_a_row_has_is_stored(void)
{
    fixture_begin();
    struct store_import_row rows[] = {
        row_of("a", "first\n", "{\"k\": 18446744073709551615}"),
        row_of("b", "", ""),
        row_of("c", "first\nsecond\nlost\n", "{}"),
        row_of("d", "", ""),
    };
    rows[3].event = (struct store_event){
        .uid = "d", .data = "\x93\0\xff", .data_bytes = 3, .dead = STORE_REASON_CORRUPT, .error = "no map"};
    struct feed feed = {rows, 4, 0, 0, 0, 0};
    bool set;
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "cursor-40", false, &set), 0);
    CU_ASSERT_EQUAL(feed.stored, 4);
    CU_ASSERT_TRUE(set);
    const char *events = stored_events(fixture.store);
    static const char expected[] = "a ready  [first ] {\"k\": 18446744073709551615} {\"n\": 1}  5000\n"
                                   "b ready  []  {\"n\": 1}  5000\n"
                                   "c ready  [first second lost ] {} {\"n\": 1}  5000\n"
                                   "d dead corrupt []  \x93";
    CU_ASSERT_EQUAL(strncmp(events, expected, strlen(expected)), 0);
    struct store_totals found = totals();
    CU_ASSERT_EQUAL(found.fetched, 4);
    CU_ASSERT_EQUAL(found.injected, 4);
    CU_ASSERT_EQUAL(found.live, 4);
    CU_ASSERT_EQUAL(found.dead, 1);
    CU_ASSERT_EQUAL(found.duplicates, 0);
    /* claimed in order, each told what it has done, with its context */
    struct held held;
    claim(&held, 2, 6000);
    CU_ASSERT_STRING_EQUAL(held.done, "");
    claim(&held, 10, 6000);
    CU_ASSERT_EQUAL(held.count, 1);
    CU_ASSERT_STRING_EQUAL(held.done, "first\nsecond\nlost\n");
    /* what arrives afterwards stands behind them */
    CU_ASSERT_EQUAL(ingest("u", 0, 1).stored, 1);
    CU_ASSERT_EQUAL(totals().live, 5);
    fixture_end();
}

static void nothing_is_imported_twice(void)
{
    fixture_begin();
    CU_ASSERT_EQUAL(ingest("u", 0, 1).stored, 1); /* one that was fetched already */
    struct store_import_row rows[] = {row_of("a", "", ""), row_of("u0", "first\n", "{}"),
                                      row_of("b", "", "")};
    struct feed feed = {rows, 3, 0, 0, 0, 0};
    bool set;
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "one", false, &set), 0);
    CU_ASSERT_EQUAL(feed.stored, 2);
    CU_ASSERT_EQUAL(feed.known, 1);
    CU_ASSERT_EQUAL(totals().duplicates, 1);
    for (int gone = 0; gone < 2; gone++) { /* while they are there, and after all are finished */
        CU_ASSERT_EQUAL(take(fixture.store, &feed, "two", false, &set), 0);
        CU_ASSERT_EQUAL(feed.stored, 0);
        CU_ASSERT_EQUAL(feed.known, 3);
        CU_ASSERT_FALSE(set);
        CU_ASSERT_EQUAL(take(fixture.store, &feed, "two", true, &set), 0);
        CU_ASSERT_EQUAL(feed.stored, 0);
        CU_ASSERT_FALSE(set);
        struct held held;
        claim(&held, 10, 1000);
        CU_ASSERT_EQUAL(held.count, gone == 0 ? 3 : 0);
        for (size_t i = 0; i < held.count; i++)
            CU_ASSERT_TRUE(answer(held.at[i], (struct store_answer){.change = STORE_COMPLETE}));
    }
    CU_ASSERT_EQUAL(totals().live, 0);
    CU_ASSERT_EQUAL(totals().fetched, 3);
    CU_ASSERT_EQUAL(totals().injected, 2);
    char *cursor = NULL;
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_STRING_EQUAL(cursor, "one");
    free(cursor);
    fixture_end();
}

static void the_cursor_is_set_where_there_is_none(void)
{
    fixture_begin();
    struct feed feed = {0};
    bool set;
    CU_ASSERT_EQUAL(take(fixture.store, &feed, NULL, false, &set), 0);
    CU_ASSERT_FALSE(set);
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "", true, &set), 0);
    CU_ASSERT_FALSE(set);
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "c", true, &set), 0);
    CU_ASSERT_TRUE(set);
    CU_ASSERT_EQUAL(store_set_cursor(fixture.store, fixture.source, ""), 0); /* as good as none */
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "c", true, &set), 0);
    CU_ASSERT_TRUE(set);
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "c", false, &set), 0);
    CU_ASSERT_TRUE(set);
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "d", true, &set), 0);
    CU_ASSERT_FALSE(set);
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "d", false, &set), 0);
    CU_ASSERT_FALSE(set);
    char *cursor = NULL;
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_STRING_EQUAL(cursor, "c");
    free(cursor);
    fixture_end();
}

/* ---- all or nothing ---- */

static void all_or_nothing(void)
{
    fixture_begin();
    struct store_import_row rows[] = {row_of("a", "", ""), row_of("b", "", ""), row_of("c", "", "")};
    struct feed feed = {rows, 3, 0, 0, 0, EP_EPROTO}; /* the caller gives up after the last row */
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "c", false, NULL), EP_EPROTO);
    CU_ASSERT_EQUAL(feed.stored, 3);
    CU_ASSERT_EQUAL(totals().fetched, 0);
    CU_ASSERT_EQUAL(count_rows("event") + count_rows("progress") + count_rows("imported"), 0);
    char *cursor = NULL;
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_PTR_NULL(cursor);
    rows[2].event.uid = NULL;
    feed.code = EP_EINVAL;
    feed.count = 3;
    struct store_import import = {.next = feed_next, .took = feed_took, .user = &feed};
    feed.at = 0;
    CU_ASSERT_EQUAL(store_import(fixture.store, &import), EP_EINVAL);
    rows[2] = row_of("c", "", "");
    rows[2].source = 99; /* which the store has not */
    feed.at = 0;
    CU_ASSERT_EQUAL(store_import(fixture.store, &import), EP_ENOENT);
    CU_ASSERT_EQUAL(count_rows("event") + count_rows("progress") + count_rows("imported"), 0);
    fixture_end();
}

static void a_trial_writes_nothing(void)
{
    fixture_begin();
    CU_ASSERT_EQUAL(ingest("u", 0, 1).stored, 1);
    struct store_import_row rows[] = {row_of("u0", "", ""), row_of("a", "", ""), row_of("b", "", "")};
    rows[2].source = 0; /* of a source that the store has not heard of */
    struct feed feed = {rows, 3, 0, 0, 0, 0};
    struct store *reader = fixture_open(true);
    CU_ASSERT_PTR_NOT_NULL_FATAL(reader);
    CU_ASSERT_EQUAL(take(reader, &feed, "c", true, NULL), 0);
    CU_ASSERT_EQUAL(feed.stored, 2);
    CU_ASSERT_EQUAL(feed.known, 1);
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "c", true, NULL), 0);
    CU_ASSERT_EQUAL(feed.stored, 2);
    struct store_import import = {.next = feed_next, .took = feed_took, .user = &feed};
    feed.at = 0;
    CU_ASSERT_EQUAL(store_import(reader, &import), EP_EINVAL); /* for good: not with this handle */
    store_close(&reader);
    CU_ASSERT_EQUAL(totals().fetched, 1);
    CU_ASSERT_EQUAL(totals().duplicates, 0);
    CU_ASSERT_EQUAL(count_rows("imported"), 0);
    fixture_end();
}

static void sources_have_their_own(void)
{
    fixture_begin();
    struct error error = {0};
    struct store_names others = {"others", NULL, 0, 0, NULL};
    CU_ASSERT_EQUAL_FATAL(store_prepare(&fixture.options, &others, 1, &fixture.start, &error), 0);
    fixture_restart();
    struct store_import_row rows[] = {row_of("a", "", ""), row_of("b", "", ""), row_of("a", "first\n", "")};
    rows[2].source = others.source_id;
    struct feed feed = {rows, 3, 0, 0, 0, 0};
    CU_ASSERT_EQUAL(take(fixture.store, &feed, NULL, false, NULL), 0);
    CU_ASSERT_EQUAL(feed.stored, 3);
    CU_ASSERT_EQUAL(totals().live, 2);
    struct store_totals other;
    CU_ASSERT_EQUAL(store_source_totals(fixture.store, others.source_id, &other), 0);
    CU_ASSERT_EQUAL(other.live, 1);
    CU_ASSERT_EQUAL(other.injected, 1);
    fixture_end();
}

/* ---- a store of version 1 ---- */

/* The tables as version 1 made them, with an event in each state. */
static const char version_1[] =
    "CREATE TABLE settings(id INTEGER PRIMARY KEY CHECK (id = 1), start_number INTEGER NOT NULL);"
    "CREATE TABLE source(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next_number INTEGER NOT NULL "
    "DEFAULT 1, "
    "fetched INTEGER NOT NULL DEFAULT 0, duplicates INTEGER NOT NULL DEFAULT 0, injected INTEGER NOT NULL "
    "DEFAULT 0, "
    "finished INTEGER NOT NULL DEFAULT 0, removed INTEGER NOT NULL DEFAULT 0, discarded INTEGER NOT NULL "
    "DEFAULT 0, "
    "live INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0, "
    "dead INTEGER NOT NULL DEFAULT 0, cursor TEXT);"
    "CREATE TABLE stage(id INTEGER PRIMARY KEY, source INTEGER NOT NULL, processed INTEGER NOT NULL DEFAULT "
    "0, "
    "retried INTEGER NOT NULL DEFAULT 0, removed INTEGER NOT NULL DEFAULT 0, rejected INTEGER NOT NULL "
    "DEFAULT 0, "
    "failed INTEGER NOT NULL DEFAULT 0, crashed INTEGER NOT NULL DEFAULT 0, name TEXT NOT NULL, "
    "UNIQUE(source, name));"
    "CREATE TABLE event(seq INTEGER PRIMARY KEY, source INTEGER NOT NULL, uid TEXT NOT NULL, device TEXT, "
    "type TEXT, "
    "arrival_ms INTEGER NOT NULL, data TEXT NOT NULL, UNIQUE(source, uid));"
    "CREATE TABLE progress(seq INTEGER PRIMARY KEY, token INTEGER NOT NULL, attempts INTEGER NOT NULL "
    "DEFAULT 0, "
    "crashes INTEGER NOT NULL DEFAULT 0, done TEXT NOT NULL DEFAULT '', context TEXT NOT NULL DEFAULT '', "
    "words TEXT NOT NULL DEFAULT '');"
    "CREATE TABLE parked(seq INTEGER PRIMARY KEY, source INTEGER NOT NULL, state INTEGER NOT NULL, "
    "reason INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT "
    "0, "
    "crashes INTEGER NOT NULL DEFAULT 0, done TEXT NOT NULL DEFAULT '', context TEXT NOT NULL DEFAULT '', "
    "words TEXT NOT NULL DEFAULT '');"
    "CREATE INDEX parked_due ON parked(source, due_ms) WHERE state = 2;"
    "CREATE INDEX parked_state ON parked(source, state);"
    "INSERT INTO settings VALUES(1, 3);"
    "INSERT INTO source(id, name, next_number, fetched, duplicates, finished, live, delayed, held, dead, "
    "cursor) "
    "VALUES(1, 'quakes', 7, 6, 2, 1, 5, 1, 1, 1, 'here');"
    "INSERT INTO stage(id, source, processed, name) VALUES(1, 1, 4, 'first'), (2, 1, 1, 'second');"
    "INSERT INTO event SELECT (1 << 44) + value, 1, 'old' || value, 'd', 't', 1000 + value, '{\"n\":' || "
    "value || '}' "
    "FROM (SELECT 2 value UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6);"
    "INSERT INTO progress(seq, token, done, context) VALUES((1 << 44) + 2, 3 << 40 | 5, 'first' || char(10), "
    "'{\"c\":2}'), ((1 << 44) + 3, 0, '', '');"
    "INSERT INTO parked(seq, source, state, due_ms, attempts) VALUES((1 << 44) + 4, 1, 2, 99000, 3);"
    "INSERT INTO parked(seq, source, state, reason, words) VALUES((1 << 44) + 5, 1, 3, 0, ''), "
    "((1 << 44) + 6, 1, 4, 3, 'no');"
    "PRAGMA application_id = 1702260848; PRAGMA user_version = 1; PRAGMA journal_mode = WAL;";

static const char old_events[] = "old2 ready  [first ] {\"c\":2} {\"n\":2}  1002\n"
                                 "old3 ready  []  {\"n\":3}  1003\n"
                                 "old4 delayed  []  {\"n\":4}  1004\n"
                                 "old5 held  []  {\"n\":5}  1005\n"
                                 "old6 dead rejected []  {\"n\":6} no 1006\n";

/* What SQLite has stored of the tables and indexes, without the quotes that a rename puts around names. */
static char *schema_text(void)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    CU_ASSERT_EQUAL_FATAL(sqlite3_open(store_files_path(), &db), SQLITE_OK);
    CU_ASSERT_EQUAL_FATAL(
        sqlite3_prepare_v2(db,
                           "SELECT group_concat(row, char(10)) FROM (SELECT type || ' ' || name || ' ' || "
                           "replace(ifnull(sql, ''), '\"', '') AS row FROM sqlite_schema ORDER BY name)",
                           -1, &statement, NULL),
        SQLITE_OK);
    CU_ASSERT_EQUAL_FATAL(sqlite3_step(statement), SQLITE_ROW);
    char *text = strdup((const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return text;
}

static void version_1_is_migrated(void)
{
    fixture_begin();
    char *new_schema = schema_text();
    struct error error = {0};
    struct store *store = NULL;
    store_close(&fixture.store);
    CU_ASSERT_EQUAL(unlink(store_files_path()), 0);
    store_files_meddle(version_1);
    fixture.options.start_number = 0; /* the daemon is down */
    /* Readers and writers wait for the start that migrates it. */
    struct store_options reading = fixture.options;
    reading.readonly = true;
    CU_ASSERT_EQUAL(store_open(&reading, &store, &error), EP_ESTORE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "store version 1, this one needs "));
    struct store_import_row rows[] = {row_of("old3", "", ""), row_of("new", "", "")};
    rows[0].source = rows[1].source = 1;
    struct feed feed = {rows, 2, 0, 0, 0, 0};
    CU_ASSERT_EQUAL(store_open(&fixture.options, &store, &error), EP_ESTORE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "store version 1, this one needs "));
    CU_ASSERT_EQUAL_FATAL(fixture_prepare(), 0);
    char *migrated_schema = schema_text();
    CU_ASSERT_STRING_EQUAL(migrated_schema, new_schema); /* as a new store has it */
    free(new_schema);
    free(migrated_schema);
    CU_ASSERT_EQUAL(fixture.start, 4);
    CU_ASSERT_EQUAL(fixture.source, 1);
    fixture.store = fixture_open(false);
    CU_ASSERT_STRING_EQUAL(stored_events(fixture.store), old_events);
    struct store_totals found = totals();
    CU_ASSERT(found.fetched == 6 && found.duplicates == 2 && found.completed == 1 && found.live == 5);
    CU_ASSERT_EQUAL(stage_totals().processed, 4);
    char *cursor = NULL;
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_STRING_EQUAL(cursor, "here");
    free(cursor);
    CU_ASSERT_EQUAL(take(fixture.store, &feed, "c", false, NULL), 0);
    CU_ASSERT_EQUAL(feed.stored, 1);
    CU_ASSERT_EQUAL(count_rows("imported"), 2);
    CU_ASSERT_EQUAL(ingest("old", 2, 5).duplicates, 5);
    struct held held;
    claim(&held, 10, 2000);
    CU_ASSERT_EQUAL(held.count, 3);
    /* once only */
    fixture_restart();
    CU_ASSERT_EQUAL(count_rows("imported"), 2);
    fixture_end();
}

STORE_MAIN("store: import", {"all that a row has is stored", all_that_a_row_has_is_stored},
           {"nothing is imported twice, also when it is gone", nothing_is_imported_twice},
           {"the cursor is set where there is none", the_cursor_is_set_where_there_is_none},
           {"all or nothing", all_or_nothing}, {"a trial writes nothing", a_trial_writes_nothing},
           {"sources have their own", sources_have_their_own},
           {"a store of version 1 is migrated, nothing is lost", version_1_is_migrated})
