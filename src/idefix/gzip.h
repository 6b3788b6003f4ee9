/* SPDX-License-Identifier: MIT */
/* A frame's body, compressed with gzip (zlib). Pure. */
#ifndef IDEFIX_GZIP_H
#define IDEFIX_GZIP_H

#include <stddef.h>

#include "src/base/error.h"

/* *out is malloc'd, *out_bytes <= max_bytes. 0; EP_ENOMEM; EP_EPROTO with a message: no gzip, cut off, followed
 * by something else, or larger than max_bytes when inflated. */
int idefix_gzip_inflate(const void *body, size_t bytes, size_t max_bytes, char **out, size_t *out_bytes,
                        struct error *error);
/* *out is malloc'd and shorter than the body; NULL where compressing does not make it so. 0 or EP_ENOMEM. */
int idefix_gzip_deflate(const void *body, size_t bytes, char **out, size_t *out_bytes);

#endif
