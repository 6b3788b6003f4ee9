/* SPDX-License-Identifier: MIT */
/* The clock that waiting for a condition looks at. */
#include "tests/lib/until.h"

#include <time.h>

uint64_t until_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
