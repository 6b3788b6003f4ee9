/* SPDX-License-Identifier: MIT */
/* Stages that crash, hang, or cannot begin: what it costs, and whom. */
#include <signal.h>
#include <unistd.h>

#include "tests/lib/pipeline_fixture.h"

/* ---- crashes */

static enum ep_answer crash_at_some(ep_call *call, void *state)
{
    (void)state;
    unsigned number = pipeline_note_call(call, 0);
    if (number == 5) {
        fprintf(stderr, "it was %s\n", ep_call_uid(call));
        signal(SIGSEGV, SIG_DFL); /* not a sanitizer's */
        raise(SIGSEGV);
    }
    if (number == 9)
        _exit(3);
    if (number == 13 && ep_call_attempt(call) == 1)
        raise(SIGKILL);
    atomic_fetch_add(&pipeline_world->done[0], 1);
    return EP_PROCESSED;
}

static void only_the_event_being_processed_is_blamed(void)
{
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "crashes", .process = crash_at_some};
    pipeline_begin_with(NULL);
    pipeline_add_generate("gen", 200);
    pipeline_push(&stage, &(struct ep_stage_options){
                              .concurrency = 2, .max_crashes = 2, .retry_min_ms = 1, .retry_max_ms = 5});
    pipeline_push(&pipeline_passers[1], NULL);
    pipeline_run();
    for (unsigned number = 1; number <= 200; number++) {
        bool crashes = number == 5 || number == 9;
        CU_ASSERT_EQUAL(pipeline_world->event[number].calls[1], crashes ? 0 : 1);
        if (crashes || number == 13) {
            CU_ASSERT_EQUAL(pipeline_world->event[number].calls[0], 2);
            CU_ASSERT_EQUAL(pipeline_world->event[number].attempts[0], 2);
            CU_ASSERT_EQUAL(pipeline_world->event[number].other_keys, 0);
        } else { /* once, or again where it was in the crashed one's last batch: but without blame */
            CU_ASSERT_EQUAL(pipeline_world->event[number].attempts[0], 1);
        }
    }
    struct pipeline_left left = pipeline_what_is_left();
    CU_ASSERT(left.dead == 2 && left.ready + left.delayed + left.other == 0);
    CU_ASSERT(left.one.reason == STORE_REASON_CRASHED && left.one.crashes == 2);
    CU_ASSERT_STRING_EQUAL(left.uid, "gen-9");
    CU_ASSERT_STRING_EQUAL(left.error, "exit code 3");
    CU_ASSERT_TRUE(pipeline_log_has("signal 11 (Segmentation fault); last stderr output: it was gen-5"));
    pipeline_end();
}

/* ---- a call that takes too long */

static enum ep_answer hang_at_some(ep_call *call, void *state)
{
    (void)state;
    unsigned number = pipeline_note_call(call, 0);
    while (number == 4 || (number == 6 && ep_call_attempt(call) == 1))
        pause();
    return EP_PROCESSED;
}

static void a_call_that_hangs_is_ended(void)
{
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "hangs", .process = hang_at_some};
    pipeline_begin_with(NULL);
    pipeline_add_generate("gen", 30);
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 2,
                                                     .timeout_ms = 100,
                                                     .max_attempts = 2,
                                                     .retry_min_ms = 1,
                                                     .retry_max_ms = 5});
    pipeline_push(&pipeline_passers[1], NULL);
    uint64_t begin_ms = until_clock_ms();
    pipeline_run();
    CU_ASSERT(until_clock_ms() - begin_ms >= 200);
    for (unsigned number = 1; number <= 30; number++) {
        CU_ASSERT_EQUAL(pipeline_world->event[number].calls[1], number == 4 ? 0 : 1);
        CU_ASSERT_EQUAL(pipeline_world->event[number].attempts[0], number == 4 || number == 6 ? 2 : 1);
    }
    struct pipeline_left left = pipeline_what_is_left();
    CU_ASSERT(left.dead == 1 && left.ready + left.delayed + left.other == 0);
    CU_ASSERT(left.one.reason == STORE_REASON_EXHAUSTED && left.one.crashes == 0 && left.one.attempts == 2);
    CU_ASSERT_STRING_EQUAL(left.uid, "gen-4");
    CU_ASSERT_STRING_EQUAL(left.error, "timed out after 100ms");
    pipeline_end();
}

/* ---- init and fini */

static int count_init(const char *options, void **state, char *errbuf, size_t errbuf_size)
{
    (void)errbuf, (void)errbuf_size;
    EXPECT(strcmp(options, "{\"a\": [1, 2]}") == 0);
    atomic_fetch_add(&pipeline_world->inits, 1);
    *state = malloc(1);
    return 0;
}

static void *last_state; /* of this process */

static enum ep_answer count_call(ep_call *call, void *state)
{
    EXPECT(state != NULL && (last_state == NULL || last_state == state));
    last_state = state;
    return pipeline_pass(call, 0);
}

static void count_fini(void *state)
{
    EXPECT(last_state == NULL || last_state == state);
    free(state);
    atomic_fetch_add(&pipeline_world->finis, 1);
}

static void init_and_fini_once_in_each_worker(void)
{
    static const struct ep_stage stage = {
        .abi = EP_STAGE_ABI, .name = "counts", .init = count_init, .process = count_call, .fini = count_fini};
    pipeline_begin_with("memory:");
    pipeline_add_generate("gen", 500);
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 3, .options = "{\"a\": [1, 2]}"});
    pipeline_run();
    CU_ASSERT_TRUE(pipeline_each_once(500, 1));
    CU_ASSERT(pipeline_world->inits == 3 && pipeline_world->finis == 3);
    pipeline_end();
}

static int failing_init(const char *options, void **state, char *errbuf, size_t errbuf_size)
{
    EXPECT(strcmp(options, "{}") == 0);
    *state = NULL;
    switch (atomic_fetch_add(&pipeline_world->inits, 1)) {
    case 0:
        snprintf(errbuf, errbuf_size, "the table is not there");
        return 17;
    case 1:
        abort();
    default:
        return 0;
    }
}

static void an_init_that_fails_is_shown_and_tried_again(void)
{
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI,
                                          .name = "fails",
                                          .init = failing_init,
                                          .process = pipeline_pass_0};
    pipeline_begin_with(NULL);
    pipeline_add_generate("gen", 20);
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 1});
    pipeline_run();
    CU_ASSERT_EQUAL(pipeline_world->inits, 3);
    CU_ASSERT_TRUE(pipeline_log_has("the table is not there"));
    CU_ASSERT_TRUE(pipeline_log_has("signal 6 (Aborted)"));
    CU_ASSERT_TRUE(pipeline_each_once(20, 1)); /* no event is blamed */
    CU_ASSERT_TRUE(pipeline_nothing_left());
    pipeline_end();
}

/* ---- runs that cannot be */

static enum ep_answer kill_supervisor(ep_call *call, void *state)
{
    if (atomic_fetch_add(&pipeline_world->flag, 1) == 0)
        kill(getppid(), SIGKILL);
    return pipeline_pass_0(call, state);
}

static void a_supervisor_that_is_killed(void)
{
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "kills", .process = kill_supervisor};
    pipeline_begin_with(NULL);
    pipeline_add_generate("gen", 30);
    pipeline_push(&stage, NULL);
    CU_ASSERT_EQUAL(ep_manager_run(pipeline.manager), EP_ESYSTEM);
    CU_ASSERT_PTR_NOT_NULL(strstr(ep_errmsg(pipeline.manager), "killed by signal 9"));
    pipeline_run(); /* waits for the last of the crashed one's children, and goes on */
    for (unsigned number = 1; number <= 30; number++)
        CU_ASSERT(pipeline_world->event[number].calls[0] >= 1);
    CU_ASSERT_TRUE(pipeline_nothing_left());
    pipeline_end();
}

static int run_on(const char *storage, char *errbuf, size_t errbuf_size)
{
    struct ep_metrics *metrics = NULL;
    ep_manager *manager;
    ep_source *source;
    CU_ASSERT_EQUAL_FATAL(ep_manager_open(&(struct ep_manager_params){.storage = storage}, &manager), EP_OK);
    CU_ASSERT_EQUAL(ep_source_add(manager, &(struct ep_source_params){.id = "gen", .type = "generate"},
                                  &source),
                    EP_OK);
    CU_ASSERT_EQUAL(ep_source_push(source, &pipeline_passers[0], NULL), EP_OK);
    int result = ep_source_run_and_measure(source, &metrics);
    CU_ASSERT_PTR_NULL(metrics); /* set when it ran only */
    snprintf(errbuf, errbuf_size, "%s", ep_errmsg(manager));
    CU_ASSERT_EQUAL(ep_source_run_and_measure(source, NULL), EP_EINVAL);
    ep_manager_close(&manager);
    return result;
}

static void stores_that_cannot_be_used(void)
{
    pipeline_begin();
    char errbuf[600], storage[300];
    snprintf(storage, sizeof storage, "sqlite:%s/not-there/store.db", pipeline.directory);
    CU_ASSERT_EQUAL(run_on(storage, errbuf, sizeof errbuf), EP_ENOENT);
    CU_ASSERT_PTR_NOT_NULL(strstr(errbuf, "not-there"));

    FILE *file = fopen(strchr(pipeline.storage, ':') + 1, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    for (unsigned i = 0; i < 2000; i++)
        fputs("this is no store\n", file);
    fclose(file);
    CU_ASSERT_EQUAL(run_on(pipeline.storage, errbuf, sizeof errbuf), EP_ESTORE);
    CU_ASSERT_PTR_NOT_NULL(strstr(errbuf, "store.db"));

    CU_ASSERT_EQUAL(ep_manager_run(NULL), EP_EINVAL);
    CU_ASSERT_EQUAL(ep_source_run(NULL), EP_EINVAL);
    ep_manager_stop(NULL);
    pipeline_end();
}

UNIT_MAIN("library faults",
          {"only the event being processed is blamed", only_the_event_being_processed_is_blamed},
          {"a call that hangs is ended", a_call_that_hangs_is_ended},
          {"init and fini once in each worker", init_and_fini_once_in_each_worker},
          {"an init that fails is shown and tried again", an_init_that_fails_is_shown_and_tried_again},
          {"a supervisor that is killed", a_supervisor_that_is_killed},
          {"stores that cannot be used", stores_that_cannot_be_used})
