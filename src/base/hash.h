/* SPDX-License-Identifier: MIT */
/* Names bytes by the first hex digits of their SHA-256. Pure. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>

#define HASH_UID_DIGITS 32 /* for events that have no usable uid of their own */

#define HASH_DIGITS_MAX 64

/* Writes `digits` hex digits (at most HASH_DIGITS_MAX) and a NUL into hex. */
void base_hash_write_hex(const void *data, size_t data_bytes, char *hex, size_t digit_count);

#endif
