/* SPDX-License-Identifier: MIT */
/* The http source: what is wrong with an answer is said, and survived. */
#include <signal.h>
#include <sys/wait.h>

#include "tests/lib/http_rig.h"

/* ---- failures ---- */

/* The next poll misbehaves so; it must fail so, with a message that has these texts, and the one after that
 * must be well again. */
static void expect_failure(struct http_rig *rig, const char *mode, int code, const char *error)
{
    http_rig_control(rig, mode);
    int result = http_rig_fetch(rig, 100, 200);
    bool right = result == code && strstr(rig->failure.error.message, error) != NULL &&
                 rig->failure.error.code == code;

    CU_ASSERT_TRUE(right);
    if (!right)
        printf("\n    %s: %d %s\n", mode, result, rig->failure.error.message);
    CU_ASSERT_PTR_NULL(strstr(rig->failure.error.message, "secret"));
    CU_ASSERT_EQUAL(http_rig_fetch(rig, 100, 1000), 0);
    CU_ASSERT_EQUAL(rig->page.count, 7);
    free(rig->cursor);
    rig->cursor = NULL;
}

static void tells_what_is_wrong_with_an_answer(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/array?since={cursor}&limit={limit}&timeout={timeout}&key=secret");
    rig.config.http.cursor_last_event_path = "/id";
    rig.config.http.interval_ms = 0;
    rig.config.http.token = "secret";
    expect_failure(&rig, "mode=notjson", EP_EPROTO,
                   "/array: the answer is not JSON at byte 0 of 47: <html><body>Gateway [31m problem");
    expect_failure(&rig, "mode=empty", EP_EPROTO, "the answer is empty");
    expect_failure(&rig, "mode=cutjson", EP_EPROTO, "the answer is cut off after byte ");
    expect_failure(&rig, "mode=cutoff", EP_EPROTO, "the answer was cut off after ");
    expect_failure(&rig, "mode=toobig&value=1048577", EP_EPROTO, "answer larger than 1 MiB");
    expect_failure(&rig, "mode=gzipbomb&value=9000000", EP_EPROTO, "answer larger than 1 MiB");
    expect_failure(&rig, "mode=close&count=2", EP_EBACKEND, "Empty reply");
    expect_failure(&rig, "mode=deny", EP_EAUTH, "the backend refuses the login: 401 Unauthorized");
    expect_failure(&rig, "mode=forbid", EP_EAUTH, "the backend refuses the login: 403 Forbidden");
    expect_failure(&rig, "mode=missing", EP_EAUTH,
                   "the backend refuses the request: 404 Not Found: {\"error\":\"as\\nyou wish\"}");
    expect_failure(&rig, "mode=fail", EP_EBACKEND, "the backend failed: 500 Internal Server Error");
    expect_failure(&rig, "mode=redirect&count=6&value=/array", EP_EBACKEND, "more than 5 redirects");
    expect_failure(&rig, "mode=redirect&value=file%3A%2F%2F%2Fetc%2Fpasswd", EP_EPROTO, "rotocol");
    CU_ASSERT_EQUAL(rig.failure.retry_after_ms, 0);
    http_rig_close(&rig);
}

static void follows_a_few_redirects(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/array?since={cursor}");
    http_rig_control(&rig, "mode=redirect&count=5&value=/array");
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 100, 200), 0);
    CU_ASSERT_EQUAL(rig.page.count, 7);
    http_rig_close(&rig);
}

static void heeds_retry_after(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/array");
    http_rig_control(&rig, "mode=limit&value=7");
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 100), EP_EBACKEND);
    CU_ASSERT_EQUAL(rig.failure.retry_after_ms, 7000);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "429 Too Many Requests"));
    http_rig_control(&rig, "mode=limitdate&value=100");
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 100), EP_EBACKEND);
    CU_ASSERT_TRUE(rig.failure.retry_after_ms > 90000 && rig.failure.retry_after_ms <= 100000);
    http_rig_control(&rig, "mode=unavailable&value=3");
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 100), EP_EBACKEND);
    CU_ASSERT_EQUAL(rig.failure.retry_after_ms, 3000);
    http_rig_control(&rig, "mode=limit&value=-5");
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 100), EP_EBACKEND);
    CU_ASSERT_EQUAL(rig.failure.retry_after_ms, 0);
    http_rig_close(&rig);
}

static void gives_up_on_silence_and_slowness(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/array?since={cursor}");
    rig.config.http.interval_ms = 0;
    rig.config.http.connect_timeout_ms = 50; /* so: silence ends after wait + 50 ms, all after wait + 1.5 s */
    expect_failure(&rig, "mode=silent", EP_EBACKEND, "the backend was silent for ");
    expect_failure(&rig, "mode=stall", EP_EBACKEND, "the backend was silent for ");
    expect_failure(&rig, "mode=slow&value=0.05", EP_EBACKEND, "the answer is too slow: ");
    http_rig_control(&rig, "mode=slow&value=0.001");
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 100, 200), 0); /* slow, but in time */
    CU_ASSERT_EQUAL(rig.page.count, 7);
    http_rig_close(&rig);
}

static void survives_an_absent_backend(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/array?token=secret");
    kill(rig.feed.pid, SIGKILL);
    waitpid(rig.feed.pid, NULL, 0);
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 100), EP_EBACKEND);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "/array: Failed to connect to 127.0.0.1 port"));
    CU_ASSERT_PTR_NULL(strstr(rig.failure.error.message, "secret"));
    rig.feed.pid = fork(); /* something for feed_stop to end */
    if (rig.feed.pid == 0)
        _exit(0);
    http_rig_close(&rig);
}

static void says_when_the_answer_has_another_shape(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/fixed?body=%7B%22ok%22:false,%22description%22:%22no%22%7D");
    rig.config.http.events = "/result";
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), EP_EPROTO);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message,
                                  "no array of events at /result: {\"ok\":false,\"description\":\"no\"}"));
    rig.config.http.events = "";
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), EP_EPROTO);
    http_rig_close(&rig);

    http_rig_open(&rig, "/fixed?body=%7B%22e%22:null,%22c%22:null%7D"); /* an empty list, as some write it */
    rig.config.http.events = "/e";
    rig.config.http.cursor_path = "/c";
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), 0);
    CU_ASSERT_EQUAL(rig.page.count, 0);
    CU_ASSERT_PTR_NULL(rig.page.cursor);
    http_rig_control(&rig, "mode=nocontent");
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), 0);
    http_rig_close(&rig);
}

static void refuses_a_cursor_it_cannot_count_on(void)
{
    struct http_rig rig;

    http_rig_open(&rig, "/fixed?body=%5B%7B%22id%22:%22abc%22%7D%5D");
    rig.config.http.cursor_last_event_path = "/id";
    rig.config.http.cursor_increment = 1;
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), EP_EPROTO);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "\"abc\" is not an integer"));
    http_rig_close(&rig);
    http_rig_open(&rig, "/fixed?body=%5B%7B%22id%22:9223372036854775807%7D%5D");
    rig.config.http.cursor_last_event_path = "/id";
    rig.config.http.cursor_increment = 1;
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), EP_EPROTO);
    rig.config.http.cursor_increment = 0;
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), 0);
    http_rig_expect(&rig, 1, "9223372036854775807");
    /* the same full page over and over: its events are handed on, and each second time it is reported */
    rig.config.http.interval_ms = 0;
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), 0);
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), EP_EPROTO);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig.failure.error.message, "with the cursor \"9223372036854775807\""));
    CU_ASSERT_EQUAL(http_rig_fetch(&rig, 1, 0), 0);
    CU_ASSERT_EQUAL(rig.page.count, 1);
    http_rig_close(&rig);
}

int main(void)
{
    const struct unit_case cases[] = {
        {"tells what is wrong with an answer", tells_what_is_wrong_with_an_answer},
        {"follows a few redirects", follows_a_few_redirects},
        {"heeds Retry-After", heeds_retry_after},
        {"gives up on silence and slowness", gives_up_on_silence_and_slowness},
        {"survives an absent backend", survives_an_absent_backend},
        {"says when the answer has another shape", says_when_the_answer_has_another_shape},
        {"refuses a cursor it cannot count on", refuses_a_cursor_it_cannot_count_on},
    };

    return http_rig_run("source_http_failures", cases, sizeof cases / sizeof cases[0]);
}
