/* SPDX-License-Identifier: MIT */
/*
 * `eventpipe status --json`: the snapshot as one object on one line. Runs in the command line. Members are
 * only ever added; each is documented in eventpipe(1), and a test compares the two.
 */
#include <string.h>

#include "src/status.h"

/* Members begin with a comma unless they are the first of their object. */
static void key(struct json_out *out, const char *name)
{
    char last = out->bytes > 0 ? out->text[out->bytes - 1] : '{';
    json_out_words(out, last == '{' || last == '[' ? "\"" : ",\"");
    json_out_words(out, name);
    json_out_words(out, "\":");
}

static void put_uint(struct json_out *out, const char *name, uint64_t value)
{
    key(out, name);
    json_out_uint(out, value);
}

static void put_text(struct json_out *out, const char *name, const char *text)
{
    key(out, name);
    if (text == NULL)
        json_out_words(out, "null");
    else
        json_out_string(out, text, strlen(text));
}

/* Empty is null. */
static void put_words(struct json_out *out, const char *name, const char *text)
{
    put_text(out, name, text != NULL && text[0] != '\0' ? text : NULL);
}

static void put_bool(struct json_out *out, const char *name, bool value)
{
    key(out, name);
    json_out_words(out, value ? "true" : "false");
}

/* No process is null. */
static void put_pid(struct json_out *out, int32_t pid)
{
    key(out, "pid");
    if (pid > 0)
        json_out_int(out, pid);
    else
        json_out_words(out, "null");
}

static void next_in_list(struct json_out *out, size_t index)
{
    json_out_words(out, index == 0 ? "{" : ",{");
}

/* Producer and keeper. */
static void put_process(struct json_out *out, const char *name, const struct status_process *process)
{
    key(out, name);
    json_out_words(out, "{");
    put_pid(out, process->pid);
    put_text(out, "state", shm_slot_state_name(process->state));
    put_uint(out, "restarts", process->restarts);
    put_words(out, "last_death", process->last_death);
    json_out_words(out, "}");
}

static void put_worker(struct json_out *out, const struct status_process *worker)
{
    put_uint(out, "slot", worker->slot);
    put_uint(out, "worker", worker->index);
    put_pid(out, worker->pid);
    put_text(out, "state", shm_slot_state_name(worker->state));
    key(out, "event");
    if (worker->event != 0)
        json_out_uint(out, worker->event);
    else
        json_out_words(out, "null");
    put_uint(out, "since_ms", worker->since_ms);
    put_uint(out, "restarts", worker->restarts);
    put_uint(out, "restart_in_ms", worker->restart_in_ms);
    put_words(out, "last_death", worker->last_death);
}

static void put_stage(struct json_out *out, const struct status_stage *stage)
{
    put_text(out, "name", stage->name);
    put_words(out, "kind", stage->kind);
    put_text(out, "state", stage->state);
    put_bool(out, "paused", stage->paused);
    put_uint(out, "concurrency", stage->concurrency);
    put_uint(out, "busy", stage->busy);
    put_uint(out, "queue", stage->queue);
    put_uint(out, "in",
             stage->processed + stage->retried + stage->removed + stage->rejected + stage->failed +
                 stage->crashed);
    put_uint(out, "processed", stage->processed);
    put_uint(out, "retried", stage->retried);
    put_uint(out, "removed", stage->removed);
    put_uint(out, "rejected", stage->rejected);
    put_uint(out, "failed", stage->failed);
    put_uint(out, "crashed", stage->crashed);
    put_uint(out, "restarts", stage->restarts);
    key(out, "latency_us");
    json_out_words(out, "{");
    put_uint(out, "p50", stage->p50_us);
    put_uint(out, "p99", stage->p99_us);
    json_out_words(out, "}");
    key(out, "workers");
    json_out_words(out, "[");
    for (uint32_t i = 0; stage->workers != NULL && i < stage->concurrency; i++) {
        next_in_list(out, i);
        put_worker(out, &stage->workers[i]);
        json_out_words(out, "}");
    }
    json_out_words(out, "]");
}

static void put_source(struct json_out *out, const struct status_source *source)
{
    put_text(out, "id", source->id);
    put_words(out, "type", source->type);
    put_text(out, "state", source->state);
    put_bool(out, "paused", source->paused);
    put_text(out, "cursor", source->cursor);
    put_words(out, "error", source->error);
    put_uint(out, "failures", source->failures);
    put_uint(out, "next_try_in_ms", source->next_try_in_ms);
    put_uint(out, "fetched", source->fetched);
    put_uint(out, "duplicates", source->duplicates);
    put_uint(out, "injected", source->injected);
    put_uint(out, "finished", source->finished);
    put_uint(out, "removed", source->removed);
    put_uint(out, "discarded", source->discarded);
    put_uint(out, "live", source->live);
    put_uint(out, "ready", source->ready);
    put_uint(out, "running", source->running);
    put_uint(out, "delayed", source->delayed);
    put_uint(out, "held", source->held);
    put_uint(out, "dead", source->dead);
    put_uint(out, "orphaned", source->orphaned);
    put_uint(out, "oldest_s", source->oldest_s);
    put_process(out, "producer", &source->producer);
    key(out, "stages");
    json_out_words(out, "[");
    for (size_t i = 0; i < source->stage_count; i++) {
        next_in_list(out, i);
        put_stage(out, &source->stages[i]);
        json_out_words(out, "}");
    }
    json_out_words(out, "]");
}

void status_json(const struct status *status, struct json_out *out)
{
    json_out_words(out, "{");
    put_text(out, "instance", status->instance);
    put_words(out, "version", status->version);
    put_pid(out, status->pid);
    put_uint(out, "uptime_s", status->health == STATUS_DOWN ? 0 : status->uptime_s);
    put_text(out, "health", status_health_name(status->health));
    key(out, "reasons");
    json_out_words(out, "[");
    for (size_t i = 0; i < status->reason_count; i++) {
        json_out_words(out, i == 0 ? "" : ",");
        json_out_string(out, status->reasons[i], strlen(status->reasons[i]));
    }
    json_out_words(out, "]");
    put_text(out, "phase", status->phase);
    put_bool(out, "stale", status->stale);
    put_uint(out, "recoveries", status->recoveries);
    key(out, "store");
    json_out_words(out, "{");
    put_text(out, "url", status->store_url);
    put_uint(out, "bytes", status->store_bytes);
    put_uint(out, "wal_bytes", status->wal_bytes);
    put_words(out, "error", status->store_error);
    json_out_words(out, "}");
    put_process(out, "keeper", &status->keeper);
    key(out, "sources");
    json_out_words(out, "[");
    for (size_t i = 0; i < status->source_count; i++) {
        next_in_list(out, i);
        put_source(out, &status->sources[i]);
        json_out_words(out, "}");
    }
    json_out_words(out, "]}\n");
}
