/* SPDX-License-Identifier: MIT */
/* The deaths that the supervisor has seen and the keeper has not stored yet: a ring of the latest in the
 * segment. */
#ifndef SHM_DEATHS_H
#define SHM_DEATHS_H

#include "shm/segment.h"

/* Supervisor: one more. The oldest goes when there is no room. */
void deaths_add(const struct segment *segment, const struct shm_death *death);

/* Numbers go from 1 on; those in [deaths_first, deaths_end) are not stored and may still be here. */
uint64_t deaths_first(const struct segment *segment);
uint64_t deaths_stored_end(const struct segment *segment); /* all below are stored */
uint64_t deaths_end(const struct segment *segment);
/* Copies one, its texts ended whatever stands there. False: another stands in its place, or it was never
 * whole. */
bool deaths_read(const struct segment *segment, uint64_t number, struct shm_death *out);
/* Keeper: all below `end` are stored. */
void deaths_stored(const struct segment *segment, uint64_t end);

#endif
