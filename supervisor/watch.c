/* SPDX-License-Identifier: MIT */
/*
 * Timers: the turn about once a second, events that run too long, pauses before a restart that are over.
 * Run by the supervisor before each wait of the loop; reads the slots, owns nothing.
 *
 * Invariants
 *  1. A worker is killed for an event only if its slot still names the same event, begun at the same
 *     time, right before the kill. After the exit exit_cause.c checks this again.
 *  2. Two turns are at most the shortest timeout of all stages apart, but at least 100 ms, so that each
 *     overrun is seen in time: once an event was seen, its deadline is met to the millisecond.
 */
#include "supervisor/watch.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "shm/slot.h"
#include "src/base/log.h"
#include "supervisor/control.h"
#include "supervisor/notify.h"
#include "supervisor/orphan.h"
#include "supervisor/recover.h"
#include "supervisor/state.h"

#define LONGEST_TURN_NS (1000 * SUPERVISOR_MS_NS)
#define SHORTEST_TURN_NS (100 * SUPERVISOR_MS_NS)
#define RESTART_TIMEOUT_NS (5000 * SUPERVISOR_MS_NS) /* from SIGTERM to SIGKILL */

static uint64_t get_earlier(uint64_t first_ns, uint64_t second_ns)
{
    return first_ns < second_ns ? first_ns : second_ns;
}

/* Returns when the current event of a worker will exceed the stage's timeout (monotonic ns);
 * SUPERVISOR_NEVER = no event, or no timeout. *ticket becomes the event's ticket, *event_start_ns the time
 * when the worker began it. The supervisor asks in each round of its loop. */
static uint64_t find_overrun_deadline(const struct supervisor *supervisor, const struct child *child,
                                      uint32_t *ticket, uint64_t *event_start_ns)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    if (child->pid == 0 || slot->kind != SHM_KIND_WORKER || child->order != ORDER_NONE)
        return SUPERVISOR_NEVER;
    uint64_t timeout_ms = segment_stage(&supervisor->segment, slot->stage)->timeout_ms;
    *ticket = atomic_load(&slot->ticket);
    *event_start_ns = atomic_load(&slot->since_ns);
    /* A worker that gives up over its program keeps the current event while it commits the others. */
    if (timeout_ms == 0 || *ticket == SHM_NO_TICKET || atomic_load(&slot->cause_kind) != SHM_CAUSE_NONE)
        return SUPERVISOR_NEVER;
    return *event_start_ns + timeout_ms * SUPERVISOR_MS_NS;
}

/* Kills a worker whose event has exceeded the stage's timeout. Does nothing if the slot shows that the
 * worker has gone on to another event meanwhile. watch_kill_overruns calls it in the supervisor, which
 * kills the worker's program, an orphan then, after the exit. */
static void kill_overrunning_worker(struct supervisor *supervisor, struct child *child, uint32_t ticket,
                                    uint64_t event_start_ns, uint64_t now_ns)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    if (atomic_load(&slot->ticket) != ticket || atomic_load(&slot->since_ns) != event_start_ns)
        return;
    child->overrun_ticket = ticket;
    child->overrun_event_start_ns = event_start_ns;
    child_kill(child, ORDER_TIMEOUT, SIGKILL, now_ns);
}

/* Kills workers whose event has exceeded the stage's timeout, and processes that did not exit within 5
 * s of the SIGTERM of a restart. The supervisor's loop calls it before each wait. Returns when it must
 * be called again (monotonic ns). */
uint64_t watch_kill_overruns(struct supervisor *supervisor, uint64_t now_ns)
{
    uint64_t next_ns = SUPERVISOR_NEVER;
    for (uint32_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        uint32_t ticket = SHM_NO_TICKET;
        uint64_t event_start_ns = 0;
        uint64_t overrun_deadline_ns = find_overrun_deadline(supervisor, child, &ticket, &event_start_ns);
        if (overrun_deadline_ns <= now_ns)
            kill_overrunning_worker(supervisor, child, ticket, event_start_ns, now_ns);
        else
            next_ns = get_earlier(next_ns, overrun_deadline_ns);
        if (child->pid != 0 && child->order == ORDER_RESTART && child->ordered_signal != SIGKILL) {
            uint64_t kill_deadline_ns = child->ordered_ns + RESTART_TIMEOUT_NS;
            if (kill_deadline_ns <= now_ns)
                child_kill(child, ORDER_RESTART, SIGKILL, now_ns);
            else
                next_ns = get_earlier(next_ns, kill_deadline_ns);
        }
    }
    return next_ns;
}

/* Starts the processes whose pause before a restart is over. The supervisor's loop calls it before each
 * wait. Returns when it must be called again (monotonic ns). */
uint64_t watch_start_due(struct supervisor *supervisor, uint64_t now_ns)
{
    uint64_t next_ns = SUPERVISOR_NEVER;
    for (uint32_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        if (child->restart_ns <= now_ns && supervisor_phase(supervisor) < SHM_PHASE_STOPPING)
            child_start(supervisor, child);
        next_ns = get_earlier(next_ns, child->restart_ns);
    }
    return next_ns;
}

/* Marks a stage as degraded while one of its workers crashes again and again, and logs each change;
 * `eventpipe status` shows the mark. The supervisor calls it when the restart pause of one of its
 * workers has changed. */
void watch_update_degraded(struct supervisor *supervisor, uint32_t stage_index)
{
    struct shm_stage *shared_stage = segment_stage(&supervisor->segment, stage_index);
    uint32_t is_degraded = 0;
    for (uint32_t i = 0; i < shared_stage->concurrency; i++)
        if (restart_degraded(&supervisor->children[shared_stage->first_slot + i].restart))
            is_degraded = 1;
    if (atomic_exchange(&shared_stage->degraded, is_degraded) == is_degraded)
        return;
    const char *source = segment_source(&supervisor->segment, shared_stage->source)->id;
    if (is_degraded != 0)
        base_log_warning("degraded stage=%s/%s", source, shared_stage->name);
    else
        base_log_info("recovered stage=%s/%s", source, shared_stage->name);
}

/* Resets the restart pause of a process that has become useful, and the degraded mark of its stage. The
 * supervisor calls it once a turn for each process. */
static void reset_restart_pause(struct supervisor *supervisor, struct child *child, uint64_t now_ns)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    const struct restart_life life = {
        .born_ns = child->born_ns,
        .now_ns = now_ns,
        .ready = child->is_ready,
        .made_progress = child_made_progress(supervisor, child),
    };
    if (child->pid != 0 && restart_while_alive(&child->restart, &life) && slot->kind == SHM_KIND_WORKER)
        watch_update_degraded(supervisor, slot->stage);
}

/* Writes one line to the supervisor's log (a relay_write). */
static void on_log_line(enum ep_severity severity, const char *line, void *user)
{
    (void)user;
    base_log_pass(severity, line);
}

/* Logs how many output lines of a stage were suppressed, when the time for which they were counted is
 * over. The supervisor calls it once a turn; otherwise the count would appear only with the stage's
 * next line. */
static void report_suppressed_lines(struct supervisor *supervisor, uint64_t now_ns)
{
    for (uint32_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        if (child->line_limit->suppressed_count > 0)
            relay_report_suppressed(child->line_limit, child->name, now_ns, on_log_line, NULL);
    }
}

/* Sends the phase and the number of degraded stages to the service manager (systemd) when they have
 * changed; `systemctl status` shows them. The supervisor calls it once a turn. */
static void report_to_service_manager(struct supervisor *supervisor)
{
    uint32_t degraded_count = 0, stage_count = supervisor->segment.header->stage_count;
    for (uint32_t i = 0; i < stage_count; i++)
        degraded_count += atomic_load(&segment_stage(&supervisor->segment, i)->degraded);
    char status[sizeof supervisor->status];
    if (degraded_count > 0)
        snprintf(status, sizeof status, "%s; %u of %u stages degraded",
                 shm_phase_name(supervisor_phase(supervisor)), degraded_count, stage_count);
    else
        snprintf(status, sizeof status, "%s", shm_phase_name(supervisor_phase(supervisor)));
    if (strcmp(status, supervisor->status) == 0)
        return;
    memcpy(supervisor->status, status, sizeof status);
    notify_send(&supervisor->notify, "STATUS=%s", status);
}

/* Returns the time between two turns of the supervisor: the shortest timeout of all stages, but at
 * least 100 ms and at most 1 s, so that an event that exceeds its timeout is seen in time. */
static uint64_t choose_turn_length_ns(const struct supervisor *supervisor)
{
    uint64_t turn_length_ns = LONGEST_TURN_NS;
    for (uint32_t i = 0; i < supervisor->segment.header->stage_count; i++) {
        uint64_t timeout_ms = segment_stage(&supervisor->segment, i)->timeout_ms;
        if (timeout_ms > 0)
            turn_length_ns = get_earlier(turn_length_ns, timeout_ms * SUPERVISOR_MS_NS);
    }
    return turn_length_ns > SHORTEST_TURN_NS ? turn_length_ns : SHORTEST_TURN_NS;
}

/* Runs the supervisor's turn, its regular work about once a second: writes the heartbeat, resets restart
 * pauses, puts events that wait but are in no ring back into it, kills orphans (programs that exited
 * processes left), and reports. The loop calls it before each wait. Returns when it must be called again
 * (monotonic ns). */
uint64_t watch_run_turn(struct supervisor *supervisor, uint64_t now_ns)
{
    uint64_t next_watchdog_ns = notify_send_watchdog(&supervisor->notify, now_ns);
    if (now_ns < supervisor->next_turn_ns)
        return get_earlier(supervisor->next_turn_ns, next_watchdog_ns);
    supervisor->next_turn_ns = now_ns + choose_turn_length_ns(supervisor);
    atomic_store(&supervisor->segment.header->heartbeat_ns, now_ns);
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        reset_restart_pause(supervisor, &supervisor->children[i], now_ns);
    for (uint32_t i = 0; i < supervisor->segment.header->source_count; i++)
        if (atomic_exchange(&segment_source(&supervisor->segment, i)->fallen, 0) != 0 ||
            supervisor->requeue_pending[i])
            recover_requeue(supervisor, i);
    if (supervisor->may_have_orphans)
        supervisor->may_have_orphans = orphan_kill(supervisor);
    report_suppressed_lines(supervisor, now_ns);
    report_to_service_manager(supervisor);
    control_run_timers(supervisor, now_ns);
    return get_earlier(supervisor->next_turn_ns, next_watchdog_ns);
}
