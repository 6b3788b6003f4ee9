/* SPDX-License-Identifier: MIT */
/*
 * The http source's connection to the backend. Runs in the producer's fetcher thread; other threads call
 * only source_http_exchange_interrupt.
 *
 * Owns one easy handle, whose connection is kept between polls, inside one multi handle. An easy handle
 * alone cannot wait for a long poll without wake-ups, nor can curl_multi_wakeup interrupt it.
 *
 * Invariants (slack is connect_timeout):
 *   1. Connecting takes at most slack. Silence lasts at most wait + slack. The whole answer arrives
 *      within wait + 30 slack, so that a backend that sends byte by byte cannot block the source for ever.
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
#define ANSWER_SLACK_COUNT 30 /* invariant 1 */
#define BODY_KEPT (1 << 20)   /* a larger buffer is not kept between polls */
#define DEFAULT_SLACK_MS 10000
#define DEFAULT_MAX_BYTES (64ULL << 20)

struct http_exchange {
    const struct http_source_config *config;
    CURLM *multi;
    CURL *easy;
    struct curl_slist *headers;
    struct text body;
    uint64_t received_ns; /* time of the last byte */
    bool is_too_large;
    atomic_bool is_interrupted;
    char curl_error[CURL_ERROR_SIZE];
};

/* Returns the monotonic clock in nanoseconds, for the waits and timeouts of the http source. */
uint64_t source_http_exchange_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Returns the largest answer that the http source reads: max_bytes, or its default if that is 0. */
static uint64_t get_answer_limit_bytes(const struct http_exchange *exchange)
{
    return exchange->config->max_bytes != 0 ? exchange->config->max_bytes : DEFAULT_MAX_BYTES;
}

/* Returns how long an http source's connecting may take, and how much longer than asked its backend may
 * be silent. */
static uint64_t get_timeout_slack_ms(const struct http_exchange *exchange)
{
    return exchange->config->connect_timeout_ms != 0 ? exchange->config->connect_timeout_ms
                                                     : DEFAULT_SLACK_MS;
}

/* Appends a header to those that the http source sends with each request. Returns false if out of memory;
 * the list then stays as it was. */
static bool append_header(struct http_exchange *exchange, const char *header)
{
    struct curl_slist *longer_list = curl_slist_append(exchange->headers, header);

    if (longer_list != NULL)
        exchange->headers = longer_list;
    return longer_list != NULL;
}

/* Prepares the HTTP connection of an http source with libcurl, without using the network. The producer's
 * fetcher thread calls this when it opens the source. Returns 0 and sets *out, or returns EP_ENOMEM or
 * EP_EBACKEND. */
int source_http_exchange_open(const struct http_source_config *config, struct http_exchange **out,
                              struct error *error)
{
    struct http_exchange *exchange = calloc(1, sizeof *exchange);

    if (exchange == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for an HTTP connection");
    exchange->config = config;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(exchange);
        return base_error_set(error, EP_EBACKEND, "libcurl cannot be initialised");
    }
    exchange->multi = curl_multi_init();
    exchange->easy = curl_easy_init();
    bool is_ready = exchange->multi != NULL && exchange->easy != NULL &&
                    append_header(exchange, "Accept: application/json");
    for (size_t i = 0; is_ready && i < config->headers.count; i++)
        is_ready = append_header(exchange, config->headers.at[i]);
    if (!is_ready) {
        source_http_exchange_close(&exchange);
        return base_error_set(error, EP_ENOMEM, "out of memory for an HTTP connection");
    }
    *out = exchange;
    return 0;
}

/* Closes the HTTP connection of an http source and sets the pointer to NULL. The producer's fetcher thread
 * calls this when it closes the source. */
void source_http_exchange_close(struct http_exchange **exchange)
{
    struct http_exchange *old = *exchange;

    if (old == NULL)
        return;
    curl_easy_cleanup(old->easy);
    curl_multi_cleanup(old->multi);
    curl_slist_free_all(old->headers);
    base_text_free(&old->body);
    free(old);
    curl_global_cleanup();
    *exchange = NULL;
}

/* Ends the running wait or request of an http source or, if none runs, the next one. Any thread may call
 * this; the producer's main thread does so to pause or stop the source. */
void source_http_exchange_interrupt(struct http_exchange *exchange)
{
    atomic_store(&exchange->is_interrupted, true);
    curl_multi_wakeup(exchange->multi);
}

/* Whether the fetch of the http source should end, because of an interrupt or because the producer
 * discards it. Clears the interrupt, so that it ends one wait only. */
static bool consume_interrupt(struct http_exchange *exchange, const atomic_bool *abort)
{
    return atomic_exchange(&exchange->is_interrupted, false) || atomic_load(abort);
}

/* Waits for the http source in the producer's fetcher thread until a socket is ready, an interrupt comes,
 * libcurl's timer expires or until_ns is reached. */
static void poll_sockets_until(struct http_exchange *exchange, uint64_t now_ns, uint64_t until_ns)
{
    uint64_t timeout_ms = (until_ns - now_ns + 999999) / 1000000;

    curl_multi_poll(exchange->multi, NULL, 0, timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms, NULL);
}

/* Lets the http source wait until a time of the monotonic clock. Returns true at that time, or false if
 * interrupted or aborted before. The producer's fetcher thread calls this between two requests of the
 * http source, to keep the interval. */
bool source_http_exchange_wait_until(struct http_exchange *exchange, uint64_t until_ns,
                                     const atomic_bool *abort)
{
    for (;;) {
        if (consume_interrupt(exchange, abort))
            return false;
        uint64_t now_ns = source_http_exchange_now_ns();
        if (now_ns >= until_ns)
            return true;
        poll_sockets_until(exchange, now_ns, until_ns);
    }
}

/* ---- one request ---- */

/* Callback of libcurl for each header of an HTTP answer: notes that the backend is not silent. Returns the
 * size of the header, which tells libcurl to go on. Runs in the producer's fetcher thread, for the http
 * source. */
static size_t on_header_data(char *data, size_t unit_bytes, size_t unit_count, void *user)
{
    struct http_exchange *exchange = user;

    (void)data;
    exchange->received_ns = source_http_exchange_now_ns();
    return unit_bytes * unit_count;
}

/* Callback of libcurl for each piece of the body of an HTTP answer to an http source: keeps it, and notes
 * that the backend is not silent. Returns its size, or a smaller number, which ends the transfer, if the
 * answer exceeds max_bytes, or if out of memory. Runs in the producer's fetcher thread. */
static size_t on_body_data(char *data, size_t unit_bytes, size_t unit_count, void *user)
{
    struct http_exchange *exchange = user;
    size_t piece_bytes = unit_bytes * unit_count;

    exchange->received_ns = source_http_exchange_now_ns();
    if (piece_bytes > get_answer_limit_bytes(exchange) - exchange->body.bytes) {
        exchange->is_too_large = true;
        return 0;
    }
    base_text_append_bytes(&exchange->body, data, piece_bytes);
    return exchange->body.failed ? 0 : piece_bytes;
}

/* Sets all libcurl options for one GET of the http source. with_secrets is false after a redirect to
 * another origin, so that token and headers do not go to a foreign host. Returns false if libcurl refuses
 * an option, or if out of memory. Runs in the producer's fetcher thread. */
static bool prepare_request(struct http_exchange *exchange, const char *url, bool with_secrets)
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
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* an interrupt does not wait for the resolver's thread */
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)get_timeout_slack_ms(exchange));
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->curl_error);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header_data);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body_data);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
    exchange->curl_error[0] = '\0';
    exchange->is_too_large = false;
    if (exchange->body.room > BODY_KEPT)
        base_text_free(&exchange->body);
    base_text_reset(&exchange->body);
    return code == CURLE_OK;
}

/* Sets the error for a failed HTTP transfer of an http source and returns its code: EP_EPROTO for a
 * malformed or too large answer, EP_EBACKEND for an unreachable backend, EP_ENOMEM. The producer shows
 * the message in log and `eventpipe status`. */
static int set_transfer_error(const struct http_exchange *exchange, CURLcode code, struct error *error)
{
    const char *message = exchange->curl_error[0] != '\0' ? exchange->curl_error : curl_easy_strerror(code);

    if (exchange->is_too_large && get_answer_limit_bytes(exchange) % (1 << 20) == 0)
        return base_error_set(error, EP_EPROTO,
                              "the backend sent an answer larger than %" PRIu64
                              " MiB: raise max_bytes or lower page_size",
                              get_answer_limit_bytes(exchange) >> 20);
    if (exchange->is_too_large)
        return base_error_set(error, EP_EPROTO,
                              "the backend sent an answer larger than %" PRIu64
                              " bytes: raise max_bytes or lower page_size",
                              get_answer_limit_bytes(exchange));
    if (exchange->body.failed || code == CURLE_OUT_OF_MEMORY)
        return base_error_set(error, EP_ENOMEM, "out of memory for the answer");
    if (code == CURLE_PARTIAL_FILE)
        return base_error_set(error, EP_EPROTO, "the answer was cut off after %zu bytes: %s",
                              exchange->body.bytes, message);
    if (code == CURLE_BAD_CONTENT_ENCODING || code == CURLE_WEIRD_SERVER_REPLY ||
        code == CURLE_UNSUPPORTED_PROTOCOL)
        return base_error_set(error, EP_EPROTO, "%s", message);
    return base_error_set(error, EP_EBACKEND, "%s", message);
}

/* Returns libcurl's result of the http source's transfer, which has finished; CURLE_OK if it succeeded. */
static CURLcode read_transfer_result(struct http_exchange *exchange)
{
    int queued_count;
    const CURLMsg *message = curl_multi_info_read(exchange->multi, &queued_count);

    return message != NULL && message->msg == CURLMSG_DONE ? message->data.result : CURLE_RECV_ERROR;
}

/* Runs one HTTP request of the http source to its end. Fails if the backend is silent for too long or its
 * whole answer too slow, so that a hanging backend cannot block the source. Returns 0, EP_EBUSY if
 * interrupted, or another negative code. Runs in the producer's fetcher thread. */
static int run_transfer(struct http_exchange *exchange, uint64_t wait_ms, const atomic_bool *abort,
                        struct error *error)
{
    uint64_t start_ns = source_http_exchange_now_ns(), slack_ms = get_timeout_slack_ms(exchange);
    uint64_t answer_deadline_ns = start_ns + (wait_ms + ANSWER_SLACK_COUNT * slack_ms) * 1000000;
    int running_count = 1;

    exchange->received_ns = start_ns;
    for (;;) {
        if (consume_interrupt(exchange, abort))
            return base_error_set(error, EP_EBUSY, "interrupted");
        CURLMcode code = curl_multi_perform(exchange->multi, &running_count);
        if (code != CURLM_OK)
            return base_error_set(error, EP_EBACKEND, "%s", curl_multi_strerror(code));
        if (running_count == 0) {
            CURLcode result = read_transfer_result(exchange);
            return result == CURLE_OK ? 0 : set_transfer_error(exchange, result, error);
        }
        uint64_t now_ns = source_http_exchange_now_ns(),
                 silence_deadline_ns = exchange->received_ns + (wait_ms + slack_ms) * 1000000;
        if (now_ns >= silence_deadline_ns)
            return base_error_set(error, EP_EBACKEND, "the backend was silent for %.1f s (after %zu bytes)",
                                  (double)(now_ns - exchange->received_ns) / 1e9, exchange->body.bytes);
        if (now_ns >= answer_deadline_ns)
            return base_error_set(error, EP_EBACKEND, "the answer is too slow: %zu bytes in %.1f s",
                                  exchange->body.bytes, (double)(now_ns - start_ns) / 1e9);
        poll_sockets_until(exchange, now_ns,
                           silence_deadline_ns < answer_deadline_ns ? silence_deadline_ns
                                                                    : answer_deadline_ns);
    }
}

/* Whether `part` (scheme, host or port) is the same in two URLs; a missing port is the scheme's default.
 * False if a URL lacks the part. The http source compares a redirect with its configured URL. */
static bool url_parts_equal(CURLU *first_url, CURLU *second_url, CURLUPart part)
{
    char *first_part = NULL, *second_part = NULL;
    bool are_equal = curl_url_get(first_url, part, &first_part, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                     curl_url_get(second_url, part, &second_part, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                     strcasecmp(first_part, second_part) == 0;

    curl_free(first_part);
    curl_free(second_part);
    return are_equal;
}

/* Whether two URLs have the same scheme, host and port. Only then does the http source send token and
 * headers to the target of a redirect. Runs in the producer's fetcher thread. */
static bool urls_have_same_origin(const char *first_text, const char *second_text)
{
    CURLU *first_url = curl_url(), *second_url = curl_url();
    bool is_same_origin = first_url != NULL && second_url != NULL &&
                          curl_url_set(first_url, CURLUPART_URL, first_text, 0) == CURLUE_OK &&
                          curl_url_set(second_url, CURLUPART_URL, second_text, 0) == CURLUE_OK &&
                          url_parts_equal(first_url, second_url, CURLUPART_SCHEME) &&
                          url_parts_equal(first_url, second_url, CURLUPART_HOST) &&
                          url_parts_equal(first_url, second_url, CURLUPART_PORT);

    curl_url_cleanup(first_url);
    curl_url_cleanup(second_url);
    return is_same_origin;
}

/* Sends the GET of an http source and waits for its answer, following up to 5 redirects. Called once per
 * fetch, in the producer's fetcher thread. Returns 0 for an answer with any HTTP status, EP_EBUSY if
 * interrupted, or another negative code. The answer's body stays valid until the next call. */
int source_http_exchange_get(struct http_exchange *exchange, const char *url, uint64_t wait_ms,
                             const atomic_bool *abort, struct http_answer *answer, struct error *error)
{
    char *current_url = strdup(url);
    int code = current_url == NULL ? base_error_set(error, EP_ENOMEM, "out of memory for a request") : 0;

    for (int redirect_count = 0; code == 0; redirect_count++) {
        char *redirect_url = NULL;
        if (redirect_count > REDIRECTS_MAX) {
            code = base_error_set(error, EP_EBACKEND, "more than %d redirects: check the URL", REDIRECTS_MAX);
            break;
        }
        if (!prepare_request(exchange, current_url, urls_have_same_origin(url, current_url))) {
            code = base_error_set(error, EP_EBACKEND,
                                  "libcurl cannot prepare the request: check URL and ca_file");
            break;
        }
        CURLMcode add_result = curl_multi_add_handle(exchange->multi, exchange->easy);
        code = add_result == CURLM_OK
                   ? run_transfer(exchange, wait_ms, abort, error)
                   : base_error_set(error, EP_EBACKEND, "%s", curl_multi_strerror(add_result));
        curl_multi_remove_handle(exchange->multi, exchange->easy);
        if (code != 0 ||
            curl_easy_getinfo(exchange->easy, CURLINFO_REDIRECT_URL, &redirect_url) != CURLE_OK ||
            redirect_url == NULL)
            break;
        free(current_url);
        current_url = strdup(redirect_url);
        if (current_url == NULL)
            code = base_error_set(error, EP_ENOMEM, "out of memory for a request");
    }
    free(current_url);
    if (code != 0)
        return code;
    curl_off_t retry_after_s = 0;
    *answer = (struct http_answer){
        .body = {exchange->body.text == NULL ? "" : exchange->body.text, exchange->body.bytes}};
    curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &answer->status);
    curl_easy_getinfo(exchange->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
    if (retry_after_s > 0)
        answer->retry_after_ms =
            (uint64_t)retry_after_s < UINT32_MAX ? (uint64_t)retry_after_s * 1000 : UINT32_MAX * 1000ULL;
    return 0;
}
