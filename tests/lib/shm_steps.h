/* SPDX-License-Identifier: MIT */
/* What producers and workers of the stress tests do with shm/, step by step, in the order in which the
 * daemon's do it. Nobody here sleeps with a time-out: a lost wake-up shows as a standstill. */
#ifndef TESTS_LIB_SHM_STEPS_H
#define TESTS_LIB_SHM_STEPS_H

#include "shm/ring.h"
#include "shm/slot.h"
#include "shm/ticket.h"
#include "shm/wake.h"

struct steps {
    const struct segment *segment;
    struct shm_source *source;
    struct shm_stage *stage; /* a worker's own, NULL for a producer */
    uint32_t slot_index;
    struct shm_slot *slot;
    uint32_t hint;  /* of ticket_load */
    uint32_t stale; /* entries that ticket_take refused */
};

/* What the process of a slot works with. */
struct steps steps_for(const struct segment *segment, uint32_t slot_index);
bool steps_stopping(const struct steps *steps);

/* Passes a ticket to the stage at this position, or frees it behind the last one; waits while its ring is
 * full. */
void steps_hand_on(struct steps *steps, uint32_t ticket, uint32_t position);

/* Takes what waits for this worker, `limit` events at most; 0: nothing is there. */
uint32_t steps_take(struct steps *steps, uint32_t tickets[], struct ticket_view views[], uint32_t limit);

/* Sleeps until there may be work for this worker. */
void steps_idle(struct steps *steps);

#endif
