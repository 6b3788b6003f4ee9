/* SPDX-License-Identifier: MIT */
/* Bytes from hex, and comparisons of the JSON that they become. */
#include "tests/lib/msgpack_fixture.h"

#include <stdio.h>

struct msgpack msgpack_unhex(const char *hex)
{
    size_t bytes = 0;
    char *at = malloc(strlen(hex) / 2 + 1);

    for (; *hex != '\0'; hex++) {
        unsigned byte;
        if (*hex == ' ')
            continue;
        CU_ASSERT_EQUAL_FATAL(sscanf(hex++, "%2x", &byte), 1);
        at[bytes++] = (char)byte;
    }
    char *exact = malloc(bytes > 0 ? bytes : 1);
    memcpy(exact, at, bytes);
    free(at);
    return (struct msgpack){exact, bytes};
}

void msgpack_unhex_free(struct msgpack bytes)
{
    free((char *)bytes.at);
}

void msgpack_show_difference(const char *what, const char *is, const char *expected)
{
    if (is == NULL || strcmp(is, expected) != 0)
        printf("\n    %s\n    is       %s\n    expected %s\n", what, is != NULL ? is : "(nothing)", expected);
}

void msgpack_expect_json(const char *hex, const char *expected)
{
    struct msgpack text = msgpack_unhex(hex), value;
    struct text out = {0};
    struct error error = {0};

    CU_ASSERT_EQUAL_FATAL(json_msgpack_find_first(text, &value, &error), 0);
    CU_ASSERT_EQUAL(value.bytes, text.bytes);
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json(value, &out, &error), 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(out.text);
    CU_ASSERT_STRING_EQUAL(out.text, expected);
    msgpack_show_difference(hex, out.text, expected);
    CU_ASSERT_TRUE(json_valid(out.text, out.bytes, NULL));
    base_text_free(&out);
    msgpack_unhex_free(text);
}

void msgpack_expect_refused(const char *hex, const char *message)
{
    struct msgpack text = msgpack_unhex(hex), value;
    struct text out = {0};
    struct error error = {0};

    CU_ASSERT_EQUAL_FATAL(json_msgpack_find_first(text, &value, &error), 0);
    CU_ASSERT_EQUAL(value.bytes, text.bytes);
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json(value, &out, &error), EP_EPROTO);
    CU_ASSERT_EQUAL(error.code, EP_EPROTO);
    CU_ASSERT_STRING_EQUAL(error.message, message);
    msgpack_show_difference(hex, error.message, message);
    CU_ASSERT_EQUAL(json_msgpack_convert_to_json(value, &out, NULL), EP_EPROTO);
    base_text_free(&out);
    msgpack_unhex_free(text);
}
