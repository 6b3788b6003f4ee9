/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: cursors, totals and names. Runs in producers, the keeper and the command line. The
 * totals of a source and of a stage are one row each, which the transactions that change them keep exact,
 * so nothing here counts rows.
 */
#include <stdlib.h>
#include <string.h>

#include "src/store/sqlite/sqlite.h"

static int no_source(struct store_sqlite *store, int64_t source)
{
    return base_error_set(&store->store.error, EP_ENOENT, "%s: no source has the number %lld", store->path,
                          (long long)source);
}

int store_sqlite_cursor(struct store *base, int64_t source, char **cursor)
{
    struct store_sqlite *store = store_sqlite_of(base);
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_CURSOR);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step(store, statement);
    if (code != 1)
        return code == 0 ? no_source(store, source) : code;
    const char *text = (const char *)sqlite3_column_text(statement, 0);
    char *copy = text != NULL ? strdup(text) : NULL;
    sqlite3_reset(statement);
    if (text != NULL && copy == NULL)
        return store_sqlite_fail(store, SQLITE_NOMEM);
    *cursor = copy;
    return 0;
}

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
        code = no_source(store, source);
    return store_sqlite_end(store, code);
}

/* The totals and the oldest event, inside a read transaction. */
static int read_totals(struct store_sqlite *store, int64_t source, struct store_totals *out)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_SOURCE_TOTALS);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step(store, statement);
    if (code != 1)
        return code == 0 ? no_source(store, source) : code;
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

int store_sqlite_source_totals(struct store *base, int64_t source, struct store_totals *out)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *out = (struct store_totals){0};
    int code = store_sqlite_begin_read(store);
    return code == 0 ? store_sqlite_end(store, read_totals(store, source, out)) : code;
}

int store_sqlite_stage_totals(struct store *base, int64_t stage, struct store_stage_totals *out)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *out = (struct store_stage_totals){0};
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_STAGE_TOTALS);
    store_sqlite_bind(store, statement, 1, stage);
    int code = store_sqlite_step(store, statement);
    if (code == 0)
        return base_error_set(&base->error, EP_ENOENT, "%s: no stage has the number %lld", store->path,
                              (long long)stage);
    if (code < 0)
        return code;
    uint64_t *const fields[] = {&out->processed, &out->retried, &out->removed,
                                &out->rejected,  &out->failed,  &out->crashed};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        *fields[i] = (uint64_t)sqlite3_column_int64(statement, (int)i);
    sqlite3_reset(statement);
    return 0;
}

/* Passes the rows (id, name) of the statement to the callback. *seen counts them. */
static int each_name(struct store_sqlite *store, sqlite3_stmt *statement, store_on_source *on_source,
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

int store_sqlite_each_source(struct store *base, store_on_source *on_source, void *user)
{
    struct store_sqlite *store = store_sqlite_of(base);
    size_t seen = 0;
    int code = each_name(store, store_sqlite_use(store, SQL_EACH_SOURCE), on_source, user, &seen);
    if (code == EP_ESTORE && seen == 0) /* the table is damaged: the index of its names may not be */
        code = each_name(store, store_sqlite_use(store, SQL_EACH_SOURCE_NAMED), on_source, user, &seen);
    return code;
}

int store_sqlite_each_stage(struct store *base, int64_t source, store_on_stage *on_stage, void *user)
{
    struct store_sqlite *store = store_sqlite_of(base);
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_EACH_STAGE);
    store_sqlite_bind(store, statement, 1, source);
    size_t seen = 0;
    return each_name(store, statement, on_stage, user, &seen);
}
