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

/* Inserts one crash of a process into the store; a crash that is stored already (same time and pid) stays
 * as it is. The keeper runs it for each crash that the supervisor recorded. */
static int add_one(struct store_sqlite *store, const struct crash_record *crash)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_ADD_CRASH);
    store_sqlite_bind(store, statement, 1, store_sqlite_signed(crash->crashed_ms));
    store_sqlite_bind(store, statement, 2, store_sqlite_signed(crash->uptime_ms));
    store_sqlite_bind(store, statement, 3, crash->pid);
    store_sqlite_bind(store, statement, 4, crash->code);
    store_sqlite_bind(store, statement, 5, crash->event);
    const char *const texts[] = {crash->kind,  crash->cause, crash->process, crash->source,
                                 crash->stage, crash->uid,   crash->how,     crash->last_output};
    for (int i = 0; i < (int)(sizeof texts / sizeof texts[0]); i++)
        store_sqlite_bind_string(store, statement, 6 + i, texts[i]);
    return store_sqlite_run(store, statement);
}

/* Adds crashes of processes to the store, trims the table to CRASHES_MAX and counts what is dropped or
 * lost. The keeper runs it inside one transaction. */
static int add_all(struct store_sqlite *store, const struct crash_record *crashes, size_t count,
                   uint64_t lost)
{
    int code = 0;
    for (size_t i = 0; code == 0 && i < count; i++)
        code = add_one(store, &crashes[i]);
    if (code != 0)
        return code;
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_TRIM_CRASHES);
    store_sqlite_bind(store, statement, 1, CRASHES_MAX);
    code = store_sqlite_run(store, statement);
    int64_t dropped = code == 0 ? sqlite3_changes(store->db) : 0;
    dropped += store_sqlite_signed(lost);
    if (code != 0 || dropped == 0)
        return code;
    statement = store_sqlite_use(store, SQL_DROP_CRASHES);
    store_sqlite_bind(store, statement, 1, dropped);
    return store_sqlite_run(store, statement);
}

/* store_add_crashes of the SQLite engine: stores the crashes of processes that the supervisor recorded in
 * shared memory. The keeper calls it, about once a second while there are new ones. */
int store_sqlite_add_crashes(struct store *base, const struct crash_record *crashes, size_t count,
                             uint64_t lost)
{
    struct store_sqlite *store = store_sqlite_of(base);
    int code = store_sqlite_begin_write(store);
    return code != 0 ? code : store_sqlite_end(store, add_all(store, crashes, count, lost));
}

static void copy_column(sqlite3_stmt *statement, int column, char *to, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    strlcpy(to, text != NULL ? text : "", size);
}

/* Passes one stored crash of a process to on_crash. `eventpipe crashes` runs it for each row of the store. */
static int pass_row(sqlite3_stmt *statement, store_on_crash *on_crash, void *user)
{
    struct crash_record crash = {
        .crashed_ms = (uint64_t)sqlite3_column_int64(statement, 0),
        .uptime_ms = (uint64_t)sqlite3_column_int64(statement, 1),
        .pid = sqlite3_column_int(statement, 2),
        .code = sqlite3_column_int(statement, 3),
        .event = sqlite3_column_int64(statement, 4),
    };
    copy_column(statement, 5, crash.kind, sizeof crash.kind);
    copy_column(statement, 6, crash.cause, sizeof crash.cause);
    copy_column(statement, 7, crash.process, sizeof crash.process);
    copy_column(statement, 8, crash.source, sizeof crash.source);
    copy_column(statement, 9, crash.stage, sizeof crash.stage);
    copy_column(statement, 10, crash.uid, sizeof crash.uid);
    copy_column(statement, 11, crash.how, sizeof crash.how);
    copy_column(statement, 12, crash.last_output, sizeof crash.last_output);
    return on_crash(&crash, user);
}

/* Reads the crashes of processes from the store, oldest first, and how many were dropped. A store of an
 * older version has none. `eventpipe crashes` runs it inside a read transaction. */
static int list_all(struct store_sqlite *store, store_on_crash *on_crash, void *user, uint64_t *dropped)
{
    int64_t number;
    int code = store_sqlite_pragma(store, "SELECT count(*) FROM sqlite_schema WHERE name = 'crash'", &number);
    if (code != 0 || number == 0) /* a store of an older version has no such table */
        return code;
    code = store_sqlite_pragma(store, store_sqlite_sql(SQL_CRASHES_DROPPED, NULL), &number);
    *dropped = (uint64_t)number;
    if (code != 0)
        return code;
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_EACH_CRASH);
    while ((code = store_sqlite_step(store, statement)) == 1)
        if ((code = pass_row(statement, on_crash, user)) != 0) {
            sqlite3_reset(statement);
            return code;
        }
    return code;
}

/* store_each_crash of the SQLite engine: lists the stored crashes of processes. `eventpipe crashes` calls
 * it, whether or not the daemon runs. */
int store_sqlite_each_crash(struct store *base, store_on_crash *on_crash, void *user, uint64_t *dropped)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *dropped = 0;
    int code = store_sqlite_begin_read(store);
    return code != 0 ? code : store_sqlite_end(store, list_all(store, on_crash, user, dropped));
}
