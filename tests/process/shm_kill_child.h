/* SPDX-License-Identifier: MIT */
/* The producer and the workers of the kill test; what they share with their supervisor, test_shm_kill.c,
 * stands at the top. */
#ifndef SHM_KILL_CHILD_H
#define SHM_KILL_CHILD_H

#include "tests/process/shm_steps.h"
#include "tests/process/shm_store.h"

#include <inttypes.h>
#include <stdio.h>

#define STAGES 3
#define WORKERS 3
#define LIMIT 4
#define TICKETS 24
#define BATCH 3
#define SLOTS (2 + STAGES * WORKERS) /* slot 0, the keeper's, stays empty */
#define PRODUCER 1
#define WORK_NS 12000 /* a stage takes up to so long for an event */

static struct segment segment;
static struct shm_source *source;
static struct store *store;

static void violation(const char *what, int64_t event, uint64_t detail)
{
    atomic_store(&store->violation, 1);
    fprintf(stderr, "violation: %s: event %" PRId64 ", %" PRIx64 "\n", what, event, detail);
}

/* --- the producer */

struct claims {
    int64_t events[TICKETS * 4]; /* READY again, to be claimed before new ones */
    uint32_t count;
};

/* Puts an event back among those to be claimed; with all tickets' events and a batch there is still room. */
static void claims_add(struct claims *claims, int64_t event)
{
    if (claims->count < TICKETS * 4)
        claims->events[claims->count++] = event;
    else
        violation("more events released than can be in flight", event, claims->count);
}

static void free_orphans(struct claims *claims)
{
    atomic_store(&source->orphans, 0);
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        struct ticket_view view = ticket_look(&segment, i);
        if (view.phase != TICKET_ORPHANED)
            continue;
        if (store_unlock_row(store, view.event, view.token) && claims != NULL)
            claims_add(claims, view.event);
        ticket_free_orphan(&segment, i);
    }
}

/* A successor does not know what the one before it had released or created and not yet claimed: it looks. */
static void claims_find(struct claims *claims)
{
    uint32_t created = atomic_load(&store->created);
    for (uint32_t event = store_first(store); event < created; event++)
        if (row_state(atomic_load(&store->rows[event].word)) == ROW_READY)
            claims_add(claims, event);
}

static bool next_event(struct claims *claims, int64_t *event)
{
    if (claims->count == 0)
        return store_ingest(store, event);
    *event = claims->events[--claims->count];
    return true;
}

/* Bound before it is claimed, so that whoever finds the ticket orphaned knows what to release. */
static void claim(uint32_t ticket, int64_t event, uint32_t *stage)
{
    uint64_t token = atomic_fetch_add(&source->claims, 1) + 1;
    ticket_bind(&segment, ticket, event, token);
    if (!store_claim_row(store, event, token, stage))
        violation("a claim failed", event, atomic_load(&store->rows[event].word));
}

/* Claims a batch in one go, then hands it on. Returns false when there was nothing, or no ticket. */
static bool produce_batch(struct steps *steps, struct claims *claims, bool *no_ticket)
{
    uint32_t tickets[BATCH], stages[BATCH], count = 0;
    int64_t event;
    *no_ticket = false;
    while (count < BATCH) {
        uint32_t ticket = ticket_load(&segment, source, steps->slot_index, &steps->hint);
        *no_ticket = ticket == SHM_NO_TICKET;
        if (*no_ticket)
            break;
        if (!next_event(claims, &event)) {
            ticket_free(&segment, ticket, steps->slot_index);
            break;
        }
        claim(ticket, event, &stages[count]);
        tickets[count++] = ticket;
    }
    for (uint32_t i = 0; i < count; i++)
        steps_hand_on(steps, tickets[i], stages[i]);
    return count > 0;
}

static bool producer_has_work(const struct claims *claims, bool no_ticket)
{
    if (atomic_load(&source->orphans) != 0 || steps_stopping(&(struct steps){.segment = &segment}))
        return true;
    if (no_ticket)
        return ticket_count(&segment, source, NULL, NULL) < source->ticket_count;
    return claims->count > 0 || atomic_load(&store->created) < atomic_load(&store->allowed);
}

static void producer_run(struct steps *steps)
{
    struct claims claims = {.count = 0};
    bool no_ticket;
    free_orphans(NULL);
    claims_find(&claims);
    while (!steps_stopping(steps)) {
        if (atomic_load(&source->orphans) != 0)
            free_orphans(&claims);
        slot_state(steps->slot, SHM_SLOT_BUSY);
        if (produce_batch(steps, &claims, &no_ticket))
            continue;
        slot_state(steps->slot, SHM_SLOT_IDLE);
        uint32_t key = wake_prepare(steps->slot);
        if (no_ticket)
            wake_want_ticket(source);
        if (producer_has_work(&claims, no_ticket))
            wake_cancel(steps->slot);
        else
            wake_sleep(steps->slot, key, WAKE_FOREVER);
    }
}

/* --- a worker */

static void hold(const struct steps *steps, const struct ticket_view *view)
{
    struct row *row = &store->rows[view->event];
    uint32_t before = atomic_exchange(&row->holder, steps->slot_index + 1);
    uint64_t word = atomic_load(&row->word);
    if (before != 0)
        violation("owned twice", view->event, before - 1);
    if (word != row_word(ROW_LOCKED, steps->stage->position, view->token))
        violation("the store does not agree with the ticket", view->event, word);
}

static void work_batch(struct steps *steps, const uint32_t tickets[], const struct ticket_view views[],
                       uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        hold(steps, &views[i]);
        uint64_t now_ns = shm_now_ns(), until_ns = now_ns + (uint64_t)views[i].event * 7919 % WORK_NS;
        slot_take(steps->slot, tickets[i], &(struct slot_event){.id = views[i].event}, now_ns);
        while ((now_ns = shm_now_ns()) < until_ns)
            continue; /* the stage at work */
        slot_put(steps->slot, now_ns);
    }
    slot_state(steps->slot, SHM_SLOT_COMMITTING);
    for (uint32_t i = 0; i < count; i++)
        if (!store_commit_row(store, views[i].event, views[i].token, steps->stage->position, STAGES))
            violation("a commit failed", views[i].event, atomic_load(&store->rows[views[i].event].word));
    for (uint32_t i = 0; i < count; i++) {
        atomic_store(&store->rows[views[i].event].holder, 0);
        steps_hand_on(steps, tickets[i], steps->stage->position + 1);
    }
}

static void process_worker_run(struct steps *steps)
{
    while (!steps_stopping(steps)) {
        uint32_t tickets[BATCH];
        struct ticket_view views[BATCH];
        uint32_t count = steps_take(steps, tickets, views, BATCH);
        if (count > 0)
            work_batch(steps, tickets, views, count);
        else
            steps_idle(steps);
    }
}

#endif
