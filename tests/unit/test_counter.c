/* SPDX-License-Identifier: MIT */
/* Histograms: every value falls into the bucket whose middle is near it; quantiles. */
#include "shm/counter.h"
#include "tests/lib/unit.h"

static void check_near(uint64_t value)
{
    uint64_t middle = histogram_value(histogram_bucket(value));
    uint64_t error = middle > value ? middle - value : value - middle;
    if (error * 100 > value * 7)
        CU_FAIL("bucket is more than 7 % off");
}

static void test_error(void)
{
    for (uint64_t value = 0; value < 100000; value++)
        check_near(value);
    for (uint64_t value = 100000; value < UINT64_C(1) << 34; value += value / 1000)
        check_near(value);
    check_near((UINT64_C(1) << 34) - 1);
}

static void test_monotonic(void)
{
    uint32_t last = 0;
    for (uint64_t value = 0; value < 100000; value++) {
        uint32_t bucket = histogram_bucket(value);
        if (bucket != last && bucket != last + 1)
            CU_FAIL("a bucket is left out");
        last = bucket;
    }
    for (uint32_t bucket = 0; bucket < SHM_HISTOGRAM_BUCKETS; bucket++)
        CU_ASSERT_EQUAL(histogram_bucket(histogram_value(bucket)), bucket);
    CU_ASSERT_EQUAL(histogram_bucket((UINT64_C(1) << 34) - 1), SHM_HISTOGRAM_BUCKETS - 1);
    CU_ASSERT_EQUAL(histogram_bucket(UINT64_C(1) << 34), SHM_HISTOGRAM_BUCKETS - 1);
    CU_ASSERT_EQUAL(histogram_bucket(UINT64_MAX), SHM_HISTOGRAM_BUCKETS - 1);
    CU_ASSERT_EQUAL(histogram_value(UINT32_MAX), histogram_value(SHM_HISTOGRAM_BUCKETS - 1));
}

static void test_quantiles(void)
{
    static struct shm_histogram one, two;
    uint64_t sums[SHM_HISTOGRAM_BUCKETS] = {0};
    CU_ASSERT_EQUAL(histogram_quantile(sums, 500), 0);
    for (uint64_t value = 1; value <= 1000; value++)
        histogram_add(value % 2 == 0 ? &one : &two, value);
    histogram_merge(sums, &one);
    histogram_merge(sums, &two);
    const uint32_t permilles[] = {1, 10, 500, 900, 990, 1000};
    for (size_t i = 0; i < sizeof permilles / sizeof permilles[0]; i++)
        CU_ASSERT_EQUAL(histogram_quantile(sums, permilles[i]),
                        histogram_value(histogram_bucket(permilles[i])));
    CU_ASSERT_EQUAL(histogram_quantile(sums, 0), 1);
    CU_ASSERT_EQUAL(histogram_quantile(sums, 5000), histogram_quantile(sums, 1000));
}

static void test_huge_counts(void)
{
    uint64_t sums[SHM_HISTOGRAM_BUCKETS] = {0};
    sums[3] = UINT64_C(1) << 62;
    sums[100] = UINT64_C(1) << 62;
    CU_ASSERT_EQUAL(histogram_quantile(sums, 500), 3);
    CU_ASSERT_EQUAL(histogram_quantile(sums, 501), histogram_value(100));
}

UNIT_MAIN("counter", {"each value is within 7 % of its bucket", test_error},
          {"buckets are in order, none left out, the last takes the rest", test_monotonic},
          {"quantiles of merged histograms", test_quantiles}, {"no overflow", test_huge_counts})
