/* SPDX-License-Identifier: MIT */
/* The MessagePack writer: byte for byte as the specification has it and as msgpack-c wrote it, and there and
 * back again. */
#include <locale.h>
#include <stdio.h>

#include "src/json/msgpack_write.h"
#include "tests/lib/msgpack_fixture.h"

static struct json_span span_of(const char *text)
{
    return (struct json_span){text, strlen(text)};
}

static void pack(const char *json, struct text *packed)
{
    *packed = (struct text){0};
    CU_ASSERT_TRUE(json_valid(json, strlen(json), NULL));
    CU_ASSERT_EQUAL(json_msgpack_write(packed, span_of(json)), 0);
}

static void expect_msgpack(const char *json, const char *hex)
{
    struct msgpack expected = msgpack_unhex(hex);
    struct text packed;

    pack(json, &packed);
    bool same = packed.bytes == expected.bytes && memcmp(packed.text, expected.at, expected.bytes) == 0;
    CU_ASSERT_TRUE(same);
    if (!same) {
        printf("\n    %s\n    is       ", json);
        for (size_t i = 0; i < packed.bytes; i++)
            printf("%02x", (unsigned char)packed.text[i]);
        printf("\n    expected %s\n", hex);
    }
    base_text_free(&packed);
    msgpack_unhex_free(expected);
}

/* Packed and written again it is the same text. */
static void expect_same(const char *json)
{
    struct text packed;
    struct msgpack value;
    struct text out = {0};
    struct error error = {0};

    pack(json, &packed);
    CU_ASSERT_EQUAL_FATAL(json_msgpack_find_first((struct msgpack){packed.text, packed.bytes}, &value,
                                                  &error),
                          0);
    CU_ASSERT_EQUAL(value.bytes, packed.bytes);
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json(value, &out, &error), 0);
    CU_ASSERT_STRING_EQUAL(out.text, json);
    msgpack_show_difference("there and back", out.text, json);
    base_text_free(&out);
    base_text_free(&packed);
}

static void packs_numbers(void)
{
    expect_msgpack("0", "00");
    expect_msgpack("127", "7f");
    expect_msgpack("128", "cc80");
    expect_msgpack("65535", "cdffff");
    expect_msgpack("4294967295", "ceffffffff");
    expect_msgpack("9007199254740993", "cf0020000000000001");
    expect_msgpack("9223372036854775808", "cf8000000000000000");
    expect_msgpack("18446744073709551615", "cfffffffffffffffff");
    expect_msgpack("18446744073709551616", "cb43f0000000000000");
    expect_msgpack("-1", "ff");
    expect_msgpack("-32", "e0");
    expect_msgpack("-128", "d080");
    expect_msgpack("-5000000000", "d3fffffffed5fa0e00");
    expect_msgpack("-9223372036854775808", "d38000000000000000");
    expect_msgpack("-9223372036854775809", "cbc3e0000000000000");
    expect_msgpack("-0", "00");
    expect_msgpack("1.5", "cb3ff8000000000000");
    expect_msgpack("1.0", "cb3ff0000000000000");
    expect_msgpack("1e3", "cb408f400000000000");
    expect_msgpack("-0.0", "cb8000000000000000");
    expect_msgpack("5e-324", "cb0000000000000001");
    expect_msgpack("1E400", "cb7ff0000000000000");
}

static void packs_numbers_in_any_locale(void)
{
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL)
        printf("(no locale to try) ");
    expect_msgpack("1.5", "cb3ff8000000000000");
    setlocale(LC_NUMERIC, "C");
}

static void packs_texts(void)
{
    expect_msgpack("\"\"", "a0");
    expect_msgpack("\"abc\"", "a3616263");
    expect_msgpack("\"a\\u0000b\"", "a3610062");
    expect_msgpack("\"\\ud83d\\ude00\\n\\/\"", "a6f09f98800a2f");
    expect_msgpack("\"\\ud800\"", "a3efbfbd");
    expect_msgpack(" \"0123456789012345678901234567890123456789\" ",
                   "d92830313233343536373839303132333435363738393031323334353637383930313233343536373839");
    expect_msgpack("true", "c3");
    expect_msgpack("false", "c2");
    expect_msgpack(" null\n", "c0");
}

static void packs_containers(void)
{
    expect_msgpack("[]", "90");
    expect_msgpack("{}", "80");
    expect_msgpack("[1, [2, {}], {\"a\": [null]}]", "93 01 92 02 80 81 a161 91 c0");
    expect_msgpack("{\"a\":1,\"a\":2,\"\":3}", "83 a161 01 a161 02 a0 03");
    expect_msgpack("{\"a\\u0000\\\"b\":1}", "81 a4 61002262 01");
    expect_msgpack("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]",
                   "dc 0010 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10");
}

static void packs_bytes_that_a_key_marks(void)
{
    expect_msgpack("{\"a:b64\":\"AAEC/w==\"}", "81 a161 c404000102ff");
    expect_msgpack("{\"a:b64\":\"\"}", "81 a161 c400");
    expect_msgpack("{\"a:b64\":\"CQgH\"}", "81 a161 c403090807");
    expect_msgpack("{\"a:b64\":\"CQg=\"}", "81 a161 c4020908");
    expect_msgpack("{\"a:b64\":\"-+==\"}", "81 a5613a623634 a42d2b3d3d");
    expect_msgpack("{\"a:b64\":\"+/+/\"}", "81 a161 c403 fbffbf");
    expect_msgpack("{\"a\\u003ab64\":\"\\u0041A==\"}", "81 a161 c40100");
    expect_msgpack("{\":b64\":\"AA==\"}", "81 a0 c40100");
    expect_msgpack("{\"a:b64:b64\":\"AA==\"}", "81 a5613a623634 c40100");
    expect_msgpack("{\"a:string:b64\":\"Yf8=\"}", "81 a161 a261ff");
    expect_msgpack("{\"a:string:b64\":\"\"}", "81 a161 a0");
    expect_msgpack("{\"x\":{\"a:b64\":\"AA==\"},\"y\":[{\"b:b64\":\"AA==\"}]}",
                   "82 a178 81 a161 c40100 a179 91 81 a162 c40100");
    /* what is no base64 of anything stays what it is */
    expect_msgpack("{\"a:b64\":\"AA=\"}", "81 a5613a623634 a341413d");
    expect_msgpack("{\"a:b64\":\"A===\"}", "81 a5613a623634 a4413d3d3d");
    expect_msgpack("{\"a:b64\":\"AB==\"}", "81 a5613a623634 a441423d3d"); /* bits left over */
    expect_msgpack("{\"a:b64\":\"AAB=\"}", "81 a5613a623634 a44141423d");
    expect_msgpack("{\"a:b64\":\"A=A=\"}", "81 a5613a623634 a4413d413d");
    expect_msgpack("{\"a:b64\":\"AAA\\u0000\"}", "81 a5613a623634 a441414100");
    expect_msgpack("{\"a:b64\":5}", "81 a5613a623634 05");
    expect_msgpack("{\"a:b64\":[\"AA==\"]}", "81 a5613a623634 91 a441413d3d");
    expect_msgpack("{\"b64\":\"AA==\"}", "81 a3623634 a441413d3d");
}

static void comes_back_as_it_went(void)
{
    static const char *const texts[] = {
        "null",
        "[true,false]",
        "[0,-1,9223372036854775807,9223372036854775808,18446744073709551615,-9223372036854775808]",
        "[1.5,-0.0,1.0,0.1,1e+21,5e-324,1.7976931348623157e+308,-2.2250738585072014e-308]",
        "\"a\\u0000b\\\"\\\\\\n\\u001f \xF0\x9F\x98\x80 \xC2\xB0\"",
        "{\"a:b64\":\"AAEC/"
        "w==\",\"b:string:b64\":\"Yf8=\",\"c\":{\"d:b64\":\"\"},\"e\":[{\"f:b64\":\"AA==\"}]}",
        "{\"uid\":\"e-0\",\"meta\":{\"big\":9223372036854775808,\"neg\":-5000000000,\"f\":1.5},\"x\":[[],{},["
        "null]]}",
        "{\"not:b64\":\"no base64\",\"n:b64\":5}",
        "{\"\":1,\"a\":1,\"a\":2}",
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        expect_same(texts[i]);
}

static void comes_back_from_any_depth(void)
{
    char text[2 * JSON_DEPTH_MAX + 1];

    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    text[2 * JSON_DEPTH_MAX] = '\0';
    expect_same(text);
}

/* These bytes were written by msgpack-c 4.0.0 for the same values. */
static void equals_what_msgpack_c_writes(void)
{
    expect_msgpack("{\"big\":9223372036854775808,\"neg\":-5000000000,\"f\":1.5,\"t\":\"a\\u0000b\","
                   "\"d:b64\":\"AAEC/w==\",\"l\":[null,true,{}]}",
                   "86 a3626967 cf8000000000000000 a36e6567 d3fffffffed5fa0e00 a166 cb3ff8000000000000"
                   "a174 a3610062 a164 c404000102ff a16c 93 c0 c3 80");
}

static void expect_integer(int64_t value, const char *hex)
{
    struct msgpack expected = msgpack_unhex(hex);
    struct text packed = {0};

    json_msgpack_write_int(&packed, value);
    CU_ASSERT_EQUAL_FATAL(packed.bytes, expected.bytes);
    CU_ASSERT_TRUE(memcmp(packed.text, expected.at, expected.bytes) == 0);
    base_text_free(&packed);
    msgpack_unhex_free(expected);
}

static void integers_take_the_shortest_form(void)
{
    expect_integer(127, "7f");
    expect_integer(128, "cc80");
    expect_integer(255, "ccff");
    expect_integer(256, "cd0100");
    expect_integer(65536, "ce00010000");
    expect_integer(4294967296, "cf0000000100000000");
    expect_integer(INT64_MAX, "cf7fffffffffffffff");
    expect_integer(-32, "e0");
    expect_integer(-33, "d0df");
    expect_integer(-128, "d080");
    expect_integer(-129, "d1ff7f");
    expect_integer(-32768, "d18000");
    expect_integer(-32769, "d2ffff7fff");
    expect_integer(INT32_MIN, "d280000000");
    expect_integer(INT32_MIN - INT64_C(1), "d3ffffffff7fffffff");
    expect_integer(INT64_MIN, "d38000000000000000");
}

/* At each length where the head grows; the content is written where there is one. */
static void heads_grow_with_the_length(void)
{
    static const struct {
        char type; /* t text, b bytes, a array, m map */
        size_t length;
        const char *head;
    } cases[] = {
        {'t', 31, "bf"},
        {'t', 32, "d920"},
        {'t', 255, "d9ff"},
        {'t', 256, "da0100"},
        {'t', 65535, "daffff"},
        {'t', 65536, "db00010000"},
        {'b', 0, "c400"},
        {'b', 255, "c4ff"},
        {'b', 256, "c50100"},
        {'b', 65535, "c5ffff"},
        {'b', 65536, "c600010000"},
        {'a', 15, "9f"},
        {'a', 16, "dc0010"},
        {'a', 255, "dc00ff"},
        {'a', 65535, "dcffff"},
        {'a', 65536, "dd00010000"},
        {'m', 15, "8f"},
        {'m', 16, "de0010"},
        {'m', 65535, "deffff"},
        {'m', 65536, "df00010000"},
    };
    char *content = calloc(1, 65536);

    CU_ASSERT_PTR_NOT_NULL_FATAL(content);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct msgpack head = msgpack_unhex(cases[i].head);
        struct text packed = {0};
        size_t content_bytes = 0;
        if (cases[i].type == 't')
            json_msgpack_write_text(&packed, content, content_bytes = cases[i].length);
        else if (cases[i].type == 'b')
            json_msgpack_write_bytes(&packed, content, content_bytes = cases[i].length);
        else if (cases[i].type == 'a')
            json_msgpack_write_array(&packed, cases[i].length);
        else
            json_msgpack_write_map(&packed, cases[i].length);
        CU_ASSERT_EQUAL_FATAL(packed.bytes, head.bytes + content_bytes);
        CU_ASSERT_TRUE(memcmp(packed.text, head.at, head.bytes) == 0);
        base_text_free(&packed);
        msgpack_unhex_free(head);
    }
    free(content);
}

static void refuses_what_no_head_can_say(void)
{
    struct text packed = {0};

    json_msgpack_write_array(&packed, (size_t)UINT32_MAX);
    CU_ASSERT_FALSE(packed.failed);
    json_msgpack_write_map(&packed, (size_t)UINT32_MAX + 1);
    CU_ASSERT_TRUE(packed.failed);
    base_text_free(&packed);
}

static void reports_that_memory_ran_out(void)
{
    struct text packed = {.failed = true}; /* as an earlier addition leaves it */

    CU_ASSERT_EQUAL(json_msgpack_write(&packed, span_of("{\"a\":[1,\"text\"]}")), EP_ENOMEM);
    CU_ASSERT_EQUAL(packed.bytes, 0);
    base_text_free(&packed);
}

UNIT_MAIN("msgpack write", {"packs numbers", packs_numbers},
          {"packs numbers in any locale", packs_numbers_in_any_locale}, {"packs texts", packs_texts},
          {"packs containers", packs_containers},
          {"packs bytes that a key marks", packs_bytes_that_a_key_marks},
          {"comes back as it went", comes_back_as_it_went},
          {"comes back from any depth", comes_back_from_any_depth},
          {"equals what msgpack-c writes", equals_what_msgpack_c_writes},
          {"integers take the shortest form", integers_take_the_shortest_form},
          {"heads grow with the length", heads_grow_with_the_length},
          {"refuses what no head can say", refuses_what_no_head_can_say},
          {"reports that memory ran out", reports_that_memory_ran_out})
