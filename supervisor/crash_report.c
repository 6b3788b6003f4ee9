/* SPDX-License-Identifier: MIT */
/*
 * Crash records for operators. Run by the supervisor, which never opens the store: each record goes into the
 * segment's crash log, and the keeper stores it from there.
 *
 * A killed supervisor cannot report its own crash. The next supervisor of the same name attaches to the
 * segment that is left, takes over the records that the keeper had not stored, and adds one for the
 * killed supervisor. If that start fails, it leaves these records to the next start: in its own segment,
 * or, if it could not create one, in a segment that holds nothing else.
 */
#include "supervisor/crash_report.h"

#include <bsd/string.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "shm/crash_log.h"
#include "shm/slot.h"
#include "shm/ticket.h"
#include "src/base/log.h"
#include "src/base/utf8.h"
#include "src/process/child_context.h"
#include "supervisor/state.h"

/* Copies a text into a member of a crash record; if it is too long, it is cut between two UTF-8
 * characters. The supervisor calls it when it fills in a record. */
static void set_record_text(char *member, size_t member_bytes, const char *text)
{
    strlcpy(member, text, member_bytes);
    base_utf8_cut(member);
}

/* Sets the cause of a crash record: the one for which an event is blamed, or else how the process
 * exited. crash_report_add calls it in the supervisor. */
static void set_record_cause(struct crash_record *record, const struct child *child,
                             const struct exit_cause *cause)
{
    uint32_t kind = cause->kind;
    record->code = cause->code;
    if (kind == SHM_CAUSE_NONE && child->order == ORDER_TIMEOUT) {
        kind = SHM_CAUSE_TIMEOUT;
    } else if (kind == SHM_CAUSE_NONE) {
        bool has_exited = WIFEXITED(cause->status);
        kind = has_exited ? SHM_CAUSE_EXIT : SHM_CAUSE_SIGNAL;
        record->code = has_exited ? WEXITSTATUS(cause->status) : WTERMSIG(cause->status);
    }
    set_record_text(record->cause, sizeof record->cause, shm_cause_name(kind));
}

/* The supervisor calls this for each process that has crashed: adds a record for operators (`eventpipe
 * crashes`) to the crash log in shared memory, and wakes the keeper, which stores the record. */
void crash_report_add(struct supervisor *supervisor, const struct child *child,
                      const struct exit_cause *cause)
{
    const struct segment *segment = &supervisor->segment;
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    struct crash_record record = {
        .crashed_ms = shm_realtime_ms(),
        .uptime_ms = (shm_now_ns() - child->born_ns) / SUPERVISOR_MS_NS,
        .pid = child->pid,
    };
    set_record_cause(&record, child, cause);
    set_record_text(record.kind, sizeof record.kind, shm_kind_name(slot->kind));
    set_record_text(record.process, sizeof record.process, child->name);
    if (slot->kind != SHM_KIND_KEEPER)
        set_record_text(record.source, sizeof record.source, segment_source(segment, slot->source)->id);
    if (slot->kind == SHM_KIND_WORKER)
        set_record_text(record.stage, sizeof record.stage, segment_stage(segment, slot->stage)->name);
    if (cause->ticket != SHM_NO_TICKET) {
        char uid[SHM_UID_BYTES];
        memcpy(uid, slot->uid, sizeof uid);
        uid[sizeof uid - 1] = '\0'; /* the worker may have crashed while it wrote this */
        set_record_text(record.uid, sizeof record.uid, uid);
        record.event = ticket_read(segment, cause->ticket).event;
    }
    set_record_text(record.how, sizeof record.how, cause->how);
    set_record_text(record.last_output, sizeof record.last_output, cause->last_output);
    crash_log_add(segment, &record);
    const struct child_context context = {.segment = *segment, .activity_fd = supervisor->activity_fd};
    process_notify_keeper(&context);
}

/* Makes the crash record of a supervisor that was killed, from the segment that it left. The next
 * supervisor calls it at its start: a killed one cannot report its own crash. */
static struct crash_record make_daemon_crash_record(const struct segment *old_segment)
{
    const struct shm_header *header = old_segment->header;
    uint64_t heartbeat_ns = atomic_load(&header->heartbeat_ns);
    struct crash_record record = {.pid = header->supervisor_pid, .kind = "daemon", .cause = "unknown"};
    if (heartbeat_ns >= header->started_ns)
        record.uptime_ms = (heartbeat_ns - header->started_ns) / SUPERVISOR_MS_NS;
    record.crashed_ms = header->started_realtime_ms + record.uptime_ms;
    set_record_text(record.process, sizeof record.process, "daemon");
    set_record_text(record.how, sizeof record.how,
                    "killed: it did not end cleanly; the time is that of its last heartbeat");
    return record;
}

/* Copies the crash records that an earlier supervisor's keeper has not stored, and adds one for that
 * supervisor if it was killed. A starting supervisor calls it before it replaces the segment of its
 * name; otherwise the records would be lost. */
void crash_backlog_read(const char *instance, struct crash_backlog *out)
{
    struct segment old_segment;
    out->count = 0;
    out->daemon_pid = 0;
    if (segment_attach(instance, &old_segment) != 0)
        return;
    for (uint64_t number = crash_log_first(&old_segment); number < crash_log_end(&old_segment); number++)
        if (out->count < SHM_CRASHES && crash_log_read(&old_segment, number, &out->crashes[out->count]))
            out->count++;
    if (atomic_load(&old_segment.header->phase) != SHM_PHASE_STOPPED) {
        out->crashes[out->count++] = make_daemon_crash_record(&old_segment);
        out->daemon_pid = old_segment.header->supervisor_pid;
    }
    segment_close(&old_segment);
}

/* Adds the crash records of an earlier supervisor to the crash log of a new segment, and logs if that
 * supervisor was killed. The supervisor calls it when it has created its segment. */
void crash_backlog_add(const struct segment *segment, const struct crash_backlog *backlog)
{
    for (uint32_t i = 0; i < backlog->count; i++)
        crash_log_add(segment, &backlog->crashes[i]);
    if (backlog->daemon_pid != 0)
        base_log_warning("previous-supervisor-killed process=daemon pid=%d", (int)backlog->daemon_pid);
}

/* Saves the crash records for the next start, in a segment that holds nothing else. The supervisor
 * calls it if it cannot create its own segment after it has removed the old one. */
void crash_backlog_keep(const char *instance, const struct crash_backlog *backlog)
{
    const struct segment_plan plan = {.instance = instance};
    struct segment segment;
    if (backlog->count == 0 || segment_create(&plan, &segment) != 0)
        return;
    crash_backlog_add(&segment, backlog);
    atomic_store(&segment.header->phase, SHM_PHASE_STOPPED);
    segment_publish(&segment);
    segment_close(&segment);
}
