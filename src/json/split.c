/* SPDX-License-Identifier: MIT */
/*
 * Splits JSON into pieces by its structure alone, so that one invalid element of a page does not spoil
 * the others. Pure except for json_split_key_is, which may allocate: any process, any thread.
 *
 * Invariants
 *  1. Nothing outside the span is read, whatever it contains.
 *  2. Nothing recurses, and each byte is visited once.
 *  3. Inside a piece { and [ are not distinguished, so a piece that mixes them up still ends where it
 *     appears to end.
 */
#include "src/json/split.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/error.h"
#include "src/json/scan.h"

/* Returns the byte after the closing quote of the JSON string whose opening quote is at `at`, or NULL if
 * there is no closing quote. Unlike its twin in json.c it says so, because here the JSON may be broken. */
static const char *find_string_end(const char *at, const char *end)
{
    for (at++;;) {
        at = json_scan_plain(at, end);
        if (end - at < 1)
            return NULL;
        if (*at == '"')
            return at + 1;
        if (*at == '\\')
            at++;
        if (at < end)
            at++;
    }
}

/* Returns the comma or closing bracket that ends the piece of JSON at `at`, or NULL if there is none. It
 * only counts brackets, so that it also finds the end of a piece that is not valid JSON. */
static const char *find_piece_end(const char *at, const char *end)
{
    size_t depth = 0;

    while (at != NULL && at < end) {
        switch (*at) {
        case '"':
            at = find_string_end(at, end);
            continue;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (depth == 0)
                return at;
            depth--;
            break;
        case ',':
            if (depth == 0)
                return at;
            break;
        default:
            break;
        }
        at++;
    }
    return NULL;
}

/* Reads a key with its quotes and the colon after it, in a JSON object that may be broken. Returns the
 * byte after the colon, or NULL if there is no key. call_for_each_piece calls it before each value of an
 * object. */
static const char *read_member_key(const char *at, const char *end, struct json_span *key)
{
    at = json_scan_white(at, end);
    if (at == end || *at != '"')
        return NULL;
    key->at = at;
    at = find_string_end(at, end);
    if (at == NULL)
        return NULL;
    key->bytes = (size_t)(at - key->at);
    at = json_scan_white(at, end);
    return at < end && *at == ':' ? at + 1 : NULL;
}

/* Returns the piece of JSON from `at` to `end` without the white space at its end, as json_split_elements
 * and json_split_members promise their callers. */
static struct json_span trim_trailing_white(const char *at, const char *end)
{
    while (end > at && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\n' || end[-1] == '\r'))
        end--;
    return (struct json_span){at, (size_t)(end - at)};
}

typedef int member_handler(struct json_span key, struct json_span piece, void *user);

/* Splits a JSON array or object by its commas and brackets alone and calls on_member for each piece, so
 * that one invalid event of an Idefix page does not spoil the others. Returns 0, what on_member returned
 * if not 0, EP_EINVAL if the text is of another kind, or EP_EPROTO if the brackets do not match. */
static int call_for_each_piece(struct json_span text, bool is_object, member_handler *on_member, void *user)
{
    const char *end = text.at + text.bytes, *at = json_scan_white(text.at, end);
    char closing_bracket = is_object ? '}' : ']';
    struct json_span key = {"", 0};

    if (at == end || *at != (is_object ? '{' : '['))
        return EP_EINVAL;
    at = json_scan_white(at + 1, end);
    if (at < end && *at == closing_bracket)
        return json_scan_white(at + 1, end) == end ? 0 : EP_EPROTO;
    for (;;) {
        if (is_object && (at = read_member_key(at, end, &key)) == NULL)
            return EP_EPROTO;
        at = json_scan_white(at, end);
        const char *piece_end = find_piece_end(at, end);
        if (piece_end == NULL || (*piece_end != ',' && *piece_end != closing_bracket))
            return EP_EPROTO;
        int code = on_member(key, trim_trailing_white(at, piece_end), user);
        if (code != 0)
            return code;
        at = piece_end + 1;
        if (*piece_end == closing_bracket)
            return json_scan_white(at, end) == end ? 0 : EP_EPROTO;
    }
}

struct element_handler {
    int (*on_element)(struct json_span piece, void *user);
    void *user;
};

/* Calls the on_element of json_split_elements with a piece of a JSON array and returns what that returned.
 * It drops the key, which only the pieces of an object have. */
static int on_piece_call_element(struct json_span key, struct json_span piece, void *user)
{
    struct element_handler *element_handler = user;

    (void)key;
    return element_handler->on_element(piece, element_handler->user);
}

int json_split_elements(struct json_span array, int (*on_element)(struct json_span piece, void *user),
                        void *user)
{
    return call_for_each_piece(array, false, on_piece_call_element,
                               &(struct element_handler){on_element, user});
}

int json_split_members(struct json_span object,
                       int (*on_member)(struct json_span key, struct json_span piece, void *user), void *user)
{
    return call_for_each_piece(object, true, on_member, user);
}

/* Returns whether a key, given with its quotes, equals a name. Only a key with escapes is decoded. The
 * Idefix client finds the members of a frame (one message on the wire) with it, and the producer those of
 * a page of events. */
bool json_split_key_is(struct json_span key, const char *name)
{
    size_t name_bytes = strlen(name);

    if (memchr(key.at, '\\', key.bytes) == NULL)
        return key.bytes == name_bytes + 2 && memcmp(key.at + 1, name, name_bytes) == 0;
    char *text = json_valid(key.at, key.bytes, NULL) ? json_text_exact(key, &name_bytes) : NULL;
    bool is_equal = text != NULL && name_bytes == strlen(name) && memcmp(text, name, name_bytes) == 0;
    free(text);
    return is_equal;
}

/* Returns whether more than `depth` brackets are open anywhere in the JSON text. The producer asks this
 * about an invalid event from Idefix, so that the message stored with the corrupt event can say it is
 * nested too deeply. */
bool json_split_deeper(struct json_span text, size_t depth)
{
    const char *end = text.at + text.bytes;
    size_t open_brackets = 0;

    for (const char *at = text.at; at != NULL && at < end;) {
        if (*at == '"') {
            at = find_string_end(at, end);
            continue;
        }
        if ((*at == '{' || *at == '[') && ++open_brackets > depth)
            return true;
        if ((*at == '}' || *at == ']') && open_brackets > 0)
            open_brackets--;
        at++;
    }
    return false;
}
