/* SPDX-License-Identifier: MIT */
/* Crashes in the store: each once, the latest thousand, and how many more there were. */
#include <stdio.h>

#include "tests/lib/store_fixture.h"

struct seen {
    size_t count;
    int32_t first, last;
    struct crash_record latest;
};

static int on_crash(const struct crash_record *crash, void *user)
{
    struct seen *seen = user;
    if (seen->count++ == 0)
        seen->first = crash->pid;
    seen->last = crash->pid;
    seen->latest = *crash;
    return 0;
}

static void expect(size_t count, int32_t first, int32_t last, uint64_t dropped)
{
    struct seen seen = {0};
    uint64_t found;
    CU_ASSERT_EQUAL(store_each_crash(fixture.store, on_crash, &seen, &found), 0);
    CU_ASSERT_EQUAL(seen.count, count);
    CU_ASSERT_EQUAL(seen.first, first);
    CU_ASSERT_EQUAL(seen.last, last);
    CU_ASSERT_EQUAL(found, dropped);
}

static void every_member_comes_back(void)
{
    struct crash_record crash = {7,          8,   9,     10,    11,          "worker", "signal",
                                 "s/one[0]", "s", "one", "uid", "signal 11", "x"};
    struct seen seen = {0};
    uint64_t dropped;
    fixture_begin();
    CU_ASSERT_EQUAL(store_add_crashes(fixture.store, &crash, 1, 0), 0);
    CU_ASSERT_EQUAL(store_each_crash(fixture.store, on_crash, &seen, &dropped), 0);
    CU_ASSERT_EQUAL(memcmp(&seen.latest, &crash, sizeof crash), 0);
    fixture_end();
}

static void each_once_and_bounded(void)
{
    struct crash_record crashes[2] = {{.crashed_ms = 5, .pid = 1, .how = "signal 9"},
                                      {.crashed_ms = 5, .pid = 2}};
    fixture_begin();
    expect(0, 0, 0, 0);
    CU_ASSERT_EQUAL(store_add_crashes(fixture.store, crashes, 1, 0), 0);
    CU_ASSERT_EQUAL(store_add_crashes(fixture.store, crashes, 2, 0), 0);
    expect(2, 1, 2, 0);
    CU_ASSERT_EQUAL(store_add_crashes(fixture.store, NULL, 0, 7), 0);
    expect(2, 1, 2, 7);
    for (int32_t pid = 3; pid <= 1010; pid++) {
        crashes[0] = (struct crash_record){.crashed_ms = (uint64_t)pid, .pid = pid, .how = "exit code 1"};
        CU_ASSERT_EQUAL_FATAL(store_add_crashes(fixture.store, crashes, 1, 0), 0);
    }
    expect(1000, 11, 1010, 17);
    fixture_restart();
    expect(1000, 11, 1010, 17);
    fixture_end();
}

STORE_MAIN("store: crashes", {"each once, and bounded", each_once_and_bounded},
           {"every member comes back", every_member_comes_back})
