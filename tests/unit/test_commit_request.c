/* SPDX-License-Identifier: MIT */
/* Commit requests: each state and move, in what order they are taken, what a crash leaves of them. */
#include "shm/commit_request.h"
#include "shm/wake.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/unit.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KEEPER 0
#define PRODUCER 1
#define WORKER 2

static struct segment segment;
static _Alignas(8) char body[SHM_COMMIT_REQUEST_BYTES];

static struct shm_commit_request *request_at(uint32_t slot)
{
    return (struct shm_commit_request *)(void *)((char *)segment.header +
                                                 segment.header->commit_request_offset) +
           slot;
}

static _Atomic uint64_t *bits_of(uint32_t slot)
{
    return (_Atomic uint64_t *)(void *)((char *)segment.header + segment.header->commit_request_bits_offset) +
           slot / 64;
}

static bool has_bit(uint32_t slot)
{
    return (atomic_load(bits_of(slot)) >> slot % 64 & 1) != 0;
}

static enum commit_request_state look(uint32_t slot)
{
    uint32_t result;
    return commit_request_poll(&segment, slot, &result);
}

/* Told to try the write lock, and not come to it yet. */
static bool notified(uint32_t slot)
{
    uint32_t word = atomic_load(&request_at(slot)->word);
    return word != COMMIT_REQUEST_WAITING && look(slot) == COMMIT_REQUEST_WAITING;
}

/* A commit request whose bytes all tell whose it is. */
static void make(uint32_t slot, uint32_t bytes)
{
    memset(commit_request_body(&segment, slot), (int)slot + 1, bytes);
    commit_request_submit(&segment, slot, bytes);
}

/* The slot of the next commit request; SHM_NO_SLOT: there is none. */
static uint32_t take(uint32_t taker, uint32_t *step)
{
    uint32_t slot, bytes;
    if (!commit_request_take(&segment, taker, step, &slot, body, &bytes))
        return SHM_NO_SLOT;
    CU_ASSERT(bytes > 0 && bytes <= SHM_COMMIT_REQUEST_BYTES);
    for (uint32_t i = 0; i < bytes; i++)
        CU_ASSERT_EQUAL(body[i], (char)(slot + 1));
    return slot;
}

static uint32_t take_one(uint32_t taker)
{
    uint32_t step = 1;
    return take(taker, &step);
}

/* ---- states ---- */

static void test_completed(void)
{
    segment = shm_fixture(1, 4, 4, 4);
    uint32_t result;
    CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_NONE);
    for (enum commit_request_state end = COMMIT_REQUEST_DONE; end <= COMMIT_REQUEST_RETURNED; end++) {
        make(WORKER, 100);
        CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_WAITING);
        CU_ASSERT_EQUAL(take_one(WORKER + 1), WORKER);
        CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_TAKEN);
        CU_ASSERT_EQUAL(take_one(WORKER + 2), SHM_NO_SLOT); /* once */
        CU_ASSERT_FALSE(commit_request_withdraw(&segment, WORKER));
        commit_request_complete(&segment, WORKER + 2, WORKER, end, 1); /* not theirs */
        CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_TAKEN);
        uint32_t wanted = end == COMMIT_REQUEST_DONE ? 0xa5a5 : 0;
        commit_request_complete(&segment, WORKER + 1, WORKER, end, wanted);
        CU_ASSERT_EQUAL(commit_request_poll(&segment, WORKER, &result), end);
        CU_ASSERT_EQUAL(result, wanted);
        commit_request_complete(&segment, WORKER + 1, WORKER, COMMIT_REQUEST_DONE, 3); /* once */
        CU_ASSERT_EQUAL(commit_request_poll(&segment, WORKER, &result), end);
        CU_ASSERT_EQUAL(result, wanted);
        CU_ASSERT_FALSE(commit_request_withdraw(&segment, WORKER));
        commit_request_wait(&segment, WORKER, WAKE_FOREVER); /* nothing to wait for */
        commit_request_clear(&segment, WORKER);
        CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_NONE);
        commit_request_wait(&segment, WORKER, WAKE_FOREVER);
    }
    segment_close(&segment);
}

static void test_every_result(void)
{
    segment = shm_fixture(1, 4, 4, 4);
    for (uint32_t wanted = 0; wanted < 1 << COMMIT_REQUEST_RESULTS; wanted = wanted * 2 + (wanted % 3 == 0)) {
        uint32_t result;
        make(WORKER, 1);
        CU_ASSERT_EQUAL(take_one(WORKER + 3), WORKER);
        commit_request_complete(&segment, WORKER + 3, WORKER, COMMIT_REQUEST_DONE, wanted);
        CU_ASSERT_EQUAL(commit_request_poll(&segment, WORKER, &result), COMMIT_REQUEST_DONE);
        CU_ASSERT_EQUAL(result, wanted);
        commit_request_clear(&segment, WORKER);
        if (wanted == 0xffff)
            break;
    }
    segment_close(&segment);
}

static void test_withdrawn(void)
{
    segment = shm_fixture(1, 4, 4, 4);
    CU_ASSERT_FALSE(commit_request_withdraw(&segment, WORKER));
    make(WORKER, 100);
    CU_ASSERT_TRUE(has_bit(WORKER));
    CU_ASSERT_TRUE(commit_request_withdraw(&segment, WORKER));
    CU_ASSERT_FALSE(has_bit(WORKER));
    CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_NONE);
    CU_ASSERT_EQUAL(take_one(KEEPER), SHM_NO_SLOT);
    CU_ASSERT_FALSE(commit_request_withdraw(&segment, WORKER));
    make(WORKER, 100);
    commit_request_notify(&segment, KEEPER);
    CU_ASSERT_TRUE(commit_request_withdraw(&segment, WORKER)); /* notified or not */
    CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_NONE);
    segment_close(&segment);
}

/* ---- order ---- */

static void test_order(void)
{
    segment = shm_fixture(1, 4, 4, 4);
    uint32_t step = 1;
    for (uint32_t slot = KEEPER; slot < WORKER + 4; slot++)
        if (slot != WORKER + 1)
            make(slot, 1 + slot);
    CU_ASSERT_EQUAL(take(WORKER, &step), WORKER + 2);
    CU_ASSERT_EQUAL(take(WORKER, &step), WORKER + 3);
    CU_ASSERT_EQUAL(take(WORKER, &step), KEEPER);
    CU_ASSERT_EQUAL(take(WORKER, &step), PRODUCER);
    CU_ASSERT_EQUAL(take(WORKER, &step), SHM_NO_SLOT); /* never one's own */
    CU_ASSERT_EQUAL(take(WORKER, &step), SHM_NO_SLOT);
    CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_WAITING);
    CU_ASSERT_EQUAL(take_one(KEEPER), WORKER);
    segment_close(&segment);
}

/* Of `count` slots every `each`th submits: all but the taker's are taken, in the order round to it. */
static void take_round(uint32_t count, uint32_t taker, uint32_t each)
{
    uint32_t step = 1;
    for (uint32_t slot = 0; slot < count; slot += each)
        make(slot, 1 + slot);
    for (uint32_t i = 1; i < count; i++) {
        uint32_t slot = (taker + i) % count;
        if (slot % each != 0)
            continue;
        CU_ASSERT_EQUAL(take(taker, &step), slot);
        commit_request_complete(&segment, taker, slot, COMMIT_REQUEST_DONE, 0);
        commit_request_clear(&segment, slot);
    }
    CU_ASSERT_EQUAL(take(taker, &step), SHM_NO_SLOT);
    if (taker % each == 0)
        CU_ASSERT_TRUE(commit_request_withdraw(&segment, taker));
    for (uint32_t slot = 0; slot < count; slot++)
        CU_ASSERT_FALSE(has_bit(slot));
}

static void test_order_of_many(void)
{
    static const uint32_t concurrencies[] = {62, 63, 126, 198};
    for (size_t i = 0; i < sizeof concurrencies / sizeof concurrencies[0]; i++) {
        segment = shm_fixture(1, concurrencies[i], 4, 4);
        uint32_t count = segment.header->slot_count;
        CU_ASSERT_EQUAL(count, concurrencies[i] + 2);
        const uint32_t takers[] = {0, 1, 62, 63, 64, 65, 127, 128, count - 1};
        for (size_t at = 0; at < sizeof takers / sizeof takers[0]; at++)
            for (uint32_t each = 1; takers[at] < count && each < 100; each = each * 3 + 1)
                take_round(count, takers[at], each);
        segment_close(&segment);
    }
}

static void test_stale_bits(void)
{
    segment = shm_fixture(1, 98, 4, 4);
    uint32_t step = 1;
    atomic_store(bits_of(0), UINT64_MAX); /* beyond the last slot, too */
    atomic_store(bits_of(64), UINT64_MAX);
    make(10, 5);
    make(70, 5);
    CU_ASSERT_EQUAL(take(KEEPER, &step), 10);
    atomic_fetch_or(bits_of(10), UINT64_C(1)
                                     << 10); /* its owner is late with it: it has been taken already */
    CU_ASSERT_EQUAL(take(KEEPER, &step), 70);
    CU_ASSERT_EQUAL(take(KEEPER, &step), SHM_NO_SLOT);
    CU_ASSERT_EQUAL(take_one(KEEPER), SHM_NO_SLOT);
    for (uint32_t slot = 1; slot < 100; slot++)
        CU_ASSERT_FALSE(has_bit(slot));
    commit_request_complete(&segment, KEEPER, 10, COMMIT_REQUEST_DONE, 7);
    CU_ASSERT_EQUAL(look(10), COMMIT_REQUEST_DONE);
    atomic_store(bits_of(64), UINT64_MAX);
    make(80, 5);
    commit_request_notify(&segment, KEEPER);
    CU_ASSERT_TRUE(notified(80));
    CU_ASSERT_EQUAL(look(70), COMMIT_REQUEST_TAKEN);
    segment_close(&segment);
}

static void test_bytes_out_of_bounds(void)
{
    segment = shm_fixture(1, 4, 4, 4);
    uint32_t step = 1, slot, bytes = 1;
    commit_request_submit(&segment, WORKER, SHM_COMMIT_REQUEST_BYTES + 1);
    CU_ASSERT_TRUE(commit_request_take(&segment, KEEPER, &step, &slot, body, &bytes));
    CU_ASSERT_EQUAL(bytes, 0);
    commit_request_complete(&segment, KEEPER, WORKER, COMMIT_REQUEST_RETURNED, 0);
    make(WORKER, SHM_COMMIT_REQUEST_BYTES);
    CU_ASSERT_EQUAL(take_one(KEEPER), WORKER);
    segment_close(&segment);
}

/* ---- notifications ---- */

static void test_notify(void)
{
    segment = shm_fixture(1, 6, 4, 4);
    commit_request_notify(&segment, WORKER); /* nobody waits */
    for (uint32_t i = 0; i < 5; i++)
        make(WORKER + i, 10);
    CU_ASSERT_EQUAL(take_one(WORKER), WORKER + 1);
    commit_request_notify(&segment, WORKER); /* the next that waits */
    commit_request_notify(&segment, WORKER); /* one is enough */
    const uint32_t waiting = atomic_load(&request_at(WORKER)->word);
    CU_ASSERT_EQUAL(waiting, COMMIT_REQUEST_WAITING); /* not who has left */
    CU_ASSERT_EQUAL(atomic_load(&request_at(WORKER + 3)->word), waiting);
    CU_ASSERT_EQUAL(atomic_load(&request_at(WORKER + 4)->word), waiting);
    CU_ASSERT_NOT_EQUAL(atomic_load(&request_at(WORKER + 2)->word), waiting);
    commit_request_wait(&segment, WORKER + 2, WAKE_FOREVER); /* at once */
    CU_ASSERT_TRUE(notified(WORKER + 2));                    /* looks, and tries for the write lock */
    CU_ASSERT_EQUAL(atomic_load(&request_at(WORKER + 2)->word), waiting);
    commit_request_notify(&segment, WORKER + 2); /* it has released the write lock: the one behind it */
    CU_ASSERT_EQUAL(atomic_load(&request_at(WORKER + 2)->word), waiting);
    CU_ASSERT_NOT_EQUAL(atomic_load(&request_at(WORKER + 3)->word), waiting);
    CU_ASSERT_EQUAL(take_one(WORKER + 2), WORKER + 3); /* a notified one can be taken */
    CU_ASSERT_EQUAL(look(WORKER + 3), COMMIT_REQUEST_TAKEN);
    commit_request_notify(&segment, WORKER + 4); /* round the end */
    CU_ASSERT_TRUE(notified(WORKER));
    segment_close(&segment);
}

/* ---- crashes ---- */

static void test_owner_recovered(void)
{
    segment = shm_fixture(1, 4, 4, 4);
    make(WORKER, 10);
    commit_request_recover(&segment, WORKER); /* nobody had taken it */
    CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_NONE);
    CU_ASSERT_FALSE(has_bit(WORKER));
    CU_ASSERT_EQUAL(take_one(KEEPER), SHM_NO_SLOT);
    make(WORKER, 10);
    CU_ASSERT_EQUAL(take_one(WORKER + 1), WORKER);
    commit_request_recover(&segment, WORKER);
    commit_request_complete(&segment, WORKER + 1, WORKER, COMMIT_REQUEST_DONE, 1);
    CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_NONE);
    make(WORKER, 20); /* its successor's */
    commit_request_complete(&segment, WORKER + 1, WORKER, COMMIT_REQUEST_DONE, 1);
    CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_WAITING);
    CU_ASSERT_EQUAL(take_one(WORKER + 2), WORKER);
    commit_request_complete(&segment, WORKER + 1, WORKER, COMMIT_REQUEST_DONE, 1);
    CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_TAKEN);
    segment_close(&segment);
}

static void test_taker_recovered(void)
{
    segment = shm_fixture(1, 98, 4, 4);
    uint32_t step = 1, others = 1;
    for (uint32_t slot = 2; slot < 100; slot += 10)
        make(slot, 10);
    for (int i = 0; i < 4; i++)
        take(50, &step); /* 52 62 72 82 */
    take(51, &others);   /* 92 */
    commit_request_complete(&segment, 50, 62, COMMIT_REQUEST_DONE, 5);
    make(50, 10); /* the crashed one's own goes with it */
    commit_request_recover(&segment, 50);
    commit_request_recover(&segment, 50); /* twice does no harm */
    uint32_t result;
    CU_ASSERT_EQUAL(look(50), COMMIT_REQUEST_NONE);
    CU_ASSERT_EQUAL(look(52), COMMIT_REQUEST_LOST);
    CU_ASSERT_EQUAL(commit_request_poll(&segment, 62, &result), COMMIT_REQUEST_DONE);
    CU_ASSERT_EQUAL(result, 5);
    CU_ASSERT_EQUAL(look(72), COMMIT_REQUEST_LOST);
    CU_ASSERT_EQUAL(look(82), COMMIT_REQUEST_LOST);
    CU_ASSERT_EQUAL(look(92), COMMIT_REQUEST_TAKEN);
    CU_ASSERT_EQUAL(look(2), COMMIT_REQUEST_WAITING);
    commit_request_complete(&segment, 50, 52, COMMIT_REQUEST_DONE,
                            1); /* its successor has nothing to do with it */
    CU_ASSERT_EQUAL(look(52), COMMIT_REQUEST_LOST);
    CU_ASSERT_FALSE(commit_request_withdraw(&segment, 52));
    commit_request_clear(&segment, 52);
    make(52, 10);
    CU_ASSERT_EQUAL(take_one(51), 52);
    segment_close(&segment);
}

/* ---- an owner that crashes while its bytes are copied: they go to a page that cannot be written yet ---- */

static char *pages;
static int faults;

static void successor_submits(int signal)
{
    (void)signal;
    faults++;
    commit_request_recover(&segment, WORKER);
    memset(commit_request_body(&segment, WORKER), 'b', 1000);
    commit_request_submit(&segment, WORKER, 1000);
    if (mprotect(pages + 4096, 4096, PROT_READ | PROT_WRITE) != 0)
        _exit(EXIT_FAILURE);
}

static void test_recovered_under_the_copy(void)
{
    segment = shm_fixture(1, 4, 4, 4);
    struct sigaction before, action = {.sa_handler = successor_submits};
    pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_FATAL(pages != MAP_FAILED);
    CU_ASSERT_EQUAL(mprotect(pages + 4096, 4096, PROT_NONE), 0);
    memset(commit_request_body(&segment, WORKER), 'a', 1000);
    commit_request_submit(&segment, WORKER, 1000);
    CU_ASSERT_EQUAL(sigaction(SIGSEGV, &action, &before), 0);
    uint32_t step = 1, slot, bytes;
    char *to = pages + 4096 - 504;
    CU_ASSERT_FALSE(
        commit_request_take(&segment, KEEPER, &step, &slot, to, &bytes)); /* neither the one nor the other */
    CU_ASSERT_EQUAL(sigaction(SIGSEGV, &before, NULL), 0);
    CU_ASSERT_EQUAL(faults, 1);
    CU_ASSERT_EQUAL(look(WORKER), COMMIT_REQUEST_WAITING);
    step = 1;
    CU_ASSERT_TRUE(commit_request_take(&segment, KEEPER, &step, &slot, to, &bytes));
    CU_ASSERT_EQUAL(bytes, 1000);
    for (uint32_t i = 0; i < 1000; i++)
        CU_ASSERT_EQUAL(to[i], 'b');
    munmap(pages, 8192);
    segment_close(&segment);
}

UNIT_MAIN("commit request", {"taken and completed", test_completed}, {"every result", test_every_result},
          {"withdrawn", test_withdrawn}, {"taken in the order round", test_order},
          {"so are many", test_order_of_many}, {"stale bits", test_stale_bits},
          {"bytes out of bounds", test_bytes_out_of_bounds}, {"a notification wakes one", test_notify},
          {"an owner crashes", test_owner_recovered}, {"a taker crashes", test_taker_recovered},
          {"an owner crashes under the copy", test_recovered_under_the_copy})
