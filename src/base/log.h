/* SPDX-License-Identifier: MIT */
/*
 * The log: one line for each occurrence, `name key=value key="two words"`. Lines go to stderr (with the
 * journal's <N> priorities if JOURNAL_STREAM is set, otherwise with the time), or to the library caller's
 * function. Only the main functions of processes log; library functions return errors.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "src/eventpipe.h" /* enum ep_severity, ep_log_function */

void base_log_open(enum ep_severity level, ep_log_function *function, void *user);
/* Sets the name that precedes each line: "quakes/locate[3]", "producer quakes", "supervisor". */
void base_log_set_name(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool base_log_is_wanted(enum ep_severity severity);
void base_log_write(enum ep_severity severity, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define base_log_error(...) base_log_write(EP_LOG_ERROR, __VA_ARGS__)
#define base_log_warning(...) base_log_write(EP_LOG_WARNING, __VA_ARGS__)
#define base_log_info(...) base_log_write(EP_LOG_INFO, __VA_ARGS__)
#define base_log_debug(...) base_log_write(EP_LOG_DEBUG, __VA_ARGS__)

/* For a child whose stderr is the supervisor's pipe. Each line is written as "\x1e<N>name: text", N
 * being the severity, without the time. The supervisor thus tells it from what stages print, and passes
 * it on with base_log_pass. */
void base_log_set_relay_mode(bool is_on);
/* Writes a line that already begins with a process's name ("quakes/locate[3]: text"). */
void base_log_pass(enum ep_severity severity, const char *line);

/* Copies text and makes it safe for a log line, a terminal or JSON: control characters and bytes that
 * are not UTF-8 become '?'. Text that does not fit is cut between two characters. Quotes are kept. */
void base_log_clean(const char *message, char *buffer, unsigned long buffer_bytes);

#endif
