/* SPDX-License-Identifier: MIT */
/* Skips text quickly; for json.c, validate.c, split.c and the Idefix simulator. Pure. */
#ifndef JSON_SCAN_H
#define JSON_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define JSON_EVERY_BYTE(value) (0x0101010101010101ULL * (value))

static inline const char *json_scan_white(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
        at++;
    return at;
}

static inline bool json_scan_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Skips ASCII that is neither a control character nor a quote nor a backslash. It takes eight bytes at a
 * time, because most of an event is strings and every event is scanned. */
static inline const char *json_scan_plain(const char *at, const char *end)
{
    while (end - at >= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        uint64_t quote = word ^ JSON_EVERY_BYTE('"'), slash = word ^ JSON_EVERY_BYTE('\\');
        uint64_t special = word | ((word - JSON_EVERY_BYTE(0x20)) & ~word) |
                           ((quote - JSON_EVERY_BYTE(1)) & ~quote) | ((slash - JSON_EVERY_BYTE(1)) & ~slash);
        if (special & JSON_EVERY_BYTE(0x80))
            break;
        at += 8;
    }
    while (at < end && (unsigned char)*at >= 0x20 && (unsigned char)*at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return at;
}

/* Returns the value of a hex digit, 0 to 15, or -1 if the character is not one. The reader and the validator
 * of JSON call it for each digit of a \u escape. */
static inline int json_scan_hex_digit(char c)
{
    if (json_scan_is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

#endif
