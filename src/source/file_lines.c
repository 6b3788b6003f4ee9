/* SPDX-License-Identifier: MIT */
/*
 * Cuts a growing file into lines. Runs in the producer's fetch thread. Owns the file's descriptor and one
 * buffer, which grows with the longest line up to max_line_bytes and is then freed.
 *
 * Invariants:
 *   1. `offset` advances by whole lines only, so that it can be a cursor.
 *   2. A line without a line end is not a line yet.
 *   3. Of a line that is too long only the first KEPT_BYTES stay in memory while its end is searched for.
 */
#include "src/source/file_lines.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/eventpipe.h"

#define CHUNK_BYTES (64 << 10)
#define KEPT_BYTES (64 << 10)
#define IDLE_ROOM (1 << 20) /* a larger buffer is given back once it is empty */

void source_file_lines_open(struct file_lines *lines, int fd, uint64_t offset, uint64_t max_line_bytes)
{
    *lines = (struct file_lines){.fd = fd, .offset = offset, .max_line_bytes = max_line_bytes};
}

void source_file_lines_close(struct file_lines *lines)
{
    if (lines->fd >= 0)
        close(lines->fd);
    free(lines->buffer);
    *lines = (struct file_lines){.fd = -1};
}

/* Makes room for a chunk behind what is there. */
static int make_room(struct file_lines *lines)
{
    if (lines->used == 0 && lines->room > IDLE_ROOM) {
        free(lines->buffer);
        lines->buffer = NULL;
        lines->room = 0;
    }
    if (lines->room - lines->used >= CHUNK_BYTES && lines->room - lines->start - lines->used < CHUNK_BYTES) {
        memmove(lines->buffer, lines->buffer + lines->start, lines->used);
        lines->start = 0;
    }
    if (lines->used == 0)
        lines->start = 0;
    if (lines->room - lines->start - lines->used >= CHUNK_BYTES)
        return 0;
    size_t room = 2 * (lines->start + lines->used) + CHUNK_BYTES;
    char *buffer = realloc(lines->buffer, room);
    if (buffer == NULL)
        return EP_ENOMEM;
    lines->buffer = buffer;
    lines->room = room;
    return 0;
}

/* 1 = there is more now, 0 = end of file. */
static int read_chunk(struct file_lines *lines)
{
    int code = make_room(lines);
    ssize_t got;

    if (code != 0)
        return code;
    do
        got = pread(lines->fd, lines->buffer + lines->start + lines->used,
                    lines->room - lines->start - lines->used,
                    (off_t)(lines->offset + lines->dropped + lines->used));
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return EP_EBACKEND;
    lines->used += (size_t)got;
    return got > 0;
}

static size_t kept_bytes(const struct file_lines *lines)
{
    return lines->max_line_bytes < KEPT_BYTES ? (size_t)lines->max_line_bytes : KEPT_BYTES;
}

/* A line of `bytes` in the buffer (and what was dropped), whose end takes end_bytes. */
static int found(const struct file_lines *lines, size_t bytes, size_t end_bytes, struct file_line *line)
{
    line->at = lines->buffer + lines->start;
    line->whole_bytes = lines->dropped + bytes;
    line->bytes = line->whole_bytes > lines->max_line_bytes ? kept_bytes(lines) : bytes;
    line->offset = lines->offset;
    line->step = line->whole_bytes + end_bytes;
    return 1;
}

int source_file_lines_find(struct file_lines *lines, bool rest_counts, struct file_line *line)
{
    for (;;) {
        const char *from = lines->buffer + lines->start;
        const char *line_end = lines->used == lines->scanned
                                   ? NULL
                                   : memchr(from + lines->scanned, '\n', lines->used - lines->scanned);
        if (line_end != NULL)
            return found(lines, (size_t)(line_end - from), 1, line);
        lines->scanned = lines->used;
        size_t kept = kept_bytes(lines);
        if (lines->dropped + lines->used > lines->max_line_bytes && lines->used > kept) {
            lines->dropped += lines->used - kept;
            lines->used = lines->scanned = kept;
        }
        int more = read_chunk(lines);
        if (more < 0)
            return more;
        if (more == 0)
            return rest_counts && lines->used > 0 ? found(lines, lines->used, 0, line) : 0;
    }
}

void source_file_lines_take(struct file_lines *lines, const struct file_line *line)
{
    size_t in_buffer = (size_t)(line->step - lines->dropped);

    lines->start += in_buffer;
    lines->used -= in_buffer;
    lines->offset += line->step;
    lines->scanned = 0;
    lines->dropped = 0;
}

void source_file_lines_check(struct file_lines *lines)
{
    struct stat info;

    if (fstat(lines->fd, &info) == 0 &&
        (uint64_t)info.st_size < lines->offset + lines->dropped + lines->used) {
        lines->start = lines->used = lines->scanned = 0;
        lines->dropped = 0;
    }
}
