/* SPDX-License-Identifier: MIT */
/*
 * Writes error messages. Every layer above shm/ returns its errors this way, in any process and any thread.
 * Owns nothing: the message is in the caller's struct error. A message that does not fit is cut between two
 * characters.
 */
#include "src/base/error.h"

#include <stdio.h>
#include <string.h>

#include "src/base/utf8.h"

/* Stores an error code and a message in the caller's struct error and returns the code. Every process, the
 * command line and the library report their errors this way. The arguments may include the old message, so
 * the new one is formatted into a copy first. */
int base_error_set(struct error *error, int code, const char *format, ...)
{
    if (error == NULL)
        return code;
    char message[sizeof error->message]; /* apart first: an argument may be error->message itself */
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(message, sizeof message, format, arguments) >= (int)sizeof message)
        base_utf8_cut(message);
    va_end(arguments);
    error->code = code;
    memcpy(error->message, message, strlen(message) + 1);
    return code;
}

/* Puts "PREFIX: " before the message of an error and returns its code. Any process calls it to say where
 * the error happened, for example which source or which line of an import. */
int base_error_prefix(struct error *error, const char *format, ...)
{
    if (error == NULL)
        return 0;
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0)
        return error->code;
    size_t used = strlen(message);
    int room = (int)(sizeof message - used) - 3; /* without ": " and the NUL */
    if (room > 0 && snprintf(message + used, sizeof message - used, ": %s", error->message) > room + 2)
        base_utf8_cut(message);
    memcpy(error->message, message, strlen(message) + 1);
    return error->code;
}
