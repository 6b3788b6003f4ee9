/* SPDX-License-Identifier: MIT */
/* Slots: one process each: what it does, since when, with which event. And the texts that stand in the
 * segment. */
#ifndef SHM_SLOT_H
#define SHM_SLOT_H

#include "shm/segment.h"

uint64_t shm_now_ns(void);      /* CLOCK_MONOTONIC */
uint64_t shm_realtime_ms(void); /* CLOCK_REALTIME; after shm_clock_follow the instance's own */

uint64_t shm_boot_ms(void); /* CLOCK_BOOTTIME: goes on while the machine is suspended, and is never set */

/*
 * From here on shm_realtime_ms tells this instance's time, in this process and what it forks: the wall clock
 * at its start and what has passed since, suspended or not. A wall clock that is set moves no due time, age
 * or time-out then. The next start takes the wall clock as it is by then.
 */
void shm_clock_follow(const struct shm_header *header);

/* Supervisor: before fork (state STARTING, next generation, cause cleared), after fork, and after the exit
 * was recovered. */
uint32_t slot_open(struct shm_slot *slot);
void slot_born(struct shm_slot *slot, int32_t pid);
void slot_clear(struct shm_slot *slot, enum shm_slot_state state);

/* The process itself: a change of state; an event taken in hand (state BUSY, since now) and put down again.
 */
void slot_state(struct shm_slot *slot, enum shm_slot_state state);
void slot_name(struct shm_slot *slot, const char *uid); /* before slot_take: what people call the event */
void slot_take(struct shm_slot *slot, uint32_t ticket, int64_t event, uint32_t crashes, uint64_t now_ns);
void slot_put(struct shm_slot *slot,
              uint64_t now_ns); /* counts the call, its busy time and latency; state stays BUSY */

/* One writer. `text_get` copies what there is, whole if it can within a few tries, always terminated. */
void text_set(struct shm_text *text, const char *message);
void text_get(const struct shm_text *text, char *buffer, size_t size);

#endif
