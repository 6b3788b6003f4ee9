/* SPDX-License-Identifier: MIT */
/* The syntax of an Idefix source's settings: broker, session and encoding. Pure. */
#ifndef CONFIG_IDEFIX_SYNTAX_H
#define CONFIG_IDEFIX_SYNTAX_H

#include <stdbool.h>

#include "src/base/error.h"

#define CONFIG_IDEFIX_SESSION_BYTES_MAX 64

/* Whether it can be a session ID, which is a level of MQTT topics and the name of the MQTT client. */
bool config_idefix_session_valid(const char *session);
/* Reads the address of a broker. The caller frees host; port is 8883 or 1883 if it is left out; an IPv6
 * address is in brackets. 0, EP_ENOMEM, or EP_ECONFIG with a message. */
struct idefix_broker {
    char *host;
    int port;
    bool tls;
};
int config_idefix_broker_read(const char *text, struct idefix_broker *out, struct error *error);

/* The encodings that a client accepts, which it names at login. */
struct idefix_encoding {
    bool json, msgpack, gzip;
};
/* Reads "mg", "j", "jmg"...: j or m or both, and g. EP_EINVAL for anything else. */
int config_idefix_encoding_read(const char *letters, struct idefix_encoding *out);

#endif
