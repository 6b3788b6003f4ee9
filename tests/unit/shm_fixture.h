/* SPDX-License-Identifier: MIT */
/* The same as shm_make.h, for tests that cannot go on without. */
#ifndef SHM_FIXTURE_H
#define SHM_FIXTURE_H

#include "tests/unit/shm_make.h"

static inline struct segment fixture(uint32_t stages, uint32_t concurrency, uint32_t limit, uint32_t tickets)
{
    struct segment segment;
    int error = fixture_make(&segment, 1, stages, concurrency, limit, tickets);
    if (error != 0) {
        fprintf(stderr, "cannot make a segment: error %d\n", -error);
        exit(EXIT_FAILURE);
    }
    return segment;
}

#endif
