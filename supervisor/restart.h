/* SPDX-License-Identifier: MIT */
/* When an exited process is started again: policy only. Makes no system calls; the caller passes the time. */
#ifndef SUPERVISOR_RESTART_H
#define SUPERVISOR_RESTART_H

#include <stdbool.h>
#include <stdint.h>

/* The past of one process slot. Starts as all zero. */
struct restart {
    uint32_t level;              /* exits in a row of processes that were not useful */
    uint32_t level_before_reset; /* `level` before the running process reset it */
};

/* What the policy must know of one process. */
struct restart_life {
    uint64_t born_ns, now_ns;
    bool ready;              /* it reported that it was ready */
    bool made_progress;      /* it answered at least one call */
    bool requested;          /* an operator asked for the restart */
    bool gave_up_over_store; /* it exited over a damaged store: the next process will do the same */
    bool is_event_suspect;   /* it crashed on an event that has crashed here before */
};

/* After an exit: how many milliseconds to wait before the next start, 0 = none, at most longest_ms. */
uint64_t restart_after_exit(struct restart *restart, const struct restart_life *life, uint64_t longest_ms);

/* While it runs: resets the level of a process that has become useful. Returns whether this changed
 * anything. */
bool restart_while_alive(struct restart *restart, const struct restart_life *life);

/* Whether two or more useless processes in a row have exited, so that operators should know. */
bool restart_degraded(const struct restart *restart);

#endif
