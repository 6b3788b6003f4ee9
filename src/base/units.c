/* SPDX-License-Identifier: MIT */
/*
 * Durations, sizes and times as people write them. Every process and the command line use these functions.
 * Pure: any process, any thread.
 *
 * Invariants
 *  1. A text is read to its last byte or refused; no prefix of it is accepted.
 *  2. A number that does not fit is refused with errno ERANGE; nothing overflows.
 *  3. base_units_read_duration reads what base_units_write_duration writes back to the same value.
 */
#include "src/base/units.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "src/base/error.h"

struct unit {
    const char *name;
    uint64_t factor;
};

/* From large to small: the order in which the parts of "1m30s" must stand. */
static const struct unit duration_units[] = {
    {"d", UINT64_C(86400000)}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};

#define DURATION_UNITS (sizeof duration_units / sizeof duration_units[0])

static const struct unit size_units[] = {
    {"", 1},
    {"B", 1},
    {"k", 1000},
    {"kB", 1000},
    {"K", 1000},
    {"M", 1000000},
    {"MB", 1000000},
    {"G", 1000000000},
    {"GB", 1000000000},
    {"T", UINT64_C(1000000000000)},
    {"TB", UINT64_C(1000000000000)},
    {"KiB", 1024},
    {"MiB", UINT64_C(1) << 20},
    {"GiB", UINT64_C(1) << 30},
    {"TiB", UINT64_C(1) << 40},
};

static int refuse_with_errno(int reason)
{
    errno = reason;
    return EP_EINVAL;
}

/* Reads the digits of a duration or size at *text and moves *text past them. Returns false if there are
 * none. A number that does not fit becomes UINT64_MAX and sets *is_too_large, so that the caller can
 * refuse it with ERANGE. */
static bool read_digits(const char **text, uint64_t *value, bool *is_too_large)
{
    const char *digit = *text;
    *value = 0;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        if (__builtin_mul_overflow(*value, 10u, value) ||
            __builtin_add_overflow(*value, (uint64_t)(*digit - '0'), value)) {
            *is_too_large = true;
            *value = UINT64_MAX;
        }
    }
    bool has_digits = digit != *text;
    *text = digit;
    return has_digits;
}

/* Reads a duration as people write it ("1m30s") into milliseconds. Returns EP_OK, or EP_EINVAL with
 * errno EINVAL (not a duration) or ERANGE (too large). The reader of the configuration file, the
 * command line's options and the workers (for the retry time of a stage's answer) call it. */
int base_units_read_duration(const char *text, uint64_t *ms)
{
    if (strcmp(text, "0") == 0) { /* zero is the same in every unit */
        *ms = 0;
        return EP_OK;
    }
    uint64_t sum_ms = 0;
    bool is_too_large = false;
    size_t unit_index = 0; /* the first unit that may still follow */
    const char *position = text;
    do {
        uint64_t number;
        if (!read_digits(&position, &number, &is_too_large))
            return refuse_with_errno(EINVAL);
        size_t letter_count = 0;
        while (isalpha((unsigned char)position[letter_count]))
            letter_count++;
        while (unit_index < DURATION_UNITS &&
               (strlen(duration_units[unit_index].name) != letter_count ||
                strncmp(position, duration_units[unit_index].name, letter_count) != 0))
            unit_index++;
        if (unit_index == DURATION_UNITS)
            return refuse_with_errno(EINVAL);
        uint64_t part_ms;
        if (__builtin_mul_overflow(number, duration_units[unit_index].factor, &part_ms) ||
            __builtin_add_overflow(sum_ms, part_ms, &sum_ms)) {
            is_too_large = true;
            sum_ms = 0;
        }
        unit_index++;
        position += letter_count;
    } while (*position != '\0');
    if (is_too_large || sum_ms > UNITS_DURATION_MAX_MS)
        return refuse_with_errno(ERANGE);
    *ms = sum_ms;
    return EP_OK;
}

/* Reads a size as people write it ("64MiB", "10k") into bytes. Returns EP_OK, or EP_EINVAL with errno
 * EINVAL (not a size) or ERANGE (too large). The reader of the configuration file calls it, in
 * eventpiped's supervisor and in the command line. */
int base_units_read_size(const char *text, uint64_t *bytes)
{
    uint64_t number;
    bool is_too_large = false;
    if (!read_digits(&text, &number, &is_too_large))
        return refuse_with_errno(EINVAL);
    for (size_t i = 0; i < sizeof size_units / sizeof size_units[0]; i++) {
        if (strcmp(text, size_units[i].name) != 0)
            continue;
        if (is_too_large || __builtin_mul_overflow(number, size_units[i].factor, &number))
            return refuse_with_errno(ERANGE);
        *bytes = number;
        return EP_OK;
    }
    return refuse_with_errno(EINVAL);
}

/* Writes a duration as people write it ("1m30s"), so that base_units_read_duration reads the same value
 * back. The supervisor's message about a timed-out event has it, and config_validate's messages about the
 * pauses between attempts. */
void base_units_write_duration(uint64_t ms, char *buffer, size_t buffer_bytes)
{
    size_t used_bytes = 0;
    if (buffer_bytes == 0)
        return;
    buffer[0] = '\0';
    for (size_t i = 0; i < DURATION_UNITS && used_bytes < buffer_bytes; i++) {
        uint64_t number = ms / duration_units[i].factor;
        if (number == 0)
            continue;
        ms %= duration_units[i].factor;
        used_bytes += (size_t)snprintf(buffer + used_bytes, buffer_bytes - used_bytes, "%llu%s",
                                       (unsigned long long)number, duration_units[i].name);
    }
    if (used_bytes == 0)
        snprintf(buffer, buffer_bytes, "0s");
}

/* Reads a number of exactly this many digits and moves *text past them. Returns whether its value is within
 * the bounds. is_rfc3339_time checks the year, month, hour and other numbers of a time with it. */
static bool read_fixed_digits(const char **text, int digit_count, int min, int max, int *value)
{
    *value = 0;
    for (int i = 0; i < digit_count; i++, (*text)++) {
        if (**text < '0' || **text > '9')
            return false;
        *value = *value * 10 + (**text - '0');
    }
    return *value >= min && *value <= max;
}

/* Moves *text past one of the allowed characters. Returns false if another character is there.
 * is_rfc3339_time checks the separators of a time with it. */
static bool read_one_of(const char **text, const char *allowed)
{
    if (**text == '\0' || strchr(allowed, **text) == NULL)
        return false;
    (*text)++;
    return true;
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap_year = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && is_leap_year ? 29 : days[month - 1];
}

/* Returns whether the text is a time of RFC 3339: date, time of day, optional fraction, and Z or an offset.
 * Refuses other forms of ISO 8601. base_units_write_since asks it about a source's setting `since`. */
static bool is_rfc3339_time(const char *position)
{
    int year, month, day, value;
    if (!read_fixed_digits(&position, 4, 0, 9999, &year) || !read_one_of(&position, "-") ||
        !read_fixed_digits(&position, 2, 1, 12, &month) || !read_one_of(&position, "-") ||
        !read_fixed_digits(&position, 2, 1, days_in_month(year, month), &day) ||
        !read_one_of(&position, "Tt ") || !read_fixed_digits(&position, 2, 0, 23, &value) ||
        !read_one_of(&position, ":") || !read_fixed_digits(&position, 2, 0, 59, &value) ||
        !read_one_of(&position, ":") || !read_fixed_digits(&position, 2, 0, 60, &value))
        return false;
    if (*position == '.') {
        position++;
        if (*position < '0' || *position > '9')
            return false;
        while (*position >= '0' && *position <= '9')
            position++;
    }
    if (read_one_of(&position, "Zz"))
        return *position == '\0';
    return read_one_of(&position, "+-") && read_fixed_digits(&position, 2, 0, 23, &value) &&
           read_one_of(&position, ":") && read_fixed_digits(&position, 2, 0, 59, &value) && *position == '\0';
}

/* Writes a source's setting `since` as a time: copies an RFC 3339 time, or subtracts a duration ("2d")
 * from now_ms. Returns EP_OK, or EP_EINVAL with errno as base_units_read_duration sets it. The reader of
 * the configuration file calls it, in eventpiped's supervisor and in the command line. */
int base_units_write_since(const char *text, int64_t now_ms, char *buffer, size_t buffer_bytes)
{
    if (is_rfc3339_time(text)) {
        if ((size_t)snprintf(buffer, buffer_bytes, "%s", text) >= buffer_bytes)
            return refuse_with_errno(ERANGE);
        return EP_OK;
    }
    uint64_t ms;
    if (base_units_read_duration(text, &ms) != EP_OK)
        return EP_EINVAL;
    if (now_ms < 0 || ms > (uint64_t)now_ms)
        return refuse_with_errno(ERANGE); /* earlier than 1970 */
    uint64_t then_ms = (uint64_t)now_ms - ms;
    time_t seconds = (time_t)(then_ms / 1000);
    struct tm utc;
    char utc_text[40];
    if (gmtime_r(&seconds, &utc) == NULL ||
        strftime(utc_text, sizeof utc_text, "%Y-%m-%dT%H:%M:%S", &utc) == 0 ||
        (size_t)snprintf(buffer, buffer_bytes, "%s.%03uZ", utc_text, (unsigned)(then_ms % 1000)) >=
            buffer_bytes)
        return refuse_with_errno(ERANGE);
    return EP_OK;
}
