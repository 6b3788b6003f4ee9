/* SPDX-License-Identifier: MIT */
/* The backend's process: one subscription, and an answer to each request. */
#include "tests/lib/idefix_backend.h"

#include <mosquitto.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "src/eventpipe.h"
#include "src/idefix/frame.h"
#include "tests/lib/unit.h"
#include "tests/lib/until.h"

struct idefix_world *idefix_world;

static void answer(struct mosquitto *mosquitto, const char *session, const char *to, const char *error,
                   const char *data)
{
    struct idefix_encoding encoding;
    struct idefix_frame frame;
    char topic[200];
    const struct idefix_envelope envelope = {.to = to, .error = error, .data = {data, strlen(data)}};

    if (config_idefix_encoding_read(idefix_world->flags, &encoding) != 0 ||
        idefix_frame_encode(&encoding, &envelope, &frame) != 0)
        _exit(9);
    snprintf(topic, sizeof topic, "ifx/%s/r/%s", session, frame.flags);
    mosquitto_publish(mosquitto, NULL, topic, (int)frame.bytes, frame.body, 1, false);
    idefix_frame_free(&frame);
}

static void answer_login(struct mosquitto *mosquitto, const char *session, const char *reply)
{
    switch (atomic_load(&idefix_world->login)) {
    case LOGIN_REFUSED:
        answer(mosquitto, session, reply, "[201] Invalid token (hush-hush)", "null");
        break;
    case LOGIN_LATER:
        if (atomic_load(&idefix_world->logins) % 2 == 0)
            answer(mosquitto, session, reply, NULL, "{\"ok\":true}");
        break;
    case LOGIN_TWICE:
        answer(mosquitto, session, reply, NULL, "{\"ok\":true}");
        answer(mosquitto, session, reply, NULL, "{\"ok\":true}");
        break;
    case LOGIN_SIGNAL:
        kill(idefix_world->test, SIGUSR1);
        break;
    case LOGIN_OK:
        answer(mosquitto, session, reply, NULL, "{\"ok\":true}");
        break;
    }
}

#define THREE_EVENTS                                                                                       \
    "[{\"uid\":\"e-1\",\"address\":\"device-001\",\"type\":\"temperature\",\"payload\":9007199254740993}," \
    "{\"uid\":\"e-2\",\"payload\":{\"raw:b64\":\"AAEC\"}},{\"address\":\"device-001\"}]"
#define PAGE "{\"cid\":\"c-3\",\"events\":" THREE_EVENTS "}"

static void answer_full(struct mosquitto *mosquitto, const char *session, const char *reply)
{
    struct text out = {0};
    struct json_span data = {idefix_world->get_data, strlen(idefix_world->get_data)}, value;
    int64_t limit = 0;
    char *cid = json_find(data, "/cid", &value) ? json_text(value) : strdup("start");

    if (json_find(data, "/limit", &value))
        json_int64(value, &limit);
    base_text_append(&out, "{\"cid\":");
    json_write_string(&out, cid, strlen(cid));
    base_text_append(&out, ",\"events\":[");
    for (int64_t i = 0; atomic_load(&idefix_world->get) == GET_FULL && i < limit; i++) {
        base_text_append(&out, i > 0 ? ",{\"uid\":\"f-" : "{\"uid\":\"f-");
        json_write_int(&out, i);
        base_text_append(&out, "\"}");
    }
    base_text_append(&out, "]}");
    answer(mosquitto, session, reply, NULL, out.text);
    base_text_free(&out);
    free(cid);
}

static void answer_huge(struct mosquitto *mosquitto, const char *session, const char *reply)
{
    struct text out = {0};

    base_text_append(&out, "{\"events\":[{\"uid\":\"h\",\"payload\":\"");
    for (int i = 0; i < 100000; i++)
        base_text_append(&out, "0123456789");
    base_text_append(&out, "\"}]}");
    answer(mosquitto, session, reply, NULL, out.text);
    base_text_free(&out);
}

static void answer_get(struct mosquitto *mosquitto, const char *session, const char *reply)
{
    static char kept[64];
    char topic[200];

    switch (atomic_load(&idefix_world->get)) {
    case GET_FULL:
    case GET_EMPTY:
        answer_full(mosquitto, session, reply);
        return;
    case GET_ERROR:
        answer(mosquitto, session, reply, idefix_world->error, "null");
        return;
    case GET_KEEP:
        snprintf(kept, sizeof kept, "%s", reply);
        return;
    case GET_LATE:
        answer(mosquitto, session, kept, NULL, "{\"cid\":\"late\",\"events\":[]}");
        break;
    case GET_STRANGER:
        answer(mosquitto, session, "0000000000000000", "[2] not for you", "null");
        break;
    case GET_GARBAGE:
        snprintf(topic, sizeof topic, "ifx/%s/r/mg", session);
        mosquitto_publish(mosquitto, NULL, topic, 7, "garbage", 1, false);
        return;
    case GET_HUGE:
        answer_huge(mosquitto, session, reply);
        return;
    case GET_SIGNAL:
        kill(idefix_world->test, SIGUSR1);
        return;
    case GET_CUT:
        kill(idefix_world->broker, SIGKILL);
        return;
    case GET_TWICE:
        answer(mosquitto, session, reply, NULL, PAGE);
        break;
    }
    answer(mosquitto, session, reply, NULL, PAGE);
}

static void keep_data(const struct idefix_message *message, char *to, size_t room)
{
    struct text out = {0};
    struct error error;

    if (idefix_message_write_json(message, &out, &error) != 0)
        _exit(8);
    snprintf(to, room, "%s", out.text);
    base_text_free(&out);
}

static void backend_message(struct mosquitto *mosquitto, void *user, const struct mosquitto_message *came)
{
    struct idefix_message message;
    struct error error;
    (void)user;
    if (sscanf(came->topic, "ifx/%63[^/]/t/%7s", idefix_world->session, idefix_world->flags) != 2 ||
        idefix_message_decode(idefix_world->flags, came->payload, (size_t)came->payloadlen, 1 << 20, &message,
                              &error) != 0)
        _exit(7);
    snprintf(idefix_world->to, sizeof idefix_world->to, "%s", message.to);
    snprintf(idefix_world->reply, sizeof idefix_world->reply, "%s",
             message.reply != NULL ? message.reply : "");
    if (strcmp(message.to, "idefix.login") == 0) {
        keep_data(&message, idefix_world->login_data, sizeof idefix_world->login_data);
        atomic_fetch_add(&idefix_world->logins, 1);
        answer_login(mosquitto, idefix_world->session, idefix_world->reply);
    } else if (strcmp(message.to, "idefix.events.get") == 0) {
        keep_data(&message, idefix_world->get_data, sizeof idefix_world->get_data);
        atomic_fetch_add(&idefix_world->gets, 1);
        answer_get(mosquitto, idefix_world->session, idefix_world->reply);
    } else if (strcmp(message.to, "idefix.events.create") == 0) {
        keep_data(&message, idefix_world->create_data, sizeof idefix_world->create_data);
        atomic_fetch_add(&idefix_world->creates, 1);
        answer(mosquitto, idefix_world->session, idefix_world->reply, NULL, "{\"ok\":true}");
    }
    idefix_message_free(&message);
}

static void backend_subscribed(struct mosquitto *mosquitto, void *user, int id, int count, const int *granted)
{
    (void)mosquitto, (void)user, (void)id, (void)count, (void)granted;
    atomic_store(&idefix_world->ready, 1);
}

static void backend_connected(struct mosquitto *mosquitto, void *user, int code)
{
    (void)user;
    if (code == 0)
        mosquitto_subscribe(mosquitto, NULL, "ifx/+/t/+", 1);
}

void idefix_backend_start(int port, pid_t *pid)
{
    atomic_store(&idefix_world->ready, 0);
    *pid = fork();
    CU_ASSERT_FATAL(*pid >= 0);
    if (*pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        mosquitto_lib_init();
        struct mosquitto *mosquitto = mosquitto_new(NULL, true, NULL);
        mosquitto_int_option(mosquitto, MOSQ_OPT_TCP_NODELAY, 1);
        mosquitto_connect_callback_set(mosquitto, backend_connected);
        mosquitto_subscribe_callback_set(mosquitto, backend_subscribed);
        mosquitto_message_callback_set(mosquitto, backend_message);
        mosquitto_connect(mosquitto, "127.0.0.1", port, 60);
        mosquitto_loop_forever(mosquitto, 1000, 1);
        _exit(0);
    }
    CU_ASSERT_FATAL(UNTIL(IDEFIX_PATIENCE_MS, atomic_load(&idefix_world->ready) == 1));
}
