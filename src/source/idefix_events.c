/* SPDX-License-Identifier: MIT */
/*
 * Reads the events in an Idefix backend's answer. Runs in the producer's fetcher thread for an idefix
 * source, and in the library caller's process for ep_idefix_events_get. Keeps no state.
 *
 * Invariants:
 *   1. No event is lost. An undecodable one goes into the page as corrupt, with the bytes that came, and
 *      the cursor advances past it. Otherwise one bad event would hold up the feed for ever.
 *   2. The structure of the whole answer is checked before an event is added, so a malformed answer leaves
 *      the page unchanged.
 *   3. A JSON event is stored byte for byte, a MessagePack event as json_msgpack_convert_to_json writes it.
 *   4. A UID is kept exactly, or the event is corrupt. If a repair made two UIDs equal, the store would
 *      drop the second event as a duplicate of the first.
 */
#include "src/source/idefix_events.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"
#include "src/json/msgpack.h"
#include "src/json/split.h"

/* Ten times the largest page that can be requested. Each value of a body becomes an event, so without a limit
 * a body of tiny values would need a hundred times its size in memory. */
#define EVENTS_MAX (10 * (size_t)CONFIG_PAGE_MAX)
#define CURSOR_BYTES_MAX 65536 /* each later request holds it */

/* ---- events in both encodings ---- */

struct idefix_event {
    struct json_span raw;
    char *uid, *address, *type; /* owned; NULL = it has none */
    const char *corrupt_reason; /* NULL = it is not corrupt */
    struct error decode_error;  /* holds the message that corrupt_reason may point to */
    struct text json;           /* of a MessagePack event */
    struct json_span data;      /* what is stored */
};

/* Frees the texts of an event from an idefix source's answer once it is on the page, which has copies of
 * them. */
static void free_event(struct idefix_event *event)
{
    free(event->uid);
    free(event->address);
    free(event->type);
    base_text_free(&event->json);
}

/* Makes the message in event->decode_error the reason why an event of an idefix source is corrupt, unless
 * it has a reason already. */
static void set_corrupt_reason_from_error(struct idefix_event *event)
{
    if (event->corrupt_reason == NULL)
        event->corrupt_reason = event->decode_error.message;
}

/* Checks the uid of an event on an idefix source's page. An unusable one is dropped and the event marked
 * as corrupt; a hash of its bytes then becomes its UID. is_present: the member exists; is_valid_text: it
 * is UTF-8 without NUL. Runs where the answer is read: in a producer's fetcher thread or the library
 * caller's process. */
static void check_event_uid(struct idefix_event *event, bool is_present, bool is_valid_text)
{
    const char *uid_fault = event->uid == NULL && is_present            ? "its uid is not a text"
                            : event->uid == NULL || *event->uid == '\0' ? "it has no uid"
                            : strlen(event->uid) > UID_BYTES_MAX        ? "its uid is longer than 1024 bytes"
                            : !is_valid_text ? "its uid contains NUL or is not UTF-8"
                                             : NULL;
    if (uid_fault == NULL)
        return;
    if (event->corrupt_reason == NULL)
        event->corrupt_reason = uid_fault;
    free(event->uid);
    event->uid = NULL;
}

/* Adds a decoded Idefix event to the page of the idefix source: as corrupt, if it has a reason for that.
 * Returns 0 or EP_ENOMEM. Runs in a producer's fetcher thread or the library caller's process. */
static int add_event_to_page(struct page *page, const struct idefix_event *event)
{
    if (event->corrupt_reason != NULL)
        return source_page_add_corrupt(page, event->uid, event->raw.at, event->raw.bytes,
                                       event->corrupt_reason);
    return source_page_add(page, event->uid, event->address, event->type, event->data.at, event->data.bytes);
}

/* ---- JSON ---- */

/* Copies a string member of an event in JSON on an idefix source's page; the caller frees *out, which is
 * NULL if there is none. Works on broken JSON, too, so that a corrupt event keeps its UID. Sets
 * *is_valid_text to false if the text contains NUL or invalid UTF-8, so that the copy differs from what
 * the backend sent. Returns 0 or EP_ENOMEM. */
static int read_json_text_member(struct json_span object, const char *pointer, char **out, bool *is_present,
                                 bool *is_valid_text)
{
    struct json_span value;
    size_t exact_bytes;

    *out = NULL;
    *is_valid_text = true;
    *is_present = json_find(object, pointer, &value) && json_kind(value) != 'n';
    if (!*is_present || json_kind(value) != '"' || !json_valid(value.at, value.bytes, NULL))
        return 0;
    char *exact_text = json_text_exact(value, &exact_bytes);
    if (exact_text == NULL)
        return EP_ENOMEM;
    *is_valid_text = strlen(exact_text) == exact_bytes;
    free(exact_text);
    *out = json_text(value);
    return *out == NULL ? EP_ENOMEM : 0;
}

/* Marks an Idefix event as corrupt if it is not a valid JSON object or is nested too deep. A producer's
 * fetcher thread or the library caller's process calls this for each event of an answer in JSON. */
static void check_json_event(struct idefix_event *event)
{
    struct json_span raw = event->raw;
    size_t error_offset;

    if (!json_valid(raw.at, raw.bytes, &error_offset)) {
        if (json_split_is_deeper_than(raw, JSON_DEPTH_MAX))
            base_error_set(&event->decode_error, EP_EPROTO, "it is nested deeper than %d", JSON_DEPTH_MAX);
        else
            base_error_set(&event->decode_error, EP_EPROTO, "it is not valid JSON at byte %zu", error_offset);
        set_corrupt_reason_from_error(event);
    } else if (json_kind(raw) != '{') {
        event->corrupt_reason = "it is not a JSON object";
    }
}

/* Callback for each event of an Idefix answer in JSON: checks it and adds it to the idefix source's page;
 * one that cannot be decoded is added as corrupt, with its bytes and the reason. Returns 0 or EP_ENOMEM,
 * which ends the loop. Runs in a producer's fetcher thread or, for ep_idefix_events_get, in the library
 * caller's process. */
static int on_json_event(struct json_span event_text, void *user)
{
    struct page *page = user;
    struct idefix_event event = {.raw = event_text, .data = event_text};
    bool is_present, is_valid_text, is_ignored;

    check_json_event(&event);
    int code = read_json_text_member(event_text, "/uid", &event.uid, &is_present, &is_valid_text);
    if (code == 0)
        check_event_uid(&event, is_present, is_valid_text);
    if (code == 0 && event.corrupt_reason == NULL)
        code = read_json_text_member(event_text, "/address", &event.address, &is_ignored, &is_ignored);
    if (code == 0 && event.corrupt_reason == NULL)
        code = read_json_text_member(event_text, "/type", &event.type, &is_ignored, &is_ignored);
    if (code == 0)
        code = add_event_to_page(page, &event);
    free_event(&event);
    return code;
}

/* ---- MessagePack ---- */

/* Copies a text member of an event in MessagePack on an idefix source's page; the caller frees *out,
 * which is NULL if there is none. Sets *is_valid_text to false if the text contains NUL or invalid UTF-8,
 * so that the copy differs from what the backend sent. Returns 0 or EP_ENOMEM. */
static int read_msgpack_text_member(struct msgpack map, const char *key, char **out, bool *is_present,
                                    bool *is_valid_text)
{
    struct msgpack value = {0};
    struct json_span content;

    *out = NULL;
    *is_valid_text = true;
    *is_present = json_msgpack_find(map, key, &value) && json_msgpack_kind(value) != MSGPACK_NIL;
    if (!*is_present || json_msgpack_kind(value) != MSGPACK_TEXT ||
        !json_msgpack_find_content(value, &content))
        return 0;
    *is_valid_text =
        memchr(content.at, '\0', content.bytes) == NULL && base_utf8_valid(content.at, content.bytes);
    *out = json_msgpack_copy_text(value);
    return *out == NULL ? EP_ENOMEM : 0;
}

/* Converts an Idefix event from MessagePack to the JSON text that is stored; marks it as corrupt if it is
 * not a map or cannot be converted. Returns 0 or EP_ENOMEM. Runs in a producer's fetcher thread or the
 * library caller's process. */
static int convert_msgpack_event(struct idefix_event *event, struct msgpack value)
{
    if (json_msgpack_kind(value) != MSGPACK_MAP) {
        event->corrupt_reason = "it is not a map";
        return 0;
    }
    int code = json_msgpack_convert_to_json(value, &event->json, &event->decode_error);
    if (code == EP_EPROTO) {
        set_corrupt_reason_from_error(event);
        return 0;
    }
    event->data = (struct json_span){event->json.text, event->json.bytes};
    return code;
}

/* Callback for each event of an Idefix answer in MessagePack: converts it to JSON and adds it to the
 * idefix source's page; one that cannot be converted is added as corrupt, with its bytes and the reason.
 * Returns 0 or EP_ENOMEM, which ends the loop. Runs in a producer's fetcher thread or, for
 * ep_idefix_events_get, in the library caller's process. */
static int on_msgpack_event(struct msgpack element, void *user)
{
    struct page *page = user;
    struct idefix_event event = {.raw = {element.at, element.bytes}};
    bool is_present, is_valid_text, is_ignored;

    int code = convert_msgpack_event(&event, element);
    if (code == 0)
        code = read_msgpack_text_member(element, "uid", &event.uid, &is_present, &is_valid_text);
    if (code == 0)
        check_event_uid(&event, is_present, is_valid_text);
    if (code == 0 && event.corrupt_reason == NULL)
        code = read_msgpack_text_member(element, "address", &event.address, &is_ignored, &is_ignored);
    if (code == 0 && event.corrupt_reason == NULL)
        code = read_msgpack_text_member(element, "type", &event.type, &is_ignored, &is_ignored);
    if (code == 0)
        code = add_event_to_page(page, &event);
    free_event(&event);
    return code;
}

/* ---- the answer ---- */

struct parsed_answer {
    struct json_span events; /* bytes 0 = none */
    char *cursor;            /* owned; NULL = none */
    size_t event_count;
};

/* Where the members of an answer's data are in its JSON text; at NULL = missing. */
struct data_members {
    struct json_span events, cid;
};

static int set_cid_error(struct error *error)
{
    return base_error_set(error, EP_EPROTO, "the answer's cid is not a text");
}

/* Callback for each member of the JSON object in an Idefix answer: remembers where `events` and `cid` (the
 * cursor) are. If a name comes twice, the first one counts. Returns 0, so that the loop goes on. */
static int on_data_member(struct json_span key, struct json_span value, void *user)
{
    struct data_members *members = user;

    if (members->events.at == NULL && json_split_is_key(key, "events"))
        members->events = value;
    else if (members->cid.at == NULL && json_split_is_key(key, "cid"))
        members->cid = value;
    return 0;
}

static int on_json_event_count(struct json_span piece, void *user)
{
    (void)piece;
    (*(size_t *)user)++;
    return 0;
}

static bool is_missing_or_null(struct json_span value)
{
    return value.at == NULL || (value.bytes == 4 && memcmp(value.at, "null", 4) == 0);
}

/* Finds events and cursor of an Idefix answer in JSON and counts the events; adds nothing to the idefix
 * source's page yet. Returns 0, EP_EPROTO for a malformed answer, or EP_ENOMEM; the caller frees
 * answer->cursor. Runs in a producer's fetcher thread or the library caller's process. */
static int parse_json_answer(struct json_span data, struct parsed_answer *answer, struct error *error)
{
    struct data_members members = {0};
    bool is_present, is_valid_text;

    if (json_split_members(data, on_data_member, &members) != 0)
        return base_error_set(error, EP_EPROTO, "the answer's data is not a JSON object");
    if (!is_missing_or_null(members.events))
        answer->events = members.events;
    if (answer->events.at != NULL &&
        json_split_elements(answer->events, on_json_event_count, &answer->event_count) != 0)
        return base_error_set(error, EP_EPROTO, "the answer's events are not a list");
    if (is_missing_or_null(members.cid))
        return 0;
    if (json_kind(members.cid) != '"' || !json_valid(members.cid.at, members.cid.bytes, NULL))
        return set_cid_error(error);
    int code = read_json_text_member(members.cid, "", &answer->cursor, &is_present, &is_valid_text);
    if (code != 0)
        return base_error_set(error, code, "out of memory for the answer's cid");
    return is_valid_text ? 0 : set_cid_error(error);
}

static int on_msgpack_event_count(struct msgpack element, void *user)
{
    (void)element;
    (*(size_t *)user)++;
    return 0;
}

/* Finds events and cursor of an Idefix answer in MessagePack and counts the events; adds nothing to the
 * idefix source's page yet. Returns 0, EP_EPROTO for a malformed answer, or EP_ENOMEM; the caller frees
 * answer->cursor. Runs in a producer's fetcher thread or the library caller's process. */
static int parse_msgpack_answer(struct msgpack data, struct parsed_answer *answer, struct error *error)
{
    struct msgpack events = {0};
    bool is_present, is_valid_text;

    if (json_msgpack_kind(data) != MSGPACK_MAP)
        return base_error_set(error, EP_EPROTO, "the answer's data is not a map");
    if (json_msgpack_find(data, "events", &events) && json_msgpack_kind(events) != MSGPACK_NIL) {
        if (json_msgpack_each_element(events, on_msgpack_event_count, &answer->event_count) != 0)
            return base_error_set(error, EP_EPROTO, "the answer's events are not a list");
        answer->events = (struct json_span){events.at, events.bytes};
    }
    int code = read_msgpack_text_member(data, "cid", &answer->cursor, &is_present, &is_valid_text);
    if (code != 0)
        return base_error_set(error, code, "out of memory for the answer's cid");
    return (is_present && answer->cursor == NULL) || !is_valid_text ? set_cid_error(error) : 0;
}

/* Adds the events and the cursor of a checked Idefix answer to the idefix source's page. Returns 0;
 * EP_EPROTO for far too many events or a huge cursor, which could exhaust the memory; or EP_ENOMEM. Runs
 * in a producer's fetcher thread or the library caller's process. */
static int add_answer_to_page(const struct idefix_message *message, const struct parsed_answer *answer,
                              struct page *page, struct error *error)
{
    struct json_span events = answer->events;
    int code = 0;

    if (answer->cursor != NULL && strlen(answer->cursor) > CURSOR_BYTES_MAX)
        return base_error_set(error, EP_EPROTO, "the answer's cid is %zu bytes long, more than %d",
                              strlen(answer->cursor), CURSOR_BYTES_MAX);
    if (answer->event_count > EVENTS_MAX)
        return base_error_set(error, EP_EPROTO, "the answer holds %zu events, more than %zu",
                              answer->event_count, EVENTS_MAX);
    if (answer->event_count > 0)
        code = message->msgpack ? json_msgpack_each_element((struct msgpack){events.at, events.bytes},
                                                            on_msgpack_event, page)
                                : json_split_elements(events, on_json_event, page);
    if (code == 0 && answer->cursor != NULL && answer->cursor[0] != '\0')
        code = source_page_set_cursor(page, answer->cursor);
    return code == 0
               ? 0
               : base_error_set(error, code, "out of memory for a page of %zu events", answer->event_count);
}

/* Reads the Idefix backend's answer to events.get, JSON or MessagePack, into a page. The idefix source
 * calls this in the producer's fetcher thread, ep_idefix_events_get in the library caller's process.
 * Returns 0, EP_EPROTO for a malformed answer, which leaves the page unchanged, or EP_ENOMEM. */
int source_idefix_events_read(const struct idefix_message *message, struct page *page, struct error *error)
{
    struct json_span data = message->data;
    struct parsed_answer answer = {0};

    if (data.bytes == 0)
        return 0;
    int code = message->msgpack ? parse_msgpack_answer((struct msgpack){data.at, data.bytes}, &answer, error)
                                : parse_json_answer(data, &answer, error);
    if (code == 0)
        code = add_answer_to_page(message, &answer, page, error);
    free(answer.cursor);
    return code;
}
