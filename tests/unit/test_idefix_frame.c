/* SPDX-License-Identifier: MIT */
/* Idefix's frames: written in every encoding, read whatever comes. */
#include <stdio.h>
#include <zlib.h>

#include "src/idefix/gzip.h"
#include "tests/lib/idefix_frames.h"
#include "tests/lib/msgpack_fixture.h"

static void reads_encodings(void)
{
    static const struct {
        const char *letters;
        bool json, msgpack, gzip;
    } good[] = {{"mg", false, true, true}, {"m", false, true, false}, {"jg", true, false, true},
                {"j", true, false, false}, {"jmg", true, true, true}, {"gmj", true, true, true}};
    static const char *const bad[] = {"", "g", "x", "mm", "mgg", "mj ", "J", "jx"};
    struct idefix_encoding encoding = {0};

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CU_ASSERT_EQUAL(config_idefix_encoding_read(good[i].letters, &encoding), 0);
        CU_ASSERT_TRUE(encoding.json == good[i].json && encoding.msgpack == good[i].msgpack &&
                       encoding.gzip == good[i].gzip);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        encoding = (struct idefix_encoding){.msgpack = true};
        CU_ASSERT_EQUAL(config_idefix_encoding_read(bad[i], &encoding), EP_EINVAL);
        CU_ASSERT_TRUE(encoding.msgpack && !encoding.json && !encoding.gzip);
    }
}

/* ---- out ---- */

static struct idefix_frame encode(const char *letters, const struct idefix_envelope *envelope)
{
    struct idefix_encoding encoding;
    struct idefix_frame frame = {0};

    CU_ASSERT_EQUAL_FATAL(config_idefix_encoding_read(letters, &encoding), 0);
    CU_ASSERT_EQUAL_FATAL(idefix_frame_encode(&encoding, envelope, &frame), 0);
    return frame;
}

static void expect_frame(const char *letters, const struct idefix_envelope *envelope, const char *flags,
                         struct json_span body)
{
    struct idefix_frame frame = encode(letters, envelope);

    CU_ASSERT_STRING_EQUAL(frame.flags, flags);
    CU_ASSERT_EQUAL_FATAL(frame.bytes, body.bytes);
    CU_ASSERT_EQUAL(memcmp(frame.body, body.at, body.bytes), 0);
    idefix_frame_free(&frame);
    CU_ASSERT_PTR_NULL(frame.body);
}

static void writes_envelopes(void)
{
    const struct idefix_envelope call = {"idefix.x", "0123", NULL, frames_span("{\"a\": 1}")},
                                 failure = {"0123", "", "[7] Timeout", {0}};
    struct msgpack msgpack_call =
                       msgpack_unhex("83 a2746f a8 6964656669782e78 a26474 81 a161 01 a27265 a4 30313233"),
                   msgpack_failure =
                       msgpack_unhex("83 a2746f a4 30313233 a26474 c0 a26572 ab 5b375d2054696d656f7574");

    expect_frame("j", &call, "j", frames_span("{\"t\":\"idefix.x\",\"d\":{\"a\": 1},\"r\":\"0123\"}"));
    expect_frame("jmg", &call, "j", frames_span("{\"t\":\"idefix.x\",\"d\":{\"a\": 1},\"r\":\"0123\"}"));
    expect_frame("j", &failure, "j", frames_span("{\"t\":\"0123\",\"d\":null,\"e\":\"[7] Timeout\"}"));
    expect_frame("m", &call, "m", (struct json_span){msgpack_call.at, msgpack_call.bytes});
    expect_frame("mg", &failure, "m", (struct json_span){msgpack_failure.at, msgpack_failure.bytes});
    msgpack_unhex_free(msgpack_call), msgpack_unhex_free(msgpack_failure);
}

static void compresses_where_it_pays(void)
{
    static const char *const letters[] = {"j", "jg", "m", "mg"};
    char data[4000], *json;

    memset(data, 'a', sizeof data);
    data[0] = '"';
    memcpy(data + sizeof data - 7, "\\u0000\"", 7);
    const struct idefix_envelope large = {"t", "r", NULL, {data, sizeof data}};
    const struct idefix_envelope small = {"t", "r", NULL, frames_span("1")};
    for (size_t i = 0; i < 4; i++) {
        struct idefix_message message;
        bool gzip = letters[i][1] == 'g';
        struct idefix_frame frame = encode(letters[i], &large);
        CU_ASSERT_STRING_EQUAL(frame.flags, letters[i]);
        CU_ASSERT_TRUE(gzip ? frame.bytes < 200 : frame.bytes > 3900);
        CU_ASSERT_EQUAL(idefix_message_decode(frame.flags, frame.body, frame.bytes, FRAME_LIMIT, &message,
                                              NULL),
                        0);
        json = frames_data_json(&message);
        CU_ASSERT_TRUE(strlen(json) == sizeof data && memcmp(json, data, sizeof data) == 0);
        free(json);
        idefix_message_free(&message);
        idefix_frame_free(&frame);
        frame = encode(letters[i], &small);
        CU_ASSERT_EQUAL(strlen(frame.flags), 1);
        idefix_frame_free(&frame);
    }
}

/* ---- in ---- */

static int decode_limited(const char *flags, struct json_span body, size_t limit,
                          struct idefix_message *message, struct error *error)
{
    char *exact = malloc(body.bytes > 0 ? body.bytes : 1);

    memcpy(exact, body.at, body.bytes);
    int code = idefix_message_decode(flags, exact, body.bytes, limit, message, error);
    free(exact); /* nothing of it may be needed */
    return code;
}

static void expect_message(const char *flags, struct json_span body, const char *to, const char *reply,
                           const char *error_text, int error_code, const char *data)
{
    struct idefix_message message = {0};
    struct error error = {0};

    CU_ASSERT_EQUAL(decode_limited(flags, body, FRAME_LIMIT, &message, &error), 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(message.to);
    CU_ASSERT_STRING_EQUAL(message.to, to);
    CU_ASSERT_TRUE(reply == NULL ? message.reply == NULL
                                 : message.reply != NULL && strcmp(message.reply, reply) == 0);
    CU_ASSERT_TRUE(error_text == NULL ? message.error == NULL
                                      : message.error != NULL && strcmp(message.error, error_text) == 0);
    CU_ASSERT_EQUAL(message.error_code, error_code);
    char *json = frames_data_json(&message);
    CU_ASSERT_STRING_EQUAL(json, data);
    msgpack_show_difference("data", json, data);
    free(json);
    idefix_message_free(&message);
    CU_ASSERT_TRUE(message.body == NULL && message.to == NULL);
    idefix_message_free(&message);
}

static void expect_malformed(const char *flags, struct json_span body, size_t limit, const char *expected)
{
    struct idefix_message message = {.bytes = 4711};
    struct error error = {0};

    CU_ASSERT_EQUAL(decode_limited(flags, body, limit, &message, &error), EP_EPROTO);
    CU_ASSERT_STRING_EQUAL(error.message, expected);
    msgpack_show_difference(flags, error.message, expected);
    CU_ASSERT_EQUAL(decode_limited(flags, body, limit, &message, NULL), EP_EPROTO);
    CU_ASSERT_EQUAL(message.bytes, 4711); /* untouched */
}

static void expect_json_malformed(const char *body, const char *message)
{
    expect_malformed("j", frames_span(body), FRAME_LIMIT, message);
}

static void expect_msgpack_malformed(const char *hex, const char *message)
{
    struct msgpack body = msgpack_unhex(hex);
    expect_malformed("m", (struct json_span){body.at, body.bytes}, FRAME_LIMIT, message);
    msgpack_unhex_free(body);
}

static void reads_json_envelopes(void)
{
    expect_message("j", frames_span("{\"t\":\"a\",\"d\":{\"x\":[1]},\"r\":\"b\"}"), "a", "b", NULL, 0,
                   "{\"x\":[1]}");
    expect_message("j", frames_span(" { \"d\" : 1 ,\n\"t\" : \"a\" } \n"), "a", NULL, NULL, 0, "1");
    expect_message("j", frames_span("{\"t\":\"a\"}"), "a", NULL, NULL, 0, "null");
    expect_message("j", frames_span("{\"t\":\"\",\"r\":null,\"e\":null,\"d\":null}"), "", NULL, NULL, 0,
                   "null");
    expect_message("j", frames_span("{\"t\":\"a\",\"r\":\"\",\"e\":\"\"}"), "a", NULL, NULL, 0, "null");
    expect_message("j", frames_span("{\"\\u0074\":\"\\u0061\\u0000\",\"x\":[\"t\"],\"t\":5}"),
                   "a\xEF\xBF\xBD", NULL, NULL, 0, "null");
    expect_message("j", frames_span("{\"T\":1,\"to\":2,\"t\":\"a\",\"e\":\"[201] No\",\"e\":\"\"}"), "a",
                   NULL, "[201] No", 201, "null");
}

static void reads_msgpack_envelopes(void)
{
    static const struct {
        const char *hex, *reply, *error;
        int code;
        const char *data;
    } good[] = {
        {"81 a2746f a161", NULL, NULL, 0, "null"},
        {"84 a2746f a161 a26474 92 01 c40100 a27265 a162 a26572 a0", "b", NULL, 0, "[1,\"AA==\"]"},
        {"84 a26474 c0 a27265 c0 a26572 c0 a2746f a161", NULL, NULL, 0, "null"},
        {"83 05 06 a26474 81 a161 a1ff d9026572 d9055b375d20ff", NULL, NULL, 0, NULL},
        {"84 c0 91 c1 a26474 00 a2746f a161 a26572 a4 5b31355d", NULL, "[15]", 15, "0"},
        {"83 a2746f a161 a26474 c2 a26474 c3", NULL, NULL, 0, "false"},
    };

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct msgpack body = msgpack_unhex(good[i].hex);
        if (good[i].data != NULL)
            expect_message("m", (struct json_span){body.at, body.bytes}, "a", good[i].reply, good[i].error,
                           good[i].code, good[i].data);
        else
            expect_malformed("m", (struct json_span){body.at, body.bytes}, FRAME_LIMIT,
                             "the envelope has no \"to\"");
        msgpack_unhex_free(body);
    }
    struct msgpack odd =
        msgpack_unhex("82 a2746f a2 6100 a26572 a5 5b375d20ff"); /* NUL and no UTF-8 become U+FFFD */
    expect_message("m", (struct json_span){odd.at, odd.bytes}, "a\xEF\xBF\xBD", NULL, "[7] \xEF\xBF\xBD", 7,
                   "null");
    msgpack_unhex_free(odd);
}

static void reads_error_codes(void)
{
    static const struct {
        const char *text;
        int code;
    } errors[] = {{"[7] Timeout", 7},
                  {"[201] Invalid token (extra)", 201},
                  {"[7]", 7},
                  {"[007] x", 7},
                  {"Timeout", 1},
                  {"[x] y", 1},
                  {"[]", 1},
                  {"[7", 1},
                  {"[-7] x", 1},
                  {"[+7] x", 1},
                  {"[ 7] x", 1},
                  {"[0] x", 1},
                  {"[7x] y", 1},
                  {"[2147483647] x", 2147483647},
                  {"[2147483648] x", 1},
                  {"[99999999999999999999] x", 1},
                  {" [7] x", 1},
                  {"[", 1}};

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        char body[200];
        snprintf(body, sizeof body, "{\"t\":\"a\",\"e\":\"%s\"}", errors[i].text);
        expect_message("j", frames_span(body), "a", NULL, errors[i].text, errors[i].code, "null");
    }
}

static void refuses_unknown_flags(void)
{
    expect_malformed("x", frames_span("{\"t\":\"a\"}"), FRAME_LIMIT, "unknown flags \"x\"");
    expect_malformed("", frames_span("{\"t\":\"a\"}"), FRAME_LIMIT, "unknown flags \"\"");
    expect_malformed("mgg", frames_span("{\"t\":\"a\"}"), FRAME_LIMIT, "unknown flags \"mgg\"");
    expect_malformed("jm", frames_span("{\"t\":\"a\"}"), FRAME_LIMIT, "unknown flags \"jm\"");
    expect_malformed("g", frames_span("{\"t\":\"a\"}"), FRAME_LIMIT, "unknown flags \"g\"");
    expect_malformed("j ", frames_span("{\"t\":\"a\"}"), FRAME_LIMIT, "unknown flags \"j \"");
    expect_malformed("JJJJJJJJJJJJJJJJJJJJJJJJJJJJ", frames_span(""), FRAME_LIMIT,
                     "unknown flags \"JJJJJJJJJJJJJJJJ\"");
}

static void refuses_what_is_no_envelope(void)
{
    expect_json_malformed("", "no envelope: the JSON is not an object");
    expect_json_malformed("[1]", "no envelope: the JSON is not an object");
    expect_json_malformed("null", "no envelope: the JSON is not an object");
    expect_json_malformed("{\"t\":\"a\"", "no envelope: the JSON object is broken");
    expect_json_malformed("{\"t\":\"a\"}}", "no envelope: the JSON object is broken");
    expect_json_malformed("{\"t\":\"a\",\"d\":{\"x\":\"}", "no envelope: the JSON object is broken");
    expect_json_malformed("{}", "the envelope has no \"t\"");
    expect_json_malformed("{\"to\":\"a\"}", "the envelope has no \"t\"");
    expect_json_malformed("{\"t\":5}", "the envelope's \"t\" is not a string");
    expect_json_malformed("{\"t\":null}", "the envelope's \"t\" is not a string");
    expect_json_malformed("{\"t\":\"a\" b}", "the envelope's \"t\" is not a string");
    expect_json_malformed("{\"t\":\"\xFF\"}", "the envelope's \"t\" is not a string");
    expect_json_malformed("{\"t\":\"a\",\"r\":[]}", "the envelope's \"r\" is not a string");
    expect_json_malformed("{\"t\":\"a\",\"e\":7}", "the envelope's \"e\" is not a string");
    expect_json_malformed("{\"t\":\"a\",\"d\":}", "the envelope's \"d\" has no value");
    expect_msgpack_malformed("", "MessagePack ends within the value at byte 0 of 0");
    expect_msgpack_malformed("90", "no envelope: the MessagePack is not a map");
    expect_msgpack_malformed("c1", "no envelope: the MessagePack is not a map");
    expect_msgpack_malformed("80", "the envelope has no \"to\"");
    expect_msgpack_malformed("81 a174 a161", "the envelope has no \"to\"");
    expect_msgpack_malformed("81 a2746f 05", "the envelope's \"to\" is not a string");
    expect_msgpack_malformed("81 a2746f c40161", "the envelope's \"to\" is not a string");
    expect_msgpack_malformed("82 a2746f a161 a26572 07", "the envelope's \"er\" is not a string");
    expect_msgpack_malformed("82 a2746f a161 a27265 90", "the envelope's \"re\" is not a string");
    expect_msgpack_malformed("81 a2746f a161 c0", "1 bytes follow the envelope");
    expect_msgpack_malformed(
        "82 a2746f a161 a26474 dd ffffffff 00",
        "MessagePack announces 4294967295 values at byte 9, more than the bytes that are left (1)");
}

/* Data that cannot be read costs the data, not the envelope: who asks is told. */
static void keeps_bad_data_to_itself(void)
{
    static const char *const bodies[] = {"{\"t\":\"a\",\"d\":nul}", "{\"t\":\"a\",\"d\":[1,,2]}",
                                         "{\"t\":\"a\",\"d\":[\"\xFF\"]}"};
    struct msgpack body = msgpack_unhex("82 a26474 92 01 c1 a2746f a161");
    struct idefix_message message;
    struct text out = {0};
    struct error error;

    for (size_t i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(decode_limited("j", frames_span(bodies[i]), FRAME_LIMIT, &message, NULL), 0);
        CU_ASSERT_STRING_EQUAL(message.to, "a");
        CU_ASSERT_EQUAL(idefix_message_write_json(&message, &out, &error), EP_EPROTO);
        CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "not valid JSON: error at byte "));
        idefix_message_free(&message);
    }
    CU_ASSERT_EQUAL(decode_limited("m", (struct json_span){body.at, body.bytes}, FRAME_LIMIT, &message, NULL),
                    0);
    CU_ASSERT_EQUAL(idefix_message_write_json(&message, &out, &error), EP_EPROTO);
    CU_ASSERT_STRING_EQUAL(error.message, "byte 2 is 0xC1, which means nothing in MessagePack");
    idefix_message_free(&message);
    base_text_free(&out);
    msgpack_unhex_free(body);
}

/* ---- gzip ---- */

static struct json_span gzip_of(const char *text, size_t bytes)
{
    z_stream stream = {.next_in = (z_const Bytef *)text, .avail_in = (uInt)bytes};
    size_t room = bytes / 100 + 1000;
    char *out = malloc(room);

    CU_ASSERT_EQUAL_FATAL(deflateInit2(&stream, 9, Z_DEFLATED, 31, 9, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_out = (Bytef *)out;
    stream.avail_out = (uInt)room;
    CU_ASSERT_EQUAL_FATAL(deflate(&stream, Z_FINISH), Z_STREAM_END);
    struct json_span made = {out, stream.total_out};
    deflateEnd(&stream);
    return made;
}

static void inflates_up_to_the_limit(void)
{
    enum { BYTES = 100000 };
    char *body = malloc(BYTES);
    struct idefix_message message;

    memset(body, ' ', BYTES);
    memcpy(body, "{\"t\":\"a\"}", 9);
    struct json_span gzip = gzip_of(body, BYTES);
    CU_ASSERT_TRUE(gzip.bytes < 500);
    CU_ASSERT_EQUAL(decode_limited("jg", gzip, BYTES, &message, NULL), 0);
    CU_ASSERT_TRUE(message.bytes == BYTES && memcmp(message.body, body, BYTES) == 0);
    idefix_message_free(&message);
    CU_ASSERT_EQUAL(decode_limited("jg", gzip, SIZE_MAX, &message, NULL), 0);
    idefix_message_free(&message);
    expect_malformed("jg", gzip, BYTES - 1, "it is larger than max_bytes (99999) when inflated");
    expect_malformed("jg", gzip, 4096, "it is larger than max_bytes (4096) when inflated");
    expect_malformed("jg", gzip, 0, "it is larger than max_bytes (0) when inflated");
    expect_malformed("j", (struct json_span){body, BYTES}, BYTES - 1,
                     "the body has 100000 bytes, more than max_bytes (99999)");
    free((char *)gzip.at);
    free(body);
}

/* 64 MiB in 64 KB, and several such in one body: the limit holds for all members together. */
static void refuses_bombs(void)
{
    size_t bytes = (size_t)64 << 20;
    char *zeros = calloc(1, bytes);
    struct json_span bomb = gzip_of(zeros, bytes), part = gzip_of(zeros, FRAME_LIMIT);
    char *many = malloc(3 * part.bytes);

    CU_ASSERT_TRUE(bomb.bytes < 80000);
    expect_malformed("mg", bomb, FRAME_LIMIT, "it is larger than max_bytes (1048576) when inflated");
    for (size_t i = 0; i < 3; i++)
        memcpy(many + i * part.bytes, part.at, part.bytes);
    expect_malformed("mg", (struct json_span){many, 3 * part.bytes}, 2 * FRAME_LIMIT,
                     "it is larger than max_bytes (2097152) when inflated");
    expect_malformed("mg", (struct json_span){many, 3 * part.bytes}, 3 * FRAME_LIMIT,
                     "3145727 bytes follow the envelope"); /* a zero, and many more */
    free(zeros), free(many), free((char *)bomb.at), free((char *)part.at);
}

static void reads_members_in_a_row(void)
{
    struct json_span first = gzip_of("{\"t\":", 5), second = gzip_of("\"a\"}", 4), empty = gzip_of("", 0);
    size_t bytes = first.bytes + second.bytes + empty.bytes;
    char *both = malloc(bytes + 1);

    char *end = mempcpy(mempcpy(mempcpy(both, first.at, first.bytes), empty.at, empty.bytes), second.at,
                        second.bytes);
    expect_message("jg", (struct json_span){both, bytes}, "a", NULL, NULL, 0, "null");
    *end = 'x';
    expect_malformed("jg", (struct json_span){both, bytes + 1}, FRAME_LIMIT,
                     "1 bytes follow the end of the gzip data");
    *end = 0x1F;
    expect_malformed("jg", (struct json_span){both, bytes + 1}, FRAME_LIMIT,
                     "it does not inflate: the gzip data is cut off");
    expect_malformed("jg", (struct json_span){both, bytes - 1}, FRAME_LIMIT,
                     "it does not inflate: the gzip data is cut off");
    free(both), free((char *)first.at), free((char *)second.at), free((char *)empty.at);
}

static void refuses_what_is_no_gzip(void)
{
    struct json_span good = gzip_of("{\"t\":\"a\"}", 9);
    char bad[200] = {0};

    for (size_t cut = 0; cut < good.bytes; cut++)
        expect_malformed("jg", (struct json_span){good.at, cut}, FRAME_LIMIT,
                         "it does not inflate: the gzip data is cut off");
    expect_malformed("jg", frames_span("{\"t\":\"a\"}"), FRAME_LIMIT,
                     "it does not inflate: incorrect header check");
    memcpy(bad, good.at, good.bytes);
    bad[good.bytes - 8] ^= 1;
    expect_malformed("jg", (struct json_span){bad, good.bytes}, FRAME_LIMIT,
                     "it does not inflate: incorrect data check");
    memcpy(bad, good.at, good.bytes);
    bad[good.bytes - 1] ^= 1;
    expect_malformed("jg", (struct json_span){bad, good.bytes}, FRAME_LIMIT,
                     "it does not inflate: incorrect length check");
    free((char *)good.at);
}

UNIT_MAIN("idefix_frame", {"reads encodings", reads_encodings}, {"writes envelopes", writes_envelopes},
          {"compresses where it pays", compresses_where_it_pays},
          {"reads JSON envelopes", reads_json_envelopes},
          {"reads MessagePack envelopes", reads_msgpack_envelopes}, {"reads error codes", reads_error_codes},
          {"refuses unknown flags", refuses_unknown_flags},
          {"refuses what is no envelope", refuses_what_is_no_envelope},
          {"keeps bad data to itself", keeps_bad_data_to_itself},
          {"inflates up to the limit", inflates_up_to_the_limit}, {"refuses bombs", refuses_bombs},
          {"reads gzip members in a row", reads_members_in_a_row},
          {"refuses what is no gzip", refuses_what_is_no_gzip})
