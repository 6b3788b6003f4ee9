/* SPDX-License-Identifier: MIT */
/* SHA-256 in hex, by libmd. Pure: any process, any thread. */
#include "src/base/hash.h"

#include <assert.h>
#include <sha2.h>
#include <string.h>

/* Writes the first hex digits of the SHA-256 of some bytes. Sources and imports use it as the UID of an
 * event that has no UID of its own, the file source to recognise a rotated file. Any process. */
void base_hash_hex(const void *data, size_t bytes, char *hex, size_t digits)
{
    char all[SHA256_DIGEST_STRING_LENGTH];

    assert(digits <= HASH_DIGITS_MAX);
    SHA256Data(data, bytes, all);
    memcpy(hex, all, digits);
    hex[digits] = '\0';
}
