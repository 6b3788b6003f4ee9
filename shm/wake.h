/* SPDX-License-Identifier: MIT */
/*
 * Sleep and wake across processes. Each process sleeps on its own slot's futex word, so a killed sleeper
 * leaves nothing to clear up, and a waker wakes exactly the process it means.
 *
 *   for (;;) {
 *       key = wake_prepare(slot);
 *       if (there is work) {
 *           wake_cancel(slot);
 *           break;
 *       }
 *       wake_sleep(slot, key, timeout_ns);
 *   }
 *
 * No wake-up is lost: a wake between prepare and sleep makes sleep return at once. The sleeper must look
 * for work again in each round, between these two calls. wake_sleep may also return early.
 *
 * What wake_slot and wake_source announce may be stored in any order before the call. wake_stage,
 * wake_waiters_for_room and wake_ticket_freed rely on the seq_cst operations of ring.c and ticket.c.
 */
#ifndef SHM_WAKE_H
#define SHM_WAKE_H

#include "shm/segment.h"

#define WAKE_FOREVER UINT64_MAX

/* Bits of a slot's wake word. */
#define WAKE_SLEEPING 1u  /* the process sleeps, or is about to */
#define WAKE_WOKEN 2u     /* a waker has chosen it */
#define WAKE_ELSEWHERE 4u /* it waits for something else than entries of its ring */

/* Marks the slot as sleeping and returns the key for wake_sleep. Set the slot's state first: in BLOCKED,
 * WAITING or PAUSED the sleeper is not woken for entries of its ring. */
uint32_t wake_prepare(struct shm_slot *slot);
/* The same whatever the state, for a thread that cannot run entries (a store that waits, a committer). */
uint32_t wake_prepare_elsewhere(struct shm_slot *slot);
/* Between wake_prepare and the look for work, in each round of the loop, because a waker clears the wish.
 * The producer or a worker asks to be woken when this ring is half empty; its slot must be BLOCKED. */
void wake_want_room(struct shm_ring *ring);
/* The same for the producer: asks to be woken when a ticket goes FREE. */
void wake_want_ticket(struct shm_source *source);
void wake_cancel(struct shm_slot *slot);
void wake_sleep(struct shm_slot *slot, uint32_t futex_key, uint64_t timeout_ns);
/* The bare futex: sleeps while *futex_word is `futex_key`, at most timeout_ns; wakes one sleeper of it. */
void wake_wait(_Atomic uint32_t *futex_word, uint32_t futex_key, uint64_t timeout_ns);
void wake_word(_Atomic uint32_t *futex_word);
/* Wakes this process, whatever it waits for. No system call unless the slot sleeps. */
void wake_slot(struct shm_slot *slot);

/* After pushes into a stage's ring: wakes one of its sleeping workers. That worker wakes the next one for
 * what it leaves (wake_for_leftover). */
void wake_stage(const struct segment *segment, const struct shm_stage *stage);
/* How many of a stage's workers sleep because their ring is empty and have not been woken. A guess: it may
 * change. */
uint32_t wake_count_idle_workers(const struct segment *segment, const struct shm_stage *stage);
/* A worker calls it after wake_cancel, when it has popped what it runs now and before it runs it: if
 * entries are left, wakes one more sleeper of the stage. A worker that postpones this call, because it
 * means to take the rest itself at once, must make it when that takes longer (worker_commit.c). */
void wake_for_leftover(const struct segment *segment, const struct shm_stage *stage);
/* After a pop, also of a stale entry: wakes the processes that wait for room in this ring, once it is half
 * empty. One load when there are none. */
void wake_waiters_for_room(const struct segment *segment, struct shm_stage *stage);
/* After a ticket went FREE: wakes the producer if it waits for one. One load when it does not. */
void wake_ticket_freed(const struct segment *segment, struct shm_source *source);
/* The supervisor, after an exit, a change of phase or a pause: makes every process of this source look
 * again. After the exit of a process that wakes others by wake_slot (the keeper), it does this for every
 * source; after any exit it also wakes the keeper. */
void wake_source(const struct segment *segment, const struct shm_source *source);

#endif
