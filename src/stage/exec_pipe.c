/* SPDX-License-Identifier: MIT */
/*
 * The pipes between an exec stage and its program. Runs in workers. Owns the buffers in both directions.
 *
 * Invariants:
 *   1. Writing and reading go on together. The program may answer before it has read everything, read
 *      slowly, or write much before it reads; neither side waits for the other in a circle.
 *   2. Each event gets one line. More lines than events sent are malformed. They are found when they are
 *      read, at the latest before the next events are sent. An answer is taken only after everything was
 *      written.
 *   3. Lines answer events in the order in which these were sent. Lines that came before the program
 *      ended are taken first, so that its end is reported for the first event without an answer.
 *   4. When the program has ended, or no process reads its input any more, the output that is there is
 *      read, and no more is waited for. A child of the program may hold the output open; without a time
 *      limit that wait would not end.
 */
#include "src/stage/exec_pipe.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX ((size_t)64 << 20)
#define READ_BYTES ((size_t)64 << 10)
#define KEEP_BYTES ((size_t)1 << 20) /* buffers that a big event made larger than this are given back */

enum read_outcome { READ_SOME, READ_NOTHING, READ_END, READ_NO_MEMORY };

/* Exec stage pipe, in a worker: makes room in the buffer for more of the program's output and drops the
 * lines already taken. Returns false without memory. */
static bool grow_answers(struct exec_pipe *pipe)
{
    if (pipe->first > 0) { /* drop the lines that were taken */
        memmove(pipe->answers, pipe->answers + pipe->first, pipe->end - pipe->first);
        pipe->end -= pipe->first;
        pipe->tail -= pipe->first;
        pipe->first = 0;
    }
    if (pipe->room - pipe->end >= READ_BYTES)
        return true;
    size_t room = pipe->room * 2 > READ_BYTES * 2 ? pipe->room * 2 : READ_BYTES * 2;
    char *answers = realloc(pipe->answers, room);
    if (answers == NULL)
        return false;
    pipe->answers = answers;
    pipe->room = room;
    return true;
}

/* Exec stage pipe, in a worker: counts the line ends in the output just read; each byte is scanned once. */
static void count_lines(struct exec_pipe *pipe, size_t from)
{
    const char *end = pipe->answers + pipe->end, *feed;
    for (const char *at = pipe->answers + from; (feed = memchr(at, '\n', (size_t)(end - at))) != NULL;
         at = feed + 1) {
        pipe->line_count++;
        pipe->tail = (size_t)(feed + 1 - pipe->answers);
    }
}

/* Exec stage pipe, in a worker: reads once from the program's stdout, without blocking. */
static enum read_outcome read_more(struct exec_pipe *pipe)
{
    if (!grow_answers(pipe))
        return READ_NO_MEMORY;
    ssize_t got = read(pipe->process.output, pipe->answers + pipe->end, READ_BYTES);
    if (got > 0) {
        pipe->end += (size_t)got;
        count_lines(pipe, pipe->end - (size_t)got);
        return READ_SOME;
    }
    return got == 0 || (errno != EAGAIN && errno != EINTR) ? READ_END : READ_NOTHING;
}

static bool holds_too_much(const struct exec_pipe *pipe)
{
    return pipe->line_count > pipe->due || (pipe->line_count == pipe->due && pipe->end > pipe->tail);
}

/* Exec stage pipe: a worker calls it before it sends events to the program. Output that is already there
 * was not asked for and is an error. */
enum exec_pipe_state stage_exec_pipe_begin(struct exec_pipe *pipe)
{
    pipe->begun = true;
    switch (read_more(pipe)) {
    case READ_SOME:
        pipe->due = 0; /* every line is unexpected */
        return EXEC_PIPE_UNEXPECTED;
    case READ_NO_MEMORY:
        return EXEC_PIPE_NO_MEMORY;
    case READ_NOTHING:
        return pipe->process.input >= 0 ? EXEC_PIPE_GOES_ON : EXEC_PIPE_ENDED;
    default:
        return EXEC_PIPE_ENDED;
    }
}

/* No process reads the input any more: drop the rest. */
static void close_input(struct exec_pipe *pipe)
{
    close(pipe->process.input);
    pipe->process.input = -1;
    pipe->written = pipe->line.bytes;
}

/* Exec stage pipe, in a worker: writes as much of the event lines to the program's stdin as the pipe takes
 * now. */
static void write_more(struct exec_pipe *pipe)
{
    ssize_t written =
        write(pipe->process.input, pipe->line.text + pipe->written, pipe->line.bytes - pipe->written);

    if (written >= 0)
        pipe->written += (size_t)written;
    else if (errno != EAGAIN && errno != EINTR)
        close_input(pipe);
}

/* Exec stage pipe, in a worker: returns the state of the exchange with the program after a read. */
static enum exec_pipe_state classify(const struct exec_pipe *pipe)
{
    if (holds_too_much(pipe))
        return EXEC_PIPE_UNEXPECTED;
    if (pipe->end - pipe->tail > LINE_BYTES_MAX)
        return EXEC_PIPE_TOO_LONG;
    if (pipe->line_count > 0 && (pipe->written == pipe->line.bytes || pipe->output_ended))
        return EXEC_PIPE_ANSWERED; /* if the output ended, the next call reports it */
    return pipe->output_ended ? EXEC_PIPE_ENDED : EXEC_PIPE_GOES_ON;
}

/* Exec stage pipe, in a worker: notes the outcome of a read and returns the state of the exchange. */
static enum exec_pipe_state classify_read(struct exec_pipe *pipe, enum read_outcome outcome)
{
    if (outcome == READ_NO_MEMORY)
        return EXEC_PIPE_NO_MEMORY;
    pipe->output_ended = pipe->output_ended || outcome == READ_END;
    return classify(pipe);
}

/* Exec stage pipe, in a worker: reads what an ended program left in the pipe, without waiting: a child of
 * the program may hold it open. */
static enum exec_pipe_state read_remaining_output(struct exec_pipe *pipe)
{
    enum read_outcome outcome;
    enum exec_pipe_state state;

    pipe->written = pipe->line.bytes;
    do {
        outcome = read_more(pipe);
        state = classify_read(pipe, outcome);
    } while (state == EXEC_PIPE_GOES_ON && outcome == READ_SOME);
    return state != EXEC_PIPE_GOES_ON ? state : EXEC_PIPE_ENDED;
}

/* Exec stage pipe, in a worker: waits once until the program takes input, writes output or ends, and
 * handles that. */
static enum exec_pipe_state exchange_once(struct exec_pipe *pipe)
{
    bool all_written = pipe->written == pipe->line.bytes;
    struct pollfd watched[3] = {
        {pipe->process.output, POLLIN, 0},
        {pipe->process.handle, POLLIN, 0},
        {pipe->process.input, all_written ? 0 : POLLOUT, 0}, /* POLLERR: no process reads it */
    };
    if (poll(watched, 3, pipe->process.input >= 0 ? -1 : 0) < 0)
        return EXEC_PIPE_GOES_ON; /* EINTR; no other error is possible here */
    if ((watched[2].revents & POLLERR) != 0)
        close_input(pipe);
    else if (watched[2].revents != 0)
        write_more(pipe);
    if (watched[1].revents != 0 || pipe->process.input < 0)
        return read_remaining_output(pipe);
    if (watched[0].revents != 0)
        return classify_read(pipe, read_more(pipe));
    return classify(pipe); /* an answer that came before all was written */
}

/* Exec stage pipe, in a worker: takes the first answer line out of the buffer. The caller has checked that
 * there is a whole one. */
static struct json_span take_line(struct exec_pipe *pipe)
{
    const char *line = pipe->answers + pipe->first;
    const char *feed = memchr(line, '\n', pipe->end - pipe->first);

    pipe->first = (size_t)(feed + 1 - pipe->answers);
    pipe->line_count--;
    pipe->due--;
    return (struct json_span){line, (size_t)(feed - line)};
}

/* Exec stage pipe: a worker waits here for the program's answer to the oldest event sent. There is no time
 * limit; the supervisor kills a worker that exceeds its timeout. */
enum exec_pipe_state stage_exec_pipe_answer(struct exec_pipe *pipe, struct json_span *line)
{
    if (pipe->written == 0)
        write_more(pipe); /* the lines nearly always fit into the pipe */
    enum exec_pipe_state state = classify(pipe);
    while (state == EXEC_PIPE_GOES_ON)
        state = exchange_once(pipe);
    if (state == EXEC_PIPE_ANSWERED)
        *line = take_line(pipe);
    return state;
}

/* Exec stage pipe: after the last answer a worker waits wait_ns to see whether the program writes an extra
 * line. */
enum exec_pipe_state stage_exec_pipe_check_silent(struct exec_pipe *pipe, uint64_t wait_ns)
{
    struct pollfd watched = {pipe->process.output, POLLIN, 0};
    const struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000),
                                  .tv_nsec = (long)(wait_ns % 1000000000)};

    /* The end of the program belongs to no answered event: the next send finds it. */
    if (ppoll(&watched, 1, &wait, NULL) <= 0 || (watched.revents & POLLIN) == 0)
        return EXEC_PIPE_GOES_ON;
    switch (read_more(pipe)) {
    case READ_SOME:
        return EXEC_PIPE_UNEXPECTED;
    case READ_NO_MEMORY:
        return EXEC_PIPE_NO_MEMORY;
    default:
        return EXEC_PIPE_GOES_ON;
    }
}

/* Exec stage pipe, in a worker: returns the first extra line that the program wrote, for the error
 * message. */
struct json_span stage_exec_pipe_unexpected(const struct exec_pipe *pipe)
{
    const char *at = pipe->answers + pipe->first, *end = pipe->answers + pipe->end;

    for (size_t i = 0; i < pipe->due; i++)
        at = (const char *)memchr(at, '\n', (size_t)(end - at)) + 1;
    const char *feed = memchr(at, '\n', (size_t)(end - at));
    return (struct json_span){at, (size_t)((feed != NULL ? feed : end) - at)};
}

/* Exec stage pipe: a worker clears both buffers once all events are answered, and frees the memory that a
 * big event needed. */
void stage_exec_pipe_reset(struct exec_pipe *pipe)
{
    if (pipe->room > KEEP_BYTES) {
        free(pipe->answers);
        pipe->answers = NULL;
        pipe->room = 0;
    }
    pipe->first = pipe->end = pipe->tail = pipe->line_count = 0;
    if (pipe->line.room > KEEP_BYTES)
        base_text_free(&pipe->line);
    base_text_reset(&pipe->line);
    pipe->written = pipe->due = 0;
    pipe->begun = false;
}

/* Exec stage pipe: a worker closes the pipes of an ended program and frees the buffers, when it closes its
 * stage. */
void stage_exec_pipe_close(struct exec_pipe *pipe)
{
    stage_exec_process_close(&pipe->process);
    base_text_free(&pipe->line);
    free(pipe->answers);
    pipe->answers = NULL;
}
