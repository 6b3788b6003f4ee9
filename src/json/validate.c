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
 *  3. Each check_ function moves *position past what it checked and returns true, or moves it to the first
 *     wrong byte and returns false.
 */
#include "src/json/json.h"

#include <string.h>

#include "src/base/utf8.h"
#include "src/json/scan.h"

/* Checks the escape in a JSON string whose backslash is at *position, such as \n or \u00e4. Returns true
 * with *position after it, or false with *position at the first wrong byte. */
static bool check_escape(const char **position, const char *text_end)
{
    if (++*position == text_end)
        return false;
    if (**position != 'u') {
        if (**position == '\0' || strchr("\"\\/bfnrt", **position) == NULL)
            return false;
        (*position)++;
        return true;
    }
    (*position)++;
    for (int i = 0; i < 4; i++, (*position)++)
        if (*position == text_end || json_scan_hex_digit(**position) < 0)
            return false;
    return true;
}

/* Checks the JSON string whose opening quote is at *position, including that it is UTF-8. Returns true with
 * *position after it, or false with *position at the first wrong byte. */
static bool check_string(const char **position, const char *text_end)
{
    for ((*position)++;;) {
        *position = json_scan_plain(*position, text_end);
        if (*position == text_end)
            return false;
        if (**position == '"') {
            (*position)++;
            return true;
        }
        if (**position == '\\') {
            if (!check_escape(position, text_end))
                return false;
            continue;
        }
        size_t length = (unsigned char)**position < 0x20 ? 0 : base_utf8_length(*position, text_end);
        if (length == 0)
            return false;
        *position += length;
    }
}

/* Checks one or more decimal digits of a JSON number and moves *position past them. Returns false if there
 * is none. check_number calls it for each part of a number. */
static bool check_digits(const char **position, const char *text_end)
{
    if (*position == text_end || !json_scan_is_digit(**position))
        return false;
    while (*position < text_end && json_scan_is_digit(**position))
        (*position)++;
    return true;
}

/* Checks a JSON number. Returns true with *position after it, or false with *position at the first wrong
 * byte. It refuses 01, +1 and 1., which some parsers accept but the programs of stages may not. */
static bool check_number(const char **position, const char *text_end)
{
    if (**position == '-')
        (*position)++;
    if (*position < text_end && **position == '0')
        (*position)++;
    else if (!check_digits(position, text_end))
        return false;
    if (*position < text_end && **position == '.') {
        (*position)++;
        if (!check_digits(position, text_end))
            return false;
    }
    if (*position < text_end && (**position == 'e' || **position == 'E')) {
        (*position)++;
        if (*position < text_end && (**position == '+' || **position == '-'))
            (*position)++;
        if (!check_digits(position, text_end))
            return false;
    }
    return true;
}

/* Checks that the JSON text continues with `literal`: true, false or null. Returns true with *position
 * after it, or false with *position at the first wrong byte. */
static bool check_literal(const char **position, const char *text_end, const char *literal)
{
    for (; *literal != '\0'; literal++, (*position)++)
        if (*position == text_end || **position != *literal)
            return false;
    return true;
}

/* Checks a JSON value that is no array or object: a string, number, true, false or null. Returns true with
 * *position after it, or false with *position at the first wrong byte. */
static bool check_scalar(const char **position, const char *text_end)
{
    switch (**position) {
    case '"':
        return check_string(position, text_end);
    case 't':
        return check_literal(position, text_end, "true");
    case 'f':
        return check_literal(position, text_end, "false");
    case 'n':
        return check_literal(position, text_end, "null");
    default:
        return (**position == '-' || json_scan_is_digit(**position)) && check_number(position, text_end);
    }
}

/* Checks a key of a JSON object and the colon that must follow it. Returns true with *position after it, or
 * false with *position at the first wrong byte. */
static bool check_key_and_colon(const char **position, const char *text_end)
{
    *position = json_scan_white(*position, text_end);
    if (*position == text_end || **position != '"' || !check_string(position, text_end))
        return false;
    *position = json_scan_white(*position, text_end);
    if (*position == text_end || **position != ':')
        return false;
    (*position)++;
    return true;
}

/* The containers that are open at the current byte. */
struct nesting {
    char closing_brackets[JSON_DEPTH_MAX]; /* what closes each: ] or } */
    size_t depth;
};

/* Checks what follows a complete JSON value: closes the arrays and objects that end there, and reads a
 * comma (and in an object the next key). Returns true with *position before the next value or after the
 * outermost one, or false with *position at the first wrong byte. */
static bool check_end_of_value(struct nesting *nesting, const char **position, const char *text_end)
{
    while (nesting->depth > 0) {
        char closing_bracket = nesting->closing_brackets[nesting->depth - 1];
        *position = json_scan_white(*position, text_end);
        if (*position == text_end)
            return false;
        if (**position == ',') {
            (*position)++;
            return closing_bracket == ']' || check_key_and_colon(position, text_end);
        }
        if (**position != closing_bracket)
            return false;
        (*position)++;
        nesting->depth--;
    }
    return true;
}

/* Checks one JSON value with everything in it. Returns true with *position after it, or false with
 * *position at the first wrong byte. It keeps a list of open brackets, at most JSON_DEPTH_MAX, instead of
 * recursing, so that deep nesting cannot exhaust the stack. */
static bool check_value(const char **position, const char *text_end)
{
    struct nesting nesting = {.depth = 0};

    do {
        *position = json_scan_white(*position, text_end);
        if (*position == text_end)
            return false;
        if (**position == '{' || **position == '[') {
            char closing_bracket = **position == '{' ? '}' : ']';
            if (nesting.depth == JSON_DEPTH_MAX)
                return false;
            nesting.closing_brackets[nesting.depth++] = closing_bracket;
            *position = json_scan_white(*position + 1, text_end);
            if (*position == text_end)
                return false;
            if (**position != closing_bracket) {
                if (closing_bracket == '}' && !check_key_and_colon(position, text_end))
                    return false;
                continue;
            }
        } else if (!check_scalar(position, text_end)) {
            return false;
        }
        if (!check_end_of_value(&nesting, position, text_end))
            return false;
    } while (nesting.depth > 0);
    return true;
}

/* Returns whether the text is exactly one JSON value. If not, *error_offset (unless NULL) is the offset of
 * the first wrong byte. Processes call it before they trust JSON: the producer for events, a worker for a
 * stage's answer, the supervisor for requests, the keeper for injected events. */
bool json_valid(const char *text, size_t text_bytes, size_t *error_offset)
{
    const char *position = text, *text_end = text + text_bytes;
    bool is_valid = check_value(&position, text_end);

    if (is_valid) {
        position = json_scan_white(position, text_end);
        is_valid = position == text_end;
    }
    if (!is_valid && error_offset != NULL)
        *error_offset = (size_t)(position - text);
    return is_valid;
}
