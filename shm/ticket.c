/* SPDX-License-Identifier: MIT */
/*
 * Tickets: who owns each event in flight. Run by producers, workers and the supervisor, each for the changes
 * that ticket.h gives to it.
 *
 * Invariants
 *  1. A ticket's word is changed by compare-and-swap only, and by nobody but who may: the owner that the word
 *     names; for QUEUED any worker of that stage; for a crashed owner's the supervisor; for ORPHANED the
 *     producer. So an event has at most one owner at every instant.
 *  2. Event and token are written by the owner of a LOADING ticket only, and hold until it is FREE again.
 *  3. The generation grows with each use, so a swap prepared for one use never succeeds in another.
 *  4. Each function makes one change of state, in one instruction. Killed before it: nothing has happened.
 *     Killed after it: the word says whose turn it is, and the comment at each says what is left to do.
 *
 * One order is used for all swaps, seq_cst: it releases what the owner wrote before (event, token, and what
 * the store committed), acquires what the owner before wrote, and stands in one order with tickets_wanted
 * (wake.c), for which a FREE must not pass the look at who waits.
 */
#include "shm/ticket.h"

#include "shm/ring.h"

#include <string.h>

static uint64_t word_make(enum ticket_phase phase, uint32_t stage, uint32_t slot, uint32_t generation)
{
    return (uint64_t)phase << 60 | (uint64_t)(stage & 0xfffu) << 48 | (uint64_t)(slot & 0xffffu) << 32 |
           generation;
}

static enum ticket_phase word_phase(uint64_t word)
{
    return (enum ticket_phase)(word >> 60);
}

static uint32_t word_stage(uint64_t word)
{
    return (uint32_t)(word >> 48) & 0xfffu;
}

static uint32_t word_slot(uint64_t word)
{
    return (uint32_t)(word >> 32) & 0xffffu;
}

static uint32_t word_generation(uint64_t word)
{
    return (uint32_t)word;
}

static bool word_owned_by(uint64_t word, uint32_t slot)
{
    enum ticket_phase phase = word_phase(word);
    return (phase == TICKET_LOADING || phase == TICKET_RUNNING) && word_slot(word) == slot;
}

/* seq_cst: a producer that has set tickets_wanted must see every FREE that did not see it wanting (wake.c);
 * acquire is in it, for event and token. */
static uint64_t word_load(const struct shm_ticket *ticket)
{
    return atomic_load_explicit(&ticket->word, memory_order_seq_cst);
}

/* The one instruction that changes a ticket; its order is explained at the top. On failure *seen is what
 * stands there, and acquire lets the caller treat that as if it had loaded it. */
static bool word_swap(struct shm_ticket *ticket, uint64_t *seen, uint64_t next)
{
    return atomic_compare_exchange_strong_explicit(&ticket->word, seen, next, memory_order_seq_cst,
                                                   memory_order_acquire);
}

/* Acquire loads, for ticket_look: having seen the event of a later use, it sees the later word too. */
static void view_fill(struct ticket_view *view, const struct shm_ticket *ticket, uint64_t word)
{
    view->phase = word_phase(word);
    view->stage = word_stage(word);
    view->slot = word_slot(word);
    view->generation = word_generation(word);
    view->event = atomic_load_explicit(&ticket->event, memory_order_acquire);
    view->token = atomic_load_explicit(&ticket->token, memory_order_acquire);
}

struct ticket_view ticket_look(const struct segment *segment, uint32_t ticket)
{
    const struct shm_ticket *it = segment_ticket(segment, ticket);
    struct ticket_view view;
    uint64_t word = word_load(it);
    for (int tries = 0; tries < 4; tries++) {
        view_fill(&view, it, word);
        uint64_t again = word_load(it);
        if (again == word)
            break;
        word = again;
    }
    return view;
}

/*
 * Tickets come free in about the order in which they were loaded, so the one behind the last that was loaded
 * is the likeliest to be free, and a table that is nearly full costs few looks.
 *
 * Killed after the swap: LOADING with the event and token of an earlier use, or half of them new. Orphaned,
 * its release by token finds nothing in the store, because no claim with a new token was committed and the
 * old token's lock is gone.
 */
uint32_t ticket_load(const struct segment *segment, const struct shm_source *source, uint32_t slot,
                     uint32_t *hint)
{
    uint32_t place = *hint < source->ticket_count ? *hint : 0;
    for (uint32_t looked = 0; looked < source->ticket_count; looked++) {
        uint32_t ticket = source->first_ticket + place;
        struct shm_ticket *it = segment_ticket(segment, ticket);
        uint64_t seen = word_load(it);
        place = place + 1 < source->ticket_count ? place + 1 : 0;
        if (word_phase(seen) == TICKET_FREE &&
            word_swap(it, &seen, word_make(TICKET_LOADING, 0, slot, word_generation(seen) + 1))) {
            *hint = place;
            return ticket;
        }
    }
    return SHM_NO_TICKET;
}

/* Release: whoever sees the new event or token sees that the ticket is LOADING by then (ticket_look). */
void ticket_bind(const struct segment *segment, uint32_t ticket, int64_t event, uint64_t token)
{
    struct shm_ticket *it = segment_ticket(segment, ticket);
    atomic_store_explicit(&it->event, event, memory_order_release);
    atomic_store_explicit(&it->token, token, memory_order_release);
}

/* Killed after the swap, before the push: QUEUED and in no ring; ticket_requeue_lost puts it in. */
bool ticket_queue(const struct segment *segment, uint32_t ticket, uint32_t slot, uint32_t stage)
{
    struct shm_ticket *it = segment_ticket(segment, ticket);
    uint64_t seen = word_load(it);
    while (word_owned_by(seen, slot))
        if (word_swap(it, &seen, word_make(TICKET_QUEUED, stage, SHM_NO_SLOT, word_generation(seen))))
            return true;
    return false;
}

/*
 * seq_cst for `fallen`: after the ticket's word became QUEUED, so that the supervisor, which clears it before
 * it looks for what fell out, finds the ticket. Killed before it: the recovery of that exit looks, too.
 */
bool ticket_pass(const struct segment *segment, struct shm_source *source, uint32_t ticket, uint32_t slot,
                 uint32_t stage)
{
    if (!ticket_queue(segment, ticket, slot, stage))
        return false;
    struct shm_ring *ring = &segment_stage(segment, source->first_stage + stage)->ring;
    if (ring_push(segment, ring, ticket) != RING_OK)
        atomic_store_explicit(&source->fallen, 1, memory_order_seq_cst);
    return true;
}

/* Killed after the swap: RUNNING; the supervisor orphans it. */
bool ticket_take(const struct segment *segment, uint32_t ticket, uint32_t stage, uint32_t slot,
                 struct ticket_view *out)
{
    struct shm_ticket *it = segment_ticket(segment, ticket);
    uint64_t seen = word_load(it);
    while (word_phase(seen) == TICKET_QUEUED && word_stage(seen) == stage) {
        uint64_t mine = word_make(TICKET_RUNNING, stage, slot, word_generation(seen));
        if (word_swap(it, &seen, mine)) {
            view_fill(out, it, mine);
            return true;
        }
    }
    return false;
}

/* Killed after the swap, before wake_ticket_freed: a producer that waits for it is woken by the supervisor.
 */
bool ticket_free(const struct segment *segment, uint32_t ticket, uint32_t slot)
{
    struct shm_ticket *it = segment_ticket(segment, ticket);
    uint64_t seen = word_load(it);
    while (word_owned_by(seen, slot))
        if (word_swap(it, &seen, word_make(TICKET_FREE, 0, SHM_NO_SLOT, word_generation(seen))))
            return true;
    return false;
}

/* Stage and slot stay in the word: they tell where the event was, and in whose hands. */
bool ticket_orphan(const struct segment *segment, uint32_t ticket, uint32_t slot)
{
    struct shm_ticket *it = segment_ticket(segment, ticket);
    uint64_t seen = word_load(it);
    while (word_owned_by(seen, slot))
        if (word_swap(it, &seen, word_make(TICKET_ORPHANED, word_stage(seen), slot, word_generation(seen))))
            return true;
    return false;
}

/*
 * The cause goes first, so that no later use of this ticket is blamed for this one: the producer alone
 * touches it while the ticket is ORPHANED. Killed after that: the store has released the event, blame and
 * all, and the successor's second release by the same token changes nothing.
 */
bool ticket_free_orphan(const struct segment *segment, uint32_t ticket)
{
    struct shm_ticket *it = segment_ticket(segment, ticket);
    uint64_t seen = word_load(it);
    if (word_phase(seen) != TICKET_ORPHANED)
        return false;
    struct shm_cause *cause = segment_cause(segment, ticket);
    cause->kind = SHM_CAUSE_NONE;
    cause->code = 0;
    cause->pid = 0;
    cause->message[0] = '\0';
    return word_swap(it, &seen, word_make(TICKET_FREE, 0, SHM_NO_SLOT, word_generation(seen)));
}

bool ticket_revoke(const struct segment *segment, uint32_t ticket)
{
    struct shm_ticket *it = segment_ticket(segment, ticket);
    uint64_t seen = word_load(it);
    while (word_phase(seen) != TICKET_FREE) {
        uint64_t next = word_make(TICKET_ORPHANED, word_stage(seen), word_slot(seen), word_generation(seen));
        if (seen == next || word_swap(it, &seen, next))
            return true;
    }
    return false;
}

uint32_t ticket_count(const struct segment *segment, const struct shm_source *source, uint32_t *queued,
                      uint32_t *running)
{
    uint32_t count = 0;
    if (queued != NULL)
        memset(queued, 0, source->stage_count * sizeof *queued);
    if (running != NULL)
        memset(running, 0, source->stage_count * sizeof *running);
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        uint64_t word = word_load(segment_ticket(segment, source->first_ticket + i));
        enum ticket_phase phase = word_phase(word);
        uint32_t stage = word_stage(word);
        count += phase != TICKET_FREE;
        if (queued != NULL && phase == TICKET_QUEUED && stage < source->stage_count)
            queued[stage]++;
        if (running != NULL && phase == TICKET_RUNNING && stage < source->stage_count)
            running[stage]++;
    }
    return count;
}

#define PART_TICKETS \
    65536u /* tickets looked at in one pass: 8 KiB of stack, and no malloc that could fail \
            */

/* A part of the table, and which of its tickets stand in the ring of the stage that they are queued for. */
struct part {
    const struct segment *segment;
    uint32_t first, count, stage;
    uint8_t in_ring[PART_TICKETS / 8];
};

static void on_queued_ticket(uint32_t ticket, void *user)
{
    struct part *part = user;
    uint32_t place = ticket - part->first; /* a smaller ticket wraps to a huge place */
    if (place >= part->count)
        return;
    uint64_t word = word_load(segment_ticket(part->segment, ticket));
    if (word_phase(word) == TICKET_QUEUED && word_stage(word) == part->stage)
        part->in_ring[place / 8] |= (uint8_t)(1u << place % 8);
}

static uint32_t part_push_lost(const struct part *part, const struct shm_source *source, bool *left)
{
    uint32_t pushed = 0;
    for (uint32_t place = 0; place < part->count; place++) {
        uint64_t word = word_load(segment_ticket(part->segment, part->first + place));
        if (word_phase(word) != TICKET_QUEUED || (part->in_ring[place / 8] & 1u << place % 8) != 0)
            continue;
        struct shm_stage *stage = segment_stage(part->segment, source->first_stage + word_stage(word));
        if (ring_push(part->segment, &stage->ring, part->first + place) == RING_OK)
            pushed++;
        else
            *left = true;
    }
    return pushed;
}

/*
 * Rings first, tickets after: what the exited process had made QUEUED was so before this began, so it is seen
 * in a ring or put there. A living process between its ticket_queue and its push, or between its pop and its
 * ticket_take, looks like a loss too; the copy that it gets here is stale by the time somebody pops it.
 */
uint32_t ticket_requeue_lost(const struct segment *segment, const struct shm_source *source, bool *left)
{
    uint32_t pushed = 0;
    *left = false;
    for (uint32_t done = 0; done < source->ticket_count; done += PART_TICKETS) {
        struct part part = {.segment = segment, .first = source->first_ticket + done};
        part.count = source->ticket_count - done < PART_TICKETS ? source->ticket_count - done : PART_TICKETS;
        for (part.stage = 0; part.stage < source->stage_count; part.stage++)
            ring_each(segment, &segment_stage(segment, source->first_stage + part.stage)->ring,
                      on_queued_ticket, &part);
        pushed += part_push_lost(&part, source, left);
    }
    return pushed;
}
