/* SPDX-License-Identifier: MIT */
/*
 * Positions in files that are rotated. Runs in the producer's fetch thread; owns nothing: the caller owns
 * what it opens.
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

#define AROUND_BYTES 256

int source_file_position_parse(const char *text, struct file_position *position)
{
    uint64_t *const numbers[] = {&position->device, &position->inode, &position->offset};
    char *end;

    *position = (struct file_position){0};
    for (size_t i = 0; i < 3; i++) {
        if (!isdigit((unsigned char)*text))
            return EP_EINVAL;
        errno = 0;
        *numbers[i] = strtoull(text, &end, 10);
        if (errno != 0 || *end != (i < 2 ? ':' : *end) || *numbers[i] > INT64_MAX)
            return EP_EINVAL;
        text = end + (i < 2);
    }
    if (*text == '\0')
        return 0;
    size_t digits = *text == ':' ? strspn(text + 1, "0123456789abcdef") : 0;
    if (digits != FILE_HASH_DIGITS)
        return EP_EINVAL;
    memcpy(position->hash, text + 1, digits);
    text += 1 + digits;
    if (*text == '\0')
        return 0;
    if (*text != ':' || !isdigit((unsigned char)text[1]))
        return EP_EINVAL;
    errno = 0;
    position->generation = strtoull(text + 1, &end, 10);
    return errno == 0 && *end == '\0' ? 0 : EP_EINVAL;
}

void source_file_position_text(const struct file_position *position, char text[FILE_CURSOR_BYTES])
{
    snprintf(text, FILE_CURSOR_BYTES, "%" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%s:%" PRIu64, position->device,
             position->inode, position->offset, position->hash, position->generation);
}

static bool read_all(int fd, char *buffer, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t got = pread(fd, buffer, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        buffer += got;
        bytes -= (size_t)got;
        offset += (uint64_t)got;
    }
    return true;
}

static bool around_hash(int fd, uint64_t offset, char hash[FILE_HASH_DIGITS + 1])
{
    char around[2 * AROUND_BYTES];
    size_t part = offset < AROUND_BYTES ? offset : AROUND_BYTES;

    if (!read_all(fd, around, part, 0) || !read_all(fd, around + part, part, offset - part))
        return false;
    base_hash_hex(around, 2 * part, hash, FILE_HASH_DIGITS);
    return true;
}

int source_file_position_take(int fd, uint64_t offset, struct file_position *position)
{
    struct stat info;

    if (fstat(fd, &info) != 0 || !around_hash(fd, offset, position->hash))
        return EP_EBACKEND;
    position->device = info.st_dev;
    position->inode = info.st_ino;
    position->offset = offset;
    return 0;
}

bool source_file_position_holds(int fd, const struct file_position *position)
{
    struct stat info;
    char hash[FILE_HASH_DIGITS + 1];

    if (fstat(fd, &info) != 0 || (uint64_t)info.st_size < position->offset)
        return false;
    return position->hash[0] == '\0' ||
           (around_hash(fd, position->offset, hash) && strcmp(hash, position->hash) == 0);
}

static int not_regular(const char *path, mode_t mode, struct error *error)
{
    const char *kind = S_ISDIR(mode)    ? "a directory"
                       : S_ISFIFO(mode) ? "a FIFO"
                       : S_ISSOCK(mode) ? "a socket"
                                        : "a device";

    return base_error_set(error, EP_ECONFIG, "%s is %s: expected a regular file", path, kind);
}

int source_file_position_open(const char *path, int *fd, struct error *error)
{
    struct stat info;

    /* looked at first, since opening a device may do something; and again, since it may be another by then */
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return not_regular(path, info.st_mode, error);
    int opened = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (opened < 0 || fstat(opened, &info) != 0) {
        int code = errno == EACCES || errno == EPERM ? EP_EAUTH : EP_EBACKEND;
        code = errno == ENOENT
                   ? base_error_set(error, code, "%s: no such file", path)
                   : base_error_set(error, code, "%s cannot be opened: %s", path, strerror(errno));
        if (opened >= 0)
            close(opened);
        return code;
    }
    if (!S_ISREG(info.st_mode)) {
        close(opened);
        return not_regular(path, info.st_mode, error);
    }
    *fd = opened;
    return 0;
}

/* ---- the files beside it ---- */

static bool is_compressed(const char *name)
{
    static const char *const endings[] = {".gz",   ".bz2", ".xz",  ".zst", ".lz4",
                                          ".lzma", ".Z",   ".zip", ".tmp"};
    size_t length = strlen(name);

    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        if (length >= strlen(endings[i]) && strcmp(name + length - strlen(endings[i]), endings[i]) == 0)
            return true;
    return false;
}

/* What follows NAME. or NAME- in a sibling's name, or NULL. */
static const char *sibling_suffix(const char *base, const char *name)
{
    size_t length = strlen(base);

    if (strncmp(name, base, length) != 0 || (name[length] != '.' && name[length] != '-') ||
        is_compressed(name))
        return NULL;
    return name[length + 1] == '\0' ? NULL : name + length + 1;
}

struct sibling {
    const char *suffix;
    struct stat info;
};

/* Opens each uncompressed regular sibling and shows it; see says whether it keeps the descriptor. */
typedef bool sibling_handler(int fd, const struct sibling *sibling, void *user);

static void each_sibling(const char *path, sibling_handler *on_sibling, void *user)
{
    const char *slash = strrchr(path, '/'), *base = slash == NULL ? path : slash + 1;
    char directory[PATH_MAX];
    int length = slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path);

    snprintf(directory, sizeof directory, "%.*s", length, slash == NULL ? "." : path);
    DIR *entries = opendir(directory);
    if (entries == NULL)
        return;
    for (const struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        struct sibling sibling = {.suffix = sibling_suffix(base, entry->d_name)};
        if (sibling.suffix == NULL || fstatat(dirfd(entries), entry->d_name, &sibling.info, 0) != 0 ||
            !S_ISREG(sibling.info.st_mode))
            continue;
        int fd = openat(dirfd(entries), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
            continue;
        if (fstat(fd, &sibling.info) != 0 || !S_ISREG(sibling.info.st_mode) ||
            !on_sibling(fd, &sibling, user))
            close(fd);
    }
    closedir(entries);
}

static int64_t written_ns(const struct stat *info)
{
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
}

/* How surely an open file is the one a position was taken in: 0 = it is not. */
static int likeness(int fd, const struct stat *info, const struct file_position *position)
{
    bool same_inode = info->st_ino == position->inode, same = same_inode && info->st_dev == position->device;

    if (!same && (position->hash[0] == '\0' || position->offset == 0))
        return 0;
    if (!same_inode && position->offset < FILE_COPY_BYTES_MIN)
        return 0;
    if (!source_file_position_holds(fd, position))
        return 0;
    return same ? 3 : same_inode ? 2 : 1;
}

struct search {
    const struct file_position *position;
    int fd, likeness;
    int64_t written_ns;
};

static bool on_possible_match(int fd, const struct sibling *sibling, void *user)
{
    struct search *search = user;
    int like = likeness(fd, &sibling->info, search->position);

    if (like == 0 || like < search->likeness ||
        (like == search->likeness && written_ns(&sibling->info) <= search->written_ns))
        return false;
    if (search->fd >= 0)
        close(search->fd);
    search->fd = fd;
    search->likeness = like;
    search->written_ns = written_ns(&sibling->info);
    return true;
}

bool source_file_position_find(const char *path, const struct file_position *position, int *fd)
{
    struct search search = {.position = position, .fd = -1};
    struct stat info;
    int own;

    if (source_file_position_open(path, &own, NULL) == 0) {
        search.likeness = fstat(own, &info) == 0 ? likeness(own, &info, position) : 0;
        if (search.likeness == 0)
            close(own);
        else
            search.fd = own;
        search.written_ns = INT64_MAX; /* before all that are as like */
    }
    if (search.likeness < 3) {
        if (search.likeness == 0)
            search.written_ns = INT64_MIN;
        each_sibling(path, on_possible_match, &search);
    }
    if (search.fd < 0)
        return false;
    *fd = search.fd;
    return true;
}

/* ---- the order of files ---- */

/* Only what a rotation names: digits and what stands between them in a date. */
static bool is_rotation(const char *suffix)
{
    return isdigit((unsigned char)suffix[0]) && suffix[strspn(suffix, "0123456789-_.:T")] == '\0';
}

/* Below 0: one is older than other, by name. A short number counts up with age, a date with youth. */
static int suffix_order(const char *one, const char *other)
{
    size_t one_length = strspn(one, "0123456789"), other_length = strspn(other, "0123456789");

    if (one[one_length] == '\0' && other[other_length] == '\0' && one_length < 8 && other_length < 8) {
        long left = strtol(one, NULL, 10), right = strtol(other, NULL, 10);
        return left > right ? -1 : left < right;
    }
    return strcmp(one, other);
}

struct succession {
    struct stat finished;
    char finished_suffix[NAME_MAX + 1]; /* "" = not beside path, or not yet found */
    int fd;
    int64_t written_ns;
    char suffix[NAME_MAX + 1];
};

static bool on_possibly_finished(int fd, const struct sibling *sibling, void *user)
{
    struct succession *succession = user;

    (void)fd;
    if (sibling->info.st_dev == succession->finished.st_dev &&
        sibling->info.st_ino == succession->finished.st_ino && is_rotation(sibling->suffix))
        snprintf(succession->finished_suffix, sizeof succession->finished_suffix, "%s", sibling->suffix);
    return false;
}

static bool on_possible_successor(int fd, const struct sibling *sibling, void *user)
{
    struct succession *succession = user;
    int64_t written = written_ns(&sibling->info), finished = written_ns(&succession->finished);

    if (!is_rotation(sibling->suffix) || strlen(sibling->suffix) > NAME_MAX ||
        (sibling->info.st_dev == succession->finished.st_dev &&
         sibling->info.st_ino == succession->finished.st_ino))
        return false;
    if (written < finished ||
        (written == finished && (succession->finished_suffix[0] == '\0' ||
                                 suffix_order(sibling->suffix, succession->finished_suffix) <= 0)))
        return false;
    if (succession->fd >= 0 &&
        (written > succession->written_ns ||
         (written == succession->written_ns && suffix_order(sibling->suffix, succession->suffix) >= 0)))
        return false;
    if (succession->fd >= 0)
        close(succession->fd);
    succession->fd = fd;
    succession->written_ns = written;
    snprintf(succession->suffix, sizeof succession->suffix, "%s", sibling->suffix);
    return true;
}

int source_file_position_next(const char *path, int finished, int *fd, bool *is_path, struct error *error)
{
    struct succession succession = {.fd = -1};

    if (fstat(finished, &succession.finished) != 0)
        return base_error_set(error, EP_EBACKEND, "%s: %s", path, strerror(errno));
    each_sibling(path, on_possibly_finished, &succession);
    each_sibling(path, on_possible_successor, &succession);
    *is_path = succession.fd < 0;
    if (*is_path)
        return source_file_position_open(path, fd, error);
    *fd = succession.fd;
    return 0;
}

uint64_t source_file_end_of_lines(int fd, uint64_t max_line_bytes)
{
    struct stat info;
    char block[4096];
    uint64_t size = fstat(fd, &info) == 0 ? (uint64_t)info.st_size : 0, at = size;

    while (at > 0 && size - at <= max_line_bytes) {
        size_t bytes = at < sizeof block ? at : sizeof block;
        if (!read_all(fd, block, bytes, at - bytes))
            break;
        const char *line_end = memrchr(block, '\n', bytes);
        if (line_end != NULL)
            return at - bytes + (uint64_t)(line_end - block) + 1;
        at -= bytes;
    }
    return at == 0 ? 0 : size;
}
