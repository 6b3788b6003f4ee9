/* SPDX-License-Identifier: MIT */
/*
 * Recovery after an exit. Run by the supervisor on SIGCHLD, always in this order:
 *   reap; read the rest of the output; find the cause (exit_cause.c); orphan the tickets of the events
 *   it held, for its source's producer; put back what fell out of a ring; clear the slot; decide when
 *   the next process starts there (restart.c). watch_start_due starts it.
 *
 * Invariants
 *  1. Recovering one (slot, generation) twice does nothing.
 *  2. The cause stands beside a ticket before the ticket changes. Events that are not blamed are released
 *     without a cause, and count no crash.
 *  3. Nothing here waits or opens the store: the producer, or its successor, releases the orphaned tickets.
 *
 * Fatal: the first keeper exits because the store is broken or wrong. Every other exit is survived.
 */
#include "supervisor/recover.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "shm/commit_request.h"
#include "shm/slot.h"
#include "shm/ticket.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/process/child_context.h"
#include "src/store/store.h"
#include "supervisor/crash_report.h"
#include "supervisor/exit_cause.h"
#include "supervisor/orphan.h"
#include "supervisor/phase.h"
#include "supervisor/state.h"
#include "supervisor/watch.h"

/* How long a stage gets its events one by one after a failure with several: at first, and at most. */
#define PIPELINE_PAUSE_MIN_NS (5000 * SUPERVISOR_MS_NS)
#define PIPELINE_PAUSE_MAX_NS (3600000 * SUPERVISOR_MS_NS)
#define OTHER_RESTART_MAX_MS UINT64_C(30000) /* producers and the keeper */

/* The supervisor calls this after an exit: marks every ticket (it says which process owns an event in
 * flight) that the exited process held as orphaned, so that the source's producer unlocks the events in
 * the store. First writes the cause beside each ticket; only the event in `cause` is blamed. Returns how
 * many it marked. */
static uint32_t mark_tickets_orphaned(struct supervisor *supervisor, struct child *child,
                                      const struct exit_cause *cause)
{
    const struct segment *segment = &supervisor->segment;
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    const struct shm_source *source = segment_source(segment, slot->source);
    uint32_t orphaned_count = 0;
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        uint32_t ticket = source->first_ticket + i;
        const struct ticket_view view = ticket_read(segment, ticket);
        if (view.slot != child->slot || (view.phase != TICKET_RUNNING && view.phase != TICKET_LOADING))
            continue;
        bool is_blamed = ticket == cause->ticket && cause->kind != SHM_CAUSE_NONE;
        struct shm_cause *shared_cause = segment_cause(segment, ticket);
        shared_cause->kind = is_blamed ? cause->kind : SHM_CAUSE_NONE;
        shared_cause->code = is_blamed ? cause->code : 0;
        shared_cause->pid = cause->clean ? 0 : (int32_t)child->pid;
        shared_cause->attempts = atomic_load(&slot->event_attempts);
        shared_cause->crashes = atomic_load(&slot->event_crashes);
        shared_cause->arrival_ms = atomic_load(&slot->event_arrival_ms);
        shared_cause->stage = slot->kind == SHM_KIND_WORKER ? slot->stage : source->first_stage;
        snprintf(shared_cause->message, sizeof shared_cause->message, "%s", is_blamed ? cause->message : "");
        orphaned_count += ticket_mark_orphaned(segment, ticket, child->slot);
    }
    return orphaned_count;
}

/* Puts events of this source that wait for a stage, but are in no ring, into the stage's ring, as far
 * as there is room. The supervisor calls it after an exit, and in a turn if a ring was full. Without it
 * these events would wait for ever. */
void recover_requeue(struct supervisor *supervisor, uint32_t source_index)
{
    bool must_requeue_again = false;
    struct shm_source *shared_source = segment_source(&supervisor->segment, source_index);
    uint32_t requeued_count = ticket_requeue_lost(&supervisor->segment, shared_source, &must_requeue_again);
    supervisor->requeue_pending[source_index] = must_requeue_again;
    if (requeued_count > 0) {
        base_log_info("requeue source=%s events=%" PRIu32, shared_source->id, requeued_count);
        wake_source(&supervisor->segment, shared_source);
    }
}

/* Recovers what an exited process held: its commit request, with which another worker may commit its
 * answers, and its events. After the keeper's exit the supervisor makes all producers read the store
 * again, because the keeper may have changed events without telling their producers. */
static void recover_events(struct supervisor *supervisor, struct child *child, const struct exit_cause *cause)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    commit_request_recover(&supervisor->segment, child->slot);
    if (slot->kind == SHM_KIND_KEEPER) {
        supervisor_unwatch_fd(supervisor, &supervisor->keeper_fd);
        /* The keeper may have crashed after it changed events for an operator, and before it notified their
         * producers: all producers read their events again. */
        for (uint32_t i = 0; i < supervisor->segment.header->source_count; i++) {
            struct shm_source *source = segment_source(&supervisor->segment, i);
            atomic_store(&source->rescan, 1);
            wake_source(&supervisor->segment, source);
        }
        return;
    }
    struct shm_source *source = segment_source(&supervisor->segment, slot->source);
    if (mark_tickets_orphaned(supervisor, child, cause) > 0)
        atomic_store(&source->orphans, 1);
    recover_requeue(supervisor, slot->source);
    wake_source(&supervisor->segment, source);
}

/* Forgets a stage's process group when the stage's last worker has exited: the kernel may use the
 * number for other processes then. The supervisor calls it after an exit. */
static void clear_process_group(struct supervisor *supervisor, const struct child *child)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    if (slot->kind != SHM_KIND_WORKER)
        return;
    struct shm_stage *stage = segment_stage(&supervisor->segment, slot->stage);
    for (uint32_t i = 0; i < stage->concurrency; i++)
        if (supervisor->children[stage->first_slot + i].pid != 0)
            return;
    atomic_store(&stage->process_group, 0);
}

/* Logs the exit of a process: a crash as a warning, with the number of the event that is blamed, a
 * clean exit at debug level. The supervisor calls it before it recovers the slot. */
static void log_child_exit(const struct supervisor *supervisor, const struct child *child,
                           const struct exit_cause *cause, pid_t pid)
{
    if (cause->clean) {
        base_log_debug("end process=\"%s\" pid=%d", child->name, (int)pid);
        return;
    }
    char event_field[48] = "";
    if (cause->ticket != SHM_NO_TICKET)
        snprintf(event_field, sizeof event_field, " event=%" PRId64,
                 (int64_t)store_event_number(ticket_read(&supervisor->segment, cause->ticket).event));
    base_log_warning("crash process=\"%s\" pid=%d%s how=\"%s\"", child->name, (int)pid, event_field,
                     cause->message);
}

/* Makes a stage get its events one by one for a while, after a worker failed while its program had a
 * pipeline, several events sent at once: it is unknown on which of them the program failed. Each further
 * failure doubles the time. The supervisor calls it after an exit. */
static void pause_pipelining(struct supervisor *supervisor, const struct shm_slot *slot,
                             const struct exit_cause *cause)
{
    if (!exit_cause_had_several_events(slot) || cause->kind == SHM_CAUSE_NONE)
        return;
    struct shm_stage *stage = segment_stage(&supervisor->segment, slot->stage);
    uint64_t now_ns = shm_now_ns();
    bool was_long_ago = now_ns > atomic_load(&stage->alone_until_ns) + PIPELINE_PAUSE_MAX_NS;
    uint64_t pause_ns = stage->alone_ns == 0 || was_long_ago ? PIPELINE_PAUSE_MIN_NS : stage->alone_ns * 2;
    stage->alone_ns = pause_ns < PIPELINE_PAUSE_MAX_NS ? pause_ns : PIPELINE_PAUSE_MAX_NS;
    atomic_store(&stage->alone_until_ns, now_ns + stage->alone_ns);
    base_log_info("pipelining-off stage=%s/%s for_ms=%" PRIu64,
                  segment_source(&supervisor->segment, slot->source)->id, stage->name,
                  stage->alone_ns / SUPERVISOR_MS_NS);
}

/* The supervisor calls this for each process that has exited: reads the rest of its output, finds the
 * cause, gives back its events, clears its slot and plans the next start. Does nothing if this generation
 * (one start of a process in a slot) was recovered before. A keeper that exits before the store is
 * prepared, because it cannot open it, stops the instance: no other process can run then. */
static void recover_child(struct supervisor *supervisor, struct child *child, int status)
{
    if (child->recovered == child->generation)
        return;
    child->recovered = child->generation;
    phase_read_notices(supervisor);
    child_close_output(supervisor, child);

    struct shm_slot *slot = supervisor_slot(supervisor, child);
    struct exit_cause cause;
    exit_cause_find(supervisor, child, status, &cause);
    log_child_exit(supervisor, child, &cause, child->pid);
    if (!cause.clean) {
        text_set(&slot->last_exit, cause.message);
        crash_report_add(supervisor, child, &cause);
    }
    const struct restart_life life = {
        .born_ns = child->born_ns,
        .now_ns = shm_now_ns(),
        .ready = child->is_ready,
        .made_progress = child_made_progress(supervisor, child),
        .requested = child->order == ORDER_RESTART,
        .gave_up_over_store = WIFEXITED(status) && WEXITSTATUS(status) == CHILD_STORE,
        .is_event_suspect = cause.ticket != SHM_NO_TICKET && cause.kind != SHM_CAUSE_NONE &&
                            atomic_load(&slot->event_crashes) > 0,
    };
    pause_pipelining(supervisor, slot, &cause); /* before its events are sent again */
    recover_events(supervisor, child, &cause);
    child->pid = 0;
    child->is_ready = false;
    child->was_ready_or_failed |= !cause.clean;
    clear_process_group(supervisor, child);
    supervisor->may_have_orphans = true;
    atomic_fetch_add(&supervisor->segment.header->recoveries, 1);
    bool is_store_unprepared =
        slot->kind == SHM_KIND_KEEPER && atomic_load(&supervisor->segment.header->prepared) == 0;
    if (is_store_unprepared && WIFEXITED(status) && WEXITSTATUS(status) == CHILD_STORE)
        phase_fail(supervisor, EP_ESTORE, cause.message);
    recover_slot(supervisor, child, &life);
}

/* Clears a process slot whose process has exited or could not be started, and sets when the next process
 * starts there, as the restart policy says. The supervisor calls it. During the shutdown nothing is
 * started again. */
void recover_slot(struct supervisor *supervisor, struct child *child, const struct restart_life *life)
{
    struct shm_slot *slot = supervisor_slot(supervisor, child);
    bool is_worker = slot->kind == SHM_KIND_WORKER;
    if (supervisor_phase(supervisor) >= SHM_PHASE_STOPPING) {
        slot_clear(slot, SHM_SLOT_EMPTY);
    } else {
        uint64_t longest_pause_ms = OTHER_RESTART_MAX_MS;
        if (is_worker)
            longest_pause_ms = supervisor->config->sources[slot->source]
                                   .stages[segment_stage(&supervisor->segment, slot->stage)->position]
                                   .restart_max_backoff_ms;
        uint64_t pause_ms = restart_after_exit(&child->restart, life, longest_pause_ms);
        child->restart_ns = life->now_ns + pause_ms * SUPERVISOR_MS_NS;
        slot_clear(slot, SHM_SLOT_BACKOFF);
        atomic_store(&slot->restart_at_ns, child->restart_ns);
        if (pause_ms > 0)
            base_log_info("restart-delayed process=\"%s\" pause_ms=%" PRIu64, child->name, pause_ms);
    }
    if (is_worker)
        watch_update_degraded(supervisor, slot->stage);
    phase_wake_after_exit(supervisor);
}

/* Finds the supervisor's child with this process ID. Returns NULL for an orphan: a program that an exited
 * process left, and that became the supervisor's child. */
static struct child *find_child_by_pid(struct supervisor *supervisor, pid_t pid)
{
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        if (supervisor->children[i].pid == pid)
            return &supervisor->children[i];
    return NULL;
}

/* Reaps and recovers every process that has exited, and kills the programs that they left. The
 * supervisor calls it on SIGCHLD. Never blocks. */
void recover_children(struct supervisor *supervisor)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        struct child *child = find_child_by_pid(supervisor, pid);
        if (child != NULL)
            recover_child(supervisor, child, status);
        else
            supervisor->may_have_orphans = true; /* an orphan, which may have left orphans in turn */
    }
    if (supervisor->may_have_orphans)
        supervisor->may_have_orphans = orphan_kill(supervisor);
}
