/* SPDX-License-Identifier: MIT */
/* A growing text. Pure except for memory: any process; one thread at a time for each text. */
#include "src/base/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Makes room in a growing text for added_bytes bytes and a NUL. Without memory it sets `failed` and
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

/* Appends bytes as they are to a growing text; does nothing once memory was short. All functions that
 * append text end here. The JSON writer and makers of URLs and tables build their output with it. */
void base_text_append_bytes(struct text *out, const char *text, size_t bytes)
{
    if (!reserve_bytes(out, bytes))
        return;
    if (bytes > 0)
        memcpy(out->text + out->bytes, text, bytes);
    out->bytes += bytes;
    out->text[out->bytes] = '\0';
}

void base_text_append(struct text *out, const char *text)
{
    base_text_append_bytes(out, text, strlen(text));
}

/* Makes a growing text empty again and keeps its memory. The keeper and the command line use it when
 * they have sent one part of an answer to an operator's command and begin the next. */
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
