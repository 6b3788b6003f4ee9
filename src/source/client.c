/* SPDX-License-Identifier: MIT */
/*
 * A library caller's own client (struct ep_client) as a source. Runs in the producer's fetcher thread, in a
 * process that was forked from the caller's; the client's functions are called there, one at a time.
 * Owns the client's session.
 *
 * Invariants:
 *   1. Everything that the client adds to an ep_page is copied.
 *   2. An undecodable event (no UID, text that is not JSON) is stored as dead, reason corrupt, and the
 *      call succeeds: the other events of the page are stored as usual.
 *   3. Without a stored cursor the client gets the source's continuation_id.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/slot.h" /* shm_now_ns */
#include "src/source/source.h"

#define EMPTY_ANSWER_NS UINT64_C(100000000) /* the shortest time between two empty answers */

struct ep_page {
    struct page *page;
    struct source_failure *failure;
    bool failed;
};

struct client_source {
    const struct source_config *config;
    const struct ep_client *functions;
    struct ep_filter filter;
    void *session;
};

/* ---- what the caller's client calls ---- */

/* Writes one member of an event's JSON object, after a comma if it is not the first; skips a NULL text.
 * With is_json, the text is JSON and is written as it is; otherwise it becomes a JSON string. ep_page_add
 * builds an event of a client source with it, in the producer's fetcher thread. */
static void write_event_member(struct text *out, const char *name, const char *text, bool is_json)
{
    if (text == NULL)
        return;
    base_text_append(out, out->bytes > 1 ? ",\"" : "\"");
    base_text_append(out, name);
    base_text_append(out, "\":");
    if (is_json)
        base_text_append(out, text);
    else
        json_write_string(out, text, strlen(text));
}

/* Whether the library caller's client gave a payload or meta that is not valid JSON; NULL is fine.
 * ep_page_add then stores the event as corrupt. */
static bool has_invalid_json(const char *text)
{
    return text != NULL && !json_valid(text, strlen(text), NULL);
}

/* Adds an event that the library caller's client gave, but that cannot be decoded, to the page of the
 * client source. The store keeps it as dead, with the raw text and the reason. Returns 0 or EP_ENOMEM. */
static int add_corrupt_event(ep_page *page, const struct ep_event *event, const char *raw, const char *reason)
{
    return source_page_add_corrupt(page->page, event->uid, raw, strlen(raw), reason);
}

/* Adds one event to the page of a client source, with all members of struct ep_event copied. The library
 * caller's client calls this from its events_get function, in the producer's fetcher thread. Returns 0,
 * EP_EINVAL or EP_ENOMEM. An event without UID or with invalid JSON is added as corrupt, so that it cannot
 * block the source. */
int ep_page_add(ep_page *page, const struct ep_event *event)
{
    struct text json_text = {0};
    int code = EP_ENOMEM;

    if (page == NULL || event == NULL)
        return EP_EINVAL;
    if (has_invalid_json(event->payload))
        return add_corrupt_event(page, event, event->payload, "its payload is not valid JSON");
    if (has_invalid_json(event->meta))
        return add_corrupt_event(page, event, event->meta, "its meta is not valid JSON");
    base_text_append(&json_text, "{");
    write_event_member(&json_text, "uid", event->uid, false);
    write_event_member(&json_text, "sourceId", event->source_id, false);
    write_event_member(&json_text, "domain", event->domain, false);
    write_event_member(&json_text, "address", event->address, false);
    write_event_member(&json_text, "type", event->type, false);
    write_event_member(&json_text, "timestamp", event->timestamp, false);
    write_event_member(&json_text, "meta", event->meta, true);
    write_event_member(&json_text, "payload", event->payload, true);
    base_text_append(&json_text, "}");
    if (!json_text.failed && (event->uid == NULL || event->uid[0] == '\0'))
        code = source_page_add_corrupt(page->page, NULL, json_text.text, json_text.bytes,
                                       "the event has no uid");
    else if (!json_text.failed)
        code = source_page_add(page->page, event->uid, event->address, event->type, json_text.text,
                               json_text.bytes);
    base_text_free(&json_text);
    return code;
}

/* Returns a copy of the text of a string or number member of an event from a client source, which the
 * caller frees. Returns NULL if there is no such member, or if out of memory. ep_page_add_text reads UID,
 * address and type with it. */
static char *copy_event_member(struct json_span object, const char *pointer)
{
    struct json_span value;

    return json_find(object, pointer, &value) ? json_text(value) : NULL;
}

/* Adds one event, given as JSON text, to the page of a client source. The library caller's client calls
 * this from its events_get function, in the producer's fetcher thread. Its UID is the parameter uid or, if
 * that is NULL or empty, the event's own. Returns 0, EP_EINVAL or EP_ENOMEM; text that is not a JSON
 * object is added as a corrupt event. */
int ep_page_add_text(ep_page *page, const char *uid, const char *event_json)
{
    if (page == NULL || event_json == NULL)
        return EP_EINVAL;

    struct json_span text = {event_json, strlen(event_json)};
    size_t error_offset;
    if (!json_valid(text.at, text.bytes, &error_offset)) {
        char reason[100];
        snprintf(reason, sizeof reason, "the event is not valid JSON at byte %zu", error_offset);
        return source_page_add_corrupt(page->page, uid, text.at, text.bytes, reason);
    }
    if (json_kind(text) != '{')
        return source_page_add_corrupt(page->page, uid, text.at, text.bytes,
                                       "the event is not a JSON object");
    char *own_uid = uid == NULL || uid[0] == '\0' ? copy_event_member(text, "/uid") : NULL;
    char *address = copy_event_member(text, "/address"), *type = copy_event_member(text, "/type");
    const char *final_uid = own_uid != NULL ? own_uid : uid;
    int code;
    if (final_uid == NULL || final_uid[0] == '\0')
        code = source_page_add_corrupt(page->page, NULL, text.at, text.bytes, "the event has no uid");
    else
        code = source_page_add(page->page, final_uid, address, type, text.at, text.bytes);
    free(own_uid);
    free(address);
    free(type);
    return code;
}

/* Sets the cursor that the store keeps together with the events of this page of a client source; the next
 * fetch starts after it. The library caller's client calls this from its events_get function, in the
 * producer's fetcher thread. Returns 0, EP_EINVAL or EP_ENOMEM. */
int ep_page_set_cursor(ep_page *page, const char *cursor)
{
    if (page == NULL || cursor == NULL)
        return EP_EINVAL;
    return source_page_set_cursor(page->page, cursor);
}

/* Records why a fetch of a client source failed, and when to try again (retry_after_ms 0: the producer's
 * backoff decides). The library caller's client calls this from its events_get function and returns the
 * result, which is EP_EBACKEND. Without a recorded reason, `eventpipe status` could show only a code. */
int ep_page_fail(ep_page *page, uint64_t retry_after_ms, const char *format, ...)
{
    va_list arguments;

    if (page == NULL || format == NULL)
        return EP_EINVAL;
    page->failed = true;
    page->failure->retry_after_ms = retry_after_ms;
    page->failure->error.code = EP_EBACKEND;
    va_start(arguments, format);
    vsnprintf(page->failure->error.message, sizeof page->failure->error.message, format, arguments);
    va_end(arguments);
    return EP_EBACKEND;
}

/* ---- what the producer calls ---- */

/* Opens a source whose events come from the library caller's own client: checks the configuration and
 * calls the client's open function. The producer's fetcher thread calls this before the first fetch, in a
 * process forked from the caller's. Returns 0 and sets *state, or returns a negative code and fills the
 * error. */
static int client_source_open(const struct source_config *config, void **state, struct error *error)
{
    const struct ep_client *client_functions = config->client.client;

    if (client_functions == NULL || client_functions->events_get == NULL)
        return base_error_set(error, EP_ECONFIG, "source %s: its client has no events_get function",
                              config->id);
    if (client_functions->requires_filter && config->domain == NULL && config->address == NULL)
        return base_error_set(
            error, EP_ECONFIG,
            "source %s: neither domain nor address is set, and its client needs one of them", config->id);
    struct client_source *client = calloc(1, sizeof *client);
    if (client == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for source %s", config->id);
    client->config = config;
    client->functions = client_functions;
    client->filter = (struct ep_filter){config->domain, config->address, config->event_type, config->since};
    client->session = config->client.state;
    if (client_functions->open != NULL) {
        char errbuf[512] = "";
        int code = client_functions->open(config->client.state, &client->filter, &client->session, errbuf,
                                          sizeof errbuf);
        if (code != 0) {
            errbuf[sizeof errbuf - 1] = '\0';
            free(client);
            return base_error_set(error, code < 0 ? code : EP_EBACKEND,
                                  "source %s: the client's open function failed: %s", config->id,
                                  errbuf[0] != '\0' ? errbuf : "it wrote no reason into errbuf");
        }
    }
    *state = client;
    return 0;
}

/* Sleeps until 100 ms have passed since start_ns, when the client's call began. The producer's fetcher
 * thread calls this for a client source after an empty answer. Otherwise a client that does not wait for
 * events would keep a CPU busy. */
static void wait_after_empty_answer(uint64_t start_ns)
{
    uint64_t elapsed_ns = shm_now_ns() - start_ns;
    if (elapsed_ns >= EMPTY_ANSWER_NS)
        return;
    nanosleep(&(struct timespec){.tv_nsec = (long)(EMPTY_ANSWER_NS - elapsed_ns)}, NULL);
}

/* Fetches one page from the library caller's client by its events_get function. The producer's fetcher
 * thread calls this. Without a stored cursor the client gets continuation_id. Returns 0 with the page
 * filled, empty if there are no events yet, or a negative code with the failure filled. */
static int client_source_fetch(void *state, const struct fetch *fetch, struct page *page,
                               struct source_failure *failure)
{
    struct client_source *client = state;
    uint64_t start_ns = shm_now_ns();
    struct ep_page caller_page = {.page = page, .failure = failure};
    const char *cursor = fetch->cursor != NULL ? fetch->cursor : client->config->continuation_id;
    int code = client->functions->events_get(client->session, &client->filter, cursor, fetch->limit,
                                             fetch->wait_ms, &caller_page);

    if (code == EP_END && !caller_page.failed) {
        page->end = true;
        return 0;
    }
    if (code == 0 && !caller_page.failed) {
        page->more = page->count > 0 && page->count >= fetch->limit;
        bool cursor_has_moved = page->cursor != NULL && (cursor == NULL || strcmp(page->cursor, cursor) != 0);
        if (page->count == 0 && !cursor_has_moved)
            wait_after_empty_answer(start_ns);
        return 0;
    }
    if (!caller_page.failed)
        base_error_set(
            &failure->error, code < 0 ? code : EP_EBACKEND,
            "the client's events_get function returned %d and set no message: it should call ep_page_fail",
            code);
    else if (code < 0)
        failure->error.code = code;
    return failure->error.code;
}

/* Closes the session of the library caller's client and frees the source. The producer's fetcher thread
 * calls this when the producer stops. */
static void client_source_close(void *state)
{
    struct client_source *client = state;

    if (client->functions->close != NULL)
        client->functions->close(client->session);
    free(client);
}

const struct source_ops source_client_ops = {
    .type = "client",
    .open = client_source_open,
    .fetch = client_source_fetch,
    .interrupt = NULL, /* only the client knows how to end its wait: it must return after wait_ms */
    .close = client_source_close,
};
