/* SPDX-License-Identifier: MIT */
/*
 * What an Idefix client sends, and where to: the address of its broker, and the data of events.get. Pure; any
 * process, config_validate too.
 *
 * The keys and the times are those of the Go client (eventpipe-idefix(7)): with a cursor its `since` is the
 * default.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/idefix/client.h"

#define PORT_TLS 8883
#define PORT_PLAIN 1883
#define SINCE_DEFAULT "1970-01-01T00:00:00Z"
#define HOST_BYTES_MAX 255

/* ---- the broker's address */

static int refuse(struct error *error, const char *text, const char *expected)
{
    /* Somebody may have written user:password@ there. */
    if (strchr(text, '@') != NULL)
        return error_set(error, EP_ECONFIG,
                         "the broker's address has a user in it: expected ssl://HOST:PORT, and "
                         "`user` and `password` apart");
    return error_set(error, EP_ECONFIG, "%s, found \"%.200s\"", expected, text);
}

static bool scheme_read(const char **at, bool *tls)
{
    static const struct {
        const char *prefix;
        bool tls;
    } schemes[] = {{"ssl://", true}, {"mqtts://", true}, {"tcp://", false}, {"mqtt://", false}};

    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t bytes = strlen(schemes[i].prefix);
        if (strncmp(*at, schemes[i].prefix, bytes) == 0) {
            *at += bytes;
            *tls = schemes[i].tls;
            return true;
        }
    }
    return false;
}

/* Digits to the end, 1 to 65535. */
static bool port_read(const char *at, int *port)
{
    size_t digits = strspn(at, "0123456789");

    if (digits == 0 || digits > 5 || at[digits] != '\0')
        return false;
    *port = atoi(at);
    return *port >= 1 && *port <= 65535;
}

/* Roughly, with or without a zone ("fe80::1%eth0"): the resolver has the last word. */
static bool ipv6_like(const char *at, size_t bytes)
{
    size_t digits = strspn(at, "0123456789abcdefABCDEF:.");

    return memchr(at, ':', bytes) != NULL && (digits == bytes || at[digits] == '%');
}

int idefix_broker_read(const char *text, struct idefix_broker *out, struct error *error)
{
    struct idefix_broker broker = {0};
    const char *at = text;

    if (!scheme_read(&at, &broker.tls))
        return refuse(error, text,
                      "expected a broker such as ssl://idefix.example:8883 or tcp://localhost:1883");
    bool bracketed = *at == '[';
    at += bracketed;
    size_t bytes = strcspn(at, bracketed ? "]" : ":");
    const char *rest = at + bytes;
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)at[i] <= ' ' || strchr("/?#@[]\x7F", at[i]) != NULL)
            return refuse(error, text, "expected nothing but SCHEME://HOST:PORT in a broker's address");
    if (bytes == 0 || bytes > HOST_BYTES_MAX)
        return refuse(error, text, "expected a host in the broker's address");
    if (bracketed && !(ipv6_like(at, bytes) && *rest++ == ']'))
        return refuse(error, text, "expected an IPv6 address in brackets");
    broker.port = broker.tls ? PORT_TLS : PORT_PLAIN;
    if (*rest != '\0' && (*rest != ':' || !port_read(rest + 1, &broker.port)))
        return refuse(error, text,
                      "expected a port from 1 to 65535, and nothing after it, in the broker's address");
    broker.host = strndup(at, bytes);
    if (broker.host == NULL)
        return error_set(error, EP_ENOMEM, "no memory for the broker's address");
    *out = broker;
    return 0;
}

/* ---- data */

/* As Go writes a time.Duration: 1m0s, 1.5s, 300ms, 1h0m0s, 0s. */
static void out_duration(struct json_out *out, uint64_t ms)
{
    char text[64], fraction[8] = "";
    int used = 0;

    if (ms > 0 && ms < 1000) {
        snprintf(text, sizeof text, "\"%" PRIu64 "ms\"", ms);
        json_out_words(out, text);
        return;
    }
    if (ms % 1000 != 0) {
        snprintf(fraction, sizeof fraction, ".%03u", (unsigned)(ms % 1000));
        for (size_t last = strlen(fraction) - 1; fraction[last] == '0'; last--)
            fraction[last] = '\0';
    }
    uint64_t seconds = ms / 1000;
    if (seconds >= 3600)
        used += snprintf(text + used, sizeof text - (size_t)used, "%" PRIu64 "h", seconds / 3600);
    if (seconds >= 60)
        used += snprintf(text + used, sizeof text - (size_t)used, "%um", (unsigned)(seconds / 60 % 60));
    snprintf(text + used, sizeof text - (size_t)used, "%u%ss", (unsigned)(seconds % 60), fraction);
    json_out_words(out, "\"");
    json_out_words(out, text);
    json_out_words(out, "\"");
}

static void out_member(struct json_out *out, const char *key, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return;
    json_out_string(out, key, strlen(key));
    json_out_words(out, ":");
    json_out_string(out, text, strlen(text));
    json_out_words(out, ",");
}

int idefix_query_data(const struct idefix_query *query, struct json_out *out)
{
    bool goes_on = query->cursor != NULL && query->cursor[0] != '\0';
    bool since = !goes_on && query->since != NULL && query->since[0] != '\0';

    json_out_words(out, "{");
    out_member(out, "domain", query->domain);
    out_member(out, "address", query->address);
    out_member(out, "type", query->event_type);
    out_member(out, "since", since ? query->since : SINCE_DEFAULT);
    json_out_words(out, "\"limit\":");
    json_out_uint(out, query->limit);
    json_out_words(out, ",");
    out_member(out, "cid", query->cursor);
    json_out_words(out, "\"timeout\":");
    out_duration(out, query->timeout_ms);
    json_out_words(out, "}");
    return out->failed ? EP_ENOMEM : 0;
}
