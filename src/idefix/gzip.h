/* SPDX-License-Identifier: MIT */
/* Compresses and inflates a frame's body (gzip). Pure. */
#ifndef IDEFIX_GZIP_H
#define IDEFIX_GZIP_H

#include <stddef.h>

#include "src/base/error.h"

/* Inflates at most max_bytes into *out, which the caller frees. 0, EP_ENOMEM, or EP_EPROTO with a
 * message: not gzip, cut off, followed by something else, or too large. */
int idefix_gzip_inflate(const void *body, size_t body_bytes, size_t max_bytes, char **out, size_t *out_bytes,
                        struct error *error);
/* Compresses into *out, which the caller frees; *out is NULL if the result would not be smaller. 0 or
 * EP_ENOMEM. */
int idefix_gzip_deflate(const void *body, size_t body_bytes, char **out, size_t *out_bytes);

#endif
