/* SPDX-License-Identifier: MIT */
/* What the programs of the benchmark share: time, numbers, giving up. Each is one process and prints one JSON
 * line. */
#ifndef CONTRIB_BENCH_TOOL_H
#define CONTRIB_BENCH_TOOL_H

#include <stdint.h>

#define BENCH_SECOND_NS UINT64_C(1000000000)

__attribute__((noreturn)) void bench_give_up(const char *what, const char *why);
uint64_t bench_now_ns(void); /* CLOCK_MONOTONIC */
void bench_sleep_until(uint64_t at_ns);
/* Sleeps until it is due and returns when the event arrived: then, or when it was due, if that is past
 * already. */
uint64_t bench_arrival(uint64_t due_ns);
/* A whole number from least to most, or the program ends with a message. */
uint64_t bench_number(const char *text, uint64_t least, uint64_t most);
/* "name":[1.5,...]: the times in microseconds, in order of size. */
void bench_print_us(const char *name, uint64_t *times_ns, uint64_t count);

#endif
