/* SPDX-License-Identifier: MIT */
/*
 * One MQTT connection of an Idefix client, from its first packet to its last, over libmosquitto. One thread
 * opens, drives and closes it (link.c).
 */
#ifndef IDEFIX_MQTT_H
#define IDEFIX_MQTT_H

#include "src/idefix/client.h"

#define IDEFIX_KEEPALIVE_S 15 /* a dead peer is noticed after one or two intervals */

struct idefix_mqtt_params {
    struct idefix_broker broker;
    char *address; /* of the broker, for messages: "ssl://HOST:PORT" */
    char *session, *user, *password;
    char *ca_file; /* NULL = the system's certificates */
    uint64_t connect_timeout_ms;
};

/* Called for each received message; flags is its topic's last level. Both are valid during the call
 * only. */
typedef void idefix_mqtt_on_frame(const char *flags, const void *body, size_t bytes, void *user);

struct idefix_mqtt;
/*
 * Begins to connect. params is borrowed until idefix_mqtt_close. BLOCKS while the system resolves the
 * broker's name, for as long as the resolver takes. 0, or the failure's code.
 */
int idefix_mqtt_open(const struct idefix_mqtt_params *params, idefix_mqtt_on_frame *on_frame, void *user,
                     struct idefix_mqtt **out, struct idefix_failure *failure);
/* Waits for the network, for wake_fd, or for a second, and does what is due. Returns 0, or a code if the
 * connection has ended or failed. May block in the resolver once, before there is a TCP connection. */
int idefix_mqtt_wait_and_exchange(struct idefix_mqtt *mqtt, int wake_fd, struct idefix_failure *failure);
bool idefix_mqtt_ready(const struct idefix_mqtt *mqtt); /* connected, accepted and subscribed */
/* Sends a message on the topic with these flags, if ready. Returns 0, or a code if the connection has
 * ended. */
int idefix_mqtt_publish(struct idefix_mqtt *mqtt, const char *flags, const void *body, size_t bytes,
                        struct idefix_failure *failure);
/* Disconnects, within half a second if the connection is up. Clears *mqtt; NULL is accepted. */
void idefix_mqtt_close(struct idefix_mqtt **mqtt);

/* Why a connection failed or ended; error_text.c makes a message for operators of it. */
enum idefix_phase { IDEFIX_TCP, IDEFIX_HANDSHAKE, IDEFIX_SUBSCRIBING, IDEFIX_READY };
struct idefix_end_reason {
    enum idefix_phase phase;
    int mosquitto_code, errnum; /* of the failed libmosquitto call; errnum also of a failed TCP connection */
    int connack_code;           /* the broker's answer to CONNECT, -1 = none */
    bool timed_out;
    bool certificate_refused;    /* its verification failed */
    bool certificate_wrong_host; /* it is not for this host */
    char first_error_text[256];  /* the first error text of libmosquitto or OpenSSL */
};
int idefix_error_text_report_connection(const struct idefix_mqtt_params *params,
                                        const struct idefix_end_reason *end_reason,
                                        struct idefix_failure *failure);
int idefix_error_text_report_resolver(const struct idefix_mqtt_params *params, int gai_code,
                                      struct idefix_failure *failure);
/* The same for an error that the backend reported. */
int idefix_error_text_report_answer(const struct idefix_source_config *config, const char *command,
                                    const struct idefix_message *message, struct idefix_failure *failure);

#endif
