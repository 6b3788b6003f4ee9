/* SPDX-License-Identifier: MIT */
/* A caller's own client: its pages, cursors and failures, and that nothing waits for it. */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "tests/lib/pipeline_fixture.h"

/* ---- a backend of numbered events: e-1 to e-N, N = pipeline_world->flag. The cursor is the last number
 * given. */

static int feed_open(void *user, const struct ep_filter *filter, void **session, char *errbuf,
                     size_t errbuf_size)
{
    (void)filter, (void)errbuf, (void)errbuf_size;
    EXPECT(user == (void *)pipeline_world);
    atomic_fetch_add(&pipeline_world->opens, 1);
    *session = &pipeline_world->opens;
    return 0;
}

static void feed_close(void *session)
{
    EXPECT(session == (void *)&pipeline_world->opens);
    atomic_fetch_add(&pipeline_world->closes, 1);
}

static int give(ep_page *page, unsigned number)
{
    char uid[20], payload[60];
    snprintf(uid, sizeof uid, "e-%u", number);
    snprintf(payload, sizeof payload, "{\"number\":%u,\"id\":18446744073709551615}", number);
    return ep_page_add(page,
                       &(struct ep_event){.uid = uid, .domain = "d", .address = "a", .payload = payload});
}

static int give_from(ep_page *page, unsigned first, unsigned last)
{
    char cursor[20];
    for (unsigned number = first; number <= last; number++)
        EXPECT(give(page, number) == EP_OK);
    snprintf(cursor, sizeof cursor, "%u", last);
    EXPECT(ep_page_set_cursor(page, cursor) == EP_OK);
    return EP_OK;
}

static int feed_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                    uint64_t wait_ms, ep_page *page)
{
    EXPECT(session == (void *)&pipeline_world->opens);
    EXPECT(strcmp(filter->domain, "d") == 0 && strcmp(filter->address, "a") == 0 &&
           filter->event_type == NULL);
    EXPECT(strcmp(filter->since, "2026-01-01T00:00:00Z") == 0);
    EXPECT(limit == 7 && wait_ms == 1234);
    unsigned fetch = atomic_fetch_add(&pipeline_world->fetches, 1),
             known = atomic_load(&pipeline_world->flag);
    if (fetch < 16)
        snprintf(pipeline_world->line[fetch], sizeof pipeline_world->line[0], "%s",
                 cursor != NULL ? cursor : "none");
    unsigned at = cursor != NULL ? (unsigned)atoi(cursor) : 0, last = at + limit < known ? at + limit : known;
    give_from(page, at + 1, last);
    return last == known ? EP_END : EP_OK;
}

static const struct ep_client feed = {.open = feed_open,
                                      .events_get = feed_get,
                                      .close = feed_close,
                                      .requires_filter = 1};

static void add_feed(const struct ep_client *client)
{
    pipeline_add(&(struct ep_source_params){.id = "feed",
                                            .domain = "d",
                                            .address = "a",
                                            .since = "2026-01-01T00:00:00Z",
                                            .page_size = 7,
                                            .long_poll_ms = 1234,
                                            .client = client,
                                            .client_user = pipeline_world});
}

/* line[] is the clients' here, not the log's. */
static void begin_feed(const struct ep_client *client, unsigned known)
{
    pipeline_begin();
    CU_ASSERT_EQUAL_FATAL(ep_manager_open(&(struct ep_manager_params){.storage = pipeline.storage},
                                          &pipeline.manager),
                          EP_OK);
    atomic_store(&pipeline_world->flag, known);
    add_feed(client);
}

static void next_run(const struct ep_client *client)
{
    ep_manager_close(&pipeline.manager);
    CU_ASSERT_EQUAL_FATAL(ep_manager_open(&(struct ep_manager_params){.storage = pipeline.storage},
                                          &pipeline.manager),
                          EP_OK);
    add_feed(client);
    pipeline_push(&pipeline_passers[0], NULL);
}

/* ---- 300 events, and when they are through 100 more at once, of which the first takes long */

#define EARLY 300
#define ALL 400
#define BATCH_MOST 64 /* events that a worker takes at a time */

static int burst_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                     uint64_t wait_ms, ep_page *page)
{
    (void)session, (void)filter, (void)limit, (void)wait_ms;
    unsigned at = cursor != NULL ? (unsigned)atoi(cursor) : 0;
    EXPECT(UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->done[0]) >= at));
    give_from(page, at + 1, at < EARLY ? EARLY : ALL);
    return at < EARLY ? EP_OK : EP_END;
}

/* The slow one ends when all are done that its own worker need not do. */
static enum ep_answer slow_first(ep_call *call, void *state)
{
    (void)state;
    if (pipeline_number_of(ep_call_uid(call)) == EARLY + 1)
        EXPECT(UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->done[0]) >= ALL - BATCH_MOST));
    return pipeline_pass(call, 0);
}

static void slow_call_with(uint64_t commit_delay_ms)
{
    static const struct ep_client burst = {.open = feed_open, .events_get = burst_get, .close = feed_close};
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "slow", .process = slow_first};
    pipeline_begin_with(NULL);
    pipeline_add(&(struct ep_source_params){
        .id = "burst", .page_size = 500, .client = &burst, .client_user = pipeline_world});
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 2, .commit_delay_ms = commit_delay_ms});
    pipeline_run();
    CU_ASSERT_TRUE(pipeline_each_once(ALL, 1));
    pipeline_end();
}

static void a_slow_call_holds_its_own_batch_only(void)
{
    slow_call_with(0);
}

/* What looks after the answers until then also looks after the rest in the ring. */
static void however_long_answers_may_wait(void)
{
    slow_call_with(3600000);
}

static void pages_follow_the_cursor(void)
{
    begin_feed(&feed, 20);
    pipeline_push(&pipeline_passers[0], NULL);
    pipeline_run();
    CU_ASSERT_EQUAL(pipeline_world->fetches, 3);
    CU_ASSERT_STRING_EQUAL(pipeline_world->line[0], "none");
    CU_ASSERT_STRING_EQUAL(pipeline_world->line[1], "7");
    CU_ASSERT_STRING_EQUAL(pipeline_world->line[2], "14");
    CU_ASSERT_TRUE(pipeline_each_once(20, 1));
    CU_ASSERT(pipeline_world->opens == 1 && pipeline_world->closes == 1);
    CU_ASSERT_STRING_EQUAL(pipeline_world->event[20].key[0], "feed/e-20/first");

    atomic_store(&pipeline_world->flag,
                 25); /* meanwhile there are more: the next run goes on after the 20th */
    next_run(&feed);
    pipeline_run();
    CU_ASSERT_EQUAL(pipeline_world->fetches, 4);
    CU_ASSERT_STRING_EQUAL(pipeline_world->line[3], "20");
    CU_ASSERT_TRUE(pipeline_each_once(25, 1));
    CU_ASSERT_TRUE(pipeline_nothing_left());
    pipeline_end();
}

static void it_begins_at_the_continuation_id(void)
{
    pipeline_begin();
    const struct ep_manager_params params = {.storage = pipeline.storage,
                                             .client = &feed,
                                             .client_user = pipeline_world};
    CU_ASSERT_EQUAL_FATAL(ep_manager_open(&params, &pipeline.manager),
                          EP_OK); /* the manager's client is the sources' */
    atomic_store(&pipeline_world->flag, 12);
    pipeline_add(&(struct ep_source_params){.id = "feed",
                                            .domain = "d",
                                            .address = "a",
                                            .since = "2026-01-01T00:00:00Z",
                                            .page_size = 7,
                                            .long_poll_ms = 1234,
                                            .continuation_id = "10"});
    pipeline_push(&pipeline_passers[0], NULL);
    pipeline_run();
    CU_ASSERT_STRING_EQUAL(pipeline_world->line[0], "10");
    CU_ASSERT(pipeline_world->event[10].calls[0] == 0 && pipeline_world->event[11].calls[0] == 1 &&
              pipeline_world->event[12].calls[0] == 1);
    pipeline_run(); /* the store's own cursor goes before it */
    CU_ASSERT_STRING_EQUAL(pipeline_world->line[1], "12");
    pipeline_end();
}

/* ---- events that came before */

static int repeating_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                         uint64_t wait_ms, ep_page *page)
{
    (void)session, (void)filter, (void)limit, (void)wait_ms;
    unsigned at = cursor != NULL ? (unsigned)atoi(cursor) : 0;
    if (at == 60) {
        atomic_store(&pipeline_world->let_go, 1);
        return EP_END;
    }
    give(page, at + 1); /* twice in one page */
    return give_from(page, at > 5 ? at - 5 : 1, at + 6);
}

static enum ep_answer reject_some(ep_call *call, void *state)
{
    (void)state;
    EXPECT(pipeline_wait_here()); /* what the store has is known; what is through is not kept in mind */
    return pipeline_note_call(call, 0) % 10 == 0 ? EP_REJECT : EP_PROCESSED;
}

static void events_sent_again_are_skipped(void)
{
    static const struct ep_client client = {.events_get = repeating_get};
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "first", .process = reject_some};
    begin_feed(&client, 0);
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 2});
    struct ep_metrics *metrics = NULL;
    CU_ASSERT_EQUAL(ep_source_run_and_measure(pipeline.source, &metrics), EP_OK);
    CU_ASSERT(metrics != NULL && metrics->fetched == 60 && metrics->completed == 54);
    ep_metrics_free(&metrics);
    CU_ASSERT_TRUE(pipeline_each_once(60, 1));
    CU_ASSERT_EQUAL(pipeline_what_is_left().dead, 6);
    pipeline_end();
}

/* ---- failures */

static int failing_open(void *user, const struct ep_filter *filter, void **session, char *errbuf,
                        size_t errbuf_size)
{
    (void)filter;
    *session = user;
    if (atomic_fetch_add(&pipeline_world->opens, 1) > 0)
        return 0;
    snprintf(errbuf, errbuf_size, "the key is lost");
    return EP_EAUTH;
}

static int failing_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                       uint64_t wait_ms, ep_page *page)
{
    (void)session, (void)filter, (void)limit, (void)wait_ms;
    EXPECT(cursor == NULL || strcmp(cursor, "9") == 0); /* a page that failed leaves no cursor */
    switch (atomic_fetch_add(&pipeline_world->fetches, 1)) {
    case 0:
        give_from(page, 1, 3);
        return ep_page_fail(page, 10, "no answer from %s", "the moon");
    case 1:
        return give_from(page, 1, 9);
    case 2:
        return EP_EPROTO;
    case 3:
        ep_page_fail(page, 5, "it is full");
        return EP_OK; /* said is said */
    default:
        return EP_END;
    }
}

static void failures_are_tried_again(void)
{
    static const struct ep_client client = {.open = failing_open, .events_get = failing_get};
    pipeline_begin_with(NULL);
    add_feed(&client);
    pipeline_push(&pipeline_passers[0], NULL);
    pipeline_run();
    CU_ASSERT(pipeline_world->opens == 2 && pipeline_world->fetches == 5);
    CU_ASSERT_TRUE(pipeline_each_once(9, 1));
    CU_ASSERT_TRUE(pipeline_log_has("the key is lost"));
    CU_ASSERT_TRUE(pipeline_log_has("no answer from the moon"));
    CU_ASSERT_TRUE(pipeline_log_has("events_get function returned -13"));
    CU_ASSERT_TRUE(pipeline_log_has("it is full"));
    pipeline_end();
}

static int never_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                     uint64_t wait_ms, ep_page *page)
{
    (void)session, (void)filter, (void)cursor, (void)limit, (void)wait_ms;
    atomic_fetch_add(&pipeline_world->fetches, 1);
    return ep_page_fail(page, UINT64_MAX, "never again");
}

static void *stop_when_done(void *user)
{
    bool in_time = UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->done[0]) == 50 &&
                                                   atomic_load(&pipeline_world->fetches) > 0 &&
                                                   pipeline_log_has("never again"));
    ep_manager_stop(pipeline.manager);
    return in_time ? user : NULL;
}

/* A pause beyond all clocks is long, not over at once; and a stop does not wait for it. */
static void a_pause_without_end(void)
{
    static const struct ep_client client = {.events_get = never_get};
    pipeline_begin_with(NULL);
    add_feed(&client);
    pipeline_push(&pipeline_passers[1], NULL);
    pipeline_add_generate("gen", 50);
    pipeline_push(&pipeline_passers[0], NULL);
    pthread_t thread;
    void *in_time;
    pipeline_thread_beside(&thread, stop_when_done, pipeline_world);
    pipeline_run();
    pthread_join(thread, &in_time);
    CU_ASSERT_PTR_NOT_NULL(in_time);
    CU_ASSERT_EQUAL(pipeline_world->fetches, 1);
    pipeline_end();
}

/* ---- bytes */

static const char *const texts[] = {
    "{\"uid\":\"e-1\",\"id\":18446744073709551615,\"n\":-9223372036854775808,\"x\":1.0e+3}",
    "{ \"uid\" : \"e-2\" ,\t\"payload\":\"\\u00e4\\/\xc3\xa4\" , \"a\":[1.10, "
    "0.1000000000000000055511151231257827]}",
    "{\"b\":null,\"b\":2,\"uid\":\"e-3\"}"};

static int text_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                    uint64_t wait_ms, ep_page *page)
{
    (void)session, (void)filter, (void)cursor, (void)limit, (void)wait_ms;
    for (unsigned i = 0; i < 3; i++)
        EXPECT(ep_page_add_text(page, NULL, texts[i]) == EP_OK);
    EXPECT(give(page, 4) == EP_OK);
    EXPECT(ep_page_add_text(page, "bad-5", "{\"uid\":") ==
           EP_OK); /* broken ones are kept as dead; the rest goes on */
    EXPECT(ep_page_add(page, &(struct ep_event){.payload = "1"}) == EP_OK);
    EXPECT(ep_page_add_text(page, "e-6", "{\"uid\":\"other\"}") == EP_OK);
    return EP_END;
}

static enum ep_answer note_text(ep_call *call, void *state)
{
    unsigned number = pipeline_number_of(ep_call_uid(call));
    size_t bytes;
    const char *text = ep_call_event_text(call, &bytes);
    EXPECT(strlen(text) == bytes);
    if (number <= 3)
        EXPECT(strcmp(text, texts[number - 1]) == 0);
    if (number == 4)
        EXPECT(strcmp(text, "{\"uid\":\"e-4\",\"domain\":\"d\",\"address\":\"a\","
                            "\"payload\":{\"number\":4,\"id\":18446744073709551615}}") == 0);
    EXPECT(ep_call_event(call) != NULL && strcmp(ep_call_context_text(call, NULL), "{}") == 0);
    if (ep_call_attempt(call) == 1 && state == NULL)
        return EP_NOT_PROCESSED; /* also when it has been back in the store */
    return pipeline_pass(call, state == NULL ? 0 : 1);
}

static void texts_survive_byte_for_byte(void)
{
    static const struct ep_client client = {.events_get = text_get};
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "sees", .process = note_text};
    begin_feed(&client, 0);
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 2, .retry_min_ms = 1, .retry_max_ms = 2});
    pipeline_push(&stage,
                  &(struct ep_stage_options){.concurrency = 2, .name = "sees-again", .user = pipeline_world});
    pipeline_run();
    CU_ASSERT(pipeline_world->done[0] == 5 && pipeline_world->done[1] == 5);
    CU_ASSERT_EQUAL(pipeline_world->event[6].calls[1], 1); /* the given uid goes before the text's */
    struct pipeline_left left = pipeline_what_is_left();
    CU_ASSERT(left.dead == 2 && left.one.reason == STORE_REASON_CORRUPT);
    CU_ASSERT_STRING_EQUAL(left.error, "the event has no uid");
    pipeline_end();
}

/* ---- a fetch that waits */

static int waiting_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                       uint64_t wait_ms, ep_page *page)
{
    (void)session, (void)filter, (void)limit, (void)wait_ms;
    if (cursor == NULL)
        return give_from(page, 1, 3);
    EXPECT(UNTIL(PIPELINE_PATIENCE_MS, atomic_load(&pipeline_world->done[0]) ==
                                           3)); /* the long poll: it ends when all three are through */
    return EP_END;
}

static enum ep_answer third_time(ep_call *call, void *state)
{
    (void)state;
    unsigned number = pipeline_note_call(call, 0);
    if (number == 2 && ep_call_attempt(call) < 3)
        return EP_NOT_PROCESSED;
    atomic_fetch_add(&pipeline_world->done[0], 1);
    return EP_PROCESSED;
}

static void retries_do_not_wait_for_the_long_poll(void)
{
    static const struct ep_client client = {.events_get = waiting_get};
    static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "third-time", .process = third_time};
    begin_feed(&client, 0);
    pipeline_push(&stage, &(struct ep_stage_options){.concurrency = 1, .retry_min_ms = 1, .retry_max_ms = 5});
    pipeline_run();
    CU_ASSERT_EQUAL(pipeline_world->event[2].calls[0], 3);
    CU_ASSERT_TRUE(pipeline_nothing_left());
    pipeline_end();
}

/* ---- a client that takes its process down */

static int crashing_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                        uint64_t wait_ms, ep_page *page)
{
    (void)session, (void)filter, (void)limit, (void)wait_ms;
    unsigned at = cursor != NULL ? (unsigned)atoi(cursor) : 0,
             fetch = atomic_fetch_add(&pipeline_world->fetches, 1);
    if (fetch == 2 || fetch == 5) {
        signal(SIGSEGV, SIG_DFL); /* not a sanitizer's */
        raise(SIGSEGV);
    }
    give_from(page, at + 1, at + 10);
    return at + 10 >= 50 ? EP_END : EP_OK;
}

static void a_client_that_crashes_costs_nothing(void)
{
    static const struct ep_client client = {.events_get = crashing_get};
    begin_feed(&client, 0);
    pipeline_push(&pipeline_passers[0], &(struct ep_stage_options){.concurrency = 2});
    pipeline_push(&pipeline_passers[1], NULL);
    pipeline_run();
    for (unsigned number = 1; number <= 50; number++)
        CU_ASSERT_EQUAL(pipeline_world->event[number].calls[1], 1);
    CU_ASSERT_EQUAL(pipeline_world->fetches, 7);
    CU_ASSERT_TRUE(pipeline_nothing_left());
    pipeline_end();
}

UNIT_MAIN("library client", {"a slow call holds its own batch only", a_slow_call_holds_its_own_batch_only},
          {"... however long answers may wait", however_long_answers_may_wait},
          {"pages follow the cursor", pages_follow_the_cursor},
          {"it begins at the continuation id", it_begins_at_the_continuation_id},
          {"events sent again are skipped", events_sent_again_are_skipped},
          {"failures are tried again", failures_are_tried_again},
          {"a pause without end", a_pause_without_end},
          {"texts survive byte for byte", texts_survive_byte_for_byte},
          {"retries do not wait for the long poll", retries_do_not_wait_for_the_long_poll},
          {"a client that crashes costs nothing", a_client_that_crashes_costs_nothing})
