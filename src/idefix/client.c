/* SPDX-License-Identifier: MIT */
/*
 * Calls an Idefix backend: connects, logs in, sends a request, waits for its answer. Runs in the thread
 * of its caller: a producer's fetcher thread, or a program that uses the library. The connection has a
 * thread of its own (link.c), so every wait here ends at once when the caller is interrupted.
 *
 * Owns the link. The configuration is borrowed.
 *
 * Invariants
 *  1. Each request has its own random reply address, and only an answer to that address ends the wait.
 *     Late answers to earlier requests are ignored. Frames are kept only while a call waits. An
 *     unreadable frame may be the answer: if no answer follows it soon, its error is the call's failure.
 *  2. A login belongs to one connection. It is sent again after 300 ms and 1 s, each time with a new
 *     reply address while the older ones stay valid, because a backend that starts together with its
 *     broker misses what was published before it subscribed. Error 102 or a missing answer invalidates
 *     the login, and the next call logs in again.
 *  3. One missing answer leaves the connection up; the second in a row closes it.
 *
 * Survived: every failure, as a code and a message. Nothing is fatal.
 */
#include "src/idefix/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/slot.h" /* shm_now_ns */
#include "src/idefix/link.h"

#define NS_PER_MS UINT64_C(1000000)
#define LOGIN_WAIT_MS 3000
#define CONNECT_GRACE_MS 500 /* the link reports its own timeout first */
#define SENDINGS_MAX 3
#define MISSING_MAX 2
#define MALFORMED_GRACE_MS 500 /* invariant 1 */
#define DIGITS 16
#define CODE_TIMEOUT 7
#define ENVELOPE_BYTES 4096 /* of a message, in addition to max_bytes for its data */

struct idefix {
    const struct idefix_source_config *config;
    struct idefix_encoding encoding;
    struct idefix_link *link;
    char *address;                    /* of the broker, for messages */
    uint64_t login_connection_number; /* the connection that is logged in, 0 = none */
    unsigned missing_answers;         /* in a row */
};

/* A request that waits for its answer. */
struct request {
    const char *command;
    struct json_span data;
    uint64_t connection_number;
    uint64_t wait_ms;      /* for the answer, from the first sending */
    unsigned sendings_max; /* the request is sent at most so often, at the times sending_times_ms */
    const unsigned *sending_times_ms;
    char addresses[SENDINGS_MAX][DIGITS + 1];
    unsigned sent_count;
};

/* Writes 16 random hex digits: the reply address of one request, or the session name of one Idefix
 * client. They must not repeat, since the client recognises an answer by its reply address. */
static void write_random_hex(char out[DIGITS + 1])
{
    unsigned char random_bytes[DIGITS / 2];

    arc4random_buf(random_bytes, sizeof random_bytes);
    for (size_t i = 0; i < sizeof random_bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", random_bytes[i]);
}

static int report_interrupted(struct idefix_failure *failure)
{
    return base_error_set(&failure->error, EP_EBUSY, "the call was interrupted");
}

static bool is_aborted(const atomic_bool *abort)
{
    return abort != NULL && atomic_load(abort);
}

/* ---- opening and closing */

/* Checks broker, account, encoding, meta and session of an Idefix client without using the network, and
 * reads the encoding. Returns 0, or EP_ECONFIG with a message. Called when the Idefix client is opened,
 * also by `eventpiped -t` and `eventpipe check`. */
static int check_client_config(const struct idefix_source_config *config, struct idefix_encoding *encoding,
                               struct error *error)
{
    if (config->broker == NULL)
        return base_error_set(error, EP_ECONFIG, "no broker is given: set `broker`");
    if (config->account == NULL || config->account[0] == '\0')
        return base_error_set(error, EP_ECONFIG, "no account is given: set `account`");
    if (config_idefix_encoding_read(config->encoding != NULL ? config->encoding : "mg", encoding) != 0)
        return base_error_set(error, EP_ECONFIG,
                              "encoding \"%.20s\": expected m or j or both, and g for compression",
                              config->encoding);
    if (config->meta != NULL && (!json_valid(config->meta, strlen(config->meta), NULL) ||
                                 json_kind((struct json_span){config->meta, strlen(config->meta)}) != '{'))
        return base_error_set(error, EP_ECONFIG, "meta is not a JSON object such as {\"key\":\"value\"}");
    if (config->session != NULL && !config_idefix_session_valid(config->session))
        return base_error_set(error, EP_ECONFIG,
                              "session \"%.80s\": expected 1 to %d letters, digits, '.', '_' or '-'",
                              config->session, CONFIG_IDEFIX_SESSION_BYTES_MAX);
    return 0;
}

/* Returns the broker's address for messages, such as ssl://HOST:PORT, or NULL if out of memory. The
 * client frees it. Called when an Idefix client is opened. */
static char *format_broker_address(const struct idefix_broker *broker)
{
    bool is_ipv6 = strchr(broker->host, ':') != NULL;
    char *text;
    int text_bytes = asprintf(&text, "%s://%s%s%s:%d", broker->tls ? "ssl" : "tcp", is_ipv6 ? "[" : "",
                              broker->host, is_ipv6 ? "]" : "", broker->port);

    return text_bytes < 0 ? NULL : text;
}

/* Opens a client of an Idefix backend, without using the network. Returns 0 or an error code with a
 * message. A producer with an Idefix source calls it, `eventpiped -t` and `eventpipe check` to check
 * such a source, and ep_idefix_open for a library caller. */
int idefix_open(const struct idefix_source_config *config, struct idefix **out, struct error *error)
{
    struct idefix *idefix = calloc(1, sizeof *idefix);
    struct idefix_mqtt_params params = {.connect_timeout_ms = config->connect_timeout_ms};
    char session[DIGITS + 1];

    if (idefix == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for the Idefix client");
    idefix->config = config;
    write_random_hex(session);
    int code = check_client_config(config, &idefix->encoding, error);
    if (code == 0)
        code = config_idefix_broker_read(config->broker, &params.broker, error);
    if (code == 0) {
        idefix->address = params.address = format_broker_address(&params.broker);
        params.session = config->session != NULL ? config->session : session;
        params.user = config->user;
        params.password = config->password;
        params.ca_file = config->ca_file;
        code = params.address == NULL
                   ? base_error_set(error, EP_ENOMEM, "out of memory for the Idefix client")
                   : idefix_link_open(&params, config->max_bytes + ENVELOPE_BYTES, &idefix->link, error);
    }
    free(params.broker.host);
    if (code != 0) {
        idefix_close(&idefix);
        return code;
    }
    *out = idefix;
    return 0;
}

/* Disconnects the Idefix client within one second, frees it and clears the pointer; accepts a pointer to
 * NULL. A producer calls it when its source ends, ep_idefix_close for a library caller. */
void idefix_close(struct idefix **idefix)
{
    struct idefix *old = *idefix;

    if (old == NULL)
        return;
    *idefix = NULL;
    idefix_link_close(&old->link);
    free(old->address);
    free(old);
}

void idefix_interrupt(struct idefix *idefix)
{
    idefix_link_wake(idefix->link);
}

/* Sleeps until until_ns (CLOCK_MONOTONIC). Returns true then, or false as soon as *abort is set. A
 * producer's fetcher thread paces its calls of the Idefix client with it; a plain sleep would delay the
 * producer's shutdown. */
bool idefix_pause(struct idefix *idefix, uint64_t until_ns, const atomic_bool *abort)
{
    while (!is_aborted(abort)) {
        if (shm_now_ns() >= until_ns)
            return true;
        idefix_link_wait(idefix->link, until_ns);
    }
    return false;
}

/* ---- one request */

/* Sends a request once, with a new random reply address; answers to its earlier addresses still count.
 * Returns 0 or EP_ENOMEM. The Idefix client repeats its login request this way, in a producer or a
 * library caller. */
static int send_request(struct idefix *idefix, struct request *request, struct idefix_failure *failure)
{
    char destination[64], *address = request->addresses[request->sent_count++];
    struct idefix_frame frame = {0};

    write_random_hex(address);
    snprintf(destination, sizeof destination, "idefix.%s", request->command);
    const struct idefix_envelope envelope = {.to = destination, .reply = address, .data = request->data};
    int code = idefix_frame_encode(&idefix->encoding, &envelope, &frame);
    if (code == 0)
        code = idefix_link_queue_frame(idefix->link, &frame);
    idefix_frame_free(&frame);
    return code == 0
               ? 0
               : base_error_set(&failure->error, code, "out of memory for the request %s", request->command);
}

/* Reads the frames (MQTT messages) that have arrived from the backend. Returns 1 if one answers the
 * request, and stores it in *message; otherwise returns 0, and describes in *malformed_error the last
 * frame that could not be read. Part of the Idefix client, in a producer or a library caller. */
static int find_answer(struct idefix *idefix, const struct request *request, struct idefix_message *message,
                       struct error *malformed_error)
{
    struct idefix_link_frame *frame;
    struct error reason;

    while ((frame = idefix_link_take_frame(idefix->link)) != NULL) {
        int code = EP_EPROTO;
        if (frame->is_too_large)
            base_error_set(&reason, code, "it is larger than max_bytes: %zu bytes", frame->bytes);
        else
            code = idefix_message_decode(frame->flags, frame->body, frame->bytes,
                                         (size_t)idefix->config->max_bytes, message, &reason);
        free(frame);
        if (code != 0) {
            base_error_set(malformed_error, code, "%s: the backend's answer to %s cannot be read: %s",
                           idefix->address, request->command, reason.message);
            continue;
        }
        for (unsigned i = 0; i < request->sent_count; i++)
            if (strcmp(message->to, request->addresses[i]) == 0)
                return 1;
        idefix_message_free(message);
        *message = (struct idefix_message){0};
    }
    return 0;
}

/* Fails a request that the Idefix backend did not answer in time, and returns EP_EBACKEND. The next
 * request logs in again; the second missing answer in a row also closes the connection. Part of the
 * Idefix client, in a producer or a library caller. */
static int report_missing_answer(struct idefix *idefix, const struct request *request,
                                 struct idefix_failure *failure)
{
    idefix->login_connection_number = 0;
    if (++idefix->missing_answers >= MISSING_MAX) {
        idefix->missing_answers = 0;
        idefix_link_drop(idefix->link);
    }
    return base_error_set(&failure->error, EP_EBACKEND,
                          "%s: connected, but nothing answers %s within %g s (is the backend running, and "
                          "connected to this broker?)",
                          idefix->address, request->command, (double)request->wait_ms / 1000);
}

/* Returns the time at which the wait for the backend's answer must end: to send the request again, or to
 * give up at the deadline. Part of the Idefix client, in a producer or a library caller. */
static uint64_t compute_next_wakeup_ns(const struct request *request, uint64_t begin_ns, uint64_t deadline_ns)
{
    if (request->sent_count == request->sendings_max)
        return deadline_ns;
    uint64_t sending_ns = begin_ns + request->sending_times_ms[request->sent_count] * NS_PER_MS;
    return sending_ns < deadline_ns ? sending_ns : deadline_ns;
}

/* Returns 0 while the connection over which the request was sent is up, otherwise an error code with the
 * reason why it ended. The Idefix client calls it while it waits for an answer, in a producer or a
 * library caller. */
static int check_connection(struct idefix *idefix, const struct request *request,
                            struct idefix_failure *failure)
{
    struct idefix_link_status status;

    idefix_link_get_status(idefix->link, &status);
    if (status.state == IDEFIX_LINK_UP && status.connection_number == request->connection_number)
        return 0;
    *failure = status.failure;
    if (failure->error.code == 0)
        base_error_set(&failure->error, EP_EBACKEND, "connection to %s lost", idefix->address);
    return failure->error.code;
}

/* Sends a request to the Idefix backend and waits for its answer, at most until the deadline. Returns 0
 * if the backend answered, even with an error; otherwise a code with a message: the connection ended, no
 * answer came in time, or *abort was set (EP_EBUSY). Part of the Idefix client, in a producer or a
 * library caller. */
static int await_answer(struct idefix *idefix, struct request *request, const atomic_bool *abort,
                        struct idefix_message *message, struct idefix_failure *failure)
{
    uint64_t begin_ns = shm_now_ns(), deadline_ns = begin_ns + request->wait_ms * NS_PER_MS;
    struct error malformed_error = {0};

    for (;;) {
        if (find_answer(idefix, request, message, &malformed_error) == 1)
            return 0;
        int code = check_connection(idefix, request, failure);
        if (code != 0)
            return code;
        if (is_aborted(abort))
            return report_interrupted(failure);
        uint64_t now_ns = shm_now_ns();
        if (malformed_error.code != 0 && deadline_ns > now_ns + MALFORMED_GRACE_MS * NS_PER_MS)
            deadline_ns = now_ns + MALFORMED_GRACE_MS * NS_PER_MS;
        if (now_ns >= deadline_ns && malformed_error.code != 0) {
            failure->error = malformed_error;
            return malformed_error.code;
        }
        if (now_ns >= deadline_ns)
            return report_missing_answer(idefix, request, failure);
        if (request->sent_count < request->sendings_max &&
            now_ns >= begin_ns + request->sending_times_ms[request->sent_count] * NS_PER_MS)
            code = send_request(idefix, request, failure);
        if (code != 0)
            return code;
        idefix_link_wait(idefix->link, compute_next_wakeup_ns(request, begin_ns, deadline_ns));
    }
}

/* Sends one request to the Idefix backend, a login or a call such as events.get, and returns its answer
 * in *message. Returns 0, or an error code with a message; an answer that reports an error is such a
 * failure. Part of the Idefix client, in a producer or a library caller. */
static int ask_backend(struct idefix *idefix, struct request *request, const atomic_bool *abort,
                       struct idefix_message *message, struct idefix_failure *failure)
{
    idefix_link_set_listening(idefix->link, true);
    int code = await_answer(idefix, request, abort, message, failure);
    idefix_link_set_listening(idefix->link, false);
    if (code != 0)
        return code;
    idefix->missing_answers = 0;
    if (message->error == NULL)
        return 0;
    code = idefix_error_text_report_answer(idefix->config, request->command, message, failure);
    const char *setting;
    if (idefix_error_verdict(message->error_code, &setting) == IDEFIX_SESSION)
        idefix->login_connection_number = 0;
    idefix_message_free(message);
    *message = (struct idefix_message){0};
    return code;
}

/* ---- connection and login */

/* Waits until the connection to the MQTT broker is up, and makes one if there is none.
 * *connection_number, which grows with each attempt, tells the caller when to log in again. Returns 0 or
 * an error code with a message. Part of the Idefix client, in a producer or a library caller. */
static int connect_to_broker(struct idefix *idefix, const atomic_bool *abort, uint64_t *connection_number,
                             struct idefix_failure *failure)
{
    uint64_t deadline_ns = shm_now_ns() + (idefix->config->connect_timeout_ms + CONNECT_GRACE_MS) * NS_PER_MS;
    struct idefix_link_status status;
    bool was_name_resolved = false;
    int code = idefix_link_connect(idefix->link, &failure->error);

    if (code != 0)
        return code;
    for (;;) {
        idefix_link_get_status(idefix->link, &status);
        *connection_number = status.connection_number;
        if (status.state == IDEFIX_LINK_UP)
            return 0;
        if (status.state == IDEFIX_LINK_DOWN) {
            *failure = status.failure;
            return failure->error.code;
        }
        if (is_aborted(abort))
            return report_interrupted(failure);
        /* Once the name is resolved the link enforces the timeout, but it may have to resolve the name
         * again. */
        if (status.is_name_resolved && !was_name_resolved)
            deadline_ns += idefix->config->connect_timeout_ms * NS_PER_MS;
        was_name_resolved = status.is_name_resolved;
        if (shm_now_ns() >= deadline_ns) {
            failure->unreachable = true;
            return base_error_set(
                &failure->error, EP_EBACKEND,
                "no connection to %s within %g s: the connection did not begin (does the name server "
                "answer?)",
                idefix->address, (double)idefix->config->connect_timeout_ms / 1000);
        }
        idefix_link_wait(idefix->link, deadline_ns);
    }
}

static void write_text(struct text *out, const char *text)
{
    json_write_string(out, text != NULL ? text : "", text != NULL ? strlen(text) : 0);
}

/* Returns the time of the system clock, which the backend compares with its own. */
static uint64_t read_wall_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Writes the data of the Idefix client's login request as JSON: account, token, groups, encoding and the
 * present time. Contains the token, so the caller overwrites it after use. Part of the Idefix client, in
 * a producer or a library caller. */
static void write_login_data(const struct idefix_source_config *config, struct text *out)
{
    base_text_append(out, "{\"address\":");
    write_text(out, config->account);
    base_text_append(out, ",\"encoding\":");
    write_text(out, config->encoding != NULL ? config->encoding : "mg");
    base_text_append(out, ",\"groups\":");
    for (size_t i = 0; i < config->groups.count; i++) {
        base_text_append(out, i == 0 ? "[" : ",");
        write_text(out, config->groups.at[i]);
    }
    base_text_append(out, config->groups.count > 0 ? "],\"meta\":" : "null,\"meta\":");
    base_text_append(out, config->meta != NULL ? config->meta : "null");
    base_text_append(out, ",\"no-create\":false,\"time\":");
    json_write_uint(out, read_wall_clock_ms());
    base_text_append(out, ",\"token\":");
    write_text(out, config->token);
    base_text_append(out, "}");
}

/* Logs in to the Idefix backend; needed once per connection, before the first request. The login is sent
 * up to three times, because a backend that starts together with its broker may miss the first. Returns 0
 * or an error code with a message. Part of the Idefix client, in a producer or a library caller. */
static int log_in_to_backend(struct idefix *idefix, uint64_t connection_number, const atomic_bool *abort,
                             struct idefix_failure *failure)
{
    static const unsigned sending_times_ms[SENDINGS_MAX] = {0, 300, 1000};
    struct text data = {0};
    struct idefix_message message = {0};

    write_login_data(idefix->config, &data);
    if (data.failed) {
        base_text_free(&data);
        return base_error_set(&failure->error, EP_ENOMEM, "out of memory for the login request");
    }
    struct request request = {
        .command = "login",
        .data = {data.text, data.bytes},
        .connection_number = connection_number,
        .wait_ms = LOGIN_WAIT_MS,
        .sendings_max = SENDINGS_MAX,
        .sending_times_ms = sending_times_ms,
    };
    int code = ask_backend(idefix, &request, abort, &message, failure);
    explicit_bzero(data.text, data.bytes);
    base_text_free(&data);
    idefix_message_free(&message);
    if (code == 0)
        idefix->login_connection_number = connection_number;
    else if (failure->backend_code == CODE_TIMEOUT)
        failure->backend_code = 0; /* 'nothing yet' is what it means of a poll, not of a login */
    return code;
}

/* Calls a command of the Idefix backend and waits for its answer; connects and logs in first if
 * necessary. Returns 0 with the answer in *message, which the caller frees, or an error code. A
 * producer's fetcher thread fetches events with it (events.get), ep_idefix functions call it for a
 * library caller. */
int idefix_call(struct idefix *idefix, const char *command, struct json_span data, uint64_t wait_ms,
                const atomic_bool *abort, struct idefix_message *message, struct idefix_failure *failure)
{
    static const unsigned send_once[] = {0};

    uint64_t connection_number = 0;

    *message = (struct idefix_message){0};
    *failure = (struct idefix_failure){0};
    if (is_aborted(abort))
        return report_interrupted(failure);
    int code = connect_to_broker(idefix, abort, &connection_number, failure);
    if (code == 0 && idefix->login_connection_number != connection_number)
        code = log_in_to_backend(idefix, connection_number, abort, failure);
    if (code != 0)
        return code;
    struct request request = {
        .command = command,
        .data = data,
        .connection_number = connection_number,
        .wait_ms = wait_ms + idefix->config->response_timeout_ms,
        .sendings_max = 1,
        .sending_times_ms = send_once,
    };
    return ask_backend(idefix, &request, abort, message, failure);
}
