/* SPDX-License-Identifier: MIT */
/*
 * Stress of shm/ with threads, for the thread sanitizer above all: what processes do to each other through
 * the segment, threads do here under its eyes. No kills: see test_shm_kill.c.
 *
 *  1. One ring, several pushers and poppers: each entry comes out once, those of a pusher in their order.
 *  2. Two sources side by side: events are loaded, pass three stages of three workers over rings of four, and
 * are freed. Each comes out once, at the end of the chain, with its own token. No time-outs: a lost wake-up
 * hangs it, and the alarm ends it.
 *
 * usage: test_shm_threads [EVENTS]
 */
#include "tests/lib/shm_fixture.h"
#include "tests/lib/shm_steps.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOURCES 2
#define STAGES 3
#define WORKERS 3
#define LIMIT 4
#define TICKETS 16
#define BATCH 3
#define WATCHDOG_SECONDS 240
#define TOKEN_OF(event) ((uint64_t)(event)*7 + 1)

static int64_t event_count = 20000;
static atomic_int failures;

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (atomic_fetch_add(&failures, 1) < 20) {
        vfprintf(stderr, format, arguments);
        fputc('\n', stderr);
    }
    va_end(arguments);
}

/* --- one ring */

#define PUSHERS 3
#define POPPERS 3

struct pump {
    const struct segment *segment;
    struct shm_ring *ring;
    _Atomic uint32_t popped, number;
    uint32_t each;
};

static void *pump_push(void *user)
{
    struct pump *pump = user;
    uint32_t pusher = atomic_fetch_add(&pump->number, 1);
    for (uint32_t i = 0; i < pump->each; i++)
        while (ring_push(pump->segment, pump->ring, pusher << 24 | i) == RING_FULL)
            sched_yield();
    return NULL;
}

static void *pump_pop(void *user)
{
    struct pump *pump = user;
    uint32_t next[PUSHERS] = {0}, entry;
    while (atomic_load(&pump->popped) < PUSHERS * pump->each) {
        if (ring_pop(pump->segment, pump->ring, &entry) == RING_EMPTY) {
            sched_yield();
            continue;
        }
        uint32_t pusher = entry >> 24, i = entry & 0xffffff;
        if (pusher >= PUSHERS || i < next[pusher])
            fail("ring: entry %u of pusher %u is out of order, or came twice", i, pusher);
        else
            next[pusher] = i + 1;
        atomic_fetch_add(&pump->popped, 1);
    }
    return NULL;
}

static void run_pump(void)
{
    struct segment segment = shm_fixture(1, 1, LIMIT, TICKETS);
    struct pump pump = {.segment = &segment,
                        .ring = &segment_stage(&segment, 0)->ring,
                        .each = (uint32_t)event_count};
    pthread_t threads[PUSHERS + POPPERS];
    for (int i = 0; i < PUSHERS + POPPERS; i++)
        pthread_create(&threads[i], NULL, i < PUSHERS ? pump_push : pump_pop, &pump);
    for (int i = 0; i < PUSHERS + POPPERS; i++)
        pthread_join(threads[i], NULL);
    if (ring_count(pump.ring) != 0 || atomic_load(&pump.popped) != PUSHERS * pump.each)
        fail("ring: %u entries came out of %u", atomic_load(&pump.popped), PUSHERS * pump.each);
    segment_close(&segment);
}

/* --- two sources with their chains */

struct chain {
    struct segment *segment;
    uint32_t source;
    _Atomic int64_t done;
    uint8_t *stages; /* by event: how many it has passed; plain, so that the sanitizer sees whether tickets
                        order it */
};

struct member {
    struct chain *chain;
    uint32_t slot;
};

static uint32_t load_waiting(struct steps *steps)
{
    for (;;) {
        uint32_t ticket = ticket_load(steps->segment, steps->source, steps->slot_index, &steps->hint);
        if (ticket != SHM_NO_TICKET)
            return ticket;
        slot_set_state(steps->slot, SHM_SLOT_IDLE);
        uint32_t key = wake_prepare(steps->slot);
        wake_want_ticket(steps->source);
        ticket = ticket_load(steps->segment, steps->source, steps->slot_index, &steps->hint);
        if (ticket == SHM_NO_TICKET) {
            wake_sleep(steps->slot, key, WAKE_FOREVER);
            continue;
        }
        wake_cancel(steps->slot);
        return ticket;
    }
}

static void *produce(void *user)
{
    struct member *member = user;
    struct steps steps = steps_for(member->chain->segment, member->slot);
    for (int64_t event = 1; event <= event_count; event++) {
        uint32_t ticket = load_waiting(&steps);
        ticket_bind(steps.segment, ticket, event, TOKEN_OF(event));
        steps_hand_on(&steps, ticket, 0);
    }
    return NULL;
}

static void pass(struct chain *chain, struct steps *steps, uint32_t ticket, const struct ticket_view *view)
{
    slot_begin_event(steps->slot, ticket, &(struct slot_event){.id = view->event}, shm_now_ns());
    if (view->event < 1 || view->event > event_count || view->token != TOKEN_OF(view->event))
        fail("chain: event %" PRId64 " with token %" PRIu64, view->event, view->token);
    else if (chain->stages[view->event]++ != steps->stage->position)
        fail("chain: event %" PRId64 " was at stage %u out of turn", view->event, steps->stage->position);
    slot_end_event(steps->slot, shm_now_ns());
    bool last = steps->stage->position + 1 == STAGES;
    steps_hand_on(steps, ticket, steps->stage->position + 1);
    if (last)
        atomic_fetch_add(&chain->done, 1);
}

static void *work(void *user)
{
    struct member *member = user;
    struct steps steps = steps_for(member->chain->segment, member->slot);
    while (!steps_stopping(&steps)) {
        uint32_t tickets[BATCH];
        struct ticket_view views[BATCH];
        uint32_t count = steps_take(&steps, tickets, views, BATCH);
        for (uint32_t i = 0; i < count; i++)
            pass(member->chain, &steps, tickets[i], &views[i]);
        if (count == 0)
            steps_idle(&steps);
    }
    if (steps.stale != 0)
        fail("chain: %u stale entries, though no process crashed", steps.stale);
    return NULL;
}

static void check_chain(const struct chain *chain)
{
    const struct shm_source *source = segment_source(chain->segment, chain->source);
    for (int64_t event = 1; event <= event_count; event++)
        if (chain->stages[event] != STAGES)
            fail("chain: event %" PRId64 " has passed %u stages", event, chain->stages[event]);
    if (ticket_count(chain->segment, source, NULL, NULL) != 0)
        fail("chain: tickets are left");
    for (uint32_t i = 0; i < STAGES; i++)
        if (ring_count(&segment_stage(chain->segment, source->first_stage + i)->ring) != 0)
            fail("chain: entries are left");
}

#define MEMBERS (1 + STAGES * WORKERS) /* of a source */

static void run_chains(void)
{
    struct segment segment;
    struct chain chains[SOURCES] = {0};
    struct member members[SOURCES * MEMBERS];
    pthread_t threads[SOURCES * MEMBERS];
    if (shm_fixture_make(&segment, SOURCES, STAGES, WORKERS, LIMIT, TICKETS) != 0) {
        fail("cannot make a segment");
        return;
    }
    for (uint32_t i = 0; i < SOURCES; i++) {
        chains[i] = (struct chain){.segment = &segment, .source = i};
        chains[i].stages = calloc((size_t)event_count + 1, 1);
    }
    for (uint32_t i = 0; i < SOURCES * MEMBERS; i++) { /* slot 0 is the keeper's */
        members[i] = (struct member){.chain = &chains[i / MEMBERS], .slot = 1 + i};
        pthread_create(&threads[i], NULL, i % MEMBERS == 0 ? produce : work, &members[i]);
    }
    for (uint32_t i = 0; i < SOURCES; i++)
        pthread_join(threads[i * MEMBERS], NULL);
    for (uint32_t i = 0; i < SOURCES; i++)
        while (atomic_load(&chains[i].done) < event_count && atomic_load(&failures) == 0)
            sched_yield();
    atomic_store(&segment.header->phase, SHM_PHASE_STOPPED);
    for (uint32_t i = 0; i < SOURCES; i++)
        wake_source(&segment, segment_source(&segment, i));
    for (uint32_t i = 0; i < SOURCES * MEMBERS; i++)
        if (i % MEMBERS != 0)
            pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < SOURCES; i++) {
        check_chain(&chains[i]);
        free(chains[i].stages);
    }
    segment_close(&segment);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        event_count = strtoll(argv[1], NULL, 10);
    if (event_count < 1 || event_count > 0xffffff) {
        fprintf(stderr, "usage: test_shm_threads [EVENTS up to 16777215]\n");
        return 2;
    }
    alarm(WATCHDOG_SECONDS);
    run_pump();
    run_chains();
    printf("%" PRId64 " events for each pusher and source, %d failures\n", event_count,
           atomic_load(&failures));
    return atomic_load(&failures) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
