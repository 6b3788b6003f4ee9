/* SPDX-License-Identifier: MIT */
/*
 * Tickets out and back: claims events in the store and hands them to their stages; releases in the store what
 * dead processes held. Runs in producers; the only one that loads tickets of its source.
 *
 * Invariants
 *  1. A ticket names its event and token before the claim's transaction commits. So whatever the kill, every
 * lock in the store of this run is named by a ticket, or the transaction was rolled back.
 *  2. A release is by token and comes before the ticket is buried: a kill in between repeats it, and a
 * repeated release changes nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/ring.h"
#include "shm/ticket.h"
#include "src/base/backoff.h"
#include "src/process/chain.h"
#include "src/base/log.h"
#include "src/process/producer.h"
#include "src/stage/stage.h"

#define RELEASE_MAX 256 /* in one transaction */

int claims_open(struct producer *producer)
{
    producer->loaded_room = producer->source->ticket_count;
    producer->loaded = calloc(producer->loaded_room, sizeof *producer->loaded);
    producer->entry = calloc(producer->loaded_room, sizeof *producer->entry);
    return producer->loaded == NULL || producer->entry == NULL ? EP_ENOMEM : 0;
}

/*
 * A claim is a transaction, so it waits until it is worth one: until half of the first ring is empty. The
 * other half keeps the first stage busy meanwhile. Short of tickets, a quarter of them will do, or any when
 * the first ring is empty.
 */
size_t claim_room(struct producer *producer)
{
    const struct shm_stage *first = segment_stage(&producer->inherit->segment, producer->source->first_stage);
    uint32_t waiting = ring_count(&first->ring), limit = first->ring.limit;
    if (waiting * 2 > limit)
        return 0;
    uint32_t total = producer->source->ticket_count;
    uint32_t used = ticket_count(&producer->inherit->segment, producer->source, NULL, NULL);
    uint32_t unused = total > used ? total - used : 0;
    if (unused < total / 4 && waiting > 0)
        return 0;
    uint32_t room = limit - waiting + wake_idle(&producer->inherit->segment, first);
    return room < unused ? room : unused;
}

static bool load_ticket(int64_t event, const char *done, void *user)
{
    struct producer *producer = user;
    const struct segment *segment = &producer->inherit->segment;
    uint32_t ticket = ticket_load(segment, producer->source, producer->inherit->slot, &producer->ticket_hint);
    if (ticket == SHM_NO_TICKET)
        return false;
    ticket_bind(segment, ticket, event, producer->token);
    producer->loaded[producer->loaded_count] = ticket;
    producer->entry[producer->loaded_count++] = (uint32_t)chain_next(producer->config, done);
    return true;
}

void claim_begin(struct producer *producer, struct store_claim *claim, size_t limit)
{
    uint64_t claims = atomic_fetch_add(&producer->source->claims, 1) + 1;
    uint64_t start = atomic_load_explicit(&producer->process.header->start_number, memory_order_relaxed);
    producer->loaded_count = 0;
    producer->token = STORE_TOKEN(start, claims);
    *claim = (struct store_claim){.token = producer->token,
                                  .limit = limit,
                                  .on_claim = load_ticket,
                                  .user = producer};
}

/* All stages of the chain are done (one was dropped from its end): the event is finished here. */
static void finish_complete(struct producer *producer, const uint32_t *tickets, size_t count)
{
    const struct segment *segment = &producer->inherit->segment;
    struct store_answer answers[RELEASE_MAX];
    for (size_t first = 0; first < count; first += RELEASE_MAX) {
        size_t some = count - first < RELEASE_MAX ? count - first : RELEASE_MAX;
        for (size_t i = 0; i < some; i++) {
            struct ticket_view view = ticket_look(segment, tickets[first + i]);
            answers[i] = (struct store_answer){.lease = {view.event, view.token}, .change = STORE_FINISH};
        }
        while (!process_store_done(&producer->process, store_commit(producer->process.store,
                                                                    producer->store_id, 0, answers, some)))
            if (process_stopping(&producer->process))
                return; /* their tickets stay LOADING, and are released at the end */
        for (size_t i = 0; i < some; i++)
            ticket_free(segment, tickets[first + i], producer->inherit->slot);
    }
}

void claim_publish(struct producer *producer)
{
    const struct segment *segment = &producer->inherit->segment;
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
        if (ticket_pass(segment, producer->source, ticket, producer->inherit->slot, position))
            pushed[position] = true;
    }
    producer->loaded_count = 0;
    for (uint32_t i = 0; i < stages; i++)
        if (pushed[i])
            wake_stage(segment, segment_stage(segment, producer->source->first_stage + i));
    finish_complete(producer, producer->loaded, complete);
    keeper_nudge(producer->inherit);
}

void claim_undo(struct producer *producer)
{
    for (size_t i = 0; i < producer->loaded_count; i++)
        ticket_free(&producer->inherit->segment, producer->loaded[i], producer->inherit->slot);
    producer->loaded_count = 0;
}

bool claim_overdue(struct producer *producer)
{
    uint64_t told = atomic_exchange(&producer->source->next_due_ms, UINT64_MAX);
    if (told < producer->due_ms)
        producer->due_ms = told;
    return producer->due_ms <= shm_realtime_ms();
}

bool claim_due(struct producer *producer)
{
    if (!claim_overdue(producer) && !producer->waiting)
        return false;
    uint64_t now_ms = shm_realtime_ms();
    size_t room = claim_room(producer);
    if (room == 0)
        return false;
    struct store_claim claim;
    struct store_claimed claimed;
    claim_begin(producer, &claim, room);
    if (!process_store_done(&producer->process, store_claim(producer->process.store, producer->store_id,
                                                            now_ms, &claim, &claimed))) {
        claim_undo(producer);
        return true;
    }
    if (claimed.claimed > 0)
        process_worked(&producer->process);
    claim_publish(producer);
    producer->waiting = claimed.more;
    producer->due_ms = claimed.next_due_ms;
    return claimed.claimed > 0;
}

/* The words that stand as the event's reason: what happened, and the last words on stderr. */
static void cause_words(const struct shm_cause *cause, char *buffer, size_t size)
{
    char words[SHM_TEXT_BYTES + 1];
    memcpy(words, cause->words, SHM_TEXT_BYTES);
    words[SHM_TEXT_BYTES] = '\0';
    if (words[0] != '\0')
        snprintf(buffer, size, "%s", words);
    else
        snprintf(buffer, size, "%s %d", shm_cause_name(cause->kind), cause->code);
}

struct counts_read {
    uint32_t attempts, crashes;
    uint64_t arrival_ms; /* 0 = could not be read */
};

static int see_counts(size_t index, const struct store_row *row, void *user)
{
    (void)index;
    struct counts_read *counts = user;
    *counts = (struct counts_read){row->attempts, row->crashes, row->arrival_ms};
    return 0;
}

static void blame(struct producer *producer, uint32_t ticket, struct store_release *release, char *words,
                  size_t size)
{
    const struct shm_cause *cause = segment_cause(&producer->inherit->segment, ticket);
    release->pid = cause->pid;
    if (cause->kind == SHM_CAUSE_NONE && cause->pid == 0)
        return;
    const struct shm_stage *stage = segment_stage(&producer->inherit->segment, cause->stage);
    release->stage = atomic_load(&stage->store_id);
    if (cause->kind == SHM_CAUSE_NONE)
        return;
    const struct stage_config *config = &producer->config->stages[stage->position];
    struct counts_read counts = {0};
    store_read(producer->process.store, &release->lease, 1, see_counts, &counts);
    release->timed_out = cause->kind == SHM_CAUSE_TIMEOUT;
    release->crashed = !release->timed_out;
    release->max_crashes = config->max_crashes;
    release->max_attempts = config->max_attempts;
    uint64_t now_ms = shm_realtime_ms();
    release->due_ms =
        now_ms + base_backoff_ms(config->retry.min_ms, config->retry.max_ms, counts.attempts + counts.crashes + 1, arc4random());
    release->expired =
        config->max_age_ms > 0 && counts.arrival_ms > 0 && now_ms >= counts.arrival_ms + config->max_age_ms;
    cause_words(cause, words, size);
    release->words = words;
}

static size_t collect_orphans(struct producer *producer, uint32_t *next, uint32_t *tickets,
                              struct store_release *releases, char (*words)[SHM_TEXT_BYTES + 16])
{
    const struct shm_source *source = producer->source;
    size_t count = 0;
    for (; *next < source->ticket_count && count < RELEASE_MAX; ++*next) {
        uint32_t ticket = source->first_ticket + *next;
        struct ticket_view view = ticket_look(&producer->inherit->segment, ticket);
        if (view.phase != TICKET_ORPHANED)
            continue;
        tickets[count] = ticket;
        releases[count] = (struct store_release){.lease = {view.event, view.token}};
        if (view.event != 0)
            blame(producer, ticket, &releases[count], words[count], sizeof words[count]);
        count++;
    }
    return count;
}

static bool release_some(struct producer *producer, uint32_t *next)
{
    static uint32_t tickets[RELEASE_MAX];
    static struct store_release releases[RELEASE_MAX];
    static char words[RELEASE_MAX][SHM_TEXT_BYTES + 16];
    size_t count = collect_orphans(producer, next, tickets, releases, words);
    if (count == 0)
        return false;
    while (!process_store_done(&producer->process,
                               store_release(producer->process.store, producer->store_id, releases, count)))
        if (process_stopping(&producer->process))
            return false; /* the next start voids these locks */
    for (size_t i = 0; i < count; i++) {
        if (releases[i].due_ms > 0 && releases[i].due_ms < producer->due_ms)
            producer->due_ms = releases[i].due_ms;
        ticket_bury(&producer->inherit->segment, tickets[i]);
    }
    producer->waiting = true;
    process_worked(&producer->process);
    log_debug("release events=%zu", count);
    return true;
}

bool release_orphans(struct producer *producer)
{
    if (atomic_exchange(&producer->source->orphans, 0) == 0)
        return false;
    uint32_t next = 0;
    bool any = false;
    while (release_some(producer, &next))
        any = true;
    if (any) {
        store_rescan(producer->process.store, producer->store_id);
        keeper_nudge(producer->inherit);
    }
    return any;
}

void release_all(struct producer *producer)
{
    const struct shm_source *source = producer->source;
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        uint32_t ticket = source->first_ticket + i;
        enum ticket_phase phase = ticket_look(&producer->inherit->segment, ticket).phase;
        if (phase == TICKET_FREE || phase == TICKET_ORPHANED)
            continue;
        struct shm_cause *cause = segment_cause(&producer->inherit->segment, ticket);
        cause->kind = SHM_CAUSE_NONE;
        cause->pid = 0;
        ticket_revoke(&producer->inherit->segment, ticket);
    }
    uint32_t next = 0;
    while (release_some(producer, &next))
        ;
}

bool nothing_in_flight(const struct producer *producer)
{
    return ticket_count(&producer->inherit->segment, producer->source, NULL, NULL) == 0;
}
