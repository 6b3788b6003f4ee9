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

#define PAGE_WAIT_MAX_NS \
    UINT64_C(50000000) /* a page waits that long for room, to be claimed in its own transaction */
#define PAUSE_MAX_MS UINT64_C(3155760000000) /* a hundred years: more means never, and would overflow */

void process_producer_set_state(struct producer *producer, enum shm_source_state state)
{
    uint32_t old = atomic_exchange(&producer->source->state, state);
    if (old != (uint32_t)state)
        base_log_info("source state=%s was=%s", shm_source_state_name(state), shm_source_state_name(old));
}

/* Returns whether the producer may fetch now: the instance is running (not draining or stopping), the
 * source is not paused and has not ended. */
static bool may_fetch(const struct producer *producer)
{
    return process_get_phase(&producer->process) == SHM_PHASE_RUNNING &&
           atomic_load(&producer->source->paused) == 0 && !producer->ended;
}

/* Keeps a copy of the cursor that the store has now, and shows it in shared memory for `eventpipe
 * status`. The producer runs it after each stored page, and when an operator has set another cursor. */
static void remember_cursor(struct producer *producer, const char *cursor)
{
    char *copy = strdup(cursor);
    if (copy == NULL)
        process_fail(&producer->process, CHILD_MEMORY, "out of memory");
    free(producer->cursor);
    producer->cursor = copy;
    text_set(&producer->source->cursor, cursor);
}

/* Reports a failed fetch in status, and in the log if the error is not the one reported last. Sets the
 * time of the next try: what the backend asked for, or a backoff that grows with each failure. The
 * producer runs it when its fetcher thread returns an error. */
static void report_fetch_failed(struct producer *producer)
{
    const struct source_failure *failure = &producer->fetcher.failure;
    uint32_t failures = atomic_fetch_add(&producer->source->failures, 1) + 1;
    uint64_t delay_ms = failure->retry_after_ms;
    if (delay_ms == 0)
        delay_ms = base_backoff_ms(producer->config->retry.min_ms, producer->config->retry.max_ms, failures,
                                   arc4random());
    if (delay_ms > PAUSE_MAX_MS)
        delay_ms = PAUSE_MAX_MS;
    char reported_error[SHM_TEXT_BYTES];
    text_get(&producer->source->error, reported_error, sizeof reported_error);
    if (strncmp(reported_error, failure->error.message, sizeof reported_error - 1) != 0) {
        base_log_warning("fetch-failed error=\"%s\" next_try_ms=%llu", failure->error.message,
                         (unsigned long long)delay_ms);
        text_set(&producer->source->error, failure->error.message);
    }
    atomic_store(&producer->source->next_try_ms, shm_realtime_ms() + delay_ms);
    producer->next_try_ns = shm_now_ns() + delay_ms * 1000000;
    process_producer_set_state(producer, SHM_SOURCE_BACKOFF);
    process_notify_keeper(producer->child);
}

/* Reports in log and status that fetching works again, if it has failed before, and notes the time of
 * the last page. The producer runs it after each page that it has stored. */
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

/* Notes the new cursor and adds the page's new events to the backlog. The producer runs it after it has
 * stored a page. If the claim did not take them all, the next turns claim the rest. */
static void note_page_stored(struct producer *producer, const struct page *page,
                             const struct store_ingested *ingested, size_t claimed_count)
{
    if (page->cursor != NULL)
        remember_cursor(producer, page->cursor);
    producer->backlog += ingested->stored;
    if (claimed_count < ingested->stored)
        producer->has_waiting_events = true;
    if (ingested->stored > 0 || ingested->duplicates > 0)
        base_log_debug("page stored=%zu duplicates=%zu claimed=%zu", ingested->stored, ingested->duplicates,
                       claimed_count);
}

/* False: an empty page with the cursor that is stored already needs no transaction. */
static bool does_page_change_store(const struct producer *producer, const struct page *page)
{
    return page->count > 0 || (page->cursor != NULL &&
                               (producer->cursor == NULL || strcmp(page->cursor, producer->cursor) != 0));
}

/* Stores the fetched page and claims up to claim_limit of its events for the first stage, in one
 * transaction. Returns false if the store is busy or full: then the page is kept and tried again. The
 * producer runs it. */
static bool ingest_page(struct producer *producer, size_t claim_limit)
{
    const struct page *page = &producer->fetcher.page;
    if (!does_page_change_store(producer, page))
        return true;
    const struct store_page new_page = {.events = page->events,
                                        .count = page->count,
                                        .cursor = page->cursor,
                                        .now_ms = shm_realtime_ms(),
                                        .follows = true,
                                        .after = producer->fetcher.cursor};
    const struct store_claim claim = process_producer_prepare_claim(producer, claim_limit);
    struct store_ingested ingested;
    struct store_claimed claimed;
    int result = store_ingest_begin(producer->process.store, producer->store_id, &new_page, &claim, &ingested,
                                    &claimed);
    if (result == 0)
        result = process_producer_commit_claim(producer, claim.token, &claimed);
    if (!process_check_store_result(&producer->process, result))
        return false;
    process_producer_publish_claim(producer);
    note_page_stored(producer, page, &ingested, claimed.count);
    return true;
}

/* Returns whether to keep the page a little longer (at most PAGE_WAIT_MAX_NS), because the first stage has
 * no room now. A page that is stored when there is room needs no second transaction to claim its events.
 * The producer runs it before it stores a page. */
static bool must_page_wait(struct producer *producer, size_t claim_limit)
{
    if (claim_limit > 0 || producer->fetcher.page.count == 0) {
        producer->page_waiting_since_ns = 0;
        return false;
    }
    uint64_t now_ns = shm_now_ns();
    if (producer->page_waiting_since_ns == 0)
        producer->page_waiting_since_ns = now_ns;
    if (now_ns - producer->page_waiting_since_ns < PAGE_WAIT_MAX_NS)
        return true;
    producer->page_waiting_since_ns = 0;
    return false;
}

/* Handles what the producer's fetcher thread has returned: stores the page with its cursor, or backs off
 * after a failure. The producer calls it in each turn. Returns whether it did something. */
bool process_producer_handle_fetched_page(struct producer *producer)
{
    struct fetcher *fetcher = &producer->fetcher;
    if (atomic_load_explicit(&fetcher->state, memory_order_acquire) != FETCHER_ANSWERED)
        return false;
    if (producer->must_discard_fetch || atomic_load(&fetcher->abort)) {
        producer->must_discard_fetch = false;
        process_fetcher_release_page(fetcher);
        return true;
    }
    if (fetcher->result != 0) {
        report_fetch_failed(producer);
        process_fetcher_release_page(fetcher);
        return true;
    }
    size_t claim_limit = process_producer_compute_claim_limit(producer);
    if (must_page_wait(producer, claim_limit))
        return false;
    if (!ingest_page(producer, claim_limit))
        return true;
    report_fetch_recovered(producer);
    if (fetcher->page.end) {
        producer->ended = true;
        process_producer_set_state(producer, SHM_SOURCE_ENDED);
    }
    process_fetcher_release_page(fetcher);
    return true;
}

/* Counts the source's unfinished events in the store, without held and dead ones, which wait for an
 * operator: this is the backlog that backlog.max_events limits. Leaves the old count if the store cannot
 * be read. The producer calls it at its start, after an operator's change, and when the limit may be
 * reached. */
void process_producer_count_backlog(struct producer *producer)
{
    struct store_totals totals;
    if (store_source_totals(producer->process.store, producer->store_id, &totals) == 0)
        producer->backlog =
            totals.live - totals.held - totals.dead; /* held and dead events wait for an operator */
}

/* Returns whether the source's backlog has reached backlog.max_events. To save reads of the store, the
 * producer keeps an upper bound of the backlog and counts only when that bound reaches the limit or the
 * backlog was full. The producer runs it before each fetch. */
static bool is_backlog_full(struct producer *producer)
{
    uint64_t limit = producer->config->backlog_max_events;
    if (limit == 0 || (!producer->backlog_full && producer->backlog < limit))
        return false;
    process_producer_count_backlog(producer);
    producer->backlog_full = producer->backlog >= limit;
    return producer->backlog_full;
}

/* Asks the fetcher thread for the next page, unless the source is paused, has ended, has a full backlog or
 * waits after a failure, or a page is still there. Interrupts a fetch when the source is paused or the
 * instance stops. Returns whether it asked. The producer calls it in each turn of its loop. */
bool process_producer_request_page(struct producer *producer)
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
    if (is_backlog_full(producer)) {
        process_producer_set_state(producer, SHM_SOURCE_FULL);
        producer->next_try_ns = shm_now_ns() + UINT64_C(1000000000);
        return false;
    }
    producer->next_try_ns = 0;
    if (atomic_load(&producer->source->failures) == 0)
        process_producer_set_state(producer, SHM_SOURCE_FETCHING);
    if (process_fetcher_ask(&producer->fetcher, producer->cursor) != 0)
        process_fail(&producer->process, CHILD_MEMORY, "out of memory");
    return true;
}

/* Reads the cursor from the store again. If an operator has set another one, drops the fetch that is
 * under way, because its page would follow the old cursor. The producer calls it after an operator's
 * change. */
void process_producer_reload_cursor(struct producer *producer)
{
    char *cursor;
    if (!process_check_store_result(&producer->process,
                                    store_cursor(producer->process.store, producer->store_id, &cursor))) {
        atomic_store(&producer->source->rescan, 1); /* try again next turn */
        return;
    }
    bool is_same_cursor = cursor == NULL ? producer->cursor == NULL
                                         : producer->cursor != NULL && strcmp(cursor, producer->cursor) == 0;
    if (!is_same_cursor) {
        base_log_info("cursor-set cursor=\"%s\"", cursor != NULL ? cursor : "");
        remember_cursor(producer, cursor != NULL ? cursor : "");
        int state = atomic_load(&producer->fetcher.state);
        if (state != FETCHER_IDLE) {
            producer->must_discard_fetch = true;
            process_fetcher_interrupt(&producer->fetcher);
        }
        producer->ended = false;
        atomic_store(&producer->source->ended, 0);
    }
    free(cursor);
    process_producer_count_backlog(producer);
}

/* Returns when the producer must next store or request a page (CLOCK_MONOTONIC, ns), UINT64_MAX if
 * nothing is planned. The producer calls it to compute how long it may sleep. */
uint64_t process_producer_get_next_fetch_ns(const struct producer *producer)
{
    if (producer->page_waiting_since_ns != 0)
        return producer->page_waiting_since_ns + PAGE_WAIT_MAX_NS;
    if (may_fetch(producer) && producer->next_try_ns != 0 &&
        atomic_load(&producer->fetcher.state) == FETCHER_IDLE)
        return producer->next_try_ns;
    return UINT64_MAX;
}
