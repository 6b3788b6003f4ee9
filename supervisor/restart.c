/* SPDX-License-Identifier: MIT */
/*
 * The restart policy: when an exited process is started again. Called by the supervisor; a pure
 * computation, tested without a process.
 *
 * Invariants
 *  1. The first restart is immediate. The next pause is 250 ms, doubled each time up to the longest
 *     pause, and stays there: a process is restarted for ever.
 *  2. A process that was useful (it answered a call, or was ready for a minute) resets the pause. One
 *     that gave up over a damaged store is useful only after a minute: each of its successors answers
 *     the same calls before it reaches the damaged page.
 *  3. If the process crashed on an event that has crashed here before, the event is the suspect: such a
 *     crash does not lengthen the pause.
 */
#include "supervisor/restart.h"

#define FIRST_PAUSE_MS UINT64_C(250)
#define STABLE_NS UINT64_C(60000000000)
#define DEGRADED_LEVEL 2
#define LEVEL_MAX 64 /* the count stops here, the restarts do not */

/* Returns how many milliseconds the supervisor waits before it starts a process again. `level` is how many
 * processes in a row have exited there without having been useful. 0 for level 0, then 250 ms, doubled for
 * each further one up to longest_ms. */
static uint64_t choose_pause_ms(uint32_t level, uint64_t longest_ms)
{
    if (level == 0)
        return 0;
    uint64_t pause_ms = FIRST_PAUSE_MS;
    for (uint32_t level_reached = 1; level_reached < level && pause_ms < longest_ms; level_reached++)
        pause_ms *= 2;
    return pause_ms < longest_ms ? pause_ms : longest_ms;
}

static bool was_useful(const struct restart_life *life)
{
    return (life->made_progress && !life->gave_up_over_store) ||
           (life->ready && life->now_ns - life->born_ns >= STABLE_NS);
}

/* Returns how many milliseconds the supervisor waits before it starts a process again, 0 = at once. The
 * supervisor calls it after each exit. A process that was useful (it answered a call, or was ready for a
 * minute) resets the pause, and an exit for which an event is suspected does not lengthen it. Makes no
 * system calls. */
uint64_t restart_after_exit(struct restart *restart, const struct restart_life *life, uint64_t longest_ms)
{
    if (life->requested)
        return 0;
    if (life->gave_up_over_store)
        restart->level += restart->level_before_reset;
    restart->level_before_reset = 0;
    if (was_useful(life))
        restart->level = 0;
    if (life->is_event_suspect)
        return choose_pause_ms(restart->level > 0 ? restart->level - 1 : 0, longest_ms);
    uint64_t pause_ms = choose_pause_ms(restart->level, longest_ms);
    if (restart->level < LEVEL_MAX)
        restart->level++;
    return pause_ms;
}

/* Resets the restart pause of a running process that has become useful: it answered a call, or was ready
 * for a minute. The supervisor calls it once a turn. Returns true if this changed anything; then the
 * supervisor also updates the mark `degraded` of the stage. */
bool restart_while_alive(struct restart *restart, const struct restart_life *life)
{
    if (restart->level == 0 || !was_useful(life))
        return false;
    restart->level_before_reset = restart->level;
    restart->level = 0;
    return true;
}

bool restart_degraded(const struct restart *restart)
{
    return restart->level >= DEGRADED_LEVEL;
}
