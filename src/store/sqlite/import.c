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
    int64_t source, next_event; /* source of the present rows; id of the next event to be stored */
    int64_t stored_count, duplicate_count, dead_count;
    bool has_imported_table; /* in a trial: the table `imported` exists */
};

/* ---- a trial ---- */

/* Finds out whether the store already has the row's UID: statement_id names the query, on the stored events
 * or on the UIDs of earlier imports. Returns 0 or a negative code. `eventpipe import --dry-run` runs it. */
static int find_known_uid(struct import_run *run, enum store_sqlite_statement statement_id,
                          const struct store_import_row *row, bool *is_known)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(run->store, statement_id);
    store_sqlite_bind(run->store, statement, 1, row->source);
    store_sqlite_bind_string(run->store, statement, 2, row->event.uid);
    int code = store_sqlite_step_statement(run->store, statement);
    *is_known = code == 1;
    if (code == 1)
        sqlite3_reset(statement);
    return code < 0 ? code : 0;
}

/* Sets *is_stored to whether a real import would store this row: only if its UID is neither in the store
 * nor was imported before. `eventpipe import --dry-run` runs it for each row; it only reads. */
static int classify_trial_row(struct import_run *run, const struct store_import_row *row, bool *is_stored)
{
    bool is_found = false;
    int code = find_known_uid(run, SQL_FIND_UID, row, &is_found);
    if (code == 0 && !is_found && run->has_imported_table)
        code = find_known_uid(run, SQL_REMEMBERED, row, &is_found);
    *is_stored = !is_found;
    return code;
}

/* Sets cursor->set to whether a real import would store this cursor: only if the source has none yet.
 * source 0 is a source that is new to the store. `eventpipe import --dry-run` runs it. */
static int classify_trial_cursor(struct import_run *run, struct store_import_cursor *cursor)
{
    if (cursor->source == 0) {
        cursor->set = true;
        return 0;
    }
    sqlite3_stmt *statement = store_sqlite_use_statement(run->store, SQL_CURSOR);
    store_sqlite_bind(run->store, statement, 1, cursor->source);
    int code = store_sqlite_step_statement(run->store, statement);
    if (code != 1)
        return code;
    cursor->set = sqlite3_column_bytes(statement, 0) == 0;
    sqlite3_reset(statement);
    return 0;
}

/* ---- a real import ---- */

/* Adds the imported rows of the current source to its totals in the store and sets its next event number;
 * the source's cursor stays. `eventpipe import` runs it after the last row of each source, inside the
 * import's transaction. */
static int write_source_totals(struct import_run *run)
{
    if (run->stored_count + run->duplicate_count == 0)
        return 0;
    struct store_sqlite *store = run->store;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_INGESTED);
    store_sqlite_bind(store, statement, 1, run->source);
    store_sqlite_bind(store, statement, 2, run->next_event - EVENT_FIRST(run->source));
    store_sqlite_bind_string(store, statement, 3, NULL); /* the cursor stays */
    store_sqlite_bind(store, statement, 4, run->stored_count);
    store_sqlite_bind(store, statement, 5, run->duplicate_count);
    store_sqlite_bind(store, statement, 6, run->stored_count);
    store_sqlite_bind(store, statement, 7, run->dead_count);
    store_sqlite_bind(store, statement, 8, 0);
    store_sqlite_bind_string(store, statement, 9, "");
    run->stored_count = run->duplicate_count = run->dead_count = 0;
    return store_sqlite_run_statement(store, statement);
}

/* Writes the totals of the source whose rows are imported to the store, and reads the next event number of
 * the one whose rows follow. `eventpipe import` runs it whenever the source of the rows changes. */
static int switch_source(struct import_run *run, int64_t source)
{
    int code = write_source_totals(run);
    run->source = source;
    return code == 0 ? store_sqlite_read_next_event_id(run->store, source, &run->next_event) : code;
}

/* Inserts the state of an imported event into the store, beside its data: ready, with the stages done so
 * far and the context, or dead, with reason and error. `eventpipe import` runs it for each row that it
 * stores. */
static int insert_event_state(struct import_run *run, const struct store_import_row *row, int64_t id)
{
    struct store_sqlite *store = run->store;
    const struct store_event *event = &row->event;
    bool is_dead = event->dead != STORE_REASON_NONE;
    sqlite3_stmt *statement =
        store_sqlite_use_statement(store, is_dead ? SQL_IMPORT_DEAD : SQL_IMPORT_PROGRESS);
    int parameter = 1;
    store_sqlite_bind(store, statement, parameter++, id);
    if (is_dead) {
        store_sqlite_bind(store, statement, parameter++, row->source);
        store_sqlite_bind(store, statement, parameter++, event->dead);
        store_sqlite_bind_string(store, statement, parameter++, event->error != NULL ? event->error : "");
    }
    store_sqlite_bind_string(store, statement, parameter++, row->done != NULL ? row->done : "");
    store_sqlite_bind_text(store, statement, parameter, row->context != NULL ? row->context : "",
                           row->context != NULL ? row->context_bytes : 0);
    return store_sqlite_run_statement(store, statement);
}

/* Writes the row's UID into the store's table `imported`, and sets *is_known to whether it was there
 * already. Without this table, a second import would store events again that have been processed and
 * deleted since. `eventpipe import` runs it for each row. */
static int remember_uid(struct import_run *run, const struct store_import_row *row, bool *is_known)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(run->store, SQL_REMEMBER);
    store_sqlite_bind(run->store, statement, 1, row->source);
    store_sqlite_bind_string(run->store, statement, 2, row->event.uid);
    int code = store_sqlite_run_statement(run->store, statement);
    *is_known = code == 0 && sqlite3_changes(run->store->db) == 0;
    return code;
}

/* Stores one row of the other program's database as an event, and sets *is_stored; a row whose UID is known
 * is only counted as a duplicate. Returns 0 or a negative code, which undoes the whole import. `eventpipe
 * import` runs it for each row. */
static int import_row(struct import_run *run, const struct store_import_row *row, bool *is_stored)
{
    struct store_sqlite *store = run->store;
    bool is_known = false;
    int code = row->event.uid == NULL
                   ? base_error_set(&store->base.error, EP_EINVAL, "%s: cannot import an event without a uid",
                                    store->path)
               : row->source != run->source ? switch_source(run, row->source)
                                            : 0;
    if (code == 0)
        code = remember_uid(run, row, &is_known);
    if (code == 0 && !is_known)
        code = store_sqlite_insert_event(store, row->source, run->next_event, run->import->now_ms,
                                         &row->event, is_stored);
    if (code != 0)
        return code;
    if (!*is_stored) {
        run->duplicate_count++;
        return 0;
    }
    run->stored_count++;
    run->dead_count += row->event.dead != STORE_REASON_NONE;
    code = insert_event_state(run, row, run->next_event++);
    if (code == 0 && run->next_event > EVENT_LAST(run->source))
        code = base_error_set(
            &store->base.error, EP_ESTORE,
            "%s: a source has used all event numbers of this store; import it into a new store", store->path);
    return code;
}

/* Stores the imported cursor of a source, unless the store has one of it already, and sets cursor->set to
 * whether it was stored. `eventpipe import` runs it after all rows, inside the import's transaction. */
static int set_first_cursor(struct import_run *run, struct store_import_cursor *cursor)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(run->store, SQL_FIRST_CURSOR);
    store_sqlite_bind(run->store, statement, 1, cursor->source);
    store_sqlite_bind_string(run->store, statement, 2, cursor->cursor);
    int code = store_sqlite_run_statement(run->store, statement);
    cursor->set = code == 0 && sqlite3_changes(run->store->db) == 1;
    return code;
}

/* ---- both ---- */

/* Imports all rows and then the cursors into the store, and tells the caller what became of each; a trial
 * only finds out what an import would do. Returns 0 or the first negative code, after which nothing is
 * stored. `eventpipe import` runs it inside one transaction. */
static int import_rows(struct import_run *run)
{
    struct store_import *import = run->import;
    struct store_import_row row;
    int code;
    while ((code = import->next(&row, import->user)) == 1) {
        bool is_stored = row.source == 0;
        if (!import->trial)
            code = import_row(run, &row, &is_stored);
        else if (row.source != 0)
            code = classify_trial_row(run, &row, &is_stored);
        else
            code = 0;
        if (code != 0)
            return code;
        import->took(&row, is_stored, import->user);
    }
    if (code == 0 && !import->trial)
        code = write_source_totals(run);
    for (size_t i = 0; code == 0 && i < import->cursor_count; i++) {
        struct store_import_cursor *cursor = &import->cursors[i];
        cursor->set = false;
        if (cursor->cursor != NULL && cursor->cursor[0] != '\0')
            code = import->trial ? classify_trial_cursor(run, cursor) : set_first_cursor(run, cursor);
    }
    return code;
}

/* store_import of the SQLite engine: stores another program's events in one transaction, all or none; a
 * trial (--dry-run) only reads. Returns 0 or a negative code. `eventpipe import` calls it; for a real
 * import it holds the store's lock file, so no daemon uses the store meanwhile. */
int store_sqlite_import(struct store *base, struct store_import *import)
{
    struct store_sqlite *store = store_sqlite_of(base);
    struct import_run run = {.store = store, .import = import};
    int64_t table_count = 0;
    int code = import->trial ? store_sqlite_begin_read(store) : store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    if (import->trial)
        code = store_sqlite_read_number(store, "SELECT count(*) FROM sqlite_schema WHERE name = 'imported'",
                                        &table_count);
    run.has_imported_table = table_count > 0;
    return store_sqlite_end_transaction(store, code == 0 ? import_rows(&run) : code);
}
