/* SPDX-License-Identifier: MIT */
/*
 * Inside the SQLite engine: scans over the events of a struct store_select, in chunks. Each chunk is read
 * in a transaction of its own and copied, so that a slow reader of it (a pager) does not keep the WAL from
 * being moved.
 */
#ifndef STORE_SQLITE_SELECT_H
#define STORE_SQLITE_SELECT_H

#include "src/store/sqlite/sqlite.h"

#define SCAN_CHUNK_MAX 1000 /* items at most in one chunk, and so in one transaction of a change */

struct scan_source {
    int64_t id;
    char *name;
    const char *const *stage_names;  /* names of its stages, NULL = not known */
    struct store_sqlite_tally tally; /* for a change in progress */
};

struct scan_item {
    struct store_item item;
    struct scan_source *source;
    int64_t token; /* -1 = its row is in suspended */
    char *block;   /* owned: the memory that the item's pointers point into */
};

struct event_scan {
    struct store_sqlite *store;
    const struct store_select *select;
    unsigned states; /* the wanted states, a bit per enum store_state */
    bool with_data;
    struct scan_source *sources;
    size_t source_count;
    size_t source_or_id_index; /* index of the present source, or into found_ids */
    int64_t last_id;           /* the last id read of that source */
    int64_t *found_ids;        /* with uids: the ids of the events, ascending */
    size_t found_count;
    bool is_at_end;            /* there are no more events */
    bool skip_damage;          /* events that cannot be read are counted and left out; else the scan fails */
    bool compares_uids;        /* the index of uids is damaged: compare the uid of every event */
    int64_t one_by_one_until;  /* up to this id events are read one by one: a page of them is damaged */
    uint64_t unreadable_count; /* how many numbers could not be read; each may have been an event */
    struct scan_item *items;   /* the chunk */
    size_t item_count;
};

/* Starts a scan; the caller closes it. The selection must stay unchanged until then. */
int store_sqlite_open_scan(struct store_sqlite *store, const struct store_select *select, unsigned states,
                           bool with_data, bool skip_damage, struct event_scan *out);
void store_sqlite_close_scan(struct event_scan *scan);
/* Reads the next chunk of at most `limit` items. When there are no more, it is empty and scan->is_at_end is
 * true. */
int store_sqlite_read_scan_chunk(struct event_scan *scan, size_t limit);
/* Reads one event again, inside the caller's transaction. Returns 1 and *out if it is still selected, or 0.
 * The caller frees *out with store_sqlite_free_scan_item. */
int store_sqlite_read_scan_event(struct event_scan *scan, int64_t event, struct scan_item *out);
void store_sqlite_free_scan_item(struct scan_item *item);

#endif
