/* SPDX-License-Identifier: MIT */
/* Runs pipelines, notes what their stages see, and reads what they leave. */
#include "tests/lib/pipeline_fixture.h"

#include <sys/mman.h>
#include <unistd.h>

struct pipeline_world *pipeline_world;
struct pipeline pipeline;

unsigned pipeline_number_of(const char *uid)
{
    const char *dash = strrchr(uid, '-');
    unsigned number = dash != NULL ? (unsigned)atoi(dash + 1) : 0;
    EXPECT(number > 0 && number <= PIPELINE_EVENTS);
    return number <= PIPELINE_EVENTS ? number : 0;
}

unsigned pipeline_note_call(ep_call *call, unsigned stage)
{
    unsigned number = pipeline_number_of(ep_call_uid(call));
    struct pipeline_event *event = &pipeline_world->event[number];
    const char *key = ep_call_key(call);
    if (atomic_fetch_add(&event->calls[stage], 1) == 0)
        snprintf(event->key[stage], sizeof event->key[stage], "%s", key);
    else if (strcmp(event->key[stage], key) != 0)
        atomic_fetch_add(&event->other_keys, 1);
    atomic_store(&event->attempts[stage], ep_call_attempt(call));
    return number;
}

enum ep_answer pipeline_pass(ep_call *call, unsigned stage)
{
    pipeline_note_call(call, stage);
    atomic_fetch_add(&pipeline_world->done[stage], 1);
    return EP_PROCESSED;
}

enum ep_answer pipeline_pass_0(ep_call *call, void *state)
{
    (void)state;
    return pipeline_pass(call, 0);
}

static enum ep_answer pass_1(ep_call *call, void *state)
{
    (void)state;
    return pipeline_pass(call, 1);
}

static enum ep_answer pass_2(ep_call *call, void *state)
{
    (void)state;
    return pipeline_pass(call, 2);
}

const struct ep_stage pipeline_passers[PIPELINE_STAGES] = {
    {.abi = EP_STAGE_ABI, .name = "first", .process = pipeline_pass_0},
    {.abi = EP_STAGE_ABI, .name = "second", .process = pass_1},
    {.abi = EP_STAGE_ABI, .name = "third", .process = pass_2},
};

bool pipeline_wait_here(void)
{
    atomic_fetch_add(&pipeline_world->waiting, 1);
    return UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->let_go) != 0);
}

void pipeline_keep_line(enum ep_severity severity, const char *line, void *user)
{
    (void)severity;
    (void)user;
    unsigned at = atomic_load(&pipeline_world->lines); /* one writer, the supervisor */
    snprintf(pipeline_world->line[at % 16], sizeof pipeline_world->line[0], "%s", line);
    atomic_store(&pipeline_world->lines, at + 1);
}

bool pipeline_log_has(const char *message)
{
    for (unsigned i = 0; i < 16; i++)
        if (strstr(pipeline_world->line[i], message) != NULL)
            return true;
    return false;
}

/* ---- a test's beginning and end. A store in a file outlives its manager, until pipeline_end(). */

void pipeline_open_manager(const char *storage)
{
    const struct ep_manager_params params = {.storage = storage, .log = pipeline_keep_line};
    CU_ASSERT_EQUAL_FATAL(ep_manager_open(&params, &pipeline.manager), EP_OK);
}

void pipeline_begin(void)
{
    const char *base = getenv("TEST_TMPDIR");
    pipeline_world =
        mmap(NULL, sizeof *pipeline_world, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_FATAL(pipeline_world != MAP_FAILED);
    snprintf(pipeline.directory, sizeof pipeline.directory, "%s/library.XXXXXX",
             base != NULL ? base : "/tmp");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(pipeline.directory));
    snprintf(pipeline.storage, sizeof pipeline.storage, "sqlite:%s/store.db", pipeline.directory);
}

void pipeline_begin_with(const char *storage)
{
    pipeline_begin();
    pipeline_open_manager(storage != NULL ? storage : pipeline.storage);
}

void pipeline_end(void)
{
    ep_manager_close(&pipeline.manager);
    CU_ASSERT_EQUAL(atomic_load(&pipeline_world->wrong), 0);
    if (pipeline_world->what[0] != '\0')
        fprintf(stderr, "\n    %s\n", pipeline_world->what);
    char path[300];
    static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(path, sizeof path, "%s/store.db%s", pipeline.directory, suffixes[i]);
        unlink(path);
    }
    CU_ASSERT_EQUAL(rmdir(pipeline.directory), 0);
    munmap(pipeline_world, sizeof *pipeline_world);
}

void pipeline_add(const struct ep_source_params *params)
{
    CU_ASSERT_EQUAL_FATAL(ep_source_add(pipeline.manager, params, &pipeline.source), EP_OK);
}

void pipeline_add_generate(const char *id, uint64_t count)
{
    pipeline_add(&(struct ep_source_params){.id = id, .type = "generate", .generate_count = count});
}

void pipeline_push(const struct ep_stage *stage, const struct ep_stage_options *options)
{
    CU_ASSERT_EQUAL_FATAL(ep_source_push(pipeline.source, stage, options), EP_OK);
}

void pipeline_run(void)
{
    int result = ep_manager_run(pipeline.manager);
    CU_ASSERT_EQUAL(result, EP_OK);
    if (result != EP_OK)
        fprintf(stderr, "\n    run: %s\n", ep_errmsg(pipeline.manager));
}

bool pipeline_each_once(unsigned last, unsigned stages)
{
    for (unsigned number = 1; number <= last; number++)
        for (unsigned stage = 0; stage < stages; stage++)
            if (atomic_load(&pipeline_world->event[number].calls[stage]) != 1 ||
                atomic_load(&pipeline_world->event[number].attempts[stage]) != 1)
                return false;
    return true;
}

/* ---- what is in the store's file, between runs */

static int on_item(const struct store_item *item, void *user)
{
    struct pipeline_left *left = user;
    unsigned *count = item->state == STORE_READY     ? &left->ready
                      : item->state == STORE_DELAYED ? &left->delayed
                      : item->state == STORE_DEAD    ? &left->dead
                                                     : &left->other;
    ++*count;
    if (item->state != STORE_DEAD)
        return 0;
    left->one = *item;
    snprintf(left->uid, sizeof left->uid, "%s", item->uid);
    snprintf(left->error, sizeof left->error, "%s", item->error);
    snprintf(left->context, sizeof left->context, "%s", item->context != NULL ? item->context : "");
    return 0;
}

struct pipeline_left pipeline_what_is_left(void)
{
    struct pipeline_left left = {0};
    struct error error = {0};
    struct store *store;
    const struct store_options options = {.url = pipeline.storage, .readonly = true};
    const struct store_select all = {.state = -1};
    CU_ASSERT_EQUAL_FATAL(store_open(&options, &store, &error), 0);
    CU_ASSERT_EQUAL(store_list(store, &all, true, on_item, &left), 0);
    store_close(&store);
    return left;
}

bool pipeline_nothing_left(void)
{
    struct pipeline_left left = pipeline_what_is_left();
    return left.ready + left.delayed + left.dead + left.other == 0;
}

struct beside {
    void *(*body)(void *);
    void *user;
    atomic_bool began;
};

static void *beside_body(void *user)
{
    struct beside *beside = user;
    void *(*body)(void *) = beside->body;
    void *argument = beside->user;
    atomic_store(&beside->began, true); /* the last use of it: it is the caller's */
    return body(argument);
}

void pipeline_thread_beside(pthread_t *thread, void *(*body)(void *), void *user)
{
    struct beside beside = {.body = body, .user = user};
    CU_ASSERT_EQUAL_FATAL(pthread_create(thread, NULL, beside_body, &beside), 0);
    while (!atomic_load(&beside.began))
        usleep(1000);
}
