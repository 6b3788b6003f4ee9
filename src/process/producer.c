/* SPDX-License-Identifier: MIT */
/*
 * The producer: one process per source. It fetches pages, stores them, hands events to the first stage's
 * ring, brings back delayed events when they are due, and unlocks what exited processes held. It sleeps on
 * its slot until there is something to do. This file is its loop.
 *
 * Invariants
 *  1. Only the fetcher thread blocks on the backend.
 *  2. A crash loses nothing that the producer knows: its successor finds cursor and events in the store,
 *     tickets in the segment.
 *  3. At a clean stop it exits after all workers of its source, and leaves no event locked.
 *
 * Fatal: no memory, a broken store, no fetcher thread. Survived: a failing backend, a store that cannot be
 * written now.
 */
#include "src/process/producer.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/ring.h"
#include "src/base/log.h"

/* Reads the source's cursor (the position after its last stored page) from the store, so that the next
 * page follows it, and counts the backlog. The producer runs it once at its start; it waits while the
 * store is busy. */
static void load_cursor(struct producer *producer)
{
    while (
        !process_check_store_result(&producer->process, store_cursor(producer->process.store,
                                                                     producer->store_id, &producer->cursor)))
        if (process_is_stopping(&producer->process))
            _exit(CHILD_DONE);
    text_set(&producer->source->cursor, producer->cursor != NULL ? producer->cursor : "");
    process_producer_count_backlog(producer);
}

/* Opens everything that a producer needs after fork: shared memory, store, cursor, tickets and fetcher
 * thread. Then it tells the supervisor that it is ready. A failure ends the process.
 * process_producer_main runs it. */
static void open_producer(struct producer *producer, const struct child_context *child, uint32_t source)
{
    *producer = (struct producer){.child = child, .has_waiting_events = true, .due_ms = UINT64_MAX};
    producer->source = segment_source(&child->segment, source);
    producer->config = &child->config->sources[source];
    snprintf(producer->name, sizeof producer->name, "%s producer", producer->source->id);
    process_open(&producer->process, child, producer->name);
    signal(SIGPIPE, SIG_IGN);
    process_open_store(&producer->process);
    producer->store_id = atomic_load(&producer->source->store_id);
    load_cursor(producer);
    /* The supervisor has orphaned the predecessor's tickets. */
    atomic_store(&producer->source->orphans, 1);
    int result = process_producer_claim_open(producer);
    if (result != 0)
        process_fail(&producer->process, CHILD_MEMORY, "out of memory");
    result = process_fetcher_open(&producer->fetcher, producer->config, producer->process.slot);
    if (result != 0) {
        char message[128];
        snprintf(message, sizeof message, "cannot start the fetcher thread: %s", strerror(result));
        process_fail(&producer->process, CHILD_MEMORY, message);
    }
    process_report_ready(&producer->process);
}

/* Reads the cursor and the source's waiting events from the store again, if the keeper or the
 * supervisor has asked for it: an operator has changed them, or the keeper has crashed and may not have
 * reported a change. The producer runs it in each turn. */
static void rescan_store(struct producer *producer)
{
    if (atomic_exchange(&producer->source->rescan, 0) == 0)
        return;
    store_rescan(producer->process.store, producer->store_id);
    producer->has_waiting_events = true;
    process_producer_reload_cursor(producer);
}

/* Returns whether the source will bring no more events and none waits or is with a worker. In a drain,
 * delayed events do not count: they wait for the next start. The producer checks it before it reports the
 * end of its source to the supervisor. */
static bool is_source_empty(const struct producer *producer)
{
    bool is_draining = process_get_phase(&producer->process) == SHM_PHASE_DRAINING;
    bool has_fetched_all =
        is_draining ? atomic_load(&producer->fetcher.state) != FETCHER_ANSWERED : producer->ended;
    return has_fetched_all && !producer->has_waiting_events &&
           (is_draining || producer->due_ms == UINT64_MAX) &&
           process_producer_has_nothing_in_flight(producer) && atomic_load(&producer->source->orphans) == 0 &&
           atomic_load(&producer->source->rescan) == 0 &&
           /* a worker reports a delay before it frees the ticket: so read this after the tickets */
           atomic_load(&producer->source->next_due_ms) == UINT64_MAX;
}

/* Returns whether the producer must still report to the supervisor when its source has no more events: the
 * source has ended, or a drain is on, and it has not reported this. */
static bool must_report_empty(const struct producer *producer)
{
    return atomic_load(&producer->source->ended) == 0 &&
           (producer->ended || process_get_phase(&producer->process) == SHM_PHASE_DRAINING);
}

/* Tells the supervisor once that the source has no more events. The producer runs it at the end of each
 * turn. The supervisor ends a drain, or a library's run, when all sources have reported. */
static void report_if_empty(struct producer *producer)
{
    if (!must_report_empty(producer) || !is_source_empty(producer))
        return;
    atomic_store(&producer->source->ended, 1);
    process_notice_send(producer->child, NOTICE_ENDED, "");
}

/* One turn of the producer's loop: unlocks events of exited workers, claims events for the first stage,
 * stores a fetched page, and asks for the next one. Returns whether it did something, so that there may
 * be more to do. */
static bool run_producer_turn(struct producer *producer)
{
    rescan_store(producer);
    bool paused = atomic_load(&producer->source->paused) != 0;
    bool did_work = process_producer_unlock_orphaned(producer);
    if (!paused &&
        process_producer_has_due_event(producer)) /* before a new page, which takes all the room there is */
        did_work |= process_producer_claim_events(producer);
    did_work |= process_producer_handle_fetched_page(producer);
    if (!paused)
        did_work |= process_producer_claim_events(producer);
    did_work |= process_producer_request_page(producer);
    report_if_empty(producer);
    return did_work;
}

/* Returns whether there are events that the producer cannot claim only because the first stage's ring is
 * full or no ticket is free (each event in flight needs one). Then it sleeps until a worker makes room and
 * wakes it. */
static bool is_waiting_for_room(const struct producer *producer)
{
    return producer->has_waiting_events || producer->page_waiting_since_ns != 0 ||
           producer->due_ms <= shm_realtime_ms();
}

/* Returns how many nanoseconds the producer may sleep: until the next fetch or the next delayed event
 * is due. If it waits for a worker to make room, a due event must not end the sleep, because the worker
 * wakes it. */
static uint64_t compute_sleep_ns(const struct producer *producer, bool waits_for_worker)
{
    uint64_t now_ns = shm_now_ns(), next_fetch_ns = process_producer_get_next_fetch_ns(producer);
    uint64_t sleep_ns = next_fetch_ns == UINT64_MAX ? WAKE_FOREVER
                        : next_fetch_ns > now_ns    ? next_fetch_ns - now_ns
                                                    : 0;
    if (producer->due_ms != UINT64_MAX && !waits_for_worker && atomic_load(&producer->source->paused) == 0) {
        /* At most a minute at a time: the wall clock may be set. */
        uint64_t now_ms = shm_realtime_ms();
        uint64_t due_ms = producer->due_ms > now_ms ? producer->due_ms - now_ms : 0;
        uint64_t due_ns = (due_ms < 60000 ? due_ms : 60000) * 1000000 + 500000;
        sleep_ns = due_ns < sleep_ns ? due_ns : sleep_ns;
    }
    return sleep_ns;
}

/* Returns whether the producer's next turn would do anything. The producer checks it between wake_prepare
 * and wake_sleep; a wake-up after that ends the sleep, so none is missed. */
static bool has_work_to_do(struct producer *producer)
{
    const struct shm_source *source = producer->source;
    if (atomic_load(&source->orphans) != 0 || atomic_load(&source->rescan) != 0 ||
        (atomic_load(&producer->fetcher.state) == FETCHER_ANSWERED && producer->page_waiting_since_ns == 0) ||
        (must_report_empty(producer) && is_source_empty(producer)))
        return true;
    if (atomic_load(&source->paused) != 0)
        return false;
    return atomic_load(&source->next_due_ms) != UINT64_MAX ||
           (is_waiting_for_room(producer) && process_producer_compute_claim_limit(producer) > 0);
}

/* What a turn depends on. It is read before the turn and again before the sleep: a change in between may
 * have come too late for the turn, and its wake-up too early for the sleep. */
struct turn_conditions {
    uint32_t phase;
    bool paused;
};

static struct turn_conditions read_turn_conditions(const struct producer *producer)
{
    return (struct turn_conditions){process_get_phase(&producer->process),
                                    atomic_load(&producer->source->paused) != 0};
}

/* Puts the producer to sleep until a worker, the fetcher thread, the keeper, the supervisor or a due time
 * wakes it. The producer's loop runs this after a turn that did nothing. `conditions_before` is the phase
 * and pause that the turn has seen; if they have changed since, it does not sleep. */
static void sleep_until_work(struct producer *producer, struct turn_conditions conditions_before)
{
    struct shm_slot *slot = producer->process.slot;
    struct shm_stage *first = segment_stage(&producer->child->segment, producer->source->first_stage);
    bool is_blocked = is_waiting_for_room(producer);
    slot_set_state(slot, conditions_before.paused ? SHM_SLOT_PAUSED
                         : is_blocked             ? SHM_SLOT_BLOCKED
                                                  : SHM_SLOT_IDLE);
    uint32_t key = wake_prepare(slot);
    if (is_blocked)
        wake_want_room(&first->ring);
    if (is_blocked || must_report_empty(producer))
        wake_want_ticket(producer->source);
    struct turn_conditions conditions_now = read_turn_conditions(producer);
    if (has_work_to_do(producer) || conditions_now.phase != conditions_before.phase ||
        conditions_now.paused != conditions_before.paused)
        wake_cancel(slot);
    else
        wake_sleep(slot, key, compute_sleep_ns(producer, is_blocked));
    slot_set_state(slot, SHM_SLOT_BUSY);
}

/* Returns whether all workers of the source have exited. The producer checks it at a stop: only then can
 * no worker commit an event that the producer unlocks. */
static bool have_workers_exited(const struct producer *producer)
{
    const struct segment *segment = &producer->child->segment;
    for (uint32_t i = 0; i < producer->source->stage_count; i++) {
        const struct shm_stage *stage = segment_stage(segment, producer->source->first_stage + i);
        for (uint32_t j = 0; j < stage->concurrency; j++)
            if (atomic_load(&segment_slot(segment, stage->first_slot + j)->state) != SHM_SLOT_EMPTY)
                return false;
    }
    return true;
}

/* Sleeps until all workers of the source have exited; the supervisor wakes the producer after each
 * exit. The producer runs it at a stop, before it unlocks the events in flight. */
static void wait_for_workers(struct producer *producer)
{
    for (;;) {
        uint32_t key = wake_prepare(producer->process.slot);
        if (have_workers_exited(producer)) {
            wake_cancel(producer->process.slot);
            return;
        }
        wake_sleep(producer->process.slot, key, WAKE_FOREVER);
    }
}

/* The main function of a producer process. The supervisor calls it in the child after fork; it never
 * returns. At a clean stop the producer leaves after its workers and leaves no event locked. */
void process_producer_main(const struct child_context *child, uint32_t source)
{
    static struct producer producer;
    open_producer(&producer, child, source);
    while (!process_is_stopping(&producer.process)) {
        process_set_title("%s %s", producer.name,
                          shm_source_state_name(atomic_load(&producer.source->state)));
        struct turn_conditions turn_conditions = read_turn_conditions(&producer);
        if (!run_producer_turn(&producer))
            sleep_until_work(&producer, turn_conditions);
    }
    slot_set_state(producer.process.slot, SHM_SLOT_STOPPING);
    process_fetcher_close(&producer.fetcher, 1000);
    wait_for_workers(&producer);
    process_producer_unlock_in_flight(&producer);
    process_producer_set_state(&producer, SHM_SOURCE_STOPPED);
    store_close(&producer.process.store);
    _exit(CHILD_DONE);
}
