/* SPDX-License-Identifier: MIT */
/* The backoff between attempts: doubles from min to max, spread by a quarter, and never overflows. */
#include "src/stage/stage.h"
#include "tests/unit/unit.h"

#define MIDDLE 0x80000000u /* of the random numbers: factor 1 */

static void doubles_up_to_max(void)
{
    const struct retry_config retry = {.min_ms = 1000, .max_ms = 300000};
    CU_ASSERT_EQUAL(retry_delay_ms(&retry, 1, MIDDLE), 1000);
    CU_ASSERT_EQUAL(retry_delay_ms(&retry, 2, MIDDLE), 2000);
    CU_ASSERT_EQUAL(retry_delay_ms(&retry, 3, MIDDLE), 4000);
    CU_ASSERT_EQUAL(retry_delay_ms(&retry, 9, MIDDLE), 256000);
    CU_ASSERT_EQUAL(retry_delay_ms(&retry, 10, MIDDLE), 300000);
    CU_ASSERT_EQUAL(retry_delay_ms(&retry, 64, MIDDLE), 300000);
    CU_ASSERT_EQUAL(retry_delay_ms(&retry, 65, MIDDLE), 300000);
    CU_ASSERT_EQUAL(retry_delay_ms(&retry, UINT32_MAX, MIDDLE), 300000);
    CU_ASSERT_EQUAL(retry_delay_ms(&retry, 0, MIDDLE), 1000);
}

static void spreads_by_a_quarter(void)
{
    const struct retry_config retry = {.min_ms = 1000, .max_ms = 300000};
    CU_ASSERT_EQUAL(retry_delay_ms(&retry, 1, 0), 750);
    uint64_t most = retry_delay_ms(&retry, 1, UINT32_MAX);
    CU_ASSERT(most >= 1249 && most <= 1250);
    uint64_t before = 0;
    for (uint64_t random = 0; random <= UINT32_MAX; random += 0x1000001) {
        uint64_t delay = retry_delay_ms(&retry, 4, (uint32_t)random);
        CU_ASSERT(delay >= before && delay >= 6000 && delay <= 10000);
        before = delay;
    }
}

static void odd_limits(void)
{
    const struct retry_config none = {0}, narrow = {.min_ms = 5000, .max_ms = 1000},
                              huge = {.min_ms = UINT64_MAX, .max_ms = UINT64_MAX},
                              small = {.min_ms = 1, .max_ms = 1};
    CU_ASSERT_EQUAL(retry_delay_ms(&none, 1, UINT32_MAX), 0);
    CU_ASSERT_EQUAL(retry_delay_ms(&none, UINT32_MAX, UINT32_MAX), 0);
    CU_ASSERT_EQUAL(retry_delay_ms(&narrow, 1, MIDDLE), 1000);
    CU_ASSERT(retry_delay_ms(&huge, 1, UINT32_MAX) > UINT64_MAX / 2);
    CU_ASSERT(retry_delay_ms(&huge, 40, 0) > UINT64_MAX / 4);
    CU_ASSERT_EQUAL(retry_delay_ms(&small, 40, UINT32_MAX), 1);
}

UNIT_MAIN("retry_delay", {"doubles up to max", doubles_up_to_max},
          {"spreads by a quarter", spreads_by_a_quarter}, {"odd limits", odd_limits})
