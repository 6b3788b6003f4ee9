/* SPDX-License-Identifier: MIT */
/*
 * Reads an HTTP answer into a page, for the http source. Runs in the producer's fetcher thread; keeps
 * no state.
 *
 * Invariants:
 *   1. 204, `null` for the array, and an empty array all mean that there are no events yet.
 *   2. If the cursor is missing, null or "", the old one stays (many feeds omit it on their last page).
 *      http.c checks that it moves. A cursor that is an array or object (CouchDB) is kept as its JSON
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
#define EXCERPT_ROOM (3 * EXCERPT_BYTES + 8) /* a token of one byte becomes *** */

/* Copies the beginning of an http source's answer into excerpt (EXCERPT_ROOM bytes) for an error message:
 * without control characters, and with *** for the token. A backend may repeat the token, and log and
 * `eventpipe status` show the message. */
static void copy_excerpt(const struct source_config *config, struct json_span body, char *excerpt)
{
    const char *next_byte = body.at,
               *copy_end = body.at + (body.bytes < EXCERPT_BYTES ? body.bytes : EXCERPT_BYTES),
               *token = config->http.token;
    size_t excerpt_bytes = 0, token_bytes = token == NULL ? 0 : strlen(token);

    while (next_byte < copy_end) {
        size_t character_bytes = base_utf8_length(next_byte, body.at + body.bytes);
        if (token_bytes > 0 && (size_t)(body.at + body.bytes - next_byte) >= token_bytes &&
            memcmp(next_byte, token, token_bytes) == 0) {
            excerpt_bytes += (size_t)sprintf(excerpt + excerpt_bytes, "***");
            next_byte += token_bytes;
        } else if (character_bytes == 0 || *next_byte == ' ' ||
                   base_utf8_is_control(next_byte, character_bytes)) {
            if (excerpt_bytes > 0 && excerpt[excerpt_bytes - 1] != ' ')
                excerpt[excerpt_bytes++] = character_bytes == 0 ? '?' : ' ';
            next_byte += character_bytes > 0 ? character_bytes : 1;
        } else {
            memcpy(excerpt + excerpt_bytes, next_byte, character_bytes);
            excerpt_bytes += character_bytes;
            next_byte += character_bytes;
        }
    }
    excerpt[excerpt_bytes] = '\0';
}

/* ---- statuses ---- */

/* Returns the standard name of an HTTP status for the http source's error messages, or "" if it is not
 * listed. */
static const char *find_status_name(long status)
{
    static const struct {
        long status;
        const char *name;
    } known_statuses[] = {
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
    for (size_t i = 0; i < sizeof known_statuses / sizeof known_statuses[0]; i++)
        if (known_statuses[i].status == status)
            return known_statuses[i].name;
    return "";
}

/* Fills the failure for an HTTP answer whose status is no success, with an excerpt of its body. Returns
 * EP_EAUTH if an operator must change something, or EP_EBACKEND if the producer should just try again,
 * after Retry-After if the backend sent that. Runs in the producer's fetcher thread, for the http source. */
static int set_status_failure(const struct source_config *config, const struct http_answer *answer,
                              struct source_failure *failure)
{
    char excerpt[EXCERPT_ROOM], status_text[64];
    long status = answer->status;
    const char *name = find_status_name(status);

    snprintf(status_text, sizeof status_text, "%ld%s%s", status, name[0] == '\0' ? "" : " ", name);
    copy_excerpt(config, answer->body, excerpt);
    failure->retry_after_ms = answer->retry_after_ms;
    if (status == 401 || status == 403 || status == 407)
        return base_error_set(&failure->error, EP_EAUTH,
                              "the backend refuses the login: %s: check token and headers", status_text);
    bool is_temporary = status == 408 || status == 421 || status == 425 || status == 429;
    const char *message = status >= 500   ? "the backend failed"
                          : status >= 400 ? "the backend refuses the request"
                                          : "the backend sent an unexpected status";
    int code = status >= 400 && status < 500 && !is_temporary ? EP_EAUTH : EP_EBACKEND;
    return base_error_set(&failure->error, code, "%s: %s%s%s", message, status_text,
                          excerpt[0] == '\0' ? "" : ": ", excerpt);
}

/* ---- the cursor ---- */

/* Returns the text of a cursor in an HTTP answer: a string decoded, anything else as its JSON text on one
 * line. The caller frees it. Returns NULL if out of memory. Runs in the producer's fetcher thread, for
 * the http source. */
static char *copy_cursor_text(struct json_span value)
{
    struct text json_text_line = {0};

    if (json_kind(value) == '"' || json_kind(value) == '0')
        return json_text(value);
    json_write_on_one_line(&json_text_line, value);
    return json_text_line.text;
}

/* Finds the member of an HTTP answer, or of one of its events, that a JSON pointer names as the cursor.
 * Returns false if it is missing, null or an empty string; the http source then keeps its old cursor. */
static bool find_cursor_value(struct json_span text, const char *pointer, struct json_span *value)
{
    return json_find(text, pointer, value) && json_kind(*value) != 'n' &&
           !(value->bytes == 2 && value->at[0] == '"'); /* an empty string */
}

/* Replaces *text, the number that an http source uses as cursor, by that number plus cursor.increment;
 * feeds that ask for "last update ID + 1" need this. Returns 0, EP_EPROTO if the cursor is not an integer
 * or too large, or EP_ENOMEM. Runs in the producer's fetcher thread. */
static int add_cursor_increment(const struct source_config *config, char **text,
                                struct source_failure *failure)
{
    const int64_t increment = config->http.cursor_increment;
    const struct json_span cursor_text = {*text, strlen(*text)};
    int64_t number;
    char new_text[24], excerpt[EXCERPT_ROOM];

    copy_excerpt(config, cursor_text, excerpt);
    if (!json_int64(cursor_text, &number))
        return base_error_set(&failure->error, EP_EPROTO,
                              "the cursor \"%s\" is not an integer: the increment %" PRId64
                              " cannot be added",
                              excerpt, increment);
    if (__builtin_add_overflow(number, increment, &number))
        return base_error_set(&failure->error, EP_EPROTO, "the cursor %s is too large to add %" PRId64,
                              excerpt, increment);
    snprintf(new_text, sizeof new_text, "%" PRId64, number);
    free(*text);
    *text = strdup(new_text);
    return *text == NULL ? base_error_set(&failure->error, EP_ENOMEM, "out of memory for the cursor") : 0;
}

/* Sets the cursor of an http source's page from a value in the HTTP answer. If the value came from the
 * last event, cursor.increment is added. Runs in the producer's fetcher thread, for the http source.
 * Returns 0, EP_EPROTO or EP_ENOMEM with the failure filled. */
static int set_page_cursor(const struct source_config *config, struct json_span value, struct page *page,
                           struct source_failure *failure)
{
    char *cursor_text = copy_cursor_text(value);
    int code = 0;

    if (cursor_text == NULL)
        return base_error_set(&failure->error, EP_ENOMEM, "out of memory for the cursor");
    if (config->http.cursor_path == NULL && config->http.cursor_increment != 0)
        code = add_cursor_increment(config, &cursor_text, failure);
    if (code == 0 && source_page_set_cursor(page, cursor_text) != 0)
        code = base_error_set(&failure->error, EP_ENOMEM, "out of memory for the cursor");
    free(cursor_text);
    return code;
}

/* ---- the events ---- */

struct answer_reader {
    const struct source_config *config;
    struct page *page;
    struct json_span cursor; /* of the last element with a cursor; bytes 0 = none */
};

/* Callback for each element of the array of events in an HTTP answer: adds it to the page as an event and
 * remembers its cursor. Returns 0 or EP_ENOMEM, which ends the loop. Runs in the producer's fetcher thread,
 * for the http source. */
static int on_answer_element(struct json_span element, void *user)
{
    struct answer_reader *reader = user;
    const char *cursor_pointer = reader->config->http.cursor_last_event_path;
    struct json_span value;

    if (cursor_pointer != NULL && find_cursor_value(element, cursor_pointer, &value))
        reader->cursor = value;
    return source_page_add_element(reader->page, &reader->config->pointers, element, true, NULL);
}

/* Returns a JSON pointer of an http source as a message shows it; the empty pointer, which means the
 * whole answer, would look like a gap. */
static const char *describe_pointer(const char *pointer)
{
    return pointer[0] == '\0' ? "the answer itself" : pointer;
}

/* Reads events and cursor of a valid JSON answer into the page, from where the http source's configuration
 * says they are. Runs in the producer's fetcher thread. Returns 0; EP_EPROTO if there is no array of events
 * or the cursor is unusable; or EP_ENOMEM. */
static int read_events_and_cursor(const struct source_config *config, struct json_span body,
                                  struct page *page, struct source_failure *failure)
{
    const struct http_source_config *http = &config->http;
    const char *events_pointer = http->events == NULL ? "" : http->events;
    struct answer_reader reader = {.config = config, .page = page};
    struct json_span events;
    char excerpt[EXCERPT_ROOM];

    copy_excerpt(config, body, excerpt);
    if (!json_find(body, events_pointer, &events) || (json_kind(events) != '[' && json_kind(events) != 'n'))
        return base_error_set(&failure->error, EP_EPROTO, "no array of events at %s: %s",
                              describe_pointer(events_pointer), excerpt);
    if (json_kind(events) == '[' && json_each_element(events, on_answer_element, &reader) != 0)
        return base_error_set(&failure->error, EP_ENOMEM, "out of memory for a page of events");
    if (http->cursor_path != NULL && find_cursor_value(body, http->cursor_path, &reader.cursor))
        return set_page_cursor(config, reader.cursor, page, failure);
    if (http->cursor_path == NULL && reader.cursor.bytes > 0)
        return set_page_cursor(config, reader.cursor, page, failure);
    return 0;
}

/* Reads an HTTP answer into the page of an http source: events and cursor, or the failure. The producer's
 * fetcher thread calls this after each request. Returns 0 or a negative code; EP_EPROTO means that the
 * answer is cut off or not JSON, and the message names the byte. */
int source_http_answer_read(const struct source_config *config, const struct http_answer *answer,
                            struct page *page, struct source_failure *failure)
{
    static const char byte_order_mark[] = "\xEF\xBB\xBF";
    struct json_span body = answer->body;
    char excerpt[EXCERPT_ROOM];
    size_t error_offset = 0;

    if (answer->status == 204)
        return 0;
    if (answer->status < 200 || answer->status > 299)
        return set_status_failure(config, answer, failure);
    if (body.bytes >= 3 && memcmp(body.at, byte_order_mark, 3) == 0)
        body = (struct json_span){body.at + 3, body.bytes - 3};
    if (json_valid(body.at, body.bytes, &error_offset))
        return read_events_and_cursor(config, body, page, failure);
    error_offset += (size_t)(body.at - answer->body.at);
    copy_excerpt(config, body, excerpt);
    if (answer->body.bytes == 0)
        return base_error_set(&failure->error, EP_EPROTO, "the answer is empty: expected JSON");
    if (error_offset == answer->body.bytes)
        return base_error_set(&failure->error, EP_EPROTO, "the answer is cut off after byte %zu: %s",
                              error_offset, excerpt);
    return base_error_set(&failure->error, EP_EPROTO, "the answer is not JSON at byte %zu of %zu: %s",
                          error_offset, answer->body.bytes, excerpt);
}
