/* SPDX-License-Identifier: MIT */
/*
 * A page: the events of one fetch, on their way from a source to the store. Runs in the producer's fetcher
 * thread, in the keeper for injected events, and in the library caller's process. A page belongs to one
 * thread at a time.
 *
 * Owns all strings of its events: each event is one allocation, which begins with the UID. Added events
 * are copied. If out of memory, the page stays as it was. An undecodable event does not fail the page: it
 * is added as corrupt, with its bytes and the reason.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/base/hash.h"
#include "src/base/utf8.h"
#include "src/source/source.h"

#define SECONDS_MAX \
    100000000000 /* a larger timestamp is in milliseconds: in seconds it would be after the year 5138 */

/* Makes an empty page, which will hold the events of one fetch of a source. The producer calls this once
 * for its fetches, the keeper for each `eventpipe inject`, the library's Idefix client for each
 * ep_idefix_events_get. */
void source_page_open(struct page *page)
{
    *page = (struct page){0};
}

/* Frees all events of a source's page and its cursor; the page is empty then and can be filled again. The
 * producer calls this before each fetch and after the events were stored, the keeper after each page of
 * `eventpipe inject`. */
void source_page_clear(struct page *page)
{
    for (size_t i = 0; i < page->count; i++)
        free((char *)page->events[i].uid);
    free(page->events);
    free(page->cursor);
    source_page_open(page);
}

/* Sets the cursor of a source's page, the position after its events, to a copy of a text; the store
 * commits it together with the events. Sources call this in the producer's fetcher thread, the library's
 * Idefix client in its caller's process. Returns 0, or EP_ENOMEM, which leaves the old cursor. */
int source_page_set_cursor(struct page *page, const char *cursor)
{
    char *cursor_copy = strdup(cursor);

    if (cursor_copy == NULL)
        return EP_ENOMEM;
    free(page->cursor);
    page->cursor = cursor_copy;
    return 0;
}

/* Returns the size of a text of a source's event with its NUL, or 0 for NULL. */
static size_t get_text_size_bytes(const char *text)
{
    return text == NULL ? 0 : strlen(text) + 1;
}

/* Copies an optional text of a source's event into the event's allocation at *position, and advances
 * *position to the byte after the copy. Returns the copy, or NULL for NULL. size_bytes includes the NUL;
 * append_event_copy has made room for it. */
static const char *copy_text_to_position(char **position, const char *text, size_t size_bytes)
{
    char *copy = *position;

    if (text == NULL)
        return NULL;
    memcpy(copy, text, size_bytes);
    *position += size_bytes;
    return copy;
}

/* Appends a copy of an event to a source's page, with all its texts in one allocation that begins with
 * the UID, so that one free releases them. Every event on its way from a source to the store passes here.
 * Returns 0, or EP_ENOMEM, which leaves the page unchanged. */
static int append_event_copy(struct page *page, const struct store_event *event)
{
    if (page->count == page->room) {
        size_t new_room = page->room == 0 ? 128 : 2 * page->room;
        struct store_event *events = reallocarray(page->events, new_room, sizeof *events);
        if (events == NULL)
            return EP_ENOMEM;
        page->events = events;
        page->room = new_room;
    }
    size_t uid_bytes = get_text_size_bytes(event->uid), address_bytes = get_text_size_bytes(event->address);
    size_t type_bytes = get_text_size_bytes(event->type), error_bytes = get_text_size_bytes(event->error);
    char *position = malloc(uid_bytes + address_bytes + type_bytes + error_bytes + event->data_bytes + 1);
    if (position == NULL)
        return EP_ENOMEM;
    struct store_event *copy = &page->events[page->count++];
    *copy = (struct store_event){.data_bytes = event->data_bytes, .dead = event->dead};
    copy->uid = copy_text_to_position(&position, event->uid, uid_bytes);
    copy->address = copy_text_to_position(&position, event->address, address_bytes);
    copy->type = copy_text_to_position(&position, event->type, type_bytes);
    copy->error = copy_text_to_position(&position, event->error, error_bytes);
    if (event->data_bytes > 0)
        memcpy(position, event->data, event->data_bytes);
    position[event->data_bytes] = '\0';
    copy->data = position;
    page->data_bytes += event->data_bytes;
    return 0;
}

/* Appends an event with its JSON text to a source's page; everything is copied. Sources call this in the
 * producer's fetcher thread, the keeper for `eventpipe inject`, and the library's Idefix client in its
 * caller's process. Returns 0, EP_ENOMEM, or EP_EINVAL without UID or data. */
int source_page_add(struct page *page, const char *uid, const char *address, const char *type,
                    const char *data, size_t data_bytes)
{
    if (uid == NULL || uid[0] == '\0' || data == NULL)
        return EP_EINVAL;
    struct store_event event = {
        .uid = uid, .address = address, .type = type, .data = data, .data_bytes = data_bytes};
    return append_event_copy(page, &event);
}

/* Appends an event that cannot be decoded to a source's page; the store keeps it as dead, reason corrupt,
 * with its raw bytes. Sources call this in the producer's fetcher thread, so that one bad event does not
 * stop all that follow. Without a usable UID, a hash of the bytes becomes the UID. Returns 0 or
 * EP_ENOMEM. */
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
        base_hash_write_hex(event.data, event.data_bytes, hash, HASH_UID_DIGITS);
        event.uid = hash;
    }
    return append_event_copy(page, &event);
}

/* ---- building an event from an element of an HTTP answer or a line of a file ---- */

/* Copies the value that a JSON pointer of the source's configuration finds in an event, if it is a string
 * or a number. The caller frees *out, which is NULL if there is no such value. Returns 0 or EP_ENOMEM.
 * Runs in the producer's fetcher thread, for http and file sources. */
static int copy_string_or_number(struct json_span event, const char *json_pointer, char **out)
{
    struct json_span value;
    char kind;

    *out = NULL;
    if (json_pointer == NULL || !json_find(event, json_pointer, &value))
        return 0;
    kind = json_kind(value);
    if (kind != '"' && kind != '0') /* neither a string nor a number */
        return 0;
    *out = json_text(value);
    return *out == NULL ? EP_ENOMEM : 0;
}

/* Copies the timestamp of an event of an http or file source; the caller frees *out, which is NULL if
 * there is none. A string stays as it is; a number is Unix time in seconds or milliseconds and becomes
 * RFC 3339. Returns 0 or EP_ENOMEM. Runs in the producer's fetcher thread, for http and file sources. */
static int copy_timestamp(struct json_span event, const char *json_pointer, char **out)
{
    struct json_span value;
    int code = copy_string_or_number(event, json_pointer, out);

    if (code != 0 || *out == NULL || !json_find(event, json_pointer, &value) || json_kind(value) != '0')
        return code;
    double seconds = strtod(*out, NULL);
    int64_t unix_ms;
    if (json_int64(value, &unix_ms) && unix_ms > -INT64_MAX / 1000 && unix_ms < INT64_MAX / 1000)
        unix_ms *= unix_ms > -SECONDS_MAX && unix_ms < SECONDS_MAX ? 1000 : 1;
    else if (seconds > -SECONDS_MAX && seconds < SECONDS_MAX)
        unix_ms = (int64_t)(seconds * 1000);
    else
        return 0;
    time_t unix_seconds = (time_t)(unix_ms / 1000 - (unix_ms % 1000 < 0));
    int ms_of_second = (int)(unix_ms - (int64_t)unix_seconds * 1000);
    struct tm utc;
    char date_and_time[64], timestamp[80];
    if (gmtime_r(&unix_seconds, &utc) == NULL || utc.tm_year < -1900 || utc.tm_year > 9999 - 1900 ||
        strftime(date_and_time, sizeof date_and_time, "%Y-%m-%dT%H:%M:%S", &utc) == 0)
        return 0;
    snprintf(timestamp, sizeof timestamp, ms_of_second == 0 ? "%sZ" : "%s.%03dZ", date_and_time,
             ms_of_second);
    free(*out);
    *out = strdup(timestamp);
    return *out == NULL ? EP_ENOMEM : 0;
}

/* Writes one member with a text value to an event's JSON object, after a comma if it is not the first;
 * skips a NULL text. source_page_add_element builds the events of http and file sources with it, in the
 * producer's fetcher thread. */
static void write_event_text_member(struct text *out, const char *name, const char *text)
{
    if (text == NULL)
        return;
    base_text_append(out, out->bytes > 1 ? "," : "");
    json_write_string(out, name, strlen(name));
    base_text_append(out, ":");
    json_write_string(out, text, strlen(text));
}

/* Writes the payload of a source's event: JSON as it is, UTF-8 text as a string, anything else in base64.
 * A text that contains NUL goes in base64, too, since many parsers end a string at a NUL. Runs in the
 * producer's fetcher thread, for http and file sources. */
static void write_payload_member(struct text *out, struct json_span element, bool is_json)
{
    if (is_json) {
        base_text_append(out, ",\"payload\":");
        base_text_append_bytes(out, element.at, element.bytes);
    } else if (memchr(element.at, '\0', element.bytes) == NULL &&
               base_utf8_valid(element.at, element.bytes)) {
        base_text_append(out, ",\"payload\":");
        json_write_string(out, element.at, element.bytes);
    } else {
        base_text_append(out, ",\"payload:b64\":");
        json_write_base64(out, element.at, element.bytes);
    }
}

struct element_members {
    char *uid, *address, *type, *timestamp;
};

/* Copies UID, address, type and timestamp of an event, as the source's JSON pointers find them; the caller
 * frees them, also after a failure. Returns 0 or EP_ENOMEM. Runs in the producer's fetcher thread, for http
 * and file sources. */
static int copy_element_members(const struct event_pointers *pointers, struct json_span element,
                                struct element_members *members)
{
    int code = copy_string_or_number(element, pointers->uid, &members->uid);
    if (code == 0)
        code = copy_string_or_number(element, pointers->address, &members->address);
    if (code == 0)
        code = copy_string_or_number(element, pointers->event_type, &members->type);
    return code == 0 ? copy_timestamp(element, pointers->timestamp, &members->timestamp) : code;
}

/* Returns why the uid of an event of an http or file source cannot be its UID, or NULL if it can or if
 * there is none. The producer's fetcher thread then adds the event as corrupt, because a shortened or
 * guessed UID could equal another event's, and the store would drop one of the two. */
static const char *find_uid_corrupt_reason(const struct event_pointers *pointers, struct json_span element,
                                           const char *uid)
{
    struct json_span value;

    if (uid != NULL)
        return strlen(uid) > UID_BYTES_MAX ? "its uid is longer than 1024 bytes" : NULL;
    if (pointers->uid == NULL || !json_find(element, pointers->uid, &value) || json_kind(value) == 'n')
        return NULL;
    return "its uid is neither a string nor a number";
}

/* Builds an event from a line of a file or an element of an HTTP answer and adds it to the page. The UID
 * is the element's own, else fallback_uid, else a hash of the element; one with an unusable uid becomes
 * corrupt. The file and http sources call this in the producer's fetcher thread. Returns 0 or EP_ENOMEM. */
int source_page_add_element(struct page *page, const struct event_pointers *pointers,
                            struct json_span element, bool is_json, const char *fallback_uid)
{
    struct element_members members = {0};
    struct text json_text = {0};
    char hash_uid[HASH_UID_DIGITS + 1];
    const char *corrupt_reason = NULL;
    int code = is_json ? copy_element_members(pointers, element, &members) : 0;

    if (code != 0)
        goto json_text;
    if (fallback_uid == NULL && (members.uid == NULL || members.uid[0] == '\0')) {
        base_hash_write_hex(element.at, element.bytes, hash_uid, HASH_UID_DIGITS);
        fallback_uid = hash_uid;
    }
    if (is_json)
        corrupt_reason = find_uid_corrupt_reason(pointers, element, members.uid);
    if (corrupt_reason != NULL) {
        code = source_page_add_corrupt(page, fallback_uid, element.at, element.bytes, corrupt_reason);
        goto json_text;
    }
    const char *uid = members.uid != NULL && members.uid[0] != '\0' ? members.uid : fallback_uid;
    base_text_append(&json_text, "{");
    write_event_text_member(&json_text, "uid", uid);
    write_event_text_member(&json_text, "address", members.address);
    write_event_text_member(&json_text, "type", members.type);
    write_event_text_member(&json_text, "timestamp", members.timestamp);
    write_payload_member(&json_text, element, is_json);
    base_text_append(&json_text, "}");
    code = json_text.failed
               ? EP_ENOMEM
               : source_page_add(page, uid, members.address, members.type, json_text.text, json_text.bytes);
json_text:
    base_text_free(&json_text);
    free(members.uid);
    free(members.address);
    free(members.type);
    free(members.timestamp);
    return code;
}
