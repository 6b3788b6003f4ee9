/* SPDX-License-Identifier: MIT */
/*
 * The pause before a failed action is tried again: one formula for fetches, stage calls and restarts of
 * processes. Pure: any process, any thread.
 */
#include "src/base/backoff.h"

/* Returns how many milliseconds to wait before a failed action is tried again: longer after each attempt,
 * and spread by a random factor. The producer calls it after a failed fetch or a crash of a worker, a
 * worker when a stage asks for a retry. Without the random factor all processes would return to a failed
 * server at the same instant. */
uint64_t base_backoff_ms(uint64_t min_ms, uint64_t max_ms, uint32_t attempt, uint32_t random)
{
    uint64_t delay = min_ms;
    uint32_t doublings = attempt > 1 ? attempt - 1 : 0;

    if (delay == 0)
        return 0;
    if (doublings >= 63 || delay > max_ms >> doublings)
        delay = max_ms;
    else
        delay <<= doublings;
    if (delay > UINT64_MAX / 2)
        delay = UINT64_MAX / 2; /* room for the factor */
    unsigned __int128 half = (unsigned __int128)(delay / 2);
    return delay - delay / 4 + (uint64_t)(half * random >> 32);
}
