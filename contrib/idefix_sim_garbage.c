/* SPDX-License-Identifier: MIT */
/*
 * Malformed answers for contrib/idefix-sim. Each kind has several forms, which `variant` selects in
 * turn. If the kind allows it, the envelope is right and only the data is malformed, so that the
 * client knows to which call the answer belongs.
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "contrib/idefix_sim.h"
#include "src/json/msgpack_write.h"

#define BOMB_BYTES ((size_t)72 << 20)
#define DEEP 100000
#define DEEP_EVENT 250 /* nested deeper than JSON_DEPTH_MAX; finding its end is harmless */
#define RANDOM_MAX 4096

static const char *const names[] = {
#define X(name, text) text,
    SIM_GARBAGE(X)
#undef X
};

const char *sim_garbage_name(enum sim_garbage kind)
{
    return names[kind];
}

enum sim_garbage sim_garbage_read(const char *name)
{
    enum sim_garbage kind = SIM_GARBAGE_NONE;
    while (kind < SIM_GARBAGE_KINDS && strcmp(names[kind], name) != 0)
        kind++;
    return kind;
}

/* ---- parts of answers */

struct maker {
    unsigned variant;
    const struct idefix_encoding *encoding;
    const char *reply;
    const struct sim_page *page;
    struct sim_answer *out;
};

static int take(struct maker *maker, const char *flags, const void *body, size_t bytes)
{
    maker->out->body = malloc(bytes + 1);
    if (maker->out->body == NULL)
        return EP_ENOMEM;
    memcpy(maker->out->body, body, bytes);
    maker->out->bytes = bytes;
    snprintf(maker->out->flags, sizeof maker->out->flags, "%s", flags);
    return 0;
}

/* Takes JSON text in the session's encoding. */
static int take_json(struct maker *maker, const struct text *text, const char *suffix)
{
    char flags[8];
    if (text->failed || text->text == NULL)
        return EP_ENOMEM;
    snprintf(flags, sizeof flags, "%c%s", maker->encoding->json ? 'j' : 'm', suffix);
    if (maker->encoding->json)
        return take(maker, flags, text->text, text->bytes);
    struct text body = {0};
    int result = json_msgpack_write(&body, (struct json_span){text->text, text->bytes});
    if (result == 0)
        result = take(maker, flags, body.text, body.bytes);
    base_text_free(&body);
    return result;
}

/* Takes a correct answer with the page, not compressed. */
static int take_page(struct maker *maker, const char *suffix, const char *insert)
{
    struct text text = {0};
    base_text_append(&text, maker->encoding->json ? "{\"t\":" : "{\"to\":");
    json_write_string(&text, maker->reply, strlen(maker->reply));
    base_text_append(&text, maker->encoding->json ? ",\"d\":" : ",\"dt\":");
    sim_page_write(maker->page, maker->encoding->json, false, insert, &text);
    base_text_append(&text, "}");
    int result = take_json(maker, &text, suffix);
    base_text_free(&text);
    return result;
}

static void repeat(struct text *out, const char *text, size_t bytes, size_t times)
{
    while (times-- > 0)
        base_text_append_bytes(out, text, bytes);
}

/* Writes the beginning of a MessagePack envelope, up to the data: {"to": reply, "dt": */
static void head_msgpack(const struct maker *maker, struct text *out)
{
    size_t bytes = strlen(maker->reply);
    const char length = (char)bytes;
    base_text_append_bytes(out, "\x82\xa2to\xd9", 5);
    base_text_append_bytes(out, &length, 1);
    base_text_append_bytes(out, maker->reply, bytes);
    base_text_append_bytes(out,
                           "\xa2"
                           "dt",
                           3);
}

static int take_out(struct maker *maker, const char *flags, struct text *out)
{
    int result = out->failed ? EP_ENOMEM : take(maker, flags, out->text, out->bytes);
    base_text_free(out);
    return result;
}

/* ---- the kinds */

static int make_random(struct maker *maker)
{
    static const char *const flags[] = {"", "g"};
    char bytes[RANDOM_MAX], text[8];
    uint64_t draw = maker->variant + 1;
    for (size_t i = 0; i < sizeof bytes; i++) {
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        bytes[i] = (char)(draw >> 32);
    }
    snprintf(text, sizeof text, "%c%s", maker->encoding->json ? 'j' : 'm', flags[maker->variant / 2 % 2]);
    return take(maker, text, bytes, maker->variant % 2 == 0 ? sizeof bytes : draw % 64);
}

/* Feeds one piece of text to the compressor. */
static int bomb_piece(z_stream *stream, struct text *out, const void *text, size_t bytes, int flush)
{
    char buffer[16384];
    int result = Z_OK;
    stream->next_in = (Bytef *)(uintptr_t)text;
    stream->avail_in = (uInt)bytes;
    do {
        stream->next_out = (Bytef *)buffer;
        stream->avail_out = sizeof buffer;
        result = deflate(stream, flush);
        base_text_append_bytes(out, buffer, sizeof buffer - stream->avail_out);
    } while (stream->avail_out == 0 && result == Z_OK);
    return result;
}

/* Makes an answer that is correct except for its size: the cid of its page is 72 MiB of x. */
static int make_bomb(struct maker *maker)
{
    static char filler[65536];
    z_stream stream = {0};
    struct text head = {0}, body = {0};
    const bool json = maker->encoding->json;
    unsigned char length[5] = {0xdb}; /* str 32 */
    for (int i = 1; i < 5; i++)
        length[i] = (unsigned char)(BOMB_BYTES >> (32 - 8 * i));
    memset(filler, 'x', sizeof filler);
    if (json) {
        base_text_append(&head, "{\"t\":");
        json_write_string(&head, maker->reply, strlen(maker->reply));
        base_text_append(&head, ",\"d\":{\"events\":[],\"cid\":\"");
    } else {
        head_msgpack(maker, &head);
        base_text_append(&head, "\x82\xa6"
                                "events\x90\xa3"
                                "cid");
        base_text_append_bytes(&head, (const char *)length, sizeof length);
    }
    if (head.failed ||
        deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
        base_text_free(&head);
        return EP_ENOMEM;
    }
    bomb_piece(&stream, &body, head.text, head.bytes, Z_NO_FLUSH);
    for (size_t done = 0; done < BOMB_BYTES; done += sizeof filler)
        bomb_piece(&stream, &body, filler, sizeof filler, Z_NO_FLUSH);
    bomb_piece(&stream, &body, "\"}}", json ? 3 : 0, Z_FINISH);
    deflateEnd(&stream);
    base_text_free(&head);
    return take_out(maker, json ? "jg" : "mg", &body);
}

/* Makes an answer that is cut off, at a different byte each time. */
static int make_truncated(struct maker *maker)
{
    struct text data = {0};
    struct idefix_frame frame;
    sim_page_write(maker->page, maker->encoding->json, false, NULL, &data);
    const struct idefix_envelope envelope = {.to = maker->reply, .data = {data.text, data.bytes}};
    if (data.failed || idefix_frame_encode(maker->encoding, &envelope, &frame) != 0) {
        base_text_free(&data);
        return EP_ENOMEM;
    }
    size_t keep = frame.bytes * (1 + maker->variant * 3 % 8) / 9;
    int result = take(maker, frame.flags, frame.body, keep);
    idefix_frame_free(&frame);
    base_text_free(&data);
    return result;
}

static int make_deep(struct maker *maker)
{
    struct text out = {0};
    if (maker->encoding->json) {
        base_text_append(&out, "{\"t\":");
        json_write_string(&out, maker->reply, strlen(maker->reply));
        base_text_append(&out, ",\"d\":{\"events\":");
        repeat(&out, "[", 1, DEEP);
        repeat(&out, "]", 1, DEEP);
        base_text_append(&out, "}}");
        return take_out(maker, "j", &out);
    }
    head_msgpack(maker, &out);
    base_text_append(&out, "\x81\xa6"
                           "events");
    repeat(&out, "\x91", 1, DEEP);
    base_text_append_bytes(&out, "\xc0", 1);
    return take_out(maker, "m", &out);
}

/* Makes an answer with lengths and counts far too large. JSON has none, so there gzip's trailer is
 * wrong. */
static int make_lying(struct maker *maker)
{
    static const char *const lies[] = {"\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff",
                                       "\xdb\x7f\xff\xff\xff", "\xc9\xff\xff\xff\xff"};
    struct text out = {0};
    if (!maker->encoding->json) {
        head_msgpack(maker, &out);
        base_text_append(&out, "\x81\xa6"
                               "events");
        base_text_append_bytes(&out, lies[maker->variant % 5], 5);
        return take_out(maker, "m", &out);
    }
    z_stream stream = {0};
    int result = take_page(maker, "", NULL);
    if (result != 0)
        return result;
    if (deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        out.failed = true;
    else
        bomb_piece(&stream, &out, maker->out->body, maker->out->bytes, Z_FINISH);
    deflateEnd(&stream);
    free(maker->out->body);
    if (!out.failed && out.bytes >= 8) /* checksum and length are its last eight bytes */
        out.text[out.bytes - (maker->variant % 2 == 0 ? 8 : 4)] ^= 0x55;
    return take_out(maker, "jg", &out);
}

/* Makes envelopes whose members have wrong types. In the templates $ is the reply address. */
static int make_types(struct maker *maker)
{
    static const char *const forms[][2] = {
        {"{\"t\":$,\"d\":{\"events\":17,\"cid\":\"x\"}}", "{\"to\":$,\"dt\":{\"events\":17,\"cid\":\"x\"}}"},
        {"{\"t\":$,\"d\":\"text\"}", "{\"to\":$,\"dt\":\"text\"}"},
        {"{\"t\":$,\"d\":[{\"uid\":\"x\"}]}", "{\"to\":$,\"dt\":[{\"uid\":\"x\"}]}"},
        {"{\"t\":$,\"d\":{\"events\":{\"uid\":\"x\"},\"cid\":\"x\"}}",
         "{\"to\":$,\"dt\":{\"events\":{\"uid\":\"x\"},\"cid\":\"x\"}}"},
        {"{\"t\":$,\"d\":{\"events\":[],\"cid\":17}}", "{\"to\":$,\"dt\":{\"events\":[],\"cid\":17}}"},
        {"{\"t\":$,\"d\":{\"events\":[],\"cid\":{\"a\":1}}}",
         "{\"to\":$,\"dt\":{\"events\":[],\"cid\":{\"a\":1}}}"},
        {"[$,{\"events\":[]}]", "[$,{\"events\":[]}]"},
        {"{\"t\":17,\"d\":{\"events\":[]}}", "{\"to\":17,\"dt\":{\"events\":[]}}"},
        {"{\"t\":$,\"d\":null,\"e\":17}", "{\"to\":$,\"dt\":null,\"er\":17}"},
        {"{\"t\":$,\"d\":true}", "{\"to\":$,\"dt\":true}"},
        {"null", "null"},
    };
    struct text text = {0};
    const char *form =
        forms[maker->variant % (sizeof forms / sizeof forms[0])][maker->encoding->json ? 0 : 1];
    for (; *form != '\0'; form++) {
        if (*form == '$')
            json_write_string(&text, maker->reply, strlen(maker->reply));
        else
            base_text_append_bytes(&text, form, 1);
    }
    int result = take_json(maker, &text, "");
    base_text_free(&text);
    return result;
}

static int make_flags(struct maker *maker)
{
    static const char *const flags[] = {"x", "jm", "mgg", "gm", "J", "", "m ", "z"};
    int result = take_page(maker, "", NULL);
    if (result == 0)
        snprintf(maker->out->flags, sizeof maker->out->flags, "%s", flags[maker->variant % 8]);
    return result;
}

/* ---- pages with one malformed event */

static void pack_text(struct text *out, const char *text)
{
    json_msgpack_write_text(out, text, strlen(text));
}

/* Writes a timestamp: extension -1 with 64 bits, 30 of nanoseconds and 34 of seconds. */
static void pack_timestamp(struct text *out, int64_t at_ns)
{
    const uint64_t bits = (uint64_t)(at_ns % 1000000000) << 34 | (uint64_t)(at_ns / 1000000000);
    char extension[10] = "\xd7\xff";
    for (unsigned i = 0; i < 8; i++)
        extension[2 + i] = (char)(bits >> (56 - 8 * i));
    base_text_append_bytes(out, extension, sizeof extension);
}

struct repack {
    struct text *out;
    int64_t at_ns;
    size_t members;
};

static int count_member(struct json_span key, struct json_span value, void *user)
{
    (void)key;
    (void)value;
    ((struct repack *)user)->members++;
    return 0;
}

/* Writes a member: converts it as a map of its own and leaves out the map's head. */
static int pack_member(struct json_span key, struct json_span value, void *user)
{
    struct repack *repack = user;
    static const char name[] = "\"timestamp\"";
    if (key.bytes == sizeof name - 1 && memcmp(key.at, name, key.bytes) == 0) {
        pack_text(repack->out, "timestamp");
        pack_timestamp(repack->out, repack->at_ns);
        return 0;
    }
    struct text alone = {0}, packed = {0};
    base_text_append(&alone, "{");
    base_text_append_bytes(&alone, key.at, key.bytes);
    base_text_append(&alone, ":");
    base_text_append_bytes(&alone, value.at, value.bytes);
    base_text_append(&alone, "}");
    int result =
        alone.failed ? EP_ENOMEM : json_msgpack_write(&packed, (struct json_span){alone.text, alone.bytes});
    if (result == 0)
        base_text_append_bytes(repack->out, packed.text + 1, packed.bytes - 1);
    base_text_free(&packed);
    base_text_free(&alone);
    return result;
}

/* Takes the page in MessagePack. `insert`, if given, is one more event in its middle; otherwise every
 * timestamp is the extension -1 instead of text. */
static int take_msgpack_page(struct maker *maker, struct json_span insert)
{
    struct text body = {0};
    int result = 0;
    json_msgpack_write_map(&body, 2);
    pack_text(&body, "to");
    pack_text(&body, maker->reply);
    pack_text(&body, "dt");
    json_msgpack_write_map(&body, 2);
    pack_text(&body, "cid");
    pack_text(&body, maker->page->cid);
    pack_text(&body, "events");
    json_msgpack_write_array(&body, maker->page->count + (insert.bytes != 0));
    for (size_t i = 0; i < maker->page->count && result == 0; i++) {
        const struct sim_event *event = maker->page->events[i];
        const struct json_span text = {event->text, event->bytes};
        struct repack repack = {&body, event->at_ns, 0};
        if (insert.bytes != 0) {
            if (i == maker->page->count / 2)
                base_text_append_bytes(&body, insert.at, insert.bytes);
            result = json_msgpack_write(&body, text);
        } else {
            json_each_member(text, count_member, &repack);
            json_msgpack_write_map(&body, repack.members);
            result = json_each_member(text, pack_member, &repack);
        }
    }
    if (result == 0)
        result = body.failed ? EP_ENOMEM : take(maker, "m", body.text, body.bytes);
    base_text_free(&body);
    return result;
}

/* Makes a page with an event that has no uid, is not a map, is nested too deep, or (MessagePack) holds
 * an unknown extension. */
static int make_bad_event(struct maker *maker)
{
    static const char *const texts[] = {"{\"type\":\"nameless\",\"payload\":1}", "17"};
    static const char *const msgpack[] = {"\x81\xa4type\xa8nameless", "\x11"};
    static const char extension[] = "\x82\xa3uid\xaa"
                                    "bad-packed\xa7payload\xd4\x05\x01";
    const bool json = maker->encoding->json;
    const unsigned form = maker->variant % (json ? 3 : 4);
    struct text bad = {0};
    if (form < 2) {
        base_text_append(&bad, json ? texts[form] : msgpack[form]);
    } else if (form == 2) {
        base_text_append(&bad, json ? "{\"uid\":\"bad-deep\",\"payload\":"
                                    : "\x82\xa3uid\xa8"
                                      "bad-deep\xa7payload");
        repeat(&bad, json ? "[" : "\x91", 1, DEEP_EVENT);
        repeat(&bad, json ? "]" : "\xc0", 1, json ? DEEP_EVENT : 1);
        base_text_append(&bad, json ? "}" : "");
    } else {
        base_text_append_bytes(&bad, extension, sizeof extension - 1);
    }
    int result = EP_ENOMEM;
    if (!bad.failed)
        result = json ? take_page(maker, "", bad.text)
                      : take_msgpack_page(maker, (struct json_span){bad.text, bad.bytes});
    base_text_free(&bad);
    return result;
}

int sim_garbage_make(enum sim_garbage kind, unsigned variant, const struct idefix_encoding *encoding,
                     const char *reply, const struct sim_page *page, struct sim_answer *out)
{
    struct maker maker = {.variant = variant, .encoding = encoding, .reply = reply, .page = page, .out = out};
    *out = (struct sim_answer){0};
    switch (kind) {
    case SIM_GARBAGE_RANDOM:
        return make_random(&maker);
    case SIM_GARBAGE_NOT_GZIP:
        return take_page(&maker, "g", NULL);
    case SIM_GARBAGE_GZIP_BOMB:
        return make_bomb(&maker);
    case SIM_GARBAGE_TRUNCATED:
        return make_truncated(&maker);
    case SIM_GARBAGE_DEEP:
        return make_deep(&maker);
    case SIM_GARBAGE_LYING:
        return make_lying(&maker);
    case SIM_GARBAGE_TYPES:
        return make_types(&maker);
    case SIM_GARBAGE_FLAGS:
        return make_flags(&maker);
    case SIM_GARBAGE_BAD_EVENT:
        return make_bad_event(&maker);
    case SIM_GARBAGE_TIMESTAMPS:
        return encoding->json ? take_page(&maker, "", NULL)
                              : take_msgpack_page(&maker, (struct json_span){0});
    case SIM_GARBAGE_NONE:
    case SIM_GARBAGE_KINDS:
        break;
    }
    return take_page(&maker, "", NULL);
}
