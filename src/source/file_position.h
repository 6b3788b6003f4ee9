/* SPDX-License-Identifier: MIT */
/* Where the file source stands, and which file that is: for the file source only. No state; reads files. */
#ifndef SOURCE_FILE_POSITION_H
#define SOURCE_FILE_POSITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

#define FILE_HASH_DIGITS 16
#define FILE_CURSOR_BYTES 128
#define FILE_COPY_BYTES_MIN 64 /* fewer bytes before a position do not tell a copy from another file */

/*
 * A cursor is "device:inode:offset:hash:generation". The first three are the position; the hash is of the
 * bytes around it (the first of the file and the last before the offset, up to 256 each), to know the file by
 * when its inode was taken over by another, or its content moved to another; generation counts the files (and
 * truncations) gone through, so that equal lines at equal offsets of successive files have different uids.
 * The last two may be left out.
 */
struct file_position {
    uint64_t device, inode, offset, generation;
    char hash[FILE_HASH_DIGITS + 1]; /* "" = not known */
};

int source_file_position_parse(const char *text, struct file_position *position); /* 0 or EP_EINVAL */
void source_file_position_text(const struct file_position *position, char text[FILE_CURSOR_BYTES]);
/* Fills device, inode and hash for an offset in an open file. 0, or EP_EBACKEND when it cannot be read. */
int source_file_position_take(int fd, uint64_t offset, struct file_position *position);
/* Whether the open file still holds, before the offset, what it held when the position was taken. */
bool source_file_position_holds(int fd, const struct file_position *position);

/* Opens a regular file for reading. Failures: EP_EBACKEND (none there), EP_EAUTH (no permission),
 * EP_ECONFIG (no regular file). */
int source_file_position_open(const char *path, int *fd, struct error *error);
/* Finds and opens the file a position is in: path, or one it was rotated to beside it. false: there is none.
 */
bool source_file_position_find(const char *path, const struct file_position *position, int *fd);
/*
 * The file to go on with after a finished one: the next younger of those that path was rotated to, or else
 * path itself. *is_path tells which. 0 or as source_file_position_open.
 */
int source_file_position_next(const char *path, int finished, int *fd, bool *is_path, struct error *error);
/* Where the last line of an open file that is not yet complete begins: to begin at a file's end. */
uint64_t source_file_end_of_lines(int fd, uint64_t max_line_bytes);

#endif
