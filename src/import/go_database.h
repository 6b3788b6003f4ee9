/* SPDX-License-Identifier: MIT */
/* A database that the original eventpipe, a Go package, has written: opened as a private copy, read row by
 * row. */
#ifndef IMPORT_GO_DATABASE_H
#define IMPORT_GO_DATABASE_H

#include "src/import/copy.h"
#include "src/import/row.h"

struct import_go;

struct import_go_source {
    char *id;
    char *cursor; /* NULL = it has none */
};

/*
 * Never writes to the file nor beside it; a log or journal beside it is taken in. stop is asked while it is
 * copied; when this returns, the copy has no name any more, so it is gone with the process at the latest.
 * EP_EBUSY: it is in use; EP_ESTATE: told to stop; EP_EINVAL: not such a database (the message: what was
 * expected); others as import_copy_make.
 */
int import_go_open(const char *path, import_stop *stop, void *user, struct import_go **out,
                   struct error *error);
void import_go_close(struct import_go **file);

/* By id; those that have rows but no row of their own are among them. Owned by the file. */
size_t import_go_sources(const struct import_go *file, const struct import_go_source **out);

/* From the source's first row on, in the order in which the original would take them. */
int import_go_start(struct import_go *file, const char *source, struct error *error);
/* The next row: 1 and *row filled (it stands until the next call), 0: there are no more, or a negative code.
 */
int import_go_next(struct import_go *file, struct import_row *row, bool *locked, struct error *error);

#endif
