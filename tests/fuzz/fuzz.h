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

/* Words go to terminals and logs: there are some, they are text, and no control character is among them. */
static inline void check_words(const char *words)
{
    size_t bytes = strlen(words);

    PROMISE(bytes > 0 && utf8_valid(words, bytes));
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)words[i];
        PROMISE(byte >= 0x20 && byte != 0x7f);
        PROMISE(byte != 0xc2 || (unsigned char)words[i + 1] >= 0xa0); /* U+0080 to U+009F */
    }
}

#endif
