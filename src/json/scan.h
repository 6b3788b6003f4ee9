/* SPDX-License-Identifier: MIT */
/* Skips text quickly; for json.c, validate.c, split.c and the Idefix simulator. Pure. */
#ifndef JSON_SCAN_H
#define JSON_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define JSON_EVERY_BYTE(value) (0x0101010101010101ULL * (value))

static inline const char *json_scan_white(const char *position, const char *text_end)
{
    while (position < text_end &&
           (*position == ' ' || *position == '\n' || *position == '\r' || *position == '\t'))
        position++;
    return position;
}

static inline bool json_scan_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Returns the first byte of a JSON string that is not plain: a control character, a quote, a backslash or
 * no ASCII; the end of the text if there is none. It takes eight bytes at a time, because most of an event
 * is strings and every event is scanned. */
static inline const char *json_scan_plain(const char *position, const char *text_end)
{
    while (text_end - position >= 8) {
        uint64_t eight_bytes;
        memcpy(&eight_bytes, position, sizeof eight_bytes);
        uint64_t quote = eight_bytes ^ JSON_EVERY_BYTE('"'), slash = eight_bytes ^ JSON_EVERY_BYTE('\\');
        uint64_t special = eight_bytes | ((eight_bytes - JSON_EVERY_BYTE(0x20)) & ~eight_bytes) |
                           ((quote - JSON_EVERY_BYTE(1)) & ~quote) | ((slash - JSON_EVERY_BYTE(1)) & ~slash);
        if (special & JSON_EVERY_BYTE(0x80))
            break;
        position += 8;
    }
    while (position < text_end && (unsigned char)*position >= 0x20 && (unsigned char)*position < 0x80 &&
           *position != '"' && *position != '\\')
        position++;
    return position;
}

/* Returns the value of a hex digit, 0 to 15, or -1 if the character is not one. The reader and the
 * validator of JSON call it for each digit of a \u escape. */
static inline int json_scan_hex_digit(char digit)
{
    if (json_scan_is_digit(digit))
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

#endif
