/* SPDX-License-Identifier: MIT */
/* The crash log: numbers, what a slow keeper loses, a writer that was killed, bytes of a damaged
 * segment.
 */
#include <stdio.h>

#include "shm/crash_log.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/unit.h"

static struct crash_record crash_of(int32_t pid)
{
    struct crash_record crash = {.crashed_ms = 1000 + (uint64_t)pid, .pid = pid, .kind = "worker"};
    snprintf(crash.how, sizeof crash.how, "signal %d", pid);
    return crash;
}

static struct shm_crashes *ring_of(const struct segment *segment)
{
    return (struct shm_crashes *)(void *)((char *)segment->header + segment->header->crash_offset);
}

static void test_in_turn(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct crash_record out;
    CU_ASSERT_EQUAL(crash_log_first(&segment), 1);
    CU_ASSERT_EQUAL(crash_log_end(&segment), 1);
    CU_ASSERT_FALSE(crash_log_read(&segment, 0, &out));
    CU_ASSERT_FALSE(crash_log_read(&segment, 1, &out));
    for (int32_t pid = 1; pid <= 3; pid++) {
        struct crash_record crash = crash_of(pid);
        crash_log_add(&segment, &crash);
    }
    CU_ASSERT_EQUAL(crash_log_end(&segment), 4);
    for (uint64_t number = 1; number <= 3; number++) {
        CU_ASSERT_TRUE(crash_log_read(&segment, number, &out));
        CU_ASSERT_EQUAL(out.pid, number);
        CU_ASSERT_EQUAL(out.crashed_ms, 1000 + number);
    }
    CU_ASSERT_STRING_EQUAL(out.how, "signal 3");
    crash_log_set_stored_end(&segment, 3);
    CU_ASSERT_EQUAL(crash_log_first(&segment), 3);
    CU_ASSERT_EQUAL(crash_log_stored_end(&segment), 3);
    segment_close(&segment);
}

static void test_too_many(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct crash_record out;
    for (int32_t pid = 1; pid <= SHM_CRASHES + 10; pid++) {
        struct crash_record crash = crash_of(pid);
        crash_log_add(&segment, &crash);
    }
    CU_ASSERT_EQUAL(crash_log_end(&segment), SHM_CRASHES + 11);
    CU_ASSERT_EQUAL(crash_log_first(&segment), 11);
    CU_ASSERT_EQUAL(crash_log_stored_end(&segment), 1);
    CU_ASSERT_FALSE(crash_log_read(&segment, 10, &out));
    for (uint64_t number = 11; number < SHM_CRASHES + 11; number++)
        CU_ASSERT_TRUE(crash_log_read(&segment, number, &out) && out.pid == (int32_t)number);
    segment_close(&segment);
}

static void test_damage(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct shm_crashes *crashes = ring_of(&segment);
    struct crash_record out, crash = crash_of(1);
    crash_log_add(&segment, &crash);
    atomic_store(&crashes->records[1].number, 0); /* killed while it wrote */
    CU_ASSERT_FALSE(crash_log_read(&segment, 1, &out));
    atomic_store(&crashes->records[1].number, 1);
    for (size_t i = 0; i < sizeof crash / sizeof(uint64_t); i++)
        atomic_store(&crashes->records[1].words[i], UINT64_MAX);
    CU_ASSERT_TRUE(crash_log_read(&segment, 1, &out));
    CU_ASSERT_EQUAL(strlen(out.how), sizeof out.how - 1);
    CU_ASSERT_EQUAL(strlen(out.uid), sizeof out.uid - 1);
    CU_ASSERT_EQUAL(strlen(out.process), sizeof out.process - 1);
    CU_ASSERT_EQUAL(strlen(out.source), sizeof out.source - 1);
    CU_ASSERT_EQUAL(strlen(out.stage), sizeof out.stage - 1);
    CU_ASSERT_EQUAL(strlen(out.last_output), sizeof out.last_output - 1);
    atomic_store(&crashes->stored, 1000);
    CU_ASSERT_EQUAL(crash_log_first(&segment), crash_log_end(&segment));
    segment_close(&segment);
}

UNIT_MAIN("crashes", {"numbers from 1 on", test_in_turn}, {"a keeper that stands still", test_too_many},
          {"killed while writing, damaged bytes", test_damage})
