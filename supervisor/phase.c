/* SPDX-License-Identifier: MIT */
/*
 * The phases of the instance: starting (only the keeper runs, and prepares the store), running, draining,
 * stopping. Also reads what children report. Run by the supervisor.
 *
 * Order of starting: the keeper; when the store is prepared, the workers of every stage; then the producers.
 * Order of stopping: each worker after its current event; a source's producer when the slots of its
 * workers are empty; the keeper when all other slots are empty. Each process reads the phase and these
 * slots itself; this file only wakes it.
 *
 * Fatal: what phase_fail is called for. Survived: any report or exit of a child; a process that does not
 * stop is killed at a deadline.
 */
#include "supervisor/phase.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/slot.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/process/child_context.h"
#include "src/process/keeper.h"
#include "supervisor/child.h"
#include "supervisor/state.h"

/* From the drain deadline until producers and the keeper are killed. */
#define FINAL_GRACE_NS (10000 * SUPERVISOR_MS_NS)
/* From then until the supervisor gives up waiting for processes that SIGKILL did not end. */
#define GIVE_UP_NS (10000 * SUPERVISOR_MS_NS)
/* Signals within this time are one order: timeout(1) and others signal a process and its group. */
#define SAME_ORDER_NS (200 * SUPERVISOR_MS_NS)
/* After this time the daemon reports ready, although a stage is still opening. */
#define READY_TIMEOUT_NS (30000 * SUPERVISOR_MS_NS)

/* Changes the phase of the instance (starting, running, draining, stopping): the supervisor writes it
 * to shared memory, logs it, and wakes every process, so that it reads the new phase. */
static void publish_phase(struct supervisor *supervisor, enum shm_phase phase)
{
    const struct segment *segment = &supervisor->segment;
    atomic_store(&segment->header->phase, phase);
    base_log_info("phase name=%s", shm_phase_name(phase));
    for (uint32_t i = 0; i < segment->header->source_count; i++)
        wake_source(segment, segment_source(segment, i));
    phase_wake_after_exit(supervisor);
}

static enum shm_kind get_child_kind(const struct supervisor *supervisor, const struct child *child)
{
    return supervisor_slot(supervisor, child)->kind;
}

void phase_begin(struct supervisor *supervisor)
{
    publish_phase(supervisor, SHM_PHASE_STARTING);
    child_start(supervisor, &supervisor->children[supervisor->segment.header->keeper_slot]);
}

/* The supervisor runs this once the keeper has prepared the store: starts all workers, then all producers.
 * The workers come first, so that they are ready when the producers bring events. */
static void start_workers_and_producers(struct supervisor *supervisor)
{
    supervisor->running_since_ns = shm_now_ns();
    publish_phase(supervisor, SHM_PHASE_RUNNING);
    static const enum shm_kind start_order[] = {SHM_KIND_WORKER, SHM_KIND_PRODUCER};
    for (size_t order_index = 0; order_index < sizeof start_order / sizeof start_order[0]; order_index++)
        for (uint32_t i = 0; i < supervisor->child_count; i++)
            if (get_child_kind(supervisor, &supervisor->children[i]) == start_order[order_index])
                child_start(supervisor, &supervisor->children[i]);
}

/* Acts on one notice of a child: it is ready, it cannot start, or its source has ended. The supervisor
 * ignores a notice whose generation (the number of the start) is not that of the process now in the slot.
 * When the first keeper is ready, it starts all other processes. */
static void handle_notice(struct supervisor *supervisor, struct notice *notice)
{
    if (notice->slot >= supervisor->child_count)
        return;
    struct child *child = &supervisor->children[notice->slot];
    if (child->pid == 0 || child->generation != notice->generation)
        return; /* from a process that has exited and was recovered */
    notice->message[sizeof notice->message - 1] = '\0';
    switch (notice->kind) {
    case NOTICE_READY:
        child->is_ready = child->was_ready_or_failed = true;
        base_log_debug("ready process=\"%s\" pid=%d", child->name, (int)child->pid);
        if (get_child_kind(supervisor, child) == SHM_KIND_KEEPER &&
            supervisor_phase(supervisor) == SHM_PHASE_STARTING &&
            atomic_load(&supervisor->segment.header->prepared) != 0)
            start_workers_and_producers(supervisor);
        break;
    case NOTICE_FAILED:
        child->was_ready_or_failed = true;
        memcpy(child->failure_message, notice->message, sizeof child->failure_message);
        break;
    case NOTICE_ENDED:
        child->has_drained = supervisor_phase(supervisor) == SHM_PHASE_DRAINING;
        break;
    }
}

/* Reads and handles all notices that children have sent to the supervisor through a pipe: ready, failed,
 * or source ended. The supervisor's loop calls it when there are some, and recover_child before it
 * recovers an exited child, whose last notice says why. Never blocks. */
void phase_read_notices(struct supervisor *supervisor)
{
    struct notice notice;
    ssize_t read_bytes;
    while ((read_bytes = read(supervisor->notice_read_fd, &notice, sizeof notice)) ==
               (ssize_t)sizeof notice ||
           (read_bytes < 0 && errno == EINTR))
        if (read_bytes > 0)
            handle_notice(supervisor, &notice);
}

/* Begins a drain: producers stop fetching, and the instance stops when all events are done. The
 * supervisor calls it for `eventpipe drain` and SIGUSR1. Does nothing unless the instance is running.
 * */
void phase_drain(struct supervisor *supervisor)
{
    if (supervisor_phase(supervisor) != SHM_PHASE_RUNNING)
        return;
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        supervisor->children[i].has_drained = false;
    publish_phase(supervisor, SHM_PHASE_DRAINING);
}

/* Begins a graceful shutdown: sets the deadlines, cancels restarts and wakes every process. The
 * supervisor calls it for SIGTERM, SIGINT, `eventpipe stop`, the end of all sources or of a drain, and
 * a fatal error. Does nothing while a shutdown is under way. */
void phase_stop(struct supervisor *supervisor)
{
    if (supervisor_phase(supervisor) >= SHM_PHASE_STOPPING)
        return;
    uint64_t now_ns = shm_now_ns();
    supervisor->stopping_since_ns = now_ns;
    supervisor->drain_deadline_ns = now_ns + supervisor->config->drain_timeout_ms * SUPERVISOR_MS_NS;
    supervisor->final_deadline_ns = supervisor->drain_deadline_ns + FINAL_GRACE_NS;
    notify_send(&supervisor->notify, "STOPPING=1\nSTATUS=stopping");
    for (uint32_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        child->restart_ns = SUPERVISOR_NEVER;
        if (child->pid == 0)
            slot_clear(supervisor_slot(supervisor, child), SHM_SLOT_EMPTY);
        else if (atomic_load(&supervisor->segment.header->prepared) == 0)
            child_kill(child, ORDER_STOP, SIGTERM, now_ns); /* no process holds an event yet */
    }
    publish_phase(supervisor, SHM_PHASE_STOPPING);
}

void phase_fail(struct supervisor *supervisor, int code, const char *message)
{
    if (supervisor->failure.code == 0)
        base_error_set(&supervisor->failure, code, "%s", message);
    phase_stop(supervisor);
}

/* Kills the workers (or, with kills_all_kinds, all processes) that still run after a deadline of the
 * shutdown, and logs each with the reason. The supervisor does not kill one twice. */
static void kill_remaining_processes(struct supervisor *supervisor, bool kills_all_kinds, const char *reason,
                                     uint64_t now_ns)
{
    for (uint32_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        if (child->pid == 0 || (child->order == ORDER_STOP && child->ordered_signal == SIGKILL) ||
            (!kills_all_kinds && get_child_kind(supervisor, child) != SHM_KIND_WORKER))
            continue;
        base_log_warning("kill process=\"%s\" pid=%d reason=\"%s\"", child->name, (int)child->pid, reason);
        child_kill(child, ORDER_STOP, SIGKILL, now_ns);
    }
}

/* Kills all processes at once. The supervisor calls it when a second SIGTERM or SIGINT comes during the
 * shutdown. It ignores one that comes within 200 ms, because timeout(1) and others signal twice for one
 * order. */
void phase_stop_now(struct supervisor *supervisor)
{
    uint64_t now_ns = shm_now_ns();
    if (now_ns - supervisor->stopping_since_ns < SAME_ORDER_NS)
        return;
    supervisor->drain_deadline_ns = supervisor->final_deadline_ns = now_ns;
    kill_remaining_processes(supervisor, true, "asked to stop at once", now_ns);
}

/* Whether all workers of a source have exited. During the shutdown the supervisor then wakes the
 * source's producer, which unlocks the events in flight. */
static bool have_workers_exited(const struct supervisor *supervisor, const struct shm_source *source)
{
    for (uint32_t stage_index = 0; stage_index < source->stage_count; stage_index++) {
        const struct shm_stage *stage =
            segment_stage(&supervisor->segment, source->first_stage + stage_index);
        for (uint32_t i = 0; i < stage->concurrency; i++)
            if (supervisor->children[stage->first_slot + i].pid != 0)
                return false;
    }
    return true;
}

/* Wakes the keeper, which updates its counts, and during the shutdown each producer whose workers have
 * exited. The supervisor calls it after each exit of a process and each change of phase. */
void phase_wake_after_exit(struct supervisor *supervisor)
{
    /* The keeper updates its counts after an exit. On EAGAIN it has notifications enough. */
    const uint64_t activity = KEEPER_ACTIVITY;
    ssize_t ignored = write(supervisor->activity_fd, &activity, sizeof activity);
    (void)ignored;
    if (supervisor_phase(supervisor) < SHM_PHASE_STOPPING)
        return;
    for (uint32_t i = 0; i < supervisor->segment.header->source_count; i++) {
        const struct shm_source *source = segment_source(&supervisor->segment, i);
        if (have_workers_exited(supervisor, source))
            wake_slot(segment_slot(&supervisor->segment, source->producer_slot));
    }
}

/* Whether every source has ended, that is, will never bring another event. In a drain it is enough that
 * the producer has no more events to claim or fetch. The supervisor then stops the instance. */
static bool have_sources_ended(const struct supervisor *supervisor, bool is_draining)
{
    for (uint32_t i = 0; i < supervisor->segment.header->source_count; i++) {
        const struct shm_source *source = segment_source(&supervisor->segment, i);
        bool has_drained = is_draining && supervisor->children[source->producer_slot].has_drained;
        if (!has_drained && atomic_load(&source->ended) == 0)
            return false;
    }
    return true;
}

/* Reports READY=1 to the service manager (systemd) once every process was ready or has failed, or after
 * READY_TIMEOUT_NS. The supervisor calls it in each turn until then. */
static void report_ready(struct supervisor *supervisor, uint64_t now_ns)
{
    bool may_still_wait = now_ns - supervisor->running_since_ns < READY_TIMEOUT_NS;
    for (uint32_t i = 0; may_still_wait && i < supervisor->child_count; i++)
        if (!supervisor->children[i].was_ready_or_failed)
            return;
    supervisor->is_ready_reported = true;
    base_log_info("ready processes=%" PRIu32, supervisor->child_count);
    notify_send(&supervisor->notify, "READY=1\nMAINPID=%d", (int)supervisor->pid);
}

/* Kills what still runs at the deadlines of a shutdown: first the workers, later all processes. Returns
 * the next deadline (monotonic ns). phase_run_timers calls it in the supervisor. */
static uint64_t enforce_stop_deadlines(struct supervisor *supervisor, uint64_t now_ns)
{
    static const char too_late[] = "it did not stop in time";
    if (now_ns >= supervisor->final_deadline_ns) {
        kill_remaining_processes(supervisor, true, too_late, now_ns);
        return supervisor->final_deadline_ns + GIVE_UP_NS;
    }
    if (now_ns >= supervisor->drain_deadline_ns) {
        kill_remaining_processes(supervisor, false, too_late, now_ns);
        return supervisor->final_deadline_ns;
    }
    return supervisor->drain_deadline_ns;
}

/* Reports readiness, stops the instance when its sources have ended, and kills processes that miss the
 * deadlines of a shutdown. The supervisor's loop calls it before each wait. Returns when it must be
 * called again (monotonic ns). */
uint64_t phase_run_timers(struct supervisor *supervisor, uint64_t now_ns)
{
    uint32_t phase = supervisor_phase(supervisor);
    if (!supervisor->is_ready_reported && phase == SHM_PHASE_RUNNING)
        report_ready(supervisor, now_ns);
    bool ends_with_sources =
        phase == SHM_PHASE_DRAINING || (phase == SHM_PHASE_RUNNING && supervisor->until_end);
    if (ends_with_sources && have_sources_ended(supervisor, phase == SHM_PHASE_DRAINING)) {
        base_log_info("sources-ended phase=%s", shm_phase_name(phase));
        phase_stop(supervisor);
    }
    return supervisor_phase(supervisor) >= SHM_PHASE_STOPPING ? enforce_stop_deadlines(supervisor, now_ns)
                                                              : SUPERVISOR_NEVER;
}

/* Whether the instance is stopping and no process is left: then the supervisor's loop ends. It also
 * ends, with an error, if a process still runs 10 s after it was sent SIGKILL. */
bool phase_is_over(struct supervisor *supervisor)
{
    if (supervisor_phase(supervisor) < SHM_PHASE_STOPPING)
        return false;
    bool are_processes_left = supervisor->may_have_orphans;
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        are_processes_left |= supervisor->children[i].pid != 0;
    if (are_processes_left && shm_now_ns() >= supervisor->final_deadline_ns + GIVE_UP_NS) {
        phase_fail(supervisor, EP_ESYSTEM,
                   "a process did not exit when it was killed: is it stuck in the kernel?");
        are_processes_left = false;
    }
    return !are_processes_left;
}
