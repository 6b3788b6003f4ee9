/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: the crashes of processes. The keeper adds what the supervisor recorded; any reader lists
 * them for an operator.
 *
 * Invariants
 *  1. The same crash is stored once: a keeper that is killed after its commit may add it again.
 *  2. The table is bounded. Rows that leave it, and crashes that were never recorded, are counted in the same
 *     transaction.
 */
#include <bsd/string.h>

#include "src/store/sqlite/sqlite.h"

#define CRASHES_MAX 1000

/* Inserts one process crash into the store; a crash with the same time and pid is there already and stays
 * as it is. Returns 0 or a negative code. The keeper runs it for each crash that the supervisor recorded in
 * shared memory. */
static int insert_crash(struct store_sqlite *store, const struct crash_record *crash)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_ADD_CRASH);
    store_sqlite_bind(store, statement, 1, store_sqlite_signed(crash->crashed_ms));
    store_sqlite_bind(store, statement, 2, store_sqlite_signed(crash->uptime_ms));
    store_sqlite_bind(store, statement, 3, crash->pid);
    store_sqlite_bind(store, statement, 4, crash->code);
    store_sqlite_bind(store, statement, 5, crash->event);
    const char *const texts[] = {crash->kind,  crash->cause, crash->process, crash->source,
                                 crash->stage, crash->uid,   crash->how,     crash->last_output};
    for (int i = 0; i < (int)(sizeof texts / sizeof texts[0]); i++)
        store_sqlite_bind_string(store, statement, 6 + i, texts[i]);
    return store_sqlite_run_statement(store, statement);
}

/* Inserts process crashes into the store, deletes the oldest ones beyond CRASHES_MAX, and adds these and
 * lost_count (crashes that nothing recorded) to the dropped crashes, which `eventpipe crashes` shows.
 * Returns 0 or a negative code. The keeper runs it inside a write transaction. */
static int insert_crashes(struct store_sqlite *store, const struct crash_record *crashes, size_t count,
                          uint64_t lost_count)
{
    int code = 0;
    for (size_t i = 0; code == 0 && i < count; i++)
        code = insert_crash(store, &crashes[i]);
    if (code != 0)
        return code;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_TRIM_CRASHES);
    store_sqlite_bind(store, statement, 1, CRASHES_MAX);
    code = store_sqlite_run_statement(store, statement);
    int64_t dropped_count = code == 0 ? sqlite3_changes(store->db) : 0;
    dropped_count += store_sqlite_signed(lost_count);
    if (code != 0 || dropped_count == 0)
        return code;
    statement = store_sqlite_use_statement(store, SQL_DROP_CRASHES);
    store_sqlite_bind(store, statement, 1, dropped_count);
    return store_sqlite_run_statement(store, statement);
}

/* store_add_crashes of the SQLite engine: stores the process crashes that the supervisor recorded in shared
 * memory, so that `eventpipe crashes` can list them later. The keeper calls it about once a second while
 * there are new ones; a repeated crash is stored once. */
int store_sqlite_add_crashes(struct store *base, const struct crash_record *crashes, size_t count,
                             uint64_t lost_count)
{
    struct store_sqlite *store = store_sqlite_of(base);
    int code = store_sqlite_begin_write(store);
    return code != 0 ? code
                     : store_sqlite_end_transaction(store, insert_crashes(store, crashes, count, lost_count));
}

/* Copies a text column of a crash into a buffer; "" for NULL, and a text that is too long is cut. */
static void copy_text_column(sqlite3_stmt *statement, int column, char *buffer, size_t buffer_bytes)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    strlcpy(buffer, text != NULL ? text : "", buffer_bytes);
}

/* Passes one row of the store's crash table to on_crash and returns its answer: 0 = go on, other = stop.
 * `eventpipe crashes` runs it for each row. */
static int report_crash(sqlite3_stmt *statement, store_on_crash *on_crash, void *user)
{
    struct crash_record crash = {
        .crashed_ms = (uint64_t)sqlite3_column_int64(statement, 0),
        .uptime_ms = (uint64_t)sqlite3_column_int64(statement, 1),
        .pid = sqlite3_column_int(statement, 2),
        .code = sqlite3_column_int(statement, 3),
        .event = sqlite3_column_int64(statement, 4),
    };
    copy_text_column(statement, 5, crash.kind, sizeof crash.kind);
    copy_text_column(statement, 6, crash.cause, sizeof crash.cause);
    copy_text_column(statement, 7, crash.process, sizeof crash.process);
    copy_text_column(statement, 8, crash.source, sizeof crash.source);
    copy_text_column(statement, 9, crash.stage, sizeof crash.stage);
    copy_text_column(statement, 10, crash.uid, sizeof crash.uid);
    copy_text_column(statement, 11, crash.how, sizeof crash.how);
    copy_text_column(statement, 12, crash.last_output, sizeof crash.last_output);
    return on_crash(&crash, user);
}

/* Passes the stored process crashes to on_crash, oldest first, and sets *dropped to the number of older
 * ones that are gone. A store of an older version has no such table and reports none. `eventpipe crashes`
 * runs it inside a read transaction. */
static int read_crashes(struct store_sqlite *store, store_on_crash *on_crash, void *user, uint64_t *dropped)
{
    int64_t value;
    int code =
        store_sqlite_read_number(store, "SELECT count(*) FROM sqlite_schema WHERE name = 'crash'", &value);
    if (code != 0 || value == 0) /* a store of an older version has no such table */
        return code;
    code = store_sqlite_read_number(store, store_sqlite_sql(SQL_CRASHES_DROPPED, NULL), &value);
    *dropped = (uint64_t)value;
    if (code != 0)
        return code;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_EACH_CRASH);
    while ((code = store_sqlite_step_statement(store, statement)) == 1)
        if ((code = report_crash(statement, on_crash, user)) != 0) {
            sqlite3_reset(statement);
            return code;
        }
    return code;
}

/* store_each_crash of the SQLite engine: passes each stored process crash to on_crash, oldest first.
 * Returns 0, or the code that ended it. `eventpipe crashes` calls it, whether or not the daemon runs. */
int store_sqlite_each_crash(struct store *base, store_on_crash *on_crash, void *user, uint64_t *dropped)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *dropped = 0;
    int code = store_sqlite_begin_read(store);
    return code != 0 ? code
                     : store_sqlite_end_transaction(store, read_crashes(store, on_crash, user, dropped));
}
