/* SPDX-License-Identifier: MIT */
/* Slots: one per process. A slot says what its process does, since when, and with which event. Also the
 * texts of the segment and the instance's clock. */
#ifndef SHM_SLOT_H
#define SHM_SLOT_H

#include "shm/segment.h"

uint64_t shm_now_ns(void);      /* CLOCK_MONOTONIC */
uint64_t shm_realtime_ms(void); /* CLOCK_REALTIME; after shm_clock_follow the instance's own */

uint64_t shm_boot_ms(void); /* CLOCK_BOOTTIME: runs while the machine is suspended, and is never set */

/*
 * From here on shm_realtime_ms is this instance's time, in this process and those it forks: the wall clock
 * at the start of the instance plus the time passed since, suspended or not. So setting the wall clock
 * moves no due time, age or timeout. The next start takes the wall clock as it is then.
 */
void shm_clock_follow(const struct shm_header *header);

/* Supervisor. slot_open before fork (state STARTING, next generation, cause cleared), slot_set_pid after
 * fork, slot_clear after the exit was recovered. */
uint32_t slot_open(struct shm_slot *slot);
void slot_set_pid(struct shm_slot *slot, int32_t pid);
void slot_clear(struct shm_slot *slot, enum shm_slot_state state);

/* The process itself: changes its state; begins an event (state BUSY, since now); ends it. */
void slot_set_state(struct shm_slot *slot, enum shm_slot_state state);
void slot_set_uid(struct shm_slot *slot,
                  const char *uid); /* before slot_begin_event: the UID, for messages */
/* What the worker read of its event: the supervisor and the producer need it if the worker crashes. */
struct slot_event {
    int64_t id;
    uint32_t attempts, crashes; /* at this stage, so far */
    uint64_t arrival_ms;        /* wall clock: when the store received it */
};
void slot_begin_event(struct shm_slot *slot, uint32_t ticket, const struct slot_event *event,
                      uint64_t now_ns);
void slot_end_event(struct shm_slot *slot,
                    uint64_t now_ns); /* counts the call, its busy time and latency; the state stays BUSY */

/* text_set: one writer. text_get copies the text, whole if it can within a few tries, and always
 * terminates it. */
void text_set(struct shm_text *text, const char *message);
void text_get(const struct shm_text *text, char *buffer, size_t buffer_bytes);

#endif
