/* SPDX-License-Identifier: MIT */
/* JSON taken apart by structure: broken pieces stay by themselves, broken structure is refused. */
#include <stdio.h>

#include "src/base/error.h"
#include "src/json/split.h"
#include "tests/lib/unit.h"

struct seen {
    char text[512];
    size_t calls, stop_after;
};

static int on_element(struct json_span piece, void *user)
{
    struct seen *seen = user;
    size_t used = strlen(seen->text);

    snprintf(seen->text + used, sizeof seen->text - used, "<%.*s>", (int)piece.bytes, piece.at);
    return ++seen->calls == seen->stop_after ? 7 : 0;
}

static int on_member(struct json_span key, struct json_span piece, void *user)
{
    struct seen *seen = user;
    size_t used = strlen(seen->text);

    snprintf(seen->text + used, sizeof seen->text - used, "%.*s=", (int)key.bytes, key.at);
    return on_element(piece, user);
}

/* In memory of exactly this size. */
static void expect(const char *text, bool object, int code, const char *pieces)
{
    struct seen seen = {0};
    size_t bytes = strlen(text);
    char *exact = malloc(bytes > 0 ? bytes : 1);

    memcpy(exact, text, bytes);
    struct json_span span = {exact, bytes};
    CU_ASSERT_EQUAL(object ? json_split_members(span, on_member, &seen)
                           : json_split_elements(span, on_element, &seen),
                    code);
    CU_ASSERT_STRING_EQUAL(seen.text, pieces);
    if (strcmp(seen.text, pieces) != 0)
        printf("\n    %s gives %s, expected %s\n", text, seen.text, pieces);
    free(exact);
}

static void takes_lists_apart(void)
{
    expect("[]", false, 0, "");
    expect(" [ ] ", false, 0, "");
    expect("[1]", false, 0, "<1>");
    expect(" [ 1 , \"a,]\" ,\n{\"b\":[1,2]}\t]\n", false, 0, "<1><\"a,]\"><{\"b\":[1,2]}>");
    expect("[\"\\\"]\",\"\\\\\",2]", false, 0, "<\"\\\"]\"><\"\\\\\"><2>");
    expect("[[[]],[]]", false, 0, "<[[]]><[]>");
}

static void takes_objects_apart(void)
{
    expect("{}", true, 0, "");
    expect(" { \"a\" : 1 , \"b\":{\"c\":\"}\"} } ", true, 0, "\"a\"=<1>\"b\"=<{\"c\":\"}\"}>");
    expect("{\"a\":1,\"a\":2}", true, 0, "\"a\"=<1>\"a\"=<2>");
    expect("{\"a\\\":\":1}", true, 0, "\"a\\\":\"=<1>");
}

static void keeps_broken_pieces_apart(void)
{
    expect("[1,nan(x) y,{\"a\" 1},[1}x,tru]", false, 0, "<1><nan(x) y><{\"a\" 1}><[1}x><tru>");
    expect("[1,,2,]", false, 0, "<1><><2><>");
    expect("[,]", false, 0, "<><>");
    expect("[1 2:3]", false, 0, "<1 2:3>");
    expect("[{]},1]", false, EP_EPROTO, "");
    expect("[\"\xFF\x01\",1]", false, 0, "<\"\xFF\x01\"><1>");
    expect("{\"a\":,\"b\":x}", true, 0, "\"a\"=<>\"b\"=<x>");
    expect("{\"\xFF\":1}", true, 0, "\"\xFF\"=<1>");
}

static void refuses_broken_structure(void)
{
    static const char *const lists[] = {"[",     "[1",    "[1,",       "[1,2}", "[1]x",       "[1]]", "[\"",
                                        "[\"\\", "[\"a]", "[\"a\\\"]", "[[1]",  "[{\"a\":1]", "[1}",  "[]]"};
    static const char *const objects[] = {"{",          "{\"a\"",    "{\"a\":",    "{\"a\":1",  "{\"a\":1]",
                                          "{1:2}",      "{\"a\",1}", "{\"a\":1,}", "{,}",       "{\"a\":1}}",
                                          "{\"a\":1}x", "{a:1}",     "{\"a\" 1}",  "{\"a\":[1}"};

    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct seen seen = {0};
        char *exact = strndup(lists[i], strlen(lists[i]));
        struct json_span span = {exact, strlen(exact)};
        CU_ASSERT_EQUAL(json_split_elements(span, on_element, &seen), EP_EPROTO);
        free(exact);
    }
    for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++) {
        struct seen seen = {0};
        struct json_span span = {objects[i], strlen(objects[i])};
        CU_ASSERT_EQUAL(json_split_members(span, on_member, &seen), EP_EPROTO);
    }
    expect("", false, EP_EINVAL, "");
    expect("  ", true, EP_EINVAL, "");
    expect("{}", false, EP_EINVAL, "");
    expect("[]", true, EP_EINVAL, "");
    expect("1", true, EP_EINVAL, "");
}

static void stops_when_told(void)
{
    struct seen seen = {.stop_after = 2};
    CU_ASSERT_EQUAL(json_split_elements((struct json_span){"[1,2,3", 6}, on_element, &seen), 7);
    CU_ASSERT_STRING_EQUAL(seen.text, "<1><2>");
}

static void compares_keys(void)
{
    CU_ASSERT_TRUE(json_split_is_key((struct json_span){"\"cid\"", 5}, "cid"));
    CU_ASSERT_TRUE(json_split_is_key((struct json_span){"\"c\\u0069d\"", 10}, "cid"));
    CU_ASSERT_FALSE(json_split_is_key((struct json_span){"\"cide\"", 6}, "cid"));
    CU_ASSERT_FALSE(json_split_is_key((struct json_span){"\"ci\"", 4}, "cid"));
    CU_ASSERT_FALSE(json_split_is_key((struct json_span){"\"cid\\u0000\"", 11}, "cid"));
    CU_ASSERT_FALSE(json_split_is_key((struct json_span){"\"c\\x69d\"", 8}, "cid"));
    CU_ASSERT_FALSE(json_split_is_key((struct json_span){"\"\"", 2}, "cid"));
}

static void measures_depth(void)
{
    CU_ASSERT_FALSE(json_split_is_deeper_than((struct json_span){"[{}]", 4}, 2));
    CU_ASSERT_TRUE(json_split_is_deeper_than((struct json_span){"[{}]", 4}, 1));
    CU_ASSERT_FALSE(json_split_is_deeper_than((struct json_span){"\"[[[[\"", 6}, 0));
    CU_ASSERT_FALSE(json_split_is_deeper_than((struct json_span){"\"[[[[", 5}, 0));
    CU_ASSERT_FALSE(json_split_is_deeper_than((struct json_span){"]]]][]", 6}, 1));
    CU_ASSERT_FALSE(json_split_is_deeper_than((struct json_span){"", 0}, 0));
}

UNIT_MAIN("json_split", {"takes lists apart", takes_lists_apart},
          {"takes objects apart", takes_objects_apart},
          {"keeps broken pieces apart", keeps_broken_pieces_apart},
          {"refuses broken structure", refuses_broken_structure}, {"stops when told", stops_when_told},
          {"compares keys", compares_keys}, {"measures depth", measures_depth})
