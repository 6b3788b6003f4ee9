/* SPDX-License-Identifier: MIT */
/* Writes JSON into a growing text (base/text.h). Pure except for memory: any process; one thread at a time
 * for each text. */
#include "src/json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"

/* Writes a control character of a string as JSON's escape: \n, or \u0001 where JSON has no short form. Runs
 * in any process. */
static void write_control_escape(struct text *out, unsigned char c)
{
    static const char from[] = "\b\f\n\r\t", to[] = "bfnrt";
    char escape[8];
    const char *found = c == 0 ? NULL : strchr(from, c);

    if (found != NULL)
        snprintf(escape, sizeof escape, "\\%c", to[found - from]);
    else
        snprintf(escape, sizeof escape, "\\u%04x", c);
    base_text_append(out, escape);
}

/* Appends text as a JSON string, quoted and escaped; each byte that is not UTF-8 becomes U+FFFD. Any process
 * calls it for texts that may contain anything, so that the result is always valid JSON. */
void json_write_string(struct text *out, const char *text, size_t bytes)
{
    const char *at = text, *end = text + bytes,
               *plain = text; /* from here on not yet written; needs no escape */

    base_text_append_bytes(out, "\"", 1);
    while (at < end) {
        unsigned char c = (unsigned char)*at;
        size_t length = c < 0x20 || c == '"' || c == '\\' ? 0 : base_utf8_length(at, end);
        if (length > 0) {
            at += length;
            continue;
        }
        base_text_append_bytes(out, plain, (size_t)(at - plain));
        if (c < 0x20)
            write_control_escape(out, c);
        else if (c == '"' || c == '\\')
            base_text_append_bytes(out, (const char[]){'\\', (char)c}, 2);
        else
            base_text_append(out, UTF8_REPLACEMENT);
        plain = ++at;
    }
    base_text_append_bytes(out, plain, (size_t)(end - plain));
    base_text_append_bytes(out, "\"", 1);
}

/* Appends bytes as a JSON string in base64. `keep` shows events that are not JSON this way, and the producer
 * stores lines and values that are not UTF-8 so. */
void json_write_base64(struct text *out, const void *data, size_t bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *at = data;

    base_text_append(out, "\"");
    for (size_t left = bytes; left > 0;) {
        uint32_t three =
            (uint32_t)at[0] << 16 | (left > 1 ? (uint32_t)at[1] << 8 : 0) | (left > 2 ? at[2] : 0);
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63],
                        left > 1 ? digits[three >> 6 & 63] : '=', left > 2 ? digits[three & 63] : '='};
        base_text_append_bytes(out, four, sizeof four);
        at += left > 2 ? 3 : left;
        left -= left > 2 ? 3 : left;
    }
    base_text_append(out, "\"");
}

void json_write_uint(struct text *out, uint64_t value)
{
    char digits[24];
    base_text_append_bytes(out, digits,
                           (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)value));
}

void json_write_int(struct text *out, int64_t value)
{
    char digits[24];
    base_text_append_bytes(out, digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)value));
}

/* Appends the key of a JSON member, after a comma unless it is the first of its object; the caller writes
 * the value next. `eventpipe status --json` and `eventpipe import` write their output with it. */
void json_write_key(struct text *out, const char *name)
{
    char last = out->bytes > 0 ? out->text[out->bytes - 1] : '{';
    base_text_append(out, last == '{' || last == '[' ? "\"" : ",\"");
    base_text_append(out, name);
    base_text_append(out, "\":");
}

void json_write_member_uint(struct text *out, const char *name, uint64_t value)
{
    json_write_key(out, name);
    json_write_uint(out, value);
}

/* Appends a JSON member with a text as its value, or null for NULL. `eventpipe status --json` and `eventpipe
 * import` write their output with it. */
void json_write_member_text(struct text *out, const char *name, const char *text)
{
    json_write_key(out, name);
    if (text == NULL)
        base_text_append(out, "null");
    else
        json_write_string(out, text, strlen(text));
}

/* Returns how many bytes of white space begin at `at`; *breaks tells whether a line break is among them.
 * Part of the JSON writer, which runs in any process. */
static size_t count_white_bytes(const char *at, const char *end, bool *breaks)
{
    const char *start = at;

    *breaks = false;
    for (; at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'); at++)
        if (*at == '\n' || *at == '\r')
            *breaks = true;
    return (size_t)(at - start);
}

/* Appends a JSON value on one line: drops white space between tokens that has a line break, and copies the
 * rest byte for byte. A worker writes events for an exec stage with it, whose program reads lines. Runs in
 * any process. */
void json_write_line(struct text *out, struct json_span value)
{
    const char *at = value.at, *end = value.at + value.bytes, *kept = at;
    bool in_string = false;

    while (at < end) {
        if (in_string) {
            if (*at == '\\' && end - at > 1)
                at++;
            else if (*at == '"')
                in_string = false;
            at++;
            continue;
        }
        bool breaks;
        size_t white = count_white_bytes(at, end, &breaks);
        if (breaks) {
            base_text_append_bytes(out, kept, (size_t)(at - kept));
            kept = at + white;
        }
        if (white > 0) {
            at += white;
            continue;
        }
        in_string = *at == '"';
        at++;
    }
    base_text_append_bytes(out, kept, (size_t)(end - kept));
}

/* Empties a growing JSON text but keeps its memory, and clears `failed`. Any process that writes one line
 * after the other calls it between them. */
