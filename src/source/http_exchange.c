/* SPDX-License-Identifier: MIT */
/*
 * The http source's connection to the backend. Runs in the producer's fetch thread; other threads call
 * only source_http_exchange_interrupt.
 *
 * Owns one easy handle, whose connection is kept between polls, inside one multi handle. An easy handle
 * alone cannot do two things: wait for a poll without wake-ups, and end at once by curl_multi_wakeup.
 *
 * Invariants (slack is connect_timeout):
 *   1. Connecting takes at most slack. Silence lasts at most wait + slack. The whole answer arrives
 *      within wait + 30 slack, so that a backend that trickles cannot hold the source for ever.
 *   2. Configured headers and the token are secrets. They are sent to the configured origin only, not to
 *      one that it redirects to.
 * Nothing is fatal; every failure is a message and a code.
 */
#include "src/source/http_exchange.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REDIRECTS_MAX 5
#define WHOLE_SLACKS 30
#define BODY_KEPT (1 << 20) /* a larger buffer is not kept between polls */
#define DEFAULT_SLACK_MS 10000
#define DEFAULT_MAX_BYTES (64ULL << 20)

struct http_exchange {
    const struct http_source_config *config;
    CURLM *multi;
    CURL *easy;
    struct curl_slist *headers;
    struct json_out body;
    uint64_t received_ns; /* when the last byte came */
    bool too_large;
    atomic_bool interrupted;
    char curl_error[CURL_ERROR_SIZE];
};

uint64_t source_http_exchange_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t max_bytes(const struct http_exchange *exchange)
{
    return exchange->config->max_bytes != 0 ? exchange->config->max_bytes : DEFAULT_MAX_BYTES;
}

static uint64_t slack_ms(const struct http_exchange *exchange)
{
    return exchange->config->connect_timeout_ms != 0 ? exchange->config->connect_timeout_ms
                                                     : DEFAULT_SLACK_MS;
}

static bool headers_add(struct http_exchange *exchange, const char *header)
{
    struct curl_slist *longer = curl_slist_append(exchange->headers, header);

    if (longer != NULL)
        exchange->headers = longer;
    return longer != NULL;
}

int source_http_exchange_open(const struct http_source_config *config, struct http_exchange **out,
                              struct error *error)
{
    struct http_exchange *exchange = calloc(1, sizeof *exchange);

    if (exchange == NULL)
        return base_error_set(error, EP_ENOMEM, "no memory for an HTTP connection");
    exchange->config = config;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(exchange);
        return base_error_set(error, EP_EBACKEND, "libcurl cannot be initialised");
    }
    exchange->multi = curl_multi_init();
    exchange->easy = curl_easy_init();
    bool ready = exchange->multi != NULL && exchange->easy != NULL &&
                 headers_add(exchange, "Accept: application/json");
    for (size_t i = 0; ready && i < config->headers.count; i++)
        ready = headers_add(exchange, config->headers.at[i]);
    if (!ready) {
        source_http_exchange_close(&exchange);
        return base_error_set(error, EP_ENOMEM, "no memory for an HTTP connection");
    }
    *out = exchange;
    return 0;
}

void source_http_exchange_close(struct http_exchange **exchange)
{
    struct http_exchange *old = *exchange;

    if (old == NULL)
        return;
    curl_easy_cleanup(old->easy);
    curl_multi_cleanup(old->multi);
    curl_slist_free_all(old->headers);
    json_write_free(&old->body);
    free(old);
    curl_global_cleanup();
    *exchange = NULL;
}

void source_http_exchange_interrupt(struct http_exchange *exchange)
{
    atomic_store(&exchange->interrupted, true);
    curl_multi_wakeup(exchange->multi);
}

/* An interruption counts once, for whichever wait sees it. */
static bool stopped(struct http_exchange *exchange, const atomic_bool *abort)
{
    return atomic_exchange(&exchange->interrupted, false) || atomic_load(abort);
}

/* Until a socket is ready, a wake-up, libcurl's own timers, or this time. */
static void poll_until(struct http_exchange *exchange, uint64_t now, uint64_t until)
{
    uint64_t left_ms = (until - now + 999999) / 1000000;

    curl_multi_poll(exchange->multi, NULL, 0, left_ms > INT_MAX ? INT_MAX : (int)left_ms, NULL);
}

bool source_http_exchange_wait(struct http_exchange *exchange, uint64_t until_ns, const atomic_bool *abort)
{
    for (;;) {
        if (stopped(exchange, abort))
            return false;
        uint64_t now = source_http_exchange_now_ns();
        if (now >= until_ns)
            return true;
        poll_until(exchange, now, until_ns);
    }
}

/* ---- one request ---- */

static size_t on_header(char *data, size_t size, size_t count, void *user)
{
    struct http_exchange *exchange = user;

    (void)data;
    exchange->received_ns = source_http_exchange_now_ns();
    return size * count;
}

static size_t on_body(char *data, size_t size, size_t count, void *user)
{
    struct http_exchange *exchange = user;
    size_t bytes = size * count;

    exchange->received_ns = source_http_exchange_now_ns();
    if (bytes > max_bytes(exchange) - exchange->body.bytes) {
        exchange->too_large = true;
        return 0;
    }
    json_write_raw(&exchange->body, data, bytes);
    return exchange->body.failed ? 0 : bytes;
}

static bool easy_prepare(struct http_exchange *exchange, const char *url, bool with_secrets)
{
    CURL *easy = exchange->easy;
    const struct http_source_config *config = exchange->config;
    CURLcode code;

    curl_easy_reset(easy); /* keeps the connections */
    code = curl_easy_setopt(easy, CURLOPT_URL, url);
    if (code == CURLE_OK)
        code = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    if (code == CURLE_OK)
        code = curl_easy_setopt(easy, CURLOPT_USERAGENT, "eventpipe");
    if (code == CURLE_OK)
        code = curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    if (code == CURLE_OK && config->ca_file != NULL)
        code = curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
    if (code == CURLE_OK && with_secrets)
        code = curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers);
    if (code == CURLE_OK && with_secrets && config->token != NULL) {
        curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        code = curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, config->token);
    }
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT,
                     1L); /* do not wait for a resolver's thread when we are stopped */
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)slack_ms(exchange));
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->curl_error);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
    exchange->curl_error[0] = '\0';
    exchange->too_large = false;
    if (exchange->body.room > BODY_KEPT)
        json_write_free(&exchange->body);
    json_write_reset(&exchange->body);
    return code == CURLE_OK;
}

static int failed(const struct http_exchange *exchange, CURLcode code, struct error *error)
{
    const char *message = exchange->curl_error[0] != '\0' ? exchange->curl_error : curl_easy_strerror(code);

    if (exchange->too_large && max_bytes(exchange) % (1 << 20) == 0)
        return base_error_set(error, EP_EPROTO, "answer larger than %" PRIu64 " MiB",
                              max_bytes(exchange) >> 20);
    if (exchange->too_large)
        return base_error_set(error, EP_EPROTO, "answer larger than %" PRIu64 " bytes", max_bytes(exchange));
    if (exchange->body.failed || code == CURLE_OUT_OF_MEMORY)
        return base_error_set(error, EP_ENOMEM, "no memory for the answer");
    if (code == CURLE_PARTIAL_FILE)
        return base_error_set(error, EP_EPROTO, "the answer was cut off after %zu bytes: %s",
                              exchange->body.bytes, message);
    if (code == CURLE_BAD_CONTENT_ENCODING || code == CURLE_WEIRD_SERVER_REPLY ||
        code == CURLE_UNSUPPORTED_PROTOCOL)
        return base_error_set(error, EP_EPROTO, "%s", message);
    return base_error_set(error, EP_EBACKEND, "%s", message);
}

/* How the transfer ended, once nothing runs any more. */
static CURLcode transfer_result(struct http_exchange *exchange)
{
    int left;
    const CURLMsg *message = curl_multi_info_read(exchange->multi, &left);

    return message != NULL && message->msg == CURLMSG_DONE ? message->data.result : CURLE_RECV_ERROR;
}

static int transfer(struct http_exchange *exchange, uint64_t wait_ms, const atomic_bool *abort,
                    struct error *error)
{
    uint64_t start = source_http_exchange_now_ns(), slack = slack_ms(exchange);
    uint64_t whole_end = start + (wait_ms + WHOLE_SLACKS * slack) * 1000000;
    int running = 1;

    exchange->received_ns = start;
    for (;;) {
        if (stopped(exchange, abort))
            return base_error_set(error, EP_EBUSY, "interrupted");
        CURLMcode code = curl_multi_perform(exchange->multi, &running);
        if (code != CURLM_OK)
            return base_error_set(error, EP_EBACKEND, "%s", curl_multi_strerror(code));
        if (running == 0) {
            CURLcode result = transfer_result(exchange);
            return result == CURLE_OK ? 0 : failed(exchange, result, error);
        }
        uint64_t now = source_http_exchange_now_ns(),
                 silence_end = exchange->received_ns + (wait_ms + slack) * 1000000;
        if (now >= silence_end)
            return base_error_set(error, EP_EBACKEND,
                                  "the backend has been silent for %.1f s (%zu bytes came)",
                                  (double)(now - exchange->received_ns) / 1e9, exchange->body.bytes);
        if (now >= whole_end)
            return base_error_set(error, EP_EBACKEND, "the answer is too slow: %zu bytes in %.1f s",
                                  exchange->body.bytes, (double)(now - start) / 1e9);
        poll_until(exchange, now, silence_end < whole_end ? silence_end : whole_end);
    }
}

static bool same_part(CURLU *one, CURLU *other, CURLUPart part)
{
    char *left = NULL, *right = NULL;
    bool same = curl_url_get(one, part, &left, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                curl_url_get(other, part, &right, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                strcasecmp(left, right) == 0;

    curl_free(left);
    curl_free(right);
    return same;
}

static bool same_origin(const char *one, const char *other)
{
    CURLU *left = curl_url(), *right = curl_url();
    bool same = left != NULL && right != NULL && curl_url_set(left, CURLUPART_URL, one, 0) == CURLUE_OK &&
                curl_url_set(right, CURLUPART_URL, other, 0) == CURLUE_OK &&
                same_part(left, right, CURLUPART_SCHEME) && same_part(left, right, CURLUPART_HOST) &&
                same_part(left, right, CURLUPART_PORT);

    curl_url_cleanup(left);
    curl_url_cleanup(right);
    return same;
}

int source_http_exchange_get(struct http_exchange *exchange, const char *url, uint64_t wait_ms,
                             const atomic_bool *abort, struct http_answer *answer, struct error *error)
{
    char *hop = strdup(url);
    int code = hop == NULL ? base_error_set(error, EP_ENOMEM, "no memory for a request") : 0;

    for (int redirects = 0; code == 0; redirects++) {
        char *next = NULL;
        if (redirects > REDIRECTS_MAX) {
            code = base_error_set(error, EP_EBACKEND, "more than %d redirects", REDIRECTS_MAX);
            break;
        }
        if (!easy_prepare(exchange, hop, same_origin(url, hop))) {
            code = base_error_set(error, EP_EBACKEND, "the request cannot be prepared");
            break;
        }
        CURLMcode added = curl_multi_add_handle(exchange->multi, exchange->easy);
        code = added == CURLM_OK ? transfer(exchange, wait_ms, abort, error)
                                 : base_error_set(error, EP_EBACKEND, "%s", curl_multi_strerror(added));
        curl_multi_remove_handle(exchange->multi, exchange->easy);
        if (code != 0 || curl_easy_getinfo(exchange->easy, CURLINFO_REDIRECT_URL, &next) != CURLE_OK ||
            next == NULL)
            break;
        free(hop);
        hop = strdup(next);
        if (hop == NULL)
            code = base_error_set(error, EP_ENOMEM, "no memory for a request");
    }
    free(hop);
    if (code != 0)
        return code;
    curl_off_t retry_after = 0;
    *answer = (struct http_answer){
        .body = {exchange->body.text == NULL ? "" : exchange->body.text, exchange->body.bytes}};
    curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &answer->status);
    curl_easy_getinfo(exchange->easy, CURLINFO_RETRY_AFTER, &retry_after);
    if (retry_after > 0)
        answer->retry_after_ms =
            (uint64_t)retry_after < UINT32_MAX ? (uint64_t)retry_after * 1000 : UINT32_MAX * 1000ULL;
    return 0;
}
