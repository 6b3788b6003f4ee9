/* SPDX-License-Identifier: MIT */
/* MessagePack in place: where values end, what they are, and what becomes of bytes that lie. */
#include "src/json/msgpack_head.h"
#include "tests/lib/msgpack_fixture.h"

/* The format's own table: for each first byte the kind and how many bytes follow, if every length is 1. */
/* false: no integer, or it does not fit */
static bool int64_of(struct msgpack value, int64_t *out)
{
    struct msgpack_head head;
    bool negative;

    if (!json_msgpack_head_read(value, &head) || head.kind != MSGPACK_INTEGER)
        return false;
    uint64_t number = json_msgpack_head_read_integer(&head, &negative);
    if (!negative && number > INT64_MAX)
        return false;
    *out = (int64_t)number;
    return true;
}

static int bytes_after(unsigned format)
{
    static const int after[] = {0, 0, 0, 0, 2, 3, 5, 3, 4,  6, 4, 8, 1, 2, 4, 8,
                                1, 2, 4, 8, 2, 3, 5, 9, 17, 2, 3, 5, 3, 5, 4, 6};

    if (format < 0x80 || format >= 0xE0)
        return 0;
    if (format < 0x90)
        return 2 * (int)(format - 0x80);
    if (format < 0xA0)
        return (int)(format - 0x90);
    return format < 0xC0 ? (int)(format - 0xA0) : after[format - 0xC0];
}

static enum msgpack_kind kind_of(unsigned format)
{
    static const char kinds[] = "nxbbyyyxxxffiiiiiiiixxxxxtttaamm";
    char kind = format < 0x80 || format >= 0xE0 ? 'i'
                : format < 0x90                 ? 'm'
                : format < 0xA0                 ? 'a'
                : format < 0xC0                 ? 't'
                                                : kinds[format - 0xC0];
    switch (kind) {
    case 'n':
        return MSGPACK_NIL;
    case 'b':
        return MSGPACK_BOOL;
    case 'i':
        return MSGPACK_INTEGER;
    case 'f':
        return MSGPACK_FLOAT;
    case 't':
        return MSGPACK_TEXT;
    case 'y':
        return MSGPACK_BYTES;
    case 'a':
        return MSGPACK_ARRAY;
    case 'm':
        return MSGPACK_MAP;
    default:
        return MSGPACK_EXTENSION;
    }
}

static size_t length_bytes(unsigned format)
{
    static const char lengths[] = "00001241240000000000000001242424";
    return format >= 0xC0 && format < 0xE0 ? (size_t)(lengths[format - 0xC0] - '0') : 0;
}

/* Every value that begins with this byte, its content all zero, is found; followed by another; and cut off at
 * every byte it is refused. */
static void knows_every_format_byte(void)
{
    for (unsigned format = 0; format < 256; format++) {
        size_t bytes = 1 + (size_t)bytes_after(format);
        char *text = calloc(1, bytes + 1);
        struct msgpack value;
        struct error error = {0};

        text[0] = (char)format;
        if (length_bytes(format) > 0)
            text[length_bytes(format)] = 1;
        CU_ASSERT_EQUAL(json_msgpack_find_first((struct msgpack){text, bytes}, &value, &error), 0);
        CU_ASSERT_EQUAL(value.bytes, bytes);
        CU_ASSERT_PTR_EQUAL(value.at, text);
        CU_ASSERT_EQUAL(json_msgpack_kind(value), kind_of(format));
        CU_ASSERT_EQUAL(json_msgpack_find_first((struct msgpack){text, bytes + 1}, &value, &error), 0);
        CU_ASSERT_EQUAL(value.bytes, bytes);
        for (size_t cut = 0; cut < bytes; cut++) {
            char *exact = malloc(cut + 1); /* a byte to be freed; none to be read */
            memcpy(exact, text, cut);
            CU_ASSERT_EQUAL(json_msgpack_find_first((struct msgpack){exact, cut}, &value, &error), EP_EPROTO);
            CU_ASSERT_EQUAL(error.code, EP_EPROTO);
            CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "byte 0"));
            free(exact);
        }
        free(text);
    }
}

static void names_the_byte_of_a_fault(void)
{
    static const struct {
        const char *hex, *message;
    } faults[] = {
        {"", "MessagePack ends within the value at byte 0 of 0"},
        {"93 01 a3 6162", "MessagePack ends within the value at byte 2 of 5"},
        {"81 01 c6 ffffffff 00", "MessagePack ends within the value at byte 2 of 8"},
        {"92 01 c8 0100", "MessagePack ends within the value at byte 2 of 5"},
        {"dd ffffffff c0",
         "MessagePack announces 4294967295 values at byte 0, more than the bytes that are left (1)"},
        {"df ffffffff 01",
         "MessagePack announces 8589934590 values at byte 0, more than the bytes that are left (1)"},
        {"92 dd 00000003 01 01 01",
         "MessagePack announces 4 values at byte 1, more than the bytes that are left (3)"},
        {"91 92 c0", "MessagePack announces 2 values at byte 1, more than the bytes that are left (1)"},
        {"df 80000000",
         "MessagePack announces 4294967296 values at byte 0, more than the bytes that are left (0)"},
    };

    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct msgpack text = msgpack_unhex(faults[i].hex), value;
        struct error error = {0};
        CU_ASSERT_EQUAL(json_msgpack_find_first(text, &value, &error), EP_EPROTO);
        CU_ASSERT_STRING_EQUAL(error.message, faults[i].message);
        msgpack_show_difference(faults[i].hex, error.message, faults[i].message);
        CU_ASSERT_EQUAL(json_msgpack_find_first(text, &value, NULL), EP_EPROTO);
        msgpack_unhex_free(text);
    }
}

static void finds_the_end_at_any_depth(void)
{
    enum { DEPTH = 1000000 };
    char *text = malloc(DEPTH + 2);
    struct msgpack value;

    memset(text, 0x91, DEPTH);
    text[DEPTH] = 0x05;
    text[DEPTH + 1] = 0x06;
    CU_ASSERT_EQUAL(json_msgpack_find_first((struct msgpack){text, DEPTH + 2}, &value, NULL), 0);
    CU_ASSERT_EQUAL(value.bytes, DEPTH + 1);
    CU_ASSERT_EQUAL(json_msgpack_find_first((struct msgpack){text, DEPTH}, &value, NULL), EP_EPROTO);
    memset(text, 0x92, DEPTH); /* each level asks for one value more than the next one is */
    CU_ASSERT_EQUAL(json_msgpack_find_first((struct msgpack){text, DEPTH + 2}, &value, NULL), EP_EPROTO);
    free(text);
}

static void reads_integers(void)
{
    static const struct {
        const char *hex;
        bool fits;
        int64_t number;
    } integers[] = {
        {"00", true, 0},
        {"7f", true, 127},
        {"ff", true, -1},
        {"e0", true, -32},
        {"cc ff", true, 255},
        {"cd ffff", true, 65535},
        {"ce ffffffff", true, 4294967295},
        {"cf 7fffffffffffffff", true, INT64_MAX},
        {"cf 8000000000000000", false, 0},
        {"cf ffffffffffffffff", false, 0},
        {"d0 80", true, -128},
        {"d0 7f", true, 127},
        {"d1 8000", true, -32768},
        {"d2 80000000", true, -2147483648LL},
        {"d3 8000000000000000", true, INT64_MIN},
        {"d3 fffffffed5fa0e00", true, -5000000000LL},
        {"d3 7fffffffffffffff", true, INT64_MAX},
        {"ca 3f800000", false, 0}, /* a float, even if whole */
        {"a1 31", false, 0},
        {"c0", false, 0},
    };

    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        struct msgpack text = msgpack_unhex(integers[i].hex);
        int64_t number = 0;
        CU_ASSERT_EQUAL(int64_of(text, &number), integers[i].fits);
        CU_ASSERT_EQUAL(number, integers[i].number);
        msgpack_unhex_free(text);
    }
}

static void hands_out_content(void)
{
    struct msgpack text = msgpack_unhex("a3 610062"), bytes = msgpack_unhex("c4 02 00ff"),
                   other = msgpack_unhex("91 a161"), yes = msgpack_unhex("c3"), no = msgpack_unhex("c2");
    struct json_span content;

    CU_ASSERT_TRUE(json_msgpack_find_content(text, &content));
    CU_ASSERT_TRUE(content.bytes == 3 && memcmp(content.at, "a\0b", 3) == 0);
    CU_ASSERT_TRUE(json_msgpack_find_content(bytes, &content));
    CU_ASSERT_TRUE(content.bytes == 2 && memcmp(content.at, "\0\xFF", 2) == 0);
    CU_ASSERT_FALSE(json_msgpack_find_content(other, &content));
    CU_ASSERT_TRUE(json_msgpack_bool(yes));
    CU_ASSERT_FALSE(json_msgpack_bool(no));
    CU_ASSERT_PTR_NULL(json_msgpack_copy_text(bytes));
    msgpack_unhex_free(text), msgpack_unhex_free(bytes), msgpack_unhex_free(other), msgpack_unhex_free(yes),
        msgpack_unhex_free(no);
}

static void makes_text_a_c_string(void)
{
    static const char *const texts[][2] = {
        {"a0", ""},
        {"a3 616263", "abc"},
        {"a3 610062", "a\xEF\xBF\xBD"
                      "b"},
        {"a4 f09f9880", "\xF0\x9F\x98\x80"},
        {"a3 61ff62", "a\xEF\xBF\xBD"
                      "b"},
        {"d9 04 ffffffff", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"a2 c3a9", "\xC3\xA9"},
        {"a1 c3", "\xEF\xBF\xBD"},
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct msgpack value = msgpack_unhex(texts[i][0]);
        char *text = json_msgpack_copy_text(value);
        CU_ASSERT_PTR_NOT_NULL_FATAL(text);
        CU_ASSERT_STRING_EQUAL(text, texts[i][1]);
        free(text);
        msgpack_unhex_free(value);
    }
}

struct sum {
    int calls;
    int64_t total;
    int64_t stop_at;
};

static int add_element(struct msgpack element, void *user)
{
    struct sum *sum = user;
    int64_t number = 0;

    sum->calls++;
    CU_ASSERT_TRUE(int64_of(element, &number));
    sum->total += number;
    return number == sum->stop_at ? 7 : 0;
}

static int add_member(struct msgpack key, struct msgpack value, void *user)
{
    CU_ASSERT_EQUAL(json_msgpack_kind(key), MSGPACK_TEXT);
    return add_element(value, user);
}

static void walks_containers(void)
{
    struct msgpack list = msgpack_unhex("94 01 cd 0100 ff 05"),
                   map = msgpack_unhex("82 a161 02 a162 d3 000000000000000a"), empty = msgpack_unhex("90"),
                   wide = msgpack_unhex("dc 0002 03 04"), wider = msgpack_unhex("df 00000001 a161 02");
    struct sum sum = {.stop_at = 1000};

    CU_ASSERT_EQUAL(json_msgpack_each_element(list, add_element, &sum), 0);
    CU_ASSERT_TRUE(sum.calls == 4 && sum.total == 261);
    CU_ASSERT_EQUAL(json_msgpack_each_element(map, add_element, &sum), EP_EINVAL);
    CU_ASSERT_EQUAL(json_msgpack_each_member(list, add_member, &sum), EP_EINVAL);
    sum = (struct sum){.stop_at = 256};
    CU_ASSERT_EQUAL(json_msgpack_each_element(list, add_element, &sum), 7);
    CU_ASSERT_EQUAL(sum.calls, 2);
    sum = (struct sum){.stop_at = 1000};
    CU_ASSERT_EQUAL(json_msgpack_each_member(map, add_member, &sum), 0);
    CU_ASSERT_TRUE(sum.calls == 2 && sum.total == 12);
    CU_ASSERT_EQUAL(json_msgpack_each_element(empty, add_element, &sum), 0);
    CU_ASSERT_EQUAL(sum.calls, 2);
    CU_ASSERT_EQUAL(json_msgpack_each_element(wide, add_element, &sum), 0);
    CU_ASSERT_EQUAL(json_msgpack_each_member(wider, add_member, &sum), 0);
    CU_ASSERT_TRUE(sum.calls == 5 && sum.total == 21);
    msgpack_unhex_free(list), msgpack_unhex_free(map), msgpack_unhex_free(empty), msgpack_unhex_free(wide),
        msgpack_unhex_free(wider);
}

static void finds_the_first_member_of_a_name(void)
{
    /* {1: 1, "ab": 2, bin "a": 3, "a": 4, "a": 5} */
    struct msgpack map = msgpack_unhex("85 01 01 a26162 02 c40161 03 a161 04 a161 05"),
                   list = msgpack_unhex("91 a161"), value;
    int64_t number;

    CU_ASSERT_TRUE(json_msgpack_find(map, "a", &value));
    CU_ASSERT_TRUE(int64_of(value, &number) && number == 4);
    CU_ASSERT_TRUE(json_msgpack_find(map, "ab", &value));
    CU_ASSERT_TRUE(int64_of(value, &number) && number == 2);
    CU_ASSERT_FALSE(json_msgpack_find(map, "b", &value));
    CU_ASSERT_FALSE(json_msgpack_find(map, "", &value));
    CU_ASSERT_FALSE(json_msgpack_find(list, "a", &value));
    msgpack_unhex_free(map), msgpack_unhex_free(list);
}

/* Spans that json_msgpack_find_first never saw: nothing behind them is read, and nothing hangs. */
static void survives_unchecked_spans(void)
{
    struct msgpack cut = msgpack_unhex("dd ffffffff 01 02"), none = {"", 0}, value;
    struct sum sum = {.stop_at = 1000};
    struct json_span content;
    struct text out = {0};

    CU_ASSERT_EQUAL(json_msgpack_each_element(cut, add_element, &sum), 0);
    CU_ASSERT_EQUAL(sum.calls, 2);
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json(cut, &out, NULL), EP_EPROTO);
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json(none, &out, NULL), EP_EPROTO);
    CU_ASSERT_FALSE(json_msgpack_find_content(none, &content));
    CU_ASSERT_FALSE(json_msgpack_bool(none));
    CU_ASSERT_FALSE(json_msgpack_find(none, "a", &value));
    base_text_free(&out);
    msgpack_unhex_free(cut);
}

UNIT_MAIN("packed", {"knows every format byte, cut off anywhere", knows_every_format_byte},
          {"names the byte of a fault", names_the_byte_of_a_fault},
          {"finds the end at any depth", finds_the_end_at_any_depth}, {"reads integers", reads_integers},
          {"hands out content", hands_out_content}, {"makes text a C string", makes_text_a_c_string},
          {"walks containers", walks_containers},
          {"finds the first member of a name", finds_the_first_member_of_a_name},
          {"survives unchecked spans", survives_unchecked_spans})
