/* SPDX-License-Identifier: MIT */
/*
 * Reads MessagePack in place. Pure: any process, any thread, no state; only json_msgpack_text allocates.
 *
 * Invariants
 *  1. Nothing outside the span is read, whatever it contains. So a span that json_msgpack_first never
 *     checked does no harm.
 *  2. Nothing recurses. To find the end of a value it is enough to count the values that must still
 *     follow. Each takes at least one byte, so a count above the number of remaining bytes is refused at
 *     once. The work is bounded by the bytes that arrived, never by what they claim.
 *  3. If a map has two members with the same key, the first counts, as in json.c.
 *
 * 0xC1, which MessagePack leaves unused, is read as a value of one byte. An event that contains it is
 * unreadable (json_msgpack_json reports it), but the end of the event, and so the next one, is still
 * found.
 */
#include "src/json/msgpack.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"
#include "src/json/msgpack_head.h"

/* Reads an unsigned number of `size` bytes (0 to 8), highest byte first, as MessagePack stores lengths and
 * numbers. The MessagePack reader uses it, in any process. */
uint64_t json_msgpack_big_endian(const char *at, size_t size)
{
    uint64_t number = 0;

    for (size_t i = 0; i < size; i++)
        number = number << 8 | (unsigned char)at[i];
    return number;
}

/* What follows the format bytes from 0xC0 to 0xDF. */
struct layout {
    unsigned char kind;
    unsigned char length_bytes; /* of the length or count that follows; 0 = none */
    unsigned char fixed_bytes;  /* of content, beside what the length says */
};

#define LAYOUT_FIRST 0xC0
static const struct layout layouts[] = {
    {MSGPACK_NIL, 0, 0},        {MSGPACK_EXTENSION, 0, 0}, {MSGPACK_BOOL, 0, 0},
    {MSGPACK_BOOL, 0, 0},       {MSGPACK_BYTES, 1, 0},     {MSGPACK_BYTES, 2, 0},
    {MSGPACK_BYTES, 4, 0},      {MSGPACK_EXTENSION, 1, 1}, {MSGPACK_EXTENSION, 2, 1},
    {MSGPACK_EXTENSION, 4, 1},  {MSGPACK_FLOAT, 0, 4},     {MSGPACK_FLOAT, 0, 8},
    {MSGPACK_INTEGER, 0, 1},    {MSGPACK_INTEGER, 0, 2},   {MSGPACK_INTEGER, 0, 4},
    {MSGPACK_INTEGER, 0, 8},    {MSGPACK_INTEGER, 0, 1},   {MSGPACK_INTEGER, 0, 2},
    {MSGPACK_INTEGER, 0, 4},    {MSGPACK_INTEGER, 0, 8},   {MSGPACK_EXTENSION, 0, 2},
    {MSGPACK_EXTENSION, 0, 3},  {MSGPACK_EXTENSION, 0, 5}, {MSGPACK_EXTENSION, 0, 9},
    {MSGPACK_EXTENSION, 0, 17}, {MSGPACK_TEXT, 1, 0},      {MSGPACK_TEXT, 2, 0},
    {MSGPACK_TEXT, 4, 0},       {MSGPACK_ARRAY, 2, 0},     {MSGPACK_ARRAY, 4, 0},
    {MSGPACK_MAP, 2, 0},        {MSGPACK_MAP, 4, 0},
};
static_assert(sizeof layouts / sizeof layouts[0] == 0xE0 - LAYOUT_FIRST,
              "one layout for each of 0xC0 to 0xDF");

/* Decodes a MessagePack format byte that holds a small number, length or count in its own bits. *content
 * gets the length of a text. Runs in any process. */
static void read_short_format(unsigned char format, struct msgpack_head *head, uint64_t *content)
{
    if (format < 0x80 || format >= 0xE0) {
        head->kind = MSGPACK_INTEGER;
    } else if (format < 0x90) {
        head->kind = MSGPACK_MAP;
        head->values = 2 * (uint64_t)(format & 0x0F);
    } else if (format < 0xA0) {
        head->kind = MSGPACK_ARRAY;
        head->values = format & 0x0F;
    } else {
        head->kind = MSGPACK_TEXT;
        *content = format & 0x1F;
    }
}

/* Decodes the first bytes of a MessagePack value: its kind, its length, and how many values follow inside.
 * Returns false if the bytes end within the head. The MessagePack reader and its conversion to JSON build on
 * it, in any process. */
bool json_msgpack_head_read(struct msgpack text, struct msgpack_head *head)
{
    uint64_t content = 0, length = 0;
    size_t before = 1; /* bytes before the content */

    if (text.bytes == 0)
        return false;
    unsigned char format = (unsigned char)text.at[0];
    *head = (struct msgpack_head){.format = format};
    if (format < LAYOUT_FIRST || format >= 0xE0) {
        read_short_format(format, head, &content);
    } else {
        const struct layout *layout = &layouts[format - LAYOUT_FIRST];
        before += layout->length_bytes;
        if (text.bytes < before)
            return false;
        length = json_msgpack_big_endian(text.at + 1, layout->length_bytes);
        head->kind = (enum msgpack_kind)layout->kind;
        content = layout->fixed_bytes;
        if (head->kind == MSGPACK_ARRAY || head->kind == MSGPACK_MAP)
            head->values = head->kind == MSGPACK_MAP ? 2 * length : length;
        else
            content += length;
    }
    if (content > text.bytes - before)
        return false;
    head->content = text.at + before;
    head->content_bytes = (size_t)content;
    head->bytes = before + (size_t)content;
    if (head->kind == MSGPACK_EXTENSION && content > 0) { /* its first byte is its type */
        head->extension = (signed char)head->content[0];
        head->content++;
        head->content_bytes--;
    }
    return true;
}

/* Returns the 64 bits of a MessagePack integer; if *negative is set, they are two's complement. The
 * conversion to JSON uses it for numbers and for keys, in any process. */
uint64_t json_msgpack_head_integer(const struct msgpack_head *head, bool *negative)
{
    size_t bits = 8 * head->content_bytes;
    uint64_t number = json_msgpack_big_endian(head->content, head->content_bytes);

    if (bits == 0)
        number = (uint64_t)(int64_t)(signed char)head->format;
    else if (head->format >= 0xD0 && bits < 64 && number >> (bits - 1) != 0)
        number |= UINT64_MAX << bits;
    /* 0xCC to 0xCF are unsigned: their highest bit is no sign */
    *negative = (bits == 0 || head->format >= 0xD0) && number >> 63 != 0;
    return number;
}

/* Finds where the first MessagePack value ends, and checks all lengths in it against the bytes that are
 * there. Returns EP_EPROTO with a message if they do not fit. Run it on untrusted bytes first: the producer
 * does so for each frame from Idefix, `eventpipe import` for each row. */
int json_msgpack_first(struct msgpack text, struct msgpack *value, struct error *error)
{
    size_t at = 0;
    uint64_t pending = 1; /* values that must still follow; never more than bytes remain */

    while (pending > 0) {
        struct msgpack_head head;
        if (!json_msgpack_head_read((struct msgpack){text.at + at, text.bytes - at}, &head))
            return base_error_set(error, EP_EPROTO, "MessagePack ends within the value at byte %zu of %zu",
                                  at, text.bytes);
        pending--;
        size_t left = text.bytes - at - head.bytes;
        if (head.values > left || pending > left - head.values) {
            unsigned long long announced = pending + head.values;
            return base_error_set(
                error, EP_EPROTO,
                "MessagePack: at byte %zu %llu values are announced, but %zu bytes are left", at, announced,
                left);
        }
        pending += head.values;
        at += head.bytes;
    }
    *value = (struct msgpack){text.at, at};
    return 0;
}

enum msgpack_kind json_msgpack_kind(struct msgpack value)
{
    struct msgpack_head head;
    return json_msgpack_head_read(value, &head) ? head.kind : MSGPACK_NIL;
}

bool json_msgpack_bool(struct msgpack value)
{
    return value.bytes > 0 && (unsigned char)value.at[0] == 0xC3;
}

/* Returns where the bytes of a MessagePack text or byte string are, without copying them; false for other
 * kinds. The producer reads frames and events from Idefix with it, `eventpipe import` the rows of a
 * database. */
bool json_msgpack_content(struct msgpack value, struct json_span *content)
{
    struct msgpack_head head;

    if (!json_msgpack_head_read(value, &head) || (head.kind != MSGPACK_TEXT && head.kind != MSGPACK_BYTES))
        return false;
    *content = (struct json_span){head.content, head.content_bytes};
    return true;
}

/* Copies a MessagePack text to an allocated C string, and replaces NUL and invalid UTF-8 by U+FFFD. NULL for
 * other kinds and without memory. The producer reads the texts of Idefix frames and events with it. */
char *json_msgpack_text(struct msgpack value)
{
    struct msgpack_head head;

    if (!json_msgpack_head_read(value, &head) || head.kind != MSGPACK_TEXT)
        return NULL;
    char *text = malloc(head.content_bytes * strlen(UTF8_REPLACEMENT) + 1), *to = text;
    const char *at = head.content, *end = at + head.content_bytes;
    while (text != NULL && at < end) {
        size_t length = *at == '\0' ? 0 : base_utf8_length(at, end);
        to = length > 0 ? mempcpy(to, at, length) : stpcpy(to, UTF8_REPLACEMENT);
        at += length > 0 ? length : 1;
    }
    if (text != NULL)
        *to = '\0';
    return text;
}

/* Splits the first MessagePack value off `rest`; false if there is none. Runs in any process. */
static bool take_first_value(struct msgpack *rest, struct msgpack *value)
{
    if (json_msgpack_first(*rest, value, NULL) != 0)
        return false;
    rest->at += value->bytes;
    rest->bytes -= value->bytes;
    return true;
}

/* Enters a MessagePack array or map: *rest gets the bytes of its children, *values their number (a map has
 * two for each member). Returns false if the value is of another kind. Runs in any process. */
static bool open_container(struct msgpack value, enum msgpack_kind kind, struct msgpack *rest,
                           uint64_t *values)
{
    struct msgpack_head head;

    if (!json_msgpack_head_read(value, &head) || head.kind != kind)
        return false;
    *rest = (struct msgpack){value.at + head.bytes, value.bytes - head.bytes};
    *values = head.values;
    return true;
}

/* Calls on_element for each element of a MessagePack array, until one call returns nonzero, and returns
 * that; EP_EINVAL if the value is not an array. The producer reads the events of an Idefix page with it. */
int json_msgpack_each_element(struct msgpack array, int (*on_element)(struct msgpack element, void *user),
                              void *user)
{
    struct msgpack rest, element;
    uint64_t left;
    int result = 0;

    if (!open_container(array, MSGPACK_ARRAY, &rest, &left))
        return EP_EINVAL;
    for (; result == 0 && left > 0 && take_first_value(&rest, &element); left--)
        result = on_element(element, user);
    return result;
}

/* Calls on_member for each key and value of a MessagePack map, until one call returns nonzero, and returns
 * that; EP_EINVAL if the value is not a map. The producer reads an Idefix frame with it, `eventpipe import`
 * a row's marks. */
int json_msgpack_each_member(struct msgpack map,
                             int (*on_member)(struct msgpack key, struct msgpack value, void *user),
                             void *user)
{
    struct msgpack rest, key, value;
    uint64_t left;
    int result = 0;

    if (!open_container(map, MSGPACK_MAP, &rest, &left))
        return EP_EINVAL;
    for (; result == 0 && left > 0 && take_first_value(&rest, &key) && take_first_value(&rest, &value);
         left -= 2)
        result = on_member(key, value, user);
    return result;
}

struct search {
    const char *key;
    struct msgpack value;
};

/* Called for each member of a MessagePack map: keeps the value and stops the walk if the key is the one that
 * json_msgpack_find looks for. Runs in any process. */
static int on_member_compare_key(struct msgpack key, struct msgpack value, void *user)
{
    struct search *search = user;
    struct json_span text;

    if (json_msgpack_kind(key) != MSGPACK_TEXT || !json_msgpack_content(key, &text) ||
        text.bytes != strlen(search->key) || memcmp(text.at, search->key, text.bytes) != 0)
        return 0;
    search->value = value;
    return 1;
}

/* Finds the value of the first member of a MessagePack map that has this text as its key; false if there is
 * none. The producer finds the members of an Idefix event with it, `eventpipe import` those of a row. */
bool json_msgpack_find(struct msgpack map, const char *key, struct msgpack *value)
{
    struct search search = {.key = key};

    if (json_msgpack_each_member(map, on_member_compare_key, &search) != 1)
        return false;
    *value = search.value;
    return true;
}
