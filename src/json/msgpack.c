/* SPDX-License-Identifier: MIT */
/*
 * Reads MessagePack in place. Pure: any process, any thread, no state; only json_msgpack_copy_text allocates.
 *
 * Invariants
 *  1. Nothing outside the span is read, whatever it contains. So a span that json_msgpack_find_first never
 *     checked does no harm.
 *  2. Nothing recurses. To find the end of a value it is enough to count the values that must still
 *     follow. Each takes at least one byte, so a count above the number of remaining bytes is refused at
 *     once. The work is bounded by the bytes that arrived, never by what they claim.
 *  3. If a map has two members with the same key, the first counts, as in json.c.
 *
 * 0xC1, which MessagePack leaves unused, is read as a value of one byte. An event that contains it is
 * unreadable (json_msgpack_convert_to_json reports it), but the end of the event, and so the next one, is
 * still found.
 */
#include "src/json/msgpack.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"
#include "src/json/msgpack_head.h"

/* Returns the unsigned number in `number_bytes` bytes (0 to 8), highest byte first, as MessagePack stores
 * lengths and numbers. The caller makes sure that the bytes are there. */
uint64_t json_msgpack_read_big_endian(const char *first_byte, size_t number_bytes)
{
    uint64_t number = 0;

    for (size_t i = 0; i < number_bytes; i++)
        number = number << 8 | (unsigned char)first_byte[i];
    return number;
}

/* What follows the format bytes from 0xC0 to 0xDF. */
struct layout {
    unsigned char kind;
    unsigned char length_bytes; /* of the length or count that follows; 0 = none */
    unsigned char fixed_bytes;  /* of content that is always there, added to the length */
};

#define LAYOUT_FIRST 0xC0
#define LAYOUT_END 0xE0 /* from here on, small negative integers */
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
static_assert(sizeof layouts / sizeof layouts[0] == LAYOUT_END - LAYOUT_FIRST,
              "one layout for each of 0xC0 to 0xDF");

/* Decodes a MessagePack format byte that holds a small integer, length or count in its own bits. For a
 * text, *content_bytes becomes its length. json_msgpack_head_read calls it for all formats that have no
 * layout in the table. */
static void read_short_format(unsigned char format, struct msgpack_head *head, uint64_t *content_bytes)
{
    if (format < 0x80 || format >= LAYOUT_END) {
        head->kind = MSGPACK_INTEGER;
    } else if (format < 0x90) {
        head->kind = MSGPACK_MAP;
        head->child_count = 2 * (uint64_t)(format & 0x0F);
    } else if (format < 0xA0) {
        head->kind = MSGPACK_ARRAY;
        head->child_count = format & 0x0F;
    } else {
        head->kind = MSGPACK_TEXT;
        *content_bytes = format & 0x1F;
    }
}

/* Decodes the first bytes of a MessagePack value: its kind, where its content lies, and how many values
 * follow inside it. Returns false if the input ends within these bytes or within the content. The
 * MessagePack reader and the conversion to JSON begin each value with it. */
bool json_msgpack_head_read(struct msgpack input, struct msgpack_head *head)
{
    uint64_t content_bytes = 0, length = 0;
    size_t prefix_bytes = 1; /* the format byte and the length */

    if (input.bytes == 0)
        return false;
    unsigned char format = (unsigned char)input.at[0];
    *head = (struct msgpack_head){.format = format};
    if (format < LAYOUT_FIRST || format >= LAYOUT_END) {
        read_short_format(format, head, &content_bytes);
    } else {
        const struct layout *layout = &layouts[format - LAYOUT_FIRST];
        prefix_bytes += layout->length_bytes;
        if (input.bytes < prefix_bytes)
            return false;
        length = json_msgpack_read_big_endian(input.at + 1, layout->length_bytes);
        head->kind = (enum msgpack_kind)layout->kind;
        content_bytes = layout->fixed_bytes;
        if (head->kind == MSGPACK_ARRAY || head->kind == MSGPACK_MAP)
            head->child_count = head->kind == MSGPACK_MAP ? 2 * length : length;
        else
            content_bytes += length;
    }
    if (content_bytes > input.bytes - prefix_bytes)
        return false;
    head->content = input.at + prefix_bytes;
    head->content_bytes = (size_t)content_bytes;
    head->bytes = prefix_bytes + (size_t)content_bytes;
    if (head->kind == MSGPACK_EXTENSION && content_bytes > 0) { /* its first byte is its type */
        head->extension = (signed char)head->content[0];
        head->content++;
        head->content_bytes--;
    }
    return true;
}

/* Returns the 64 bits of a MessagePack integer; if *is_negative becomes true, they are two's complement.
 * The conversion to JSON writes numbers and the keys of maps with it. */
uint64_t json_msgpack_head_read_integer(const struct msgpack_head *head, bool *is_negative)
{
    size_t bit_count = 8 * head->content_bytes;
    uint64_t number = json_msgpack_read_big_endian(head->content, head->content_bytes);

    if (bit_count == 0)
        number = (uint64_t)(int64_t)(signed char)head->format;
    else if (head->format >= 0xD0 && bit_count < 64 && number >> (bit_count - 1) != 0)
        number |= UINT64_MAX << bit_count;
    /* 0xCC to 0xCF are unsigned: their highest bit is no sign */
    *is_negative = (bit_count == 0 || head->format >= 0xD0) && number >> 63 != 0;
    return number;
}

/* Finds where the first MessagePack value of the input ends, and checks all lengths in it against the
 * bytes that are there. Returns 0, or EP_EPROTO with a message. The producer calls it first for each
 * untrusted frame (message) from Idefix, `eventpipe import` for each row of a database. */
int json_msgpack_find_first(struct msgpack input, struct msgpack *value, struct error *error)
{
    size_t offset = 0;
    uint64_t pending = 1; /* values that must still follow; never more than bytes remain */

    while (pending > 0) {
        struct msgpack_head head;
        if (!json_msgpack_head_read((struct msgpack){input.at + offset, input.bytes - offset}, &head))
            return base_error_set(error, EP_EPROTO, "MessagePack ends within the value at byte %zu of %zu",
                                  offset, input.bytes);
        pending--;
        size_t bytes_left = input.bytes - offset - head.bytes;
        if (head.child_count > bytes_left || pending > bytes_left - head.child_count) {
            unsigned long long announced_count = pending + head.child_count;
            return base_error_set(
                error, EP_EPROTO,
                "MessagePack announces %llu values at byte %zu, more than the bytes that are left (%zu)",
                announced_count, offset, bytes_left);
        }
        pending += head.child_count;
        offset += head.bytes;
    }
    *value = (struct msgpack){input.at, offset};
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

/* Finds the bytes of a MessagePack text or byte string without copying them. Returns false for other
 * kinds. The producer reads frames and events from Idefix with it, `eventpipe import` the rows of a
 * database. */
bool json_msgpack_find_content(struct msgpack value, struct json_span *content)
{
    struct msgpack_head head;

    if (!json_msgpack_head_read(value, &head) || (head.kind != MSGPACK_TEXT && head.kind != MSGPACK_BYTES))
        return false;
    *content = (struct json_span){head.content, head.content_bytes};
    return true;
}

/* Copies a MessagePack text to a C string, with U+FFFD for each NUL and each byte that is not UTF-8.
 * Returns NULL for other kinds or if out of memory; the caller frees the copy. The producer reads the texts
 * in Idefix frames and events with it. */
char *json_msgpack_copy_text(struct msgpack value)
{
    struct msgpack_head head;

    if (!json_msgpack_head_read(value, &head) || head.kind != MSGPACK_TEXT)
        return NULL;
    char *text = malloc(head.content_bytes * strlen(UTF8_REPLACEMENT) + 1), *out = text;
    const char *position = head.content, *text_end = position + head.content_bytes;
    while (text != NULL && position < text_end) {
        size_t length = *position == '\0' ? 0 : base_utf8_length(position, text_end);
        out = length > 0 ? mempcpy(out, position, length) : stpcpy(out, UTF8_REPLACEMENT);
        position += length > 0 ? length : 1;
    }
    if (text != NULL)
        *out = '\0';
    return text;
}

/* Removes the first MessagePack value from the bytes in *rest and returns it in *value. Returns false if
 * *rest does not begin with a complete value. The loops over arrays and maps use it. */
static bool split_off_first_value(struct msgpack *rest, struct msgpack *value)
{
    if (json_msgpack_find_first(*rest, value, NULL) != 0)
        return false;
    rest->at += value->bytes;
    rest->bytes -= value->bytes;
    return true;
}

/* Prepares to read the children of a MessagePack array or map: *rest becomes the bytes of the children,
 * *child_count their number (two for each member of a map). Returns false if the value is of another
 * kind. */
static bool open_container(struct msgpack value, enum msgpack_kind kind, struct msgpack *rest,
                           uint64_t *child_count)
{
    struct msgpack_head head;

    if (!json_msgpack_head_read(value, &head) || head.kind != kind)
        return false;
    *rest = (struct msgpack){value.at + head.bytes, value.bytes - head.bytes};
    *child_count = head.child_count;
    return true;
}

/* Calls on_element for each element of a MessagePack array until a call returns nonzero. Returns what the
 * last call returned, 0 for an empty array, EP_EINVAL if the value is no array. The producer reads the
 * events of an Idefix page with it. */
int json_msgpack_each_element(struct msgpack array, int (*on_element)(struct msgpack element, void *user),
                              void *user)
{
    struct msgpack rest, element;
    uint64_t children_left;
    int result = 0;

    if (!open_container(array, MSGPACK_ARRAY, &rest, &children_left))
        return EP_EINVAL;
    for (; result == 0 && children_left > 0 && split_off_first_value(&rest, &element); children_left--)
        result = on_element(element, user);
    return result;
}

/* Calls on_member for each key and value of a MessagePack map until a call returns nonzero. Returns what
 * the last call returned, 0 for an empty map, EP_EINVAL if the value is no map. The producer reads an
 * Idefix frame (message) with it, `eventpipe import` the marks of a row. */
int json_msgpack_each_member(struct msgpack map,
                             int (*on_member)(struct msgpack key, struct msgpack value, void *user),
                             void *user)
{
    struct msgpack rest, key, value;
    uint64_t children_left;
    int result = 0;

    if (!open_container(map, MSGPACK_MAP, &rest, &children_left))
        return EP_EINVAL;
    for (; result == 0 && children_left > 0 && split_off_first_value(&rest, &key) &&
           split_off_first_value(&rest, &value);
         children_left -= 2)
        result = on_member(key, value, user);
    return result;
}

struct key_search {
    const char *key;
    struct msgpack value;
};

/* Keeps the value of a MessagePack map's member and returns 1, which ends the search, if its key is the
 * one that json_msgpack_find looks for. Otherwise returns 0. */
static int on_member_compare_key(struct msgpack key, struct msgpack value, void *user)
{
    struct key_search *search = user;
    struct json_span text;

    if (json_msgpack_kind(key) != MSGPACK_TEXT || !json_msgpack_find_content(key, &text) ||
        text.bytes != strlen(search->key) || memcmp(text.at, search->key, text.bytes) != 0)
        return 0;
    search->value = value;
    return 1;
}

/* Finds the value of the first member of a MessagePack map that has this text as its key. Returns false if
 * there is none or the value is no map. The producer finds the members of an Idefix event with it,
 * `eventpipe import` those of a row. */
bool json_msgpack_find(struct msgpack map, const char *key, struct msgpack *value)
{
    struct key_search search = {.key = key};

    if (json_msgpack_each_member(map, on_member_compare_key, &search) != 1)
        return false;
    *value = search.value;
    return true;
}
