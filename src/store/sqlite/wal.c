/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: syncs the WAL and checkpoints it (copies it into the main file). Runs in the keeper,
 * and in any writer once the WAL is far beyond its limit or the disk is full. Owns a second connection, the
 * checkpointer, made when first needed: SQLite checkpoints nothing for a connection that is in a
 * transaction itself.
 *
 * Invariants
 *  1. The checkpointer works only while the handle's own connection is in a transaction. SQLite up to
 *     3.51.2 has a race (its "WAL-reset bug"): a checkpoint that read the WAL's state just before a writer
 *     restarted the WAL takes the new WAL for the old one, and what was committed to it is lost. A
 *     transaction that reads the WAL keeps it from restarting. One that found nothing to read in it
 *     keeps the checkpointer from marking anything as copied. One that writes keeps all other writers out.
 *  2. Nothing else checkpoints the WAL: no connection does so by itself after a commit. Only the last one to
 *     close does, while no other has the file open.
 *  3. What a writer does here after its commit does not change the result of the commit.
 *
 * A reader that holds an old state of the store holds the WAL too: it can neither be copied beyond
 * that state nor restart. Then writers slow down, the more the longer the WAL is, so that it grows
 * by little more than what is written while the reader runs.
 */
#include "src/store/sqlite/sqlite.h"

#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "shm/slot.h"

/* A WAL this many times over its limit is checkpointed by the writer that wrote to it last ... */
#define WRITER_CHECKPOINT_LIMITS 3
/* ... and if that fails this many times over it, writers slow down. */
#define SLOWDOWN_LIMITS 4

#define PAUSE_FIRST_MS 25 /* of a slowed writer; doubled for each further quarter of the limit */
#define PAUSE_LONGEST_MS 1600
#define PAUSE_POLL_MS 20 /* between two attempts to checkpoint during the pause */

/* Notes the size of the store's WAL (SQLite's write-ahead log), which decides about checkpoints. SQLite
 * calls it as a hook after each commit that wrote, in every process that writes to the store. Returns
 * SQLITE_OK. */
int store_sqlite_note_wal_size(void *handle, sqlite3 *db, const char *name, int wal_page_count)
{
    struct store_sqlite *store = handle;
    (void)db, (void)name;
    store->wal_bytes = (uint64_t)wal_page_count * store->page_bytes;
    return SQLITE_OK;
}

/* Opens the store handle's second connection, which runs checkpoints, and reads once through it: only then
 * does SQLite use the WAL there. Returns 0 or a negative code. The keeper runs it before its first
 * checkpoint, and so does a writer once the WAL is far beyond its limit. */
static int open_checkpointer(struct store_sqlite *store)
{
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA synchronous = %d; PRAGMA user_version", store->synchronous);
    int result =
        sqlite3_open_v2(store->path, &store->checkpointer, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (result == SQLITE_OK) {
        sqlite3_busy_timeout(store->checkpointer, (int)store->busy_timeout_ms);
        sqlite3_wal_autocheckpoint(store->checkpointer, 0);
        result = sqlite3_exec(store->checkpointer, sql, NULL, NULL, NULL);
    }
    if (result == SQLITE_OK) {
        /* from now on it does not wait: what cannot be copied now is copied later */
        sqlite3_busy_timeout(store->checkpointer, 0);
        return 0;
    }
    int code = store_sqlite_fail_connection(store, store->checkpointer, result);
    sqlite3_close(store->checkpointer);
    store->checkpointer = NULL;
    return code;
}

/* Begins a transaction and reads from the store: only then does the transaction hold the WAL's present
 * state, without which SQLite's WAL-reset bug could lose commits during a checkpoint. */
static int begin_wal_transaction(struct store_sqlite *store, enum store_sqlite_statement transaction)
{
    int code = store_sqlite_run_statement(store, store_sqlite_use_statement(store, transaction));
    return code == 0 ? store_sqlite_run_statement(store, store_sqlite_use_statement(store, SQL_START_NUMBER))
                     : code;
}

/* Runs one checkpoint (copies pages of the WAL into the store's main file) while a transaction of our own
 * is open: without it, SQLite's WAL-reset bug could lose commits. *is_complete: nothing is left to copy.
 * Returns 0 or a negative code. The keeper runs it, and any writer when the WAL is far too long or the disk
 * full. */
static int run_checkpoint(struct store_sqlite *store, enum store_sqlite_statement transaction_type, int mode,
                          bool *is_complete)
{
    int wal_page_count = 0, copied_page_count = 0;
    *is_complete = false;
    int code = store->checkpointer != NULL ? 0 : open_checkpointer(store);
    if (code == 0)
        code = begin_wal_transaction(store, transaction_type);
    if (code == 0) {
        int result =
            sqlite3_wal_checkpoint_v2(store->checkpointer, "main", mode, &wal_page_count, &copied_page_count);
        *is_complete = result == SQLITE_OK && wal_page_count == copied_page_count;
        if (result != SQLITE_OK && result != SQLITE_BUSY) /* busy: another process checkpoints or reads */
            code = store_sqlite_fail_connection(store, store->checkpointer, result);
    }
    store_sqlite_roll_back(store);
    return code;
}

/* Makes a commit durable after the sync of the WAL failed: copies the whole WAL into the main file and
 * syncs that. A second sync of the WAL would prove nothing, because the kernel drops pages that it could
 * not write and then reports success. EP_ESTORE: this failed, too, and the process must exit. Any writer of
 * a durable store runs it. */
static int checkpoint_instead_of_sync(struct store_sqlite *store, int sync_result)
{
    bool is_complete;
    store_sqlite_fail(store, sync_result);
    struct error sync_error = store->base.error;
    store_sqlite_acquire_write_lock(store);
    int code = run_checkpoint(store, SQL_BEGIN_WRITE, SQLITE_CHECKPOINT_PASSIVE, &is_complete);
    store_sqlite_release_write_lock(store);
    if (code == 0 && is_complete)
        return 0;
    return base_error_set(&store->base.error, EP_ESTORE, "committed, but not known to be on the disk: %s",
                          sync_error.message);
}

/* Syncs the store's WAL to the disk after a commit. It runs without the write lock, so that the next writer
 * need not wait for the disk. Returns 0, or EP_ESTORE if the disk refuses. Every writer of a durable store
 * calls it before it reports its commit as done. */
int store_sqlite_sync_wal(struct store_sqlite *store)
{
    sqlite3_file *wal = NULL;
    int result = sqlite3_file_control(store->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
    if (result == SQLITE_OK)
        result = wal != NULL && wal->pMethods != NULL ? wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL)
                                                      : SQLITE_IOERR_FSYNC;
    return result == SQLITE_OK ? 0 : checkpoint_instead_of_sync(store, result);
}

/* store_checkpoint of the SQLite engine: copies the WAL into the main file, first while others write, then
 * the rest under the write lock; otherwise writers would append faster than it copies. final also truncates
 * the WAL. Returns 0, 1 if a reader kept a part from being copied, or a negative code. The keeper calls it
 * when the WAL has grown, and with final at shutdown. */
int store_sqlite_checkpoint(struct store *base, bool final)
{
    struct store_sqlite *store = store_sqlite_of(base);
    bool is_complete;
    if (store->is_readonly)
        return base_error_set(&base->error, EP_EINVAL,
                              "%s: cannot checkpoint this store: it was opened for reading only",
                              store->path);
    int code = run_checkpoint(store, SQL_BEGIN_READ, SQLITE_CHECKPOINT_PASSIVE, &is_complete);
    if (code == 0 && !is_complete) {
        store_sqlite_acquire_write_lock(store);
        code = run_checkpoint(store, SQL_BEGIN_WRITE, SQLITE_CHECKPOINT_PASSIVE, &is_complete);
        store_sqlite_release_write_lock(store);
    }
    if (code == 0 && is_complete &&
        final) /* our own transaction reads nothing of the WAL, so it does not block this */
        code = run_checkpoint(store, SQL_BEGIN_READ, SQLITE_CHECKPOINT_TRUNCATE, &is_complete);
    return code != 0 || is_complete ? code : 1;
}

/* Returns how long a writer pauses after its commit; 0 = not at all. It pauses, the longer the longer the
 * WAL is, while a long read transaction keeps the WAL from being checkpointed; otherwise the WAL could fill
 * the disk. Every process that writes to the store runs it. */
static uint64_t compute_pause_ms(uint64_t wal_bytes, uint64_t limit_bytes)
{
    if (wal_bytes <= SLOWDOWN_LIMITS * limit_bytes)
        return 0;
    uint64_t quarters_over = (wal_bytes - SLOWDOWN_LIMITS * limit_bytes) / (limit_bytes / 4 + 1);
    return quarters_over > 6 || PAUSE_FIRST_MS << quarters_over > PAUSE_LONGEST_MS
               ? PAUSE_LONGEST_MS
               : PAUSE_FIRST_MS << quarters_over;
}

/* Checkpoints the store's WAL after a commit if it is far beyond its limit or the disk was full, and pauses
 * the writer while the checkpoint cannot complete. The result and message of the commit stay. Every process
 * that writes to the store calls it at the end of a transaction, with the write lock. */
void store_sqlite_checkpoint_if_needed(struct store_sqlite *store)
{
    struct error commit_error = store->base.error;
    bool is_complete;
    if (store->wal_bytes > WRITER_CHECKPOINT_LIMITS * store->wal_limit_bytes || store->is_disk_full) {
        run_checkpoint(store, SQL_BEGIN_WRITE, SQLITE_CHECKPOINT_PASSIVE, &is_complete);
        uint64_t deadline_ns =
            shm_now_ns() + compute_pause_ms(store->wal_bytes, store->wal_limit_bytes) * 1000000;
        while (!is_complete && shm_now_ns() < deadline_ns) {
            const struct timespec interval = {.tv_nsec = PAUSE_POLL_MS * 1000000L};
            nanosleep(&interval, NULL);
            run_checkpoint(store, SQL_BEGIN_WRITE, SQLITE_CHECKPOINT_PASSIVE, &is_complete);
        }
    }
    store->is_disk_full = false;
    store->base.error = commit_error;
}

/* Sets *bytes and *wal_bytes to the sizes of the store's file and of its WAL (0 if there is none). The
 * keeper calls it for status, and so does `eventpipe status` while the daemon is down. A writer that did
 * not get the write lock calls it to see whether the WAL is too long. */
int store_sqlite_read_sizes(struct store *base, uint64_t *bytes, uint64_t *wal_bytes)
{
    struct store_sqlite *store = store_sqlite_of(base);
    char wal_path[PATH_MAX + 8];
    struct stat file_status;
    snprintf(wal_path, sizeof wal_path, "%s-wal", store->path);
    *bytes = *wal_bytes = 0;
    if (stat(store->path, &file_status) != 0)
        return base_error_set(&base->error, EP_ESTOREBUSY, "%s: cannot read the size of the store's file: %m",
                              store->path);
    *bytes = (uint64_t)file_status.st_size;
    if (stat(wal_path, &file_status) == 0)
        *wal_bytes = (uint64_t)file_status.st_size;
    return 0;
}

/* Returns EP_ESTOREBUSY while the store's WAL is so long that writers pause, else 0. A writer that did not
 * get the write lock in time calls it before it writes: the lock's holder is probably pausing, and to write
 * past it would let the WAL grow without a limit. */
int store_sqlite_check_wal_limit(struct store_sqlite *store)
{
    uint64_t bytes, wal_bytes;
    int code = store_sqlite_read_sizes(&store->base, &bytes, &wal_bytes);
    if (code != 0 || wal_bytes <= SLOWDOWN_LIMITS * store->wal_limit_bytes)
        return code;
    return base_error_set(
        &store->base.error, EP_ESTOREBUSY,
        "%s: its WAL has grown to %llu bytes, because a program with a long read transaction keeps it from "
        "being checkpointed; end that program",
        store->path, (unsigned long long)wal_bytes);
}
