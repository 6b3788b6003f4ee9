/* SPDX-License-Identifier: MIT */
/* Latency histograms: logarithmic buckets of microseconds, relative error below 7 %; one writer, many
 * readers. */
#ifndef SHM_COUNTER_H
#define SHM_COUNTER_H

#include "shm/layout.h"

uint32_t histogram_bucket(uint64_t latency_us);
uint64_t histogram_value(uint32_t bucket); /* the middle of a bucket */
void histogram_add(struct shm_histogram *histogram, uint64_t latency_us);
void histogram_merge(uint64_t sums[SHM_HISTOGRAM_BUCKETS], const struct shm_histogram *histogram);
/* The value below which `permille` of the counted ones lie; 0 when nothing was counted. */
uint64_t histogram_quantile(const uint64_t sums[SHM_HISTOGRAM_BUCKETS], uint32_t permille);

#endif
