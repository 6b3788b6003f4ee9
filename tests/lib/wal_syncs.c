/* SPDX-License-Identifier: MIT */
/* The VFS: the default one, with other methods for the main file and its WAL. */
#include "tests/lib/wal_syncs.h"

#include <sqlite3.h>

static sqlite3_vfs sync_vfs;
static sqlite3_vfs *sync_real;
static sqlite3_io_methods sync_main_methods, sync_wal_methods;
static int (*sync_real_main)(sqlite3_file *file, int flags);
static int (*sync_real_wal)(sqlite3_file *file, int flags);
int wal_syncs, wal_syncs_refused;
bool wal_syncs_main_refused;
void (*wal_syncs_before)(void);

static int sync_main(sqlite3_file *file, int flags)
{
    return wal_syncs_main_refused ? SQLITE_IOERR_FSYNC : sync_real_main(file, flags);
}

static int sync_wal(sqlite3_file *file, int flags)
{
    wal_syncs++;
    if (wal_syncs_before != NULL)
        wal_syncs_before();
    if (wal_syncs_refused == 0)
        return sync_real_wal(file, flags);
    wal_syncs_refused--;
    return SQLITE_IOERR_FSYNC;
}

static int sync_open(sqlite3_vfs *self, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)self;
    int result = sync_real->xOpen(sync_real, name, file, flags, out_flags);
    if (result == SQLITE_OK && (flags & SQLITE_OPEN_MAIN_DB) != 0) {
        sync_main_methods = *file->pMethods;
        sync_real_main = sync_main_methods.xSync;
        sync_main_methods.xSync = sync_main;
        file->pMethods = &sync_main_methods;
    } else if (result == SQLITE_OK && (flags & SQLITE_OPEN_WAL) != 0) {
        sync_wal_methods = *file->pMethods;
        sync_real_wal = sync_wal_methods.xSync;
        sync_wal_methods.xSync = sync_wal;
        file->pMethods = &sync_wal_methods;
    }
    return result;
}

void wal_syncs_begin(void)
{
    sync_real = sqlite3_vfs_find(NULL);
    sync_vfs = *sync_real;
    sync_vfs.zName = "syncs";
    sync_vfs.pNext = NULL;
    sync_vfs.xOpen = sync_open;
    CU_ASSERT_EQUAL_FATAL(sqlite3_vfs_register(&sync_vfs, 1), SQLITE_OK);
}

void wal_syncs_end(void)
{
    wal_syncs_before = NULL;
    CU_ASSERT_EQUAL(sqlite3_vfs_register(sync_real, 1), SQLITE_OK);
    CU_ASSERT_EQUAL(sqlite3_vfs_unregister(&sync_vfs), SQLITE_OK);
}
