/* SPDX-License-Identifier: MIT */
/*
 * Start and exit of one process: fork, what a child keeps and what it must not have, process groups, the
 * pipe its stderr goes to, signals sent. Run by the supervisor; child_become and what it calls run in the new
 * process.
 *
 * Invariants
 *  1. A child is known by (slot, generation): slot_open comes before fork, so that nothing of it can be
 * older.
 *  2. No child outlives the supervisor: PR_SET_PDEATHSIG, then the parent is checked again.
 *  3. setpgid on both sides of fork: whoever comes first, the group is right from then on.
 *  4. A child holds no descriptor of the supervisor's but those that child_context.h names.
 * A process that cannot be started (no memory, too many processes) is tried again like one that crashed.
 */
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
#include "supervisor/family.h"

#define OUTPUT_BYTES 65536

void child_name(const struct supervisor *supervisor, struct child *child)
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

/* What a new process needs before there is one. */
struct birth {
    int output[2]; /* the pipe its stderr goes to */
    int keeper[2]; /* the keeper's: its requests */
};

/* ---- in the new process ---- */

/* Closes what a new process has of ours: by name, so that a library caller's own descriptors stay. */
static void close_ours(struct supervisor *supervisor)
{
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        if (supervisor->children[i].output_fd >= 0)
            close(supervisor->children[i].output_fd);
    close(supervisor->epoll_fd);
    close(supervisor->signal_fd);
    close(supervisor->notice_read);
    if (supervisor->keeper_fd >= 0)
        close(supervisor->keeper_fd);
    control_inherited(supervisor);
    notify_close(&supervisor->notify);
    segment_inherited(&supervisor->segment);
}

static void redirect(const struct supervisor *supervisor, int output)
{
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing >= 0) {
        dup2(nothing, STDIN_FILENO);
        close(nothing);
    }
    if (supervisor->daemon)
        dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    close(output);
}

static void join_process_group(const struct supervisor *supervisor, const struct child *child, pid_t pid)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    pid_t process_group = 0;
    if (slot->kind == SHM_KIND_WORKER)
        process_group = atomic_load(&segment_stage(&supervisor->segment, slot->stage)->process_group);
    if (setpgid(pid, process_group) != 0 && process_group != 0)
        setpgid(pid, 0); /* that group is gone: this one leads a new one */
}

static void child_become(struct supervisor *supervisor, const struct child *child, const struct birth *birth)
    __attribute__((noreturn));

static void child_become(struct supervisor *supervisor, const struct child *child, const struct birth *birth)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != supervisor->pid)
        _exit(CHILD_DONE);
    signal_default();
    struct shm_slot *slot = supervisor_slot(supervisor, child);
    join_process_group(supervisor, child, 0);
    slot_born(slot, getpid()); /* the supervisor does the same: whoever is first */
    close_ours(supervisor);
    close(birth->output[0]);
    if (birth->keeper[0] >= 0)
        close(birth->keeper[0]);
    redirect(supervisor, birth->output[1]);
    base_log_relay_mode(true);
    const struct child_context context = {
        .segment = supervisor->segment,
        .config = supervisor->config,
        .slot = child->slot,
        .generation = child->generation,
        .notice_fd = supervisor->notice_write,
        .activity_fd = supervisor->activity_fd,
        .keeper_fd = birth->keeper[1],
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

static void close_both(int pair[2])
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
}

/* 0 or -errno; what was opened until then is in `birth` either way. */
static int birth_prepare(struct supervisor *supervisor, struct child *child, struct birth *birth)
{
    *birth = (struct birth){{-1, -1}, {-1, -1}};
    if (pipe2(birth->output, O_CLOEXEC) != 0)
        return -errno;
    if (fcntl(birth->output[0], F_SETFL, O_NONBLOCK) !=
        0) /* our end only: the child's prints may wait for us */
        return -errno;
    if (supervisor_slot(supervisor, child)->kind == SHM_KIND_KEEPER &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, birth->keeper) != 0)
        return -errno;
    return supervisor_watch_fd(supervisor, birth->output[0], EVENT_OUTPUT, child->slot);
}

static void birth_failed(struct supervisor *supervisor, struct child *child, int error)
{
    char message[128];
    snprintf(message, sizeof message, "cannot start a process: %s", strerror(-error));
    text_set(&supervisor_slot(supervisor, child)->last_exit, message);
    base_log_error("start-failed process=\"%s\" error=\"%s\"", child->name, message);
    uint64_t now_ns = shm_now_ns();
    const struct restart_life life = {.born_ns = now_ns, .now_ns = now_ns};
    recover_slot(supervisor, child, &life);
}

/* Remembers the group that a stage's workers share. */
static void note_process_group(const struct supervisor *supervisor, const struct child *child)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    join_process_group(supervisor, child, child->pid);
    pid_t process_group = getpgid(child->pid);
    if (slot->kind == SHM_KIND_WORKER && process_group > 0)
        atomic_store(&segment_stage(&supervisor->segment, slot->stage)->process_group, process_group);
}

void child_start(struct supervisor *supervisor, struct child *child)
{
    struct shm_slot *slot = supervisor_slot(supervisor, child);
    atomic_store(&slot->restart_at_ns, 0);
    child->restart_ns = SUPERVISOR_NEVER;
    if (child->generation > 0)
        atomic_fetch_add(&slot->restarts, 1);
    child->generation = slot_open(slot);
    child->ready = child->dry = false;
    child->order = ORDER_NONE;
    child->failed[0] = '\0';
    child->born_ns = shm_now_ns();
    child->work_before = atomic_load(&slot->calls) + atomic_load(&slot->commits);

    struct birth birth;
    int error = birth_prepare(supervisor, child, &birth);
    fflush(stdout); /* what a library caller's log function prints is not to be written twice */
    pid_t pid = error == 0 ? fork() : -1;
    if (pid == 0)
        child_become(supervisor, child, &birth);
    if (pid < 0) {
        if (error == 0)
            error = -errno;
        close_both(birth.output);
        close_both(birth.keeper);
        birth_failed(supervisor, child, error);
        return;
    }
    close(birth.output[1]);
    child->pid = pid;
    child->output_fd = birth.output[0];
    relay_open(&child->relay, child->name, child->limit);
    if (birth.keeper[0] >= 0) {
        close(birth.keeper[1]);
        supervisor->keeper_fd = birth.keeper[0];
    }
    note_process_group(supervisor, child);
    slot_born(slot, pid);
    base_log_debug("start process=\"%s\" pid=%d generation=%u", child->name, (int)pid, child->generation);
}

void child_kill(struct child *child, enum child_order order, int signal, uint64_t now_ns)
{
    if (child->pid == 0)
        return;
    child->order = order;
    child->order_signal = signal;
    child->order_ns = now_ns;
    kill(child->pid, signal); /* ours until we reap it: the number cannot be somebody else's */
}

static void write_log(enum ep_severity severity, const char *line, void *user)
{
    (void)user;
    base_log_pass(severity, line);
}

void child_output(struct supervisor *supervisor, struct child *child, size_t most)
{
    static char buffer[OUTPUT_BYTES];
    while (child->output_fd >= 0 && most > 0) {
        ssize_t got = read(child->output_fd, buffer, most < sizeof buffer ? most : sizeof buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) { /* every writer is gone; what it said last is read, its exit comes by SIGCHLD */
            supervisor_unwatch_fd(supervisor, &child->output_fd);
            return;
        }
        relay_feed(&child->relay, buffer, (size_t)got, shm_now_ns(), write_log, NULL);
        most -= (size_t)got;
    }
}

void child_output_close(struct supervisor *supervisor, struct child *child)
{
    child_output(supervisor, child,
                 1 << 20); /* bounded: an orphan may hold the other end and go on printing */
    relay_end(&child->relay, shm_now_ns(), write_log, NULL);
    supervisor_unwatch_fd(supervisor, &child->output_fd);
}
