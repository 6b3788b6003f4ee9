/* SPDX-License-Identifier: MIT */
/* The processes of the small world, its supervisor, and the checks after each kill. */
#include "tests/lib/step_shm_life.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

struct segment life_segment;
struct shm_source *life_source;
struct row_store *life_store;
const char *life_where = "";
uint32_t life_where_k, life_where_j;
uint32_t life_faults;

void life_fault(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "FAULT in %s, killed after %u (the other halted after %u): ", life_where, life_where_k,
            life_where_j);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    life_faults++;
}

/* --- what the processes do */

void life_hand_on(struct steps *steps, uint32_t ticket, uint32_t position)
{
    if (position >= LIFE_STAGES) {
        if (ticket_free(&life_segment, ticket, steps->slot_index))
            wake_ticket_freed(&life_segment, life_source);
    } else if (ticket_pass_on(&life_segment, life_source, ticket, steps->slot_index, position)) {
        wake_stage(&life_segment, segment_stage(&life_segment, life_source->first_stage + position));
    }
}

bool life_claim(struct steps *steps, uint32_t *ticket, uint32_t *position)
{
    int64_t event = -1;
    for (uint32_t i = 0; i < atomic_load(&life_store->created) && event < 0; i++)
        if (row_state(atomic_load(&life_store->rows[i].word)) == ROW_READY)
            event = i;
    if (event < 0 && atomic_load(&life_store->created) >= atomic_load(&life_store->allowed))
        return false;
    *ticket = ticket_load(&life_segment, life_source, steps->slot_index, &steps->hint);
    if (*ticket == SHM_NO_TICKET)
        return false;
    if (event < 0)
        row_store_ingest(life_store, &event);
    uint64_t token = atomic_fetch_add(&life_source->claims, 1) + 1;
    ticket_bind(&life_segment, *ticket, event, token);
    if (!row_store_claim(life_store, event, token, position))
        atomic_store(&life_store->violation, 1);
    return true;
}

void life_free_orphans(struct steps *steps)
{
    (void)steps;
    if (atomic_exchange(&life_source->orphans, 0) == 0)
        return;
    for (uint32_t i = 0; i < LIFE_TICKETS; i++) {
        struct ticket_view view = ticket_read(&life_segment, i);
        if (view.phase != TICKET_ORPHANED)
            continue;
        row_store_unlock(life_store, view.event, view.token);
        ticket_free_orphan(&life_segment, i);
    }
}

void life_work(struct steps *steps, uint32_t ticket, const struct ticket_view *view)
{
    struct row *row = &life_store->rows[view->event];
    if (atomic_load(&row->word) != row_word(ROW_LOCKED, steps->stage->position, view->token))
        atomic_store(&life_store->violation, 1);
    slot_begin_event(steps->slot, ticket, &(struct slot_event){.id = view->event}, 1);
    slot_end_event(steps->slot, 2);
}

void life_commit(struct steps *steps, uint32_t ticket, const struct ticket_view *view)
{
    if (!row_store_commit(life_store, view->event, view->token, steps->stage->position, LIFE_STAGES))
        atomic_store(&life_store->violation, 1);
    life_hand_on(steps, ticket, steps->stage->position + 1);
}

/* --- the supervisor, as recover.c: orphan, put back, clear, wake */

static void life_requeue(void)
{
    bool left;
    atomic_store(&life_source->fallen, 0);
    ticket_requeue_lost(&life_segment, life_source, &left);
    if (left)
        atomic_store(&life_source->fallen, 1); /* again, later */
}

void life_recover(uint32_t index)
{
    bool orphans = false;
    for (uint32_t i = 0; i < LIFE_TICKETS; i++) {
        struct ticket_view view = ticket_read(&life_segment, i);
        if (view.slot == index && (view.phase == TICKET_RUNNING || view.phase == TICKET_LOADING)) {
            segment_cause(&life_segment, i)->kind = SHM_CAUSE_NONE;
            orphans = ticket_mark_orphaned(&life_segment, i, index) || orphans;
        }
    }
    if (orphans)
        atomic_store(&life_source->orphans, 1);
    life_requeue();
    slot_clear(segment_slot(&life_segment, index), SHM_SLOT_BACKOFF);
    wake_source(&life_segment, life_source);
    slot_open(segment_slot(&life_segment, index));
    if (index == LIFE_PRODUCER)
        atomic_store(&life_source->orphans, 1); /* a successor looks for itself */
}

/* --- what must hold after it */

struct entries {
    uint32_t of[LIFE_TICKETS];
};

static void on_entry(uint32_t ticket, void *user)
{
    ((struct entries *)user)->of[ticket]++;
}

static void check_ticket(uint32_t ticket, const struct entries in_ring[LIFE_STAGES],
                         uint32_t owners[LIFE_ROWS])
{
    struct ticket_view view = ticket_read(&life_segment, ticket);
    if (view.phase == TICKET_FREE)
        return;
    uint64_t row = view.event < LIFE_ROWS ? atomic_load(&life_store->rows[view.event].word) : 0;
    bool holds = row_state(row) == ROW_LOCKED && row_token(row) == view.token;
    if (holds)
        owners[view.event]++;
    if (view.phase != TICKET_QUEUED)
        return;
    if (view.stage >= LIFE_STAGES ||
        (in_ring[view.stage].of[ticket] == 0 && atomic_load(&life_source->fallen) == 0))
        life_fault("ticket %u is queued and stands in no ring", ticket);
    if (!holds || row_stage(row) != view.stage)
        life_fault("ticket %u is queued for stage %u, the store says %" PRIx64, ticket, view.stage, row);
}

void life_check_places(uint32_t dead)
{
    struct entries in_ring[LIFE_STAGES] = {0};
    uint32_t owners[LIFE_ROWS] = {0};
    for (uint32_t i = 0; i < LIFE_STAGES; i++)
        ring_each(&life_segment, &segment_stage(&life_segment, i)->ring, on_entry, &in_ring[i]);
    for (uint32_t i = 0; i < LIFE_TICKETS; i++) {
        struct ticket_view view = ticket_read(&life_segment, i);
        check_ticket(i, in_ring, owners);
        if ((view.phase == TICKET_LOADING || view.phase == TICKET_RUNNING) && view.slot == dead)
            life_fault("ticket %u still belongs to the dead", i);
    }
    for (uint32_t i = 0; i < atomic_load(&life_store->created); i++) {
        enum row_state state = row_state(atomic_load(&life_store->rows[i].word));
        if (state == ROW_NONE)
            life_fault("event %u is in no place", i);
        if (owners[i] != (state == ROW_LOCKED))
            life_fault("event %u in state %u has %u owners", i, state, owners[i]);
    }
    if (atomic_exchange(&life_store->violation, 0) != 0)
        life_fault("a process saw store and ticket disagree");
}

/* --- everything to its end */

static bool play_producer(void)
{
    struct steps steps = steps_for(&life_segment, LIFE_PRODUCER);
    uint32_t ticket, position;
    bool any = atomic_load(&life_source->orphans) != 0;
    life_free_orphans(&steps);
    for (uint32_t i = 0; i < LIFE_TICKETS; i++) {
        struct ticket_view view = ticket_read(&life_segment, i);
        if (view.phase == TICKET_LOADING) { /* of a claim that was complete */
            life_hand_on(&steps, i, row_stage(atomic_load(&life_store->rows[view.event].word)));
            any = true;
        }
    }
    while (ring_has_room(&segment_stage(&life_segment, 0)->ring) && life_claim(&steps, &ticket, &position)) {
        life_hand_on(&steps, ticket, position);
        any = true;
    }
    return any;
}

static bool play_worker(uint32_t slot)
{
    struct steps steps = steps_for(&life_segment, slot);
    struct ticket_view view;
    uint32_t ticket;
    bool any = steps_take(&steps, &ticket, &view, 1) > 0;
    for (uint32_t i = 0; i < LIFE_TICKETS; i++) {
        view = ticket_read(&life_segment, i);
        if (view.phase != TICKET_RUNNING || view.slot != slot)
            continue;
        life_work(&steps, i, &view);
        life_commit(&steps, i, &view);
        any = true;
    }
    return any;
}

/* A ring takes as many as it has words, gives them back in order, and is empty then. */
static void check_ring(struct shm_ring *ring)
{
    uint32_t ticket;
    while (ring_pop(&life_segment, ring, &ticket) == RING_OK)
        continue; /* copies that nobody needed */
    for (uint32_t i = 0; i < ring->size; i++)
        if (ring_push(&life_segment, ring, i % LIFE_TICKETS) != RING_OK)
            life_fault("an empty ring takes %u of %u", i, ring->size);
    if (ring_push(&life_segment, ring, 0) != RING_FULL || ring_count(ring) != ring->size)
        life_fault("a ring takes more than its words, or counts wrongly");
    for (uint32_t i = 0; i < ring->size; i++)
        if (ring_pop(&life_segment, ring, &ticket) != RING_OK || ticket != i % LIFE_TICKETS)
            life_fault("a ring gives out of order");
    if (ring_pop(&life_segment, ring, &ticket) != RING_EMPTY)
        life_fault("a ring does not become empty");
}

void life_play_to_the_end(void)
{
    atomic_fetch_add(&life_store->allowed, 2);
    bool any = true;
    for (uint32_t rounds = 0; any && rounds < 100; rounds++) {
        any = play_producer();
        if (atomic_load(&life_source->fallen) != 0)
            life_requeue();
        for (uint32_t slot = LIFE_WORKER(0, 0); slot < LIFE_SLOTS; slot++)
            any = play_worker(slot) || any;
    }
    life_check_places(LIFE_SLOTS);
    for (uint32_t i = 0; i < atomic_load(&life_store->allowed); i++)
        if (row_state(atomic_load(&life_store->rows[i].word)) != ROW_DONE)
            life_fault("event %u never came to its end", i);
    if (ticket_count(&life_segment, life_source, NULL, NULL) != 0)
        life_fault("tickets are left");
    for (uint32_t i = 0; i < LIFE_STAGES; i++)
        check_ring(&segment_stage(&life_segment, i)->ring);
}
