/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: what a backend, or anybody on its broker, can send us. The first byte chooses the topic's
 * flags, the rest is the body. Whatever it is, decoding must neither crash nor take memory it has no bytes
 * for, and what comes out of it must hold what the headers promise; a broken promise aborts.
 */
#include "tests/lib/fuzz.h"

#include "src/json/msgpack.h"
#include "src/source/idefix_events.h"

#define BYTES_MAX ((size_t)1 << 20)

static void check_text(const char *text)
{
    PROMISE(text == NULL || base_utf8_valid(text, strlen(text)));
}

/* Sent by us in each encoding and decoded again, JSON data is what it was; by way of MessagePack, which may
 * write a number or an escape in another way, it is the same with and without gzip. */
static void check_round_trip(const struct idefix_message *message, struct json_span data)
{
    static const struct idefix_encoding encodings[] = {{.json = true},
                                                       {.json = true, .gzip = true},
                                                       {.msgpack = true},
                                                       {.msgpack = true, .gzip = true}};
    struct text first = {0};

    for (size_t i = 0; i < 4; i++) {
        struct idefix_envelope envelope = {message->to, message->reply, message->error, data};
        struct idefix_frame frame;
        struct idefix_message again;
        struct text json = {0};
        PROMISE(idefix_frame_encode(&encodings[i], &envelope, &frame) == 0);
        PROMISE(idefix_message_decode(frame.flags, frame.body, frame.bytes, SIZE_MAX, &again, NULL) == 0);
        PROMISE(strcmp(again.to, message->to) == 0);
        PROMISE((again.reply == NULL) == (message->reply == NULL));
        PROMISE(again.reply == NULL || strcmp(again.reply, message->reply) == 0);
        PROMISE((again.error == NULL) == (message->error == NULL));
        PROMISE(again.error_code == message->error_code);
        PROMISE(idefix_message_write_json(&again, &json, NULL) == 0);
        PROMISE(json_valid(json.text, json.bytes, NULL));
        if (encodings[i].json)
            PROMISE(json.bytes == data.bytes && memcmp(json.text, data.at, json.bytes) == 0);
        else if (first.text == NULL)
            base_text_append_bytes(&first, json.text, json.bytes);
        else
            PROMISE(json.bytes == first.bytes && memcmp(json.text, first.text, first.bytes) == 0);
        base_text_free(&json);
        idefix_message_free(&again);
        idefix_frame_free(&frame);
    }
    base_text_free(&first);
}

static void check_data(const struct idefix_message *message)
{
    struct text out = {0};
    struct error error = {0};
    int code = idefix_message_write_json(message, &out, &error);

    PROMISE(code == 0 || code == EP_EPROTO);
    if (code == 0) {
        PROMISE(json_valid(out.text, out.bytes, NULL));
        check_round_trip(message, (struct json_span){out.text, out.bytes});
    } else {
        PROMISE(error.message[0] != '\0');
    }
    base_text_free(&out);
}

static void check_event(const struct idefix_message *message, const struct store_event *event)
{
    PROMISE(event->uid != NULL && event->uid[0] != '\0' && strlen(event->uid) <= UID_BYTES_MAX);
    check_text(event->uid);
    if (event->dead != STORE_REASON_NONE) {
        PROMISE(event->dead == STORE_REASON_CORRUPT && event->error != NULL && event->error[0] != '\0');
        PROMISE(event->data_bytes <= message->bytes);
        return;
    }
    struct json_span data = {event->data, event->data_bytes}, uid;
    PROMISE(json_valid(data.at, data.bytes, NULL) && json_kind(data) == '{');
    PROMISE(json_find(data, "/uid", &uid));
    char *text = json_text(uid);
    PROMISE(text != NULL && strcmp(text, event->uid) == 0);
    free(text);
    check_text(event->address);
    check_text(event->type);
}

static void check_events(const struct idefix_message *message)
{
    struct page page;
    struct error error = {0};

    source_page_open(&page);
    int code = source_idefix_events_read(message, &page, &error);
    PROMISE(code == 0 || code == EP_EPROTO);
    PROMISE(code == 0 || (page.count == 0 && page.cursor == NULL && error.message[0] != '\0'));
    for (size_t i = 0; i < page.count; i++)
        check_event(message, &page.events[i]);
    check_text(page.cursor);
    source_page_clear(&page);
}

/* The body taken for MessagePack by itself, whatever the flags are. */
static void check_msgpack(const char *body, size_t bytes)
{
    struct msgpack value;
    struct text out = {0};
    struct error error = {0};

    if (json_msgpack_find_first((struct msgpack){body, bytes}, &value, &error) != 0) {
        PROMISE(error.code == EP_EPROTO && error.message[0] != '\0');
        return;
    }
    PROMISE(value.at == body && value.bytes > 0 && value.bytes <= bytes);
    int code = json_msgpack_convert_to_json(value, &out, &error);
    PROMISE(code == EP_EPROTO || (code == 0 && json_valid(out.text, out.bytes, NULL)));
    base_text_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char *const flags[] = {"j", "jg", "m", "mg", "", "x", "mgg", "jm"};
    struct idefix_message message;
    struct error error = {0};

    if (bytes == 0)
        return 0;
    const char *body = (const char *)data + 1;
    check_msgpack(body, bytes - 1);
    int code = idefix_message_decode(flags[data[0] % 8], body, bytes - 1, BYTES_MAX, &message, &error);
    if (code != 0) {
        PROMISE(code == EP_EPROTO && error.message[0] != '\0');
        return 0;
    }
    PROMISE(message.to != NULL && message.bytes <= BYTES_MAX);
    PROMISE((message.error == NULL) == (message.error_code == 0));
    check_text(message.to);
    check_text(message.reply);
    check_text(message.error);
    check_data(&message);
    check_events(&message);
    idefix_message_free(&message);
    return 0;
}
