/* SPDX-License-Identifier: MIT */
/*
 * A database that the original eventpipe, a Go package, has written: opened as a private copy, and read row
 * by row.
 */
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
 * Copies the file at `path`, opens the copy and checks that it is such a database. Never writes to the file
 * nor beside it; a WAL or journal beside it is taken in. Blocks while it copies, and calls `should_stop`
 * meanwhile. When it returns, the copy has no name any more, so it disappears with the process at the
 * latest. *out is set on success only; the caller closes it. Errors: EP_EBUSY, the file is in use;
 * EP_ESTATE, `should_stop` returned true; EP_EINVAL, it is not such a database (the message says what was
 * expected); others as import_copy_make.
 */
int import_go_open(const char *path, import_stop *should_stop, void *user, struct import_go **out,
                   struct error *error);
/* Frees the file and sets *file to NULL. */
void import_go_close(struct import_go **database);

/* *out: its sources, ordered by id, with those that have rows in `items` but none in `sources`. Returns their
 * number. Owned by the file. */
size_t import_go_list_sources(const struct import_go *database, const struct import_go_source **out);

/* Begins with the first row of a source; the rows come in the order in which the original would process
 * them. */
int import_go_select_source(struct import_go *database, const char *source, struct error *error);
/*
 * Reads the next row. Returns 1 and *row (begin with zeros; it stands until the next call), 0 when there
 * are no more, or a negative code. *locked: the original was processing it.
 */
int import_go_read_row(struct import_go *database, struct import_row *row, bool *is_locked,
                       struct error *error);

#endif
