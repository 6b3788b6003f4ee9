/* SPDX-License-Identifier: MIT */
/*
 * The small world of test_step_shm: a source, two stages of two workers, the store of shm_store.h; what each
 * of its processes does, in the order in which the daemon's do it; what the supervisor does after an exit;
 * and what must hold then. Processes are known to shm/ by their slots only, so the parent goes on in the name
 * of whoever lives or was started again.
 */
#ifndef STEP_SHM_LIFE_H
#define STEP_SHM_LIFE_H

#include "tests/process/shm_steps.h"
#include "tests/process/shm_store.h"
#include "tests/unit/shm_fixture.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define STAGES 2
#define WORKERS 2
#define LIMIT 2
#define TICKETS 4
#define ROWS 64
#define PRODUCER 1
#define WORKER(stage, index) (2 + (stage)*WORKERS + (index))
#define SLOTS (2 + STAGES * WORKERS)

static struct segment segment;
static struct shm_source *source;
static struct store *store;
static const char *where = "";    /* what is tried now, for the message of a fault */
static uint32_t where_k, where_j; /* after how many instructions */
static uint32_t faults;

static void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void fault(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "FAULT in %s, killed after %u (the other halted after %u): ", where, where_k, where_j);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    faults++;
}

/* --- what the processes do */

/* As process_producer_claim_publish and hand_over_events. */
static void life_hand_on(struct steps *steps, uint32_t ticket, uint32_t position)
{
    if (position >= STAGES) {
        if (ticket_free(&segment, ticket, steps->slot_index))
            wake_ticket_freed(&segment, source);
    } else if (ticket_pass(&segment, source, ticket, steps->slot_index, position)) {
        wake_stage(&segment, segment_stage(&segment, source->first_stage + position));
    }
}

/* The next event: one that is READY, or a new one. The ticket names it before the store locks it. */
static bool life_claim(struct steps *steps, uint32_t *ticket, uint32_t *position)
{
    int64_t event = -1;
    for (uint32_t i = 0; i < atomic_load(&store->created) && event < 0; i++)
        if (row_state(atomic_load(&store->rows[i].word)) == ROW_READY)
            event = i;
    if (event < 0 && atomic_load(&store->created) >= atomic_load(&store->allowed))
        return false;
    *ticket = ticket_load(&segment, source, steps->slot_index, &steps->hint);
    if (*ticket == SHM_NO_TICKET)
        return false;
    if (event < 0)
        store_ingest(store, &event);
    uint64_t token = atomic_fetch_add(&source->claims, 1) + 1;
    ticket_bind(&segment, *ticket, event, token);
    if (!store_claim_row(store, event, token, position))
        atomic_store(&store->violation, 1);
    return true;
}

static void life_free_orphans(struct steps *steps)
{
    (void)steps;
    if (atomic_exchange(&source->orphans, 0) == 0)
        return;
    for (uint32_t i = 0; i < TICKETS; i++) {
        struct ticket_view view = ticket_look(&segment, i);
        if (view.phase != TICKET_ORPHANED)
            continue;
        store_unlock_row(store, view.event, view.token);
        ticket_free_orphan(&segment, i);
    }
}

/* A stage's call: whoever has the event must find it locked by its ticket's token, at this stage. */
static void life_work(struct steps *steps, uint32_t ticket, const struct ticket_view *view)
{
    struct row *row = &store->rows[view->event];
    if (atomic_load(&row->word) != row_word(ROW_LOCKED, steps->stage->position, view->token))
        atomic_store(&store->violation, 1);
    slot_take(steps->slot, ticket, &(struct slot_event){.id = view->event}, 1);
    slot_put(steps->slot, 2);
}

static void life_commit(struct steps *steps, uint32_t ticket, const struct ticket_view *view)
{
    if (!store_commit_row(store, view->event, view->token, steps->stage->position, STAGES))
        atomic_store(&store->violation, 1);
    life_hand_on(steps, ticket, steps->stage->position + 1);
}

/* --- the supervisor, as recover.c: orphan, put back, clear, wake */

static void life_requeue(void)
{
    bool left;
    atomic_store(&source->fallen, 0);
    ticket_requeue_lost(&segment, source, &left);
    if (left)
        atomic_store(&source->fallen, 1); /* again, later */
}

static void life_recover(uint32_t index)
{
    bool orphans = false;
    for (uint32_t i = 0; i < TICKETS; i++) {
        struct ticket_view view = ticket_look(&segment, i);
        if (view.slot == index && (view.phase == TICKET_RUNNING || view.phase == TICKET_LOADING)) {
            segment_cause(&segment, i)->kind = SHM_CAUSE_NONE;
            orphans = ticket_orphan(&segment, i, index) || orphans;
        }
    }
    if (orphans)
        atomic_store(&source->orphans, 1);
    life_requeue();
    slot_clear(segment_slot(&segment, index), SHM_SLOT_BACKOFF);
    wake_source(&segment, source);
    slot_open(segment_slot(&segment, index));
    if (index == PRODUCER)
        atomic_store(&source->orphans, 1); /* a successor looks for itself */
}

/* --- what must hold after it */

struct entries {
    uint32_t of[TICKETS];
};

static void on_entry(uint32_t ticket, void *user)
{
    ((struct entries *)user)->of[ticket]++;
}

static void check_ticket(uint32_t ticket, const struct entries in_ring[STAGES], uint32_t owners[ROWS])
{
    struct ticket_view view = ticket_look(&segment, ticket);
    if (view.phase == TICKET_FREE)
        return;
    uint64_t row = view.event < ROWS ? atomic_load(&store->rows[view.event].word) : 0;
    bool holds = row_state(row) == ROW_LOCKED && row_token(row) == view.token;
    if (holds)
        owners[view.event]++;
    if (view.phase != TICKET_QUEUED)
        return;
    if (view.stage >= STAGES || (in_ring[view.stage].of[ticket] == 0 && atomic_load(&source->fallen) == 0))
        fault("ticket %u is queued and stands in no ring", ticket);
    if (!holds || row_stage(row) != view.stage)
        fault("ticket %u is queued for stage %u, the store says %" PRIx64, ticket, view.stage, row);
}

/* Each event is in exactly one place; none belongs to the dead. `dead`: SLOTS = no process crashed. */
static void check_places(uint32_t dead)
{
    struct entries in_ring[STAGES] = {0};
    uint32_t owners[ROWS] = {0};
    for (uint32_t i = 0; i < STAGES; i++)
        ring_each(&segment, &segment_stage(&segment, i)->ring, on_entry, &in_ring[i]);
    for (uint32_t i = 0; i < TICKETS; i++) {
        struct ticket_view view = ticket_look(&segment, i);
        check_ticket(i, in_ring, owners);
        if ((view.phase == TICKET_LOADING || view.phase == TICKET_RUNNING) && view.slot == dead)
            fault("ticket %u still belongs to the dead", i);
    }
    for (uint32_t i = 0; i < atomic_load(&store->created); i++) {
        enum row_state state = row_state(atomic_load(&store->rows[i].word));
        if (state == ROW_NONE)
            fault("event %u is in no place", i);
        if (owners[i] != (state == ROW_LOCKED))
            fault("event %u in state %u has %u owners", i, state, owners[i]);
    }
    if (atomic_exchange(&store->violation, 0) != 0)
        fault("a process saw store and ticket disagree");
}

/* --- everything to its end */

static bool play_producer(void)
{
    struct steps steps = steps_for(&segment, PRODUCER);
    uint32_t ticket, position;
    bool any = atomic_load(&source->orphans) != 0;
    life_free_orphans(&steps);
    for (uint32_t i = 0; i < TICKETS; i++) {
        struct ticket_view view = ticket_look(&segment, i);
        if (view.phase == TICKET_LOADING) { /* of a claim that was complete */
            life_hand_on(&steps, i, row_stage(atomic_load(&store->rows[view.event].word)));
            any = true;
        }
    }
    while (ring_has_room(&segment_stage(&segment, 0)->ring) && life_claim(&steps, &ticket, &position)) {
        life_hand_on(&steps, ticket, position);
        any = true;
    }
    return any;
}

static bool play_worker(uint32_t slot)
{
    struct steps steps = steps_for(&segment, slot);
    struct ticket_view view;
    uint32_t ticket;
    bool any = steps_take(&steps, &ticket, &view, 1) > 0;
    for (uint32_t i = 0; i < TICKETS; i++) {
        view = ticket_look(&segment, i);
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
    while (ring_pop(&segment, ring, &ticket) == RING_OK)
        continue; /* copies that nobody needed */
    for (uint32_t i = 0; i < ring->size; i++)
        if (ring_push(&segment, ring, i % TICKETS) != RING_OK)
            fault("an empty ring takes %u of %u", i, ring->size);
    if (ring_push(&segment, ring, 0) != RING_FULL || ring_count(ring) != ring->size)
        fault("a ring takes more than its words, or counts wrongly");
    for (uint32_t i = 0; i < ring->size; i++)
        if (ring_pop(&segment, ring, &ticket) != RING_OK || ticket != i % TICKETS)
            fault("a ring gives out of order");
    if (ring_pop(&segment, ring, &ticket) != RING_EMPTY)
        fault("a ring does not become empty");
}

/* New events come too, so that what stands is seen to move under load. */
static void play_to_the_end(void)
{
    atomic_fetch_add(&store->allowed, 2);
    bool any = true;
    for (uint32_t rounds = 0; any && rounds < 100; rounds++) {
        any = play_producer();
        if (atomic_load(&source->fallen) != 0)
            life_requeue();
        for (uint32_t slot = WORKER(0, 0); slot < SLOTS; slot++)
            any = play_worker(slot) || any;
    }
    check_places(SLOTS);
    for (uint32_t i = 0; i < atomic_load(&store->allowed); i++)
        if (row_state(atomic_load(&store->rows[i].word)) != ROW_DONE)
            fault("event %u never came to its end", i);
    if (ticket_count(&segment, source, NULL, NULL) != 0)
        fault("tickets are left");
    for (uint32_t i = 0; i < STAGES; i++)
        check_ring(&segment_stage(&segment, i)->ring);
}

#endif
