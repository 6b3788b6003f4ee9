/* SPDX-License-Identifier: MIT */
/*
 * Error words. Any process, any layer above shm/. Owns nothing: the caller's struct error takes the words,
 * cut to fit.
 */
#include "src/base/error.h"

#include <stdio.h>
#include <string.h>

#include "src/base/utf8.h"

int error_set(struct error *error, int code, const char *format, ...)
{
    if (error == NULL)
        return code;
    char words[sizeof error->words]; /* apart first: an argument may be error->words itself */
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(words, sizeof words, format, arguments) >= (int)sizeof words)
        utf8_cut(words);
    va_end(arguments);
    error->code = code;
    memcpy(error->words, words, strlen(words) + 1);
    return code;
}

int error_prefix(struct error *error, const char *format, ...)
{
    if (error == NULL)
        return 0;
    char words[sizeof error->words];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    if (length < 0)
        return error->code;
    size_t used = strlen(words);
    int room = (int)(sizeof words - used) - 3; /* for ": " and the end */
    if (room > 0)
        snprintf(words + used, sizeof words - used, ": %.*s", room, error->words);
    memcpy(error->words, words, strlen(words) + 1);
    return error->code;
}
