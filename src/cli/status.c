/* SPDX-License-Identifier: MIT */
/*
 * Reads the state of a running instance from its segment. Runs in the command line, on a read-only
 * mapping: it takes no lock, needs no answer, and works while the supervisor hangs. Each value is read
 * once and is right by itself, but the values are not all of one instant. This file therefore computes
 * the sums itself and keeps them from becoming negative.
 *
 *   running  tickets that a worker or the producer has (RUNNING, LOADING)
 *   ready    all other events that are not delayed, held or dead, in the store or in a stage's ring
 */
#include "src/cli/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/counter.h"
#include "shm/slot.h"
#include "shm/ticket.h"

#define NS_PER_MS UINT64_C(1000000)
#define LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)

static uint64_t elapsed_ms(uint64_t now_ns, uint64_t then_ns)
{
    return then_ns != 0 && now_ns > then_ns ? (now_ns - then_ns) / NS_PER_MS : 0;
}

/* Returns whether the process is stopped (SIGSTOP) and still a child of `parent`; with another parent the
 * pid is reused by another process. `eventpipe check` asks this about the keeper, for which it would
 * otherwise wait in vain. */
bool cli_status_is_process_stopped(int32_t pid, int32_t parent)
{
    char path[40], line[512], state = '?';
    int actual_parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = pid > 0 ? fopen(path, "re") : NULL;
    if (file == NULL)
        return false;
    const char *name_end = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
    fclose(file);
    return name_end != NULL && sscanf(name_end + 1, " %c %d", &state, &actual_parent) == 2 && state == 'T' &&
           actual_parent == parent;
}

/* Copies the state of one process (keeper, producer or worker) into the snapshot of `eventpipe status`.
 * Each process has one slot in shared memory, in which it and the supervisor record this state. */
static void read_process_slot(const struct shm_slot *slot, uint32_t slot_number, uint64_t now_ns,
                              struct status_process *out)
{
    uint64_t restart_ns = LOAD(slot->restart_at_ns);
    int64_t event = LOAD(slot->event);
    *out = (struct status_process){
        .slot = slot_number,
        .kind = slot->kind,
        .index = slot->index,
        .pid = LOAD(slot->pid),
        .state = LOAD(slot->state),
        .restarts = LOAD(slot->restarts),
        .since_ms = elapsed_ms(now_ns, LOAD(slot->since_ns)),
        .calls = LOAD(slot->calls),
    };
    out->event = event != 0 ? store_event_number(event) : 0;
    if (out->state == SHM_SLOT_BACKOFF && restart_ns > now_ns)
        out->restart_in_ms = (restart_ns - now_ns) / NS_PER_MS;
    text_get(&slot->last_exit, out->last_exit, sizeof out->last_exit);
}

static bool is_alive(uint32_t state)
{
    return state != SHM_SLOT_EMPTY && state != SHM_SLOT_BACKOFF;
}

/* Returns the one word that `eventpipe status` shows for the state of a stage: "paused" or "degraded", else
 * the most important state among its workers, or "down" if it has none. */
static const char *choose_stage_state(const struct status_stage *stage)
{
    static const uint32_t states_by_importance[] = {SHM_SLOT_WAITING,  SHM_SLOT_BUSY,     SHM_SLOT_COMMITTING,
                                                    SHM_SLOT_BLOCKED,  SHM_SLOT_STOPPING, SHM_SLOT_IDLE,
                                                    SHM_SLOT_STARTING, SHM_SLOT_PAUSED,   SHM_SLOT_BACKOFF};
    if (stage->paused)
        return "paused";
    if (stage->degraded)
        return "degraded";
    for (size_t i = 0; i < sizeof states_by_importance / sizeof states_by_importance[0]; i++)
        for (uint32_t j = 0; j < stage->concurrency; j++)
            if (stage->workers[j].state == states_by_importance[i])
                return states_by_importance[i] == SHM_SLOT_COMMITTING
                           ? "busy"
                           : shm_slot_state_name(states_by_importance[i]);
    return "down";
}

/* Copies a stage from shared memory into the snapshot of `eventpipe status`: its totals, its workers, and
 * the latency of all workers together. Returns 0 or EP_ENOMEM. */
static int read_segment_stage(const struct segment *segment, const struct shm_stage *stage, uint64_t now_ns,
                              struct status_stage *out)
{
    const struct shm_stage_totals *totals = &stage->totals;
    memcpy(out->name, stage->name, sizeof out->name);
    memcpy(out->type, stage->type, sizeof out->type);
    out->timeout_ms = stage->timeout_ms;
    out->paused = LOAD(stage->paused) != 0;
    out->degraded = LOAD(stage->degraded) != 0;
    out->processed = LOAD(totals->processed);
    out->retried = LOAD(totals->retried);
    out->removed = LOAD(totals->removed);
    out->rejected = LOAD(totals->rejected);
    out->failed = LOAD(totals->failed);
    out->crashed = LOAD(totals->crashed);
    out->concurrency = stage->concurrency;
    out->workers = calloc(stage->concurrency + 1, sizeof *out->workers);
    if (out->workers == NULL) {
        out->concurrency = 0;
        return EP_ENOMEM;
    }
    uint64_t latency_sums[SHM_HISTOGRAM_BUCKETS] = {0};
    for (uint32_t i = 0; i < stage->concurrency; i++) {
        const struct shm_slot *slot = segment_slot(segment, stage->first_slot + i);
        struct status_process *worker = &out->workers[i];
        read_process_slot(slot, stage->first_slot + i, now_ns, worker);
        histogram_merge(latency_sums, &slot->latency);
        out->restarts += worker->restarts;
        out->alive_worker_count += is_alive(worker->state);
        out->busy_worker_count += worker->state == SHM_SLOT_BUSY || worker->state == SHM_SLOT_COMMITTING;
    }
    out->p50_us = histogram_quantile(latency_sums, 500);
    out->p99_us = histogram_quantile(latency_sums, 990);
    out->state = choose_stage_state(out);
    return EP_OK;
}

/* Counts for `eventpipe status` where the events are that a source has given to its processes: waiting in a
 * stage's ring, running in a process, or orphaned by one that crashed. Each such event has a ticket in
 * shared memory, which says where it is. */
static void count_events_in_flight(const struct segment *segment, const struct shm_source *source,
                                   struct status_source *out)
{
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        struct ticket_view ticket = ticket_read(segment, source->first_ticket + i);
        if (ticket.phase == TICKET_QUEUED && ticket.stage < out->stage_count)
            out->stages[ticket.stage].queued_count++;
        out->running += ticket.phase == TICKET_RUNNING || ticket.phase == TICKET_LOADING;
        out->orphaned += ticket.phase == TICKET_ORPHANED;
    }
}

/* Copies a source's totals, which the keeper refreshes in shared memory, and computes how many events are
 * ready, for `eventpipe status`. The totals are a little older than the count of running events, which is
 * therefore limited so that no count becomes negative. */
static void read_source_totals(const struct shm_source *source, struct status_source *out)
{
    const struct shm_source_totals *totals = &source->totals;
    uint64_t now_ms = shm_realtime_ms(), oldest_ms = LOAD(totals->oldest_ms);
    out->fetched = LOAD(totals->fetched);
    out->duplicates = LOAD(totals->duplicates);
    out->injected = LOAD(totals->injected);
    out->completed = LOAD(totals->completed);
    out->removed_by_stage = LOAD(totals->removed_by_stage);
    out->removed_by_operator = LOAD(totals->removed_by_operator);
    out->delayed = LOAD(totals->delayed);
    out->held = LOAD(totals->held);
    out->dead = LOAD(totals->dead);
    out->live = LOAD(totals->live);
    out->oldest_s = oldest_ms != 0 && now_ms > oldest_ms ? (now_ms - oldest_ms) / 1000 : 0;
    uint64_t inactive_count = out->delayed + out->held + out->dead;
    uint64_t active_count = out->live > inactive_count ? out->live - inactive_count : 0;
    if (out->running > active_count) /* the totals are a little older than the tickets */
        out->running = active_count;
    out->ready = active_count - out->running;
}

/* Copies a source from shared memory into the snapshot of `eventpipe status`: its state, cursor, last
 * error, producer, stages and totals. Returns 0 or EP_ENOMEM. */
static int read_segment_source(const struct segment *segment, const struct shm_source *source,
                               uint64_t now_ns, struct status_source *out)
{
    uint64_t now_ms = shm_realtime_ms(), next_ms = LOAD(source->next_try_ms);
    char cursor[SHM_TEXT_BYTES];
    memcpy(out->id, source->id, sizeof out->id);
    memcpy(out->type, source->type, sizeof out->type);
    out->paused = LOAD(source->paused) != 0;
    out->state = out->paused ? "paused" : shm_source_state_name(LOAD(source->state));
    out->failures = LOAD(source->failures);
    out->next_try_in_ms = next_ms > now_ms ? next_ms - now_ms : 0;
    text_get(&source->error, out->error, sizeof out->error);
    text_get(&source->cursor, cursor, sizeof cursor);
    out->cursor = cursor[0] != '\0' ? strdup(cursor) : NULL;
    read_process_slot(segment_slot(segment, source->producer_slot), source->producer_slot, now_ns,
                      &out->producer);
    out->stages = calloc(source->stage_count + 1, sizeof *out->stages);
    if (out->stages == NULL)
        return EP_ENOMEM;
    int code = EP_OK;
    for (uint32_t i = 0; code == EP_OK && i < source->stage_count; i++) {
        code = read_segment_stage(segment, segment_stage(segment, source->first_stage + i), now_ns,
                                  &out->stages[i]);
        out->stage_count = i + 1;
    }
    count_events_in_flight(segment, source, out);
    read_source_totals(source, out);
    return code;
}

/* Reads the state of an instance from its shared memory for `eventpipe status`, and assesses its health.
 * Takes no lock and asks no process, so it works while the daemon hangs. Returns 0 or EP_ENOMEM; the caller
 * closes *out with cli_status_close in both cases. */
int cli_status_read_segment(const struct segment *segment, struct status *out)
{
    const struct shm_header *header = segment->header;
    uint64_t now_ns = shm_now_ns();
    *out = (struct status){.pid = header->supervisor_pid};
    memcpy(out->instance, header->instance, sizeof out->instance);
    memcpy(out->version, header->version, sizeof out->version);
    memcpy(out->store_url, header->store_url, sizeof out->store_url);
    out->uptime_s = elapsed_ms(now_ns, header->started_ns) / 1000;
    out->heartbeat_age_ms = elapsed_ms(now_ns, LOAD(header->heartbeat_ns));
    out->phase = shm_phase_name(LOAD(header->phase));
    out->recoveries = LOAD(header->recoveries);
    out->stale = LOAD(header->activity) != 0;
    out->store_bytes = LOAD(header->store_bytes);
    out->wal_bytes = LOAD(header->wal_bytes);
    out->store_failing_since_ms = LOAD(header->store_failing_since_ms);
    if (out->store_failing_since_ms != 0)
        text_get(&header->store_error, out->store_error, sizeof out->store_error);
    read_process_slot(segment_slot(segment, header->keeper_slot), header->keeper_slot, now_ns, &out->keeper);
    out->sources = calloc(header->source_count + 1, sizeof *out->sources);
    if (out->sources == NULL)
        return EP_ENOMEM;
    int code = EP_OK;
    for (uint32_t i = 0; code == EP_OK && i < header->source_count; i++) {
        out->source_count = i + 1;
        code = read_segment_source(segment, segment_source(segment, i), now_ns, &out->sources[i]);
    }
    return code == EP_OK ? cli_status_assess_health(out, segment_owner_lives(segment)) : code;
}

/* Frees a snapshot of an instance and sets it to zeros. `eventpipe status` calls it after it has printed
 * the snapshot. */
void cli_status_close(struct status *status)
{
    for (size_t i = 0; i < status->source_count; i++) {
        struct status_source *source = &status->sources[i];
        for (size_t j = 0; j < source->stage_count; j++)
            free(source->stages[j].workers);
        free(source->stages);
        free(source->cursor);
    }
    free(status->sources);
    for (size_t i = 0; i < status->reason_count; i++)
        free(status->reasons[i]);
    free(status->reasons);
    *status = (struct status){0};
}
