/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: finds a store's files and holds its lock file. The supervisor and the import hold and
 * leave the store; every process that uses it finds the file here.
 *
 * The lock is an flock on a file beside the store. The kernel drops it when the last process that inherited
 * the descriptor has exited. So a killed instance leaves nothing to clean up, and an instance whose last
 * worker still runs still holds the store. The text in the file is for people; it also shows whether the
 * holder still runs or its instance is shutting down.
 *
 * Survived: a full disk, where the holder's name cannot be written.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/store/sqlite/sqlite.h"

#define POLL_MS 20

struct holder {
    long pid;                       /* 0 = not written yet */
    unsigned long long start_ticks; /* start time of that process from /proc; 0 = not known */
    char instance[80], since[40];
};

/* Sets *start_ticks to the time when a process started (clock ticks since boot), or 0 if it is a zombie.
 * Returns 0, or -1 if /proc cannot tell. A starting supervisor or import runs it, because the pid in the
 * store's lock file may belong to another process by now. */
static int read_process_start_ticks(pid_t pid, unsigned long long *start_ticks)
{
    char path[40], line[1024];
    *start_ticks = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    const char *name_end = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
    fclose(file);
    char state;
    if (name_end == NULL ||
        sscanf(name_end + 1,
               " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
               "%llu",
               &state, start_ticks) != 2)
        return -1;
    if (strchr("ZX", state) != NULL)
        *start_ticks = 0;
    return 0;
}

/* ---- hold ---- */

/* Reads from the store's lock file (lines "pid", "instance", "since", "started") which process holds the
 * store; pid 0 = nothing is written there yet. A starting supervisor or import runs it when another process
 * holds the lock, to name that process in its message. */
static void read_holder(int fd, struct holder *out)
{
    char text[256];
    *out = (struct holder){0};
    ssize_t byte_count = pread(fd, text, sizeof text - 1, 0);
    if (byte_count <= 0)
        return;
    text[byte_count] = '\0';
    if (sscanf(text, "pid %ld\ninstance %79s\nsince %39s\nstarted %llu", &out->pid, out->instance, out->since,
               &out->start_ticks) < 3)
        out->pid = 0;
}

/* Writes the pid, instance and start time of this process into the store's lock file, for the message of
 * the next process that is refused the lock. Returns 0 also if the disk is full: the lock is held even if
 * the file is empty. A starting supervisor or import runs it. */
static int write_holder(int fd, const char *instance, const char *path, struct error *error)
{
    char text[256], since[40];
    time_t now = time(NULL);
    struct tm utc;
    strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    unsigned long long start_ticks;
    read_process_start_ticks(getpid(), &start_ticks);
    int length =
        snprintf(text, sizeof text, "pid %ld\ninstance %.79s\nsince %s\nstarted %llu\n", (long)getpid(),
                 instance != NULL && *instance != '\0' ? instance : "-", since, start_ticks);
    errno = ENOSPC; /* what a short write means */
    if (pwrite(fd, text, (size_t)length, 0) == length && ftruncate(fd, length) == 0)
        return 0;
    int write_errno = errno;
    if ((write_errno == ENOSPC || write_errno == EDQUOT) && ftruncate(fd, 0) == 0)
        return 0;
    return base_error_set(error, EP_ESTOREBUSY, "%s: cannot write this lock file: %s", path,
                          strerror(write_errno));
}

/* Opens the lock file beside the store, or creates it. Returns 0 and *fd, or a negative code. It does not
 * follow links, because any user may create one in /dev/shm. A starting supervisor or import runs it. */
static int open_lock_file(const char *path, struct error *error, int *fd)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd >= 0)
        return 0;
    int open_errno = errno;
    if (open_errno == ENOENT || open_errno == ENOTDIR)
        return base_error_set(
            error, EP_ENOENT,
            "%s: cannot create this lock file: its directory does not exist; create the directory", path);
    int code = open_errno == EACCES || open_errno == EPERM || open_errno == EROFS ? EP_EACCESS : EP_ESYSTEM;
    return base_error_set(error, code, "%s: cannot open this lock file: %s", path, strerror(open_errno));
}

/* Whether the store's locked file is still the one at its path: store_leave may have removed it meanwhile.
 * */
static bool is_still_at_path(int fd, const char *path)
{
    struct stat ours, found;
    return fstat(fd, &ours) == 0 && stat(path, &found) == 0 && ours.st_dev == found.st_dev &&
           ours.st_ino == found.st_ino;
}

static uint64_t read_monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Whether the process that holds the store still runs; it compares start times, because its pid may belong
 * to another process by now. A starting supervisor or import runs it: it refuses at once while the holder
 * runs, but waits for orphaned children of a holder that has exited. */
static bool is_holder_running(const struct holder *holder)
{
    unsigned long long start_ticks;
    if (holder->pid <= 0 || (kill((pid_t)holder->pid, 0) != 0 && errno != EPERM))
        return false;
    if (read_process_start_ticks((pid_t)holder->pid, &start_ticks) != 0)
        return true;
    return start_ticks != 0 && (holder->start_ticks == 0 || start_ticks == holder->start_ticks);
}

/* store_hold for sqlite: and memory: stores: locks the store for this instance and sets *lock_fd. It waits
 * up to wait_ms while another instance shuts down; EP_EBUSY: another one holds the store. A starting
 * supervisor and `eventpipe import` call it; without it two daemons could run one store. */
int store_sqlite_hold_paths(const struct store_options *options, const struct store_sqlite_paths *paths,
                            uint64_t wait_ms, int *lock_fd, struct error *error)
{
    uint64_t deadline_ms = read_monotonic_ms() + wait_ms;
    for (;;) {
        int fd;
        int code = open_lock_file(paths->lock, error, &fd);
        if (code != 0)
            return code;
        bool is_locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
        if (!is_locked && errno != EWOULDBLOCK) {
            code = base_error_set(error, EP_ESYSTEM, "%s: cannot lock this file: %s", paths->lock,
                                  strerror(errno));
            close(fd);
            return code;
        }
        struct holder holder = {0};
        if (!is_locked) {
            read_holder(fd, &holder);
            bool is_running = is_holder_running(&holder);
            is_locked =
                is_running && flock(fd, LOCK_EX | LOCK_NB) == 0; /* it may have been released in between */
            if (!is_locked && (is_running || read_monotonic_ms() >= deadline_ms)) {
                code =
                    holder.pid == 0
                        ? base_error_set(error, EP_EBUSY,
                                         "%s: held by another process, which %s does not name yet; stop that "
                                         "process or use another storage",
                                         paths->path, paths->lock)
                        : base_error_set(error, EP_EBUSY,
                                         "%s: held by %s pid %ld (instance %s, since %s)%s; stop it or use "
                                         "another storage",
                                         paths->path, is_running ? "the process" : "orphans of", holder.pid,
                                         holder.instance, holder.since, is_running ? "" : ", which is gone");
                close(fd);
                return code;
            }
        }
        if (is_locked && is_still_at_path(fd, paths->lock)) {
            code = write_holder(fd, options->instance, paths->lock, error);
            if (code == 0)
                *lock_fd = fd;
            else
                close(fd);
            return code;
        }
        close(fd);
        /* Only a blocking flock reports that the lock is free, and it has no timeout. So we poll, and only
         * while an instance is shutting down. */
        if (!is_locked)
            nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
}

/* Whether the files of a memory: store may be removed: no process holds it, or this one does. The
 * supervisor calls it at the end of its shutdown, because another instance may hold the store by then. */
bool store_sqlite_may_remove_files(const struct store_sqlite_paths *paths)
{
    int fd = open(paths->lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT;
    bool may_remove = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (!may_remove) {
        struct holder holder;
        read_holder(fd, &holder);
        may_remove = holder.pid == (long)getpid();
    }
    close(fd);
    return may_remove;
}

/* ---- sqlite:PATH ---- */

/* Finds the absolute path of a sqlite: store and of its lock file. It resolves links, so that two names of
 * one store have one lock; for a new store it resolves the directory. Returns 0 or a negative code. Every
 * process that holds, prepares or opens the store runs it. */
static int find_store_paths(const struct store_options *options, struct store_sqlite_paths *out,
                            struct error *error)
{
    const char *path = options->url + strlen("sqlite:");
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    if (*name == '\0' || strlen(path) >= PATH_MAX)
        return base_error_set(error, EP_EINVAL,
                              "storage \"%s\": expected sqlite:PATH with the path of a file", options->url);
    if (realpath(path, out->path) == NULL) {
        char parent[PATH_MAX] = ".", real_parent[PATH_MAX];
        if (slash != NULL)
            snprintf(parent, sizeof parent, "%.*s", slash == path ? 1 : (int)(slash - path), path);
        if (realpath(parent, real_parent) == NULL)
            return base_error_set(error, errno == ENOENT || errno == ENOTDIR ? EP_ENOENT : EP_EACCESS,
                                  "%s: cannot find the directory %s: %s", path, parent, strerror(errno));
        if (strlen(real_parent) + strlen(name) + 2 > sizeof out->path)
            return base_error_set(error, EP_EINVAL, "%s: the path is too long", path);
        stpcpy(stpcpy(stpcpy(out->path, real_parent), real_parent[1] != '\0' ? "/" : ""), name);
    }
    snprintf(out->lock, sizeof out->lock, "%s.lock", out->path);
    out->synchronous = options->synchronous == SYNCHRONOUS_NORMAL ? 1 : 2;
    return 0;
}

/* store_hold for a sqlite: URL: finds the store's file and locks it. Returns 0 and *lock_fd, or a negative
 * code. The supervisor calls it when it starts, and `eventpipe import`. */
static int hold_store(const struct store_options *options, uint64_t wait_ms, int *lock_fd,
                      struct error *error)
{
    struct store_sqlite_paths paths;
    int code = find_store_paths(options, &paths, error);
    return code == 0 ? store_sqlite_hold_paths(options, &paths, wait_ms, lock_fd, error) : code;
}

/* store_leave for a sqlite: URL: does nothing, because the store stays, and the kernel drops its lock with
 * the last descriptor. */
static void leave_store(const struct store_options *options)
{
    (void)options;
}

/* store_prepare for a sqlite: URL: creates or migrates the tables, adds 1 to the start number and registers
 * sources and stages. Returns 0 or a negative code. The keeper calls it when the daemon starts, and
 * `eventpipe import`. */
static int prepare_store(const struct store_options *options, struct store_names *names, size_t count,
                         uint64_t *start_number, struct error *error)
{
    struct store_sqlite_paths paths;
    int code = find_store_paths(options, &paths, error);
    if (code != 0)
        return code;
    return store_sqlite_prepare_paths(options, &paths, &store_sqlite_ops, names, count, start_number, error);
}

/* store_open for a sqlite: URL: opens a handle for reading or writing. Returns 0 and *out, or a negative
 * code. Each producer, worker and keeper calls it after fork, and so does the command line. */
static int open_store(const struct store_options *options, struct store **out, struct error *error)
{
    struct store_sqlite_paths paths;
    struct store_sqlite *store;
    int code = find_store_paths(options, &paths, error);
    if (code == 0)
        code = store_sqlite_open_paths(options, &paths,
                                       options->readonly ? STORE_SQLITE_READ : STORE_SQLITE_WRITE,
                                       &store_sqlite_ops, &store, error);
    if (code == 0)
        *out = &store->base;
    return code;
}

const struct store_ops store_sqlite_ops = {
    .hold = hold_store,
    .leave = leave_store,
    .prepare = prepare_store,
    .open = open_store,
    STORE_SQLITE_COMMON_OPS,
};
