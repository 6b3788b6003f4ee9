/* SPDX-License-Identifier: MIT */
/* HTTP stages against a real server, tests/system/collector.py, which answers as it is told. */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/stage_fixture.h"

static char recorded[300]; /* the collector's file */
static int collector_port;
static pid_t collector;
static int collector_input;

static bool collector_start(void)
{
    char program[4200];
    const char *root = getenv("top_srcdir"), *base = getenv("TMPDIR");
    int in[2], out[2];
    snprintf(program, sizeof program, "%s/tests/system/collector.py", root != NULL ? root : ".");
    snprintf(recorded, sizeof recorded, "%s/collected-%d", base != NULL ? base : "/tmp", (int)getpid());
    if (pipe(in) != 0 || pipe(out) != 0)
        return false;
    collector = fork();
    if (collector == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]); /* or it would never see the end of its input */
        execlp("python3", "python3", "-B", program, recorded, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    collector_input = in[1];
    FILE *file = fdopen(out[0], "r");
    bool started = fscanf(file, "%d", &collector_port) == 1;
    fclose(file);
    return started;
}

static bool collector_end(void)
{
    int status = 1;
    close(collector_input);
    waitpid(collector, &status, 0);
    unlink(recorded);
    return status == 0;
}

static size_t keep(char *bytes, size_t size, size_t count, void *user)
{
    base_text_append_bytes(user, bytes, size * count);
    return size * count;
}

/* Sets how the collector answers, or (NULL) asks it what it has seen. Freed by the caller. */
static char *control(const char *behaviour)
{
    struct text answer = {0};
    char url[64];
    CURL *handle = curl_easy_init();
    snprintf(url, sizeof url, "http://127.0.0.1:%d/control", collector_port);
    curl_easy_setopt(handle, CURLOPT_URL, url);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, &answer);
    if (behaviour != NULL)
        curl_easy_setopt(handle, CURLOPT_POSTFIELDS, behaviour);
    CURLcode code = curl_easy_perform(handle);
    curl_easy_cleanup(handle);
    CU_ASSERT_EQUAL(code, CURLE_OK);
    return answer.text;
}

static void behave(const char *behaviour)
{
    free(control(behaviour));
}

static char *seen_text(const char *pointer)
{
    char *text = control(NULL);
    struct json_span value;
    char *found = NULL;
    if (text != NULL && json_find((struct json_span){text, strlen(text)}, pointer, &value))
        found = json_text(value);
    free(text);
    return found;
}

static bool seen(const char *pointer, const char *expected)
{
    char *found = seen_text(pointer);
    bool same = stage_fixture_same(found, expected);
    free(found);
    return same;
}

struct trial {
    struct stage_config config;
    char url[128];
    char *headers[4];
    void *state;
    struct ep_call call;
};

static void trial_with(struct trial *trial)
{
    memset(trial, 0, sizeof *trial);
    snprintf(trial->url, sizeof trial->url, "http://me:secret@127.0.0.1:%d/in?key=secret", collector_port);
    trial->config.name = "post";
    trial->config.type = STAGE_HTTP;
    trial->config.url = trial->url;
    trial->config.timeout_ms = 10000;
    trial->config.headers = (struct strings){trial->headers, 0};
}

static bool trial_open(struct trial *trial)
{
    struct error error = {0};
    int code = stage_ops_for(STAGE_HTTP)->open(&trial->config, stage_fixture_env(), &trial->state, &error);
    if (code != 0)
        fprintf(stderr, "\n%s\n", error.message);
    return code == 0;
}

static enum ep_answer post(struct trial *trial, const char *event)
{
    struct stage_failure failure = {0};
    stage_fixture_call(&trial->call, event, "{\"n\":9007199254740993}");
    CU_ASSERT_EQUAL(stage_http_ops.process(trial->state, &trial->call, &failure), STAGE_ANSWERED);
    return trial->call.answer;
}

/* One post to a collector that behaves so. */
static bool answers(const char *behaviour, enum ep_answer answer, uint64_t retry_after_ms,
                    const char *message)
{
    struct trial trial;
    trial_with(&trial);
    behave(behaviour);
    if (!trial_open(&trial))
        return false;
    post(&trial, "{\"uid\":\"u-1\"}");
    bool good = trial.call.answer == answer && trial.call.retry_after_ms == retry_after_ms &&
                stage_fixture_contains(trial.call.reason, message) &&
                strstr(trial.call.reason, "secret") == NULL && trial.call.new_context == NULL &&
                trial.call.new_event == NULL;
    if (!good)
        fprintf(stderr, "\n%s: answer %d, %lu ms: %s\n", behaviour, (int)trial.call.answer,
                (unsigned long)trial.call.retry_after_ms, trial.call.reason);
    stage_call_close(&trial.call);
    stage_http_ops.close(trial.state, 0);
    behave("{}");
    return good;
}

static void posts_the_document(void)
{
    struct trial trial;
    trial_with(&trial);
    trial.headers[0] = "X-Tenant: acme";
    trial.config.headers.count = 1;
    trial.config.token = "tell-nobody";
    snprintf(trial.url, sizeof trial.url, "http://127.0.0.1:%d/in/quakes?x=1", collector_port);
    CU_ASSERT_FATAL(trial_open(&trial));
    CU_ASSERT_EQUAL(post(&trial, "{\n\"uid\":\"u-1\"}"), EP_PROCESSED);
    static const char document[] =
        "{\"event\":{\"uid\":\"u-1\"},\"context\":{\"n\":9007199254740993},\"attempt\":1,"
        "\"key\":\"quakes/u-1/locate\"}";
    CU_ASSERT(seen("/last/path", "/in/quakes?x=1"));
    CU_ASSERT(seen("/last/body", document));
    CU_ASSERT(seen("/last/headers/Content-Type", "application/json"));
    CU_ASSERT(seen("/last/headers/Idempotency-Key", "quakes/u-1/locate"));
    CU_ASSERT(seen("/last/headers/X-Tenant", "acme"));
    CU_ASSERT(seen("/last/headers/Authorization", "Bearer tell-nobody"));
    char line[400] = "";
    FILE *file = fopen(recorded, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT_PTR_NOT_NULL(fgets(line, sizeof line, file));
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    CU_ASSERT(stage_fixture_same(line, document));
    stage_http_ops.close(trial.state, 0);

    /* what is configured wins */
    trial.headers[0] = "content-type: application/cloudevents+json";
    CU_ASSERT_FATAL(trial_open(&trial));
    CU_ASSERT_EQUAL(post(&trial, "{}"), EP_PROCESSED);
    CU_ASSERT(seen("/last/headers/content-type", "application/cloudevents+json"));
    stage_http_ops.close(trial.state, 0);
}

static void keeps_its_connection(void)
{
    struct trial trial;
    trial_with(&trial);
    char *before = seen_text("/connections");
    CU_ASSERT_PTR_NOT_NULL_FATAL(before);
    CU_ASSERT_FATAL(trial_open(&trial));
    for (int i = 0; i < 20; i++) {
        CU_ASSERT_EQUAL(post(&trial, "{}"), EP_PROCESSED);
        stage_call_close(&trial.call);
    }
    stage_http_ops.close(trial.state, 0);
    char expected[16];
    snprintf(expected, sizeof expected, "%d", atoi(before) + 1);
    CU_ASSERT(seen("/connections", expected));
    free(before);
}

static void statuses(void)
{
    CU_ASSERT(answers("{\"status\":201}", EP_PROCESSED, 0, ""));
    CU_ASSERT(answers("{\"status\":204}", EP_PROCESSED, 0, ""));
    /* an answer of the exec form in the body means nothing here */
    CU_ASSERT(answers("{\"status\":200,\"body\":\"{\\\"remove\\\":true}\"}", EP_PROCESSED, 0, ""));
    char message[128];
    snprintf(message, sizeof message, "503 Service Unavailable from http://127.0.0.1:%d/in", collector_port);
    CU_ASSERT(answers("{\"status\":503}", EP_ERROR, 0, message));
    CU_ASSERT(answers("{\"status\":503,\"retry_after\":\"7\"}", EP_ERROR, 7000, "503"));
    CU_ASSERT(answers("{\"status\":500,\"reason\":\"Oh\\u0001no\"}", EP_ERROR, 0, "500 Oh?no from"));
    CU_ASSERT(
        answers("{\"status\":429,\"retry_after\":\"2\"}", EP_NOT_PROCESSED, 2000, "429 Too Many Requests"));
    CU_ASSERT(answers("{\"status\":429,\"retry_after\":\"rubbish\"}", EP_NOT_PROCESSED, 0, "429"));
    CU_ASSERT(answers("{\"status\":503,\"retry_after\":\"99999999\"}", EP_ERROR, 86400000, "503"));
    CU_ASSERT(answers("{\"status\":400,\"body\":\"no\\nsuch field\"}", EP_REJECT, 0, ": no?such field"));
    CU_ASSERT(answers("{\"status\":404}", EP_REJECT, 0, "404 Not Found from"));
    CU_ASSERT(answers("{\"status\":302,\"headers\":{\"Location\":\"/elsewhere\"}}", EP_ERROR, 0,
                      "302 Found from http://127.0.0.1"));
    CU_ASSERT(seen("/last/path", "/in?key=secret")); /* not /elsewhere */
}

static void retry_after_as_a_date(void)
{
    struct trial trial;
    char behaviour[128], date[64];
    time_t then = time(NULL) + 100;
    struct tm parts;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&then, &parts));
    snprintf(behaviour, sizeof behaviour, "{\"status\":503,\"retry_after\":\"%s\"}", date);
    trial_with(&trial);
    behave(behaviour);
    CU_ASSERT_FATAL(trial_open(&trial));
    CU_ASSERT_EQUAL(post(&trial, "{}"), EP_ERROR);
    CU_ASSERT(trial.call.retry_after_ms > 60000 && trial.call.retry_after_ms <= 100000);
    stage_http_ops.close(trial.state, 0);
    behave("{}");
}

static void long_bodies_are_cut(void)
{
    char behaviour[4000], body[3000];
    memset(body, 'b', sizeof body - 1);
    body[sizeof body - 1] = '\0';
    snprintf(behaviour, sizeof behaviour, "{\"status\":422,\"body\":\"%s\"}", body);
    struct trial trial;
    trial_with(&trial);
    behave(behaviour);
    CU_ASSERT_FATAL(trial_open(&trial));
    CU_ASSERT_EQUAL(post(&trial, "{}"), EP_REJECT);
    const char *shown = strchr(trial.call.reason, 'b');
    CU_ASSERT_PTR_NOT_NULL_FATAL(shown);
    CU_ASSERT_EQUAL(strspn(strstr(trial.call.reason, ": b") + 2, "b"), 200);
    stage_http_ops.close(trial.state, 0);

    /* megabytes of it: the status alone counts, and the next request is none the worse */
    struct text big = {0};
    base_text_append(&big, "{\"status\":200,\"count\":1,\"body\":\"");
    for (int i = 0; i < 1000; i++)
        base_text_append(&big, body);
    base_text_append(&big, "\"}");
    behave(big.text);
    base_text_free(&big);
    CU_ASSERT_FATAL(trial_open(&trial));
    CU_ASSERT_EQUAL(post(&trial, "{}"), EP_PROCESSED);
    CU_ASSERT_EQUAL(post(&trial, "{}"), EP_PROCESSED);
    stage_http_ops.close(trial.state, 0);
    behave("{}");
}

static void no_answer_is_an_error(void)
{
    CU_ASSERT(answers("{\"mode\":\"close\"}", EP_ERROR, 0, "Empty reply from server"));
    CU_ASSERT(answers("{\"mode\":\"cut\"}", EP_ERROR, 0, "transfer closed"));

    /* nobody there: a port that was ours a moment ago */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL(bind(listener, (struct sockaddr *)&address, length), 0);
    CU_ASSERT_EQUAL(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    struct trial trial;
    trial_with(&trial);
    snprintf(trial.url, sizeof trial.url, "http://127.0.0.1:%d/", ntohs(address.sin_port));
    CU_ASSERT_FATAL(trial_open(&trial)); /* a server that is down is no bad start */
    CU_ASSERT_EQUAL(post(&trial, "{}"), EP_ERROR);
    CU_ASSERT(stage_fixture_contains(trial.call.reason, trial.url));
    CU_ASSERT(stage_fixture_contains(trial.call.reason, "connect"));
    stage_http_ops.close(trial.state, 0);
    close(listener);
}

/* The request gives up a little before the supervisor would kill the worker. */
static void slow_servers(void)
{
    struct trial trial;
    struct timespec begin, end;
    trial_with(&trial);
    trial.config.timeout_ms = 400;
    behave("{\"mode\":\"hang\"}");
    CU_ASSERT_FATAL(trial_open(&trial));
    clock_gettime(CLOCK_MONOTONIC, &begin);
    CU_ASSERT_EQUAL(post(&trial, "{}"), EP_ERROR);
    clock_gettime(CLOCK_MONOTONIC, &end);
    long took_ms = (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000;
    CU_ASSERT(took_ms >= 350 && took_ms < 5000);
    CU_ASSERT(stage_fixture_contains(trial.call.reason, "timed out"));
    behave("{}");
    CU_ASSERT_EQUAL(post(&trial, "{}"), EP_PROCESSED);
    stage_http_ops.close(trial.state, 0);
}

static void big_events(void)
{
    size_t bytes = (size_t)10 << 20;
    char *event = malloc(bytes + 64);
    int head = sprintf(event, "{\"payload\":\"");
    memset(event + head, 'x', bytes);
    strcpy(event + head + bytes, "\"}");
    struct trial trial;
    trial_with(&trial);
    CU_ASSERT_FATAL(trial_open(&trial));
    for (int i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL(post(&trial, event), EP_PROCESSED);
        CU_ASSERT_EQUAL(post(&trial, "{}"), EP_PROCESSED);
    }
    stage_http_ops.close(trial.state, 0);
    free(event);
}

static bool check_says(char *url, char *ca_file, const char *part)
{
    struct stage_config config = {.type = STAGE_HTTP, .url = url, .ca_file = ca_file};
    struct error error = {0};
    return stage_check(&config, &error) < 0 && stage_fixture_contains(error.message, part);
}

static void bad_urls_are_refused(void)
{
    CU_ASSERT(check_says(NULL, NULL, "no url is given"));
    CU_ASSERT(check_says("ftp://example/x", NULL, "expected http:// or https://, found ftp://"));
    CU_ASSERT(check_says("http://[::1", NULL, "url: "));
    CU_ASSERT(check_says("example", NULL, "url: "));
    CU_ASSERT(check_says("http://example/", "/no/such/ca.pem", "ca_file /no/such/ca.pem: cannot be read"));
    struct stage_config good = {.type = STAGE_HTTP, .url = "https://example.invalid/in"};
    CU_ASSERT_EQUAL(stage_check(&good, NULL), 0);
}

static const struct unit_case cases[] = {
    {"posts the document", posts_the_document},
    {"keeps its connection", keeps_its_connection},
    {"statuses", statuses},
    {"Retry-After as a date", retry_after_as_a_date},
    {"long bodies are cut", long_bodies_are_cut},
    {"no answer is an error", no_answer_is_an_error},
    {"slow servers", slow_servers},
    {"big events", big_events},
    {"bad URLs are refused", bad_urls_are_refused},
};

int main(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (!collector_start())
        return EXIT_FAILURE;
    int result = unit_run("stage_http", cases, sizeof cases / sizeof cases[0]);
    if (!collector_end())
        result = EXIT_FAILURE;
    curl_global_cleanup();
    return result;
}
