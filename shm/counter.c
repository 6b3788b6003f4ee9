/* SPDX-License-Identifier: MIT */
/*
 * Latency histograms: how long the calls of a stage took. The worker that owns the slot adds; the command
 * line reads (`eventpipe status`).
 *
 * Values below 8 have a bucket each. Above, every power of two is cut into 8 equal buckets, so the middle
 * of a bucket is within a sixteenth (6.25 %) of each value in it. 256 buckets reach 2^34 - 1 microseconds,
 * four and a half hours; longer values count in the last bucket.
 *
 * A worker killed while it adds loses one count.
 */
#include "shm/counter.h"

/* Returns the bucket of a latency histogram in shared memory that counts this latency (microseconds). A
 * worker looks it up for each call of its stage; latencies that are too long go to the last bucket. */
uint32_t histogram_bucket(uint64_t latency_us)
{
    if (latency_us < 8)
        return (uint32_t)latency_us;
    uint32_t exponent = 63u - (uint32_t)__builtin_clzll(latency_us); /* at least 3 */
    uint32_t bucket = 8 * (exponent - 2) + ((uint32_t)(latency_us >> (exponent - 3)) & 7);
    return bucket < SHM_HISTOGRAM_BUCKETS ? bucket : SHM_HISTOGRAM_BUCKETS - 1;
}

/* Returns the latency in the middle of a bucket of a histogram in shared memory, in microseconds.
 * `eventpipe status` reports latencies with it. */
uint64_t histogram_value(uint32_t bucket)
{
    if (bucket < 8)
        return bucket;
    if (bucket >= SHM_HISTOGRAM_BUCKETS)
        bucket = SHM_HISTOGRAM_BUCKETS - 1;
    uint32_t shift = bucket / 8 - 1; /* the bucket is 2^shift wide */
    return ((uint64_t)(8 + bucket % 8) << shift) + ((UINT64_C(1) << shift) >> 1);
}

/* Relaxed, and no read-modify-write: there is one writer, and no reader infers anything from a count. */
void histogram_add(struct shm_histogram *histogram, uint64_t latency_us)
{
    _Atomic uint64_t *count = &histogram->buckets[histogram_bucket(latency_us)];
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
}

void histogram_merge(uint64_t sums[SHM_HISTOGRAM_BUCKETS], const struct shm_histogram *histogram)
{
    for (uint32_t i = 0; i < SHM_HISTOGRAM_BUCKETS; i++) /* relaxed: as above */
        sums[i] += atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
}

/* Returns from the summed histograms of shared memory the latency (in microseconds) below which `permille`
 * thousandths of the counted latencies lie, 0 if none were counted. `eventpipe status` calls it for the
 * median (500) and the 99th percentile (990) of each stage. */
uint64_t histogram_quantile(const uint64_t sums[SHM_HISTOGRAM_BUCKETS], uint32_t permille)
{
    uint64_t total_count = 0, counted_so_far = 0;
    for (uint32_t i = 0; i < SHM_HISTOGRAM_BUCKETS; i++)
        total_count += sums[i];
    if (total_count == 0)
        return 0;
    if (permille > 1000)
        permille = 1000;
    /* The rank, rounded up, at least the first; in two parts so that no total overflows. */
    uint64_t rank = total_count / 1000 * permille + (total_count % 1000 * permille + 999) / 1000;
    if (rank == 0)
        rank = 1;
    uint32_t bucket = 0;
    while (bucket < SHM_HISTOGRAM_BUCKETS - 1 && (counted_so_far += sums[bucket]) < rank)
        bucket++;
    return histogram_value(bucket);
}
