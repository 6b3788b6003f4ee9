/* SPDX-License-Identifier: MIT */
/* What children print: lines, tags, floods, last stderr output. */
#include "supervisor/relay.h"

#include <stdio.h>

#include "tests/lib/unit.h"

#define SECOND UINT64_C(1000000000)

static struct {
    char last[8192];
    enum ep_severity severity;
    uint32_t count;
} logged;

static void log_line(enum ep_severity severity, const char *line, void *user)
{
    (void)user;
    snprintf(logged.last, sizeof logged.last, "%s", line);
    logged.severity = severity;
    logged.count++;
}

static struct relay_limit limit;
static struct relay relay;

static void begin(void)
{
    memset(&logged, 0, sizeof logged);
    memset(&limit, 0, sizeof limit);
    relay_open(&relay, "quakes/locate[3]", &limit);
}

static void feed(const char *text, uint64_t now_ns)
{
    relay_feed(&relay, text, strlen(text), now_ns, log_line, NULL);
}

static void test_lines_are_put_together_and_tagged(void)
{
    begin();
    feed("hel", SECOND);
    CU_ASSERT_EQUAL(logged.count, 0);
    feed("lo\r\nwor", SECOND);
    CU_ASSERT_STRING_EQUAL(logged.last, "quakes/locate[3]: hello");
    CU_ASSERT_EQUAL(logged.severity, EP_LOG_INFO);
    feed("ld\n\n\nx\n", SECOND);
    CU_ASSERT_EQUAL(logged.count, 3); /* empty lines do not count */
    feed("last stderr output", SECOND);
    CU_ASSERT_EQUAL(logged.count, 3);
    relay_end(&relay, SECOND, log_line, NULL);
    CU_ASSERT_STRING_EQUAL(logged.last, "quakes/locate[3]: last stderr output");
    relay_end(&relay, SECOND, log_line, NULL);
    CU_ASSERT_EQUAL(logged.count, 4);
}

static void test_own_log_lines_pass(void)
{
    begin();
    feed("\x1e<4>quakes/locate[3]: warn key=1\n", SECOND);
    CU_ASSERT_STRING_EQUAL(logged.last, "quakes/locate[3]: warn key=1");
    CU_ASSERT_EQUAL(logged.severity, EP_LOG_WARNING);
    for (int i = 0; i < 1000; i++)
        feed("\x1e<6>quakes/locate[3]: info\n", SECOND);
    CU_ASSERT_EQUAL(logged.count, 1001); /* never limited */
    feed("\x1e<9>broken mark\n", SECOND);
    CU_ASSERT_STRING_EQUAL(logged.last, "quakes/locate[3]: ?<9>broken mark");
}

static void test_floods_are_limited_and_counted(void)
{
    begin();
    for (int i = 0; i < RELAY_BURST + 50; i++)
        feed("flood\n", SECOND);
    CU_ASSERT_EQUAL(logged.count, RELAY_BURST);
    relay_report_suppressed(&limit, "quakes/locate", SECOND + RELAY_WINDOW_NS - 1, log_line, NULL);
    CU_ASSERT_EQUAL(logged.count, RELAY_BURST);
    relay_report_suppressed(&limit, "quakes/locate", SECOND + RELAY_WINDOW_NS, log_line, NULL);
    CU_ASSERT_STRING_EQUAL(logged.last, "quakes/locate: suppressed lines=50");
    CU_ASSERT_EQUAL(logged.severity, EP_LOG_WARNING);
    feed("again\n", SECOND + RELAY_WINDOW_NS);
    CU_ASSERT_STRING_EQUAL(logged.last, "quakes/locate[3]: again");
    CU_ASSERT_EQUAL(logged.count, RELAY_BURST + 2);
}

static void test_limit_is_shared_by_the_stage(void)
{
    begin();
    static struct relay other;
    relay_open(&other, "quakes/locate[4]", &limit);
    for (int i = 0; i < RELAY_BURST; i++)
        feed("flood\n", SECOND);
    relay_feed(&other, "mine\n", 5, SECOND, log_line, NULL);
    CU_ASSERT_EQUAL(logged.count, RELAY_BURST);
    char output[64];
    relay_last_output(&other, output, sizeof output);
    CU_ASSERT_STRING_EQUAL(output, "mine"); /* kept although it was not logged */
}

static void test_long_lines_are_cut_with_a_mark(void)
{
    begin();
    static char line[3 * RELAY_LINE_BYTES];
    memset(line, 'a', sizeof line);
    relay_feed(&relay, line, sizeof line, SECOND, log_line, NULL);
    relay_feed(&relay, line, sizeof line, SECOND, log_line, NULL);
    CU_ASSERT_EQUAL(logged.count, 0);
    feed("\nnext\n", SECOND);
    CU_ASSERT_EQUAL(logged.count, 2);
    CU_ASSERT_STRING_EQUAL(logged.last, "quakes/locate[3]: next");
    relay_feed(&relay, line, sizeof line, SECOND, log_line, NULL);
    relay_end(&relay, SECOND, log_line, NULL);
    CU_ASSERT_EQUAL(strlen(logged.last),
                    strlen("quakes/locate[3]: ") + RELAY_LINE_BYTES - 1 + strlen(" [cut]"));
    CU_ASSERT_STRING_EQUAL(logged.last + strlen(logged.last) - 6, " [cut]");
}

static void test_control_characters_do_no_harm(void)
{
    begin();
    relay_feed(&relay, "a\0b\x1b[2J\n", 8, SECOND, log_line, NULL);
    CU_ASSERT_STRING_EQUAL(logged.last, "quakes/locate[3]: a?b?[2J");
}

static void test_last_output_is_whole_lines(void)
{
    begin();
    char output[400];
    relay_last_output(&relay, output, sizeof output);
    CU_ASSERT_STRING_EQUAL(output, "");
    feed("one\ntwo\nthree\n", SECOND);
    relay_last_output(&relay, output, sizeof output);
    CU_ASSERT_STRING_EQUAL(output, "one | two | three");
    relay_last_output(&relay, output, sizeof "two | three");
    CU_ASSERT_STRING_EQUAL(output, "two | three");
    relay_last_output(&relay, output, sizeof "two | three" - 1);
    CU_ASSERT_STRING_EQUAL(output, "three");
    relay_last_output(&relay, output, sizeof "ree");
    CU_ASSERT_STRING_EQUAL(output, "ree"); /* not even one fits: its end */
}

static void test_last_output_of_much_output(void)
{
    begin();
    char line[64], output[400];
    for (int i = 0; i < 1000; i++) {
        snprintf(line, sizeof line, "line %d\n", i);
        feed(line, SECOND);
    }
    relay_last_output(&relay, output, sizeof output);
    CU_ASSERT(strlen(output) > 350);
    CU_ASSERT_EQUAL(strncmp(output, "line ", 5), 0);
    CU_ASSERT_STRING_EQUAL(output + strlen(output) - 19, "line 998 | line 999");
    static char huge[2000];
    memset(huge, 'z', sizeof huge - 1);
    huge[sizeof huge - 2] = '\n';
    feed(huge, SECOND);
    relay_last_output(&relay, output, sizeof output);
    CU_ASSERT_EQUAL(strlen(output), sizeof output - 1);
    CU_ASSERT_EQUAL(output[0], 'z');
}

static void test_utf8_is_not_torn(void)
{
    begin();
    feed("\xc3\xa4\xc3\xa4\xc3\xa4\n", SECOND); /* three of two bytes */
    char output[4];                             /* room for three bytes: one whole character */
    relay_last_output(&relay, output, sizeof output);
    CU_ASSERT_STRING_EQUAL(output, "\xc3\xa4");
}

UNIT_MAIN("relay", {"lines are put together and tagged", test_lines_are_put_together_and_tagged},
          {"lines of our own log pass as they are, unlimited", test_own_log_lines_pass},
          {"floods are limited, and what was dropped is counted", test_floods_are_limited_and_counted},
          {"the limit is the stage's; the last stderr output is the worker's",
           test_limit_is_shared_by_the_stage},
          {"long lines are cut, with a mark", test_long_lines_are_cut_with_a_mark},
          {"control characters and zero bytes do no harm", test_control_characters_do_no_harm},
          {"the last stderr output is whole lines, as many as fit", test_last_output_is_whole_lines},
          {"the last stderr output stays bounded, whatever was printed", test_last_output_of_much_output},
          {"UTF-8 characters are not torn", test_utf8_is_not_torn})
