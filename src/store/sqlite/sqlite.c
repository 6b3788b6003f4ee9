/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine at work: prepared statements, transactions, failures. Runs in any process that has
 * opened a handle (open.c), after fork. Holds the write lock while it writes.
 *
 * Invariants
 *  1. Outside a call no transaction is open and the write lock is not held; a group commit is one call from
 *     its begin to its end.
 *  2. A writer's transaction begins only while the store's start number is the handle's own. So a process
 *     of an older instance is refused, whatever locks it believes to hold.
 *  3. Nothing is reported as done before COMMIT has returned; with synchronous = full, not before the WAL
 *     is on the disk. The WAL is synced after the transaction, when the next writer already works: writers
 *     share the time that the disk takes instead of queueing for it. Others may see the commit before; a
 *     process that builds on it syncs the same WAL later.
 *
 * Survived: every refusal of SQLite. The transaction is rolled back and the message says why. Nothing is
 * fatal.
 */
#include "src/store/sqlite/sqlite.h"

#include <errno.h>
#include <string.h>

#include "shm/write_lock.h"

/* What a result of SQLite means for our caller. */
struct refusal {
    int result; /* SQLite's primary code */
    int code;
    const char *name, *message;
};

static const struct refusal refusals[] = {
    {SQLITE_BUSY, EP_ESTOREBUSY, "SQLITE_BUSY", "locked by another process"},
    {SQLITE_LOCKED, EP_ESTOREBUSY, "SQLITE_LOCKED", "locked by this process"},
    {SQLITE_PROTOCOL, EP_ESTOREBUSY, "SQLITE_PROTOCOL", "too many processes compete for its locks"},
    {SQLITE_FULL, EP_ESTOREBUSY, "SQLITE_FULL", "disk full"},
    {SQLITE_READONLY, EP_ESTOREBUSY, "SQLITE_READONLY", "read-only"},
    {SQLITE_CANTOPEN, EP_ESTOREBUSY, "SQLITE_CANTOPEN", "cannot be opened"},
    {SQLITE_IOERR, EP_ESTOREBUSY, "SQLITE_IOERR", "the disk cannot be read or written"},
    {SQLITE_CORRUPT, EP_ESTORE, "SQLITE_CORRUPT", "the file is damaged"},
    {SQLITE_NOTADB, EP_ESTORE, "SQLITE_NOTADB", "not a database"},
    {SQLITE_PERM, EP_EACCESS, "SQLITE_PERM", "permission denied"},
    {SQLITE_NOMEM, EP_ENOMEM, "SQLITE_NOMEM", "out of memory"},
    {SQLITE_TOOBIG, EP_EINVAL, "SQLITE_TOOBIG", "a text is too long to be stored"},
};

/* Sets the handle's message from a failed call of SQLite on its own connection. Returns the EP_ code. */
int store_sqlite_fail(struct store_sqlite *store, int result)
{
    return store_sqlite_fail_connection(store, store->db, result);
}

/* Sets the store handle's message from a failed call of SQLite on connection db (NULL = none), and returns
 * the EP_ code that it means. Notes a full disk, so that the end of the transaction tries a checkpoint,
 * which may make room. Every process that uses the store runs it after each failure. */
int store_sqlite_fail_connection(struct store_sqlite *store, sqlite3 *db, int result)
{
    int primary_code = result & 0xff;
    int system_errno = db != NULL ? sqlite3_system_errno(db) : 0;
    bool is_disk_full = primary_code == SQLITE_IOERR && (system_errno == ENOSPC || system_errno == EDQUOT);
    store->is_disk_full = store->is_disk_full || is_disk_full || primary_code == SQLITE_FULL;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        const struct refusal *refusal = &refusals[i];
        if (refusal->result != primary_code)
            continue;
        if (is_disk_full)
            return base_error_set(&store->base.error, EP_ESTOREBUSY, "%s: disk full (%s)", store->path,
                                  strerror(system_errno));
        bool has_cause =
            (primary_code == SQLITE_IOERR || primary_code == SQLITE_CANTOPEN) && system_errno != 0;
        return base_error_set(&store->base.error, refusal->code, "%s: %s (%s%s%s)", store->path,
                              refusal->message, refusal->name, has_cause ? ": " : "",
                              has_cause ? strerror(system_errno) : "");
    }
    return base_error_set(&store->base.error, EP_ESTORE, "%s: %s", store->path,
                          db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(result));
}

/* ---- statements ---- */

/* Returns a prepared statement of the store, which is prepared at its first use and kept in the handle.
 * NULL after a failure; the next step or run of it returns that failure, so callers need not check. Every
 * process that uses the store calls it. */
sqlite3_stmt *store_sqlite_use_statement(struct store_sqlite *store, enum store_sqlite_statement statement_id)
{
    store->bind_code = SQLITE_OK;
    if (store->statements[statement_id] != NULL)
        return store->statements[statement_id];
    int result = sqlite3_prepare_v3(store->db, store_sqlite_sql(statement_id, NULL), -1,
                                    SQLITE_PREPARE_PERSISTENT, &store->statements[statement_id], NULL);
    if (result == SQLITE_OK)
        return store->statements[statement_id];
    store->bind_code = result;
    store_sqlite_fail(store, result);
    return NULL;
}

/* Keeps the first failure to bind a parameter, which the next step or run returns, so that callers need not
 * check each bind. Every process that uses the store runs it. */
static void note_bind_failure(struct store_sqlite *store, int result)
{
    if (result != SQLITE_OK && store->bind_code == SQLITE_OK) {
        store->bind_code = result;
        store_sqlite_fail(store, result);
    }
}

void store_sqlite_bind(struct store_sqlite *store, sqlite3_stmt *statement, int parameter, int64_t value)
{
    if (statement != NULL)
        note_bind_failure(store, sqlite3_bind_int64(statement, parameter, value));
}

/* Binds a text of `bytes` bytes to a parameter; NULL binds SQL's NULL. The text is not copied, so it must
 * stand until the statement is reset. A failure is returned by the next step or run. Every process that
 * uses the store calls it. */
void store_sqlite_bind_text(struct store_sqlite *store, sqlite3_stmt *statement, int parameter,
                            const char *text, size_t bytes)
{
    if (statement != NULL)
        note_bind_failure(store,
                          sqlite3_bind_text64(statement, parameter, text, bytes, SQLITE_STATIC, SQLITE_UTF8));
}

void store_sqlite_bind_string(struct store_sqlite *store, sqlite3_stmt *statement, int parameter,
                              const char *text)
{
    store_sqlite_bind_text(store, statement, parameter, text, text != NULL ? strlen(text) : 0);
}

/* Runs a statement of the SQLite store up to its next row. Returns 1 = a row, 0 = no more rows, or a
 * negative code, also for an earlier failure to prepare or bind. After 0 or a code the statement is reset;
 * a caller that stops at a row resets it. Every process that uses the store calls it. */
int store_sqlite_step_statement(struct store_sqlite *store, sqlite3_stmt *statement)
{
    if (statement == NULL || store->bind_code != SQLITE_OK)
        return store->base.error.code;
    int result = sqlite3_step(statement);
    if (result == SQLITE_ROW)
        return 1;
    int code = result == SQLITE_DONE ? 0 : store_sqlite_fail(store, sqlite3_extended_errcode(store->db));
    sqlite3_reset(statement);
    return code;
}

/* Runs a statement of the SQLite store that returns no rows, and resets it. Returns 0 or a negative code,
 * also for an earlier failure to prepare or bind. Every process that uses the store calls it. */
int store_sqlite_run_statement(struct store_sqlite *store, sqlite3_stmt *statement)
{
    int code = store_sqlite_step_statement(store, statement);
    if (code != 1)
        return code;
    sqlite3_reset(statement);
    return 0;
}

int store_sqlite_execute(struct store_sqlite *store, const char *sql)
{
    if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return store_sqlite_fail(store, sqlite3_extended_errcode(store->db));
    return 0;
}

/* Runs SQL text and sets *value to the first column of its first row, 0 if there is none. Returns 0 or a
 * negative code. It prepares the SQL each time, so it is for rare queries: every process calls it while it
 * opens the store. */
int store_sqlite_read_number(struct store_sqlite *store, const char *sql, int64_t *value)
{
    sqlite3_stmt *statement = NULL;
    *value = 0;
    if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) != SQLITE_OK)
        return store_sqlite_fail(store, sqlite3_extended_errcode(store->db));
    int result = sqlite3_step(statement);
    if (result == SQLITE_ROW)
        *value = sqlite3_column_int64(statement, 0);
    int code = result == SQLITE_ROW || result == SQLITE_DONE
                   ? 0
                   : store_sqlite_fail(store, sqlite3_extended_errcode(store->db));
    sqlite3_finalize(statement);
    return code;
}

/* ---- transactions ---- */

int store_sqlite_begin_read(struct store_sqlite *store)
{
    return store_sqlite_run_statement(store, store_sqlite_use_statement(store, SQL_BEGIN_READ));
}

void store_sqlite_acquire_write_lock(struct store_sqlite *store)
{
    store->holds_write_lock =
        store->write_lock != NULL && write_lock_acquire(store->write_lock, store->busy_timeout_ms) == 0;
}

bool store_sqlite_try_write_lock(struct store_sqlite *store)
{
    store->holds_write_lock = store->write_lock != NULL && write_lock_try(store->write_lock) == 0;
    return store->holds_write_lock || store->write_lock == NULL;
}

/* Releases the store's write lock if this handle holds it, and wakes workers that wait for it with answers
 * to commit. Every process that writes to the store calls it after its transaction. */
void store_sqlite_release_write_lock(struct store_sqlite *store)
{
    if (!store->holds_write_lock)
        return;
    write_lock_release(store->write_lock);
    store->holds_write_lock = false;
    if (store->write_lock_released != NULL)
        store->write_lock_released(store->user);
}

/* Rolls back the store's open transaction, if there is one; the handle keeps the message of the failure
 * that caused it. Every process that uses the store calls it after a failure. */
void store_sqlite_roll_back(struct store_sqlite *store)
{
    struct error original_error = store->base.error; /* the cause, not how the rollback went */
    if (!sqlite3_get_autocommit(store->db))
        store_sqlite_run_statement(store, store_sqlite_use_statement(store, SQL_ROLLBACK));
    store->base.error = original_error;
}

/* Checks that the store's start number (1 more at each start of the daemon) is still the one of this
 * handle; otherwise a process that outlived its instance could change events of the next instance. Returns
 * 0 or a negative code. Every write transaction of a producer, worker or keeper begins with it. */
static int check_start_number(struct store_sqlite *store)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_START_NUMBER);
    int code = store_sqlite_step_statement(store, statement);
    if (code < 0)
        return code;
    int64_t start_number = code == 1 ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    if (start_number == (int64_t)store->start_number)
        return 0;
    return base_error_set(
        &store->base.error, EP_ESTORE,
        "%s: a newer daemon has started on this store; this process belongs to an older one and must exit",
        store->path);
}

int store_sqlite_begin_write(struct store_sqlite *store)
{
    if (!store->is_readonly)
        store_sqlite_acquire_write_lock(store);
    return store_sqlite_begin_write_locked(store);
}

/* Begins a write transaction on the store; the caller has tried to take the write lock before. Returns 0,
 * or a negative code after it has released the lock. Group commits (of several workers) call it directly,
 * because they take the lock earlier; all other writers call it through store_sqlite_begin_write. */
int store_sqlite_begin_write_locked(struct store_sqlite *store)
{
    if (store->is_readonly)
        return base_error_set(&store->base.error, EP_EINVAL,
                              "%s: cannot write to this store: it was opened for reading only", store->path);
    store->is_disk_full = false;
    int code = store->holds_write_lock || store->write_lock == NULL ? 0 : store_sqlite_check_wal_limit(store);
    if (code == 0)
        code = store_sqlite_run_statement(store, store_sqlite_use_statement(store, SQL_BEGIN_WRITE));
    if (code == 0 && store->checks_start_number)
        code = check_start_number(store);
    if (code == 0)
        return 0;
    store_sqlite_roll_back(store);
    store_sqlite_release_write_lock(store);
    return code;
}

int store_sqlite_end_transaction(struct store_sqlite *store, int code)
{
    code = store_sqlite_end_transaction_unsynced(store, code);
    return code == 0 && store->has_written && store->is_durable ? store_sqlite_sync_wal(store) : code;
}

/* Commits the store's transaction if code is 0, else rolls it back; then releases the write lock. Returns
 * code, or the failure of the commit. A power failure may undo the commit, because the WAL is not synced:
 * group commits sync it afterwards, and claims need no sync, because a restart voids all locks anyway. */
int store_sqlite_end_transaction_unsynced(struct store_sqlite *store, int code)
{
    uint64_t wal_bytes_before = store->wal_bytes;
    store->wal_bytes = 0; /* set again by store_sqlite_note_wal_size when the commit writes */
    if (code == 0)
        code = store_sqlite_run_statement(store, store_sqlite_use_statement(store, SQL_COMMIT));
    if (code != 0)
        store_sqlite_roll_back(store);
    bool has_written = store->has_written = store->wal_bytes > 0;
    if (!has_written)
        store->wal_bytes = wal_bytes_before;
    /* If the WAL is too long, move it while we hold the write lock, so that no writer adds to it meanwhile.
     * If the disk is full, the main file may have room: the next attempt then finds a WAL that starts
     * from its beginning. */
    if (has_written || (code != 0 && store->is_disk_full))
        store_sqlite_checkpoint_if_needed(store);
    store_sqlite_release_write_lock(store);
    if (has_written && store->wal_grown != NULL && store->wal_bytes > store->wal_limit_bytes)
        store->wal_grown(store->user);
    return code;
}

/* Adds the changes of the open transaction to the stored totals of a source and of a stage (0 = none), so
 * that status never has to count rows. Returns 0 or a negative code. Workers call it when they commit
 * answers, producers for retries and unlocks, and the keeper for operators' changes. */
int store_sqlite_add_to_totals(struct store_sqlite *store, int64_t source, int64_t stage,
                               const struct store_sqlite_tally *tally)
{
    const int64_t source_changes[] = {tally->completed, tally->removed_by_stage, tally->removed_by_operator,
                                      tally->live,      tally->delayed,          tally->held,
                                      tally->dead};
    const uint64_t stage_changes[] = {tally->stage.processed, tally->stage.retried, tally->stage.removed,
                                      tally->stage.rejected,  tally->stage.failed,  tally->stage.crashed};
    bool has_changes = false;
    int code = 0;
    for (size_t i = 0; i < sizeof source_changes / sizeof source_changes[0]; i++)
        has_changes = has_changes || source_changes[i] != 0;
    if (has_changes) {
        sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_TALLY_SOURCE);
        store_sqlite_bind(store, statement, 1, source);
        for (size_t i = 0; i < sizeof source_changes / sizeof source_changes[0]; i++)
            store_sqlite_bind(store, statement, 2 + (int)i, source_changes[i]);
        code = store_sqlite_run_statement(store, statement);
    }
    has_changes = false;
    for (size_t i = 0; i < sizeof stage_changes / sizeof stage_changes[0]; i++)
        has_changes = has_changes || stage_changes[i] != 0;
    if (code != 0 || !has_changes || stage == 0)
        return code;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_TALLY_STAGE);
    store_sqlite_bind(store, statement, 1, stage);
    for (size_t i = 0; i < sizeof stage_changes / sizeof stage_changes[0]; i++)
        store_sqlite_bind(store, statement, 2 + (int)i, (int64_t)stage_changes[i]);
    return store_sqlite_run_statement(store, statement);
}
