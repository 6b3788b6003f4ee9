/* SPDX-License-Identifier: MIT */
/* The head of a MessagePack value: its first bytes. Shared by msgpack.c and msgpack_json.c only. Pure. */
#ifndef JSON_MSGPACK_HEAD_H
#define JSON_MSGPACK_HEAD_H

#include "src/json/msgpack.h"

#define MSGPACK_UNUSED 0xC1

struct msgpack_head {
    enum msgpack_kind kind;
    size_t bytes;        /* all before the children: format byte, length, content */
    const char *content; /* of text, bytes, extension, integer and float: the last content_bytes of `bytes` */
    size_t content_bytes; /* of an integer or float written as such: 1, 2, 4 or 8; 0 = it is in the format
                             byte */
    uint64_t child_count; /* an array's elements, or a map's keys and values; not checked against the
                             bytes that are left */
    unsigned char format;
    signed char extension; /* its type */
};

/* False if the input ends within the head or its content. */
bool json_msgpack_head_read(struct msgpack input, struct msgpack_head *head);
/* Returns an integer's 64 bits; *is_negative: read them as two's complement. */
uint64_t json_msgpack_head_read_integer(const struct msgpack_head *head, bool *is_negative);
/* Reads size bytes (1 to 8), the highest first. */
uint64_t json_msgpack_read_big_endian(const char *first_byte, size_t number_bytes);

#endif
