/* SPDX-License-Identifier: MIT */
/*
 * Tickets out and back: claims events in the store and hands them to their stages; unlocks in the store
 * what exited processes held. Runs in producers. Only this file loads tickets of its source.
 *
 * Invariants
 *  1. A ticket names its event and token before the claim's transaction commits. So after any kill, each
 *     lock of this run in the store is named by a ticket, or its transaction was rolled back.
 *  2. An unlock is by token and comes before the ticket is freed. A kill in between repeats the unlock,
 *     and a repeated unlock changes nothing.
 *
 * Survived: a store that cannot be written (the claim is undone, or tried again).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/ring.h"
#include "shm/ticket.h"
#include "src/base/backoff.h"
#include "src/base/log.h"
#include "src/process/chain.h"
#include "src/process/producer.h"
#include "src/stage/stage.h"

#define UNLOCK_BATCH_MAX 256 /* events unlocked or completed in one transaction */

/* Allocates the producer's lists of the tickets (a ticket says which process has an event in flight) that
 * one claim uses and of the stages at which their events enter. The producer calls it once at its start.
 * Returns 0 or EP_ENOMEM. */
int process_producer_claim_open(struct producer *producer)
{
    producer->loaded_capacity = producer->source->ticket_count;
    producer->loaded_tickets = calloc(producer->loaded_capacity, sizeof *producer->loaded_tickets);
    producer->entry_positions = calloc(producer->loaded_capacity, sizeof *producer->entry_positions);
    return producer->loaded_tickets == NULL || producer->entry_positions == NULL ? EP_ENOMEM : 0;
}

/* Returns how many events the producer may claim now, 0 until a claim is worth its transaction: until
 * half of the first stage's ring is empty and, unless the ring is empty, a quarter of the source's
 * tickets is free. Idle workers of the first stage add one event each. The producer calls it before
 * each claim. */
size_t process_producer_compute_claim_limit(struct producer *producer)
{
    const struct shm_stage *first = segment_stage(&producer->child->segment, producer->source->first_stage);
    uint32_t waiting_count = ring_count(&first->ring), ring_capacity = first->ring.limit;
    if (waiting_count * 2 > ring_capacity)
        return 0;
    uint32_t ticket_total = producer->source->ticket_count;
    uint32_t tickets_used = ticket_count(&producer->child->segment, producer->source, NULL, NULL);
    uint32_t free_tickets = ticket_total > tickets_used ? ticket_total - tickets_used : 0;
    if (free_tickets < ticket_total / 4 && waiting_count > 0)
        return 0;
    uint32_t claim_limit =
        ring_capacity - waiting_count + wake_count_idle_workers(&producer->child->segment, first);
    return claim_limit < free_tickets ? claim_limit : free_tickets;
}

/* Prepares the claim of up to `limit` events, with a new token (the number of the claim, with which the
 * store marks the events that it locks). The producer calls it before each transaction that claims: with a
 * page, or of stored events. */
struct store_claim process_producer_prepare_claim(struct producer *producer, size_t limit)
{
    uint64_t claims = atomic_fetch_add(&producer->source->claims, 1) + 1;
    uint64_t start = atomic_load_explicit(&producer->process.header->start_number, memory_order_relaxed);
    producer->loaded_count = 0;
    return (struct store_claim){.token = STORE_TOKEN(start, claims), .limit = limit};
}

/* Records each claimed event in a ticket (who has an event in flight) in shared memory, so that the next
 * producer finds it if this one crashes, and then commits the claim. The producer calls it while the
 * store's transaction is open. Returns 0, or the store's error code with all tickets free again. */
int process_producer_commit_claim(struct producer *producer, uint64_t token,
                                  const struct store_claimed *claimed)
{
    const struct segment *segment = &producer->child->segment;
    for (size_t i = 0; i < claimed->count; i++) {
        uint32_t ticket =
            ticket_load(segment, producer->source, producer->child->slot, &producer->ticket_hint);
        ticket_bind(segment, ticket, claimed->events[i].event, token);
        producer->loaded_tickets[i] = ticket;
        producer->entry_positions[i] =
            (uint32_t)process_chain_find_next(producer->config, claimed->events[i].done);
    }
    producer->loaded_count = claimed->count;
    int result = store_claim_end(producer->process.store);
    if (result == 0)
        return 0;
    for (size_t i = 0; i < producer->loaded_count; i++)
        ticket_free(segment, producer->loaded_tickets[i], producer->child->slot);
    producer->loaded_count = 0;
    return result;
}

/* Completes events that the producer has claimed, but whose stages are all done already; this happens
 * after the last stage was dropped from the configuration. The producer runs it after a claim: no worker
 * would ever take these events. */
static void complete_finished_events(struct producer *producer, const uint32_t *tickets, size_t count)
{
    const struct segment *segment = &producer->child->segment;
    struct store_answer answers[UNLOCK_BATCH_MAX];
    for (size_t first = 0; first < count; first += UNLOCK_BATCH_MAX) {
        size_t batch_count = count - first < UNLOCK_BATCH_MAX ? count - first : UNLOCK_BATCH_MAX;
        for (size_t i = 0; i < batch_count; i++) {
            struct ticket_view view = ticket_read(segment, tickets[first + i]);
            answers[i] = (struct store_answer){.lock = {view.event, view.token}, .change = STORE_COMPLETE};
        }
        while (!process_check_store_result(&producer->process,
                                           store_commit(producer->process.store, producer->store_id, 0,
                                                        answers, batch_count)))
            if (process_is_stopping(&producer->process))
                return; /* their tickets stay LOADING, and are unlocked at the end */
        for (size_t i = 0; i < batch_count; i++)
            ticket_free(segment, tickets[first + i], producer->child->slot);
    }
}

/* Puts the events that the producer has claimed into the rings of their next stages and wakes workers;
 * completes those that no stage has to run. The producer calls it after the claim's commit, never before:
 * a worker must not see an event that may be rolled back. */
void process_producer_publish_claim(struct producer *producer)
{
    const struct segment *segment = &producer->child->segment;
    uint32_t stage_count = producer->source->stage_count, complete_count = 0;
    bool was_pushed_to[stage_count];
    memset(was_pushed_to, 0, sizeof was_pushed_to);
    if (producer->loaded_count > 0 && atomic_load(&producer->source->ended) != 0)
        atomic_store(&producer->source->ended, 0);
    for (size_t i = 0; i < producer->loaded_count; i++) {
        uint32_t ticket = producer->loaded_tickets[i], position = producer->entry_positions[i];
        if (position >= stage_count) {
            producer->loaded_tickets[complete_count++] = ticket;
            continue;
        }
        if (ticket_pass_on(segment, producer->source, ticket, producer->child->slot, position))
            was_pushed_to[position] = true;
    }
    producer->loaded_count = 0;
    for (uint32_t i = 0; i < stage_count; i++)
        if (was_pushed_to[i])
            wake_stage(segment, segment_stage(segment, producer->source->first_stage + i));
    complete_finished_events(producer, producer->loaded_tickets, complete_count);
    process_notify_keeper(producer->child);
}

/* Returns whether a delayed event of the producer's source is due for its retry. Also takes over the due
 * times that workers have reported through shared memory. The producer calls it in each turn. */
bool process_producer_has_due_event(struct producer *producer)
{
    uint64_t reported_ms = atomic_exchange(&producer->source->next_due_ms, UINT64_MAX);
    if (reported_ms < producer->due_ms)
        producer->due_ms = reported_ms;
    return producer->due_ms <= shm_realtime_ms();
}

/* Claims stored events that are ready or due, if the first stage has room, and hands them to their
 * stages. The producer calls it in each turn while the source is not paused. Returns whether it claimed
 * something or must try again. */
bool process_producer_claim_events(struct producer *producer)
{
    if (!process_producer_has_due_event(producer) && !producer->has_waiting_events)
        return false;
    uint64_t now_ms = shm_realtime_ms();
    size_t claim_limit = process_producer_compute_claim_limit(producer);
    if (claim_limit == 0)
        return false;
    const struct store_claim claim = process_producer_prepare_claim(producer, claim_limit);
    struct store_claimed claimed;
    int result = store_claim_begin(producer->process.store, producer->store_id, now_ms, &claim, &claimed);
    if (result == 0)
        result = process_producer_commit_claim(producer, claim.token, &claimed);
    if (!process_check_store_result(&producer->process, result))
        return true;
    if (claimed.count > 0)
        process_mark_progress(&producer->process);
    process_producer_publish_claim(producer);
    producer->has_waiting_events = claimed.more;
    producer->due_ms = claimed.next_due_ms;
    return claimed.count > 0;
}

/* Writes the error text of an event whose worker crashed or timed out: the supervisor's message about
 * the exit, or the kind of exit with its code. The producer runs it before it unlocks the event;
 * `eventpipe show` displays the text. */
static void format_cause_message(const struct shm_cause *cause, char *buffer, size_t size)
{
    char message[SHM_TEXT_BYTES + 1];
    memcpy(message, cause->message, SHM_TEXT_BYTES);
    message[SHM_TEXT_BYTES] = '\0';
    if (message[0] != '\0')
        snprintf(buffer, size, "%s", message);
    else
        snprintf(buffer, size, "%s %d", shm_cause_name(cause->kind), cause->code);
}

/* Fills in what the exit of a worker means for the event that it had: nothing, or a crash or a timeout,
 * which count against the event. The producer runs it before it unlocks the event in the store. `message`
 * gets the error text and must live as long as *unlock. */
static void fill_unlock_cause(struct producer *producer, uint32_t ticket, struct store_unlock *unlock,
                              char *message, size_t size)
{
    const struct shm_cause *cause = segment_cause(&producer->child->segment, ticket);
    unlock->pid = cause->pid;
    if (cause->kind == SHM_CAUSE_NONE && cause->pid == 0)
        return;
    const struct shm_stage *stage = segment_stage(&producer->child->segment, cause->stage);
    unlock->stage = atomic_load(&stage->store_id);
    if (cause->kind == SHM_CAUSE_NONE)
        return;
    const struct stage_config *config = &producer->config->stages[stage->position];
    unlock->timed_out = cause->kind == SHM_CAUSE_TIMEOUT;
    unlock->crashed = !unlock->timed_out;
    unlock->max_crashes = config->max_crashes;
    unlock->max_attempts = config->max_attempts;
    uint64_t now_ms = shm_realtime_ms();
    unlock->due_ms = now_ms + base_backoff_ms(config->retry.min_ms, config->retry.max_ms,
                                              cause->attempts + cause->crashes + 1, arc4random());
    unlock->expired = config->max_age_ms > 0 && now_ms >= cause->arrival_ms + config->max_age_ms;
    format_cause_message(cause, message, size);
    unlock->error = message;
}

/* Collects up to UNLOCK_BATCH_MAX orphaned tickets: those of events that an exited process still had.
 * Searches from *next_index on, fills one unlock for each, which frees the event for another try (event 0:
 * the process exited before it had one), and returns how many. The producer runs it after an exit. */
static size_t collect_orphaned_tickets(struct producer *producer, uint32_t *next_index, uint32_t *tickets,
                                       struct store_unlock *unlocks, char (*cause_texts)[SHM_TEXT_BYTES + 16])
{
    const struct shm_source *source = producer->source;
    size_t count = 0;
    for (; *next_index < source->ticket_count && count < UNLOCK_BATCH_MAX; ++*next_index) {
        uint32_t ticket = source->first_ticket + *next_index;
        struct ticket_view view = ticket_read(&producer->child->segment, ticket);
        if (view.phase != TICKET_ORPHANED)
            continue;
        tickets[count] = ticket;
        unlocks[count] = (struct store_unlock){.lock = {view.event, view.token}};
        if (view.event != 0)
            fill_unlock_cause(producer, ticket, &unlocks[count], cause_texts[count],
                              sizeof cause_texts[count]);
        count++;
    }
    return count;
}

/* Unlocks one batch of orphaned events (those whose worker has exited) in the store, for another try, then
 * frees their tickets: in this order a crash in between only repeats the unlock. The producer runs it.
 * Returns false if there were none, or the instance stops. */
static bool unlock_orphaned_batch(struct producer *producer, uint32_t *next_index)
{
    static uint32_t tickets[UNLOCK_BATCH_MAX];
    static struct store_unlock unlocks[UNLOCK_BATCH_MAX];
    static char cause_texts[UNLOCK_BATCH_MAX][SHM_TEXT_BYTES + 16];
    size_t count = collect_orphaned_tickets(producer, next_index, tickets, unlocks, cause_texts);
    if (count == 0)
        return false;
    while (!process_check_store_result(&producer->process, store_unlock(producer->process.store,
                                                                        producer->store_id, unlocks, count)))
        if (process_is_stopping(&producer->process))
            return false; /* the next start voids these locks */
    for (size_t i = 0; i < count; i++) {
        if (unlocks[i].due_ms > 0 && unlocks[i].due_ms < producer->due_ms)
            producer->due_ms = unlocks[i].due_ms;
        ticket_free_orphan(&producer->child->segment, tickets[i]);
    }
    producer->has_waiting_events = true;
    process_mark_progress(&producer->process);
    base_log_debug("unlock events=%zu", count);
    return true;
}

/* Unlocks in the store the events that exited workers or an earlier producer held, so that they run
 * again. The producer calls it in each turn; it does nothing unless the supervisor has reported such an
 * exit. Returns whether it unlocked any. */
bool process_producer_unlock_orphaned(struct producer *producer)
{
    if (atomic_exchange(&producer->source->orphans, 0) == 0)
        return false;
    uint32_t next_index = 0;
    bool unlocked_any = false;
    while (unlock_orphaned_batch(producer, &next_index))
        unlocked_any = true;
    if (unlocked_any) {
        store_rescan(producer->process.store, producer->store_id);
        process_notify_keeper(producer->child);
    }
    return unlocked_any;
}

/* Unlocks in the store every event of the source that a ticket names (all that are in flight), and counts
 * no crash against them. The producer calls it at a clean stop, after its workers have exited, so that no
 * event stays locked. */
void process_producer_unlock_in_flight(struct producer *producer)
{
    const struct shm_source *source = producer->source;
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        uint32_t ticket = source->first_ticket + i;
        enum ticket_phase phase = ticket_read(&producer->child->segment, ticket).phase;
        if (phase == TICKET_FREE || phase == TICKET_ORPHANED)
            continue;
        struct shm_cause *cause = segment_cause(&producer->child->segment, ticket);
        cause->kind = SHM_CAUSE_NONE;
        cause->pid = 0;
        ticket_revoke(&producer->child->segment, ticket);
    }
    uint32_t next_index = 0;
    while (unlock_orphaned_batch(producer, &next_index))
        ;
}

bool process_producer_has_nothing_in_flight(const struct producer *producer)
{
    return ticket_count(&producer->child->segment, producer->source, NULL, NULL) == 0;
}
