/* SPDX-License-Identifier: MIT */
/*
 * Decides whether text is valid JSON. Pure: any process, any thread, no state.
 *
 * cJSON is not used for this because it builds a tree where only a yes or no is needed, and because it
 * accepts text that is not JSON (raw control characters and broken UTF-8 in strings, numbers such as
 * 01). An exec stage receives an event inside one line of JSON, so text that passes here must be valid
 * for every parser.
 *
 * Invariants
 *  1. Exactly RFC 8259 in UTF-8 is accepted, nested at most JSON_DEPTH_MAX deep. An escaped lone
 *     surrogate is within that grammar and accepted; json_text turns it into U+FFFD.
 *  2. Nothing recurses; each level of nesting costs one byte.
 *  3. Each check_ function moves *at past what it checked and returns true, or moves it to the first
 *     wrong byte and returns false.
 */
#include "src/json/json.h"

#include <string.h>

#include "src/base/utf8.h"
#include "src/json/scan.h"

/* Checks the escape in a JSON string whose backslash is at *at, such as \n or \u00e4. Returns true with
 * *at after it, or false with *at at the first wrong byte. */
static bool check_escape(const char **at, const char *end)
{
    if (++*at == end)
        return false;
    if (**at != 'u') {
        if (**at == '\0' || strchr("\"\\/bfnrt", **at) == NULL)
            return false;
        (*at)++;
        return true;
    }
    (*at)++;
    for (int i = 0; i < 4; i++, (*at)++)
        if (*at == end || json_scan_hex_digit(**at) < 0)
            return false;
    return true;
}

/* Checks the JSON string whose opening quote is at *at, including that it is UTF-8. Returns true with *at
 * after it, or false with *at at the first wrong byte. */
static bool check_string(const char **at, const char *end)
{
    for ((*at)++;;) {
        *at = json_scan_plain(*at, end);
        if (*at == end)
            return false;
        if (**at == '"') {
            (*at)++;
            return true;
        }
        if (**at == '\\') {
            if (!check_escape(at, end))
                return false;
            continue;
        }
        size_t length = (unsigned char)**at < 0x20 ? 0 : base_utf8_length(*at, end);
        if (length == 0)
            return false;
        *at += length;
    }
}

/* Checks one or more decimal digits of a JSON number and moves *at past them. Returns false if there is
 * none. check_number calls it for each part of a number. */
static bool check_digits(const char **at, const char *end)
{
    if (*at == end || !json_scan_is_digit(**at))
        return false;
    while (*at < end && json_scan_is_digit(**at))
        (*at)++;
    return true;
}

/* Checks a JSON number. Returns true with *at after it, or false with *at at the first wrong byte. It
 * refuses 01, +1 and 1., which some parsers accept but the programs of stages may not. */
static bool check_number(const char **at, const char *end)
{
    if (**at == '-')
        (*at)++;
    if (*at < end && **at == '0')
        (*at)++;
    else if (!check_digits(at, end))
        return false;
    if (*at < end && **at == '.') {
        (*at)++;
        if (!check_digits(at, end))
            return false;
    }
    if (*at < end && (**at == 'e' || **at == 'E')) {
        (*at)++;
        if (*at < end && (**at == '+' || **at == '-'))
            (*at)++;
        if (!check_digits(at, end))
            return false;
    }
    return true;
}

/* Checks that the JSON text continues with `literal`: true, false or null. Returns true with *at after it,
 * or false with *at at the first wrong byte. */
static bool check_literal(const char **at, const char *end, const char *literal)
{
    for (; *literal != '\0'; literal++, (*at)++)
        if (*at == end || **at != *literal)
            return false;
    return true;
}

/* Checks a JSON value that is no array or object: a string, number, true, false or null. Returns true with
 * *at after it, or false with *at at the first wrong byte. */
static bool check_scalar(const char **at, const char *end)
{
    switch (**at) {
    case '"':
        return check_string(at, end);
    case 't':
        return check_literal(at, end, "true");
    case 'f':
        return check_literal(at, end, "false");
    case 'n':
        return check_literal(at, end, "null");
    default:
        return (**at == '-' || json_scan_is_digit(**at)) && check_number(at, end);
    }
}

/* Checks a key of a JSON object and the colon that must follow it. Returns true with *at after it, or
 * false with *at at the first wrong byte. */
static bool check_key_and_colon(const char **at, const char *end)
{
    *at = json_scan_white(*at, end);
    if (*at == end || **at != '"' || !check_string(at, end))
        return false;
    *at = json_scan_white(*at, end);
    if (*at == end || **at != ':')
        return false;
    (*at)++;
    return true;
}

/* The containers that are open at the current byte. */
struct nesting {
    char close[JSON_DEPTH_MAX]; /* what closes each: ] or } */
    size_t depth;
};

/* Checks what follows a complete JSON value: closes the arrays and objects that end there, and reads a
 * comma (and in an object the next key). Returns true with *at before the next value or after the
 * outermost one, or false with *at at the first wrong byte. */
static bool check_end_of_value(struct nesting *nesting, const char **at, const char *end)
{
    while (nesting->depth > 0) {
        char close = nesting->close[nesting->depth - 1];
        *at = json_scan_white(*at, end);
        if (*at == end)
            return false;
        if (**at == ',') {
            (*at)++;
            return close == ']' || check_key_and_colon(at, end);
        }
        if (**at != close)
            return false;
        (*at)++;
        nesting->depth--;
    }
    return true;
}

/* Checks one JSON value with everything in it. Returns true with *at after it, or false with *at at the
 * first wrong byte. It keeps a list of open brackets, at most JSON_DEPTH_MAX, instead of recursing, so
 * that deep nesting cannot exhaust the stack. */
static bool check_value(const char **at, const char *end)
{
    struct nesting nesting = {.depth = 0};

    do {
        *at = json_scan_white(*at, end);
        if (*at == end)
            return false;
        if (**at == '{' || **at == '[') {
            char close = **at == '{' ? '}' : ']';
            if (nesting.depth == JSON_DEPTH_MAX)
                return false;
            nesting.close[nesting.depth++] = close;
            *at = json_scan_white(*at + 1, end);
            if (*at == end)
                return false;
            if (**at != close) {
                if (close == '}' && !check_key_and_colon(at, end))
                    return false;
                continue;
            }
        } else if (!check_scalar(at, end)) {
            return false;
        }
        if (!check_end_of_value(&nesting, at, end))
            return false;
    } while (nesting.depth > 0);
    return true;
}

/* Returns whether the text is exactly one JSON value. If not, *at_byte (unless NULL) is the offset of the
 * first wrong byte. Processes call it before they trust JSON: the producer for events, a worker for a
 * stage's answer, the supervisor for requests, the keeper for injected events. */
bool json_valid(const char *text, size_t bytes, size_t *at_byte)
{
    const char *at = text, *end = text + bytes;
    bool valid = check_value(&at, end);

    if (valid) {
        at = json_scan_white(at, end);
        valid = at == end;
    }
    if (!valid && at_byte != NULL)
        *at_byte = (size_t)(at - text);
    return valid;
}
