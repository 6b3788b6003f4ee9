/* SPDX-License-Identifier: MIT */
/* Timers of the supervisor. watch_kill_overruns, watch_start_due and watch_run_turn return the monotonic time
 * (ns) at which the loop must call them again, SUPERVISOR_NEVER = no time is set. */
#ifndef SUPERVISOR_WATCH_H
#define SUPERVISOR_WATCH_H

#include <stdint.h>

struct supervisor;

/* Kills workers whose event has run too long, and processes that ignored the SIGTERM of a restart. */
uint64_t watch_kill_overruns(struct supervisor *supervisor, uint64_t now_ns);
/* Starts the processes whose pause is over. */
uint64_t watch_start_due(struct supervisor *supervisor, uint64_t now_ns);
/* Does the periodic work (heartbeat, backoff, reports), when it is due. */
uint64_t watch_run_turn(struct supervisor *supervisor, uint64_t now_ns);
/* Sets a stage's `degraded` from its workers' restarts, and logs a change. */
void watch_update_degraded(struct supervisor *supervisor, uint32_t stage_index);

#endif
