/* SPDX-License-Identifier: MIT */
/*
 * memory: the store for tests and throw-away runs. It is the SQLite engine in a private directory of the
 * memory file system, /dev/shm/eventpipe-INSTANCE.store, so all processes of an instance see it. It is
 * removed when the instance stops, or at the latest when the next instance of that name starts.
 *
 * Invariants
 *  1. The directory is ours alone (mode 0700, our user), or we do not touch it: any user can write to
 *     /dev/shm.
 *  2. Only the holder of the lock /dev/shm/eventpipe-INSTANCE.lock clears it, or any process while the lock
 *     is free.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/sqlite/sqlite.h"

struct memory_paths {
    struct store_sqlite_paths store;
    char directory[256];
};

/* Computes the paths of a memory: store under /dev/shm (directory, file, lock file) from the instance's
 * name. Returns 0, or EP_EINVAL if the name is missing or malformed. Every process that holds, prepares,
 * opens or leaves the store runs it. */
static int find_memory_paths(const struct store_options *options, struct memory_paths *out,
                             struct error *error)
{
    const char *instance = options->instance;
    if (instance == NULL || !config_is_name_valid(instance))
        return base_error_set(error, EP_EINVAL, "storage memory: needs the name of an instance, found \"%s\"",
                              instance != NULL ? instance : "");
    snprintf(out->directory, sizeof out->directory, "/dev/shm/eventpipe-%s.store", instance);
    snprintf(out->store.path, sizeof out->store.path, "%s/store.db", out->directory);
    snprintf(out->store.lock, sizeof out->store.lock, "/dev/shm/eventpipe-%s.lock", instance);
    out->store.synchronous = 0; /* nothing here survives a reboot anyway */
    return 0;
}

/* Checks that the memory store's directory belongs to this user and that no other user can access it.
 * Another user could have created it in /dev/shm, to read or change our events. The supervisor runs it
 * before it uses or clears the directory, and the keeper before it creates the tables. */
static int check_private_directory(const struct memory_paths *paths, struct error *error)
{
    struct stat file_status;
    if (lstat(paths->directory, &file_status) != 0)
        return base_error_set(error, EP_ESYSTEM, "%s: cannot examine this directory: %s", paths->directory,
                              strerror(errno));
    if (!S_ISDIR(file_status.st_mode) || file_status.st_uid != geteuid() ||
        (file_status.st_mode & 0777) != 0700)
        return base_error_set(error, EP_EACCESS,
                              "%s: expected a directory that belongs to this user, with mode 0700; remove it",
                              paths->directory);
    return 0;
}

/* Creates the memory store's directory if it does not exist, and checks that it is ours alone. Returns 0 or
 * a negative code. The supervisor runs it when it holds the store, and the keeper before it creates the
 * tables. */
static int make_private_directory(const struct memory_paths *paths, struct error *error)
{
    if (mkdir(paths->directory, 0700) != 0 && errno != EEXIST)
        return base_error_set(error, errno == ENOSPC ? EP_ESTOREBUSY : EP_ESYSTEM,
                              "%s: cannot create this directory: %s", paths->directory, strerror(errno));
    return check_private_directory(paths, error);
}

/* Removes the memory store's files and directory, unless the directory belongs to another user. The
 * supervisor runs it at its start, because a crashed instance may have left one, and at the end of its
 * shutdown. */
static void clear_private_directory(const struct memory_paths *paths)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    char path[PATH_MAX + 16];
    if (check_private_directory(paths, NULL) != 0)
        return;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(path, sizeof path, "%s%s", paths->store.path, suffixes[i]);
        unlink(path);
    }
    rmdir(paths->directory);
}

/* store_hold for a memory: URL: locks the store, removes what a crashed instance left, and creates the
 * private directory. Returns 0 and *lock_fd, or a negative code. The supervisor calls it when it starts. */
static int hold_memory_store(const struct store_options *options, uint64_t wait_ms, int *lock_fd,
                             struct error *error)
{
    struct memory_paths paths;
    int fd;
    int code = find_memory_paths(options, &paths, error);
    if (code == 0)
        code = store_sqlite_hold_paths(options, &paths.store, wait_ms, &fd, error);
    if (code != 0)
        return code;
    clear_private_directory(&paths);
    code = make_private_directory(&paths, error);
    if (code == 0)
        *lock_fd = fd;
    else
        close(fd);
    return code;
}

/* store_leave for a memory: URL: removes the store's files and its directory, and the lock file last,
 * because no other instance can start while it exists and is locked. The supervisor calls it at the end of
 * its shutdown. */
static void leave_memory_store(const struct store_options *options)
{
    struct memory_paths paths;
    if (find_memory_paths(options, &paths, NULL) != 0 || !store_sqlite_may_remove_files(&paths.store))
        return;
    clear_private_directory(&paths);
    unlink(paths.store.lock); /* last: until then no other instance can start */
}

/* store_prepare for a memory: URL: creates the private directory if needed, then the tables, and registers
 * sources and stages. Returns 0 or a negative code. The keeper calls it when the daemon starts. */
static int prepare_memory_store(const struct store_options *options, struct store_names *names, size_t count,
                                uint64_t *start_number, struct error *error)
{
    struct memory_paths paths;
    int code = find_memory_paths(options, &paths, error);
    if (code == 0)
        code = make_private_directory(&paths, error);
    if (code != 0)
        return code;
    return store_sqlite_prepare_paths(options, &paths.store, &store_sqlite_memory_ops, names, count,
                                      start_number, error);
}

/* store_open for a memory: URL: opens a handle for reading or writing. Returns 0 and *out, or a negative
 * code. Each producer, worker and keeper calls it after fork, and so does the command line. */
static int open_memory_store(const struct store_options *options, struct store **out, struct error *error)
{
    struct memory_paths paths;
    struct store_sqlite *store;
    int code = find_memory_paths(options, &paths, error);
    if (code == 0)
        code = store_sqlite_open_paths(options, &paths.store,
                                       options->readonly ? STORE_SQLITE_READ : STORE_SQLITE_WRITE,
                                       &store_sqlite_memory_ops, &store, error);
    if (code == 0)
        *out = &store->base;
    return code;
}

const struct store_ops store_sqlite_memory_ops = {
    .hold = hold_memory_store,
    .leave = leave_memory_store,
    .prepare = prepare_memory_store,
    .open = open_memory_store,
    STORE_SQLITE_COMMON_OPS,
};
