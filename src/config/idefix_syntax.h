/* SPDX-License-Identifier: MIT */
/* The syntax of an Idefix source's settings: broker, session and encoding. Pure. */
#ifndef CONFIG_IDEFIX_SYNTAX_H
#define CONFIG_IDEFIX_SYNTAX_H

#include <stdbool.h>

#include "src/base/error.h"

#define CONFIG_IDEFIX_SESSION_BYTES_MAX 64

/* Whether it can be a session ID: a level of topics, and the MQTT client's name. */
bool config_idefix_session_valid(const char *session);
/* The address a broker setting means. host is malloc'd; port 8883 or 1883 where it is left out; IPv6 in
 * brackets. 0, EP_ENOMEM, or EP_ECONFIG with a message. */
struct idefix_broker {
    char *host;
    int port;
    bool tls;
};
int config_idefix_broker_read(const char *text, struct idefix_broker *out, struct error *error);

/* What a party accepts: the letters it named at login. */
struct idefix_encoding {
    bool json, msgpack, gzip;
};
/* "mg", "j", "jmg"...: j or m or both, and g. EP_EINVAL for anything else. */
int config_idefix_encoding_read(const char *letters, struct idefix_encoding *out);

#endif
