/* SPDX-License-Identifier: MIT */
/* A name for bytes: the first hex digits of their SHA-256 (libmd). */
#ifndef DIGEST_H
#define DIGEST_H

#include <stddef.h>

#define DIGEST_UID_DIGITS 32 /* of a hash that serves as uid */

#define DIGEST_DIGITS_MAX 64

/* hex: digits + 1 bytes, NUL-terminated; digits <= DIGEST_DIGITS_MAX. */
void digest_hex(const void *data, size_t bytes, char *hex, size_t digits);

#endif
