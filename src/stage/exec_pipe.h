/* SPDX-License-Identifier: MIT */
/* What goes between an exec stage and its co-process: lines of events one way, lines of answers the other. */
#ifndef EXEC_TALK_H
#define EXEC_TALK_H

#include "src/stage/exec_process.h"
#include "src/json/json.h"

struct exec_talk {
    struct exec_process process;
    struct json_out line; /* what is sent: the line of one event, or of several */
    size_t written;       /* of it */
    size_t due;           /* events in it that have no answer yet */
    bool begun;           /* nothing may be added to it any more */

    char *answers; /* what came back; from `first` on it is not taken yet */
    size_t first, end, room;
    size_t tail;       /* where the last line begins that has no end yet */
    size_t line_count; /* whole lines between `first` and `tail` */
    bool output_ended;
};

enum exec_talk_state {
    TALK_GOES_ON,
    TALK_ANSWERED,
    TALK_ENDED,    /* it ended, or closed a pipe */
    TALK_STRAY,    /* it wrote what nobody asked for: exec_talk_stray */
    TALK_TOO_LONG, /* a line without an end */
    TALK_NO_MEMORY,
};

/* Before events are sent: there must be nothing from the co-process, not even its end. TALK_GOES_ON: so it
 * is. */
enum exec_talk_state exec_talk_begin(struct exec_talk *talk);

/* Waits for the answer to the first event that has none, and takes it: *line is good until the next call. */
enum exec_talk_state exec_talk_answer(struct exec_talk *talk, struct json_span *line);

/* Once all are answered: waits this long for a line too many. TALK_GOES_ON: none came. */
enum exec_talk_state exec_talk_quiet(struct exec_talk *talk, uint64_t wait_ns);

/* After TALK_STRAY: the first line too many, or what there is of it. */
struct json_span exec_talk_stray(const struct exec_talk *talk);

/* Once all are answered: forgets what was sent, and gives back memory that a big event needed. */
void exec_talk_reset(struct exec_talk *talk);
void exec_talk_close(struct exec_talk *talk);

#endif
