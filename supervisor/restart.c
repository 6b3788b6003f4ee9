/* SPDX-License-Identifier: MIT */
/*
 * When an exited process is started again. Pure: called by the supervisor, tested without a process.
 *
 * Invariants
 *  1. The first restart is immediate; then 250 ms, doubled each time up to the longest pause, for ever at
 * that pace: a process is never given up.
 *  2. A process that was useful (answered a call, or stood at work for a minute) starts from the beginning
 * again. One that gave up is useful after a minute only: what comes before a damaged page it does each time.
 *  3. An event that has crashed here before is the suspect, not the process: such a crash does not slow
 * restarts.
 */
#include "supervisor/restart.h"

#define FIRST_PAUSE_MS UINT64_C(250)
#define STABLE_NS UINT64_C(60000000000)
#define DEGRADED_LEVEL 2
#define LEVEL_MAX 64 /* beyond any doubling that fits; stops the count, not the restarts */

static uint64_t pause_ms(uint32_t level, uint64_t longest_ms)
{
    if (level == 0)
        return 0;
    uint64_t pause = FIRST_PAUSE_MS;
    for (uint32_t doubled = 1; doubled < level && pause < longest_ms; doubled++)
        pause *= 2;
    return pause < longest_ms ? pause : longest_ms;
}

static bool was_of_use(const struct restart_life *life)
{
    return (life->made_progress && !life->gave_up) ||
           (life->ready && life->now_ns - life->born_ns >= STABLE_NS);
}

uint64_t restart_after_exit(struct restart *restart, const struct restart_life *life, uint64_t longest_ms)
{
    if (life->requested)
        return 0;
    if (life->gave_up)
        restart->level += restart->level_before_reset;
    restart->level_before_reset = 0;
    if (was_of_use(life))
        restart->level = 0;
    if (life->event_suspect)
        return pause_ms(restart->level > 0 ? restart->level - 1 : 0, longest_ms);
    uint64_t pause = pause_ms(restart->level, longest_ms);
    if (restart->level < LEVEL_MAX)
        restart->level++;
    return pause;
}

bool restart_while_alive(struct restart *restart, const struct restart_life *life)
{
    if (restart->level == 0 || !was_of_use(life))
        return false;
    restart->level_before_reset = restart->level;
    restart->level = 0;
    return true;
}

bool restart_degraded(const struct restart *restart)
{
    return restart->level >= DEGRADED_LEVEL;
}
