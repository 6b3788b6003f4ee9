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

/* Stores an error code and a message in the caller's struct error (NULL = nowhere) and returns the
 * code. Every process, the command line and the library report their errors with it. The arguments may
 * include the old message, so the new one is formatted into a copy first. */
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

/* Puts "PREFIX: " before the message of an error, to say where it happened (for example in which
 * source, or at which line of an import). Returns the error's code; 0 if error is NULL. A message that
 * does not fit is cut at its end. */
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
    size_t prefix_bytes = strlen(message);
    int room_bytes = (int)(sizeof message - prefix_bytes) - 3; /* without ": " and the NUL */
    if (room_bytes > 0 && snprintf(message + prefix_bytes, sizeof message - prefix_bytes, ": %s",
                                   error->message) > room_bytes + 2)
        base_utf8_cut(message);
    memcpy(error->message, message, strlen(message) + 1);
    return error->code;
}
