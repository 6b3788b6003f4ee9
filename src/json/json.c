/* SPDX-License-Identifier: MIT */
/*
 * Finds values in JSON text and decodes them. Pure: any process, any thread, no state.
 *
 * cJSON is not used for this because it keeps numbers as doubles, which would lose 64-bit ids, and
 * because it builds a tree where the very bytes that arrived are to be passed on.
 *
 * Invariants
 *  1. The text should be valid (json_valid), but nothing outside the span is read, whatever it contains.
 *  2. Nothing recurses.
 *  3. If an object has two members with the same name, the first counts, as in cJSON.
 */
#include "src/json/json.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/error.h"
#include "src/base/utf8.h"
#include "src/json/scan.h"

/* ---- finding ---- */

/* Returns the byte after the closing quote of a JSON string, or `end` if the text ends first. `at` is at the
 * opening quote. The JSON reader uses it, in any process. */
static const char *find_string_end(const char *at, const char *end)
{
    for (at++; at < end;) {
        at = json_scan_plain(at, end);
        if (at == end)
            break;
        if (*at == '"')
            return at + 1;
        at += *at == '\\' && end - at > 1 ? 2 : 1;
    }
    return end;
}

/* Returns the end of the JSON value that begins at `at`. It counts brackets outside strings and decodes
 * nothing, so any process can skip large values quickly. It never reads past `end`, even in broken text. */
static const char *find_value_end(const char *at, const char *end)
{
    size_t depth = 0;

    while (at < end) {
        switch (*at) {
        case '"':
            at = find_string_end(at, end);
            break;
        case '{':
        case '[':
            depth++;
            at++;
            break;
        case '}':
        case ']':
            if (depth == 0)
                return at;
            depth--;
            at++;
            break;
        case ',':
        case ':':
        case ' ':
        case '\t':
        case '\n':
        case '\r':
            if (depth == 0)
                return at;
            at++;
            continue;
        default:
            at++;
            continue;
        }
        if (depth == 0)
            return at;
    }
    return end;
}

/* Removes white space and everything else around the first JSON value. Runs in any process. */
static struct json_span trim_to_value(struct json_span text)
{
    const char *end = text.at + text.bytes;
    const char *at = json_scan_white(text.at, end);
    return (struct json_span){at, (size_t)(find_value_end(at, end) - at)};
}

/* A walk over the values of a container: each element or member is passed to the callback. */
struct walk {
    const char *at, *end;
    bool object;
};

/* Prepares to read the children of a JSON array (open is '[') or object ('{'). Returns false if the value is
 * of another kind. The JSON reader calls it before read_next_child, in any process. */
static bool begin_walk(struct walk *walk, struct json_span value, char open)
{
    walk->end = value.at + value.bytes;
    walk->at = json_scan_white(value.at, walk->end);
    walk->object = open == '{';
    if (walk->at == walk->end || *walk->at != open)
        return false;
    walk->at++;
    return true;
}

/* Reads the next element of a JSON array, or the next key and value of an object. Returns false at the end
 * or where the text is broken. All loops over JSON containers use it, in any process. */
static bool read_next_child(struct walk *walk, struct json_span *key, struct json_span *value)
{
    const char *at = json_scan_white(walk->at, walk->end);

    if (at < walk->end && *at == ',')
        at = json_scan_white(at + 1, walk->end);
    if (at == walk->end || *at == ']' || *at == '}')
        return false;
    if (walk->object) {
        if (*at != '"')
            return false;
        key->at = at;
        at = find_string_end(at, walk->end);
        key->bytes = (size_t)(at - key->at);
        at = json_scan_white(at, walk->end);
        if (at == walk->end || *at != ':')
            return false;
        at = json_scan_white(at + 1, walk->end);
    }
    value->at = at;
    at = find_value_end(at, walk->end);
    value->bytes = (size_t)(at - value->at);
    walk->at = at;
    return value->bytes > 0;
}

/* Calls on_element for each element of a JSON array, until one call returns nonzero, and returns that;
 * EP_EINVAL if the value is not an array. The producer reads the events of an http answer with it,
 * `eventpipe show` a list of stages. */
int json_each_element(struct json_span array, int (*on_element)(struct json_span element, void *user),
                      void *user)
{
    struct walk walk;
    struct json_span element;
    int result = 0;

    if (!begin_walk(&walk, array, '['))
        return EP_EINVAL;
    while (result == 0 && read_next_child(&walk, NULL, &element))
        result = on_element(element, user);
    return result;
}

/* Calls on_member for each key and value of a JSON object, until one call returns nonzero, and returns that;
 * EP_EINVAL if the value is not an object. A worker reads the answer of an exec stage with it. */
int json_each_member(struct json_span object,
                     int (*on_member)(struct json_span key, struct json_span value, void *user), void *user)
{
    struct walk walk;
    struct json_span key, value;
    int result = 0;

    if (!begin_walk(&walk, object, '{'))
        return EP_EINVAL;
    while (result == 0 && read_next_child(&walk, &key, &value))
        result = on_member(key, value, user);
    return result;
}

/* Compares decoded text with one step of a JSON pointer, in which ~1 stands for / and ~0 for ~. json_find
 * uses it for each key, in any process. */
static bool pointer_step_equals(const char *step, const char *step_end, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (step == step_end)
            return false;
        char c = *step++;
        if (c == '~' && step < step_end && (*step == '0' || *step == '1'))
            c = *step++ == '1' ? '/' : '~';
        // All `bytes` of text are there. NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult)
        if (c != text[i])
            return false;
    }
    return step == step_end;
}

/* Returns whether a key of a JSON object equals one step of a JSON pointer. It decodes only keys with
 * escapes, since json_find compares many keys for every event. Runs in any process. */
static bool key_equals_step(struct json_span key, const char *step, const char *step_end)
{
    if (key.bytes < 2)
        return false;
    if (memchr(key.at, '\\', key.bytes) == NULL)
        return pointer_step_equals(step, step_end, key.at + 1, key.bytes - 2);
    char *text = json_text(key);
    bool same = text != NULL && pointer_step_equals(step, step_end, text, strlen(text));
    free(text);
    return same;
}

/* Replaces *value by the child that one step of a JSON pointer names: a member of an object, or an element
 * of an array by its index. Returns false if there is none. json_find calls it, in any process. */
static bool follow_pointer_step(struct json_span *value, const char *step, const char *step_end)
{
    struct walk walk;
    struct json_span key = {0}, member = {0};

    if (begin_walk(&walk, *value, '{')) {
        while (read_next_child(&walk, &key, &member))
            if (key_equals_step(key, step, step_end)) {
                *value = member;
                return true;
            }
        return false;
    }
    if (!begin_walk(&walk, *value, '[') || step == step_end || (step[0] == '0' && step_end - step > 1))
        return false;
    size_t index = 0;
    for (; step < step_end; step++) {
        if (!json_scan_is_digit(*step) || index > SIZE_MAX / 16)
            return false;
        index = index * 10 + (size_t)(*step - '0');
    }
    while (read_next_child(&walk, NULL, &member))
        if (index-- == 0) {
            *value = member;
            return true;
        }
    return false;
}

/* Finds the value that a JSON pointer (RFC 6901) names in valid JSON text; false if there is none. Any
 * process calls it: the producer finds UIDs and cursors in answers, `keep` reads injected events,
 * `eventpipe` reads the daemon's answers. */
bool json_find(struct json_span text, const char *pointer, struct json_span *out)
{
    struct json_span value = trim_to_value(text);

    while (*pointer == '/') {
        const char *step = pointer + 1;
        pointer = step + strcspn(step, "/");
        if (!follow_pointer_step(&value, step, pointer))
            return false;
    }
    if (*pointer != '\0' || value.bytes == 0)
        return false;
    *out = value;
    return true;
}

/* ---- decoding ---- */

/* Tells the kind of a JSON value by its first character, '0' for every number and NUL for nothing. Any
 * process calls it before it decodes a value. */
char json_kind(struct json_span value)
{
    const char *end = value.at + value.bytes;
    const char *at = json_scan_white(value.at, end);

    if (at == end)
        return '\0';
    return *at == '-' || json_scan_is_digit(*at) ? '0' : *at;
}

/* Reads the four hex digits of a JSON \u escape; -1 if they are not four hex digits. Runs in any process. */
static long read_four_hex_digits(const char *at, const char *end)
{
    long point = 0;

    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = json_scan_hex_digit(at[i]);
        if (digit < 0)
            return -1;
        point = point * 16 + digit;
    }
    return point;
}

/* Reads the four digits after \u in a JSON string, and the second half of a surrogate pair, and moves *at
 * behind them. Returns the code point, U+FFFD for half a pair, or `nul` for a NUL. Runs in any process. */
static uint32_t read_unicode_escape(const char **at, const char *end, uint32_t nul)
{
    long high = read_four_hex_digits(*at, end);

    if (high < 0) {
        *at = end;
        return 0xFFFD;
    }
    *at += 4;
    if (high < 0xD800 || high > 0xDFFF)
        return high == 0 ? nul : (uint32_t)high;
    if (high < 0xDC00 && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u') {
        long low = read_four_hex_digits(*at + 2, end);
        if (low >= 0xDC00 && low <= 0xDFFF) {
            *at += 6;
            return 0x10000 + ((uint32_t)(high - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
        }
    }
    return 0xFFFD;
}

/* Decodes the escapes of a JSON string into `out` and returns the length. The result is never longer than
 * its source: the shortest escape has two bytes and gives one, \uXXXX gives at most three. Runs in any
 * process. */
static size_t decode_string(const char *at, const char *end, char *out, uint32_t nul)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char *start = out;

    while (at < end && *at != '"') {
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }
        if (++at == end)
            break;
        char c = *at++;
        if (c == 'u') {
            out += base_utf8_put(read_unicode_escape(&at, end, nul), out);
            continue;
        }
        const char *found = c == '\0' ? NULL : strchr(from, c);
        if (found != NULL)
            *out++ = to[found - from];
    }
    return (size_t)(out - start);
}

/* Returns the decoded text of a JSON string, or the digits of a number, allocated; NULL for other kinds and
 * without memory. json_text replaces a NUL (`nul` is U+FFFD), json_text_exact keeps it (0). Runs in any
 * process. */
static char *decode_scalar(struct json_span value, uint32_t nul, size_t *bytes)
{
    struct json_span inner = trim_to_value(value);
    char kind = json_kind(inner);

    if (kind != '0' && kind != '"')
        return NULL;
    char *text = malloc(inner.bytes + 1);
    if (text == NULL)
        return NULL;
    *bytes = inner.bytes;
    if (kind == '"')
        *bytes = decode_string(inner.at + 1, inner.at + inner.bytes, text, nul);
    else
        memcpy(text, inner.at, inner.bytes);
    text[*bytes] = '\0';
    return text;
}

char *json_text(struct json_span value)
{
    size_t bytes;
    return decode_scalar(value, 0xFFFD, &bytes);
}

char *json_text_exact(struct json_span value, size_t *bytes)
{
    return decode_scalar(value, 0, bytes);
}

/* Reads a JSON number exactly into 64 bits; false if it is not whole or does not fit. The producer reads
 * cursors and timestamps with it, `eventpipe` numbers in the daemon's answers. A double would change IDs
 * above 2^53. */
bool json_int64(struct json_span value, int64_t *out)
{
    struct json_span inner = trim_to_value(value);
    const char *at = inner.at, *end = inner.at + inner.bytes;
    bool negative = at < end && *at == '-';
    int64_t number = 0;

    if (negative)
        at++;
    if (at == end || !json_scan_is_digit(*at))
        return false;
    /* collected as a negative number, since INT64_MIN has no positive counterpart */
    for (; at < end && json_scan_is_digit(*at); at++)
        if (__builtin_mul_overflow(number, 10, &number) || __builtin_sub_overflow(number, *at - '0', &number))
            return false;
    if (at < end && *at == '.') /* 12.0 is whole; 1e3 is refused: it is written for measurements */
        for (at++; at < end && *at == '0'; at++)
            ;
    if (at != end || (!negative && number == INT64_MIN))
        return false;
    *out = negative ? number : -number;
    return true;
}
