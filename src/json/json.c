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

/* Returns the byte after the closing quote of the JSON string whose opening quote is at `position`, or
 * `text_end` if the text ends first. All functions that find a value, key or child in JSON call it. */
static const char *find_string_end(const char *position, const char *text_end)
{
    for (position++; position < text_end;) {
        position = json_scan_plain(position, text_end);
        if (position == text_end)
            break;
        if (*position == '"')
            return position + 1;
        position += *position == '\\' && text_end - position > 1 ? 2 : 1;
    }
    return text_end;
}

/* Returns the end of the JSON value that begins at `position`. It counts brackets outside strings and
 * decodes nothing, so that json_find and the loops over children skip large values quickly. It never reads
 * past `text_end`, even in broken text. */
static const char *find_value_end(const char *position, const char *text_end)
{
    size_t depth = 0;

    while (position < text_end) {
        switch (*position) {
        case '"':
            position = find_string_end(position, text_end);
            break;
        case '{':
        case '[':
            depth++;
            position++;
            break;
        case '}':
        case ']':
            if (depth == 0)
                return position;
            depth--;
            position++;
            break;
        case ',':
        case ':':
        case ' ':
        case '\t':
        case '\n':
        case '\r':
            if (depth == 0)
                return position;
            position++;
            continue;
        default:
            position++;
            continue;
        }
        if (depth == 0)
            return position;
    }
    return text_end;
}

/* Returns the first JSON value in the text, without the white space before it and anything after it.
 * json_find and the functions that decode JSON values call it, because callers pass values with white space
 * around them. */
static struct json_span trim_to_value(struct json_span text)
{
    const char *text_end = text.at + text.bytes;
    const char *position = json_scan_white(text.at, text_end);
    return (struct json_span){position, (size_t)(find_value_end(position, text_end) - position)};
}

/* How far the children of a JSON array or object have been read. */
struct child_reader {
    const char *position, *text_end;
    bool is_object;
};

/* Prepares to read the children of a JSON array (opening_bracket is '[') or object ('{') with
 * read_next_child. Returns false if the value is of another kind. */
static bool open_children(struct child_reader *children, struct json_span value, char opening_bracket)
{
    children->text_end = value.at + value.bytes;
    children->position = json_scan_white(value.at, children->text_end);
    children->is_object = opening_bracket == '{';
    if (children->position == children->text_end || *children->position != opening_bracket)
        return false;
    children->position++;
    return true;
}

/* Reads the next element of a JSON array (`key` is not used then), or the next key and value of an object.
 * Returns false after the last one, or where the text is broken. */
static bool read_next_child(struct child_reader *children, struct json_span *key, struct json_span *value)
{
    const char *position = json_scan_white(children->position, children->text_end);

    if (position < children->text_end && *position == ',')
        position = json_scan_white(position + 1, children->text_end);
    if (position == children->text_end || *position == ']' || *position == '}')
        return false;
    if (children->is_object) {
        if (*position != '"')
            return false;
        key->at = position;
        position = find_string_end(position, children->text_end);
        key->bytes = (size_t)(position - key->at);
        position = json_scan_white(position, children->text_end);
        if (position == children->text_end || *position != ':')
            return false;
        position = json_scan_white(position + 1, children->text_end);
    }
    value->at = position;
    position = find_value_end(position, children->text_end);
    value->bytes = (size_t)(position - value->at);
    children->position = position;
    return value->bytes > 0;
}

/* Calls on_element for each element of a JSON array until a call returns nonzero. Returns what the last
 * call returned, 0 for an empty array, EP_EINVAL if the value is no array. The producer reads the events
 * in an http answer with it, `eventpipe show` a list of stages. */
int json_each_element(struct json_span array, int (*on_element)(struct json_span element, void *user),
                      void *user)
{
    struct child_reader children;
    struct json_span element;
    int result = 0;

    if (!open_children(&children, array, '['))
        return EP_EINVAL;
    while (result == 0 && read_next_child(&children, NULL, &element))
        result = on_element(element, user);
    return result;
}

/* Calls on_member for each key and value of a JSON object until a call returns nonzero. Returns what the
 * last call returned, 0 for an empty object, EP_EINVAL if the value is no object. A worker reads what the
 * program of an exec stage answered with it. */
int json_each_member(struct json_span object,
                     int (*on_member)(struct json_span key, struct json_span value, void *user), void *user)
{
    struct child_reader children;
    struct json_span key, value;
    int result = 0;

    if (!open_children(&children, object, '{'))
        return EP_EINVAL;
    while (result == 0 && read_next_child(&children, &key, &value))
        result = on_member(key, value, user);
    return result;
}

/* Returns whether decoded text equals one step of a JSON pointer (the part between two slashes), in which
 * ~1 stands for / and ~0 for ~. json_find compares each key of an object with it. */
static bool text_equals_pointer_step(const char *step, const char *step_end, const char *text,
                                     size_t text_bytes)
{
    for (size_t i = 0; i < text_bytes; i++) {
        if (step == step_end)
            return false;
        char step_char = *step++;
        if (step_char == '~' && step < step_end && (*step == '0' || *step == '1'))
            step_char = *step++ == '1' ? '/' : '~';
        // All of text is there. NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult)
        if (step_char != text[i])
            return false;
    }
    return step == step_end;
}

/* Returns whether a key of a JSON object equals one step of a JSON pointer. Only a key with escapes is
 * decoded, since json_find compares many keys for every event. If out of memory, such a key does not
 * match. */
static bool key_equals_step(struct json_span key, const char *step, const char *step_end)
{
    if (key.bytes < 2)
        return false;
    if (memchr(key.at, '\\', key.bytes) == NULL)
        return text_equals_pointer_step(step, step_end, key.at + 1, key.bytes - 2);
    char *text = json_text(key);
    bool is_equal = text != NULL && text_equals_pointer_step(step, step_end, text, strlen(text));
    free(text);
    return is_equal;
}

/* Replaces *value by the child that one step of a JSON pointer names: a member of an object, or an element
 * of an array by its index. Returns false if there is none. json_find calls it for each step. */
static bool follow_pointer_step(struct json_span *value, const char *step, const char *step_end)
{
    struct child_reader children;
    struct json_span key = {0}, child = {0};

    if (open_children(&children, *value, '{')) {
        while (read_next_child(&children, &key, &child))
            if (key_equals_step(key, step, step_end)) {
                *value = child;
                return true;
            }
        return false;
    }
    if (!open_children(&children, *value, '[') || step == step_end || (step[0] == '0' && step_end - step > 1))
        return false;
    size_t index = 0;
    for (; step < step_end; step++) {
        if (!json_scan_is_digit(*step) || index > SIZE_MAX / 16)
            return false;
        index = index * 10 + (size_t)(*step - '0');
    }
    while (read_next_child(&children, NULL, &child))
        if (index-- == 0) {
            *value = child;
            return true;
        }
    return false;
}

/* Finds the value that a JSON pointer (RFC 6901) names in valid JSON text. Returns false if there is none.
 * The producer finds UIDs and cursors in answers with it, the keeper reads injected events, `eventpipe`
 * the daemon's answers. */
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

/* Returns the first character of a JSON value as its kind, '0' for every number, and NUL if there is no
 * value. Callers ask this before they decode a value: the producer for events, a worker for a program's
 * answers, `eventpipe` for the daemon's. */
char json_kind(struct json_span value)
{
    const char *text_end = value.at + value.bytes;
    const char *position = json_scan_white(value.at, text_end);

    if (position == text_end)
        return '\0';
    return *position == '-' || json_scan_is_digit(*position) ? '0' : *position;
}

/* Returns the number that the four hex digits of a JSON \u escape stand for, or -1 if they are not four
 * hex digits. */
static long read_four_hex_digits(const char *position, const char *text_end)
{
    long number = 0;

    if (text_end - position < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = json_scan_hex_digit(position[i]);
        if (digit < 0)
            return -1;
        number = number * 16 + digit;
    }
    return number;
}

/* Reads the four digits after \u in a JSON string, together with the second half of a surrogate pair,
 * and moves *position past them. Returns the code point, U+FFFD for half a pair, or nul_replacement for
 * a NUL. */
static uint32_t read_unicode_escape(const char **position, const char *text_end, uint32_t nul_replacement)
{
    long high = read_four_hex_digits(*position, text_end);

    if (high < 0) {
        *position = text_end;
        return 0xFFFD;
    }
    *position += 4;
    if (high < 0xD800 || high > 0xDFFF)
        return high == 0 ? nul_replacement : (uint32_t)high;
    if (high < 0xDC00 && text_end - *position >= 6 && (*position)[0] == '\\' && (*position)[1] == 'u') {
        long low = read_four_hex_digits(*position + 2, text_end);
        if (low >= 0xDC00 && low <= 0xDFFF) {
            *position += 6;
            return 0x10000 + ((uint32_t)(high - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
        }
    }
    return 0xFFFD;
}

/* Decodes the escapes of a JSON string into `out` and returns the number of bytes written. `out` may be as
 * small as the source: the shortest escape has two bytes and gives one, \uXXXX gives at most three. */
static size_t decode_string(const char *position, const char *text_end, char *out, uint32_t nul_replacement)
{
    static const char escape_letters[] = "\"\\/bfnrt", escaped_chars[] = "\"\\/\b\f\n\r\t";
    char *start = out;

    while (position < text_end && *position != '"') {
        if (*position != '\\') {
            *out++ = *position++;
            continue;
        }
        if (++position == text_end)
            break;
        char letter = *position++;
        if (letter == 'u') {
            out += base_utf8_put(read_unicode_escape(&position, text_end, nul_replacement), out);
            continue;
        }
        const char *found_letter = letter == '\0' ? NULL : strchr(escape_letters, letter);
        if (found_letter != NULL)
            *out++ = escaped_chars[found_letter - escape_letters];
    }
    return (size_t)(out - start);
}

/* Returns the decoded text of a JSON string or the digits of a number; NULL for other kinds or if out of
 * memory. The caller frees it. json_text passes U+FFFD as nul_replacement, because a C string ends at a
 * NUL; json_text_exact passes 0 and so keeps it. */
static char *decode_string_or_number(struct json_span value, uint32_t nul_replacement, size_t *text_bytes)
{
    struct json_span inner = trim_to_value(value);
    char kind = json_kind(inner);

    if (kind != '0' && kind != '"')
        return NULL;
    char *text = malloc(inner.bytes + 1);
    if (text == NULL)
        return NULL;
    *text_bytes = inner.bytes;
    if (kind == '"')
        *text_bytes = decode_string(inner.at + 1, inner.at + inner.bytes, text, nul_replacement);
    else
        memcpy(text, inner.at, inner.bytes);
    text[*text_bytes] = '\0';
    return text;
}

char *json_text(struct json_span value)
{
    size_t text_bytes;
    return decode_string_or_number(value, 0xFFFD, &text_bytes);
}

char *json_text_exact(struct json_span value, size_t *text_bytes)
{
    return decode_string_or_number(value, 0, text_bytes);
}

/* Reads a JSON number into exactly 64 bits. Returns false if it is not whole or does not fit. The producer
 * reads cursors and timestamps with it, `eventpipe` the numbers in the daemon's answers. A double would
 * change IDs above 2^53. */
bool json_int64(struct json_span value, int64_t *out)
{
    struct json_span inner = trim_to_value(value);
    const char *position = inner.at, *text_end = inner.at + inner.bytes;
    bool is_negative = position < text_end && *position == '-';
    int64_t number = 0;

    if (is_negative)
        position++;
    if (position == text_end || !json_scan_is_digit(*position))
        return false;
    /* collected as a negative number, since INT64_MIN has no positive counterpart */
    for (; position < text_end && json_scan_is_digit(*position); position++)
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_sub_overflow(number, *position - '0', &number))
            return false;
    if (position < text_end &&
        *position == '.') /* 12.0 is whole; 1e3 is refused: it is written for measurements */
        for (position++; position < text_end && *position == '0'; position++)
            ;
    if (position != text_end || (!is_negative && number == INT64_MIN))
        return false;
    *out = is_negative ? number : -number;
    return true;
}
