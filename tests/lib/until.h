/* SPDX-License-Identifier: MIT */
/* Waiting for a condition, for process tests. */
#ifndef TESTS_LIB_UNTIL_H
#define TESTS_LIB_UNTIL_H

#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

/* Of the monotonic clock. */
uint64_t until_clock_ms(void);

/* Looks each millisecond until a condition holds; false if it did not after patience_ms. */
#define UNTIL(patience_ms, condition)                                           \
    ({                                                                          \
        uint64_t until_end_ms = until_clock_ms() + (patience_ms);               \
        bool until_holds;                                                       \
        while (!(until_holds = (condition)) && until_clock_ms() < until_end_ms) \
            usleep(1000);                                                       \
        until_holds;                                                            \
    })

#endif
