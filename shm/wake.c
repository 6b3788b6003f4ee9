/* SPDX-License-Identifier: MIT */
/*
 * Sleep and wake across processes. Run by every process of the instance; each sleeps on its own slot's word
 * only.
 *
 * WAKE_SLEEPING and WAKE_ELSEWHERE are set by the sleeper in wake_prepare and cleared by it in wake_cancel and after
 * wake_sleep, by nobody else; WAKE_ELSEWHERE: it waits for room, the store or the end of a pause, and an entry in
 * its ring is not for it. WAKE_WOKEN is set by wakers and cleared by the sleeper. The futex waits while the word
 * is as wake_prepare left it.
 *
 * Invariants
 *  1. No wake-up is lost. The sleeper: set WAKE_SLEEPING, look for work, sleep. The waker: make work, look at the
 * word, wake. Either the look for work comes after the work in the order of all seq_cst operations, and finds
 * it; or it comes before, then so does WAKE_SLEEPING, and the waker sees that. Work here is a ring's word, a
 * ticket's word, or (wake_slot, whose look is a read-modify-write of the sleeper's word) anything stored
 * before it.
 *  2. A waker killed between setting WAKE_WOKEN and the system call leaves WAKE_SLEEPING standing. wake_stage passes
 * over such a sleeper, wake_slot does not: the supervisor calls wake_source after every exit (and wake_slot
 * for the keeper), and all look again. That also covers a worker killed after it was woken and before it took
 * the event, and whoever crashed between its change and its look at who waits.
 *  3. A sleeper killed leaves its bits; slot_clear and slot_open wipe them.
 *
 * The futex calls are not of the private kind: the word is found by the page, not by the process's address.
 * A failing call is survived: a wait that returns early makes the caller look again, which it must do anyway.
 */
#include "shm/wake.h"

#include "shm/ring.h"
#include "shm/slot.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Relaxed: the process's own state. */
static bool waits_elsewhere(const struct shm_slot *slot)
{
    uint32_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);
    return state == SHM_SLOT_BLOCKED || state == SHM_SLOT_WAITING || state == SHM_SLOT_PAUSED;
}

/* seq_cst: first in the pair of invariant 1. As a read-modify-write it also acquires from the last waker, so
 * that the look for work sees whatever that one stored before. */
static uint32_t prepare(struct shm_slot *slot, bool elsewhere)
{
    uint32_t key = WAKE_SLEEPING | (elsewhere ? WAKE_ELSEWHERE : 0);
    atomic_exchange_explicit(&slot->wake, key, memory_order_seq_cst);
    return key;
}

uint32_t wake_prepare(struct shm_slot *slot)
{
    return prepare(slot, waits_elsewhere(slot));
}

uint32_t wake_prepare_elsewhere(struct shm_slot *slot)
{
    return prepare(slot, true);
}

/* Acquire: what a waker did meanwhile is seen by what follows, wake_for_leftover above all. */
void wake_cancel(struct shm_slot *slot)
{
    atomic_exchange_explicit(&slot->wake, 0, memory_order_acquire);
}

/* seq_cst: after the state and the WAKE_SLEEPING by which wake_room finds and wakes the waiter, before the caller looks for
 * room (invariant 1). */
void wake_want_room(struct shm_ring *ring)
{
    atomic_store_explicit(&ring->space_wanted, 1, memory_order_seq_cst);
}

/* seq_cst: after WAKE_SLEEPING, before the caller looks for a FREE ticket (invariant 1). */
void wake_want_ticket(struct shm_source *source)
{
    atomic_store_explicit(&source->tickets_wanted, 1, memory_order_seq_cst);
}

void wake_wait(_Atomic uint32_t *word, uint32_t key, uint64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / UINT64_C(1000000000)),
                               .tv_nsec = (long)(timeout_ns % UINT64_C(1000000000))};
    syscall(SYS_futex, word, FUTEX_WAIT, key, timeout_ns == WAKE_FOREVER ? NULL : &timeout, NULL, 0);
}

void wake_word(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* The kernel compares the word with the key and queues the sleeper as one step; a waker sets WAKE_WOKEN before it
 * calls, so it comes before that step and the wait ends at once, or after it and finds the sleeper queued. */
void wake_sleep(struct shm_slot *slot, uint32_t key, uint64_t timeout_ns)
{
    wake_wait(&slot->wake, key, timeout_ns);
    wake_cancel(slot);
}

/* Also when WAKE_WOKEN stands already: who set it may have been killed before its call. seq_cst: see invariant 1;
 * the release in it hands on what the caller stored before, should the sleeper prepare later. */
void wake_slot(struct shm_slot *slot)
{
    if ((atomic_fetch_or_explicit(&slot->wake, WAKE_WOKEN, memory_order_seq_cst) & WAKE_SLEEPING) != 0)
        wake_word(&slot->wake);
}

/* For one entry one sleeper: who sets WAKE_WOKEN first has picked this one, and the next waker goes to the next.
 * seq_cst, the load and both outcomes of the swap: invariant 1. */
static bool wake_claimed(struct shm_slot *slot)
{
    uint32_t sleeping = WAKE_SLEEPING;
    if (atomic_load_explicit(&slot->wake, memory_order_seq_cst) != WAKE_SLEEPING ||
        !atomic_compare_exchange_strong_explicit(&slot->wake, &sleeping, WAKE_SLEEPING | WAKE_WOKEN,
                                                 memory_order_seq_cst, memory_order_seq_cst))
        return false;
    wake_word(&slot->wake);
    return true;
}

void wake_stage(const struct segment *segment, const struct shm_stage *stage)
{
    for (uint32_t i = 0; i < stage->concurrency; i++)
        if (wake_claimed(segment_slot(segment, stage->first_slot + i)))
            return;
}

uint32_t wake_idle(const struct segment *segment, const struct shm_stage *stage)
{
    uint32_t idle = 0;
    for (uint32_t i = 0; i < stage->concurrency; i++) /* relaxed: it is a guess about others anyway */
        idle += atomic_load_explicit(&segment_slot(segment, stage->first_slot + i)->wake,
                                     memory_order_relaxed) == WAKE_SLEEPING;
    return idle;
}

/* A waker may have picked a worker that found another entry by itself, between its wake_prepare and its
 * wake_cancel. That wake-up would be spent, and an entry would wait while others sleep. */
void wake_for_leftover(const struct segment *segment, const struct shm_stage *stage)
{
    if (ring_count(&stage->ring) > 0)
        wake_stage(segment, stage);
}

static void wake_blocked(struct shm_slot *slot)
{
    /* seq_cst: the state was stored before space_wanted, which has been seen. */
    if (atomic_load_explicit(&slot->state, memory_order_seq_cst) == SHM_SLOT_BLOCKED)
        wake_slot(slot);
}

/*
 * A waiter sets space_wanted, sees the ring at its limit, sleeps. To fall from the limit to its half a pop
 * must follow; that pop's process looks here after it, in the order of all seq_cst operations, and sees
 * space_wanted, unless another has taken it and wakes the waiter instead. The count is never too big
 * (ring_count), so the last pop before a standstill does not take the ring for fuller than it is. Waking at
 * the half spares a waiter a sleep for every entry. All who wait for this ring wake: which of them is
 * next is decided by the ring.
 *
 * Killed after the exchange: those not yet woken are by the supervisor's wake_source, and want again.
 */
void wake_room(const struct segment *segment, struct shm_stage *stage)
{
    struct shm_ring *ring = &stage->ring;
    if (atomic_load_explicit(&ring->space_wanted, memory_order_seq_cst) == 0 || /* seq_cst: as said */
        ring_count(ring) > ring->limit / 2 ||
        atomic_exchange_explicit(&ring->space_wanted, 0, memory_order_seq_cst) == 0)
        return;
    const struct shm_source *source = segment_source(segment, stage->source);
    if (stage->position == 0) {
        wake_blocked(segment_slot(segment, source->producer_slot));
        return;
    }
    const struct shm_stage *before = segment_stage(segment, source->first_stage + stage->position - 1);
    for (uint32_t i = 0; i < before->concurrency; i++)
        wake_blocked(segment_slot(segment, before->first_slot + i));
}

/* The producer sets tickets_wanted, finds no FREE ticket, sleeps; who frees one looks here after it (seq_cst,
 * both). Killed after the exchange: as in wake_room. */
void wake_ticket_freed(const struct segment *segment, struct shm_source *source)
{
    if (atomic_load_explicit(&source->tickets_wanted, memory_order_seq_cst) != 0 &&
        atomic_exchange_explicit(&source->tickets_wanted, 0, memory_order_seq_cst) != 0)
        wake_slot(segment_slot(segment, source->producer_slot));
}

void wake_source(const struct segment *segment, const struct shm_source *source)
{
    wake_slot(segment_slot(segment, source->producer_slot));
    for (uint32_t i = 0; i < source->stage_count; i++) {
        const struct shm_stage *stage = segment_stage(segment, source->first_stage + i);
        for (uint32_t worker = 0; worker < stage->concurrency; worker++)
            wake_slot(segment_slot(segment, stage->first_slot + worker));
    }
}
