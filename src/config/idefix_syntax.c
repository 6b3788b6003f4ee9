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

/* Returns whether a text can be the session ID of an Idefix source, which becomes a level of MQTT topics
 * and the name of the MQTT client. config_validate calls it for the configuration, and the Idefix client
 * when it opens. */
bool config_idefix_session_valid(const char *session)
{
    static const char allowed_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t session_bytes = strlen(session);

    return session_bytes >= 1 && session_bytes <= CONFIG_IDEFIX_SESSION_BYTES_MAX &&
           strspn(session, allowed_chars) == session_bytes;
}

/* Reads the `encoding` of an Idefix source, such as "mg": j (JSON) or m (MessagePack) or both, and g if
 * gzip is accepted. Returns 0, or EP_EINVAL for anything else. config_validate calls it for the
 * configuration, and the Idefix client when it opens. */
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

/* Writes what the broker's address of an Idefix source should be into `error` and returns EP_ECONFIG. It
 * does not quote an address with a '@', which may hold a password. */
static int report_broker_problem(struct error *error, const char *text, const char *expected)
{
    if (strchr(text, '@') != NULL)
        return base_error_set(error, EP_ECONFIG,
                              "the broker's address contains a user: expected ssl://HOST:PORT, with "
                              "the user and the password in `user` and `password`");
    return base_error_set(error, EP_ECONFIG, "%s, found \"%.200s\"", expected, text);
}

/* Reads the scheme of an Idefix broker's address, moves *position past it, and sets *tls, which is true for
 * ssl and mqtts. Returns false for an unknown scheme. */
static bool read_broker_scheme(const char **position, bool *tls)
{
    static const struct {
        const char *prefix;
        bool tls;
    } schemes[] = {{"ssl://", true}, {"mqtts://", true}, {"tcp://", false}, {"mqtt://", false}};

    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t prefix_bytes = strlen(schemes[i].prefix);
        if (strncmp(*position, schemes[i].prefix, prefix_bytes) == 0) {
            *position += prefix_bytes;
            *tls = schemes[i].tls;
            return true;
        }
    }
    return false;
}

/* Reads the rest of an Idefix broker's address as a port. Returns false unless it is a number from 1 to
 * 65535 with nothing after it. */
static bool read_broker_port(const char *port_text, int *port)
{
    size_t digit_count = strspn(port_text, "0123456789");

    if (digit_count == 0 || digit_count > 5 || port_text[digit_count] != '\0')
        return false;
    *port = atoi(port_text);
    return *port >= 1 && *port <= 65535;
}

/* Returns whether the host in a broker's address looks like an IPv6 address, with or without a zone
 * ("fe80::1%eth0"). The resolver decides later whether it is one. */
static bool looks_like_ipv6(const char *host, size_t host_bytes)
{
    size_t address_bytes = strspn(host, "0123456789abcdefABCDEF:.");

    return memchr(host, ':', host_bytes) != NULL &&
           (address_bytes == host_bytes || host[address_bytes] == '%');
}

/* Reads the address of an Idefix broker, such as ssl://HOST:PORT, into its parts. Returns 0, EP_ENOMEM, or
 * EP_ECONFIG with a message; after 0 the caller frees out->host. config_validate calls it to check the
 * configuration, and the Idefix client when it opens. */
int config_idefix_broker_read(const char *text, struct idefix_broker *out, struct error *error)
{
    struct idefix_broker broker = {0};
    const char *position = text;

    if (!read_broker_scheme(&position, &broker.tls))
        return report_broker_problem(
            error, text, "expected a broker such as ssl://idefix.example:8883 or tcp://localhost:1883");
    bool is_bracketed = *position == '[';
    position += is_bracketed;
    size_t host_bytes = strcspn(position, is_bracketed ? "]" : ":");
    const char *after_host = position + host_bytes;
    for (size_t i = 0; i < host_bytes; i++)
        if ((unsigned char)position[i] <= ' ' || strchr("/?#@[]\x7F", position[i]) != NULL)
            return report_broker_problem(error, text,
                                         "expected only SCHEME://HOST:PORT in the broker's address");
    if (host_bytes == 0 || host_bytes > HOST_BYTES_MAX)
        return report_broker_problem(error, text, "expected a host in the broker's address");
    if (is_bracketed && !(looks_like_ipv6(position, host_bytes) && *after_host++ == ']'))
        return report_broker_problem(error, text, "expected an IPv6 address in brackets");
    broker.port = broker.tls ? PORT_TLS : PORT_PLAIN;
    if (*after_host != '\0' && (*after_host != ':' || !read_broker_port(after_host + 1, &broker.port)))
        return report_broker_problem(
            error, text, "expected a port from 1 to 65535, and nothing after it, in the broker's address");
    broker.host = strndup(position, host_bytes);
    if (broker.host == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory while reading the broker's address");
    *out = broker;
    return 0;
}
