/* SPDX-License-Identifier: MIT */
/* A library caller's own client as a source: what it is given, what it may add, how it fails. */
#include <stdio.h>

#include "src/source/source.h"
#include "tests/lib/unit.h"

/* A client that writes down what it is called with, and does what the test wants. */
struct double_client {
    int open_code, get_code;
    const char *open_error;
    int (*act)(ep_page *page);
    int opened, closed, got;
    char filter[200], cursor[100];
    uint32_t limit;
    uint64_t wait_ms;
};

static int double_open(void *user, const struct ep_filter *filter, void **session, char *errbuf,
                       size_t errbuf_size)
{
    struct double_client *client = user;

    client->opened++;
    (void)filter;
    if (client->open_error != NULL)
        snprintf(errbuf, errbuf_size, "%s", client->open_error);
    if (client->open_code == 0)
        *session = client;
    return client->open_code;
}

static const char *shown(const char *text)
{
    return text == NULL ? "-" : text;
}

static int double_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                      uint64_t wait_ms, ep_page *page)
{
    struct double_client *client = session;

    client->got++;
    snprintf(client->filter, sizeof client->filter, "%s %s %s %s", shown(filter->domain),
             shown(filter->address), shown(filter->event_type), shown(filter->since));
    snprintf(client->cursor, sizeof client->cursor, "%s", shown(cursor));
    client->limit = limit;
    client->wait_ms = wait_ms;
    if (client->act != NULL)
        return client->act(page);
    return client->get_code;
}

static void double_close(void *session)
{
    ((struct double_client *)session)->closed++;
}

static const struct ep_client whole = {double_open, double_get, double_close, 0};
static const struct ep_client scoped = {double_open, double_get, double_close, 1};
static const struct ep_client bare = {NULL, double_get, NULL, 0};
static const struct ep_client useless = {double_open, NULL, double_close, 0};

struct rig {
    struct double_client client;
    struct source_config config;
    void *state;
    struct page page;
    struct source_failure failure;
    atomic_bool abort;
};

static void rig_open(struct rig *rig, const struct ep_client *table)
{
    memset(rig, 0, sizeof *rig);
    rig->config = (struct source_config){.id = "mine", .type = SOURCE_CLIENT};
    rig->config.client = (struct client_source_config){table, &rig->client};
    source_page_open(&rig->page);
    CU_ASSERT_EQUAL_FATAL(source_client_ops.open(&rig->config, &rig->state, NULL), 0);
}

static void rig_close(struct rig *rig)
{
    source_client_ops.close(rig->state);
    source_page_clear(&rig->page);
}

static int rig_fetch(struct rig *rig, const char *cursor, int (*act)(ep_page *page))
{
    struct fetch fetch = {.cursor = cursor, .limit = 4, .wait_ms = 1234, .abort = &rig->abort};

    source_page_clear(&rig->page);
    rig->failure = (struct source_failure){0};
    rig->client.act = act;
    return source_client_ops.fetch(rig->state, &fetch, &rig->page, &rig->failure);
}

static void passes_filters_cursor_limit_and_wait(void)
{
    struct rig rig;

    rig_open(&rig, &whole);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, NULL), 0);
    CU_ASSERT_STRING_EQUAL(rig.client.filter, "- - - -");
    CU_ASSERT_STRING_EQUAL(rig.client.cursor, "-");
    CU_ASSERT_EQUAL(rig.client.limit, 4);
    CU_ASSERT_EQUAL(rig.client.wait_ms, 1234);
    rig_close(&rig);
    CU_ASSERT_TRUE(rig.client.opened == 1 && rig.client.closed == 1);

    memset(&rig, 0, sizeof rig);
    char domain[] = "dom", address[] = "adr", type[] = "typ", since[] = "2026-01-01T00:00:00Z",
         continuation[] = "c0";
    rig.config = (struct source_config){.id = "mine",
                                        .type = SOURCE_CLIENT,
                                        .domain = domain,
                                        .address = address,
                                        .event_type = type,
                                        .since = since,
                                        .continuation_id = continuation};
    rig.config.client = (struct client_source_config){&scoped, &rig.client};
    CU_ASSERT_EQUAL_FATAL(source_client_ops.open(&rig.config, &rig.state, NULL), 0);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, NULL), 0);
    CU_ASSERT_STRING_EQUAL(rig.client.filter, "dom adr typ 2026-01-01T00:00:00Z");
    CU_ASSERT_STRING_EQUAL(rig.client.cursor, "c0");
    CU_ASSERT_EQUAL(rig_fetch(&rig, "c7", NULL), 0);
    CU_ASSERT_STRING_EQUAL(rig.client.cursor, "c7");
    rig_close(&rig);
}

static void needs_a_scope_when_it_says_so(void)
{
    struct double_client client = {0};
    struct source_config config = {.id = "mine", .type = SOURCE_CLIENT, .client = {&scoped, &client}};
    struct error error = {0};
    char text[] = "x";
    void *state = NULL;

    CU_ASSERT_EQUAL(source_client_ops.open(&config, &state, &error), EP_ECONFIG);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "source mine: neither domain nor address is set"));
    CU_ASSERT_PTR_NULL(state);
    config.address = text;
    CU_ASSERT_EQUAL_FATAL(source_client_ops.open(&config, &state, &error), 0);
    source_client_ops.close(state);
    config.address = NULL;
    config.domain = text;
    CU_ASSERT_EQUAL_FATAL(source_client_ops.open(&config, &state, &error), 0);
    source_client_ops.close(state);
}

static void reports_why_it_cannot_be_opened(void)
{
    struct double_client client = {.open_code = EP_EAUTH, .open_error = "wrong password"};
    struct source_config config = {.id = "mine", .type = SOURCE_CLIENT, .client = {&whole, &client}};
    struct error error = {0};
    void *state = NULL;

    CU_ASSERT_EQUAL(source_client_ops.open(&config, &state, &error), EP_EAUTH);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "wrong password"));
    client.open_code = 5;
    client.open_error = NULL;
    CU_ASSERT_EQUAL(source_client_ops.open(&config, &state, &error), EP_EBACKEND);
    config.client.client = &useless;
    CU_ASSERT_EQUAL(source_client_ops.open(&config, &state, &error), EP_ECONFIG);
    config.client.client = NULL;
    CU_ASSERT_EQUAL(source_client_ops.open(&config, &state, &error), EP_ECONFIG);
    CU_ASSERT_PTR_NULL(state);
    CU_ASSERT_EQUAL(client.closed, 0);
}

static void does_without_open_and_close(void)
{
    struct rig rig;

    rig_open(&rig, &bare);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, NULL), 0);
    CU_ASSERT_EQUAL(rig.client.got, 1); /* the session is the caller's state */
    rig_close(&rig);
}

static int act_add(ep_page *page)
{
    struct ep_event full = {.uid = "u\"1",
                            .source_id = "s",
                            .domain = "d",
                            .address = "a",
                            .type = "t",
                            .timestamp = "2026-01-01T00:00:00Z",
                            .meta = "{\"m\": 1}",
                            .payload = "[9007199254740993]"};
    struct ep_event small = {.uid = "u2"};

    CU_ASSERT_EQUAL(ep_page_add(page, &full), 0);
    CU_ASSERT_EQUAL(ep_page_add(page, &small), 0);
    CU_ASSERT_EQUAL(
        ep_page_add_text(page, "u3",
                         " {\"uid\":\"other\",\"address\":\"a3\",\"type\":\"t3\",\"payload\": 1.50 }"),
        0);
    CU_ASSERT_EQUAL(ep_page_add_text(page, NULL, "{\"uid\":4}"), 0);
    return ep_page_set_cursor(page, "next");
}

static void takes_events_and_the_cursor(void)
{
    struct rig rig;

    rig_open(&rig, &whole);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, act_add), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 4);
    CU_ASSERT_STRING_EQUAL(rig.page.events[0].uid, "u\"1");
    CU_ASSERT_STRING_EQUAL(rig.page.events[0].address, "a");
    CU_ASSERT_STRING_EQUAL(rig.page.events[0].type, "t");
    CU_ASSERT_STRING_EQUAL(
        rig.page.events[0].data,
        "{\"uid\":\"u\\\"1\",\"sourceId\":\"s\",\"domain\":\"d\",\"address\":\"a\",\"type\":\"t\","
        "\"timestamp\":\"2026-01-01T00:00:00Z\",\"meta\":{\"m\": 1},\"payload\":[9007199254740993]}");
    CU_ASSERT_STRING_EQUAL(rig.page.events[1].data, "{\"uid\":\"u2\"}");
    CU_ASSERT_STRING_EQUAL(rig.page.events[2].uid, "u3");
    CU_ASSERT_STRING_EQUAL(rig.page.events[2].address, "a3");
    CU_ASSERT_STRING_EQUAL(rig.page.events[2].type, "t3");
    CU_ASSERT_STRING_EQUAL(rig.page.events[2].data,
                           " {\"uid\":\"other\",\"address\":\"a3\",\"type\":\"t3\",\"payload\": 1.50 }");
    CU_ASSERT_STRING_EQUAL(rig.page.events[3].uid, "4");
    CU_ASSERT_STRING_EQUAL(rig.page.cursor, "next");
    CU_ASSERT_TRUE(rig.page.more); /* as many as were asked for */
    rig_close(&rig);
}

static int act_add_broken(ep_page *page)
{
    struct ep_event nameless = {.payload = "1"}, payload = {.uid = "u1", .payload = "{broken"},
                    meta = {.uid = "u2", .meta = "", .payload = "1"};
    struct ep_event good = {.uid = "u3", .payload = "1"};

    CU_ASSERT_EQUAL(ep_page_add(page, &nameless), 0);
    CU_ASSERT_EQUAL(ep_page_add(page, &payload), 0);
    CU_ASSERT_EQUAL(ep_page_add(page, &meta), 0);
    CU_ASSERT_EQUAL(ep_page_add_text(page, "u4", "{\"a\":01}"), 0);
    CU_ASSERT_EQUAL(ep_page_add_text(page, NULL, "{\"a\":1}"), 0);
    CU_ASSERT_EQUAL(ep_page_add_text(page, "u5", "[1]"), 0);
    CU_ASSERT_EQUAL(ep_page_add(page, &good), 0);
    CU_ASSERT_EQUAL(ep_page_add(page, NULL), EP_EINVAL);
    CU_ASSERT_EQUAL(ep_page_add_text(page, "u", NULL), EP_EINVAL);
    CU_ASSERT_EQUAL(ep_page_set_cursor(page, NULL), EP_EINVAL);
    CU_ASSERT_EQUAL(ep_page_add(NULL, &good), EP_EINVAL);
    return 0;
}

static void sets_undecodable_events_aside(void)
{
    static const char *const error[] = {"the event has no uid",       "its payload is not valid JSON",
                                        "its meta is not valid JSON", "the event is not valid JSON at byte 6",
                                        "the event has no uid",       "the event is not a JSON object"};
    struct rig rig;

    rig_open(&rig, &whole);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, act_add_broken), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 7);
    for (size_t i = 0; i < 6; i++) {
        CU_ASSERT_EQUAL(rig.page.events[i].dead, STORE_REASON_CORRUPT);
        CU_ASSERT_STRING_EQUAL(rig.page.events[i].error, error[i]);
        CU_ASSERT_TRUE(rig.page.events[i].uid[0] != '\0');
    }
    CU_ASSERT_STRING_EQUAL(rig.page.events[1].uid, "u1");
    CU_ASSERT_STRING_EQUAL(rig.page.events[1].data, "{broken");
    CU_ASSERT_EQUAL(rig.page.events[6].dead, STORE_REASON_NONE);
    rig_close(&rig);
}

static int act_fail(ep_page *page)
{
    return ep_page_fail(page, 7000, "no route to %s", "host");
}

static int act_fail_refused(ep_page *page)
{
    ep_page_fail(page, 0, "who are you");
    return EP_EAUTH;
}

static int act_fail_and_forget(ep_page *page)
{
    ep_page_fail(page, 0, "forgotten");
    return 0;
}

static int act_negative(ep_page *page)
{
    (void)page;
    return EP_EPROTO;
}

static int act_odd(ep_page *page)
{
    (void)page;
    return 42;
}

static int act_end(ep_page *page)
{
    struct ep_event last = {.uid = "last"};

    ep_page_add(page, &last);
    return EP_END;
}

static void fails_with_its_own_message(void)
{
    struct rig rig;

    rig_open(&rig, &whole);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, act_fail), EP_EBACKEND);
    CU_ASSERT_EQUAL(rig.failure.error.code, EP_EBACKEND);
    CU_ASSERT_STRING_EQUAL(rig.failure.error.message, "no route to host");
    CU_ASSERT_EQUAL(rig.failure.retry_after_ms, 7000);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, act_fail_refused), EP_EAUTH);
    CU_ASSERT_EQUAL(rig.failure.error.code, EP_EAUTH);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, act_fail_and_forget), EP_EBACKEND);
    CU_ASSERT_STRING_EQUAL(rig.failure.error.message, "forgotten");
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, act_negative), EP_EPROTO);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "events_get function returned -13"));
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, act_odd), EP_EBACKEND);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "events_get function returned 42"));
    rig_close(&rig);
}

static void ends_with_its_last_page(void)
{
    struct rig rig;

    rig_open(&rig, &whole);
    CU_ASSERT_EQUAL(rig_fetch(&rig, NULL, act_end), 0);
    CU_ASSERT_EQUAL(rig.page.count, 1);
    CU_ASSERT_TRUE(rig.page.end);
    rig_close(&rig);
}

static void every_type_has_its_table(void)
{
    CU_ASSERT_PTR_EQUAL(source_ops_for(SOURCE_HTTP), &source_http_ops);
    CU_ASSERT_PTR_EQUAL(source_ops_for(SOURCE_FILE), &source_file_ops);
    CU_ASSERT_PTR_EQUAL(source_ops_for(SOURCE_GENERATE), &source_generate_ops);
    CU_ASSERT_PTR_EQUAL(source_ops_for(SOURCE_CLIENT), &source_client_ops);
    CU_ASSERT_PTR_EQUAL(source_ops_for(SOURCE_IDEFIX), &source_idefix_ops);
    CU_ASSERT_PTR_NULL(source_ops_for(SOURCE_UNKNOWN));
}

UNIT_MAIN("source_client", {"passes filters, cursor, limit and wait", passes_filters_cursor_limit_and_wait},
          {"needs a scope when it says so", needs_a_scope_when_it_says_so},
          {"reports why it cannot be opened", reports_why_it_cannot_be_opened},
          {"does without open and close", does_without_open_and_close},
          {"takes events and the cursor", takes_events_and_the_cursor},
          {"sets undecodable events aside", sets_undecodable_events_aside},
          {"fails with its own message", fails_with_its_own_message},
          {"ends with its last page", ends_with_its_last_page},
          {"every type has its table", every_type_has_its_table})
