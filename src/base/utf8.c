/* SPDX-License-Identifier: MIT */
/* UTF-8, checked strictly. Pure: any process, any thread. Owns nothing; nothing here can fail. */
#include "src/base/utf8.h"

#include <string.h>

static bool is_continuation_byte(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

/* Returns how many bytes (1 to 4) the UTF-8 character at `at` has, 0 if the bytes there are no valid
 * character. The JSON writer and checker, the log and the command line's tables call it to go through text
 * from outside. Any process. */
size_t base_utf8_length(const char *at, const char *end)
{
    const unsigned char *byte = (const unsigned char *)at;
    size_t left = (size_t)(end - at);

    if (byte[0] < 0x80)
        return 1;
    if (byte[0] < 0xC2 || left < 2 || !is_continuation_byte(byte[1]))
        return 0;
    if (byte[0] < 0xE0)
        return 2;
    if (left < 3 || !is_continuation_byte(byte[2]))
        return 0;
    if (byte[0] < 0xF0) {
        bool overlong = byte[0] == 0xE0 && byte[1] < 0xA0;
        bool surrogate = byte[0] == 0xED && byte[1] > 0x9F;
        return overlong || surrogate ? 0 : 3;
    }
    if (byte[0] > 0xF4 || left < 4 || !is_continuation_byte(byte[3]))
        return 0;
    if ((byte[0] == 0xF0 && byte[1] < 0x90) || (byte[0] == 0xF4 && byte[1] > 0x8F))
        return 0;
    return 4;
}

/* Whether a UTF-8 character is a control character, which could move the cursor of a terminal or forge a
 * log line. The log, the command line's tables and the error texts of sources and the Idefix client
 * replace such characters. Any process. */
bool base_utf8_is_control(const char *at, size_t length)
{
    unsigned char first = (unsigned char)at[0];

    /* U+0080 to U+009F have two bytes */
    return (length == 1 && (first < 0x20 || first == 0x7F)) ||
           (length == 2 && first == 0xC2 && (unsigned char)at[1] < 0xA0);
}

/* Returns where to cut a UTF-8 text that is longer than `most` bytes, so that no character is torn. The
 * trace of the store cuts errors so. Any process. */
size_t base_utf8_fit(const char *text, size_t most)
{
    while (most > 0 && is_continuation_byte((unsigned char)text[most]))
        most--;
    return most;
}

/* Returns where the first whole UTF-8 character begins in a text that lost its front. The supervisor's relay
 * keeps the end of a process's stderr output so. Any process. */
const char *base_utf8_start(const char *at, const char *end)
{
    while (at < end && is_continuation_byte((unsigned char)*at))
        at++;
    return at;
}

/* Removes an incomplete last UTF-8 character from a text that snprintf has cut to its buffer. Error
 * messages and the reasons that stages give are cut so. Any process. */
void base_utf8_cut(char *text)
{
    char *end = text + strlen(text), *last = end;

    while (last > text && end - last < 4 && is_continuation_byte((unsigned char)last[-1]))
        last--;
    /* last[-1] is now the first byte of the last character, if the text is UTF-8 */
    if (last > text && (unsigned char)last[-1] >= 0xC2 && base_utf8_length(last - 1, end) == 0)
        last[-1] = '\0';
}

/* Whether all bytes of a text are valid UTF-8. Sources, imports and the library check text from outside
 * before they accept it. Any process. */
bool base_utf8_valid(const char *text, size_t bytes)
{
    const char *end = text + bytes;

    while (text < end) {
        size_t length = base_utf8_length(text, end);
        if (length == 0)
            return false;
        text += length;
    }
    return true;
}

/* Writes a code point as UTF-8 and returns how many bytes it took (1 to 4). The JSON reader calls it to
 * decode the \u escapes of strings. Any process. */
size_t base_utf8_put(uint32_t point, char *at)
{
    if (point < 0x80) {
        at[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        at[0] = (char)(0xC0 | point >> 6);
        at[1] = (char)(0x80 | (point & 0x3F));
        return 2;
    }
    if (point < 0x10000) {
        at[0] = (char)(0xE0 | point >> 12);
        at[1] = (char)(0x80 | (point >> 6 & 0x3F));
        at[2] = (char)(0x80 | (point & 0x3F));
        return 3;
    }
    at[0] = (char)(0xF0 | point >> 18);
    at[1] = (char)(0x80 | (point >> 12 & 0x3F));
    at[2] = (char)(0x80 | (point >> 6 & 0x3F));
    at[3] = (char)(0x80 | (point & 0x3F));
    return 4;
}
