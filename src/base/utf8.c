/* SPDX-License-Identifier: MIT */
/* UTF-8, checked strictly. Pure: any process, any thread. Owns nothing; nothing here can fail. */
#include "src/base/utf8.h"

#include <string.h>

static bool is_continuation_byte(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

/* Returns how many bytes (1 to 4) the UTF-8 character at `position` has, 0 if the bytes there are no valid
 * character. `text_end` is the end of the text, and `position` lies before it. The JSON writer and checker,
 * the log and the command line's tables go through text from outside with it. */
size_t base_utf8_length(const char *position, const char *text_end)
{
    const unsigned char *byte = (const unsigned char *)position;
    size_t bytes_left = (size_t)(text_end - position);

    if (byte[0] < 0x80)
        return 1;
    if (byte[0] < 0xC2 || bytes_left < 2 || !is_continuation_byte(byte[1]))
        return 0;
    if (byte[0] < 0xE0)
        return 2;
    if (bytes_left < 3 || !is_continuation_byte(byte[2]))
        return 0;
    if (byte[0] < 0xF0) {
        bool is_overlong = byte[0] == 0xE0 && byte[1] < 0xA0;
        bool is_surrogate = byte[0] == 0xED && byte[1] > 0x9F;
        return is_overlong || is_surrogate ? 0 : 3;
    }
    if (byte[0] > 0xF4 || bytes_left < 4 || !is_continuation_byte(byte[3]))
        return 0;
    if ((byte[0] == 0xF0 && byte[1] < 0x90) || (byte[0] == 0xF4 && byte[1] > 0x8F))
        return 0;
    return 4;
}

/* Returns whether a UTF-8 character of this length is a control character, which could move the cursor of a
 * terminal or forge a log line. The log, the command line's tables and the error texts of sources and the
 * Idefix client replace such characters. */
bool base_utf8_is_control(const char *position, size_t character_bytes)
{
    unsigned char first_byte = (unsigned char)position[0];

    /* U+0080 to U+009F have two bytes */
    return (character_bytes == 1 && (first_byte < 0x20 || first_byte == 0x7F)) ||
           (character_bytes == 2 && first_byte == 0xC2 && (unsigned char)position[1] < 0xA0);
}

/* Returns at which byte, at most bytes_max, a longer UTF-8 text must be cut so that its last character
 * stays whole. The store cuts the error texts in its trace with it. */
size_t base_utf8_find_cut(const char *text, size_t bytes_max)
{
    while (bytes_max > 0 && is_continuation_byte((unsigned char)text[bytes_max]))
        bytes_max--;
    return bytes_max;
}

/* Returns where the first whole UTF-8 character begins in a text whose front was cut off. The
 * supervisor calls it when it keeps only the end of a process's stderr output. */
const char *base_utf8_find_start(const char *position, const char *text_end)
{
    while (position < text_end && is_continuation_byte((unsigned char)*position))
        position++;
    return position;
}

/* Removes an incomplete last UTF-8 character from a text that was cut to the size of its buffer. Error
 * messages, the reasons that stages give and the texts of crash records are cut with it. */
void base_utf8_cut(char *text)
{
    char *text_end = text + strlen(text), *last_character = text_end;

    while (last_character > text && text_end - last_character < 4 &&
           is_continuation_byte((unsigned char)last_character[-1]))
        last_character--;
    /* last_character[-1] is now the first byte of the last character, if the text is UTF-8 */
    if (last_character > text && (unsigned char)last_character[-1] >= 0xC2 &&
        base_utf8_length(last_character - 1, text_end) == 0)
        last_character[-1] = '\0';
}

/* Returns whether all bytes of a text are valid UTF-8. Sources, `eventpipe import` and the library check
 * text from outside with it before they accept it. */
bool base_utf8_valid(const char *text, size_t text_bytes)
{
    const char *text_end = text + text_bytes;

    while (text < text_end) {
        size_t character_bytes = base_utf8_length(text, text_end);
        if (character_bytes == 0)
            return false;
        text += character_bytes;
    }
    return true;
}

/* Writes a code point as UTF-8 and returns how many bytes it took (1 to 4). The JSON reader decodes the
 * \u escapes of strings with it. */
size_t base_utf8_put(uint32_t code_point, char *output)
{
    if (code_point < 0x80) {
        output[0] = (char)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        output[0] = (char)(0xC0 | code_point >> 6);
        output[1] = (char)(0x80 | (code_point & 0x3F));
        return 2;
    }
    if (code_point < 0x10000) {
        output[0] = (char)(0xE0 | code_point >> 12);
        output[1] = (char)(0x80 | (code_point >> 6 & 0x3F));
        output[2] = (char)(0x80 | (code_point & 0x3F));
        return 3;
    }
    output[0] = (char)(0xF0 | code_point >> 18);
    output[1] = (char)(0x80 | (code_point >> 12 & 0x3F));
    output[2] = (char)(0x80 | (code_point >> 6 & 0x3F));
    output[3] = (char)(0x80 | (code_point & 0x3F));
    return 4;
}
