/* SPDX-License-Identifier: MIT */
/*
 * An Idefix client: one MQTT connection, kept up and logged in by itself, and calls over it. Opens nothing
 * before the first call. Connecting happens in a thread of its own, so that any call can be given up at any
 * time. After a fork a client belongs to the process that opened it.
 */
#ifndef IDEFIX_CLIENT_H
#define IDEFIX_CLIENT_H

#include <stdatomic.h>

#include "src/config/config.h"
#include "src/config/idefix_syntax.h"
#include "src/idefix/frame.h"

struct idefix;

struct idefix_failure {
    struct error
        error;        /* EP_EBACKEND: unreachable, slow, lost, its error codes; EP_EAUTH: account, token, MQTT
                  user, certificate; EP_EPROTO; EP_EBUSY: interrupted; EP_ENOMEM, EP_ESYSTEM, EP_ECONFIG */
    bool unreachable; /* no TCP connection, or one that was closed at once: it costs little to try again soon
                       */
    bool lost;        /* the connection ended while the call waited */
    int backend_code; /* the backend's error code, 0 = none */
};

/* Checks what can be checked without network. config is borrowed for the client's life. 0, EP_ECONFIG,
 * EP_ENOMEM, EP_ESYSTEM. */
int idefix_open(const struct idefix_source_config *config, struct idefix **out, struct error *error);

/*
 * Calls a command ("events.get") with data (JSON text) and waits for its answer: at most wait_ms, which the
 * backend may hold it, and response_timeout_ms more. Connects and logs in first, where that is not done:
 * connect_timeout_ms, and 3 s for the login. One call at a time. *abort becoming true (then idefix_interrupt)
 * ends it with EP_EBUSY. 0: message is the answer, without error, to be freed. Otherwise failure is filled;
 * an error code of the backend is a failure too.
 */
int idefix_call(struct idefix *idefix, const char *command, struct json_span data, uint64_t wait_ms,
                const atomic_bool *abort, struct idefix_message *message, struct idefix_failure *failure);
/* Any thread, also a signal handler: lets a waiting call look at its abort. */
void idefix_interrupt(struct idefix *idefix);
/* Waits until then (CLOCK_MONOTONIC), as a call does; false: *abort ended it. */
bool idefix_pause(struct idefix *idefix, uint64_t until_ns, const atomic_bool *abort);
/* Disconnects; waits at most a second for the goodbye. Clears *idefix; NULL accepted. */
void idefix_close(struct idefix **idefix);

/* The data of events.get and events.create as JSON text. 0 or EP_ENOMEM. cursor NULL or "" = from `since`. */
struct idefix_query {
    const char *domain, *address, *event_type, *since, *cursor; /* NULL = not given */
    uint32_t limit;
    uint64_t timeout_ms;
};
int idefix_query_data(const struct idefix_query *query, struct json_out *out);

/* What an error code asks for. */
enum idefix_verdict {
    IDEFIX_NOTHING_YET, /* 7 in answer to a poll: no failure */
    IDEFIX_REFUSED,     /* 4, 5, 201: account or token */
    IDEFIX_SETTING,     /* 203 to 209: a setting is wrong, `setting` names it, as far as that is known */
    IDEFIX_SESSION,     /* 102: log in again */
    IDEFIX_FAILED       /* any other */
};
/* *setting: "domain", "address" or NULL; static. */
enum idefix_verdict idefix_error_verdict(int code, const char **setting);

#endif
