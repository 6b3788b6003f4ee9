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
 * has the file open in WAL mode. So a program that runs but is idle at the moment is found as well.
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

#define BUFFER_BYTES (1 << 20)
#define LOCK_FIRST 0x40000000 /* where SQLite locks its files, and how many bytes */
#define LOCK_BYTES 512

static const char *const file_suffixes[] = {"", "-wal", "-journal"};
#define FILE_COUNT (sizeof file_suffixes / sizeof file_suffixes[0])

struct go_files {
    char path[PATH_MAX];                   /* resolved: the WAL is beside the file, not beside a link to it */
    struct stat file_statuses[FILE_COUNT]; /* before the copy; st_mode 0 = the file does not exist */
};

/* One call of import_copy_make. */
struct copy_job {
    struct go_files go_files;
    const struct import_copy *copy;
    import_stop *should_stop;
    void *user;
    char *buffer;
    struct error *error;
};

/* Reads type, size and time of the Go eventpipe's database, its WAL and its journal into
 * file_statuses[FILE_COUNT]; st_mode 0 means that a file does not exist. `eventpipe import` calls it before
 * and after it copies the files, to detect a change meanwhile. Returns 0 or a negative code with a
 * message. */
static int read_file_statuses(const struct go_files *go_files, struct stat *file_statuses,
                              struct error *error)
{
    for (size_t i = 0; i < FILE_COUNT; i++) {
        char path[PATH_MAX + 16];
        snprintf(path, sizeof path, "%s%s", go_files->path, file_suffixes[i]);
        if (stat(path, &file_statuses[i]) == 0)
            continue;
        if (errno != ENOENT || i == 0)
            return base_error_set(error, errno == ENOENT ? EP_ENOENT : EP_EACCESS, "cannot examine %s: %s",
                                  path, strerror(errno));
        file_statuses[i] = (struct stat){0};
    }
    return 0;
}

/* Checks, before `eventpipe import` copies them, that the database, its WAL and its journal are regular
 * files (a pipe would block the copy) and that the file system of the copy has space for them. Returns 0 or
 * a negative code with a message. */
static int check_file_types_and_free_space(const struct copy_job *job)
{
    const struct stat *file_statuses = job->go_files.file_statuses;
    struct statvfs file_system;
    uint64_t needed_bytes = 0;
    for (size_t i = 0; i < FILE_COUNT; i++) {
        if (i == 0 ? !S_ISREG(file_statuses[i].st_mode)
                   : file_statuses[i].st_mode != 0 && !S_ISREG(file_statuses[i].st_mode))
            return base_error_set(job->error, EP_EINVAL,
                                  "%s%s: expected a regular file that holds a database", job->go_files.path,
                                  file_suffixes[i]);
        needed_bytes += (uint64_t)file_statuses[i].st_size;
    }
    if (statvfs(job->copy->directory, &file_system) == 0 &&
        needed_bytes / file_system.f_frsize >= file_system.f_bavail)
        return base_error_set(job->error, EP_ESYSTEM,
                              "%s: not enough space for a copy of the database: it needs %" PRIu64
                              " bytes, %" PRIu64 " are free (set TMPDIR to a directory with more space)",
                              job->copy->directory, needed_bytes,
                              (uint64_t)file_system.f_bavail * file_system.f_frsize);
    return 0;
}

/* Returns whether the database to import, its WAL and its journal are the same files, with the same sizes
 * and times, as before the copy. `eventpipe import` copies again if not: files of different moments would
 * make a damaged database. */
static bool are_files_unchanged(const struct stat *statuses_before, const struct stat *statuses_after)
{
    for (size_t i = 0; i < FILE_COUNT; i++)
        if (statuses_before[i].st_mode != statuses_after[i].st_mode ||
            statuses_before[i].st_ino != statuses_after[i].st_ino ||
            statuses_before[i].st_size != statuses_after[i].st_size ||
            statuses_before[i].st_mtim.tv_sec != statuses_after[i].st_mtim.tv_sec ||
            statuses_before[i].st_mtim.tv_nsec != statuses_after[i].st_mtim.tv_nsec)
            return false;
    return true;
}

/* ---- other processes that use the database ---- */

/* Fails with EP_EBUSY if another process has the database to import open: the Go eventpipe would go on to
 * process events that are being imported. `eventpipe import` calls it before and after the copy, because
 * that process may start meanwhile. It only asks the kernel for locks and takes none itself, so it never
 * disturbs the other program. */
static int check_not_open_elsewhere(const struct go_files *go_files, struct error *error)
{
    int database_fd = open(go_files->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (database_fd < 0)
        return base_error_set(error, errno == ENOENT ? EP_ENOENT : EP_EACCESS, "cannot open %s: %s",
                              go_files->path, strerror(errno));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_FIRST, .l_len = LOCK_BYTES};
    int result = fcntl(database_fd, F_GETLK, &lock);
    close(database_fd);
    if (result != 0 || lock.l_type == F_UNLCK)
        return 0;
    char comm_path[40], process_name[32] = "?";
    snprintf(comm_path, sizeof comm_path, "/proc/%ld/comm", (long)lock.l_pid);
    FILE *comm_file = fopen(comm_path, "re");
    if (comm_file != NULL && fgets(process_name, sizeof process_name, comm_file) != NULL)
        process_name[strcspn(process_name, "\n")] = '\0';
    if (comm_file != NULL)
        fclose(comm_file);
    return base_error_set(
        error, EP_EBUSY,
        "%s is open in process %ld (%s): if that is the Go eventpipe, stop it first, then import again",
        go_files->path, (long)lock.l_pid, process_name);
}

/* ---- copying ---- */

/* Writes `buffer_bytes` bytes of the copy buffer to the file `copy_fd`; a short or interrupted write(2) is
 * continued. `eventpipe import` calls it for each buffer that it has read. Returns 0 or EP_ESYSTEM with a
 * message. */
static int write_buffer(struct copy_job *job, int copy_fd, const char *copy_path, size_t buffer_bytes)
{
    for (size_t written_bytes = 0; written_bytes < buffer_bytes;) {
        ssize_t just_written = write(copy_fd, job->buffer + written_bytes, buffer_bytes - written_bytes);
        if (just_written < 0 && errno == EINTR)
            continue;
        if (just_written < 0)
            return base_error_set(job->error, EP_ESYSTEM,
                                  "cannot write the copy %s: %s (it needs as much space as the database; set "
                                  "TMPDIR to a directory with more space)",
                                  copy_path, strerror(errno));
        written_bytes += (size_t)just_written;
    }
    return 0;
}

/* Copies the content of one open file of the database to import, one buffer at a time. Before each buffer
 * it asks the caller of `import_copy_make` whether the user has interrupted `eventpipe import`, and then
 * fails with EP_ESTATE. Returns 0 or a negative code with a message. */
static int copy_file_content(struct copy_job *job, int from_fd, const char *from_path, int to_fd,
                             const char *to_path)
{
    for (;;) {
        if (job->should_stop != NULL && job->should_stop(job->user))
            return base_error_set(job->error, EP_ESTATE,
                                  "interrupted while %s was being copied; nothing was imported", from_path);
        ssize_t read_bytes = read(from_fd, job->buffer, BUFFER_BYTES);
        if (read_bytes < 0 && errno == EINTR)
            continue;
        if (read_bytes < 0)
            return base_error_set(job->error, EP_ESYSTEM, "cannot read %s: %s", from_path, strerror(errno));
        if (read_bytes == 0)
            return 0;
        int code = write_buffer(job, to_fd, to_path, (size_t)read_bytes);
        if (code != 0)
            return code;
    }
}

/* Copies one file of the database to import into the private directory of `eventpipe import`. `file_index`
 * selects the database, its WAL or its journal; one that does not exist is skipped. Returns 0 or a negative
 * code with a message. */
static int copy_file(struct copy_job *job, size_t file_index)
{
    char from_path[PATH_MAX + 16], to_path[PATH_MAX + 16];
    snprintf(from_path, sizeof from_path, "%s%s", job->go_files.path, file_suffixes[file_index]);
    snprintf(to_path, sizeof to_path, "%s%s", job->copy->path, file_suffixes[file_index]);
    if (unlink(to_path) != 0 && errno != ENOENT) /* left by the first round */
        return base_error_set(job->error, EP_ESYSTEM, "cannot write the copy %s: %s", to_path,
                              strerror(errno));
    if (job->go_files.file_statuses[file_index].st_mode == 0)
        return 0;
    int from_fd = open(from_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (from_fd < 0 && errno == ENOENT && file_index > 0)
        return 0; /* deleted meanwhile: copy_all_files detects the change */
    if (from_fd < 0)
        return base_error_set(job->error, EP_EACCESS, "cannot open %s: %s", from_path, strerror(errno));
    int to_fd = open(to_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int code = to_fd < 0 ? base_error_set(job->error, EP_ESYSTEM, "cannot write the copy %s: %s", to_path,
                                          strerror(errno))
                         : copy_file_content(job, from_fd, from_path, to_fd, to_path);
    close(from_fd);
    if (to_fd >= 0)
        close(to_fd);
    return code;
}

/* Copies the database to import with its WAL and journal once, for `eventpipe import`. Sets *has_changed to
 * true if one of the originals changed meanwhile: the copied files then do not belong together, and the
 * caller must copy again. Returns 0 or a negative code with a message. */
static int copy_all_files(struct copy_job *job, bool *has_changed)
{
    struct stat statuses_after[FILE_COUNT];
    int code = read_file_statuses(&job->go_files, job->go_files.file_statuses, job->error);
    if (code == 0)
        code = check_file_types_and_free_space(job);
    for (size_t i = 0; code == 0 && i < FILE_COUNT; i++)
        code = copy_file(job, i);
    if (code == 0)
        code = read_file_statuses(&job->go_files, statuses_after, job->error);
    *has_changed = code == 0 && !are_files_unchanged(job->go_files.file_statuses, statuses_after);
    return code;
}

/* Copies the database to import, for `eventpipe import`, and copies it a second time if it changed during
 * the first copy. Returns 0, or EP_EBUSY if it changed again or another process has it open: that process
 * must be stopped first. */
static int copy_until_unchanged(struct copy_job *job)
{
    bool has_changed = true;
    int code = check_not_open_elsewhere(&job->go_files, job->error);
    for (int attempt = 0; code == 0 && has_changed && attempt < 2; attempt++)
        code = copy_all_files(job, &has_changed);
    if (code == 0) /* it may have been started meanwhile */
        code = check_not_open_elsewhere(&job->go_files, job->error);
    if (code == 0 && has_changed)
        code = base_error_set(
            job->error, EP_EBUSY,
            "%s: it changed while it was copied, twice, so a program still writes to it; if that is the Go "
            "eventpipe, stop it first, then import again",
            job->go_files.path);
    return code;
}

/* Creates the directory (mode 0700) for the copy of the database that `eventpipe import` reads, under
 * TMPDIR or /tmp, and sets the path of the copy in it. Returns 0, or a negative code with copy->directory
 * empty. */
static int create_private_directory(struct import_copy *copy, struct error *error)
{
    const char *parent_directory = getenv("TMPDIR");
    if (parent_directory == NULL || *parent_directory == '\0')
        parent_directory = "/tmp";
    if (snprintf(copy->directory, sizeof copy->directory, "%s/eventpipe-import.XXXXXX", parent_directory) >=
        (int)sizeof copy->directory) {
        copy->directory[0] = '\0';
        return base_error_set(error, EP_EINVAL,
                              "TMPDIR %s: the path is too long; set TMPDIR to a shorter one",
                              parent_directory);
    }
    if (mkdtemp(copy->directory) == NULL) { /* mode 0700 */
        copy->directory[0] = '\0';
        return base_error_set(error, EP_ESYSTEM,
                              "TMPDIR %s: cannot create a directory there for the copy of the database: %s",
                              parent_directory, strerror(errno));
    }
    snprintf(copy->path, sizeof copy->path, "%s/copy.db", copy->directory);
    return 0;
}

/* Copies the Go eventpipe's database, with the WAL or journal that a crash has left, into a new private
 * directory, so that `eventpipe import` never changes the original while it reads. Returns 0 and *out, or a
 * negative code; then nothing is left of the copy. */
int import_copy_make(const char *path, import_stop *should_stop, void *user, struct import_copy *out,
                     struct error *error)
{
    struct import_copy copy = {0};
    struct copy_job job = {.copy = &copy, .should_stop = should_stop, .user = user, .error = error};
    if (realpath(path, job.go_files.path) == NULL)
        return base_error_set(error, errno == ENOENT || errno == ENOTDIR ? EP_ENOENT : EP_EACCESS, "%s: %s",
                              path, strerror(errno));
    job.buffer = malloc(BUFFER_BYTES);
    if (job.buffer == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory");
    int code = create_private_directory(&copy, error);
    if (code == 0)
        code = copy_until_unchanged(&job);
    free(job.buffer);
    if (code != 0)
        import_copy_remove(&copy);
    else
        *out = copy;
    return code;
}

/* Removes the files and the directory of the private copy; a connection that has opened them can still
 * read. `eventpipe import` calls it as soon as the copy is open, so that a later SIGKILL leaves no files
 * behind, and after a failure. */
void import_copy_remove(struct import_copy *copy)
{
    if (copy->directory[0] == '\0')
        return;
    for (size_t i = 0; i < FILE_COUNT; i++) {
        char path[PATH_MAX + 16];
        snprintf(path, sizeof path, "%s%s", copy->path, file_suffixes[i]);
        unlink(path);
    }
    rmdir(copy->directory);
    *copy = (struct import_copy){0};
}
