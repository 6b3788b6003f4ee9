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
    {SQLITE_LOCKED, EP_ESTOREBUSY, "SQLITE_LOCKED", "locked"},
    {SQLITE_PROTOCOL, EP_ESTOREBUSY, "SQLITE_PROTOCOL", "its locks are contended"},
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

int store_sqlite_fail(struct store_sqlite *store, int result)
{
    return store_sqlite_fail_of(store, store->db, result);
}

/* Turns a result of SQLite into the store's error code and a message for users. Any process that uses the
 * store runs it after each failure. A full disk is noted, so that a checkpoint can make room. */
int store_sqlite_fail_of(struct store_sqlite *store, sqlite3 *db, int result)
{
    int primary = result & 0xff;
    int system_errno = db != NULL ? sqlite3_system_errno(db) : 0;
    bool no_room = primary == SQLITE_IOERR && (system_errno == ENOSPC || system_errno == EDQUOT);
    store->disk_full = store->disk_full || no_room || primary == SQLITE_FULL;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        const struct refusal *refusal = &refusals[i];
        if (refusal->result != primary)
            continue;
        if (no_room)
            return base_error_set(&store->store.error, EP_ESTOREBUSY, "%s: disk full (%s)", store->path,
                                  strerror(system_errno));
        bool cause = (primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN) && system_errno != 0;
        return base_error_set(&store->store.error, refusal->code, "%s: %s (%s%s%s)", store->path,
                              refusal->message, refusal->name, cause ? ": " : "",
                              cause ? strerror(system_errno) : "");
    }
    return base_error_set(&store->store.error, EP_ESTORE, "%s: %s", store->path,
                          db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(result));
}

/* ---- statements ---- */

/* Returns a prepared statement of the store, prepared at its first use; NULL after a failure, which the
 * next run or step returns. Any process that uses the store calls it. */
sqlite3_stmt *store_sqlite_use(struct store_sqlite *store, enum store_sqlite_statement which)
{
    store->bind_code = SQLITE_OK;
    if (store->statements[which] != NULL)
        return store->statements[which];
    int result = sqlite3_prepare_v3(store->db, store_sqlite_sql(which, NULL), -1, SQLITE_PREPARE_PERSISTENT,
                                    &store->statements[which], NULL);
    if (result == SQLITE_OK)
        return store->statements[which];
    store->bind_code = result;
    store_sqlite_fail(store, result);
    return NULL;
}

/* Keeps the first failure to bind a parameter, for the next step to return, so that callers need not check
 * each bind. Any process that uses the store runs it. */
static void note_bind_failure(struct store_sqlite *store, int result)
{
    if (result != SQLITE_OK && store->bind_code == SQLITE_OK) {
        store->bind_code = result;
        store_sqlite_fail(store, result);
    }
}

void store_sqlite_bind(struct store_sqlite *store, sqlite3_stmt *statement, int at, int64_t value)
{
    if (statement != NULL)
        note_bind_failure(store, sqlite3_bind_int64(statement, at, value));
}

void store_sqlite_bind_text(struct store_sqlite *store, sqlite3_stmt *statement, int at, const char *text,
                            size_t bytes)
{
    if (statement != NULL)
        note_bind_failure(store, sqlite3_bind_text64(statement, at, text, bytes, SQLITE_STATIC, SQLITE_UTF8));
}

void store_sqlite_bind_string(struct store_sqlite *store, sqlite3_stmt *statement, int at, const char *text)
{
    store_sqlite_bind_text(store, statement, at, text, text != NULL ? strlen(text) : 0);
}

/* Steps a statement of the store: 1 = a row, 0 = no more, or an error code; after 0 or a code it is reset.
 * Any process that uses the store calls it. */
int store_sqlite_step(struct store_sqlite *store, sqlite3_stmt *statement)
{
    if (statement == NULL || store->bind_code != SQLITE_OK)
        return store->store.error.code;
    int result = sqlite3_step(statement);
    if (result == SQLITE_ROW)
        return 1;
    int code = result == SQLITE_DONE ? 0 : store_sqlite_fail(store, sqlite3_extended_errcode(store->db));
    sqlite3_reset(statement);
    return code;
}

/* Runs a statement of the store that returns no rows, and resets it. Returns 0 or an error code. Any
 * process that uses the store calls it. */
int store_sqlite_run(struct store_sqlite *store, sqlite3_stmt *statement)
{
    int code = store_sqlite_step(store, statement);
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

/* Runs SQL that returns one number, such as a pragma of the store's file; 0 if there is no row. Any
 * process that opens the store calls it; not for hot paths, because it prepares the SQL each time. */
int store_sqlite_pragma(struct store_sqlite *store, const char *sql, int64_t *value)
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
    return store_sqlite_run(store, store_sqlite_use(store, SQL_BEGIN_READ));
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

/* Releases the store's write lock if this handle holds it, and wakes workers whose answers wait for it.
 * Any process that writes to the store calls it after its transaction. */
void store_sqlite_release_write_lock(struct store_sqlite *store)
{
    if (!store->holds_write_lock)
        return;
    write_lock_release(store->write_lock);
    store->holds_write_lock = false;
    if (store->write_lock_released != NULL)
        store->write_lock_released(store->user);
}

/* Rolls back the open transaction of the store, if there is one. The error message stays that of the
 * cause. Any process that uses the store calls it after a failure. */
void store_sqlite_roll_back(struct store_sqlite *store)
{
    struct error kept = store->store.error; /* the cause, not how the rollback went */
    if (!sqlite3_get_autocommit(store->db))
        store_sqlite_run(store, store_sqlite_use(store, SQL_ROLLBACK));
    store->store.error = kept;
}

/* Checks invariant 2 in each write transaction: the store's start number is still ours. Otherwise a
 * process that outlived its instance could change events of the next one. Any process that writes to the
 * store runs it. */
static int check_epoch(struct store_sqlite *store)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_START_NUMBER);
    int code = store_sqlite_step(store, statement);
    if (code < 0)
        return code;
    int64_t number = code == 1 ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    if (number == (int64_t)store->start_number)
        return 0;
    return base_error_set(
        &store->store.error, EP_ESTORE,
        "%s: another instance has started on this store; this process is of an older start and must end",
        store->path);
}

int store_sqlite_begin_write(struct store_sqlite *store)
{
    if (!store->readonly)
        store_sqlite_acquire_write_lock(store);
    return store_sqlite_begin_write_locked(store);
}

/* Begins a write transaction of the store; the caller has tried to take the write lock. A failure rolls
 * back and releases the lock. Any process that writes to the store calls it, a group commit directly. */
int store_sqlite_begin_write_locked(struct store_sqlite *store)
{
    if (store->readonly)
        return base_error_set(&store->store.error, EP_EINVAL, "%s: opened for reading only", store->path);
    store->disk_full = false;
    int code = store->holds_write_lock || store->write_lock == NULL ? 0 : store_sqlite_wal_check_limit(store);
    if (code == 0)
        code = store_sqlite_run(store, store_sqlite_use(store, SQL_BEGIN_WRITE));
    if (code == 0 && store->checks_epoch)
        code = check_epoch(store);
    if (code == 0)
        return 0;
    store_sqlite_roll_back(store);
    store_sqlite_release_write_lock(store);
    return code;
}

int store_sqlite_end(struct store_sqlite *store, int code)
{
    code = store_sqlite_end_lazily(store, code);
    return code == 0 && store->wrote && store->durable ? store_sqlite_wal_sync(store) : code;
}

/* Commits if code is 0 or rolls back, and releases the write lock, without syncing the WAL. Group commits
 * call it (they sync later), and the producer's claims, which need not survive a power failure;
 * store_sqlite_end does for all others. */
int store_sqlite_end_lazily(struct store_sqlite *store, int code)
{
    uint64_t wal_before = store->wal_bytes;
    store->wal_bytes = 0; /* set again by store_sqlite_wal_count when the commit writes */
    if (code == 0)
        code = store_sqlite_run(store, store_sqlite_use(store, SQL_COMMIT));
    if (code != 0)
        store_sqlite_roll_back(store);
    bool wrote = store->wrote = store->wal_bytes > 0;
    if (!wrote)
        store->wal_bytes = wal_before;
    /* If the WAL is too long, move it while we hold the write lock, so that no writer adds to it meanwhile.
     * If the disk is full, the main file may have room: the next attempt then finds a WAL that begins
     * again. */
    if (wrote || (code != 0 && store->disk_full))
        store_sqlite_wal_checkpoint_if_needed(store);
    store_sqlite_release_write_lock(store);
    if (wrote && store->wal_grown != NULL && store->wal_bytes > store->wal_limit_bytes)
        store->wal_grown(store->user);
    return code;
}

/* Adds the changes of one transaction to the totals of a source and a stage, inside that transaction, so
 * that status counts no rows. Workers call it in their commits, the producer for claims and unlocks, an
 * operator's change too. */
int store_sqlite_tally(struct store_sqlite *store, int64_t source, int64_t stage,
                       const struct store_sqlite_tally *tally)
{
    const int64_t counts[] = {tally->completed, tally->removed_by_stage, tally->removed_by_operator,
                              tally->live,      tally->delayed,          tally->held,
                              tally->dead};
    const uint64_t answers[] = {tally->stage.processed, tally->stage.retried, tally->stage.removed,
                                tally->stage.rejected,  tally->stage.failed,  tally->stage.crashed};
    bool changed = false;
    int code = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        changed = changed || counts[i] != 0;
    if (changed) {
        sqlite3_stmt *statement = store_sqlite_use(store, SQL_TALLY_SOURCE);
        store_sqlite_bind(store, statement, 1, source);
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
            store_sqlite_bind(store, statement, 2 + (int)i, counts[i]);
        code = store_sqlite_run(store, statement);
    }
    changed = false;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++)
        changed = changed || answers[i] != 0;
    if (code != 0 || !changed || stage == 0)
        return code;
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_TALLY_STAGE);
    store_sqlite_bind(store, statement, 1, stage);
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++)
        store_sqlite_bind(store, statement, 2 + (int)i, (int64_t)answers[i]);
    return store_sqlite_run(store, statement);
}
