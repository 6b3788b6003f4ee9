/* SPDX-License-Identifier: MIT */
/* Positions of the file source: which file it reads, and at which offset. Runs in the producer's fetcher
 * thread; keeps no state. */
#ifndef SOURCE_FILE_POSITION_H
#define SOURCE_FILE_POSITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

#define FILE_HASH_DIGITS 16
#define FILE_CURSOR_BYTES 128
#define FILE_COPY_BYTES_MIN 64 /* with fewer bytes before the position, another file could look like a copy */

/*
 * A cursor is "device:inode:offset:hash:generation". The first three are the position. The hash is of the
 * first bytes of the file and the last ones before the offset, up to 256 each. It identifies the file if
 * another one has its inode now, or if its content was copied to another. generation counts the files and
 * truncations so far, so that equal lines at equal offsets of different files have different UIDs. hash and
 * generation are optional.
 */
struct file_position {
    uint64_t device, inode, offset, generation;
    char hash[FILE_HASH_DIGITS + 1]; /* "" = unknown */
};

int source_file_position_parse(const char *text, struct file_position *position); /* 0 or EP_EINVAL */
void source_file_position_format(const struct file_position *position, char text[FILE_CURSOR_BYTES]);
/* Fills device, inode, offset and hash for an offset in an open file. 0, or EP_EBACKEND if reading fails. */
int source_file_position_fill(int fd, uint64_t offset, struct file_position *position);
/* Whether the bytes of an open file before the offset are those that the position's hash was made from. */
bool source_file_position_matches(int fd, const struct file_position *position);

/* Opens a regular file for reading. 0, EP_EBACKEND (there is none), EP_EAUTH (no permission) or EP_ECONFIG
 * (not a regular file). */
int source_file_position_open(const char *path, int *fd, struct error *error);
/* Finds and opens the file that a position is in: path, or a rotated file beside it. false: there is none. */
bool source_file_position_find_file(const char *path, const struct file_position *position, int *fd);
/*
 * Opens the file to read after a finished one: the next newer rotated file or, if there is none, path itself;
 * then *is_path is true. 0 or the code of source_file_position_open.
 */
int source_file_position_open_next(const char *path, int finished_fd, int *fd, bool *is_path,
                                   struct error *error);
/* Returns where the last, incomplete line of an open file begins, or its size: `from: end` starts
 * there. */
uint64_t source_file_position_last_line_start(int fd, uint64_t max_line_bytes);

#endif
