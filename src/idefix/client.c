/* SPDX-License-Identifier: MIT */
/*
 * Calls an Idefix backend: connects, logs in, sends a request, waits for its answer. Runs in the thread
 * of its caller: a producer's fetch thread, or a program that uses the library. The connection has a
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

#define MS UINT64_C(1000000)
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
    char *address;    /* of the broker, for messages */
    uint64_t login;   /* the connection that is logged in, 0 = none */
    unsigned missing; /* answers in a row */
};

/* A request that waits for its answer. */
struct request {
    const char *command;
    struct json_span data;
    uint64_t connection;
    uint64_t wait_ms;  /* for the answer, from the first sending */
    unsigned sendings; /* at most so many, at the times sending_ms */
    const unsigned *sending_ms;
    char addresses[SENDINGS_MAX][DIGITS + 1];
    unsigned sent;
};

/* Idefix client, in a producer or the library's caller: makes 16 random hex digits, a reply address for one
 * request or a session name for one client. */
static void make_random_digits(char out[DIGITS + 1])
{
    unsigned char bytes[DIGITS / 2];

    arc4random_buf(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static int fail_interrupted(struct idefix_failure *failure)
{
    return base_error_set(&failure->error, EP_EBUSY, "interrupted");
}

static bool is_aborted(const atomic_bool *abort)
{
    return abort != NULL && atomic_load(abort);
}

/* ---- opening and closing */

/* Idefix client: checks broker, account, encoding, meta and session without using the network. Runs when a
 * client is opened: in a producer, in `eventpiped -t` and `eventpipe check`, or in a program that uses the
 * library. */
static int check_config(const struct idefix_source_config *config, struct idefix_encoding *encoding,
                        struct error *error)
{
    if (config->broker == NULL)
        return base_error_set(error, EP_ECONFIG, "no broker is given");
    if (config->account == NULL || config->account[0] == '\0')
        return base_error_set(error, EP_ECONFIG, "no account is given");
    if (config_idefix_encoding_read(config->encoding != NULL ? config->encoding : "mg", encoding) != 0)
        return base_error_set(error, EP_ECONFIG,
                              "encoding \"%.20s\": expected m or j or both, and g for compression",
                              config->encoding);
    if (config->meta != NULL && (!json_valid(config->meta, strlen(config->meta), NULL) ||
                                 json_kind((struct json_span){config->meta, strlen(config->meta)}) != '{'))
        return base_error_set(error, EP_ECONFIG, "meta is not a JSON object");
    if (config->session != NULL && !config_idefix_session_valid(config->session))
        return base_error_set(error, EP_ECONFIG,
                              "session \"%.80s\": expected 1 to %d letters, digits, '.', '_' or '-'",
                              config->session, CONFIG_IDEFIX_SESSION_BYTES_MAX);
    return 0;
}

/* Idefix client: returns the broker's address for messages, such as ssl://HOST:PORT, or NULL without
 * memory. Runs when a producer, `eventpiped -t`, `eventpipe check` or a program that uses the library
 * opens a client. */
static char *format_broker_address(const struct idefix_broker *broker)
{
    bool brackets = strchr(broker->host, ':') != NULL;
    char *text;
    int bytes = asprintf(&text, "%s://%s%s%s:%d", broker->tls ? "ssl" : "tcp", brackets ? "[" : "",
                         broker->host, brackets ? "]" : "", broker->port);

    return bytes < 0 ? NULL : text;
}

/* Idefix client: opens a client of an Idefix backend, without using the network. A producer with an Idefix
 * source calls it, `eventpiped -t` and `eventpipe check` to check the source, and ep_idefix_open for a
 * program that uses the library. */
int idefix_open(const struct idefix_source_config *config, struct idefix **out, struct error *error)
{
    struct idefix *idefix = calloc(1, sizeof *idefix);
    struct idefix_mqtt_params params = {.connect_timeout_ms = config->connect_timeout_ms};
    char session[DIGITS + 1];

    if (idefix == NULL)
        return base_error_set(error, EP_ENOMEM, "no memory for an Idefix client");
    idefix->config = config;
    make_random_digits(session);
    int code = check_config(config, &idefix->encoding, error);
    if (code == 0)
        code = config_idefix_broker_read(config->broker, &params.broker, error);
    if (code == 0) {
        idefix->address = params.address = format_broker_address(&params.broker);
        params.session = config->session != NULL ? config->session : session;
        params.user = config->user;
        params.password = config->password;
        params.ca_file = config->ca_file;
        code = params.address == NULL
                   ? base_error_set(error, EP_ENOMEM, "no memory for an Idefix client")
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

/* Idefix client: disconnects within one second, frees the client and clears the pointer. A producer calls
 * it when its source ends, a program that uses the library through ep_idefix_close. */
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

/* Idefix client: sleeps until until_ns and returns true, or false as soon as *abort is set. A producer's
 * fetch thread uses it to pace its polls; a plain sleep would delay the producer's shutdown. */
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

/* Idefix client, in a producer or the library's caller: sends a request once, with a new random reply
 * address. Earlier addresses of the same request stay valid. */
static int send_request(struct idefix *idefix, struct request *request, struct idefix_failure *failure)
{
    char to[64], *address = request->addresses[request->sent++];
    struct idefix_frame frame = {0};

    make_random_digits(address);
    snprintf(to, sizeof to, "idefix.%s", request->command);
    const struct idefix_envelope envelope = {.to = to, .reply = address, .data = request->data};
    int code = idefix_frame_encode(&idefix->encoding, &envelope, &frame);
    if (code == 0)
        code = idefix_link_send(idefix->link, &frame);
    idefix_frame_free(&frame);
    return code == 0 ? 0 : base_error_set(&failure->error, code, "no memory for a request");
}

/* Idefix client, in a producer or the library's caller: goes through the frames that arrived. Returns 1 if
 * one answers the request, and puts it into message. Otherwise returns 0, and sets malformed if a frame
 * could not be read. */
static int find_answer(struct idefix *idefix, const struct request *request, struct idefix_message *message,
                       struct error *malformed)
{
    struct idefix_link_frame *frame;
    struct error why;

    while ((frame = idefix_link_take(idefix->link)) != NULL) {
        int code = EP_EPROTO;
        if (frame->too_large)
            base_error_set(&why, code, "it is larger than max_bytes: %zu bytes", frame->bytes);
        else
            code = idefix_message_decode(frame->flags, frame->body, frame->bytes,
                                         (size_t)idefix->config->max_bytes, message, &why);
        free(frame);
        if (code != 0) {
            base_error_set(malformed, code, "%s: the backend's answer to %s cannot be read: %s",
                           idefix->address, request->command, why.message);
            continue;
        }
        for (unsigned i = 0; i < request->sent; i++)
            if (strcmp(message->to, request->addresses[i]) == 0)
                return 1;
        idefix_message_free(message);
        *message = (struct idefix_message){0};
    }
    return 0;
}

/* Idefix client, in a producer or the library's caller: fails a request that the backend did not answer in
 * time. The next call logs in again; the second missing answer in a row also closes the connection. */
static int report_missing_answer(struct idefix *idefix, const struct request *request,
                                 struct idefix_failure *failure)
{
    idefix->login = 0;
    if (++idefix->missing >= MISSING_MAX) {
        idefix->missing = 0;
        idefix_link_drop(idefix->link);
    }
    return base_error_set(&failure->error, EP_EBACKEND,
                          "%s: connected, but nothing answers %s within %g s (is the backend running, and "
                          "connected to this broker?)",
                          idefix->address, request->command, (double)request->wait_ms / 1000);
}

/* Idefix client, in a producer or the library's caller: returns when the wait for an answer must send the
 * request again or give up. */
static uint64_t next_wakeup_ns(const struct request *request, uint64_t begin, uint64_t end)
{
    if (request->sent == request->sendings)
        return end;
    uint64_t sending = begin + request->sending_ms[request->sent] * MS;
    return sending < end ? sending : end;
}

/* Idefix client, in a producer or the library's caller: returns 0 while the connection that carried the
 * request is up, otherwise the code of why it ended. */
static int check_connection(struct idefix *idefix, const struct request *request,
                            struct idefix_failure *failure)
{
    struct idefix_link_view view;

    idefix_link_look(idefix->link, &view);
    if (view.state == IDEFIX_LINK_UP && view.connection == request->connection)
        return 0;
    *failure = view.failure;
    if (failure->error.code == 0)
        base_error_set(&failure->error, EP_EBACKEND, "connection to %s lost", idefix->address);
    return failure->error.code;
}

/* Idefix client, in a producer or the library's caller: sends a request and waits for its answer, for the
 * end of the connection, for the deadline or for *abort. An answer that reports an error counts as an
 * answer. */
static int await_answer(struct idefix *idefix, struct request *request, const atomic_bool *abort,
                        struct idefix_message *message, struct idefix_failure *failure)
{
    uint64_t begin = shm_now_ns(), end = begin + request->wait_ms * MS;
    struct error malformed = {0};

    for (;;) {
        if (find_answer(idefix, request, message, &malformed) == 1)
            return 0;
        int code = check_connection(idefix, request, failure);
        if (code != 0)
            return code;
        if (is_aborted(abort))
            return fail_interrupted(failure);
        uint64_t now = shm_now_ns();
        if (malformed.code != 0 && end > now + MALFORMED_GRACE_MS * MS)
            end = now + MALFORMED_GRACE_MS * MS;
        if (now >= end && malformed.code != 0) {
            failure->error = malformed;
            return malformed.code;
        }
        if (now >= end)
            return report_missing_answer(idefix, request, failure);
        if (request->sent < request->sendings && now >= begin + request->sending_ms[request->sent] * MS)
            code = send_request(idefix, request, failure);
        if (code != 0)
            return code;
        idefix_link_wait(idefix->link, next_wakeup_ns(request, begin, end));
    }
}

/* Idefix client, in a producer or the library's caller: sends one request to the backend and returns its
 * answer. An answer that reports an error is a failure, with its text in failure. Login and events.get both
 * go through it. */
static int ask_backend(struct idefix *idefix, struct request *request, const atomic_bool *abort,
                       struct idefix_message *message, struct idefix_failure *failure)
{
    idefix_link_listen(idefix->link, true);
    int code = await_answer(idefix, request, abort, message, failure);
    idefix_link_listen(idefix->link, false);
    if (code != 0)
        return code;
    idefix->missing = 0;
    if (message->error == NULL)
        return 0;
    code = idefix_error_text_answer(idefix->config, request->command, message, failure);
    const char *setting;
    if (idefix_error_verdict(message->error_code, &setting) == IDEFIX_SESSION)
        idefix->login = 0;
    idefix_message_free(message);
    *message = (struct idefix_message){0};
    return code;
}

/* ---- connection and login */

/* Idefix client, in a producer or the library's caller: waits until the connection to the MQTT broker is up,
 * and begins one if there is none. Returns its number, which changes after each loss, so that the caller
 * knows when to log in again. */
static int connect_to_broker(struct idefix *idefix, const atomic_bool *abort, uint64_t *connection,
                             struct idefix_failure *failure)
{
    uint64_t end = shm_now_ns() + (idefix->config->connect_timeout_ms + CONNECT_GRACE_MS) * MS;
    struct idefix_link_view view;
    bool begun = false;
    int code = idefix_link_connect(idefix->link, &failure->error);

    if (code != 0)
        return code;
    for (;;) {
        idefix_link_look(idefix->link, &view);
        *connection = view.connection;
        if (view.state == IDEFIX_LINK_UP)
            return 0;
        if (view.state == IDEFIX_LINK_DOWN) {
            *failure = view.failure;
            return failure->error.code;
        }
        if (is_aborted(abort))
            return fail_interrupted(failure);
        /* Once the name is resolved the link enforces the timeout, but it may have to resolve the name
         * again. */
        if (view.begun && !begun)
            end += idefix->config->connect_timeout_ms * MS;
        begun = view.begun;
        if (shm_now_ns() >= end) {
            failure->unreachable = true;
            return base_error_set(
                &failure->error, EP_EBACKEND,
                "no connection to %s within %g s: the connection did not begin (does the name server "
                "answer?)",
                idefix->address, (double)idefix->config->connect_timeout_ms / 1000);
        }
        idefix_link_wait(idefix->link, end);
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

/* Idefix client, in a producer or the library's caller: writes the data of a login request as JSON: account,
 * token, groups, encoding and the time. */
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

/* Idefix client, in a producer or the library's caller: logs in to the backend once per connection, before
 * the first call. Repeats the request twice, because a backend that starts together with its broker may miss
 * the first. */
static int log_in_to_backend(struct idefix *idefix, uint64_t connection, const atomic_bool *abort,
                             struct idefix_failure *failure)
{
    static const unsigned sending_ms[SENDINGS_MAX] = {0, 300, 1000};
    struct text data = {0};
    struct idefix_message message = {0};

    write_login_data(idefix->config, &data);
    if (data.failed) {
        base_text_free(&data);
        return base_error_set(&failure->error, EP_ENOMEM, "no memory for a login");
    }
    struct request request = {
        .command = "login",
        .data = {data.text, data.bytes},
        .connection = connection,
        .wait_ms = LOGIN_WAIT_MS,
        .sendings = SENDINGS_MAX,
        .sending_ms = sending_ms,
    };
    int code = ask_backend(idefix, &request, abort, &message, failure);
    explicit_bzero(data.text, data.bytes);
    base_text_free(&data);
    idefix_message_free(&message);
    if (code == 0)
        idefix->login = connection;
    else if (failure->backend_code == CODE_TIMEOUT)
        failure->backend_code = 0; /* 'nothing yet' is what it means of a poll, not of a login */
    return code;
}

/* Idefix client: calls a command of the backend and waits for its answer; connects and logs in first if
 * necessary. A producer's fetch thread calls it to fetch events (events.get), a program that uses the
 * library through ep_idefix functions. */
int idefix_call(struct idefix *idefix, const char *command, struct json_span data, uint64_t wait_ms,
                const atomic_bool *abort, struct idefix_message *message, struct idefix_failure *failure)
{
    static const unsigned once[] = {0};

    uint64_t connection = 0;

    *message = (struct idefix_message){0};
    *failure = (struct idefix_failure){0};
    if (is_aborted(abort))
        return fail_interrupted(failure);
    int code = connect_to_broker(idefix, abort, &connection, failure);
    if (code == 0 && idefix->login != connection)
        code = log_in_to_backend(idefix, connection, abort, failure);
    if (code != 0)
        return code;
    struct request request = {
        .command = command,
        .data = data,
        .connection = connection,
        .wait_ms = wait_ms + idefix->config->response_timeout_ms,
        .sendings = 1,
        .sending_ms = once,
    };
    return ask_backend(idefix, &request, abort, message, failure);
}
