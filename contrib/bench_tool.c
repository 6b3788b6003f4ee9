/* SPDX-License-Identifier: MIT */
/* What the programs of the benchmark share. */
#include "contrib/bench_tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

_Noreturn void bench_give_up(const char *what, const char *why)
{
    fprintf(stderr, "bench: %s: %s\n", what, why);
    exit(1);
}

uint64_t bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * BENCH_SECOND_NS + (uint64_t)now.tv_nsec;
}

void bench_sleep_until(uint64_t at_ns)
{
    const struct timespec at = {(time_t)(at_ns / BENCH_SECOND_NS), (long)(at_ns % BENCH_SECOND_NS)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        continue;
}

uint64_t bench_arrival(uint64_t due_ns)
{
    if (bench_now_ns() >= due_ns)
        return due_ns;
    bench_sleep_until(due_ns);
    return bench_now_ns();
}

uint64_t bench_number(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || text[0] < '0' || text[0] > '9' || *end != '\0' || value < least || value > most) {
        fprintf(stderr, "bench: %s: expected a number from %" PRIu64 " to %" PRIu64 "\n", text, least, most);
        exit(2);
    }
    return value;
}

static int by_size(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

void bench_print_us(const char *name, uint64_t *times_ns, uint64_t count)
{
    qsort(times_ns, count, sizeof *times_ns, by_size);
    printf("\"%s\":[", name);
    for (uint64_t i = 0; i < count; i++)
        printf("%s%.1f", i > 0 ? "," : "", (double)times_ns[i] / 1e3);
    printf("]");
}
