/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: cursors, totals and names. Runs in producers, the keeper and the command line. The
 * totals of a source and of a stage are one row each, which the transactions that change them keep exact,
 * so nothing here counts rows.
 */
#include <stdlib.h>
#include <string.h>

#include "src/store/sqlite/sqlite.h"

/* Sets the message for a source that is not in the store, for example because the file was replaced under a
 * running daemon, and returns EP_ENOENT. The producer, the keeper and the command line reach it when they
 * read or set a cursor or read totals. */
static int fail_unknown_source(struct store_sqlite *store)
{
    return base_error_set(
        &store->base.error, EP_ENOENT,
        "%s: the store does not contain this source (was the file replaced?); restart the daemon",
        store->path);
}

/* store_cursor of the SQLite engine: sets *cursor to a copy of a source's cursor, the position where its
 * next fetch starts (NULL if none is stored); the caller frees it. The producer calls it when it starts and
 * after `eventpipe cursor --set`; `eventpipe cursor` and `eventpipe status` show it. */
int store_sqlite_read_cursor(struct store *base, int64_t source, char **cursor)
{
    struct store_sqlite *store = store_sqlite_of(base);
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_CURSOR);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step_statement(store, statement);
    if (code != 1)
        return code == 0 ? fail_unknown_source(store) : code;
    const char *text = (const char *)sqlite3_column_text(statement, 0);
    char *copy = text != NULL ? strdup(text) : NULL;
    sqlite3_reset(statement);
    if (text != NULL && copy == NULL)
        return store_sqlite_fail(store, SQLITE_NOMEM);
    *cursor = copy;
    return 0;
}

/* store_set_cursor of the SQLite engine: replaces a source's cursor, for an operator. Returns 0 or a
 * negative code. The keeper calls it for `eventpipe cursor --set`; the producer stores its own cursor
 * together with each page. */
int store_sqlite_set_cursor(struct store *base, int64_t source, const char *cursor)
{
    struct store_sqlite *store = store_sqlite_of(base);
    int code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_SET_CURSOR);
    store_sqlite_bind(store, statement, 1, source);
    store_sqlite_bind_string(store, statement, 2, cursor);
    code = store_sqlite_run_statement(store, statement);
    if (code == 0 && sqlite3_changes(store->db) == 0)
        code = fail_unknown_source(store);
    return store_sqlite_end_transaction(store, code);
}

/* Reads the totals of a source and the arrival time of its oldest event from the store into *out. Returns 0
 * or a negative code. It runs inside a read transaction, so that both describe the same moment. */
static int read_totals_and_oldest(struct store_sqlite *store, int64_t source, struct store_totals *out)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_SOURCE_TOTALS);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step_statement(store, statement);
    if (code != 1)
        return code == 0 ? fail_unknown_source(store) : code;
    uint64_t *const totals[] = {&out->fetched,   &out->duplicates,       &out->injected,
                                &out->completed, &out->removed_by_stage, &out->removed_by_operator,
                                &out->live,      &out->delayed,          &out->held,
                                &out->dead};
    for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++)
        *totals[i] = (uint64_t)sqlite3_column_int64(statement, (int)i);
    sqlite3_reset(statement);
    statement = store_sqlite_use_statement(store, SQL_OLDEST);
    store_sqlite_bind(store, statement, 1, EVENT_FIRST(source));
    store_sqlite_bind(store, statement, 2, EVENT_LAST(source));
    code = store_sqlite_step_statement(store, statement);
    if (code != 1)
        return code;
    out->oldest_ms = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_reset(statement);
    return 0;
}

/* store_source_totals of the SQLite engine: reads how many events of a source were fetched, completed,
 * removed and so on, and how many are stored now. The keeper calls it for status, the producer to compare
 * the backlog with its limit, and `eventpipe status` while the daemon is down. */
int store_sqlite_read_source_totals(struct store *base, int64_t source, struct store_totals *out)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *out = (struct store_totals){0};
    int code = store_sqlite_begin_read(store);
    return code == 0 ? store_sqlite_end_transaction(store, read_totals_and_oldest(store, source, out)) : code;
}

/* store_stage_totals of the SQLite engine: reads how many answers of each kind a stage has given since the
 * store was created. Returns 0 or a negative code. The keeper calls it for status, and `eventpipe status`
 * while the daemon is down. */
int store_sqlite_read_stage_totals(struct store *base, int64_t stage, struct store_stage_totals *out)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *out = (struct store_stage_totals){0};
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_STAGE_TOTALS);
    store_sqlite_bind(store, statement, 1, stage);
    int code = store_sqlite_step_statement(store, statement);
    if (code == 0)
        return base_error_set(
            &base->error, EP_ENOENT,
            "%s: the store does not contain this stage (was the file replaced?); restart the daemon",
            store->path);
    if (code < 0)
        return code;
    uint64_t *const totals[] = {&out->processed, &out->retried, &out->removed,
                                &out->rejected,  &out->failed,  &out->crashed};
    for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++)
        *totals[i] = (uint64_t)sqlite3_column_int64(statement, (int)i);
    sqlite3_reset(statement);
    return 0;
}

/* Passes each row (id, name) of the statement to the callback and counts it in *row_count. Returns 0, or a
 * negative code of SQLite or of the callback. Runs in the keeper and the command line, for the lists of
 * sources and stages that the store knows. */
static int report_name_rows(struct store_sqlite *store, sqlite3_stmt *statement, store_on_source *on_source,
                            void *user, size_t *row_count)
{
    int code;
    while ((code = store_sqlite_step_statement(store, statement)) == 1) {
        ++*row_count;
        code = on_source(sqlite3_column_int64(statement, 0), (const char *)sqlite3_column_text(statement, 1),
                         user);
        if (code != 0) {
            sqlite3_reset(statement);
            break;
        }
    }
    return code < 0 ? code : 0;
}

/* store_each_source of the SQLite engine: passes the id and name of each source in the store to on_source.
 * If the table is damaged, it reads the names from their index, which may still be intact. The command line
 * calls it while the daemon is down, and the keeper for operators' commands. */
int store_sqlite_each_source(struct store *base, store_on_source *on_source, void *user)
{
    struct store_sqlite *store = store_sqlite_of(base);
    size_t row_count = 0;
    int code = report_name_rows(store, store_sqlite_use_statement(store, SQL_EACH_SOURCE), on_source, user,
                                &row_count);
    if (code == EP_ESTORE && row_count == 0) /* the table is damaged: the index of its names may not be */
        code = report_name_rows(store, store_sqlite_use_statement(store, SQL_EACH_SOURCE_NAMED), on_source,
                                user, &row_count);
    return code;
}

/* store_each_stage of the SQLite engine: passes the id and name of each stage that the store knows of one
 * source to on_stage. The command line calls it for status, trace and crashes, and the keeper for
 * operators' commands. */
int store_sqlite_each_stage(struct store *base, int64_t source, store_on_stage *on_stage, void *user)
{
    struct store_sqlite *store = store_sqlite_of(base);
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_EACH_STAGE);
    store_sqlite_bind(store, statement, 1, source);
    size_t row_count = 0;
    return report_name_rows(store, statement, on_stage, user, &row_count);
}
