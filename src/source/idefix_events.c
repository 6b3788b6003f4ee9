/* SPDX-License-Identifier: MIT */
/*
 * Reads a page of Idefix events. Pure but for memory; runs in the producer's fetch thread.
 *
 * Invariants:
 *   1. No event is lost. An undecodable one goes into the page as corrupt, with the bytes that came, and
 *      the cursor advances past it. Otherwise one bad event would hold up the feed for ever.
 *   2. Nothing is added before the structure of the whole answer was checked: a refused answer leaves the
 *      page unchanged.
 *   3. A JSON event is stored byte for byte, a MessagePack event as json_msgpack_json writes it.
 *   4. A UID is exact, or the event is corrupt. If repair made two UIDs equal, the store would take the
 *      second event for a copy of the first.
 */
#include "src/source/idefix_events.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"
#include "src/json/msgpack.h"
#include "src/json/split.h"

/* A hundred times the largest page that can be asked for. A body of nothing but tiny values, each kept as a
 * corrupt event, would cost a hundred times its size in memory. */
#define EVENTS_MAX (10 * (size_t)CONFIG_PAGE_MAX)
#define CURSOR_BYTES_MAX 65536 /* it goes into every request from then on */

/* ---- an event, whatever it came as ---- */

struct event {
    struct json_span raw;
    char *uid, *address, *type; /* owned; NULL = it has none */
    const char *fault;          /* why it is corrupt, NULL: it is not */
    struct error problem;       /* room for a fault's message */
    struct json_out json;       /* of a MessagePack event */
    struct json_span data;      /* what is stored */
};

static void event_free(struct event *event)
{
    free(event->uid);
    free(event->address);
    free(event->type);
    json_write_free(&event->json);
}

static void fault_in(struct event *event)
{
    if (event->fault == NULL)
        event->fault = event->problem.message;
}

/* Checks the uid. A uid that cannot be one is dropped, and its event named by a hash of its bytes. */
static void check_uid(struct event *event, bool is_there, bool is_exact)
{
    const char *fault = event->uid == NULL && is_there              ? "its uid is no text"
                        : event->uid == NULL || *event->uid == '\0' ? "it has no uid"
                        : strlen(event->uid) > UID_BYTES_MAX        ? "its uid is longer than 1024 bytes"
                        : !is_exact                                 ? "its uid holds NUL or is no UTF-8"
                                                                    : NULL;
    if (fault == NULL)
        return;
    if (event->fault == NULL)
        event->fault = fault;
    free(event->uid);
    event->uid = NULL;
}

static int event_store(struct page *page, const struct event *event)
{
    if (event->fault != NULL)
        return source_page_add_corrupt(page, event->uid, event->raw.at, event->raw.bytes, event->fault);
    return source_page_add(page, event->uid, event->address, event->type, event->data.at, event->data.bytes);
}

/* ---- JSON ---- */

/* The text of an object's member; *out NULL when there is none. Of broken JSON too: only the member need be
 * sound. */
static int json_member(struct json_span object, const char *pointer, char **out, bool *is_there,
                       bool *is_exact)
{
    struct json_span value;
    size_t bytes;

    *out = NULL;
    *is_exact = true;
    *is_there = json_find(object, pointer, &value) && json_kind(value) != 'n';
    if (!*is_there || json_kind(value) != '"' || !json_valid(value.at, value.bytes, NULL))
        return 0;
    char *exact = json_text_exact(value, &bytes);
    if (exact == NULL)
        return EP_ENOMEM;
    *is_exact = strlen(exact) == bytes;
    free(exact);
    *out = json_text(value);
    return *out == NULL ? EP_ENOMEM : 0;
}

static void check_json(struct event *event)
{
    struct json_span raw = event->raw;
    size_t at;

    if (!json_valid(raw.at, raw.bytes, &at)) {
        if (json_split_deeper(raw, JSON_DEPTH_MAX))
            base_error_set(&event->problem, EP_EPROTO, "it is nested deeper than %d", JSON_DEPTH_MAX);
        else
            base_error_set(&event->problem, EP_EPROTO, "it is no JSON: byte %zu", at);
        fault_in(event);
    } else if (json_kind(raw) != '{') {
        event->fault = "it is no object";
    }
}

static int take_json(struct json_span piece, void *user)
{
    struct page *page = user;
    struct event event = {.raw = piece, .data = piece};
    bool is_there, is_exact, unused;

    check_json(&event);
    int code = json_member(piece, "/uid", &event.uid, &is_there, &is_exact);
    if (code == 0)
        check_uid(&event, is_there, is_exact);
    if (code == 0 && event.fault == NULL)
        code = json_member(piece, "/address", &event.address, &unused, &unused);
    if (code == 0 && event.fault == NULL)
        code = json_member(piece, "/type", &event.type, &unused, &unused);
    if (code == 0)
        code = event_store(page, &event);
    event_free(&event);
    return code;
}

/* ---- MessagePack ---- */

static int msgpack_member(struct msgpack map, const char *key, char **out, bool *is_there, bool *is_exact)
{
    struct msgpack value = {0};
    struct json_span content;

    *out = NULL;
    *is_exact = true;
    *is_there = json_msgpack_find(map, key, &value) && json_msgpack_kind(value) != MSGPACK_NIL;
    if (!*is_there || json_msgpack_kind(value) != MSGPACK_TEXT || !json_msgpack_content(value, &content))
        return 0;
    *is_exact = memchr(content.at, '\0', content.bytes) == NULL && base_utf8_valid(content.at, content.bytes);
    *out = json_msgpack_text(value);
    return *out == NULL ? EP_ENOMEM : 0;
}

static int check_msgpack(struct event *event, struct msgpack value)
{
    if (json_msgpack_kind(value) != MSGPACK_MAP) {
        event->fault = "it is no map";
        return 0;
    }
    int code = json_msgpack_json(value, &event->json, &event->problem);
    if (code == EP_EPROTO) {
        fault_in(event);
        return 0;
    }
    event->data = (struct json_span){event->json.text, event->json.bytes};
    return code;
}

static int take_msgpack(struct msgpack element, void *user)
{
    struct page *page = user;
    struct event event = {.raw = {element.at, element.bytes}};
    bool is_there, is_exact, unused;

    int code = check_msgpack(&event, element);
    if (code == 0)
        code = msgpack_member(element, "uid", &event.uid, &is_there, &is_exact);
    if (code == 0)
        check_uid(&event, is_there, is_exact);
    if (code == 0 && event.fault == NULL)
        code = msgpack_member(element, "address", &event.address, &unused, &unused);
    if (code == 0 && event.fault == NULL)
        code = msgpack_member(element, "type", &event.type, &unused, &unused);
    if (code == 0)
        code = event_store(page, &event);
    event_free(&event);
    return code;
}

/* ---- the answer ---- */

struct answer {
    struct json_span events; /* bytes 0 = none */
    char *cursor;            /* owned; NULL = none */
    size_t count;
};

static int cursor_fault(struct error *error)
{
    return base_error_set(error, EP_EPROTO, "the answer's cid is no text");
}

static int find_in_json(struct json_span key, struct json_span piece, void *user)
{
    struct json_span *found = user;

    if (found[0].at == NULL && json_split_key_is(key, "events"))
        found[0] = piece;
    else if (found[1].at == NULL && json_split_key_is(key, "cid"))
        found[1] = piece;
    return 0;
}

static int count_piece(struct json_span piece, void *user)
{
    (void)piece;
    (*(size_t *)user)++;
    return 0;
}

static bool is_null(struct json_span piece)
{
    return piece.at == NULL || (piece.bytes == 4 && memcmp(piece.at, "null", 4) == 0);
}

static int read_json(struct json_span data, struct answer *answer, struct error *error)
{
    struct json_span found[2] = {{0}, {0}}, cid;
    bool is_there, is_exact;

    if (json_split_members(data, find_in_json, found) != 0)
        return base_error_set(error, EP_EPROTO, "the answer's data is no object");
    if (!is_null(found[0]))
        answer->events = found[0];
    if (answer->events.at != NULL && json_split_elements(answer->events, count_piece, &answer->count) != 0)
        return base_error_set(error, EP_EPROTO, "the answer's events are no list");
    cid = found[1];
    if (is_null(cid))
        return 0;
    if (json_kind(cid) != '"' || !json_valid(cid.at, cid.bytes, NULL))
        return cursor_fault(error);
    int code = json_member(cid, "", &answer->cursor, &is_there, &is_exact);
    if (code != 0)
        return base_error_set(error, code, "out of memory");
    return is_exact ? 0 : cursor_fault(error);
}

static int count_element(struct msgpack element, void *user)
{
    (void)element;
    (*(size_t *)user)++;
    return 0;
}

static int read_msgpack(struct msgpack data, struct answer *answer, struct error *error)
{
    struct msgpack events = {0};
    bool is_there, is_exact;

    if (json_msgpack_kind(data) != MSGPACK_MAP)
        return base_error_set(error, EP_EPROTO, "the answer's data is no map");
    if (json_msgpack_find(data, "events", &events) && json_msgpack_kind(events) != MSGPACK_NIL) {
        if (json_msgpack_each_element(events, count_element, &answer->count) != 0)
            return base_error_set(error, EP_EPROTO, "the answer's events are no list");
        answer->events = (struct json_span){events.at, events.bytes};
    }
    int code = msgpack_member(data, "cid", &answer->cursor, &is_there, &is_exact);
    if (code != 0)
        return base_error_set(error, code, "out of memory");
    return (is_there && answer->cursor == NULL) || !is_exact ? cursor_fault(error) : 0;
}

static int store(const struct idefix_message *message, const struct answer *answer, struct page *page,
                 struct error *error)
{
    struct json_span events = answer->events;
    int code = 0;

    if (answer->cursor != NULL && strlen(answer->cursor) > CURSOR_BYTES_MAX)
        return base_error_set(error, EP_EPROTO, "the answer's cid is %zu bytes long, more than %d",
                              strlen(answer->cursor), CURSOR_BYTES_MAX);
    if (answer->count > EVENTS_MAX)
        return base_error_set(error, EP_EPROTO, "the answer holds %zu events, more than %zu", answer->count,
                              EVENTS_MAX);
    if (answer->count > 0)
        code = message->msgpack
                   ? json_msgpack_each_element((struct msgpack){events.at, events.bytes}, take_msgpack, page)
                   : json_split_elements(events, take_json, page);
    if (code == 0 && answer->cursor != NULL && answer->cursor[0] != '\0')
        code = source_page_set_cursor(page, answer->cursor);
    return code == 0 ? 0
                     : base_error_set(error, code, "out of memory for a page of %zu events", answer->count);
}

int source_idefix_events_read(const struct idefix_message *message, struct page *page, struct error *error)
{
    struct json_span data = message->data;
    struct answer answer = {0};

    if (data.bytes == 0)
        return 0;
    int code = message->msgpack ? read_msgpack((struct msgpack){data.at, data.bytes}, &answer, error)
                                : read_json(data, &answer, error);
    if (code == 0)
        code = store(message, &answer, page, error);
    free(answer.cursor);
    return code;
}
