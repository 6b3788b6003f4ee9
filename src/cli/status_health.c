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

/* Adds one reason to the snapshot of `eventpipe status`: what a person should look at. An instance that was
 * ok becomes degraded. 0 or EP_ENOMEM. */
int cli_status_add_reason(struct status *status, const char *format, ...)
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

/* Adds a reason to `eventpipe status` if this process (keeper, producer or worker) crashed and waits for its
 * restart: `name crashed and was restarted 5 times, next start in 12 s (signal 11)`. */
static int add_process_reason(struct status *status, const char *name, const struct status_process *process)
{
    char next[40];
    if (process->state != SHM_SLOT_BACKOFF)
        return EP_OK;
    cli_status_format_age(process->restart_in_ms, next, sizeof next);
    bool has_exit = process->last_exit[0] != '\0';
    return cli_status_add_reason(status,
                                 "%s crashed and was restarted %" PRIu32 " time%s, next start in %s%s%s%s",
                                 name, process->restarts, process->restarts == 1 ? "" : "s", next,
                                 has_exit ? " (" : "", has_exit ? process->last_exit : "",
                                 has_exit ? ")" : "");
}

/* Adds a reason to `eventpipe status` if this worker has processed one event for longer than the stage's
 * timeout, or has crashed and waits for its restart. */
static int add_worker_reason(struct status *status, const char *stage_name, const struct status_stage *stage,
                             const struct status_process *worker)
{
    char name[3 * SHM_NAME_BYTES], since[40], limit[40];
    snprintf(name, sizeof name, "%s: worker %" PRIu32, stage_name, worker->index);
    if (worker->event != 0 && stage->timeout_ms > 0 && worker->since_ms > stage->timeout_ms + OVERRUN_MS) {
        cli_status_format_age(worker->since_ms, since, sizeof since);
        cli_status_format_age(stage->timeout_ms, limit, sizeof limit);
        return cli_status_add_reason(status,
                                     "%s has been processing event %" PRIu64 " for %s; its timeout is %s",
                                     name, worker->event, since, limit);
    }
    return add_process_reason(status, name, worker);
}

/* Adds the reasons of one stage to `eventpipe status`: its workers' crashes and timeouts, and whether it is
 * degraded or paused. */
static int add_stage_reasons(struct status *status, const struct status_source *source,
                             const struct status_stage *stage)
{
    char name[2 * SHM_NAME_BYTES + 2];
    snprintf(name, sizeof name, "%s/%s", source->id, stage->name);
    size_t before = status->reason_count;
    int code = EP_OK;
    for (uint32_t i = 0; code == EP_OK && i < stage->concurrency; i++)
        code = add_worker_reason(status, name, stage, &stage->workers[i]);
    if (code == EP_OK && stage->degraded && status->reason_count == before)
        code = cli_status_add_reason(status, "%s: workers are crash-looping", name);
    if (code == EP_OK && stage->paused)
        code = cli_status_add_reason(status, "%s is paused (eventpipe resume %s)", name, name);
    return code;
}

/* Adds a reason to `eventpipe status` if the source does not fetch: it is paused, its backlog is full, or its
 * last fetch failed. */
static int add_fetch_reason(struct status *status, const struct status_source *source)
{
    char next[60] = "";
    bool failing =
        source->error[0] != '\0' || strcmp(source->state, shm_source_state_name(SHM_SOURCE_BACKOFF)) == 0;
    if (source->paused)
        return cli_status_add_reason(status, "%s is paused (eventpipe resume %s)", source->id, source->id);
    if (strcmp(source->state, shm_source_state_name(SHM_SOURCE_FULL)) == 0)
        return cli_status_add_reason(status,
                                     "%s: its backlog is full (%" PRIu64
                                     " events): it fetches no more until events complete",
                                     source->id, source->live);
    if (!failing)
        return EP_OK;
    if (source->next_try_in_ms > 0) {
        char age[40];
        cli_status_format_age(source->next_try_in_ms, age, sizeof age);
        snprintf(next, sizeof next, ", next try in %s", age);
    }
    return cli_status_add_reason(status, "%s: %s%s", source->id,
                                 source->error[0] != '\0' ? source->error : "the last fetch failed", next);
}

/* Adds the reasons of one source to `eventpipe status`: its producer, its fetching, its stages, and its dead
 * events with the command that lists them. */
static int add_source_reasons(struct status *status, const struct status_source *source)
{
    char name[SHM_NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s: producer", source->id);
    int code = add_process_reason(status, name, &source->producer);
    if (code == EP_OK)
        code = add_fetch_reason(status, source);
    for (size_t i = 0; code == EP_OK && i < source->stage_count; i++)
        code = add_stage_reasons(status, source, &source->stages[i]);
    if (code == EP_OK && source->dead > 0)
        code =
            cli_status_add_reason(status,
                                  "%s: %" PRIu64 " dead event%s (eventpipe queue --source %s --state dead)",
                                  source->id, source->dead, source->dead == 1 ? "" : "s", source->id);
    return code;
}

/* Adds a reason to `eventpipe status` if the processes cannot write the store now (disk full, for example),
 * with the time of the first failure. */
static int add_store_reason(struct status *status)
{
    char since[32] = "";
    time_t seconds = (time_t)(status->store_failing_since_ms / 1000);
    struct tm parts;
    if (status->store_failing_since_ms == 0)
        return EP_OK;
    if (localtime_r(&seconds, &parts) != NULL)
        strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S", &parts);
    return cli_status_add_reason(status, "the store cannot be written since %s: %s", since,
                                 status->store_error);
}

/* Sets the health and the reasons of a snapshot that `eventpipe status` has read from shared memory: the
 * gravest reason first. alive: the supervisor lives; otherwise the health is "down". 0 or EP_ENOMEM. */
int cli_status_assess_health(struct status *status, bool alive)
{
    char silence[40];
    int code = EP_OK;
    if (!alive) {
        status->health = STATUS_DOWN;
        code = cli_status_add_reason(
            status, "the daemon (pid %d) no longer runs and did not end cleanly: this is its last state",
            (int)status->pid);
        status->pid = 0;
        return code;
    }
    if (status->heartbeat_age_ms > STATUS_SILENCE_MS) {
        cli_status_format_age(status->heartbeat_age_ms, silence, sizeof silence);
        code = cli_status_add_reason(
            status, "the supervisor (pid %d) has sent no heartbeat for %s: it hangs or is stopped",
            (int)status->pid, silence);
    }
    if (code == EP_OK)
        code = add_store_reason(status);
    if (code == EP_OK && strcmp(status->phase, shm_phase_name(SHM_PHASE_RUNNING)) != 0)
        code = cli_status_add_reason(status, "the instance is %s", status->phase);
    if (code == EP_OK)
        code = add_process_reason(status, "keeper", &status->keeper);
    for (size_t i = 0; code == EP_OK && i < status->source_count; i++)
        code = add_source_reasons(status, &status->sources[i]);
    return code;
}
