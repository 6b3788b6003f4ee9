/* SPDX-License-Identifier: MIT */
/*
 * What the supervisor's own files share: its state, one struct child per process slot, and who does what.
 * Lives in the supervisor only; what children may see stands in the segment and in child_context.h.
 */
#ifndef SUPERVISOR_FAMILY_H
#define SUPERVISOR_FAMILY_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/segment.h"
#include "src/base/error.h"
#include "src/process/child_context.h"
#include "supervisor/notify.h"
#include "supervisor/relay.h"
#include "supervisor/restart.h"
#include "supervisor/supervisor.h"

#define SUPERVISOR_CLIENTS 32
#define SUPERVISOR_NEVER UINT64_MAX
#define SUPERVISOR_TURN_NS UINT64_C(1000000000) /* a turn about once a second, even when nothing happens */
#define SUPERVISOR_MS_NS UINT64_C(1000000)

/* Why we sent a process its end. */
enum child_order {
    ORDER_NONE,
    ORDER_RESTART, /* an operator's wish */
    ORDER_TIMEOUT, /* its event ran too long */
    ORDER_STOP     /* the drain deadline has passed, or a second SIGTERM came */
};

struct child {
    uint32_t slot;
    pid_t pid; /* 0 = none */
    uint32_t generation;
    uint32_t recovered; /* the last generation whose exit was recovered */
    bool ready;         /* this generation said that it is at work */
    bool seen;          /* some generation was ready, or has failed */
    bool dry;           /* producer: nothing more to come, since the drain began */
    struct restart restart;
    uint64_t born_ns, work_before;
    uint64_t restart_ns; /* exited: when it is started again; SUPERVISOR_NEVER = it lives, or is not to be */
    enum child_order order;
    int order_signal;
    uint64_t order_ns;
    uint32_t order_ticket; /* TIMEOUT: the ticket in hand, and since when */
    uint64_t order_since_ns;
    char failed[SHM_TEXT_BYTES]; /* message of its NOTICE_FAILED */
    int output_fd;               /* read end of its stderr's pipe, -1 = none */
    struct relay relay;
    struct relay_limit *limit;
    char name[RELAY_NAME_BYTES]; /* "quakes/locate[3]", "producer quakes", "keeper" */
};

struct client {
    int fd; /* -1 = free */
    uid_t uid;
    uint64_t since_ns;
    char *request; /* what has come of its line */
    size_t bytes;
};

struct supervisor {
    const struct config *config;
    bool daemon, until_end;
    pid_t pid;
    struct segment segment;
    uint32_t crash_backlog; /* crashes 1 to this one were a crashed supervisor's to tell */
    struct child *children; /* by slot */
    uint32_t child_count;
    struct relay_limit *limits; /* per stage, then one for each source's producer, then the keeper's */
    bool *requeue;              /* per source: its rings had no room for all that fell out */

    int epoll_fd, signal_fd, notice_read, notice_write, activity_fd, lock_fd;
    int keeper_fd; /* our end, -1 = no keeper */
    int listen_fd;
    bool accept_paused;         /* listen_fd is not watched until the next turn: nobody's call can be taken */
    bool accept_pause_reported; /* and the log has it, until one is taken again */
    struct client clients[SUPERVISOR_CLIENTS];
    struct notify notify;
    sigset_t old_mask;
    struct sigaction old_pipe, old_child;

    bool orphans_pending;    /* orphans of exited processes may still run */
    bool ready_reported;     /* the service manager knows that we are up */
    uint64_t turn_ns;        /* when the next turn is due */
    uint64_t running_ns;     /* since when all children are started, 0 = not yet */
    char status[128];        /* what the service manager was told last */
    uint64_t stop_ns;        /* STOPPING: since when */
    uint64_t drain_deadline; /* STOPPING: when workers are killed; SUPERVISOR_NEVER otherwise */
    uint64_t final_deadline; /* STOPPING: when everything is */
    struct error failure;    /* why the instance ends, code 0 = cleanly */
};

/* ---- supervisor.c: set-up, the loop */
enum supervisor_event { EVENT_SIGNAL, EVENT_NOTICE, EVENT_OUTPUT, EVENT_LISTEN, EVENT_CLIENT };
int supervisor_watch_fd(struct supervisor *supervisor, int fd, enum supervisor_event event,
                        uint32_t index); /* 0 or -errno */
/* No longer watched, closed, set to -1; -1 is fine. (Closing alone is not enough: another process may have a
 * copy.) */
void supervisor_unwatch_fd(struct supervisor *supervisor, int *fd);

static inline struct shm_slot *supervisor_slot(const struct supervisor *supervisor, const struct child *child)
{
    return segment_slot(&supervisor->segment, child->slot);
}

static inline uint32_t supervisor_phase(const struct supervisor *supervisor)
{
    return atomic_load_explicit(&supervisor->segment.header->phase, memory_order_relaxed);
}

/* ---- child.c: start and exit of one process */
void child_name(const struct supervisor *supervisor, struct child *child);
/* Starts the process of this slot; when it cannot be started, that counts as a crash of it. */
void child_start(struct supervisor *supervisor, struct child *child);
void child_kill(struct child *child, enum child_order order, int signal, uint64_t now_ns);
/* Reads what it printed, at most `most` bytes, and hands it to the log. */
void child_output(struct supervisor *supervisor, struct child *child, size_t most);
void child_output_close(struct supervisor *supervisor, struct child *child);

/* ---- recover.c: after an exit */
void recover_children(struct supervisor *supervisor); /* SIGCHLD: reaps all there is, and recovers each */
/* A process of this slot is gone (or could not be born): decides when the next one starts. */
void recover_slot(struct supervisor *supervisor, struct child *child, const struct restart_life *life);
void recover_requeue(struct supervisor *supervisor, uint32_t source);

/* ---- crash_report.c: crashes as operators are told of them */
struct crash_report {
    int status, code;
    enum shm_cause_kind cause; /* NONE: as `status` says */
    int64_t event;             /* in hand, 0 = none */
    const char *how, *last_output;
};
void crash_report_add(struct supervisor *supervisor, const struct child *child,
                      const struct crash_report *report);
/* What a crashed supervisor's segment still tells, that supervisor's own crash as the last. */
struct crash_backlog {
    struct shm_crash crashes[SHM_CRASHES + 1];
    uint32_t count;
    int32_t daemon_pid; /* whose own crash is among them, 0 = nobody's */
};
void crash_backlog_read(const char *instance, struct crash_backlog *out);
void crash_backlog_add(const struct segment *segment, const struct crash_backlog *backlog);
/* For the next start, when this one could not make its segment and has taken the old one away. */
void crash_backlog_keep(const char *instance, const struct crash_backlog *backlog);

/* ---- orphan.c: what exited children leave behind */
int orphan_adopt(void); /* 0 or EP_ESYSTEM */
/* Kills every process that is our child but has no slot. Whether to look again: there were some, which may
 * leave children of theirs to us, or it could not be seen. */
bool orphan_kill(struct supervisor *supervisor);

/* ---- watch.c: looks at the living. Each returns when to look again (monotonic ns). */
uint64_t watch_overruns(struct supervisor *supervisor, uint64_t now_ns);
uint64_t watch_restarts(struct supervisor *supervisor, uint64_t now_ns);
uint64_t watch_turn(struct supervisor *supervisor, uint64_t now_ns); /* the turn itself, when it is due */
void watch_degraded(struct supervisor *supervisor, uint32_t stage);

/* ---- phase.c: the life of the instance */
void phase_begin(struct supervisor *supervisor); /* starts the keeper; all else follows when it is ready */
void phase_notices(struct supervisor *supervisor);
void phase_drain(struct supervisor *supervisor);
void phase_stop(struct supervisor *supervisor);  /* gracefully; harmless when it is stopping already */
void phase_hurry(struct supervisor *supervisor); /* now; unless the order to stop is only a moment old */
void phase_fail(struct supervisor *supervisor, int code,
                const char *message);                   /* stops, and is remembered as the result */
void phase_child_exited(struct supervisor *supervisor); /* someone is gone: is it another's turn to go? */
uint64_t phase_turn(struct supervisor *supervisor, uint64_t now_ns);
bool phase_over(struct supervisor *supervisor); /* nobody is left */

/* ---- signal.c */
int signal_open(struct supervisor *supervisor);
void signal_read(struct supervisor *supervisor);
void signal_restore(struct supervisor *supervisor);
void signal_default(void); /* in a child: default dispositions, empty mask */
void signal_forked(void);  /* in a supervisor forked by the library, with all signals blocked until here */

/* ---- control.c: the control socket, server side */
int control_listen(struct supervisor *supervisor, struct error *error);
void control_accept(struct supervisor *supervisor);
void control_readable(struct supervisor *supervisor, uint32_t client);
void control_turn(struct supervisor *supervisor, uint64_t now_ns); /* ends clients that are too slow */
void control_leave(struct supervisor *supervisor);                 /* closes all, removes the socket */
void control_inherited(struct supervisor *supervisor);             /* in a child: closes all */

#endif
