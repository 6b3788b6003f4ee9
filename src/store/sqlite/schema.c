/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: creates, migrates and recognises the tables; also the first step of a start. Only a
 * process whose instance holds the store creates and migrates (the keeper, or an import); all others only
 * check.
 *
 * Invariants
 *  1. A file that is not ours is never written to: application_id says whose it is.
 *  2. PRAGMA user_version counts the steps that were taken. All missing steps are taken in one transaction.
 *  3. A step that was ever released is never edited; a change of the tables is a new step at the end, and a
 *     change of new_tables.
 */
#include "src/store/sqlite/sqlite.h"

#include <stdio.h>
#include <stdlib.h>

#include "src/eventpipe.h"

#define COUNT(name) #name " INTEGER NOT NULL DEFAULT 0, "
#define EVENT_STATE                                                             \
    "attempts INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0, " \
    "done TEXT NOT NULL DEFAULT '', context TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT ''"

/* clang-format off */
/*
 * The tables of a new store. An older store gets them by the steps below; a test compares the two.
 * Large, rarely read columns stand last: SQLite reads a row only as far as it must.
 */
static const char new_tables[] =
    "CREATE TABLE settings(id INTEGER PRIMARY KEY CHECK (id = 1), start_number INTEGER NOT NULL, "
    "crashes_dropped INTEGER NOT NULL DEFAULT 0);"
    "INSERT INTO settings VALUES(1, 0, 0);"
    "CREATE TABLE source(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
    "next_number INTEGER NOT NULL DEFAULT 1, " COUNT(fetched) COUNT(duplicates) COUNT(injected)
    COUNT(completed) COUNT(removed_by_stage) COUNT(removed_by_operator) COUNT(live) COUNT(delayed) COUNT(held)
    COUNT(dead) "cursor TEXT);"
    "CREATE TABLE stage(id INTEGER PRIMARY KEY, source INTEGER NOT NULL, " COUNT(processed) COUNT(retried)
    COUNT(removed) COUNT(rejected) COUNT(failed) COUNT(crashed) "name TEXT NOT NULL, UNIQUE(source, name));"
    "CREATE TABLE event(seq INTEGER PRIMARY KEY, source INTEGER NOT NULL, uid TEXT NOT NULL, address TEXT, "
    "type TEXT, arrival_ms INTEGER NOT NULL, data TEXT NOT NULL);"
    "CREATE TABLE progress(seq INTEGER PRIMARY KEY, token INTEGER NOT NULL, " EVENT_STATE ");"
    "CREATE TABLE suspended(seq INTEGER PRIMARY KEY, source INTEGER NOT NULL, state INTEGER NOT NULL, "
    "reason INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL DEFAULT 0, " EVENT_STATE ");"
    "CREATE TABLE imported(source INTEGER NOT NULL, uid TEXT NOT NULL, PRIMARY KEY(source, uid)) WITHOUT "
    "ROWID;"
    "CREATE TABLE crash(id INTEGER PRIMARY KEY, crashed_ms INTEGER NOT NULL, uptime_ms INTEGER NOT NULL, "
    "pid INTEGER NOT NULL, code INTEGER NOT NULL, event INTEGER NOT NULL, kind TEXT NOT NULL, "
    "cause TEXT NOT NULL, process TEXT NOT NULL, source TEXT NOT NULL, stage TEXT NOT NULL, "
    "uid TEXT NOT NULL, how TEXT NOT NULL, last_output TEXT NOT NULL, UNIQUE(crashed_ms, pid));"
    "CREATE TABLE trace(id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, bytes BLOB NOT NULL);"
    "CREATE UNIQUE INDEX event_uid ON event(source, length(uid), uid);"
    "CREATE INDEX suspended_due ON suspended(source, due_ms) WHERE state = 2;"
    "CREATE INDEX suspended_state ON suspended(source, state);";
/* clang-format on */

/* What brings an older store up to date: each step leads to the version that its comment names. */
static const char *const steps[] = {
    /* 2: the uids that eventpipe import has taken, for ever */
    "CREATE TABLE imported(source INTEGER NOT NULL, uid TEXT NOT NULL, PRIMARY KEY(source, uid)) WITHOUT "
    "ROWID;",
    /* 3: the latest deaths of processes, and how many more there were */
    "CREATE TABLE death(id INTEGER PRIMARY KEY, died_ms INTEGER NOT NULL, lived_ms INTEGER NOT NULL, "
    "pid INTEGER NOT NULL, code INTEGER NOT NULL, event INTEGER NOT NULL, kind TEXT NOT NULL, "
    "cause TEXT NOT NULL, process TEXT NOT NULL, source TEXT NOT NULL, stage TEXT NOT NULL, "
    "uid TEXT NOT NULL, how TEXT NOT NULL, words TEXT NOT NULL, UNIQUE(died_ms, pid));"
    "ALTER TABLE settings ADD COLUMN deaths_dropped INTEGER NOT NULL DEFAULT 0;",
    /* 4: what was done to events, packed (src/store/trace_pack.h), a row a transaction */
    "CREATE TABLE trace(id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, bytes BLOB NOT NULL);",
    /* 5: orders uids by length first. Most uids end in a number that counts up, and as text 1000 stands
     * between 100 and 101: beside a large backlog each event that arrives or leaves would change another
     * leaf of the index. Ordered by length, they arrive at its end and leave at its beginning. The index of
     * the table's UNIQUE cannot be dropped, so it gets a name first. To make the table again would copy it,
     * which takes minutes and as much room again with millions of events. */
    "PRAGMA writable_schema = 1;"
    "UPDATE sqlite_schema SET sql = 'CREATE TABLE event(seq INTEGER PRIMARY KEY, source INTEGER NOT NULL, "
    "uid TEXT NOT NULL, device TEXT, type TEXT, arrival_ms INTEGER NOT NULL, data TEXT NOT NULL)' "
    "WHERE name = 'event';"
    "UPDATE sqlite_schema SET name = 'event_text', sql = 'CREATE UNIQUE INDEX event_text ON "
    "event(source, uid)' WHERE name = 'sqlite_autoindex_event_1';"
    "PRAGMA writable_schema = RESET;"
    "DROP INDEX event_text;"
    "CREATE UNIQUE INDEX event_uid ON event(source, length(uid), uid);",
    /* 6: columns and tables get the names that the program uses for what they hold */
    "ALTER TABLE progress RENAME COLUMN words TO error;"
    "ALTER TABLE parked RENAME COLUMN words TO error;"
    "ALTER TABLE event RENAME COLUMN device TO address;"
    "ALTER TABLE source RENAME COLUMN finished TO completed;"
    "ALTER TABLE source RENAME COLUMN removed TO removed_by_stage;"
    "ALTER TABLE source RENAME COLUMN discarded TO removed_by_operator;"
    "ALTER TABLE parked RENAME TO suspended;"
    "DROP INDEX parked_due;"
    "DROP INDEX parked_state;"
    "CREATE INDEX suspended_due ON suspended(source, due_ms) WHERE state = 2;"
    "CREATE INDEX suspended_state ON suspended(source, state);"
    "ALTER TABLE death RENAME TO crash;"
    "ALTER TABLE crash RENAME COLUMN died_ms TO crashed_ms;"
    "ALTER TABLE crash RENAME COLUMN lived_ms TO uptime_ms;"
    "ALTER TABLE settings RENAME COLUMN deaths_dropped TO crashes_dropped;"
    "ALTER TABLE crash RENAME COLUMN words TO last_output;",
};
#define VERSION ((int64_t)(sizeof steps / sizeof steps[0]) + 1)
/* The oldest version that a reader understands: step 6 renames the tables. */
#define OLDEST_READ ((int64_t)6)

/* Reads from the header of the store's file which program wrote it (application_id) and in which version,
 * and how many tables it has. Returns 0 or a negative code. Every process that opens the store runs it, so
 * that a foreign database is never changed. */
static int read_identity(struct store_sqlite *store, int64_t *application_id, int64_t *version,
                         int64_t *table_count)
{
    int code = store_sqlite_read_number(store, "PRAGMA application_id", application_id);
    if (code == 0)
        code = store_sqlite_read_number(store, "PRAGMA user_version", version);
    if (code == 0)
        code = store_sqlite_read_number(store, "SELECT count(*) FROM sqlite_schema", table_count);
    if (code == EP_ESTORE && (sqlite3_errcode(store->db) & 0xff) == SQLITE_NOTADB)
        base_error_set(&store->base.error, code,
                       "%s: not an SQLite database; expected a store of eventpipe, or no file", store->path);
    return code;
}

/* Brings the store's tables from `version` to the present version, by all later steps of `steps` in one
 * transaction; for version 0 (a new store) it creates them. Returns 0 or a negative code. The keeper runs it when an updated
 * daemon starts for the first time, and so does `eventpipe import`. */
static int migrate_tables(struct store_sqlite *store, int64_t version)
{
    /* Temporary tables go to files: an index of millions of rows is sorted there. */
    int code = store_sqlite_execute(store, "PRAGMA temp_store = 1");
    if (code == 0)
        code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    char sql[96];
    snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %lld",
             STORE_SQLITE_APPLICATION, (long long)VERSION);
    if (code == 0 && version == 0)
        code = store_sqlite_execute(store, new_tables);
    for (int64_t reached = version; code == 0 && version > 0 && reached < VERSION; reached++)
        code = store_sqlite_execute(store, steps[reached - 1]);
    if (code == 0)
        code = store_sqlite_execute(store, sql);
    code = store_sqlite_end_transaction(store, code);
    return code == 0 ? store_sqlite_execute(store, "PRAGMA temp_store = 2") : code;
}

/* Checks that the file is a store of eventpipe in a version that this program can use. With may_create it
 * creates or migrates the tables; only the keeper and `eventpipe import` do that. Returns 0 or a negative
 * code. Every process that opens the store runs it. */
int store_sqlite_check_schema(struct store_sqlite *store, bool may_create)
{
    int64_t application_id, version, table_count;
    struct error *error = &store->base.error;
    int code = read_identity(store, &application_id, &version, &table_count);
    if (code != 0)
        return code;
    bool is_empty = application_id == 0 && version == 0 && table_count == 0;
    if (!is_empty && application_id != STORE_SQLITE_APPLICATION)
        return base_error_set(error, EP_ESTORE,
                              "%s: a database of another program (application id %lld, %lld tables "
                              "and indexes); expected "
                              "a store of eventpipe, or no file",
                              store->path, (long long)application_id, (long long)table_count);
    if (version > VERSION)
        return base_error_set(error, EP_ESTORE,
                              "%s: written by a newer eventpipe (store version %lld, this one knows up to "
                              "%lld); update this eventpipe",
                              store->path, (long long)version, (long long)VERSION);
    if (!is_empty && version < 1)
        return base_error_set(error, EP_ESTORE,
                              "%s: store version %lld, which no eventpipe ever wrote; restore a backup",
                              store->path, (long long)version);
    if (may_create)
        return version < VERSION ? migrate_tables(store, version) : 0;
    if (store->checks_start_number || store->is_readonly) {
        if (is_empty)
            return base_error_set(error, EP_ENOENT, "%s: there is no store in this file yet", store->path);
        if (version < (store->is_readonly ? OLDEST_READ : VERSION))
            return base_error_set(
                error, EP_ESTORE,
                "%s: written by an older eventpipe (store version %lld, this one needs %lld); start the "
                "daemon, which migrates it",
                store->path, (long long)version, (long long)VERSION);
    }
    return 0;
}

/* Sets *id to the store id of a source's or stage's name, and adds the name to the store if it is new;
 * `insert` and `select` are the SQL for it, and source is the stage's source. Returns 0 or a negative code.
 * The keeper runs it when the daemon starts, and so does `eventpipe import`. */
static int register_name(struct store_sqlite *store, const char *insert, const char *select, int64_t source,
                         const char *name, int64_t *id)
{
    sqlite3_stmt *statement = NULL;
    int result = SQLITE_OK;
    for (int round = 0; round < 2 && (result == SQLITE_OK || result == SQLITE_DONE); round++) {
        result = sqlite3_prepare_v2(store->db, round == 0 ? insert : select, -1, &statement, NULL);
        if (result == SQLITE_OK)
            result = sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
        if (result == SQLITE_OK && sqlite3_bind_parameter_count(statement) == 2)
            result = sqlite3_bind_int64(statement, 2, source);
        if (result == SQLITE_OK)
            result = sqlite3_step(statement);
        if (result == SQLITE_ROW)
            *id = sqlite3_column_int64(statement, 0);
        sqlite3_finalize(statement);
    }
    return result == SQLITE_ROW ? 0 : store_sqlite_fail(store, sqlite3_extended_errcode(store->db));
}

/* Registers one source of the configuration and its stages, and fills in their store ids, under which their
 * events and totals are stored. Returns 0 or a negative code. The keeper runs it for each source when the
 * daemon starts, and so does `eventpipe import`. */
static int register_names(struct store_sqlite *store, struct store_names *names)
{
    int code = register_name(store, "INSERT INTO source(name) VALUES(?1) ON CONFLICT(name) DO NOTHING",
                             "SELECT id FROM source WHERE name = ?1", 0, names->source, &names->source_id);
    for (size_t i = 0; code == 0 && i < names->stage_count; i++)
        code = register_name(
            store, "INSERT INTO stage(name, source) VALUES(?1, ?2) ON CONFLICT(source, name) DO NOTHING",
            "SELECT id FROM stage WHERE name = ?1 AND source = ?2", names->source_id, names->stages[i],
            &names->stage_ids[i]);
    return code;
}

/* store_prepare for sqlite: and memory: stores: creates or migrates the tables, registers sources and
 * stages, and adds 1 to the start number. Every lock carries the number of its start, so locks of earlier
 * starts no longer count. The keeper calls it when the daemon starts, and so does `eventpipe import`. */
int store_sqlite_prepare_paths(const struct store_options *options, const struct store_sqlite_paths *paths,
                               const struct store_ops *ops, struct store_names *names, size_t count,
                               uint64_t *start_number, struct error *error)
{
    struct store_sqlite *store;
    int64_t new_start_number = 0;
    int code = store_sqlite_open_paths(options, paths, STORE_SQLITE_CREATE, ops, &store, error);
    if (code != 0)
        return code;
    code = store_sqlite_begin_write(store);
    if (code == 0) {
        code =
            store_sqlite_execute(store, "UPDATE settings SET start_number = start_number + 1 WHERE id = 1");
        if (code == 0)
            code =
                store_sqlite_read_number(store, store_sqlite_sql(SQL_START_NUMBER, NULL), &new_start_number);
        if (code == 0 && (new_start_number < 1 ||
                          new_start_number >= 1 << 23)) /* a token has 23 bits for the start number */
            code = base_error_set(&store->base.error, EP_ESTORE,
                                  "%s: the store is damaged: its start number is %lld; restore a backup",
                                  paths->path, (long long)new_start_number);
        for (size_t i = 0; code == 0 && i < count; i++)
            code = register_names(store, &names[i]);
        code = store_sqlite_end_transaction(store, code);
    }
    if (code != 0)
        base_error_set(error, code, "%s", store->base.error.message);
    else
        *start_number = (uint64_t)new_start_number;
    store_sqlite_close(&store->base);
    return code;
}
