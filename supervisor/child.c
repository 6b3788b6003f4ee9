/* SPDX-License-Identifier: MIT */
/*
 * Start and output of one child process. Run by the supervisor; become_child and what it calls run in the new
 * process. Owns the pipe for a child's stderr and our end of the keeper's socket pair.
 *
 * Invariants
 *  1. A child is known by (slot, generation). slot_open comes before fork, so that nothing of the new process
 *     carries an older generation.
 *  2. No child outlives the supervisor: PR_SET_PDEATHSIG, then a check that the parent is still the
 *     supervisor.
 *  3. setpgid is called on both sides of fork, so that the process group is right whichever side runs first.
 *  4. A child holds only those descriptors of the supervisor's that child_context.h names.
 *
 * Nothing here is fatal: a process that cannot be started (no memory, too many processes) counts as a
 * crash, and is tried again like one.
 */
#include "supervisor/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/slot.h"
#include "src/base/log.h"
#include "src/process/child_context.h"
#include "supervisor/control.h"
#include "supervisor/notify.h"
#include "supervisor/recover.h"
#include "supervisor/signal.h"
#include "supervisor/state.h"

#define OUTPUT_BYTES 65536
#define LAST_READ_BYTES (1 << 20) /* after an exit: an orphan may hold the pipe and print without end */

/* Sets the name of a process for log lines and messages ("quakes/locate[3]", "producer quakes",
 * "keeper"). The supervisor calls it once for each process slot at its start. */
void child_set_name(const struct supervisor *supervisor, struct child *child)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    if (slot->kind == SHM_KIND_KEEPER) {
        snprintf(child->name, sizeof child->name, "keeper");
        return;
    }
    const struct shm_source *source = segment_source(&supervisor->segment, slot->source);
    if (slot->kind == SHM_KIND_PRODUCER)
        snprintf(child->name, sizeof child->name, "producer %s", source->id);
    else
        snprintf(child->name, sizeof child->name, "%s/%s[%u]", source->id,
                 segment_stage(&supervisor->segment, slot->stage)->name, slot->index);
}

/* The descriptors of a process that is being started: read end or our end first. */
struct child_pipes {
    int output[2]; /* pipe for its stderr */
    int keeper[2]; /* keeper only: socket pair for requests; [1] is the keeper's end */
};

/* ---- in the new process ---- */

/* Closes the supervisor's descriptors in a newly forked worker, producer or keeper. It closes them one
 * by one: those of a program that uses the library must stay open. */
static void close_supervisor_descriptors(struct supervisor *supervisor)
{
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        if (supervisor->children[i].output_fd >= 0)
            close(supervisor->children[i].output_fd);
    close(supervisor->epoll_fd);
    close(supervisor->signal_fd);
    close(supervisor->notice_read_fd);
    if (supervisor->keeper_fd >= 0)
        close(supervisor->keeper_fd);
    control_close_in_child(supervisor);
    notify_close(&supervisor->notify);
    segment_close_lock(&supervisor->segment);
}

/* Connects stdin to /dev/null and stderr to the pipe that the supervisor reads; in eventpiped stdout,
 * too. A newly forked worker, producer or keeper calls it. */
static void redirect_standard_streams(const struct supervisor *supervisor, int output_fd)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd >= 0) {
        dup2(null_fd, STDIN_FILENO);
        close(null_fd);
    }
    if (supervisor->daemon)
        dup2(output_fd, STDOUT_FILENO);
    dup2(output_fd, STDERR_FILENO);
    close(output_fd);
}

/* Puts a worker into its stage's process group, any other process into a group of its own. The supervisor
 * and the new process both call it after fork, so that the group is right whichever side runs first. */
static void join_process_group(const struct supervisor *supervisor, const struct child *child, pid_t pid)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    pid_t process_group = 0;
    if (slot->kind == SHM_KIND_WORKER)
        process_group = atomic_load(&segment_stage(&supervisor->segment, slot->stage)->process_group);
    if (setpgid(pid, process_group) != 0 && process_group != 0)
        setpgid(pid, 0); /* that group is gone: the process leads a new one */
}

static void become_child(struct supervisor *supervisor, const struct child *child,
                         const struct child_pipes *pipes) __attribute__((noreturn));

/* Runs in a process that the supervisor has just forked: closes what belongs to the supervisor and runs
 * the keeper, a producer or a worker. Never returns. Exits at once if the supervisor has died since the
 * fork. */
static void become_child(struct supervisor *supervisor, const struct child *child,
                         const struct child_pipes *pipes)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != supervisor->pid)
        _exit(CHILD_DONE);
    signal_reset_in_child();
    struct shm_slot *slot = supervisor_slot(supervisor, child);
    join_process_group(supervisor, child, 0);
    slot_set_pid(slot, getpid()); /* the supervisor does the same: both store the same value */
    close_supervisor_descriptors(supervisor);
    close(pipes->output[0]);
    if (pipes->keeper[0] >= 0)
        close(pipes->keeper[0]);
    redirect_standard_streams(supervisor, pipes->output[1]);
    base_log_set_relay_mode(true);
    const struct child_context context = {
        .segment = supervisor->segment,
        .config = supervisor->config,
        .slot = child->slot,
        .generation = child->generation,
        .notice_fd = supervisor->notice_write_fd,
        .activity_fd = supervisor->activity_fd,
        .keeper_fd = pipes->keeper[1],
        .lock_fd = supervisor->lock_fd,
        .prepare = slot->kind == SHM_KIND_KEEPER && atomic_load(&supervisor->segment.header->prepared) == 0,
        .until_end = supervisor->until_end,
    };
    if (slot->kind == SHM_KIND_KEEPER)
        process_keeper_main(&context);
    if (slot->kind == SHM_KIND_PRODUCER)
        process_producer_main(&context, slot->source);
    process_worker_main(&context, slot->stage);
}

/* ---- in the supervisor ---- */

static void close_pipe_ends(int pipe_fds[2])
{
    for (int i = 0; i < 2; i++)
        if (pipe_fds[i] >= 0)
            close(pipe_fds[i]);
}

/* Opens the pipes for a process that the supervisor is about to fork: one for its stderr, and for the
 * keeper a socket pair for requests. Returns 0 or -errno. child_start closes what `pipes` holds, also
 * after an error. */
static int open_pipes(struct supervisor *supervisor, struct child *child, struct child_pipes *pipes)
{
    *pipes = (struct child_pipes){{-1, -1}, {-1, -1}};
    if (pipe2(pipes->output, O_CLOEXEC) != 0)
        return -errno;
    /* Our end only: a child that prints may wait for us. */
    if (fcntl(pipes->output[0], F_SETFL, O_NONBLOCK) != 0)
        return -errno;
    if (supervisor_slot(supervisor, child)->kind == SHM_KIND_KEEPER &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pipes->keeper) != 0)
        return -errno;
    return supervisor_watch_fd(supervisor, pipes->output[0], EVENT_OUTPUT, child->slot);
}

/* Treats a process that the supervisor could not fork as a crash: logs it, and lets the restart policy
 * choose when to try again. child_start calls it in the supervisor. */
static void handle_failed_start(struct supervisor *supervisor, struct child *child, int error)
{
    char message[128];
    snprintf(message, sizeof message, "cannot start a process: %s", strerror(-error));
    text_set(&supervisor_slot(supervisor, child)->last_exit, message);
    base_log_error("start-failed process=\"%s\" error=\"%s\"", child->name, message);
    uint64_t now_ns = shm_now_ns();
    const struct restart_life life = {.born_ns = now_ns, .now_ns = now_ns};
    recover_slot(supervisor, child, &life);
}

/* Sets the process group of a process that the supervisor has just forked. For a worker, it also stores
 * the group in shared memory as that of the stage, which later workers of the stage join. */
static void publish_process_group(const struct supervisor *supervisor, const struct child *child)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    join_process_group(supervisor, child, child->pid);
    pid_t process_group = getpgid(child->pid);
    if (slot->kind == SHM_KIND_WORKER && process_group > 0)
        atomic_store(&segment_stage(&supervisor->segment, slot->stage)->process_group, process_group);
}

/* Returns how many calls and commits all processes that ran in this slot have made. */
static uint64_t count_work_done(const struct shm_slot *slot)
{
    return atomic_load(&slot->calls) + atomic_load(&slot->commits);
}

/* The supervisor calls this at the start and for each restart: forks a worker, a producer or the keeper
 * for this process slot (each process of the instance has one slot in shared memory). The slot is opened
 * before the fork, so that the new process never carries the generation, the number of the start, of an
 * earlier one. A failed start counts as a crash. */
void child_start(struct supervisor *supervisor, struct child *child)
{
    struct shm_slot *slot = supervisor_slot(supervisor, child);
    atomic_store(&slot->restart_at_ns, 0);
    child->restart_ns = SUPERVISOR_NEVER;
    if (child->generation > 0)
        atomic_fetch_add(&slot->restarts, 1);
    child->generation = slot_open(slot);
    child->is_ready = child->has_drained = false;
    child->order = ORDER_NONE;
    child->failure_message[0] = '\0';
    child->born_ns = shm_now_ns();
    child->work_count_at_start = count_work_done(slot);

    struct child_pipes pipes;
    int error = open_pipes(supervisor, child, &pipes);
    fflush(stdout); /* the child must not write again what the caller's log function has printed */
    pid_t pid = error == 0 ? fork() : -1;
    if (pid == 0)
        become_child(supervisor, child, &pipes);
    if (pid < 0) {
        if (error == 0)
            error = -errno;
        close_pipe_ends(pipes.output);
        close_pipe_ends(pipes.keeper);
        handle_failed_start(supervisor, child, error);
        return;
    }
    close(pipes.output[1]);
    child->pid = pid;
    child->output_fd = pipes.output[0];
    relay_open(&child->relay, child->name, child->line_limit);
    if (pipes.keeper[0] >= 0) {
        close(pipes.keeper[1]);
        supervisor->keeper_fd = pipes.keeper[0];
    }
    publish_process_group(supervisor, child);
    slot_set_pid(slot, pid);
    base_log_debug("start process=\"%s\" pid=%d generation=%u", child->name, (int)pid, child->generation);
}

bool child_made_progress(const struct supervisor *supervisor, const struct child *child)
{
    return count_work_done(supervisor_slot(supervisor, child)) != child->work_count_at_start;
}

/* Sends a signal to a child of the supervisor to end it, and records why, so that the exit does not count
 * as a crash. The supervisor calls it for a restart, an event that ran too long, and the shutdown. Does
 * nothing if no process runs in the slot. */
void child_kill(struct child *child, enum child_order order, int signal, uint64_t now_ns)
{
    if (child->pid == 0)
        return;
    child->order = order;
    child->ordered_signal = signal;
    child->ordered_ns = now_ns;
    kill(child->pid, signal); /* until it is reaped the number cannot belong to another process */
}

/* Writes one line that a child has printed to the supervisor's log (a relay_write). */
static void on_log_line(enum ep_severity severity, const char *line, void *user)
{
    (void)user;
    base_log_pass(severity, line);
}

/* Reads what a child has printed, at most limit_bytes, and writes it to the log line by line. The
 * supervisor's loop calls it when the child's pipe has data. Never blocks. The limit keeps a child that
 * prints without end from holding up the loop. */
void child_read_output(struct supervisor *supervisor, struct child *child, size_t limit_bytes)
{
    static char buffer[OUTPUT_BYTES];
    while (child->output_fd >= 0 && limit_bytes > 0) {
        ssize_t read_bytes =
            read(child->output_fd, buffer, limit_bytes < sizeof buffer ? limit_bytes : sizeof buffer);
        if (read_bytes < 0 && errno == EINTR)
            continue;
        if (read_bytes < 0 && errno == EAGAIN)
            return;
        if (read_bytes <= 0) { /* all writers have exited; SIGCHLD reports the exit */
            supervisor_unwatch_fd(supervisor, &child->output_fd);
            return;
        }
        relay_feed(&child->relay, buffer, (size_t)read_bytes, shm_now_ns(), on_log_line, NULL);
        limit_bytes -= (size_t)read_bytes;
    }
}

void child_close_output(struct supervisor *supervisor, struct child *child)
{
    child_read_output(supervisor, child, LAST_READ_BYTES);
    relay_end(&child->relay, shm_now_ns(), on_log_line, NULL);
    supervisor_unwatch_fd(supervisor, &child->output_fd);
}
