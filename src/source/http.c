/* SPDX-License-Identifier: MIT */
/*
 * The http source: any feed that is polled, short or long, and answers with JSON. Runs in the producer's
 * fetch thread; other threads call only `interrupt`.
 *
 * One fetch is one request: the URL made from its template, an answer, its events and its cursor
 * (source_http_answer.c). An interrupted fetch is an empty page: no events yet.
 *
 * Invariants:
 *   1. A backend that answers at once is asked at most once per `interval`, unless events came and the
 *      cursor moved. The wait is at the beginning of the next fetch; an interrupt ends it.
 *   2. Events with a cursor that did not move are passed on; the store skips those it knows. A second
 *      full page of this kind in a row is reported as malformed, since no new event would ever come. So
 *      every second one is reported, and no event is lost.
 *   3. Messages never hold the token, the headers, or the user, password and query of the URL.
 */
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
    uint64_t next_ns; /* the next request not before this */
    bool stuck;       /* the last page was full and its cursor had not moved */
};

static int headers_check(const struct source_config *config, struct error *error)
{
    for (size_t i = 0; i < config->http.headers.count; i++) {
        const char *header = config->http.headers.at[i], *colon = strchr(header, ':');
        if (colon == NULL || colon == header || strpbrk(header, "\r\n") != NULL)
            return base_error_set(error, EP_ECONFIG, "source %s: header %zu is not one line \"Name: value\"",
                                  config->id, i + 1);
    }
    if (config->http.token != NULL && strpbrk(config->http.token, "\r\n") != NULL)
        return base_error_set(error, EP_ECONFIG, "source %s: its token holds a line break", config->id);
    return 0;
}

static int http_open(const struct source_config *config, void **state, struct error *error)
{
    int code = config->http.url == NULL ? base_error_set(error, EP_ECONFIG, "it has no url")
                                        : config_url_http_url_check(config->http.url, error);

    if (code != 0) {
        base_error_prefix(error, "source %s", config->id);
        return code;
    }
    code = headers_check(config, error);
    if (code != 0)
        return code;
    if (config->http.ca_file != NULL && access(config->http.ca_file, R_OK) != 0)
        return base_error_set(error, EP_ECONFIG, "source %s: its ca_file %s cannot be read", config->id,
                              config->http.ca_file);
    struct http_source *http = calloc(1, sizeof *http);
    if (http == NULL)
        return base_error_set(error, EP_ENOMEM, "no memory for source %s", config->id);
    http->config = config;
    code = source_http_exchange_open(&config->http, &http->exchange, error);
    if (code != 0) {
        free(http);
        return code;
    }
    *state = http;
    return 0;
}

static const char *first_cursor(const struct source_config *config)
{
    if (config->continuation_id != NULL)
        return config->continuation_id;
    return config->http.cursor_initial == NULL ? "" : config->http.cursor_initial;
}

/* What the page means for the next request. */
static int complete(struct http_source *http, const struct fetch *fetch, const char *cursor, uint64_t start,
                    struct page *page, struct source_failure *failure)
{
    const struct http_source_config *config = &http->config->http;
    bool moved = page->cursor != NULL && strcmp(page->cursor, cursor) != 0;
    bool full = page->count > 0 && page->count >= fetch->limit;
    bool stuck = full && !moved && (config->cursor_path != NULL || config->cursor_last_event_path != NULL);

    if (!moved || page->count == 0)
        http->next_ns = start + config->interval_ms * 1000000;
    page->more = full && moved;
    if (stuck && http->stuck) {
        http->stuck = false;
        source_page_clear(page);
        return base_error_set(
            &failure->error, EP_EPROTO,
            "two full pages, and the cursor is still \"%.100s\": does `cursor` point to the right member?",
            cursor);
    }
    http->stuck = stuck;
    return 0;
}

static int http_fetch(void *state, const struct fetch *fetch, struct page *page,
                      struct source_failure *failure)
{
    struct http_source *http = state;
    const struct source_config *config = http->config;
    const char *cursor = fetch->cursor != NULL ? fetch->cursor : first_cursor(config);
    struct http_answer answer;

    if (!source_http_exchange_wait(http->exchange, http->next_ns, fetch->abort))
        return 0;
    char *url =
        config_url_http_url_fill(config->http.url, &(struct http_url_values){.cursor = cursor,
                                                                             .since = config->since,
                                                                             .limit = fetch->limit,
                                                                             .timeout_ms = fetch->wait_ms});
    if (url == NULL)
        return base_error_set(&failure->error, EP_ENOMEM, "no memory for a URL");
    uint64_t start = source_http_exchange_now_ns();
    int code =
        source_http_exchange_get(http->exchange, url, fetch->wait_ms, fetch->abort, &answer, &failure->error);
    free(url);
    if (code == EP_EBUSY) {
        failure->error = (struct error){0};
        return 0;
    }
    http->next_ns = 0;
    if (code == 0)
        code = source_http_answer_read(config, &answer, page, failure);
    if (code == 0)
        code = complete(http, fetch, cursor, start, page, failure);
    if (code != 0) {
        char address[256];
        config_url_http_url_public(config->http.url, address, sizeof address);
        base_error_prefix(&failure->error, "%s", address);
    }
    return code;
}

static void http_interrupt(void *state)
{
    source_http_exchange_interrupt(((struct http_source *)state)->exchange);
}

static void http_close(void *state)
{
    struct http_source *http = state;

    source_http_exchange_close(&http->exchange);
    free(http);
}

const struct source_ops source_http_ops = {
    .type = "http",
    .open = http_open,
    .fetch = http_fetch,
    .interrupt = http_interrupt,
    .close = http_close,
};
