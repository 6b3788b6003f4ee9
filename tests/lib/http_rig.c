/* SPDX-License-Identifier: MIT */
/* Starts the feed in a process of its own, and the source that fetches from it. */
#include "tests/lib/http_rig.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

/* ---- the feed ---- */

static void feed_start(struct feed *feed, const char *const *lines, size_t count)
{
    int in[2], out[2];
    char program[512], port[16] = "";
    const char *srcdir = getenv("srcdir");

    snprintf(program, sizeof program, "%s/tests/system/feed_server.py", srcdir == NULL ? "." : srcdir);
    const char *base = getenv("TMPDIR");
    snprintf(feed->path, sizeof feed->path, "%s/eventpipe-feed-XXXXXX", base == NULL ? "/tmp" : base);
    int fd = mkstemp(feed->path);
    CU_ASSERT_FATAL(fd >= 0);
    for (size_t i = 0; i < count; i++)
        dprintf(fd, "%s\n", lines[i]);
    close(fd);
    CU_ASSERT_FATAL(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    feed->pid = fork();
    CU_ASSERT_FATAL(feed->pid >= 0);
    if (feed->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execlp("python3", "python3", program, feed->path, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    feed->input = in[1];
    feed->output = fdopen(out[0], "r");
    CU_ASSERT_FATAL(feed->output != NULL && fgets(port, sizeof port, feed->output) != NULL);
    feed->port = atoi(port);
    CU_ASSERT_FATAL(feed->port > 0);
}

static void feed_stop(struct feed *feed)
{
    close(feed->input);
    fclose(feed->output);
    kill(feed->pid, SIGKILL);
    waitpid(feed->pid, NULL, 0);
    unlink(feed->path);
}

static size_t keep(char *data, size_t size, size_t count, void *user)
{
    base_text_append_bytes(user, data, size * count);
    return size * count;
}

void feed_send(const struct feed *feed, const char *request, const char *post, struct text *said)
{
    char url[512];
    struct text ignored = {0};
    CURL *easy = curl_easy_init();

    snprintf(url, sizeof url, "http://127.0.0.1:%d/%s", feed->port, request);
    base_text_reset(said == NULL ? &ignored : said);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, said == NULL ? &ignored : said);
    if (post != NULL)
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, post);
    CU_ASSERT_EQUAL_FATAL(curl_easy_perform(easy), CURLE_OK);
    curl_easy_cleanup(easy);
    base_text_free(&ignored);
}

int64_t feed_number(const struct feed *feed, const char *pointer)
{
    struct text said = {0};
    struct json_span value;
    int64_t number = -1;

    feed_send(feed, "stats", NULL, &said);
    if (json_find((struct json_span){said.text, said.bytes}, pointer, &value))
        json_int64(value, &number);
    base_text_free(&said);
    return number;
}

bool feed_saw(const struct feed *feed, const char *text)
{
    struct text said = {0};

    feed_send(feed, "stats", NULL, &said);
    bool seen = strstr(said.text, text) != NULL;
    base_text_free(&said);
    return seen;
}

/* ---- the source ---- */

static const char *const seven[] = {"{\"n\":1,\"big\":9007199254740993}",
                                    "{ \"n\" : 2 }",
                                    "{\"n\":3,\"s\":\"\\u00e9\"}",
                                    "4",
                                    "\"five\"",
                                    "null",
                                    "[7]"};

void http_rig_open(struct http_rig *rig, const char *url)
{
    struct error error = {0};

    feed_start(&rig->feed, seven, 7);
    snprintf(rig->url, sizeof rig->url, "http://user:secret@127.0.0.1:%d%s", rig->feed.port, url);
    rig->config =
        (struct source_config){.id = "test", .type = SOURCE_HTTP, .since = "2026-01-02T03:04:05+01:00"};
    rig->config.http = (struct http_source_config){
        .url = rig->url, .events = "", .connect_timeout_ms = 10000, .max_bytes = 1 << 20, .interval_ms = 50};
    source_page_open(&rig->page);
    rig->failure = (struct source_failure){0};
    rig->cursor = NULL;
    atomic_init(&rig->abort, false);
    CU_ASSERT_EQUAL_FATAL(source_http_ops.open(&rig->config, &rig->state, &error), 0);
}

void http_rig_close(struct http_rig *rig)
{
    source_http_ops.close(rig->state);
    source_page_clear(&rig->page);
    free(rig->cursor);
    feed_stop(&rig->feed);
}

int http_rig_fetch(struct http_rig *rig, uint32_t limit, uint64_t wait_ms)
{
    struct fetch fetch = {.cursor = rig->cursor, .limit = limit, .wait_ms = wait_ms, .abort = &rig->abort};

    source_page_clear(&rig->page);
    rig->failure = (struct source_failure){0};
    int code = source_http_ops.fetch(rig->state, &fetch, &rig->page, &rig->failure);
    if (code == 0 && rig->page.cursor != NULL) {
        free(rig->cursor);
        rig->cursor = strdup(rig->page.cursor);
    }
    return code;
}

void http_rig_expect(const struct http_rig *rig, size_t count, const char *cursor)
{
    CU_ASSERT_EQUAL(rig->page.count, count);
    CU_ASSERT_PTR_NOT_NULL_FATAL(rig->cursor);
    CU_ASSERT_STRING_EQUAL(rig->cursor, cursor);
}

bool http_rig_event_holds(const struct http_rig *rig, size_t index, const char *text)
{
    return index < rig->page.count && strstr(rig->page.events[index].data, text) != NULL;
}

void http_rig_control(const struct http_rig *rig, const char *message)
{
    char request[256];

    snprintf(request, sizeof request, "control?%s", message);
    feed_send(&rig->feed, request, NULL, NULL);
}

uint64_t http_rig_now_ms(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int http_rig_run(const char *name, const struct unit_case *cases, size_t count)
{
    setenv("no_proxy", "*", 1);
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int status = unit_run(name, cases, count);
    curl_global_cleanup();
    return status;
}
