/* SPDX-License-Identifier: MIT */
/* The log's lines: whole, one write each, told apart by their reader, and harmless whatever is in them. */
#include "tests/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/error.h"
#include "src/base/log.h"
#include "src/base/utf8.h"

/* stderr is a pipe for the time of a test; O_DIRECT makes it keep writes apart, so that a read returns one of
 * them. */
struct capture {
    int read_end, real_stderr;
};

static struct capture capture_begin(void)
{
    int ends[2];
    CU_ASSERT_EQUAL_FATAL(pipe2(ends, O_CLOEXEC | O_NONBLOCK | O_DIRECT), 0);
    struct capture capture = {ends[0], dup(STDERR_FILENO)};
    fflush(stderr);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    return capture;
}

/* The next write, or "" when there is none. */
static const char *next_write(struct capture capture)
{
    static char text[8192];
    ssize_t got = read(capture.read_end, text, sizeof text - 1);
    text[got > 0 ? got : 0] = '\0';
    return text;
}

static void capture_end(struct capture capture)
{
    dup2(capture.real_stderr, STDERR_FILENO);
    close(capture.real_stderr);
    close(capture.read_end);
    base_log_open(EP_LOG_INFO, NULL, NULL);
    base_log_set_name("%s", "");
}

static void lines_have_time_and_name(void)
{
    unsetenv("JOURNAL_STREAM");
    struct capture capture = capture_begin();
    base_log_open(EP_LOG_INFO, NULL, NULL);
    base_log_set_name("%s/%s[%d]", "quakes", "locate", 3);
    base_log_info("stored events=%d", 7);
    const char *line = next_write(capture);
    int year, month, day, hour, minute, second, ms, used = 0;
    CU_ASSERT_EQUAL(sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3d %n", &year, &month, &day, &hour, &minute,
                           &second, &ms, &used),
                    7);
    CU_ASSERT_EQUAL(used, 24);
    CU_ASSERT_STRING_EQUAL(line + used, "quakes/locate[3]: stored events=7\n");
    CU_ASSERT_STRING_EQUAL(next_write(capture), "");
    capture_end(capture);
}

static void the_journal_gets_priorities(void)
{
    struct capture capture = capture_begin();
    struct stat about;
    char stream[64];
    fstat(STDERR_FILENO, &about);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)about.st_dev,
             (unsigned long long)about.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    base_log_open(EP_LOG_DEBUG, NULL, NULL);
    base_log_set_name("supervisor");
    base_log_error("a");
    base_log_debug("b");
    CU_ASSERT_STRING_EQUAL(next_write(capture), "<3>supervisor: a\n");
    CU_ASSERT_STRING_EQUAL(next_write(capture), "<7>supervisor: b\n");
    setenv("JOURNAL_STREAM", "1:1", 1); /* somebody's journal, but not our stderr */
    base_log_open(EP_LOG_DEBUG, NULL, NULL);
    base_log_error("c");
    CU_ASSERT_EQUAL(next_write(capture)[0], '2');
    unsetenv("JOURNAL_STREAM");
    capture_end(capture);
}

static void less_than_wanted_is_not_written(void)
{
    struct capture capture = capture_begin();
    base_log_open(EP_LOG_WARNING, NULL, NULL);
    CU_ASSERT_TRUE(base_log_is_wanted(EP_LOG_ERROR));
    CU_ASSERT_TRUE(base_log_is_wanted(EP_LOG_WARNING));
    CU_ASSERT_FALSE(base_log_is_wanted(EP_LOG_INFO));
    base_log_info("no");
    base_log_pass(EP_LOG_DEBUG, "no: no");
    CU_ASSERT_STRING_EQUAL(next_write(capture), "");
    base_log_warning("yes");
    CU_ASSERT_PTR_NOT_NULL(strstr(next_write(capture), "yes\n"));
    capture_end(capture);
}

static void a_line_is_one_write_and_cannot_be_forged(void)
{
    struct capture capture = capture_begin();
    char long_text[9000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    base_log_open(EP_LOG_INFO, NULL, NULL);
    base_log_set_name("worker");
    base_log_info("first\nsecond\x1b[31m\r\x7f\xc2\x9b");
    CU_ASSERT_STRING_EQUAL(next_write(capture) + 24, "worker: first?second?[31m???\n");
    base_log_info("%s", long_text);
    const char *line = next_write(capture);
    CU_ASSERT_EQUAL(strlen(line), 4096);
    CU_ASSERT_EQUAL(line[4095], '\n');
    CU_ASSERT_STRING_EQUAL(next_write(capture), "");
    capture_end(capture);
}

static void a_full_pipe_loses_lines_and_says_so(void)
{
    struct capture capture = capture_begin();
    base_log_open(EP_LOG_INFO, NULL, NULL);
    base_log_set_name("worker");
    char junk[4096] = "";
    while (write(STDERR_FILENO, junk, sizeof junk) > 0)
        ;
    CU_ASSERT_EQUAL(errno, EAGAIN);
    errno = ENOENT;
    base_log_info("lost");
    base_log_info("lost too");
    CU_ASSERT_EQUAL(errno, ENOENT);
    while (read(capture.read_end, junk, sizeof junk) > 0)
        ;
    base_log_info("kept");
    CU_ASSERT_STRING_EQUAL(next_write(capture) + 24, "worker: kept (2 lines before this were lost)\n");
    base_log_info("kept");
    CU_ASSERT_STRING_EQUAL(next_write(capture) + 24, "worker: kept\n");
    capture_end(capture);
}

static void relayed_lines_are_marked(void)
{
    struct capture capture = capture_begin();
    base_log_open(EP_LOG_INFO, NULL, NULL);
    base_log_set_name("producer quakes");
    base_log_set_relay_mode(true);
    base_log_warning("odd");
    CU_ASSERT_STRING_EQUAL(next_write(capture), "\x1e<4>producer quakes: odd\n");
    base_log_pass(EP_LOG_ERROR, "quakes/locate[3]: bad");
    CU_ASSERT_STRING_EQUAL(next_write(capture), "\x1e<3>quakes/locate[3]: bad\n");
    base_log_set_relay_mode(false);
    base_log_pass(EP_LOG_ERROR, "quakes/locate[3]: b\x1e<3>d");
    CU_ASSERT_STRING_EQUAL(next_write(capture) + 24, "quakes/locate[3]: b?<3>d\n");
    capture_end(capture);
}

static char called_line[128];
static enum ep_severity called_severity;

static void called(enum ep_severity severity, const char *line, void *user)
{
    CU_ASSERT_PTR_EQUAL(user, called_line);
    called_severity = severity;
    snprintf(called_line, sizeof called_line, "%s", line);
}

static void a_function_takes_the_place_of_stderr(void)
{
    struct capture capture = capture_begin();
    base_log_open(EP_LOG_INFO, called, called_line);
    base_log_set_name("a");
    base_log_warning("b\nc");
    CU_ASSERT_STRING_EQUAL(called_line, "a: b?c");
    CU_ASSERT_EQUAL(called_severity, EP_LOG_WARNING);
    base_log_pass(EP_LOG_INFO, "x: y");
    CU_ASSERT_STRING_EQUAL(called_line, "x: y");
    CU_ASSERT_STRING_EQUAL(next_write(capture), "");
    base_log_set_relay_mode(
        true); /* in a child: the supervisor calls the function when it passes the line on */
    base_log_warning("z");
    CU_ASSERT_STRING_EQUAL(called_line, "x: y");
    CU_ASSERT_STRING_EQUAL(next_write(capture), "\x1e<4>a: z\n");
    capture_end(capture);
}

static void cleaning_cuts_between_characters(void)
{
    char buffer[6];
    base_log_clean("abc\xe2\x82\xac", buffer, sizeof buffer); /* three bytes for the last, two places */
    CU_ASSERT_STRING_EQUAL(buffer, "abc");
    base_log_clean("ab\xe2\x82\xac", buffer, sizeof buffer);
    CU_ASSERT_STRING_EQUAL(buffer, "ab\xe2\x82\xac");
    base_log_clean("\x80\x80\x80\x80\x80\x80\x80", buffer, sizeof buffer); /* no UTF-8 at all */
    CU_ASSERT_STRING_EQUAL(buffer, "?????");
    base_log_clean("a\xe2\x82"
                   "b\xff",
                   buffer, sizeof buffer); /* a character without its end, a byte that begins none */
    CU_ASSERT_STRING_EQUAL(buffer, "a??b?");
    base_log_clean("say \"x\"", buffer, sizeof buffer);
    CU_ASSERT_STRING_EQUAL(buffer, "say \"");
    base_log_clean("x", buffer, 1);
    CU_ASSERT_STRING_EQUAL(buffer, "");
    buffer[0] = 'k';
    base_log_clean("x", buffer, 0);
    CU_ASSERT_EQUAL(buffer[0], 'k');
}

static void a_prefixed_message_is_cut_between_characters(void)
{
    struct error error = {0};
    for (size_t i = 0; i + 4 < sizeof error.message; i += 4)
        memcpy(error.message + i, "\xF0\x9F\x98\x80", 4);
    for (int length = 0; length < 4; length++) {
        struct error longer = error;
        base_error_prefix(&longer, "%.*s", length, "abc");
        CU_ASSERT(base_utf8_valid(longer.message, strlen(longer.message)));
        CU_ASSERT(strlen(longer.message) > sizeof longer.message - 8);
    }
}

UNIT_MAIN("log", {"lines have time and name", lines_have_time_and_name},
          {"the journal gets priorities", the_journal_gets_priorities},
          {"less than wanted is not written", less_than_wanted_is_not_written},
          {"a line is one write and cannot be forged", a_line_is_one_write_and_cannot_be_forged},
          {"a full pipe loses lines and says so", a_full_pipe_loses_lines_and_says_so},
          {"relayed lines are marked", relayed_lines_are_marked},
          {"a function takes the place of stderr", a_function_takes_the_place_of_stderr},
          {"cleaning cuts between characters", cleaning_cuts_between_characters},
          {"a prefixed message is cut between characters", a_prefixed_message_is_cut_between_characters})
