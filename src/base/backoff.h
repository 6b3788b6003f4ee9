/* SPDX-License-Identifier: MIT */
/* The pause before a failed action is tried again. Pure. */
#ifndef BASE_BACKOFF_H
#define BASE_BACKOFF_H

#include <stdint.h>

/*
 * Returns the pause after attempt number `attempt` (from 1): min_ms after the first, doubled after each
 * further one, at most max_ms; then multiplied by a factor in [0.75, 1.25] that `random` (any 32 bits)
 * chooses, so that processes which failed together do not try again together. 0 if min_ms is 0.
 */
uint64_t base_backoff_ms(uint64_t min_ms, uint64_t max_ms, uint32_t attempt, uint32_t random);

#endif
