/* SPDX-License-Identifier: MIT */
/* A name for bytes: the first hex digits of their SHA-256 (libmd). */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>

#define HASH_UID_DIGITS 32 /* of a hash that serves as uid */

#define HASH_DIGITS_MAX 64

/* hex: digits + 1 bytes, NUL-terminated; digits <= HASH_DIGITS_MAX. */
void base_hash_hex(const void *data, size_t bytes, char *hex, size_t digits);

#endif
