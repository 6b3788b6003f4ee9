/* SPDX-License-Identifier: MIT */
/*
 * The log: one line an occurrence, `name key=value key="two words"`, to stderr (with the journal's <N>
 * priorities when JOURNAL_STREAM is set, else with a time), or to the library caller's function. A line is
 * one write(2): lines of different processes never mix. Only process bodies log; library functions return
 * errors.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "src/eventpipe.h" /* enum ep_severity, ep_log_function */

void base_log_open(enum ep_severity least, ep_log_function *function, void *user);
/* Who speaks: "quakes/locate[3]", "producer quakes", "supervisor"; put before each line. */
void base_log_name(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool base_log_wanted(enum ep_severity severity);
void base_log_write(enum ep_severity severity, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define base_log_error(...) base_log_write(EP_LOG_ERROR, __VA_ARGS__)
#define base_log_warning(...) base_log_write(EP_LOG_WARNING, __VA_ARGS__)
#define base_log_info(...) base_log_write(EP_LOG_INFO, __VA_ARGS__)
#define base_log_debug(...) base_log_write(EP_LOG_DEBUG, __VA_ARGS__)

/* In a child of the supervisor (its stderr is the supervisor's pipe): each line is written as "\x1e<N>name:
 * text", N the severity, without time, so that the supervisor can tell it from what stages print and pass it
 * on with base_log_pass. */
void base_log_relay_mode(bool on);
/* Writes a line that already names its speaker ("quakes/locate[3]: text"), otherwise like base_log_write. */
void base_log_pass(enum ep_severity severity, const char *line);

/* Repeats of one cause: true when a line about it may be written now; *suppressed = how many were not since.
 * One such struct per cause; at most `burst` lines per `interval_ms`. */
struct log_limit {
    uint64_t window_ns;
    uint32_t in_window, suppressed;
};
bool base_log_allowed(struct log_limit *limit, uint32_t burst, uint64_t interval_ms, uint32_t *suppressed);

/* Copies text so that it may stand in a log line, on a terminal or in JSON: control characters and what is
 * no UTF-8 become '?', and what does not fit is cut between characters; quotes are kept. */
void base_log_clean(const char *message, char *buffer, unsigned long size);

#endif
