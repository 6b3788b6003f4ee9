/* SPDX-License-Identifier: MIT */
/* JSON text packed as MessagePack: byte for byte, read back by msgpack-c's own unpacker, and there and back
 * again. */
#include <locale.h>

#include "src/json/msgpack_write.h"
#include "tests/unit/msgpack_fixture.h"

static struct json_span span_of(const char *text)
{
    return (struct json_span){text, strlen(text)};
}

static void pack(const char *json, msgpack_sbuffer *buffer)
{
    msgpack_packer packer;

    CU_ASSERT_TRUE(json_valid(json, strlen(json), NULL));
    msgpack_sbuffer_init(buffer);
    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    CU_ASSERT_EQUAL(json_msgpack_write(span_of(json), &packer), 0);
}

static void expect_msgpack(const char *json, const char *hex)
{
    struct msgpack expected = unhex(hex);
    msgpack_sbuffer buffer;

    pack(json, &buffer);
    bool same = buffer.size == expected.bytes && memcmp(buffer.data, expected.at, expected.bytes) == 0;
    CU_ASSERT_TRUE(same);
    if (!same) {
        printf("\n    %s\n    is       ", json);
        for (size_t i = 0; i < buffer.size; i++)
            printf("%02x", (unsigned char)buffer.data[i]);
        printf("\n    expected %s\n", hex);
    }
    msgpack_sbuffer_destroy(&buffer);
    unhex_free(expected);
}

/* Packed and written again it is the same text. */
static void expect_same(const char *json)
{
    msgpack_sbuffer buffer;
    struct msgpack value;
    struct json_out out = {0};
    struct error error = {0};

    pack(json, &buffer);
    CU_ASSERT_EQUAL_FATAL(json_msgpack_first((struct msgpack){buffer.data, buffer.size}, &value, &error), 0);
    CU_ASSERT_EQUAL(value.bytes, buffer.size);
    CU_ASSERT_EQUAL(json_msgpack_json(value, &out, &error), 0);
    CU_ASSERT_STRING_EQUAL(out.text, json);
    show_difference("there and back", out.text, json);
    json_write_free(&out);
    msgpack_sbuffer_destroy(&buffer);
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

/* Somebody else's reader takes it as we mean it. */
static void is_read_by_another(void)
{
    static const char json[] =
        "{\"big\":9223372036854775808,\"neg\":-5000000000,\"f\":1.5,\"t\":\"a\\u0000b\","
        "\"d:b64\":\"AAEC/w==\",\"l\":[null,true,{}]}";
    msgpack_sbuffer buffer;
    msgpack_unpacked unpacked;
    size_t at = 0;

    pack(json, &buffer);
    msgpack_unpacked_init(&unpacked);
    CU_ASSERT_EQUAL_FATAL(msgpack_unpack_next(&unpacked, buffer.data, buffer.size, &at),
                          MSGPACK_UNPACK_SUCCESS);
    CU_ASSERT_EQUAL(at, buffer.size);
    CU_ASSERT_EQUAL_FATAL(unpacked.data.type, MSGPACK_OBJECT_MAP);
    CU_ASSERT_EQUAL_FATAL(unpacked.data.via.map.size, 6);
    const msgpack_object_kv *members = unpacked.data.via.map.ptr;
    CU_ASSERT_TRUE(members[0].key.via.str.size == 3 && memcmp(members[0].key.via.str.ptr, "big", 3) == 0);
    CU_ASSERT_EQUAL(members[0].val.type, MSGPACK_OBJECT_POSITIVE_INTEGER);
    CU_ASSERT_TRUE(members[0].val.via.u64 == 9223372036854775808U);
    CU_ASSERT_EQUAL(members[1].val.type, MSGPACK_OBJECT_NEGATIVE_INTEGER);
    CU_ASSERT_TRUE(members[1].val.via.i64 == -5000000000LL);
    CU_ASSERT_EQUAL(members[2].val.type, MSGPACK_OBJECT_FLOAT64);
    CU_ASSERT_TRUE(members[2].val.via.f64 == 1.5);
    CU_ASSERT_EQUAL(members[3].val.type, MSGPACK_OBJECT_STR);
    CU_ASSERT_TRUE(members[3].val.via.str.size == 3 && memcmp(members[3].val.via.str.ptr, "a\0b", 3) == 0);
    CU_ASSERT_TRUE(members[4].key.via.str.size == 1 && members[4].key.via.str.ptr[0] == 'd');
    CU_ASSERT_EQUAL(members[4].val.type, MSGPACK_OBJECT_BIN);
    CU_ASSERT_TRUE(members[4].val.via.bin.size == 4 &&
                   memcmp(members[4].val.via.bin.ptr, "\0\1\2\xFF", 4) == 0);
    CU_ASSERT_EQUAL(members[5].val.type, MSGPACK_OBJECT_ARRAY);
    CU_ASSERT_EQUAL(members[5].val.via.array.size, 3);
    CU_ASSERT_EQUAL(members[5].val.via.array.ptr[2].type, MSGPACK_OBJECT_MAP);
    msgpack_unpacked_destroy(&unpacked);
    msgpack_sbuffer_destroy(&buffer);
}

/* Takes so many bytes, then no more. */
static int write_some(void *left, const char *data, size_t bytes)
{
    size_t *room = left;

    (void)data;
    if (bytes > *room)
        return -1;
    *room -= bytes;
    return 0;
}

static void says_when_there_is_no_room(void)
{
    static const char json[] =
        "{\"a\":[1,-1,1.5,\"text\",true,false,null,{}],\"b:b64\":\"AAEC\",\"c:string:b64\":\"/w==\"}";
    msgpack_packer packer;
    msgpack_sbuffer buffer;

    pack(json, &buffer);
    for (size_t bytes = 0; bytes <= buffer.size; bytes++) {
        size_t room = bytes;
        msgpack_packer_init(&packer, &room, write_some);
        CU_ASSERT_EQUAL(json_msgpack_write(span_of(json), &packer), bytes < buffer.size ? EP_ENOMEM : 0);
    }
    msgpack_sbuffer_destroy(&buffer);
}

UNIT_MAIN("json_pack", {"packs numbers", packs_numbers},
          {"packs numbers in any locale", packs_numbers_in_any_locale}, {"packs texts", packs_texts},
          {"packs containers", packs_containers},
          {"packs bytes that a key marks", packs_bytes_that_a_key_marks},
          {"comes back as it went", comes_back_as_it_went},
          {"comes back from any depth", comes_back_from_any_depth},
          {"is read by another", is_read_by_another},
          {"says when there is no room", says_when_there_is_no_room})
