/* SPDX-License-Identifier: MIT */
/* Which bytes are text: UTF-8 as RFC 3629 has it (no overlong forms, no surrogates, nothing above U+10FFFF).
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* Bytes of the character that begins at `at` (1 to 4), 0 when none does; at < end. */
size_t base_utf8_length(const char *at, const char *end);
/* Drops what a cut has left of the last character. */
void base_utf8_cut(char *text);
bool base_utf8_valid(const char *text, size_t bytes);
/* Writes a code point (1 to 4 bytes) and returns how many bytes it took. */
size_t base_utf8_put(uint32_t point, char *at);

#endif
