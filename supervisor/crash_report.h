/* SPDX-License-Identifier: MIT */
/* Crashes as operators see them: the crash log of the segment, and what a killed supervisor left in its
 * own. */
#ifndef SUPERVISOR_CRASH_REPORT_H
#define SUPERVISOR_CRASH_REPORT_H

#include <stdint.h>

#include "shm/crash_log.h"
#include "shm/segment.h"
#include "supervisor/child.h"
#include "supervisor/exit_cause.h"

/* Adds the crash of this child to the segment's crash log and wakes the keeper, which stores it. The child's
 * slot and ticket must still be as it left them. */
void crash_report_add(struct supervisor *supervisor, const struct child *child,
                      const struct exit_cause *cause);

/* Crash records that a previous supervisor's segment still holds; the crash of that supervisor is the
 * last. */
struct crash_backlog {
    struct crash_record crashes[SHM_CRASHES + 1];
    uint32_t count;
    int32_t daemon_pid; /* the previous supervisor, if it was killed; 0 = it was not */
};

/* Copies the crash records that the keeper had not stored out of the segment of this name, if there is
 * one. */
void crash_backlog_read(const char *instance, struct crash_backlog *out);
void crash_backlog_add(const struct segment *segment, const struct crash_backlog *backlog);
/* Saves the records for the next start, in a segment that holds nothing else. Called when this start has
 * unlinked the old segment and could not create its own. */
void crash_backlog_keep(const char *instance, const struct crash_backlog *backlog);

#endif
