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
/* Is it an http or https URL with a host, and are its placeholders known? 0 or EP_ECONFIG, with a message. */
int config_url_http_url_check(const char *url, struct error *error);
/* The URL with its values in, percent-encoded; malloc'd, NULL when there is no memory. The template must be a
 * checked one. */
char *config_url_http_url_fill(const char *url, const struct http_url_values *values);
/* For messages: without user, password and query, and with long path segments that may be tokens hidden. */
void config_url_http_url_public(const char *url, char *buffer, size_t size);

#endif
