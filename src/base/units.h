/* SPDX-License-Identifier: MIT */
/* Durations, sizes and times as people write them. Pure. */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* Units: "30s", "1m30s", "500ms", "24h", "7d", plain number = seconds refused; "64MiB", "10k", "4096". 0 or
 * EP_EINVAL; errno is then ERANGE where the form is right and only the number is too large (durations end at
 * UNITS_DURATION_MAX_MS, so that sums and nanoseconds of them cannot overflow), otherwise EINVAL. */
#define UNITS_DURATION_MAX_MS (UINT64_C(36500) * 24 * 60 * 60 * 1000)
int base_units_duration_ms(const char *text, uint64_t *ms);
int base_units_size_bytes(const char *text, uint64_t *bytes);
void base_units_duration_text(uint64_t ms, char *buffer, size_t size); /* shortest exact form: "1m30s" */
/* `since`: a duration back from now_ms (wall clock), turned into "2026-11-23T10:02:03.123Z", or an RFC 3339
 * time, copied as it is. 0 or EP_EINVAL, errno as above. */
int base_units_since_text(const char *text, int64_t now_ms, char *buffer, size_t size);

#endif
