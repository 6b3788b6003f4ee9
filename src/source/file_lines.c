/* SPDX-License-Identifier: MIT */
/*
 * Splits a growing file into lines, for the file source. Runs in the producer's fetcher thread. Owns the
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
#define IDLE_BUFFER_BYTES_MAX (1 << 20) /* a larger buffer is freed once it is empty */

/* Starts to read lines from an open file at an offset, and owns the file from then on. Lines longer than
 * max_line_bytes are cut. The file source calls this in the producer's fetcher thread. */
void source_file_lines_open(struct file_lines *lines, int fd, uint64_t offset, uint64_t max_line_bytes)
{
    *lines = (struct file_lines){.fd = fd, .offset = offset, .max_line_bytes = max_line_bytes};
}

/* Closes the file whose lines were read and frees the buffer. The file source calls this in the producer's
 * fetcher thread, before it opens another file and when it closes. */
void source_file_lines_close(struct file_lines *lines)
{
    if (lines->fd >= 0)
        close(lines->fd);
    free(lines->buffer);
    *lines = (struct file_lines){.fd = -1};
}

/* Makes room in the buffer of the file source's line reader for one more chunk after the bytes that it
 * holds; a large buffer that is empty is freed first, since one long line should not cost memory for
 * ever. Returns 0 or EP_ENOMEM. Runs in the producer's fetcher thread. */
static int reserve_chunk_room(struct file_lines *lines)
{
    if (lines->held_bytes == 0 && lines->buffer_bytes > IDLE_BUFFER_BYTES_MAX) {
        free(lines->buffer);
        lines->buffer = NULL;
        lines->buffer_bytes = 0;
    }
    if (lines->buffer_bytes - lines->held_bytes >= CHUNK_BYTES &&
        lines->buffer_bytes - lines->held_start - lines->held_bytes < CHUNK_BYTES) {
        memmove(lines->buffer, lines->buffer + lines->held_start, lines->held_bytes);
        lines->held_start = 0;
    }
    if (lines->held_bytes == 0)
        lines->held_start = 0;
    if (lines->buffer_bytes - lines->held_start - lines->held_bytes >= CHUNK_BYTES)
        return 0;
    size_t new_bytes = 2 * (lines->held_start + lines->held_bytes) + CHUNK_BYTES;
    char *buffer = realloc(lines->buffer, new_bytes);
    if (buffer == NULL)
        return EP_ENOMEM;
    lines->buffer = buffer;
    lines->buffer_bytes = new_bytes;
    return 0;
}

/* Reads more bytes of the file source's growing file into the line reader's buffer, in the producer's
 * fetcher thread. Returns 1 if it read some, 0 at the end of the file, EP_EBACKEND with errno set, or
 * EP_ENOMEM. */
static int read_next_chunk(struct file_lines *lines)
{
    int code = reserve_chunk_room(lines);
    ssize_t read_bytes;

    if (code != 0)
        return code;
    do
        read_bytes = pread(lines->fd, lines->buffer + lines->held_start + lines->held_bytes,
                           lines->buffer_bytes - lines->held_start - lines->held_bytes,
                           (off_t)(lines->offset + lines->dropped_bytes + lines->held_bytes));
    while (read_bytes < 0 && errno == EINTR);
    if (read_bytes < 0)
        return EP_EBACKEND;
    lines->held_bytes += (size_t)read_bytes;
    return read_bytes > 0;
}

/* Returns how many bytes of a too long line the file source keeps in memory. */
static size_t get_kept_bytes_max(const struct file_lines *lines)
{
    return lines->max_line_bytes < KEPT_BYTES ? (size_t)lines->max_line_bytes : KEPT_BYTES;
}

/* Fills *line from the first line_bytes of the buffer of the file source's line reader; a line longer
 * than max_line_bytes is cut. end_bytes is the size of its line end: 1, or 0 for the unterminated rest of
 * a finished file. Always returns 1, the answer of source_file_lines_peek. */
static int fill_line(const struct file_lines *lines, size_t line_bytes, size_t end_bytes,
                     struct file_line *line)
{
    line->text = lines->buffer + lines->held_start;
    line->whole_bytes = lines->dropped_bytes + line_bytes;
    line->text_bytes = line->whole_bytes > lines->max_line_bytes ? get_kept_bytes_max(lines) : line_bytes;
    line->offset = lines->offset;
    line->bytes_with_end = line->whole_bytes + end_bytes;
    return 1;
}

/* Finds the next line of the file source's growing file, reading more if needed; it stays the next until
 * source_file_lines_consume. With accept_unterminated, the rest of the file is a line, too; only a
 * finished file allows that, since its writer could add to it. Returns 1, 0 if no line is complete, or a
 * negative code. The file source calls this. */
int source_file_lines_peek(struct file_lines *lines, bool accept_unterminated, struct file_line *line)
{
    for (;;) {
        const char *held_text = lines->buffer + lines->held_start;
        const char *line_end =
            lines->held_bytes == lines->scanned_bytes
                ? NULL
                : memchr(held_text + lines->scanned_bytes, '\n', lines->held_bytes - lines->scanned_bytes);
        if (line_end != NULL)
            return fill_line(lines, (size_t)(line_end - held_text), 1, line);
        lines->scanned_bytes = lines->held_bytes;
        size_t kept_bytes = get_kept_bytes_max(lines);
        if (lines->dropped_bytes + lines->held_bytes > lines->max_line_bytes &&
            lines->held_bytes > kept_bytes) {
            lines->dropped_bytes += lines->held_bytes - kept_bytes;
            lines->held_bytes = lines->scanned_bytes = kept_bytes;
        }
        int read_result = read_next_chunk(lines);
        if (read_result < 0)
            return read_result;
        if (read_result == 0)
            return accept_unterminated && lines->held_bytes > 0 ? fill_line(lines, lines->held_bytes, 0, line)
                                                                : 0;
    }
}

/* Makes the line after this one the next. The file source calls this in the producer's fetcher thread
 * once the line's event is on its page; the new offset becomes part of the cursor. */
void source_file_lines_consume(struct file_lines *lines, const struct file_line *line)
{
    size_t bytes_in_buffer = (size_t)(line->bytes_with_end - lines->dropped_bytes);

    lines->held_start += bytes_in_buffer;
    lines->held_bytes -= bytes_in_buffer;
    lines->offset += line->bytes_with_end;
    lines->scanned_bytes = 0;
    lines->dropped_bytes = 0;
}

/* Discards what the line reader has read ahead, if the file is now shorter than that. The file source
 * calls this in the producer's fetcher thread before each read. Otherwise a line could mix bytes from
 * before and after a truncation. */
void source_file_lines_drop_truncated(struct file_lines *lines)
{
    struct stat file_stat;

    if (fstat(lines->fd, &file_stat) == 0 &&
        (uint64_t)file_stat.st_size < lines->offset + lines->dropped_bytes + lines->held_bytes) {
        lines->held_start = lines->held_bytes = lines->scanned_bytes = 0;
        lines->dropped_bytes = 0;
    }
}
