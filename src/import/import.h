/* SPDX-License-Identifier: MIT */
/*
 * Import: decides which source of a Go eventpipe's database becomes which source of ours, runs the import,
 * and counts what it did.
 */
#ifndef IMPORT_IMPORT_H
#define IMPORT_IMPORT_H

#include "src/import/go_database.h"

/* A stage that the file names and the configuration lacks. */
struct import_unknown_stage {
    char *name;
    uint64_t done_count, waiting_count; /* how many events have it done, or not */
};

/* One source of the file, and the report on it. */
struct import_mapping {
    const char *from_id;                /* its id in the file */
    const char *cursor;                 /* in the file; NULL or "" = none */
    const struct source_config *source; /* what it becomes */
    int64_t store_id;                   /* 0 = the store does not know it yet */

    /* the report: what was done, or in a trial would be */
    uint64_t imported_count;
    uint64_t known_count;                 /* events that were in the store, or imported, before: left alone */
    uint64_t corrupt_count, locked_count; /* of the imported */
    uint64_t complete_count;              /* of the imported: all stages of the configuration are done */
    uint64_t *stage_event_counts;         /* of the imported: how many wait for each of source->stages */
    uint64_t other_uid_count;             /* events whose data has another uid than their row */
    char *first_row_uid, *first_event_uid;       /* the first of them */
    struct import_unknown_stage *unknown_stages; /* by name */
    size_t unknown_stage_count;
    bool is_cursor_set;
};

struct import_plan {
    struct import_mapping *mappings;
    size_t mapping_count;

    /* while it runs */
    struct import_go *file;
    size_t mapping_index;                                     /* of the source that is being read */
    bool is_source_selected, is_row_locked, is_out_of_memory; /* out of memory: the report would be wrong */
    struct import_row row;
    struct text done_list;
    struct error *error;
};

/*
 * Plans the import; stores nothing. only_source: import this source of the file, NULL = all. new_id: under
 * this id, NULL = its own. EP_ENOENT: the file has no such source. EP_EINVAL: `new_id` for several sources.
 * EP_ECONFIG: the configuration lacks a source. *out is set on success only. The file and the configuration
 * must stay until import_close.
 */
int import_make_plan(struct import_go *file, const struct config *config, const char *only_source,
                     const char *new_id, struct import_plan *out, struct error *error);
/*
 * Imports all planned sources in one transaction of the store; now_ms (wall clock) is the time of
 * arrival. The caller has set their store_id. is_trial: changes nothing; then the store may be NULL (it does
 * not exist yet) or a reader's handle. Returns 0 or a code of the store or of the file; then nothing is
 * stored.
 */
int import_run(struct import_plan *plan, struct store *store, bool is_trial, uint64_t now_ms,
               struct error *error);
/* Frees the plan and its report. */
void import_close(struct import_plan *plan);

#endif
