/* SPDX-License-Identifier: MIT */
/* The supervisor: runs one instance from its start to its end. For eventpiped's main and for the library. */
#ifndef SUPERVISOR_SUPERVISOR_H
#define SUPERVISOR_SUPERVISOR_H

#include <stdbool.h>
#include <sys/types.h>

#include "shm/segment.h"
#include "src/base/error.h"
#include "src/config/config.h"

struct supervisor_options {
    const struct config *config; /* valid; borrowed until the end */
    /* For eventpiped: notify the service manager, and log what stages print on stdout, too. */
    bool daemon;
    bool until_end; /* stop when every source has ended */
    /* Called in the supervisor's process when all children are gone, before the segment is removed:
     * copies figures out of it. NULL = not called. */
    void (*at_end)(const struct segment *segment, void *user);
    void *user;
    uint64_t hold_wait_ms; /* how long to wait while another instance still locks the store, 0 = 15 s */
};

/*
 * Runs the instance in this process until it is stopped: by SIGTERM, SIGINT, the command `stop`, a
 * finished drain, or until_end. Blocks. Call it in a process without threads and children: it reaps
 * every child, adopts and kills their orphans, and handles the signals; the caller's signal state is
 * restored at the end. 0 = stopped gracefully. Negative: the message says why it could not start or had
 * to stop. No process is left running.
 */
int supervisor_run(const struct supervisor_options *options, struct error *error);

/*
 * For the library: forks a process that calls supervisor_run, and that stops gracefully when the calling
 * thread ends. Send *pid a SIGTERM to stop it; a second SIGTERM kills its processes at once. Pass
 * *result_fd to supervisor_wait, which closes it. Does not block. Safe in programs with threads.
 * EP_ESYSTEM: no process or pipe could be created.
 */
int supervisor_fork(const struct supervisor_options *options, pid_t *pid, int *result_fd,
                    struct error *error);

/*
 * Waits until the forked supervisor has exited, and closes result_fd. Call it once; signals do not
 * interrupt it. Returns what supervisor_run returned there, with its message; EP_ESYSTEM if it crashed.
 */
int supervisor_wait(pid_t pid, int result_fd, struct error *error);

#endif
