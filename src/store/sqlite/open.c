/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: opens and closes a handle, the connection and its settings. Runs in any process that
 * uses the store, after fork. Owns the connection.
 *
 * Invariants
 *  1. A reader changes nothing, and creates nothing except the index that SQLite needs to read a WAL when
 *     the daemon is down.
 *  2. Every setting is read back: SQLite ignores a setting that it does not know or refuses.
 *  3. A file that is not a store of ours is not changed, not even its journal mode.
 */
#include "src/store/sqlite/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MS 5000
#define PRAGMA_NORMAL 1 /* values of PRAGMA synchronous */
#define PRAGMA_FULL 2
#define CACHE_PRAGMA (-2000) /* a negative number counts KiB */
#define TEMP_STORE_MEMORY 2
#define WAL_LIMIT_BYTES (4 << 20) /* where the caller gave none */

/* Sets a pragma of the connection to the store and reads it back, because SQLite silently ignores a pragma
 * that it does not know. Returns 0 or a negative code. Every process that opens the store runs it. */
static int set_pragma(struct store_sqlite *store, const char *name, int64_t value)
{
    char sql[128];
    int64_t found_value;
    snprintf(sql, sizeof sql, "PRAGMA %s = %lld", name, (long long)value);
    int code = store_sqlite_execute(store, sql);
    snprintf(sql, sizeof sql, "PRAGMA %s", name);
    if (code == 0)
        code = store_sqlite_read_number(store, sql, &found_value);
    if (code == 0 && found_value != value)
        code = base_error_set(&store->base.error, EP_ESTORE,
                              "%s: SQLite refuses PRAGMA %s = %lld (it stays %lld)", store->path, name,
                              (long long)value, (long long)found_value);
    return code;
}

/* Switches the store to SQLite's write-ahead log (WAL), without which readers would block writers. SQLite
 * cannot use it on some file systems: then this fails. Every process that opens the store for writing runs
 * it. */
static int set_wal_mode(struct store_sqlite *store)
{
    sqlite3_stmt *statement = NULL;
    int result = sqlite3_prepare_v2(store->db, "PRAGMA journal_mode = WAL", -1, &statement, NULL);
    if (result == SQLITE_OK)
        result = sqlite3_step(statement);
    int code = 0;
    if (result != SQLITE_ROW)
        code = store_sqlite_fail(store, sqlite3_extended_errcode(store->db));
    else if (strcmp((const char *)sqlite3_column_text(statement, 0), "wal") != 0)
        code = base_error_set(&store->base.error, EP_ESTORE,
                              "%s: SQLite cannot use its write-ahead log here (a network file system?); put "
                              "the store on a local disk",
                              store->path);
    sqlite3_finalize(statement);
    return code;
}

/* Applies all settings of a connection to the store; a reader needs only those before the WAL. It turns
 * secure_delete off: Debian's SQLite overwrites deleted rows by default, which would double what each
 * completed event writes. Returns 0 or a negative code. Every process that opens the store runs it. */
static int configure_connection(struct store_sqlite *store, const struct store_sqlite_paths *paths)
{
    int64_t page_bytes = 0;
    int code = set_pragma(store, "cache_size", CACHE_PRAGMA);
    if (code == 0)
        code = set_pragma(store, "temp_store", TEMP_STORE_MEMORY);
    if (code == 0)
        code = set_pragma(store, "foreign_keys", 0);
    if (code == 0)
        code = set_pragma(store, "secure_delete", 0);
    if (code == 0)
        code = store_sqlite_read_number(store, "PRAGMA page_size", &page_bytes);
    store->page_bytes = (uint64_t)page_bytes;
    if (code != 0 || store->is_readonly)
        return code;
    code = set_wal_mode(store);
    /* With "full", SQLite would sync while it holds the WAL's lock; we sync later, in
     * store_sqlite_end_transaction. */
    store->is_durable = paths->synchronous >= PRAGMA_FULL;
    if (code == 0)
        code = set_pragma(store, "synchronous", store->is_durable ? PRAGMA_NORMAL : paths->synchronous);
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA journal_size_limit = %llu", (unsigned long long)store->wal_limit_bytes);
    if (code == 0)
        code = store_sqlite_execute(store, sql);
    sqlite3_wal_hook(store->db, store_sqlite_note_wal_size,
                     store); /* also ends SQLite's own checkpoints at every 1,000 pages */
    return code;
}

/* Returns the store's path as a "file:" URI with the query appended; characters that have a meaning in a
 * URI are escaped. The caller frees it; NULL = out of memory. The command line runs it when it opens the
 * store for reading only. */
static char *make_file_uri(const char *path, const char *query)
{
    char *uri = malloc(3 * strlen(path) + strlen(query) + 6);
    if (uri == NULL)
        return NULL;
    char *next_byte = stpcpy(uri, "file:");
    for (; *path != '\0'; path++)
        if (strchr("?#% ", *path) != NULL)
            next_byte += sprintf(next_byte, "%%%02X", (unsigned char)*path);
        else
            *next_byte++ = *path;
    strcpy(next_byte, query);
    return uri;
}

/* Opens the store's file read-only, with this URI query, and reads from it once: SQLite reports an
 * unreadable file only at the first read. Returns 0 or a negative code. The command line runs it for
 * commands that only read. */
static int connect_readonly(struct store_sqlite *store, const char *query)
{
    char *uri = make_file_uri(store->path, query);
    if (uri == NULL)
        return base_error_set(&store->base.error, EP_ENOMEM, "out of memory");
    int result =
        sqlite3_open_v2(uri, &store->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI, NULL);
    free(uri);
    if (result == SQLITE_OK) {
        sqlite3_busy_timeout(store->db, (int)store->busy_timeout_ms);
        int64_t version;
        return store_sqlite_read_number(store, "PRAGMA user_version", &version); /* the first read */
    }
    return store_sqlite_fail(store, result);
}

/* Whether this user cannot write to the store's file and it has neither -wal nor -shm file, which shows
 * that no process uses it. The command line then reads it without creating these files: they would be
 * read-only, too, and a daemon that may write the store later could not use them. */
static bool is_unused_readonly_file(const char *path)
{
    char companion_path[PATH_MAX + 8];
    struct stat file_status;
    if (stat(path, &file_status) != 0 || ((file_status.st_mode & 0222) != 0 && access(path, W_OK) == 0))
        return false;
    snprintf(companion_path, sizeof companion_path, "%s-wal", path);
    if (access(companion_path, F_OK) == 0)
        return false;
    snprintf(companion_path, sizeof companion_path, "%s-shm", path);
    return access(companion_path, F_OK) != 0;
}

/* Opens the store for a command that only reads. If SQLite cannot create the shared index that a WAL needs
 * (no daemon runs, and the directory is read-only), it reads the main file alone. It refuses that while a
 * crash has left a WAL, because the last commits are only there. Returns 0 or a negative code. */
static int connect_reader(struct store_sqlite *store)
{
    if (is_unused_readonly_file(store->path))
        return connect_readonly(store, "?immutable=1");
    int code = connect_readonly(store, "?mode=ro");
    if (code == 0 || code == EP_ESTORE)
        return code;
    char wal_path[PATH_MAX + 8];
    struct stat file_status;
    snprintf(wal_path, sizeof wal_path, "%s-wal", store->path);
    struct error first_error = store->base.error;
    bool has_wal = stat(wal_path, &file_status) == 0 && file_status.st_size > 0;
    sqlite3_close(store->db);
    store->db = NULL;
    if (has_wal) {
        store->base.error = first_error;
        base_error_prefix(&store->base.error,
                          "a WAL of %lld bytes, left by a crash, lies beside the store, and this user cannot "
                          "read it; run this "
                          "command as the user who owns the store, or start the daemon",
                          (long long)file_status.st_size);
        return code;
    }
    return connect_readonly(store, "?immutable=1");
}

/* Opens the store's file for writing; in mode STORE_SQLITE_CREATE it creates the file, readable for this
 * user only. Returns 0 or a negative code. Each producer, worker and keeper runs it after fork, and so does
 * `eventpipe import`. */
static int connect_writer(struct store_sqlite *store, enum store_sqlite_mode mode)
{
    if (mode == STORE_SQLITE_CREATE) { /* we make the file, for its mode: SQLite gives its WAL the same */
        int fd = open(store->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return base_error_set(&store->base.error,
                                  errno == EACCES || errno == EPERM ? EP_EACCESS : EP_ESTOREBUSY,
                                  "%s: cannot be opened for writing: %s", store->path, strerror(errno));
        close(fd);
    }
    int result = sqlite3_open_v2(store->path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (result != SQLITE_OK)
        return store_sqlite_fail(store, result);
    sqlite3_busy_timeout(store->db, (int)store->busy_timeout_ms);
    if (sqlite3_db_readonly(store->db, "main") == 1) /* SQLite opens such a file without an error */
        return base_error_set(&store->base.error, EP_ESTOREBUSY,
                              "%s: this user may not write to this file; change its owner or mode",
                              store->path);
    return 0;
}

/* Connects to the store's file, checks that it is a store of ours, and only then applies the settings, so
 * that a foreign database is never changed. In mode STORE_SQLITE_CREATE it also creates or migrates the
 * tables. Returns 0 or a negative code. Every process that opens the store runs it. */
static int connect_and_check(struct store_sqlite *store, const struct store_sqlite_paths *paths,
                             enum store_sqlite_mode mode)
{
    int code = mode == STORE_SQLITE_READ ? connect_reader(store) : connect_writer(store, mode);
    if (code != 0)
        return code;
    sqlite3_extended_result_codes(store->db, 1);
    /* Before any setting is made: a foreign file must stay as it is. */
    code = store_sqlite_check_schema(store, false);
    if (code == 0)
        code = configure_connection(store, paths);
    if (code == 0 && mode == STORE_SQLITE_CREATE)
        code = store_sqlite_check_schema(store, true);
    /* A process before us may have been killed between its commit and its sync. We act on what we read (a
     * cursor tells the backend what it may forget), so it must be on the disk first. */
    if (code == 0 && mode == STORE_SQLITE_WRITE && store->is_durable)
        code = store_sqlite_sync_wal(store);
    if (code != 0 || mode != STORE_SQLITE_WRITE || store->start_number != 0)
        return code;
    /* A writer that was given no start number takes the store's, so that running events count as running. */
    int64_t start_number;
    code = store_sqlite_read_number(store, store_sqlite_sql(SQL_START_NUMBER, NULL), &start_number);
    store->start_number = (uint64_t)start_number;
    store->lowest_valid_token = start_number << 40;
    return code;
}

/* Opens a handle of the store; sqlite: and memory: stores share it. Returns 0 and *out, or a negative code.
 * Every process that uses the store calls it, and only after its fork: an SQLite connection that crosses a
 * fork can corrupt the file. */
int store_sqlite_open_paths(const struct store_options *options, const struct store_sqlite_paths *paths,
                            enum store_sqlite_mode mode, const struct store_ops *ops,
                            struct store_sqlite **out, struct error *error)
{
    struct stat file_status;
    /* We never read these statistics. SQLite refuses this after its first use, which is harmless. */
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    if (mode != STORE_SQLITE_CREATE && stat(paths->path, &file_status) != 0)
        return base_error_set(error, errno == ENOENT || errno == ENOTDIR ? EP_ENOENT : EP_EACCESS, "%s: %s",
                              paths->path,
                              errno == ENOENT ? "there is no store (the daemon creates it when it starts)"
                                              : strerror(errno));
    struct store_sqlite *store = calloc(1, sizeof *store);
    if (store == NULL || (store->path = strdup(paths->path)) == NULL) {
        free(store);
        return base_error_set(error, EP_ENOMEM, "out of memory");
    }
    store->base.ops = ops;
    store->write_lock = options->write_lock;
    store->is_trace_on = options->trace;
    store->pid = (int32_t)getpid();
    store->is_readonly = mode == STORE_SQLITE_READ;
    store->synchronous = paths->synchronous;
    store->checks_start_number = mode == STORE_SQLITE_WRITE;
    store->busy_timeout_ms = options->busy_timeout_ms != 0 ? options->busy_timeout_ms : BUSY_TIMEOUT_MS;
    store->start_number = options->start_number;
    store->lowest_valid_token =
        options->start_number != 0 ? (int64_t)(options->start_number << 40) : INT64_MAX;
    store->wal_limit_bytes = options->wal_bytes != 0 ? options->wal_bytes : WAL_LIMIT_BYTES;
    store->wal_grown = options->wal_grown;
    store->write_lock_released = options->write_lock_released;
    store->user = options->user;
    int code = connect_and_check(store, paths, mode);
    if (code != 0) {
        base_error_set(error, code, "%s", store->base.error.message);
        store_sqlite_close(&store->base);
        return code;
    }
    *out = store;
    return 0;
}

/* store_close of the SQLite engine: closes both connections and frees the handle and all its memory. Every
 * process that opened the store calls it before it exits; a failed open calls it, too. */
void store_sqlite_close(struct store *base)
{
    struct store_sqlite *store = store_sqlite_of(base);
    for (size_t i = 0; i < SQL_STATEMENTS; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_close(store->checkpointer);
    sqlite3_close(store->db);
    store_trace_pack_free(&store->pack);
    store_sqlite_forget_claimed_events(store);
    free(store->open_claim.events);
    free(store->low_water_marks);
    free(store->path);
    free(store);
}
