/* SPDX-License-Identifier: MIT */
/* The phases of the instance: starting, running, draining, stopping. */
#ifndef SUPERVISOR_PHASE_H
#define SUPERVISOR_PHASE_H

#include <stdbool.h>
#include <stdint.h>

struct supervisor;

/* Starts the keeper. All other processes follow when it is ready. */
void phase_begin(struct supervisor *supervisor);
/* Reads what children report (ready, failed, source ended). Never blocks. */
void phase_read_notices(struct supervisor *supervisor);
/* Stops fetching; the instance stops when all events are done. */
void phase_drain(struct supervisor *supervisor);
/* Begins a graceful shutdown. Does nothing while one is under way. */
void phase_stop(struct supervisor *supervisor);
/* Kills all processes at once, unless the graceful shutdown began only a moment ago. */
void phase_stop_now(struct supervisor *supervisor);
/* Begins a graceful shutdown and makes this error the result of the run. The first error is kept. */
void phase_fail(struct supervisor *supervisor, int code, const char *message);
/* Wakes the processes that wait for others to exit. Called after each exit. */
void phase_wake_after_exit(struct supervisor *supervisor);
/* Acts on deadlines and on the end of all sources. Returns when it must be called again (monotonic ns). */
uint64_t phase_run_timers(struct supervisor *supervisor, uint64_t now_ns);
/* Whether the instance is stopping and no process is left. */
bool phase_is_over(struct supervisor *supervisor);

#endif
