/* SPDX-License-Identifier: MIT */
/*
 * MessagePack, read in place: finds and hands on the very bytes that came, and writes them as JSON text
 * without a detour through doubles. Untrusted input: nothing is allocated by what a length claims, nothing
 * recurses with the input's depth. (msgpack-c builds a tree of objects first: it allocates what an array's
 * header claims before it has seen one element, knows no values nested deeper than 32, and cannot say which
 * bytes a value that it refuses took. It packs what we send: json_pack.h.)
 */
#ifndef PACKED_H
#define PACKED_H

#include "src/base/error.h"
#include "src/json/json.h"

struct packed {
    const char *at; /* borrowed from the bytes it was found in */
    size_t bytes;
};

enum packed_kind {
    PACKED_NIL,
    PACKED_BOOL,
    PACKED_INTEGER, /* of 64 bits, signed or unsigned */
    PACKED_FLOAT,
    PACKED_TEXT,
    PACKED_BYTES,
    PACKED_ARRAY,
    PACKED_MAP,
    PACKED_EXTENSION
};

/*
 * The value that the bytes begin with: value->bytes is how many it takes. All lengths and counts in it are
 * checked against the bytes that are there, at any depth. 0, or EP_EGARBAGE with words that name the byte.
 */
int packed_first(struct packed text, struct packed *value, struct error *error);

/* The following take a value that packed_first, or one of them, gave. */
enum packed_kind packed_kind(struct packed value);
bool packed_bool(struct packed value); /* of a PACKED_BOOL */
/* Of PACKED_TEXT and PACKED_BYTES: what it holds; false for other kinds. Text need not be UTF-8. */
bool packed_content(struct packed value, struct json_span *content);
/* Text as a C string, malloc'd: what is no UTF-8, and NUL, becomes U+FFFD. NULL for other kinds and out of
 * memory. */
char *packed_text(struct packed value);
/* As json_each_element and json_each_member. */
int packed_each_element(struct packed array, int (*see)(struct packed element, void *user), void *user);
int packed_each_member(struct packed map, int (*see)(struct packed key, struct packed value, void *user),
                       void *user);
/* The first member whose key is this text; false when there is none, or it is no map. */
bool packed_find(struct packed map, const char *key, struct packed *value);

/*
 * Appends the value as JSON text.
 *   integers     all their digits                     floats   the shortest digits that read back the same,
 * with a '.' or exponent; NaN and infinities as "NaN", "Infinity", "-Infinity" (JSON has no numbers for them)
 *   bytes        base64; as the value of a map's member its key gets the suffix ":b64"
 *   text         a string; text that is no UTF-8, as a member's value: key:string:b64 and base64 of its
 * bytes; in a list U+FFFD stands for what is no UTF-8 timestamps   (extension -1, 4, 8 or 12 bytes) an RFC
 * 3339 string in UTC, with as many digits of a second as needed; years 0000 to 9999 keys         text;
 * integers in decimal; nothing else 0, EP_ENOMEM, or EP_EGARBAGE with words that say what stands in the way:
 * nested deeper than JSON_DEPTH_MAX, another extension, a key of another kind, a timestamp out of range. What
 * was appended before a failure stays.
 */
int packed_json(struct packed value, struct json_out *out, struct error *error);

#endif
