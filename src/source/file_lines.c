/* SPDX-License-Identifier: MIT */
/*
 * Splits a growing file into lines, for the file source. Runs in the producer's fetch thread. Owns the
 * file's descriptor and one buffer, which grows with the longest line; a large one is freed once it is
 * empty.
 *
 * Invariants:
 *   1. `offset` advances by whole lines only, so that it can be a cursor.
 *   2. A line is complete only with its line end.
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
#define IDLE_ROOM (1 << 20) /* a larger buffer is freed once it is empty */

void source_file_lines_open(struct file_lines *lines, int fd, uint64_t offset, uint64_t max_line_bytes)
{
    *lines = (struct file_lines){.fd = fd, .offset = offset, .max_line_bytes = max_line_bytes};
}

/* Closes the file that the file source reads lines from, and frees the buffer. The producer's fetch thread
 * calls this before it opens another file and at its end. */
void source_file_lines_close(struct file_lines *lines)
{
    if (lines->fd >= 0)
        close(lines->fd);
    free(lines->buffer);
    *lines = (struct file_lines){.fd = -1};
}

/* Makes room for one more chunk behind the bytes that the line reader of the file source holds; gives back a
 * large buffer once it is empty. Runs in the producer's fetch thread. Returns 0 or EP_ENOMEM. */
static int make_chunk_room(struct file_lines *lines)
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

/* Reads more bytes of a growing file into the line reader's buffer. Returns 1 if it read some, 0 at the end
 * of the file, or an error code. Runs in the producer's fetch thread, for the file source. */
static int read_next_chunk(struct file_lines *lines)
{
    int code = make_chunk_room(lines);
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

static size_t kept_bytes_max(const struct file_lines *lines)
{
    return lines->max_line_bytes < KEPT_BYTES ? (size_t)lines->max_line_bytes : KEPT_BYTES;
}

/* Fills *line from the first bytes of the line reader's buffer; a line longer than max_line_bytes is cut.
 * end_bytes is the size of its line end: 1, or 0 for the unterminated rest of a finished file. Returns 1. */
static int fill_line(const struct file_lines *lines, size_t bytes, size_t end_bytes, struct file_line *line)
{
    line->at = lines->buffer + lines->start;
    line->whole_bytes = lines->dropped + bytes;
    line->bytes = line->whole_bytes > lines->max_line_bytes ? kept_bytes_max(lines) : bytes;
    line->offset = lines->offset;
    line->step = line->whole_bytes + end_bytes;
    return 1;
}

/* Finds the next whole line of a growing file, reading more if needed; it stays the next until it is
 * consumed. The file source calls this in the producer's fetch thread. An unterminated rest is a line only
 * with accept_unterminated, since its writer may not be done with it. */
int source_file_lines_peek(struct file_lines *lines, bool accept_unterminated, struct file_line *line)
{
    for (;;) {
        const char *from = lines->buffer + lines->start;
        const char *line_end = lines->used == lines->scanned
                                   ? NULL
                                   : memchr(from + lines->scanned, '\n', lines->used - lines->scanned);
        if (line_end != NULL)
            return fill_line(lines, (size_t)(line_end - from), 1, line);
        lines->scanned = lines->used;
        size_t kept = kept_bytes_max(lines);
        if (lines->dropped + lines->used > lines->max_line_bytes && lines->used > kept) {
            lines->dropped += lines->used - kept;
            lines->used = lines->scanned = kept;
        }
        int more = read_next_chunk(lines);
        if (more < 0)
            return more;
        if (more == 0)
            return accept_unterminated && lines->used > 0 ? fill_line(lines, lines->used, 0, line) : 0;
    }
}

/* Moves the file source behind a line that it added to its page. The producer's fetch thread calls this after
 * each line; the new offset becomes part of the cursor. */
void source_file_lines_consume(struct file_lines *lines, const struct file_line *line)
{
    size_t in_buffer = (size_t)(line->step - lines->dropped);

    lines->start += in_buffer;
    lines->used -= in_buffer;
    lines->offset += line->step;
    lines->scanned = 0;
    lines->dropped = 0;
}

/* Discards what the line reader has read ahead, if the file is now shorter than that. The file source calls
 * this in the producer's fetch thread before each read. Otherwise a line could mix bytes from before and
 * after a truncation. */
void source_file_lines_drop_truncated(struct file_lines *lines)
{
    struct stat info;

    if (fstat(lines->fd, &info) == 0 &&
        (uint64_t)info.st_size < lines->offset + lines->dropped + lines->used) {
        lines->start = lines->used = lines->scanned = 0;
        lines->dropped = 0;
    }
}
