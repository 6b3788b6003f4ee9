/* SPDX-License-Identifier: MIT */
/*
 * UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing above U+10FFFF. Everything
 * that checks text from outside, cuts it or cleans it for a terminal uses these functions. Pure: any
 * process, any thread.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* Returns how many bytes (1 to 4) the character at `position` has, 0 if none begins there;
 * position < text_end. */
size_t base_utf8_length(const char *position, const char *text_end);
/* Whether the character at `position`, of character_bytes bytes, is a control character: U+0000 to U+001F,
 * U+007F to U+009F. On a terminal it could move the cursor or change colours; in the log it could forge a
 * line. */
bool base_utf8_is_control(const char *position, size_t character_bytes);
/* Returns where to cut a text that is longer than bytes_max bytes: at most there, and not inside a
 * character. */
size_t base_utf8_find_cut(const char *text, size_t bytes_max);
/* Returns where the first character at or after `position` begins, at most `text_end`. */
const char *base_utf8_find_start(const char *position, const char *text_end);
/* Removes an incomplete last character, which a text has when snprintf cut it to its buffer. */
void base_utf8_cut(char *text);
bool base_utf8_valid(const char *text, size_t text_bytes);
/* Writes a code point as 1 to 4 bytes and returns how many. */
size_t base_utf8_put(uint32_t code_point, char *output);

#endif
