/* SPDX-License-Identifier: MIT */
/* Secrets that are read from files. */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include "src/base/error.h"

/* Reads a secret: first line of a file that nobody but its owner (us or root) can read. EP_EACCESS with a
 * message otherwise. */
int base_secret_read(const char *path, char **out, struct error *error);

#endif
