/* SPDX-License-Identifier: MIT */
/* The generate source: numbers, sizes, its end, its pace, and how it is stopped. */
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "src/source/source.h"
#include "tests/lib/unit.h"

struct rig {
    struct source_config config;
    void *state;
    struct page page;
    struct source_failure failure;
    atomic_bool abort;
};

static void rig_open(struct rig *rig, uint64_t count, uint64_t size_bytes, double rate)
{
    memset(rig, 0, sizeof *rig);
    rig->config = (struct source_config){.id = "trial", .type = SOURCE_GENERATE};
    rig->config.generate = (struct generate_source_config){count, size_bytes, rate};
    source_page_open(&rig->page);
    CU_ASSERT_EQUAL_FATAL(source_generate_ops.open(&rig->config, &rig->state, NULL), 0);
}

static void rig_close(struct rig *rig)
{
    source_generate_ops.close(rig->state);
    source_page_clear(&rig->page);
}

static int rig_fetch(struct rig *rig, const char *cursor, uint32_t limit, uint64_t wait_ms)
{
    struct fetch fetch = {.cursor = cursor, .limit = limit, .wait_ms = wait_ms, .abort = &rig->abort};

    source_page_clear(&rig->page);
    return source_generate_ops.fetch(rig->state, &fetch, &rig->page, &rig->failure);
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void numbers_its_events_and_ends(void)
{
    struct rig rig;

    rig_open(&rig, 5, 0, 0);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, 3, 0), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 3);
    CU_ASSERT_STRING_EQUAL(rig.page.events[0].uid, "trial-1");
    CU_ASSERT_STRING_EQUAL(rig.page.events[0].data, "{\"uid\":\"trial-1\",\"payload\":{\"n\":1}}");
    CU_ASSERT_STRING_EQUAL(rig.page.cursor, "3");
    CU_ASSERT_TRUE(rig.page.more && !rig.page.end);
    CU_ASSERT_EQUAL(rig_fetch(&rig, "3", 3, 0), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 2);
    CU_ASSERT_STRING_EQUAL(rig.page.events[1].uid, "trial-5");
    CU_ASSERT_STRING_EQUAL(rig.page.cursor, "5");
    CU_ASSERT_TRUE(rig.page.end);
    CU_ASSERT_EQUAL(rig_fetch(&rig, "5", 3, 0), 0);
    CU_ASSERT_TRUE(rig.page.end && rig.page.count == 0 && rig.page.cursor == NULL);
    CU_ASSERT_EQUAL(rig_fetch(&rig, "9", 3, 0), 0);
    CU_ASSERT_TRUE(rig.page.end && rig.page.count == 0);
    CU_ASSERT_EQUAL(rig_fetch(&rig, "x", 3, 0), EP_EPROTO);
    CU_ASSERT_EQUAL(rig_fetch(&rig, "-1", 3, 0), EP_EPROTO);
    rig_close(&rig);
}

static void pads_the_payload_to_its_size(void)
{
    static const uint64_t sizes[] = {1, 16, 17, 18, 100, 220, 100000};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct rig rig;
        struct json_span payload;
        rig_open(&rig, 0, sizes[i], 0);
        CU_ASSERT_EQUAL(rig_fetch(&rig, "41", 1, 0), 0);
        CU_ASSERT_FALSE(rig.page.end);
        struct json_span event = {rig.page.events[0].data, rig.page.events[0].data_bytes};
        CU_ASSERT_TRUE(json_valid(event.at, event.bytes, NULL));
        CU_ASSERT_TRUE_FATAL(json_find(event, "/payload", &payload));
        CU_ASSERT_EQUAL(payload.bytes, sizes[i] < 17 ? strlen("{\"n\":42}") : sizes[i]);
        rig_close(&rig);
    }
}

static void bounds_a_page_by_its_bytes(void)
{
    struct rig rig;

    rig_open(&rig, 0, 3 << 20, 0);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, 1000, 0), 0);
    CU_ASSERT_EQUAL(rig.page.count, 3);
    CU_ASSERT_STRING_EQUAL(rig.page.cursor, "3");
    rig_close(&rig);
}

static void keeps_its_pace(void)
{
    struct rig rig;
    uint64_t start = now_ms();
    unsigned long events = 0;
    int fetches = 0;
    char cursor[24] = "0";

    rig_open(&rig, 300, 50, 1000);
    while (events < 300) {
        CU_ASSERT_EQUAL_FATAL(rig_fetch(&rig, cursor, 100, 1000), 0);
        events += rig.page.count;
        fetches++;
        snprintf(cursor, sizeof cursor, "%lu", events);
    }
    uint64_t took = now_ms() - start;
    CU_ASSERT_TRUE(took >=
                   280); /* the last is due 299 ms after the first; not before, and not in 300 wake-ups */
    CU_ASSERT_TRUE(fetches < 100);
    rig_close(&rig);

    rig_open(&rig, 0, 50, 0.5); /* one now, the next in two seconds */
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, 100, 0), 0);
    CU_ASSERT_EQUAL(rig.page.count, 1);
    start = now_ms();
    CU_ASSERT_EQUAL(rig_fetch(&rig, "1", 100, 50), 0);
    CU_ASSERT_TRUE(rig.page.count == 0 && rig.page.cursor == NULL && !rig.page.end);
    CU_ASSERT_TRUE(now_ms() - start >= 50);
    rig_close(&rig);
}

static void *run_fetch(void *user)
{
    rig_fetch(user, "1", 10, 60000);
    return NULL;
}

static void stops_at_once(void)
{
    struct rig rig;
    pthread_t thread;

    for (int by_abort = 0; by_abort < 2; by_abort++) {
        rig_open(&rig, 0, 50, 0.01);
        CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, 10, 0), 0);
        uint64_t start = now_ms();
        CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, run_fetch, &rig), 0);
        atomic_store(&rig.abort, by_abort == 1);
        source_generate_ops.interrupt(rig.state);
        pthread_join(thread, NULL);
        CU_ASSERT_TRUE(now_ms() - start < 30000); /* not the 60 s it would have waited */
        CU_ASSERT_EQUAL(rig.page.count, 0);
        rig_close(&rig);
    }
}

UNIT_MAIN("source_generate", {"numbers its events, and ends", numbers_its_events_and_ends},
          {"pads the payload to its size", pads_the_payload_to_its_size},
          {"bounds a page by its bytes", bounds_a_page_by_its_bytes}, {"keeps its pace", keeps_its_pace},
          {"stops at once", stops_at_once})
