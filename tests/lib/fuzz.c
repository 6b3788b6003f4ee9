/* SPDX-License-Identifier: MIT */
/* What fuzz targets check of messages. */
#include "tests/lib/fuzz.h"

void fuzz_check_message(const char *message)
{
    size_t bytes = strlen(message);

    PROMISE(bytes > 0 && base_utf8_valid(message, bytes));
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)message[i];
        PROMISE(byte >= 0x20 && byte != 0x7f);
        PROMISE(byte != 0xc2 || (unsigned char)message[i + 1] >= 0xa0); /* U+0080 to U+009F */
    }
}
