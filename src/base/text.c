/* SPDX-License-Identifier: MIT */
/* A growing text. Pure except for memory: any process; one thread at a time for each text. */
#include "src/base/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Makes room in the growing text for `more` bytes and a NUL. Returns false without memory, and then
 * sets `failed`, which the caller checks once at the end. Runs in any process. */
static bool make_room(struct text *out, size_t more)
{
    if (out->failed)
        return false;
    if (more < out->room - out->bytes)
        return true;
    if (more >= SIZE_MAX / 4 || out->bytes >= SIZE_MAX / 4) {
        out->failed = true;
        return false;
    }
    size_t room = out->room < 128 ? 128 : out->room;
    while (room <= out->bytes + more)
        room += room / 2;
    char *text = realloc(out->text, room);
    if (text == NULL) {
        out->failed = true;
        return false;
    }
    out->text = text;
    out->room = room;
    return true;
}

/* Appends bytes as they are to a growing text. Does nothing after a lack of memory. All functions that
 * write text end here, such as the JSON writer. Any process. */
void base_text_append_bytes(struct text *out, const char *text, size_t bytes)
{
    if (!make_room(out, bytes))
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
