/* SPDX-License-Identifier: MIT */
/*
 * URL templates: checks them, fills them in, and makes them safe to show. Pure: any process, any thread.
 *
 * Invariants
 *  1. Values are percent-encoded except for the unreserved characters, so a cursor such as
 *     12-g1AAA==[1,2] arrives unchanged.
 *  2. A shown URL leaves out what may be secret: userinfo, the query, and long path segments of mixed
 *     letters and digits (Telegram puts the bot's token there).
 */
#include "src/config/url.h"
#include "src/base/suggest.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "src/config/config.h"
#include "src/json/json.h"

#define TOKEN_BYTES_MIN 24 /* a path segment at least as long that mixes digits and letters may be a token */

enum placeholder { CURSOR, LIMIT, TIMEOUT, TIMEOUT_MS, SINCE, NO_PLACEHOLDER };
static const char *const placeholder_names[] = {"cursor", "limit", "timeout", "timeout_ms", "since", NULL};
_Static_assert(sizeof placeholder_names / sizeof placeholder_names[0] == NO_PLACEHOLDER + 1, "one name each");

/* Returns the placeholder of an http source's URL with the name in `text` ("cursor", "limit" and so on),
 * or NO_PLACEHOLDER if there is none with this name. */
static enum placeholder find_placeholder(const char *text, size_t text_bytes)
{
    size_t i = 0;

    while (i < NO_PLACEHOLDER && (strlen(placeholder_names[i]) != text_bytes ||
                                  memcmp(placeholder_names[i], text, text_bytes) != 0))
        i++;
    return (enum placeholder)i;
}

/* Returns the part of an http source's URL after "http://" or "https://", or NULL if it begins with
 * neither. */
static const char *skip_url_scheme(const char *url)
{
    if (strncasecmp(url, "http://", 7) == 0)
        return url + 7;
    return strncasecmp(url, "https://", 8) == 0 ? url + 8 : NULL;
}

/* Writes a message about a placeholder that the URL of an http source cannot have, with the most similar
 * one that it can have. Returns EP_ECONFIG. */
static int report_unknown_placeholder(const char *placeholder, size_t placeholder_bytes, struct error *error)
{
    char name[100];
    snprintf(name, sizeof name, "%.*s",
             (int)(placeholder_bytes < sizeof name ? placeholder_bytes : sizeof name - 1), placeholder);
    const char *similar_name = base_suggest_find_nearest(name, placeholder_names);
    return base_error_set(
        error, EP_ECONFIG,
        "unknown placeholder {%s} in the URL: expected {cursor}, {limit}, {timeout}, {timeout_ms} or "
        "{since}%s%s%s",
        name, similar_name != NULL ? "; did you mean {" : "", similar_name != NULL ? similar_name : "",
        similar_name != NULL ? "}?" : "");
}

/* Checks the URL of an http source: http or https, a host, and only known placeholders. Returns 0, or
 * EP_ECONFIG with a message. config_validate calls it for the configuration before anything is started, and
 * the producer when it opens the source. */
int config_url_check(const char *url, struct error *error)
{
    const char *host = skip_url_scheme(url);

    if (host == NULL)
        return base_error_set(error, EP_ECONFIG, "expected a URL that begins with http:// or https://");
    if (strcspn(host, "/?#") == 0)
        return base_error_set(error, EP_ECONFIG,
                              "the URL has no host: expected one after http:// or https://");
    for (const char *position = url; *position != '\0'; position++) {
        if ((unsigned char)*position <= ' ' || *position == 0x7F)
            return base_error_set(error, EP_ECONFIG,
                                  "the URL contains a space or control character: write it as %%%02X",
                                  (unsigned char)*position);
        if (*position == '}')
            return base_error_set(error, EP_ECONFIG,
                                  "the URL has a } without a { (a plain one is written %%7D)");
        if (*position != '{')
            continue;
        size_t placeholder_bytes = strcspn(position + 1, "{}");
        if (position[1 + placeholder_bytes] != '}')
            return base_error_set(error, EP_ECONFIG,
                                  "the URL has a { without its } (a plain one is written %%7B)");
        if (find_placeholder(position + 1, placeholder_bytes) == NO_PLACEHOLDER)
            return report_unknown_placeholder(position + 1, placeholder_bytes, error);
        position += placeholder_bytes + 1;
    }
    return 0;
}

/* Appends a value to an http source's URL, percent-encoded except for letters, digits and -._~; NULL
 * appends nothing. Without the encoding, a cursor with '&' or '#' would change the producer's request. */
static void write_percent_encoded(struct text *out, const char *text)
{
    for (; text != NULL && *text != '\0'; text++) {
        unsigned char character = (unsigned char)*text;
        char escape[4];
        if (character < 0x80 && (isalnum(character) || strchr("-._~", character) != NULL)) {
            base_text_append_bytes(out, text, 1);
        } else {
            snprintf(escape, sizeof escape, "%%%02X", character);
            base_text_append_bytes(out, escape, 3);
        }
    }
}

/* Returns the URL of the next request: an http source's URL with cursor, limit and timeout in place of its
 * placeholders; NULL if out of memory. The caller frees it. The producer calls it for each fetch, after
 * config_url_check has accepted the URL. */
char *config_url_fill(const char *url, const struct http_url_values *values)
{
    struct text out = {0};

    while (*url != '\0') {
        size_t literal_bytes = strcspn(url, "{");
        base_text_append_bytes(&out, url, literal_bytes);
        url += literal_bytes;
        if (*url == '\0')
            break;
        size_t placeholder_bytes = strcspn(url + 1, "}");
        switch (find_placeholder(url + 1, placeholder_bytes)) {
        case CURSOR:
            write_percent_encoded(&out, values->cursor);
            break;
        case SINCE:
            write_percent_encoded(&out, values->since);
            break;
        case LIMIT:
            json_write_uint(&out, values->limit);
            break;
        case TIMEOUT: /* rounded up: 0 would make a long poll a short one */
            json_write_uint(&out, (values->timeout_ms + 999) / 1000);
            break;
        case TIMEOUT_MS:
            json_write_uint(&out, values->timeout_ms);
            break;
        case NO_PLACEHOLDER:
            break;
        }
        url += placeholder_bytes + 1 + (url[placeholder_bytes + 1] == '}');
    }
    if (out.failed) {
        base_text_free(&out);
        return NULL;
    }
    return out.text;
}

/* Returns whether one segment of the path in an http source's URL may be a secret token: it is long and has
 * digits and letters. Messages hide such segments. */
static bool segment_may_be_token(const char *segment, size_t segment_bytes)
{
    bool has_digit = false, has_letter = false;

    for (size_t i = 0; i < segment_bytes; i++) {
        has_digit = has_digit || isdigit((unsigned char)segment[i]);
        has_letter = has_letter || isalpha((unsigned char)segment[i]);
    }
    return segment_bytes >= TOKEN_BYTES_MIN && has_digit && has_letter;
}

/* Writes the URL into `buffer` as messages may show it: without user, password and query, and with *** for
 * path segments that may be tokens. The producer calls it when a fetch of an http source fails, so that no
 * secret reaches the log. */
void config_url_write_public(const char *url, char *buffer, size_t buffer_bytes)
{
    struct text out = {0};
    const char *host = skip_url_scheme(url);

    if (host == NULL)
        host = url;
    base_text_append_bytes(&out, url, (size_t)(host - url));
    size_t authority_bytes = strcspn(host, "/?#");
    for (size_t i = authority_bytes; i-- > 0;)
        if (host[i] == '@') {
            authority_bytes -= i + 1;
            host += i + 1;
            break;
        }
    base_text_append_bytes(&out, host, authority_bytes);
    for (const char *position = host + authority_bytes; *position == '/';) {
        size_t segment_bytes = strcspn(position + 1, "/?#");
        base_text_append(&out, "/");
        if (segment_may_be_token(position + 1, segment_bytes))
            base_text_append(&out, "***");
        else
            base_text_append_bytes(&out, position + 1, segment_bytes);
        position += segment_bytes + 1;
    }
    snprintf(buffer, buffer_bytes, "%s", out.text == NULL ? "" : out.text);
    base_text_free(&out);
}
