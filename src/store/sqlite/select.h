/* SPDX-License-Identifier: MIT */
/*
 * Inside the SQLite engine: walks over the events of a struct store_select, in chunks. Each chunk is read
 * in a transaction of its own and copied, so that a slow reader of it (a pager) does not keep the WAL from
 * being moved.
 */
#ifndef STORE_SQLITE_SELECT_H
#define STORE_SQLITE_SELECT_H

#include "src/store/sqlite/sqlite.h"

#define WALK_CHUNK 1000 /* items at most in one chunk, and so in one transaction of a change */

struct walk_source {
    int64_t id;
    char *name;
    const char *const *chain;        /* names of its stages, NULL = not known */
    struct store_sqlite_tally tally; /* for a change in progress */
};

struct walk_item {
    struct store_item item;
    struct walk_source *source;
    int64_t token; /* -1 = its row is in suspended */
    char *block;   /* owned: the memory that the item's pointers point into */
};

struct walk {
    struct store_sqlite *store;
    const struct store_select *select;
    unsigned states; /* the wanted states, a bit per enum store_state */
    bool with_data;
    struct walk_source *sources;
    size_t source_count;
    size_t at;      /* index of the present source, or into found */
    int64_t last;   /* the last id read of that source */
    int64_t *found; /* with uids: the ids of the events, ascending */
    size_t found_count;
    bool end;
    bool skip_damage;        /* events that cannot be read are counted and left out; else the walk fails */
    bool by_uid;             /* the index of uids is damaged: compare the uid of every event */
    int64_t careful_until;   /* up to this id events are read one by one: a page of them is damaged */
    uint64_t unreadable;     /* how many numbers could not be read; each may have been an event */
    struct walk_item *items; /* the chunk */
    size_t item_count;
};

/* Begins a walk; the caller closes it. The selection must stay until then. */
int store_sqlite_select_open(struct store_sqlite *store, const struct store_select *select, unsigned states,
                             bool with_data, bool skip_damage, struct walk *out);
void store_sqlite_select_close(struct walk *walk);
/* Reads the next chunk of at most `limit` items. It is empty, and walk->end true, when there are no more. */
int store_sqlite_select_next(struct walk *walk, size_t limit);
/* Reads one event again, inside the caller's transaction. Returns 1 and *out if it is still selected, or 0.
 * The caller frees *out with store_sqlite_select_free. */
int store_sqlite_select_again(struct walk *walk, int64_t event, struct walk_item *out);
void store_sqlite_select_free(struct walk_item *item);

#endif
