/* SPDX-License-Identifier: MIT */
/* The call: what a C stage reads, what it sets, and that nothing it leaves alone changes by a byte. */
#include <math.h>
#include <stdio.h>

#include "tests/lib/stage_fixture.h"

static void reads_what_came(void)
{
    struct ep_call call;
    size_t bytes = 0;
    stage_fixture_call(&call, "{\"uid\":\"u-1\",\"n\":9007199254740993}", "{\"a\":1}");
    call.attempt = 4;
    CU_ASSERT(
        stage_fixture_same(ep_call_event_text(&call, &bytes), "{\"uid\":\"u-1\",\"n\":9007199254740993}"));
    CU_ASSERT_EQUAL(bytes, 34);
    CU_ASSERT(stage_fixture_same(ep_call_context_text(&call, NULL), "{\"a\":1}"));
    const cJSON *event = ep_call_event(&call);
    CU_ASSERT_PTR_NOT_NULL(event);
    CU_ASSERT_PTR_EQUAL(ep_call_event(&call), event);
    CU_ASSERT(stage_fixture_same(cJSON_GetStringValue(cJSON_GetObjectItem(event, "uid")), "u-1"));
    CU_ASSERT_EQUAL(ep_call_attempt(&call), 4);
    CU_ASSERT(stage_fixture_same(ep_call_uid(&call), "u-1"));
    CU_ASSERT(stage_fixture_same(ep_call_key(&call), "quakes/u-1/locate"));
    stage_call_close(&call);

    stage_fixture_call(&call, "not json", "{}");
    CU_ASSERT_PTR_NULL(ep_call_event(&call));
    stage_call_close(&call);
}

static void keys_fit(void)
{
    struct ep_call call, other;
    char long_uid[400], longest_name[64];
    memset(long_uid, 'u', sizeof long_uid - 1);
    long_uid[sizeof long_uid - 1] = '\0';
    memset(longest_name, 'n', sizeof longest_name - 1);
    longest_name[sizeof longest_name - 1] = '\0';

    stage_fixture_call(&call, "{}", "{}");
    call.source = call.stage = longest_name;
    call.uid = long_uid;
    const char *key = ep_call_key(&call);
    CU_ASSERT(stage_fixture_contains(key, "n/sha256:"));
    CU_ASSERT_EQUAL(strlen(key), 63 + 1 + 7 + 32 + 1 + 63);
    stage_fixture_call(&other, "{}", "{}");
    other.source = other.stage = longest_name;
    long_uid[0] = 'v';
    other.uid = long_uid;
    CU_ASSERT_STRING_NOT_EQUAL(ep_call_key(&other), key);

    /* 59 bytes and the two slashes fill the key to its last byte; one more does not fit */
    stage_fixture_call(&call, "{}", "{}");
    call.source = call.stage = longest_name;
    long_uid[sizeof call.key - 63 - 63 - 2 - 1] = '\0';
    call.uid = long_uid;
    CU_ASSERT_EQUAL(strlen(ep_call_key(&call)), sizeof call.key - 1);
    CU_ASSERT_PTR_NULL(strstr(ep_call_key(&call), "sha256"));

    stage_fixture_call(&call, "{}", "{}");
    call.uid = "a\r\nX-Evil: 1";
    CU_ASSERT(stage_fixture_contains(ep_call_key(&call), "quakes/sha256:"));
    CU_ASSERT_PTR_NULL(strchr(ep_call_key(&call), '\n'));
}

static void document_is_one_line(void)
{
    struct ep_call call;
    struct text out = {0};
    stage_fixture_call(&call, "{\n  \"uid\": \"u-1\",\r\n  \"n\": 9007199254740993\n}\n", "{\"a\" : 1}");
    call.uid = "say \"hi\"";
    CU_ASSERT_EQUAL(stage_call_write_json(&call, &out), 0);
    CU_ASSERT_PTR_NULL(strpbrk(out.text, "\r\n"));
    CU_ASSERT(json_valid(out.text, out.bytes, NULL));
    CU_ASSERT(stage_fixture_contains(out.text, "9007199254740993"));
    CU_ASSERT(stage_fixture_contains(
        out.text, ",\"context\":{\"a\" : 1},\"attempt\":1,\"key\":\"quakes/say \\\"hi\\\"/locate\"}"));
    base_text_free(&out);
}

static void untouched_context_is_not_stored(void)
{
    struct ep_call call;
    stage_fixture_call(&call, "{}", "{ \"big\": 9007199254740993, \"f\": 1.50, \"t\":1528363343200123 }");
    CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
    CU_ASSERT_PTR_NULL(call.new_context);
    CU_ASSERT_PTR_NOT_NULL(ep_call_context(&call));
    CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
    CU_ASSERT_PTR_NULL(call.new_context);
    /* there and back again */
    cJSON_AddTrueToObject(ep_call_context(&call), "x");
    cJSON_DeleteItemFromObject(ep_call_context(&call), "x");
    CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
    CU_ASSERT_PTR_NULL(call.new_context);
    stage_call_close(&call);
}

static void change_keeps_other_bytes(void)
{
    struct ep_call call;
    stage_fixture_call(&call, "{}",
                       "{\"big\":9007199254740993,\"deep\":{\"id\":18446744073709551615,\"k\\u00e9y\":[1.50, "
                       "12345678901234567890]},"
                       "\"f\":1e2,\"gone\":0,\"text\":\"\\u0041\"}");
    cJSON *context = ep_call_context(&call);
    CU_ASSERT_PTR_NOT_NULL_FATAL(context);
    cJSON_AddNumberToObject(cJSON_GetObjectItem(context, "deep"), "new", 4.45);
    cJSON_DeleteItemFromObject(context, "gone");
    cJSON_AddStringToObject(context, "class", "li\"ght");
    CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
    CU_ASSERT(stage_fixture_same(call.new_context,
                                 "{\"big\":9007199254740993,\"deep\":{\"id\":18446744073709551615,\"kéy\":"
                                 "[1.50, 12345678901234567890],\"new\":4.45},\"f\":1e2,\"text\":\"\\u0041\","
                                 "\"class\":\"li\\\"ght\"}"));
    stage_call_close(&call);
}

/* cJSON itself takes numbers for equal that differ in their last bits. */
static void smallest_change_is_a_change(void)
{
    struct ep_call call;
    stage_fixture_call(&call, "{}", "{\"t\":1528363343200123,\"r\":0.1}");
    cJSON *context = ep_call_context(&call);
    cJSON_SetNumberValue(cJSON_GetObjectItem(context, "t"), 1528363343200124.0);
    cJSON_SetNumberValue(cJSON_GetObjectItem(context, "r"), nextafter(0.1, 1));
    CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
    CU_ASSERT(stage_fixture_same(call.new_context, "{\"t\":1528363343200124,\"r\":0.10000000000000002}"));
    stage_call_close(&call);
}

static void numbers_read_back(void)
{
    static const double numbers[] = {
        0.1, -0.0, 1e300, 5e-324, 9007199254740993.0, -1, 123456789012345680000.0, 4.45};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct ep_call call;
        stage_fixture_call(&call, "{}", "{}");
        cJSON_AddNumberToObject(ep_call_context(&call), "n", numbers[i]);
        CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
        CU_ASSERT_PTR_NOT_NULL_FATAL(call.new_context);
        double back = strtod(call.new_context + strlen("{\"n\":"), NULL);
        CU_ASSERT(back == numbers[i] && signbit(back) == signbit(numbers[i]));
        CU_ASSERT(json_valid(call.new_context, strlen(call.new_context), NULL));
        stage_call_close(&call);
    }
    struct ep_call call;
    stage_fixture_call(&call, "{}", "{}");
    cJSON_AddNumberToObject(ep_call_context(&call), "n", NAN);
    CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
    CU_ASSERT(stage_fixture_same(call.new_context, "{\"n\":null}"));
    stage_call_close(&call);
}

static void text_wins_over_tree(void)
{
    struct ep_call call;
    stage_fixture_call(&call, "{}", "{\"a\":1}");
    cJSON_AddTrueToObject(ep_call_context(&call), "x");
    CU_ASSERT_EQUAL(ep_call_set_context(&call, "{\"b\": 2}"), 0);
    CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
    CU_ASSERT(stage_fixture_same(call.new_context, "{\"b\": 2}"));
    CU_ASSERT(stage_fixture_same(ep_call_context_text(&call, NULL), "{\"a\":1}"));
    stage_call_close(&call);
}

static void only_objects_are_taken(void)
{
    static const char *const wrong[] = {"", "{", "[1]", "\"text\"", "{\"a\":}", "{} {}", "null"};
    struct ep_call call;
    stage_fixture_call(&call, "{}", "{}");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CU_ASSERT_EQUAL(ep_call_set_event(&call, wrong[i]), EP_EINVAL);
        CU_ASSERT_EQUAL(ep_call_set_context(&call, wrong[i]), EP_EINVAL);
    }
    CU_ASSERT_EQUAL(ep_call_set_event(&call, NULL), EP_EINVAL);
    CU_ASSERT_PTR_NULL(call.new_event);
    CU_ASSERT_EQUAL(ep_call_set_event(&call, "{\"uid\":\"x\"}"), 0);
    CU_ASSERT_EQUAL(ep_call_set_event(&call, "{\"uid\":\"y\"}"), 0);
    CU_ASSERT_EQUAL(ep_call_set_event(&call, "rubbish"), EP_EINVAL);
    CU_ASSERT(stage_fixture_same(call.new_event, "{\"uid\":\"y\"}"));
    stage_call_close(&call);
}

static void tree_that_is_no_json_is_an_error(void)
{
    struct ep_call call;
    stage_fixture_call(&call, "{}", "{}");
    cJSON_AddRawToObject(ep_call_context(&call), "raw", "{oops");
    CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
    CU_ASSERT_EQUAL(call.answer, EP_ERROR);
    CU_ASSERT_PTR_NULL(call.new_context);
    CU_ASSERT(stage_fixture_contains(call.reason, "not valid JSON"));
    stage_call_close(&call);
}

static void context_that_is_no_object(void)
{
    struct ep_call call;
    stage_fixture_call(&call, "{}", "[1]");
    CU_ASSERT_PTR_NULL(ep_call_context(&call));
    CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
    CU_ASSERT_PTR_NULL(call.new_context);
    stage_call_close(&call);
}

static void reason_and_delay(void)
{
    struct ep_call call;
    char big[2 * SHM_TEXT_BYTES];
    memset(big, 'w', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    stage_fixture_call(&call, "{}", "{}");
    ep_call_set_reason(&call, "no %s at %d", "device", 7);
    CU_ASSERT(stage_fixture_same(call.reason, "no device at 7"));
    ep_call_set_reason(&call, "again: %s", call.reason);
    CU_ASSERT(stage_fixture_same(call.reason, "again: no device at 7"));
    ep_call_set_reason(&call, "%s", big);
    CU_ASSERT_EQUAL(strlen(call.reason), SHM_TEXT_BYTES - 1);
    ep_call_set_retry_after(&call, 1500);
    CU_ASSERT_EQUAL(call.retry_after_ms, 1500);
    stage_call_close(&call);
}

/* Many members, all kept but one. */
static void large_context(void)
{
    struct text text = {0};
    struct ep_call call;
    base_text_append(&text, "{");
    for (unsigned i = 0; i < 20000; i++) {
        char member[64];
        snprintf(member, sizeof member, "%s\"m%u\":90071992547409%02u", i > 0 ? "," : "", i, i % 100);
        base_text_append(&text, member);
    }
    base_text_append(&text, "}");
    stage_fixture_call(&call, "{}", text.text);
    cJSON_AddTrueToObject(ep_call_context(&call), "x");
    CU_ASSERT_EQUAL(stage_call_print_changed_context(&call), 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(call.new_context);
    CU_ASSERT_EQUAL(strlen(call.new_context), text.bytes + strlen(",\"x\":true"));
    CU_ASSERT(strncmp(call.new_context, text.text, text.bytes - 1) == 0);
    stage_call_close(&call);
    base_text_free(&text);
}

UNIT_MAIN("call", {"reads what came", reads_what_came}, {"keys fit", keys_fit},
          {"the document is one line", document_is_one_line},
          {"an untouched context is not stored", untouched_context_is_not_stored},
          {"a change keeps all other bytes", change_keeps_other_bytes},
          {"the smallest change is a change", smallest_change_is_a_change},
          {"numbers read back", numbers_read_back}, {"text wins over the tree", text_wins_over_tree},
          {"only objects are taken", only_objects_are_taken},
          {"a tree that is no JSON is an error", tree_that_is_no_json_is_an_error},
          {"a context that is no object", context_that_is_no_object}, {"reason and delay", reason_and_delay},
          {"a large context", large_context})
