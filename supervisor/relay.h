/* SPDX-License-Identifier: MIT */
/*
 * What children print: cut into lines, tagged, handed on. A child's own log lines carry a mark
 * (base_log_relay_mode) and pass as they are; all else is what a stage printed. The caller reads the pipe and
 * tells the time.
 */
#ifndef SUPERVISOR_RELAY_H
#define SUPERVISOR_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/eventpipe.h" /* enum ep_severity */

#define RELAY_MARK '\x1e' /* base_log_relay_mode begins its lines with it */
#define RELAY_LINE_BYTES 4096
#define RELAY_TAIL_BYTES 1024
#define RELAY_NAME_BYTES 160
#define RELAY_BURST 200 /* lines that stages print, per window and stage */
#define RELAY_WINDOW_NS UINT64_C(10000000000)

typedef void relay_write(enum ep_severity severity, const char *line, void *user);

/* Shared by all processes of a stage. All zero to begin with. */
struct relay_limit {
    uint64_t window_ns; /* when the window began, 0 = none yet */
    uint32_t lines, suppressed;
};

/* One process' output. */
struct relay {
    const char *name;          /* "quakes/locate[3]"; borrowed for the relay's life */
    struct relay_limit *limit; /* borrowed */
    size_t used, tail_used;
    bool cutting; /* the line was longer than fits: its rest is dropped */
    char line[RELAY_LINE_BYTES];
    char tail[RELAY_TAIL_BYTES]; /* the last lines it printed, each with its line feed; our own log lines are
                                    not kept */
};

void relay_open(struct relay *relay, const char *name, struct relay_limit *limit);
void relay_feed(struct relay *relay, const char *bytes, size_t count, uint64_t now_ns, relay_write *write,
                void *user);
/* The process is gone: a line without line feed is a line, too. */
void relay_end(struct relay *relay, uint64_t now_ns, relay_write *write, void *user);
/* The last lines, whole as far as they fit, oldest first, joined by " | ". Empty when it printed nothing. */
void relay_last_output(const struct relay *relay, char *buffer, size_t size);
/* Says how many lines a window that is over has swallowed; name: "quakes/locate". */
void relay_limit_turn(struct relay_limit *limit, const char *name, uint64_t now_ns, relay_write *write,
                      void *user);

#endif
