/* SPDX-License-Identifier: MIT */
/*
 * Encodes and decodes Idefix's frames. A frame is an envelope with destination, data, reply address and
 * error text, as JSON or MessagePack, with or without gzip. Pure except for memory: any process, any
 * thread.
 *
 * Invariants
 *  1. Received frames are untrusted. Memory is bounded by max_bytes and by the bytes that arrived, never
 *     by what a length claims.
 *  2. The envelope is found by its structure, and its data is not decoded. So one unreadable event does
 *     not spoil the page that contains it.
 *  3. idefix_message_decode sets its result on success only. Its texts are UTF-8 without NUL.
 */
#include "src/idefix/frame.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "src/idefix/gzip.h"
#include "src/json/msgpack.h"
#include "src/json/msgpack_write.h"
#include "src/json/split.h"

#define CODE_UNKNOWN 1 /* Idefix's own */

enum member { MEMBER_TO, MEMBER_DATA, MEMBER_REPLY, MEMBER_ERROR, MEMBERS };
static const char *const json_names[MEMBERS] = {"t", "d", "r", "e"};
static const char *const msgpack_names[MEMBERS] = {"to", "dt", "re", "er"};

/* ---- encoding ---- */

static bool has_text(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* Writes a text member of the JSON envelope of an Idefix request (destination, data, reply address), or
 * nothing if the text is empty or NULL. Runs in the process that sends: a producer, a library caller, or
 * the Idefix simulator. */
static void write_json_member(struct text *out, enum member member, const char *text)
{
    if (!has_text(text))
        return;
    base_text_append(out, ",\"");
    base_text_append(out, json_names[member]);
    base_text_append(out, "\":");
    json_write_string(out, text, strlen(text));
}

/* Encodes the envelope of an Idefix request as JSON, the body of an MQTT message. Returns 0 or EP_ENOMEM.
 * The Idefix client does so if the source's setting `encoding` contains j (accepts JSON). Runs in the
 * process that sends: a producer, a library caller, or the Idefix simulator. */
static int encode_json_envelope(const struct idefix_envelope *envelope, struct idefix_frame *out)
{
    struct text body = {0};

    base_text_append(&body, "{\"t\":");
    json_write_string(&body, envelope->to, strlen(envelope->to));
    base_text_append(&body, ",\"d\":");
    if (envelope->data.bytes > 0)
        base_text_append_bytes(&body, envelope->data.at, envelope->data.bytes);
    else
        base_text_append(&body, "null");
    write_json_member(&body, MEMBER_REPLY, envelope->reply);
    write_json_member(&body, MEMBER_ERROR, envelope->error);
    base_text_append(&body, "}");
    if (body.failed) {
        base_text_free(&body);
        return EP_ENOMEM;
    }
    out->body = body.text;
    out->bytes = body.bytes;
    return 0;
}

static void write_msgpack_text(struct text *out, const char *text)
{
    json_msgpack_write_text(out, text, strlen(text));
}

/* Writes a text member of the MessagePack envelope of an Idefix request, or nothing if the text is empty
 * or NULL. Runs in the process that sends: a producer, a library caller, or the Idefix simulator. */
static void write_msgpack_member(struct text *out, enum member member, const char *text)
{
    if (!has_text(text))
        return;
    write_msgpack_text(out, msgpack_names[member]);
    write_msgpack_text(out, text);
}

/* Encodes the envelope of an Idefix request as MessagePack, the body of an MQTT message. Returns 0 or
 * EP_ENOMEM. The Idefix client does so if the source's setting `encoding` contains no j, only m. Runs in
 * the process that sends: a producer, a library caller, or the Idefix simulator. */
static int encode_msgpack_envelope(const struct idefix_envelope *envelope, struct idefix_frame *out)
{
    struct text body = {0};
    int code = 0;

    json_msgpack_write_map(&body, 2U + has_text(envelope->reply) + has_text(envelope->error));
    write_msgpack_text(&body, msgpack_names[MEMBER_TO]);
    write_msgpack_text(&body, envelope->to);
    write_msgpack_text(&body, msgpack_names[MEMBER_DATA]);
    if (envelope->data.bytes > 0)
        code = json_msgpack_write(&body, envelope->data);
    else
        json_msgpack_write_nil(&body);
    write_msgpack_member(&body, MEMBER_REPLY, envelope->reply);
    write_msgpack_member(&body, MEMBER_ERROR, envelope->error);
    if (code != 0 || body.failed) {
        base_text_free(&body);
        return EP_ENOMEM;
    }
    out->body = body.text;
    out->bytes = body.bytes;
    return 0;
}

/* Encodes the envelope of an Idefix request (destination, data, reply address) as JSON or MessagePack,
 * the body of an MQTT message, and compresses it if that makes it smaller. Returns 0 and sets *out, or
 * EP_ENOMEM. The Idefix client does so for each request, the Idefix simulator for each answer. */
int idefix_frame_encode(const struct idefix_encoding *encoding, const struct idefix_envelope *envelope,
                        struct idefix_frame *out)
{
    struct idefix_frame frame = {.flags = {encoding->json ? 'j' : 'm'}};
    char *compressed = NULL;
    size_t compressed_bytes = 0;
    int code =
        encoding->json ? encode_json_envelope(envelope, &frame) : encode_msgpack_envelope(envelope, &frame);

    if (code == 0 && encoding->gzip)
        code = idefix_gzip_deflate(frame.body, frame.bytes, &compressed, &compressed_bytes);
    if (code != 0) {
        idefix_frame_free(&frame);
        return code;
    }
    if (compressed != NULL) {
        explicit_bzero(frame.body, frame.bytes);
        free(frame.body);
        frame.body = compressed;
        frame.bytes = compressed_bytes;
        frame.flags[1] = 'g';
    }
    *out = frame;
    return 0;
}

/* Frees a frame of the Idefix client, an encoded request, and overwrites its body: the request may be a
 * login, which contains the token. */
void idefix_frame_free(struct idefix_frame *frame)
{
    if (frame->body != NULL)
        explicit_bzero(frame->body, frame->bytes); /* it may be a login */
    free(frame->body);
    *frame = (struct idefix_frame){0};
}

/* ---- decoding ---- */

struct envelope_reader {
    struct idefix_message *message;
    struct error *error;
    bool has_seen[MEMBERS]; /* if two members have the same name, the first counts */
};

static char **select_text_field(struct idefix_message *message, enum member member)
{
    return member == MEMBER_TO ? &message->to : member == MEMBER_REPLY ? &message->reply : &message->error;
}

/* Stores a text of a received Idefix envelope in the message, which then owns it. The text is NULL if its
 * decoding ran out of memory. An empty text is dropped, except the destination. Returns 0 or EP_ENOMEM.
 * Runs in the process that receives: a producer, a library caller, or the Idefix simulator. */
static int store_member_text(struct envelope_reader *reader, enum member member, char *text)
{
    if (text == NULL)
        return base_error_set(reader->error, EP_ENOMEM, "out of memory for a frame");
    if (text[0] == '\0' && member != MEMBER_TO)
        free(text);
    else
        *select_text_field(reader->message, member) = text;
    return 0;
}

/* Writes the error message for a member of a received Idefix envelope that is not a string, and returns
 * EP_EPROTO. */
static int report_wrong_type(struct envelope_reader *reader, const char *name)
{
    return base_error_set(reader->error, EP_EPROTO, "the envelope's \"%s\" is not a string", name);
}

/* Callback for each member of the JSON envelope in a received Idefix frame: keeps destination, reply
 * address, error text and the undecoded data, and skips unknown members. Returns 0 or an error code with
 * a message, which ends the reading. */
static int on_json_member(struct json_span key, struct json_span value, void *user)
{
    struct envelope_reader *reader = user;
    unsigned member = 0;

    while (member < MEMBERS && !json_split_is_key(key, json_names[member]))
        member++;
    if (member == MEMBERS || reader->has_seen[member])
        return 0;
    reader->has_seen[member] = true;
    bool is_null = value.bytes == 4 && memcmp(value.at, "null", 4) == 0;
    if (is_null && member != MEMBER_TO)
        return 0;
    if (member == MEMBER_DATA) {
        reader->message->data = value;
        if (value.bytes == 0)
            return base_error_set(reader->error, EP_EPROTO, "the envelope's \"d\" has no value");
        return 0;
    }
    if (json_kind(value) != '"' || !json_valid(value.at, value.bytes, NULL))
        return report_wrong_type(reader, json_names[member]);
    return store_member_text(reader, (enum member)member, json_text(value));
}

static bool msgpack_key_is(struct msgpack key, const char *name)
{
    struct json_span text;
    return json_msgpack_kind(key) == MSGPACK_TEXT && json_msgpack_find_content(key, &text) &&
           text.bytes == strlen(name) && memcmp(text.at, name, text.bytes) == 0;
}

/* Callback for each member of the MessagePack envelope in a received Idefix frame: keeps destination,
 * reply address, error text and the undecoded data, and skips unknown members. Returns 0 or an error code
 * with a message, which ends the reading. */
static int on_msgpack_member(struct msgpack key, struct msgpack value, void *user)
{
    struct envelope_reader *reader = user;
    unsigned member = 0;

    while (member < MEMBERS && !msgpack_key_is(key, msgpack_names[member]))
        member++;
    if (member == MEMBERS || reader->has_seen[member])
        return 0;
    reader->has_seen[member] = true;
    enum msgpack_kind kind = json_msgpack_kind(value);
    if (kind == MSGPACK_NIL && member != MEMBER_TO)
        return 0;
    if (member == MEMBER_DATA) {
        reader->message->data = (struct json_span){value.at, value.bytes};
        return 0;
    }
    if (kind != MSGPACK_TEXT)
        return report_wrong_type(reader, msgpack_names[member]);
    return store_member_text(reader, (enum member)member, json_msgpack_copy_text(value));
}

/* Returns the number in an Idefix backend's error text "[CODE] text", 1 if it has no number, and 0 if
 * there is no error text (NULL). Runs in the process that receives: a producer, a library caller, or the
 * Idefix simulator. */
static int parse_error_code(const char *error_text)
{
    char *code_end;

    if (error_text == NULL)
        return 0;
    if (error_text[0] != '[' || error_text[1] < '0' || error_text[1] > '9')
        return CODE_UNKNOWN;
    unsigned long code = strtoul(error_text + 1, &code_end, 10);
    return *code_end != ']' || code == 0 || code > INT_MAX ? CODE_UNKNOWN : (int)code;
}

/* Finds the members of the JSON envelope in an Idefix frame without decoding its data, so that one broken
 * event does not make the whole page unreadable. Returns 0 or an error code with a message. Runs wherever
 * Idefix frames are received: in a producer, a library caller, or the Idefix simulator. */
static int read_json_envelope(struct envelope_reader *reader, struct json_span body)
{
    int code = json_split_members(body, on_json_member, reader);

    if (code == EP_EINVAL)
        return base_error_set(reader->error, EP_EPROTO, "no envelope: the JSON is not an object");
    if (code == EP_EPROTO && reader->error != NULL && reader->error->code == 0)
        return base_error_set(reader->error, EP_EPROTO, "no envelope: the JSON object is broken");
    return code;
}

/* Finds the members of the MessagePack envelope in an Idefix frame without decoding its data, so that one
 * broken event does not make the whole page unreadable. Returns 0 or an error code with a message. Runs
 * wherever Idefix frames are received: in a producer, a library caller, or the Idefix simulator. */
static int read_msgpack_envelope(struct envelope_reader *reader, struct msgpack body)
{
    struct msgpack value;
    int code = json_msgpack_find_first(body, &value, reader->error);

    if (code != 0)
        return code;
    if (value.bytes < body.bytes)
        return base_error_set(reader->error, EP_EPROTO, "%zu bytes follow the envelope",
                              body.bytes - value.bytes);
    code = json_msgpack_each_member(value, on_msgpack_member, reader);
    return code == EP_EINVAL
               ? base_error_set(reader->error, EP_EPROTO, "no envelope: the MessagePack is not a map")
               : code;
}

/* Checks the flags of a received Idefix frame and copies its body into the message, inflated if it is
 * compressed. Refuses a body over max_bytes, so that a small gzip bomb cannot use up the memory. Returns
 * 0 or an error code with a message. Runs wherever Idefix frames are received: in a producer, a library
 * caller, or the Idefix simulator. */
static int copy_or_inflate_body(const char *flags, const void *body, size_t body_bytes, size_t max_bytes,
                                struct idefix_message *message, struct error *error)
{
    if ((flags[0] != 'j' && flags[0] != 'm') || (flags[1] != '\0' && strcmp(flags + 1, "g") != 0))
        return base_error_set(error, EP_EPROTO, "unknown flags \"%.16s\"", flags);
    message->msgpack = flags[0] == 'm';
    if (flags[1] == 'g')
        return idefix_gzip_inflate(body, body_bytes, max_bytes, &message->body, &message->bytes, error);
    if (body_bytes > max_bytes)
        return base_error_set(error, EP_EPROTO, "the body has %zu bytes, more than max_bytes (%zu)",
                              body_bytes, max_bytes);
    message->body = malloc(body_bytes + 1);
    if (message->body == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for a frame of %zu bytes", body_bytes);
    if (body_bytes > 0)
        memcpy(message->body, body, body_bytes);
    message->bytes = body_bytes;
    return 0;
}

/* Reads the envelope of a received Idefix frame, the body of an MQTT message. Its bytes are untrusted:
 * anything malformed gives EP_EPROTO with a message. Returns 0 and sets *out, which the caller frees. The
 * Idefix client calls it for each frame, the Idefix simulator for each request. */
int idefix_message_decode(const char *flags, const void *body, size_t body_bytes, size_t max_bytes,
                          struct idefix_message *out, struct error *error)
{
    struct idefix_message message = {0};
    struct error own_error = {0}; /* read_json needs its code even if the caller passes none */
    struct envelope_reader reader = {.message = &message, .error = error != NULL ? error : &own_error};

    reader.error->code = 0;
    int code = copy_or_inflate_body(flags, body, body_bytes, max_bytes, &message, reader.error);
    if (code == 0)
        code = message.msgpack ? read_msgpack_envelope(&reader, (struct msgpack){message.body, message.bytes})
                               : read_json_envelope(&reader, (struct json_span){message.body, message.bytes});
    if (code == 0 && message.to == NULL)
        code = base_error_set(reader.error, EP_EPROTO, "the envelope has no \"%s\"",
                              (message.msgpack ? msgpack_names : json_names)[MEMBER_TO]);
    if (code != 0) {
        idefix_message_free(&message);
        return code;
    }
    message.error_code = parse_error_code(message.error);
    *out = message;
    return 0;
}

/* Frees an answer that the Idefix client has received. A producer calls it after it has read a page's
 * events, ep_idefix functions for a library caller. */
void idefix_message_free(struct idefix_message *message)
{
    free(message->body);
    free(message->to);
    free(message->reply);
    free(message->error);
    *message = (struct idefix_message){0};
}

/* Appends the data of a received Idefix message as JSON text, "null" if it has none. Returns 0 or an
 * error code with a message. Only the Idefix simulator and tests call it; producers decode each event by
 * itself. */
int idefix_message_write_json(const struct idefix_message *message, struct text *out, struct error *error)
{
    struct json_span data = message->data;
    size_t error_offset;

    if (data.bytes == 0)
        base_text_append(out, "null");
    else if (message->msgpack)
        return json_msgpack_convert_to_json((struct msgpack){data.at, data.bytes}, out, error);
    else if (!json_valid(data.at, data.bytes, &error_offset))
        return base_error_set(error, EP_EPROTO, "the data is not valid JSON: error at byte %zu",
                              error_offset);
    else
        base_text_append_bytes(out, data.at, data.bytes);
    return out->failed ? base_error_set(error, EP_ENOMEM, "out of memory") : 0;
}
