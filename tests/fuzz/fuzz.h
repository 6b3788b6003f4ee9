/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz targets share. Each is a libFuzzer program when built by `make fuzz`, and with standalone.c
 * one that runs files and mutations of them; corpus.py writes inputs to begin with.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define PROMISE(condition)                                                                  \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                        \
        }                                                                                   \
    } while (0)

/* Messages go to terminals and logs: a message is not empty, it is text, and it has no control character. */
static inline void check_message(const char *message)
{
    size_t bytes = strlen(message);

    PROMISE(bytes > 0 && base_utf8_valid(message, bytes));
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)message[i];
        PROMISE(byte >= 0x20 && byte != 0x7f);
        PROMISE(byte != 0xc2 || (unsigned char)message[i + 1] >= 0xa0); /* U+0080 to U+009F */
    }
}

#endif
