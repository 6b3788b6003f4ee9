/* SPDX-License-Identifier: MIT */
/* The program of an exec stage: its start and its exit. */
#ifndef STAGE_EXEC_PROCESS_H
#define STAGE_EXEC_PROCESS_H

#include <sys/types.h>

#include "src/stage/stage.h"

struct exec_process {
    pid_t pid;     /* 0 = none */
    int pidfd;     /* readable once it has ended */
    int stdin_fd;  /* write end of its stdin, -1 = closed; non-blocking */
    int stdout_fd; /* read end of its stdout; non-blocking */
};

/* How the program ended. */
struct exec_exit {
    enum shm_cause_kind kind; /* EXIT or SIGNAL */
    int code;
};

/*
 * Starts the program; called when a worker opens its stage. Returns when the program runs, or with the reason
 * why it does not ("cannot run /opt/x: No such file or directory"). *out is set on success only.
 */
int stage_exec_process_start(const struct stage_config *config, const struct stage_env *env,
                             struct exec_process *out, struct error *error);

/* Checks, without starting it, whether the program exists and is executable. For stage_check. */
int stage_exec_check(const struct stage_config *config, struct error *error);

/* Waits up to wait_ms for the program to end; drops its output. 0: it ended and is reaped; 1: it lives. */
int stage_exec_process_wait(struct exec_process *process, uint64_t wait_ms, struct exec_exit *exit_status);

/* Kills the program and reaps it. */
void stage_exec_process_kill(struct exec_process *process, struct exec_exit *exit_status);

/* Ends the stage's program gracefully: closes its stdin, waits wait_ms, then SIGTERM, 1 s later SIGKILL.
 * */
void stage_exec_process_stop(struct exec_process *process, uint64_t wait_ms);

/* Closes the descriptors of a process that was reaped. */
void stage_exec_process_close(struct exec_process *process);

#endif
