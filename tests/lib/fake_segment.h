/* SPDX-License-Identifier: MIT */
/* For tests of what reads the segment: one made up by hand, with two sources, as a supervisor and its
 * children leave it. */
#ifndef TESTS_LIB_FAKE_SEGMENT_H
#define TESTS_LIB_FAKE_SEGMENT_H

#include "shm/counter.h"
#include "shm/ring.h"
#include "shm/slot.h"
#include "shm/ticket.h"
#include "tests/lib/unit.h"

/* The name of the segment that fake_create made last. */
extern char fake_instance[64];

struct shm_slot *fake_worker(const struct segment *segment, uint32_t stage, uint32_t worker);

/* Puts a process into a slot. */
void fake_process(struct shm_slot *slot, int32_t pid, enum shm_slot_state state);

/* All is well: quakes (locate with 2 workers, keep), web (only). Everything runs and nothing is to be done.
 */
void fake_create(struct segment *segment);

/* Unmaps it and removes its name. */
void fake_destroy(struct segment *segment);

/* Puts an event of the source into a stage's ring, or, with a worker, into its hands. */
uint32_t fake_event(const struct segment *segment, uint32_t source, uint32_t stage, int64_t event,
                    struct shm_slot *worker, uint32_t worker_slot);

#endif
