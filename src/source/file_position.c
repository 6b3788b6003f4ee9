/* SPDX-License-Identifier: MIT */
/*
 * Positions in files that are rotated, for the file source. Runs in the producer's fetcher thread. The
 * caller owns each descriptor that it gets.
 *
 * Rotated files are searched beside the path: NAME.* and NAME-*, but not compressed ones. A file is
 * identified by device and inode, and by the bytes around the position, because an inode is soon used
 * again, a device number may change at a reboot, and copytruncate leaves the old content under a new
 * inode. Rotated files are ordered by their last write; if these are equal, NAME.2 is older than NAME.1,
 * and NAME-20260101 older than NAME-20260102. The path itself is the newest.
 */
#include "src/source/file_position.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/hash.h"

#define HASHED_BYTES 256

/* Parses the file source's cursor, "device:inode:offset" with an optional hash and generation. The
 * producer's fetcher thread calls this at its first fetch, and after an operator set another cursor.
 * Returns 0, or EP_EINVAL if the text is not such a cursor. */
int source_file_position_parse(const char *text, struct file_position *position)
{
    uint64_t *const number_fields[] = {&position->device, &position->inode, &position->offset};
    char *number_end;

    *position = (struct file_position){0};
    for (size_t i = 0; i < 3; i++) {
        if (!isdigit((unsigned char)*text))
            return EP_EINVAL;
        errno = 0;
        *number_fields[i] = strtoull(text, &number_end, 10);
        if (errno != 0 || *number_end != (i < 2 ? ':' : *number_end) || *number_fields[i] > INT64_MAX)
            return EP_EINVAL;
        text = number_end + (i < 2);
    }
    if (*text == '\0')
        return 0;
    size_t digit_count = *text == ':' ? strspn(text + 1, "0123456789abcdef") : 0;
    if (digit_count != FILE_HASH_DIGITS)
        return EP_EINVAL;
    memcpy(position->hash, text + 1, digit_count);
    text += 1 + digit_count;
    if (*text == '\0')
        return 0;
    if (*text != ':' || !isdigit((unsigned char)text[1]))
        return EP_EINVAL;
    errno = 0;
    position->generation = strtoull(text + 1, &number_end, 10);
    return errno == 0 && *number_end == '\0' ? 0 : EP_EINVAL;
}

/* Writes a position as the text of the file source's cursor, which source_file_position_parse reads again. */
void source_file_position_format(const struct file_position *position, char text[FILE_CURSOR_BYTES])
{
    snprintf(text, FILE_CURSOR_BYTES, "%" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%s:%" PRIu64, position->device,
             position->inode, position->offset, position->hash, position->generation);
}

/* Reads exactly byte_count bytes of a file at an offset, for the file source in the producer's fetcher
 * thread. Returns false if the file is shorter or cannot be read. */
static bool read_bytes_at(int fd, char *buffer, size_t byte_count, uint64_t offset)
{
    while (byte_count > 0) {
        ssize_t read_bytes = pread(fd, buffer, byte_count, (off_t)offset);
        if (read_bytes < 0 && errno == EINTR)
            continue;
        if (read_bytes <= 0)
            return false;
        buffer += read_bytes;
        byte_count -= (size_t)read_bytes;
        offset += (uint64_t)read_bytes;
    }
    return true;
}

/* Hashes the first bytes of a file and the last ones before an offset, up to 256 each. By this hash the
 * file source recognises a file after a rotation and notices a truncation. Returns false if the bytes
 * cannot be read. Runs in the producer's fetcher thread. */
static bool hash_head_and_tail(int fd, uint64_t offset, char hash[FILE_HASH_DIGITS + 1])
{
    char bytes[2 * HASHED_BYTES];
    size_t edge_bytes = offset < HASHED_BYTES ? offset : HASHED_BYTES;

    if (!read_bytes_at(fd, bytes, edge_bytes, 0) ||
        !read_bytes_at(fd, bytes + edge_bytes, edge_bytes, offset - edge_bytes))
        return false;
    base_hash_write_hex(bytes, 2 * edge_bytes, hash, FILE_HASH_DIGITS);
    return true;
}

/* Fills *position for an offset in the file source's open file: device, inode, offset and hash. The
 * producer's fetcher thread calls this after each page of the file source; the position becomes the
 * cursor. Returns 0, or EP_EBACKEND if the file is shorter or cannot be read. */
int source_file_position_fill(int fd, uint64_t offset, struct file_position *position)
{
    struct stat file_stat;

    if (fstat(fd, &file_stat) != 0 || !hash_head_and_tail(fd, offset, position->hash))
        return EP_EBACKEND;
    position->device = file_stat.st_dev;
    position->inode = file_stat.st_ino;
    position->offset = offset;
    return 0;
}

/* Whether an open file still has the bytes before the offset that it had when the position was recorded.
 * The file source asks this before each read, in the producer's fetcher thread. False means that the file
 * was truncated or overwritten, or is another one. */
bool source_file_position_matches(int fd, const struct file_position *position)
{
    struct stat file_stat;
    char hash[FILE_HASH_DIGITS + 1];

    if (fstat(fd, &file_stat) != 0 || (uint64_t)file_stat.st_size < position->offset)
        return false;
    return position->hash[0] == '\0' ||
           (hash_head_and_tail(fd, position->offset, hash) && strcmp(hash, position->hash) == 0);
}

/* Sets the error for a path that is a directory, FIFO, socket or device, none of which the file source can
 * follow. Returns EP_ECONFIG. */
static int set_not_regular_error(const char *path, mode_t mode, struct error *error)
{
    const char *kind = S_ISDIR(mode)    ? "a directory"
                       : S_ISFIFO(mode) ? "a FIFO"
                       : S_ISSOCK(mode) ? "a socket"
                                        : "a device";

    return base_error_set(error, EP_ECONFIG, "%s is %s: expected a regular file", path, kind);
}

/* Opens a regular file for the file source to read. Checks its type before opening, since opening a device
 * may have effects, and after, since the file may have been replaced meanwhile. The producer's fetcher
 * thread calls this. Returns 0, EP_EBACKEND, EP_EAUTH (no permission) or EP_ECONFIG (not a regular file). */
int source_file_position_open(const char *path, int *fd, struct error *error)
{
    struct stat file_stat;

    /* before opening, since opening a device may have effects; and after, since it may have been replaced */
    if (stat(path, &file_stat) == 0 && !S_ISREG(file_stat.st_mode))
        return set_not_regular_error(path, file_stat.st_mode, error);
    int new_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (new_fd < 0 || fstat(new_fd, &file_stat) != 0) {
        int code = errno == EACCES || errno == EPERM ? EP_EAUTH : EP_EBACKEND;
        code = errno == ENOENT
                   ? base_error_set(error, code, "%s: no such file", path)
                   : base_error_set(error, code, "%s cannot be opened: %s", path, strerror(errno));
        if (new_fd >= 0)
            close(new_fd);
        return code;
    }
    if (!S_ISREG(file_stat.st_mode)) {
        close(new_fd);
        return set_not_regular_error(path, file_stat.st_mode, error);
    }
    *fd = new_fd;
    return 0;
}

/* ---- rotated files beside path ---- */

/* Whether a file name ends like that of a compressed or temporary file. The file source skips such files
 * when it looks for rotated ones, since it could not read their lines. */
static bool is_compressed_name(const char *name)
{
    static const char *const endings[] = {".gz",   ".bz2", ".xz",  ".zst", ".lz4",
                                          ".lzma", ".Z",   ".zip", ".tmp"};
    size_t name_bytes = strlen(name);

    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        if (name_bytes >= strlen(endings[i]) &&
            strcmp(name + name_bytes - strlen(endings[i]), endings[i]) == 0)
            return true;
    return false;
}

/* Returns what follows "BASE." or "BASE-" in the name of a rotated file, such as 1 in app.log.1; NULL if
 * the name begins otherwise or is that of a compressed file. The file source calls this for each file in
 * the directory of its path. */
static const char *find_sibling_suffix(const char *base_name, const char *name)
{
    size_t base_name_bytes = strlen(base_name);

    if (strncmp(name, base_name, base_name_bytes) != 0 ||
        (name[base_name_bytes] != '.' && name[base_name_bytes] != '-') || is_compressed_name(name))
        return NULL;
    return name[base_name_bytes + 1] == '\0' ? NULL : name + base_name_bytes + 1;
}

struct sibling {
    const char *suffix;
    struct stat file_stat;
};

/* Gets an open rotated file beside path; returns true if it keeps the descriptor. */
typedef bool sibling_handler(int fd, const struct sibling *sibling, void *user);

/* Opens each rotated file (sibling) beside the path of a file source, such as app.log.1 beside app.log,
 * and calls on_sibling with it; closes those that on_sibling does not keep. The producer's fetcher thread
 * calls this when the file source looks for the file of its cursor or for the next file. */
static void for_each_sibling(const char *path, sibling_handler *on_sibling, void *user)
{
    const char *slash = strrchr(path, '/'), *base_name = slash == NULL ? path : slash + 1;
    char directory[PATH_MAX];
    int directory_bytes = slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path);

    snprintf(directory, sizeof directory, "%.*s", directory_bytes, slash == NULL ? "." : path);
    DIR *directory_stream = opendir(directory);
    if (directory_stream == NULL)
        return;
    for (const struct dirent *entry = readdir(directory_stream); entry != NULL;
         entry = readdir(directory_stream)) {
        struct sibling sibling = {.suffix = find_sibling_suffix(base_name, entry->d_name)};
        if (sibling.suffix == NULL ||
            fstatat(dirfd(directory_stream), entry->d_name, &sibling.file_stat, 0) != 0 ||
            !S_ISREG(sibling.file_stat.st_mode))
            continue;
        int fd = openat(dirfd(directory_stream), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
            continue;
        if (fstat(fd, &sibling.file_stat) != 0 || !S_ISREG(sibling.file_stat.st_mode) ||
            !on_sibling(fd, &sibling, user))
            close(fd);
    }
    closedir(directory_stream);
}

static int64_t get_modified_ns(const struct stat *file_stat)
{
    return (int64_t)file_stat->st_mtim.tv_sec * 1000000000 + file_stat->st_mtim.tv_nsec;
}

/* Rates how surely an open file is the one that a file source's position was recorded in: 3 for the same
 * device and inode, 2 for the same inode, 1 for a copy, 0 for another file. After a restart or a
 * rotation, the file source continues in the file with the highest score. */
static int score_match(int fd, const struct stat *file_stat, const struct file_position *position)
{
    bool is_same_inode = file_stat->st_ino == position->inode,
         is_same_file = is_same_inode && file_stat->st_dev == position->device;

    if (!is_same_file && (position->hash[0] == '\0' || position->offset == 0))
        return 0;
    if (!is_same_inode && position->offset < FILE_COPY_BYTES_MIN)
        return 0;
    if (!source_file_position_matches(fd, position))
        return 0;
    return is_same_file ? 3 : is_same_inode ? 2 : 1;
}

/* The rotated file that matches a position best so far; fd -1 = none. */
struct match_search {
    const struct file_position *position;
    int fd, score;
    int64_t modified_ns;
};

/* Callback of for_each_sibling: keeps the rotated file that matches a position best and, of equal ones,
 * the newest. Returns true if it keeps the descriptor. Runs in the producer's fetcher thread, for the file
 * source. */
static bool on_sibling_keep_best(int fd, const struct sibling *sibling, void *user)
{
    struct match_search *search = user;
    int score = score_match(fd, &sibling->file_stat, search->position);

    if (score == 0 || score < search->score ||
        (score == search->score && get_modified_ns(&sibling->file_stat) <= search->modified_ns))
        return false;
    if (search->fd >= 0)
        close(search->fd);
    search->fd = fd;
    search->score = score;
    search->modified_ns = get_modified_ns(&sibling->file_stat);
    return true;
}

/* Finds and opens the file that a position of the file source is in: path itself, or a rotated file beside
 * it. Returns false if there is none. The producer's fetcher thread calls this after a restart or
 * truncation; otherwise the unread lines of a rotated file would be lost. */
bool source_file_position_find_file(const char *path, const struct file_position *position, int *fd)
{
    struct match_search search = {.position = position, .fd = -1};
    struct stat file_stat;
    int path_fd;

    if (source_file_position_open(path, &path_fd, NULL) == 0) {
        search.score = fstat(path_fd, &file_stat) == 0 ? score_match(path_fd, &file_stat, position) : 0;
        if (search.score == 0)
            close(path_fd);
        else
            search.fd = path_fd;
        search.modified_ns = INT64_MAX; /* path wins over rotated files with the same score */
    }
    if (search.score < 3) {
        if (search.score == 0)
            search.modified_ns = INT64_MIN;
        for_each_sibling(path, on_sibling_keep_best, &search);
    }
    if (search.fd < 0)
        return false;
    *fd = search.fd;
    return true;
}

/* ---- the order of rotated files ---- */

/* Whether a file name's suffix is a number or a date, as a rotation adds it. The file source goes on to
 * such files only, not to app.log.old or app.log.bak. */
static bool is_rotation_suffix(const char *suffix)
{
    return isdigit((unsigned char)suffix[0]) && suffix[strspn(suffix, "0123456789-_.:T")] == '\0';
}

/* Compares the age of two rotated files by their suffixes. Returns a negative number if the first is
 * older, 0 if equal, a positive number if it is newer: .2 is older than .1, a later date is newer. The
 * file source needs this for files that were last written at the same time. */
static int compare_suffix_age(const char *first_suffix, const char *second_suffix)
{
    size_t first_digit_count = strspn(first_suffix, "0123456789"),
           second_digit_count = strspn(second_suffix, "0123456789");

    if (first_suffix[first_digit_count] == '\0' && second_suffix[second_digit_count] == '\0' &&
        first_digit_count < 8 && second_digit_count < 8) {
        long first_number = strtol(first_suffix, NULL, 10), second_number = strtol(second_suffix, NULL, 10);
        return first_number > second_number ? -1 : first_number < second_number;
    }
    return strcmp(first_suffix, second_suffix);
}

/* The search for the file after a finished one; fd -1 = none found so far. */
struct next_file_search {
    struct stat finished_stat;
    char finished_suffix[NAME_MAX + 1]; /* "" = not found beside path */
    int fd;
    int64_t modified_ns;
    char suffix[NAME_MAX + 1];
};

/* Callback of for_each_sibling: finds the suffix that the rotation gave to the finished file (the one
 * read to its end), so that the file source can order files that were written at the same time. Always
 * returns false, since it keeps no descriptor. */
static bool on_sibling_find_finished(int fd, const struct sibling *sibling, void *user)
{
    struct next_file_search *search = user;

    (void)fd;
    if (sibling->file_stat.st_dev == search->finished_stat.st_dev &&
        sibling->file_stat.st_ino == search->finished_stat.st_ino && is_rotation_suffix(sibling->suffix))
        snprintf(search->finished_suffix, sizeof search->finished_suffix, "%s", sibling->suffix);
    return false;
}

/* Callback of for_each_sibling: keeps the oldest rotated file that is newer than the finished one, which
 * was read to its end. Returns true if it keeps the descriptor. Without this search the file source would
 * skip files after several rotations while the producer was down. */
static bool on_sibling_find_successor(int fd, const struct sibling *sibling, void *user)
{
    struct next_file_search *search = user;
    int64_t modified_ns = get_modified_ns(&sibling->file_stat),
            finished_ns = get_modified_ns(&search->finished_stat);

    if (!is_rotation_suffix(sibling->suffix) || strlen(sibling->suffix) > NAME_MAX ||
        (sibling->file_stat.st_dev == search->finished_stat.st_dev &&
         sibling->file_stat.st_ino == search->finished_stat.st_ino))
        return false;
    if (modified_ns < finished_ns ||
        (modified_ns == finished_ns && (search->finished_suffix[0] == '\0' ||
                                        compare_suffix_age(sibling->suffix, search->finished_suffix) <= 0)))
        return false;
    if (search->fd >= 0 &&
        (modified_ns > search->modified_ns ||
         (modified_ns == search->modified_ns && compare_suffix_age(sibling->suffix, search->suffix) >= 0)))
        return false;
    if (search->fd >= 0)
        close(search->fd);
    search->fd = fd;
    search->modified_ns = modified_ns;
    snprintf(search->suffix, sizeof search->suffix, "%s", sibling->suffix);
    return true;
}

/* Opens the file to read after a finished one: the next newer rotated file, or, if there is none, path
 * itself and sets *is_path. The producer's fetcher thread calls this when the file source has read all
 * lines of a file that was rotated or deleted. Returns 0 or the code of source_file_position_open. */
int source_file_position_open_next(const char *path, int finished_fd, int *fd, bool *is_path,
                                   struct error *error)
{
    struct next_file_search search = {.fd = -1};

    if (fstat(finished_fd, &search.finished_stat) != 0)
        return base_error_set(error, EP_EBACKEND, "%s: the state of the finished file cannot be read: %s",
                              path, strerror(errno));
    for_each_sibling(path, on_sibling_find_finished, &search);
    for_each_sibling(path, on_sibling_find_successor, &search);
    *is_path = search.fd < 0;
    if (*is_path)
        return source_file_position_open(path, fd, error);
    *fd = search.fd;
    return 0;
}

/* Returns the offset where the last, unterminated line of an open file begins, or the file's size if there
 * is no such line or it is too long. The producer's fetcher thread calls this for a file source that starts
 * at the end of its file, so that its first line is a whole one. */
uint64_t source_file_position_last_line_start(int fd, uint64_t max_line_bytes)
{
    struct stat file_stat;
    char block[4096];
    uint64_t file_bytes = fstat(fd, &file_stat) == 0 ? (uint64_t)file_stat.st_size : 0,
             block_end_offset = file_bytes;

    while (block_end_offset > 0 && file_bytes - block_end_offset <= max_line_bytes) {
        size_t block_bytes = block_end_offset < sizeof block ? block_end_offset : sizeof block;
        if (!read_bytes_at(fd, block, block_bytes, block_end_offset - block_bytes))
            break;
        const char *last_newline = memrchr(block, '\n', block_bytes);
        if (last_newline != NULL)
            return block_end_offset - block_bytes + (uint64_t)(last_newline - block) + 1;
        block_end_offset -= block_bytes;
    }
    return block_end_offset == 0 ? 0 : file_bytes;
}
