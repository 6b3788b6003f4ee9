/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine at work: prepared statements, transactions, failures. Runs in whatever process opened the
 * handle (store_sqlite_open.c), after fork. Owns, while it writes, a turn at the gate.
 *
 * Invariants
 *  1. Outside a call no transaction is open and the gate is not held.
 *  2. A writer's transaction begins only while the store's start number is the handle's own: a process left
 * over from an older family is refused, whatever it believes to hold.
 *  3. Nothing is reported as done before COMMIT has returned, and with synchronous = full not before the log
 * is on the disk. The log is synced after the transaction, when the next writer is at work already: writers
 * share the time the disk takes instead of queueing for it. Others can see what was committed by then;
 * whoever builds on it syncs the same log later.
 *
 * Survived: every refusal of SQLite; the transaction is rolled back and the words say why. Nothing is fatal
 * here.
 */
#include "src/store/sqlite/sqlite.h"

#include <errno.h>
#include <string.h>

#include "shm/write_lock.h"

struct refusal {
    int result; /* SQLite's primary code */
    int code;
    const char *name, *words;
};

static const struct refusal refusals[] = {
    {SQLITE_BUSY, EP_ESTOREBUSY, "SQLITE_BUSY", "locked by another process"},
    {SQLITE_LOCKED, EP_ESTOREBUSY, "SQLITE_LOCKED", "locked"},
    {SQLITE_PROTOCOL, EP_ESTOREBUSY, "SQLITE_PROTOCOL", "its locks are contended"},
    {SQLITE_FULL, EP_ESTOREBUSY, "SQLITE_FULL", "disk full"},
    {SQLITE_READONLY, EP_ESTOREBUSY, "SQLITE_READONLY", "read-only"},
    {SQLITE_CANTOPEN, EP_ESTOREBUSY, "SQLITE_CANTOPEN", "cannot be opened"},
    {SQLITE_IOERR, EP_ESTOREBUSY, "SQLITE_IOERR", "the disk refuses"},
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
            return error_set(&store->store.error, EP_ESTOREBUSY, "%s: disk full (%s)", store->path,
                             strerror(system_errno));
        bool cause = (primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN) && system_errno != 0;
        return error_set(&store->store.error, refusal->code, "%s: %s (%s%s%s)", store->path, refusal->words,
                         refusal->name, cause ? ": " : "", cause ? strerror(system_errno) : "");
    }
    return error_set(&store->store.error, EP_ESTORE, "%s: %s", store->path,
                     db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(result));
}

/* ---- statements ---- */

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

static void note_bind(struct store_sqlite *store, int result)
{
    if (result != SQLITE_OK && store->bind_code == SQLITE_OK) {
        store->bind_code = result;
        store_sqlite_fail(store, result);
    }
}

void store_sqlite_bind(struct store_sqlite *store, sqlite3_stmt *statement, int at, int64_t value)
{
    if (statement != NULL)
        note_bind(store, sqlite3_bind_int64(statement, at, value));
}

void store_sqlite_bind_text(struct store_sqlite *store, sqlite3_stmt *statement, int at, const char *text,
                            size_t bytes)
{
    if (statement != NULL)
        note_bind(store, sqlite3_bind_text64(statement, at, text, bytes, SQLITE_STATIC, SQLITE_UTF8));
}

void store_sqlite_bind_words(struct store_sqlite *store, sqlite3_stmt *statement, int at, const char *text)
{
    store_sqlite_bind_text(store, statement, at, text, text != NULL ? strlen(text) : 0);
}

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

void store_sqlite_enter_gate(struct store_sqlite *store)
{
    store->gated = store->gate != NULL && gate_enter(store->gate, store->busy_timeout_ms) == 0;
}

bool store_sqlite_try_gate(struct store_sqlite *store)
{
    store->gated = store->gate != NULL && gate_try(store->gate) == 0;
    return store->gated || store->gate == NULL;
}

void store_sqlite_leave_gate(struct store_sqlite *store)
{
    if (!store->gated)
        return;
    gate_leave(store->gate);
    store->gated = false;
    if (store->gate_left != NULL)
        store->gate_left(store->user);
}

void store_sqlite_roll_back(struct store_sqlite *store)
{
    struct error kept = store->store.error; /* why, not how the clearing up went */
    if (!sqlite3_get_autocommit(store->db))
        store_sqlite_run(store, store_sqlite_use(store, SQL_ROLLBACK));
    store->store.error = kept;
}

static int check_fence(struct store_sqlite *store)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_START_NUMBER);
    int code = store_sqlite_step(store, statement);
    if (code < 0)
        return code;
    int64_t number = code == 1 ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    if (number == (int64_t)store->start_number)
        return 0;
    return error_set(&store->store.error, EP_ESTORE,
                     "%s: started anew by another family (start %lld, this process belongs to start %llu)",
                     store->path, (long long)number, (unsigned long long)store->start_number);
}

int store_sqlite_begin_write(struct store_sqlite *store)
{
    if (!store->readonly)
        store_sqlite_enter_gate(store);
    return store_sqlite_begin_at_gate(store);
}

int store_sqlite_begin_at_gate(struct store_sqlite *store)
{
    if (store->readonly)
        return error_set(&store->store.error, EP_EINVAL, "%s: opened for reading only", store->path);
    store->disk_full = false;
    int code = store->gated || store->gate == NULL ? 0 : store_sqlite_mind_log(store);
    if (code == 0)
        code = store_sqlite_run(store, store_sqlite_use(store, SQL_BEGIN_WRITE));
    if (code == 0 && store->fenced)
        code = check_fence(store);
    if (code == 0)
        return 0;
    store_sqlite_roll_back(store);
    store_sqlite_leave_gate(store);
    return code;
}

int store_sqlite_end(struct store_sqlite *store, int code)
{
    code = store_sqlite_end_lazily(store, code);
    return code == 0 && store->wrote && store->durable ? store_sqlite_sync_log(store) : code;
}

int store_sqlite_end_lazily(struct store_sqlite *store, int code)
{
    uint64_t log_before = store->log_bytes;
    store->log_bytes = 0; /* set anew by store_sqlite_count_log when the commit writes */
    if (code == 0)
        code = store_sqlite_run(store, store_sqlite_use(store, SQL_COMMIT));
    if (code != 0)
        store_sqlite_roll_back(store);
    bool wrote = store->wrote = store->log_bytes > 0;
    if (!wrote)
        store->log_bytes = log_before;
    /* Nobody moves the log away: do it here, still at the gate, so that no writer adds to it meanwhile. Where
     * the disk is full, the main file may have room: the next try then finds a log that begins anew. */
    if (wrote || (code != 0 && store->disk_full))
        store_sqlite_relieve_log(store);
    store_sqlite_leave_gate(store);
    if (wrote && store->log_grown != NULL && store->log_bytes > store->log_limit_bytes)
        store->log_grown(store->user);
    return code;
}

int store_sqlite_tally(struct store_sqlite *store, int64_t source, int64_t stage,
                       const struct store_sqlite_tally *tally)
{
    const int64_t counts[] = {tally->finished, tally->removed, tally->discarded, tally->live,
                              tally->delayed,  tally->held,    tally->dead};
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
