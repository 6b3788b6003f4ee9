/* SPDX-License-Identifier: MIT */
/* What goes between an exec stage and its program: lines of events one way, lines of answers the other. */
#ifndef STAGE_EXEC_PIPE_H
#define STAGE_EXEC_PIPE_H

#include "src/json/json.h"
#include "src/stage/exec_process.h"

struct exec_pipe {
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

enum exec_pipe_state {
    EXEC_PIPE_GOES_ON,
    EXEC_PIPE_ANSWERED,
    EXEC_PIPE_ENDED,      /* it ended, or closed a pipe */
    EXEC_PIPE_UNEXPECTED, /* it wrote what nobody asked for: stage_exec_pipe_unexpected */
    EXEC_PIPE_TOO_LONG,   /* a line without an end */
    EXEC_PIPE_NO_MEMORY,
};

/* Before events are sent: there must be nothing from the program, not even its end. EXEC_PIPE_GOES_ON: so it
 * is. */
enum exec_pipe_state stage_exec_pipe_begin(struct exec_pipe *pipe);

/* Waits for the answer to the first event that has none, and takes it: *line is good until the next call. */
enum exec_pipe_state stage_exec_pipe_answer(struct exec_pipe *pipe, struct json_span *line);

/* Once all are answered: waits this long for a line too many. EXEC_PIPE_GOES_ON: none came. */
enum exec_pipe_state stage_exec_pipe_check_silent(struct exec_pipe *pipe, uint64_t wait_ns);

/* After EXEC_PIPE_UNEXPECTED: the first line too many, or what there is of it. */
struct json_span stage_exec_pipe_unexpected(const struct exec_pipe *pipe);

/* Once all are answered: forgets what was sent, and gives back memory that a big event needed. */
void stage_exec_pipe_reset(struct exec_pipe *pipe);
void stage_exec_pipe_close(struct exec_pipe *pipe);

#endif
