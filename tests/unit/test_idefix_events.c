/* SPDX-License-Identifier: MIT */
/* A page of Idefix's events: what is stored, what is kept as corrupt, and what an error code asks for. */
#include <stdio.h>
#include <unistd.h>

#include "src/idefix/client.h"
#include "src/source/idefix_events.h"

#include "src/base/hash.h"
#include "tests/lib/idefix_frames.h"
#include "tests/lib/msgpack_fixture.h"

static int read_page(const char *flags, struct json_span body, struct page *page, struct error *error)
{
    struct idefix_message message;
    struct error decoding = {0};

    CU_ASSERT_EQUAL_FATAL(idefix_message_decode(flags, body.at, body.bytes, FRAME_LIMIT, &message, &decoding),
                          0);
    int code = source_idefix_events_read(&message, page, error);
    idefix_message_free(&message); /* the page keeps copies */
    return code;
}

/* data: what stands in "d" */
static int read_json(const char *data, struct page *page, struct error *error)
{
    size_t room = strlen(data) + 100;
    char *body = malloc(room);

    snprintf(body, room, "{\"t\":\"a\",\"d\":%s}", data);
    int code = read_page("j", frames_span(body), page, error);
    free(body);
    return code;
}

static int read_msgpack(const char *hex, struct page *page, struct error *error)
{
    size_t room = strlen(hex) + 100;
    char *text = malloc(room);

    snprintf(text, room, "82 a2746f a161 a26474 %s", hex);
    struct msgpack body = msgpack_unhex(text);
    int code = read_page("m", (struct json_span){body.at, body.bytes}, page, error);
    msgpack_unhex_free(body);
    free(text);
    return code;
}

static void expect_event(const struct store_event *event, const char *uid, const char *address,
                         const char *type, const char *data)
{
    CU_ASSERT_EQUAL(event->dead, STORE_REASON_NONE);
    CU_ASSERT_STRING_EQUAL(event->uid, uid);
    CU_ASSERT_TRUE(address == NULL ? event->address == NULL
                                   : event->address != NULL && strcmp(event->address, address) == 0);
    CU_ASSERT_TRUE(type == NULL ? event->type == NULL
                                : event->type != NULL && strcmp(event->type, type) == 0);
    CU_ASSERT_STRING_EQUAL(event->data, data);
    msgpack_show_difference(uid, event->data, data);
    CU_ASSERT_EQUAL(event->data_bytes, strlen(data));
    CU_ASSERT_TRUE(json_valid(event->data, event->data_bytes, NULL));
}

static void stores_json_as_it_came(void)
{
    struct page page;

    source_page_open(&page);
    CU_ASSERT_EQUAL(
        read_json(
            "{\"cid\":\"c-1\",\"events\":[ {\"uid\":\"u1\", \"address\":\"d1\",\"type\":\"t1\",\"n\":1e2 } ,"
            "{\"address\":5,\"type\":null,\"uid\":\"\\u0075\\\"2\",\"address\":\"x\"}\n,"
            "{\"type\":\"a\\u0000b\",\"x\":{\"uid\":\"no\"},\"uid\":\"u3\",\"uid\":\"u4\"}]}",
            &page, NULL),
        0);
    CU_ASSERT_EQUAL_FATAL(page.count, 3);
    expect_event(&page.events[0], "u1", "d1", "t1",
                 "{\"uid\":\"u1\", \"address\":\"d1\",\"type\":\"t1\",\"n\":1e2 }");
    expect_event(&page.events[1], "u\"2", NULL, NULL,
                 "{\"address\":5,\"type\":null,\"uid\":\"\\u0075\\\"2\",\"address\":\"x\"}");
    expect_event(&page.events[2], "u3", NULL, "a\xEF\xBF\xBD\x62",
                 "{\"type\":\"a\\u0000b\",\"x\":{\"uid\":\"no\"},\"uid\":\"u3\",\"uid\":\"u4\"}");
    CU_ASSERT_STRING_EQUAL(page.cursor, "c-1");
    source_page_clear(&page);
}

static void stores_msgpack_as_json(void)
{
    struct page page;

    source_page_open(&page);
    CU_ASSERT_EQUAL(read_msgpack("82 a36369 64 a2 c3a9 a6 6576656e7473 92"
                                 "85 a3756964 a27531 a7 61646472657373 a26431 a474797065 a3 610062"
                                 "   a9 74696d657374616d70 d6ff 00000000 a7 7061796c6f6164 c403 090807"
                                 "82 a3756964 a27532 a474797065 a1ff",
                                 &page, NULL),
                    0);
    CU_ASSERT_EQUAL_FATAL(page.count, 2);
    expect_event(&page.events[0], "u1", "d1", "a\xEF\xBF\xBD\x62",
                 "{\"uid\":\"u1\",\"address\":\"d1\",\"type\":\"a\\u0000b\","
                 "\"timestamp\":\"1970-01-01T00:00:00Z\",\"payload:b64\":\"CQgH\"}");
    expect_event(&page.events[1], "u2", NULL, "\xEF\xBF\xBD",
                 "{\"uid\":\"u2\",\"type:string:b64\":\"/w==\"}");
    CU_ASSERT_STRING_EQUAL(page.cursor, "\xC3\xA9");
    source_page_clear(&page);
}

static void takes_an_empty_answer_for_nothing(void)
{
    static const char *const empty[] = {"null",
                                        "{}",
                                        "{\"events\":null}",
                                        "{\"events\":[]}",
                                        "{\"events\":[],\"cid\":null}",
                                        "{\"cid\":\"\",\"events\":[ ]}"};
    static const char *const msgpack_empty[] = {"c0",
                                                "80",
                                                "81 a6 6576656e7473 c0",
                                                "81 a6 6576656e7473 90",
                                                "82 a6 6576656e7473 90 a3636964 c0",
                                                "81 a3636964 a0"};
    struct page page;

    source_page_open(&page);
    for (size_t i = 0; i < 6; i++) {
        CU_ASSERT_EQUAL(read_json(empty[i], &page, NULL), 0);
        CU_ASSERT_EQUAL(read_msgpack(msgpack_empty[i], &page, NULL), 0);
        CU_ASSERT_TRUE(page.count == 0 && page.cursor == NULL);
    }
    CU_ASSERT_EQUAL(read_json("{\"cid\":\"c\"}", &page, NULL), 0); /* a cursor may move on without events */
    CU_ASSERT_TRUE(page.count == 0 && strcmp(page.cursor, "c") == 0);
    source_page_clear(&page);
}

static void expect_refused_answer(bool msgpack, const char *data, const char *expected)
{
    struct page page;
    struct error error = {0};

    source_page_open(&page);
    source_page_add(&page, "before", NULL, NULL, "{}", 2);
    source_page_set_cursor(&page, "old");
    CU_ASSERT_EQUAL(msgpack ? read_msgpack(data, &page, &error) : read_json(data, &page, &error), EP_EPROTO);
    CU_ASSERT_STRING_EQUAL(error.message, expected);
    msgpack_show_difference(data, error.message, expected);
    CU_ASSERT_EQUAL(msgpack ? read_msgpack(data, &page, NULL) : read_json(data, &page, NULL), EP_EPROTO);
    CU_ASSERT_TRUE(page.count == 1 && strcmp(page.cursor, "old") == 0);
    source_page_clear(&page);
}

static void refuses_other_answers_as_a_whole(void)
{
    static const char event[] = "{\"uid\":\"u\"}";
    char broken[200];

    expect_refused_answer(false, "5", "the answer's data is not a JSON object");
    expect_refused_answer(false, "[]", "the answer's data is not a JSON object");
    expect_refused_answer(false, "{\"events\":{}}", "the answer's events are not a list");
    expect_refused_answer(false, "{\"events\":}", "the answer's events are not a list");
    expect_refused_answer(false, "{\"events\":[],\"cid\":7}", "the answer's cid is not a text");
    expect_refused_answer(false, "{\"events\":[],\"cid\":}", "the answer's cid is not a text");
    expect_refused_answer(false, "{\"events\":[{\"uid\":\"u\"}],\"cid\":\"a\\u0000\"}",
                          "the answer's cid is not a text");
    expect_refused_answer(false, "{\"events\":[{\"uid\":\"u\"}],\"cid\":\"\xFF\"}",
                          "the answer's cid is not a text");
    snprintf(broken, sizeof broken, "{\"events\":[%s,%s}],\"x\":[[1}]", event, event);
    expect_refused_answer(false, broken, "the answer's data is not a JSON object");
    snprintf(broken, sizeof broken, "{\"events\":[%s,%s}}", event, event);
    expect_refused_answer(false, broken, "the answer's events are not a list");
    expect_refused_answer(true, "05", "the answer's data is not a map");
    expect_refused_answer(true, "90", "the answer's data is not a map");
    expect_refused_answer(true, "c1", "the answer's data is not a map");
    expect_refused_answer(true, "81 a6 6576656e7473 80", "the answer's events are not a list");
    expect_refused_answer(true, "81 a6 6576656e7473 c1", "the answer's events are not a list");
    expect_refused_answer(true, "82 a6 6576656e7473 91 81 a3756964 a175 a3636964 07",
                          "the answer's cid is not a text");
    expect_refused_answer(true, "82 a6 6576656e7473 91 81 a3756964 a175 a3636964 c40161",
                          "the answer's cid is not a text");
    expect_refused_answer(true, "82 a6 6576656e7473 91 81 a3756964 a175 a3636964 a1ff",
                          "the answer's cid is not a text");
    expect_refused_answer(true, "82 a6 6576656e7473 91 81 a3756964 a175 a3636964 a100",
                          "the answer's cid is not a text");
}

/* More events than anybody asks for: nothing is made of them. */
static void refuses_floods(void)
{
    enum { EVENTS = 100001 };
    struct idefix_message message = {.msgpack = true};
    struct page page;
    struct error error = {0};
    char *body = malloc(EVENTS + 13);

    memcpy(body, "\x81\xA6\x65\x76\x65\x6E\x74\x73\xDD\x00\x01\x86\xA1", 13);
    memset(body + 13, 0xC0, EVENTS);
    message.data = (struct json_span){body, EVENTS + 13};
    source_page_open(&page);
    CU_ASSERT_EQUAL(source_idefix_events_read(&message, &page, &error), EP_EPROTO);
    CU_ASSERT_STRING_EQUAL(error.message, "the answer holds 100001 events, more than 100000");
    CU_ASSERT_EQUAL(page.count, 0);
    free(body);
}

/* ---- one bad event among five ---- */

static void expect_corrupt(const struct page *page, const char *uid, struct json_span raw, const char *error)
{
    static const char *const others[] = {"e1", "e2", NULL, "e4", "e5"};
    char hash[33], data[40];

    CU_ASSERT_EQUAL_FATAL(page->count, 5);
    for (size_t i = 0; i < 5; i++)
        if (others[i] != NULL) {
            snprintf(data, sizeof data, "{\"uid\":\"%s\"}", others[i]);
            expect_event(&page->events[i], others[i], NULL, NULL, data);
        }
    const struct store_event *bad = &page->events[2];
    base_hash_write_hex(raw.at, raw.bytes, hash, 32);
    CU_ASSERT_EQUAL(bad->dead, STORE_REASON_CORRUPT);
    CU_ASSERT_STRING_EQUAL(bad->uid, uid != NULL ? uid : hash);
    CU_ASSERT_EQUAL_FATAL(bad->data_bytes, raw.bytes);
    CU_ASSERT_EQUAL(memcmp(bad->data, raw.at, raw.bytes), 0);
    CU_ASSERT_STRING_EQUAL(bad->error, error);
    msgpack_show_difference(raw.at, bad->error, error);
    CU_ASSERT_STRING_EQUAL(page->cursor, "c-5");
}

/* uid NULL: a hash of its bytes */
static void expect_bad_json(const char *bad, const char *uid, const char *error)
{
    size_t room = strlen(bad) + 200;
    char *data = malloc(room);
    struct page page;

    stpcpy(stpcpy(stpcpy(data, "{\"events\":[{\"uid\":\"e1\"},{\"uid\":\"e2\"}, "), bad),
           " ,{\"uid\":\"e4\"},{\"uid\":\"e5\"}],\"cid\":\"c-5\"}");
    source_page_open(&page);
    CU_ASSERT_EQUAL(read_json(data, &page, NULL), 0);
    expect_corrupt(&page, uid, frames_span(bad), error);
    source_page_clear(&page);
    free(data);
}

static void expect_bad_msgpack(const char *hex, const char *uid, const char *error)
{
    size_t room = strlen(hex) + 300;
    char *data = malloc(room);
    struct msgpack bad = msgpack_unhex(hex);
    struct page page;

    stpcpy(stpcpy(stpcpy(data, "82 a6 6576656e7473 95 81 a3756964 a26531 81 a3756964 a26532 "), hex),
           " 81 a3756964 a26534 81 a3756964 a26535 a3636964 a3 632d35");
    source_page_open(&page);
    CU_ASSERT_EQUAL(read_msgpack(data, &page, NULL), 0);
    expect_corrupt(&page, uid, (struct json_span){bad.at, bad.bytes}, error);
    source_page_clear(&page);
    msgpack_unhex_free(bad);
    free(data);
}

static char *nested(size_t depth, const char *open, const char *close, const char *head, const char *tail)
{
    char *text = malloc(depth * (strlen(open) + strlen(close)) + strlen(head) + strlen(tail) + 1), *at = text;

    if (text == NULL)
        abort();
    at = stpcpy(at, head);
    for (size_t i = 0; i < depth; i++)
        at = stpcpy(at, open);
    for (size_t i = 0; i < depth; i++)
        at = stpcpy(at, close);
    stpcpy(at, tail);
    return text;
}

static void keeps_bad_json_events(void)
{
    char uid[1200], text[1300];
    static const char no_text[] = "its uid is not a text", none[] = "it has no uid";

    expect_bad_json("{}", NULL, none);
    expect_bad_json("{\"type\":\"t\"}", NULL, none);
    expect_bad_json("{\"uid\":null}", NULL, none);
    expect_bad_json("{\"uid\":\"\"}", NULL, none);
    expect_bad_json("{\"uid\":7}", NULL, no_text);
    expect_bad_json("{\"uid\":[\"e3\"]}", NULL, no_text);
    expect_bad_json("{\"uid\":\"e\\u00003\"}", NULL, "its uid contains NUL or is not UTF-8");
    expect_bad_json("null", NULL, "it is not a JSON object");
    expect_bad_json("17", NULL, "it is not a JSON object");
    expect_bad_json("\"e3\"", NULL, "it is not a JSON object");
    expect_bad_json("[{\"uid\":\"e3\"}]", NULL, "it is not a JSON object");
    expect_bad_json("{\"uid\":\"e3\",\"x\":NaN}", "e3", "it is not valid JSON at byte 16");
    expect_bad_json("{\"uid\":\"e3\",\"x\":01}", "e3", "it is not valid JSON at byte 17");
    expect_bad_json("{\"uid\":\"e3\",\"x\":\"\xFF\"}", "e3", "it is not valid JSON at byte 17");
    expect_bad_json("{\"uid\":\"e\xC3\"}", NULL, "it is not valid JSON at byte 9");
    expect_bad_json("{\"uid\":\"e3\",\"x\":\"\x01\"}", "e3", "it is not valid JSON at byte 17");
    expect_bad_json("{\"uid\":\"e3\",\"x\":[1}}", "e3", "it is not valid JSON at byte 18");
    expect_bad_json("{\"uid\":\"e3\"} x", "e3", "it is not valid JSON at byte 13");
    expect_bad_json("undefined", NULL, "it is not valid JSON at byte 0");
    expect_bad_json("", NULL, "it is not valid JSON at byte 0");
    char *deep = nested(200, "[", "]", "{\"uid\":\"e3\",\"x\":", "}");
    expect_bad_json(deep, "e3", "it is nested deeper than 200");
    free(deep);
    memset(uid, 'u', sizeof uid);
    uid[1025] = '\0';
    snprintf(text, sizeof text, "{\"uid\":\"%s\"}", uid);
    expect_bad_json(text, NULL, "its uid is longer than 1024 bytes");
}

static void keeps_bad_msgpack_events(void)
{
    static const char no_text[] = "its uid is not a text", none[] = "it has no uid";
    char *hex;

    expect_bad_msgpack("80", NULL, none);
    expect_bad_msgpack("81 a3756964 c0", NULL, none);
    expect_bad_msgpack("81 a3756964 a0", NULL, none);
    expect_bad_msgpack("81 c403756964 a26533", NULL, "the key at byte 1 is neither text nor an integer");
    expect_bad_msgpack("81 a3756964 07", NULL, no_text);
    expect_bad_msgpack("81 a3756964 c402 6533", NULL, no_text);
    expect_bad_msgpack("81 a3756964 a3 650033", NULL, "its uid contains NUL or is not UTF-8");
    expect_bad_msgpack("81 a3756964 a2 65ff", NULL, "its uid contains NUL or is not UTF-8");
    expect_bad_msgpack("c0", NULL, "it is not a map");
    expect_bad_msgpack("05", NULL, "it is not a map");
    expect_bad_msgpack("a2 6533", NULL, "it is not a map");
    expect_bad_msgpack("91 81 a3756964 a26533", NULL, "it is not a map");
    expect_bad_msgpack("c1", NULL, "it is not a map");
    expect_bad_msgpack("d4 05 00", NULL, "it is not a map");
    expect_bad_msgpack("82 a3756964 a26533 a178 c1", "e3",
                       "byte 10 is 0xC1, which means nothing in MessagePack");
    expect_bad_msgpack("82 a178 d4 05 00 a3756964 a26533", "e3", "an extension of unknown type 5 at byte 3");
    expect_bad_msgpack("82 a178 c70c ff 3b9aca00 0000000000000000 a3756964 a26533", "e3",
                       "the timestamp at byte 3 is out of range");
    expect_bad_msgpack("82 a3756964 a26533 c0 01", "e3", "the key at byte 8 is neither text nor an integer");
    hex = nested(200, "91", "", "82 a3756964 a26533 a178 ", "c0");
    expect_bad_msgpack(hex, "e3", "nested deeper than 200 at byte 209");
    free(hex);
    hex = nested(100000, "91", "", "82 a3756964 a26533 a178 ", "c0");
    expect_bad_msgpack(hex, "e3", "nested deeper than 200 at byte 209");
    free(hex);
    hex = nested(1025, "75", "", "81 a3756964 da0401 ", "");
    expect_bad_msgpack(hex, NULL, "its uid is longer than 1024 bytes");
    free(hex);
}

/* 199 levels inside the event's own: as deep as may be. And a uid as long as may be. */
static void takes_what_is_just_within_bounds(void)
{
    struct page page;
    char *json = nested(199, "[", "]", "{\"events\":[{\"uid\":\"e\",\"x\":", "}]}"),
         *hex = nested(199, "91", "", "81 a6 6576656e7473 91 82 a3756964 a165 a178 ", "c0"),
         *uid = nested(1024, "75", "", "81 a6 6576656e7473 91 81 a3756964 da0400 ", "");

    source_page_open(&page);
    CU_ASSERT_EQUAL(read_json(json, &page, NULL), 0);
    CU_ASSERT_EQUAL(read_msgpack(hex, &page, NULL), 0);
    CU_ASSERT_EQUAL(read_msgpack(uid, &page, NULL), 0);
    CU_ASSERT_EQUAL(page.count, 3);
    for (size_t i = 0; i < page.count; i++)
        CU_ASSERT_EQUAL(page.events[i].dead, STORE_REASON_NONE);
    source_page_clear(&page);
    free(json), free(hex), free(uid);
}

/* ---- errors ---- */

static void knows_what_an_error_code_asks_for(void)
{
    static const struct {
        int code;
        enum idefix_verdict verdict;
        const char *setting;
    } expected[] = {
        {0, IDEFIX_FAILED, NULL},         {1, IDEFIX_FAILED, NULL},        {2, IDEFIX_FAILED, NULL},
        {4, IDEFIX_REFUSED, NULL},        {5, IDEFIX_REFUSED, NULL},       {6, IDEFIX_FAILED, NULL},
        {7, IDEFIX_NOTHING_YET, NULL},    {9, IDEFIX_FAILED, NULL},        {15, IDEFIX_FAILED, NULL},
        {100, IDEFIX_FAILED, NULL},       {102, IDEFIX_SESSION, NULL},     {201, IDEFIX_REFUSED, NULL},
        {202, IDEFIX_FAILED, NULL},       {203, IDEFIX_SETTING, "domain"}, {204, IDEFIX_SETTING, "address"},
        {205, IDEFIX_SETTING, "address"}, {206, IDEFIX_SETTING, NULL},     {208, IDEFIX_SETTING, "domain"},
        {209, IDEFIX_SETTING, "address"}, {210, IDEFIX_FAILED, NULL},      {-7, IDEFIX_FAILED, NULL},
    };

    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const char *setting = "untouched";
        CU_ASSERT_EQUAL(idefix_error_verdict(expected[i].code, &setting), expected[i].verdict);
        CU_ASSERT_TRUE(expected[i].setting == NULL
                           ? setting == NULL
                           : setting != NULL && strcmp(setting, expected[i].setting) == 0);
    }
}

UNIT_MAIN("idefix_events", {"stores JSON as it came", stores_json_as_it_came},
          {"stores MessagePack as JSON", stores_msgpack_as_json},
          {"takes an empty answer for nothing", takes_an_empty_answer_for_nothing},
          {"refuses other answers as a whole", refuses_other_answers_as_a_whole},
          {"refuses floods", refuses_floods},
          {"keeps bad JSON events, and the others", keeps_bad_json_events},
          {"keeps bad MessagePack events, and the others", keeps_bad_msgpack_events},
          {"takes what is just within bounds", takes_what_is_just_within_bounds},
          {"knows what an error code asks for", knows_what_an_error_code_asks_for})
