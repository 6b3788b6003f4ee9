/* SPDX-License-Identifier: MIT */
/* The crashes that the supervisor has seen and the keeper has not stored yet: a ring of the latest in the
 * segment. */
#ifndef SHM_CRASH_LOG_H
#define SHM_CRASH_LOG_H

#include "shm/segment.h"

/* Supervisor: one more. The oldest goes when there is no room. */
void crash_log_add(const struct segment *segment, const struct shm_crash *crash);

/* Numbers go from 1 on; those in [crash_log_first, crash_log_end) are not stored and may still be here. */
uint64_t crash_log_first(const struct segment *segment);
uint64_t crash_log_stored_end(const struct segment *segment); /* all below are stored */
uint64_t crash_log_end(const struct segment *segment);
/* Copies one, its texts ended whatever stands there. False: another stands in its place, or it was never
 * whole. */
bool crash_log_read(const struct segment *segment, uint64_t number, struct shm_crash *out);
/* Keeper: all below `end` are stored. */
void crash_log_stored(const struct segment *segment, uint64_t end);

#endif
