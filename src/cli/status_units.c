/* SPDX-License-Identifier: MIT */
/* Times, sizes and counts as status shows them: short, for people. Pure; runs in the command line. */
#include <inttypes.h>
#include <stdio.h>

#include "src/cli/status.h"

/* Formats a duration in microseconds as a short text ("850us", "1.2ms"; "-" for 0). `eventpipe status` and
 * `eventpipe trace` show latencies with it. */
void cli_status_format_latency(uint64_t latency_us, char *buffer, size_t buffer_bytes)
{
    if (latency_us == 0)
        snprintf(buffer, buffer_bytes, "-");
    else if (latency_us < 1000)
        snprintf(buffer, buffer_bytes, "%" PRIu64 "us", latency_us);
    else if (latency_us < 10000)
        snprintf(buffer, buffer_bytes, "%.1fms", (double)latency_us / 1e3);
    else if (latency_us < 1000000)
        snprintf(buffer, buffer_bytes, "%" PRIu64 "ms", latency_us / 1000);
    else if (latency_us < 100000000)
        snprintf(buffer, buffer_bytes, "%.1fs", (double)latency_us / 1e6);
    else
        snprintf(buffer, buffer_bytes, "%" PRIu64 "s", latency_us / 1000000);
}

/* Formats a duration in milliseconds for people, with at most two units ("12 s", "3d 4h"). `eventpipe
 * status`, queue, show and crashes print ages with it. */
void cli_status_format_age(uint64_t age_ms, char *buffer, size_t buffer_bytes)
{
    uint64_t seconds = age_ms / 1000, minutes = seconds / 60, hours = minutes / 60, days = hours / 24;
    if (age_ms < 1000)
        snprintf(buffer, buffer_bytes, "%" PRIu64 " ms", age_ms);
    else if (seconds < 60)
        snprintf(buffer, buffer_bytes, "%" PRIu64 " s", seconds);
    else if (minutes < 60)
        snprintf(buffer, buffer_bytes, "%" PRIu64 "m %" PRIu64 "s", minutes, seconds % 60);
    else if (hours < 24)
        snprintf(buffer, buffer_bytes, "%" PRIu64 "h %" PRIu64 "m", hours, minutes % 60);
    else
        snprintf(buffer, buffer_bytes, "%" PRIu64 "d %" PRIu64 "h", days, hours % 24);
}

/* Formats a count for the tables of `eventpipe status`: in full or, if `is_brief` is true and it has five
 * digits or more, as "12.3k" or "1.3M", which a narrow terminal needs. */
void cli_status_format_count(uint64_t count, bool is_brief, char *buffer, size_t buffer_bytes)
{
    static const char units[] = {'k', 'M', 'G', 'T', 'P', 'E'};
    if (!is_brief || count < 10000) {
        snprintf(buffer, buffer_bytes, "%" PRIu64, count);
        return;
    }
    double scaled_count = (double)count / 1000;
    size_t unit_index = 0;
    for (; scaled_count >= 999.5 && unit_index + 1 < sizeof units; unit_index++)
        scaled_count /= 1000;
    snprintf(buffer, buffer_bytes, scaled_count < 99.95 ? "%.1f%c" : "%.0f%c", scaled_count,
             units[unit_index]);
}

/* Formats a size in bytes for people ("12.3 MiB"). `eventpipe status` shows the sizes of the store and its
 * WAL with it. */
void cli_status_format_bytes(uint64_t bytes, char *buffer, size_t buffer_bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    if (bytes < 1024) {
        snprintf(buffer, buffer_bytes, "%" PRIu64 " B", bytes);
        return;
    }
    double scaled_bytes = (double)bytes / 1024;
    size_t unit_index = 0;
    for (; scaled_bytes >= 1024 && unit_index + 1 < sizeof units / sizeof units[0]; unit_index++)
        scaled_bytes /= 1024;
    snprintf(buffer, buffer_bytes, "%.1f %s", scaled_bytes, units[unit_index]);
}
