/* SPDX-License-Identifier: MIT */
/* Splits a growing file into lines for the file source. Runs in the producer's fetcher thread. */
#ifndef SOURCE_FILE_LINES_H
#define SOURCE_FILE_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct file_lines {
    int fd;          /* owned; -1 = none */
    uint64_t offset; /* of the next line in the file */
    uint64_t max_line_bytes;
    char *buffer;
    size_t held_start, held_bytes, buffer_bytes; /* buffer[held_start] holds the file's byte at offset */
    size_t scanned_bytes;                        /* how many of the held bytes contain no line end */
    uint64_t dropped_bytes;                      /* bytes of a too long line that are not kept */
};

struct file_line {
    const char *text; /* without its line end; borrowed until the next call */
    size_t text_bytes;
    uint64_t offset;
    uint64_t whole_bytes;    /* more than `text_bytes` if the line was too long and is cut */
    uint64_t bytes_with_end; /* from this line's start to the next line's */
};

void source_file_lines_open(struct file_lines *lines, int fd, uint64_t offset, uint64_t max_line_bytes);
void source_file_lines_close(struct file_lines *lines); /* closes the file too */
/* Finds the next line; it stays the next one until source_file_lines_consume. 1, 0 (no whole line yet),
 * EP_EBACKEND (see errno) or EP_ENOMEM. accept_unterminated: the end of the file counts as a line end. */
int source_file_lines_peek(struct file_lines *lines, bool accept_unterminated, struct file_line *line);
/* Discards what was read ahead, if the file is shorter than that now. */
void source_file_lines_drop_truncated(struct file_lines *lines);
/* Goes to the line after this one. */
void source_file_lines_consume(struct file_lines *lines, const struct file_line *line);

#endif
