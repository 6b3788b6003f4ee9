/* SPDX-License-Identifier: MIT */
/* Reads captured frames and members of their data. */
#include "tests/lib/idefix_frames.h"

struct json_span frames_span(const char *text)
{
    return (struct json_span){text, strlen(text)};
}

bool frames_captured_next(FILE *file, struct captured *frame)
{
    static char line[65536];
    char hex[3] = {0};

    if (fgets(line, sizeof line, file) == NULL)
        return false;
    CU_ASSERT_PTR_NOT_NULL_FATAL(strchr(line, '\n'));
    char *tab = strchr(line, '\t');
    CU_ASSERT_PTR_NOT_NULL_FATAL(tab);
    *tab = '\0';
    CU_ASSERT_EQUAL_FATAL(sscanf(line, "ifx/%15[^/]/%c/%7s", frame->session, &frame->direction, frame->flags),
                          3);
    size_t bytes = strcspn(tab + 1, "\n") / 2;
    frame->body = malloc(bytes > 0 ? bytes : 1);
    frame->bytes = bytes;
    for (size_t i = 0; i < bytes; i++) {
        unsigned byte;
        memcpy(hex, tab + 1 + 2 * i, 2);
        CU_ASSERT_EQUAL_FATAL(sscanf(hex, "%2x", &byte), 1);
        frame->body[i] = (char)byte;
    }
    return true;
}

FILE *frames_captured_open(void)
{
    char path[4096];
    const char *top = getenv("top_srcdir");

    snprintf(path, sizeof path, "%s/../shared/idefix/frames.tsv", top != NULL ? top : ".");
    return fopen(path, "r");
}

char *frames_data_json(const struct idefix_message *message)
{
    struct text out = {0};
    struct error error = {0};

    CU_ASSERT_EQUAL(idefix_message_write_json(message, &out, &error), 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(out.text);
    CU_ASSERT_TRUE(json_valid(out.text, out.bytes, NULL));
    return out.text;
}

void frames_expect_member(const char *json, const char *pointer, const char *expected)
{
    struct json_span value;
    bool found = json_find(frames_span(json), pointer, &value);

    CU_ASSERT_EQUAL(found, expected != NULL);
    if (!found || expected == NULL)
        return;
    bool same = value.bytes == strlen(expected) && memcmp(value.at, expected, value.bytes) == 0;
    CU_ASSERT_TRUE(same);
    if (!same)
        printf("\n    %s is %.*s, expected %s\n", pointer, (int)value.bytes, value.at, expected);
}

static int count_one(struct json_span key, struct json_span value, void *user)
{
    (void)key, (void)value;
    (*(size_t *)user)++;
    return 0;
}

size_t frames_member_count(const char *json, const char *pointer)
{
    struct json_span value;
    size_t count = 0;

    CU_ASSERT_TRUE_FATAL(json_find(frames_span(json), pointer, &value));
    CU_ASSERT_EQUAL(json_each_member(value, count_one, &count), 0);
    return count;
}
