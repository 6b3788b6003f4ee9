/* SPDX-License-Identifier: MIT */
/* Durations, sizes and times as people write them. Pure. */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* Durations: "30s", "1m30s", "500ms", "24h", "7d"; a plain number is refused, except 0. Sizes: "64MiB",
 * "10k", "4096". Return 0 or EP_EINVAL; errno is then ERANGE if only the number is too large, otherwise
 * EINVAL. Durations end at UNITS_DURATION_MAX_MS, so that sums and nanoseconds of them cannot overflow. */
#define UNITS_DURATION_MAX_MS (UINT64_C(36500) * 24 * 60 * 60 * 1000)
int base_units_read_duration(const char *text, uint64_t *ms);
int base_units_read_size(const char *text, uint64_t *bytes);
void base_units_write_duration(uint64_t ms, char *buffer, size_t buffer_bytes); /* "1m30s" */
/* Reads the setting `since`: a duration, which is subtracted from now_ms (wall clock) and becomes
 * "2026-11-23T10:02:03.123Z", or an RFC 3339 time, which is copied. 0 or EP_EINVAL, errno as above. */
int base_units_write_since(const char *text, int64_t now_ms, char *buffer, size_t buffer_bytes);

#endif
