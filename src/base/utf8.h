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

/* Returns how many bytes (1 to 4) the character at `at` has, 0 if no character begins there; at < end. */
size_t base_utf8_length(const char *at, const char *end);
/* Whether the character at `at`, of length bytes, is a control character: U+0000 to U+001F, U+007F to
 * U+009F. On a terminal it could move the cursor or change colours; in the log it could forge a line. */
bool base_utf8_is_control(const char *at, size_t length);
/* Returns where to cut a text that is longer than `most` bytes: at most there, and not inside a character. */
size_t base_utf8_fit(const char *text, size_t bytes_max);
/* Returns where the first character at or after `at` begins, at most `end`. */
const char *base_utf8_start(const char *at, const char *end);
/* Removes an incomplete last character, which a text has when snprintf cut it to its buffer. */
void base_utf8_cut(char *text);
bool base_utf8_valid(const char *text, size_t bytes);
/* Writes a code point as 1 to 4 bytes and returns how many. */
size_t base_utf8_put(uint32_t code_point, char *output);

#endif
