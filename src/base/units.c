/* SPDX-License-Identifier: MIT */
/*
 * Durations, sizes and times as people write them. Every process and the command line use these functions.
 * Pure: any process, any thread.
 *
 * Invariants
 *  1. A text is read to its last byte or refused; no prefix of it is accepted.
 *  2. A number that does not fit is refused with errno ERANGE; nothing overflows.
 *  3. base_units_duration_ms reads what base_units_duration_text writes back to the same value.
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

/* Reads the digits of a duration or size at *text and moves *text behind them. Returns false if there are
 * none. A number that does not fit becomes UINT64_MAX and sets *large, so that the caller can refuse it.
 * Any process. */
static bool read_digits(const char **text, uint64_t *value, bool *large)
{
    const char *at = *text;
    *value = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(*value, 10u, value) ||
            __builtin_add_overflow(*value, (uint64_t)(*at - '0'), value)) {
            *large = true;
            *value = UINT64_MAX;
        }
    }
    bool any = at != *text;
    *text = at;
    return any;
}

/* Reads a duration as people write it ("1m30s") into milliseconds. Returns EP_OK, or EP_EINVAL with errno
 * ERANGE if it is only too large. The reader of the configuration file, the command line's options and the
 * workers (for a program's "retry after") call it. */
int base_units_duration_ms(const char *text, uint64_t *ms)
{
    if (strcmp(text, "0") == 0) { /* zero is the same in every unit */
        *ms = 0;
        return EP_OK;
    }
    uint64_t sum = 0;
    bool large = false;
    size_t next = 0; /* the first unit that may still follow */
    const char *at = text;
    do {
        uint64_t number;
        if (!read_digits(&at, &number, &large))
            return refuse_with_errno(EINVAL);
        size_t letters = 0;
        while (isalpha((unsigned char)at[letters]))
            letters++;
        while (next < DURATION_UNITS && (strlen(duration_units[next].name) != letters ||
                                         strncmp(at, duration_units[next].name, letters) != 0))
            next++;
        if (next == DURATION_UNITS)
            return refuse_with_errno(EINVAL);
        uint64_t part;
        if (__builtin_mul_overflow(number, duration_units[next].factor, &part) ||
            __builtin_add_overflow(sum, part, &sum)) {
            large = true;
            sum = 0;
        }
        next++;
        at += letters;
    } while (*at != '\0');
    if (large || sum > UNITS_DURATION_MAX_MS)
        return refuse_with_errno(ERANGE);
    *ms = sum;
    return EP_OK;
}

/* Reads a size as people write it ("64MiB", "10k") into bytes. Returns EP_OK, or EP_EINVAL with errno
 * ERANGE if it is only too large. Runs where the configuration file is read: in eventpiped's supervisor
 * and in the command line. */
int base_units_size_bytes(const char *text, uint64_t *bytes)
{
    uint64_t number;
    bool large = false;
    if (!read_digits(&text, &number, &large))
        return refuse_with_errno(EINVAL);
    for (size_t i = 0; i < sizeof size_units / sizeof size_units[0]; i++) {
        if (strcmp(text, size_units[i].name) != 0)
            continue;
        if (large || __builtin_mul_overflow(number, size_units[i].factor, &number))
            return refuse_with_errno(ERANGE);
        *bytes = number;
        return EP_OK;
    }
    return refuse_with_errno(EINVAL);
}

/* Writes a duration as people write it ("1m30s"). For messages: the supervisor's about a timed-out event,
 * the configuration check's about retry pauses. base_units_duration_ms reads the text back to the same
 * value. */
void base_units_duration_text(uint64_t ms, char *buffer, size_t size)
{
    size_t used = 0;
    if (size == 0)
        return;
    buffer[0] = '\0';
    for (size_t i = 0; i < DURATION_UNITS && used < size; i++) {
        uint64_t number = ms / duration_units[i].factor;
        if (number == 0)
            continue;
        ms %= duration_units[i].factor;
        used += (size_t)snprintf(buffer + used, size - used, "%llu%s", (unsigned long long)number,
                                 duration_units[i].name);
    }
    if (used == 0)
        snprintf(buffer, size, "0s");
}

/* Reads a number of exactly this many digits and moves *text behind it. Returns whether its value is
 * within the bounds. Any process that checks the year, month, hour and so on of a time. */
static bool read_fixed_digits(const char **text, int digits, int min, int max, int *value)
{
    *value = 0;
    for (int i = 0; i < digits; i++, (*text)++) {
        if (**text < '0' || **text > '9')
            return false;
        *value = *value * 10 + (**text - '0');
    }
    return *value >= min && *value <= max;
}

/* Moves *text behind one of the allowed characters. Returns false if another character stands there. Any
 * process that checks the separators of a time. */
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
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* Whether the text is a time of RFC 3339: date, time of day, optional fraction, and Z or an offset.
 * Refuses other forms of ISO 8601. For the setting `since` of a source, in the supervisor and the command
 * line, which read the configuration file. */
static bool is_rfc3339_time(const char *at)
{
    int year, month, day, value;
    if (!read_fixed_digits(&at, 4, 0, 9999, &year) || !read_one_of(&at, "-") ||
        !read_fixed_digits(&at, 2, 1, 12, &month) || !read_one_of(&at, "-") ||
        !read_fixed_digits(&at, 2, 1, days_in_month(year, month), &day) || !read_one_of(&at, "Tt ") ||
        !read_fixed_digits(&at, 2, 0, 23, &value) || !read_one_of(&at, ":") ||
        !read_fixed_digits(&at, 2, 0, 59, &value) || !read_one_of(&at, ":") ||
        !read_fixed_digits(&at, 2, 0, 60, &value))
        return false;
    if (*at == '.') {
        at++;
        if (*at < '0' || *at > '9')
            return false;
        while (*at >= '0' && *at <= '9')
            at++;
    }
    if (read_one_of(&at, "Zz"))
        return *at == '\0';
    return read_one_of(&at, "+-") && read_fixed_digits(&at, 2, 0, 23, &value) && read_one_of(&at, ":") &&
           read_fixed_digits(&at, 2, 0, 59, &value) && *at == '\0';
}

/* Writes the source's setting `since` as a time: subtracts a duration from now_ms, copies an RFC 3339
 * time. Returns EP_OK, or EP_EINVAL with errno as base_units_duration_ms sets it. Runs where the
 * configuration file is read: in eventpiped's supervisor and in the command line. */
int base_units_since_text(const char *text, int64_t now_ms, char *buffer, size_t size)
{
    if (is_rfc3339_time(text)) {
        if ((size_t)snprintf(buffer, size, "%s", text) >= size)
            return refuse_with_errno(ERANGE);
        return EP_OK;
    }
    uint64_t ms;
    if (base_units_duration_ms(text, &ms) != EP_OK)
        return EP_EINVAL;
    if (now_ms < 0 || ms > (uint64_t)now_ms)
        return refuse_with_errno(ERANGE); /* earlier than 1970 */
    uint64_t then_ms = (uint64_t)now_ms - ms;
    time_t seconds = (time_t)(then_ms / 1000);
    struct tm utc;
    char moment[40];
    if (gmtime_r(&seconds, &utc) == NULL || strftime(moment, sizeof moment, "%Y-%m-%dT%H:%M:%S", &utc) == 0 ||
        (size_t)snprintf(buffer, size, "%s.%03uZ", moment, (unsigned)(then_ms % 1000)) >= size)
        return refuse_with_errno(ERANGE);
    return EP_OK;
}
