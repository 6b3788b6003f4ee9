/* SPDX-License-Identifier: MIT */
/* The program of an exec stage: its start and its exit. */
#ifndef STAGE_EXEC_PROCESS_H
#define STAGE_EXEC_PROCESS_H

#include <sys/types.h>

#include "src/stage/stage.h"

struct exec_process {
    pid_t pid;  /* 0 = none */
    int handle; /* pidfd: readable once it has ended */
    int input;  /* write end of its stdin, -1 = closed; non-blocking */
    int output; /* read end of its stdout; non-blocking */
};

/* How it ended. */
struct exec_exit {
    enum shm_cause_kind kind; /* EXIT or SIGNAL */
    int code;
};

/*
 * Starts it. Returns when the program runs, or with what kept it from running ("cannot run /opt/x: No such
 * file or directory"). *out is set on success only.
 */
int stage_exec_process_start(const struct stage_config *config, const struct stage_env *env,
                             struct exec_process *out, struct error *error);

/* Whether the program could be started, as far as a look can tell. */
int stage_exec_check(const struct stage_config *config, struct error *error);

/* Waits for its end at most wait_ms, throwing away what it writes meanwhile. 0: it ended (and is reaped), 1:
 * it lives. */
int stage_exec_process_wait(struct exec_process *process, uint64_t wait_ms, struct exec_exit *exit_status);

/* Kills it, reaps it. */
void stage_exec_process_kill(struct exec_process *process, struct exec_exit *exit_status);

/* Ends it gracefully: closes its stdin, waits wait_ms, then SIGTERM, 1 s later SIGKILL. */
void stage_exec_process_end(struct exec_process *process, uint64_t wait_ms);

/* Closes the descriptors of a process that was reaped. */
void stage_exec_process_close(struct exec_process *process);

#endif
