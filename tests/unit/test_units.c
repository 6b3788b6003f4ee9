/* SPDX-License-Identifier: MIT */
/* Durations, sizes, times, suggestions and names as people write them. */
#include "tests/lib/unit.h"

#include <errno.h>
#include <stdio.h>

#include "src/base/suggest.h"
#include "src/config/config.h"

#define HOUR_MS UINT64_C(3600000)

static uint64_t duration(const char *text)
{
    uint64_t ms = 12345678901;
    return base_units_read_duration(text, &ms) == EP_OK ? ms : UINT64_MAX;
}

static uint64_t size(const char *text)
{
    uint64_t bytes = 0;
    return base_units_read_size(text, &bytes) == EP_OK ? bytes : UINT64_MAX;
}

static void durations_are_read(void)
{
    CU_ASSERT_EQUAL(duration("30s"), 30000);
    CU_ASSERT_EQUAL(duration("1m30s"), 90000);
    CU_ASSERT_EQUAL(duration("500ms"), 500);
    CU_ASSERT_EQUAL(duration("24h"), 24 * HOUR_MS);
    CU_ASSERT_EQUAL(duration("7d"), 7 * 24 * HOUR_MS);
    CU_ASSERT_EQUAL(duration("1d2h3m4s5ms"), 26 * HOUR_MS + 184005);
    CU_ASSERT_EQUAL(duration("0"), 0);
    CU_ASSERT_EQUAL(duration("0s"), 0);
    CU_ASSERT_EQUAL(duration("36500d"), UNITS_DURATION_MAX_MS);
}

static void wrong_durations_are_refused(void)
{
    static const char *const wrong[] = {"",    "30",   "s",    " 30s",  "30s ",  "30 s",
                                        "-1s", "1.5s", "30S",  "1s1",   "1s1m",  "1s1s",
                                        "1x",  "+1s",  "1e3s", "1msec", "00000", "1\xc2\xb5s"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        errno = 0;
        CU_ASSERT_EQUAL(duration(wrong[i]), UINT64_MAX);
        CU_ASSERT_EQUAL(errno, EINVAL);
    }
}

static void numbers_too_large_are_told_apart(void)
{
    static const char *const large[] = {"36501d", "99999999999999999999s", "18446744073709551615d",
                                        "36500d1ms", "18446744073709551616ms"};
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++) {
        errno = 0;
        CU_ASSERT_EQUAL(duration(large[i]), UINT64_MAX);
        CU_ASSERT_EQUAL(errno, ERANGE);
    }
    uint64_t ms = 7;
    CU_ASSERT_EQUAL(base_units_read_duration("36501d", &ms), EP_EINVAL);
    CU_ASSERT_EQUAL(ms, 7); /* untouched */
    uint64_t bytes = 7;
    errno = 0;
    CU_ASSERT_EQUAL(base_units_read_size("18446744073709551616", &bytes), EP_EINVAL);
    CU_ASSERT_EQUAL(errno, ERANGE);
    errno = 0;
    CU_ASSERT_EQUAL(base_units_read_size("17000000TiB", &bytes), EP_EINVAL);
    CU_ASSERT_EQUAL(errno, ERANGE);
    CU_ASSERT_EQUAL(bytes, 7);
}

static void sizes_are_read(void)
{
    CU_ASSERT_EQUAL(size("4096"), 4096);
    CU_ASSERT_EQUAL(size("10k"), 10000);
    CU_ASSERT_EQUAL(size("10kB"), 10000);
    CU_ASSERT_EQUAL(size("64KiB"), 65536);
    CU_ASSERT_EQUAL(size("64MiB"), 64 << 20);
    CU_ASSERT_EQUAL(size("2G"), UINT64_C(2000000000));
    CU_ASSERT_EQUAL(size("1TiB"), UINT64_C(1) << 40);
    CU_ASSERT_EQUAL(size("0"), 0);
    static const char *const wrong[] = {"", "k", "-1", "1.5k", "10 k", "10kib", "0x10", "10KiBs"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CU_ASSERT_EQUAL(size(wrong[i]), UINT64_MAX);
}

static void durations_are_written_as_they_are_read(void)
{
    static const struct {
        uint64_t ms;
        const char *text;
    } pairs[] = {{0, "0s"},
                 {1, "1ms"},
                 {500, "500ms"},
                 {1500, "1s500ms"},
                 {90000, "1m30s"},
                 {60000, "1m"},
                 {3600000, "1h"},
                 {86400000, "1d"},
                 {90061001, "1d1h1m1s1ms"},
                 {UNITS_DURATION_MAX_MS, "36500d"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char text[48];
        base_units_write_duration(pairs[i].ms, text, sizeof text);
        CU_ASSERT_STRING_EQUAL(text, pairs[i].text);
        CU_ASSERT_EQUAL(duration(text), pairs[i].ms);
    }
    for (uint64_t ms = 1; ms < UNITS_DURATION_MAX_MS; ms = ms * 3 + 7) {
        char text[48];
        base_units_write_duration(ms, text, sizeof text);
        CU_ASSERT_EQUAL(duration(text), ms);
    }
    char small[4] = "xxx";
    base_units_write_duration(UINT64_MAX, small, sizeof small); /* cut, never written beyond */
    CU_ASSERT_EQUAL(small[3], '\0');
}

static const char *since(const char *text)
{
    static char moment[64];
    /* 2026-11-23T11:02:03.123Z */
    return base_units_write_since(text, INT64_C(1795431723123), moment, sizeof moment) == EP_OK ? moment
                                                                                                : "refused";
}

static void since_is_a_duration_or_a_time(void)
{
    CU_ASSERT_STRING_EQUAL(since("0"), "2026-11-23T11:02:03.123Z");
    CU_ASSERT_STRING_EQUAL(since("24h"), "2026-11-22T11:02:03.123Z");
    CU_ASSERT_STRING_EQUAL(since("1h2m3s123ms"), "2026-11-23T10:00:00.000Z");
    CU_ASSERT_STRING_EQUAL(since("2026-11-23T10:00:00Z"), "2026-11-23T10:00:00Z");
    CU_ASSERT_STRING_EQUAL(since("2024-02-29T23:59:60.5+05:30"), "2024-02-29T23:59:60.5+05:30");
    static const char *const wrong[] = {"",
                                        "yesterday",
                                        "2026-11-23",
                                        "2026-11-23T10:00:00",
                                        "2026-02-29T10:00:00Z",
                                        "2026-13-01T10:00:00Z",
                                        "2026-11-23T24:00:00Z",
                                        "2026-11-23T10:00:00.Z",
                                        "2026-11-23T10:00:00+0100",
                                        "2026-11-23T10:00:00Zx",
                                        "36500d"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CU_ASSERT_STRING_EQUAL(since(wrong[i]), "refused");
    char small[8];
    CU_ASSERT_EQUAL(base_units_write_since("1h", INT64_C(1795431723123), small, sizeof small), EP_EINVAL);
}

static void near_words_are_suggested(void)
{
    static const char *const words[] = {"concurrency", "input_buffer", "retry", "url",
                                        "token_file",  "at",           "exec",  NULL};
    static const struct {
        const char *word, *near;
    } pairs[] = {{"concurency", "concurrency"},
                 {"Concurrency", "concurrency"},
                 {"input-buffer", "input_buffer"},
                 {"inputBuffer", "input_buffer"},
                 {"rety", "retry"},
                 {"rerty", "retry"},
                 {"ulr", "url"},
                 {"token", "token_file"},
                 {"exce", "exec"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        const char *near = base_suggest_find_nearest(pairs[i].word, words);
        CU_ASSERT_PTR_NOT_NULL(near);
        if (near != NULL)
            CU_ASSERT_STRING_EQUAL(near, pairs[i].near);
    }
    char longest[300];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    CU_ASSERT_PTR_NULL(base_suggest_find_nearest("potato", words));
    CU_ASSERT_PTR_NULL(base_suggest_find_nearest("x", words));
    CU_ASSERT_PTR_NULL(base_suggest_find_nearest("", words));
    CU_ASSERT_PTR_NULL(base_suggest_find_nearest(longest, words));
}

static void names_are_plain(void)
{
    char name[65];
    memset(name, 'n', sizeof name - 1);
    name[63] = '\0';
    CU_ASSERT_TRUE(config_is_name_valid(name));
    memcpy(name + 63, "n", 2);
    CU_ASSERT_FALSE(config_is_name_valid(name));
    CU_ASSERT_TRUE(config_is_name_valid("a"));
    CU_ASSERT_TRUE(config_is_name_valid("My_source-1.b"));
    static const char *const wrong[] = {"", "ALL", "-a", ".a", "..", "a/b", "a b", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CU_ASSERT_FALSE(config_is_name_valid(wrong[i]));
}

UNIT_MAIN("units", {"durations are read", durations_are_read},
          {"wrong durations are refused", wrong_durations_are_refused},
          {"numbers too large are told apart", numbers_too_large_are_told_apart},
          {"sizes are read", sizes_are_read},
          {"durations are written as they are read", durations_are_written_as_they_are_read},
          {"since is a duration or a time", since_is_a_duration_or_a_time},
          {"near words are suggested", near_words_are_suggested}, {"names are plain", names_are_plain})
