/* SPDX-License-Identifier: MIT */
/*
 * Reads MessagePack in place: finds values in the bytes that arrived, and writes them as JSON text
 * without a detour through doubles. msgpack_write.h is the reverse.
 *
 * The input is untrusted. No length in it decides how much memory is allocated, and no depth in it
 * decides how deep the code recurses. (msgpack-c was no choice: it allocates what an array's head claims
 * before it has seen one element, knows no values nested deeper than 32, and cannot say which bytes a
 * value that it refuses took.)
 */
#ifndef JSON_MSGPACK_H
#define JSON_MSGPACK_H

#include "src/base/error.h"
#include "src/json/json.h"

struct msgpack {
    const char *at; /* borrowed from the bytes it was found in */
    size_t bytes;
};

enum msgpack_kind {
    MSGPACK_NIL,
    MSGPACK_BOOL,
    MSGPACK_INTEGER, /* of 64 bits, signed or unsigned */
    MSGPACK_FLOAT,
    MSGPACK_TEXT,
    MSGPACK_BYTES,
    MSGPACK_ARRAY,
    MSGPACK_MAP,
    MSGPACK_EXTENSION
};

/*
 * Finds the value that the bytes begin with; value->bytes is its length. All lengths and counts in it,
 * at any depth, are checked against the bytes that are there. 0, or EP_EPROTO with a message that names
 * the byte.
 */
int json_msgpack_find_first(struct msgpack input, struct msgpack *value, struct error *error);

/* The following functions take a value that json_msgpack_find_first, or one of them, found. */
enum msgpack_kind json_msgpack_kind(struct msgpack value);
bool json_msgpack_bool(struct msgpack value); /* of a MSGPACK_BOOL */
/* The content of MSGPACK_TEXT and MSGPACK_BYTES; false for other kinds. Text need not be UTF-8. */
bool json_msgpack_find_content(struct msgpack value, struct json_span *content);
/* Returns text as an allocated C string; a NUL and each byte that is not UTF-8 become U+FFFD. NULL for
 * other kinds and if out of memory. */
char *json_msgpack_copy_text(struct msgpack value);
/* As json_each_element and json_each_member. */
int json_msgpack_each_element(struct msgpack array, int (*on_element)(struct msgpack element, void *user),
                              void *user);
int json_msgpack_each_member(struct msgpack map,
                             int (*on_member)(struct msgpack key, struct msgpack value, void *user),
                             void *user);
/* Finds the first member whose key is this text; false if there is none, or the value is not a map. */
bool json_msgpack_find(struct msgpack map, const char *key, struct msgpack *value);

/*
 * Appends the value as JSON text:
 *   integers    all their digits
 *   floats      the shortest digits that read back the same, with a '.' or an exponent; "NaN", "Infinity"
 *               and "-Infinity" as strings, since JSON has no numbers for them
 *   bytes       base64; as a member's value, the member's key gets the suffix ":b64"
 *   text        a string. Text that is not UTF-8 becomes, as a member's value, base64 under a key with the
 *               suffix ":string:b64"; in an array, each byte that is not UTF-8 becomes U+FFFD
 *   timestamps  (extension -1, 4, 8 or 12 bytes) an RFC 3339 string in UTC, with as many digits of a second
 *               as needed; years 0000 to 9999
 *   keys        text; integers in decimal; no other kind
 * Returns 0, EP_ENOMEM, or EP_EPROTO with a message that says what is wrong: nested deeper than
 * JSON_DEPTH_MAX, another extension, a key of another kind, a timestamp out of range. What was appended
 * before a failure stays.
 */
int json_msgpack_convert_to_json(struct msgpack value, struct text *out, struct error *error);

#endif
