/* SPDX-License-Identifier: MIT */
/* The http source: shapes of feeds, pace, stopping, URL templates. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/lib/http_rig.h"

/* ---- shapes ---- */

static void reads_couchdb_changes(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/couchdb/_changes?feed=longpoll&since={cursor}&limit={limit}&timeout={timeout_ms}");
    rig.config.http.events = "/results";
    rig.config.http.cursor_path = "/last_seq";
    rig.config.pointers.uid = "/id";
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 3, 1000), 0);
    http_rig_expect(&rig, 3, "3");
    CU_ASSERT_TRUE(rig.page.more);
    CU_ASSERT_STRING_EQUAL(rig.page.events[1].uid, "doc-2");
    CU_ASSERT_TRUE(http_rig_event_holds(&rig, 0, "\"doc\":{\"n\":1,\"big\":9007199254740993}}"));
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 5, 1000), 0);
    http_rig_expect(&rig, 4, "7");
    CU_ASSERT_FALSE(rig.page.more);
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 5, 30), 0);
    http_rig_expect(&rig, 0, "7");
    http_rig_close(&rig);
}

static void reads_couchdb_sequences_that_are_no_numbers(void)
{
    static const char *const forms[] = {"string", "array"}, *const cursors[] = {"4-g1AAA/+==",
                                                                                "[4,\"g1AAA==\"]"};

    for (size_t i = 0; i < 2; i++) {
        struct http_rig rig;
        char url[128];
        snprintf(url, sizeof url, "/couchdb/_changes?since={cursor}&limit={limit}&form=%s", forms[i]);
        http_rig_open(&rig, url);
        rig.config.http.events = "/results";
        rig.config.http.cursor_path = "/last_seq";
        CU_ASSERT_EQUAL(http_rig_fetch(&rig, 4, 1000), 0);
        http_rig_expect(&rig, 4, cursors[i]);
        CU_ASSERT_EQUAL(http_rig_fetch(&rig, 4, 1000), 0);
        CU_ASSERT_EQUAL(rig.page.count, 3);
        CU_ASSERT_TRUE(
            feed_saw(&rig.feed, i == 0 ? "since=4-g1AAA%2F%2B%3D%3D" : "since=%5B4%2C%22g1AAA%3D%3D%22%5D"));
        http_rig_close(&rig);
    }
}

static void reads_telegram_updates(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/telegram/getUpdates?offset={cursor}&limit={limit}&timeout={timeout}");
    rig.config.http.events = "/result";
    rig.config.http.cursor_last_event_path = "/update_id";
    rig.config.http.cursor_increment = 1;
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 5, 1000), 0);
    http_rig_expect(&rig, 5, "6");
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 5, 1000), 0);
    http_rig_expect(&rig, 2, "8");
    CU_ASSERT_TRUE(feed_saw(&rig.feed, "offset=6&limit=5&timeout=1\""));
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 5, 0), 0);
    http_rig_expect(&rig, 0, "8");
    http_rig_close(&rig);
}

static void reads_a_bare_array(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/array?since={cursor}&limit={limit}&timeout={timeout}&from={since}");
    rig.config.http.cursor_last_event_path = "/id";
    rig.config.http.cursor_initial = "2";
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 3, 1000), 0);
    http_rig_expect(&rig, 3, "5");
    CU_ASSERT_TRUE(feed_saw(&rig.feed, "since=2&limit=3&timeout=1&from=2026-01-02T03%3A04%3A05%2B01%3A00"));
    rig.config.continuation_id = "6";
    free(rig.cursor);
    rig.cursor = NULL;
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 3, 1000), 0);
    http_rig_expect(&rig, 1, "7");
    http_rig_close(&rig);
}

static void reads_named_members_and_any_json(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/object?after={cursor}&limit={limit}&timeout={timeout}");
    rig.config.http.events = "/data/events";
    rig.config.http.cursor_path = "/meta/next";
    rig.config.pointers.uid = "/n";
    http_rig_control(&rig, "mode=pretty&count=1");
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 2, 1000), 0);
    http_rig_expect(&rig, 2, "c:2");
    CU_ASSERT_STRING_EQUAL(rig.page.events[0].uid, "1");
    http_rig_control(&rig, "mode=gzip&count=1");
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 10, 1000), 0);
    http_rig_expect(&rig, 5, "c:7");
    CU_ASSERT_TRUE(http_rig_event_holds(&rig, 0, "\"payload\":{\"n\":3,\"s\":\"\\u00e9\"}}"));
    CU_ASSERT_TRUE(http_rig_event_holds(&rig, 1, "\"payload\":4}"));
    CU_ASSERT_TRUE(http_rig_event_holds(&rig, 3, "\"payload\":null}"));
    for (size_t i = 0; i < 5; i++)
        CU_ASSERT_EQUAL(rig.page.events[i].dead, STORE_REASON_NONE);
    http_rig_close(&rig);
}

static void keeps_the_bytes_and_sets_a_bad_element_aside(void)
{
    struct http_rig rig;

    http_rig_open(
        &rig,
        "/fixed?body=%5B%7B%22id%22:%7B%7D,%22c%22:1%7D,%20%7B%20%22id%22:%20%22b%22%20,%22x%22:1.50%7D%5D");
    rig.config.pointers.uid = "/id";
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 10, 0), 0);
    CU_ASSERT_EQUAL_FATAL(rig.page.count, 2);
    CU_ASSERT_EQUAL(rig.page.events[0].dead, STORE_REASON_CORRUPT);
    CU_ASSERT_STRING_EQUAL(rig.page.events[0].data, "{\"id\":{},\"c\":1}");
    CU_ASSERT_STRING_EQUAL(rig.page.events[1].data,
                           "{\"uid\":\"b\",\"payload\":{ \"id\": \"b\" ,\"x\":1.50}}");
    http_rig_close(&rig);
}

static void sends_headers_and_token(void)
{
    struct http_rig rig;
    char *headers[] = {"X-Feed: blue", NULL};

    http_rig_open(&rig, "/array?since={cursor}");
    source_http_ops.close(rig.state);
    rig.config.http.headers = (struct strings){headers, 1};
    rig.config.http.token = "t0ps3cret";
    CU_ASSERT_EQUAL_FATAL(source_http_ops.open(&rig.config, &rig.state, NULL), 0);
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 3, 1000), 0);
    CU_ASSERT_TRUE(feed_saw(&rig.feed, "\"X-Feed\": \"blue\""));
    CU_ASSERT_TRUE(feed_saw(&rig.feed, "\"Authorization\": \"Bearer t0ps3cret\""));
    /* the same server by another name is another origin: nothing secret goes there */
    char redirect[128];
    snprintf(redirect, sizeof redirect,
             "mode=redirect&count=1&value=http%%3A%%2F%%2Flocalhost%%3A%d%%2Farray", rig.feed.port);
    http_rig_control(&rig, redirect);
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 3, 1000), 0);
    CU_ASSERT_EQUAL(rig.page.count, 7);
    CU_ASSERT_FALSE(feed_saw(&rig.feed, "blue"));
    CU_ASSERT_FALSE(feed_saw(&rig.feed, "t0ps3cret"));
    http_rig_close(&rig);
}

/* ---- pace and stopping ---- */

static void long_polls_until_there_is_something(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/array?since={cursor}&timeout={timeout}");
    rig.config.http.cursor_last_event_path = "/id";
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 100, 60000), 0);
    pid_t adder = fork();
    if (adder == 0) {
        while (feed_number(&rig.feed, "/held") != 1)
            ;
        feed_send(&rig.feed, "add", "{\"n\":8}\n", NULL);
        _exit(0);
    }
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 100, 60000), 0);
    http_rig_expect(&rig, 1, "8");
    waitpid(adder, NULL, 0);
    http_rig_close(&rig);
}

static void paces_a_feed_that_does_not_wait(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/fixed?body=%5B%5D");
    rig.config.http.interval_ms = 60;
    uint64_t start = http_rig_now_ms(CLOCK_MONOTONIC);
    for (int i = 0; i < 6; i++)
        CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 1000), 0);
    CU_ASSERT_TRUE(http_rig_now_ms(CLOCK_MONOTONIC) - start >= 5 * 60);
    CU_ASSERT_EQUAL(feed_number(&rig.feed, "/polls"), 6);
    http_rig_close(&rig);
}

static void *run_fetch(void *user)
{
    http_rig_fetch(user, 100, 60000);
    return NULL;
}

static void waits_without_waking_and_stops_at_once(void)
{
    struct http_rig rig;
    pthread_t thread;
    struct rusage before, after;
    struct timespec while_idle = {0, 300000000};

    http_rig_open(&rig, "/array?since=7&timeout={timeout}");
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, run_fetch, &rig), 0);
    while (feed_number(&rig.feed, "/held") != 1)
        ;
    getrusage(RUSAGE_SELF, &before);
    nanosleep(&while_idle, NULL); /* what is measured is this time itself */
    getrusage(RUSAGE_SELF, &after);
    CU_ASSERT_TRUE(after.ru_nvcsw - before.ru_nvcsw <= 3);
    uint64_t start = http_rig_now_ms(CLOCK_MONOTONIC);
    atomic_store(&rig.abort, true);
    source_http_ops.interrupt(rig.state);
    pthread_join(thread, NULL);
    CU_ASSERT_TRUE(http_rig_now_ms(CLOCK_MONOTONIC) - start < 30000); /* not the 60 s it would have waited */
    CU_ASSERT_EQUAL(rig.page.count, 0);

    /* interrupted while it waits for its turn */
    atomic_store(&rig.abort, false);
    rig.url[strlen(rig.url) - strlen("{timeout}")] = '0';
    rig.url[strlen(rig.url) - strlen("{timeout}") + 1] = '\0';
    rig.config.http.interval_ms = 60000;
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), 0);
    start = http_rig_now_ms(CLOCK_MONOTONIC);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, run_fetch, &rig), 0);
    source_http_ops.interrupt(rig.state);
    pthread_join(thread, NULL);
    CU_ASSERT_TRUE(http_rig_now_ms(CLOCK_MONOTONIC) - start < 30000); /* not the 60 s it would have waited */
    http_rig_close(&rig);
}

/* ---- the template ---- */

static void checks_templates(void)
{
    static const char *const bad[] = {"ftp://h/",         "http://",     "https:///x",         "h/x",
                                      "http://h/{cursr}", "http://h/{",  "http://h/{cursor",   "http://h/}",
                                      "http://h/a b",     "http://h/{}", "http://h/{{cursor}}"};
    struct error error = {0};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CU_ASSERT_EQUAL(config_url_check(bad[i], &error), EP_ECONFIG);
    CU_ASSERT_EQUAL(config_url_check("http://h/{cursr}?{limit}", &error), EP_ECONFIG);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "unknown placeholder {cursr}"));
    CU_ASSERT_EQUAL(config_url_check("HTTPS://h:1/{cursor}?l={limit}&t={timeout}&m={timeout_ms}&s={since}",
                                     &error),
                    0);

    char *url = config_url_fill("http://h/{cursor}?l={limit}&t={timeout}&m={timeout_ms}&s={since}&c={cursor}",
                                &(struct http_url_values){.cursor = "a/b c~\xC3\xA9",
                                                          .limit = 7,
                                                          .timeout_ms = 1001});
    CU_ASSERT_STRING_EQUAL(url, "http://h/a%2Fb%20c~%C3%A9?l=7&t=2&m=1001&s=&c=a%2Fb%20c~%C3%A9");
    free(url);
}

static void hides_secrets_of_urls(void)
{
    char shown[128];

    config_url_write_public("https://u:p@api.example:8443/a/b?token=x#y", shown, sizeof shown);
    CU_ASSERT_STRING_EQUAL(shown, "https://api.example:8443/a/b");
    config_url_write_public(
        "https://api.example/bot123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11/getUpdates?offset=1", shown,
        sizeof shown);
    CU_ASSERT_STRING_EQUAL(shown, "https://api.example/***/getUpdates");
    config_url_write_public("http://p@ss@h", shown, sizeof shown);
    CU_ASSERT_STRING_EQUAL(shown, "http://h");
}

static void refuses_a_wrong_configuration(void)
{
    struct error error = {0};
    void *state = NULL;
    char *header[] = {"X-Split: a\r\nX-Other: b", NULL};
    struct source_config config = {.id = "test", .type = SOURCE_HTTP};

    CU_ASSERT_EQUAL(source_http_ops.open(&config, &state, &error), EP_ECONFIG);
    config.http.url = "http://h/{what}";
    CU_ASSERT_EQUAL(source_http_ops.open(&config, &state, &error), EP_ECONFIG);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "source test: unknown placeholder {what}"));
    config.http.url = "http://h/";
    config.http.headers = (struct strings){header, 1};
    CU_ASSERT_EQUAL(source_http_ops.open(&config, &state, &error), EP_ECONFIG);
    config.http.headers.count = 0;
    config.http.token = "a\nb";
    CU_ASSERT_EQUAL(source_http_ops.open(&config, &state, &error), EP_ECONFIG);
    config.http.token = NULL;
    config.http.ca_file = "/no/such/file";
    CU_ASSERT_EQUAL(source_http_ops.open(&config, &state, &error), EP_ECONFIG);
    CU_ASSERT_PTR_NULL(state);
}

int main(void)
{
    const struct unit_case cases[] = {
        {"reads CouchDB's _changes", reads_couchdb_changes},
        {"reads CouchDB's sequences that are no numbers", reads_couchdb_sequences_that_are_no_numbers},
        {"reads Telegram's getUpdates", reads_telegram_updates},
        {"reads a bare array", reads_a_bare_array},
        {"reads named members, pretty or compressed", reads_named_members_and_any_json},
        {"keeps the bytes, and sets a bad element aside", keeps_the_bytes_and_sets_a_bad_element_aside},
        {"sends headers and token, to their origin only", sends_headers_and_token},
        {"long-polls until there is something", long_polls_until_there_is_something},
        {"paces a feed that does not wait", paces_a_feed_that_does_not_wait},
        {"waits without waking, and stops at once", waits_without_waking_and_stops_at_once},
        {"checks templates", checks_templates},
        {"hides the secrets of URLs", hides_secrets_of_urls},
        {"refuses a wrong configuration", refuses_a_wrong_configuration},
    };

    return http_rig_run("source_http", cases, sizeof cases / sizeof cases[0]);
}
