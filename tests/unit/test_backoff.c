/* SPDX-License-Identifier: MIT */
/* The backoff between attempts: doubles from min to max, spread by a quarter, and never overflows. */
#include "src/base/backoff.h"
#include "src/config/config.h"
#include "tests/lib/unit.h"

#define MIDDLE 0x80000000u /* of the random numbers: factor 1 */

static void doubles_up_to_max(void)
{
    const struct retry_config retry = {.min_ms = 1000, .max_ms = 300000};
    CU_ASSERT_EQUAL(base_backoff_ms(retry.min_ms, retry.max_ms, 1, MIDDLE), 1000);
    CU_ASSERT_EQUAL(base_backoff_ms(retry.min_ms, retry.max_ms, 2, MIDDLE), 2000);
    CU_ASSERT_EQUAL(base_backoff_ms(retry.min_ms, retry.max_ms, 3, MIDDLE), 4000);
    CU_ASSERT_EQUAL(base_backoff_ms(retry.min_ms, retry.max_ms, 9, MIDDLE), 256000);
    CU_ASSERT_EQUAL(base_backoff_ms(retry.min_ms, retry.max_ms, 10, MIDDLE), 300000);
    CU_ASSERT_EQUAL(base_backoff_ms(retry.min_ms, retry.max_ms, 64, MIDDLE), 300000);
    CU_ASSERT_EQUAL(base_backoff_ms(retry.min_ms, retry.max_ms, 65, MIDDLE), 300000);
    CU_ASSERT_EQUAL(base_backoff_ms(retry.min_ms, retry.max_ms, UINT32_MAX, MIDDLE), 300000);
    CU_ASSERT_EQUAL(base_backoff_ms(retry.min_ms, retry.max_ms, 0, MIDDLE), 1000);
}

static void spreads_by_a_quarter(void)
{
    const struct retry_config retry = {.min_ms = 1000, .max_ms = 300000};
    CU_ASSERT_EQUAL(base_backoff_ms(retry.min_ms, retry.max_ms, 1, 0), 750);
    uint64_t most = base_backoff_ms(retry.min_ms, retry.max_ms, 1, UINT32_MAX);
    CU_ASSERT(most >= 1249 && most <= 1250);
    uint64_t before = 0;
    for (uint64_t random = 0; random <= UINT32_MAX; random += 0x1000001) {
        uint64_t delay = base_backoff_ms(retry.min_ms, retry.max_ms, 4, (uint32_t)random);
        CU_ASSERT(delay >= before && delay >= 6000 && delay <= 10000);
        before = delay;
    }
}

static void odd_limits(void)
{
    const struct retry_config none = {0}, narrow = {.min_ms = 5000, .max_ms = 1000},
                              huge = {.min_ms = UINT64_MAX, .max_ms = UINT64_MAX},
                              small = {.min_ms = 1, .max_ms = 1};
    CU_ASSERT_EQUAL(base_backoff_ms(none.min_ms, none.max_ms, 1, UINT32_MAX), 0);
    CU_ASSERT_EQUAL(base_backoff_ms(none.min_ms, none.max_ms, UINT32_MAX, UINT32_MAX), 0);
    CU_ASSERT_EQUAL(base_backoff_ms(narrow.min_ms, narrow.max_ms, 1, MIDDLE), 1000);
    CU_ASSERT(base_backoff_ms(huge.min_ms, huge.max_ms, 1, UINT32_MAX) > UINT64_MAX / 2);
    CU_ASSERT(base_backoff_ms(huge.min_ms, huge.max_ms, 40, 0) > UINT64_MAX / 4);
    CU_ASSERT_EQUAL(base_backoff_ms(small.min_ms, small.max_ms, 40, UINT32_MAX), 1);
}

UNIT_MAIN("retry_delay", {"doubles up to max", doubles_up_to_max},
          {"spreads by a quarter", spreads_by_a_quarter}, {"odd limits", odd_limits})
