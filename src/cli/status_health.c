/* SPDX-License-Identifier: MIT */
/*
 * The health of an instance and the reasons for it: one reason for each thing that needs a person, the
 * gravest first. Runs in the command line. Pure: reads only the snapshot.
 *
 *   down      the daemon does not run
 *   degraded  it runs, and there is a reason: no heartbeat of the supervisor, the instance is starting
 *             or ending, the store cannot be written, a source or process backs off, something is
 *             paused, a backlog is full, an event has exceeded its timeout, events are dead
 *   ok        none of these
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/cli/status.h"

#define REASON_BYTES 1024
/* The supervisor ends a worker at its timeout; an event this much past it needs a person. */
#define OVERRUN_MS 2000

const char *cli_status_health_name(enum status_health health)
{
    static const char *const names[] = {
        [STATUS_OK] = "ok", [STATUS_DEGRADED] = "degraded", [STATUS_DOWN] = "down"};
    return names[health];
}

int cli_status_reason(struct status *status, const char *format, ...)
{
    char message[REASON_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    char **reasons = reallocarray(status->reasons, status->reason_count + 1, sizeof *reasons);
    if (reasons == NULL)
        return EP_ENOMEM;
    status->reasons = reasons;
    reasons[status->reason_count] = strdup(message);
    if (reasons[status->reason_count] == NULL)
        return EP_ENOMEM;
    status->reason_count++;
    if (status->health == STATUS_OK)
        status->health = STATUS_DEGRADED;
    return EP_OK;
}

/* `name crashed 5 times, next start in 12 s (signal 11)`. */
static int classify_process(struct status *status, const char *name, const struct status_process *process)
{
    char next[40];
    if (process->state != SHM_SLOT_BACKOFF)
        return EP_OK;
    cli_status_age_text(process->restart_in_ms, next, sizeof next);
    bool has_exit = process->last_exit[0] != '\0';
    return cli_status_reason(status,
                             "%s crashed and was restarted %" PRIu32 " time%s, next start in %s%s%s%s", name,
                             process->restarts, process->restarts == 1 ? "" : "s", next, has_exit ? " (" : "",
                             has_exit ? process->last_exit : "", has_exit ? ")" : "");
}

static int classify_worker(struct status *status, const char *stage_name, const struct status_stage *stage,
                           const struct status_process *worker)
{
    char name[3 * SHM_NAME_BYTES], since[40], limit[40];
    snprintf(name, sizeof name, "%s: worker %" PRIu32, stage_name, worker->index);
    if (worker->event != 0 && stage->timeout_ms > 0 && worker->since_ms > stage->timeout_ms + OVERRUN_MS) {
        cli_status_age_text(worker->since_ms, since, sizeof since);
        cli_status_age_text(stage->timeout_ms, limit, sizeof limit);
        return cli_status_reason(status, "%s has been processing event %" PRIu64 " for %s; its timeout is %s",
                                 name, worker->event, since, limit);
    }
    return classify_process(status, name, worker);
}

static int classify_stage(struct status *status, const struct status_source *source,
                          const struct status_stage *stage)
{
    char name[2 * SHM_NAME_BYTES + 2];
    snprintf(name, sizeof name, "%s/%s", source->id, stage->name);
    size_t before = status->reason_count;
    int code = EP_OK;
    for (uint32_t i = 0; code == EP_OK && i < stage->concurrency; i++)
        code = classify_worker(status, name, stage, &stage->workers[i]);
    if (code == EP_OK && stage->degraded && status->reason_count == before)
        code = cli_status_reason(status, "%s: workers are crash-looping", name);
    if (code == EP_OK && stage->paused)
        code = cli_status_reason(status, "%s is paused (eventpipe resume %s)", name, name);
    return code;
}

/* Why the source does not fetch. */
static int classify_fetching(struct status *status, const struct status_source *source)
{
    char next[60] = "";
    bool failing =
        source->error[0] != '\0' || strcmp(source->state, shm_source_state_name(SHM_SOURCE_BACKOFF)) == 0;
    if (source->paused)
        return cli_status_reason(status, "%s is paused (eventpipe resume %s)", source->id, source->id);
    if (strcmp(source->state, shm_source_state_name(SHM_SOURCE_FULL)) == 0)
        return cli_status_reason(status, "%s: its backlog is full (%" PRIu64 " events), fetching waits",
                                 source->id, source->live);
    if (!failing)
        return EP_OK;
    if (source->next_try_in_ms > 0) {
        char age[40];
        cli_status_age_text(source->next_try_in_ms, age, sizeof age);
        snprintf(next, sizeof next, ", next try in %s", age);
    }
    return cli_status_reason(status, "%s: %s%s", source->id,
                             source->error[0] != '\0' ? source->error : "the last fetch failed", next);
}

static int classify_source(struct status *status, const struct status_source *source)
{
    char name[SHM_NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s: producer", source->id);
    int code = classify_process(status, name, &source->producer);
    if (code == EP_OK)
        code = classify_fetching(status, source);
    for (size_t i = 0; code == EP_OK && i < source->stage_count; i++)
        code = classify_stage(status, source, &source->stages[i]);
    if (code == EP_OK && source->dead > 0)
        code = cli_status_reason(status,
                                 "%s: %" PRIu64 " dead event%s (eventpipe queue --source %s --state dead)",
                                 source->id, source->dead, source->dead == 1 ? "" : "s", source->id);
    return code;
}

static int classify_store(struct status *status)
{
    char since[32] = "";
    time_t seconds = (time_t)(status->store_failing_since_ms / 1000);
    struct tm parts;
    if (status->store_failing_since_ms == 0)
        return EP_OK;
    if (localtime_r(&seconds, &parts) != NULL)
        strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S", &parts);
    return cli_status_reason(status, "the store cannot be written since %s: %s", since, status->store_error);
}

int cli_status_classify(struct status *status, bool alive)
{
    char silence[40];
    int code = EP_OK;
    if (!alive) {
        status->health = STATUS_DOWN;
        code =
            cli_status_reason(status,
                              "the daemon (pid %d) is gone, and did not end cleanly: this is its last state",
                              (int)status->pid);
        status->pid = 0;
        return code;
    }
    if (status->heartbeat_age_ms > STATUS_SILENCE_MS) {
        cli_status_age_text(status->heartbeat_age_ms, silence, sizeof silence);
        code = cli_status_reason(status, "the supervisor (pid %d) has not been heard of for %s",
                                 (int)status->pid, silence);
    }
    if (code == EP_OK)
        code = classify_store(status);
    if (code == EP_OK && strcmp(status->phase, shm_phase_name(SHM_PHASE_RUNNING)) != 0)
        code = cli_status_reason(status, "the instance is %s", status->phase);
    if (code == EP_OK)
        code = classify_process(status, "keeper", &status->keeper);
    for (size_t i = 0; code == EP_OK && i < status->source_count; i++)
        code = classify_source(status, &status->sources[i]);
    return code;
}
