/* SPDX-License-Identifier: MIT */
/*
 * The life of the instance: starting (the keeper alone, preparing the store), running, draining, stopping,
 * and what children tell about themselves meanwhile. Run by the supervisor.
 *
 * Who is started: the keeper first; when the store is prepared, every stage's workers, then the producers.
 * Who goes: workers, each after the event in hand; a source's producer when its workers' slots are empty; the
 * keeper when all others' are. Each sees by itself that its turn has come; here they are woken to look.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/slot.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/process/keeper.h"
#include "supervisor/family.h"

#define FINAL_GRACE_NS (10000 * SUPERVISOR_MS_NS) /* after the drain deadline, for producers and the keeper */
#define GIVE_UP_NS (10000 * SUPERVISOR_MS_NS)     /* after that, for what not even SIGKILL has ended */
#define SAME_ORDER_NS \
    (200 * SUPERVISOR_MS_NS) /* timeout(1) and others signal a process and its group: that is one order */
#define READY_PATIENCE_NS \
    (30000 * SUPERVISOR_MS_NS) /* a stage that takes longer to open does not make the daemon late */

static void set_phase(struct supervisor *supervisor, enum shm_phase phase)
{
    const struct segment *segment = &supervisor->segment;
    atomic_store(&segment->header->phase, phase);
    base_log_info("phase name=%s", shm_phase_name(phase));
    for (uint32_t i = 0; i < segment->header->source_count; i++)
        wake_source(segment, segment_source(segment, i));
    phase_child_exited(supervisor);
}

static enum shm_kind kind_of(const struct supervisor *supervisor, const struct child *child)
{
    return supervisor_slot(supervisor, child)->kind;
}

void phase_begin(struct supervisor *supervisor)
{
    set_phase(supervisor, SHM_PHASE_STARTING);
    child_start(supervisor, &supervisor->children[supervisor->segment.header->keeper_slot]);
}

/* The store is prepared: everybody else. Workers first, so that what a producer injects finds them. */
static void start_all(struct supervisor *supervisor)
{
    supervisor->running_ns = shm_now_ns();
    set_phase(supervisor, SHM_PHASE_RUNNING);
    static const enum shm_kind order[] = {SHM_KIND_WORKER, SHM_KIND_PRODUCER};
    for (size_t k = 0; k < sizeof order / sizeof order[0]; k++)
        for (uint32_t i = 0; i < supervisor->child_count; i++)
            if (kind_of(supervisor, &supervisor->children[i]) == order[k])
                child_start(supervisor, &supervisor->children[i]);
}

static void receive_notice(struct supervisor *supervisor, struct notice *notice)
{
    if (notice->slot >= supervisor->child_count)
        return;
    struct child *child = &supervisor->children[notice->slot];
    if (child->pid == 0 || child->generation != notice->generation)
        return; /* of one that is dead and recovered */
    notice->message[sizeof notice->message - 1] = '\0';
    switch (notice->kind) {
    case NOTICE_READY:
        child->ready = child->seen = true;
        base_log_debug("ready process=\"%s\" pid=%d", child->name, (int)child->pid);
        if (kind_of(supervisor, child) == SHM_KIND_KEEPER &&
            supervisor_phase(supervisor) == SHM_PHASE_STARTING &&
            atomic_load(&supervisor->segment.header->prepared) != 0)
            start_all(supervisor);
        break;
    case NOTICE_FAILED:
        child->seen = true;
        memcpy(child->failed, notice->message, sizeof child->failed);
        break;
    case NOTICE_ENDED:
        child->dry = supervisor_phase(supervisor) == SHM_PHASE_DRAINING;
        break;
    }
}

void phase_notices(struct supervisor *supervisor)
{
    struct notice notice;
    ssize_t got;
    while ((got = read(supervisor->notice_read, &notice, sizeof notice)) == (ssize_t)sizeof notice ||
           (got < 0 && errno == EINTR))
        if (got > 0)
            receive_notice(supervisor, &notice);
}

void phase_drain(struct supervisor *supervisor)
{
    if (supervisor_phase(supervisor) != SHM_PHASE_RUNNING)
        return;
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        supervisor->children[i].dry = false;
    set_phase(supervisor, SHM_PHASE_DRAINING);
}

void phase_stop(struct supervisor *supervisor)
{
    if (supervisor_phase(supervisor) >= SHM_PHASE_STOPPING)
        return;
    uint64_t now_ns = shm_now_ns();
    supervisor->stop_ns = now_ns;
    supervisor->drain_deadline = now_ns + supervisor->config->drain_timeout_ms * SUPERVISOR_MS_NS;
    supervisor->final_deadline = supervisor->drain_deadline + FINAL_GRACE_NS;
    notify_say(&supervisor->notify, "STOPPING=1\nSTATUS=stopping");
    for (uint32_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        child->restart_ns = SUPERVISOR_NEVER;
        if (child->pid == 0)
            slot_clear(supervisor_slot(supervisor, child), SHM_SLOT_EMPTY);
        else if (atomic_load(&supervisor->segment.header->prepared) == 0)
            child_kill(child, ORDER_STOP, SIGTERM,
                       now_ns); /* nobody holds anything yet: no need to wait for it */
    }
    set_phase(supervisor, SHM_PHASE_STOPPING);
}

void phase_fail(struct supervisor *supervisor, int code, const char *message)
{
    if (supervisor->failure.code == 0)
        base_error_set(&supervisor->failure, code, "%s", message);
    phase_stop(supervisor);
}

static void kill_kind(struct supervisor *supervisor, bool all, const char *reason, uint64_t now_ns)
{
    for (uint32_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        if (child->pid == 0 || (child->order == ORDER_STOP && child->order_signal == SIGKILL) ||
            (!all && kind_of(supervisor, child) != SHM_KIND_WORKER))
            continue;
        base_log_warning("kill process=\"%s\" pid=%d reason=\"%s\"", child->name, (int)child->pid, reason);
        child_kill(child, ORDER_STOP, SIGKILL, now_ns);
    }
}

void phase_hurry(struct supervisor *supervisor)
{
    uint64_t now_ns = shm_now_ns();
    if (now_ns - supervisor->stop_ns < SAME_ORDER_NS)
        return;
    supervisor->drain_deadline = supervisor->final_deadline = now_ns;
    kill_kind(supervisor, true, "asked to stop at once", now_ns);
}

static bool workers_gone(const struct supervisor *supervisor, const struct shm_source *source)
{
    for (uint32_t s = 0; s < source->stage_count; s++) {
        const struct shm_stage *stage = segment_stage(&supervisor->segment, source->first_stage + s);
        for (uint32_t i = 0; i < stage->concurrency; i++)
            if (supervisor->children[stage->first_slot + i].pid != 0)
                return false;
    }
    return true;
}

void phase_child_exited(struct supervisor *supervisor)
{
    /* The keeper also counts what changed by an exit. EAGAIN: it has been told often enough. */
    const uint64_t one = KEEPER_ACTIVITY;
    ssize_t ignored = write(supervisor->activity_fd, &one, sizeof one);
    (void)ignored;
    if (supervisor_phase(supervisor) < SHM_PHASE_STOPPING)
        return;
    for (uint32_t i = 0; i < supervisor->segment.header->source_count; i++) {
        const struct shm_source *source = segment_source(&supervisor->segment, i);
        if (workers_gone(supervisor, source))
            wake_slot(segment_slot(&supervisor->segment, source->producer_slot));
    }
}

/* Whether every source has ended; in a drain it is enough that its producer ran dry. */
static bool sources_done(const struct supervisor *supervisor, bool draining)
{
    for (uint32_t i = 0; i < supervisor->segment.header->source_count; i++) {
        const struct shm_source *source = segment_source(&supervisor->segment, i);
        bool dry = draining && supervisor->children[source->producer_slot].dry;
        if (!dry && atomic_load(&source->ended) == 0)
            return false;
    }
    return true;
}

static void report_ready(struct supervisor *supervisor, uint64_t now_ns)
{
    bool waiting = now_ns - supervisor->running_ns < READY_PATIENCE_NS;
    for (uint32_t i = 0; waiting && i < supervisor->child_count; i++)
        if (!supervisor->children[i].seen)
            return;
    supervisor->ready_reported = true;
    base_log_info("ready processes=%" PRIu32, supervisor->child_count);
    notify_say(&supervisor->notify, "READY=1\nMAINPID=%d", (int)supervisor->pid);
}

static uint64_t turn_stopping(struct supervisor *supervisor, uint64_t now_ns)
{
    static const char too_late[] = "it did not stop in time";
    if (now_ns >= supervisor->final_deadline) {
        kill_kind(supervisor, true, too_late, now_ns);
        return supervisor->final_deadline + GIVE_UP_NS;
    }
    if (now_ns >= supervisor->drain_deadline) {
        kill_kind(supervisor, false, too_late, now_ns);
        return supervisor->final_deadline;
    }
    return supervisor->drain_deadline;
}

uint64_t phase_turn(struct supervisor *supervisor, uint64_t now_ns)
{
    uint32_t phase = supervisor_phase(supervisor);
    if (!supervisor->ready_reported && phase == SHM_PHASE_RUNNING)
        report_ready(supervisor, now_ns);
    bool may_end = phase == SHM_PHASE_DRAINING || (phase == SHM_PHASE_RUNNING && supervisor->until_end);
    if (may_end && sources_done(supervisor, phase == SHM_PHASE_DRAINING)) {
        base_log_info("sources-ended phase=%s", shm_phase_name(phase));
        phase_stop(supervisor);
    }
    return supervisor_phase(supervisor) >= SHM_PHASE_STOPPING ? turn_stopping(supervisor, now_ns)
                                                              : SUPERVISOR_NEVER;
}

bool phase_over(struct supervisor *supervisor)
{
    if (supervisor_phase(supervisor) < SHM_PHASE_STOPPING)
        return false;
    bool anybody = supervisor->orphans_pending;
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        anybody |= supervisor->children[i].pid != 0;
    if (anybody && shm_now_ns() >= supervisor->final_deadline + GIVE_UP_NS) {
        phase_fail(supervisor, EP_ESYSTEM,
                   "a process did not exit when it was killed: is it stuck in the kernel?");
        anybody = false;
    }
    return !anybody;
}
