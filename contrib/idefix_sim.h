/* SPDX-License-Identifier: MIT */
/*
 * What the files of contrib/idefix-sim share. The program is one process and one thread; struct sim
 * holds all its state.
 *
 *   idefix_sim.c          options, the MQTT connection, the loop
 *   idefix_sim_orders.c   orders on standard input while it runs
 *   idefix_sim_calls.c    sessions, login, events.create, and when an answer is sent
 *   idefix_sim_polls.c    events.get
 *   idefix_sim_events.c   the events, which of them match a poll, the text of a page
 *   idefix_sim_garbage.c  malformed answers
 */
#ifndef CONTRIB_IDEFIX_SIM_H
#define CONTRIB_IDEFIX_SIM_H

#include <mosquitto.h>
#include <stdio.h>

#include "src/idefix/frame.h"

#define SIM_BODY_MAX ((size_t)64 << 20) /* of a request, inflated */

/* ---- events */

struct sim_event {
    char *text; /* one line of JSON */
    size_t bytes;
    char *uid, *domain, *address, *type; /* "" where it has none */
    int64_t at_ns;                       /* its timestamp; 0 without a readable one */
};

struct sim_events {
    struct sim_event *list;
    size_t count, room;
    uint64_t generated; /* how many of them were generated */
};

struct sim_query {
    char *domain, *address, *type, *uid; /* NULL = any */
    int64_t since_ns;
    size_t limit;
    bool no_payload;
};

struct sim_page {
    const struct sim_event **events; /* borrowed from the list, valid until it grows */
    size_t count;
    char cid[32];
};

/* Adds an event. 0, EP_EINVAL (not an event, with a message), EP_ENOMEM. */
int sim_events_add(struct sim_events *events, const char *text, size_t bytes, struct error *error);
/* Adds the lines of a file. Returns how many, or a negative code. */
long sim_events_load(struct sim_events *events, const char *path, struct error *error);
int sim_events_generate(struct sim_events *events, uint64_t count);
bool sim_events_has(const struct sim_events *events, const char *domain, const char *address,
                    const char *uid);
/* Finds the events from *position on and moves *position behind them. 0 or EP_ENOMEM. */
int sim_events_page(const struct sim_events *events, const struct sim_query *query, size_t *position,
                    struct sim_page *page);
void sim_page_free(struct sim_page *page);
/* An event as it stands in an answer. bare: members whose name ends in :b64 lose that (JSON, inside a
 * list).
 */
void sim_event_write(const struct sim_event *event, bool bare, bool no_payload, struct text *out);
void sim_cid_write(size_t position, char *text, size_t size);
bool sim_cid_read(const char *text, size_t *position);
bool sim_time_read(const char *text, int64_t *ns); /* RFC 3339 */
void sim_events_free(struct sim_events *events);

/* ---- answers */

struct sim_answer {
    char flags[8];
    char *body; /* owned */
    size_t bytes;
};

/* The kinds of malformed answers, with the names for `garbage KIND`. */
#define SIM_GARBAGE(X)        \
    X(NONE, "off")            \
    X(RANDOM, "random")       \
    X(NOT_GZIP, "not-gzip")   \
    X(GZIP_BOMB, "gzip-bomb") \
    X(TRUNCATED, "truncated") \
    X(DEEP, "deep")           \
    X(LYING, "lying")         \
    X(TYPES, "types")         \
    X(FLAGS, "flags")         \
    X(BAD_EVENT, "bad-event") \
    X(TIMESTAMPS, "timestamps")
enum sim_garbage {
#define X(name, text) SIM_GARBAGE_##name,
    SIM_GARBAGE(X)
#undef X
        SIM_GARBAGE_KINDS
};
const char *sim_garbage_name(enum sim_garbage kind);
enum sim_garbage sim_garbage_read(const char *name); /* SIM_GARBAGE_KINDS if there is no such kind */
/* Makes a malformed answer; variant chooses among the kind's forms, in turn. 0 or EP_ENOMEM. */
int sim_garbage_make(enum sim_garbage kind, unsigned variant, const struct idefix_encoding *encoding,
                     const char *reply, const struct sim_page *page, struct sim_answer *out);
/* Writes the data of a page's answer as JSON text, with `insert` (NULL = nothing) between its events. */
void sim_page_write(const struct sim_page *page, bool bare, bool no_payload, const char *insert,
                    struct text *out);

/* ---- sessions and calls */

struct sim_session {
    struct sim_session *next;
    char *id, *account;
    struct idefix_encoding encoding;
    bool logged_in;
};

struct sim_poll { /* a call of events.get that is held */
    struct sim_poll *next;
    struct sim_session *session;
    char *reply;
    struct sim_query query;
    size_t position;
    uint64_t end_ms;
};

struct sim_parcel { /* an answer that leaves later */
    struct sim_parcel *next;
    char *topic;
    char *body;
    size_t bytes;
    uint64_t due_ms;
};

struct sim_account {
    char *address, *token;
};

struct sim_stats {
    uint64_t requests, logins, refused, polls, creates, answers, events_sent, dropped, duplicated, errors,
        garbage, late, ignored, undecodable, kicks, disconnects, connects, unsent;
};

struct sim {
    struct mosquitto *mosquitto;
    const char *host;
    int port;
    bool connected, ready, quit, verbose, empty_on_timeout;
    struct sim_events events;
    struct sim_account *accounts;
    size_t account_count;
    const char **domains; /* known even without an event */
    size_t domain_count;
    struct sim_session *sessions;
    struct sim_poll *polls;
    struct sim_parcel *parcels;
    FILE *requests;
    struct sim_stats stats;

    /* ordered misbehaviour; 0 = none */
    uint64_t drop_every, duplicate_every, disconnect_every, delay_ms, late_ms, late_count;
    bool silent;
    enum sim_garbage garbage;
    uint64_t garbage_count; /* so many more answers; UINT64_MAX: all */
    unsigned garbage_variant;
    int error_code;
    uint64_t error_count;
    char error_command[64];
};

/* A call to answer. */
struct sim_call {
    struct sim_session *session;
    struct idefix_encoding encoding; /* of the answer */
    const char *command, *reply;
    struct json_span data;
};

uint64_t sim_now_ms(void);
void sim_say(const struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Handles a message on ifx/SESSION/t/FLAGS. */
void sim_calls_take(struct sim *sim, const char *session, const char *flags, const void *body, size_t bytes);
/* Sends the answers that are due and ends polls that time out. Returns how many ms later to call it
 * again, at most 1000. */
int sim_calls_tick(struct sim *sim);
void sim_calls_free(struct sim *sim);
/* Sends an answer at due_ms; 0 = now, or as ordered. */
void sim_answer_send(struct sim *sim, const struct sim_call *call, const struct sim_answer *answer,
                     uint64_t due_ms);
void sim_answer_text(struct sim *sim, const struct sim_call *call, const char *error, struct json_span data,
                     uint64_t due_ms);
void sim_answer_error(struct sim *sim, const struct sim_call *call, int code, const char *extra);
/* Sets *text to the member's text, allocated, or to NULL if it is missing, null or empty. Returns
 * false if it is not text. */
bool sim_take_text(const struct sim_call *call, const char *pointer, char **text);

/* Handles a call of events.get. */
void sim_take_get(struct sim *sim, const struct sim_call *call);
/* Answers the polls that wait for events, after events were added. */
void sim_polls_events_added(struct sim *sim);
/* Answers polls that time out, or all. */
void sim_polls_answer(struct sim *sim, bool all);
void sim_polls_end(struct sim *sim, const struct sim_session *session);
size_t sim_polls_held(const struct sim *sim);

/* Connects with the session's client id, so that the broker disconnects the client. */
void sim_kick(struct sim *sim, const char *session);
/* Executes an order; changes the line. 0, or a negative code with a message. */
int sim_order(struct sim *sim, char *line, struct error *error);
void sim_print_stats(const struct sim *sim);

#endif
