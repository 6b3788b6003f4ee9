/* SPDX-License-Identifier: MIT */
/* Errors: a negative EP_ code (eventpipe.h) and a message that says what happened, where, and what was
 * expected. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdarg.h>

#include "src/eventpipe.h"

struct error {
    int code; /* 0 or a negative enum ep_code */
    char message[1024];
};

/* Sets code and message (error may be NULL) and returns code, so that a function can end with
 * `return base_error_set(...)`. */
int base_error_set(struct error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts "PREFIX: " before the message and returns the code. */
int base_error_prefix(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
