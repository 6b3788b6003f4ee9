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

/* `at` is at the opening quote. Returns the byte behind the closing quote, or NULL if there is none. */
static const char *string_end(const char *at, const char *end)
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

/* Returns the comma or closing bracket at which the piece ends that begins here; NULL if there is none. */
static const char *piece_end(const char *at, const char *end)
{
    size_t depth = 0;

    while (at != NULL && at < end) {
        switch (*at) {
        case '"':
            at = string_end(at, end);
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

static const char *read_key(const char *at, const char *end, struct json_span *key)
{
    at = json_scan_white(at, end);
    if (at == end || *at != '"')
        return NULL;
    key->at = at;
    at = string_end(at, end);
    if (at == NULL)
        return NULL;
    key->bytes = (size_t)(at - key->at);
    at = json_scan_white(at, end);
    return at < end && *at == ':' ? at + 1 : NULL;
}

static struct json_span without_white(const char *at, const char *end)
{
    while (end > at && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\n' || end[-1] == '\r'))
        end--;
    return (struct json_span){at, (size_t)(end - at)};
}

typedef int member_handler(struct json_span key, struct json_span piece, void *user);

static int each_piece(struct json_span text, bool object, member_handler *on_member, void *user)
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
        if (object && (at = read_key(at, end, &key)) == NULL)
            return EP_EPROTO;
        at = json_scan_white(at, end);
        const char *stop = piece_end(at, end);
        if (stop == NULL || (*stop != ',' && *stop != close))
            return EP_EPROTO;
        int code = on_member(key, without_white(at, stop), user);
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

static int pass_element(struct json_span key, struct json_span piece, void *user)
{
    struct list *list = user;

    (void)key;
    return list->on_element(piece, list->user);
}

int json_split_elements(struct json_span array, int (*on_element)(struct json_span piece, void *user),
                        void *user)
{
    return each_piece(array, false, pass_element, &(struct list){on_element, user});
}

int json_split_members(struct json_span object,
                       int (*on_member)(struct json_span key, struct json_span piece, void *user), void *user)
{
    return each_piece(object, true, on_member, user);
}

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

bool json_split_deeper(struct json_span text, size_t depth)
{
    const char *end = text.at + text.bytes;
    size_t open = 0;

    for (const char *at = text.at; at != NULL && at < end;) {
        if (*at == '"') {
            at = string_end(at, end);
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
