/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz targets share. Each is a libFuzzer program when built by `make fuzz`, and with standalone.c
 * one that runs files and mutations of them; corpus.py writes inputs to begin with.
 */
#ifndef TESTS_LIB_FUZZ_H
#define TESTS_LIB_FUZZ_H

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
void fuzz_check_message(const char *message);

#endif
