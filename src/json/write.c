/* SPDX-License-Identifier: MIT */
/* Writes JSON into a growing text (base/text.h). Pure except for memory: any process; one thread at a time
 * for each text. */
#include "src/json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"

/* Writes a control character as its JSON escape: \n, or \u0001 where JSON has no short form.
 * json_write_string calls it, since JSON forbids raw control characters in strings. */
static void write_control_escape(struct text *out, unsigned char character)
{
    static const char control_chars[] = "\b\f\n\r\t", escape_letters[] = "bfnrt";
    char escape[8];
    const char *found_char = character == 0 ? NULL : strchr(control_chars, character);

    if (found_char != NULL)
        snprintf(escape, sizeof escape, "\\%c", escape_letters[found_char - control_chars]);
    else
        snprintf(escape, sizeof escape, "\\u%04x", character);
    base_text_append(out, escape);
}

/* Appends text as a JSON string, quoted and escaped. Each byte that is not UTF-8 becomes U+FFFD, so that
 * the result is valid JSON whatever the text contains. `eventpipe`, the keeper and the producer write
 * UIDs, messages and values with it. */
void json_write_string(struct text *out, const char *text, size_t text_bytes)
{
    const char *position = text, *text_end = text + text_bytes,
               *unwritten = text; /* begins bytes that need no escape and are not written yet */

    base_text_append_bytes(out, "\"", 1);
    while (position < text_end) {
        unsigned char first_byte = (unsigned char)*position;
        size_t character_bytes = first_byte < 0x20 || first_byte == '"' || first_byte == '\\'
                                     ? 0
                                     : base_utf8_length(position, text_end);
        if (character_bytes > 0) {
            position += character_bytes;
            continue;
        }
        base_text_append_bytes(out, unwritten, (size_t)(position - unwritten));
        if (first_byte < 0x20)
            write_control_escape(out, first_byte);
        else if (first_byte == '"' || first_byte == '\\')
            base_text_append_bytes(out, (const char[]){'\\', (char)first_byte}, 2);
        else
            base_text_append(out, UTF8_REPLACEMENT);
        unwritten = ++position;
    }
    base_text_append_bytes(out, unwritten, (size_t)(text_end - unwritten));
    base_text_append_bytes(out, "\"", 1);
}

/* Appends bytes as a JSON string in base64. The keeper shows events that are not JSON this way, and the
 * producer stores lines and values that are not UTF-8. */
void json_write_base64(struct text *out, const void *data, size_t data_bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *position = data;

    base_text_append(out, "\"");
    for (size_t bytes_left = data_bytes; bytes_left > 0;) {
        uint32_t three_bytes = (uint32_t)position[0] << 16 |
                               (bytes_left > 1 ? (uint32_t)position[1] << 8 : 0) |
                               (bytes_left > 2 ? position[2] : 0);
        char four_digits[4] = {digits[three_bytes >> 18], digits[three_bytes >> 12 & 63],
                               bytes_left > 1 ? digits[three_bytes >> 6 & 63] : '=',
                               bytes_left > 2 ? digits[three_bytes & 63] : '='};
        base_text_append_bytes(out, four_digits, sizeof four_digits);
        position += bytes_left > 2 ? 3 : bytes_left;
        bytes_left -= bytes_left > 2 ? 3 : bytes_left;
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

/* Appends the key of a JSON member, with a comma before it unless it is the first of its object. `name`
 * must need no escapes. The caller writes the value next. `eventpipe status --json` and `eventpipe import`
 * write their output with it. */
void json_write_key(struct text *out, const char *name)
{
    char last_char = out->bytes > 0 ? out->text[out->bytes - 1] : '{';
    base_text_append(out, last_char == '{' || last_char == '[' ? "\"" : ",\"");
    base_text_append(out, name);
    base_text_append(out, "\":");
}

void json_write_member_uint(struct text *out, const char *name, uint64_t value)
{
    json_write_key(out, name);
    json_write_uint(out, value);
}

/* Appends a JSON member whose value is a text, or null if `text` is NULL. `name` must need no escapes.
 * `eventpipe status --json` and `eventpipe import` write their output with it. */
void json_write_member_text(struct text *out, const char *name, const char *text)
{
    json_write_key(out, name);
    if (text == NULL)
        base_text_append(out, "null");
    else
        json_write_string(out, text, strlen(text));
}

/* Returns how many bytes of white space begin at `position`, and sets *has_line_break if a line break is
 * among them. json_write_on_one_line decides by that which white space to drop. */
static size_t count_white_bytes(const char *position, const char *text_end, bool *has_line_break)
{
    const char *start = position;

    *has_line_break = false;
    for (; position < text_end &&
           (*position == ' ' || *position == '\t' || *position == '\n' || *position == '\r');
         position++)
        if (*position == '\n' || *position == '\r')
            *has_line_break = true;
    return (size_t)(position - start);
}

/* Appends a JSON value on one line, without a line break after it. It drops each run of white space
 * between tokens that contains a line break, and copies the rest byte for byte. A worker writes events for
 * an exec stage with it, because the stage's program reads one event per line. */
void json_write_on_one_line(struct text *out, struct json_span value)
{
    const char *position = value.at, *text_end = value.at + value.bytes, *unwritten = position;
    bool in_string = false;

    while (position < text_end) {
        if (in_string) {
            if (*position == '\\' && text_end - position > 1)
                position++;
            else if (*position == '"')
                in_string = false;
            position++;
            continue;
        }
        bool has_line_break;
        size_t white_bytes = count_white_bytes(position, text_end, &has_line_break);
        if (has_line_break) {
            base_text_append_bytes(out, unwritten, (size_t)(position - unwritten));
            unwritten = position + white_bytes;
        }
        if (white_bytes > 0) {
            position += white_bytes;
            continue;
        }
        in_string = *position == '"';
        position++;
    }
    base_text_append_bytes(out, unwritten, (size_t)(text_end - unwritten));
}
