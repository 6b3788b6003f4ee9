/* SPDX-License-Identifier: MIT */
/*
 * memory: the store of tests and throw-away runs. It is the SQLite engine in a private directory of the
 * memory file system, /dev/shm/eventpipe-INSTANCE.store, so all processes of an instance see it; it goes with
 * the instance, or at the latest when the next one of that instance begins.
 *
 * Invariants
 *  1. The directory is ours alone (mode 0700, our user), or we do not touch it: /dev/shm is open to
 * everybody.
 *  2. It is cleared only by whoever holds the lock, /dev/shm/eventpipe-INSTANCE.lock, or while nobody does.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/sqlite/sqlite.h"

struct memory_place {
    struct store_sqlite_place files;
    char directory[256];
};

static int find_place(const struct store_options *options, struct memory_place *out, struct error *error)
{
    const char *instance = options->instance;
    if (instance == NULL || !config_name_valid(instance))
        return base_error_set(error, EP_EINVAL, "storage memory: needs the name of an instance, found \"%s\"",
                              instance != NULL ? instance : "");
    snprintf(out->directory, sizeof out->directory, "/dev/shm/eventpipe-%s.store", instance);
    snprintf(out->files.path, sizeof out->files.path, "%s/store.db", out->directory);
    snprintf(out->files.lock, sizeof out->files.lock, "/dev/shm/eventpipe-%s.lock", instance);
    out->files.synchronous = 0; /* nothing here outlives the machine anyway */
    return 0;
}

static int check_directory(const struct memory_place *place, struct error *error)
{
    struct stat status;
    if (lstat(place->directory, &status) != 0)
        return base_error_set(error, EP_ESYSTEM, "%s: %s", place->directory, strerror(errno));
    if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 0777) != 0700)
        return base_error_set(error, EP_EACCESS, "%s: exists, and is not a directory of this user's alone",
                              place->directory);
    return 0;
}

static int make_directory(const struct memory_place *place, struct error *error)
{
    if (mkdir(place->directory, 0700) != 0 && errno != EEXIST)
        return base_error_set(error, errno == ENOSPC ? EP_ESTOREBUSY : EP_ESYSTEM, "%s: cannot be made: %s",
                              place->directory, strerror(errno));
    return check_directory(place, error);
}

static void clear_directory(const struct memory_place *place)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    char path[PATH_MAX + 16];
    if (check_directory(place, NULL) != 0)
        return;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(path, sizeof path, "%s%s", place->files.path, suffixes[i]);
        unlink(path);
    }
    rmdir(place->directory);
}

static int hold(const struct store_options *options, uint64_t wait_ms, int *lock_fd, struct error *error)
{
    struct memory_place place;
    int fd;
    int code = find_place(options, &place, error);
    if (code == 0)
        code = store_sqlite_hold_at(options, &place.files, wait_ms, &fd, error);
    if (code != 0)
        return code;
    clear_directory(&place);
    code = make_directory(&place, error);
    if (code == 0)
        *lock_fd = fd;
    else
        close(fd);
    return code;
}

static void leave(const struct store_options *options)
{
    struct memory_place place;
    if (find_place(options, &place, NULL) != 0 || !store_sqlite_may_clear(&place.files))
        return;
    clear_directory(&place);
    unlink(place.files.lock); /* last: until then nobody else can begin */
}

static int prepare(const struct store_options *options, struct store_names *names, size_t count,
                   uint64_t *start_number, struct error *error)
{
    struct memory_place place;
    int code = find_place(options, &place, error);
    if (code == 0)
        code = make_directory(&place, error);
    if (code != 0)
        return code;
    return store_sqlite_prepare_at(options, &place.files, &store_sqlite_memory_store_memory_ops, names, count,
                                   start_number, error);
}

static int open_store(const struct store_options *options, struct store **out, struct error *error)
{
    struct memory_place place;
    struct store_sqlite *store;
    int code = find_place(options, &place, error);
    if (code == 0)
        code = store_sqlite_open_at(options, &place.files,
                                    options->readonly ? STORE_SQLITE_READ : STORE_SQLITE_WRITE,
                                    &store_sqlite_memory_store_memory_ops, &store, error);
    if (code == 0)
        *out = &store->store;
    return code;
}

const struct store_ops store_sqlite_memory_store_memory_ops = {
    .hold = hold,
    .leave = leave,
    .prepare = prepare,
    .open = open_store,
    STORE_SQLITE_COMMON_OPS,
};
