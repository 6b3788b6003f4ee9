/* SPDX-License-Identifier: MIT */
/*
 * Why a process exited, and which event is blamed. Run by the supervisor between reaping a process and
 * recovering what it held; reads the slot, the tickets and the process's last output, changes nothing.
 *
 * Invariants
 *  1. At most one event is blamed for a crash: the one the process was processing, and only if its ticket
 *     agrees.
 *  2. No event is blamed when the supervisor ended the process for a restart or a shutdown, or when the store
 *     or the stage's set-up failed.
 *  3. No event is blamed for a crash of a program that had been sent several, unless the worker itself
 *     names the cause: the events are sent again one by one, which finds the guilty one.
 */
#include "supervisor/exit_cause.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "shm/slot.h"
#include "shm/ticket.h"
#include "src/base/units.h"
#include "src/process/child_context.h"
#include "supervisor/state.h"

/* Returns the ticket of the event that an exited worker was processing. A ticket says in shared memory
 * which process owns an event. SHM_NO_TICKET = there was none, or ticket and slot do not agree. The
 * supervisor may blame only this event for the crash. */
static uint32_t find_current_ticket(const struct supervisor *supervisor, const struct child *child)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    uint32_t ticket = atomic_load(&slot->ticket);
    if (slot->kind != SHM_KIND_WORKER || ticket >= supervisor->segment.header->ticket_count)
        return SHM_NO_TICKET;
    const struct ticket_view view = ticket_read(&supervisor->segment, ticket);
    bool does_slot_agree =
        view.phase == TICKET_RUNNING && view.slot == child->slot && view.event == atomic_load(&slot->event);
    return does_slot_agree ? ticket : SHM_NO_TICKET;
}

/* Whether the event for which the supervisor killed a worker (it exceeded the stage's timeout) was still
 * the worker's current one when the signal came. overrun_event_start_ns is when the worker began that
 * event. If the worker had finished it just in time and begun another, no event is blamed. */
static bool is_timed_out_event(const struct supervisor *supervisor, const struct child *child,
                               uint32_t ticket)
{
    return ticket == child->overrun_ticket &&
           atomic_load(&supervisor_slot(supervisor, child)->since_ns) == child->overrun_event_start_ns;
}

static void describe_exit(struct exit_cause *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Writes how a process exited, such as "signal 11 (Segmentation fault)", into out->how. The supervisor
 * writes the text to log lines and `eventpipe crashes`. */
static void describe_exit(struct exit_cause *out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out->how, sizeof out->how, format, arguments);
    va_end(arguments);
}

/* Finds why a process exited that the supervisor itself has ended by a signal: for a restart, the
 * shutdown, or an event that ran too long. Only an event that ran too long is blamed. */
static void find_ordered_cause(const struct supervisor *supervisor, const struct child *child,
                               struct exit_cause *out)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    out->clean = child->order != ORDER_TIMEOUT;
    if (child->order == ORDER_RESTART) {
        describe_exit(out, "restarted on request");
    } else if (child->order == ORDER_STOP) {
        describe_exit(out, "killed during the shutdown");
    } else {
        char limit[32];
        base_units_write_duration(segment_stage(&supervisor->segment, slot->stage)->timeout_ms, limit,
                                  sizeof limit);
        describe_exit(out, "timed out after %s", limit);
        if (is_timed_out_event(supervisor, child, out->ticket))
            out->kind = SHM_CAUSE_TIMEOUT;
    }
}

/* Finds why a process exited that the supervisor had sent no signal: its stage's program failed, the store
 * or stage could not be opened, an exit code or a signal. A normal exit during the shutdown is no crash. */
static void find_unordered_cause(const struct supervisor *supervisor, const struct child *child,
                                 struct exit_cause *out)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    bool has_exited = WIFEXITED(out->status);
    int status_code = has_exited ? WEXITSTATUS(out->status) : WTERMSIG(out->status);
    uint32_t reported_kind =
        atomic_load(&slot->cause_kind); /* set by a worker that gives up over its program */
    if (reported_kind != SHM_CAUSE_NONE) {
        out->kind = reported_kind;
        out->code = atomic_load(&slot->cause_code);
        text_get(&slot->cause_message, out->how, sizeof out->how);
    } else if (has_exited && supervisor_phase(supervisor) >= SHM_PHASE_STOPPING &&
               status_code == CHILD_DONE) {
        out->clean = true;
    } else if (has_exited && child->failure_message[0] != '\0') {
        describe_exit(out, "%s", child->failure_message); /* the store or the set-up failed, not the event */
    } else {
        out->kind = has_exited ? SHM_CAUSE_EXIT : SHM_CAUSE_SIGNAL;
        out->code = status_code;
        const char *signal_name = has_exited ? NULL : sigdescr_np(status_code);
        if (has_exited)
            describe_exit(out, "exit code %d", status_code);
        else
            describe_exit(out, "signal %d (%s)", status_code, signal_name != NULL ? signal_name : "unknown");
    }
}

bool exit_cause_had_several_events(const struct shm_slot *slot)
{
    return slot->kind == SHM_KIND_WORKER && atomic_load(&slot->pipeline) > 1;
}

/* Composes the message about an exited process for the log and `eventpipe crashes`: how it exited, and
 * after a crash its last stderr output, if there is room for it. exit_cause_find calls it in the
 * supervisor. */
static void compose_exit_message(struct exit_cause *out)
{
    static const char separator[] = "; last stderr output: ";
    size_t used_bytes = strlen(out->how);
    memcpy(out->message, out->how, sizeof out->message);
    if (!out->clean && out->last_output[0] != '\0' &&
        used_bytes + sizeof separator - 1 < sizeof out->message - 1)
        snprintf(out->message + used_bytes, sizeof out->message - used_bytes, "%s%s", separator,
                 out->last_output);
}

/* Finds why a process exited and which event is blamed; the answer is in *out. The supervisor calls it
 * after it has reaped the process and read its output, before it recovers the slot. Changes nothing. */
void exit_cause_find(const struct supervisor *supervisor, const struct child *child, int status,
                     struct exit_cause *out)
{
    *out = (struct exit_cause){.status = status, .ticket = find_current_ticket(supervisor, child)};
    bool was_ordered =
        child->order != ORDER_NONE && WIFSIGNALED(status) && WTERMSIG(status) == child->ordered_signal;
    if (was_ordered)
        find_ordered_cause(supervisor, child, out);
    else
        find_unordered_cause(supervisor, child, out);
    /* The program may have been further than the answers that the worker had read. A worker that gave up over
     * its program had read them all. */
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    if (!was_ordered && exit_cause_had_several_events(slot) &&
        atomic_load(&slot->cause_kind) == SHM_CAUSE_NONE)
        out->ticket = SHM_NO_TICKET;
    relay_last_output(&child->relay, out->last_output, sizeof out->last_output);
    compose_exit_message(out);
}
