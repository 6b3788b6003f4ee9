/* SPDX-License-Identifier: MIT */
/* MessagePack as JSON text: numbers digit for digit, bytes, times, keys, and what cannot be written. */
#include <locale.h>
#include <stdio.h>

#include "tests/lib/msgpack_fixture.h"

static void writes_integers(void)
{
    msgpack_expect_json("00", "0");
    msgpack_expect_json("7f", "127");
    msgpack_expect_json("ff", "-1");
    msgpack_expect_json("e0", "-32");
    msgpack_expect_json("cc 80", "128");
    msgpack_expect_json("cd ffff", "65535");
    msgpack_expect_json("ce ffffffff", "4294967295");
    msgpack_expect_json("cf 0020000000000001", "9007199254740993"); /* 2^53 + 1 */
    msgpack_expect_json("cf 7fffffffffffffff", "9223372036854775807");
    msgpack_expect_json("cf 8000000000000000", "9223372036854775808");
    msgpack_expect_json("cf ffffffffffffffff", "18446744073709551615");
    msgpack_expect_json("d0 80", "-128");
    msgpack_expect_json("d1 8000", "-32768");
    msgpack_expect_json("d2 80000000", "-2147483648");
    msgpack_expect_json("d3 8000000000000000", "-9223372036854775808");
    msgpack_expect_json("d3 0000000000000000", "0");
    msgpack_expect_json("d3 fffffffed5fa0e00", "-5000000000");
    msgpack_expect_json("d3 000001a2079737ac", "1795423680428");
}

static void writes_floats(void)
{
    msgpack_expect_json("cb 3ff8000000000000", "1.5");
    msgpack_expect_json("cb 3ff0000000000000", "1.0");
    msgpack_expect_json("cb 0000000000000000", "0.0");
    msgpack_expect_json("cb 8000000000000000", "-0.0");
    msgpack_expect_json("cb 3fb999999999999a", "0.1");
    msgpack_expect_json("cb 3fd3333333333334", "0.30000000000000004");
    msgpack_expect_json("cb 444b1ae4d6e2ef50", "1e+21");
    msgpack_expect_json("cb 7fefffffffffffff", "1.7976931348623157e+308");
    msgpack_expect_json("cb 0010000000000000", "2.2250738585072014e-308");
    msgpack_expect_json("cb 0000000000000001", "5e-324");
    msgpack_expect_json("cb 43e0000000000000", "9.223372036854776e+18");
    msgpack_expect_json("cb c0f86a0000000000", "-100000.0");
    msgpack_expect_json("ca 3fc00000", "1.5");
    msgpack_expect_json("ca 3dcccccd", "0.10000000149011612"); /* that float's very number */
    msgpack_expect_json("ca 00000001", "1.401298464324817e-45");
    msgpack_expect_json("ca 7f7fffff", "3.4028234663852886e+38");
    msgpack_expect_json("cb 7ff8000000000000", "\"NaN\"");
    msgpack_expect_json("cb fff8000000000001", "\"NaN\"");
    msgpack_expect_json("cb 7ff0000000000000", "\"Infinity\"");
    msgpack_expect_json("cb fff0000000000000", "\"-Infinity\"");
    msgpack_expect_json("ca 7fc00000", "\"NaN\"");
    msgpack_expect_json("ca 7f800000", "\"Infinity\"");
    msgpack_expect_json("ca ff800000", "\"-Infinity\"");
}

/* Where the machine has a locale with another point. */
static void writes_floats_in_any_locale(void)
{
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "pt_BR.UTF-8",
                                        "ps_AF.UTF-8"};
    size_t tried = 0;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (setlocale(LC_NUMERIC, names[i]) != NULL) {
            tried++;
            msgpack_expect_json("cb 3ff8000000000000", "1.5");
            msgpack_expect_json("cb 3ff0000000000000", "1.0");
            msgpack_expect_json("cb bdb5fd7fe1796495", "-2e-11");
            msgpack_expect_json("cb 7fefffffffffffff", "1.7976931348623157e+308");
        }
    setlocale(LC_NUMERIC, "C");
    printf("(%zu locales) ", tried);
}

static void writes_text(void)
{
    msgpack_expect_json("a0", "\"\"");
    msgpack_expect_json("a3 616263", "\"abc\"");
    msgpack_expect_json("a3 610062", "\"a\\u0000b\"");
    msgpack_expect_json("a4 f09f9880", "\"\xF0\x9F\x98\x80\"");
    msgpack_expect_json("a5 225c0a0d1f", "\"\\\"\\\\\\n\\r\\u001f\"");
    msgpack_expect_json("d9 03 c2b043", "\"\xC2\xB0\x43\"");
    msgpack_expect_json("da 0001 61", "\"a\"");
    msgpack_expect_json("db 00000001 61", "\"a\"");
    msgpack_expect_json("c0", "null");
    msgpack_expect_json("c2", "false");
    msgpack_expect_json("c3", "true");
}

static void marks_what_json_lacks_in_the_key(void)
{
    msgpack_expect_json("81 a161 c4 04 000102ff", "{\"a:b64\":\"AAEC/w==\"}");
    msgpack_expect_json("81 a161 c4 00", "{\"a:b64\":\"\"}");
    msgpack_expect_json("81 a161 c5 0003 090807", "{\"a:b64\":\"CQgH\"}");
    msgpack_expect_json("81 a161 c6 00000001 ff", "{\"a:b64\":\"/w==\"}");
    msgpack_expect_json("81 a3612262 c4 01 00", "{\"a\\\"b:b64\":\"AA==\"}");
    msgpack_expect_json("81 a161 a2 61ff", "{\"a:string:b64\":\"Yf8=\"}");
    msgpack_expect_json("81 a161 a3 eda080",
                        "{\"a:string:b64\":\"7aCA\"}"); /* half a surrogate pair is no UTF-8 */
    msgpack_expect_json("81 05 c4 01 00", "{\"5:b64\":\"AA==\"}");
    msgpack_expect_json("81 a5 613a623634 c4 01 00", "{\"a:b64:b64\":\"AA==\"}");
    msgpack_expect_json("82 a161 81 a162 c4 01 00 a163 01", "{\"a\":{\"b:b64\":\"AA==\"},\"c\":1}");
    /* in lists, and alone, there is no key to mark */
    msgpack_expect_json("92 c4 01 00 a1 ff", "[\"AA==\",\"\xEF\xBF\xBD\"]");
    msgpack_expect_json("81 a161 91 c4 01 00", "{\"a\":[\"AA==\"]}");
    msgpack_expect_json("c4 01 00", "\"AA==\"");
    msgpack_expect_json("a2 61ff", "\"a\xEF\xBF\xBD\"");
}

static void writes_keys(void)
{
    msgpack_expect_json("80", "{}");
    msgpack_expect_json("90", "[]");
    msgpack_expect_json("83 01 a161 ff a162 cf ffffffffffffffff a163",
                        "{\"1\":\"a\",\"-1\":\"b\",\"18446744073709551615\":\"c\"}");
    msgpack_expect_json("81 d3 8000000000000000 c0", "{\"-9223372036854775808\":null}");
    msgpack_expect_json("82 a161 01 a161 02", "{\"a\":1,\"a\":2}");
    msgpack_expect_json("81 a0 01", "{\"\":1}");
    msgpack_expect_json("81 a2 6100 01", "{\"a\\u0000\":1}");
    msgpack_expect_json("81 a1 ff 01", "{\"\xEF\xBF\xBD\":1}");
    msgpack_expect_json("df 00000001 a161 dd 00000002 01 02", "{\"a\":[1,2]}");
    msgpack_expect_json("de 0001 a161 dc 0001 01", "{\"a\":[1]}");
    msgpack_expect_refused("81 c0 01", "the key at byte 1 is neither text nor an integer");
    msgpack_expect_refused("81 c3 01", "the key at byte 1 is neither text nor an integer");
    msgpack_expect_refused("81 cb 3ff8000000000000 01", "the key at byte 1 is neither text nor an integer");
    msgpack_expect_refused("81 c4 01 61 01", "the key at byte 1 is neither text nor an integer");
    msgpack_expect_refused("81 90 01", "the key at byte 1 is neither text nor an integer");
    msgpack_expect_refused("81 d6 ff 00000000 01", "the key at byte 1 is neither text nor an integer");
}

static void writes_timestamps(void)
{
    msgpack_expect_json("d6 ff 00000000", "\"1970-01-01T00:00:00Z\"");
    msgpack_expect_json("d6 ff ffffffff", "\"2106-02-07T06:28:15Z\"");
    msgpack_expect_json("d7 ff 00000000 00000001", "\"1970-01-01T00:00:01Z\"");
    msgpack_expect_json("d7 ff 00000003 ffffffff", "\"2514-05-30T01:53:03Z\"");   /* 2^34 - 1 */
    msgpack_expect_json("d7 ff 77359400 00000000", "\"1970-01-01T00:00:00.5Z\""); /* 500,000,000 << 34 */
    msgpack_expect_json("d7 ff 00000004 00000000", "\"1970-01-01T00:00:00.000000001Z\"");
    msgpack_expect_json("c7 0c ff 00000001 0000000000000000", "\"1970-01-01T00:00:00.000000001Z\"");
    msgpack_expect_json("c7 0c ff 00000000 ffffffffffffffff", "\"1969-12-31T23:59:59Z\"");
    msgpack_expect_json("c7 0c ff 075bcd15 ffffffffffffffff", "\"1969-12-31T23:59:59.123456789Z\"");
    msgpack_expect_json("c7 0c ff 3b9ac9ff 000000003a4fc880", "\"2001-01-01T00:00:00.999999999Z\"");
    msgpack_expect_json("c7 0c ff 00000000 fffffff1868b8400", "\"0000-01-01T00:00:00Z\"");
    msgpack_expect_json("c7 0c ff 00000000 0000003afff4417f", "\"9999-12-31T23:59:59Z\"");
    msgpack_expect_json("c7 04 ff 00000000", "\"1970-01-01T00:00:00Z\""); /* the long way round */
    msgpack_expect_json("c8 0008 ff 00000000 00000001", "\"1970-01-01T00:00:01Z\"");
    msgpack_expect_json("81 a161 d6 ff 00000000", "{\"a\":\"1970-01-01T00:00:00Z\"}");
    msgpack_expect_refused("c7 0c ff 00000000 fffffff1868b83ff", "the timestamp at byte 0 is out of range");
    msgpack_expect_refused("c7 0c ff 00000000 0000003afff44180", "the timestamp at byte 0 is out of range");
    msgpack_expect_refused("c7 0c ff 00000000 7fffffffffffffff", "the timestamp at byte 0 is out of range");
    msgpack_expect_refused("c7 0c ff 00000000 8000000000000000", "the timestamp at byte 0 is out of range");
    msgpack_expect_refused("c7 0c ff 3b9aca00 0000000000000000", "the timestamp at byte 0 is out of range");
    msgpack_expect_refused("91 d7 ff ee6b2800 00000000", "the timestamp at byte 1 is out of range");
    msgpack_expect_refused("c7 00 ff", "the timestamp at byte 0 has a length of 0, expected 4, 8 or 12");
    msgpack_expect_refused("d4 ff 00", "the timestamp at byte 0 has a length of 1, expected 4, 8 or 12");
    msgpack_expect_refused("d8 ff 00000000000000000000000000000000",
                           "the timestamp at byte 0 has a length of 16, expected 4, 8 or 12");
}

static void refuses_other_extensions(void)
{
    msgpack_expect_refused("d6 00 00000000", "an extension of unknown type 0 at byte 0");
    msgpack_expect_refused("92 01 d4 05 00", "an extension of unknown type 5 at byte 2");
    msgpack_expect_refused("c7 00 80", "an extension of unknown type -128 at byte 0");
    msgpack_expect_refused("c9 00000001 7f 00", "an extension of unknown type 127 at byte 0");
    msgpack_expect_refused("93 01 c1 02", "byte 2 is 0xC1, which means nothing in MessagePack");
}

static void expect_depth(size_t depth, int expected)
{
    char *text = malloc(depth + 1);
    struct msgpack value;
    struct text out = {0};
    struct error error = {0};

    memset(text, 0x91, depth);
    text[depth] = (char)0xC0;
    CU_ASSERT_EQUAL_FATAL(json_msgpack_find_first((struct msgpack){text, depth + 1}, &value, &error), 0);
    CU_ASSERT_EQUAL(value.bytes, depth + 1);
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json(value, &out, &error), expected);
    CU_ASSERT_EQUAL(expected == 0, json_valid(out.text, out.bytes, NULL));
    CU_ASSERT_STRING_EQUAL(error.message, expected == 0 ? "" : "nested deeper than 200 at byte 200");
    base_text_free(&out);
    free(text);
}

static void nests_as_deep_as_json(void)
{
    expect_depth(199, 0);
    expect_depth(200, 0);
    expect_depth(201, EP_EPROTO);
    expect_depth(100000, EP_EPROTO);
}

/* Values wide and deep at once: looking for the end of each on every level would take minutes. */
static void writes_each_byte_once(void)
{
    enum { DEPTH = 199, WIDTH = 4000000 };
    char *text = malloc(DEPTH + 5 + WIDTH);
    struct msgpack value;
    struct text out = {0};

    memset(text, 0x91, DEPTH);
    memcpy(text + DEPTH, "\xDD\x00\x3D\x09\x00", 5);
    memset(text + DEPTH + 5, 0x01, WIDTH);
    CU_ASSERT_EQUAL_FATAL(json_msgpack_find_first((struct msgpack){text, DEPTH + 5 + WIDTH}, &value, NULL),
                          0);
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json(value, &out, NULL), 0);
    CU_ASSERT_EQUAL(out.bytes, 2 * DEPTH + 2 + 2 * WIDTH - 1);
    base_text_free(&out);
    free(text);
}

static void appends(void)
{
    struct msgpack value = msgpack_unhex("92 01 d4 05 00");
    struct text out = {0};

    base_text_append(&out, "x=");
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json((struct msgpack){value.at + 1, 1}, &out, NULL), 0);
    CU_ASSERT_STRING_EQUAL(out.text, "x=1");
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json(value, &out, NULL), EP_EPROTO);
    CU_ASSERT_EQUAL(strncmp(out.text, "x=1", 3), 0);
    out.failed = true; /* as after an allocation that failed */
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json((struct msgpack){value.at + 1, 1}, &out, NULL), EP_ENOMEM);
    base_text_free(&out);
    msgpack_unhex_free(value);
}

UNIT_MAIN("json_msgpack_convert_to_json", {"writes integers", writes_integers},
          {"writes floats", writes_floats}, {"writes floats in any locale", writes_floats_in_any_locale},
          {"writes text", writes_text},
          {"marks in the key what JSON lacks", marks_what_json_lacks_in_the_key},
          {"writes keys", writes_keys}, {"writes timestamps", writes_timestamps},
          {"refuses other extensions", refuses_other_extensions},
          {"nests as deep as JSON", nests_as_deep_as_json}, {"writes each byte once", writes_each_byte_once},
          {"appends", appends})
