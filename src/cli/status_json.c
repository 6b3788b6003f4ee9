/* SPDX-License-Identifier: MIT */
/*
 * `eventpipe status --json`: the snapshot as one object on one line. Runs in the command line. Members are
 * only ever added; each is documented in eventpipe(1), and a test compares the two.
 */
#include <string.h>

#include "src/cli/status.h"

/* Writes a text member of `eventpipe status --json`; null if the text is empty or NULL, so that programs
 * need to test for one of the two only. */
static void write_text_or_null_member(struct text *out, const char *name, const char *text)
{
    json_write_member_text(out, name, text != NULL && text[0] != '\0' ? text : NULL);
}

static void write_bool_member(struct text *out, const char *name, bool value)
{
    json_write_key(out, name);
    base_text_append(out, value ? "true" : "false");
}

/* Writes the pid of a process into `eventpipe status --json`; null if the process does not run. */
static void write_pid_member(struct text *out, int32_t pid)
{
    json_write_key(out, "pid");
    if (pid > 0)
        json_write_int(out, pid);
    else
        base_text_append(out, "null");
}

static void begin_list_object(struct text *out, size_t index)
{
    base_text_append(out, index == 0 ? "{" : ",{");
}

/* Writes the keeper or a producer as a member of `eventpipe status --json`: pid, state, restarts and how it
 * last ended. */
static void write_process_member(struct text *out, const char *name, const struct status_process *process)
{
    json_write_key(out, name);
    base_text_append(out, "{");
    write_pid_member(out, process->pid);
    json_write_member_text(out, "state", shm_slot_state_name(process->state));
    json_write_member_uint(out, "restarts", process->restarts);
    write_text_or_null_member(out, "last_exit", process->last_exit);
    base_text_append(out, "}");
}

/* Writes the members of one worker into `eventpipe status --json`; the caller writes the braces around
 * them. "event" is null while the worker processes none. */
static void write_worker_members(struct text *out, const struct status_process *worker)
{
    json_write_member_uint(out, "slot", worker->slot);
    json_write_member_uint(out, "worker", worker->index);
    write_pid_member(out, worker->pid);
    json_write_member_text(out, "state", shm_slot_state_name(worker->state));
    json_write_key(out, "event");
    if (worker->event != 0)
        json_write_uint(out, worker->event);
    else
        base_text_append(out, "null");
    json_write_member_uint(out, "since_ms", worker->since_ms);
    json_write_member_uint(out, "calls", worker->calls);
    json_write_member_uint(out, "restarts", worker->restarts);
    json_write_member_uint(out, "restart_in_ms", worker->restart_in_ms);
    write_text_or_null_member(out, "last_exit", worker->last_exit);
}

/* Writes the members of one stage, with its workers, into `eventpipe status --json`; the caller writes the
 * braces around them. */
static void write_stage_members(struct text *out, const struct status_stage *stage)
{
    json_write_member_text(out, "name", stage->name);
    write_text_or_null_member(out, "type", stage->type);
    json_write_member_text(out, "state", stage->state);
    write_bool_member(out, "paused", stage->paused);
    json_write_member_uint(out, "concurrency", stage->concurrency);
    json_write_member_uint(out, "busy", stage->busy_worker_count);
    json_write_member_uint(out, "queue", stage->queued_count);
    json_write_member_uint(out, "answers",
                           stage->processed + stage->retried + stage->removed + stage->rejected +
                               stage->failed + stage->crashed);
    json_write_member_uint(out, "processed", stage->processed);
    json_write_member_uint(out, "retried", stage->retried);
    json_write_member_uint(out, "removed", stage->removed);
    json_write_member_uint(out, "rejected", stage->rejected);
    json_write_member_uint(out, "failed", stage->failed);
    json_write_member_uint(out, "crashed", stage->crashed);
    json_write_member_uint(out, "restarts", stage->restarts);
    json_write_key(out, "latency_us");
    base_text_append(out, "{");
    json_write_member_uint(out, "p50", stage->p50_us);
    json_write_member_uint(out, "p99", stage->p99_us);
    base_text_append(out, "}");
    json_write_key(out, "workers");
    base_text_append(out, "[");
    for (uint32_t i = 0; stage->workers != NULL && i < stage->concurrency; i++) {
        begin_list_object(out, i);
        write_worker_members(out, &stage->workers[i]);
        base_text_append(out, "}");
    }
    base_text_append(out, "]");
}

/* Writes the members of one source, with its stages, into `eventpipe status --json`; the caller writes the
 * braces around them. */
static void write_source_members(struct text *out, const struct status_source *source)
{
    json_write_member_text(out, "id", source->id);
    write_text_or_null_member(out, "type", source->type);
    json_write_member_text(out, "state", source->state);
    write_bool_member(out, "paused", source->paused);
    json_write_member_text(out, "cursor", source->cursor);
    write_text_or_null_member(out, "error", source->error);
    json_write_member_uint(out, "failures", source->failures);
    json_write_member_uint(out, "next_try_in_ms", source->next_try_in_ms);
    json_write_member_uint(out, "fetched", source->fetched);
    json_write_member_uint(out, "duplicates", source->duplicates);
    json_write_member_uint(out, "injected", source->injected);
    json_write_member_uint(out, "completed", source->completed);
    json_write_member_uint(out, "removed_by_stage", source->removed_by_stage);
    json_write_member_uint(out, "removed_by_operator", source->removed_by_operator);
    json_write_member_uint(out, "live", source->live);
    json_write_member_uint(out, "ready", source->ready);
    json_write_member_uint(out, "running", source->running);
    json_write_member_uint(out, "delayed", source->delayed);
    json_write_member_uint(out, "held", source->held);
    json_write_member_uint(out, "dead", source->dead);
    json_write_member_uint(out, "orphaned", source->orphaned);
    json_write_member_uint(out, "oldest_s", source->oldest_s);
    write_process_member(out, "producer", &source->producer);
    json_write_key(out, "stages");
    base_text_append(out, "[");
    for (size_t i = 0; i < source->stage_count; i++) {
        begin_list_object(out, i);
        write_stage_members(out, &source->stages[i]);
        base_text_append(out, "}");
    }
    base_text_append(out, "]");
}

/* Writes the snapshot of `eventpipe status --json` as one object on one line. Programs read it, so members
 * are only ever added; eventpipe(1) documents each. */
void cli_status_write_json(const struct status *status, struct text *out)
{
    base_text_append(out, "{");
    json_write_member_text(out, "instance", status->instance);
    write_text_or_null_member(out, "version", status->version);
    write_pid_member(out, status->pid);
    json_write_member_uint(out, "uptime_s", status->health == STATUS_DOWN ? 0 : status->uptime_s);
    json_write_member_text(out, "health", cli_status_health_name(status->health));
    json_write_key(out, "reasons");
    base_text_append(out, "[");
    for (size_t i = 0; i < status->reason_count; i++) {
        base_text_append(out, i == 0 ? "" : ",");
        json_write_string(out, status->reasons[i], strlen(status->reasons[i]));
    }
    base_text_append(out, "]");
    json_write_member_text(out, "phase", status->phase);
    write_bool_member(out, "stale", status->stale);
    json_write_member_uint(out, "recoveries", status->recoveries);
    json_write_key(out, "store");
    base_text_append(out, "{");
    json_write_member_text(out, "url", status->store_url);
    json_write_member_uint(out, "bytes", status->store_bytes);
    json_write_member_uint(out, "wal_bytes", status->wal_bytes);
    write_text_or_null_member(out, "error", status->store_error);
    base_text_append(out, "}");
    write_process_member(out, "keeper", &status->keeper);
    json_write_key(out, "sources");
    base_text_append(out, "[");
    for (size_t i = 0; i < status->source_count; i++) {
        begin_list_object(out, i);
        write_source_members(out, &status->sources[i]);
        base_text_append(out, "}");
    }
    base_text_append(out, "]}\n");
}
