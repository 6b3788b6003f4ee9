/* SPDX-License-Identifier: MIT */
/* A page of events: what is kept, how an event is built around an element, what becomes of one that cannot
 * be. */
#include <stdio.h>

#include "src/base/hash.h"
#include "src/source/source.h"
#include "tests/lib/unit.h"

static const struct event_pointers no_pointers;

static struct json_span span_of(const char *text)
{
    return (struct json_span){text, strlen(text)};
}

/* Adds one element to a fresh page and compares the event with what is expected. */
static void expect_event(const struct event_pointers *pointers, const char *element, const char *uid,
                         const char *data)
{
    struct page page;

    source_page_open(&page);
    CU_ASSERT_EQUAL(source_page_add_element(&page, pointers, span_of(element), true, "fallback"), 0);
    CU_ASSERT_EQUAL_FATAL(page.count, 1);
    CU_ASSERT_EQUAL(page.events[0].dead, STORE_REASON_NONE);
    CU_ASSERT_STRING_EQUAL(page.events[0].uid, uid);
    CU_ASSERT_STRING_EQUAL(page.events[0].data, data);
    if (strcmp(page.events[0].data, data) != 0)
        printf("\n    %s\n", page.events[0].data);
    CU_ASSERT_TRUE(json_valid(page.events[0].data, page.events[0].data_bytes, NULL));
    source_page_clear(&page);
}

static void copies_what_is_added(void)
{
    struct page page;
    char uid[] = "u1", address[] = "d1", type[] = "t1", data[] = "{\"a\":1}", cursor[] = "c1";

    source_page_open(&page);
    CU_ASSERT_EQUAL(source_page_add(&page, uid, address, type, data, 7), 0);
    CU_ASSERT_EQUAL(source_page_add(&page, "u2", NULL, NULL, "{}", 2), 0);
    CU_ASSERT_EQUAL(source_page_set_cursor(&page, cursor), 0);
    memset(uid, 'x', 2), memset(address, 'x', 2), memset(type, 'x', 2), memset(data, 'x', 7),
        memset(cursor, 'x', 2);
    CU_ASSERT_STRING_EQUAL(page.events[0].uid, "u1");
    CU_ASSERT_STRING_EQUAL(page.events[0].address, "d1");
    CU_ASSERT_STRING_EQUAL(page.events[0].type, "t1");
    CU_ASSERT_STRING_EQUAL(page.events[0].data, "{\"a\":1}");
    CU_ASSERT_EQUAL(page.events[0].data_bytes, 7);
    CU_ASSERT_PTR_NULL(page.events[1].address);
    CU_ASSERT_PTR_NULL(page.events[1].type);
    CU_ASSERT_STRING_EQUAL(page.cursor, "c1");
    CU_ASSERT_EQUAL(source_page_set_cursor(&page, "c2"), 0);
    CU_ASSERT_STRING_EQUAL(page.cursor, "c2");
    CU_ASSERT_EQUAL(page.data_bytes, 9);
    page.more = page.end = true;
    source_page_clear(&page);
    CU_ASSERT_TRUE(page.count == 0 && page.data_bytes == 0 && page.cursor == NULL && !page.more && !page.end);
    source_page_clear(&page);
}

static void refuses_an_event_without_uid(void)
{
    struct page page;

    source_page_open(&page);
    CU_ASSERT_EQUAL(source_page_add(&page, "", NULL, NULL, "{}", 2), EP_EINVAL);
    CU_ASSERT_EQUAL(source_page_add(&page, NULL, NULL, NULL, "{}", 2), EP_EINVAL);
    CU_ASSERT_EQUAL(source_page_add(&page, "u", NULL, NULL, NULL, 0), EP_EINVAL);
    CU_ASSERT_EQUAL(page.count, 0);
    source_page_clear(&page);
}

static void keeps_corrupt_bytes(void)
{
    static const char raw[] = "\xFF\0{";
    struct page page;
    char hash[33];

    source_page_open(&page);
    CU_ASSERT_EQUAL(source_page_add_corrupt(&page, "u", raw, 3, "it is broken"), 0);
    CU_ASSERT_EQUAL(source_page_add_corrupt(&page, NULL, raw, 3, "so is this"), 0);
    CU_ASSERT_EQUAL(source_page_add_corrupt(&page, "", NULL, 0, "and this"), 0);
    CU_ASSERT_EQUAL_FATAL(page.count, 3);
    CU_ASSERT_EQUAL(page.events[0].dead, STORE_REASON_CORRUPT);
    CU_ASSERT_STRING_EQUAL(page.events[0].uid, "u");
    CU_ASSERT_STRING_EQUAL(page.events[0].error, "it is broken");
    CU_ASSERT_EQUAL(page.events[0].data_bytes, 3);
    CU_ASSERT_EQUAL(memcmp(page.events[0].data, raw, 4), 0);
    base_hash_write_hex(raw, 3, hash, 32);
    CU_ASSERT_STRING_EQUAL(page.events[1].uid, hash);
    CU_ASSERT_EQUAL(strlen(page.events[2].uid), 32);
    source_page_clear(&page);
}

static void grows_to_many_events(void)
{
    struct page page;
    char uid[16];

    source_page_open(&page);
    for (int i = 0; i < 10000; i++) {
        snprintf(uid, sizeof uid, "u%d", i);
        CU_ASSERT_EQUAL_FATAL(source_page_add(&page, uid, NULL, "t", uid, strlen(uid)), 0);
    }
    CU_ASSERT_EQUAL(page.count, 10000);
    CU_ASSERT_STRING_EQUAL(page.events[9999].data, "u9999");
    CU_ASSERT_STRING_EQUAL(page.events[0].uid, "u0");
    source_page_clear(&page);
}

static void builds_an_event_around_an_element(void)
{
    char uid[] = "/id", address[] = "/dev/name", type[] = "/kind", timestamp[] = "/at";
    struct event_pointers all = {.uid = uid, .address = address, .event_type = type, .timestamp = timestamp};

    expect_event(
        &all,
        "{ \"id\" : \"a\\u0022b\",\n\"dev\":{\"name\":\"d\"}, \"kind\":7, \"at\":\"2026-01-02T03:04:05Z\", "
        "\"x\":1.50 }",
        "a\"b",
        "{\"uid\":\"a\\\"b\",\"address\":\"d\",\"type\":\"7\",\"timestamp\":\"2026-01-02T03:04:05Z\","
        "\"payload\":{ \"id\" : \"a\\u0022b\",\n\"dev\":{\"name\":\"d\"}, \"kind\":7, "
        "\"at\":\"2026-01-02T03:04:05Z\", \"x\":1.50 }}");
    expect_event(&all, "{\"id\":18446744073709551615}", "18446744073709551615",
                 "{\"uid\":\"18446744073709551615\",\"payload\":{\"id\":18446744073709551615}}");
    expect_event(&all, "{\"id\":null,\"dev\":{\"name\":[1]},\"kind\":true}", "fallback",
                 "{\"uid\":\"fallback\",\"payload\":{\"id\":null,\"dev\":{\"name\":[1]},\"kind\":true}}");
    expect_event(&all, "{\"id\":\"\"}", "fallback", "{\"uid\":\"fallback\",\"payload\":{\"id\":\"\"}}");
    expect_event(&no_pointers, "[1,2]", "fallback", "{\"uid\":\"fallback\",\"payload\":[1,2]}");
}

static void writes_times_as_rfc_3339(void)
{
    char timestamp[] = "/t";
    struct event_pointers at = {.timestamp = timestamp};

    expect_event(&at, "{\"t\":1528363343200}", "fallback",
                 "{\"uid\":\"fallback\",\"timestamp\":\"2018-06-07T09:22:23.200Z\",\"payload\":{\"t\":"
                 "1528363343200}}");
    expect_event(&at, "{\"t\":1528363343007}", "fallback",
                 "{\"uid\":\"fallback\",\"timestamp\":\"2018-06-07T09:22:23.007Z\",\"payload\":{\"t\":"
                 "1528363343007}}");
    expect_event(
        &at, "{\"t\":1528363343}", "fallback",
        "{\"uid\":\"fallback\",\"timestamp\":\"2018-06-07T09:22:23Z\",\"payload\":{\"t\":1528363343}}");
    expect_event(&at, "{\"t\":1528363343.25}", "fallback",
                 "{\"uid\":\"fallback\",\"timestamp\":\"2018-06-07T09:22:23.250Z\",\"payload\":{\"t\":"
                 "1528363343.25}}");
    expect_event(&at, "{\"t\":-1}", "fallback",
                 "{\"uid\":\"fallback\",\"timestamp\":\"1969-12-31T23:59:59Z\",\"payload\":{\"t\":-1}}");
    expect_event(&at, "{\"t\":9223372036854775807}", "fallback",
                 "{\"uid\":\"fallback\",\"timestamp\":\"9223372036854775807\",\"payload\":{\"t\":"
                 "9223372036854775807}}");
}

static void sets_an_element_with_a_wrong_uid_aside(void)
{
    char uid[] = "/id";
    struct event_pointers pointers = {.uid = uid};
    struct page page;
    char text[1200] = "{\"id\":\"";

    source_page_open(&page);
    CU_ASSERT_EQUAL(source_page_add_element(&page, &pointers, span_of("{\"id\":{\"a\":1}}"), true, NULL), 0);
    memset(text + 7, 'x', 1025);
    strcpy(text + 7 + 1025, "\"}");
    CU_ASSERT_EQUAL(source_page_add_element(&page, &pointers, span_of(text), true, NULL), 0);
    CU_ASSERT_EQUAL(source_page_add_element(&page, &pointers, span_of("{\"id\":1}"), true, NULL), 0);
    CU_ASSERT_EQUAL_FATAL(page.count, 3);
    CU_ASSERT_EQUAL(page.events[0].dead, STORE_REASON_CORRUPT);
    CU_ASSERT_STRING_EQUAL(page.events[0].data, "{\"id\":{\"a\":1}}");
    CU_ASSERT_STRING_EQUAL(page.events[0].error, "its uid is neither a string nor a number");
    CU_ASSERT_EQUAL(page.events[1].dead, STORE_REASON_CORRUPT);
    CU_ASSERT_EQUAL(strlen(page.events[1].uid), 32);
    CU_ASSERT_EQUAL(page.events[2].dead, STORE_REASON_NONE);
    source_page_clear(&page);
}

static void names_an_element_without_uid_by_its_content(void)
{
    struct page page;
    char hash[33];

    source_page_open(&page);
    CU_ASSERT_EQUAL(source_page_add_element(&page, &no_pointers, span_of("{\"a\":1}"), true, NULL), 0);
    CU_ASSERT_EQUAL(source_page_add_element(&page, &no_pointers, span_of("{\"a\":2}"), true, NULL), 0);
    CU_ASSERT_EQUAL_FATAL(page.count, 2);
    base_hash_write_hex("{\"a\":1}", 7, hash, 32);
    CU_ASSERT_STRING_EQUAL(page.events[0].uid, hash);
    CU_ASSERT_STRING_NOT_EQUAL(page.events[1].uid, hash);
    base_hash_write_hex("abc", 3, hash, 32);
    CU_ASSERT_STRING_EQUAL(hash, "ba7816bf8f01cfea414140de5dae2223");
    source_page_clear(&page);
}

/* Plain bytes as payload; the member as it must be written. */
static void expect_payload(const char *bytes, size_t count, const char *member)
{
    struct page page;
    char data[200];

    source_page_open(&page);
    CU_ASSERT_EQUAL(source_page_add_element(&page, &no_pointers, (struct json_span){bytes, count}, false,
                                            "u"),
                    0);
    snprintf(data, sizeof data, "{\"uid\":\"u\",%s}", member);
    CU_ASSERT_STRING_EQUAL(page.events[0].data, data);
    source_page_clear(&page);
}

static void writes_text_as_a_string_and_bytes_as_base64(void)
{
    expect_payload("plain \"text\"\t\xE2\x82\xAC", 16, "\"payload\":\"plain \\\"text\\\"\\t\xE2\x82\xAC\"");
    expect_payload("{\"a\":1}", 7, "\"payload\":\"{\\\"a\\\":1}\"");
    expect_payload("\xFF", 1, "\"payload:b64\":\"/w==\"");
    expect_payload("\xFF\xFE", 2, "\"payload:b64\":\"//4=\"");
    expect_payload("\xFF\xFE\xFD", 3, "\"payload:b64\":\"//79\"");
    expect_payload("a\0b\0", 4, "\"payload:b64\":\"YQBiAA==\"");
}

UNIT_MAIN("page", {"copies what is added", copies_what_is_added},
          {"refuses an event without uid", refuses_an_event_without_uid},
          {"keeps corrupt bytes", keeps_corrupt_bytes}, {"grows to many events", grows_to_many_events},
          {"builds an event around an element", builds_an_event_around_an_element},
          {"writes times as RFC 3339", writes_times_as_rfc_3339},
          {"sets an element with a wrong uid aside", sets_an_element_with_a_wrong_uid_aside},
          {"names an element without uid by its content", names_an_element_without_uid_by_its_content},
          {"writes text as a string, and bytes as base64", writes_text_as_a_string_and_bytes_as_base64})
