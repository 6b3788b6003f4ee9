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

/* Makes room for READ_BYTES more of the output of the stage's program: drops the lines already taken, and
 * enlarges the buffer if that is not enough. Returns false if out of memory. Runs in a worker. */
static bool reserve_answer_bytes(struct exec_pipe *pipe)
{
    if (pipe->first_line_offset > 0) { /* drop the lines that were taken */
        memmove(pipe->answers, pipe->answers + pipe->first_line_offset,
                pipe->answers_bytes - pipe->first_line_offset);
        pipe->answers_bytes -= pipe->first_line_offset;
        pipe->partial_line_offset -= pipe->first_line_offset;
        pipe->first_line_offset = 0;
    }
    if (pipe->answers_capacity - pipe->answers_bytes >= READ_BYTES)
        return true;
    size_t new_capacity =
        pipe->answers_capacity * 2 > READ_BYTES * 2 ? pipe->answers_capacity * 2 : READ_BYTES * 2;
    char *answers = realloc(pipe->answers, new_capacity);
    if (answers == NULL)
        return false;
    pipe->answers = answers;
    pipe->answers_capacity = new_capacity;
    return true;
}

/* Counts the line ends in the output that was just read from the stage's program, from from_offset on, and
 * notes where the last, unfinished line begins. So each byte is scanned only once. Runs in a worker. */
static void count_answer_lines(struct exec_pipe *pipe, size_t from_offset)
{
    const char *end = pipe->answers + pipe->answers_bytes, *line_feed;
    for (const char *line_begin = pipe->answers + from_offset;
         (line_feed = memchr(line_begin, '\n', (size_t)(end - line_begin))) != NULL;
         line_begin = line_feed + 1) {
        pipe->line_count++;
        pipe->partial_line_offset = (size_t)(line_feed + 1 - pipe->answers);
    }
}

/* Reads once from the stdout of the stage's program without blocking, and counts the lines. Returns
 * whether bytes came, none are there, the output has ended, or memory is exhausted. Runs in a worker. */
static enum read_outcome read_program_output(struct exec_pipe *pipe)
{
    if (!reserve_answer_bytes(pipe))
        return READ_NO_MEMORY;
    ssize_t read_bytes = read(pipe->process.stdout_fd, pipe->answers + pipe->answers_bytes, READ_BYTES);
    if (read_bytes > 0) {
        pipe->answers_bytes += (size_t)read_bytes;
        count_answer_lines(pipe, pipe->answers_bytes - (size_t)read_bytes);
        return READ_SOME;
    }
    return read_bytes == 0 || (errno != EAGAIN && errno != EINTR) ? READ_END : READ_NOTHING;
}

static bool has_unexpected_output(const struct exec_pipe *pipe)
{
    return pipe->line_count > pipe->answers_due_count ||
           (pipe->line_count == pipe->answers_due_count && pipe->answers_bytes > pipe->partial_line_offset);
}

/* Begins to send events to the stage's program. Returns EXEC_PIPE_STILL_OPEN if this is possible. Output
 * that is already there answers no event, so it gives EXEC_PIPE_UNEXPECTED. A worker calls it before the
 * first event of each write. */
enum exec_pipe_state stage_exec_pipe_begin_sending(struct exec_pipe *pipe)
{
    pipe->has_begun_sending = true;
    switch (read_program_output(pipe)) {
    case READ_SOME:
        pipe->answers_due_count = 0; /* every line is unexpected */
        return EXEC_PIPE_UNEXPECTED;
    case READ_NO_MEMORY:
        return EXEC_PIPE_NO_MEMORY;
    case READ_NOTHING:
        return pipe->process.stdin_fd >= 0 ? EXEC_PIPE_STILL_OPEN : EXEC_PIPE_ENDED;
    default:
        return EXEC_PIPE_ENDED;
    }
}

/* No process reads the input any more: drop the rest. */
static void give_up_writing(struct exec_pipe *pipe)
{
    close(pipe->process.stdin_fd);
    pipe->process.stdin_fd = -1;
    pipe->written_bytes = pipe->event_lines.bytes;
}

/* Writes as much of the event lines to the stdin of the stage's program as the pipe takes now. After an
 * error other than a full pipe, nothing more is written. Runs in a worker. */
static void write_event_lines(struct exec_pipe *pipe)
{
    ssize_t written = write(pipe->process.stdin_fd, pipe->event_lines.text + pipe->written_bytes,
                            pipe->event_lines.bytes - pipe->written_bytes);

    if (written >= 0)
        pipe->written_bytes += (size_t)written;
    else if (errno != EAGAIN && errno != EINTR)
        give_up_writing(pipe);
}

/* Returns the state of the exchange with the stage's program: an answer is there, the output is malformed
 * or has ended, or the program is still to be waited for (EXEC_PIPE_STILL_OPEN). Runs in a worker. */
static enum exec_pipe_state get_exchange_state(const struct exec_pipe *pipe)
{
    if (has_unexpected_output(pipe))
        return EXEC_PIPE_UNEXPECTED;
    if (pipe->answers_bytes - pipe->partial_line_offset > LINE_BYTES_MAX)
        return EXEC_PIPE_TOO_LONG;
    if (pipe->line_count > 0 && (pipe->written_bytes == pipe->event_lines.bytes || pipe->has_output_ended))
        return EXEC_PIPE_ANSWERED; /* if the output ended, the next call reports it */
    return pipe->has_output_ended ? EXEC_PIPE_ENDED : EXEC_PIPE_STILL_OPEN;
}

/* Notes the end of the output of the stage's program if the last read found it, and returns the state of
 * the exchange. Runs in a worker. */
static enum exec_pipe_state note_read_outcome(struct exec_pipe *pipe, enum read_outcome outcome)
{
    if (outcome == READ_NO_MEMORY)
        return EXEC_PIPE_NO_MEMORY;
    pipe->has_output_ended = pipe->has_output_ended || outcome == READ_END;
    return get_exchange_state(pipe);
}

/* Reads the output that the stage's program, which has ended, has left in the pipe and returns the state
 * of the exchange. Does not wait for more, because a child of the program may keep the pipe open for ever.
 * Runs in a worker. */
static enum exec_pipe_state read_remaining_output(struct exec_pipe *pipe)
{
    enum read_outcome outcome;
    enum exec_pipe_state state;

    pipe->written_bytes = pipe->event_lines.bytes;
    do {
        outcome = read_program_output(pipe);
        state = note_read_outcome(pipe, outcome);
    } while (state == EXEC_PIPE_STILL_OPEN && outcome == READ_SOME);
    return state != EXEC_PIPE_STILL_OPEN ? state : EXEC_PIPE_ENDED;
}

/* Waits until the stage's program takes input, writes output or ends, handles that, and returns the state
 * of the exchange. A worker repeats it until an answer is there. */
static enum exec_pipe_state wait_and_exchange(struct exec_pipe *pipe)
{
    bool all_written = pipe->written_bytes == pipe->event_lines.bytes;
    struct pollfd watched[3] = {
        {pipe->process.stdout_fd, POLLIN, 0},
        {pipe->process.pidfd, POLLIN, 0},
        {pipe->process.stdin_fd, all_written ? 0 : POLLOUT, 0}, /* POLLERR: no process reads it */
    };
    if (poll(watched, 3, pipe->process.stdin_fd >= 0 ? -1 : 0) < 0)
        return EXEC_PIPE_STILL_OPEN; /* EINTR; no other error is possible here */
    if ((watched[2].revents & POLLERR) != 0)
        give_up_writing(pipe);
    else if (watched[2].revents != 0)
        write_event_lines(pipe);
    if (watched[1].revents != 0 || pipe->process.stdin_fd < 0)
        return read_remaining_output(pipe);
    if (watched[0].revents != 0)
        return note_read_outcome(pipe, read_program_output(pipe));
    return get_exchange_state(pipe); /* an answer that came before all was written */
}

/* Takes the first answer line of the stage's program out of the buffer and returns it, without its line
 * feed. The caller has checked that there is a whole line. The bytes are valid until the next read. Runs
 * in a worker. */
static struct json_span take_answer_line(struct exec_pipe *pipe)
{
    const char *line = pipe->answers + pipe->first_line_offset;
    const char *line_feed = memchr(line, '\n', pipe->answers_bytes - pipe->first_line_offset);

    pipe->first_line_offset = (size_t)(line_feed + 1 - pipe->answers);
    pipe->line_count--;
    pipe->answers_due_count--;
    return (struct json_span){line, (size_t)(line_feed - line)};
}

/* Waits, in a worker, for the answer of the stage's program to the oldest event sent, and takes it.
 * Returns EXEC_PIPE_ANSWERED with *line, or why there is none. There is no time limit here: the supervisor
 * kills a worker that exceeds its timeout. */
enum exec_pipe_state stage_exec_pipe_read_answer(struct exec_pipe *pipe, struct json_span *line)
{
    if (pipe->written_bytes == 0)
        write_event_lines(pipe); /* the lines nearly always fit into the pipe */
    enum exec_pipe_state state = get_exchange_state(pipe);
    while (state == EXEC_PIPE_STILL_OPEN)
        state = wait_and_exchange(pipe);
    if (state == EXEC_PIPE_ANSWERED)
        *line = take_answer_line(pipe);
    return state;
}

/* Waits wait_ns to see whether the stage's program writes a line that answers no event. Returns
 * EXEC_PIPE_STILL_OPEN if it does not. A worker calls it after the last answer to events sent together. */
enum exec_pipe_state stage_exec_pipe_check_silent(struct exec_pipe *pipe, uint64_t wait_ns)
{
    struct pollfd watched = {pipe->process.stdout_fd, POLLIN, 0};
    const struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000),
                                  .tv_nsec = (long)(wait_ns % 1000000000)};

    /* The end of the program belongs to no answered event: the next send finds it. */
    if (ppoll(&watched, 1, &wait, NULL) <= 0 || (watched.revents & POLLIN) == 0)
        return EXEC_PIPE_STILL_OPEN;
    switch (read_program_output(pipe)) {
    case READ_SOME:
        return EXEC_PIPE_UNEXPECTED;
    case READ_NO_MEMORY:
        return EXEC_PIPE_NO_MEMORY;
    default:
        return EXEC_PIPE_STILL_OPEN;
    }
}

/* Returns the first line (or the part of it that came) that the stage's program wrote beyond its answers.
 * A worker shows it in the failure's message. */
struct json_span stage_exec_pipe_find_unexpected(const struct exec_pipe *pipe)
{
    const char *line_begin = pipe->answers + pipe->first_line_offset,
               *end = pipe->answers + pipe->answers_bytes;

    for (size_t i = 0; i < pipe->answers_due_count; i++)
        line_begin = (const char *)memchr(line_begin, '\n', (size_t)(end - line_begin)) + 1;
    const char *line_feed = memchr(line_begin, '\n', (size_t)(end - line_begin));
    return (struct json_span){line_begin, (size_t)((line_feed != NULL ? line_feed : end) - line_begin)};
}

/* Clears the buffers of both directions between worker and stage program, and frees those that a big event
 * made larger than 1 MiB. A worker calls it once all events sent are answered. */
void stage_exec_pipe_reset(struct exec_pipe *pipe)
{
    if (pipe->answers_capacity > KEEP_BYTES) {
        free(pipe->answers);
        pipe->answers = NULL;
        pipe->answers_capacity = 0;
    }
    pipe->first_line_offset = pipe->answers_bytes = pipe->partial_line_offset = pipe->line_count = 0;
    if (pipe->event_lines.room > KEEP_BYTES)
        base_text_free(&pipe->event_lines);
    base_text_reset(&pipe->event_lines);
    pipe->written_bytes = pipe->answers_due_count = 0;
    pipe->has_begun_sending = false;
}

/* Closes the pipes of the stage's program, which has ended, and frees the buffers. A worker calls it when
 * it closes its stage. */
void stage_exec_pipe_close(struct exec_pipe *pipe)
{
    stage_exec_process_close(&pipe->process);
    base_text_free(&pipe->event_lines);
    free(pipe->answers);
    pipe->answers = NULL;
}
