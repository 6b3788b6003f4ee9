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

/* Returns the placeholder with that name, or PLACEHOLDERS if there is none. */
static enum placeholder placeholder_find(const char *text, size_t bytes)
{
    size_t i = 0;

    while (i < PLACEHOLDERS &&
           (strlen(placeholder_names[i]) != bytes || memcmp(placeholder_names[i], text, bytes) != 0))
        i++;
    return (enum placeholder)i;
}

/* Returns what follows "http://" or "https://", or NULL if it begins with neither. */
static const char *behind_scheme(const char *url)
{
    if (strncasecmp(url, "http://", 7) == 0)
        return url + 7;
    return strncasecmp(url, "https://", 8) == 0 ? url + 8 : NULL;
}

static int refuse_placeholder(const char *text, size_t bytes, struct error *error)
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

int config_url_http_url_check(const char *url, struct error *error)
{
    const char *host = behind_scheme(url);

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
        if (placeholder_find(at + 1, length) == PLACEHOLDERS)
            return refuse_placeholder(at + 1, length, error);
        at += length + 1;
    }
    return 0;
}

static void out_encoded(struct json_out *out, const char *text)
{
    for (; text != NULL && *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        char escape[4];
        if (c < 0x80 && (isalnum(c) || strchr("-._~", c) != NULL)) {
            json_write_raw(out, text, 1);
        } else {
            snprintf(escape, sizeof escape, "%%%02X", c);
            json_write_raw(out, escape, 3);
        }
    }
}

char *config_url_http_url_fill(const char *url, const struct http_url_values *values)
{
    struct json_out out = {0};

    while (*url != '\0') {
        size_t plain = strcspn(url, "{");
        json_write_raw(&out, url, plain);
        url += plain;
        if (*url == '\0')
            break;
        size_t length = strcspn(url + 1, "}");
        switch (placeholder_find(url + 1, length)) {
        case CURSOR:
            out_encoded(&out, values->cursor);
            break;
        case SINCE:
            out_encoded(&out, values->since);
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
        json_write_free(&out);
        return NULL;
    }
    return out.text;
}

static bool may_be_token(const char *segment, size_t bytes)
{
    bool digit = false, letter = false;

    for (size_t i = 0; i < bytes; i++) {
        digit = digit || isdigit((unsigned char)segment[i]);
        letter = letter || isalpha((unsigned char)segment[i]);
    }
    return bytes >= TOKEN_LENGTH && digit && letter;
}

void config_url_http_url_public(const char *url, char *buffer, size_t size)
{
    struct json_out out = {0};
    const char *host = behind_scheme(url);

    if (host == NULL)
        host = url;
    json_write_raw(&out, url, (size_t)(host - url));
    size_t authority = strcspn(host, "/?#");
    for (size_t i = authority; i-- > 0;)
        if (host[i] == '@') {
            authority -= i + 1;
            host += i + 1;
            break;
        }
    json_write_raw(&out, host, authority);
    for (const char *at = host + authority; *at == '/';) {
        size_t length = strcspn(at + 1, "/?#");
        json_write_text(&out, "/");
        if (may_be_token(at + 1, length))
            json_write_text(&out, "***");
        else
            json_write_raw(&out, at + 1, length);
        at += length + 1;
    }
    snprintf(buffer, size, "%s", out.text == NULL ? "" : out.text);
    json_write_free(&out);
}
