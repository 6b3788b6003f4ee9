/* SPDX-License-Identifier: MIT */
/*
 * JSON as text: validates it, finds values in it, and writes it. The bytes that arrived are passed on as
 * they are, because cJSON keeps numbers as doubles and 64-bit integers must survive. Nothing here
 * recurses.
 */
#ifndef JSON_JSON_H
#define JSON_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/text.h"

#define JSON_DEPTH_MAX 200

struct json_span {
    const char *at; /* borrowed from the text it was found in */
    size_t bytes;
};

/* Whether the text is exactly one JSON value with optional white space around it. If not, *error_offset
 * (which may be NULL) is the offset of the first wrong byte. */
bool json_valid(const char *text, size_t text_bytes, size_t *error_offset);
/* Finds the value that a JSON pointer (RFC 6901; "" = the whole) names in valid text; false if there is
 * none. */
bool json_find(struct json_span text, const char *pointer, struct json_span *out);
/* Call on_element or on_member for each element of an array or member of an object, in order, as long as
 * it returns 0. Return what the last call returned, or EP_EINVAL if the value is not of that kind. A key is
 * the string with its quotes; json_text decodes it. */
int json_each_element(struct json_span array, int (*on_element)(struct json_span element, void *user),
                      void *user);
int json_each_member(struct json_span object,
                     int (*on_member)(struct json_span key, struct json_span value, void *user), void *user);
char json_kind(struct json_span value); /* '{' '[' '"' '0' (number) 't' 'f' 'n' */
/* Returns the decoded text of a string, or the digits of a number, allocated; NULL for other kinds and if
 * out of memory. A NUL in a string becomes U+FFFD. */
char *json_text(struct json_span value);
/* As json_text, but a NUL in a string stays. *bytes is the length without the NUL at the end. */
char *json_text_exact(struct json_span value, size_t *text_bytes);
/* Reads a whole number exactly; false if it is not whole or does not fit. */
bool json_int64(struct json_span value, int64_t *out);

/* Append JSON to a growing text. They may be chained, see base/text.h. */
void json_write_string(struct text *out, const char *text,
                       size_t text_bytes); /* quoted and escaped; a byte that is not UTF-8 becomes U+FFFD */
void json_write_base64(struct text *out, const void *data, size_t data_bytes); /* quoted */
void json_write_uint(struct text *out, uint64_t value);
void json_write_int(struct text *out, int64_t value);
/* Write a member of an object, with a comma unless it is the first; the name must need no escapes. _key
 * writes the name alone, and the caller writes the value next. */
void json_write_key(struct text *out, const char *name);
void json_write_member_uint(struct text *out, const char *name, uint64_t value);
void json_write_member_text(struct text *out, const char *name, const char *text); /* NULL: null */
/* Writes a value on one line: white space between tokens is dropped if it contains a line break;
 * everything else is copied byte for byte. */
void json_write_on_one_line(struct text *out, struct json_span value);

#endif
