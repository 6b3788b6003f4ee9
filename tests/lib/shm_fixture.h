/* SPDX-License-Identifier: MIT */
/* Makes a small segment of a test's own: one source "s", `stages` stages of `concurrency` workers, `limit` as
 * input buffer. Its name is removed as soon as it is mapped, so that a test that crashes leaves nothing in
 * /dev/shm. */
#ifndef TESTS_LIB_SHM_FIXTURE_H
#define TESTS_LIB_SHM_FIXTURE_H

#include "shm/segment.h"

/* Another name at each call, of this process alone. */
void shm_fixture_name(char *buffer, size_t size);

/* Makes `sources` sources with the same stages, and `tickets` tickets each. Returns 0 or a negative errno. */
int shm_fixture_make(struct segment *segment, uint32_t sources, uint32_t stages, uint32_t concurrency,
                     uint32_t limit, uint32_t tickets);

/* The same with one source, for tests that cannot go on without a segment: they exit. */
struct segment shm_fixture(uint32_t stages, uint32_t concurrency, uint32_t limit, uint32_t tickets);

#endif
