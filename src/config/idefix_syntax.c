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

/* Returns whether a text can be the session ID of an Idefix source, which is a level of MQTT topics and the
 * name of the MQTT client. The rules of the configuration ask this, and the Idefix client when it opens, in
 * any process. */
bool config_idefix_session_valid(const char *session)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t bytes = strlen(session);

    return bytes >= 1 && bytes <= CONFIG_IDEFIX_SESSION_BYTES_MAX && strspn(session, letters) == bytes;
}

/* Reads the `encoding` of an Idefix source, such as "mg": j or m or both, and g. EP_EINVAL for anything
 * else. The rules of the configuration call it, and the Idefix client when it opens, in any process. */
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

/* Reports that the broker's address of an Idefix source is wrong, and returns EP_ECONFIG. It does not quote
 * an address with a '@', which may hold a password. Runs in any process. */
static int refuse_broker(struct error *error, const char *text, const char *expected)
{
    /* It may be user:password@, which no message may contain. */
    if (strchr(text, '@') != NULL)
        return base_error_set(error, EP_ECONFIG,
                              "the broker's address contains a user: expected ssl://HOST:PORT, with "
                              "the user and the password in `user` and `password`");
    return base_error_set(error, EP_ECONFIG, "%s, found \"%.200s\"", expected, text);
}

/* Reads the scheme of an Idefix broker's address, moves *at behind it, and sets *tls for ssl and mqtts.
 * Returns false for any other scheme. Runs in any process. */
static bool read_broker_scheme(const char **at, bool *tls)
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

/* Reads digits to the end of an Idefix broker's address as a port, 1 to 65535; false if they are not one.
 * Runs in any process. */
static bool read_broker_port(const char *at, int *port)
{
    size_t digits = strspn(at, "0123456789");

    if (digits == 0 || digits > 5 || at[digits] != '\0')
        return false;
    *port = atoi(at);
    return *port >= 1 && *port <= 65535;
}

/* Whether a broker's host looks like an IPv6 address, with or without a zone ("fe80::1%eth0"). The resolver
 * decides. */
static bool looks_like_ipv6(const char *at, size_t bytes)
{
    size_t digits = strspn(at, "0123456789abcdefABCDEF:.");

    return memchr(at, ':', bytes) != NULL && (digits == bytes || at[digits] == '%');
}

/* Reads the address of an Idefix broker, such as ssl://HOST:PORT, into its parts. Returns 0, EP_ENOMEM, or
 * EP_ECONFIG with a message. The rules of the configuration check it so, and the Idefix client reads it when
 * it opens, in any process. */
int config_idefix_broker_read(const char *text, struct idefix_broker *out, struct error *error)
{
    struct idefix_broker broker = {0};
    const char *at = text;

    if (!read_broker_scheme(&at, &broker.tls))
        return refuse_broker(error, text,
                             "expected a broker such as ssl://idefix.example:8883 or tcp://localhost:1883");
    bool bracketed = *at == '[';
    at += bracketed;
    size_t bytes = strcspn(at, bracketed ? "]" : ":");
    const char *rest = at + bytes;
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)at[i] <= ' ' || strchr("/?#@[]\x7F", at[i]) != NULL)
            return refuse_broker(error, text, "expected only SCHEME://HOST:PORT in the broker's address");
    if (bytes == 0 || bytes > HOST_BYTES_MAX)
        return refuse_broker(error, text, "expected a host in the broker's address");
    if (bracketed && !(looks_like_ipv6(at, bytes) && *rest++ == ']'))
        return refuse_broker(error, text, "expected an IPv6 address in brackets");
    broker.port = broker.tls ? PORT_TLS : PORT_PLAIN;
    if (*rest != '\0' && (*rest != ':' || !read_broker_port(rest + 1, &broker.port)))
        return refuse_broker(
            error, text, "expected a port from 1 to 65535, and nothing after it, in the broker's address");
    broker.host = strndup(at, bytes);
    if (broker.host == NULL)
        return base_error_set(error, EP_ENOMEM, "no memory for the broker's address");
    *out = broker;
    return 0;
}
