/* SPDX-License-Identifier: MIT */
/*
 * Tickets: who owns each event in flight. One 64-bit word per ticket, changed by compare-and-swap only.
 *
 *   FREE -> LOADING(producer) -> QUEUED(stage) -> RUNNING(stage, slot) -> QUEUED(next stage) ... -> FREE
 *                  \________________________________\-> ORPHANED -> FREE
 *
 * A stage in a word is its position in the chain; a slot is its index in the segment; ticket indexes are
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
struct ticket_view ticket_look(const struct segment *segment, uint32_t ticket);

/* Producer: FREE -> LOADING. Looks from *hint on (the caller keeps it), returns the ticket or SHM_NO_TICKET.
 */
uint32_t ticket_load(const struct segment *segment, const struct shm_source *source, uint32_t slot,
                     uint32_t *hint);
/* Producer, while LOADING: names the event and its lock's token. Done before the store's transaction commits.
 */
void ticket_bind(const struct segment *segment, uint32_t ticket, int64_t event, uint64_t token);
/* Owner (LOADING or RUNNING, by `slot`): hands it to a stage. The caller pushes it into that stage's ring
 * next. */
bool ticket_queue(const struct segment *segment, uint32_t ticket, uint32_t slot, uint32_t stage);
/* The same and the push, whatever the ring's limit. A ring full of stale copies takes nothing: then `fallen`
 * tells the supervisor to put the ticket in when there is room. False: it was not the owner's. */
bool ticket_pass(const struct segment *segment, struct shm_source *source, uint32_t ticket, uint32_t slot,
                 uint32_t stage);
/* Worker: QUEUED(stage) -> RUNNING(stage, slot). False: the ring's entry was stale, drop it. */
bool ticket_take(const struct segment *segment, uint32_t ticket, uint32_t stage, uint32_t slot,
                 struct ticket_view *out);
/* Owner (LOADING or RUNNING by `slot`): -> FREE. Then wakes nobody: see wake_ticket_freed. */
bool ticket_free(const struct segment *segment, uint32_t ticket, uint32_t slot);
/* Supervisor, after slot's exit: LOADING or RUNNING of that slot -> ORPHANED. The cause is written before.
 */
bool ticket_orphan(const struct segment *segment, uint32_t ticket, uint32_t slot);
/* Producer, when the store has released it: ORPHANED -> FREE. Also clears the ticket's cause. */
bool ticket_free_orphan(const struct segment *segment, uint32_t ticket);
/* Producer's final clear-up when all workers are gone: whatever it was -> ORPHANED, except FREE. True: it is
 * ORPHANED now, or was before. */
bool ticket_revoke(const struct segment *segment, uint32_t ticket);

/* How many of a source's tickets are not FREE; and, of these, at each stage (QUEUED or RUNNING) if counts !=
 * NULL. */
uint32_t ticket_count(const struct segment *segment, const struct shm_source *source, uint32_t *queued,
                      uint32_t *running);

/*
 * Puts each QUEUED ticket of this source that stands in no ring back into its stage's ring (a second copy is
 * harmless). Returns how many it put back; *left is set when a ring had no room: call again later.
 */
uint32_t ticket_requeue_lost(const struct segment *segment, const struct shm_source *source, bool *left);

#endif
