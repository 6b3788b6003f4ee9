/* SPDX-License-Identifier: MIT */
/*
 * A private copy of another program's SQLite file. Runs in the command line, for eventpipe import. Owns the
 * directory that it makes.
 *
 * Invariants
 *  1. The originals are only opened for reading; nothing is made beside them, and no lock is taken on them.
 *  2. The copied files belong together: neither the database nor its WAL changed from before the first byte
 *     was read until after the last. Otherwise it is copied once more.
 *
 * Asking the kernel who holds a lock (F_GETLK) takes none. SQLite holds one on the file for as long as it
 * has it open in WAL mode. So a program that runs but is idle at the moment is found as well.
 */
#include "src/import/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PIECE_BYTES (1 << 20)
#define LOCK_FIRST 0x40000000 /* where SQLite locks its files, and how many bytes */
#define LOCK_BYTES 512

static const char *const suffixes[] = {"", "-wal", "-journal"};
#define FILES (sizeof suffixes / sizeof suffixes[0])

struct original {
    char path[PATH_MAX];       /* resolved: the WAL is beside the file, not beside a link to it */
    struct stat status[FILES]; /* before the copy; st_mode 0 = the file does not exist */
};

/* One call of import_copy_make. */
struct copying {
    struct original original;
    const struct import_copy *copy;
    import_stop *stop;
    void *user;
    char *piece;
    struct error *error;
};

/* Reads size and time of the Go eventpipe's database, its WAL and its journal. `eventpipe import` runs it
 * before and after it copies them, to see whether they changed meanwhile. */
static int read_status(const struct original *original, struct stat *status, struct error *error)
{
    for (size_t i = 0; i < FILES; i++) {
        char path[PATH_MAX + 16];
        snprintf(path, sizeof path, "%s%s", original->path, suffixes[i]);
        if (stat(path, &status[i]) == 0)
            continue;
        if (errno != ENOENT || i == 0)
            return base_error_set(error, errno == ENOENT ? EP_ENOENT : EP_EACCESS, "%s: %s", path,
                                  strerror(errno));
        status[i] = (struct stat){0};
    }
    return 0;
}

/* Checks that the database to import, its WAL and its journal are regular files, and that there is room
 * for their copy. `eventpipe import` runs it before it copies them. */
static int check_sizes_and_types(const struct copying *copying)
{
    const struct stat *status = copying->original.status;
    struct statvfs room;
    uint64_t bytes = 0;
    for (size_t i = 0; i < FILES; i++) {
        if (i == 0 ? !S_ISREG(status[i].st_mode) : status[i].st_mode != 0 && !S_ISREG(status[i].st_mode))
            return base_error_set(copying->error, EP_EINVAL,
                                  "%s%s: expected a regular file that holds a database",
                                  copying->original.path, suffixes[i]);
        bytes += (uint64_t)status[i].st_size;
    }
    if (statvfs(copying->copy->directory, &room) == 0 && bytes / room.f_frsize >= room.f_bavail)
        return base_error_set(copying->error, EP_ESYSTEM,
                              "%s: no room for a copy of the database: it needs %" PRIu64 " bytes, %" PRIu64
                              " are free (set TMPDIR to another directory)",
                              copying->copy->directory, bytes, (uint64_t)room.f_bavail * room.f_frsize);
    return 0;
}

/* Whether the database to import, its WAL and its journal are the same files as before the copy.
 * `eventpipe import` runs it after the copy: files of different moments would make a damaged database. */
static bool are_files_unchanged(const struct stat *before, const struct stat *after)
{
    for (size_t i = 0; i < FILES; i++)
        if (before[i].st_mode != after[i].st_mode || before[i].st_ino != after[i].st_ino ||
            before[i].st_size != after[i].st_size || before[i].st_mtim.tv_sec != after[i].st_mtim.tv_sec ||
            before[i].st_mtim.tv_nsec != after[i].st_mtim.tv_nsec)
            return false;
    return true;
}

/* ---- who has it open ---- */

/* Fails if another process has the database to import open: the Go eventpipe would go on to process events
 * that are imported. `eventpipe import` runs it before and after the copy. It takes no lock on the file. */
static int check_not_open(const struct original *original, struct error *error)
{
    int fd = open(original->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return base_error_set(error, errno == ENOENT ? EP_ENOENT : EP_EACCESS, "%s: %s", original->path,
                              strerror(errno));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_FIRST, .l_len = LOCK_BYTES};
    int result = fcntl(fd, F_GETLK, &lock);
    close(fd);
    if (result != 0 || lock.l_type == F_UNLCK)
        return 0;
    char path[40], name[32] = "?";
    snprintf(path, sizeof path, "/proc/%ld/comm", (long)lock.l_pid);
    FILE *file = fopen(path, "re");
    if (file != NULL && fgets(name, sizeof name, file) != NULL)
        name[strcspn(name, "\n")] = '\0';
    if (file != NULL)
        fclose(file);
    return base_error_set(
        error, EP_EBUSY,
        "%s: process %ld (%s) has it open: if that is the Go eventpipe, it still runs; stop it first",
        original->path, (long)lock.l_pid, name);
}

/* ---- copying ---- */

/* Writes one piece of the copied database, however often write(2) has to be called. `eventpipe import`
 * runs it while it copies the file. */
static int write_piece(struct copying *copying, int fd, const char *path, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t written = write(fd, copying->piece + done, bytes - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return base_error_set(
                copying->error, EP_ESYSTEM,
                "%s: %s (the copy needs as much room as the database; set TMPDIR to another directory)", path,
                strerror(errno));
        done += (size_t)written;
    }
    return 0;
}

/* Copies one open file of the database to import, piece by piece, and stops when the user interrupts
 * `eventpipe import`, which runs it. */
static int copy_bytes(struct copying *copying, int from, const char *from_path, int to, const char *to_path)
{
    for (;;) {
        if (copying->stop != NULL && copying->stop(copying->user))
            return base_error_set(copying->error, EP_ESTATE, "interrupted while it copied %s", from_path);
        ssize_t got = read(from, copying->piece, PIECE_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return base_error_set(copying->error, EP_ESYSTEM, "%s: cannot be read: %s", from_path,
                                  strerror(errno));
        if (got == 0)
            return 0;
        int code = write_piece(copying, to, to_path, (size_t)got);
        if (code != 0)
            return code;
    }
}

/* Copies one file of the database to import (the database, its WAL or its journal), if it exists.
 * `eventpipe import` runs it. */
static int copy_file(struct copying *copying, size_t which)
{
    char from_path[PATH_MAX + 16], to_path[PATH_MAX + 16];
    snprintf(from_path, sizeof from_path, "%s%s", copying->original.path, suffixes[which]);
    snprintf(to_path, sizeof to_path, "%s%s", copying->copy->path, suffixes[which]);
    if (unlink(to_path) != 0 && errno != ENOENT) /* left by the first round */
        return base_error_set(copying->error, EP_ESYSTEM, "%s: %s", to_path, strerror(errno));
    if (copying->original.status[which].st_mode == 0)
        return 0;
    int from = open(from_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (from < 0 && errno == ENOENT && which > 0)
        return 0; /* deleted meanwhile: copy_all detects the change */
    if (from < 0)
        return base_error_set(copying->error, EP_EACCESS, "%s: %s", from_path, strerror(errno));
    int to = open(to_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int code = to < 0 ? base_error_set(copying->error, EP_ESYSTEM, "%s: %s", to_path, strerror(errno))
                      : copy_bytes(copying, from, from_path, to, to_path);
    close(from);
    if (to >= 0)
        close(to);
    return code;
}

/* Copies the database to import with its WAL and journal once. *changed: an original changed meanwhile, so
 * the copy is useless. `eventpipe import` runs it. */
static int copy_all(struct copying *copying, bool *changed)
{
    struct stat after[FILES];
    int code = read_status(&copying->original, copying->original.status, copying->error);
    if (code == 0)
        code = check_sizes_and_types(copying);
    for (size_t i = 0; code == 0 && i < FILES; i++)
        code = copy_file(copying, i);
    if (code == 0)
        code = read_status(&copying->original, after, copying->error);
    *changed = code == 0 && !are_files_unchanged(copying->original.status, after);
    return code;
}

/* Copies the database to import until its files belong together, at most twice. Fails with EP_EBUSY if
 * another process writes to it. `eventpipe import` runs it. */
static int copy_until_unchanged(struct copying *copying)
{
    bool changed = true;
    int code = check_not_open(&copying->original, copying->error);
    for (int round = 0; code == 0 && changed && round < 2; round++)
        code = copy_all(copying, &changed);
    if (code == 0) /* it may have been started meanwhile */
        code = check_not_open(&copying->original, copying->error);
    if (code == 0 && changed)
        code = base_error_set(
            copying->error, EP_EBUSY,
            "%s: it changed while it was copied, twice: the Go eventpipe still runs on it; stop it "
            "first",
            copying->original.path);
    return code;
}

/* Makes a private directory for the copy of the database to import, under TMPDIR. `eventpipe import` runs
 * it. */
static int make_directory(struct import_copy *copy, struct error *error)
{
    const char *base = getenv("TMPDIR");
    if (base == NULL || *base == '\0')
        base = "/tmp";
    if (snprintf(copy->directory, sizeof copy->directory, "%s/eventpipe-import.XXXXXX", base) >=
        (int)sizeof copy->directory) {
        copy->directory[0] = '\0';
        return base_error_set(error, EP_EINVAL, "TMPDIR %s: the path is too long", base);
    }
    if (mkdtemp(copy->directory) == NULL) { /* mode 0700 */
        copy->directory[0] = '\0';
        return base_error_set(error, EP_ESYSTEM, "TMPDIR %s: cannot create a directory there: %s", base,
                              strerror(errno));
    }
    snprintf(copy->path, sizeof copy->path, "%s/copy.db", copy->directory);
    return 0;
}

/* Copies the Go eventpipe's database, with what a crash left beside it, into a private directory, so that
 * reading it never changes the original. `eventpipe import` calls it when it opens the file. */
int import_copy_make(const char *path, import_stop *stop, void *user, struct import_copy *out,
                     struct error *error)
{
    struct import_copy copy = {0};
    struct copying copying = {.copy = &copy, .stop = stop, .user = user, .error = error};
    if (realpath(path, copying.original.path) == NULL)
        return base_error_set(error, errno == ENOENT || errno == ENOTDIR ? EP_ENOENT : EP_EACCESS, "%s: %s",
                              path, strerror(errno));
    copying.piece = malloc(PIECE_BYTES);
    if (copying.piece == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory");
    int code = make_directory(&copy, error);
    if (code == 0)
        code = copy_until_unchanged(&copying);
    free(copying.piece);
    if (code != 0)
        import_copy_remove(&copy);
    else
        *out = copy;
    return code;
}

/* Removes the private copy of the imported database; an open connection can still read it.
 * `eventpipe import` calls it as soon as the copy is open, so that a kill leaves nothing behind, and after
 * a failure. */
void import_copy_remove(struct import_copy *copy)
{
    if (copy->directory[0] == '\0')
        return;
    for (size_t i = 0; i < FILES; i++) {
        char path[PATH_MAX + 16];
        snprintf(path, sizeof path, "%s%s", copy->path, suffixes[i]);
        unlink(path);
    }
    rmdir(copy->directory);
    *copy = (struct import_copy){0};
}
