/* SPDX-License-Identifier: MIT */
/* Import: which source of a Go eventpipe's database becomes which of ours, the transaction, and the account
 * of it. */
#ifndef IMPORT_H
#define IMPORT_H

#include "src/import/go_database.h"

struct import_unknown { /* a stage that the file names and the configuration has not */
    char *name;
    uint64_t done, waiting; /* events that have done it, or have not */
};

/* One source. */
struct import_part {
    const char *from;                   /* its id in the file */
    const char *cursor;                 /* in the file; NULL or "" = none */
    const struct source_config *source; /* what it becomes */
    int64_t store_id;                   /* 0 = the store has not yet heard of it */

    /* the account: what was done, or in a trial would be */
    uint64_t imported, known;       /* events; known = before, nothing was done about them */
    uint64_t corrupt, locked;       /* of the imported */
    uint64_t complete;              /* of the imported: all stages of the configuration are done */
    uint64_t *at_stage;             /* of the imported: where they go on, for each of source->stages */
    uint64_t other_uids;            /* events that name another uid than their row */
    char *other_row, *other_event;  /* the first of them */
    struct import_unknown *unknown; /* by name */
    size_t unknown_count;
    bool cursor_set;
};

struct import {
    struct import_part *parts;
    size_t part_count;

    struct import_go *file; /* from here on: while it runs */
    size_t at;
    bool started, locked, failed; /* failed: without memory the account would be wrong */
    struct import_row row;
    struct json_out done;
    struct error *error;
};

/*
 * Finds what is to be done, and touches nothing. only: this source of the file, NULL = all; as: under this
 * id, NULL = its own. EP_ENOENT: the file has no such source; EP_EINVAL: `as` for several; EP_ECONFIG: the
 * configuration lacks a source. The file and the configuration must stand until import_close.
 */
int import_plan(struct import_go *file, const struct config *config, const char *only, const char *as,
                struct import *out, struct error *error);
/*
 * All of it in one transaction, now_ms being the arrival. The store ids of the parts are set by the caller.
 * trial: changes nothing; the store may be NULL then (there is none yet), or a reader's handle.
 */
int import_run(struct import *import, struct store *store, bool trial, uint64_t now_ms, struct error *error);
void import_close(struct import *import);

#endif
