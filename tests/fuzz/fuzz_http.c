/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: what an HTTP backend answers. The first byte chooses the shape that the configuration expects,
 * the second the status, the rest is the body. Events and cursor come of it, or a failure with a message that
 * can be shown; the token that we sent never stands in them.
 */
#include "tests/lib/fuzz.h"

#include "src/source/http_answer.h"

#define TOKEN "s3cret-t0ken"

static void check_page(const struct page *page)
{
    for (size_t i = 0; i < page->count; i++) {
        const struct store_event *event = &page->events[i];
        PROMISE(event->uid != NULL && event->uid[0] != '\0' && strlen(event->uid) <= UID_BYTES_MAX);
        PROMISE(base_utf8_valid(event->uid, strlen(event->uid)));
        if (event->dead == STORE_REASON_NONE)
            PROMISE(json_valid(event->data, event->data_bytes, NULL));
        else
            PROMISE(event->dead == STORE_REASON_CORRUPT && event->error != NULL && event->error[0] != '\0');
    }
    PROMISE(page->cursor == NULL || base_utf8_valid(page->cursor, strlen(page->cursor)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char uid[] = "/id", address[] = "/station", results[] = "/results", whole[] = "",
                at[] = "/last_seq", last[] = "/id", token[] = TOKEN;
    static const long statuses[] = {200, 204, 304, 400, 401, 403, 429, 500,
                                    200, 200, 200, 200, 200, 200, 200, 200};
    struct source_config config = {.id = "feed", .type = SOURCE_HTTP};
    struct source_failure failure = {0};
    struct page page;

    if (bytes < 2)
        return 0;
    config_set_source_defaults(&config);
    struct http_source_config http = config.http;
    config.http.events = (data[0] & 1) != 0 ? results : whole;
    config.http.cursor_path = (data[0] & 2) != 0 ? at : NULL;
    config.http.cursor_last_event_path = (data[0] & 2) != 0 ? NULL : last;
    config.http.cursor_increment = (data[0] & 4) != 0 ? 1 : 0;
    config.http.token = (data[0] & 8) != 0 ? token : NULL;
    config.pointers = (struct event_pointers){.uid = (data[0] & 16) != 0 ? uid : NULL, .address = address};
    const struct http_answer answer = {.status = statuses[data[1] % 16],
                                       .body = {(const char *)data + 2, bytes - 2}};
    source_page_open(&page);
    int code = source_http_answer_read(&config, &answer, &page, &failure);
    PROMISE(code == 0 || code == EP_EAUTH || code == EP_EBACKEND || code == EP_EPROTO);
    if (code == 0)
        check_page(&page);
    else
        fuzz_check_message(failure.error.message);
    PROMISE(code == 0 || config.http.token == NULL || strstr(failure.error.message, TOKEN) == NULL);
    source_page_clear(&page);
    free(http.cursor_initial);
    free(http.url);
    free(http.events);
    return 0;
}
