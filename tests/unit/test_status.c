/* SPDX-License-Identifier: MIT */
/* status: what it makes of a segment and of a store, in text and JSON, and when it calls an instance healthy.
 */

#include "src/cli/status.h"
#include "src/cli/table.h"
#include "tests/lib/fake_segment.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <unistd.h>

static struct segment segment;
static struct status status;

static void look(void)
{
    cli_status_close(&status);
    CU_ASSERT_EQUAL_FATAL(cli_status_read_segment(&segment, &status), EP_OK);
}

static bool has_reason(const char *part)
{
    for (size_t i = 0; i < status.reason_count; i++)
        if (strstr(status.reasons[i], part) != NULL)
            return true;
    return false;
}

static void expect_degraded(const char *part)
{
    look();
    CU_ASSERT_EQUAL(status.health, STATUS_DEGRADED);
    CU_ASSERT(has_reason(part));
    if (!has_reason(part))
        printf("\n    no reason with \"%s\"; first of %zu: %s", part, status.reason_count,
               status.reason_count > 0 ? status.reasons[0] : "");
}

static void set_up(void)
{
    fake_create(&segment);
}

static void tear_down(void)
{
    cli_status_close(&status);
    fake_destroy(&segment);
}

static void test_well(void)
{
    set_up();
    look();
    CU_ASSERT_EQUAL(status.health, STATUS_OK);
    CU_ASSERT_EQUAL(status.reason_count, 0);
    CU_ASSERT_EQUAL_FATAL(status.source_count, 2);
    CU_ASSERT_EQUAL_FATAL(status.sources[0].stage_count, 2);
    CU_ASSERT_STRING_EQUAL(status.sources[0].stages[0].name, "locate");
    CU_ASSERT_EQUAL(status.sources[0].stages[0].alive_worker_count, 2);
    CU_ASSERT_STRING_EQUAL(status.sources[0].stages[0].state, "idle");
    CU_ASSERT_EQUAL(status.pid, (int32_t)getpid());
    tear_down();
}

/* Every thing that needs a person, one at a time, and the message that names it. */
static void test_reasons(void)
{
    set_up();
    struct shm_header *header = segment.header;
    struct shm_source *quakes = segment_source(&segment, 0), *web = segment_source(&segment, 1);
    struct shm_stage *locate = segment_stage(&segment, 0);
    atomic_store(&header->heartbeat_ns, 1);
    expect_degraded("the supervisor (pid ");
    atomic_store(&header->heartbeat_ns, shm_now_ns());
    atomic_store(&header->phase, SHM_PHASE_DRAINING);
    expect_degraded("the instance is draining");
    atomic_store(&header->phase, SHM_PHASE_RUNNING);
    text_set(&header->store_error, "disk full");
    atomic_store(&header->store_failing_since_ms, shm_realtime_ms());
    expect_degraded("disk full");
    atomic_store(&header->store_failing_since_ms, 0);
    text_set(&web->error, "refused: bad login");
    atomic_store(&web->state, SHM_SOURCE_BACKOFF);
    atomic_store(&web->next_try_ms, shm_realtime_ms() + 12900);
    expect_degraded("web: refused: bad login, next try in 12 s");
    text_set(&web->error, "");
    atomic_store(&web->state, SHM_SOURCE_FULL);
    expect_degraded("web: its backlog is full");
    atomic_store(&web->state, SHM_SOURCE_FETCHING);
    atomic_store(&web->next_try_ms, 0);
    atomic_store(&web->paused, 1);
    expect_degraded("web is paused (eventpipe resume web)");
    atomic_store(&web->paused, 0);
    atomic_store(&locate->paused, 1);
    expect_degraded("quakes/locate is paused");
    atomic_store(&locate->paused, 0);
    atomic_store(&locate->degraded, 1);
    expect_degraded("quakes/locate: workers are crash-looping");
    struct shm_slot *worker = fake_worker(&segment, 0, 1);
    slot_clear(worker, SHM_SLOT_BACKOFF);
    atomic_store(&worker->restarts, 5);
    atomic_store(&worker->restart_at_ns, shm_now_ns() + UINT64_C(12900000000));
    text_set(&worker->last_exit, "signal 11: ouch");
    expect_degraded(
        "quakes/locate: worker 1 crashed and was restarted 5 times, next start in 12 s (signal 11: ouch)");
    CU_ASSERT_EQUAL(status.reason_count, 1); /* the stage's own reason would say the same */
    CU_ASSERT_STRING_EQUAL(status.sources[0].stages[0].state, "degraded");
    fake_process(worker, 1, SHM_SLOT_IDLE);
    atomic_store(&locate->degraded, 0);
    fake_event(&segment, 0, 0, 7, worker, locate->first_slot + 1);
    atomic_store(&worker->since_ns,
                 shm_now_ns() > UINT64_C(40000000000) ? shm_now_ns() - UINT64_C(40000000000) : 1);
    expect_degraded("has been processing event 7 for ");
    slot_end_event(worker, shm_now_ns());
    atomic_store(&quakes->totals.dead, 2);
    atomic_store(&quakes->totals.live, 3);
    expect_degraded("quakes: 2 dead events (eventpipe queue --source quakes --state dead)");
    atomic_store(&quakes->totals.dead, 0);
    slot_clear(segment_slot(&segment, header->keeper_slot), SHM_SLOT_BACKOFF);
    expect_degraded("keeper crashed");
    fake_process(segment_slot(&segment, header->keeper_slot), 1, SHM_SLOT_IDLE);
    slot_clear(segment_slot(&segment, quakes->producer_slot), SHM_SLOT_BACKOFF);
    expect_degraded("quakes: producer crashed");
    fake_process(segment_slot(&segment, quakes->producer_slot), 1, SHM_SLOT_IDLE);
    look();
    CU_ASSERT_EQUAL(status.health, STATUS_OK); /* and each reason goes with its cause */
    tear_down();
}

static void test_counts(void)
{
    set_up();
    struct shm_source *quakes = segment_source(&segment, 0);
    struct shm_stage *locate = segment_stage(&segment, 0);
    struct shm_slot *worker = fake_worker(&segment, 0, 0);
    fake_event(&segment, 0, 0, 1, worker, locate->first_slot);
    fake_event(&segment, 0, 0, 2, NULL, 0);
    fake_event(&segment, 0, 0, 3, NULL, 0);
    fake_event(&segment, 0, 1, 4, NULL, 0);
    atomic_store(&quakes->totals.live, 20);
    atomic_store(&quakes->totals.delayed, 3);
    atomic_store(&quakes->totals.held, 2);
    atomic_store(&quakes->totals.dead, 1);
    atomic_store(&locate->totals.processed, 10);
    atomic_store(&locate->totals.crashed, 2);
    for (int i = 0; i < 100; i++)
        histogram_add(&worker->latency, i < 90 ? 100 : 100000);
    look();
    const struct status_source *source = &status.sources[0];
    CU_ASSERT_EQUAL(source->running, 1);
    CU_ASSERT_EQUAL(source->ready, 13);
    CU_ASSERT_EQUAL(source->stages[0].queued_count, 2);
    CU_ASSERT_EQUAL(source->stages[1].queued_count, 1);
    CU_ASSERT_EQUAL(source->stages[0].busy_worker_count, 1);
    CU_ASSERT_EQUAL(source->stages[0].workers[0].event, 1);
    CU_ASSERT_STRING_EQUAL(source->stages[0].state, "busy");
    CU_ASSERT(source->stages[0].p50_us >= 93 && source->stages[0].p50_us <= 107);
    CU_ASSERT(source->stages[0].p99_us >= 93000 && source->stages[0].p99_us <= 107000);
    CU_ASSERT_EQUAL(status.sources[1].running, 0);
    /* totals older than the tickets: never negative */
    atomic_store(&quakes->totals.live, 6);
    look();
    CU_ASSERT_EQUAL(status.sources[0].ready, 0);
    CU_ASSERT_EQUAL(status.sources[0].running, 0);
    atomic_store(&quakes->totals.live, 0);
    look();
    CU_ASSERT_EQUAL(status.sources[0].ready, 0);
    tear_down();
}

/* As the command line sees it: through a read-only mapping; a write to it would end the process. */
static void test_readonly(void)
{
    set_up();
    fake_event(&segment, 0, 0, 1, NULL, 0);
    struct segment reader;
    CU_ASSERT_EQUAL_FATAL(segment_attach(fake_instance, &reader), 0);
    struct status seen;
    CU_ASSERT_EQUAL(cli_status_read_segment(&reader, &seen), EP_OK);
    CU_ASSERT_EQUAL(seen.sources[0].stages[0].queued_count, 1);
    CU_ASSERT_EQUAL(seen.health, STATUS_OK);
    cli_status_close(&seen);
    /* the creator goes: down, whatever stands in the segment */
    segment_close(&segment);
    CU_ASSERT_EQUAL(cli_status_read_segment(&reader, &seen), EP_OK);
    CU_ASSERT_EQUAL(seen.health, STATUS_DOWN);
    CU_ASSERT_EQUAL(seen.pid, 0);
    cli_status_close(&seen);
    segment_close(&reader);
    CU_ASSERT_EQUAL(segment_unlink(fake_instance), 0);
}

static cJSON *as_json(void)
{
    struct text out = {0};
    cli_status_write_json(&status, &out);
    CU_ASSERT_FATAL(!out.failed && out.bytes > 2);
    CU_ASSERT_PTR_EQUAL(strchr(out.text, '\n'), out.text + out.bytes - 1); /* one line */
    CU_ASSERT(json_valid(out.text, out.bytes, NULL));
    cJSON *json = cJSON_Parse(out.text);
    base_text_free(&out);
    CU_ASSERT_PTR_NOT_NULL_FATAL(json);
    return json;
}

static void test_json(void)
{
    set_up();
    struct shm_stage *locate = segment_stage(&segment, 0);
    text_set(&segment_source(&segment, 0)->cursor, "a \"quoted\" \xff cursor");
    atomic_store(&locate->totals.processed, 10);
    atomic_store(&locate->totals.retried, 1);
    atomic_store(&locate->totals.removed, 2);
    atomic_store(&locate->totals.rejected, 3);
    atomic_store(&locate->totals.failed, 4);
    atomic_store(&locate->totals.crashed, 5);
    look();
    cJSON *json = as_json();
    CU_ASSERT_STRING_EQUAL(cJSON_GetStringValue(cJSON_GetObjectItem(json, "health")), "ok");
    const cJSON *source = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "sources"), 0);
    CU_ASSERT_STRING_EQUAL(cJSON_GetStringValue(cJSON_GetObjectItem(source, "cursor")),
                           "a \"quoted\" \xEF\xBF\xBD cursor");
    const cJSON *stage = cJSON_GetArrayItem(cJSON_GetObjectItem(source, "stages"), 0);
    CU_ASSERT_EQUAL(cJSON_GetObjectItem(stage, "answers")->valuedouble, 25);
    CU_ASSERT_EQUAL(cJSON_GetArraySize(cJSON_GetObjectItem(stage, "workers")), 2);
    cJSON_Delete(json);
    tear_down();
}

/* No line wider than asked for, whatever the numbers; no control character of anybody's. */
static void test_text(void)
{
    set_up();
    struct shm_source *quakes = segment_source(&segment, 0), *web = segment_source(&segment, 1);
    text_set(
        &web->error,
        "bad\033[31m things happened to a rather long sentence that needs more than one line of a terminal");
    text_set(
        &quakes->cursor,
        "a-cursor-that-is-much-longer-than-any-line-0123456789-0123456789-0123456789-0123456789-0123456789");
    _Atomic uint64_t *totals = &quakes->totals.fetched;
    for (size_t i = 0; i < 10; i++)
        atomic_store(totals + i, UINT64_C(123456789012) + i);
    atomic_store(&segment_stage(&segment, 0)->totals.processed, UINT64_C(987654321098));
    look();
    static const size_t widths[] = {80, 100, 120};
    for (size_t i = 0; i < 3; i++) {
        struct text out = {0};
        cli_status_write_text(&status, widths[i], false, &out);
        for (char *line = out.text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            *end = '\0';
            CU_ASSERT(cli_table_measure_text(line) <= widths[i]);
            CU_ASSERT(strchr(line, '\033') == NULL && (end == line || end[-1] != ' '));
            if (cli_table_measure_text(line) > widths[i])
                printf("\n    %zu: %s", widths[i], line);
        }
        CU_ASSERT_EQUAL(strncmp(out.text, fake_instance, strlen(fake_instance)), 0);
        CU_ASSERT_PTR_NOT_NULL(strstr(out.text, "DEGRADED"));
        base_text_free(&out);
    }
    tear_down();
}

static void test_units(void)
{
    char text[40];
    cli_status_format_latency(1234, text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, "1.2ms");
    cli_status_format_age(UINT64_C(273600000), text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, "3d 4h");
    cli_status_format_count(9999, true, text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, "9999");
    cli_status_format_count(1250000, true, text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, "1.2M");
    cli_status_format_count(999999, true, text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, "1.0M");
    cli_status_format_count(UINT64_MAX, true, text, sizeof text);
    CU_ASSERT(strlen(text) <= 5);
    cli_status_format_bytes(12 << 20, text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, "12.0 MiB");
}

UNIT_MAIN("status", {"all is well", test_well}, {"each reason to look, as text", test_reasons},
          {"counts add up and are never negative", test_counts},
          {"a reader sees it read-only, and sees the owner gone", test_readonly},
          {"JSON is one valid line", test_json}, {"text fits 80 to 120 columns", test_text},
          {"units", test_units})
