/* SPDX-License-Identifier: MIT */
/*
 * The store's WAL: moved without losing what is committed meanwhile, bounded while a reader holds an old
 * state, and moved when the disk is full or refuses to sync it.
 *
 * SQLite up to 3.51.2 takes a WAL that a writer begins again for the old one when a checkpoint has just
 * looked at it, and then leaves out what is committed next ("WAL-reset bug"). Here that instant is held
 * open: between its look at the WAL and its work a checkpoint calls xUnfetch, and there the tests let
 * another handle write.
 */
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>

#include "shm/slot.h"
#include "shm/write_lock.h"
#include "src/store/sqlite/sqlite.h"
#include "tests/lib/store_files.h"

/* ---- the instant ---- */

static sqlite3_vfs vfs;
static sqlite3_vfs *real;
static sqlite3_io_methods watched, watched_wal;
static int (*real_unfetch)(sqlite3_file *file, sqlite3_int64 offset, void *page);
static int (*real_write)(sqlite3_file *file, const void *bytes, int amount, sqlite3_int64 offset);
static int (*real_sync)(sqlite3_file *file, int flags);
static sqlite3_int64 wal_room;
static int wal_syncs, wal_syncs_refused; /* how many there were, how many more fail */
static bool main_refused;
static void (*at_the_instant)(void);
static int instants;

static int watch_unfetch(sqlite3_file *file, sqlite3_int64 offset, void *page)
{
    void (*run)(void) = at_the_instant;
    at_the_instant = NULL; /* once */
    if (run != NULL) {
        instants++;
        run();
    }
    return real_unfetch(file, offset, page);
}

/* Of a full disk: the WAL may be written again, and not grow. */
static int watch_write(sqlite3_file *file, const void *bytes, int amount, sqlite3_int64 offset)
{
    if (offset + amount > wal_room)
        return SQLITE_FULL;
    return real_write(file, bytes, amount, offset);
}

static int watch_wal_sync(sqlite3_file *file, int flags)
{
    wal_syncs++;
    if (wal_syncs_refused == 0)
        return real_sync(file, flags);
    wal_syncs_refused--;
    return SQLITE_IOERR_FSYNC;
}

static int watch_sync(sqlite3_file *file, int flags)
{
    return main_refused ? SQLITE_IOERR_FSYNC : real_sync(file, flags);
}

static int watch_open(sqlite3_vfs *self, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)self;
    int result = real->xOpen(real, name, file, flags, out_flags);
    if (result == SQLITE_OK && (flags & SQLITE_OPEN_MAIN_DB) != 0) {
        watched = *file->pMethods;
        real_unfetch = watched.xUnfetch;
        watched.xUnfetch = watch_unfetch;
        real_sync = watched.xSync;
        watched.xSync = watch_sync;
        file->pMethods = &watched;
    } else if (result == SQLITE_OK && (flags & SQLITE_OPEN_WAL) != 0) {
        watched_wal = *file->pMethods;
        real_write = watched_wal.xWrite;
        watched_wal.xWrite = watch_write;
        watched_wal.xSync = watch_wal_sync;
        file->pMethods = &watched_wal;
    }
    return result;
}

static void watch(void)
{
    real = sqlite3_vfs_find(NULL);
    wal_room = INT64_MAX;
    vfs = *real;
    vfs.zName = "watched";
    vfs.pNext = NULL;
    vfs.xOpen = watch_open;
    CU_ASSERT_EQUAL_FATAL(sqlite3_vfs_register(&vfs, 1), SQLITE_OK);
}

static void watch_no_more(void)
{
    CU_ASSERT_EQUAL(sqlite3_vfs_register(real, 1), SQLITE_OK);
    CU_ASSERT_EQUAL(sqlite3_vfs_unregister(&vfs), SQLITE_OK);
}

/* ---- another handle, as another process has it ---- */

static struct store *other;
static int written; /* events that the other handle was told are stored: uids o0, o1 ... */

static bool write_one(void)
{
    static char data[3000]; /* a page of its own for each, that no later one writes again */
    char uid[32];
    snprintf(uid, sizeof uid, "o%d", written);
    memset(data, 'x', sizeof data);
    struct store_event event = {.uid = uid, .data = data, .data_bytes = sizeof data};
    struct store_page page = {&event, 1, NULL, false, 1000, false, NULL};
    struct store_ingested out;
    int code = store_ingest(other, fixture.source, &page, &out);
    if (code == 0)
        written++;
    return code == 0;
}

static void try_to_write(void)
{
    write_one(); /* may be refused: then nothing was promised */
}

static uint64_t wal_of(struct store *store)
{
    return store_sqlite_of(store)->wal_bytes;
}

static void begin(uint64_t wal_bytes)
{
    watch();
    fixture_begin();
    store_close(&fixture.store);
    fixture.options.wal_bytes = wal_bytes;
    fixture.store = fixture_open(false);
    other = fixture_open(false);
    CU_ASSERT_PTR_NOT_NULL_FATAL(other);
    written = instants = 0;
}

static int on_item(const struct store_item *item, void *user)
{
    if (item->uid[0] == 'o')
        ++*(int *)user;
    return 0;
}

/* What was acknowledged is there, for a handle that has seen nothing yet. */
static void end(void)
{
    store_close(&other);
    store_close(&fixture.store);
    fixture.store = fixture_open(false);
    CU_ASSERT_PTR_NOT_NULL_FATAL(fixture.store);
    const struct store_select all = {.state = -1};
    int found = 0;
    CU_ASSERT_EQUAL(store_list(fixture.store, &all, false, on_item, &found), 0);
    CU_ASSERT_EQUAL(found, written);
    fixture_end();
    watch_no_more();
}

/* ---- a checkpoint, and a WAL that begins again at that instant ---- */

static void keeper_moves(void)
{
    store_checkpoint(fixture.store, false);
}

static void keeper_ends(void)
{
    store_checkpoint(fixture.store, true);
}

static void hold_the_instant(void move(void))
{
    begin(1000000);
    for (int round = 0; round < 2;
         round++) { /* twice: so that the checkpointer knows of an older WAL each time */
        while (wal_of(other) < 60 * 4096)
            CU_ASSERT_TRUE(write_one());
        move();
        CU_ASSERT_TRUE(write_one());
        CU_ASSERT(wal_of(other) < 30 * 4096); /* the WAL began again */
    }
    while (wal_of(other) < 60 * 4096)
        CU_ASSERT_TRUE(write_one());
    store_checkpoint(fixture.store, false); /* all is moved, the next writer begins the WAL again */
    at_the_instant = try_to_write;
    move();
    if (at_the_instant != NULL) /* what was known of the WAL was right still */
        move();
    at_the_instant = NULL;
    CU_ASSERT(instants > 0);
    while (wal_of(other) < 120 * 4096 && write_one())
        continue;
    CU_ASSERT(wal_of(other) >= 120 * 4096);
    move();
    end();
}

static void the_keeper_loses_nothing(void)
{
    hold_the_instant(keeper_moves);
}

static void the_end_loses_nothing(void)
{
    hold_the_instant(keeper_ends);
}

/* ---- a full disk ---- */

static void a_full_disk_has_it_moved(void)
{
    begin(1000000);
    for (int i = 0; i < 20; i++)
        CU_ASSERT_TRUE(write_one());
    char wal[340];
    struct stat status;
    snprintf(wal, sizeof wal, "%s-wal", store_files_path());
    CU_ASSERT_EQUAL(stat(wal, &status), 0);
    wal_room = status.st_size;
    CU_ASSERT_FALSE(write_one());
    CU_ASSERT_PTR_NOT_NULL(strstr(store_errmsg(other), "disk full"));
    CU_ASSERT_TRUE(write_one());
    for (int i = 0; i < 20; i++)
        if (!write_one()) /* full again, and moved again */
            CU_ASSERT_TRUE(write_one());
    wal_room = INT64_MAX;
    end();
}

/* ---- a disk that refuses to sync ---- */

static sqlite3 *hold_state(void)
{
    sqlite3 *reader;
    CU_ASSERT_EQUAL_FATAL(sqlite3_open_v2(store_files_path(), &reader, SQLITE_OPEN_READONLY, NULL),
                          SQLITE_OK);
    CU_ASSERT_EQUAL(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM source", NULL, NULL, NULL), SQLITE_OK);
    return reader;
}

static void begin_full(void)
{
    begin(1000000);
    fixture.options.synchronous = SYNCHRONOUS_FULL;
    store_close(&other);
    other = fixture_open(false);
    CU_ASSERT_PTR_NOT_NULL_FATAL(other);
    CU_ASSERT_TRUE(write_one());
    wal_syncs = 0;
}

static void every_answer_is_synced(void)
{
    begin_full();
    CU_ASSERT_TRUE(write_one());
    CU_ASSERT_TRUE(write_one());
    CU_ASSERT_EQUAL(wal_syncs, fixture.kind == KIND_MEMORY ? 0 : 2);
    end();
}

/* Left by a process that was killed after its commit. */
static void what_others_committed_is_synced_before_it_is_read(void)
{
    begin_full();
    store_close(&other);
    wal_syncs = 0;
    other = fixture_open(false);
    CU_ASSERT_PTR_NOT_NULL_FATAL(other);
    CU_ASSERT_EQUAL(wal_syncs, fixture.kind == KIND_MEMORY ? 0 : 1);
    end();
}

/* The kernel forgets what it could not write: what failed once is written again, elsewhere. */
static void a_failed_sync_has_it_moved(void)
{
    begin_full();
    CU_ASSERT_TRUE(write_one());
    wal_syncs_refused = fixture.kind == KIND_MEMORY ? 0 : 1;
    CU_ASSERT_TRUE(write_one());
    CU_ASSERT_EQUAL(wal_syncs_refused, 0);
    CU_ASSERT_TRUE(write_one());
    if (fixture.kind != KIND_MEMORY)
        CU_ASSERT(wal_of(other) < 10 * 4096); /* it began again */
    end();
}

static void a_disk_that_keeps_nothing_is_told_of(void)
{
    begin_full();
    wal_syncs_refused = 1;
    main_refused = true;
    bool kept = write_one();
    main_refused = false;
    wal_syncs_refused = 0;
    CU_ASSERT_EQUAL(kept, fixture.kind == KIND_MEMORY);
    if (!kept) {
        CU_ASSERT_PTR_NOT_NULL(strstr(store_errmsg(other), "not known to be on the disk"));
        written++; /* committed it is: as if the process had been killed just then */
    }
    end();
}

static void a_move_held_up_is_told_of(void)
{
    begin_full();
    sqlite3 *reader = hold_state();
    CU_ASSERT_TRUE(write_one());
    wal_syncs_refused = 1;
    bool kept = write_one();
    wal_syncs_refused = 0;
    CU_ASSERT_EQUAL(kept, fixture.kind == KIND_MEMORY);
    written += !kept;
    sqlite3_close(reader);
    end();
}

/* ---- a reader that holds an old state ---- */

static void writers_slow_down(void)
{
    pthread_mutex_t write_lock;
    CU_ASSERT_EQUAL_FATAL(write_lock_init(&write_lock), 0);
    fixture.options.write_lock = NULL;
    begin(40000);
    CU_ASSERT_TRUE(write_one());
    sqlite3 *reader = hold_state();
    while (wal_of(other) <= 4 * 40000)
        CU_ASSERT_TRUE_FATAL(write_one());
    uint64_t before_ns = shm_now_ns();
    CU_ASSERT_TRUE(write_one());
    CU_ASSERT(shm_now_ns() - before_ns >= 25000000); /* what no writer could do is the shortest pause */
    CU_ASSERT_EQUAL(store_checkpoint(fixture.store, false), 1);

    /* Who does not get hold of the write lock, because others pause there, does not write past them. */
    store_sqlite_of(other)->write_lock = &write_lock;
    CU_ASSERT_EQUAL(write_lock_acquire(&write_lock, 0), 0);
    uint64_t length = wal_of(other);
    CU_ASSERT_FALSE(write_one());
    CU_ASSERT_PTR_NOT_NULL(strstr(store_errmsg(other), "a long read transaction"));
    write_lock_release(&write_lock);

    sqlite3_close(reader);
    CU_ASSERT_EQUAL(store_checkpoint(fixture.store, false), 0);
    CU_ASSERT_TRUE(write_one());
    CU_ASSERT(wal_of(other) < length / 4); /* it began again */
    CU_ASSERT_EQUAL(write_lock_acquire(&write_lock, 0), 0);
    CU_ASSERT_TRUE(write_one()); /* the write lock is no lock: a holder that stands still is no obstacle */
    write_lock_release(&write_lock);
    end();
}

STORE_MAIN("store: WAL",
           {"nothing is lost when a WAL begins again under the keeper", the_keeper_loses_nothing},
           {"nor under the last checkpoint", the_end_loses_nothing},
           {"a full disk has it moved", a_full_disk_has_it_moved},
           {"with synchronous = full every answer is synced", every_answer_is_synced},
           {"what others committed is synced before it is read",
            what_others_committed_is_synced_before_it_is_read},
           {"a WAL that could not be synced is moved", a_failed_sync_has_it_moved},
           {"a disk that keeps nothing is told of", a_disk_that_keeps_nothing_is_told_of},
           {"so is a move that a reader holds up", a_move_held_up_is_told_of},
           {"writers slow down while a reader holds it", writers_slow_down})
