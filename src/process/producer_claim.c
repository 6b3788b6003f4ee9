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

#define UNLOCK_MAX 256 /* in one transaction */

/* Allocates the list of tickets that one claim may load. The producer calls it once at its start. 0 or
 * EP_ENOMEM. */
int process_producer_claim_open(struct producer *producer)
{
    producer->loaded_room = producer->source->ticket_count;
    producer->loaded = calloc(producer->loaded_room, sizeof *producer->loaded);
    producer->entry = calloc(producer->loaded_room, sizeof *producer->entry);
    return producer->loaded == NULL || producer->entry == NULL ? EP_ENOMEM : 0;
}

/* Returns how many events the producer may claim now; 0 until a claim is worth its transaction. It waits
 * until half of the first stage's ring is empty; the other half keeps the stage busy meanwhile. When
 * tickets are short, a quarter of them is enough, or any number if the ring is empty. */
size_t process_producer_claim_room(struct producer *producer)
{
    const struct shm_stage *first = segment_stage(&producer->child->segment, producer->source->first_stage);
    uint32_t waiting = ring_count(&first->ring), limit = first->ring.limit;
    if (waiting * 2 > limit)
        return 0;
    uint32_t total = producer->source->ticket_count;
    uint32_t used = ticket_count(&producer->child->segment, producer->source, NULL, NULL);
    uint32_t unused = total > used ? total - used : 0;
    if (unused < total / 4 && waiting > 0)
        return 0;
    uint32_t room = limit - waiting + wake_idle(&producer->child->segment, first);
    return room < unused ? room : unused;
}

/* Prepares the claim of up to `limit` events with a new token. The producer calls it before each
 * transaction that claims: a page, or older and delayed events. */
struct store_claim process_producer_claim_next(struct producer *producer, size_t limit)
{
    uint64_t claims = atomic_fetch_add(&producer->source->claims, 1) + 1;
    uint64_t start = atomic_load_explicit(&producer->process.header->start_number, memory_order_relaxed);
    producer->loaded_count = 0;
    return (struct store_claim){.token = STORE_TOKEN(start, claims), .limit = limit};
}

/* Records each claimed event in a ticket in shared memory, so that a successor finds the lock after a crash,
 * and then commits the claim. The producer calls it while the store's transaction is open. If the commit
 * fails, it frees the tickets and returns what the store returned. */
int process_producer_claim_end(struct producer *producer, uint64_t token, const struct store_claimed *claimed)
{
    const struct segment *segment = &producer->child->segment;
    for (size_t i = 0; i < claimed->count; i++) {
        uint32_t ticket =
            ticket_load(segment, producer->source, producer->child->slot, &producer->ticket_hint);
        ticket_bind(segment, ticket, claimed->events[i].event, token);
        producer->loaded[i] = ticket;
        producer->entry[i] = (uint32_t)process_chain_next(producer->config, claimed->events[i].done);
    }
    producer->loaded_count = claimed->count;
    int result = store_claim_end(producer->process.store);
    if (result == 0)
        return 0;
    for (size_t i = 0; i < producer->loaded_count; i++)
        ticket_free(segment, producer->loaded[i], producer->child->slot);
    producer->loaded_count = 0;
    return result;
}

/* Completes claimed events whose stages are all done, as after the last stage was dropped from the
 * configuration. The producer runs it after a claim; no worker would ever take these events. */
static void finish_complete(struct producer *producer, const uint32_t *tickets, size_t count)
{
    const struct segment *segment = &producer->child->segment;
    struct store_answer answers[UNLOCK_MAX];
    for (size_t first = 0; first < count; first += UNLOCK_MAX) {
        size_t some = count - first < UNLOCK_MAX ? count - first : UNLOCK_MAX;
        for (size_t i = 0; i < some; i++) {
            struct ticket_view view = ticket_look(segment, tickets[first + i]);
            answers[i] = (struct store_answer){.lock = {view.event, view.token}, .change = STORE_COMPLETE};
        }
        while (!process_store_done(&producer->process, store_commit(producer->process.store,
                                                                    producer->store_id, 0, answers, some)))
            if (process_stopping(&producer->process))
                return; /* their tickets stay LOADING, and are unlocked at the end */
        for (size_t i = 0; i < some; i++)
            ticket_free(segment, tickets[first + i], producer->child->slot);
    }
}

/* Hands the claimed events to the rings of their stages and wakes workers. The producer calls it after the
 * claim's commit, never before: a worker must not see an event that may be rolled back. */
void process_producer_claim_publish(struct producer *producer)
{
    const struct segment *segment = &producer->child->segment;
    uint32_t stages = producer->source->stage_count, complete = 0;
    bool pushed[stages];
    memset(pushed, 0, sizeof pushed);
    if (producer->loaded_count > 0 && atomic_load(&producer->source->ended) != 0)
        atomic_store(&producer->source->ended, 0);
    for (size_t i = 0; i < producer->loaded_count; i++) {
        uint32_t ticket = producer->loaded[i], position = producer->entry[i];
        if (position >= stages) {
            producer->loaded[complete++] = ticket;
            continue;
        }
        if (ticket_pass(segment, producer->source, ticket, producer->child->slot, position))
            pushed[position] = true;
    }
    producer->loaded_count = 0;
    for (uint32_t i = 0; i < stages; i++)
        if (pushed[i])
            wake_stage(segment, segment_stage(segment, producer->source->first_stage + i));
    finish_complete(producer, producer->loaded, complete);
    process_notify_keeper(producer->child);
}

/* Whether a delayed event is due for its retry. The producer calls it in each turn; workers report the due
 * times of their delays through shared memory. */
bool process_producer_claim_overdue(struct producer *producer)
{
    uint64_t reported_ms = atomic_exchange(&producer->source->next_due_ms, UINT64_MAX);
    if (reported_ms < producer->due_ms)
        producer->due_ms = reported_ms;
    return producer->due_ms <= shm_realtime_ms();
}

/* Claims ready and due events from the store, if the first stage has room, and hands them to their stages.
 * The producer calls it in each turn while the source is not paused. True: it claimed something or must
 * try again. */
bool process_producer_claim_due(struct producer *producer)
{
    if (!process_producer_claim_overdue(producer) && !producer->waiting)
        return false;
    uint64_t now_ms = shm_realtime_ms();
    size_t room = process_producer_claim_room(producer);
    if (room == 0)
        return false;
    const struct store_claim claim = process_producer_claim_next(producer, room);
    struct store_claimed claimed;
    int result = store_claim_begin(producer->process.store, producer->store_id, now_ms, &claim, &claimed);
    if (result == 0)
        result = process_producer_claim_end(producer, claim.token, &claimed);
    if (!process_store_done(&producer->process, result))
        return true;
    if (claimed.count > 0)
        process_mark_progress(&producer->process);
    process_producer_claim_publish(producer);
    producer->waiting = claimed.more;
    producer->due_ms = claimed.next_due_ms;
    return claimed.count > 0;
}

/* Writes the error of an event whose worker crashed or timed out: what the supervisor recorded about the
 * exit. The producer runs it before it unlocks the event; `eventpipe show` displays it. */
static void cause_message(const struct shm_cause *cause, char *buffer, size_t size)
{
    char message[SHM_TEXT_BYTES + 1];
    memcpy(message, cause->message, SHM_TEXT_BYTES);
    message[SHM_TEXT_BYTES] = '\0';
    if (message[0] != '\0')
        snprintf(buffer, size, "%s", message);
    else
        snprintf(buffer, size, "%s %d", shm_cause_name(cause->kind), cause->code);
}

/* Fills in what the exit of a worker means for the event it held: nothing, a crash that counts, or a
 * timeout. The producer runs it before it unlocks the event in the store. */
static void blame(struct producer *producer, uint32_t ticket, struct store_unlock *unlock, char *message,
                  size_t size)
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
    cause_message(cause, message, size);
    unlock->error = message;
}

/* Collects the next tickets that exited processes left (at most UNLOCK_MAX), with the unlock of each. The
 * producer runs it after the supervisor has reported orphans. */
static size_t collect_orphans(struct producer *producer, uint32_t *next, uint32_t *tickets,
                              struct store_unlock *unlocks, char (*message)[SHM_TEXT_BYTES + 16])
{
    const struct shm_source *source = producer->source;
    size_t count = 0;
    for (; *next < source->ticket_count && count < UNLOCK_MAX; ++*next) {
        uint32_t ticket = source->first_ticket + *next;
        struct ticket_view view = ticket_look(&producer->child->segment, ticket);
        if (view.phase != TICKET_ORPHANED)
            continue;
        tickets[count] = ticket;
        unlocks[count] = (struct store_unlock){.lock = {view.event, view.token}};
        if (view.event != 0)
            blame(producer, ticket, &unlocks[count], message[count], sizeof message[count]);
        count++;
    }
    return count;
}

/* Unlocks one batch of orphaned events in the store, then frees their tickets: in this order a crash in
 * between only repeats the unlock. The producer runs it. False: there were none, or the stop came. */
static bool unlock_some(struct producer *producer, uint32_t *next)
{
    static uint32_t tickets[UNLOCK_MAX];
    static struct store_unlock unlocks[UNLOCK_MAX];
    static char message[UNLOCK_MAX][SHM_TEXT_BYTES + 16];
    size_t count = collect_orphans(producer, next, tickets, unlocks, message);
    if (count == 0)
        return false;
    while (!process_store_done(&producer->process,
                               store_unlock(producer->process.store, producer->store_id, unlocks, count)))
        if (process_stopping(&producer->process))
            return false; /* the next start voids these locks */
    for (size_t i = 0; i < count; i++) {
        if (unlocks[i].due_ms > 0 && unlocks[i].due_ms < producer->due_ms)
            producer->due_ms = unlocks[i].due_ms;
        ticket_free_orphan(&producer->child->segment, tickets[i]);
    }
    producer->waiting = true;
    process_mark_progress(&producer->process);
    base_log_debug("unlock events=%zu", count);
    return true;
}

/* Unlocks in the store the events that exited workers (or an earlier producer) held, so that they run
 * again. The producer calls it in each turn; it does nothing unless the supervisor has reported orphans.
 * True: it unlocked some. */
bool process_producer_claim_unlock_orphans(struct producer *producer)
{
    if (atomic_exchange(&producer->source->orphans, 0) == 0)
        return false;
    uint32_t next = 0;
    bool any = false;
    while (unlock_some(producer, &next))
        any = true;
    if (any) {
        store_rescan(producer->process.store, producer->store_id);
        process_notify_keeper(producer->child);
    }
    return any;
}

/* Unlocks every event of the source in flight, without blame. The producer calls it at a clean stop, after
 * its workers have exited, so that the next start finds no locked events. */
void process_producer_claim_unlock_all(struct producer *producer)
{
    const struct shm_source *source = producer->source;
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        uint32_t ticket = source->first_ticket + i;
        enum ticket_phase phase = ticket_look(&producer->child->segment, ticket).phase;
        if (phase == TICKET_FREE || phase == TICKET_ORPHANED)
            continue;
        struct shm_cause *cause = segment_cause(&producer->child->segment, ticket);
        cause->kind = SHM_CAUSE_NONE;
        cause->pid = 0;
        ticket_revoke(&producer->child->segment, ticket);
    }
    uint32_t next = 0;
    while (unlock_some(producer, &next))
        ;
}

bool process_producer_nothing_in_flight(const struct producer *producer)
{
    return ticket_count(&producer->child->segment, producer->source, NULL, NULL) == 0;
}
