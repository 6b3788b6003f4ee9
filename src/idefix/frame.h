/* SPDX-License-Identifier: MIT */
/*
 * Idefix's frames: an MQTT message's body and the flags of its topic (eventpipe-idefix(7)), in both
 * directions. Pure: no network, no clock.
 */
#ifndef IDEFIX_FRAME_H
#define IDEFIX_FRAME_H

#include "src/base/error.h"
#include "src/config/idefix_syntax.h"
#include "src/json/json.h"

struct idefix_envelope {
    const char *to;
    const char *reply;     /* NULL or "" = left out */
    const char *error;     /* NULL or "" = left out */
    struct json_span data; /* valid JSON text; bytes 0 = null */
};

struct idefix_frame {
    char flags[3]; /* of the topic: j, jg, m or mg */
    char *body;    /* owned */
    size_t bytes;
};
/* Written as JSON where both are accepted; compressed where that is accepted and makes it smaller. 0 or
 * EP_ENOMEM. */
int idefix_frame_encode(const struct idefix_encoding *encoding, const struct idefix_envelope *envelope,
                        struct idefix_frame *out);
void idefix_frame_free(struct idefix_frame *frame);

/* A frame that came. */
struct idefix_message {
    char *body; /* owned; inflated */
    size_t bytes;
    bool msgpack;          /* MessagePack, otherwise JSON */
    char *to;              /* owned, never NULL */
    char *reply;           /* owned, NULL = none */
    char *error;           /* owned, NULL = none: the call succeeded */
    int error_code;        /* of "[CODE] text"; 1 (unknown) where an error text has none; 0 without error */
    struct json_span data; /* in body, JSON or MessagePack; bytes 0 = null or missing */
};
/*
 * flags: the topic's last level. Reads the envelope only: data is found, not decoded, so that one bad event
 * in it spoils nothing else; its structure is checked as far as is needed to know where it ends. 0;
 * EP_ENOMEM; EP_EPROTO with a message: unknown flags, does not inflate, larger than max_bytes when inflated,
 * no envelope, wrong types of its members.
 */
int idefix_message_decode(const char *flags, const void *body, size_t bytes, size_t max_bytes,
                          struct idefix_message *out, struct error *error);
void idefix_message_free(struct idefix_message *message); /* all NULL is accepted */
/* The data as JSON text appended to out ("null" if there is none). 0, EP_ENOMEM, EP_EPROTO. */
int idefix_message_json(const struct idefix_message *message, struct json_out *out, struct error *error);

#endif
