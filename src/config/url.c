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

#define TOKEN_LENGTH 24 /* a path segment of this length that mixes digits and letters may be a token */

enum placeholder { CURSOR, LIMIT, TIMEOUT, TIMEOUT_MS, SINCE, PLACEHOLDERS };
static const char *const placeholder_names[] = {"cursor", "limit", "timeout", "timeout_ms", "since", NULL};
_Static_assert(sizeof placeholder_names / sizeof placeholder_names[0] == PLACEHOLDERS + 1, "one name each");

/* Returns the placeholder of an http source's URL with that name ("cursor", "limit"...), or PLACEHOLDERS if
 * there is none. Runs in any process. */
static enum placeholder find_placeholder(const char *text, size_t bytes)
{
    size_t i = 0;

    while (i < PLACEHOLDERS &&
           (strlen(placeholder_names[i]) != bytes || memcmp(placeholder_names[i], text, bytes) != 0))
        i++;
    return (enum placeholder)i;
}

/* Returns what follows "http://" or "https://" in a URL, or NULL if it begins with neither. Runs in any
 * process. */
static const char *skip_url_scheme(const char *url)
{
    if (strncasecmp(url, "http://", 7) == 0)
        return url + 7;
    return strncasecmp(url, "https://", 8) == 0 ? url + 8 : NULL;
}

/* Reports a placeholder that the URL of an http source cannot have, and suggests a similar one. Returns
 * EP_ECONFIG. Runs in any process. */
static int refuse_unknown_placeholder(const char *text, size_t bytes, struct error *error)
{
    char word[100];
    snprintf(word, sizeof word, "%.*s", (int)(bytes < sizeof word ? bytes : sizeof word - 1), text);
    const char *near = base_suggest_near(word, placeholder_names);
    return base_error_set(
        error, EP_ECONFIG,
        "unknown placeholder {%s} in the URL: expected {cursor}, {limit}, {timeout}, {timeout_ms} or "
        "{since}%s%s%s",
        word, near != NULL ? "; did you mean {" : "", near != NULL ? near : "", near != NULL ? "}?" : "");
}

/* Checks the URL of an http source: http or https, a host, known placeholders. Returns 0, or EP_ECONFIG with
 * a message. The rules of the configuration call it in the supervisor before it forks, and the producer when
 * it opens the source. */
int config_url_http_url_check(const char *url, struct error *error)
{
    const char *host = skip_url_scheme(url);

    if (host == NULL)
        return base_error_set(error, EP_ECONFIG, "expected a URL that begins with http:// or https://");
    if (strcspn(host, "/?#") == 0)
        return base_error_set(error, EP_ECONFIG, "the URL names no host");
    for (const char *at = url; *at != '\0'; at++) {
        if ((unsigned char)*at <= ' ' || *at == 0x7F)
            return base_error_set(error, EP_ECONFIG,
                                  "the URL holds a space or control character: write it as %%%02X",
                                  (unsigned char)*at);
        if (*at == '}')
            return base_error_set(error, EP_ECONFIG,
                                  "the URL has a } without a { (a plain one is written %%7D)");
        if (*at != '{')
            continue;
        size_t length = strcspn(at + 1, "{}");
        if (at[1 + length] != '}')
            return base_error_set(error, EP_ECONFIG,
                                  "the URL has a { without its } (a plain one is written %%7B)");
        if (find_placeholder(at + 1, length) == PLACEHOLDERS)
            return refuse_unknown_placeholder(at + 1, length, error);
        at += length + 1;
    }
    return 0;
}

/* Appends a value to the URL of an http source, percent-encoded except for unreserved characters. Without
 * this a cursor with '&' or '#' would change the request. The producer runs it for each fetch. */
static void write_percent_encoded(struct text *out, const char *text)
{
    for (; text != NULL && *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        char escape[4];
        if (c < 0x80 && (isalnum(c) || strchr("-._~", c) != NULL)) {
            base_text_append_bytes(out, text, 1);
        } else {
            snprintf(escape, sizeof escape, "%%%02X", c);
            base_text_append_bytes(out, escape, 3);
        }
    }
}

/* Returns the URL of the next request, made from an http source's URL and the current cursor, limit and
 * timeout; NULL without memory. The producer calls it for each fetch. The caller frees the result. */
char *config_url_http_url_fill(const char *url, const struct http_url_values *values)
{
    struct text out = {0};

    while (*url != '\0') {
        size_t plain = strcspn(url, "{");
        base_text_append_bytes(&out, url, plain);
        url += plain;
        if (*url == '\0')
            break;
        size_t length = strcspn(url + 1, "}");
        switch (find_placeholder(url + 1, length)) {
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
        case PLACEHOLDERS:
            break;
        }
        url += length + 1 + (url[length + 1] == '}');
    }
    if (out.failed) {
        base_text_free(&out);
        return NULL;
    }
    return out.text;
}

/* Returns whether a part of a URL's path may be a secret token: long, with digits and letters. A message
 * hides such parts. Runs in any process. */
static bool segment_may_be_token(const char *segment, size_t bytes)
{
    bool digit = false, letter = false;

    for (size_t i = 0; i < bytes; i++) {
        digit = digit || isdigit((unsigned char)segment[i]);
        letter = letter || isalpha((unsigned char)segment[i]);
    }
    return bytes >= TOKEN_LENGTH && digit && letter;
}

/* Writes the URL for messages, without user, password and query, and with *** for parts of the path that
 * may be tokens. The producer calls it when a fetch of an http source fails, so that no secret reaches
 * the log. */
void config_url_http_url_public(const char *url, char *buffer, size_t size)
{
    struct text out = {0};
    const char *host = skip_url_scheme(url);

    if (host == NULL)
        host = url;
    base_text_append_bytes(&out, url, (size_t)(host - url));
    size_t authority = strcspn(host, "/?#");
    for (size_t i = authority; i-- > 0;)
        if (host[i] == '@') {
            authority -= i + 1;
            host += i + 1;
            break;
        }
    base_text_append_bytes(&out, host, authority);
    for (const char *at = host + authority; *at == '/';) {
        size_t length = strcspn(at + 1, "/?#");
        base_text_append(&out, "/");
        if (segment_may_be_token(at + 1, length))
            base_text_append(&out, "***");
        else
            base_text_append_bytes(&out, at + 1, length);
        at += length + 1;
    }
    snprintf(buffer, size, "%s", out.text == NULL ? "" : out.text);
    base_text_free(&out);
}
