/* SPDX-License-Identifier: MIT */
/* The lines of a growing file: for the file source only. */
#ifndef SOURCE_FILE_LINES_H
#define SOURCE_FILE_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct file_lines {
    int fd;          /* owned; -1 = none */
    uint64_t offset; /* in the file, of the next line */
    uint64_t max_line_bytes;
    char *buffer;
    size_t start, used, room; /* buffer[start] stands at offset; used bytes are there */
    size_t scanned;           /* of them, known to hold no line end */
    uint64_t dropped;         /* bytes of a line too long, left out behind its kept part */
};

struct file_line {
    const char *at; /* borrowed until the next call; without its line end */
    size_t bytes;
    uint64_t offset;
    uint64_t whole_bytes; /* more than `bytes`: it was too long, and is cut */
    uint64_t step;        /* to the next line */
};

void source_file_lines_open(struct file_lines *lines, int fd, uint64_t offset, uint64_t max_line_bytes);
void source_file_lines_close(struct file_lines *lines); /* closes the file too */
/* The next line, which stays the next until source_file_lines_take. 1, 0 (no complete one yet), EP_EBACKEND
 * (errno tells) or EP_ENOMEM. rest_counts: what stands at the end of the file without a line end is a line
 * too. */
int source_file_lines_find(struct file_lines *lines, bool rest_counts, struct file_line *line);
/* Forgets the beginning of a line that was read, when the file has become shorter than that. */
void source_file_lines_check(struct file_lines *lines);
void source_file_lines_take(struct file_lines *lines, const struct file_line *line);

#endif
