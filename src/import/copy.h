/* SPDX-License-Identifier: MIT */
/*
 * A private copy of another program's SQLite file, with the WAL or journal that a crash has left beside it.
 * So reading it, and recovering it first, never writes to the original nor beside it.
 */
#ifndef IMPORT_COPY_H
#define IMPORT_COPY_H

#include <limits.h>
#include <stdbool.h>

#include "src/base/error.h"

struct import_copy {
    char directory[PATH_MAX - 32]; /* made by import_copy_make, mode 0700; "" = none */
    char path[PATH_MAX];           /* the copied database in it */
};

/* Called between pieces of a long copy; returns true to give up. NULL = never. */
typedef bool import_stop(void *user);

/*
 * Copies the database at `path` into a new directory under TMPDIR (default /tmp). Blocks while it copies, and
 * calls `should_stop` meanwhile. *out is set on success only; after a failure nothing is left. Errors:
 *   EP_EBUSY     another process has it open, or it changed while it was copied, twice: stop that program.
 *   EP_ESTATE    `should_stop` returned true.
 *   EP_ENOENT, EP_EACCESS, EP_EINVAL   there is no such file, it is not readable, or it is no regular file.
 *   EP_ESYSTEM   no room for the copy; the message names TMPDIR.
 */
int import_copy_make(const char *path, import_stop *should_stop, void *user, struct import_copy *out,
                     struct error *error);
/* Removes the files and the directory. A connection that has them open can still read them. A second call
 * does nothing. */
void import_copy_remove(struct import_copy *copy);

#endif
