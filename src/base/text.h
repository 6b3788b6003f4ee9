/* SPDX-License-Identifier: MIT */
/*
 * A growing text: what the JSON writer, URLs, tables and messages of any length are written into. Begin with
 * {0}; free it with base_text_free. One thread at a time uses a text.
 *
 * Invariants
 *  1. After an addition failed for lack of memory, `failed` stays set and nothing more is added until
 *     base_text_reset. So a caller may chain calls and check once at the end.
 *  2. Once something was added, the text ends with a NUL.
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
    char *text;
    size_t bytes, room; /* bytes: without the NUL */
    bool failed;
};
void base_text_append(struct text *out, const char *text); /* NUL-terminated */
void base_text_append_bytes(struct text *out, const char *text, size_t text_bytes);
void base_text_reset(struct text *out); /* empty again; keeps the memory */
void base_text_free(struct text *out);

#endif
