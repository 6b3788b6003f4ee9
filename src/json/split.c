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

/* Returns the byte after the closing quote of a JSON string, or NULL if there is none. `at` is at the
 * opening quote. The splitter of JSON that may be broken uses it, in any process. */
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

/* Returns the comma or closing bracket at which the piece of JSON ends that begins at `at`; NULL if there is
 * none. It only counts brackets, so it finds the end of an invalid piece, too. Runs in any process. */
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

/* Reads a key with its quotes and the colon after it, in a JSON object that may be broken. Returns what
 * follows the colon, or NULL if there is no key. Runs in any process. */
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

/* Returns the piece of JSON without the white space at its end. Runs in any process. */
static struct json_span trim_trailing_white(const char *at, const char *end)
{
    while (end > at && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\n' || end[-1] == '\r'))
        end--;
    return (struct json_span){at, (size_t)(end - at)};
}

typedef int member_handler(struct json_span key, struct json_span piece, void *user);

/* Splits a JSON array or object by its commas and brackets, and calls on_member for each piece without
 * checking what is in it. So one invalid event of an Idefix page does not spoil the others. Returns
 * EP_EPROTO if the brackets do not match. Runs in any process. */
static int pass_each_piece(struct json_span text, bool object, member_handler *on_member, void *user)
{
    const char *end = text.at + text.bytes, *at = json_scan_white(text.at, end);
    char close = object ? '}' : ']';
    struct json_span key = {"", 0};

    if (at == end || *at != (object ? '{' : '['))
        return EP_EINVAL;
    at = json_scan_white(at + 1, end);
    if (at < end && *at == close)
        return json_scan_white(at + 1, end) == end ? 0 : EP_EPROTO;
    for (;;) {
        if (object && (at = read_member_key(at, end, &key)) == NULL)
            return EP_EPROTO;
        at = json_scan_white(at, end);
        const char *stop = find_piece_end(at, end);
        if (stop == NULL || (*stop != ',' && *stop != close))
            return EP_EPROTO;
        int code = on_member(key, trim_trailing_white(at, stop), user);
        if (code != 0)
            return code;
        at = stop + 1;
        if (*stop == close)
            return json_scan_white(at, end) == end ? 0 : EP_EPROTO;
    }
}

struct list {
    int (*on_element)(struct json_span piece, void *user);
    void *user;
};

/* Passes a piece of a JSON array to the caller's on_element, without the key that only objects have. */
static int on_piece_pass_element(struct json_span key, struct json_span piece, void *user)
{
    struct list *list = user;

    (void)key;
    return list->on_element(piece, list->user);
}

int json_split_elements(struct json_span array, int (*on_element)(struct json_span piece, void *user),
                        void *user)
{
    return pass_each_piece(array, false, on_piece_pass_element, &(struct list){on_element, user});
}

int json_split_members(struct json_span object,
                       int (*on_member)(struct json_span key, struct json_span piece, void *user), void *user)
{
    return pass_each_piece(object, true, on_member, user);
}

/* Returns whether a key, with its quotes, equals a name. It decodes the key only if it has escapes. The
 * Idefix client finds the members of a frame with it, and the producer those of a page of events, in JSON
 * that may be broken. */
bool json_split_key_is(struct json_span key, const char *name)
{
    size_t bytes = strlen(name);

    if (memchr(key.at, '\\', key.bytes) == NULL)
        return key.bytes == bytes + 2 && memcmp(key.at + 1, name, bytes) == 0;
    char *text = json_valid(key.at, key.bytes, NULL) ? json_text_exact(key, &bytes) : NULL;
    bool same = text != NULL && bytes == strlen(name) && memcmp(text, name, bytes) == 0;
    free(text);
    return same;
}

/* Returns whether more than `depth` brackets are open anywhere in the JSON text. The producer asks this
 * about an invalid Idefix event, so that the reason of the corrupt event can name the depth. */
bool json_split_deeper(struct json_span text, size_t depth)
{
    const char *end = text.at + text.bytes;
    size_t open = 0;

    for (const char *at = text.at; at != NULL && at < end;) {
        if (*at == '"') {
            at = find_string_end(at, end);
            continue;
        }
        if ((*at == '{' || *at == '[') && ++open > depth)
            return true;
        if ((*at == '}' || *at == ']') && open > 0)
            open--;
        at++;
    }
    return false;
}
