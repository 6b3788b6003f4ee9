/* SPDX-License-Identifier: MIT */
/*
 * Answers login and events.create for contrib/idefix-sim, and decides when answers are sent: at once,
 * when an event arrives, when a poll times out; or late, twice or never, if ordered.
 *
 * Invariants
 *  1. A session has only its own polls. A new login ends them without an answer, since the client that
 *  waited for
 *     them is gone.
 *  2. A login is forgotten when the connection to the broker is lost. A client without a login gets
 *  error 102.
 *  3. Every answer goes through sim_answer_send, which counts it and misbehaves as ordered.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "contrib/idefix_sim.h"
#include "src/json/scan.h"

/* ---- errors */

static const struct {
    int code;
    const char *text;
} errors[] = {
    {1, "Unknown"},
    {2, "Internal error"},
    {4, "Not authorized"},
    {5, "Permission denied"},
    {6, "Invalid parameters"},
    {7, "Timeout"},
    {9, "Not found"},
    {15, "Try again"},
    {100, "Invalid command"},
    {102, "Invalid session"},
    {201, "Invalid token"},
    {203, "Missing domain"},
    {204, "Missing address"},
    {205, "Invalid address"},
    {208, "Domain not found"},
    {209, "Address not found"},
};

static const char *error_text(int code)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].code == code)
            return errors[i].text;
    return "Unknown";
}

/* ---- sending */

static void parcel_free(struct sim_parcel *parcel)
{
    free(parcel->topic);
    free(parcel->body);
    free(parcel);
}

static void publish(struct sim *sim, const char *topic, const char *body, size_t bytes)
{
    /* Without a connection the answer is lost, as with a server; it is not kept for the next connection. */
    if (!sim->connected || mosquitto_publish(sim->mosquitto, NULL, topic, (int)bytes, body, 1, false) != 0)
        sim->stats.unsent++;
}

/* Inserts an answer into the list of later answers, in the order of their times. */
static void send_later(struct sim *sim, const char *topic, const struct sim_answer *answer, uint64_t due_ms)
{
    struct sim_parcel *parcel = malloc(sizeof *parcel), **at = &sim->parcels;
    if (parcel == NULL)
        return;
    *parcel = (struct sim_parcel){.topic = strdup(topic),
                                  .body = malloc(answer->bytes + 1),
                                  .bytes = answer->bytes,
                                  .due_ms = due_ms};
    if (parcel->topic == NULL || parcel->body == NULL) {
        parcel_free(parcel);
        return;
    }
    memcpy(parcel->body, answer->body, answer->bytes);
    while (*at != NULL && (*at)->due_ms <= due_ms)
        at = &(*at)->next;
    parcel->next = *at;
    *at = parcel;
}

static bool nth(uint64_t count, uint64_t every)
{
    return every != 0 && count % every == 0;
}

void sim_answer_send(struct sim *sim, const struct sim_call *call, const struct sim_answer *answer,
                     uint64_t due_ms)
{
    char topic[300];
    uint64_t number = ++sim->stats.answers;
    snprintf(topic, sizeof topic, "ifx/%s/r/%s", call->session->id, answer->flags);
    if (nth(number, sim->drop_every)) {
        sim->stats.dropped++;
        sim_say(sim, "drop session=%s command=%s", call->session->id, call->command);
        return;
    }
    if (nth(number, sim->disconnect_every) && number / sim->disconnect_every % 2 == 0) {
        sim->stats.kicks++;
        sim_kick(sim, call->session->id);
    }
    if (due_ms == 0 && sim->delay_ms != 0)
        due_ms = sim_now_ms() + sim->delay_ms;
    for (int copy = 0; copy < (nth(number, sim->duplicate_every) ? 2 : 1); copy++) {
        sim->stats.duplicated += copy != 0;
        if (due_ms != 0)
            send_later(sim, topic, answer, due_ms);
        else
            publish(sim, topic, answer->body, answer->bytes);
    }
    if (nth(number, sim->disconnect_every) && number / sim->disconnect_every % 2 == 1 && sim->connected) {
        sim->stats.disconnects++;
        /* Without DISCONNECT: the loop will find the connection lost. */
        shutdown(mosquitto_socket(sim->mosquitto), SHUT_RDWR);
    }
}

void sim_answer_text(struct sim *sim, const struct sim_call *call, const char *error, struct json_span data,
                     uint64_t due_ms)
{
    const struct idefix_envelope envelope = {.to = call->reply, .error = error, .data = data};
    struct idefix_frame frame;
    if (idefix_frame_encode(&call->encoding, &envelope, &frame) != 0)
        return;
    struct sim_answer answer = {.body = frame.body, .bytes = frame.bytes};
    snprintf(answer.flags, sizeof answer.flags, "%s", frame.flags);
    sim_answer_send(sim, call, &answer, due_ms);
    idefix_frame_free(&frame);
}

void sim_answer_error(struct sim *sim, const struct sim_call *call, int code, const char *extra)
{
    char text[300];
    snprintf(text, sizeof text, "[%d] %s%s%s%s", code, error_text(code), extra ? " (" : "",
             extra ? extra : "", extra ? ")" : "");
    sim->stats.errors++;
    sim_say(sim, "error session=%s command=%s message=\"%s\"", call->session->id, call->command, text);
    sim_answer_text(sim, call, text, (struct json_span){0}, 0);
}

static void answer_ok(struct sim *sim, const struct sim_call *call)
{
    static const char ok[] = "{\"ok\":true}";
    sim_answer_text(sim, call, NULL, (struct json_span){ok, sizeof ok - 1}, 0);
}

/* ---- the members of a call */

bool sim_take_text(const struct sim_call *call, const char *pointer, char **text)
{
    struct json_span value;
    *text = NULL;
    if (!json_find(call->data, pointer, &value) || json_kind(value) == 'n')
        return true;
    if (json_kind(value) != '"')
        return false;
    *text = json_text(value);
    if (*text != NULL && **text == '\0') {
        free(*text);
        *text = NULL;
    }
    return true;
}

/* ---- login */

static bool token_is_right(const struct sim *sim, const char *address, const char *token)
{
    for (size_t i = 0; i < sim->account_count; i++)
        if (strcmp(sim->accounts[i].address, address) == 0 && strcmp(sim->accounts[i].token, token) == 0)
            return true;
    return sim->account_count == 0;
}

static void take_login(struct sim *sim, struct sim_call *call)
{
    char *address = NULL, *token = NULL, *letters = NULL;
    struct idefix_encoding encoding;
    const bool texts = sim_take_text(call, "/address", &address) && sim_take_text(call, "/token", &token) &&
                       sim_take_text(call, "/encoding", &letters);
    if (!texts || letters == NULL || config_idefix_encoding_read(letters, &encoding) != 0) {
        sim_answer_error(sim, call, 6, "encoding");
    } else if (address == NULL) {
        sim_answer_error(sim, call, 204, NULL);
    } else if (!token_is_right(sim, address, token != NULL ? token : "")) {
        sim->stats.refused++;
        sim_answer_error(sim, call, 201, NULL);
    } else {
        struct sim_session *session = call->session;
        sim_polls_end(sim, session);
        free(session->account);
        session->account = address;
        address = NULL;
        session->encoding = call->encoding = encoding;
        session->logged_in = true;
        sim->stats.logins++;
        sim_say(sim, "login session=%s account=%s encoding=%s", session->id, session->account, letters);
        answer_ok(sim, call);
    }
    free(address);
    free(token);
    free(letters);
}

/* ---- events.create */

static int copy_member(struct json_span key, struct json_span value, void *user)
{
    static const char *const own[] = {"\"domain\"", "\"address\"", "\"timestamp\""};
    struct text *out = user;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (key.bytes == strlen(own[i]) && memcmp(key.at, own[i], key.bytes) == 0)
            return 0;
    base_text_append(out, ",");
    base_text_append_bytes(out, key.at, key.bytes);
    base_text_append(out, ":");
    base_text_append_bytes(out, value.at, value.bytes);
    return 0;
}

/* Stores the event with what the server adds: who sent it, and when. */
static int store_created(struct sim *sim, const struct sim_call *call, const char *domain)
{
    struct timespec now;
    struct tm day;
    char when[32], stamp[48];
    struct text event = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &day);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &day);
    snprintf(stamp, sizeof stamp, "%s.%03ldZ", when, now.tv_nsec / 1000000);
    if (domain == NULL)
        domain = sim->domain_count != 0 ? sim->domains[0] : "acme";
    base_text_append(&event, "{\"domain\":");
    json_write_string(&event, domain, strlen(domain));
    base_text_append(&event, ",\"address\":");
    json_write_string(&event, call->session->account, strlen(call->session->account));
    base_text_append(&event, ",\"timestamp\":");
    json_write_string(&event, stamp, strlen(stamp));
    json_each_member(call->data, copy_member, &event);
    base_text_append(&event, "}");
    int result = event.failed ? EP_ENOMEM : sim_events_add(&sim->events, event.text, event.bytes, NULL);
    base_text_free(&event);
    return result;
}

static void take_create(struct sim *sim, const struct sim_call *call)
{
    char *uid = NULL, *domain = NULL;
    sim->stats.creates++;
    if (!sim_take_text(call, "/uid", &uid) || uid == NULL) {
        sim_answer_error(sim, call, 6, "uid");
    } else if (!sim_take_text(call, "/domain", &domain)) {
        sim_answer_error(sim, call, 6, "domain");
    } else if (sim_events_has(&sim->events, NULL, NULL, uid) || store_created(sim, call, domain) == 0) {
        answer_ok(sim, call); /* it exists: the client repeats a call whose answer was lost */
        sim_polls_events_added(sim);
    } else {
        sim_answer_error(sim, call, 2, NULL);
    }
    free(uid);
    free(domain);
}

int sim_calls_tick(struct sim *sim)
{
    sim_polls_answer(sim, false);
    while (sim->parcels != NULL && sim->parcels->due_ms <= sim_now_ms()) {
        struct sim_parcel *parcel = sim->parcels;
        sim->parcels = parcel->next;
        publish(sim, parcel->topic, parcel->body, parcel->bytes);
        parcel_free(parcel);
    }
    uint64_t now_ms = sim_now_ms(), next_ms = now_ms + 1000;
    if (sim->parcels != NULL && sim->parcels->due_ms < next_ms)
        next_ms = sim->parcels->due_ms;
    for (const struct sim_poll *poll = sim->polls; poll != NULL && !sim->silent; poll = poll->next)
        next_ms = poll->end_ms < next_ms ? poll->end_ms : next_ms;
    return next_ms > now_ms ? (int)(next_ms - now_ms) : 0;
}

/* ---- messages */

static struct sim_session *session_find(struct sim *sim, const char *id)
{
    struct sim_session *session = sim->sessions;
    while (session != NULL && strcmp(session->id, id) != 0)
        session = session->next;
    if (session != NULL)
        return session;
    session = calloc(1, sizeof *session);
    if (session == NULL || (session->id = strdup(id)) == NULL) {
        free(session);
        return NULL;
    }
    session->next = sim->sessions;
    sim->sessions = session;
    return session;
}

static void note_request(struct sim *sim, const char *session, const char *flags,
                         const struct idefix_message *message, struct json_span data)
{
    if (sim->requests == NULL)
        return;
    struct text line = {0};
    base_text_append(&line, "{\"at_ms\":");
    json_write_uint(&line, sim_now_ms());
    const char *const members[][2] = {{",\"session\":", session},
                                      {",\"flags\":", flags},
                                      {",\"to\":", message->to},
                                      {",\"reply\":", message->reply}};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        base_text_append(&line, members[i][0]);
        if (members[i][1] != NULL)
            json_write_string(&line, members[i][1], strlen(members[i][1]));
        else
            base_text_append(&line, "null");
    }
    base_text_append(&line, ",\"data\":");
    json_write_on_one_line(&line, data);
    base_text_append(&line, "}\n");
    if (!line.failed)
        fwrite(line.text, 1, line.bytes, sim->requests);
    fflush(sim->requests);
    base_text_free(&line);
}

/* Answers with the ordered error, with the login's token in its message: a client must hide it. */
static void answer_ordered(struct sim *sim, const struct sim_call *call)
{
    char *token = NULL, text[200];
    sim_take_text(call, "/token", &token);
    snprintf(text, sizeof text, "as ordered%s%s", token != NULL ? ": " : "", token != NULL ? token : "");
    sim_answer_error(sim, call, sim->error_code, text);
    free(token);
}

static void take_call(struct sim *sim, struct sim_call *call)
{
    if (sim->error_count != 0 && strcmp(sim->error_command, call->command) == 0) {
        if (sim->error_count != UINT64_MAX)
            sim->error_count--;
        answer_ordered(sim, call);
    } else if (strcmp(call->command, "login") == 0) {
        take_login(sim, call);
    } else if (!call->session->logged_in) {
        sim_answer_error(sim, call, 102, NULL);
    } else if (strcmp(call->command, "events.get") == 0) {
        sim_take_get(sim, call);
    } else if (strcmp(call->command, "events.create") == 0) {
        take_create(sim, call);
    } else {
        sim_answer_error(sim, call, 100, NULL);
    }
}

void sim_calls_take(struct sim *sim, const char *session, const char *flags, const void *body, size_t bytes)
{
    static const char prefix[] = "idefix.";
    struct idefix_message message = {0};
    struct text data = {0};
    struct error error = {0};
    struct sim_call call = {.session = session_find(sim, session)};
    if (call.session == NULL)
        return;
    if (idefix_message_decode(flags, body, bytes, SIM_BODY_MAX, &message, &error) != 0 ||
        idefix_message_write_json(&message, &data, &error) != 0 || data.failed) {
        sim->stats.undecodable++;
        sim_say(sim, "undecodable session=%s flags=%s reason=\"%s\"", session, flags, error.message);
    } else {
        sim->stats.requests++;
        call.data = (struct json_span){data.text, data.bytes};
        note_request(sim, session, flags, &message, call.data);
        call.command =
            strncmp(message.to, prefix, sizeof prefix - 1) == 0 ? message.to + sizeof prefix - 1 : "";
        call.reply = message.reply;
        call.encoding = call.session->encoding;
        if (!call.session->logged_in) /* without a login, answer in the encoding of the call */
            call.encoding = (struct idefix_encoding){.json = !message.msgpack, .msgpack = message.msgpack};
        if (sim->silent || call.reply == NULL)
            sim->stats.ignored++;
        else
            take_call(sim, &call);
    }
    base_text_free(&data);
    idefix_message_free(&message);
}

void sim_calls_free(struct sim *sim)
{
    while (sim->sessions != NULL) {
        struct sim_session *session = sim->sessions;
        sim_polls_end(sim, session);
        sim->sessions = session->next;
        free(session->id);
        free(session->account);
        free(session);
    }
    while (sim->parcels != NULL) {
        struct sim_parcel *parcel = sim->parcels;
        sim->parcels = parcel->next;
        parcel_free(parcel);
    }
}
