/* SPDX-License-Identifier: MIT */
/*
 * Reads an HTTP answer into a page. Runs in the producer's fetch thread; keeps nothing.
 *
 * Invariants:
 *   1. 204, `null` for the array, and an empty array all mean that there are no events yet.
 *   2. A cursor that is missing, null or "" leaves the old one (many feeds omit it on their last page);
 *      http_fetch checks that it moves. A cursor that is an array or object (CouchDB) is kept as its JSON
 *      text.
 *   3. An element that cannot be decoded becomes a corrupt event of the page; it does not fail the page.
 *   4. Excerpts of an answer are cut, cleaned, and never hold the token.
 */
#include "src/source/http_answer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"

#define EXCERPT_BYTES 200
#define EXCERPT_ROOM (3 * EXCERPT_BYTES + 8) /* a hidden token of one byte shows as three */

/* The beginning of a body, fit for a log line. */
static void excerpt(const struct source_config *config, struct json_span body, char *buffer)
{
    const char *at = body.at, *end = body.at + (body.bytes < EXCERPT_BYTES ? body.bytes : EXCERPT_BYTES),
               *token = config->http.token;
    size_t used = 0, token_bytes = token == NULL ? 0 : strlen(token);

    while (at < end) {
        size_t length = base_utf8_length(at, body.at + body.bytes);
        if (token_bytes > 0 && (size_t)(body.at + body.bytes - at) >= token_bytes &&
            memcmp(at, token, token_bytes) == 0) {
            used += (size_t)sprintf(buffer + used, "***");
            at += token_bytes;
        } else if (length == 0 || *at == ' ' || base_utf8_is_control(at, length)) {
            if (used > 0 && buffer[used - 1] != ' ')
                buffer[used++] = length == 0 ? '?' : ' ';
            at += length > 0 ? length : 1;
        } else {
            memcpy(buffer + used, at, length);
            used += length;
            at += length;
        }
    }
    buffer[used] = '\0';
}

/* ---- statuses ---- */

static const char *status_name(long status)
{
    static const struct {
        long status;
        const char *name;
    } names[] = {
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {407, "Proxy Authentication Required"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {425, "Too Early"},
        {429, "Too Many Requests"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].status == status)
            return names[i].name;
    return "";
}

static int refuse_status(const struct source_config *config, const struct http_answer *answer,
                         struct source_failure *failure)
{
    char said[EXCERPT_ROOM], status[64];
    long number = answer->status;
    const char *name = status_name(number);

    snprintf(status, sizeof status, "%ld%s%s", number, name[0] == '\0' ? "" : " ", name);
    excerpt(config, answer->body, said);
    failure->retry_after_ms = answer->retry_after_ms;
    if (number == 401 || number == 403 || number == 407)
        return base_error_set(&failure->error, EP_EAUTH, "the backend refuses the login: %s", status);
    bool passing = number == 408 || number == 421 || number == 425 || number == 429;
    const char *message = number >= 500   ? "the backend has failed"
                          : number >= 400 ? "the backend refuses the request"
                                          : "unexpected status";
    int code = number >= 400 && number < 500 && !passing ? EP_EAUTH : EP_EBACKEND;
    return base_error_set(&failure->error, code, "%s: %s%s%s", message, status, said[0] == '\0' ? "" : ": ",
                          said);
}

/* ---- the cursor ---- */

/* The cursor's text: a string decoded, anything else as it is written, on one line. NULL when there is no
 * memory. */
static char *cursor_text(struct json_span value)
{
    struct json_out out = {0};

    if (json_kind(value) == '"' || json_kind(value) == '0')
        return json_text(value);
    json_write_line(&out, value);
    return out.text;
}

static bool cursor_named(struct json_span text, const char *pointer, struct json_span *value)
{
    return json_find(text, pointer, value) && json_kind(*value) != 'n' &&
           !(value->bytes == 2 && value->at[0] == '"'); /* an empty string */
}

static int cursor_add(const struct source_config *config, char **text, struct source_failure *failure)
{
    const int64_t plus = config->http.cursor_increment;
    const struct json_span whole = {*text, strlen(*text)};
    int64_t number;
    char sum[24], said[EXCERPT_ROOM];

    excerpt(config, whole, said);
    if (!json_int64(whole, &number))
        return base_error_set(&failure->error, EP_EPROTO,
                              "the cursor \"%s\" is no whole number: %" PRId64 " cannot be added", said,
                              plus);
    if (__builtin_add_overflow(number, plus, &number))
        return base_error_set(&failure->error, EP_EPROTO, "the cursor %s is too large to add %" PRId64, said,
                              plus);
    snprintf(sum, sizeof sum, "%" PRId64, number);
    free(*text);
    *text = strdup(sum);
    return *text == NULL ? base_error_set(&failure->error, EP_ENOMEM, "no memory for a cursor") : 0;
}

static int take_cursor(const struct source_config *config, struct json_span value, struct page *page,
                       struct source_failure *failure)
{
    char *text = cursor_text(value);
    int code = 0;

    if (text == NULL)
        return base_error_set(&failure->error, EP_ENOMEM, "no memory for a cursor");
    if (config->http.cursor_path == NULL && config->http.cursor_increment != 0)
        code = cursor_add(config, &text, failure);
    if (code == 0 && source_page_set_cursor(page, text) != 0)
        code = base_error_set(&failure->error, EP_ENOMEM, "no memory for a cursor");
    free(text);
    return code;
}

/* ---- the events ---- */

struct answer_reader {
    const struct source_config *config;
    struct page *page;
    struct json_span cursor; /* of the last element that has one; bytes 0 = none has */
};

static int take_element(struct json_span element, void *user)
{
    struct answer_reader *reader = user;
    const char *last = reader->config->http.cursor_last_event_path;
    struct json_span value;

    if (last != NULL && cursor_named(element, last, &value))
        reader->cursor = value;
    return source_page_add_element(reader->page, &reader->config->pointers, element, true, NULL);
}

static const char *shown(const char *pointer)
{
    return pointer[0] == '\0' ? "the answer itself" : pointer;
}

static int read_body(const struct source_config *config, struct json_span body, struct page *page,
                     struct source_failure *failure)
{
    const struct http_source_config *http = &config->http;
    const char *pointer = http->events == NULL ? "" : http->events;
    struct answer_reader reader = {.config = config, .page = page};
    struct json_span events;
    char said[EXCERPT_ROOM];

    excerpt(config, body, said);
    if (!json_find(body, pointer, &events) || (json_kind(events) != '[' && json_kind(events) != 'n'))
        return base_error_set(&failure->error, EP_EPROTO, "no array of events at %s: %s", shown(pointer),
                              said);
    if (json_kind(events) == '[' && json_each_element(events, take_element, &reader) != 0)
        return base_error_set(&failure->error, EP_ENOMEM, "no memory for a page of events");
    if (http->cursor_path != NULL && cursor_named(body, http->cursor_path, &reader.cursor))
        return take_cursor(config, reader.cursor, page, failure);
    if (http->cursor_path == NULL && reader.cursor.bytes > 0)
        return take_cursor(config, reader.cursor, page, failure);
    return 0;
}

int source_http_answer_read(const struct source_config *config, const struct http_answer *answer,
                            struct page *page, struct source_failure *failure)
{
    static const char mark[] = "\xEF\xBB\xBF";
    struct json_span body = answer->body;
    char said[EXCERPT_ROOM];
    size_t at_byte = 0;

    if (answer->status == 204)
        return 0;
    if (answer->status < 200 || answer->status > 299)
        return refuse_status(config, answer, failure);
    if (body.bytes >= 3 && memcmp(body.at, mark, 3) == 0)
        body = (struct json_span){body.at + 3, body.bytes - 3};
    if (json_valid(body.at, body.bytes, &at_byte))
        return read_body(config, body, page, failure);
    at_byte += (size_t)(body.at - answer->body.at);
    excerpt(config, body, said);
    if (answer->body.bytes == 0)
        return base_error_set(&failure->error, EP_EPROTO, "the answer is empty, where JSON was expected");
    if (at_byte == answer->body.bytes)
        return base_error_set(&failure->error, EP_EPROTO, "the answer is cut off after byte %zu: %s", at_byte,
                              said);
    return base_error_set(&failure->error, EP_EPROTO, "the answer is not JSON at byte %zu of %zu: %s",
                          at_byte, answer->body.bytes, said);
}
