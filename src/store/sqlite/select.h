/* SPDX-License-Identifier: MIT */
/*
 * Inside the SQLite engine: walking over what a struct store_select means, in chunks. Each chunk is read in a
 * transaction of its own and copied, so that whoever looks at it may take his time (a pager) without holding
 * the WAL.
 */
#ifndef STORE_SQLITE_SELECT_H
#define STORE_SQLITE_SELECT_H

#include "src/store/sqlite/sqlite.h"

#define WALK_CHUNK 1000 /* items at most in one chunk, and so in one transaction of a change */

struct walk_source {
    int64_t id;
    char *name;
    const char *const *chain;        /* of its stages, NULL = not known */
    struct store_sqlite_tally tally; /* for a change in progress */
};

struct walk_item {
    struct store_item item;
    struct walk_source *source;
    int64_t token; /* -1 = its row is in suspended */
    char *block;   /* what the item's pointers point into */
};

struct walk {
    struct store_sqlite *store;
    const struct store_select *select;
    unsigned states; /* bit per enum store_state: what is looked for */
    bool with_data;
    struct walk_source *sources;
    size_t source_count;
    size_t at;      /* source being walked, or index into found */
    int64_t last;   /* id seen last in that source */
    int64_t *found; /* with uids: the ids of the events, ascending */
    size_t found_count;
    bool end;
    bool around;             /* damage: what cannot be read is counted and left out */
    bool by_uid;             /* the index of uids is damaged: all events are compared */
    int64_t careful_until;   /* up to this id events are read one by one, because a page of them is damaged */
    uint64_t unreadable;     /* numbers of events that may have been there */
    struct walk_item *items; /* the chunk */
    size_t item_count;
};

int store_sqlite_select_open(struct store_sqlite *store, const struct store_select *select, unsigned states,
                             bool with_data, bool around, struct walk *out);
void store_sqlite_select_close(struct walk *walk);
/* Reads the next chunk of at most `limit` items; none and walk->end when there are no more. */
int store_sqlite_select_next(struct walk *walk, size_t limit);
/* Reads one event again within the caller's transaction: 1 and *out when it still is what is looked for, or
 * 0. */
int store_sqlite_select_again(struct walk *walk, int64_t event, struct walk_item *out);
void store_sqlite_select_forget(struct walk_item *item);

#endif
