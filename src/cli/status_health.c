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

/* Returns the health as `eventpipe status --json` and the text show it: "ok", "degraded" or "down". */
const char *cli_status_health_name(enum status_health health)
{
    static const char *const names[] = {
        [STATUS_OK] = "ok", [STATUS_DEGRADED] = "degraded", [STATUS_DOWN] = "down"};
    return names[health];
}

/* Adds a reason to the snapshot of `eventpipe status`: something that a person should look at. An instance
 * that was ok becomes degraded. Returns 0 or EP_ENOMEM. */
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

/* Adds a reason to `eventpipe status` if this process (keeper, producer or worker) crashed and waits for
 * its restart: how often it was restarted, when it starts next, and how it ended. Returns 0 or
 * EP_ENOMEM. */
static int add_process_reason(struct status *status, const char *name, const struct status_process *process)
{
    char next_start[40];
    if (process->state != SHM_SLOT_BACKOFF)
        return EP_OK;
    cli_status_format_age(process->restart_in_ms, next_start, sizeof next_start);
    bool has_exit = process->last_exit[0] != '\0';
    return cli_status_add_reason(status,
                                 "%s crashed and was restarted %" PRIu32 " time%s, next start in %s%s%s%s",
                                 name, process->restarts, process->restarts == 1 ? "" : "s", next_start,
                                 has_exit ? " (" : "", has_exit ? process->last_exit : "",
                                 has_exit ? ")" : "");
}

/* Adds a reason to `eventpipe status` if this worker has processed one event for longer than the stage's
 * timeout, or has crashed and waits for its restart. Returns 0 or EP_ENOMEM. */
static int add_worker_reason(struct status *status, const char *stage_name, const struct status_stage *stage,
                             const struct status_process *worker)
{
    char name[3 * SHM_NAME_BYTES], since_text[40], timeout_text[40];
    snprintf(name, sizeof name, "%s: worker %" PRIu32, stage_name, worker->index);
    if (worker->event != 0 && stage->timeout_ms > 0 && worker->since_ms > stage->timeout_ms + OVERRUN_MS) {
        cli_status_format_age(worker->since_ms, since_text, sizeof since_text);
        cli_status_format_age(stage->timeout_ms, timeout_text, sizeof timeout_text);
        return cli_status_add_reason(status,
                                     "%s has been processing event %" PRIu64 " for %s; its timeout is %s",
                                     name, worker->event, since_text, timeout_text);
    }
    return add_process_reason(status, name, worker);
}

/* Adds the reasons of one stage to `eventpipe status`: crashes and timeouts of its workers, and whether it
 * is crash-looping or paused. Returns 0 or EP_ENOMEM. */
static int add_stage_reasons(struct status *status, const struct status_source *source,
                             const struct status_stage *stage)
{
    char name[2 * SHM_NAME_BYTES + 2];
    snprintf(name, sizeof name, "%s/%s", source->id, stage->name);
    size_t reason_count_before = status->reason_count;
    int code = EP_OK;
    for (uint32_t i = 0; code == EP_OK && i < stage->concurrency; i++)
        code = add_worker_reason(status, name, stage, &stage->workers[i]);
    if (code == EP_OK && stage->degraded && status->reason_count == reason_count_before)
        code = cli_status_add_reason(status, "%s: workers are crash-looping", name);
    if (code == EP_OK && stage->paused)
        code = cli_status_add_reason(status, "%s is paused (eventpipe resume %s)", name, name);
    return code;
}

/* Adds a reason to `eventpipe status` if the source does not fetch: it is paused, its backlog is full, or
 * its last fetch failed. Returns 0 or EP_ENOMEM. */
static int add_fetch_reason(struct status *status, const struct status_source *source)
{
    char next_try[60] = "";
    bool is_failing =
        source->error[0] != '\0' || strcmp(source->state, shm_source_state_name(SHM_SOURCE_BACKOFF)) == 0;
    if (source->paused)
        return cli_status_add_reason(status, "%s is paused (eventpipe resume %s)", source->id, source->id);
    if (strcmp(source->state, shm_source_state_name(SHM_SOURCE_FULL)) == 0)
        return cli_status_add_reason(status,
                                     "%s: its backlog is full (%" PRIu64
                                     " events): it fetches no more until events complete",
                                     source->id, source->live);
    if (!is_failing)
        return EP_OK;
    if (source->next_try_in_ms > 0) {
        char age[40];
        cli_status_format_age(source->next_try_in_ms, age, sizeof age);
        snprintf(next_try, sizeof next_try, ", next try in %s", age);
    }
    return cli_status_add_reason(status, "%s: %s%s", source->id,
                                 source->error[0] != '\0' ? source->error : "the last fetch failed",
                                 next_try);
}

/* Adds the reasons of one source to `eventpipe status`: its producer, its fetching, its stages, and its
 * dead events with the command that lists them. Returns 0 or EP_ENOMEM. */
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

/* Adds a reason to `eventpipe status` if the processes cannot write to the store now, for example because
 * the disk is full: the time of the first failure and the error. Returns 0 or EP_ENOMEM. */
static int add_store_reason(struct status *status)
{
    char since_text[32] = "";
    time_t failing_since = (time_t)(status->store_failing_since_ms / 1000);
    struct tm local_time;
    if (status->store_failing_since_ms == 0)
        return EP_OK;
    if (localtime_r(&failing_since, &local_time) != NULL)
        strftime(since_text, sizeof since_text, "%Y-%m-%d %H:%M:%S", &local_time);
    return cli_status_add_reason(status, "writing to the store has failed since %s: %s", since_text,
                                 status->store_error);
}

/* Sets the health of a snapshot that `eventpipe status` has read from shared memory, and the reasons for
 * it, the gravest first. Without a living supervisor the health is "down". Returns 0 or EP_ENOMEM. */
int cli_status_assess_health(struct status *status, bool is_supervisor_alive)
{
    char silence_text[40];
    int code = EP_OK;
    if (!is_supervisor_alive) {
        status->health = STATUS_DOWN;
        code = cli_status_add_reason(
            status, "the daemon (pid %d) no longer runs and did not end cleanly: this is its last state",
            (int)status->pid);
        status->pid = 0;
        return code;
    }
    if (status->heartbeat_age_ms > STATUS_SILENCE_MS) {
        cli_status_format_age(status->heartbeat_age_ms, silence_text, sizeof silence_text);
        code = cli_status_add_reason(
            status, "the supervisor (pid %d) has sent no heartbeat for %s: it hangs or is stopped",
            (int)status->pid, silence_text);
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
