/* SPDX-License-Identifier: MIT */
/*
 * How much a transaction writes to the WAL, whatever else stands in the store: not more than what it changes
 * takes. Counts of pages, which no load on the machine changes.
 */
#include <stdio.h>
#include <string.h>

#include "src/store/sqlite/sqlite.h"
#include "tests/lib/store_fixture.h"

#define BATCH 500
#define BACKLOG 20000
#define DATA_BYTES 260

static uint64_t wal_pages(void)
{
    const struct store_sqlite *store = store_sqlite_of(fixture.store);
    return store->wal_bytes / store->page_bytes;
}

/* Stores events numbered from `from` on; returns how many pages that took. */
static uint64_t store_batch(int from, int count, struct held *held)
{
    static struct store_event events[BATCH];
    static char uids[BATCH][32], data[DATA_BYTES];
    memset(data, 'x', sizeof data);
    for (int i = 0; i < count; i++) {
        snprintf(uids[i], sizeof uids[i], "u-%d", from + i);
        events[i] = (struct store_event){.uid = uids[i], .data = data, .data_bytes = sizeof data};
    }
    struct store_page page = {events, (size_t)count, NULL, false, 1000, false, NULL};
    uint64_t before = wal_pages();
    CU_ASSERT_EQUAL(ingest_page(&page, held, (size_t)count).stored, (size_t)count);
    return wal_pages() - before;
}

static uint64_t finish(const struct held *held)
{
    static struct store_answer answers[BATCH];
    for (size_t i = 0; i < held->count; i++)
        answers[i] = (struct store_answer){.lock = held->at[i], .change = STORE_COMPLETE};
    uint64_t before = wal_pages();
    CU_ASSERT_EQUAL(store_commit(fixture.store, fixture.source, fixture.stages[0], answers, held->count), 0);
    return wal_pages() - before;
}

/* What is free again needs not be written, wherever in a page of the file the events before it end. */
static void events_that_end_beside_others_that_stay(void)
{
    static struct held held, next;
    for (int standing = 0; standing < 16; standing++) {
        fixture_begin();
        static struct held stays;
        store_batch(1, 20 + standing, &stays);
        int number = 100;
        uint64_t took = store_batch(number, BATCH, &held), most = 0;
        CU_ASSERT(took > (uint64_t)BATCH * DATA_BYTES / 4096); /* so much for what is stored */
        for (int round = 0; round < 4; round++) {
            number += BATCH;
            store_batch(number, BATCH, &next);
            uint64_t wrote = finish(&held);
            most = wrote > most ? wrote : most;
            held = next;
        }
        CU_ASSERT(most < took / 2);
        CU_ASSERT_EQUAL(totals().completed, 4 * BATCH);
        fixture_end();
    }
}

/* Uids that count up without leading zeros, as most do: 1000 stands between 100 and 101 where mere text is
 * compared, and what comes and goes is found all over the index of those that wait. */
static void numbered_events_beside_a_backlog(void)
{
    static struct held oldest, held;
    fixture_begin();
    uint64_t took = store_batch(1, BATCH, &oldest), most = 0;
    for (int batch = 1; batch <= BACKLOG / BATCH; batch++) {
        uint64_t wrote = store_batch(1 + batch * BATCH, BATCH, &held);
        most = wrote > most ? wrote : most;
    }
    CU_ASSERT(most < took + took / 4);
    CU_ASSERT(finish(&oldest) < took / 2);
    fixture_end();
}

STORE_MAIN("store: pages", {"what is freed is not written", events_that_end_beside_others_that_stay},
           {"uids that count up are neighbours in their index", numbered_events_beside_a_backlog})
