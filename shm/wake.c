/* SPDX-License-Identifier: MIT */
/*
 * Sleep and wake across processes. Every process of the instance runs it and sleeps only on its own slot's
 * wake word.
 *
 * The sleeper sets WAKE_SLEEPING and WAKE_ELSEWHERE in wake_prepare and clears them in wake_cancel and
 * after wake_sleep. Wakers set WAKE_WOKEN, the sleeper clears it. The futex waits only while the word is
 * as wake_prepare left it.
 *
 * Invariants
 *  1. No wake-up is lost. The sleeper sets WAKE_SLEEPING, looks for work, sleeps. The waker makes work,
 *     looks at the word, wakes. All of these are seq_cst, so they have one order. If the sleeper looks
 *     after the work was made, it finds the work. If it looks before, WAKE_SLEEPING was set before too,
 *     and the waker sees it. Work is a ring's word, a ticket's word, or, for wake_slot, anything stored
 *     before the call.
 *  2. A waker killed between setting WAKE_WOKEN and the system call leaves WAKE_SLEEPING set. wake_stage
 *     passes over such a sleeper; wake_slot does not. The supervisor calls wake_source after every exit
 *     (and wake_slot for the keeper), so every process looks again. The same call covers a worker killed
 *     after it was woken and before it took the event, and a process killed between its change and its
 *     look at the sleepers.
 *  3. A killed sleeper leaves its bits set. slot_clear and slot_open clear them.
 *
 * The futex calls are not the private kind: the kernel must find the word by its page, which all processes
 * share. A failing call is survived: the wait returns early, and the caller looks again, as it must anyway.
 */
#include "shm/wake.h"

#include "shm/ring.h"
#include "shm/slot.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Whether this process now waits for something else than entries of its ring, so that none shall wake
 * it for them. Relaxed: it is the process's own state. */
static bool is_slot_waiting_elsewhere(const struct shm_slot *slot)
{
    uint32_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);
    return state == SHM_SLOT_BLOCKED || state == SHM_SLOT_WAITING || state == SHM_SLOT_PAUSED;
}

/* seq_cst: the first half of the pair in invariant 1. As a read-modify-write it also acquires from the
 * last waker, so the look for work sees whatever that waker stored before. */
static uint32_t prepare_sleep(struct shm_slot *slot, bool is_waiting_elsewhere)
{
    uint32_t futex_key = WAKE_SLEEPING | (is_waiting_elsewhere ? WAKE_ELSEWHERE : 0);
    atomic_exchange_explicit(&slot->wake, futex_key, memory_order_seq_cst);
    return futex_key;
}

uint32_t wake_prepare(struct shm_slot *slot)
{
    return prepare_sleep(slot, is_slot_waiting_elsewhere(slot));
}

uint32_t wake_prepare_elsewhere(struct shm_slot *slot)
{
    return prepare_sleep(slot, true);
}

/* The sleeper found work. Acquire: what follows, above all wake_for_leftover, sees what a waker did
 * meanwhile. */
void wake_cancel(struct shm_slot *slot)
{
    atomic_exchange_explicit(&slot->wake, 0, memory_order_acquire);
}

/* seq_cst: after the state and the WAKE_SLEEPING by which wake_waiters_for_room finds and wakes the waiter,
 * before the caller looks for room (invariant 1). */
void wake_want_room(struct shm_ring *ring)
{
    atomic_store_explicit(&ring->space_wanted, 1, memory_order_seq_cst);
}

/* seq_cst: after WAKE_SLEEPING, before the caller looks for a FREE ticket (invariant 1). */
void wake_want_ticket(struct shm_source *source)
{
    atomic_store_explicit(&source->tickets_wanted, 1, memory_order_seq_cst);
}

void wake_wait(_Atomic uint32_t *futex_word, uint32_t futex_key, uint64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / UINT64_C(1000000000)),
                               .tv_nsec = (long)(timeout_ns % UINT64_C(1000000000))};
    syscall(SYS_futex, futex_word, FUTEX_WAIT, futex_key, timeout_ns == WAKE_FOREVER ? NULL : &timeout, NULL,
            0);
}

void wake_word(_Atomic uint32_t *futex_word)
{
    syscall(SYS_futex, futex_word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* The kernel compares the word with the key and queues the sleeper in one step. A waker sets WAKE_WOKEN
 * before its call. Either that comes before the step, and the wait ends at once, or after it, and the call
 * finds the sleeper. */
void wake_sleep(struct shm_slot *slot, uint32_t futex_key, uint64_t timeout_ns)
{
    wake_wait(&slot->wake, futex_key, timeout_ns);
    wake_cancel(slot);
}

/* Wakes the process of this slot (each process has one in shared memory) if it sleeps, whatever it waits
 * for. Calls the kernel also when WAKE_WOKEN is set already: the process that set it may have been killed
 * before its call. seq_cst: invariant 1 (no wake-up is lost). It also releases what the caller stored
 * before, for a process that goes to sleep later. */
void wake_slot(struct shm_slot *slot)
{
    if ((atomic_fetch_or_explicit(&slot->wake, WAKE_WOKEN, memory_order_seq_cst) & WAKE_SLEEPING) != 0)
        wake_word(&slot->wake);
}

/* Wakes one sleeping worker of a stage, unless another process has chosen it already, so that each entry
 * of the ring in shared memory wakes another worker. Returns whether it did. seq_cst, the load and both
 * outcomes of the swap: invariant 1 (no wake-up is lost) needs them in one order. */
static bool wake_unless_chosen(struct shm_slot *slot)
{
    uint32_t expected_state = WAKE_SLEEPING;
    if (atomic_load_explicit(&slot->wake, memory_order_seq_cst) != WAKE_SLEEPING ||
        !atomic_compare_exchange_strong_explicit(&slot->wake, &expected_state, WAKE_SLEEPING | WAKE_WOKEN,
                                                 memory_order_seq_cst, memory_order_seq_cst))
        return false;
    wake_word(&slot->wake);
    return true;
}

/* Wakes one sleeping worker of a stage, if there is one, through the futex word of its slot in shared
 * memory. A producer or worker calls it after it has pushed events into the stage's ring; the woken worker
 * wakes the next one if entries are left. */
void wake_stage(const struct segment *segment, const struct shm_stage *stage)
{
    for (uint32_t i = 0; i < stage->concurrency; i++)
        if (wake_unless_chosen(segment_slot(segment, stage->first_slot + i)))
            return;
}

/* Returns how many workers of a stage sleep because they have no events. The producer and the workers of
 * the stage before call it to decide how many events to take. The number, read from shared memory, is a
 * guess: it may change at once. */
uint32_t wake_count_idle_workers(const struct segment *segment, const struct shm_stage *stage)
{
    uint32_t idle_count = 0;
    for (uint32_t i = 0; i < stage->concurrency; i++) /* relaxed: it is a guess about others anyway */
        idle_count += atomic_load_explicit(&segment_slot(segment, stage->first_slot + i)->wake,
                                           memory_order_relaxed) == WAKE_SLEEPING;
    return idle_count;
}

/* Wakes one more worker of a stage if entries are left in its ring; a worker calls it when it has taken
 * its share. Without it an entry could wait while a worker sleeps: a wake-up is spent if the worker
 * that was chosen finds another entry by itself, between its wake_prepare and its wake_cancel. */
void wake_for_leftover(const struct segment *segment, const struct shm_stage *stage)
{
    if (ring_count(&stage->ring) > 0)
        wake_stage(segment, stage);
}

static void wake_slot_if_blocked(struct shm_slot *slot)
{
    /* seq_cst: the waiter stored its state before space_wanted, and space_wanted has been seen. */
    if (atomic_load_explicit(&slot->state, memory_order_seq_cst) == SHM_SLOT_BLOCKED)
        wake_slot(slot);
}

/*
 * A worker calls this after it has popped events from its stage's ring in shared memory: once the ring is
 * half empty, wakes the producer or the workers of the stage before that wait for room.
 *
 * A waiter sets space_wanted, sees the ring at its limit, and sleeps. The ring falls from its limit to
 * half of it only by pops. The process of the last such pop looks here afterwards, in the order of all
 * seq_cst operations, and sees space_wanted, unless another process has taken it and wakes the waiter
 * instead. ring_count is never too big, so the last pop before a standstill cannot take the ring for
 * fuller than it is. Waking at the half spares the waiters one sleep per entry. All that wait for this
 * ring wake, and each looks at the ring again.
 *
 * If the worker is killed after the exchange, the supervisor's wake_source wakes those that it has not,
 * and they set space_wanted again.
 */
void wake_waiters_for_room(const struct segment *segment, struct shm_stage *stage)
{
    struct shm_ring *ring = &stage->ring;
    if (atomic_load_explicit(&ring->space_wanted, memory_order_seq_cst) == 0 || /* seq_cst: as said */
        ring_count(ring) > ring->limit / 2 ||
        atomic_exchange_explicit(&ring->space_wanted, 0, memory_order_seq_cst) == 0)
        return;
    const struct shm_source *source = segment_source(segment, stage->source);
    if (stage->position == 0) {
        wake_slot_if_blocked(segment_slot(segment, source->producer_slot));
        return;
    }
    const struct shm_stage *previous_stage =
        segment_stage(segment, source->first_stage + stage->position - 1);
    for (uint32_t i = 0; i < previous_stage->concurrency; i++)
        wake_slot_if_blocked(segment_slot(segment, previous_stage->first_slot + i));
}

/* Wakes the producer if it waits for a FREE ticket, which it needs to claim an event; a process that has
 * freed one calls it. The producer sets tickets_wanted, finds no FREE ticket, and sleeps; the process that
 * frees a ticket looks at tickets_wanted afterwards. Both are seq_cst, so one sees the other. If it is
 * killed after the exchange, the supervisor's wake_source wakes the producer. */
void wake_ticket_freed(const struct segment *segment, struct shm_source *source)
{
    if (atomic_load_explicit(&source->tickets_wanted, memory_order_seq_cst) != 0 &&
        atomic_exchange_explicit(&source->tickets_wanted, 0, memory_order_seq_cst) != 0)
        wake_slot(segment_slot(segment, source->producer_slot));
}

/* Wakes the producer and all workers of a source through their slots in shared memory, so that they look
 * for work and read the phase again. The supervisor calls it after an exit, a change of phase, a pause or
 * a resume. It also replaces the wake-ups that a killed process could not make any more. */
void wake_source(const struct segment *segment, const struct shm_source *source)
{
    wake_slot(segment_slot(segment, source->producer_slot));
    for (uint32_t i = 0; i < source->stage_count; i++) {
        const struct shm_stage *stage = segment_stage(segment, source->first_stage + i);
        for (uint32_t worker = 0; worker < stage->concurrency; worker++)
            wake_slot(segment_slot(segment, stage->first_slot + worker));
    }
}
