/* SPDX-License-Identifier: MIT */
/*
 * An Idefix client: one MQTT connection, and calls to the backend over it. The client connects and logs
 * in by itself, again after each loss, but not before the first call. The connection has a thread of its
 * own, so any call can be interrupted at any time. After a fork, a client belongs to the process that
 * opened it.
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
    bool unreachable; /* no TCP connection, or one that was closed at once: trying again soon is cheap
                       */
    bool lost;        /* the connection ended while the call waited */
    int backend_code; /* the backend's error code, 0 = none */
};

/* Checks the configuration without using the network. config is borrowed until idefix_close. 0, EP_ECONFIG,
 * EP_ENOMEM, EP_ESYSTEM. */
int idefix_open(const struct idefix_source_config *config, struct idefix **out, struct error *error);

/*
 * Calls a command ("events.get") with data (JSON text) and waits for its answer: at most wait_ms, during
 * which the backend may hold the call, plus response_timeout_ms. If necessary it connects first
 * (connect_timeout_ms) and logs in (3 s). One call at a time. To interrupt it set *abort, then call
 * idefix_interrupt: it returns EP_EBUSY. On 0 message is the answer, which the caller frees. Otherwise
 * failure is filled; an error code of the backend is a failure, too.
 */
int idefix_call(struct idefix *idefix, const char *command, struct json_span data, uint64_t wait_ms,
                const atomic_bool *abort, struct idefix_message *message, struct idefix_failure *failure);
/* Makes a waiting call check its abort. From any thread or signal handler. */
void idefix_interrupt(struct idefix *idefix);
/* Waits until until_ns (CLOCK_MONOTONIC). Returns false if *abort ended the wait. */
bool idefix_pause(struct idefix *idefix, uint64_t until_ns, const atomic_bool *abort);
/* Disconnects, within one second. Clears *idefix; NULL is accepted. */
void idefix_close(struct idefix **idefix);

/* The data of events.get as JSON text. 0 or EP_ENOMEM. Without a cursor (NULL or "")
 * the query begins at `since`. */
struct idefix_query {
    const char *domain, *address, *event_type, *since, *cursor; /* NULL = not given */
    uint32_t limit;
    uint64_t timeout_ms;
};
int idefix_query_write_data(const struct idefix_query *query, struct text *out);

/* What to do about an error code. */
enum idefix_verdict {
    IDEFIX_NOTHING_YET, /* 7 in answer to a poll: no failure */
    IDEFIX_REFUSED,     /* 4, 5, 201: account or token */
    IDEFIX_SETTING,     /* 203 to 209: a setting is wrong; `setting` names it if known */
    IDEFIX_SESSION,     /* 102: log in again */
    IDEFIX_FAILED       /* any other */
};
/* *setting: "domain", "address" or NULL; static. */
enum idefix_verdict idefix_error_verdict(int code, const char **setting);

#endif
