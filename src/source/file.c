/* SPDX-License-Identifier: MIT */
/*
 * The file source: each line of a file is an event. The file is followed as it grows, is rotated or
 * truncated. Runs in the producer's fetcher thread; other threads call only `interrupt`.
 *
 * Invariants:
 *   1. Only whole lines become events. The rest of a file counts as a line once the file is finished:
 *      it was deleted, or another non-empty file has its name (a rotation).
 *   2. A file is read to its end before the next one. Files rotated in between are read in their order.
 *   3. If the bytes before the position have changed, the file was truncated. The source then looks for
 *      a copy beside it that has these bytes. Otherwise it reads the file from its start.
 *   4. The cursor of the fetch always counts: if it is not the current position (a page was not
 *      stored), the source goes back to it.
 *
 * It waits with inotify and an eventfd. Where inotify may miss changes (network and layered file systems,
 * symbolic links), it also looks once a second. If the file is missing, the fetch fails: the producer tries
 * again with backoff, and `eventpipe status` shows the reason.
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

#define POLL_MS 1000
#define PAGE_BYTES_MAX (8 << 20)
#define DEFAULT_MAX_LINE (16 << 20)
#define UID_HASH_DIGITS 12

struct file_source {
    const struct source_config *config;
    int wake_fd, inotify_fd;
    bool must_poll;   /* inotify may miss changes: look once a second, too */
    bool was_missing; /* so a file that appears now is new: read it from its start */
    struct file_lines lines;
    struct file_position position;  /* of lines.offset; the hash is of the last stored cursor */
    char cursor[FILE_CURSOR_BYTES]; /* that the store should have by now; "" = none */
};

/* Returns the monotonic clock in milliseconds. The file source measures by this clock how long a fetch may
 * wait, since a change of the date must not prolong it. */
static uint64_t read_monotonic_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Returns how many bytes a line of a file source may have to become an event: max_line, or its default if
 * that is 0. */
static uint64_t get_line_limit_bytes(const struct file_source *file)
{
    uint64_t max_line_bytes = file->config->file.max_line_bytes;
    return max_line_bytes == 0 ? DEFAULT_MAX_LINE : max_line_bytes;
}

/* Opens a source that reads the lines of a file; the file itself may appear later. The producer's fetcher
 * thread calls this before the first fetch, `eventpipe check` to test the configuration. Returns 0 and
 * sets *state, or returns a negative code and fills the error. */
static int file_source_open(const struct source_config *config, void **state, struct error *error)
{
    struct stat file_stat;

    if (config->file.path == NULL || config->file.path[0] == '\0')
        return base_error_set(error, EP_ECONFIG, "source %s: path is missing", config->id);
    if (stat(config->file.path, &file_stat) == 0 && !S_ISREG(file_stat.st_mode))
        return base_error_set(error, EP_ECONFIG, "source %s: %s is not a regular file", config->id,
                              config->file.path);
    struct file_source *file = calloc(1, sizeof *file);
    if (file == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for source %s", config->id);
    file->config = config;
    file->lines.fd = file->inotify_fd = -1;
    file->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (file->wake_fd < 0) {
        int code = base_error_set(error, EP_ESYSTEM, "source %s: cannot create an eventfd: %s", config->id,
                                  strerror(errno));
        free(file);
        return code;
    }
    *state = file;
    return 0;
}

/* Closes the file that the file source reads, and its inotify watches. The producer's fetcher thread calls
 * this before it goes to another file, after a read failed, and when the source closes. */
static void close_current_file(struct file_source *file)
{
    source_file_lines_close(&file->lines);
    if (file->inotify_fd >= 0)
        close(file->inotify_fd);
    file->inotify_fd = -1;
}

/* Frees the file source. The producer's fetcher thread calls this when the producer stops, source_check
 * after its test. */
static void file_source_close(void *state)
{
    struct file_source *file = state;

    close_current_file(file);
    close(file->wake_fd);
    free(file);
}

/* Wakes a fetch of the file source that waits for new lines. The producer's main thread calls this to
 * pause or stop the source, and after an operator set its cursor. */
static void file_source_interrupt(void *state)
{
    const struct file_source *file = state;
    uint64_t wake_count = 1;

    (void)!write(file->wake_fd, &wake_count, sizeof wake_count);
}

/* ---- opening the right file at the right offset ---- */

/* Whether inotify may miss changes of a file source's file: on a network or layered file system, or
 * behind a symbolic link. The producer's fetcher thread then polls the file once a second as well;
 * otherwise it could notice new lines too late or never. */
static bool inotify_may_miss_changes(int fd, const char *path)
{
    /* NFS, SMB (three), FUSE, 9P, Ceph, AFS (two), overlayfs: inotify does not report changes by other hosts
     * or on another layer */
    static const uint32_t filesystem_magics[] = {0x6969,     0x517B,     0xFE534D42, 0xFF534D42, 0x65735546,
                                                 0x01021997, 0x00C36400, 0x5346414F, 0x6B414653, 0x794C7630};
    struct statfs filesystem;
    struct stat file_stat;

    if (lstat(path, &file_stat) == 0 && S_ISLNK(file_stat.st_mode))
        return true;
    if (fstatfs(fd, &filesystem) != 0)
        return true;
    for (size_t i = 0; i < sizeof filesystem_magics / sizeof filesystem_magics[0]; i++)
        if ((uint32_t)filesystem.f_type == filesystem_magics[i])
            return true;
    return false;
}

/* Watches the open file with inotify, also after a rename, and the directory of its path for new files.
 * Sets must_poll if that is not enough. The producer's fetcher thread calls this for each file that the
 * file source opens. */
static void watch_current_file(struct file_source *file)
{
    const char *path = file->config->file.path, *slash = strrchr(path, '/');
    char descriptor_path[64],
        *directory = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));

    snprintf(descriptor_path, sizeof descriptor_path, "/proc/self/fd/%d", file->lines.fd);
    file->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    file->must_poll =
        file->inotify_fd < 0 || directory == NULL ||
        inotify_add_watch(file->inotify_fd, descriptor_path, IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF) < 0 ||
        inotify_add_watch(file->inotify_fd, directory, IN_CREATE | IN_MOVED_TO) < 0 ||
        inotify_may_miss_changes(file->lines.fd, path);
    free(directory);
}

/* Makes an open file the one that the file source reads, starting at offset, closes the previous one, and
 * records its position. generation is the count of files and truncations so far. The source owns fd from
 * then on, even after a failure. Returns 0 or EP_EBACKEND. The producer's fetcher thread calls this at
 * the first fetch and after a rotation. */
static int switch_to_file(struct file_source *file, int fd, uint64_t offset, uint64_t generation,
                          struct error *error)
{
    close_current_file(file);
    source_file_lines_open(&file->lines, fd, offset, get_line_limit_bytes(file));
    watch_current_file(file); /* before the first read, so that no later write goes unnoticed */
    file->position.generation = generation;
    if (source_file_position_fill(fd, offset, &file->position) == 0)
        return 0;
    close_current_file(file);
    return base_error_set(error, EP_EBACKEND, "%s cannot be read at byte %" PRIu64, file->config->file.path,
                          offset);
}

/* Opens the file that a file source's cursor names, even if it was rotated since, and goes to the
 * cursor's offset. If that file is gone, reads path from its start; without a cursor, the key `from`
 * decides. The producer's fetcher thread calls this at its first fetch, and when cursor or file have
 * changed. Returns 0 or a negative code. */
static int open_file_at_cursor(struct file_source *file, const char *cursor, struct error *error)
{
    const char *path = file->config->file.path;
    struct file_position position = {0};
    int fd, code;

    close_current_file(file);
    snprintf(file->cursor, sizeof file->cursor, "%s", cursor == NULL ? "" : cursor);
    if (cursor == NULL)
        cursor = file->config->continuation_id;
    if (cursor != NULL) {
        if (source_file_position_parse(cursor, &position) != 0)
            return base_error_set(error, EP_EPROTO,
                                  "%s: the cursor \"%.60s\" is not device:inode:offset: correct "
                                  "continuation_id, or the stored cursor with "
                                  "eventpipe cursor %s --set",
                                  path, cursor, file->config->id);
        if (source_file_position_find_file(path, &position, &fd))
            return switch_to_file(file, fd, position.offset, position.generation, error);
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
        offset = source_file_position_last_line_start(fd, get_line_limit_bytes(file));
    return switch_to_file(file, fd, offset, position.generation, error);
}

/* Makes sure that the file source is at the given cursor, in a file whose bytes before it are unchanged.
 * Otherwise opens the right file again: the file was truncated, or the last page was not stored. The
 * producer's fetcher thread calls this before each read. Returns 0 or a negative code. */
static int restore_position(struct file_source *file, const char *cursor, struct error *error)
{
    bool cursor_is_current = strcmp(cursor == NULL ? "" : cursor, file->cursor) == 0;

    if (file->lines.fd < 0 || !cursor_is_current)
        return open_file_at_cursor(file, cursor, error);
    if (source_file_position_matches(file->lines.fd, &file->position)) {
        source_file_lines_drop_truncated(&file->lines);
        return 0;
    }
    char own_cursor[FILE_CURSOR_BYTES];
    source_file_position_format(&file->position, own_cursor); /* known even if no cursor is stored yet */
    int code = open_file_at_cursor(file, own_cursor, error);
    snprintf(file->cursor, sizeof file->cursor, "%s", cursor == NULL ? "" : cursor);
    return code;
}

/* ---- lines ---- */

/* Adds a line that cannot be decoded to the page as a corrupt event. Its reason names offset and path,
 * followed by `problem`, a verb phrase such as "is not valid JSON". The producer's fetcher thread calls
 * this, so that a bad line does not stop the file source. Returns 0 or EP_ENOMEM. */
static int add_corrupt_line(struct file_source *file, struct page *page, const char *uid,
                            const struct file_line *line, const char *problem)
{
    char reason[512];

    snprintf(reason, sizeof reason, "line at byte %" PRIu64 " of %.300s %s", line->offset,
             file->config->file.path, problem);
    return source_page_add_corrupt(page, uid, line->text, line->text_bytes, reason);
}

/* Whether a line holds white space only; the file source skips such a line in JSON format. NUL bytes,
 * which a power failure leaves in a file, are not blank: such a line becomes a corrupt event. */
static bool is_blank_line(struct json_span text)
{
    for (size_t i = 0; i < text.bytes; i++)
        if (strchr(" \t\r\n", text.at[i]) == NULL || text.at[i] == '\0')
            return false;
    return true;
}

/* Turns one line of a file into an event on the page; skips an empty line, and adds a too long or invalid
 * one as corrupt. A line without its own uid gets one of inode, generation (how many files and
 * truncations came before), offset and a hash of the line. The producer's fetcher thread calls this for
 * the file source. Returns 0 or EP_ENOMEM. */
static int add_line_event(struct file_source *file, struct page *page, const struct file_line *line)
{
    const struct source_config *config = file->config;
    struct json_span text = {line->text, line->text_bytes};
    bool is_cut = line->whole_bytes > line->text_bytes, is_json = false;
    char uid[160], hash[UID_HASH_DIGITS + 1], problem[120];
    size_t error_offset = 0;

    if (line->offset == 0 && text.bytes >= 3 && memcmp(text.at, "\xEF\xBB\xBF", 3) == 0)
        text = (struct json_span){text.at + 3, text.bytes - 3};
    if (!is_cut && text.bytes > 0 && text.at[text.bytes - 1] == '\r')
        text.bytes--;
    if (text.bytes == 0 || (config->file.format == FILE_JSON && is_blank_line(text)))
        return 0;
    base_hash_write_hex(text.at, text.bytes, hash, UID_HASH_DIGITS);
    snprintf(uid, sizeof uid, "%" PRIu64 "-%" PRIu64 "-%" PRIu64 "-%s", file->position.inode,
             file->position.generation, line->offset, hash);
    if (is_cut) {
        snprintf(problem, sizeof problem,
                 "has %" PRIu64 " bytes, but max_line allows %" PRIu64 ": only the first %zu are kept",
                 line->whole_bytes, get_line_limit_bytes(file), line->text_bytes);
        return add_corrupt_line(file, page, uid, line, problem);
    }
    if (config->file.format == FILE_JSON ||
        (config->file.format == FILE_AUTO && (json_kind(text) == '{' || json_kind(text) == '[')))
        is_json = json_valid(text.at, text.bytes, &error_offset);
    if (config->file.format == FILE_JSON && !is_json) {
        snprintf(problem, sizeof problem, "is not valid JSON at its byte %zu", error_offset);
        return add_corrupt_line(file, page, uid, line, problem);
    }
    return source_page_add_element(page, &config->pointers, text, is_json, uid);
}

/* Sets the error of a file source that cannot read its file: the path and the reason, which errno has
 * unless code is EP_ENOMEM. The producer shows it in `eventpipe status` and tries again. Returns code. */
static int set_read_error(const struct file_source *file, int code, struct error *error)
{
    if (code == EP_ENOMEM)
        return base_error_set(error, code, "%s: out of memory for its lines", file->config->file.path);
    return base_error_set(error, code, "%s cannot be read: %s", file->config->file.path, strerror(errno));
}

/* Adds lines of the file source's current file to the page until the page is full or there are no more,
 * and sets page->more. With accept_unterminated, the rest of a finished file counts as a line. The
 * producer's fetcher thread calls this. Returns 0, also without new lines, or a negative code. */
static int read_lines_into_page(struct file_source *file, const struct fetch *fetch, bool accept_unterminated,
                                struct page *page, struct error *error)
{
    size_t limit = fetch->limit == 0 ? 1 : fetch->limit;
    struct file_line line;
    int peek_result = 1;

    while (peek_result == 1 && page->count < limit && page->data_bytes < PAGE_BYTES_MAX) {
        peek_result = source_file_lines_peek(&file->lines, accept_unterminated, &line);
        if (peek_result == 1) {
            int code = add_line_event(file, page, &line);
            if (code != 0)
                return set_read_error(file, code, error);
            source_file_lines_consume(&file->lines, &line);
        }
    }
    if (peek_result == 1)
        peek_result = source_file_lines_peek(&file->lines, accept_unterminated, &line);
    page->more = peek_result == 1;
    return peek_result < 0 ? set_read_error(file, peek_result, error) : 0;
}

/* Whether the file source has read lines, even skipped ones, since its position was recorded. */
static bool has_read_lines(const struct file_source *file)
{
    return file->lines.offset != file->position.offset;
}

/* ---- changing to the next file ---- */

/* Sets *is_finished if the file that a file source has read to its end will not grow any more: it was
 * deleted, or a file that is not empty has its path now. A wrong true would lose lines that its writer
 * still adds. The producer's fetcher thread calls this when there are no new lines. Returns 0 or a
 * negative code. */
static int check_file_finished(struct file_source *file, bool *is_finished, struct error *error)
{
    const char *path = file->config->file.path;
    struct stat open_stat, path_stat;

    *is_finished = false;
    if (fstat(file->lines.fd, &open_stat) != 0)
        return set_read_error(file, EP_EBACKEND, error);
    if (stat(path, &path_stat) != 0) {
        /* deleted, so no restart could find it again: its last line is complete */
        *is_finished = open_stat.st_nlink == 0;
        return 0;
    }
    if (path_stat.st_dev == open_stat.st_dev && path_stat.st_ino == open_stat.st_ino) {
        int fd;
        /* overlayfs has copied the file to its upper layer, and our descriptor shows the old copy */
        if (path_stat.st_size > open_stat.st_size && source_file_position_open(path, &fd, NULL) == 0)
            return switch_to_file(file, fd, file->lines.offset, file->position.generation, error);
        return 0;
    }
    if (path_stat.st_size == 0 && open_stat.st_nlink > 0) {
        if (file->inotify_fd < 0 || inotify_add_watch(file->inotify_fd, path, IN_MODIFY) < 0)
            file->must_poll = true;
        if (stat(path, &path_stat) != 0) /* check again: it may have been written before the watch began */
            return 0;
    }
    *is_finished = path_stat.st_size > 0 || open_stat.st_nlink == 0;
    return 0;
}

/* Goes from a finished file to the next: a rotated file that was not read yet, or else path. If path has
 * the same content, it is a copy, and reading continues at the same offset. The producer's fetcher thread
 * calls this for the file source once all lines were read. Returns 0 or a negative code. */
static int open_next_file(struct file_source *file, struct error *error)
{
    struct file_position position = file->position;
    bool is_path;
    int fd, code;

    code = source_file_position_open_next(file->config->file.path, file->lines.fd, &fd, &is_path, error);
    if (code != 0) { /* the file is deleted, and there is no other */
        close_current_file(file);
        file->was_missing = true;
        return code;
    }
    /* an editor or a restore may write the same content to a new file: continue at the same offset */
    bool has_same_content =
        is_path && position.offset >= FILE_COPY_BYTES_MIN && source_file_position_matches(fd, &position);
    return switch_to_file(file, fd, has_same_content ? position.offset : 0,
                          position.generation + !has_same_content, error);
}

/* ---- waiting ---- */

/* Reads and discards everything that is ready on the inotify or wake-up descriptor of the file source, so
 * that the next poll waits for something new. Does nothing for fd -1. */
static void drain_descriptor(int fd)
{
    char bytes[4096];

    while (fd >= 0 && read(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes)
        ;
}

/* Waits until the file may have changed. Returns true then, or false if the fetch's time is over or
 * file_source_interrupt woke it. The producer's fetcher thread sleeps here when the file source has no new
 * lines. */
static bool wait_for_change(struct file_source *file, const struct fetch *fetch, uint64_t deadline_ms)
{
    struct pollfd poll_fds[] = {{.fd = file->wake_fd, .events = POLLIN},
                                {.fd = file->inotify_fd, .events = POLLIN}};
    uint64_t now_ms = read_monotonic_ms();

    if (atomic_load(fetch->abort) || now_ms >= deadline_ms)
        return false;
    uint64_t timeout_ms = deadline_ms - now_ms;
    if (file->must_poll && timeout_ms > POLL_MS)
        timeout_ms = POLL_MS;
    if (timeout_ms > 3600000)
        timeout_ms = 3600000;
    if (poll(poll_fds, 2, (int)timeout_ms) > 0 && (poll_fds[0].revents & POLLIN)) {
        drain_descriptor(file->wake_fd);
        return false;
    }
    return true;
}

/* Reads new lines of the file source's current file or, if there are none and the file is finished, its
 * unterminated last line; then goes to the next file. The producer's fetcher thread calls this until it
 * has lines or the fetch's time is over. Returns 0, also without lines, or a negative code. */
static int read_or_switch_file(struct file_source *file, const struct fetch *fetch, struct page *page,
                               struct error *error)
{
    bool is_finished = false;
    int code = read_lines_into_page(file, fetch, false, page, error);

    if (code != 0 || has_read_lines(file))
        return code;
    code = check_file_finished(file, &is_finished, error);
    if (code != 0 || !is_finished)
        return code;
    /* its writer may have added lines just before it was replaced */
    code = read_lines_into_page(file, fetch, true, page, error);
    if (code != 0 || has_read_lines(file))
        return code;
    return open_next_file(file, error);
}

/* Fetches one page of the file source: new lines of the file, and the position after them as the cursor.
 * Waits for lines up to wait_ms, and follows rotation and truncation. The producer's fetcher thread calls
 * this. Returns 0, with an empty page if there are no new lines, or a negative code with the failure
 * filled. */
static int file_source_fetch(void *state, const struct fetch *fetch, struct page *page,
                             struct source_failure *failure)
{
    struct file_source *file = state;
    uint64_t deadline_ms = read_monotonic_ms() + fetch->wait_ms;
    char new_cursor[FILE_CURSOR_BYTES];
    int code;

    do {
        drain_descriptor(file->inotify_fd);
        code = restore_position(file, fetch->cursor, &failure->error);
        uint64_t old_generation = file->position.generation;
        if (code == 0)
            code = read_or_switch_file(file, fetch, page, &failure->error);
        if (code != 0)
            return code;
        if (has_read_lines(file) &&
            source_file_position_fill(file->lines.fd, file->lines.offset, &file->position) != 0) {
            close_current_file(file); /* truncated just now: the next fetch begins at the stored cursor */
            return base_error_set(&failure->error, EP_EBACKEND,
                                  "%s changed while it was read: the next fetch starts at the stored cursor",
                                  file->config->file.path);
        }
        if (file->position.generation != old_generation)
            page->more = true;
        source_file_position_format(&file->position, new_cursor);
        if (strcmp(new_cursor, file->cursor) != 0) {
            memcpy(file->cursor, new_cursor, sizeof new_cursor);
            return source_page_set_cursor(page, new_cursor) == 0
                       ? 0
                       : base_error_set(&failure->error, EP_ENOMEM, "out of memory for the cursor");
        }
    } while (wait_for_change(file, fetch, deadline_ms));
    return 0;
}

const struct source_ops source_file_ops = {
    .type = "file",
    .open = file_source_open,
    .fetch = file_source_fetch,
    .interrupt = file_source_interrupt,
    .close = file_source_close,
};
