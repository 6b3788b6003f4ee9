/* SPDX-License-Identifier: MIT */
/*
 * A page: the events of one fetch, on their way from a source to the store. Runs in the producer's fetch
 * thread; a page belongs to one thread at a time.
 *
 * Owns all strings of its events: each event is one allocation, which begins with the UID. Added events
 * are copied. When memory is out, the page stays as it was. An undecodable event does not fail the page:
 * it is added as corrupt, with its bytes and the reason.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/base/hash.h"
#include "src/base/utf8.h"
#include "src/source/source.h"

#define SECONDS_MAX \
    100000000000 /* a greater number is a time in milliseconds: in seconds it would be past year 5138 */

void source_page_open(struct page *page)
{
    *page = (struct page){0};
}

void source_page_clear(struct page *page)
{
    for (size_t i = 0; i < page->count; i++)
        free((char *)page->events[i].uid);
    free(page->events);
    free(page->cursor);
    source_page_open(page);
}

int source_page_set_cursor(struct page *page, const char *cursor)
{
    char *copy = strdup(cursor);

    if (copy == NULL)
        return EP_ENOMEM;
    free(page->cursor);
    page->cursor = copy;
    return 0;
}

static size_t text_room(const char *text)
{
    return text == NULL ? 0 : strlen(text) + 1;
}

static const char *text_into(char **at, const char *text, size_t room)
{
    char *start = *at;

    if (text == NULL)
        return NULL;
    memcpy(start, text, room);
    *at += room;
    return start;
}

/* Copies an event whose strings the caller owns. */
static int page_put(struct page *page, const struct store_event *event)
{
    if (page->count == page->room) {
        size_t room = page->room == 0 ? 128 : 2 * page->room;
        struct store_event *events = reallocarray(page->events, room, sizeof *events);
        if (events == NULL)
            return EP_ENOMEM;
        page->events = events;
        page->room = room;
    }
    size_t uid_room = text_room(event->uid), address_room = text_room(event->address);
    size_t type_room = text_room(event->type), error_room = text_room(event->error);
    char *at = malloc(uid_room + address_room + type_room + error_room + event->data_bytes + 1);
    if (at == NULL)
        return EP_ENOMEM;
    struct store_event *copy = &page->events[page->count++];
    *copy = (struct store_event){.data_bytes = event->data_bytes, .dead = event->dead};
    copy->uid = text_into(&at, event->uid, uid_room);
    copy->address = text_into(&at, event->address, address_room);
    copy->type = text_into(&at, event->type, type_room);
    copy->error = text_into(&at, event->error, error_room);
    if (event->data_bytes > 0)
        memcpy(at, event->data, event->data_bytes);
    at[event->data_bytes] = '\0';
    copy->data = at;
    page->data_bytes += event->data_bytes;
    return 0;
}

int source_page_add(struct page *page, const char *uid, const char *address, const char *type,
                    const char *data, size_t data_bytes)
{
    if (uid == NULL || uid[0] == '\0' || data == NULL)
        return EP_EINVAL;
    struct store_event event = {
        .uid = uid, .address = address, .type = type, .data = data, .data_bytes = data_bytes};
    return page_put(page, &event);
}

int source_page_add_corrupt(struct page *page, const char *uid, const char *raw, size_t raw_bytes,
                            const char *reason)
{
    char hash[HASH_UID_DIGITS + 1];
    struct store_event event = {.uid = uid,
                                .data = raw == NULL ? "" : raw,
                                .data_bytes = raw == NULL ? 0 : raw_bytes,
                                .dead = STORE_REASON_CORRUPT,
                                .error = reason};

    if (uid == NULL || uid[0] == '\0' || strlen(uid) > UID_BYTES_MAX) {
        base_hash_hex(event.data, event.data_bytes, hash, HASH_UID_DIGITS);
        event.uid = hash;
    }
    return page_put(page, &event);
}

/* ---- an element of a feed, a line of a file: what its pointers name ---- */

/* A string's or number's text; *out NULL when there is none. */
static int named_text(struct json_span element, const char *pointer, char **out)
{
    struct json_span value;
    char kind;

    *out = NULL;
    if (pointer == NULL || !json_find(element, pointer, &value))
        return 0;
    kind = json_kind(value);
    if (kind != '"' && kind != '0')
        return 0;
    *out = json_text(value);
    return *out == NULL ? EP_ENOMEM : 0;
}

/* A number is Unix time, in seconds or milliseconds: becomes RFC 3339. A string stays as it is. */
static int named_time(struct json_span element, const char *pointer, char **out)
{
    struct json_span value;
    int code = named_text(element, pointer, out);

    if (code != 0 || *out == NULL || !json_find(element, pointer, &value) || json_kind(value) != '0')
        return code;
    double seconds = strtod(*out, NULL);
    int64_t exact;
    if (json_int64(value, &exact) && exact > -INT64_MAX / 1000 && exact < INT64_MAX / 1000)
        exact *= exact > -SECONDS_MAX && exact < SECONDS_MAX ? 1000 : 1;
    else if (seconds > -SECONDS_MAX && seconds < SECONDS_MAX)
        exact = (int64_t)(seconds * 1000);
    else
        return 0;
    time_t whole = (time_t)(exact / 1000 - (exact % 1000 < 0));
    int ms = (int)(exact - (int64_t)whole * 1000);
    struct tm parts;
    char date[64], text[80];
    if (gmtime_r(&whole, &parts) == NULL || parts.tm_year < -1900 || parts.tm_year > 9999 - 1900 ||
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts) == 0)
        return 0;
    snprintf(text, sizeof text, ms == 0 ? "%sZ" : "%s.%03dZ", date, ms);
    free(*out);
    *out = strdup(text);
    return *out == NULL ? EP_ENOMEM : 0;
}

static void out_member(struct json_out *out, const char *name, const char *text)
{
    if (text == NULL)
        return;
    json_write_text(out, out->bytes > 1 ? "," : "");
    json_write_string(out, name, strlen(name));
    json_write_text(out, ":");
    json_write_string(out, text, strlen(text));
}

/* Text is a string; what is not text (or holds a NUL, which many parsers end a string at) is bytes, in
 * base64. */
static void out_payload(struct json_out *out, struct json_span element, bool is_json)
{
    if (is_json) {
        json_write_text(out, ",\"payload\":");
        json_write_raw(out, element.at, element.bytes);
    } else if (memchr(element.at, '\0', element.bytes) == NULL &&
               base_utf8_valid(element.at, element.bytes)) {
        json_write_text(out, ",\"payload\":");
        json_write_string(out, element.at, element.bytes);
    } else {
        json_write_text(out, ",\"payload:b64\":");
        json_write_base64(out, element.at, element.bytes);
    }
}

struct element_names {
    char *uid, *address, *type, *timestamp;
};

static int element_names(const struct event_pointers *pointers, struct json_span element,
                         struct element_names *names)
{
    int code = named_text(element, pointers->uid, &names->uid);
    if (code == 0)
        code = named_text(element, pointers->address, &names->address);
    if (code == 0)
        code = named_text(element, pointers->event_type, &names->type);
    return code == 0 ? named_time(element, pointers->timestamp, &names->timestamp) : code;
}

/* Why the element's uid cannot be one, or NULL: it is fine, or it has none. */
static const char *uid_fault(const struct event_pointers *pointers, struct json_span element, const char *uid)
{
    struct json_span value;

    if (uid != NULL)
        return strlen(uid) > UID_BYTES_MAX ? "its uid is longer than 1024 bytes" : NULL;
    if (pointers->uid == NULL || !json_find(element, pointers->uid, &value) || json_kind(value) == 'n')
        return NULL;
    return "its uid is neither a string nor a number";
}

int source_page_add_element(struct page *page, const struct event_pointers *pointers,
                            struct json_span element, bool is_json, const char *fallback_uid)
{
    struct element_names names = {0};
    struct json_out out = {0};
    char hash[HASH_UID_DIGITS + 1];
    const char *fault = NULL;
    int code = is_json ? element_names(pointers, element, &names) : 0;

    if (code != 0)
        goto out;
    if (fallback_uid == NULL && (names.uid == NULL || names.uid[0] == '\0')) {
        base_hash_hex(element.at, element.bytes, hash, HASH_UID_DIGITS);
        fallback_uid = hash;
    }
    if (is_json)
        fault = uid_fault(pointers, element, names.uid);
    if (fault != NULL) {
        code = source_page_add_corrupt(page, fallback_uid, element.at, element.bytes, fault);
        goto out;
    }
    const char *uid = names.uid != NULL && names.uid[0] != '\0' ? names.uid : fallback_uid;
    json_write_text(&out, "{");
    out_member(&out, "uid", uid);
    out_member(&out, "address", names.address);
    out_member(&out, "type", names.type);
    out_member(&out, "timestamp", names.timestamp);
    out_payload(&out, element, is_json);
    json_write_text(&out, "}");
    code =
        out.failed ? EP_ENOMEM : source_page_add(page, uid, names.address, names.type, out.text, out.bytes);
out:
    json_write_free(&out);
    free(names.uid);
    free(names.address);
    free(names.type);
    free(names.timestamp);
    return code;
}
