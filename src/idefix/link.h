/* SPDX-License-Identifier: MIT */
/*
 * The connection between an Idefix client and its broker: a thread that keeps it up (mqtt.h), and
 * functions for its owner, which never block longer than the owner asks. There is one owner thread; only
 * idefix_link_wake may be called by others.
 */
#ifndef IDEFIX_LINK_H
#define IDEFIX_LINK_H

#include "src/idefix/mqtt.h"

struct idefix_link;

enum idefix_link_state { IDEFIX_LINK_DOWN, IDEFIX_LINK_CONNECTING, IDEFIX_LINK_UP };
struct idefix_link_status {
    enum idefix_link_state state;
    uint64_t connection_number;    /* number of the attempt that this state belongs to, from 1 */
    bool is_name_resolved;         /* CONNECTING: the name is resolved, connect_timeout_ms is running */
    struct idefix_failure failure; /* DOWN: why, when an attempt or a connection ended by itself */
};

/* A received frame. */
struct idefix_link_frame {
    struct idefix_link_frame *next;
    size_t bytes; /* of the message; body is empty if is_too_large */
    bool is_too_large;
    char flags[8]; /* may be cut: known flags have at most two letters */
    char body[];
};

/* Makes a link without a thread or a connection. params is copied; messages longer than max_bytes are
 * not kept. 0, EP_ENOMEM, EP_ESYSTEM. */
int idefix_link_open(const struct idefix_mqtt_params *params, size_t max_bytes, struct idefix_link **out,
                     struct error *error);
/* Begins to connect if the state is DOWN. 0 or EP_ESYSTEM. */
int idefix_link_connect(struct idefix_link *link, struct error *error);
/* Sets the state to DOWN at once; the thread disconnects afterwards. */
void idefix_link_drop(struct idefix_link *link);
void idefix_link_get_status(struct idefix_link *link, struct idefix_link_status *status);
/* Waits until something changed since the last wait, until idefix_link_wake, or until until_ns. */
void idefix_link_wait(struct idefix_link *link, uint64_t until_ns);
/* Ends the current wait, or the next one. From any thread or signal handler. */
void idefix_link_wake(struct idefix_link *link);
/* Sends a frame if the connection is up. A frame that cannot be sent ends the connection. Takes over the
 * body. 0 or EP_ENOMEM. */
int idefix_link_queue_frame(struct idefix_link *link, struct idefix_frame *frame);
/* Says whether received frames are kept, and drops those kept so far. */
void idefix_link_set_listening(struct idefix_link *link, bool must_listen);
/* Returns the oldest frame kept, which the caller frees with free(), or NULL. */
struct idefix_link_frame *idefix_link_take_frame(struct idefix_link *link);
/* Ends connection and thread, and waits at most a second for that. A thread that is in the resolver ends by
 * itself later. */
void idefix_link_close(struct idefix_link **link);

#endif
