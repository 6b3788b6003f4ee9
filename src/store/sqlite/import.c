/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: stores another program's events, all in one transaction. Runs in the command line
 * (eventpipe import), which holds the store meanwhile, so no other process writes to it.
 *
 * Invariants
 *  1. A uid is written into `imported` with its event, or when the event is found in the store. So the next
 *     import does not take an event for new that was processed and deleted in between.
 *  2. Every stored row counts as fetched, injected and live in the same transaction.
 *  3. A trial only reads. It needs no right to write, and accepts a store of an older version that has no
 *     table `imported`.
 */
#include "src/store/sqlite/sqlite.h"

struct import_run {
    struct store_sqlite *store;
    struct store_import *import;
    int64_t source, next; /* source of the present rows; id of the next event to be stored */
    int64_t stored, duplicates, dead;
    bool remembers; /* in a trial: the table `imported` exists */
};

/* ---- a trial ---- */

/* Finds out whether the row's UID is in the store, or was imported before (`which` says where to search).
 * `eventpipe import` runs it in a trial (--dry-run). */
static int find_known_uid(struct import_run *run, enum store_sqlite_statement which,
                          const struct store_import_row *row, bool *found)
{
    sqlite3_stmt *statement = store_sqlite_use(run->store, which);
    store_sqlite_bind(run->store, statement, 1, row->source);
    store_sqlite_bind_string(run->store, statement, 2, row->event.uid);
    int code = store_sqlite_step(run->store, statement);
    *found = code == 1;
    if (code == 1)
        sqlite3_reset(statement);
    return code < 0 ? code : 0;
}

/* Finds out whether a real import would store the row. `eventpipe import` runs it for each row of a trial,
 * which only reads the store. */
static int check_trial_row(struct import_run *run, const struct store_import_row *row, bool *stored)
{
    bool found = false;
    int code = find_known_uid(run, SQL_FIND_UID, row, &found);
    if (code == 0 && !found && run->remembers)
        code = find_known_uid(run, SQL_REMEMBERED, row, &found);
    *stored = !found;
    return code;
}

/* Finds out whether a real import would store the source's cursor: only if the store has none.
 * `eventpipe import` runs it in a trial. */
static int check_trial_cursor(struct import_run *run, struct store_import_cursor *cursor)
{
    if (cursor->source == 0) {
        cursor->set = true;
        return 0;
    }
    sqlite3_stmt *statement = store_sqlite_use(run->store, SQL_CURSOR);
    store_sqlite_bind(run->store, statement, 1, cursor->source);
    int code = store_sqlite_step(run->store, statement);
    if (code != 1)
        return code;
    cursor->set = sqlite3_column_bytes(statement, 0) == 0;
    sqlite3_reset(statement);
    return 0;
}

/* ---- a real import ---- */

/* Adds the imported rows of a source to its totals in the store. `eventpipe import` runs it after the last
 * row of each source, inside the import's transaction. */
static int count_source_rows(struct import_run *run)
{
    if (run->stored + run->duplicates == 0)
        return 0;
    struct store_sqlite *store = run->store;
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_INGESTED);
    store_sqlite_bind(store, statement, 1, run->source);
    store_sqlite_bind(store, statement, 2, run->next - EVENT_FIRST(run->source));
    store_sqlite_bind_string(store, statement, 3, NULL); /* the cursor stays */
    store_sqlite_bind(store, statement, 4, run->stored);
    store_sqlite_bind(store, statement, 5, run->duplicates);
    store_sqlite_bind(store, statement, 6, run->stored);
    store_sqlite_bind(store, statement, 7, run->dead);
    store_sqlite_bind(store, statement, 8, 0);
    store_sqlite_bind_string(store, statement, 9, "");
    run->stored = run->duplicates = run->dead = 0;
    return store_sqlite_run(store, statement);
}

/* Finishes the source of the rows before and begins the next one. */
static int begin_source(struct import_run *run, int64_t source)
{
    int code = count_source_rows(run);
    run->source = source;
    return code == 0 ? store_sqlite_next_event(run->store, source, &run->next) : code;
}

/* Stores the state of an imported event: ready with its stages done and context, or dead with its error.
 * `eventpipe import` runs it for each new row. */
static int insert_state(struct import_run *run, const struct store_import_row *row, int64_t id)
{
    struct store_sqlite *store = run->store;
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

/* Writes the UID into the table `imported`; *known says that it was there already. Without it a second
 * import would bring back events that were processed since. `eventpipe import` runs it for each row. */
static int remember_uid(struct import_run *run, const struct store_import_row *row, bool *known)
{
    sqlite3_stmt *statement = store_sqlite_use(run->store, SQL_REMEMBER);
    store_sqlite_bind(run->store, statement, 1, row->source);
    store_sqlite_bind_string(run->store, statement, 2, row->event.uid);
    int code = store_sqlite_run(run->store, statement);
    *known = code == 0 && sqlite3_changes(run->store->db) == 0;
    return code;
}

/* Stores one row of another program's database as an event, unless its UID is known. `eventpipe import`
 * runs it for each row, inside the import's transaction. */
static int store_row(struct import_run *run, const struct store_import_row *row, bool *stored)
{
    struct store_sqlite *store = run->store;
    bool known = false;
    int code = row->event.uid == NULL ? base_error_set(&store->store.error, EP_EINVAL, "an event has no uid")
               : row->source != run->source ? begin_source(run, row->source)
                                            : 0;
    if (code == 0)
        code = remember_uid(run, row, &known);
    if (code == 0 && !known)
        code = store_sqlite_insert_event(store, row->source, run->next, run->import->now_ms, &row->event,
                                         stored);
    if (code != 0)
        return code;
    if (!*stored) {
        run->duplicates++;
        return 0;
    }
    run->stored++;
    run->dead += row->event.dead != STORE_REASON_NONE;
    code = insert_state(run, row, run->next++);
    if (code == 0 && run->next > EVENT_LAST(run->source))
        code = base_error_set(&store->store.error, EP_ESTORE,
                              "%s: a source has stored as many events as one store can number", store->path);
    return code;
}

/* Stores the imported cursor of a source, but only if the source has none in the store. `eventpipe import`
 * runs it after all rows. */
static int set_first_cursor(struct import_run *run, struct store_import_cursor *cursor)
{
    sqlite3_stmt *statement = store_sqlite_use(run->store, SQL_FIRST_CURSOR);
    store_sqlite_bind(run->store, statement, 1, cursor->source);
    store_sqlite_bind_string(run->store, statement, 2, cursor->cursor);
    int code = store_sqlite_run(run->store, statement);
    cursor->set = code == 0 && sqlite3_changes(run->store->db) == 1;
    return code;
}

/* ---- both ---- */

/* Takes all rows and cursors of an import, inside its transaction; in a trial it only finds out what would
 * become of them. `eventpipe import` runs it. */
static int import_rows(struct import_run *run)
{
    struct store_import *import = run->import;
    struct store_import_row row;
    int code;
    while ((code = import->next(&row, import->user)) == 1) {
        bool stored = row.source == 0;
        if (!import->trial)
            code = store_row(run, &row, &stored);
        else if (row.source != 0)
            code = check_trial_row(run, &row, &stored);
        else
            code = 0;
        if (code != 0)
            return code;
        import->took(&row, stored, import->user);
    }
    if (code == 0 && !import->trial)
        code = count_source_rows(run);
    for (size_t i = 0; code == 0 && i < import->cursor_count; i++) {
        struct store_import_cursor *cursor = &import->cursors[i];
        cursor->set = false;
        if (cursor->cursor != NULL && cursor->cursor[0] != '\0')
            code = import->trial ? check_trial_cursor(run, cursor) : set_first_cursor(run, cursor);
    }
    return code;
}

/* store_import of the SQLite engine: stores another program's events, all in one transaction or none.
 * `eventpipe import` calls it while it holds the store. */
int store_sqlite_import(struct store *base, struct store_import *import)
{
    struct store_sqlite *store = store_sqlite_of(base);
    struct import_run run = {.store = store, .import = import};
    int64_t tables = 0;
    int code = import->trial ? store_sqlite_begin_read(store) : store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    if (import->trial)
        code =
            store_sqlite_pragma(store, "SELECT count(*) FROM sqlite_schema WHERE name = 'imported'", &tables);
    run.remembers = tables > 0;
    return store_sqlite_end(store, code == 0 ? import_rows(&run) : code);
}
