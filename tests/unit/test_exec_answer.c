/* SPDX-License-Identifier: MIT */
/* An exec stage's answer line: every form of it, malformed answers, and that no bytes whatever do harm. */
#include "src/stage/exec_answer.h"

#include <stdio.h>

#include "tests/lib/stage_fixture.h"

static int read_line(const char *line, struct ep_call *call, char *errbuf)
{
    stage_fixture_call(call, "{}", "{}");
    errbuf[0] = '\0';
    return stage_exec_answer_read(line, strlen(line), call, errbuf, SHM_TEXT_BYTES);
}

static void each_form(void)
{
    static const struct {
        const char *line;
        enum ep_answer answer;
        uint64_t retry_after_ms;
        const char *reason, *context, *event;
    } forms[] = {
        {"{\"processed\":true}", EP_PROCESSED, 0, "", NULL, NULL},
        {" {\"processed\" : true } \r", EP_PROCESSED, 0, "", NULL, NULL},
        {"{\"processed\":false}", EP_NOT_PROCESSED, 0, "", NULL, NULL},
        {"{\"processed\":false,\"retry_after\":\"30s\"}", EP_NOT_PROCESSED, 30000, "", NULL, NULL},
        {"{\"processed\":false,\"retry_after\":\"1m30s\"}", EP_NOT_PROCESSED, 90000, "", NULL, NULL},
        {"{\"processed\":false,\"retry_after\":30}", EP_NOT_PROCESSED, 30000, "", NULL, NULL},
        {"{\"processed\":false,\"retry_after\":0.25}", EP_NOT_PROCESSED, 250, "", NULL, NULL},
        {"{\"processed\":false,\"retry_after\":0}", EP_NOT_PROCESSED, 1, "", NULL, NULL},
        {"{\"remove\":true}", EP_REMOVE, 0, "", NULL, NULL},
        {"{\"reject\":\"no \\\"device\\\"\"}", EP_REJECT, 0, "no \"device\"", NULL, NULL},
        {"{\"error\":\"busy\",\"retry_after\":\"5s\"}", EP_ERROR, 5000, "busy", NULL, NULL},
        {"{\"processed\":true,\"context\":{\"id\":18446744073709551615}}", EP_PROCESSED, 0, "",
         "{\"id\":18446744073709551615}", NULL},
        {"{\"event\":{\"n\": 1.50},\"processed\":true}", EP_PROCESSED, 0, "", NULL, "{\"n\": 1.50}"},
        {"{\"error\":\"e\",\"context\":{\"tries\":1}}", EP_ERROR, 0, "e", "{\"tries\":1}", NULL},
        /* several things at once: remove, reject, error, processed */
        {"{\"processed\":true,\"remove\":true}", EP_REMOVE, 0, "", NULL, NULL},
        {"{\"processed\":false,\"error\":\"e\",\"reject\":\"r\",\"remove\":true}", EP_REMOVE, 0, "", NULL,
         NULL},
        {"{\"processed\":true,\"error\":\"e\",\"reject\":\"r\"}", EP_REJECT, 0, "r", NULL, NULL},
        {"{\"processed\":true,\"error\":\"e\"}", EP_ERROR, 0, "e", NULL, NULL},
        /* members that say nothing */
        {"{\"processed\":true,\"remove\":false}", EP_PROCESSED, 0, "", NULL, NULL},
        {"{\"processed\":true,\"error\":null,\"reject\":null,\"remove\":null,\"context\":null,\"event\":null,"
         "\"retry_after\":null}",
         EP_PROCESSED, 0, "", NULL, NULL},
        {"{\"hint\":[{\"remove\":true}],\"processed\":true}", EP_PROCESSED, 0, "", NULL, NULL},
        {"{\"processed\":true,\"processed\":false}", EP_PROCESSED, 0, "", NULL, NULL},
        {"{\"proce\\u0073sed\":true}", EP_PROCESSED, 0, "", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct ep_call call;
        char errbuf[SHM_TEXT_BYTES];
        int code = read_line(forms[i].line, &call, errbuf);
        if (code != 0 || call.answer != forms[i].answer || call.retry_after_ms != forms[i].retry_after_ms)
            fprintf(stderr, "\n%s: code %d, answer %d, %lu ms, %s\n", forms[i].line, code, (int)call.answer,
                    (unsigned long)call.retry_after_ms, errbuf);
        CU_ASSERT_EQUAL(code, 0);
        CU_ASSERT_EQUAL(call.answer, forms[i].answer);
        CU_ASSERT_EQUAL(call.retry_after_ms, forms[i].retry_after_ms);
        CU_ASSERT(stage_fixture_same(call.reason, forms[i].reason));
        CU_ASSERT((call.new_context == NULL) == (forms[i].context == NULL));
        CU_ASSERT((call.new_event == NULL) == (forms[i].event == NULL));
        if (forms[i].context != NULL)
            CU_ASSERT(stage_fixture_same(call.new_context, forms[i].context));
        if (forms[i].event != NULL)
            CU_ASSERT(stage_fixture_same(call.new_event, forms[i].event));
        stage_call_close(&call);
    }
}

static void malformed_answers(void)
{
    static const struct {
        const char *line, *part;
    } wrongs[] = {
        {"hello", "malformed answer: `hello`"},
        {"", "malformed answer: ``"},
        {"true", "`true`"},
        {"[{\"processed\":true}]", "malformed answer"},
        {"{}", "expected processed, remove, reject or error"},
        {"{\"remove\":false}", "expected processed, remove, reject or error"},
        {"{\"processed\":null}", "expected processed, remove, reject or error"},
        {"{\"processed\":true", "`{\"processed\":true`"},
        {"{\"processed\":true}{\"processed\":true}", "malformed answer"},
        {"{\"processed\":\"yes\"}", "\"processed\" must be true or false"},
        {"{\"processed\":1}", "\"processed\" must be true or false"},
        {"{\"remove\":\"yes\"}", "\"remove\" must be true or false"},
        {"{\"reject\":true}", "\"reject\" must be a string"},
        {"{\"error\":{}}", "\"error\" must be a string"},
        {"{\"processed\":true,\"context\":[1]}", "\"context\" must be an object"},
        {"{\"processed\":true,\"context\":\"{}\"}", "\"context\" must be an object"},
        {"{\"processed\":true,\"event\":1}", "\"event\" must be an object"},
        {"{\"processed\":false,\"retry_after\":\"soon\"}", "\"retry_after\" must be a duration"},
        {"{\"processed\":false,\"retry_after\":-1}", "\"retry_after\" must be a duration"},
        {"{\"processed\":false,\"retry_after\":1e99}", "\"retry_after\" must be a duration"},
        {"{\"processed\":false,\"retry_after\":true}", "\"retry_after\" must be a duration"},
        {"Traceback \x1b[31m(most\trecent)", "`Traceback ?[31m(most?recent)`"},
    };
    for (size_t i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++) {
        struct ep_call call;
        char errbuf[SHM_TEXT_BYTES];
        int code = read_line(wrongs[i].line, &call, errbuf);
        CU_ASSERT_EQUAL(code, EP_EPROTO);
        CU_ASSERT(stage_fixture_contains(errbuf, wrongs[i].part));
        CU_ASSERT_PTR_NULL(call.new_context);
        CU_ASSERT_PTR_NULL(call.new_event);
        CU_ASSERT_STRING_EQUAL(call.reason, "");
        stage_call_close(&call);
    }
}

static void nul_bytes_are_no_answer(void)
{
    static const char line[] = "{\"processed\":true}\0";
    struct ep_call call;
    char errbuf[SHM_TEXT_BYTES];
    stage_fixture_call(&call, "{}", "{}");
    CU_ASSERT_EQUAL(stage_exec_answer_read(line, sizeof line - 1, &call, errbuf, sizeof errbuf), EP_EPROTO);
}

static void shown_lines_are_cut(void)
{
    char line[1000], shown[64];
    memset(line, 'x', sizeof line);
    stage_exec_answer_quote(line, sizeof line, shown, sizeof shown);
    CU_ASSERT_EQUAL(strlen(shown), sizeof shown - 1);
    CU_ASSERT(stage_fixture_contains(shown, "xxx...`"));
    /* never in the middle of a character */
    for (size_t shift = 0; shift < 2; shift++) {
        for (size_t i = 0; i + 1 < sizeof line; i += 2)
            memcpy(line + i, "\xc3\xa9", 2);
        stage_exec_answer_quote(line + shift, sizeof line - shift, shown, sizeof shown);
        CU_ASSERT(strlen(shown) >= sizeof shown - 2);
        CU_ASSERT(stage_fixture_contains(shown, "\xc3\xa9...`"));
    }
    for (size_t size = 0; size < 12; size++) {
        char small[16];
        memset(small, '#', sizeof small);
        stage_exec_answer_quote(line, sizeof line, small, size);
        CU_ASSERT_EQUAL(small[size], '#');
        CU_ASSERT(size == 0 || memchr(small, '\0', size) != NULL);
    }
}

static uint32_t step(uint32_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    return *random;
}

/* Mutations of good answers; a sanitizer build makes this worth more. Whatever is taken must be good JSON
 * again. */
static void mutations_do_no_harm(void)
{
    static const char *const seeds[] = {
        "{\"processed\":true,\"context\":{\"a\":[1,2,{\"b\":\"\\u00e9\\\\\"}],\"id\":18446744073709551615}}",
        "{\"processed\":false,\"retry_after\":\"1m30s\",\"event\":{\"uid\":\"u\",\"payload\":null}}",
        "{\"remove\":true,\"reject\":\"why \\ud83d\\ude00\",\"error\":\"\",\"retry_after\":12.5e1}",
    };
    static const char pieces[] = "{}[]\",:\\u0tfn-1eE. \t\r\x00\x7f\xc3\xff";
    uint32_t random = 2463534242u;
    size_t taken = 0;
    for (unsigned turn = 0; turn < 60000; turn++) {
        const char *seed = seeds[turn % 3];
        size_t bytes = strlen(seed);
        char *line = malloc(bytes * 2 + 1); /* exactly as long as it is, so that a step beyond is found */
        memcpy(line, seed, bytes);
        for (uint32_t changes = step(&random) % 5; changes > 0; changes--) {
            size_t at = step(&random) % bytes;
            char piece = pieces[step(&random) % (sizeof pieces - 1)];
            switch (step(&random) % 4) {
            case 0:
                line[at] = piece;
                break;
            case 1:
                memmove(line + at, line + at + 1, bytes - at - 1);
                bytes -= bytes > 1;
                break;
            case 2:
                bytes = at + 1;
                break;
            default:
                if (bytes < strlen(seed) * 2) {
                    memmove(line + at + 1, line + at, bytes - at);
                    line[at] = piece;
                    bytes++;
                }
            }
        }
        char *exact = malloc(bytes);
        memcpy(exact, line, bytes);
        struct ep_call call;
        char errbuf[SHM_TEXT_BYTES] = "";
        stage_fixture_call(&call, "{}", "{}");
        int code = stage_exec_answer_read(exact, bytes, &call, errbuf, sizeof errbuf);
        taken += code == 0;
        if (code == 0 && call.new_context != NULL)
            CU_ASSERT(json_valid(call.new_context, strlen(call.new_context), NULL));
        if (code == 0 && call.new_event != NULL)
            CU_ASSERT(json_valid(call.new_event, strlen(call.new_event), NULL));
        CU_ASSERT(code == 0 || (code == EP_EPROTO && errbuf[0] != '\0'));
        stage_call_close(&call);
        free(exact);
        free(line);
    }
    CU_ASSERT(taken > 10000 && taken < 50000);
}

UNIT_MAIN("exec_answer", {"each form", each_form}, {"malformed answers", malformed_answers},
          {"NUL bytes are no answer", nul_bytes_are_no_answer}, {"shown lines are cut", shown_lines_are_cut},
          {"mutations do no harm", mutations_do_no_harm})
