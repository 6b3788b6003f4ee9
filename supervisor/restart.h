/* SPDX-License-Identifier: MIT */
/* When an exited process is started again: policy only. No system calls, no clock: the caller tells the
 * time. */
#ifndef SUPERVISOR_RESTART_H
#define SUPERVISOR_RESTART_H

#include <stdbool.h>
#include <stdint.h>

/* One process slot. All zero: nothing bad has happened yet. */
struct restart {
    uint32_t level;              /* exits in a row of processes that were of no use */
    uint32_t level_before_reset; /* what this was before the running process had it forgotten */
};

struct restart_life {
    uint64_t born_ns, now_ns;
    bool ready;         /* it said that it was at work */
    bool made_progress; /* it answered at least one call */
    bool requested;     /* an operator asked for the restart */
    bool gave_up;       /* it ended by itself over a store that is damaged: the next one will do likewise */
    bool
        event_suspect; /* it crashed with an event in hand that has crashed here before: not the process' fault
                         */
};

/* After an exit: milliseconds to wait before the next start, 0 = at once. longest_ms bounds it. */
uint64_t restart_after_exit(struct restart *restart, const struct restart_life *life, uint64_t longest_ms);

/* While it lives: a process that is useful again has its past forgotten. True when this changed something. */
bool restart_while_alive(struct restart *restart, const struct restart_life *life);

/* Two useless lives in a row: people should know. */
bool restart_degraded(const struct restart *restart);

#endif
