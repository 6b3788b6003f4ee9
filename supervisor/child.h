/* SPDX-License-Identifier: MIT */
/* One child process: its state in the supervisor, its start, the signals it is sent, its output. */
#ifndef SUPERVISOR_CHILD_H
#define SUPERVISOR_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/segment.h"
#include "supervisor/relay.h"
#include "supervisor/restart.h"

struct supervisor;

/* Why the supervisor sent a process a signal to end it. */
enum child_order {
    ORDER_NONE,
    ORDER_RESTART, /* an operator asked for a restart */
    ORDER_TIMEOUT, /* its event ran too long */
    ORDER_STOP     /* the drain deadline has passed, or a second SIGTERM came */
};

/* One process slot: the process that runs in it now, if any, and its history. */
struct child {
    uint32_t slot;
    pid_t pid; /* 0 = none */
    uint32_t generation;
    uint32_t recovered;       /* the last generation whose exit was recovered */
    bool is_ready;            /* this generation reported that it is ready */
    bool was_ready_or_failed; /* any generation was ready, or has failed */
    bool has_drained;         /* producer: its source had nothing more, since the drain began */
    struct restart restart;
    uint64_t born_ns, work_count_at_start;
    uint64_t restart_ns; /* when it is started again; SUPERVISOR_NEVER = it runs, or stays stopped */
    enum child_order order;
    int ordered_signal;
    uint64_t ordered_ns;
    uint32_t overrun_ticket;              /* TIMEOUT: the ticket of the event that ran too long */
    uint64_t overrun_event_start_ns;      /* TIMEOUT: when that event began */
    char failure_message[SHM_TEXT_BYTES]; /* message of its NOTICE_FAILED */
    int output_fd;                        /* read end of its stderr's pipe, -1 = none */
    struct relay relay;
    struct relay_limit *line_limit; /* borrowed; shared by the processes of a stage */
    char name[RELAY_NAME_BYTES];    /* "quakes/locate[3]", "producer quakes", "keeper" */
};

/* Sets child->name from its slot. Called once per slot at the start. */
void child_set_name(const struct supervisor *supervisor, struct child *child);
/* Starts a process in this slot. A failed start counts as a crash, and is retried as one. */
void child_start(struct supervisor *supervisor, struct child *child);
/* Sends the signal and records why, so that the exit is not taken for a crash. Does nothing without a
 * process. */
void child_kill(struct child *child, enum child_order order, int signal, uint64_t now_ns);
/* Whether this process has answered a call or committed anything. */
bool child_made_progress(const struct supervisor *supervisor, const struct child *child);
/* Reads at most `limit_bytes` of its output and writes them to the log. Never blocks. */
void child_read_output(struct supervisor *supervisor, struct child *child, size_t limit_bytes);
/* Reads what is left of the output of an exited process, and closes the pipe. */
void child_close_output(struct supervisor *supervisor, struct child *child);

#endif
