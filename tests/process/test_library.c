/* SPDX-License-Identifier: MIT */
/* Whole pipelines through the public API: what becomes of events, by their stages' answers. */
#include <unistd.h>

#include "tests/lib/pipeline_fixture.h"

static void all_go_through_three_stages(void)
{
    pipeline_begin_with("memory:");
    pipeline_add_generate("gen", 3000);
    for (unsigned i = 0; i < PIPELINE_STAGES; i++)
        pipeline_push(&pipeline_passers[i], &(struct ep_stage_options){.concurrency = i + 1});
    struct ep_metrics *metrics = NULL;
    CU_ASSERT_EQUAL(ep_source_run_and_measure(pipeline.source, &metrics), EP_OK);
    CU_ASSERT_TRUE(pipeline_each_once(3000, 3));
    CU_ASSERT_STRING_EQUAL(pipeline_world->event[17].key[1], "gen/gen-17/second");
    CU_ASSERT_PTR_NOT_NULL_FATAL(metrics);
    CU_ASSERT(metrics->fetched == 3000 && metrics->completed == 3000 && metrics->removed_by_stage == 0);
    CU_ASSERT_EQUAL(metrics->worker_count, 6);
    uint64_t items[PIPELINE_STAGES] = {0};
    for (size_t i = 0; i < metrics->worker_count; i++) {
        const struct ep_worker_metrics *worker = &metrics->workers[i];
        static const unsigned stage_of[] = {0, 1, 1, 2, 2, 2}, number_in[] = {0, 0, 1, 0, 1, 2};
        CU_ASSERT_STRING_EQUAL(worker->stage, pipeline_passers[stage_of[i]].name);
        CU_ASSERT_EQUAL(worker->worker, number_in[i]);
        CU_ASSERT(worker->stage_ns <= worker->work_ns && worker->work_ns <= metrics->wall_ns);
        CU_ASSERT((worker->items == 0) == (worker->stage_ns == 0));
        items[stage_of[i]] += worker->items;
    }
    CU_ASSERT(items[0] == 3000 && items[1] == 3000 && items[2] == 3000);

    char *text = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    CU_ASSERT_EQUAL(ep_metrics_print(metrics, stream), EP_OK);
    fclose(stream);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "fetched 3000, completed 3000, removed 0"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "second "));
    free(text);
    stream = fopen("/dev/full", "w");
    setvbuf(stream, NULL, _IONBF, 0);
    CU_ASSERT_EQUAL(ep_metrics_print(metrics, stream), EP_ESYSTEM);
    fclose(stream);
    ep_metrics_free(&metrics);
    CU_ASSERT_PTR_NULL(metrics);
    ep_metrics_free(&metrics);
    pipeline_end();
}

/* The same manager again: a source goes on where it stood, and its figures begin again. */
static void a_manager_runs_again(void)
{
    pipeline_begin_with(NULL);
    pipeline_add_generate("gen", 40);
    pipeline_push(&pipeline_passers[0], NULL);
    pipeline_run();
    struct ep_metrics *metrics = NULL;
    CU_ASSERT_EQUAL(ep_source_run_and_measure(pipeline.source, &metrics), EP_OK);
    CU_ASSERT(metrics != NULL && metrics->fetched == 0 && metrics->completed == 0 &&
              metrics->workers[0].items == 0);
    ep_metrics_free(&metrics);
    CU_ASSERT_TRUE(pipeline_each_once(40, 1));
    pipeline_push(&pipeline_passers[1], NULL); /* a chain may grow between runs */
    pipeline_run();
    CU_ASSERT_TRUE(pipeline_nothing_left());
    pipeline_end();
}

/* ---- context and event */

static enum ep_answer write_context(ep_call *call, void *state)
{
    (void)state;
    unsigned number = pipeline_note_call(call, 0);
    EXPECT(strcmp(ep_call_context_text(call, NULL), "{}") == 0);
    cJSON *context = ep_call_context(call);
    EXPECT(context != NULL);
    cJSON_AddNumberToObject(context, "number", number);
    cJSON_AddItemToObject(context, "big", cJSON_CreateRaw("9007199254740993"));
    return EP_PROCESSED;
}

static enum ep_answer change_context(ep_call *call, void *state)
{
    (void)state;
    unsigned number = pipeline_note_call(call, 1);
    cJSON *context = ep_call_context(call);
    EXPECT(cJSON_GetNumberValue(cJSON_GetObjectItem(context, "number")) == number);
    if (number % 2 == 0)
        cJSON_AddStringToObject(context, "even", "\xc3\xa4\xe2\x82\xac\n");
    else if (number == 3)
        EXPECT(ep_call_set_context(call, "{\"all\": \"new\"}") == EP_OK);
    else if (number == 5)
        EXPECT(ep_call_set_context(call, "[1]") == EP_EINVAL &&
               ep_call_set_event(call, "rubbish") == EP_EINVAL);
    else if (number == 7)
        EXPECT(ep_call_set_event(call, "{\"uid\":\"gen-7\",\"id\":18446744073709551615}") == EP_OK);
    return EP_PROCESSED;
}

static enum ep_answer note_context(ep_call *call, void *state)
{
    (void)state;
    unsigned number = pipeline_note_call(call, 2);
    size_t bytes;
    const char *context = ep_call_context_text(call, &bytes), *event = ep_call_event_text(call, NULL);
    EXPECT(strlen(context) == bytes);
    char expected[100];
    snprintf(expected, sizeof expected, "{\"number\":%u,\"big\":9007199254740993%s}", number,
             number % 2 == 0 ? ",\"even\":\"\xc3\xa4\xe2\x82\xac\\n\"" : "");
    EXPECT(strcmp(context, number == 3 ? "{\"all\": \"new\"}" : expected) == 0);
    EXPECT((strstr(event, "\"id\":18446744073709551615}") != NULL) == (number == 7));
    snprintf(expected, sizeof expected, "gen-%u", number);
    EXPECT(strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(ep_call_event(call), "uid")), expected) == 0);
    if (number != 8)
        return EP_PROCESSED;
    ep_call_set_reason(call, "%s is %u", "number", number);
    return EP_REJECT;
}

static void context_and_event_pass_from_stage_to_stage(void)
{
    static const struct ep_stage stages[] = {
        {.abi = EP_STAGE_ABI, .name = "writes", .process = write_context},
        {.abi = EP_STAGE_ABI, .name = "changes", .process = change_context},
        {.abi = EP_STAGE_ABI, .name = "sees", .process = note_context}};
    pipeline_begin_with(NULL);
    pipeline_add_generate("gen", 50);
    for (unsigned i = 0; i < 3; i++)
        pipeline_push(&stages[i], &(struct ep_stage_options){.concurrency = 2});
    pipeline_run();
    CU_ASSERT_TRUE(pipeline_each_once(50, 3));
    struct pipeline_left left = pipeline_what_is_left(); /* the dead one, with all that it had */
    CU_ASSERT(left.dead == 1 && left.ready + left.delayed + left.other == 0);
    CU_ASSERT_STRING_EQUAL(left.uid, "gen-8");
    CU_ASSERT_STRING_EQUAL(left.error, "number is 8");
    CU_ASSERT_STRING_EQUAL(left.context,
                           "{\"number\":8,\"big\":9007199254740993,\"even\":\"\xc3\xa4\xe2\x82\xac\\n\"}");
    pipeline_end();
}

/* ---- answers */

static enum ep_answer answer_all(ep_call *call, void *state)
{
    EXPECT(state == (void *)pipeline_world); /* options.user */
    unsigned number = pipeline_note_call(call, 0), attempt = ep_call_attempt(call);
    switch (number % 10) {
    case 1:
        ep_call_set_retry_after(call, 20);
        return attempt < 3 ? EP_NOT_PROCESSED : EP_PROCESSED;
    case 2:
        return EP_REMOVE;
    case 3:
        return EP_REJECT;
    case 4:
        ep_call_set_reason(call, "attempt %u failed", attempt);
        return EP_ERROR; /* by the stage's own backoff, up to max_attempts */
    case 5:
        return attempt == 1 ? (enum ep_answer)77 : EP_PROCESSED;
    case 6: /* what a stage wants to keep is kept whatever it answers */
        cJSON_AddBoolToObject(ep_call_context(call), "seen", 1);
        EXPECT((attempt == 1) == (strcmp(ep_call_context_text(call, NULL), "{}") == 0));
        return attempt == 1 ? EP_NOT_PROCESSED : EP_PROCESSED;
    default:
        return EP_PROCESSED;
    }
}

static void answers(void)
{
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "answers", .process = answer_all};
    pipeline_begin_with(NULL);
    pipeline_add_generate("gen", 30);
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 2,
                                                     .max_attempts = 4,
                                                     .retry_min_ms = 5,
                                                     .retry_max_ms = 20,
                                                     .user = pipeline_world});
    pipeline_push(&pipeline_passers[1], NULL);
    struct ep_metrics *metrics = NULL;
    CU_ASSERT_EQUAL_FATAL(ep_source_run_and_measure(pipeline.source, &metrics), EP_OK);
    CU_ASSERT(metrics->fetched == 30 && metrics->removed_by_stage == 3 && metrics->completed == 21);
    ep_metrics_free(&metrics);
    for (unsigned number = 1; number <= 30; number++) {
        static const unsigned calls[] = {1, 3, 1, 1, 4, 2, 2, 1, 1, 1},
                              through[] = {1, 1, 0, 0, 0, 1, 1, 1, 1, 1};
        const struct pipeline_event *event = &pipeline_world->event[number];
        CU_ASSERT_EQUAL(event->calls[0], calls[number % 10]);
        CU_ASSERT_EQUAL(event->attempts[0], calls[number % 10]); /* counted from 1, without a gap */
        CU_ASSERT_EQUAL(event->calls[1], through[number % 10]);
        CU_ASSERT_EQUAL(event->attempts[1], through[number % 10]); /* again at each stage */
        CU_ASSERT_EQUAL(event->other_keys, 0);
    }
    struct pipeline_left left = pipeline_what_is_left();
    CU_ASSERT(left.dead == 6 && left.ready + left.delayed + left.other == 0);
    CU_ASSERT_STRING_EQUAL(left.uid, "gen-24");
    CU_ASSERT_EQUAL(left.one.reason, STORE_REASON_EXHAUSTED);
    CU_ASSERT_STRING_EQUAL(left.error, "attempt 4 failed");
    pipeline_run(); /* the dead stay dead */
    CU_ASSERT_EQUAL(pipeline_what_is_left().dead, 6);
    CU_ASSERT(pipeline_world->event[3].calls[0] == 1 && pipeline_world->event[4].calls[0] == 4);
    pipeline_end();
}

static enum ep_answer much_later(ep_call *call, void *state)
{
    (void)state;
    unsigned number = pipeline_note_call(call, 0);
    if (number == 6 && ep_call_attempt(call) == 2)
        return pipeline_pass(call, 1); /* whatever was due before has had its turn */
    ep_call_set_retry_after(call, number == 6 ? 100 : UINT64_MAX);
    return EP_NOT_PROCESSED;
}

static void *stop_when_done(void *user)
{
    bool in_time = UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->done[1]) == 1);
    ep_manager_stop(pipeline.manager);
    return in_time ? user : NULL;
}

/* A time beyond all calendars is a time, not an overflow that makes the event due at once. */
static void later_than_time_goes(void)
{
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "later", .process = much_later};
    pipeline_begin_with(NULL);
    pipeline_add_generate("gen", 6);
    pipeline_push(&stage, NULL);
    pthread_t thread;
    void *in_time;
    pipeline_thread_beside(&thread, stop_when_done, pipeline_world);
    pipeline_run();
    pthread_join(thread, &in_time);
    CU_ASSERT_PTR_NOT_NULL(in_time);
    CU_ASSERT_TRUE(pipeline_each_once(5, 1));
    struct pipeline_left left = pipeline_what_is_left();
    CU_ASSERT(left.delayed == 5 && left.ready + left.dead + left.other == 0);
    pipeline_end();
}

/* ---- what stages print */

static enum ep_answer print(ep_call *call, void *state)
{
    (void)state;
    printf("event %u\n", pipeline_note_call(call, 0));
    return EP_PROCESSED;
}

/* A caller's stdout, and what its stages print there: all of it, once. */
static void output_is_written_once(void)
{
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "prints", .process = print};
    pipeline_begin_with("memory:");
    pipeline_add_generate("gen", 20);
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 2});
    fflush(stdout);
    int mine = dup(STDOUT_FILENO);
    FILE *file = tmpfile();
    CU_ASSERT_FATAL(mine >= 0 && file != NULL);
    dup2(fileno(file), STDOUT_FILENO);
    static char buffer[BUFSIZ]; /* CUnit leaves stdout without one */
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    printf("before\n");
    pipeline_run();
    printf("after\n");
    fflush(stdout);
    setvbuf(stdout, NULL, _IONBF, 0);
    dup2(mine, STDOUT_FILENO);
    close(mine);
    char line[64];
    unsigned before = 0, after = 0, lines = 0, seen[21] = {0}, number;
    lseek(fileno(file), 0, SEEK_SET);
    while (fgets(line, sizeof line, file) != NULL) {
        lines++;
        before += strcmp(line, "before\n") == 0;
        after += strcmp(line, "after\n") == 0;
        if (sscanf(line, "event %u\n", &number) == 1 && number <= 20)
            seen[number]++;
    }
    fclose(file);
    CU_ASSERT(before == 1 && after == 1 && lines == 22);
    for (number = 1; number <= 20; number++)
        CU_ASSERT_EQUAL(seen[number], 1);
    pipeline_end();
}

UNIT_MAIN("library", {"all go through three stages", all_go_through_three_stages},
          {"a manager runs again", a_manager_runs_again},
          {"context and event pass from stage to stage", context_and_event_pass_from_stage_to_stage},
          {"answers", answers}, {"later than time goes", later_than_time_goes},
          {"output is written once", output_is_written_once})
