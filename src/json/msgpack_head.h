/* SPDX-License-Identifier: MIT */
/* What msgpack.c and msgpack_json.c share: the first bytes of a MessagePack value. For these two only. */
#ifndef JSON_MSGPACK_HEAD_H
#define JSON_MSGPACK_HEAD_H

#include "src/json/msgpack.h"

#define MSGPACK_UNUSED 0xC1

struct msgpack_head {
    enum msgpack_kind kind;
    size_t bytes;        /* all that stands before the children: format byte, length, content */
    const char *content; /* of text, bytes, extension, integer and float: the last content_bytes of `bytes` */
    size_t content_bytes; /* of an integer or float written as such: 1, 2, 4 or 8; 0 = it is in the format
                             byte */
    uint64_t
        values; /* that follow: an array's elements, a map's keys and values; not checked against the bytes */
    unsigned char format;
    signed char extension; /* its type */
};

/* False: the text ends before the head does. */
bool json_msgpack_head_read(struct msgpack text, struct msgpack_head *head);
/* Of an integer: its 64 bits; *negative = they are two's complement. */
uint64_t json_msgpack_head_integer(const struct msgpack_head *head, bool *negative);
/* size bytes (1 to 8), the highest first */
uint64_t json_msgpack_big_endian(const char *at, size_t size);

#endif
