/* SPDX-License-Identifier: MIT */
/* SHA-256 in hex, by libmd. Pure: any process, any thread. */
#include "src/base/hash.h"

#include <assert.h>
#include <sha2.h>
#include <string.h>

/* Writes the first `digit_count` hex digits of the SHA-256 of some bytes, and a NUL. Sources, `eventpipe
 * import` and `eventpipe inject` use it as the UID of an event that has none of its own; the file
 * source recognises a rotated file with it. */
void base_hash_write_hex(const void *data, size_t data_bytes, char *hex, size_t digit_count)
{
    char all_digits[SHA256_DIGEST_STRING_LENGTH];

    assert(digit_count <= HASH_DIGITS_MAX);
    SHA256Data(data, data_bytes, all_digits);
    memcpy(hex, all_digits, digit_count);
    hex[digit_count] = '\0';
}
