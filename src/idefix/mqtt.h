/* SPDX-License-Identifier: MIT */
/*
 * One MQTT connection of an Idefix client, from its first packet to its end: libmosquitto, driven from
 * outside. Not for threads: one thread makes, drives and ends it (idefix_link.c).
 */
#ifndef IDEFIX_MQTT_H
#define IDEFIX_MQTT_H

#include "src/idefix/client.h"

#define IDEFIX_KEEPALIVE_S 15 /* a dead peer is noticed after one to two of them */

struct idefix_mqtt_params {
    struct idefix_broker broker;
    char *address; /* of the broker, as it stands in messages: "ssl://HOST:PORT" */
    char *session, *user, *password;
    char *ca_file; /* NULL = the system's certificates */
    uint64_t connect_timeout_ms;
};

/* A message to us: flags is its topic's last level. Nothing of it may be kept. */
typedef void idefix_mqtt_frame(const char *flags, const void *body, size_t bytes, void *user);

struct idefix_mqtt;
/*
 * Begins to connect. params is borrowed until the end. BLOCKS while the system resolves the broker's name,
 * for as long as the resolver takes. 0, or the failure's code.
 */
int idefix_mqtt_open(const struct idefix_mqtt_params *params, idefix_mqtt_frame *frame, void *user,
                     struct idefix_mqtt **out, struct idefix_failure *failure);
/* Waits for the network, wake_fd becoming readable, or a second, and does what is due. 0; or the connection
 * is over, or there will be none. May block as idefix_mqtt_open, once, before there is a TCP connection. */
int idefix_mqtt_step(struct idefix_mqtt *mqtt, int wake_fd, struct idefix_failure *failure);
bool idefix_mqtt_ready(const struct idefix_mqtt *mqtt); /* connected, accepted and subscribed */
/* When ready: sends on the topic with these flags. 0, or the connection is over. */
int idefix_mqtt_publish(struct idefix_mqtt *mqtt, const char *flags, const void *body, size_t bytes,
                        struct idefix_failure *failure);
/* Says goodbye, for at most half a second, where there is still somebody to say it to. Clears *mqtt; NULL
 * accepted. */
void idefix_mqtt_close(struct idefix_mqtt **mqtt);

/* Why there is no connection, or no longer one, as a message for operators: error_text.c. */
enum idefix_phase { IDEFIX_TCP, IDEFIX_HELLO, IDEFIX_SUBSCRIBING, IDEFIX_READY };
struct idefix_end {
    enum idefix_phase phase;
    int rc, errnum; /* of the libmosquitto call that told; errnum also of a failed TCP connection */
    int connack;    /* of the broker's answer to CONNECT, -1 = none came */
    bool timed_out;
    bool certificate; /* its verification failed */
    bool wrong_name;  /* it is not for this host */
    char said[256];   /* what libmosquitto or OpenSSL says last of an error */
};
int idefix_error_text_end(const struct idefix_mqtt_params *params, const struct idefix_end *end,
                          struct idefix_failure *failure);
int idefix_error_text_resolver(const struct idefix_mqtt_params *params, int gai_code,
                               struct idefix_failure *failure);
/* The same for the answer of a backend that is an error. */
int idefix_error_text_answer(const struct idefix_source_config *config, const char *command,
                             const struct idefix_message *message, struct idefix_failure *failure);

#endif
