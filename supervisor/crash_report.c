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

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "shm/crash_log.h"
#include "shm/slot.h"
#include "src/base/log.h"
#include "src/process/child_context.h"
#include "supervisor/state.h"

/* Copies a text, cut at the start of a UTF-8 character if it is too long. */
static void copy_text(char *to, size_t size, const char *from)
{
    size_t bytes = strnlen(from, size);
    if (bytes == size)
        for (bytes--; bytes > 0 && ((unsigned char)from[bytes] & 0xc0) == 0x80; bytes--)
            ;
    memcpy(to, from, bytes);
    to[bytes] = '\0';
}

void crash_report_add(struct supervisor *supervisor, const struct child *child,
                      const struct crash_report *report)
{
    const struct segment *segment = &supervisor->segment;
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    bool exited = WIFEXITED(report->status);
    struct shm_crash crash = {
        .crashed_ms = shm_realtime_ms(),
        .uptime_ms = (shm_now_ns() - child->born_ns) / SUPERVISOR_MS_NS,
        .event = report->event,
        .pid = child->pid,
        .code = report->code,
        .kind = slot->kind,
        .cause = report->cause,
    };
    if (report->cause == SHM_CAUSE_NONE) { /* no event is blamed: record how the process ended */
        crash.cause = exited ? SHM_CAUSE_EXIT : SHM_CAUSE_SIGNAL;
        crash.code = exited ? WEXITSTATUS(report->status) : WTERMSIG(report->status);
    }
    copy_text(crash.process, sizeof crash.process, child->name);
    if (slot->kind != SHM_KIND_KEEPER)
        copy_text(crash.source, sizeof crash.source, segment_source(segment, slot->source)->id);
    if (slot->kind == SHM_KIND_WORKER)
        copy_text(crash.stage, sizeof crash.stage, segment_stage(segment, slot->stage)->name);
    if (report->event != 0) {
        char uid[SHM_UID_BYTES];
        memcpy(uid, slot->uid, sizeof uid);
        uid[sizeof uid - 1] = '\0'; /* the worker may have crashed while it wrote this */
        copy_text(crash.uid, sizeof crash.uid, uid);
    }
    copy_text(crash.how, sizeof crash.how, report->how);
    copy_text(crash.last_output, sizeof crash.last_output, report->last_output);
    crash_log_add(segment, &crash);
    const struct child_context context = {.segment = *segment, .activity_fd = supervisor->activity_fd};
    process_notify_keeper(&context);
}

/* The crash record of the supervisor that left this segment. */
static struct shm_crash daemon_crash(const struct segment *before)
{
    const struct shm_header *header = before->header;
    uint64_t heartbeat_ns = atomic_load(&header->heartbeat_ns);
    struct shm_crash crash = {.pid = header->supervisor_pid, .kind = SHM_KIND_NONE, .cause = SHM_CAUSE_NONE};
    if (heartbeat_ns >= header->started_ns)
        crash.uptime_ms = (heartbeat_ns - header->started_ns) / SUPERVISOR_MS_NS;
    crash.crashed_ms = header->started_realtime_ms + crash.uptime_ms;
    copy_text(crash.process, sizeof crash.process, "daemon");
    copy_text(crash.how, sizeof crash.how,
              "killed: it did not end cleanly; the time is that of its last heartbeat");
    return crash;
}

void crash_backlog_read(const char *instance, struct crash_backlog *out)
{
    struct segment before;
    out->count = 0;
    out->daemon_pid = 0;
    if (segment_attach(instance, &before) != 0)
        return;
    for (uint64_t number = crash_log_first(&before); number < crash_log_end(&before); number++)
        if (out->count < SHM_CRASHES && crash_log_read(&before, number, &out->crashes[out->count]))
            out->count++;
    if (atomic_load(&before.header->phase) != SHM_PHASE_STOPPED) {
        out->crashes[out->count++] = daemon_crash(&before);
        out->daemon_pid = before.header->supervisor_pid;
    }
    segment_close(&before);
}

void crash_backlog_add(const struct segment *segment, const struct crash_backlog *backlog)
{
    for (uint32_t i = 0; i < backlog->count; i++)
        crash_log_add(segment, &backlog->crashes[i]);
    if (backlog->daemon_pid != 0)
        base_log_warning("previous-supervisor-killed process=daemon pid=%d", (int)backlog->daemon_pid);
}

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
