/* SPDX-License-Identifier: MIT */
/*
 * The syntax of an Idefix source's settings: the broker's address, the session ID, the encodings. Pure:
 * any process, any thread. config_validate uses it, and so does the client, which also gets settings
 * from programs that use the library.
 */
#include "src/config/idefix_syntax.h"

#include <stdlib.h>
#include <string.h>

#define PORT_TLS 8883
#define PORT_PLAIN 1883
#define HOST_BYTES_MAX 255

bool config_idefix_session_valid(const char *session)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t bytes = strlen(session);

    return bytes >= 1 && bytes <= CONFIG_IDEFIX_SESSION_BYTES_MAX && strspn(session, letters) == bytes;
}

int config_idefix_encoding_read(const char *letters, struct idefix_encoding *out)
{
    struct idefix_encoding encoding = {0};

    for (; *letters != '\0'; letters++) {
        bool *flag = *letters == 'j'   ? &encoding.json
                     : *letters == 'm' ? &encoding.msgpack
                     : *letters == 'g' ? &encoding.gzip
                                       : NULL;
        if (flag == NULL || *flag)
            return EP_EINVAL;
        *flag = true;
    }
    if (!encoding.json && !encoding.msgpack)
        return EP_EINVAL;
    *out = encoding;
    return 0;
}

static int refuse(struct error *error, const char *text, const char *expected)
{
    /* It may be user:password@, which no message may contain. */
    if (strchr(text, '@') != NULL)
        return base_error_set(error, EP_ECONFIG,
                              "the broker's address has a user in it: expected ssl://HOST:PORT, and "
                              "`user` and `password` apart");
    return base_error_set(error, EP_ECONFIG, "%s, found \"%.200s\"", expected, text);
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

/* Reads digits to the end of the text as a port, 1 to 65535. */
static bool port_read(const char *at, int *port)
{
    size_t digits = strspn(at, "0123456789");

    if (digits == 0 || digits > 5 || at[digits] != '\0')
        return false;
    *port = atoi(at);
    return *port >= 1 && *port <= 65535;
}

/* Whether it looks like an IPv6 address, with or without a zone ("fe80::1%eth0"). The resolver decides. */
static bool ipv6_like(const char *at, size_t bytes)
{
    size_t digits = strspn(at, "0123456789abcdefABCDEF:.");

    return memchr(at, ':', bytes) != NULL && (digits == bytes || at[digits] == '%');
}

int config_idefix_broker_read(const char *text, struct idefix_broker *out, struct error *error)
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
        return base_error_set(error, EP_ENOMEM, "no memory for the broker's address");
    *out = broker;
    return 0;
}
