/* SPDX-License-Identifier: MIT */
/* The library's Idefix client against a backend that behaves, and one that does not; over a real broker. */
#include "tests/lib/idefix_fixture.h"
#include "tests/lib/idefix_frames.h"

/* ---- what the backend sees */

struct comparison {
    const char *ours;
    size_t count;
};

/* Same key, same value; of the time only that it is a whole number. */
static int compare_member(struct json_span key, struct json_span value, void *user)
{
    struct comparison *comparison = user;
    char pointer[64], expected[256], *name = json_text(key);

    snprintf(pointer, sizeof pointer, "/%s", name);
    snprintf(expected, sizeof expected, "%.*s", (int)value.bytes, value.at);
    struct json_span ours;
    int64_t number;
    if (strcmp(name, "time") == 0) {
        CU_ASSERT_TRUE(json_find(frames_span(comparison->ours), pointer, &ours) && json_int64(ours, &number));
        CU_ASSERT_TRUE(json_int64(value, &number));
    } else {
        frames_expect_member(comparison->ours, pointer, expected);
    }
    comparison->count++;
    free(name);
    return 0;
}

static void expect_same(const char *ours, const char *theirs)
{
    struct comparison comparison = {.ours = ours};

    CU_ASSERT_EQUAL(json_each_member(frames_span(theirs), compare_member, &comparison), 0);
    CU_ASSERT_EQUAL(comparison.count, frames_member_count(ours, ""));
}

/* The data of the nth request of a captured session, or what it is known to be. */
static char *captured_data(const char *encoding, unsigned nth, const char *known)
{
    FILE *file = frames_captured_open();
    struct captured frame;
    char session[16], *data = NULL;

    if (file == NULL)
        return strdup(known);
    snprintf(session, sizeof session, "sess%s", encoding);
    while (data == NULL && frames_captured_next(file, &frame)) {
        struct idefix_message message = {0};
        struct error error = {0};
        if (strcmp(frame.session, session) == 0 && frame.direction == 't' && nth-- == 0) {
            CU_ASSERT_EQUAL_FATAL(idefix_message_decode(frame.flags, frame.body, frame.bytes, FRAME_LIMIT,
                                                        &message, &error),
                                  0);
            data = frames_data_json(&message);
        }
        idefix_message_free(&message);
        free(frame.body);
    }
    fclose(file);
    CU_ASSERT_PTR_NOT_NULL_FATAL(data);
    return data;
}

static void expect_envelope(const char *to, const char *flags)
{
    CU_ASSERT_STRING_EQUAL(idefix_world->to, to);
    CU_ASSERT_EQUAL(idefix_world->flags[0], flags[0]);
    CU_ASSERT_EQUAL(strlen(idefix_world->reply), 16);
    CU_ASSERT_EQUAL(strspn(idefix_world->reply, "0123456789abcdef"), 16);
}

static void requests_of(const char *encoding)
{
    char known[300];
    ep_idefix *client =
        idefix_fixture_client((struct ep_idefix_params){.encoding = encoding, .meta = "{\"app\":\"vec\"}"});
    struct ep_idefix_page *page = NULL;
    const struct ep_idefix_query first = {.domain = "acme",
                                          .address = "device-001",
                                          .event_type = "temperature",
                                          .since = "2026-01-01T00:00:00Z",
                                          .wait_ms = 60000},
                                 second = {.domain = "acme",
                                           .since = "2026-01-01T00:00:00Z",
                                           .cursor = "end",
                                           .limit = 100,
                                           .wait_ms = 1500};

    CU_ASSERT_EQUAL_FATAL(ep_idefix_events_get(client, &first, &page), EP_OK);
    ep_idefix_page_free(&page);
    snprintf(known, sizeof known,
             "{\"address\":\"user-1\",\"encoding\":\"%s\",\"token\":\"tok\",\"time\":1795000000000,"
             "\"meta\":{\"app\":\"vec\"},\"groups\":null,\"no-create\":false}",
             encoding);
    char *theirs = captured_data(encoding, 0, known);
    expect_same(idefix_world->login_data, theirs);
    free(theirs);
    theirs =
        captured_data(encoding, 1,
                      "{\"domain\":\"acme\",\"address\":\"device-001\",\"type\":\"temperature\",\"since\":"
                      "\"2026-01-01T00:00:00Z\",\"limit\":100,\"timeout\":\"1m0s\"}");
    expect_same(idefix_world->get_data, theirs);
    free(theirs);
    expect_envelope("idefix.events.get", encoding);
    CU_ASSERT_EQUAL(strlen(idefix_world->session), 16);
    CU_ASSERT_EQUAL_FATAL(ep_idefix_events_get(client, &second, &page), EP_OK);
    ep_idefix_page_free(&page);
    theirs =
        captured_data(encoding, 2,
                      "{\"domain\":\"acme\",\"since\":\"1970-01-01T00:00:00Z\",\"cid\":\"end\",\"limit\":100,"
                      "\"timeout\":\"1.5s\"}");
    expect_same(idefix_world->get_data, theirs);
    free(theirs);
    ep_idefix_close(&client);
}

static void test_requests(void)
{
    idefix_fixture_begin();
    requests_of("mg");
    requests_of("m");
    requests_of("jg");
    requests_of("j");
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->logins), 4);
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->gets), 8);
}

static void test_login_options(void)
{
    static const char *const groups[] = {"one", "t\"wo", NULL};
    idefix_fixture_begin();
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){
        .encoding = "j", .groups = groups, .session = "my-session", .account = "a\"b"});
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    frames_expect_member(idefix_world->login_data, "/groups", "[\"one\",\"t\\\"wo\"]");
    frames_expect_member(idefix_world->login_data, "/address", "\"a\\\"b\"");
    frames_expect_member(idefix_world->login_data, "/meta", "null");
    CU_ASSERT_STRING_EQUAL(idefix_world->session, "my-session");
    ep_idefix_close(&client);
}

/* ---- answers */

static void test_page(void)
{
    idefix_fixture_begin();
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){.encoding = "m"});
    struct ep_idefix_page *page = NULL;
    CU_ASSERT_EQUAL_FATAL(ep_idefix_events_get(client, &(struct ep_idefix_query){.domain = "acme"}, &page),
                          EP_OK);
    ep_idefix_close(&client); /* the page stays */
    CU_ASSERT_EQUAL_FATAL(page->count, 3);
    CU_ASSERT_STRING_EQUAL(page->cursor, "c-3");
    CU_ASSERT_STRING_EQUAL(page->events[0].uid, "e-1");
    CU_ASSERT_STRING_EQUAL(page->events[0].address, "device-001");
    CU_ASSERT_STRING_EQUAL(page->events[0].type, "temperature");
    CU_ASSERT_PTR_NULL(page->events[0].problem);
    CU_ASSERT_PTR_NOT_NULL(strstr(page->events[0].text, "9007199254740993"));
    CU_ASSERT_EQUAL(strlen(page->events[0].text), page->events[0].text_bytes);
    CU_ASSERT_PTR_NULL(page->events[1].address);
    CU_ASSERT_PTR_NOT_NULL(strstr(page->events[1].text, "\"raw:b64\":\"AAEC\""));
    CU_ASSERT_PTR_NOT_NULL(page->events[2].problem); /* it has no uid */
    ep_idefix_page_free(&page);
    CU_ASSERT_PTR_NULL(page);
    ep_idefix_page_free(&page);
    ep_idefix_page_free(NULL);
}

static void test_nothing_yet(void)
{
    size_t count = 9;
    idefix_fixture_begin();
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){0});
    atomic_store(&idefix_world->get, GET_EMPTY);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, &count), EP_OK);
    CU_ASSERT_EQUAL(count, 0);
    atomic_store(&idefix_world->get, GET_ERROR);
    strcpy(idefix_world->error, "[7] Timeout");
    count = 9;
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, &count), EP_OK);
    CU_ASSERT_EQUAL(count, 0);
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->logins), 1); /* one connection, one login */
    ep_idefix_close(&client);
}

static void test_create(void)
{
    idefix_fixture_begin();
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){0});
    struct ep_event event = {.uid = "n-1",
                             .type = "note",
                             .domain = "acme",
                             .source_id = "probe",
                             .payload = "{\"n\":18446744073709551615,\"raw:b64\":\"AAEC\"}"};
    CU_ASSERT_EQUAL(ep_idefix_event_create(client, &event), EP_OK);
    expect_same(idefix_world->create_data,
                "{\"uid\":\"n-1\",\"domain\":\"acme\",\"sourceId\":\"probe\",\"type\":\"note\","
                "\"meta\":null,\"payload\":{\"n\":18446744073709551615,\"raw:b64\":\"AAEC\"}}");
    event = (struct ep_event){.uid = "n-2", .payload = "{"};
    CU_ASSERT_EQUAL(ep_idefix_event_create(client, &event), EP_EINVAL);
    CU_ASSERT_TRUE(idefix_fixture_says(client, "payload of event n-2 is not valid JSON"));
    event = (struct ep_event){.payload = "1"};
    CU_ASSERT_EQUAL(ep_idefix_event_create(client, &event), EP_EINVAL);
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->creates), 1);
    ep_idefix_close(&client);
}

static void expect_error(ep_idefix *client, const char *error, int code, const char *errbuf)
{
    atomic_store(&idefix_world->get, GET_ERROR);
    strcpy(idefix_world->error, error);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), code);
    CU_ASSERT_TRUE(idefix_fixture_says(client, errbuf));
    CU_ASSERT_TRUE(idefix_fixture_says(client, error));
}

static void test_errors(void)
{
    idefix_fixture_begin();
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){.token = "hush-hush"});
    expect_error(client, "[4] Not authorized", EP_EAUTH, "refuses account user-1");
    expect_error(client, "[201] Invalid token", EP_EAUTH, "refuses the token of account user-1");
    expect_error(client, "[208] Domain not found (acme)", EP_ECONFIG, "setting `domain`");
    expect_error(client, "[209] Address not found", EP_ECONFIG, "setting `address`");
    expect_error(client, "[15] Try again", EP_EBACKEND, "answers events.get with an error");
    expect_error(client, "it just failed", EP_EBACKEND, "answers events.get with an error");
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->logins), 1);
    expect_error(client, "[102] Invalid session", EP_EBACKEND, "no longer accepts the login");
    atomic_store(&idefix_world->get, GET_PAGE);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->logins), 2); /* it logged in again */
    CU_ASSERT_STRING_EQUAL(ep_idefix_errmsg(client), ep_strerror(EP_OK));
    ep_idefix_close(&client);
}

static void test_login_refused(void)
{
    idefix_fixture_begin();
    atomic_store(&idefix_world->login, LOGIN_REFUSED);
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){.token = "hush-hush"});
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_EAUTH);
    CU_ASSERT_TRUE(
        idefix_fixture_says(client,
                            "refuses the token of account user-1 (login): [201] Invalid token (***)"));
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->gets), 0);
    atomic_store(&idefix_world->login, LOGIN_OK);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    ep_idefix_close(&client);
}

static void test_strange_answers(void)
{
    size_t count = 0;
    idefix_fixture_begin();
    atomic_store(&idefix_world->login, LOGIN_TWICE);
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){.response_timeout_ms = 300});
    atomic_store(&idefix_world->get, GET_TWICE);
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, &count), EP_OK);
        CU_ASSERT_EQUAL(count, 3);
    }
    atomic_store(&idefix_world->get, GET_STRANGER);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, &count), EP_OK);
    CU_ASSERT_EQUAL(count, 3);
    atomic_store(&idefix_world->get, GET_KEEP);
    uint64_t begin_ms = until_clock_ms();
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 200, NULL), EP_EBACKEND);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms >= 500);
    CU_ASSERT_TRUE(idefix_fixture_says(client, "nothing answers events.get within 0.5 s"));
    atomic_store(&idefix_world->get, GET_LATE); /* the late one has no events */
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, &count), EP_OK);
    CU_ASSERT_EQUAL(count, 3);
    ep_idefix_close(&client);
}

static void test_malformed(void)
{
    idefix_fixture_begin();
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){.max_bytes = 100000});
    atomic_store(&idefix_world->get, GET_GARBAGE);
    uint64_t begin_ms = until_clock_ms();
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_EPROTO);
    CU_ASSERT_TRUE(idefix_fixture_says(client, "answer to events.get cannot be read"));
    atomic_store(&idefix_world->get, GET_HUGE);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_EPROTO);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 5000);
    ep_idefix_close(&client);
    client = idefix_fixture_client((struct ep_idefix_params){.max_bytes = 100000, .encoding = "j"});
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL),
                    EP_EPROTO); /* not compressed: too large as it came */
    CU_ASSERT_TRUE(idefix_fixture_says(client, "larger than max_bytes"));
    atomic_store(&idefix_world->get, GET_PAGE);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    ep_idefix_close(&client);
}

/* ---- silence */

static void test_login_repeated(void)
{
    idefix_fixture_begin();
    atomic_store(&idefix_world->login, LOGIN_LATER); /* the second is answered: sent after 300 ms */
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){0});
    uint64_t begin_ms = until_clock_ms();
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms < 1000);
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->logins), 2);
    ep_idefix_close(&client);
}

static void test_login_unanswered(void)
{
    idefix_fixture_begin();
    atomic_store(&idefix_world->login, LOGIN_SILENT);
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){0});
    uint64_t begin_ms = until_clock_ms();
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 60000, NULL), EP_EBACKEND);
    CU_ASSERT_TRUE(until_clock_ms() - begin_ms >= 3000 && until_clock_ms() - begin_ms < 5000);
    CU_ASSERT_TRUE(idefix_fixture_says(client, "nothing answers login within 3 s"));
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->logins), 3);
    atomic_store(&idefix_world->login, LOGIN_OK);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    ep_idefix_close(&client);
}

/* Two answers missing in a row: a new connection, seen by its login. */
static void test_silence_reconnects(void)
{
    idefix_fixture_begin();
    ep_idefix *client = idefix_fixture_client((struct ep_idefix_params){.response_timeout_ms = 100});
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    atomic_store(&idefix_world->get, GET_KEEP);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_EBACKEND);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_EBACKEND);
    atomic_store(&idefix_world->get, GET_PAGE);
    CU_ASSERT_EQUAL(idefix_fixture_get(client, 0, NULL), EP_OK);
    CU_ASSERT_EQUAL(atomic_load(&idefix_world->gets), 4);
    ep_idefix_close(&client);
}

static void test_parameters(void)
{
    ep_idefix *client = NULL;
    char errbuf[200];
    const struct ep_idefix_params good = {.broker = "tcp://h", .account = "a"};
    struct ep_idefix_params params = {.account = "a"};

    CU_ASSERT_EQUAL(ep_idefix_open(&params, &client, errbuf, sizeof errbuf), EP_EINVAL);
    CU_ASSERT_EQUAL(ep_idefix_open(NULL, &client, errbuf, sizeof errbuf), EP_EINVAL);
    CU_ASSERT_EQUAL(ep_idefix_open(&good, NULL, NULL, 0), EP_EINVAL);
    params = good;
    params.broker = "http://h";
    CU_ASSERT_EQUAL(ep_idefix_open(&params, &client, errbuf, sizeof errbuf), EP_ECONFIG);
    CU_ASSERT_PTR_NOT_NULL(strstr(errbuf, "expected a broker"));
    params = good;
    params.encoding = "x";
    CU_ASSERT_EQUAL(ep_idefix_open(&params, &client, NULL, 0), EP_ECONFIG);
    params = good;
    params.session = "a/b";
    CU_ASSERT_EQUAL(ep_idefix_open(&params, &client, errbuf, 3), EP_ECONFIG);
    CU_ASSERT_EQUAL(strlen(errbuf), 2);
    params = good;
    params.meta = "[]";
    CU_ASSERT_EQUAL(ep_idefix_open(&params, &client, NULL, 0), EP_ECONFIG);
    params = good;
    params.token_file = "/nonexistent";
    CU_ASSERT_EQUAL(ep_idefix_open(&params, &client, errbuf, sizeof errbuf), EP_EACCESS);
    params = good;
    params.ca_file = "/nonexistent";
    CU_ASSERT_EQUAL(ep_idefix_open(&params, &client, errbuf, sizeof errbuf), EP_EACCESS);
    CU_ASSERT_PTR_NULL(client);
    ep_idefix_close(&client);
    ep_idefix_close(NULL);
    CU_ASSERT_EQUAL_FATAL(ep_idefix_open(&good, &client, errbuf, sizeof errbuf), EP_OK);
    struct ep_idefix_page *page = NULL;
    CU_ASSERT_EQUAL(ep_idefix_events_get(client, &(struct ep_idefix_query){0}, &page), EP_EINVAL);
    CU_ASSERT_TRUE(idefix_fixture_says(client, "neither domain nor address"));
    ep_idefix_close(&client);
    CU_ASSERT_PTR_NULL(client);
}

IDEFIX_MAIN("idefix_client", {"parameters", test_parameters}, {"requests are those captured", test_requests},
            {"options of the login", test_login_options}, {"a page of events", test_page},
            {"nothing yet", test_nothing_yet}, {"creating an event", test_create},
            {"errors of the backend", test_errors}, {"login refused", test_login_refused},
            {"late, doubled and strange answers", test_strange_answers},
            {"malformed answers", test_malformed}, {"login answered at the second try", test_login_repeated},
            {"login never answered", test_login_unanswered}, {"silence reconnects", test_silence_reconnects})
