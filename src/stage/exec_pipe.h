/* SPDX-License-Identifier: MIT */
/* The pipes between an exec stage and its program: event lines to it, answer lines from it. */
#ifndef STAGE_EXEC_PIPE_H
#define STAGE_EXEC_PIPE_H

#include "src/json/json.h"
#include "src/stage/exec_process.h"

struct exec_pipe {
    struct exec_process process;
    struct text event_lines;  /* the lines to send, one per event */
    size_t written_bytes;     /* bytes of event_lines that were written */
    size_t answers_due_count; /* events in it that have no answer yet */
    bool has_begun_sending;   /* sending has begun: nothing may be added */

    char *answers; /* what the program wrote; from first_line_offset to answers_bytes it was not taken yet */
    size_t first_line_offset, answers_bytes, answers_capacity;
    size_t partial_line_offset; /* where the last, unfinished line begins */
    size_t line_count;          /* whole lines between first_line_offset and partial_line_offset */
    bool has_output_ended;
};

enum exec_pipe_state {
    EXEC_PIPE_STILL_OPEN,
    EXEC_PIPE_ANSWERED,
    EXEC_PIPE_ENDED,      /* the program ended, or closed a pipe */
    EXEC_PIPE_UNEXPECTED, /* the program wrote an extra line: stage_exec_pipe_find_unexpected */
    EXEC_PIPE_TOO_LONG,   /* a line without an end */
    EXEC_PIPE_NO_MEMORY,
};

/* Called before events are sent. EXEC_PIPE_STILL_OPEN: the program wrote nothing and has not ended. */
enum exec_pipe_state stage_exec_pipe_begin_sending(struct exec_pipe *pipe);

/* Waits for the answer to the first unanswered event and takes it. *line is valid until the next call. */
enum exec_pipe_state stage_exec_pipe_read_answer(struct exec_pipe *pipe, struct json_span *line);

/* Called when all events are answered: waits this long for an extra line. EXEC_PIPE_STILL_OPEN: none came. */
enum exec_pipe_state stage_exec_pipe_check_silent(struct exec_pipe *pipe, uint64_t wait_ns);

/* After EXEC_PIPE_UNEXPECTED: returns the first extra line, or the part of it that came. */
struct json_span stage_exec_pipe_find_unexpected(const struct exec_pipe *pipe);

/* Called when all events are answered: clears both buffers and frees the memory of a big event. */
void stage_exec_pipe_reset(struct exec_pipe *pipe);
void stage_exec_pipe_close(struct exec_pipe *pipe);

#endif
