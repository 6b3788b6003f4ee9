/* SPDX-License-Identifier: MIT */
/* The crash log: a ring in the segment of the latest crashes that the supervisor has seen, until the
 * keeper has stored them. */
#ifndef SHM_CRASH_LOG_H
#define SHM_CRASH_LOG_H

#include "shm/segment.h"

/* Supervisor: adds a crash. When the ring is full it replaces the oldest. */
void crash_log_add(const struct segment *segment, const struct crash_record *crash);

/* Numbers go from 1 on; those in [crash_log_first, crash_log_end) are not stored and may still be here. */
uint64_t crash_log_first(const struct segment *segment);
uint64_t crash_log_stored_end(const struct segment *segment); /* all below are stored */
uint64_t crash_log_end(const struct segment *segment);
/* Copies one; its texts are always terminated. False: another crash has replaced it, or it was never
 * complete. */
bool crash_log_read(const struct segment *segment, uint64_t number, struct crash_record *out);
/* Keeper: all below `end_number` are stored. */
void crash_log_set_stored_end(const struct segment *segment, uint64_t end_number);

#endif
