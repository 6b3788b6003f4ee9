/* SPDX-License-Identifier: MIT */
/* Rings: order, limits, rounds, and what a process killed between two instructions leaves. */
#include "shm/ring.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/unit.h"

static struct shm_ring *first_ring(const struct segment *segment)
{
    return &segment_stage(segment, 0)->ring;
}

static void test_empty(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct shm_ring *ring = first_ring(&segment);
    uint32_t ticket = 77;
    CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_EMPTY);
    CU_ASSERT_EQUAL(ticket, 77);
    CU_ASSERT_EQUAL(ring_count(ring), 0);
    CU_ASSERT_TRUE(ring_has_room(ring));
    segment_close(&segment);
}

static void test_fifo(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct shm_ring *ring = first_ring(&segment);
    uint32_t ticket;
    for (uint32_t i = 0; i < 4; i++)
        CU_ASSERT_EQUAL(ring_push(&segment, ring, i), RING_OK);
    for (uint32_t i = 0; i < 4; i++) {
        CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_OK);
        CU_ASSERT_EQUAL(ticket, i);
    }
    CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_EMPTY);
    segment_close(&segment);
}

static void test_limit(void)
{
    struct segment segment = shm_fixture(1, 1, 3, 4);
    struct shm_ring *ring = first_ring(&segment);
    uint32_t ticket;
    CU_ASSERT_EQUAL(ring->size, 8);
    CU_ASSERT_EQUAL(ring->limit, 3);
    for (uint32_t i = 0; i < 8; i++) { /* a push goes over the limit, up to the words there are */
        CU_ASSERT_EQUAL(ring_has_room(ring), i < 3);
        CU_ASSERT_EQUAL(ring_push(&segment, ring, i), RING_OK);
    }
    CU_ASSERT_EQUAL(ring_push(&segment, ring, 8), RING_FULL);
    CU_ASSERT_EQUAL(ring_count(ring), 8);
    for (uint32_t i = 0; i < 6; i++) {
        CU_ASSERT_FALSE(ring_has_room(ring));
        CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_OK);
        CU_ASSERT_EQUAL(ticket, i);
    }
    CU_ASSERT_TRUE(ring_has_room(ring));
    segment_close(&segment);
}

static void test_rounds(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 1);
    struct shm_ring *ring = first_ring(&segment);
    uint32_t in = 0, out = 0, ticket;
    CU_ASSERT_EQUAL(ring->size, 2);
    CU_ASSERT_EQUAL(ring->limit, 2); /* an input buffer larger than the table of tickets */
    for (int i = 0; i < 100000; i++) {
        uint32_t burst = 1 + (uint32_t)(i % 3);
        while (burst-- > 0 && ring_push(&segment, ring, in) == RING_OK)
            in++;
        if (ring_pop(&segment, ring, &ticket) != RING_OK || ticket != out++)
            CU_FAIL_FATAL("out of order");
    }
    CU_ASSERT_EQUAL(ring_count(ring), in - out);
    segment_close(&segment);
}

/* The cycle number of a word has 32 bits: a ring goes on when it begins again. */
static void test_cycle_wraps(void)
{
    struct segment segment = shm_fixture(1, 1, 2, 1);
    struct shm_ring *ring = first_ring(&segment);
    _Atomic uint64_t *words = (_Atomic uint64_t *)(void *)((char *)ring + ring->words_offset);
    uint64_t start = (UINT64_C(1) << 33) - 4; /* position of cycle 2^32 - 2 */
    uint32_t ticket;
    atomic_store(&ring->head, start);
    atomic_store(&ring->tail, start);
    atomic_store(&words[0], UINT64_C(0xfffffffe) << 32);
    atomic_store(&words[1], UINT64_C(0xfffffffe) << 32);
    for (uint32_t i = 0; i < 20; i++) {
        CU_ASSERT_EQUAL(ring_push(&segment, ring, i), RING_OK);
        CU_ASSERT_EQUAL(ring_push(&segment, ring, i + 100), RING_OK);
        CU_ASSERT_EQUAL(ring_push(&segment, ring, 7), RING_FULL);
        CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_OK);
        CU_ASSERT_EQUAL(ticket, i);
        CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_OK);
        CU_ASSERT_EQUAL(ticket, i + 100);
        CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_EMPTY);
    }
    segment_close(&segment);
}

/* Killed after the swap and before the hint moved: hints are set back by one, as the dead would have left
 * them. */
static void test_killed_before_hint(void)
{
    struct segment segment = shm_fixture(1, 1, 1, 2);
    struct shm_ring *ring = first_ring(&segment);
    uint32_t ticket;
    for (uint32_t i = 0; i < 50; i++) {
        CU_ASSERT_EQUAL(ring_push(&segment, ring, i), RING_OK);
        atomic_fetch_sub(&ring->tail, 1);
        CU_ASSERT_EQUAL(ring_count(ring), 1);
        CU_ASSERT_FALSE(ring_has_room(ring));
        CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_OK);
        CU_ASSERT_EQUAL(ticket, i);
        atomic_fetch_sub(&ring->head, 1);
        CU_ASSERT_EQUAL(ring_count(ring), 0); /* else who waits for room would wait for ever */
        CU_ASSERT_TRUE(ring_has_room(ring));
        if (i % 2 == 0)
            CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_EMPTY);
    }
    segment_close(&segment);
}

static void test_both_hints_behind(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 2);
    struct shm_ring *ring = first_ring(&segment);
    uint32_t ticket;
    for (uint32_t i = 0; i < 4; i++)
        CU_ASSERT_EQUAL(ring_push(&segment, ring, i), RING_OK);
    atomic_fetch_sub(&ring->tail, 1);
    CU_ASSERT_EQUAL(ring_count(ring), 4);
    CU_ASSERT_EQUAL(ring_push(&segment, ring, 4), RING_FULL);
    CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_OK);
    atomic_fetch_sub(&ring->head, 1);
    CU_ASSERT_EQUAL(ring_count(ring), 3);
    CU_ASSERT_EQUAL(ring_push(&segment, ring, 4), RING_OK);
    for (uint32_t i = 1; i < 5; i++) {
        CU_ASSERT_EQUAL(ring_pop(&segment, ring, &ticket), RING_OK);
        CU_ASSERT_EQUAL(ticket, i);
    }
    segment_close(&segment);
}

struct seen {
    uint32_t count, sum;
};

static void on_ticket(uint32_t ticket, void *user)
{
    struct seen *seen = user;
    seen->count++;
    seen->sum += ticket;
}

static void test_each(void)
{
    struct segment segment = shm_fixture(1, 1, 8, 8);
    struct shm_ring *ring = first_ring(&segment);
    struct seen seen = {0};
    uint32_t ticket;
    for (uint32_t i = 0; i < 8; i++)
        ring_push(&segment, ring, i);
    for (uint32_t i = 0; i < 3; i++)
        ring_pop(&segment, ring, &ticket);
    ring_push(&segment, ring, 100);
    ring_each(&segment, ring, on_ticket, &seen);
    CU_ASSERT_EQUAL(seen.count, 6);
    CU_ASSERT_EQUAL(seen.sum, 3 + 4 + 5 + 6 + 7 + 100);
    segment_close(&segment);
}

static void test_rings_apart(void)
{
    struct segment segment = shm_fixture(2, 1, 8, 8);
    struct shm_ring *first = first_ring(&segment), *second = &segment_stage(&segment, 1)->ring;
    uint32_t ticket;
    for (uint32_t i = 0; i < 8; i++) {
        CU_ASSERT_EQUAL(ring_push(&segment, first, i), RING_OK);
        CU_ASSERT_EQUAL(ring_push(&segment, second, 10 + i), RING_OK);
    }
    for (uint32_t i = 0; i < 8; i++) {
        CU_ASSERT_EQUAL(ring_pop(&segment, second, &ticket), RING_OK);
        CU_ASSERT_EQUAL(ticket, 10 + i);
        CU_ASSERT_EQUAL(ring_pop(&segment, first, &ticket), RING_OK);
        CU_ASSERT_EQUAL(ticket, i);
    }
    segment_close(&segment);
}

UNIT_MAIN("ring", {"an empty ring says so", test_empty}, {"first in, first out", test_fifo},
          {"has_room ends at the limit, a push at the size", test_limit},
          {"many rounds over a ring of two", test_rounds},
          {"the cycle number begins again", test_cycle_wraps},
          {"a kill between swap and hint costs nothing", test_killed_before_hint},
          {"both hints behind a full ring", test_both_hints_behind}, {"each entry is seen once", test_each},
          {"two rings do not touch each other", test_rings_apart})
