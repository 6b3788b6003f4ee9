/* SPDX-License-Identifier: MIT */
/* The http source's URL: a template with {cursor}, {limit}, {timeout} (whole seconds), {timeout_ms} and
 * {since}. Pure. */
#ifndef CONFIG_URL_H
#define CONFIG_URL_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct http_url_values {
    const char *cursor, *since; /* NULL = empty */
    uint32_t limit;
    uint64_t timeout_ms;
};
/* Checks that it is an http or https URL with a host and known placeholders. 0, or EP_ECONFIG with a
 * message. */
int config_url_check(const char *url, struct error *error);
/* Returns the URL with its values percent-encoded, which the caller frees; NULL if out of memory. The
 * template must have passed the check. */
char *config_url_fill(const char *url, const struct http_url_values *values);
/* Writes the URL for messages: without user, password and query; path segments that may be tokens are
 * hidden. */
void config_url_write_public(const char *url, char *buffer, size_t buffer_bytes);

#endif
