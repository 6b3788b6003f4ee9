/* SPDX-License-Identifier: MIT */
/*
 * Pages in: asks the source through the fetcher and stores each page, with the cursor that follows it, in
 * one transaction. If there is room, the same transaction claims its events. Runs in producers.
 *
 * Invariants
 *  1. The cursor moves only with its page, in one transaction.
 *
 * Fatal: no memory. Survived: any failure of the backend (backoff with jitter, without end); a store that
 * cannot be written (the page is kept, and nothing is acknowledged).
 */
#include <stdlib.h>
#include <string.h>

#include "src/base/backoff.h"
#include "src/base/log.h"
#include "src/process/producer.h"
#include "src/stage/stage.h"

#define ROOM_PATIENCE_NS \
    UINT64_C(50000000) /* a page waits that long for room, to be claimed in its own transaction */
#define LONGEST_PAUSE_MS UINT64_C(3155760000000) /* a hundred years: more means never, and would overflow */

void process_producer_set_state(struct producer *producer, enum shm_source_state state)
{
    uint32_t old = atomic_exchange(&producer->source->state, state);
    if (old != (uint32_t)state)
        base_log_info("source state=%s was=%s", shm_source_state_name(state), shm_source_state_name(old));
}

/* Whether fetching is allowed now: running, not paused, and the source has not ended. */
static bool may_fetch(const struct producer *producer)
{
    return process_phase(&producer->process) == SHM_PHASE_RUNNING &&
           atomic_load(&producer->source->paused) == 0 && !producer->ended;
}

/* Remembers the cursor that is in the store now, and shows it in shared memory for status. The producer
 * runs it after each stored page, and when an operator has set another one. */
static void remember_cursor(struct producer *producer, const char *cursor)
{
    char *copy = strdup(cursor);
    if (copy == NULL)
        process_fail(&producer->process, CHILD_MEMORY, "out of memory for the cursor");
    free(producer->cursor);
    producer->cursor = copy;
    text_set(&producer->source->cursor, cursor);
}

/* Reports a failed fetch in log and status (a repeated error only once) and sets the time of the next try,
 * with backoff. The producer runs it when its fetcher thread brings a failure of the backend. */
static void report_fetch_failed(struct producer *producer)
{
    const struct source_failure *failure = &producer->fetcher.failure;
    uint32_t failures = atomic_fetch_add(&producer->source->failures, 1) + 1;
    uint64_t delay_ms = failure->retry_after_ms;
    if (delay_ms == 0)
        delay_ms = base_backoff_ms(producer->config->retry.min_ms, producer->config->retry.max_ms, failures,
                                   arc4random());
    if (delay_ms > LONGEST_PAUSE_MS)
        delay_ms = LONGEST_PAUSE_MS;
    char before[SHM_TEXT_BYTES];
    text_get(&producer->source->error, before, sizeof before);
    if (strncmp(before, failure->error.message, sizeof before - 1) != 0) {
        base_log_warning("fetch-failed error=\"%s\" next_try_ms=%llu", failure->error.message,
                         (unsigned long long)delay_ms);
        text_set(&producer->source->error, failure->error.message);
    }
    atomic_store(&producer->source->next_try_ms, shm_realtime_ms() + delay_ms);
    producer->next_try_ns = shm_now_ns() + delay_ms * 1000000;
    process_producer_set_state(producer, SHM_SOURCE_BACKOFF);
    process_notify_keeper(producer->child);
}

/* Reports in log and status that fetching works again, and notes the time of the last page. The producer
 * runs it after each page that it has stored. */
static void report_fetch_recovered(struct producer *producer)
{
    uint32_t failures = atomic_exchange(&producer->source->failures, 0);
    if (failures > 0) {
        base_log_info("fetch-recovered after_failures=%u", failures);
        text_set(&producer->source->error, "");
        atomic_store(&producer->source->next_try_ms, 0);
    }
    atomic_store(&producer->source->fetched_ms, shm_realtime_ms());
    process_mark_progress(&producer->process);
}

/* Notes the new cursor and the larger backlog after a page was stored. The producer runs it; events of the
 * page that were not claimed are claimed later. */
static void note_page_stored(struct producer *producer, const struct page *page,
                             const struct store_ingested *ingested, size_t claimed)
{
    if (page->cursor != NULL)
        remember_cursor(producer, page->cursor);
    producer->backlog += ingested->stored;
    if (claimed < ingested->stored)
        producer->waiting = true;
    if (ingested->stored > 0 || ingested->duplicates > 0)
        base_log_debug("page stored=%zu duplicates=%zu claimed=%zu", ingested->stored, ingested->duplicates,
                       claimed);
}

/* False: an empty page with the cursor that is stored already needs no transaction. */
static bool page_changes_store(const struct producer *producer, const struct page *page)
{
    return page->count > 0 || (page->cursor != NULL &&
                               (producer->cursor == NULL || strcmp(page->cursor, producer->cursor) != 0));
}

/* Stores the fetched page in the store and claims up to `room` of its events for the first stage. False:
 * the store could not take it; the page is kept and tried again. The producer runs it. */
static bool ingest_page(struct producer *producer, size_t room)
{
    const struct page *page = &producer->fetcher.page;
    if (!page_changes_store(producer, page))
        return true;
    const struct store_page stored = {.events = page->events,
                                      .count = page->count,
                                      .cursor = page->cursor,
                                      .now_ms = shm_realtime_ms(),
                                      .follows = true,
                                      .after = producer->fetcher.cursor};
    const struct store_claim claim = process_producer_claim_next(producer, room);
    struct store_ingested ingested;
    struct store_claimed claimed;
    int result =
        store_ingest_begin(producer->process.store, producer->store_id, &stored, &claim, &ingested, &claimed);
    if (result == 0)
        result = process_producer_claim_end(producer, claim.token, &claimed);
    if (!process_store_done(&producer->process, result))
        return false;
    process_producer_claim_publish(producer);
    note_page_stored(producer, page, &ingested, claimed.count);
    return true;
}

/* Whether to keep the page a little longer, at most ROOM_PATIENCE_NS, so that its own transaction can
 * claim its events for the first stage. The producer runs it before it stores a page. */
static bool must_page_wait(struct producer *producer, size_t room)
{
    if (room > 0 || producer->fetcher.page.count == 0) {
        producer->page_since_ns = 0;
        return false;
    }
    uint64_t now = shm_now_ns();
    if (producer->page_since_ns == 0)
        producer->page_since_ns = now;
    if (now - producer->page_since_ns < ROOM_PATIENCE_NS)
        return true;
    producer->page_since_ns = 0;
    return false;
}

/* Takes a finished fetch from the fetcher thread: stores the page with its cursor, or backs off after a
 * failure. The producer calls it in each turn. True: it did something. */
bool process_producer_fetch_take(struct producer *producer)
{
    struct fetcher *fetcher = &producer->fetcher;
    if (atomic_load_explicit(&fetcher->state, memory_order_acquire) != FETCHER_ANSWERED)
        return false;
    if (producer->discard || atomic_load(&fetcher->abort)) {
        producer->discard = false;
        process_fetcher_done(fetcher);
        return true;
    }
    if (fetcher->result != 0) {
        report_fetch_failed(producer);
        process_fetcher_done(fetcher);
        return true;
    }
    size_t room = process_producer_claim_room(producer);
    if (must_page_wait(producer, room))
        return false;
    if (!ingest_page(producer, room))
        return true;
    report_fetch_recovered(producer);
    if (fetcher->page.end) {
        producer->ended = true;
        process_producer_set_state(producer, SHM_SOURCE_ENDED);
    }
    process_fetcher_done(fetcher);
    return true;
}

/* Counts the source's events in the store that stages will still run, for the limit backlog.max_events.
 * The producer calls it at its start, after an operator's change, and when the limit may be reached. */
void process_producer_count_backlog(struct producer *producer)
{
    struct store_totals totals;
    if (store_source_totals(producer->process.store, producer->store_id, &totals) == 0)
        producer->backlog =
            totals.live - totals.held - totals.dead; /* held and dead events wait for an operator */
}

/* Whether the source has reached backlog.max_events. Counting costs a read of the store, so the producer
 * counts only when the bound it keeps says that the limit may be reached. It runs this before each fetch. */
static bool backlog_is_full(struct producer *producer)
{
    uint64_t limit = producer->config->backlog_max_events;
    if (limit == 0 || (!producer->full && producer->backlog < limit))
        return false;
    process_producer_count_backlog(producer);
    producer->full = producer->backlog >= limit;
    return producer->full;
}

/* Asks the fetcher thread for the next page, unless the source is paused, ended, full or in backoff;
 * interrupts a fetch that must not go on. The producer calls it in each turn. True: it asked. */
bool process_producer_fetch_ask(struct producer *producer)
{
    if (!may_fetch(producer)) {
        if (!producer->ended)
            process_producer_set_state(producer, atomic_load(&producer->source->paused) != 0
                                                     ? SHM_SOURCE_PAUSED
                                                     : SHM_SOURCE_STOPPED);
        int state = atomic_load(&producer->fetcher.state);
        if ((state == FETCHER_ASKED || state == FETCHER_FETCHING) && !atomic_load(&producer->fetcher.abort))
            process_fetcher_interrupt(&producer->fetcher);
        return false;
    }
    if (atomic_load(&producer->fetcher.state) != FETCHER_IDLE || shm_now_ns() < producer->next_try_ns)
        return false;
    if (backlog_is_full(producer)) {
        process_producer_set_state(producer, SHM_SOURCE_FULL);
        producer->next_try_ns = shm_now_ns() + UINT64_C(1000000000);
        return false;
    }
    producer->next_try_ns = 0;
    if (atomic_load(&producer->source->failures) == 0)
        process_producer_set_state(producer, SHM_SOURCE_FETCHING);
    if (process_fetcher_ask(&producer->fetcher, producer->cursor) != 0)
        process_fail(&producer->process, CHILD_MEMORY, "out of memory for a fetch");
    return true;
}

/* Reads the cursor from the store again, and drops a running fetch if an operator has set another one: its
 * page would follow the old cursor. The producer calls it after an operator's change. */
void process_producer_fetch_rescan(struct producer *producer)
{
    char *cursor;
    if (!process_store_done(&producer->process,
                            store_cursor(producer->process.store, producer->store_id, &cursor))) {
        atomic_store(&producer->source->rescan, 1); /* try again next turn */
        return;
    }
    bool same = cursor == NULL ? producer->cursor == NULL
                               : producer->cursor != NULL && strcmp(cursor, producer->cursor) == 0;
    if (!same) {
        base_log_info("cursor-set cursor=\"%s\"", cursor != NULL ? cursor : "");
        remember_cursor(producer, cursor != NULL ? cursor : "");
        int state = atomic_load(&producer->fetcher.state);
        if (state != FETCHER_IDLE) {
            producer->discard = true;
            process_fetcher_interrupt(&producer->fetcher);
        }
        producer->ended = false;
        atomic_store(&producer->source->ended, 0);
    }
    free(cursor);
    process_producer_count_backlog(producer);
}

/* Returns when the producer must next store or fetch a page (CLOCK_MONOTONIC); UINT64_MAX = nothing is
 * planned. The producer calls it to know how long it may sleep. */
uint64_t process_producer_fetch_next_ns(const struct producer *producer)
{
    if (producer->page_since_ns != 0)
        return producer->page_since_ns + ROOM_PATIENCE_NS;
    if (may_fetch(producer) && producer->next_try_ns != 0 &&
        atomic_load(&producer->fetcher.state) == FETCHER_IDLE)
        return producer->next_try_ns;
    return UINT64_MAX;
}
