/* SPDX-License-Identifier: MIT */
/*
 * Tickets: who owns each event in flight. Producers, workers and the supervisor run it, each for the
 * changes that ticket.h assigns to it.
 *
 * Invariants
 *  1. A ticket's word is changed by compare-and-swap only, and only by the process that may: the owner
 *     that the word names; for QUEUED any worker of that stage; for a crashed owner's ticket the
 *     supervisor; for ORPHANED the producer. So an event has at most one owner at every instant.
 *  2. Only the owner of a LOADING ticket writes event and token. They stay until the ticket is FREE again.
 *  3. The generation grows with each use, so a swap prepared for one use never succeeds in another.
 *  4. Each function makes one change of state in one instruction. Killed before it: nothing has happened.
 *     Killed after it: the word says whose turn it is, and the comment at each function says what is left
 *     to do.
 *
 * All swaps are seq_cst. That releases what the owner wrote before (event, token, and what the store
 * committed), acquires what the previous owner wrote, and puts the swap in one order with tickets_wanted
 * (wake.c): freeing a ticket must come before the look at who waits for one.
 */
#include "shm/ticket.h"

#include "shm/ring.h"

#include <string.h>

static uint64_t pack_state(enum ticket_phase phase, uint32_t stage, uint32_t slot, uint32_t generation)
{
    return (uint64_t)phase << 60 | (uint64_t)(stage & 0xfffu) << 48 | (uint64_t)(slot & 0xffffu) << 32 |
           generation;
}

static enum ticket_phase get_phase(uint64_t packed_state)
{
    return (enum ticket_phase)(packed_state >> 60);
}

static uint32_t get_stage_position(uint64_t packed_state)
{
    return (uint32_t)(packed_state >> 48) & 0xfffu;
}

static uint32_t get_owner_slot(uint64_t packed_state)
{
    return (uint32_t)(packed_state >> 32) & 0xffffu;
}

static uint32_t get_generation(uint64_t packed_state)
{
    return (uint32_t)packed_state;
}

static bool is_owned_by(uint64_t packed_state, uint32_t slot)
{
    enum ticket_phase phase = get_phase(packed_state);
    return (phase == TICKET_LOADING || phase == TICKET_RUNNING) && get_owner_slot(packed_state) == slot;
}

/* seq_cst: a producer that has set tickets_wanted must see every FREE whose process did not see
 * tickets_wanted (wake.c). It includes acquire, for event and token. */
static uint64_t load_packed_state(const struct shm_ticket *ticket)
{
    return atomic_load_explicit(&ticket->word, memory_order_seq_cst);
}

/* Replaces the packed state of a ticket in shared memory if it still is *expected_state; the one
 * instruction that changes a ticket. The head comment explains its seq_cst order. On failure
 * *expected_state becomes the state found, and acquire lets the caller treat it as if it had loaded it. */
static bool swap_packed_state(struct shm_ticket *ticket, uint64_t *expected_state, uint64_t new_state)
{
    return atomic_compare_exchange_strong_explicit(&ticket->word, expected_state, new_state,
                                                   memory_order_seq_cst, memory_order_acquire);
}

/* Copies a ticket, which says in shared memory who owns an event in flight, into a plain struct for the
 * caller. Acquire, both loads: having seen the event or token of a later use, ticket_read sees the later
 * packed state, too, and tries again. */
static void fill_view(struct ticket_view *view, const struct shm_ticket *ticket, uint64_t packed_state)
{
    view->phase = get_phase(packed_state);
    view->stage = get_stage_position(packed_state);
    view->slot = get_owner_slot(packed_state);
    view->generation = get_generation(packed_state);
    view->event = atomic_load_explicit(&ticket->event, memory_order_acquire);
    view->token = atomic_load_explicit(&ticket->token, memory_order_acquire);
}

/* Returns a copy of a ticket in shared memory, which says who owns an event in flight: its phase, stage,
 * owner and event. The supervisor reads tickets after a crash, the producer when it unlocks orphaned
 * events, `eventpipe status` to count them. It tries again while the ticket changes. After the fourth try,
 * the event may be that of another use of the ticket. */
struct ticket_view ticket_read(const struct segment *segment, uint32_t ticket_index)
{
    const struct shm_ticket *shared_ticket = segment_ticket(segment, ticket_index);
    struct ticket_view view;
    uint64_t packed_state = load_packed_state(shared_ticket);
    for (int try_count = 0; try_count < 4; try_count++) {
        fill_view(&view, shared_ticket, packed_state);
        uint64_t state_after = load_packed_state(shared_ticket);
        if (state_after == packed_state)
            break;
        packed_state = state_after;
    }
    return view;
}

/*
 * The producer calls this while it claims events from the store: takes a FREE ticket, the place in shared
 * memory that says who owns an event in flight. *next_index is where the search begins, and is kept for
 * the next call. Returns the ticket, or SHM_NO_TICKET if as many events are in flight as may be.
 *
 * Tickets are freed in about the order in which they were loaded, so the one after the last loaded is the
 * likeliest to be free, and the search is short even if few are free.
 *
 * If the producer is killed after the swap, the ticket is LOADING with the event and token of an earlier
 * use, or with one of them new. The supervisor orphans it, and the unlock by token finds nothing in the
 * store: no claim with a new token was committed, and the old token's lock is gone.
 */
uint32_t ticket_load(const struct segment *segment, const struct shm_source *source, uint32_t slot,
                     uint32_t *next_index)
{
    uint32_t index = *next_index < source->ticket_count ? *next_index : 0;
    for (uint32_t tried_count = 0; tried_count < source->ticket_count; tried_count++) {
        uint32_t ticket_index = source->first_ticket + index;
        struct shm_ticket *shared_ticket = segment_ticket(segment, ticket_index);
        uint64_t packed_state = load_packed_state(shared_ticket);
        index = index + 1 < source->ticket_count ? index + 1 : 0;
        if (get_phase(packed_state) == TICKET_FREE &&
            swap_packed_state(shared_ticket, &packed_state,
                              pack_state(TICKET_LOADING, 0, slot, get_generation(packed_state) + 1))) {
            *next_index = index;
            return ticket_index;
        }
    }
    return SHM_NO_TICKET;
}

/* Release: a process that sees the new event or token sees that the ticket is LOADING by then
 * (ticket_read). */
void ticket_bind(const struct segment *segment, uint32_t ticket_index, int64_t event, uint64_t token)
{
    struct shm_ticket *shared_ticket = segment_ticket(segment, ticket_index);
    atomic_store_explicit(&shared_ticket->event, event, memory_order_release);
    atomic_store_explicit(&shared_ticket->token, token, memory_order_release);
}

/* Makes a ticket (it says who owns an event in flight) that this producer or worker owns QUEUED for a
 * stage; returns false if another process owns it. Only ticket_pass_on calls it, and then pushes the
 * ticket into the stage's ring. If the process is killed between this swap and the push, the ticket is
 * QUEUED but in no ring; the supervisor's ticket_requeue_lost pushes it then. */
bool ticket_mark_queued(const struct segment *segment, uint32_t ticket_index, uint32_t owner_slot,
                        uint32_t stage)
{
    struct shm_ticket *shared_ticket = segment_ticket(segment, ticket_index);
    uint64_t packed_state = load_packed_state(shared_ticket);
    while (is_owned_by(packed_state, owner_slot))
        if (swap_packed_state(shared_ticket, &packed_state,
                              pack_state(TICKET_QUEUED, stage, SHM_NO_SLOT, get_generation(packed_state))))
            return true;
    return false;
}

/*
 * Passes an event on to a stage: makes its ticket QUEUED and pushes it into the stage's ring. The producer
 * calls it for each event it has claimed, a worker after it has committed its stage's answer. Returns false
 * if the caller did not own the ticket.
 *
 * `fallen` is stored seq_cst, after the ticket became QUEUED: the supervisor clears `fallen` before it looks
 * for QUEUED tickets outside the rings, so it finds this one. If the process is killed before the store, the
 * recovery of that exit looks for such tickets as well.
 */
bool ticket_pass_on(const struct segment *segment, struct shm_source *source, uint32_t ticket_index,
                    uint32_t slot, uint32_t stage)
{
    if (!ticket_mark_queued(segment, ticket_index, slot, stage))
        return false;
    struct shm_ring *ring = &segment_stage(segment, source->first_stage + stage)->ring;
    if (ring_push(segment, ring, ticket_index) != RING_OK)
        atomic_store_explicit(&source->fallen, 1, memory_order_seq_cst);
    return true;
}

/* Makes a worker the owner of an event whose ticket it has popped from its stage's ring. A ticket says in
 * shared memory who owns an event. Returns false if the ring's entry was stale: another worker has the
 * event, or the event has gone on to another stage. If the worker is killed after the swap, the ticket is
 * RUNNING, and the supervisor orphans it. */
bool ticket_take(const struct segment *segment, uint32_t ticket_index, uint32_t stage, uint32_t slot,
                 struct ticket_view *out)
{
    struct shm_ticket *shared_ticket = segment_ticket(segment, ticket_index);
    uint64_t packed_state = load_packed_state(shared_ticket);
    while (get_phase(packed_state) == TICKET_QUEUED && get_stage_position(packed_state) == stage) {
        uint64_t running_state = pack_state(TICKET_RUNNING, stage, slot, get_generation(packed_state));
        if (swap_packed_state(shared_ticket, &packed_state, running_state)) {
            fill_view(out, shared_ticket, running_state);
            return true;
        }
    }
    return false;
}

/* Makes the ticket of an event (it says in shared memory who owns the event) FREE; returns false if the
 * caller does not own it. A worker calls it when an event has no next stage or belongs to another process,
 * the producer after a claim that failed and for an event that needs no stage. If the process is killed
 * before it calls wake_ticket_freed, the supervisor wakes a producer that waits for a ticket. */
bool ticket_free(const struct segment *segment, uint32_t ticket_index, uint32_t owner_slot)
{
    struct shm_ticket *shared_ticket = segment_ticket(segment, ticket_index);
    uint64_t packed_state = load_packed_state(shared_ticket);
    while (is_owned_by(packed_state, owner_slot))
        if (swap_packed_state(shared_ticket, &packed_state,
                              pack_state(TICKET_FREE, 0, SHM_NO_SLOT, get_generation(packed_state))))
            return true;
    return false;
}

/* Makes a ticket (it says in shared memory who owns an event) that an exited process held ORPHANED, so
 * that the producer unlocks the event in the store. The supervisor calls it for each such ticket; returns
 * false if exited_slot does not own it. Stage and slot (the number of the process) stay in the packed
 * state: they say where the event was and which process had it. */
bool ticket_mark_orphaned(const struct segment *segment, uint32_t ticket_index, uint32_t exited_slot)
{
    struct shm_ticket *shared_ticket = segment_ticket(segment, ticket_index);
    uint64_t packed_state = load_packed_state(shared_ticket);
    while (is_owned_by(packed_state, exited_slot))
        if (swap_packed_state(shared_ticket, &packed_state,
                              pack_state(TICKET_ORPHANED, get_stage_position(packed_state), exited_slot,
                                         get_generation(packed_state))))
            return true;
    return false;
}

/*
 * The producer calls this when the store has unlocked an orphaned event: clears the cause of the crash in
 * shared memory and frees the ticket. Returns false if the ticket is not ORPHANED.
 *
 * The cause is cleared first, so that no later use of this ticket is blamed for it; only the producer
 * touches it while the ticket is ORPHANED. If the producer is killed after that, the store has unlocked
 * the event and recorded the crash already, and its successor's second unlock by the same token (the
 * number of the claim that locked the event) changes nothing.
 */
bool ticket_free_orphan(const struct segment *segment, uint32_t ticket_index)
{
    struct shm_ticket *shared_ticket = segment_ticket(segment, ticket_index);
    uint64_t packed_state = load_packed_state(shared_ticket);
    if (get_phase(packed_state) != TICKET_ORPHANED)
        return false;
    struct shm_cause *cause = segment_cause(segment, ticket_index);
    cause->kind = SHM_CAUSE_NONE;
    cause->code = 0;
    cause->pid = 0;
    cause->message[0] = '\0';
    return swap_packed_state(shared_ticket, &packed_state,
                             pack_state(TICKET_FREE, 0, SHM_NO_SLOT, get_generation(packed_state)));
}

/* Makes a ticket (it says in shared memory who owns an event) ORPHANED, whatever its phase unless it is
 * FREE, so that its event is unlocked in the store. The producer calls it at its end, when all workers of
 * its source have exited. Returns whether the ticket is ORPHANED now. */
bool ticket_revoke(const struct segment *segment, uint32_t ticket_index)
{
    struct shm_ticket *shared_ticket = segment_ticket(segment, ticket_index);
    uint64_t packed_state = load_packed_state(shared_ticket);
    while (get_phase(packed_state) != TICKET_FREE) {
        uint64_t orphaned_state = pack_state(TICKET_ORPHANED, get_stage_position(packed_state),
                                             get_owner_slot(packed_state), get_generation(packed_state));
        if (packed_state == orphaned_state || swap_packed_state(shared_ticket, &packed_state, orphaned_state))
            return true;
    }
    return false;
}

/* Returns how many events of a source are in flight (tickets that are not FREE). Unless the arrays are
 * NULL, also counts how many wait and how many run at each stage. The producer calls it before it
 * claims more, and at the end to see that none is left. */
uint32_t ticket_count(const struct segment *segment, const struct shm_source *source, uint32_t *queued_counts,
                      uint32_t *running_counts)
{
    uint32_t in_flight_count = 0;
    if (queued_counts != NULL)
        memset(queued_counts, 0, source->stage_count * sizeof *queued_counts);
    if (running_counts != NULL)
        memset(running_counts, 0, source->stage_count * sizeof *running_counts);
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        uint64_t packed_state = load_packed_state(segment_ticket(segment, source->first_ticket + i));
        enum ticket_phase phase = get_phase(packed_state);
        uint32_t stage = get_stage_position(packed_state);
        in_flight_count += phase != TICKET_FREE;
        if (queued_counts != NULL && phase == TICKET_QUEUED && stage < source->stage_count)
            queued_counts[stage]++;
        if (running_counts != NULL && phase == TICKET_RUNNING && stage < source->stage_count)
            running_counts[stage]++;
    }
    return in_flight_count;
}

#define RANGE_TICKETS \
    65536u /* tickets looked at in one pass: 8 KiB of stack, and no malloc that could fail */

/* A part of the table, and which of its tickets are in the ring of the stage that they are queued for. */
struct ticket_range {
    const struct segment *segment;
    uint32_t first_ticket, ticket_count, stage_position;
    uint8_t in_ring_bits[RANGE_TICKETS / 8];
};

/* Marks a ticket, which stands for one event, as found in the ring in shared memory of the stage that it
 * waits for, so that push_lost_tickets leaves it alone. The supervisor's search for lost events calls it
 * for each entry of a ring. An entry that does not agree with the ticket's state is stale and does not
 * count. */
static void on_ring_entry(uint32_t ticket_index, void *user)
{
    struct ticket_range *range = user;
    uint32_t index = ticket_index - range->first_ticket; /* a smaller ticket wraps to a huge index */
    if (index >= range->ticket_count)
        return;
    uint64_t packed_state = load_packed_state(segment_ticket(range->segment, ticket_index));
    if (get_phase(packed_state) == TICKET_QUEUED && get_stage_position(packed_state) == range->stage_position)
        range->in_ring_bits[index / 8] |= (uint8_t)(1u << index % 8);
}

/* Pushes the QUEUED tickets (each stands for an event that waits for a stage) of this range that no ring
 * holds into their stages' rings. The supervisor's search for lost events calls it. Returns how many it
 * pushed; sets *has_tickets_left if a ring was full. */
static uint32_t push_lost_tickets(const struct ticket_range *range, const struct shm_source *source,
                                  bool *has_tickets_left)
{
    uint32_t pushed_count = 0;
    for (uint32_t index = 0; index < range->ticket_count; index++) {
        uint64_t packed_state =
            load_packed_state(segment_ticket(range->segment, range->first_ticket + index));
        if (get_phase(packed_state) != TICKET_QUEUED ||
            (range->in_ring_bits[index / 8] & 1u << index % 8) != 0)
            continue;
        struct shm_stage *stage =
            segment_stage(range->segment, source->first_stage + get_stage_position(packed_state));
        if (ring_push(range->segment, &stage->ring, range->first_ticket + index) == RING_OK)
            pushed_count++;
        else
            *has_tickets_left = true;
    }
    return pushed_count;
}

/*
 * The supervisor calls this after a process has exited and when a ring was full: puts events that wait for a
 * stage but are in no ring back into the stage's ring. Returns how many. Without it these events would stand
 * still until the next start.
 *
 * Looks at the rings first and at the tickets after: what the exited process made QUEUED was so before this
 * began, so it is seen in a ring or put there. A living process between its ticket_mark_queued and its
 * push, or between its pop and its ticket_take, looks like a loss too; the copy that it gets here is stale
 * by the time a worker pops it.
 */
uint32_t ticket_requeue_lost(const struct segment *segment, const struct shm_source *source,
                             bool *has_tickets_left)
{
    uint32_t pushed_count = 0;
    *has_tickets_left = false;
    for (uint32_t first_index = 0; first_index < source->ticket_count; first_index += RANGE_TICKETS) {
        struct ticket_range range = {.segment = segment, .first_ticket = source->first_ticket + first_index};
        range.ticket_count = source->ticket_count - first_index < RANGE_TICKETS
                                 ? source->ticket_count - first_index
                                 : RANGE_TICKETS;
        for (range.stage_position = 0; range.stage_position < source->stage_count; range.stage_position++)
            ring_each(segment, &segment_stage(segment, source->first_stage + range.stage_position)->ring,
                      on_ring_entry, &range);
        pushed_count += push_lost_tickets(&range, source, has_tickets_left);
    }
    return pushed_count;
}
