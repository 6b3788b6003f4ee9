/* SPDX-License-Identifier: MIT */
/*
 * Real pipelines through the public API. What stages and clients see is written into `world`, memory that all
 * processes of a test share; what a run leaves in the store is read from the store's file. Events are known
 * by the number at the end of their uid.
 */
#ifndef LIBRARY_FIXTURE_H
#define LIBRARY_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "src/eventpipe.h"
#include "src/store/store.h"
#include "tests/process/until.h"
#include "tests/unit/unit.h"

#define WORLD_EVENTS 4000
#define WORLD_STAGES 3
#define PATIENCE_MS 30000

struct world {
    struct world_event {
        atomic_uint calls[WORLD_STAGES];    /* of each stage */
        atomic_uint attempts[WORLD_STAGES]; /* as the last call was told */
        char key[WORLD_STAGES][100];        /* of its first call */
        atomic_uint other_keys;             /* calls that were told another */
    } event[WORLD_EVENTS + 1];
    atomic_uint done[WORLD_STAGES]; /* calls that came to their end */
    atomic_uint wrong;              /* what stages and clients found wrong */
    char what[500];                 /* the first of it */
    atomic_uint waiting, let_go;    /* stages that wait to be let go */
    atomic_uint inits, finis, alive;
    atomic_uint fetches, opens, closes, flag, lines;
    char line[16][512]; /* of the log */
};
static struct world *world;

static struct library {
    char directory[200], storage[260];
    ep_manager *manager;
    ep_source *source;
} library;

/* In a stage or a client, where CUnit's assertions would be lost with the process. */
#define EXPECT(condition)                                                                           \
    do {                                                                                            \
        if (!(condition) && atomic_fetch_add(&world->wrong, 1) == 0)                                \
            snprintf(world->what, sizeof world->what, "%s:%d: %s", __FILE__, __LINE__, #condition); \
    } while (0)

static inline unsigned number_of(const char *uid)
{
    const char *dash = strrchr(uid, '-');
    unsigned number = dash != NULL ? (unsigned)atoi(dash + 1) : 0;
    EXPECT(number > 0 && number <= WORLD_EVENTS);
    return number <= WORLD_EVENTS ? number : 0;
}

/* Notes that a stage is called; returns the event's number. */
static inline unsigned note_call(ep_call *call, unsigned stage)
{
    unsigned number = number_of(ep_call_uid(call));
    struct world_event *event = &world->event[number];
    const char *key = ep_call_key(call);
    if (atomic_fetch_add(&event->calls[stage], 1) == 0)
        snprintf(event->key[stage], sizeof event->key[stage], "%s", key);
    else if (strcmp(event->key[stage], key) != 0)
        atomic_fetch_add(&event->other_keys, 1);
    atomic_store(&event->attempts[stage], ep_call_attempt(call));
    return number;
}

static inline enum ep_answer pass(ep_call *call, unsigned stage)
{
    note_call(call, stage);
    atomic_fetch_add(&world->done[stage], 1);
    return EP_PROCESSED;
}

static inline enum ep_answer pass_0(ep_call *call, void *state)
{
    (void)state;
    return pass(call, 0);
}

static inline enum ep_answer pass_1(ep_call *call, void *state)
{
    (void)state;
    return pass(call, 1);
}

static inline enum ep_answer pass_2(ep_call *call, void *state)
{
    (void)state;
    return pass(call, 2);
}

__attribute__((unused)) static const struct ep_stage passers[WORLD_STAGES] = {
    {.abi = EP_STAGE_ABI, .name = "first", .process = pass_0},
    {.abi = EP_STAGE_ABI, .name = "second", .process = pass_1},
    {.abi = EP_STAGE_ABI, .name = "third", .process = pass_2},
};

/* A stage waits here until it is let go; false when that takes too long. */
static inline bool wait_here(void)
{
    atomic_fetch_add(&world->waiting, 1);
    return UNTIL(atomic_load(&world->let_go) != 0);
}

static inline void keep_line(enum ep_severity severity, const char *line, void *user)
{
    (void)severity;
    (void)user;
    unsigned at = atomic_load(&world->lines); /* one writer, the supervisor */
    snprintf(world->line[at % 16], sizeof world->line[0], "%s", line);
    atomic_store(&world->lines, at + 1);
}

static inline bool log_has(const char *message)
{
    for (unsigned i = 0; i < 16; i++)
        if (strstr(world->line[i], message) != NULL)
            return true;
    return false;
}

/* ---- a test's beginning and end. A store in a file outlives its manager, until end(). */

static inline void open_manager(const char *storage)
{
    const struct ep_manager_params params = {.storage = storage, .log = keep_line};
    CU_ASSERT_EQUAL_FATAL(ep_manager_open(&params, &library.manager), EP_OK);
}

static inline void begin(void)
{
    const char *base = getenv("TEST_TMPDIR");
    world = mmap(NULL, sizeof *world, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_FATAL(world != MAP_FAILED);
    snprintf(library.directory, sizeof library.directory, "%s/library.XXXXXX", base != NULL ? base : "/tmp");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(library.directory));
    snprintf(library.storage, sizeof library.storage, "sqlite:%s/store.db", library.directory);
}

static inline void begin_with(const char *storage)
{
    begin();
    open_manager(storage != NULL ? storage : library.storage);
}

static inline void end(void)
{
    ep_manager_close(&library.manager);
    CU_ASSERT_EQUAL(atomic_load(&world->wrong), 0);
    if (world->what[0] != '\0')
        fprintf(stderr, "\n    %s\n", world->what);
    char path[300];
    static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(path, sizeof path, "%s/store.db%s", library.directory, suffixes[i]);
        unlink(path);
    }
    CU_ASSERT_EQUAL(rmdir(library.directory), 0);
    munmap(world, sizeof *world);
}

static inline void add(const struct ep_source_params *params)
{
    CU_ASSERT_EQUAL_FATAL(ep_source_add(library.manager, params, &library.source), EP_OK);
}

static inline void add_generate(const char *id, uint64_t count)
{
    add(&(struct ep_source_params){.id = id, .type = "generate", .generate_count = count});
}

static inline void push(const struct ep_stage *stage, const struct ep_stage_options *options)
{
    CU_ASSERT_EQUAL_FATAL(ep_source_push(library.source, stage, options), EP_OK);
}

static inline void run(void)
{
    int result = ep_manager_run(library.manager);
    CU_ASSERT_EQUAL(result, EP_OK);
    if (result != EP_OK)
        fprintf(stderr, "\n    run: %s\n", ep_errmsg(library.manager));
}

/* All of 1 to `last` were called once, at stages 0 to stages - 1, told attempt 1 and the right key. */
static inline bool each_once(unsigned last, unsigned stages)
{
    for (unsigned number = 1; number <= last; number++)
        for (unsigned stage = 0; stage < stages; stage++)
            if (atomic_load(&world->event[number].calls[stage]) != 1 ||
                atomic_load(&world->event[number].attempts[stage]) != 1)
                return false;
    return true;
}

/* ---- what is in the store's file, between runs */

struct left {
    unsigned ready, delayed, dead, other;
    struct store_item one; /* of the last dead one: state, reason, counts */
    char uid[100], error[600], context[600];
};

static inline int on_item(const struct store_item *item, void *user)
{
    struct left *left = user;
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

static inline struct left what_is_left(void)
{
    struct left left = {0};
    struct error error = {0};
    struct store *store;
    const struct store_options options = {.url = library.storage, .readonly = true};
    const struct store_select all = {.state = -1};
    CU_ASSERT_EQUAL_FATAL(store_open(&options, &store, &error), 0);
    CU_ASSERT_EQUAL(store_list(store, &all, true, on_item, &left), 0);
    store_close(&store);
    return left;
}

static inline bool nothing_left(void)
{
    struct left left = what_is_left();
    return left.ready + left.delayed + left.dead + left.other == 0;
}

/* A thread beside the runs, which fork: it is at work when this returns. A fork in the middle of a thread's
 * start can leave the child with locks of a sanitizer that are never released. */
struct beside {
    void *(*body)(void *);
    void *user;
    atomic_bool began;
};

static inline void *beside_body(void *user)
{
    struct beside *beside = user;
    void *(*body)(void *) = beside->body;
    void *argument = beside->user;
    atomic_store(&beside->began, true); /* the last use of it: it is the caller's */
    return body(argument);
}

static inline void thread_beside(pthread_t *thread, void *(*body)(void *), void *user)
{
    struct beside beside = {.body = body, .user = user};
    CU_ASSERT_EQUAL_FATAL(pthread_create(thread, NULL, beside_body, &beside), 0);
    while (!atomic_load(&beside.began))
        usleep(1000);
}

#endif
