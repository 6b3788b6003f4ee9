/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: import, all of another program's events in one transaction. Runs in the command line,
 * which holds the store meanwhile, so nobody else writes to it.
 *
 * Invariants
 *  1. A uid is written into `imported` with the event, or when the event is found in the store: so what is
 *     processed and gone later is not taken for new by the next import.
 *  2. Every row that is stored counts as fetched, injected and live in the same transaction.
 *  3. A trial answers by looking only; it needs no right to write, and takes a store of version 1 as well.
 */
#include "src/store/sqlite/sqlite.h"

struct intake {
    struct store_sqlite *store;
    struct store_import *import;
    int64_t source, next; /* of the rows that come now; next: the id of the event to be stored next */
    int64_t stored, duplicates, dead;
    bool remembers; /* a trial: the table of imported uids is there */
};

/* ---- a trial ---- */

static int find(struct intake *intake, enum store_sqlite_statement which, const struct store_import_row *row,
                bool *found)
{
    sqlite3_stmt *statement = store_sqlite_use(intake->store, which);
    store_sqlite_bind(intake->store, statement, 1, row->source);
    store_sqlite_bind_string(intake->store, statement, 2, row->event.uid);
    int code = store_sqlite_step(intake->store, statement);
    *found = code == 1;
    if (code == 1)
        sqlite3_reset(statement);
    return code < 0 ? code : 0;
}

static int try_row(struct intake *intake, const struct store_import_row *row, bool *stored)
{
    bool found = false;
    int code = find(intake, SQL_FIND_UID, row, &found);
    if (code == 0 && !found && intake->remembers)
        code = find(intake, SQL_REMEMBERED, row, &found);
    *stored = !found;
    return code;
}

static int try_cursor(struct intake *intake, struct store_import_cursor *cursor)
{
    if (cursor->source == 0) {
        cursor->set = true;
        return 0;
    }
    sqlite3_stmt *statement = store_sqlite_use(intake->store, SQL_CURSOR);
    store_sqlite_bind(intake->store, statement, 1, cursor->source);
    int code = store_sqlite_step(intake->store, statement);
    if (code != 1)
        return code;
    cursor->set = sqlite3_column_bytes(statement, 0) == 0;
    sqlite3_reset(statement);
    return 0;
}

/* ---- for good ---- */

/* What came of the source's rows so far goes into its own row. */
static int count_rows(struct intake *intake)
{
    if (intake->stored + intake->duplicates == 0)
        return 0;
    struct store_sqlite *store = intake->store;
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_INGESTED);
    store_sqlite_bind(store, statement, 1, intake->source);
    store_sqlite_bind(store, statement, 2, intake->next - EVENT_FIRST(intake->source));
    store_sqlite_bind_string(store, statement, 3, NULL); /* the cursor stays */
    store_sqlite_bind(store, statement, 4, intake->stored);
    store_sqlite_bind(store, statement, 5, intake->duplicates);
    store_sqlite_bind(store, statement, 6, intake->stored);
    store_sqlite_bind(store, statement, 7, intake->dead);
    store_sqlite_bind(store, statement, 8, 0);
    store_sqlite_bind_string(store, statement, 9, "");
    intake->stored = intake->duplicates = intake->dead = 0;
    return store_sqlite_run(store, statement);
}

static int change_source(struct intake *intake, int64_t source)
{
    int code = count_rows(intake);
    intake->source = source;
    return code == 0 ? store_sqlite_next_event(intake->store, source, &intake->next) : code;
}

static int insert_state(struct intake *intake, const struct store_import_row *row, int64_t id)
{
    struct store_sqlite *store = intake->store;
    const struct store_event *event = &row->event;
    bool dead = event->dead != STORE_REASON_NONE;
    sqlite3_stmt *statement = store_sqlite_use(store, dead ? SQL_IMPORT_DEAD : SQL_IMPORT_PROGRESS);
    int at = 1;
    store_sqlite_bind(store, statement, at++, id);
    if (dead) {
        store_sqlite_bind(store, statement, at++, row->source);
        store_sqlite_bind(store, statement, at++, event->dead);
        store_sqlite_bind_string(store, statement, at++, event->error != NULL ? event->error : "");
    }
    store_sqlite_bind_string(store, statement, at++, row->done != NULL ? row->done : "");
    store_sqlite_bind_text(store, statement, at, row->context != NULL ? row->context : "",
                           row->context != NULL ? row->context_bytes : 0);
    return store_sqlite_run(store, statement);
}

static int remember(struct intake *intake, const struct store_import_row *row, bool *known)
{
    sqlite3_stmt *statement = store_sqlite_use(intake->store, SQL_REMEMBER);
    store_sqlite_bind(intake->store, statement, 1, row->source);
    store_sqlite_bind_string(intake->store, statement, 2, row->event.uid);
    int code = store_sqlite_run(intake->store, statement);
    *known = code == 0 && sqlite3_changes(intake->store->db) == 0;
    return code;
}

static int store_row(struct intake *intake, const struct store_import_row *row, bool *stored)
{
    struct store_sqlite *store = intake->store;
    bool known = false;
    int code = row->event.uid == NULL ? base_error_set(&store->store.error, EP_EINVAL, "an event without uid")
               : row->source != intake->source ? change_source(intake, row->source)
                                               : 0;
    if (code == 0)
        code = remember(intake, row, &known);
    if (code == 0 && !known)
        code = store_sqlite_insert_event(store, row->source, intake->next, intake->import->now_ms,
                                         &row->event, stored);
    if (code != 0)
        return code;
    if (!*stored) {
        intake->duplicates++;
        return 0;
    }
    intake->stored++;
    intake->dead += row->event.dead != STORE_REASON_NONE;
    code = insert_state(intake, row, intake->next++);
    if (code == 0 && intake->next > EVENT_LAST(intake->source))
        code = base_error_set(&store->store.error, EP_ESTORE, "%s: a source has used up its numbers",
                              store->path);
    return code;
}

static int set_cursor(struct intake *intake, struct store_import_cursor *cursor)
{
    sqlite3_stmt *statement = store_sqlite_use(intake->store, SQL_FIRST_CURSOR);
    store_sqlite_bind(intake->store, statement, 1, cursor->source);
    store_sqlite_bind_string(intake->store, statement, 2, cursor->cursor);
    int code = store_sqlite_run(intake->store, statement);
    cursor->set = code == 0 && sqlite3_changes(intake->store->db) == 1;
    return code;
}

/* ---- both ---- */

static int take_all(struct intake *intake)
{
    struct store_import *import = intake->import;
    struct store_import_row row;
    int code;
    while ((code = import->next(&row, import->user)) == 1) {
        bool stored = row.source == 0;
        if (!import->trial)
            code = store_row(intake, &row, &stored);
        else if (row.source != 0)
            code = try_row(intake, &row, &stored);
        else
            code = 0;
        if (code != 0)
            return code;
        import->took(&row, stored, import->user);
    }
    if (code == 0 && !import->trial)
        code = count_rows(intake);
    for (size_t i = 0; code == 0 && i < import->cursor_count; i++) {
        struct store_import_cursor *cursor = &import->cursors[i];
        cursor->set = false;
        if (cursor->cursor != NULL && cursor->cursor[0] != '\0')
            code = import->trial ? try_cursor(intake, cursor) : set_cursor(intake, cursor);
    }
    return code;
}

int store_sqlite_import(struct store *base, struct store_import *import)
{
    struct store_sqlite *store = store_sqlite_of(base);
    struct intake intake = {.store = store, .import = import};
    int64_t tables = 0;
    int code = import->trial ? store_sqlite_begin_read(store) : store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    if (import->trial)
        code =
            store_sqlite_pragma(store, "SELECT count(*) FROM sqlite_schema WHERE name = 'imported'", &tables);
    intake.remembers = tables > 0;
    return store_sqlite_end(store, code == 0 ? take_all(&intake) : code);
}
