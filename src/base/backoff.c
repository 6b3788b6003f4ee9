/* SPDX-License-Identifier: MIT */
/*
 * The pause before a failed action is tried again: one formula for fetches, stage calls and restarts of
 * processes. Pure: any process, any thread.
 */
#include "src/base/backoff.h"

/* Returns how many milliseconds to wait before a failed action is tried again: min_ms, doubled with
 * each attempt up to max_ms, times a random factor of 0.75 to 1.25. Without that factor all processes
 * would return to a failed server at the same instant. The producer calls it after a failed fetch or a
 * worker's crash, a worker when a stage's answer asks for a retry. */
uint64_t base_backoff_ms(uint64_t min_ms, uint64_t max_ms, uint32_t attempt, uint32_t random)
{
    uint64_t delay_ms = min_ms;
    uint32_t doublings = attempt > 1 ? attempt - 1 : 0;

    if (delay_ms == 0)
        return 0;
    if (doublings >= 63 || delay_ms > max_ms >> doublings)
        delay_ms = max_ms;
    else
        delay_ms <<= doublings;
    if (delay_ms > UINT64_MAX / 2)
        delay_ms = UINT64_MAX / 2; /* room for the factor */
    unsigned __int128 half_ms = (unsigned __int128)(delay_ms / 2);
    return delay_ms - delay_ms / 4 + (uint64_t)(half_ms * random >> 32);
}
