/* SPDX-License-Identifier: MIT */
/*
 * A private copy of another program's SQLite file, with the log or journal that a crash has left beside it:
 * so that recovering it never writes to the original, nor beside it.
 */
#ifndef IMPORT_COPY_H
#define IMPORT_COPY_H

#include <limits.h>
#include <stdbool.h>

#include "src/base/error.h"

struct import_copy {
    char directory[PATH_MAX - 32]; /* of our own, mode 0700; "" = there is none */
    char path[PATH_MAX];           /* the database in it */
};

/* Asked between pieces of a long copy; true: give up. NULL = never. */
typedef bool import_stop(void *user);

/*
 * Copies path under TMPDIR (default /tmp). EP_EBUSY: another process has it open, or it changed while it was
 * copied, twice; EP_ESTATE: told to stop; EP_ENOENT, EP_EACCESS, EP_ESYSTEM (no room: the message names TMPDIR).
 * After a failure nothing is left.
 */
int import_copy_make(const char *path, import_stop *stop, void *user, struct import_copy *out,
                     struct error *error);
/* Removes the files and the directory; what has them open keeps them. Harmless twice. */
void import_copy_remove(struct import_copy *copy);

#endif
