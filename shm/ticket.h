/* SPDX-License-Identifier: MIT */
/*
 * Tickets: who owns each event in flight. One 64-bit word per ticket, changed by compare-and-swap only.
 *
 *   FREE -> LOADING(producer) -> QUEUED(stage) -> RUNNING(stage, slot) -> QUEUED(next stage) ... -> FREE
 *                  \________________________________\-> ORPHANED -> FREE
 *
 * The stage in a word is its position in the chain. The slot is its index in the segment. Ticket indexes are
 * segment-wide.
 */
#ifndef SHM_TICKET_H
#define SHM_TICKET_H

#include "shm/segment.h"

enum ticket_phase { TICKET_FREE, TICKET_LOADING, TICKET_QUEUED, TICKET_RUNNING, TICKET_ORPHANED };

struct ticket_view {
    enum ticket_phase phase;
    uint32_t stage, slot, generation;
    int64_t event;
    uint64_t token;
};
struct ticket_view ticket_read(const struct segment *segment, uint32_t ticket_index);

/* Producer: FREE -> LOADING. Begins to look at *next_index, which the caller keeps. Returns the ticket or
 * SHM_NO_TICKET. */
uint32_t ticket_load(const struct segment *segment, const struct shm_source *source, uint32_t slot,
                     uint32_t *next_index);
/* Producer, while LOADING: names the event and the token of its lock, before the store's transaction
 * commits. */
void ticket_bind(const struct segment *segment, uint32_t ticket_index, int64_t event, uint64_t token);
/* The owner (owner_slot holds it LOADING or RUNNING): -> QUEUED for a stage. The first half of
 * ticket_pass_on; the push must follow. */
bool ticket_mark_queued(const struct segment *segment, uint32_t ticket_index, uint32_t owner_slot,
                        uint32_t stage);
/* Owner: -> QUEUED and pushes into the stage's ring, whatever the ring's limit. If the ring is full of
 * stale copies, `fallen` tells the supervisor to push the ticket when there is room. False: `slot` was not
 * the owner. */
bool ticket_pass_on(const struct segment *segment, struct shm_source *source, uint32_t ticket_index,
                    uint32_t slot, uint32_t stage);
/* Worker: QUEUED(stage) -> RUNNING(stage, slot). False: the entry of the ring was stale; drop it. */
bool ticket_take(const struct segment *segment, uint32_t ticket_index, uint32_t stage, uint32_t slot,
                 struct ticket_view *out);
/* The owner (owner_slot holds it LOADING or RUNNING): -> FREE. Call wake_ticket_freed afterwards. */
bool ticket_free(const struct segment *segment, uint32_t ticket_index, uint32_t owner_slot);
/* Supervisor, after the slot's process exited: LOADING or RUNNING of that slot -> ORPHANED. Write the
 * cause first. */
bool ticket_mark_orphaned(const struct segment *segment, uint32_t ticket_index, uint32_t exited_slot);
/* Producer, when the store has unlocked the event: ORPHANED -> FREE. Also clears the ticket's cause. */
bool ticket_free_orphan(const struct segment *segment, uint32_t ticket_index);
/* Producer at its end, when all workers are gone: any phase but FREE -> ORPHANED. True: it is ORPHANED
 * now. */
bool ticket_revoke(const struct segment *segment, uint32_t ticket_index);

/* How many of a source's tickets are not FREE; and how many of these are QUEUED and RUNNING at each stage,
 * if the arrays are not NULL. */
uint32_t ticket_count(const struct segment *segment, const struct shm_source *source, uint32_t *queued_counts,
                      uint32_t *running_counts);

/*
 * Supervisor: pushes each QUEUED ticket of this source that is in no ring into its stage's ring; a second
 * copy is harmless. Returns how many it pushed. Sets *has_tickets_left when a ring had no room: call again
 * later.
 */
uint32_t ticket_requeue_lost(const struct segment *segment, const struct shm_source *source,
                             bool *has_tickets_left);

#endif
