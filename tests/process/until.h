/* SPDX-License-Identifier: MIT */
/* Waiting for a condition, for process tests; the includer says how long: PATIENCE_MS. */
#ifndef UNTIL_H
#define UNTIL_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Looks each millisecond until a condition holds; false after PATIENCE_MS. */
#define UNTIL(condition)                                                  \
    ({                                                                    \
        uint64_t until_end_ms = clock_ms() + PATIENCE_MS;                 \
        bool until_holds;                                                 \
        while (!(until_holds = (condition)) && clock_ms() < until_end_ms) \
            usleep(1000);                                                 \
        until_holds;                                                      \
    })

#endif
