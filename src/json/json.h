/* SPDX-License-Identifier: MIT */
/*
 * JSON as text: finds and hands on the very bytes that came, since cJSON keeps numbers as doubles and 64-bit
 * integers must survive. cJSON parses; this walks the text beside it. Nothing here recurses deeper than
 * JSON_DEPTH_MAX.
 */
#ifndef JSON_JSON_H
#define JSON_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 200

struct json_span {
    const char *at; /* borrowed from the text it was found in */
    size_t bytes;
};

/* Whether the text is one JSON value and nothing else but white space; *at_byte tells where it is not (may be
 * NULL). */
bool json_valid(const char *text, size_t bytes, size_t *at_byte);
/* The value a JSON pointer (RFC 6901; "" = the whole) leads to in valid text; false when there is none. */
bool json_find(struct json_span text, const char *pointer, struct json_span *out);
/* Calls see for each element of an array / member of an object, in order; see returns 0 to go on. -1: not of
 * that kind; otherwise what the last call of see returned. A key is the string with its quotes: json_text
 * decodes it. */
int json_each_element(struct json_span array, int (*on_element)(struct json_span element, void *user),
                      void *user);
int json_each_member(struct json_span object,
                     int (*on_member)(struct json_span key, struct json_span value, void *user), void *user);
char json_kind(struct json_span value); /* '{' '[' '"' '0' (number) 't' 'f' 'n' */
/* A string's or number's text, decoded, malloc'd: how uid, type, cursor... are taken out. NULL for other
 * kinds. A NUL in a string becomes U+FFFD. */
char *json_text(struct json_span value);
/* As json_text, but a NUL in a string stays one; *bytes is the text's length, and a NUL follows it. */
char *json_text_exact(struct json_span value, size_t *bytes);
/* Whole number exactly, false when it is not one or does not fit. */
bool json_int64(struct json_span value, int64_t *out);

/* A growing text. All functions return 0 or EP_ENOMEM and may be chained; the first failure sticks. Free with
 * json_write_free. */
struct json_out {
    char *text; /* always NUL-terminated once something was added */
    size_t bytes, room;
    bool failed;
};
void json_write_raw(struct json_out *out, const char *text, size_t bytes);
void json_write_text(struct json_out *out, const char *text); /* as raw, NUL-terminated */
void json_write_string(struct json_out *out, const char *text,
                       size_t bytes); /* quoted, escaped; invalid UTF-8 -> U+FFFD */
void json_write_base64(struct json_out *out, const void *data, size_t bytes); /* quoted */
void json_write_uint(struct json_out *out, uint64_t value);
void json_write_int(struct json_out *out, int64_t value);
/* A member of an object, its name written as it is: begins with a comma unless it is the first. _key writes
 * the name alone; the value is to follow. */
void json_write_key(struct json_out *out, const char *name);
void json_write_member_uint(struct json_out *out, const char *name, uint64_t value);
void json_write_member_text(struct json_out *out, const char *name, const char *text); /* NULL: null */
/* A value on one line: white space between tokens that holds line breaks is dropped, all else is kept byte
 * for byte. */
void json_write_line(struct json_out *out, struct json_span value);
void json_write_reset(struct json_out *out);
void json_write_free(struct json_out *out);

#endif
