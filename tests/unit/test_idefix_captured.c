/* SPDX-License-Identifier: MIT */
/*
 * Every frame that was captured from Idefix's own client, in all four encodings, value by value. What is
 * expected is written out here, not worked out by the code under test. Skipped without ../shared, where the
 * frames are.
 */
#include "src/source/idefix_events.h"
#include "tests/lib/idefix_frames.h"

#define FRAMES 26
#define FRAMES_OF_A_SESSION 6

static struct captured frames[FRAMES];
static size_t frame_count;

static void decode(const struct captured *frame, struct idefix_message *message)
{
    struct error error = {0};

    CU_ASSERT_EQUAL_FATAL(idefix_message_decode(frame->flags, frame->body, frame->bytes, FRAME_LIMIT, message,
                                                &error),
                          0);
    CU_ASSERT_EQUAL(message->msgpack, frame->flags[0] == 'm');
}

static bool is_16_hex(const char *text)
{
    return text != NULL && strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16;
}

/* A request and its answer belong together: the answer goes where the request asks for it. */
static void decode_call(size_t first, const char *command, struct idefix_message *request,
                        struct idefix_message *answer)
{
    CU_ASSERT_EQUAL(frames[first].direction, 't');
    CU_ASSERT_EQUAL(frames[first + 1].direction, 'r');
    decode(&frames[first], request);
    decode(&frames[first + 1], answer);
    CU_ASSERT_STRING_EQUAL(request->to, command);
    CU_ASSERT_TRUE(is_16_hex(request->reply));
    CU_ASSERT_PTR_NULL(request->error);
    CU_ASSERT_EQUAL(request->error_code, 0);
    CU_ASSERT_STRING_EQUAL(answer->to, request->reply);
    CU_ASSERT_PTR_NULL(answer->reply);
}

static void free_call(struct idefix_message *request, struct idefix_message *answer, char *json)
{
    free(json);
    idefix_message_free(request);
    idefix_message_free(answer);
}

static void expect_login(size_t first, const char *encoding, const char *token, const char *meta)
{
    struct idefix_message request, answer;
    struct json_span time;
    int64_t ms = 0;

    decode_call(first, "idefix.login", &request, &answer);
    char *json = frames_data_json(&request);
    CU_ASSERT_EQUAL(frames_member_count(json, ""), 7);
    frames_expect_member(json, "/address", "\"user-1\"");
    frames_expect_member(json, "/token", token);
    frames_expect_member(json, "/encoding", encoding);
    frames_expect_member(json, "/meta", meta);
    frames_expect_member(json, "/groups", "null");
    frames_expect_member(json, "/no-create", "false");
    CU_ASSERT_TRUE(json_find(frames_span(json), "/time", &time) && json_int64(time, &ms));
    CU_ASSERT_TRUE(ms > 1795423600000 && ms < 1795423700000);
    free(json);
    json = frames_data_json(&answer);
    if (strcmp(token, "\"tok\"") == 0) {
        CU_ASSERT_STRING_EQUAL(json, "{\"ok\":true}");
        CU_ASSERT_PTR_NULL(answer.error);
    } else {
        CU_ASSERT_STRING_EQUAL(json, "null");
        CU_ASSERT_EQUAL(answer.data.bytes, 0);
        CU_ASSERT_STRING_EQUAL(answer.error, "[201] Invalid token");
        CU_ASSERT_EQUAL(answer.error_code, 201);
    }
    free_call(&request, &answer, json);
}

static void decodes_the_logins(void)
{
    expect_login(0, "\"mg\"", "\"tok\"", "{\"app\":\"vec\"}");
    expect_login(6, "\"m\"", "\"tok\"", "{\"app\":\"vec\"}");
    expect_login(12, "\"jg\"", "\"tok\"", "{\"app\":\"vec\"}");
    expect_login(18, "\"j\"", "\"tok\"", "{\"app\":\"vec\"}");
    expect_login(24, "\"mg\"", "\"bad\"", "null");
}

static void decodes_the_polls_that_time_out(void)
{
    struct idefix_message request, answer;

    for (size_t first = 4; first < frame_count; first += FRAMES_OF_A_SESSION) {
        decode_call(first, "idefix.events.get", &request, &answer);
        char *json = frames_data_json(&request);
        CU_ASSERT_EQUAL(frames_member_count(json, ""), 5);
        frames_expect_member(json, "/domain", "\"acme\"");
        frames_expect_member(json, "/since", "\"1970-01-01T00:00:00Z\"");
        frames_expect_member(json, "/timeout", "\"1.5s\"");
        frames_expect_member(json, "/cid", "\"end\"");
        frames_expect_member(json, "/limit", "100");
        CU_ASSERT_STRING_EQUAL(answer.error, "[7] Timeout");
        CU_ASSERT_EQUAL(answer.error_code, 7);
        CU_ASSERT_EQUAL(answer.data.bytes, 0);
        struct page page;
        source_page_open(&page);
        CU_ASSERT_EQUAL(source_idefix_events_read(&answer, &page, NULL), 0);
        CU_ASSERT_TRUE(page.count == 0 && page.cursor == NULL);
        source_page_clear(&page);
        free_call(&request, &answer, json);
    }
}

/* e-0 to e-2 */
static void expect_measurement(const struct store_event *event, unsigned number, bool msgpack)
{
    char text[64];
    const char *json = event->data;

    snprintf(text, sizeof text, "e-%u", number);
    CU_ASSERT_STRING_EQUAL(event->uid, text);
    CU_ASSERT_STRING_EQUAL(event->address, "device-001");
    CU_ASSERT_STRING_EQUAL(event->type, "temperature");
    CU_ASSERT_EQUAL(frames_member_count(json, ""), 8);
    snprintf(text, sizeof text, "\"e-%u\"", number);
    frames_expect_member(json, "/uid", text);
    frames_expect_member(json, "/domain", "\"acme\"");
    frames_expect_member(json, "/address", "\"device-001\"");
    frames_expect_member(json, "/sourceId", "\"probe\"");
    frames_expect_member(json, "/type", "\"temperature\"");
    snprintf(text, sizeof text, "\"2026-01-02T03:04:0%uZ\"", 5 + number);
    frames_expect_member(json, "/timestamp", text);
    CU_ASSERT_EQUAL(frames_member_count(json, "/meta"), 5);
    frames_expect_member(json, "/meta/big", "9223372036854775808");
    frames_expect_member(json, "/meta/neg", "-5000000000");
    frames_expect_member(json, "/meta/f", "1.5");
    snprintf(text, sizeof text, "%u", number);
    frames_expect_member(json, "/meta/n", text);
    frames_expect_member(json, "/meta/nested", "{\"a\":[1,\"x\",null,true]}");
    CU_ASSERT_EQUAL(frames_member_count(json, "/payload"), 2);
    frames_expect_member(json, "/payload/unit", "\"\xC2\xB0\x43\"");
    /* 00 01 02 FF: bytes in MessagePack; JSON's text does not say that it is base64 */
    frames_expect_member(json, msgpack ? "/payload/Data:b64" : "/payload/Data", "\"AAEC/w==\"");
    frames_expect_member(json, msgpack ? "/payload/Data" : "/payload/Data:b64", NULL);
}

static void expect_bytes(const struct store_event *event, bool msgpack)
{
    const char *json = event->data;

    CU_ASSERT_STRING_EQUAL(event->uid, "e-bin");
    CU_ASSERT_STRING_EQUAL(event->address, "device-002");
    CU_ASSERT_STRING_EQUAL(event->type, "application/vnd.nayar.bstates; id=\"abc=\"");
    CU_ASSERT_EQUAL(frames_member_count(json, ""), 6);
    frames_expect_member(json, "/uid", "\"e-bin\"");
    frames_expect_member(json, "/domain", "\"acme\"");
    frames_expect_member(json, "/address", "\"device-002\"");
    frames_expect_member(json, "/type", "\"application/vnd.nayar.bstates; id=\\\"abc=\\\"\"");
    frames_expect_member(json, "/timestamp", "\"1970-01-01T00:00:00Z\"");
    frames_expect_member(json, msgpack ? "/payload:b64" : "/payload", "\"CQgH\"");
    frames_expect_member(json, msgpack ? "/payload" : "/payload:b64", NULL);
}

static void expect_filler(const struct store_event *event, unsigned number)
{
    char text[64];
    const char *json = event->data;

    snprintf(text, sizeof text, "fill-%02u", number);
    CU_ASSERT_STRING_EQUAL(event->uid, text);
    CU_ASSERT_STRING_EQUAL(event->address, "device-003");
    CU_ASSERT_STRING_EQUAL(event->type, "temperature");
    CU_ASSERT_EQUAL(frames_member_count(json, ""), 6);
    snprintf(text, sizeof text, "\"fill-%02u\"", number);
    frames_expect_member(json, "/uid", text);
    frames_expect_member(json, "/domain", "\"acme\"");
    frames_expect_member(json, "/address", "\"device-003\"");
    frames_expect_member(json, "/type", "\"temperature\"");
    frames_expect_member(json, "/timestamp", "\"2026-01-02T03:04:30+02:00\"");
    snprintf(text, sizeof text, "{\"v\":%u}", 20 + number);
    frames_expect_member(json, "/payload", text);
}

static void decodes_the_pages(void)
{
    struct idefix_message request, answer;
    struct error error = {0};

    for (size_t first = 2; first < frame_count; first += FRAMES_OF_A_SESSION) {
        struct page page;
        decode_call(first, "idefix.events.get", &request, &answer);
        char *json = frames_data_json(&request);
        CU_ASSERT_EQUAL(frames_member_count(json, ""), 6);
        frames_expect_member(json, "/domain", "\"acme\"");
        frames_expect_member(json, "/address", "\"device-001\"");
        frames_expect_member(json, "/type", "\"temperature\"");
        frames_expect_member(json, "/since", "\"2026-01-01T00:00:00Z\"");
        frames_expect_member(json, "/limit", "100");
        frames_expect_member(json, "/timeout", "\"1m0s\"");
        source_page_open(&page);
        CU_ASSERT_EQUAL_FATAL(source_idefix_events_read(&answer, &page, &error), 0);
        CU_ASSERT_STRING_EQUAL(page.cursor, "end");
        CU_ASSERT_EQUAL_FATAL(page.count, 24);
        for (unsigned i = 0; i < page.count; i++) {
            const struct store_event *event = &page.events[i];
            CU_ASSERT_EQUAL(event->dead, STORE_REASON_NONE);
            CU_ASSERT_TRUE(json_valid(event->data, event->data_bytes, NULL));
            if (i < 3)
                expect_measurement(event, i, answer.msgpack);
            else if (i == 3)
                expect_bytes(event, answer.msgpack);
            else
                expect_filler(event, i - 4);
        }
        source_page_clear(&page);
        free_call(&request, &answer, json);
    }
}

/* What was decoded, sent by us in each encoding and decoded again, is the same. */
static void comes_back_in_each_encoding(void)
{
    static const char *const encodings[] = {"j", "jg", "m", "mg"};

    for (size_t i = 0; i < frame_count; i++) {
        struct idefix_message message, again;
        decode(&frames[i], &message);
        char *json = frames_data_json(&message);
        for (size_t e = 0; e < 4; e++) {
            struct idefix_encoding encoding;
            struct idefix_frame frame;
            CU_ASSERT_EQUAL(config_idefix_encoding_read(encodings[e], &encoding), 0);
            struct idefix_envelope envelope = {message.to, message.reply, message.error, frames_span(json)};
            CU_ASSERT_EQUAL_FATAL(idefix_frame_encode(&encoding, &envelope, &frame), 0);
            CU_ASSERT_EQUAL(idefix_message_decode(frame.flags, frame.body, frame.bytes, FRAME_LIMIT, &again,
                                                  NULL),
                            0);
            CU_ASSERT_STRING_EQUAL(again.to, message.to);
            CU_ASSERT_TRUE((again.reply == NULL) == (message.reply == NULL));
            CU_ASSERT_EQUAL(again.error_code, message.error_code);
            char *json_again = frames_data_json(&again);
            CU_ASSERT_STRING_EQUAL(json_again, json);
            free(json_again);
            idefix_message_free(&again);
            idefix_frame_free(&frame);
        }
        free(json);
        idefix_message_free(&message);
    }
}

/* Cut off at any byte, a frame is refused with a message; nothing is read behind its end. */
static void refuses_what_is_cut_off(void)
{
    for (size_t i = 0; i < frame_count; i++)
        for (size_t cut = 0; cut < frames[i].bytes; cut++) {
            struct idefix_message message;
            struct error error = {0};
            char *exact = malloc(cut + 1);
            memcpy(exact, frames[i].body, cut);
            CU_ASSERT_EQUAL(idefix_message_decode(frames[i].flags, exact, cut, FRAME_LIMIT, &message, &error),
                            EP_EPROTO);
            CU_ASSERT_TRUE(error.message[0] != '\0');
            free(exact);
        }
}

static void read_the_frames(void)
{
    FILE *file = frames_captured_open();

    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    while (frame_count < FRAMES && frames_captured_next(file, &frames[frame_count]))
        frame_count++;
    CU_ASSERT_EQUAL_FATAL(frame_count, FRAMES);
    CU_ASSERT_EQUAL(fgetc(file), EOF);
    fclose(file);
}

int main(void)
{
    const struct unit_case cases[] = {
        {"reads the captured frames", read_the_frames},
        {"decodes the logins", decodes_the_logins},
        {"decodes the pages", decodes_the_pages},
        {"decodes the polls that time out", decodes_the_polls_that_time_out},
        {"gives the same back in each encoding", comes_back_in_each_encoding},
        {"refuses what is cut off", refuses_what_is_cut_off},
    };
    FILE *file = frames_captured_open();

    if (file == NULL) {
        printf("skipped: no captured frames, 0 of %d checked\n", FRAMES);
        return 77;
    }
    fclose(file);
    int result = unit_run("idefix_captured", cases, sizeof cases / sizeof cases[0]);
    for (size_t i = 0; i < frame_count; i++)
        free(frames[i].body);
    return result;
}
