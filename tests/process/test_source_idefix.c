/* SPDX-License-Identifier: MIT */
/* The idefix source, as its producer calls it: cursors, pages, pauses, and when it wants to be tried again.
 */
#include <signal.h>

#include "src/source/source.h"
#include "tests/lib/idefix_fixture.h"
#include "tests/lib/idefix_frames.h"

#define RETRY_MAX_MS 12345

static struct rig {
    struct source_config config;
    void *state;
    struct page page;
    struct source_failure failure;
    atomic_bool abort;
} rig;

static const struct source_ops *ops(void)
{
    return source_ops_for(SOURCE_IDEFIX);
}

static void rig_open(void)
{
    struct error error = {0};

    rig = (struct rig){.config = {.type = SOURCE_IDEFIX, .id = "trial", .domain = "acme"}};
    config_set_source_defaults(&rig.config);
    rig.config.retry.max_ms = RETRY_MAX_MS;
    rig.config.idefix.broker = (char *)idefix_fixture_url("tcp", "127.0.0.1", idefix_fixture.port);
    rig.config.idefix.account = "user-1";
    rig.config.idefix.token = "hush-hush";
    source_page_open(&rig.page);
    CU_ASSERT_EQUAL_FATAL(ops()->open(&rig.config, &rig.state, &error), 0);
}

static void rig_close(void)
{
    ops()->close(rig.state);
    source_page_clear(&rig.page);
    free(rig.config.idefix.encoding);
    free(rig.config.idefix.user);
    free(rig.config.idefix.password);
}

static int fetch(const char *cursor, uint32_t limit, uint64_t wait_ms)
{
    const struct fetch asked = {.cursor = cursor, .limit = limit, .wait_ms = wait_ms, .abort = &rig.abort};

    source_page_clear(&rig.page);
    rig.failure = (struct source_failure){0};
    return ops()->fetch(rig.state, &asked, &rig.page, &rig.failure);
}

static bool fails(int code, uint64_t retry_least_ms, uint64_t retry_most_ms)
{
    int result = fetch(NULL, 100, 60000);
    bool right = result == code && rig.failure.error.code == code && rig.page.count == 0 &&
                 rig.failure.retry_after_ms >= retry_least_ms && rig.failure.retry_after_ms <= retry_most_ms;

    if (!right)
        printf("\n    %d, again in %u ms: %s\n", result, (unsigned)rig.failure.retry_after_ms,
               rig.failure.error.message);
    return right;
}

/* After a failure: a poll that is answered soon, so that what is shown of the failure ends. */
static bool probes(void)
{
    bool right = fetch("c", 100, 60000) == 0;

    frames_expect_member(idefix_world->get_data, "/timeout", "\"300ms\"");
    return right;
}

static void test_open(void)
{
    struct error error = {0};
    void *state = NULL;

    rig_open();
    rig.config.domain = NULL;
    CU_ASSERT_EQUAL(ops()->open(&rig.config, &state, &error), EP_ECONFIG);
    rig.config.address = "device-001";
    rig.config.idefix.ca_file = "/nonexistent";
    CU_ASSERT_EQUAL(ops()->open(&rig.config, &state, &error), EP_ECONFIG);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "source trial: its ca_file /nonexistent cannot be read"));
    rig.config.idefix.ca_file = NULL;
    rig.config.idefix.broker = "ssl://:1";
    CU_ASSERT_EQUAL(ops()->open(&rig.config, &state, &error), EP_ECONFIG);
    CU_ASSERT_PTR_NULL(state);
    rig_close();
}

static void test_cursor(void)
{
    idefix_fixture_begin();
    rig_open();
    rig.config.since = "2026-02-03T00:00:00Z";
    CU_ASSERT_EQUAL(fetch(NULL, 7, 2500), 0);
    frames_expect_member(idefix_world->get_data, "/since", "\"2026-02-03T00:00:00Z\"");
    frames_expect_member(idefix_world->get_data, "/cid", NULL);
    frames_expect_member(idefix_world->get_data, "/limit", "7");
    frames_expect_member(idefix_world->get_data, "/timeout", "\"2.5s\"");
    CU_ASSERT_EQUAL(rig.page.count, 3);
    CU_ASSERT_STRING_EQUAL(rig.page.cursor, "c-3");
    CU_ASSERT_FALSE(rig.page.more);
    CU_ASSERT_EQUAL(rig.page.events[2].dead, STORE_REASON_CORRUPT);
    rig.config.continuation_id = "begin-here";
    CU_ASSERT_EQUAL(fetch(NULL, 3, 0), 0);
    frames_expect_member(idefix_world->get_data, "/cid", "\"begin-here\"");
    CU_ASSERT_TRUE(rig.page.more);
    CU_ASSERT_EQUAL(fetch("stored", 3, 0), 0);
    frames_expect_member(idefix_world->get_data, "/cid", "\"stored\"");
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->logins), 1);
    rig_close();
}

/* Answers at once without news are not asked for more than once a second. */
static void test_pace(void)
{
    idefix_fixture_begin();
    rig_open();
    atomic_store(&idefix_world->get, GET_EMPTY);
    uint64_t begin_ms = until_clock_ms();
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(fetch("c", 100, 60000), 0);
        CU_ASSERT_EQUAL(rig.page.count, 0);
    }
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms >= 1900 && until_clock_ms() - begin_ms < 4000);
    atomic_store(&idefix_world->get, GET_ERROR);
    strcpy(idefix_world->error, "[7] Timeout");
    begin_ms = until_clock_ms();
    CU_ASSERT_EQUAL(fetch("c", 100, 60000), 0);
    CU_ASSERT_EQUAL(fetch("c", 100, 60000), 0);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms >= 1000);
    /* an abort ends the pause, and is nothing yet */
    atomic_store(&rig.abort, true);
    begin_ms = until_clock_ms();
    CU_ASSERT_EQUAL(fetch("c", 100, 60000), 0);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 500);
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->gets), 5);
    rig_close();
}

static void test_stuck(void)
{
    idefix_fixture_begin();
    rig_open();
    atomic_store(&idefix_world->get, GET_FULL);
    CU_ASSERT_EQUAL(fetch(NULL, 5, 60000), 0);
    CU_ASSERT_TRUE(rig.page.more);
    CU_ASSERT_EQUAL(fetch("start", 5, 60000), 0);
    CU_ASSERT_EQUAL(rig.page.count, 5); /* handed on, this once */
    CU_ASSERT_FALSE(rig.page.more);
    CU_ASSERT_EQUAL(fetch("start", 5, 60000), EP_EPROTO);
    CU_ASSERT_EQUAL(rig.page.count, 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "with the cid \"start\""));
    rig_close();
}

static void refuse_with(const char *error)
{
    atomic_store(&idefix_world->get, GET_ERROR);
    strcpy(idefix_world->error, error);
}

static void test_retry(void)
{
    idefix_fixture_begin();
    rig_open();
    atomic_store(&idefix_world->login, LOGIN_REFUSED);
    CU_ASSERT_TRUE(fails(EP_EAUTH, RETRY_MAX_MS, RETRY_MAX_MS));
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "token of account user-1"));
    CU_ASSERT_PTR_NULL(strstr(rig.failure.error.message, "hush"));
    atomic_store(&idefix_world->login, LOGIN_OK);
    refuse_with("[5] Permission denied");
    CU_ASSERT_TRUE(fails(EP_EAUTH, RETRY_MAX_MS, RETRY_MAX_MS));
    refuse_with("[208] Domain not found");
    CU_ASSERT_TRUE(fails(EP_ECONFIG, 0, 0));
    refuse_with("[2] Internal");
    CU_ASSERT_TRUE(fails(EP_EBACKEND, 0, 0));
    refuse_with("[102] Invalid session");
    CU_ASSERT_TRUE(fails(EP_EBACKEND, 300, 700));
    CU_ASSERT_TRUE(fails(EP_EBACKEND, 750, 1250)); /* twice in a row: retry.min, and a quarter around it */
    atomic_store(&idefix_world->get, GET_PAGE);
    CU_ASSERT_TRUE(probes());
    rig_close();
}

/* A page that cannot be read is asked for in smaller pieces. */
static void test_halving(void)
{
    static const char *const limits[] = {"100", "50", "25", "12", "6", "3", "1", "1"};
    idefix_fixture_begin();
    rig_open();
    atomic_store(&idefix_world->get, GET_GARBAGE);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        CU_ASSERT_TRUE(fails(EP_EPROTO, 0, 0));
        frames_expect_member(idefix_world->get_data, "/limit", limits[i]);
    }
    atomic_store(&idefix_world->get, GET_PAGE);
    static const char *const back[] = {"1", "2", "4", "8", "16", "32", "64", "100"};
    for (size_t i = 0; i < sizeof back / sizeof back[0]; i++) {
        CU_ASSERT_EQUAL(fetch("c", 100, 0), 0);
        frames_expect_member(idefix_world->get_data, "/limit", back[i]);
    }
    rig_close();
}

static void test_outage(void)
{
    idefix_fixture_begin();
    rig_open();
    CU_ASSERT_EQUAL(fetch(NULL, 100, 0), 0);
    atomic_store(&idefix_world->get, GET_CUT);
    CU_ASSERT_TRUE(fails(EP_EBACKEND, 300, 700));
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "lost"));
    idefix_fixture_stop(&idefix_fixture.broker);
    idefix_fixture_stop(&idefix_fixture.backend);
    for (int i = 0; i < 5; i++)
        CU_ASSERT_TRUE(fails(EP_EBACKEND, 300, 700)); /* unreachable: it is away */
    idefix_fixture_begin();
    CU_ASSERT_TRUE(probes());
    CU_ASSERT_EQUAL(rig.page.count, 3);
    CU_ASSERT_EQUAL(fetch("c", 100, 60000), 0);
    frames_expect_member(idefix_world->get_data, "/timeout", "\"1m0s\"");
    for (int i = 0; i < 2; i++) { /* two losses in a row, the second less soon */
        atomic_store(&idefix_world->get, GET_CUT);
        CU_ASSERT_TRUE(fails(EP_EBACKEND, i == 0 ? 300 : 750, i == 0 ? 700 : 1250));
        idefix_fixture_stop(&idefix_fixture.broker);
        idefix_fixture_stop(&idefix_fixture.backend);
        idefix_fixture_begin();
    }
    rig_close();
}

static void on_signal(int number)
{
    (void)number;
    atomic_store(&rig.abort, true);
    ops()->interrupt(rig.state);
}

static void test_interrupt(void)
{
    struct sigaction action = {.sa_handler = on_signal}, before;
    idefix_fixture_begin();
    rig_open();
    sigaction(SIGUSR1, &action, &before);
    atomic_store(&idefix_world->get, GET_SIGNAL);
    uint64_t begin_ms = until_clock_ms();
    CU_ASSERT_EQUAL(fetch("c", 100, 60000), 0);
    CU_ASSERT_EQUAL(rig.page.count, 0);
    CU_ASSERT_PTR_NULL(rig.page.cursor);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 2000);
    sigaction(SIGUSR1, &before, NULL);
    rig_close();
}

IDEFIX_MAIN("source_idefix", {"opening", test_open}, {"which cursor", test_cursor}, {"pauses", test_pace},
            {"a cursor that does not move", test_stuck}, {"when to try again", test_retry},
            {"unreadable pages", test_halving}, {"outages", test_outage}, {"interruption", test_interrupt})
