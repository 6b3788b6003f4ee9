/* SPDX-License-Identifier: MIT */
/*
 * The supervisor's state: one struct for the whole process. Used only by the files of supervisor/ that act on
 * it. A child inherits a copy by fork and leaves it behind in become_child; it goes on with
 * what src/process/child_context.h gives it.
 */
#ifndef SUPERVISOR_STATE_H
#define SUPERVISOR_STATE_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/segment.h"
#include "src/base/error.h"
#include "src/config/config.h"
#include "supervisor/child.h"
#include "supervisor/control.h"
#include "supervisor/notify.h"
#include "supervisor/relay.h"

#define SUPERVISOR_NEVER UINT64_MAX
#define SUPERVISOR_MS_NS UINT64_C(1000000)

struct supervisor {
    const struct config *config;
    bool daemon, until_end; /* as in struct supervisor_options */
    pid_t pid;
    struct segment segment;
    uint32_t crash_backlog_count; /* how many crashes the segment took over from a killed supervisor */
    struct child *children;       /* by slot */
    uint32_t child_count;
    struct relay_limit
        *line_limits;      /* one per stage, then one per source for its producer, then the keeper's */
    bool *requeue_pending; /* per source: events wait for room in a ring */

    int epoll_fd, signal_fd, notice_read_fd, notice_write_fd, activity_fd, lock_fd;
    int keeper_fd; /* our end of the keeper's socket pair, -1 = no keeper */
    int listen_fd;
    bool is_accept_paused;         /* listen_fd is not watched until the next turn */
    bool is_accept_pause_reported; /* logged; cleared when a connection is accepted again */
    struct client clients[SUPERVISOR_CLIENTS];
    struct notify notify;
    sigset_t old_mask;                    /* the caller's, restored at the end */
    struct sigaction old_pipe, old_child; /* likewise */

    bool may_have_orphans;      /* orphans of exited processes may still run */
    bool is_ready_reported;     /* the service manager has received READY=1 */
    uint64_t next_turn_ns;      /* when the next turn is due */
    uint64_t running_since_ns;  /* when all children were started, 0 = not yet */
    char status[128];           /* the last STATUS= sent to the service manager */
    uint64_t stopping_since_ns; /* STOPPING: since when */
    uint64_t drain_deadline_ns; /* STOPPING: when workers are killed; SUPERVISOR_NEVER otherwise */
    uint64_t final_deadline_ns; /* STOPPING: when all processes are killed; SUPERVISOR_NEVER otherwise */
    struct error failure;       /* why the instance failed; code 0 = it stops cleanly */
};

/* What a descriptor that the loop watches stands for. */
enum supervisor_event { EVENT_SIGNAL, EVENT_NOTICE, EVENT_OUTPUT, EVENT_LISTEN, EVENT_CLIENT };

/* Adds `fd` to the loop, which passes `index` (a slot or a client) to the event's function. 0 or -errno. */
int supervisor_watch_fd(struct supervisor *supervisor, int fd, enum supervisor_event event, uint32_t index);
/* Removes *fd from the loop, closes it and sets it to -1. Accepts -1. Closing alone does not remove it:
 * another process may hold a copy. */
void supervisor_unwatch_fd(struct supervisor *supervisor, int *fd);

static inline struct shm_slot *supervisor_slot(const struct supervisor *supervisor, const struct child *child)
{
    return segment_slot(&supervisor->segment, child->slot);
}

static inline uint32_t supervisor_phase(const struct supervisor *supervisor)
{
    return atomic_load_explicit(&supervisor->segment.header->phase, memory_order_relaxed);
}

#endif
