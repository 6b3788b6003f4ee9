/* SPDX-License-Identifier: MIT */
/* The supervisor: runs one instance, from its configuration to its end. For eventpiped's main and for the
 * library. */
#ifndef SUPERVISOR_H
#define SUPERVISOR_H

#include <stdbool.h>
#include <sys/types.h>

#include "shm/segment.h"
#include "src/base/error.h"
#include "src/config/config.h"

struct supervisor_options {
    const struct config *config; /* valid; borrowed until the end */
    bool daemon; /* eventpiped: tell the service manager; what stages print on stdout goes to the log, too */
    bool until_end; /* stop when every source has ended */
    /* In the supervisor's process when all children are gone, before the segment goes: takes figures out of
     * it. NULL = none */
    void (*at_end)(const struct segment *segment, void *user);
    void *user;
    uint64_t hold_wait_ms; /* how long to wait for an ending instance's lock on the store, 0 = 15 s */
};

/*
 * Runs the instance in this process until it is stopped (SIGTERM, SIGINT, the command `stop`, a finished
 * drain, or until_end). Blocks. To be called in a process without threads and without children of its
 * own: it reaps every child, adopts and ends what they leave behind, and takes over the signals; both
 * are put back at the end. 0 = stopped gracefully. Negative: the message says why it could not start, or
 * could not go on; nothing is left running.
 */
int supervisor_run(const struct supervisor_options *options, struct error *error);

/*
 * For the library: the same in a process of its own, which stops gracefully when the calling thread
 * ends. *pid is to be sent SIGTERM to stop it (once; a second one ends it at once); *result_fd belongs to
 * supervisor_wait. Does not block. Safe in programs with threads. EP_ESYSTEM: no process or pipe could be
 * had.
 */
int supervisor_fork(const struct supervisor_options *options, pid_t *pid, int *result_fd,
                    struct error *error);

/* Waits until it has ended, closes result_fd. What supervisor_run returned there, with its message;
 * EP_ESYSTEM when it crashed. Goes on waiting after signals; to be called once. */
int supervisor_wait(pid_t pid, int result_fd, struct error *error);

#endif
