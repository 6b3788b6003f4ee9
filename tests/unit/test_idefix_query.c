/* SPDX-License-Identifier: MIT */
/* What an Idefix client sends, and where to: broker addresses, Go durations, the data of events.get. */
#include "src/config/config.h"
#include "src/idefix/client.h"
#include "tests/lib/idefix_frames.h"

static void expect_broker(const char *text, const char *host, int port, bool tls)
{
    struct idefix_broker broker = {0};
    struct error error = {0};

    CU_ASSERT_EQUAL_FATAL(config_idefix_broker_read(text, &broker, &error), 0);
    CU_ASSERT_STRING_EQUAL(broker.host, host);
    CU_ASSERT_EQUAL(broker.port, port);
    CU_ASSERT_EQUAL(broker.tls, tls);
    free(broker.host);
}

static void test_addresses(void)
{
    expect_broker("ssl://idefix.example:8884", "idefix.example", 8884, true);
    expect_broker("ssl://idefix.example", "idefix.example", 8883, true);
    expect_broker("mqtts://idefix.example", "idefix.example", 8883, true);
    expect_broker("tcp://localhost", "localhost", 1883, false);
    expect_broker("mqtt://127.0.0.1:1", "127.0.0.1", 1, false);
    expect_broker("tcp://h:65535", "h", 65535, false);
    expect_broker("tcp://[::1]:1884", "::1", 1884, false);
    expect_broker("ssl://[fe80::1%eth0]", "fe80::1%eth0", 8883, true);
}

static void test_addresses_refused(void)
{
    static const char *const wrong[] = {
        "",
        "idefix.example",
        "idefix.example:8883",
        "http://idefix.example",
        "SSL://idefix.example",
        "ssl:/idefix.example",
        "ssl://",
        "ssl://:8883",
        "ssl://h:",
        "ssl://h:0",
        "ssl://h:65536",
        "ssl://h:123456789012",
        "ssl://h:-1",
        "ssl://h:88x",
        "ssl://h/path",
        "ssl://h:8883/",
        "ssl://h?x",
        "ssl://h#x",
        "ssl://h h",
        "ssl://h\n",
        "ssl://[::1",
        "ssl://[::1]8883",
        "ssl://[]:8883",
        "ssl://[example]:8883",
        "ssl://[abc]:8883",
        "ssl://::1",
        "ssl://user:hush@h:8883",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct idefix_broker broker = {0};
        struct error error = {0};
        CU_ASSERT_EQUAL(config_idefix_broker_read(wrong[i], &broker, &error), EP_ECONFIG);
        CU_ASSERT_PTR_NULL(broker.host);
        CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "expected"));
        CU_ASSERT_PTR_NULL(strstr(error.message, "hush"));
        if (error.code != EP_ECONFIG)
            printf("\n    accepted: %s\n", wrong[i]);
        free(broker.host);
    }
}

static char *query_text(const struct idefix_query *query)
{
    struct text out = {0};

    CU_ASSERT_EQUAL_FATAL(idefix_query_write_data(query, &out), 0);
    CU_ASSERT_TRUE(json_valid(out.text, out.bytes, NULL));
    return out.text;
}

static void test_durations(void)
{
    static const struct {
        uint64_t ms;
        const char *text;
    } durations[] = {
        {0, "\"0s\""},
        {1, "\"1ms\""},
        {300, "\"300ms\""},
        {999, "\"999ms\""},
        {1000, "\"1s\""},
        {1500, "\"1.5s\""},
        {1050, "\"1.05s\""},
        {1005, "\"1.005s\""},
        {59999, "\"59.999s\""},
        {60000, "\"1m0s\""},
        {61100, "\"1m1.1s\""},
        {3600000, "\"1h0m0s\""},
        {3600001, "\"1h0m0.001s\""},
        {90061000, "\"25h1m1s\""},
        {UNITS_DURATION_MAX_MS, "\"876000h0m0s\""},
    };
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        char *text = query_text(&(struct idefix_query){.domain = "d", .timeout_ms = durations[i].ms});
        frames_expect_member(text, "/timeout", durations[i].text);
        free(text);
    }
}

static void test_data(void)
{
    char *text = query_text(&(struct idefix_query){.domain = "a\"c",
                                                   .address = "device-001",
                                                   .event_type = "temperature",
                                                   .since = "2026-01-01T00:00:00Z",
                                                   .limit = 100,
                                                   .timeout_ms = 60000});
    CU_ASSERT_STRING_EQUAL(text, "{\"domain\":\"a\\\"c\",\"address\":\"device-001\",\"type\":\"temperature\","
                                 "\"since\":\"2026-01-01T00:00:00Z\",\"limit\":100,\"timeout\":\"1m0s\"}");
    free(text);
    text = query_text(&(struct idefix_query){.address = "x", .domain = "", .cursor = "", .since = ""});
    CU_ASSERT_STRING_EQUAL(
        text, "{\"address\":\"x\",\"since\":\"1970-01-01T00:00:00Z\",\"limit\":0,\"timeout\":\"0s\"}");
    free(text);
    text = query_text(&(struct idefix_query){.domain = "d",
                                             .since = "2026-01-01T00:00:00Z",
                                             .cursor = "c1",
                                             .limit = 4000000000,
                                             .timeout_ms = 1500});
    CU_ASSERT_STRING_EQUAL(text, "{\"domain\":\"d\",\"since\":\"1970-01-01T00:00:00Z\",\"limit\":4000000000,"
                                 "\"cid\":\"c1\",\"timeout\":\"1.5s\"}");
    free(text);
}

struct comparison {
    const char *other;
    size_t count;
};

static int compare_member(struct json_span key, struct json_span value, void *user)
{
    struct comparison *comparison = user;
    char pointer[64], expected[256], *name = json_text(key);

    snprintf(pointer, sizeof pointer, "/%s", name);
    snprintf(expected, sizeof expected, "%.*s", (int)value.bytes, value.at);
    frames_expect_member(comparison->other, pointer, expected);
    comparison->count++;
    free(name);
    return 0;
}

/* The captured client's requests, of four sessions, against ours with the same filters. */
static void test_captured(void)
{
    FILE *file = frames_captured_open();
    struct captured frame;
    size_t seen = 0;

    if (file == NULL) {
        printf("(no captured frames here) ");
        return;
    }
    char *first = query_text(&(struct idefix_query){.domain = "acme",
                                                    .address = "device-001",
                                                    .event_type = "temperature",
                                                    .since = "2026-01-01T00:00:00Z",
                                                    .limit = 100,
                                                    .timeout_ms = 60000});
    char *second = query_text(&(struct idefix_query){.domain = "acme",
                                                     .cursor = "end",
                                                     .since = "2026-01-01T00:00:00Z",
                                                     .limit = 100,
                                                     .timeout_ms = 1500});
    while (frames_captured_next(file, &frame)) {
        struct idefix_message message = {0};
        struct error error = {0};
        CU_ASSERT_EQUAL_FATAL(idefix_message_decode(frame.flags, frame.body, frame.bytes, FRAME_LIMIT,
                                                    &message, &error),
                              0);
        if (strcmp(message.to, "idefix.events.get") == 0) {
            char *theirs = frames_data_json(&message);
            struct json_span cid;
            const char *ours = json_find(frames_span(theirs), "/cid", &cid) ? second : first;
            struct comparison comparison = {.other = ours};
            CU_ASSERT_EQUAL(json_each_member(frames_span(theirs), compare_member, &comparison), 0);
            CU_ASSERT_EQUAL(comparison.count, frames_member_count(ours, ""));
            seen++;
            free(theirs);
        }
        idefix_message_free(&message);
        free(frame.body);
    }
    CU_ASSERT_EQUAL(seen, 8);
    free(first);
    free(second);
    fclose(file);
}

UNIT_MAIN("idefix_query", {"addresses of brokers", test_addresses},
          {"what is no address", test_addresses_refused}, {"durations as Go writes them", test_durations},
          {"the data of events.get", test_data}, {"the captured client's requests", test_captured})
