/* SPDX-License-Identifier: MIT */
/*
 * The way between an Idefix client and its broker: a thread that keeps an MQTT connection (idefix_mqtt.h),
 * and what its owner asks of it without ever waiting for it longer than it wants to. One owner thread; only
 * idefix_link_wake is for others.
 */
#ifndef IDEFIX_LINK_H
#define IDEFIX_LINK_H

#include "src/idefix/mqtt.h"

struct idefix_link;

enum idefix_link_state { IDEFIX_LINK_DOWN, IDEFIX_LINK_CONNECTING, IDEFIX_LINK_UP };
struct idefix_link_view {
    enum idefix_link_state state;
    uint64_t connection;           /* number of the attempt that this state belongs to, from 1 */
    bool begun;                    /* CONNECTING: the name is resolved, connect_timeout_ms counts */
    struct idefix_failure failure; /* DOWN: why, when an attempt or a connection ended by itself */
};

/* A frame that came. */
struct idefix_link_frame {
    struct idefix_link_frame *next;
    size_t bytes; /* of the message; larger than what is kept: body is empty */
    bool too_large;
    char flags[8]; /* cut: the known ones have two letters at most */
    char body[];
};

/* params: copied. max_bytes: a longer message is not kept. No thread and no connection yet. 0, EP_ENOMEM,
 * EP_ESYSTEM. */
int idefix_link_open(const struct idefix_mqtt_params *params, size_t max_bytes, struct idefix_link **out,
                     struct error *error);
/* When DOWN: begins a connection. 0 or EP_ESYSTEM. */
int idefix_link_connect(struct idefix_link *link, struct error *error);
/* The state becomes DOWN at once; the goodbye is said behind it. */
void idefix_link_drop(struct idefix_link *link);
void idefix_link_look(struct idefix_link *link, struct idefix_link_view *view);
/* Until anything has changed since the last wait ended, a wake, or the time. */
void idefix_link_wait(struct idefix_link *link, uint64_t until_ns);
/* Any thread or signal handler: ends a wait, the next one if there is none. */
void idefix_link_wake(struct idefix_link *link);
/* Sends a frame when the connection is up; what cannot be sent ends the connection. Takes the body. 0 or
 * EP_ENOMEM. */
int idefix_link_send(struct idefix_link *link, struct idefix_frame *frame);
/* Whether frames that come are kept; what is there is thrown away. */
void idefix_link_listen(struct idefix_link *link, bool listen);
/* The oldest frame kept, to be freed with free(); NULL = none. */
struct idefix_link_frame *idefix_link_take(struct idefix_link *link);
/* Ends connection and thread; waits at most a second. A thread that is stuck in the resolver ends by itself,
 * later. */
void idefix_link_close(struct idefix_link **link);

#endif
