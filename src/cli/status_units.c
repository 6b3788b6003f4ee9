/* SPDX-License-Identifier: MIT */
/* Times, sizes and counts as status shows them: short, for people. Pure; runs in the command line. */
#include <inttypes.h>
#include <stdio.h>

#include "src/cli/status.h"

/* Formats a duration in microseconds as a short text ("850us", "1.2ms"; "-" for 0). `eventpipe status` and
 * `eventpipe trace` show latencies with it. */
void cli_status_format_latency(uint64_t us, char *buffer, size_t size)
{
    if (us == 0)
        snprintf(buffer, size, "-");
    else if (us < 1000)
        snprintf(buffer, size, "%" PRIu64 "us", us);
    else if (us < 10000)
        snprintf(buffer, size, "%.1fms", (double)us / 1e3);
    else if (us < 1000000)
        snprintf(buffer, size, "%" PRIu64 "ms", us / 1000);
    else if (us < 100000000)
        snprintf(buffer, size, "%.1fs", (double)us / 1e6);
    else
        snprintf(buffer, size, "%" PRIu64 "s", us / 1000000);
}

/* Formats a duration in milliseconds for people, with at most two units ("12 s", "3d 4h"). `eventpipe
 * status`, queue, show and crashes print ages with it. */
void cli_status_format_age(uint64_t ms, char *buffer, size_t size)
{
    uint64_t seconds = ms / 1000, minutes = seconds / 60, hours = minutes / 60, days = hours / 24;
    if (ms < 1000)
        snprintf(buffer, size, "%" PRIu64 " ms", ms);
    else if (seconds < 60)
        snprintf(buffer, size, "%" PRIu64 " s", seconds);
    else if (minutes < 60)
        snprintf(buffer, size, "%" PRIu64 "m %" PRIu64 "s", minutes, seconds % 60);
    else if (hours < 24)
        snprintf(buffer, size, "%" PRIu64 "h %" PRIu64 "m", hours, minutes % 60);
    else
        snprintf(buffer, size, "%" PRIu64 "d %" PRIu64 "h", days, hours % 24);
}

/* Formats a count for the tables of `eventpipe status`: in full or, if `brief` is true and it has five
 * digits or more, as "12.3k" or "1.3M", which a narrow terminal needs. */
void cli_status_format_count(uint64_t count, bool brief, char *buffer, size_t size)
{
    static const char units[] = {'k', 'M', 'G', 'T', 'P', 'E'};
    if (!brief || count < 10000) {
        snprintf(buffer, size, "%" PRIu64, count);
        return;
    }
    double value = (double)count / 1000;
    size_t unit = 0;
    for (; value >= 999.5 && unit + 1 < sizeof units; unit++)
        value /= 1000;
    snprintf(buffer, size, value < 99.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
}

/* Formats a size in bytes for people ("12.3 MiB"). `eventpipe status` shows the sizes of the store and its
 * WAL with it. */
void cli_status_format_bytes(uint64_t bytes, char *buffer, size_t size)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    if (bytes < 1024) {
        snprintf(buffer, size, "%" PRIu64 " B", bytes);
        return;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < sizeof units / sizeof units[0]; unit++)
        value /= 1024;
    snprintf(buffer, size, "%.1f %s", value, units[unit]);
}
