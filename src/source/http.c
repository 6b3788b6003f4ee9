/* SPDX-License-Identifier: MIT */
/*
 * The http source: polls a feed that answers with JSON, by short or long polls. Runs in the producer's
 * fetcher thread; other threads call only `interrupt`.
 *
 * One fetch is one request: it fills the URL's template, sends a GET, and reads events and cursor from the
 * answer (http_answer.c). An interrupted fetch is an empty page: no events yet.
 *
 * Invariants:
 *   1. A backend that answers at once gets at most one request per `interval`, unless events came and the
 *      cursor moved. The next fetch waits for this before its request; an interrupt ends the wait.
 *   2. Events with a cursor that did not move are passed on; the store skips those it knows. A second
 *      full page of this kind in a row is reported as malformed, since no new event would ever come. Only
 *      every second page fails, so no event is lost.
 *   3. Messages never hold the token, the headers, or the user, password and query of the URL.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/config/url.h"
#include "src/source/http_answer.h"
#include "src/source/http_exchange.h"
#include "src/source/source.h"

struct http_source {
    const struct source_config *config;
    struct http_exchange *exchange;
    uint64_t next_request_ns; /* earliest time of the next request */
    bool was_stuck;           /* the last page was full and its cursor had not moved */
};

/* Checks that the configured headers and the token of an http source are single lines; a line break in
 * them would add a header to the request that nobody configured. Called by http_source_open in the
 * producer's fetcher thread and for `eventpipe check`. Returns 0 or EP_ECONFIG. */
static int check_headers_and_token(const struct source_config *config, struct error *error)
{
    for (size_t i = 0; i < config->http.headers.count; i++) {
        const char *header = config->http.headers.at[i], *colon = strchr(header, ':');
        if (colon == NULL || colon == header || strpbrk(header, "\r\n") != NULL)
            return base_error_set(error, EP_ECONFIG,
                                  "source %s: header %zu: expected one line \"Name: value\"", config->id,
                                  i + 1);
    }
    if (config->http.token != NULL && strpbrk(config->http.token, "\r\n") != NULL)
        return base_error_set(error, EP_ECONFIG, "source %s: the token contains a line break: remove it",
                              config->id);
    return 0;
}

/* Opens a source that polls an HTTP feed: checks URL, headers and ca_file, and prepares the connection
 * without using the network. The producer's fetcher thread calls this before the first fetch, `eventpipe
 * check` to test the configuration. Returns 0 and sets *state, or returns a negative code and fills the
 * error. */
static int http_source_open(const struct source_config *config, void **state, struct error *error)
{
    int code = config->http.url == NULL ? base_error_set(error, EP_ECONFIG, "url is missing")
                                        : config_url_check(config->http.url, error);

    if (code != 0) {
        base_error_prefix(error, "source %s", config->id);
        return code;
    }
    code = check_headers_and_token(config, error);
    if (code != 0)
        return code;
    if (config->http.ca_file != NULL && access(config->http.ca_file, R_OK) != 0)
        return base_error_set(error, EP_ECONFIG, "source %s: its ca_file %s cannot be read: %s", config->id,
                              config->http.ca_file, strerror(errno));
    struct http_source *http = calloc(1, sizeof *http);
    if (http == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for source %s", config->id);
    http->config = config;
    code = source_http_exchange_open(&config->http, &http->exchange, error);
    if (code != 0) {
        free(http);
        return code;
    }
    *state = http;
    return 0;
}

/* Returns the cursor of an http source that has none stored yet: continuation_id, else cursor.initial,
 * else an empty text. */
static const char *choose_first_cursor(const struct source_config *config)
{
    if (config->continuation_id != NULL)
        return config->continuation_id;
    return config->http.cursor_initial == NULL ? "" : config->http.cursor_initial;
}

/* Decides after a page of an http source when the next request may go, and sets page->more. Returns 0, or
 * EP_EPROTO at the second full page in a row with the same cursor, since the same events would come for
 * ever. Runs in the producer's fetcher thread. */
static int check_cursor_progress(struct http_source *http, const struct fetch *fetch, const char *cursor,
                                 uint64_t start_ns, struct page *page, struct source_failure *failure)
{
    const struct http_source_config *config = &http->config->http;
    bool cursor_has_moved = page->cursor != NULL && strcmp(page->cursor, cursor) != 0;
    bool page_is_full = page->count > 0 && page->count >= fetch->limit;
    bool is_stuck = page_is_full && !cursor_has_moved &&
                    (config->cursor_path != NULL || config->cursor_last_event_path != NULL);

    if (!cursor_has_moved || page->count == 0)
        http->next_request_ns = start_ns + config->interval_ms * 1000000;
    page->more = page_is_full && cursor_has_moved;
    if (is_stuck && http->was_stuck) {
        http->was_stuck = false;
        source_page_clear(page);
        return base_error_set(
            &failure->error, EP_EPROTO,
            "two full pages in a row with the cursor \"%.100s\": check that `cursor` names the right member",
            cursor);
    }
    http->was_stuck = is_stuck;
    return 0;
}

/* Fetches one page of an http source: waits for the interval, sends one GET and reads events and cursor
 * from its answer. The producer's fetcher thread calls this. Returns 0, with an empty page after an
 * interrupt, or a negative code with the failure filled. */
static int http_source_fetch(void *state, const struct fetch *fetch, struct page *page,
                             struct source_failure *failure)
{
    struct http_source *http = state;
    const struct source_config *config = http->config;
    const char *cursor = fetch->cursor != NULL ? fetch->cursor : choose_first_cursor(config);
    struct http_answer answer;

    if (!source_http_exchange_wait_until(http->exchange, http->next_request_ns, fetch->abort))
        return 0;
    char *url = config_url_fill(config->http.url, &(struct http_url_values){.cursor = cursor,
                                                                            .since = config->since,
                                                                            .limit = fetch->limit,
                                                                            .timeout_ms = fetch->wait_ms});
    if (url == NULL)
        return base_error_set(&failure->error, EP_ENOMEM, "out of memory for the request's URL");
    uint64_t start_ns = source_http_exchange_now_ns();
    int code =
        source_http_exchange_get(http->exchange, url, fetch->wait_ms, fetch->abort, &answer, &failure->error);
    free(url);
    if (code == EP_EBUSY) {
        failure->error = (struct error){0};
        return 0;
    }
    http->next_request_ns = 0;
    if (code == 0)
        code = source_http_answer_read(config, &answer, page, failure);
    if (code == 0)
        code = check_cursor_progress(http, fetch, cursor, start_ns, page, failure);
    if (code != 0) {
        char public_url[256];
        config_url_write_public(config->http.url, public_url, sizeof public_url);
        base_error_prefix(&failure->error, "%s", public_url);
    }
    return code;
}

/* Wakes a fetch of an http source that waits for its interval or for the backend. The producer's main
 * thread calls this to pause or stop the source, and after an operator set its cursor. */
static void http_source_interrupt(void *state)
{
    source_http_exchange_interrupt(((struct http_source *)state)->exchange);
}

/* Frees an http source and its connection. The producer's fetcher thread calls this when the producer
 * stops, source_check after its test. */
static void http_source_close(void *state)
{
    struct http_source *http = state;

    source_http_exchange_close(&http->exchange);
    free(http);
}

const struct source_ops source_http_ops = {
    .type = "http",
    .open = http_source_open,
    .fetch = http_source_fetch,
    .interrupt = http_source_interrupt,
    .close = http_source_close,
};
