/* SPDX-License-Identifier: MIT */
/* SHA-256 in hex, by libmd. Pure: any process, any thread. */
#include "src/base/hash.h"

#include <assert.h>
#include <sha2.h>
#include <string.h>

void base_hash_hex(const void *data, size_t bytes, char *hex, size_t digits)
{
    char all[SHA256_DIGEST_STRING_LENGTH];

    assert(digits <= HASH_DIGITS_MAX);
    SHA256Data(data, bytes, all);
    memcpy(hex, all, digits);
    hex[digits] = '\0';
}
