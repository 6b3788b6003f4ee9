/* SPDX-License-Identifier: MIT */
/* A growing text. Pure except for memory: any process; one thread at a time for each text. */
#include "src/base/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Makes room in a growing text for added_bytes bytes and a NUL. If out of memory, it sets `failed` and
 * returns false; writers go on, and the caller checks `failed` once at the end. base_text_append_bytes
 * calls it. */
static bool reserve_bytes(struct text *out, size_t added_bytes)
{
    if (out->failed)
        return false;
    if (added_bytes < out->room - out->bytes)
        return true;
    if (added_bytes >= SIZE_MAX / 4 || out->bytes >= SIZE_MAX / 4) {
        out->failed = true;
        return false;
    }
    size_t new_room = out->room < 128 ? 128 : out->room;
    while (new_room <= out->bytes + added_bytes)
        new_room += new_room / 2;
    char *new_text = realloc(out->text, new_room);
    if (new_text == NULL) {
        out->failed = true;
        return false;
    }
    out->text = new_text;
    out->room = new_room;
    return true;
}

/* Appends bytes as they are to a growing text; does nothing once the text has run out of memory. All
 * functions that append to a growing text call it: the JSON writer, the command line's tables, the URLs of
 * http sources. */
void base_text_append_bytes(struct text *out, const char *text, size_t text_bytes)
{
    if (!reserve_bytes(out, text_bytes))
        return;
    if (text_bytes > 0)
        memcpy(out->text + out->bytes, text, text_bytes);
    out->bytes += text_bytes;
    out->text[out->bytes] = '\0';
}

void base_text_append(struct text *out, const char *text)
{
    base_text_append_bytes(out, text, strlen(text));
}

/* Makes a growing text empty again and keeps its memory. The keeper and the command line use it after they
 * have sent one part of the answer to a control command, for the next part. */
void base_text_reset(struct text *out)
{
    out->bytes = 0;
    out->failed = false;
    if (out->text != NULL)
        out->text[0] = '\0';
}

void base_text_free(struct text *out)
{
    free(out->text);
    *out = (struct text){0};
}
