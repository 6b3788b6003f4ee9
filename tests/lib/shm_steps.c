/* SPDX-License-Identifier: MIT */
/* The steps of a producer and of a worker. */
#include "tests/lib/shm_steps.h"

struct steps steps_for(const struct segment *segment, uint32_t slot_index)
{
    struct shm_slot *slot = segment_slot(segment, slot_index);
    return (struct steps){.segment = segment,
                          .source = segment_source(segment, slot->source),
                          .stage = slot->kind == SHM_KIND_WORKER ? segment_stage(segment, slot->stage) : NULL,
                          .slot_index = slot_index,
                          .slot = slot};
}

bool steps_stopping(const struct steps *steps)
{
    return atomic_load(&steps->segment->header->phase) == SHM_PHASE_STOPPED;
}

/* As worker.c when it is BLOCKED; the daemon's worker waits before it takes the event, this one before it
 * passes it. */
static void steps_wait_for_room(struct steps *steps, struct shm_ring *ring)
{
    while (!ring_has_room(ring)) {
        slot_set_state(steps->slot, SHM_SLOT_BLOCKED);
        uint32_t key = wake_prepare(steps->slot);
        wake_want_room(ring);
        if (ring_has_room(ring))
            wake_cancel(steps->slot);
        else
            wake_sleep(steps->slot, key, WAKE_FOREVER);
    }
}

void steps_hand_on(struct steps *steps, uint32_t ticket, uint32_t position)
{
    if (position < steps->source->stage_count) {
        struct shm_stage *stage = segment_stage(steps->segment, steps->source->first_stage + position);
        steps_wait_for_room(steps, &stage->ring);
        if (ticket_pass_on(steps->segment, steps->source, ticket, steps->slot_index, position))
            wake_stage(steps->segment, stage);
    } else if (ticket_free(steps->segment, ticket, steps->slot_index)) {
        wake_ticket_freed(steps->segment, steps->source);
    }
}

uint32_t steps_take(struct steps *steps, uint32_t tickets[], struct ticket_view views[], uint32_t limit)
{
    uint32_t count = 0, popped = 0, ticket;
    assert(steps->stage != NULL); /* a worker's, never a producer's */
    while (count < limit && ring_pop(steps->segment, &steps->stage->ring, &ticket) == RING_OK) {
        popped++;
        if (ticket_take(steps->segment, ticket, steps->stage->position, steps->slot_index, &views[count]))
            tickets[count++] = ticket;
        else
            steps->stale++;
    }
    if (popped > 0) {
        wake_waiters_for_room(steps->segment, steps->stage);
        wake_for_leftover(steps->segment, steps->stage);
    }
    return count;
}

void steps_idle(struct steps *steps)
{
    slot_set_state(steps->slot, SHM_SLOT_IDLE);
    uint32_t key = wake_prepare(steps->slot);
    if (ring_count(&steps->stage->ring) > 0 || steps_stopping(steps))
        wake_cancel(steps->slot);
    else
        wake_sleep(steps->slot, key, WAKE_FOREVER);
}
