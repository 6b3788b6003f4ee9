/* SPDX-License-Identifier: MIT */
/* Rings: bounded, lock-free, many producers and many consumers, safe against SIGKILL at any instruction. */
#ifndef SHM_RING_H
#define SHM_RING_H

#include "shm/segment.h"

enum ring_answer { RING_OK = 0, RING_FULL = 1, RING_EMPTY = 2 };

/* Puts a ticket in; ticket_pass_on and ticket_requeue_lost call it. RING_FULL: no word is free. It does not
 * look at the limit: a process holds itself back (ring_has_room) before it takes an event, never when it
 * passes one on. */
enum ring_answer ring_push(const struct segment *segment, struct shm_ring *ring, uint32_t ticket);

/* Takes the oldest ticket out. It is only a hint until ticket_take succeeds. */
enum ring_answer ring_pop(const struct segment *segment, struct shm_ring *ring, uint32_t *ticket);

/* How many entries there are; exact while no other process pushes or pops. */
uint32_t ring_count(const struct shm_ring *ring);
/* Whether fewer entries wait than the limit (input_buffer): the stage before may take more events. */
bool ring_has_room(const struct shm_ring *ring);

/* Calls on_ticket(ticket, user) for each ticket that is in the ring at some instant of the call. */
void ring_each(const struct segment *segment, const struct shm_ring *ring,
               void (*on_ticket)(uint32_t ticket, void *user), void *user);

#endif
