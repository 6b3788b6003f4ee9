/* SPDX-License-Identifier: MIT */
/*
 * The file source: each line of a file is an event. The file is followed as it grows, is rotated or
 * truncated. Runs in the producer's fetch thread; other threads call only `interrupt`.
 *
 * Invariants:
 *   1. Only whole lines are taken. The rest of a file counts as a line once the file is finished: it was
 *      deleted, or another non-empty file has its name (its writer has switched).
 *   2. A file is finished before the next one is begun. Files rotated in between are read in their order.
 *   3. If the bytes before the position have changed, the file was truncated. The source then looks for a
 *      copy beside it that has them, and otherwise begins the file again.
 *   4. The given cursor always counts: if it is not the current position (a page was not stored), the
 *      source goes there.
 *
 * It waits with inotify and an eventfd. Where inotify sees nothing (network and layered file systems,
 * symbolic links) it also looks once a second. A missing file is a failed fetch: the producer backs off,
 * and status shows the reason.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "src/base/hash.h"
#include "src/source/file_lines.h"
#include "src/source/file_position.h"
#include "src/source/source.h"

#define LOOK_MS 1000
#define PAGE_BYTES_MAX (8 << 20)
#define DEFAULT_MAX_LINE (16 << 20)
#define UID_HASH_DIGITS 12

struct file_source {
    const struct source_config *config;
    int wake_fd, inotify_fd;
    bool looks;       /* inotify may not see everything */
    bool was_missing; /* so what appears is new, and is read from its start */
    struct file_lines lines;
    struct file_position position;  /* of lines.offset; its hash is that of the last cursor given or got */
    char cursor[FILE_CURSOR_BYTES]; /* what the store is to have by now; "" = none */
};

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t max_line(const struct file_source *file)
{
    uint64_t bytes = file->config->file.max_line_bytes;
    return bytes == 0 ? DEFAULT_MAX_LINE : bytes;
}

static int file_source_open(const struct source_config *config, void **state, struct error *error)
{
    struct stat info;

    if (config->file.path == NULL || config->file.path[0] == '\0')
        return base_error_set(error, EP_ECONFIG, "source %s: it has no path", config->id);
    if (stat(config->file.path, &info) == 0 && !S_ISREG(info.st_mode))
        return base_error_set(error, EP_ECONFIG, "source %s: %s is not a regular file", config->id,
                              config->file.path);
    struct file_source *file = calloc(1, sizeof *file);
    if (file == NULL)
        return base_error_set(error, EP_ENOMEM, "no memory for source %s", config->id);
    file->config = config;
    file->lines.fd = file->inotify_fd = -1;
    file->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (file->wake_fd < 0) {
        int code = base_error_set(error, EP_ESYSTEM, "eventfd: %s", strerror(errno));
        free(file);
        return code;
    }
    *state = file;
    return 0;
}

static void leave_file(struct file_source *file)
{
    source_file_lines_close(&file->lines);
    if (file->inotify_fd >= 0)
        close(file->inotify_fd);
    file->inotify_fd = -1;
}

static void file_source_close(void *state)
{
    struct file_source *file = state;

    leave_file(file);
    close(file->wake_fd);
    free(file);
}

static void file_source_interrupt(void *state)
{
    const struct file_source *file = state;
    uint64_t one = 1;

    (void)!write(file->wake_fd, &one, sizeof one);
}

/* ---- which file, and where in it ---- */

static bool inotify_is_blind(int fd, const char *path)
{
    /* NFS, SMB (three), FUSE, 9P, Ceph, AFS (two), overlayfs: changes made elsewhere, or on another layer,
     * are not told */
    static const uint32_t kinds[] = {0x6969,     0x517B,     0xFE534D42, 0xFF534D42, 0x65735546,
                                     0x01021997, 0x00C36400, 0x5346414F, 0x6B414653, 0x794C7630};
    struct statfs system;
    struct stat info;

    if (lstat(path, &info) == 0 && S_ISLNK(info.st_mode))
        return true;
    if (fstatfs(fd, &system) != 0)
        return true;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if ((uint32_t)system.f_type == kinds[i])
            return true;
    return false;
}

/* Watches the open file (whatever its name is by now) and what appears beside it. */
static void watch_file(struct file_source *file)
{
    const char *path = file->config->file.path, *slash = strrchr(path, '/');
    char open_file[64],
        *directory = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));

    snprintf(open_file, sizeof open_file, "/proc/self/fd/%d", file->lines.fd);
    file->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    file->looks = file->inotify_fd < 0 || directory == NULL ||
                  inotify_add_watch(file->inotify_fd, open_file, IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF) < 0 ||
                  inotify_add_watch(file->inotify_fd, directory, IN_CREATE | IN_MOVED_TO) < 0 ||
                  inotify_is_blind(file->lines.fd, path);
    free(directory);
}

/* Takes over an open file; its position follows. */
static int enter_file(struct file_source *file, int fd, uint64_t offset, uint64_t generation,
                      struct error *error)
{
    leave_file(file);
    source_file_lines_open(&file->lines, fd, offset, max_line(file));
    watch_file(file); /* before it is read for the first time, so that nothing written later goes unnoticed */
    file->position.generation = generation;
    if (source_file_position_take(fd, offset, &file->position) == 0)
        return 0;
    leave_file(file);
    return base_error_set(error, EP_EBACKEND, "%s cannot be read at %" PRIu64, file->config->file.path,
                          offset);
}

/* Opens the file a cursor is in, or path itself. */
static int go_to(struct file_source *file, const char *cursor, struct error *error)
{
    const char *path = file->config->file.path;
    struct file_position position = {0};
    int fd, code;

    leave_file(file);
    snprintf(file->cursor, sizeof file->cursor, "%s", cursor == NULL ? "" : cursor);
    if (cursor == NULL)
        cursor = file->config->continuation_id;
    if (cursor != NULL) {
        if (source_file_position_parse(cursor, &position) != 0)
            return base_error_set(error, EP_EPROTO, "%s: the cursor \"%.60s\" is not device:inode:offset",
                                  path, cursor);
        if (source_file_position_find(path, &position, &fd))
            return enter_file(file, fd, position.offset, position.generation, error);
    }
    code = source_file_position_open(path, &fd, error);
    if (code != 0) {
        file->was_missing = true;
        return code;
    }
    uint64_t offset = 0;
    if (cursor != NULL)
        position.generation++;
    else if (file->config->file.from == FILE_FROM_END && !file->was_missing)
        offset = source_file_end_of_lines(fd, max_line(file));
    return enter_file(file, fd, offset, position.generation, error);
}

/* Makes sure that we stand where the cursor says, in a file that is still the one it was. */
static int stand(struct file_source *file, const char *cursor, struct error *error)
{
    bool known = strcmp(cursor == NULL ? "" : cursor, file->cursor) == 0;

    if (file->lines.fd < 0 || !known)
        return go_to(file, cursor, error);
    if (source_file_position_holds(file->lines.fd, &file->position)) {
        source_file_lines_check(&file->lines);
        return 0;
    }
    char own[FILE_CURSOR_BYTES];
    source_file_position_text(&file->position, own); /* even without a stored cursor we know where we were */
    int code = go_to(file, own, error);
    snprintf(file->cursor, sizeof file->cursor, "%s", cursor == NULL ? "" : cursor);
    return code;
}

/* ---- lines ---- */

static int add_corrupt(struct file_source *file, struct page *page, const char *uid,
                       const struct file_line *line, const char *why)
{
    char reason[512];

    snprintf(reason, sizeof reason, "line at byte %" PRIu64 " of %.300s %s", line->offset,
             file->config->file.path, why);
    return source_page_add_corrupt(page, uid, line->at, line->bytes, reason);
}

/* White space only. Zero bytes, as a power failure leaves them in a file, are not: such a line is corrupt. */
static bool is_blank(struct json_span text)
{
    for (size_t i = 0; i < text.bytes; i++)
        if (strchr(" \t\r\n", text.at[i]) == NULL || text.at[i] == '\0')
            return false;
    return true;
}

static int add_line(struct file_source *file, struct page *page, const struct file_line *line)
{
    const struct source_config *config = file->config;
    struct json_span text = {line->at, line->bytes};
    bool cut = line->whole_bytes > line->bytes, is_json = false;
    char uid[160], hash[UID_HASH_DIGITS + 1], why[120];
    size_t at_byte = 0;

    if (line->offset == 0 && text.bytes >= 3 && memcmp(text.at, "\xEF\xBB\xBF", 3) == 0)
        text = (struct json_span){text.at + 3, text.bytes - 3};
    if (!cut && text.bytes > 0 && text.at[text.bytes - 1] == '\r')
        text.bytes--;
    if (text.bytes == 0 || (config->file.format == FILE_JSON && is_blank(text)))
        return 0;
    base_hash_hex(text.at, text.bytes, hash, UID_HASH_DIGITS);
    snprintf(uid, sizeof uid, "%" PRIu64 "-%" PRIu64 "-%" PRIu64 "-%s", file->position.inode,
             file->position.generation, line->offset, hash);
    if (cut) {
        snprintf(why, sizeof why,
                 "has %" PRIu64 " bytes, more than the %" PRIu64 " of max_line: kept are the first %zu",
                 line->whole_bytes, max_line(file), line->bytes);
        return add_corrupt(file, page, uid, line, why);
    }
    if (config->file.format == FILE_JSON ||
        (config->file.format == FILE_AUTO && (json_kind(text) == '{' || json_kind(text) == '[')))
        is_json = json_valid(text.at, text.bytes, &at_byte);
    if (config->file.format == FILE_JSON && !is_json) {
        snprintf(why, sizeof why, "is not valid JSON at its byte %zu", at_byte);
        return add_corrupt(file, page, uid, line, why);
    }
    return source_page_add_element(page, &config->pointers, text, is_json, uid);
}

static int cannot_read(const struct file_source *file, int code, struct error *error)
{
    if (code == EP_ENOMEM)
        return base_error_set(error, code, "%s: no memory for its lines", file->config->file.path);
    return base_error_set(error, code, "%s cannot be read: %s", file->config->file.path, strerror(errno));
}

/* Takes lines until the page is full or there are no more. */
static int collect(struct file_source *file, const struct fetch *fetch, bool rest_counts, struct page *page,
                   struct error *error)
{
    size_t limit = fetch->limit == 0 ? 1 : fetch->limit;
    struct file_line line;
    int found = 1;

    while (found == 1 && page->count < limit && page->data_bytes < PAGE_BYTES_MAX) {
        found = source_file_lines_find(&file->lines, rest_counts, &line);
        if (found == 1) {
            int code = add_line(file, page, &line);
            if (code != 0)
                return cannot_read(file, code, error);
            source_file_lines_take(&file->lines, &line);
        }
    }
    if (found == 1)
        found = source_file_lines_find(&file->lines, rest_counts, &line);
    page->more = found == 1;
    return found < 0 ? cannot_read(file, found, error) : 0;
}

static bool advanced(const struct file_source *file)
{
    return file->lines.offset != file->position.offset;
}

/* ---- from one file to the next ---- */

/* Whether the file we read to its end is finished: path is another one by now, in which something stands. */
static int look_finished(struct file_source *file, bool *finished, struct error *error)
{
    const char *path = file->config->file.path;
    struct stat own, now;

    *finished = false;
    if (fstat(file->lines.fd, &own) != 0)
        return cannot_read(file, EP_EBACKEND, error);
    if (stat(path, &now) != 0) {
        *finished = own.st_nlink ==
                    0; /* deleted: nobody will find it again after a restart, so what is there is all */
        return 0;
    }
    if (now.st_dev == own.st_dev && now.st_ino == own.st_ino) {
        int fd;
        /* a layered file system has copied the file up: our descriptor still shows the layer below */
        if (now.st_size > own.st_size && source_file_position_open(path, &fd, NULL) == 0)
            return enter_file(file, fd, file->lines.offset, file->position.generation, error);
        return 0;
    }
    if (now.st_size == 0 && own.st_nlink > 0) {
        if (file->inotify_fd < 0 || inotify_add_watch(file->inotify_fd, path, IN_MODIFY) < 0)
            file->looks = true;
        if (stat(path, &now) != 0) /* again: it may have been written before it was watched */
            return 0;
    }
    *finished = now.st_size > 0 || own.st_nlink == 0;
    return 0;
}

/* Leaves a finished file, all of which was taken, for the next. */
static int next_file(struct file_source *file, struct error *error)
{
    struct file_position position = file->position;
    bool is_path;
    int fd, code = source_file_position_next(file->config->file.path, file->lines.fd, &fd, &is_path, error);

    if (code != 0) { /* only when it is deleted and no other is there */
        leave_file(file);
        file->was_missing = true;
        return code;
    }
    /* the same content in a new file (an editor, a restored copy): go on in it */
    bool same =
        is_path && position.offset >= FILE_COPY_BYTES_MIN && source_file_position_holds(fd, &position);
    return enter_file(file, fd, same ? position.offset : 0, position.generation + !same, error);
}

/* ---- waiting ---- */

static void drain(int fd)
{
    char bytes[4096];

    while (fd >= 0 && read(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes)
        ;
}

/* false when the call is over. */
static bool wait_for_change(struct file_source *file, const struct fetch *fetch, uint64_t end_ms)
{
    struct pollfd fds[] = {{.fd = file->wake_fd, .events = POLLIN},
                           {.fd = file->inotify_fd, .events = POLLIN}};
    uint64_t now = now_ms();

    if (atomic_load(fetch->abort) || now >= end_ms)
        return false;
    uint64_t left = end_ms - now;
    if (file->looks && left > LOOK_MS)
        left = LOOK_MS;
    if (left > 3600000)
        left = 3600000;
    if (poll(fds, 2, (int)left) > 0 && (fds[0].revents & POLLIN)) {
        drain(file->wake_fd);
        return false;
    }
    return true;
}

/* One look: lines, or the way to the next file. */
static int look(struct file_source *file, const struct fetch *fetch, struct page *page, struct error *error)
{
    bool finished = false;
    int code = collect(file, fetch, false, page, error);

    if (code != 0 || advanced(file))
        return code;
    code = look_finished(file, &finished, error);
    if (code != 0 || !finished)
        return code;
    code = collect(file, fetch, true, page, error); /* once more: the last it wrote before it switched */
    if (code != 0 || advanced(file))
        return code;
    return next_file(file, error);
}

static int file_source_fetch(void *state, const struct fetch *fetch, struct page *page,
                             struct source_failure *failure)
{
    struct file_source *file = state;
    uint64_t end_ms = now_ms() + fetch->wait_ms;
    char text[FILE_CURSOR_BYTES];
    int code;

    do {
        drain(file->inotify_fd);
        code = stand(file, fetch->cursor, &failure->error);
        uint64_t generation = file->position.generation;
        if (code == 0)
            code = look(file, fetch, page, &failure->error);
        if (code != 0)
            return code;
        if (advanced(file) &&
            source_file_position_take(file->lines.fd, file->lines.offset, &file->position) != 0) {
            leave_file(file); /* truncated this very moment: begin again from the stored cursor */
            return base_error_set(&failure->error, EP_EBACKEND, "%s changed while it was read",
                                  file->config->file.path);
        }
        if (file->position.generation != generation)
            page->more = true;
        source_file_position_text(&file->position, text);
        if (strcmp(text, file->cursor) != 0) {
            memcpy(file->cursor, text, sizeof text);
            return source_page_set_cursor(page, text) == 0
                       ? 0
                       : base_error_set(&failure->error, EP_ENOMEM, "no memory for a cursor");
        }
    } while (wait_for_change(file, fetch, end_ms));
    return 0;
}

const struct source_ops source_file_ops = {
    .type = "file",
    .open = file_source_open,
    .fetch = file_source_fetch,
    .interrupt = file_source_interrupt,
    .close = file_source_close,
};
