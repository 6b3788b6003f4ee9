/* SPDX-License-Identifier: MIT */
/* For tests of MessagePack: bytes written as hex, and what becomes of them. */
#ifndef TESTS_LIB_MSGPACK_FIXTURE_H
#define TESTS_LIB_MSGPACK_FIXTURE_H

#include "src/json/msgpack.h"
#include "tests/lib/unit.h"

/* Exactly as many bytes as there are: a tool that watches memory sees the first byte read behind them. */
struct msgpack msgpack_unhex(const char *hex);
void msgpack_unhex_free(struct msgpack bytes);

/* Prints both unless they are the same. */
void msgpack_show_difference(const char *what, const char *is, const char *expected);

/* The bytes are one value, which is written as this JSON. */
void msgpack_expect_json(const char *hex, const char *expected);

/* json_msgpack_find_first finds its end, json_msgpack_convert_to_json says why it cannot be written. */
void msgpack_expect_refused(const char *hex, const char *message);

#endif
