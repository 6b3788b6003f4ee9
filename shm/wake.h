/* SPDX-License-Identifier: MIT */
/*
 * Sleep and wake across processes: each process sleeps on its own slot's futex word, so that a killed sleeper
 * leaves nothing to clear up and a waker wakes exactly whom it means.
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
 * No wake-up is lost: a wake between prepare and sleep makes sleep return at once. What the sleeper looks at
 * between them must be looked at again each round. wake_sleep may also return early; look again.
 *
 * Changes that wake_slot and wake_source announce may be stored in any order before the call. wake_stage,
 * wake_room and wake_ticket_freed rest on the seq_cst operations of ring.c and ticket.c.
 */
#ifndef SHM_WAKE_H
#define SHM_WAKE_H

#include "shm/segment.h"

#define WAKE_FOREVER UINT64_MAX

/* Bits of a slot's wake word. */
#define WAKE_SLEEPING 1u  /* the process sleeps, or is about to */
#define WAKE_WOKEN 2u     /* a waker has chosen it */
#define WAKE_ELSEWHERE 4u /* it waits for something else than entries of its ring */

/* Set the slot's state before: in BLOCKED, WAITING or PAUSED the sleeper is not woken for entries of its
 * ring. */
uint32_t wake_prepare(struct shm_slot *slot);
/* The same in any state, for a thread beside the one that runs its entries. */
uint32_t wake_prepare_elsewhere(struct shm_slot *slot);
/* The producer or worker, between wake_prepare and its look, in each round of its loop since a waker clears the wish:
 * asks to be woken when the ring is half empty (its slot must be BLOCKED then), and when a ticket goes FREE. */
void wake_want_room(struct shm_ring *ring);
void wake_want_ticket(struct shm_source *source);
void wake_cancel(struct shm_slot *slot);
void wake_sleep(struct shm_slot *slot, uint32_t key, uint64_t timeout_ns);
/* The bare futex: sleeps while *word is `key`, at most for so long; wakes one who sleeps on it. */
void wake_wait(_Atomic uint32_t *word, uint32_t key, uint64_t timeout_ns);
void wake_word(_Atomic uint32_t *word);
/* No system call unless the slot sleeps. */
void wake_slot(struct shm_slot *slot);

/* After pushes into a stage's ring: wakes one of its sleeping workers, which wakes the next for what it
 * leaves (wake_for_leftover). */
void wake_stage(const struct segment *segment, const struct shm_stage *stage);
/* How many of a stage's workers sleep for want of entries, and have not been woken for one. */
uint32_t wake_idle(const struct segment *segment, const struct shm_stage *stage);
/* A worker that has popped what it will run now (after wake_cancel, before it runs): if entries are left,
 * wakes one more of the stage's sleepers. Without this an entry may wait although a worker sleeps: whoever
 * puts it off, because it will take the rest itself at once, must make it good when that takes longer. */
void wake_for_leftover(const struct segment *segment, const struct shm_stage *stage);
/* After a pop, also of a stale entry: wakes those who wait for room in this ring, once it is half empty.
 * Cheap when nobody does. */
void wake_room(const struct segment *segment, struct shm_stage *stage);
/* After a ticket went FREE: wakes the producer if it waits for one. Cheap when it does not. */
void wake_ticket_freed(const struct segment *segment, struct shm_source *source);
/* After an exit, a change of phase, a pause: everybody of this source looks again. After the exit of a
 * process that wakes others by wake_slot (the keeper), do this for every source; after any exit, wake_slot
 * the keeper. */
void wake_source(const struct segment *segment, const struct shm_source *source);

#endif
