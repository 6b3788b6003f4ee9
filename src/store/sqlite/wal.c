/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: syncs the WAL and moves it into the main file. Runs in the keeper, and in any writer
 * once the WAL is far beyond its limit or the disk is full. Owns a second connection, the checkpointer,
 * made when first needed: SQLite moves nothing for a connection that is in a transaction itself.
 *
 * Invariants
 *  1. The checkpointer moves only while the handle's own connection is in a transaction. SQLite up to
 *     3.51.2 has a race (its "WAL-reset bug"): a checkpoint that read the WAL's state just before a writer
 *     began the WAL again takes the new WAL for the old one, and what was committed to it is lost. A
 *     transaction that reads the WAL keeps it from beginning again. One that found nothing to read in it
 *     keeps the checkpointer from marking anything as moved. One that writes keeps all other writers out.
 *  2. Nothing else moves the WAL: no connection does so by itself after a commit. Only the last one to
 *     close does, while no other has the file open.
 *  3. What a writer does here after its commit does not change the result of the commit.
 *
 * A reader that holds an old state of the store holds the WAL too: it can neither be moved beyond that
 * state nor begin again. Then writers slow down, the more the longer the WAL is, so that it grows
 * by little more than what is written while the reader runs.
 */
#include "src/store/sqlite/sqlite.h"

#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "shm/slot.h"

/* A WAL this many times over its limit is moved by the writer that wrote to it last ... */
#define WRITER_CHECKPOINT_LIMITS 3
/* ... and if that fails this many times over it, writers slow down. */
#define SLOWDOWN_LIMITS 4

#define PAUSE_FIRST_MS 25 /* of a slowed writer; doubled for each further quarter of the limit */
#define PAUSE_MOST_MS 1600
#define PAUSE_POLL_MS 20 /* between two attempts to move the WAL during the pause */

/* Notes the size of the store's WAL. SQLite calls it as a hook after each commit that wrote, in any
 * process that writes to the store. The size decides about checkpoints. */
int store_sqlite_wal_count(void *handle, sqlite3 *db, const char *name, int pages)
{
    struct store_sqlite *store = handle;
    (void)db, (void)name;
    store->wal_bytes = (uint64_t)pages * store->page_bytes;
    return SQLITE_OK;
}

/* Opens the store's second connection, which runs checkpoints. It must read once: only then does SQLite
 * notice the WAL. The keeper runs it, and any writer once the WAL is much too long. */
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
        /* from now on it does not wait: what cannot be moved now is moved later */
        sqlite3_busy_timeout(store->checkpointer, 0);
        return 0;
    }
    int code = store_sqlite_fail_of(store, store->checkpointer, result);
    sqlite3_close(store->checkpointer);
    store->checkpointer = NULL;
    return code;
}

/* Begins a transaction and reads: only then does it hold the state of the WAL (Invariant 1). */
static int begin_transaction(struct store_sqlite *store, enum store_sqlite_statement transaction)
{
    int code = store_sqlite_run(store, store_sqlite_use(store, transaction));
    return code == 0 ? store_sqlite_run(store, store_sqlite_use(store, SQL_START_NUMBER)) : code;
}

/* Runs one checkpoint of the store's WAL under a transaction of our own (invariant 1). *all: nothing of
 * the WAL is left to move. The keeper runs it, and any writer once the WAL is much too long or the disk
 * full. */
static int run_checkpoint(struct store_sqlite *store, enum store_sqlite_statement transaction, int mode,
                          bool *all)
{
    int pages = 0, moved = 0;
    *all = false;
    int code = store->checkpointer != NULL ? 0 : open_checkpointer(store);
    if (code == 0)
        code = begin_transaction(store, transaction);
    if (code == 0) {
        int result = sqlite3_wal_checkpoint_v2(store->checkpointer, "main", mode, &pages, &moved);
        *all = result == SQLITE_OK && pages == moved;
        if (result != SQLITE_OK && result != SQLITE_BUSY) /* busy: another process checkpoints or reads */
            code = store_sqlite_fail_of(store, store->checkpointer, result);
    }
    store_sqlite_roll_back(store);
    return code;
}

/* After a failed sync of the store's WAL: moves the whole WAL, which writes its content again, and syncs
 * that. A second sync would prove nothing: the kernel forgets the pages it could not write, and reports
 * success. If moving fails too, the caller must not go on: it is as if it had been killed after its
 * commit. Any process that writes to a durable store runs it. */
static int checkpoint_instead_of_sync(struct store_sqlite *store, int result)
{
    bool all;
    store_sqlite_fail(store, result);
    struct error first = store->store.error;
    store_sqlite_acquire_write_lock(store);
    int code = run_checkpoint(store, SQL_BEGIN_WRITE, SQLITE_CHECKPOINT_PASSIVE, &all);
    store_sqlite_release_write_lock(store);
    if (code == 0 && all)
        return 0;
    return base_error_set(&store->store.error, EP_ESTORE, "committed, but not known to be on the disk: %s",
                          first.message);
}

/* Syncs the store's WAL to the disk after a commit, without the write lock, so that the next writer
 * already works. Any process that writes to a durable store calls it before it reports the commit as done. */
int store_sqlite_wal_sync(struct store_sqlite *store)
{
    sqlite3_file *wal = NULL;
    int result = sqlite3_file_control(store->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
    if (result == SQLITE_OK)
        result = wal != NULL && wal->pMethods != NULL ? wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL)
                                                      : SQLITE_IOERR_FSYNC;
    return result == SQLITE_OK ? 0 : checkpoint_instead_of_sync(store, result);
}

/* store_checkpoint of the SQLite engine. A WAL begins again only after all of it was moved, which never
 * happens while writers add to it. So it moves most of it while they write, and the rest under the write
 * lock. The keeper calls it when the WAL has grown, and once more at the end. */
int store_sqlite_checkpoint(struct store *base, bool final)
{
    struct store_sqlite *store = store_sqlite_of(base);
    bool all;
    if (store->readonly)
        return base_error_set(&base->error, EP_EINVAL, "%s: opened for reading only", store->path);
    int code = run_checkpoint(store, SQL_BEGIN_READ, SQLITE_CHECKPOINT_PASSIVE, &all);
    if (code == 0 && !all) {
        store_sqlite_acquire_write_lock(store);
        code = run_checkpoint(store, SQL_BEGIN_WRITE, SQLITE_CHECKPOINT_PASSIVE, &all);
        store_sqlite_release_write_lock(store);
    }
    if (code == 0 && all &&
        final) /* our own transaction reads nothing of the WAL, so it does not block this */
        code = run_checkpoint(store, SQL_BEGIN_READ, SQLITE_CHECKPOINT_TRUNCATE, &all);
    return code != 0 || all ? code : 1;
}

/* Returns how long a writer of the store pauses after its commit, because its WAL is too long and a reader
 * keeps it from being checkpointed; 0 = no pause. Any process that writes to the store runs it. */
static uint64_t compute_pause_ms(uint64_t wal_bytes, uint64_t limit_bytes)
{
    if (wal_bytes <= SLOWDOWN_LIMITS * limit_bytes)
        return 0;
    uint64_t steps = (wal_bytes - SLOWDOWN_LIMITS * limit_bytes) / (limit_bytes / 4 + 1);
    return steps > 6 || PAUSE_FIRST_MS << steps > PAUSE_MOST_MS ? PAUSE_MOST_MS : PAUSE_FIRST_MS << steps;
}

/* Checkpoints the store's WAL after a commit if it is much too long or the disk was full, and pauses the
 * writer while that fails. Any process that writes to the store calls it while it holds the write lock.
 * The commit's result stays. */
void store_sqlite_wal_checkpoint_if_needed(struct store_sqlite *store)
{
    struct error kept = store->store.error;
    bool all;
    if (store->wal_bytes > WRITER_CHECKPOINT_LIMITS * store->wal_limit_bytes || store->disk_full) {
        run_checkpoint(store, SQL_BEGIN_WRITE, SQLITE_CHECKPOINT_PASSIVE, &all);
        uint64_t end_ns = shm_now_ns() + compute_pause_ms(store->wal_bytes, store->wal_limit_bytes) * 1000000;
        while (!all && shm_now_ns() < end_ns) {
            const struct timespec interval = {.tv_nsec = PAUSE_POLL_MS * 1000000L};
            nanosleep(&interval, NULL);
            run_checkpoint(store, SQL_BEGIN_WRITE, SQLITE_CHECKPOINT_PASSIVE, &all);
        }
    }
    store->disk_full = false;
    store->store.error = kept;
}

/* Refuses a write (EP_ESTOREBUSY) while the store's WAL is too long. Any process that did not get the
 * write lock in time calls it: mostly it waited for writers that pause, so it must not write either. */
int store_sqlite_wal_check_limit(struct store_sqlite *store)
{
    uint64_t bytes, wal_bytes;
    int code = store_sqlite_sizes(&store->store, &bytes, &wal_bytes);
    if (code != 0 || wal_bytes <= SLOWDOWN_LIMITS * store->wal_limit_bytes)
        return code;
    return base_error_set(
        &store->store.error, EP_ESTOREBUSY,
        "%s: its WAL has grown to %llu bytes: a program with a long read transaction keeps it from being "
        "checkpointed; end that program",
        store->path, (unsigned long long)wal_bytes);
}
