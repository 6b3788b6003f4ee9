/* SPDX-License-Identifier: MIT */
/* Wake-ups: none is lost, each wakes whom it means. Sleepers are threads or children that sleep without a
 * time-out, so a lost wake-up hangs the test, and its alarm ends it. */
#include "shm/ring.h"
#include "shm/slot.h"
#include "shm/wake.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/unit.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define WATCHDOG_SECONDS 60
#define PRODUCER 1
#define WORKER 2

/* Sleeps, or is about to, and no waker has chosen it. */
static bool asleep(const struct shm_slot *slot)
{
    return (atomic_load(&slot->wake) & (WAKE_SLEEPING | WAKE_WOKEN)) == WAKE_SLEEPING;
}

/* As worker.c when the next ring is full. */
static void prepare_for_room(struct shm_slot *slot, struct shm_ring *ring)
{
    slot_set_state(slot, SHM_SLOT_BLOCKED);
    wake_prepare(slot);
    wake_want_room(ring);
}

static void test_wake_before_sleep(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct shm_slot *slot = segment_slot(&segment, WORKER);
    CU_ASSERT_FALSE(asleep(slot));
    uint32_t key = wake_prepare(slot);
    CU_ASSERT_TRUE(asleep(slot));
    wake_slot(slot);
    CU_ASSERT_FALSE(asleep(slot));
    wake_sleep(slot, key, WAKE_FOREVER); /* returns at once */
    wake_slot(slot);                     /* nobody sleeps: it leaves nothing behind */
    wake_prepare(slot);
    CU_ASSERT_TRUE(asleep(slot));
    wake_cancel(slot);
    CU_ASSERT_FALSE(asleep(slot));
    segment_close(&segment);
}

static void test_timeout(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct shm_slot *slot = segment_slot(&segment, WORKER);
    uint64_t before = shm_now_ns();
    uint32_t key = wake_prepare(slot);
    wake_sleep(slot, key, 20000000);
    uint64_t took = shm_now_ns() - before;
    CU_ASSERT_TRUE(took >= 20000000);
    CU_ASSERT_FALSE(asleep(slot));
    segment_close(&segment);
}

/* What wake_stage takes: one sleeper of this stage that waits for work. */
static void test_stage(void)
{
    struct segment segment = shm_fixture(2, 4, 4, 4);
    struct shm_stage *first = segment_stage(&segment, 0);
    struct shm_slot *slots[8];
    for (uint32_t i = 0; i < 8; i++)
        slots[i] = segment_slot(&segment, WORKER + i);
    slot_set_state(slots[1], SHM_SLOT_BLOCKED); /* an entry in its own ring is not what it waits for */
    for (uint32_t i = 0; i < 8; i++)
        if (i != 0)
            wake_prepare(slots[i]);
    wake_stage(&segment, first);
    CU_ASSERT_FALSE(asleep(slots[2]));
    CU_ASSERT_TRUE(asleep(slots[1]));
    CU_ASSERT_TRUE(asleep(slots[3]));
    wake_stage(&segment, first); /* the next wakes the next, though the first has not run yet */
    CU_ASSERT_FALSE(asleep(slots[3]));
    wake_stage(&segment, first); /* nobody is left who waits for work */
    CU_ASSERT_TRUE(asleep(slots[1]));
    for (uint32_t i = 4; i < 8; i++)
        CU_ASSERT_TRUE(asleep(slots[i]));
    wake_source(&segment, segment_source(&segment, 0));
    for (uint32_t i = 0; i < 8; i++)
        CU_ASSERT_FALSE(asleep(slots[i]));
    segment_close(&segment);
}

/* A thread beside a call, so in any state: it can do nothing with an entry. */
static void test_elsewhere(void)
{
    struct segment segment = shm_fixture(1, 2, 4, 4);
    struct shm_stage *stage = segment_stage(&segment, 0);
    struct shm_slot *busy = segment_slot(&segment, WORKER), *idle = segment_slot(&segment, WORKER + 1);
    slot_set_state(busy, SHM_SLOT_BUSY);
    wake_prepare_elsewhere(busy);
    wake_prepare(idle);
    CU_ASSERT_EQUAL(wake_count_idle_workers(&segment, stage), 1);
    wake_stage(&segment, stage);
    CU_ASSERT_TRUE(asleep(busy));
    CU_ASSERT_FALSE(asleep(idle));
    wake_slot(busy);
    CU_ASSERT_FALSE(asleep(busy));
    segment_close(&segment);
}

static void test_rest(void)
{
    struct segment segment = shm_fixture(1, 2, 4, 4);
    struct shm_stage *stage = segment_stage(&segment, 0);
    struct shm_slot *slot = segment_slot(&segment, WORKER);
    wake_prepare(slot);
    wake_for_leftover(&segment, stage);
    CU_ASSERT_TRUE(asleep(slot));
    ring_push(&segment, &stage->ring, 1);
    wake_for_leftover(&segment, stage);
    CU_ASSERT_FALSE(asleep(slot));
    segment_close(&segment);
}

static void test_idle(void)
{
    struct segment segment = shm_fixture(1, 3, 4, 8);
    struct shm_stage *stage = segment_stage(&segment, 0);
    struct shm_slot *worker = segment_slot(&segment, WORKER), *other = segment_slot(&segment, WORKER + 1);
    CU_ASSERT_EQUAL(wake_count_idle_workers(&segment, stage), 0);
    wake_prepare(worker);
    wake_prepare(other);
    slot_set_state(segment_slot(&segment, WORKER + 2), SHM_SLOT_PAUSED);
    wake_prepare(segment_slot(&segment, WORKER + 2)); /* entries are not for it */
    CU_ASSERT_EQUAL(wake_count_idle_workers(&segment, stage), 2);
    wake_stage(&segment, stage); /* one has got an entry to fetch */
    CU_ASSERT_EQUAL(wake_count_idle_workers(&segment, stage), 1);
    wake_cancel(worker);
    wake_cancel(other);
    CU_ASSERT_EQUAL(wake_count_idle_workers(&segment, stage), 0);
    segment_close(&segment);
}

static void test_room(void)
{
    struct segment segment = shm_fixture(3, 1, 4, 8);
    struct shm_stage *last = segment_stage(&segment, 2);
    struct shm_slot *producer = segment_slot(&segment, PRODUCER), *first = segment_slot(&segment, WORKER),
                    *second = segment_slot(&segment, WORKER + 1), *third = segment_slot(&segment, WORKER + 2);
    uint32_t ticket;
    for (uint32_t i = 0; i < 4; i++)
        ring_push(&segment, &last->ring, i);
    prepare_for_room(second, &last->ring);
    prepare_for_room(producer, &segment_stage(&segment, 0)->ring);
    CU_ASSERT_FALSE(ring_has_room(&last->ring));
    slot_set_state(first, SHM_SLOT_IDLE);
    wake_prepare(first);
    prepare_for_room(third, &last->ring); /* its own ring: not a stage before */
    ring_pop(&segment, &last->ring, &ticket);
    wake_waiters_for_room(&segment, last);
    CU_ASSERT_TRUE(asleep(second)); /* three of four: not half empty yet */
    ring_pop(&segment, &last->ring, &ticket);
    wake_waiters_for_room(&segment, last);
    CU_ASSERT_FALSE(asleep(second));
    CU_ASSERT_TRUE(asleep(producer)); /* it waits for room in another ring */
    CU_ASSERT_TRUE(asleep(first));
    CU_ASSERT_TRUE(asleep(third));
    CU_ASSERT_EQUAL(last->ring.space_wanted, 0);
    wake_prepare(second);
    ring_pop(&segment, &last->ring, &ticket);
    wake_waiters_for_room(&segment, last); /* nobody wants */
    CU_ASSERT_TRUE(asleep(second));
    wake_waiters_for_room(&segment, segment_stage(&segment, 0));
    CU_ASSERT_FALSE(asleep(producer));
    segment_close(&segment);
}

static void test_ticket_freed(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct shm_source *source = segment_source(&segment, 0);
    struct shm_slot *producer = segment_slot(&segment, PRODUCER);
    wake_prepare(producer);
    wake_ticket_freed(&segment, source);
    CU_ASSERT_TRUE(asleep(producer));
    wake_prepare(producer);
    wake_want_ticket(source);
    wake_ticket_freed(&segment, source);
    CU_ASSERT_FALSE(asleep(producer));
    CU_ASSERT_EQUAL(source->tickets_wanted, 0);
    segment_close(&segment);
}

/* Two threads hand a turn to and fro, each sleeping for ever until the other has had its own. */
struct turns {
    struct segment segment;
    _Atomic uint32_t turn;
    uint32_t rounds;
};

static void *take_turns(void *user)
{
    struct turns *turns = user;
    static _Atomic uint32_t numbers;
    uint32_t mine = atomic_fetch_add(&numbers, 1) % 2;
    struct shm_slot *own = segment_slot(&turns->segment, WORKER + mine),
                    *other = segment_slot(&turns->segment, WORKER + 1 - mine);
    while (atomic_load_explicit(&turns->turn, memory_order_relaxed) < turns->rounds) {
        for (;;) {
            uint32_t key = wake_prepare(own);
            uint32_t turn = atomic_load_explicit(&turns->turn, memory_order_relaxed);
            if (turn % 2 == mine || turn >= turns->rounds) {
                wake_cancel(own);
                break;
            }
            wake_sleep(own, key, WAKE_FOREVER);
        }
        if (atomic_load_explicit(&turns->turn, memory_order_relaxed) < turns->rounds)
            atomic_fetch_add_explicit(&turns->turn, 1, memory_order_relaxed);
        wake_slot(other); /* carries the relaxed change with it */
    }
    return NULL;
}

static void test_ping_pong(void)
{
    struct turns turns = {.segment = shm_fixture(1, 2, 4, 4), .rounds = 20000};
    pthread_t threads[2];
    alarm(WATCHDOG_SECONDS);
    for (int i = 0; i < 2; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, take_turns, &turns), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    alarm(0);
    CU_ASSERT_EQUAL(turns.turn, turns.rounds);
    segment_close(&turns.segment);
}

/* A child sleeps; wakers before us may have been killed between their mark and their call. */
static void test_killed_waker(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct shm_slot *slot = segment_slot(&segment, WORKER);
    int status;
    alarm(WATCHDOG_SECONDS);
    pid_t child = fork();
    if (child == 0) {
        alarm(WATCHDOG_SECONDS);
        uint32_t key = wake_prepare(slot);
        while (atomic_load(&segment.header->phase) != SHM_PHASE_STOPPED) {
            wake_sleep(slot, key, WAKE_FOREVER);
            if (atomic_load(&segment.header->phase) != SHM_PHASE_STOPPED)
                key = wake_prepare(slot);
        }
        _exit(0);
    }
    while (!asleep(slot))
        sched_yield();
    char path[64], state = '?'; /* until the kernel says that it sleeps */
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)child);
    while (state != 'S') {
        FILE *file = fopen(path, "r");
        CU_ASSERT_PTR_NOT_NULL_FATAL(file);
        CU_ASSERT_EQUAL(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
        fclose(file);
    }
    atomic_fetch_or(&slot->wake, WAKE_WOKEN); /* as the crashed waker left it: marked, not called */
    CU_ASSERT_FALSE(asleep(slot));
    atomic_store(&segment.header->phase, SHM_PHASE_STOPPED);
    wake_source(&segment, segment_source(&segment, 0)); /* the supervisor's, after the exit */
    CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
    CU_ASSERT_EQUAL(status, 0);
    alarm(0);
    segment_close(&segment);
}

UNIT_MAIN("wake", {"a wake before the sleep ends it", test_wake_before_sleep}, {"time-outs", test_timeout},
          {"a stage's sleepers, one a push", test_stage}, {"what is left wakes one more", test_rest},
          {"who is idle", test_idle}, {"who waits elsewhere", test_elsewhere},
          {"room, when half is empty", test_room}, {"a ticket came free", test_ticket_freed},
          {"two threads, no wake-up lost", test_ping_pong},
          {"a waker killed before its call", test_killed_waker})
