/* SPDX-License-Identifier: MIT */
/*
 * Splits JSON into pieces by its structure alone, so that one invalid element of a page does not spoil
 * the others. Pure except for json_split_is_key, which may allocate: any process, any thread.
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

/* Returns the byte after the closing quote of the JSON string whose opening quote is at `position`, or NULL
 * if there is no closing quote: the JSON of a page from Idefix may be broken (find_string_end in json.c
 * expects valid JSON). */
static const char *find_complete_string_end(const char *position, const char *text_end)
{
    for (position++;;) {
        position = json_scan_plain(position, text_end);
        if (text_end - position < 1)
            return NULL;
        if (*position == '"')
            return position + 1;
        if (*position == '\\')
            position++;
        if (position < text_end)
            position++;
    }
}

/* Returns the comma or closing bracket that ends the piece of JSON at `position`, or NULL if there is none.
 * It only counts brackets, so that it also finds the end of a piece that is not valid JSON. */
static const char *find_piece_end(const char *position, const char *text_end)
{
    size_t depth = 0;

    while (position != NULL && position < text_end) {
        switch (*position) {
        case '"':
            position = find_complete_string_end(position, text_end);
            continue;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (depth == 0)
                return position;
            depth--;
            break;
        case ',':
            if (depth == 0)
                return position;
            break;
        default:
            break;
        }
        position++;
    }
    return NULL;
}

/* Reads a key with its quotes and the colon after it, in a JSON object that may be broken. Returns the
 * byte after the colon, or NULL if there is no key. call_for_each_piece calls it before each value of an
 * object. */
static const char *read_member_key(const char *position, const char *text_end, struct json_span *key)
{
    position = json_scan_white(position, text_end);
    if (position == text_end || *position != '"')
        return NULL;
    key->at = position;
    position = find_complete_string_end(position, text_end);
    if (position == NULL)
        return NULL;
    key->bytes = (size_t)(position - key->at);
    position = json_scan_white(position, text_end);
    return position < text_end && *position == ':' ? position + 1 : NULL;
}

/* Returns the piece of JSON from `position` to `text_end` without the white space at its end, as
 * json_split_elements and json_split_members promise their callers. */
static struct json_span trim_trailing_white(const char *position, const char *text_end)
{
    while (text_end > position &&
           (text_end[-1] == ' ' || text_end[-1] == '\t' || text_end[-1] == '\n' || text_end[-1] == '\r'))
        text_end--;
    return (struct json_span){position, (size_t)(text_end - position)};
}

typedef int member_handler(struct json_span key, struct json_span piece, void *user);

/* Splits a JSON array or object by its commas and brackets alone and calls on_member for each piece, so
 * that one invalid event in a page from Idefix does not spoil the others. Returns 0, what on_member
 * returned if not 0, EP_EINVAL if the text is of another kind, or EP_EPROTO if the brackets do not
 * match. */
static int call_for_each_piece(struct json_span text, bool is_object, member_handler *on_member, void *user)
{
    const char *text_end = text.at + text.bytes, *position = json_scan_white(text.at, text_end);
    char closing_bracket = is_object ? '}' : ']';
    struct json_span key = {"", 0};

    if (position == text_end || *position != (is_object ? '{' : '['))
        return EP_EINVAL;
    position = json_scan_white(position + 1, text_end);
    if (position < text_end && *position == closing_bracket)
        return json_scan_white(position + 1, text_end) == text_end ? 0 : EP_EPROTO;
    for (;;) {
        if (is_object && (position = read_member_key(position, text_end, &key)) == NULL)
            return EP_EPROTO;
        position = json_scan_white(position, text_end);
        const char *piece_end = find_piece_end(position, text_end);
        if (piece_end == NULL || (*piece_end != ',' && *piece_end != closing_bracket))
            return EP_EPROTO;
        int code = on_member(key, trim_trailing_white(position, piece_end), user);
        if (code != 0)
            return code;
        position = piece_end + 1;
        if (*piece_end == closing_bracket)
            return json_scan_white(position, text_end) == text_end ? 0 : EP_EPROTO;
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
bool json_split_is_key(struct json_span key, const char *name)
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
bool json_split_is_deeper_than(struct json_span text, size_t depth)
{
    const char *text_end = text.at + text.bytes;
    size_t open_brackets = 0;

    for (const char *position = text.at; position != NULL && position < text_end;) {
        if (*position == '"') {
            position = find_complete_string_end(position, text_end);
            continue;
        }
        if ((*position == '{' || *position == '[') && ++open_brackets > depth)
            return true;
        if ((*position == '}' || *position == ']') && open_brackets > 0)
            open_brackets--;
        position++;
    }
    return false;
}
