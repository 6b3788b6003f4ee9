/* SPDX-License-Identifier: MIT */
/* JSON as text: what is accepted, what is found, what it says, and what is written. */
#include "src/json/json.h"

#include <stdio.h>

#include "src/base/error.h"
#include "src/base/utf8.h"
#include "tests/lib/unit.h"

static struct json_span span_of(const char *text)
{
    return (struct json_span){text, strlen(text)};
}

static bool valid(const char *text)
{
    return json_valid(text, strlen(text), NULL);
}

static void accepts_what_the_grammar_allows(void)
{
    static const char *const good[] = {
        "0",
        "-0",
        "-0.0e-0",
        "12.5E+3",
        "1e9",
        "9223372036854775807",
        "123456789012345678901234567890",
        "\"\"",
        "\"a\"",
        "\"\\u0000\\uD800\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\x7f\"",
        "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"",
        "true",
        "false",
        "null",
        " \t\r\n{} ",
        "[]",
        "[[],{}]",
        "{\"\":0}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":[1,2,{\"b\":null}],\"c\":\"d\"}",
        "[1,[2,[3,[]]],4]",
        "\"twelve plain characters and more\"",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CU_ASSERT_TRUE(valid(good[i]));
        if (!valid(good[i]))
            printf("\n    refused: %s\n", good[i]);
    }
}

static void refuses_everything_else(void)
{
    static const char *const bad[] = {
        "",
        " ",
        "01",
        "-",
        "-01",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "1 2",
        "NaN",
        "Infinity",
        "tru",
        "truee",
        "True",
        "nul",
        "\"",
        "\"a",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "\"tab\there\"",
        "\"12345678\x01\"",
        "\"\x80\"",
        "\"\xC0\x80\"",
        "\"\xED\xA0\x80\"",
        "\"\xF4\x90\x80\x80\"",
        "\"\xE2\x82\"",
        "\"\xFF\"",
        "'a'",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{1:2}",
        "{\"a\" 1}",
        "{\"a\":1]",
        "{\"a\":1 \"b\":2}",
        "{,}",
        "{} {}",
        "[]]",
        "[1]//",
        "/**/1",
        "\xEF\xBB\xBF{}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CU_ASSERT_FALSE(valid(bad[i]));
        if (valid(bad[i]))
            printf("\n    taken: %s\n", bad[i]);
    }
    CU_ASSERT_FALSE(json_valid("\"a\0b\"", 5, NULL));
    CU_ASSERT_FALSE(json_valid("1\0", 2, NULL));
}

static void names_the_byte_that_is_wrong(void)
{
    size_t at = 0;

    CU_ASSERT_FALSE(json_valid("{\"a\":tru}", 9, &at));
    CU_ASSERT_EQUAL(at, 8);
    CU_ASSERT_FALSE(json_valid("[1,2", 4, &at));
    CU_ASSERT_EQUAL(at, 4);
    CU_ASSERT_FALSE(json_valid("<html>", 6, &at));
    CU_ASSERT_EQUAL(at, 0);
    CU_ASSERT_FALSE(json_valid("{} x", 4, &at));
    CU_ASSERT_EQUAL(at, 3);
}

static void bounds_the_depth(void)
{
    char text[2 * JSON_DEPTH_MAX + 2];

    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    CU_ASSERT_TRUE(json_valid(text, (size_t)2 * JSON_DEPTH_MAX, NULL));
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    CU_ASSERT_FALSE(json_valid(text, sizeof text, NULL));
}

/* Looks up a pointer; the value's text must be the one expected, NULL = nothing there. */
static void expect_found(const char *text, const char *pointer, const char *expected)
{
    struct json_span found = {NULL, 0};
    bool there = json_find(span_of(text), pointer, &found);
    bool right = expected == NULL ? !there
                                  : there && found.bytes == strlen(expected) &&
                                        memcmp(found.at, expected, found.bytes) == 0;

    CU_ASSERT_TRUE(right);
    if (!right)
        printf("\n    %s in %s: %.*s\n", pointer, text, (int)found.bytes, there ? found.at : "");
}

static void follows_pointers(void)
{
    static const char text[] =
        " { \"a\" : [ 1 , {\"b\":\"x, ] } \\\" y\"} , [ ] ] ,\n \"c/d\":2, \"e~f\":3, \"\\u0067\":4, \"\":5,"
        " \"n\":{\"n\":{\"n\":12345678901234567890}}, \"a\":\"second\" } ";
    expect_found(text, "/a/0", "1");
    expect_found(text, "/a/1", "{\"b\":\"x, ] } \\\" y\"}");
    expect_found(text, "/a/1/b", "\"x, ] } \\\" y\"");
    expect_found(text, "/a/2", "[ ]");
    expect_found(text, "/a/3", NULL);
    expect_found(text, "/a/00", NULL);
    expect_found(text, "/a/-", NULL);
    expect_found(text, "/a/", NULL);
    expect_found(text, "/a/99999999999999999999999", NULL);
    expect_found(text, "/c~1d", "2");
    expect_found(text, "/e~0f", "3");
    expect_found(text, "/g", "4");
    expect_found(text, "/", "5");
    expect_found(text, "/n/n/n", "12345678901234567890");
    expect_found(text, "/n/n/n/n", NULL);
    expect_found(text, "/nn", NULL);
    expect_found(text, "a", NULL);
    expect_found("  17 ", "", "17");
    expect_found("17", "/0", NULL);
}

struct seen {
    size_t count, stop_at;
    char message[200];
};

static int on_element(struct json_span element, void *user)
{
    struct seen *seen = user;
    strncat(seen->message, element.at, element.bytes);
    strcat(seen->message, "|");
    return ++seen->count == seen->stop_at ? 7 : 0;
}

static int on_member(struct json_span key, struct json_span value, void *user)
{
    on_element(key, user);
    return on_element(value, user);
}

static void walks_elements_and_members(void)
{
    struct seen all = {0}, some = {.stop_at = 2}, members = {0};

    CU_ASSERT_EQUAL(json_each_element(span_of(" [ 1 , [2,3],\n\"]\" ,{} ] "), on_element, &all), 0);
    CU_ASSERT_STRING_EQUAL(all.message, "1|[2,3]|\"]\"|{}|");
    CU_ASSERT_EQUAL(json_each_element(span_of("[1,2,3]"), on_element, &some), 7);
    CU_ASSERT_STRING_EQUAL(some.message, "1|2|");
    CU_ASSERT_EQUAL(json_each_element(span_of("[]"), on_element, &all), 0);
    CU_ASSERT_EQUAL(all.count, 4);
    CU_ASSERT_EQUAL(json_each_member(span_of("{\"a\" : 1, \"b\":[2] }"), on_member, &members), 0);
    CU_ASSERT_STRING_EQUAL(members.message, "\"a\"|1|\"b\"|[2]|");
    CU_ASSERT_EQUAL(json_each_member(span_of("[]"), on_member, &all), EP_EINVAL);
    CU_ASSERT_EQUAL(json_each_element(span_of("{}"), on_element, &all), EP_EINVAL);
    CU_ASSERT_EQUAL(json_each_element(span_of("\"[\""), on_element, &all), EP_EINVAL);
}

static void expect_text(const char *value, const char *expected)
{
    char *text = json_text(span_of(value));
    bool right = expected == NULL ? text == NULL : text != NULL && strcmp(text, expected) == 0;

    CU_ASSERT_TRUE(right);
    free(text);
}

static void decodes_text(void)
{
    expect_text(" \"plain\" ", "plain");
    expect_text("\"a\\\"b\\\\c\\/d\\b\\f\\n\\r\\te\"", "a\"b\\c/d\b\f\n\r\te");
    expect_text("\"\\u00e9\\u20AC\\ud83d\\ude00\"", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    expect_text("\"\\ud83dx\\ude00\\u0000\"", UTF8_REPLACEMENT "x" UTF8_REPLACEMENT UTF8_REPLACEMENT);
    expect_text("\"\\ud83d\\ud83d\\ude00\"", UTF8_REPLACEMENT "\xF0\x9F\x98\x80");
    expect_text("9007199254740993", "9007199254740993");
    expect_text("-1.50", "-1.50");
    expect_text("true", NULL);
    expect_text("null", NULL);
    expect_text("{}", NULL);
    CU_ASSERT_EQUAL(json_kind(span_of(" -1")), '0');
    CU_ASSERT_EQUAL(json_kind(span_of("[1]")), '[');
    CU_ASSERT_EQUAL(json_kind(span_of("")), '\0');
}

static void keeps_64_bit_numbers_exact(void)
{
    int64_t number = 5;

    CU_ASSERT_TRUE(json_int64(span_of("9007199254740993"), &number) && number == 9007199254740993);
    CU_ASSERT_TRUE(json_int64(span_of("9223372036854775807"), &number) && number == INT64_MAX);
    CU_ASSERT_TRUE(json_int64(span_of("-9223372036854775808"), &number) && number == INT64_MIN);
    CU_ASSERT_TRUE(json_int64(span_of(" 12.00 "), &number) && number == 12);
    CU_ASSERT_TRUE(json_int64(span_of("-0"), &number) && number == 0);
    number = 5;
    static const char *const others[] = {"9223372036854775808",
                                         "-9223372036854775809",
                                         "99999999999999999999",
                                         "1.5",
                                         "1e3",
                                         "\"1\"",
                                         "true",
                                         "",
                                         "-"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        CU_ASSERT_FALSE(json_int64(span_of(others[i]), &number));
    CU_ASSERT_EQUAL(number, 5);
}

static void writes_what_it_can_read(void)
{
    static const char hard[] = "q\" b\\ n\n t\t nul\0 esc\x1b del\x7f \xC3\xA9 bad\xFF\xC3(";
    struct text out = {0};

    json_write_string(&out, hard, sizeof hard - 1);
    CU_ASSERT_STRING_EQUAL(
        out.text,
        "\"q\\\" b\\\\ n\\n t\\t nul\\u0000 esc\\u001b del\x7f \xC3\xA9 bad" UTF8_REPLACEMENT UTF8_REPLACEMENT
        "(\"");
    CU_ASSERT_TRUE(json_valid(out.text, out.bytes, NULL));
    base_text_reset(&out);
    CU_ASSERT_STRING_EQUAL(out.text, "");
    base_text_append(&out, "[");
    json_write_uint(&out, UINT64_MAX);
    base_text_append(&out, ",");
    json_write_int(&out, INT64_MIN);
    base_text_append_bytes(&out, "]x", 1);
    CU_ASSERT_STRING_EQUAL(out.text, "[18446744073709551615,-9223372036854775808]");
    for (int i = 0; i < 10000; i++)
        base_text_append(&out, "0123456789");
    CU_ASSERT_EQUAL(out.bytes, 43 + 100000);
    CU_ASSERT_FALSE(out.failed);
    base_text_free(&out);
    CU_ASSERT_PTR_NULL(out.text);
}

static void separates_members(void)
{
    struct text out = {0};

    base_text_append(&out, "{");
    json_write_member_text(&out, "a", "b\"");
    json_write_member_text(&out, "none", NULL);
    json_write_key(&out, "list");
    base_text_append(&out, "[{");
    json_write_member_uint(&out, "n", UINT64_MAX);
    base_text_append(&out, "}]}");
    CU_ASSERT_STRING_EQUAL(out.text,
                           "{\"a\":\"b\\\"\",\"none\":null,\"list\":[{\"n\":18446744073709551615}]}");
    base_text_free(&out);
}

static void puts_a_value_on_one_line(void)
{
    struct text out = {0};

    json_write_on_one_line(&out, span_of("\n{\r\n  \"a b\" : [ 1,\n\n 2 ] ,\t\"c\\\"\\n  \": 1.50\n}\n"));
    CU_ASSERT_STRING_EQUAL(out.text, "{\"a b\" : [ 1,2 ] ,\t\"c\\\"\\n  \": 1.50}");
    base_text_free(&out);
}

/* Whatever it is fed, nothing reads outside it (run with the address sanitizer) and what is valid can be
 * walked. */
static void survives_random_changes(void)
{
    static const char seed_text[] = "{\"id\":9007199254740993,\"a\":[1,-2.5e3,true,null,\"\\u00e9\\n\"],"
                                    "\"o\":{\"k\":{}},\"s\":\"\xC3\xA9 text\"}";
    static const char *const pointers[] = {"", "/a/4", "/o/k", "/s", "/id", "/a/0/x"};
    uint32_t random = 12345;
    size_t taken = 0;

    for (int round = 0; round < 40000; round++) {
        size_t bytes = sizeof seed_text - 1;
        char *text = malloc(bytes);
        memcpy(text, seed_text, bytes);
        for (unsigned change = 0; change < 1 + (unsigned)round % 4; change++) {
            random = random * 1664525 + 1013904223;
            text[(random >> 8) % bytes] = "{}[]\",:\\u0e-.tn \n\x01\xC3\x80"[(random >> 24) % 20];
        }
        bytes -= (random >> 4) % 3;
        struct json_span text_span = {text, bytes}, found;
        size_t at = 0;
        if (json_valid(text, bytes, &at))
            taken++;
        else
            CU_ASSERT_FATAL(at <= bytes);
        for (size_t i = 0; i < sizeof pointers / sizeof pointers[0]; i++)
            if (json_find(text_span, pointers[i], &found)) {
                int64_t number;
                free(json_text(found));
                json_int64(found, &number);
            }
        struct text out = {0};
        json_write_on_one_line(&out, text_span);
        base_text_free(&out);
        free(text);
    }
    CU_ASSERT_TRUE(taken > 100);
}

UNIT_MAIN("json", {"accepts what the grammar allows", accepts_what_the_grammar_allows},
          {"refuses everything else", refuses_everything_else},
          {"names the byte that is wrong", names_the_byte_that_is_wrong},
          {"bounds the depth", bounds_the_depth}, {"follows JSON pointers", follows_pointers},
          {"walks elements and members", walks_elements_and_members}, {"decodes text", decodes_text},
          {"keeps 64-bit numbers exact", keeps_64_bit_numbers_exact},
          {"writes what it can read", writes_what_it_can_read}, {"separates members", separates_members},
          {"puts a value on one line", puts_a_value_on_one_line},
          {"survives random changes", survives_random_changes})
