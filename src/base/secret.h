/* SPDX-License-Identifier: MIT */
/* Reads secrets from files. */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include "src/base/error.h"

/* Reads the first line of a file that only its owner (us or root) can use. The caller wipes and frees *out.
 * EP_EACCESS with a message if it cannot or must not be read, EP_ENOMEM. */
int base_secret_read(const char *path, char **out, struct error *error);

#endif
