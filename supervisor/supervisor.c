/* SPDX-License-Identifier: MIT */
/*
 * The supervisor: takes the store's lock, the segment and the control socket, starts the instance, and
 * runs one loop until it is over.
 *
 * Owns: the store's lock, the segment, the control socket, every child.
 *
 * Invariants
 *  1. This process never opens the store, runs user code, parses an event, or waits for a child.
 *  2. It takes the lock first, then the segment, then the socket. The lock excludes other supervisors of
 *     this store, the segment those of this name. A supervisor that has both may replace a socket that
 *     was left behind.
 *
 * Fatal: something missing at the start; a store that is broken or wrong. Survived: every exit of a child.
 */
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "shm/crash_log.h"
#include "shm/slot.h"
#include "src/base/log.h"
#include "src/store/store.h"
#include "supervisor/child.h"
#include "supervisor/control.h"
#include "supervisor/crash_report.h"
#include "supervisor/notify.h"
#include "supervisor/orphan.h"
#include "supervisor/phase.h"
#include "supervisor/plan.h"
#include "supervisor/recover.h"
#include "supervisor/signal.h"
#include "supervisor/state.h"
#include "supervisor/watch.h"

#define HOLD_WAIT_MS 15000        /* for the lock of an instance that is stopping */
#define OUTPUT_AT_ONCE (64 << 10) /* read from one child before the others are served */
#define EVENTS_AT_ONCE 64
#define NAME_ATTEMPTS 50
#define NAME_PAUSE_NS 20000000L

int supervisor_watch_fd(struct supervisor *supervisor, int fd, enum supervisor_event event, uint32_t index)
{
    struct epoll_event watched = {.events = EPOLLIN, .data.u64 = (uint64_t)event << 32 | index};
    return epoll_ctl(supervisor->epoll_fd, EPOLL_CTL_ADD, fd, &watched) == 0 ? 0 : -errno;
}

/* Removes *fd from the supervisor's loop, closes it and sets it to -1; does nothing if it is -1.
 * Closing alone would not remove it from the loop while another process holds a copy. */
void supervisor_unwatch_fd(struct supervisor *supervisor, int *fd)
{
    if (*fd < 0)
        return;
    epoll_ctl(supervisor->epoll_fd, EPOLL_CTL_DEL, *fd, NULL); /* harmless if it was not watched */
    close(*fd);
    *fd = -1;
}

/* ---- set-up ---- */

/* Returns what the supervisor needs to lock the store at its start and to unlock it at its end. It
 * never opens the store. */
static struct store_options make_store_options(const struct config *config)
{
    return (struct store_options){
        .url = config->storage,
        .instance = config->instance,
        .synchronous = config->synchronous,
    };
}

/* Opens the descriptors of the supervisor's loop: signals, the children's reports, the keeper's
 * notifications. Returns 0 or -errno; supervisor_close closes what was opened. */
static int open_descriptors(struct supervisor *supervisor)
{
    int notice_pipe[2];
    if (signal_open(supervisor) != 0 || (supervisor->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0 ||
        (supervisor->activity_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
        pipe2(notice_pipe, O_CLOEXEC) != 0)
        return -errno;
    supervisor->notice_read_fd = notice_pipe[0];
    supervisor->notice_write_fd = notice_pipe[1];
    if (fcntl(notice_pipe[0], F_SETFL, O_NONBLOCK) != 0)
        return -errno;
    int result = supervisor_watch_fd(supervisor, supervisor->signal_fd, EVENT_SIGNAL, 0);
    return result != 0 ? result : supervisor_watch_fd(supervisor, notice_pipe[0], EVENT_NOTICE, 0);
}

/* Returns 0 if no supervisor of this instance name runs; otherwise EP_EBUSY, with a message that names the
 * other process. The supervisor calls it at its start, when it has locked its store, so a running one has
 * the same name but another store. */
static int check_name_is_free(const struct config *config, struct error *error)
{
    struct segment other_segment;
    int attach_error = segment_attach(config->instance, &other_segment), result = 0, holder_pid;
    if (attach_error != 0 && !segment_is_held(config->instance, &holder_pid))
        return 0; /* no segment, or one without a supervisor */
    if (attach_error != 0)
        return base_error_set(error, EP_EBUSY,
                              "an instance named %s runs already (process %d, %s): stop it, or give this one "
                              "another name",
                              config->instance, holder_pid,
                              attach_error == -EPROTO   ? "another version of eventpipe"
                              : attach_error == -EAGAIN ? "which is starting"
                                                        : "whose shared memory cannot be read");
    if (segment_owner_lives(&other_segment))
        result = base_error_set(
            error, EP_EBUSY,
            "an instance named %s runs already (process %d, storage %s): give this one another name",
            config->instance, (int)other_segment.header->supervisor_pid, other_segment.header->store_url);
    segment_close(&other_segment);
    return result;
}

/* Reports that another supervisor of this name has created its segment at the same time. Tries for
 * about a second until the other process can be named in the message. Always returns EP_EBUSY, which
 * ends the start. */
static int refuse_simultaneous_start(const struct config *config, struct error *error)
{
    for (int attempts_left = NAME_ATTEMPTS; attempts_left > 0; attempts_left--) {
        int result = check_name_is_free(config, error);
        if (result != 0)
            return result;
        nanosleep(&(struct timespec){.tv_nsec = NAME_PAUSE_NS}, NULL);
    }
    return base_error_set(error, EP_EBUSY,
                          "an instance named %s was started at the same instant: give this one another name",
                          config->instance);
}

/* Creates the shared memory segment at the supervisor's start, and copies into it the crash records
 * that a killed supervisor left in its own. Returns 0, or an error that says what to do. */
static int open_segment(struct supervisor *supervisor, struct error *error)
{
    const struct config *config = supervisor->config;
    struct plan plan;
    if (plan_open(&plan, config) != 0)
        return base_error_set(error, EP_ENOMEM, "out of memory");
    static struct crash_backlog backlog;
    /* A copy: segment_create replaces the segment that holds them. */
    crash_backlog_read(config->instance, &backlog);
    int result = segment_create(&plan.segment, &supervisor->segment);
    plan_close(&plan);
    if (result == -EBUSY)
        return refuse_simultaneous_start(config, error);
    if (result != 0)
        crash_backlog_keep(config->instance, &backlog);
    if (result == -ENOSPC)
        return base_error_set(error, EP_ENOMEM,
                              "no space in /dev/shm for the instance's shared memory: free some, or lower "
                              "input_buffer and concurrency");
    if (result == -ENOMEM)
        return base_error_set(error, EP_ENOMEM, "out of memory for the instance's shared memory");
    if (result != 0)
        return base_error_set(error, EP_ESYSTEM, "cannot create the shared memory /eventpipe-%s: %s",
                              config->instance, strerror(-result));
    crash_backlog_add(&supervisor->segment, &backlog);
    supervisor->crash_backlog_count = backlog.count;
    shm_clock_follow(supervisor->segment.header);
    return 0;
}

/* Prepares one struct child for each process slot of the segment, before the supervisor starts any
 * process. Returns 0, or an error if there is no memory or too few open files are allowed. */
static int prepare_children(struct supervisor *supervisor, struct error *error)
{
    const struct shm_header *header = supervisor->segment.header;
    uint32_t line_limit_count = header->stage_count + header->source_count + 1;
    supervisor->children = calloc(header->slot_count, sizeof *supervisor->children);
    supervisor->line_limits = calloc(line_limit_count, sizeof *supervisor->line_limits);
    supervisor->requeue_pending = calloc(header->source_count + 1, sizeof *supervisor->requeue_pending);
    if (supervisor->children == NULL || supervisor->line_limits == NULL ||
        supervisor->requeue_pending == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for %u processes", header->slot_count);
    supervisor->child_count = header->slot_count;
    for (uint32_t i = 0; i < header->slot_count; i++) {
        struct child *child = &supervisor->children[i];
        const struct shm_slot *slot = segment_slot(&supervisor->segment, i);
        uint32_t line_limit_index = slot->kind == SHM_KIND_WORKER     ? slot->stage
                                    : slot->kind == SHM_KIND_PRODUCER ? header->stage_count + slot->source
                                                                      : line_limit_count - 1;
        child->slot = i;
        child->output_fd = -1;
        child->restart_ns = SUPERVISOR_NEVER;
        child->line_limit = &supervisor->line_limits[line_limit_index];
        child_set_name(supervisor, child);
    }
    return plan_raise_file_limit(header->slot_count + SUPERVISOR_CLIENTS, error);
}

/* Takes what the instance needs, in this order: the store's lock, the segment, the control socket. Who
 * holds lock and segment may replace a socket that was left behind. Returns 0 or an error;
 * supervisor_close then gives back what was taken. supervisor_run calls it. */
static int supervisor_open(struct supervisor *supervisor, const struct supervisor_options *options,
                           struct error *error)
{
    const struct config *config = options->config;
    *supervisor = (struct supervisor){
        .config = config,
        .daemon = options->daemon,
        .until_end = options->until_end,
        .pid = getpid(),
        .segment.fd = -1,
        .epoll_fd = -1,
        .signal_fd = -1,
        .notice_read_fd = -1,
        .notice_write_fd = -1,
        .activity_fd = -1,
        .lock_fd = -1,
        .keeper_fd = -1,
        .listen_fd = -1,
        .notify.fd = -1,
        .drain_deadline_ns = SUPERVISOR_NEVER,
        .final_deadline_ns = SUPERVISOR_NEVER,
    };
    for (uint32_t i = 0; i < SUPERVISOR_CLIENTS; i++)
        supervisor->clients[i].fd = -1;
    if (options->daemon)
        notify_open(&supervisor->notify);
    notify_send(&supervisor->notify, "STATUS=waiting for the store");
    const struct store_options store = make_store_options(config);
    uint64_t wait_ms = options->hold_wait_ms > 0 ? options->hold_wait_ms : HOLD_WAIT_MS;
    int result = store_hold(&store, wait_ms, &supervisor->lock_fd, error);
    if (result != 0)
        return result;
    if ((result = open_descriptors(supervisor)) != 0)
        return base_error_set(error, EP_ESYSTEM, "cannot set up the supervisor: %s", strerror(-result));
    if ((result = orphan_adopt()) != 0)
        return base_error_set(error, result,
                              "cannot become the parent of processes that a crashed child leaves: %s",
                              strerror(errno));
    if ((result = check_name_is_free(config, error)) != 0)
        return result;
    if ((result = open_segment(supervisor, error)) != 0)
        return result;
    if (config->control != NULL && (result = control_listen(supervisor, error)) != 0)
        return result;
    segment_publish(&supervisor->segment);
    return prepare_children(supervisor, error);
}

/* Removes the supervisor's segment at its end. Keeps it if it holds crash records of an earlier
 * supervisor that the keeper has not stored: the next start takes them over. */
static void close_segment(struct supervisor *supervisor)
{
    atomic_store(&supervisor->segment.header->phase, SHM_PHASE_STOPPED);
    if (crash_log_stored_end(&supervisor->segment) <= supervisor->crash_backlog_count)
        segment_publish(&supervisor->segment);
    else
        segment_unlink(supervisor->config->instance);
    segment_close(&supervisor->segment);
}

/* Gives back all that the supervisor holds: the segment, the control socket, its descriptors, the
 * store's lock and the caller's signal state. supervisor_run calls it at the end and after a failed
 * start, so it accepts what was never opened. */
static void supervisor_close(struct supervisor *supervisor)
{
    const struct config *config = supervisor->config;
    if (supervisor->segment.header != NULL)
        close_segment(supervisor);
    control_close(supervisor);
    supervisor_unwatch_fd(supervisor, &supervisor->keeper_fd);
    supervisor_unwatch_fd(supervisor, &supervisor->notice_read_fd);
    supervisor_unwatch_fd(supervisor, &supervisor->notice_write_fd);
    supervisor_unwatch_fd(supervisor, &supervisor->activity_fd);
    if (supervisor->epoll_fd >= 0)
        close(supervisor->epoll_fd);
    if (supervisor->lock_fd >= 0) {
        const struct store_options store = make_store_options(config);
        store_leave(&store);
        close(supervisor->lock_fd);
    }
    notify_close(&supervisor->notify);
    orphan_disown();
    signal_restore(supervisor);
    free(supervisor->children);
    free(supervisor->line_limits);
    free(supervisor->requeue_pending);
}

/* ---- the loop ---- */

/* Reads from one descriptor of the supervisor's loop that is ready: signals, reports and output of
 * children, connections and requests on the control socket. */
static void serve_descriptor(struct supervisor *supervisor, enum supervisor_event event, uint32_t index)
{
    switch (event) {
    case EVENT_SIGNAL:
        signal_read(supervisor);
        break;
    case EVENT_NOTICE:
        phase_read_notices(supervisor);
        break;
    case EVENT_OUTPUT:
        child_read_output(supervisor, &supervisor->children[index], OUTPUT_AT_ONCE);
        break;
    case EVENT_LISTEN:
        control_accept_client(supervisor);
        break;
    case EVENT_CLIENT:
        control_read_client(supervisor, index);
        break;
    }
}

/* Does everything that is due before the supervisor's loop waits: the periodic turn, events that ran too
 * long, deadlines of the shutdown, restarts. Returns when the next thing is due (monotonic ns). */
static uint64_t run_timers(struct supervisor *supervisor)
{
    uint64_t now_ns = shm_now_ns();
    uint64_t next_ns[] = {
        watch_run_turn(supervisor, now_ns),
        watch_kill_overruns(supervisor, now_ns),
        phase_run_timers(supervisor, now_ns),
        watch_start_due(supervisor, now_ns),
    };
    uint64_t earliest_ns = SUPERVISOR_NEVER;
    for (size_t i = 0; i < sizeof next_ns / sizeof next_ns[0]; i++)
        if (next_ns[i] < earliest_ns)
            earliest_ns = next_ns[i];
    return earliest_ns;
}

/* Returns how many milliseconds the supervisor's loop may wait until this time (monotonic ns), at most
 * 1000. Rounded up, so that the loop does not wake just before the time. */
static int compute_wait_ms(uint64_t until_ns)
{
    uint64_t now_ns = shm_now_ns();
    if (until_ns <= now_ns)
        return 0;
    uint64_t remaining_ms = (until_ns - now_ns + SUPERVISOR_MS_NS - 1) / SUPERVISOR_MS_NS;
    return remaining_ms < 1000 ? (int)remaining_ms : 1000;
}

/* The supervisor's loop: runs timers and serves descriptors until the instance is stopping and no process
 * is left. */
static void run_loop(struct supervisor *supervisor)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    while (!phase_is_over(supervisor)) {
        uint64_t next_ns = run_timers(supervisor);
        int ready_count = epoll_wait(supervisor->epoll_fd, events, EVENTS_AT_ONCE, compute_wait_ms(next_ns));
        for (int i = 0; i < ready_count; i++)
            serve_descriptor(supervisor, (enum supervisor_event)(events[i].data.u64 >> 32),
                             (uint32_t)events[i].data.u64);
    }
}

/* Runs one instance from its start to its end, and blocks until then. eventpiped's main calls it, and
 * the process that the library forks for a run. Returns 0 after a graceful stop, or a negative code
 * with a message; no process is left running. */
int supervisor_run(const struct supervisor_options *options, struct error *error)
{
    static struct supervisor supervisor; /* large; one in a process */
    int result = supervisor_open(&supervisor, options, error);
    if (result == 0) {
        base_log_info("start instance=%s pid=%d storage=\"%s\"", options->config->instance,
                      (int)supervisor.pid, options->config->storage);
        phase_begin(&supervisor);
        run_loop(&supervisor);
        result = supervisor.failure.code;
        if (result != 0)
            base_error_set(error, result, "%s", supervisor.failure.message);
        if (options->at_end != NULL)
            options->at_end(&supervisor.segment, options->user);
        base_log_info("stopped instance=%s", options->config->instance);
    }
    supervisor_close(&supervisor);
    return result;
}
