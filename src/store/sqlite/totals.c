/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: cursors, totals and names. Runs in producers, the keeper and the command line. The
 * totals of a source and of a stage are one row each, which the transactions that change them keep exact,
 * so nothing here counts rows.
 */
#include <stdlib.h>
#include <string.h>

#include "src/store/sqlite/sqlite.h"

/* Sets the error for a source that the store does not know, as when another file has been put in its
 * place. Runs in the producer, the keeper and the command line. */
static int fail_unknown_source(struct store_sqlite *store)
{
    return base_error_set(&store->store.error, EP_ENOENT,
                          "%s: a source is not in this store (was the file replaced?); restart the daemon",
                          store->path);
}

/* Reads a source's cursor from the store: where the next fetch begins. The producer calls it at its start
 * and after an operator's change; `eventpipe cursor` and `eventpipe status` show it. */
int store_sqlite_cursor(struct store *base, int64_t source, char **cursor)
{
    struct store_sqlite *store = store_sqlite_of(base);
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_CURSOR);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step(store, statement);
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

/* Sets a source's cursor in the store for an operator. The keeper calls it for `eventpipe cursor --set`.
 * The producer stores its own cursor with each page instead. */
int store_sqlite_set_cursor(struct store *base, int64_t source, const char *cursor)
{
    struct store_sqlite *store = store_sqlite_of(base);
    int code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_SET_CURSOR);
    store_sqlite_bind(store, statement, 1, source);
    store_sqlite_bind_string(store, statement, 2, cursor);
    code = store_sqlite_run(store, statement);
    if (code == 0 && sqlite3_changes(store->db) == 0)
        code = fail_unknown_source(store);
    return store_sqlite_end(store, code);
}

/* Reads the totals of a source and the arrival of its oldest event, inside a read transaction of the
 * store. The keeper runs it for status, the producer for the backlog's limit, `eventpipe status` while the
 * daemon is down. */
static int read_totals(struct store_sqlite *store, int64_t source, struct store_totals *out)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_SOURCE_TOTALS);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step(store, statement);
    if (code != 1)
        return code == 0 ? fail_unknown_source(store) : code;
    uint64_t *const fields[] = {&out->fetched,   &out->duplicates,       &out->injected,
                                &out->completed, &out->removed_by_stage, &out->removed_by_operator,
                                &out->live,      &out->delayed,          &out->held,
                                &out->dead};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        *fields[i] = (uint64_t)sqlite3_column_int64(statement, (int)i);
    sqlite3_reset(statement);
    statement = store_sqlite_use(store, SQL_OLDEST);
    store_sqlite_bind(store, statement, 1, EVENT_FIRST(source));
    store_sqlite_bind(store, statement, 2, EVENT_LAST(source));
    code = store_sqlite_step(store, statement);
    if (code != 1)
        return code;
    out->oldest_ms = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_reset(statement);
    return 0;
}

/* Returns the totals of a source. The keeper calls it for status, the producer for the backlog's limit,
 * `eventpipe status` while the daemon is down. */
int store_sqlite_source_totals(struct store *base, int64_t source, struct store_totals *out)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *out = (struct store_totals){0};
    int code = store_sqlite_begin_read(store);
    return code == 0 ? store_sqlite_end(store, read_totals(store, source, out)) : code;
}

/* Returns the totals of a stage in the store: processed, retried, failed and so on. The keeper calls it
 * for status, and `eventpipe status` while the daemon is down. */
int store_sqlite_stage_totals(struct store *base, int64_t stage, struct store_stage_totals *out)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *out = (struct store_stage_totals){0};
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_STAGE_TOTALS);
    store_sqlite_bind(store, statement, 1, stage);
    int code = store_sqlite_step(store, statement);
    if (code == 0)
        return base_error_set(&base->error, EP_ENOENT,
                              "%s: a stage is not in this store (was the file replaced?); restart the daemon",
                              store->path);
    if (code < 0)
        return code;
    uint64_t *const fields[] = {&out->processed, &out->retried, &out->removed,
                                &out->rejected,  &out->failed,  &out->crashed};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        *fields[i] = (uint64_t)sqlite3_column_int64(statement, (int)i);
    sqlite3_reset(statement);
    return 0;
}

/* Passes the rows (id, name) of a statement to the callback; *seen counts them. Runs in the keeper and the
 * command line, which list the sources and stages that the store knows. */
static int report_names(struct store_sqlite *store, sqlite3_stmt *statement, store_on_source *on_source,
                        void *user, size_t *seen)
{
    int code;
    while ((code = store_sqlite_step(store, statement)) == 1) {
        ++*seen;
        code = on_source(sqlite3_column_int64(statement, 0), (const char *)sqlite3_column_text(statement, 1),
                         user);
        if (code != 0) {
            sqlite3_reset(statement);
            break;
        }
    }
    return code < 0 ? code : 0;
}

/* Lists the sources that the store knows. The command line calls it while the daemon is down, and the
 * keeper for operators' commands. If the table is damaged, the index of its names may still be readable. */
int store_sqlite_each_source(struct store *base, store_on_source *on_source, void *user)
{
    struct store_sqlite *store = store_sqlite_of(base);
    size_t seen = 0;
    int code = report_names(store, store_sqlite_use(store, SQL_EACH_SOURCE), on_source, user, &seen);
    if (code == EP_ESTORE && seen == 0) /* the table is damaged: the index of its names may not be */
        code = report_names(store, store_sqlite_use(store, SQL_EACH_SOURCE_NAMED), on_source, user, &seen);
    return code;
}

/* Lists the stages that the store knows of one source. The command line calls it for status, trace and
 * crashes, and the keeper for operators' commands. */
int store_sqlite_each_stage(struct store *base, int64_t source, store_on_stage *on_stage, void *user)
{
    struct store_sqlite *store = store_sqlite_of(base);
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_EACH_STAGE);
    store_sqlite_bind(store, statement, 1, source);
    size_t seen = 0;
    return report_names(store, statement, on_stage, user, &seen);
}
