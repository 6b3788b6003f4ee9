/* SPDX-License-Identifier: MIT */
/*
 * Idefix's frames in both directions: the body of an MQTT message, and the flags in its topic
 * (eventpipe-idefix(7)). Pure: no network, no clock.
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
/* Writes JSON if the encoding accepts both forms; compresses it if the encoding accepts that and the
 * result is smaller. 0 or EP_ENOMEM. */
int idefix_frame_encode(const struct idefix_encoding *encoding, const struct idefix_envelope *envelope,
                        struct idefix_frame *out);
void idefix_frame_free(struct idefix_frame *frame);

/* A received frame. */
struct idefix_message {
    char *body; /* owned; inflated */
    size_t bytes;
    bool msgpack;          /* MessagePack, otherwise JSON */
    char *to;              /* owned, never NULL */
    char *reply;           /* owned, NULL = none */
    char *error;           /* owned, NULL = none: the call succeeded */
    int error_code;        /* of "[CODE] text"; 1 (unknown) if an error text has none; 0 without error */
    struct json_span data; /* in body, JSON or MessagePack; bytes 0 = null or missing */
};
/*
 * Reads the envelope. flags is the topic's last level. The data is found but not decoded, so that one
 * bad event in it spoils nothing else; its structure is checked as far as needed to find its end.
 * Returns 0, EP_ENOMEM, or EP_EPROTO with a message: unknown flags, the body does not inflate or is
 * larger than max_bytes, there is no envelope, or a member has the wrong type.
 */
int idefix_message_decode(const char *flags, const void *body, size_t bytes, size_t max_bytes,
                          struct idefix_message *out, struct error *error);
void idefix_message_free(struct idefix_message *message); /* accepts a message that is all zero */
/* Appends the data to out as JSON text ("null" if there is none). 0, EP_ENOMEM, EP_EPROTO. */
int idefix_message_write_json(const struct idefix_message *message, struct text *out, struct error *error);

#endif
