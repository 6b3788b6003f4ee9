/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: where a store's files are, and who holds them. Runs in the supervisor (hold, leave) and,
 * to find the file, in everybody else.
 *
 * The lock is an flock on a file beside the store: the kernel drops it when the last process that inherited
 * the descriptor is gone, so an instance that is killed leaves nothing to clean up, and one whose last worker
 * lives on still holds. The text in the file is for people, and tells a holder that will stay from one whose
 * instance is ending.
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
    long pid;                   /* 0 = not written yet */
    unsigned long long started; /* of that process, as /proc has it; 0 = not known */
    char instance[80], since[40];
};

/* When a process started, in clock ticks since the machine did; 0 = no such process (a zombie is dead: it was
 * killed, and whoever started it has not looked yet). -1: there is no /proc to ask. */
static int process_started(pid_t pid, unsigned long long *started)
{
    char path[40], line[1024];
    *started = 0;
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
               &state, started) != 2)
        return -1;
    if (strchr("ZX", state) != NULL)
        *started = 0;
    return 0;
}

/* ---- hold ---- */

static void read_holder(int fd, struct holder *out)
{
    char text[256];
    *out = (struct holder){0};
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    if (got <= 0)
        return;
    text[got] = '\0';
    if (sscanf(text, "pid %ld\ninstance %79s\nsince %39s\nstarted %llu", &out->pid, out->instance, out->since,
               &out->started) < 3)
        out->pid = 0;
}

/* Over what stands there, which needs no room on a full disk. Where there is none to be had, nobody is named:
 * the lock is held all the same, and the store is waited for as any other that is on a full disk. */
static int write_holder(int fd, const char *instance, const char *path, struct error *error)
{
    char text[256], since[40];
    time_t now = time(NULL);
    struct tm parts;
    strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &parts));
    unsigned long long started;
    process_started(getpid(), &started);
    int length =
        snprintf(text, sizeof text, "pid %ld\ninstance %.79s\nsince %s\nstarted %llu\n", (long)getpid(),
                 instance != NULL && *instance != '\0' ? instance : "-", since, started);
    errno = ENOSPC; /* what a short write means */
    if (pwrite(fd, text, (size_t)length, 0) == length && ftruncate(fd, length) == 0)
        return 0;
    int why = errno;
    if ((why == ENOSPC || why == EDQUOT) && ftruncate(fd, 0) == 0)
        return 0;
    return base_error_set(error, EP_ESTOREBUSY, "%s: cannot be written: %s", path, strerror(why));
}

static int open_lock(const char *path, struct error *error, int *fd)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd >= 0)
        return 0;
    int why = errno;
    if (why == ENOENT || why == ENOTDIR)
        return base_error_set(error, EP_ENOENT, "%s: cannot be created: its directory does not exist", path);
    int code = why == EACCES || why == EPERM || why == EROFS ? EP_EACCESS : EP_ESYSTEM;
    return base_error_set(error, code, "%s: cannot be opened: %s", path, strerror(why));
}

/* Whether the file that is locked still is the one that others would find: store_leave may have removed it
 * meanwhile. */
static bool still_there(int fd, const char *path)
{
    struct stat ours, found;
    return fstat(fd, &ours) == 0 && stat(path, &found) == 0 && ours.st_dev == found.st_dev &&
           ours.st_ino == found.st_ino;
}

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Its number alone does not tell: it may be somebody else's by now, who started later. */
static bool holder_lives(const struct holder *holder)
{
    unsigned long long started;
    if (holder->pid <= 0 || (kill((pid_t)holder->pid, 0) != 0 && errno != EPERM))
        return false;
    if (process_started((pid_t)holder->pid, &started) != 0)
        return true;
    return started != 0 && (holder->started == 0 || started == holder->started);
}

int store_sqlite_hold_at(const struct store_options *options, const struct store_sqlite_place *place,
                         uint64_t wait_ms, int *lock_fd, struct error *error)
{
    uint64_t deadline = clock_ms() + wait_ms;
    for (;;) {
        int fd;
        int code = open_lock(place->lock, error, &fd);
        if (code != 0)
            return code;
        bool locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
        if (!locked && errno != EWOULDBLOCK) {
            code =
                base_error_set(error, EP_ESYSTEM, "%s: cannot be locked: %s", place->lock, strerror(errno));
            close(fd);
            return code;
        }
        struct holder holder = {0};
        if (!locked) {
            read_holder(fd, &holder);
            bool lives = holder_lives(&holder);
            locked = lives && flock(fd, LOCK_EX | LOCK_NB) == 0; /* did it let go in between? */
            if (!locked && (lives || clock_ms() >= deadline)) {
                code =
                    holder.pid == 0
                        ? base_error_set(error, EP_EBUSY, "%s: held by a process that is not named in %s",
                                         place->path, place->lock)
                        : base_error_set(error, EP_EBUSY, "%s: held by %s pid %ld (instance %s, since %s)%s",
                                         place->path, lives ? "the process" : "orphans of", holder.pid,
                                         holder.instance, holder.since, lives ? "" : ", which is gone");
                close(fd);
                return code;
            }
        }
        if (locked && still_there(fd, place->lock)) {
            code = write_holder(fd, options->instance, place->lock, error);
            if (code == 0)
                *lock_fd = fd;
            else
                close(fd);
            return code;
        }
        close(fd);
        /* Nothing tells when an flock is dropped but a blocking flock, which has no timeout: so it is asked
         * for again, only for as long as an ending instance takes. */
        if (!locked)
            nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
}

bool store_sqlite_may_clear(const struct store_sqlite_place *place)
{
    int fd = open(place->lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT;
    bool ours = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (!ours) {
        struct holder holder;
        read_holder(fd, &holder);
        ours = holder.pid == (long)getpid();
    }
    close(fd);
    return ours;
}

/* ---- sqlite:PATH ---- */

/*
 * The path as the file system has it, so that two names of one store have one lock. What is not there yet is
 * looked up by its directory.
 */
static int find_place(const struct store_options *options, struct store_sqlite_place *out,
                      struct error *error)
{
    const char *path = options->url + strlen("sqlite:");
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    if (*name == '\0' || strlen(path) >= PATH_MAX)
        return base_error_set(error, EP_EINVAL,
                              "storage \"%s\": expected sqlite:PATH with the path of a file", options->url);
    if (realpath(path, out->path) == NULL) {
        char parent[PATH_MAX] = ".", real[PATH_MAX];
        if (slash != NULL)
            snprintf(parent, sizeof parent, "%.*s", slash == path ? 1 : (int)(slash - path), path);
        if (realpath(parent, real) == NULL)
            return base_error_set(error, errno == ENOENT || errno == ENOTDIR ? EP_ENOENT : EP_EACCESS,
                                  "%s: cannot be reached, its directory %s: %s", path, parent,
                                  strerror(errno));
        if (strlen(real) + strlen(name) + 2 > sizeof out->path)
            return base_error_set(error, EP_EINVAL, "%s: the path is too long", path);
        stpcpy(stpcpy(stpcpy(out->path, real), real[1] != '\0' ? "/" : ""), name);
    }
    snprintf(out->lock, sizeof out->lock, "%s.lock", out->path);
    out->synchronous = options->synchronous == SYNCHRONOUS_NORMAL ? 1 : 2;
    return 0;
}

static int hold(const struct store_options *options, uint64_t wait_ms, int *lock_fd, struct error *error)
{
    struct store_sqlite_place place;
    int code = find_place(options, &place, error);
    return code == 0 ? store_sqlite_hold_at(options, &place, wait_ms, lock_fd, error) : code;
}

/* The store stays; so does its lock file, which is nobody's once the last descriptor is closed. */
static void leave(const struct store_options *options)
{
    (void)options;
}

static int prepare(const struct store_options *options, struct store_names *names, size_t count,
                   uint64_t *start_number, struct error *error)
{
    struct store_sqlite_place place;
    int code = find_place(options, &place, error);
    if (code != 0)
        return code;
    return store_sqlite_prepare_at(options, &place, &store_sqlite_ops, names, count, start_number, error);
}

static int open_store(const struct store_options *options, struct store **out, struct error *error)
{
    struct store_sqlite_place place;
    struct store_sqlite *store;
    int code = find_place(options, &place, error);
    if (code == 0)
        code =
            store_sqlite_open_at(options, &place, options->readonly ? STORE_SQLITE_READ : STORE_SQLITE_WRITE,
                                 &store_sqlite_ops, &store, error);
    if (code == 0)
        *out = &store->store;
    return code;
}

const struct store_ops store_sqlite_ops = {
    .hold = hold,
    .leave = leave,
    .prepare = prepare,
    .open = open_store,
    STORE_SQLITE_COMMON_OPS,
};
