/* SPDX-License-Identifier: MIT */
/*
 * The output of children, as log lines. Lines of a child's own log carry a mark (base_log_set_relay_mode)
 * and pass unchanged; every other line was printed by a stage. The caller reads the pipe and passes the time.
 */
#ifndef SUPERVISOR_RELAY_H
#define SUPERVISOR_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/eventpipe.h" /* enum ep_severity */

#define RELAY_MARK '\x1e' /* base_log_set_relay_mode begins its lines with it */
#define RELAY_LINE_BYTES 4096
#define RELAY_TAIL_BYTES 1024
#define RELAY_NAME_BYTES 160
#define RELAY_BURST 200 /* lines that stages print, per window and stage */
#define RELAY_WINDOW_NS UINT64_C(10000000000)

typedef void relay_write(enum ep_severity severity, const char *line, void *user);

/* The limit of log lines, shared by all processes of a stage. Starts as all zero. */
struct relay_limit {
    uint64_t window_start_ns; /* when the window began, 0 = none yet */
    uint32_t line_count, suppressed_count;
};

/* The output of one process. */
struct relay {
    const char *name;               /* "quakes/locate[3]"; borrowed for the relay's life */
    struct relay_limit *line_limit; /* borrowed */
    size_t line_bytes, tail_bytes;
    bool is_line_cut; /* the line is too long: its rest is dropped */
    char line[RELAY_LINE_BYTES];
    char tail[RELAY_TAIL_BYTES]; /* the last lines it printed, each with its line feed */
};

void relay_open(struct relay *relay, const char *name, struct relay_limit *limit);
/* Takes `output_bytes` bytes of output and writes each line that they complete. */
void relay_feed(struct relay *relay, const char *output, size_t output_bytes, uint64_t now_ns,
                relay_write *write, void *user);
/* Writes the last line of an exited process, if it had no line feed. */
void relay_end(struct relay *relay, uint64_t now_ns, relay_write *write, void *user);
/* Copies the last lines: whole ones if they fit, oldest first, joined by " | ". Empty if it printed
 * nothing. */
void relay_last_output(const struct relay *relay, char *buffer, size_t buffer_bytes);
/* Once the window is over, writes how many lines it suppressed, under this process's name. */
void relay_report_suppressed(struct relay_limit *limit, const char *name, uint64_t now_ns, relay_write *write,
                             void *user);

#endif
