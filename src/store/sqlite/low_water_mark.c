/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: where a claim begins to search. Runs in every process that claims or makes events ready.
 *
 * Each handle remembers a low-water mark per source: no event below it can be claimed, so a claim does not
 * search the running events again. The mark may be too low, never too high. It moves up after the commit of
 * a transaction that saw everything below it, and down when this handle makes an older event ready or the
 * caller asks for a rescan.
 */
#include <stdlib.h>

#include "src/store/sqlite/sqlite.h"

/* Returns the low-water mark that this store handle remembers for a source (no event below it can be
 * claimed), or NULL if it remembers none. store_sqlite_set_low_water_mark calls it. */
static struct store_sqlite_low_water_mark *find_low_water_mark(struct store_sqlite *store, int64_t source)
{
    for (size_t i = 0; i < store->low_water_mark_count; i++)
        if (store->low_water_marks[i].source == source)
            return &store->low_water_marks[i];
    return NULL;
}

/* Returns the id of the event at which the next claim of a source must start its search: no earlier event
 * can be claimed. It is the source's first event if this store handle remembers none. The producer calls it
 * for each page and claim, the keeper for `eventpipe inject` and for operators' changes. */
int64_t store_sqlite_get_low_water_mark(const struct store_sqlite *store, int64_t source)
{
    for (size_t i = 0; i < store->low_water_mark_count; i++)
        if (store->low_water_marks[i].source == source)
            return store->low_water_marks[i].event;
    return EVENT_FIRST(source);
}

/* Remembers in the store handle at which event the next claim of a source starts its search. If memory runs
 * out for a new source, claims search from its first event: slower, but correct. The producer runs it after
 * each claim; the keeper when its change makes an older event ready. */
void store_sqlite_set_low_water_mark(struct store_sqlite *store, int64_t source, int64_t event)
{
    struct store_sqlite_low_water_mark *low_water_mark = find_low_water_mark(store, source);
    if (low_water_mark == NULL) {
        low_water_mark =
            realloc(store->low_water_marks, (store->low_water_mark_count + 1) * sizeof *low_water_mark);
        if (low_water_mark == NULL)
            return;
        store->low_water_marks = low_water_mark;
        low_water_mark += store->low_water_mark_count++;
        low_water_mark->source = source;
    }
    low_water_mark->event = event;
}

void store_sqlite_rescan_from(struct store_sqlite *store, int64_t source, int64_t event)
{
    if (event < store_sqlite_get_low_water_mark(store, source))
        store_sqlite_set_low_water_mark(store, source, event);
}

void store_sqlite_rescan(struct store *store, int64_t source)
{
    store_sqlite_set_low_water_mark(store_sqlite_of(store), source, EVENT_FIRST(source));
}
