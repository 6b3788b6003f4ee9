/* SPDX-License-Identifier: MIT */
/* Runs beside other things: stops from outside, two managers, several sources, programs with threads, a
 * caller's exit. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/pipeline_fixture.h"

/* ---- workers are processes, and run at once */

static enum ep_answer meet(ep_call *call, void *state)
{
    (void)state;
    atomic_fetch_add(&pipeline_world->alive, 1);
    EXPECT(UNTIL(PIPELINE_PATIENCE_MS,
                 atomic_load(&pipeline_world->alive) >= 4)); /* each waits until four are here */
    return pipeline_pass(call, 0);
}

static void four_workers_run_at_once(void)
{
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "meets", .process = meet};
    pipeline_begin_with("memory:");
    pipeline_add_generate("gen", 4);
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 4});
    pipeline_run();
    CU_ASSERT_TRUE(pipeline_each_once(4, 1));
    pipeline_end();
}

/* ---- stops */

static void *stop_after_200(void *user)
{
    (void)user;
    bool in_time = UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->done[0]) >= 200);
    ep_manager_stop(pipeline.manager);
    return in_time ? pipeline_world : NULL;
}

static pthread_t main_thread;
static void stop_handler(int number)
{
    (void)number;
    ep_manager_stop(pipeline.manager);
}

static void *signal_after_200(void *user)
{
    (void)user;
    bool in_time = UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->done[0]) >= 200);
    pthread_kill(main_thread, SIGUSR1);
    return in_time ? pipeline_world : NULL;
}

static void stop_and_go_on(void *(*stopper)(void *))
{
    pipeline_begin_with(NULL);
    pipeline_add_generate("gen", PIPELINE_EVENTS);
    pipeline_push(&pipeline_passers[0], &(struct ep_stage_options){.concurrency = 2, .batch = 20});
    pipeline_push(&pipeline_passers[1], &(struct ep_stage_options){.concurrency = 2});
    pthread_t thread;
    void *in_time;
    pipeline_thread_beside(&thread, stopper, NULL);
    pipeline_run();
    pthread_join(thread, &in_time);
    CU_ASSERT_PTR_NOT_NULL(in_time);
    CU_ASSERT(pipeline_world->done[0] >= 200 && pipeline_world->done[1] < PIPELINE_EVENTS);
    struct pipeline_left left =
        pipeline_what_is_left(); /* all that came and is not through is ready: nothing is locked */
    CU_ASSERT(left.ready > 0 && left.delayed + left.dead + left.other == 0);
    pipeline_run();
    CU_ASSERT_TRUE(pipeline_each_once(PIPELINE_EVENTS, 2)); /* nothing lost, and no answer given twice */
    CU_ASSERT_TRUE(pipeline_nothing_left());
    pipeline_end();
}

static void a_thread_stops_it(void)
{
    stop_and_go_on(stop_after_200);
}

static void a_signal_handler_stops_it(void)
{
    const struct sigaction action = {.sa_handler = stop_handler};
    struct sigaction old;
    sigaction(SIGUSR1, &action, &old);
    main_thread = pthread_self();
    stop_and_go_on(signal_after_200);
    sigaction(SIGUSR1, &old, NULL);
}

static atomic_bool over;
static void *stop_all_the_time(void *user)
{
    (void)user;
    while (!atomic_load(&over))
        ep_manager_stop(pipeline.manager);
    return NULL;
}

static enum ep_answer let_pass(ep_call *call, void *state)
{
    (void)call, (void)state;
    return EP_PROCESSED;
}

/* However early it comes; also when the caller has a handler of its own for the signal that is used inside.
 */
static void an_early_stop_is_obeyed(void)
{
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "any", .process = let_pass};
    const struct sigaction action = {.sa_handler = stop_handler};
    struct sigaction old;
    sigaction(SIGTERM, &action, &old);
    pipeline_begin_with("memory:");
    pipeline_add_generate("gen", 0); /* without an end */
    pipeline_push(&stage, NULL);
    pthread_t thread;
    atomic_store(&over, false);
    pipeline_thread_beside(&thread, stop_all_the_time, NULL);
    for (unsigned i = 0; i < 50; i++)
        pipeline_run();
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    sigaction(SIGTERM, &old, NULL);
    ep_manager_close(&pipeline.manager);
    pipeline_open_manager("memory:");
    pipeline_add_generate("gen", 100);
    pipeline_push(&pipeline_passers[0], NULL);
    ep_manager_stop(pipeline.manager);
    pipeline_run(); /* to its end: a stop without a run is not kept for the next */
    CU_ASSERT_TRUE(pipeline_each_once(100, 1));
    char path[100];
    snprintf(path, sizeof path, "/dev/shm/eventpipe-ep-%d", (int)getpid());
    CU_ASSERT(access(path, F_OK) != 0 && errno == ENOENT);
    strcat(path, ".store");
    CU_ASSERT(access(path, F_OK) != 0 && errno == ENOENT);
    pipeline_end();
}

/* ---- two managers */

static enum ep_answer wait_for_all(ep_call *call, void *state)
{
    (void)state;
    pipeline_note_call(call, 0);
    EXPECT(pipeline_wait_here());
    return EP_PROCESSED;
}
static const struct ep_stage waiter = {.abi = EP_STAGE_ABI, .name = "waits", .process = wait_for_all};

static void *run_in_thread(void *user)
{
    int *result = user;
    *result = ep_manager_run(pipeline.manager);
    return NULL;
}

static void a_store_has_one_manager_at_a_time(void)
{
    pipeline_begin();
    const struct ep_manager_params first = {.instance = "lib-first",
                                            .storage = pipeline.storage,
                                            .log = pipeline_keep_line};
    const struct ep_manager_params second = {.instance = "lib-second",
                                             .storage = pipeline.storage,
                                             .log = pipeline_keep_line};
    CU_ASSERT_EQUAL_FATAL(ep_manager_open(&first, &pipeline.manager), EP_OK);
    pipeline_add_generate("gen", 3);
    pipeline_push(&waiter, NULL);
    int result = 1;
    pthread_t thread;
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, run_in_thread, &result), 0);
    CU_ASSERT_TRUE(UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->waiting) == 1));

    ep_source *source;
    const struct ep_source_params params = {.id = "other", .type = "generate", .generate_count = 1};
    CU_ASSERT_EQUAL(ep_manager_run(pipeline.manager), EP_EBUSY);
    CU_ASSERT_PTR_NOT_NULL(strstr(ep_errmsg(pipeline.manager), "runs already"));
    CU_ASSERT_EQUAL(ep_source_add(pipeline.manager, &params, &source), EP_ESTATE);
    CU_ASSERT_EQUAL(ep_source_push(pipeline.source, &pipeline_passers[1], NULL), EP_ESTATE);

    ep_manager *other;
    CU_ASSERT_EQUAL_FATAL(ep_manager_open(&second, &other), EP_OK);
    CU_ASSERT_EQUAL(ep_source_add(other, &params, &source), EP_OK);
    CU_ASSERT_EQUAL(ep_source_push(source, &pipeline_passers[1], NULL), EP_OK);
    CU_ASSERT_EQUAL(ep_manager_run(other), EP_EBUSY);
    CU_ASSERT_PTR_NOT_NULL(strstr(ep_errmsg(other), "instance lib-first"));
    CU_ASSERT_PTR_NOT_NULL(strstr(ep_errmsg(other), "store.db"));

    atomic_store(&pipeline_world->let_go, 1);
    pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(result, EP_OK);
    CU_ASSERT_EQUAL(ep_manager_run(other), EP_OK); /* now it may */
    CU_ASSERT_EQUAL(pipeline_world->done[1], 1);
    ep_manager_close(&other);
    pipeline_end();
}

/* ---- several sources */

static int late_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                    uint64_t wait_ms, ep_page *page)
{
    (void)session, (void)filter, (void)cursor, (void)limit, (void)wait_ms;
    EXPECT(UNTIL(PIPELINE_PATIENCE_MS,
                 atomic_load(&pipeline_world->done[0]) == 10)); /* long after the other's end */
    for (unsigned number = 100; number < 120; number++) {
        char uid[20];
        snprintf(uid, sizeof uid, "e-%u", number);
        ep_page_add(page, &(struct ep_event){.uid = uid});
    }
    return EP_END;
}

static void one_source_ends_and_the_other_goes_on(void)
{
    static const struct ep_client client = {.events_get = late_get};
    pipeline_begin_with(NULL);
    ep_source *empty;
    CU_ASSERT_EQUAL(ep_manager_run(pipeline.manager), EP_EINVAL); /* without any */
    pipeline_add_generate("early", 10);
    empty = pipeline.source;
    CU_ASSERT_EQUAL(ep_manager_run(pipeline.manager), EP_EINVAL); /* without stages */
    CU_ASSERT_PTR_NOT_NULL(strstr(ep_errmsg(pipeline.manager), "stage"));
    CU_ASSERT_EQUAL(ep_source_run(empty), EP_EINVAL);
    pipeline_push(&pipeline_passers[0], NULL);
    pipeline_add(&(struct ep_source_params){.id = "late", .client = &client});
    pipeline_push(&pipeline_passers[1], NULL);
    pipeline_push(&pipeline_passers[2], NULL);
    pipeline_run();
    CU_ASSERT(pipeline_world->done[0] == 10 && pipeline_world->done[1] == 20 &&
              pipeline_world->done[2] == 20);
    CU_ASSERT_TRUE(pipeline_nothing_left());
    pipeline_end();
}

/* ---- programs with threads */

static void *allocate_all_the_time(void *user)
{
    (void)user;
    while (!atomic_load(&over)) {
        char *text = NULL;
        size_t bytes;
        FILE *stream = open_memstream(&text, &bytes);
        fprintf(stream, "%d", rand());
        fclose(stream);
        free(text);
    }
    return NULL;
}

static void *read_a_stream(void *user)
{
    FILE *stream = user;
    atomic_store(&pipeline_world->flag, 1);
    while (fgetc(stream) != EOF)
        continue;
    return NULL;
}

static enum ep_answer allocate(ep_call *call, void *state)
{
    free(malloc(1000));
    return pipeline_pass_0(call, state);
}

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define ALLOCATORS 0 /* the sanitizers' own malloc does not survive a fork between its locks */
#else
#define ALLOCATORS 2
#endif

/* One waits for input and has its stream's lock meanwhile; others are somewhere in malloc when the processes
 * fork. */
static void a_program_may_have_threads(void)
{
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "allocates", .process = allocate};
    int input[2];
    CU_ASSERT_EQUAL_FATAL(pipe(input), 0);
    FILE *stream = fdopen(input[0], "r");
    pipeline_begin_with("memory:");
    pipeline_add_generate("gen", 300);
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 2});
    pthread_t threads[1 + ALLOCATORS];
    atomic_store(&over, false);
    pipeline_thread_beside(&threads[0], read_a_stream, stream);
    for (int i = 0; i < ALLOCATORS; i++)
        pipeline_thread_beside(&threads[1 + i], allocate_all_the_time, NULL);
    CU_ASSERT_TRUE(UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->flag) == 1));
    for (unsigned i = 0; i < 5; i++)
        pipeline_run();
    CU_ASSERT_TRUE(pipeline_world->done[0] == 1500); /* memory: begins again each time */
    atomic_store(&over, true);
    close(input[1]);
    for (int i = 0; i < 1 + ALLOCATORS; i++)
        pthread_join(threads[i], NULL);
    fclose(stream);
    pipeline_end();
}

/* ---- the caller's exit */

static void it_ends_with_its_caller(void)
{
    pipeline_begin_with(NULL);
    pipeline_add_generate("gen", 20);
    pipeline_push(&waiter, &(struct ep_stage_options){.concurrency = 2});
    pid_t caller = fork();
    CU_ASSERT_FATAL(caller >= 0);
    if (caller == 0)
        _exit(ep_manager_run(pipeline.manager) == EP_OK ? 0 : 1);
    CU_ASSERT_TRUE(UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->waiting) == 2));
    kill(caller, SIGKILL);
    waitpid(caller, NULL, 0);
    atomic_store(&pipeline_world->let_go, 1); /* the running calls end cleanly */
    int result = EP_EBUSY;                    /* as long as the other instance is on its way out */
    CU_ASSERT_TRUE(UNTIL(PIPELINE_PATIENCE_MS, (result = ep_manager_run(pipeline.manager)) != EP_EBUSY));
    CU_ASSERT_EQUAL(result, EP_OK);
    CU_ASSERT_TRUE(pipeline_each_once(20, 1));
    CU_ASSERT_TRUE(pipeline_nothing_left());
    pipeline_end();
}

UNIT_MAIN("library stop", {"four workers run at once", four_workers_run_at_once},
          {"a thread stops it", a_thread_stops_it}, {"a signal handler stops it", a_signal_handler_stops_it},
          {"an early stop is obeyed", an_early_stop_is_obeyed},
          {"a store has one manager at a time", a_store_has_one_manager_at_a_time},
          {"one source ends and the other goes on", one_source_ends_and_the_other_goes_on},
          {"a program may have threads", a_program_may_have_threads},
          {"it ends with its caller", it_ends_with_its_caller})
