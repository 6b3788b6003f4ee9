/* SPDX-License-Identifier: MIT */
/* Tickets: every change of owner, by whom it may be made, and recovery. */
#include "shm/ring.h"
#include "shm/ticket.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/unit.h"

#define PRODUCER 1 /* slots of the fixture: 0 keeper, 1 producer, then workers */
#define WORKER 2
#define OTHER 3

static uint32_t load_bound(const struct segment *segment, int64_t event, uint64_t token)
{
    uint32_t hint = 0;
    uint32_t ticket = ticket_load(segment, segment_source(segment, 0), PRODUCER, &hint);
    ticket_bind(segment, ticket, event, token);
    return ticket;
}

static void test_life(void)
{
    struct segment segment = shm_fixture(3, 2, 4, 4);
    struct ticket_view view;
    uint32_t ticket = load_bound(&segment, 4711, 99);
    view = ticket_read(&segment, ticket);
    CU_ASSERT_EQUAL(view.phase, TICKET_LOADING);
    CU_ASSERT_EQUAL(view.slot, PRODUCER);
    CU_ASSERT_EQUAL(view.generation, 1);
    CU_ASSERT_TRUE(ticket_mark_queued(&segment, ticket, PRODUCER, 0));
    for (uint32_t stage = 0; stage < 3; stage++) {
        view = ticket_read(&segment, ticket);
        CU_ASSERT_EQUAL(view.phase, TICKET_QUEUED);
        CU_ASSERT_EQUAL(view.stage, stage);
        CU_ASSERT_TRUE(ticket_take(&segment, ticket, stage, WORKER + 2 * stage, &view));
        CU_ASSERT_EQUAL(view.event, 4711);
        CU_ASSERT_EQUAL(view.token, 99);
        CU_ASSERT_EQUAL(view.slot, WORKER + 2 * stage);
        CU_ASSERT_EQUAL(view.phase, TICKET_RUNNING);
        if (stage < 2)
            CU_ASSERT_TRUE(ticket_mark_queued(&segment, ticket, WORKER + 2 * stage, stage + 1));
    }
    CU_ASSERT_TRUE(ticket_free(&segment, ticket, WORKER + 4));
    CU_ASSERT_EQUAL(ticket_read(&segment, ticket).phase, TICKET_FREE);
    CU_ASSERT_EQUAL(load_bound(&segment, 1, 1), ticket);
    CU_ASSERT_EQUAL(ticket_read(&segment, ticket).generation, 2);
    segment_close(&segment);
}

static void test_only_owner(void)
{
    struct segment segment = shm_fixture(2, 2, 4, 4);
    struct ticket_view view;
    uint32_t ticket = load_bound(&segment, 1, 1);
    CU_ASSERT_FALSE(ticket_mark_queued(&segment, ticket, WORKER, 0));
    CU_ASSERT_FALSE(ticket_take(&segment, ticket, 0, WORKER, &view)); /* LOADING is nobody's to take */
    CU_ASSERT_FALSE(ticket_free(&segment, ticket, WORKER));
    CU_ASSERT_FALSE(ticket_mark_orphaned(&segment, ticket, WORKER));
    CU_ASSERT_FALSE(ticket_free_orphan(&segment, ticket));
    CU_ASSERT_TRUE(ticket_mark_queued(&segment, ticket, PRODUCER, 0));
    CU_ASSERT_FALSE(ticket_mark_queued(&segment, ticket, PRODUCER, 1));
    CU_ASSERT_FALSE(ticket_free(&segment, ticket, PRODUCER));
    CU_ASSERT_FALSE(
        ticket_mark_orphaned(&segment, ticket, PRODUCER)); /* handed on: its crash is not the event's */
    CU_ASSERT_FALSE(
        ticket_take(&segment, ticket, 1, WORKER, &view)); /* a stale entry in another stage's ring */
    CU_ASSERT_TRUE(ticket_take(&segment, ticket, 0, WORKER, &view));
    CU_ASSERT_FALSE(ticket_take(&segment, ticket, 0, OTHER, &view)); /* a doubled entry */
    CU_ASSERT_FALSE(ticket_mark_queued(&segment, ticket, OTHER, 1));
    CU_ASSERT_FALSE(ticket_free(&segment, ticket, OTHER));
    CU_ASSERT_FALSE(ticket_mark_orphaned(&segment, ticket, OTHER));
    CU_ASSERT_FALSE(ticket_free_orphan(&segment, ticket));
    CU_ASSERT_EQUAL(ticket_read(&segment, ticket).slot, WORKER);
    segment_close(&segment);
}

static void test_orphans(void)
{
    struct segment segment = shm_fixture(2, 2, 4, 4);
    struct ticket_view view;
    uint32_t ticket = load_bound(&segment, 7, 70), loading = load_bound(&segment, 8, 80);
    ticket_mark_queued(&segment, ticket, PRODUCER, 1);
    ticket_take(&segment, ticket, 1, WORKER, &view);
    segment_cause(&segment, ticket)->kind = SHM_CAUSE_SIGNAL;
    segment_cause(&segment, ticket)->code = 9;
    CU_ASSERT_TRUE(ticket_mark_orphaned(&segment, ticket, WORKER));
    CU_ASSERT_FALSE(ticket_mark_orphaned(&segment, ticket, WORKER)); /* recovering twice does nothing */
    view = ticket_read(&segment, ticket);
    CU_ASSERT_EQUAL(view.phase, TICKET_ORPHANED);
    CU_ASSERT_EQUAL(view.stage, 1);
    CU_ASSERT_EQUAL(view.slot, WORKER);
    CU_ASSERT_EQUAL(view.token, 70);
    CU_ASSERT_FALSE(ticket_take(&segment, ticket, 1, OTHER, &view));
    CU_ASSERT_FALSE(ticket_free(&segment, ticket, WORKER));
    CU_ASSERT_FALSE(ticket_mark_queued(&segment, ticket, WORKER, 0));
    CU_ASSERT_TRUE(ticket_mark_orphaned(&segment, loading, PRODUCER));
    CU_ASSERT_EQUAL(ticket_read(&segment, loading).event, 8);
    CU_ASSERT_TRUE(ticket_free_orphan(&segment, ticket));
    CU_ASSERT_FALSE(ticket_free_orphan(&segment, ticket));
    CU_ASSERT_EQUAL(ticket_read(&segment, ticket).phase, TICKET_FREE);
    CU_ASSERT_EQUAL(segment_cause(&segment, ticket)->kind, SHM_CAUSE_NONE); /* the next use is not blamed */
    segment_close(&segment);
}

static void test_revoke(void)
{
    struct segment segment = shm_fixture(2, 2, 4, 8);
    struct ticket_view view;
    uint32_t tickets[4];
    for (int i = 0; i < 4; i++)
        tickets[i] = load_bound(&segment, i + 1, 1);
    ticket_mark_queued(&segment, tickets[1], PRODUCER, 0);
    ticket_mark_queued(&segment, tickets[2], PRODUCER, 1);
    ticket_take(&segment, tickets[2], 1, WORKER, &view);
    ticket_mark_orphaned(&segment, tickets[3], PRODUCER);
    for (int i = 0; i < 4; i++) {
        CU_ASSERT_TRUE(ticket_revoke(&segment, tickets[i]));
        CU_ASSERT_EQUAL(ticket_read(&segment, tickets[i]).phase, TICKET_ORPHANED);
        CU_ASSERT_TRUE(ticket_free_orphan(&segment, tickets[i]));
        CU_ASSERT_FALSE(ticket_revoke(&segment, tickets[i]));
        CU_ASSERT_EQUAL(ticket_read(&segment, tickets[i]).phase, TICKET_FREE);
    }
    segment_close(&segment);
}

static void test_table_full(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct shm_source *source = segment_source(&segment, 0);
    uint32_t hint = 3, got[4];
    for (int i = 0; i < 4; i++)
        got[i] = ticket_load(&segment, source, PRODUCER, &hint);
    CU_ASSERT_EQUAL(got[0], 3); /* from the hint on, then round */
    CU_ASSERT_EQUAL(got[1], 0);
    CU_ASSERT_EQUAL(got[3], 2);
    CU_ASSERT_EQUAL(ticket_load(&segment, source, PRODUCER, &hint), SHM_NO_TICKET);
    CU_ASSERT_TRUE(ticket_free(&segment, 1, PRODUCER));
    CU_ASSERT_EQUAL(ticket_load(&segment, source, PRODUCER, &hint), 1);
    hint = 12345; /* a wrong hint is survived */
    CU_ASSERT_EQUAL(ticket_load(&segment, source, PRODUCER, &hint), SHM_NO_TICKET);
    segment_close(&segment);
}

/* Sources have parts of one table: indexes are segment-wide. */
static void test_two_sources(void)
{
    struct segment segment;
    CU_ASSERT_EQUAL_FATAL(shm_fixture_make(&segment, 2, 2, 1, 4, 4), 0);
    struct shm_source *second = segment_source(&segment, 1);
    uint32_t hint = 0, ticket = ticket_load(&segment, second, second->producer_slot, &hint);
    bool left;
    CU_ASSERT_EQUAL(ticket, 4);
    CU_ASSERT_TRUE(ticket_mark_queued(&segment, ticket, second->producer_slot, 1));
    CU_ASSERT_EQUAL(ticket_count(&segment, segment_source(&segment, 0), NULL, NULL), 0);
    CU_ASSERT_EQUAL(ticket_requeue_lost(&segment, segment_source(&segment, 0), &left), 0);
    CU_ASSERT_EQUAL(ticket_requeue_lost(&segment, second, &left), 1);
    CU_ASSERT_EQUAL(ring_pop(&segment, &segment_stage(&segment, 3)->ring, &hint), RING_OK);
    CU_ASSERT_EQUAL(hint, 4);
    segment_close(&segment);
}

static void test_counts(void)
{
    struct segment segment = shm_fixture(2, 2, 4, 8);
    struct ticket_view view;
    uint32_t queued[2] = {9, 9}, running[2] = {9, 9}, tickets[5];
    for (int i = 0; i < 5; i++)
        tickets[i] = load_bound(&segment, i + 1, 1);
    for (int i = 0; i < 4; i++)
        ticket_mark_queued(&segment, tickets[i], PRODUCER, i >= 2);
    ticket_take(&segment, tickets[0], 0, WORKER, &view);
    CU_ASSERT_EQUAL(ticket_count(&segment, segment_source(&segment, 0), queued, running), 5);
    CU_ASSERT_EQUAL(queued[0], 1);
    CU_ASSERT_EQUAL(queued[1], 2);
    CU_ASSERT_EQUAL(running[0], 1);
    CU_ASSERT_EQUAL(running[1], 0);
    segment_close(&segment);
}

static void test_requeue(void)
{
    struct segment segment = shm_fixture(2, 2, 1, 8);
    struct shm_source *source = segment_source(&segment, 0);
    struct shm_ring *first = &segment_stage(&segment, 0)->ring, *second = &segment_stage(&segment, 1)->ring;
    uint32_t tickets[5], ticket;
    bool left;
    for (int i = 0; i < 5; i++)
        tickets[i] = load_bound(&segment, i + 1, 1);
    ticket_mark_queued(&segment, tickets[0], PRODUCER, 0); /* stands in its ring */
    ring_push(&segment, first, tickets[0]);
    ticket_mark_queued(&segment, tickets[1], PRODUCER, 0); /* fell out: in no ring */
    ticket_mark_queued(&segment, tickets[2], PRODUCER, 1); /* stands in the wrong one */
    ring_push(&segment, first, tickets[2]);
    ticket_mark_queued(&segment, tickets[3], PRODUCER, 1);
    CU_ASSERT_EQUAL(ticket_requeue_lost(&segment, source, &left), 3);
    CU_ASSERT_FALSE(left);
    CU_ASSERT_EQUAL(ticket_requeue_lost(&segment, source, &left), 0);
    CU_ASSERT_EQUAL(ring_count(first), 3);
    CU_ASSERT_EQUAL(ring_count(second), 2);
    CU_ASSERT_EQUAL(ring_pop(&segment, second, &ticket), RING_OK);
    CU_ASSERT_EQUAL(ticket, tickets[2]);
    CU_ASSERT_EQUAL(ring_pop(&segment, second, &ticket), RING_OK);
    CU_ASSERT_EQUAL(ticket, tickets[3]);
    for (int i = 0; i < 13; i++) /* stale entries up to the brim */
        ring_push(&segment, first, tickets[4]);
    ticket_mark_queued(&segment, tickets[4], PRODUCER, 1);
    ring_pop(&segment, first, &ticket);
    ring_push(&segment, first, tickets[4]);
    CU_ASSERT_EQUAL(ticket, tickets[0]);
    CU_ASSERT_EQUAL(ticket_requeue_lost(&segment, source, &left),
                    3);   /* what was popped from `second` and the new */
    CU_ASSERT_TRUE(left); /* no room for tickets[0] */
    ring_pop(&segment, first, &ticket);
    CU_ASSERT_EQUAL(ticket_requeue_lost(&segment, source, &left), 1);
    CU_ASSERT_FALSE(left);
    segment_close(&segment);
}

/* More tickets than one pass looks at. */
static void test_requeue_large(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 200000);
    struct shm_source *source = segment_source(&segment, 0);
    struct shm_ring *ring = &segment_stage(&segment, 0)->ring;
    uint32_t hint = 0, lost = 0, ticket, popped = 0;
    bool left;
    for (uint32_t i = 0; i < 200000; i++) {
        ticket = ticket_load(&segment, source, PRODUCER, &hint);
        ticket_mark_queued(&segment, ticket, PRODUCER, 0);
        if (i % 3 == 0)
            lost++;
        else
            ring_push(&segment, ring, ticket);
    }
    CU_ASSERT_EQUAL(ticket_requeue_lost(&segment, source, &left), lost);
    CU_ASSERT_FALSE(left);
    struct ticket_view view;
    while (ring_pop(&segment, ring, &ticket) == RING_OK)
        popped += ticket_take(&segment, ticket, 0, WORKER, &view);
    CU_ASSERT_EQUAL(popped, 200000);
    segment_close(&segment);
}

UNIT_MAIN("ticket", {"a ticket's life through three stages", test_life},
          {"nobody but who may changes it", test_only_owner}, {"orphaned, unlocked, freed", test_orphans},
          {"revoked whatever it was", test_revoke}, {"a full table, and the hint", test_table_full},
          {"two sources", test_two_sources}, {"counts by stage", test_counts},
          {"what fell out of its ring goes back", test_requeue},
          {"the same with a large table", test_requeue_large})
