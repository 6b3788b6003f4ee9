/* SPDX-License-Identifier: MIT */
/*
 * A library caller's own client (struct ep_client) as a source. Runs in the producer's fetch thread, in a
 * process that was forked from the caller's; the client's functions are called there, one at a time.
 * Owns the client's session.
 *
 * Invariants:
 *   1. Everything that the client adds to an ep_page is copied.
 *   2. An undecodable event (no UID, text that is not JSON) is stored as dead, reason corrupt, and the
 *      call succeeds: the rest of the page goes on.
 *   3. Without a stored cursor the client gets the source's continuation_id.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/slot.h" /* shm_now_ns */
#include "src/source/source.h"

#define EMPTY_ANSWER_NS UINT64_C(100000000) /* from one empty answer to the next, at least */

struct ep_page {
    struct page *page;
    struct source_failure *failure;
    bool failed;
};

struct client {
    const struct source_config *config;
    const struct ep_client *table;
    struct ep_filter filter;
    void *session;
};

/* ---- the caller's side ---- */

static void out_named(struct json_out *out, const char *name, const char *text, bool is_json)
{
    if (text == NULL)
        return;
    json_write_text(out, out->bytes > 1 ? ",\"" : "\"");
    json_write_text(out, name);
    json_write_text(out, "\":");
    if (is_json)
        json_write_text(out, text);
    else
        json_write_string(out, text, strlen(text));
}

static bool broken_json(const char *text)
{
    return text != NULL && !json_valid(text, strlen(text), NULL);
}

static int add_broken(ep_page *page, const struct ep_event *event, const char *raw, const char *reason)
{
    return source_page_add_corrupt(page->page, event->uid, raw, strlen(raw), reason);
}

int ep_page_add(ep_page *page, const struct ep_event *event)
{
    struct json_out out = {0};
    int code = EP_ENOMEM;

    if (page == NULL || event == NULL)
        return EP_EINVAL;
    if (broken_json(event->payload))
        return add_broken(page, event, event->payload, "its payload is not valid JSON");
    if (broken_json(event->meta))
        return add_broken(page, event, event->meta, "its meta is not valid JSON");
    json_write_text(&out, "{");
    out_named(&out, "uid", event->uid, false);
    out_named(&out, "sourceId", event->source_id, false);
    out_named(&out, "domain", event->domain, false);
    out_named(&out, "address", event->address, false);
    out_named(&out, "type", event->type, false);
    out_named(&out, "timestamp", event->timestamp, false);
    out_named(&out, "meta", event->meta, true);
    out_named(&out, "payload", event->payload, true);
    json_write_text(&out, "}");
    if (!out.failed && (event->uid == NULL || event->uid[0] == '\0'))
        code = source_page_add_corrupt(page->page, NULL, out.text, out.bytes, "the event has no uid");
    else if (!out.failed)
        code = source_page_add(page->page, event->uid, event->address, event->type, out.text, out.bytes);
    json_write_free(&out);
    return code;
}

/* The member's text, NULL when it is not there or neither string nor number. */
static char *member_text(struct json_span object, const char *pointer)
{
    struct json_span value;

    return json_find(object, pointer, &value) ? json_text(value) : NULL;
}

int ep_page_add_text(ep_page *page, const char *uid, const char *event_json)
{
    if (page == NULL || event_json == NULL)
        return EP_EINVAL;

    struct json_span text = {event_json, strlen(event_json)};
    size_t at_byte;
    if (!json_valid(text.at, text.bytes, &at_byte)) {
        char reason[100];
        snprintf(reason, sizeof reason, "the event is not valid JSON at byte %zu", at_byte);
        return source_page_add_corrupt(page->page, uid, text.at, text.bytes, reason);
    }
    if (json_kind(text) != '{')
        return source_page_add_corrupt(page->page, uid, text.at, text.bytes,
                                       "the event is not a JSON object");
    char *own_uid = uid == NULL || uid[0] == '\0' ? member_text(text, "/uid") : NULL;
    char *address = member_text(text, "/address"), *type = member_text(text, "/type");
    const char *name = own_uid != NULL ? own_uid : uid;
    int code;
    if (name == NULL || name[0] == '\0')
        code = source_page_add_corrupt(page->page, NULL, text.at, text.bytes, "the event has no uid");
    else
        code = source_page_add(page->page, name, address, type, text.at, text.bytes);
    free(own_uid);
    free(address);
    free(type);
    return code;
}

int ep_page_set_cursor(ep_page *page, const char *cursor)
{
    if (page == NULL || cursor == NULL)
        return EP_EINVAL;
    return source_page_set_cursor(page->page, cursor);
}

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

/* ---- the producer's side ---- */

static int client_open(const struct source_config *config, void **state, struct error *error)
{
    const struct ep_client *table = config->client.client;

    if (table == NULL || table->events_get == NULL)
        return base_error_set(error, EP_ECONFIG, "source %s: its client has no events_get function",
                              config->id);
    if (table->requires_filter && config->domain == NULL && config->address == NULL)
        return base_error_set(
            error, EP_ECONFIG,
            "source %s: neither domain nor address is set, and its client needs one of them", config->id);
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return base_error_set(error, EP_ENOMEM, "no memory for source %s", config->id);
    client->config = config;
    client->table = table;
    client->filter = (struct ep_filter){config->domain, config->address, config->event_type, config->since};
    client->session = config->client.state;
    if (table->open != NULL) {
        char errbuf[512] = "";
        int code =
            table->open(config->client.state, &client->filter, &client->session, errbuf, sizeof errbuf);
        if (code != 0) {
            errbuf[sizeof errbuf - 1] = '\0';
            free(client);
            return base_error_set(error, code < 0 ? code : EP_EBACKEND,
                                  "source %s: its client cannot be opened: %s", config->id,
                                  errbuf[0] != '\0' ? errbuf : "it does not say why");
        }
    }
    *state = client;
    return 0;
}

/* A client that does not wait when there is nothing would be called as fast as a processor can. */
static void pace_empty_answer(uint64_t begin_ns)
{
    uint64_t took_ns = shm_now_ns() - begin_ns;
    if (took_ns >= EMPTY_ANSWER_NS)
        return;
    nanosleep(&(struct timespec){.tv_nsec = (long)(EMPTY_ANSWER_NS - took_ns)}, NULL);
}

static int client_fetch(void *state, const struct fetch *fetch, struct page *page,
                        struct source_failure *failure)
{
    struct client *client = state;
    uint64_t begin_ns = shm_now_ns();
    struct ep_page view = {.page = page, .failure = failure};
    const char *cursor = fetch->cursor != NULL ? fetch->cursor : client->config->continuation_id;
    int code = client->table->events_get(client->session, &client->filter, cursor, fetch->limit,
                                         fetch->wait_ms, &view);

    if (code == EP_END && !view.failed) {
        page->end = true;
        return 0;
    }
    if (code == 0 && !view.failed) {
        page->more = page->count > 0 && page->count >= fetch->limit;
        bool moved = page->cursor != NULL && (cursor == NULL || strcmp(page->cursor, cursor) != 0);
        if (page->count == 0 && !moved)
            pace_empty_answer(begin_ns);
        return 0;
    }
    if (!view.failed)
        base_error_set(&failure->error, code < 0 ? code : EP_EBACKEND,
                       "the client's events_get returned %d and did not say why", code);
    else if (code < 0)
        failure->error.code = code;
    return failure->error.code;
}

static void client_close(void *state)
{
    struct client *client = state;

    if (client->table->close != NULL)
        client->table->close(client->session);
    free(client);
}

const struct source_ops source_client_ops = {
    .type = "client",
    .open = client_open,
    .fetch = client_fetch,
    .interrupt =
        NULL, /* the caller's function gets wait_ms and keeps to it: it has no other way to be stopped */
    .close = client_close,
};
