/* SPDX-License-Identifier: MIT */
/*
 * What goes between an exec stage and its co-process. Runs in workers; owns the buffers, both ways.
 *
 * Invariants
 *  1. Writing and reading go on together: a co-process may answer before it has read all, read slowly, or
 * write much before it reads, and nobody waits for nobody.
 *  2. One line per event, and only then: more lines than events that were sent are nonsense, found as soon as
 * they are read, at the latest before the next events are sent. An answer is taken when all that was to be
 * sent has been written.
 *  3. Lines answer events in the order in which these were sent. What came before an end of the co-process is
 * taken first, so that its end meets the first event that has no answer.
 *  4. When it has ended, or nobody has its input any more (it is of no use to a next event), what it has
 * written is read, and no more is waited for: a child of its own may hold its output open, and without a time
 * limit that would be for ever.
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

enum reading { READ_SOME, READ_NOTHING, READ_END, READ_NO_MEMORY };

static bool make_room(struct exec_talk *talk)
{
    if (talk->first > 0) { /* what was taken is not needed any more */
        memmove(talk->answers, talk->answers + talk->first, talk->end - talk->first);
        talk->end -= talk->first;
        talk->tail -= talk->first;
        talk->first = 0;
    }
    if (talk->room - talk->end >= READ_BYTES)
        return true;
    size_t room = talk->room * 2 > READ_BYTES * 2 ? talk->room * 2 : READ_BYTES * 2;
    char *answers = realloc(talk->answers, room);
    if (answers == NULL)
        return false;
    talk->answers = answers;
    talk->room = room;
    return true;
}

/* Each byte is looked at once. */
static void count_lines(struct exec_talk *talk, size_t from)
{
    const char *end = talk->answers + talk->end, *feed;
    for (const char *at = talk->answers + from; (feed = memchr(at, '\n', (size_t)(end - at))) != NULL;
         at = feed + 1) {
        talk->line_count++;
        talk->tail = (size_t)(feed + 1 - talk->answers);
    }
}

static enum reading read_more(struct exec_talk *talk)
{
    if (!make_room(talk))
        return READ_NO_MEMORY;
    ssize_t got = read(talk->process.output, talk->answers + talk->end, READ_BYTES);
    if (got > 0) {
        talk->end += (size_t)got;
        count_lines(talk, talk->end - (size_t)got);
        return READ_SOME;
    }
    return got == 0 || (errno != EAGAIN && errno != EINTR) ? READ_END : READ_NOTHING;
}

static bool holds_too_much(const struct exec_talk *talk)
{
    return talk->line_count > talk->due || (talk->line_count == talk->due && talk->end > talk->tail);
}

enum exec_talk_state exec_talk_begin(struct exec_talk *talk)
{
    talk->begun = true;
    switch (read_more(talk)) {
    case READ_SOME:
        talk->due = 0; /* all of it is too much */
        return TALK_STRAY;
    case READ_NO_MEMORY:
        return TALK_NO_MEMORY;
    case READ_NOTHING:
        return talk->process.input >= 0 ? TALK_GOES_ON : TALK_ENDED;
    default:
        return TALK_ENDED;
    }
}

/* Nobody has its input any more: the rest is dropped. */
static void close_input(struct exec_talk *talk)
{
    close(talk->process.input);
    talk->process.input = -1;
    talk->written = talk->line.bytes;
}

static void write_more(struct exec_talk *talk)
{
    ssize_t written =
        write(talk->process.input, talk->line.text + talk->written, talk->line.bytes - talk->written);

    if (written >= 0)
        talk->written += (size_t)written;
    else if (errno != EAGAIN && errno != EINTR)
        close_input(talk);
}

/* What can be said after a read. */
static enum exec_talk_state judge(const struct exec_talk *talk)
{
    if (holds_too_much(talk))
        return TALK_STRAY;
    if (talk->end - talk->tail > LINE_BYTES_MAX)
        return TALK_TOO_LONG;
    if (talk->line_count > 0 && (talk->written == talk->line.bytes || talk->output_ended))
        return TALK_ANSWERED; /* where its output ended: the next call finds that */
    return talk->output_ended ? TALK_ENDED : TALK_GOES_ON;
}

static enum exec_talk_state judge_read(struct exec_talk *talk, enum reading reading)
{
    if (reading == READ_NO_MEMORY)
        return TALK_NO_MEMORY;
    talk->output_ended = talk->output_ended || reading == READ_END;
    return judge(talk);
}

static enum exec_talk_state read_last(struct exec_talk *talk)
{
    enum reading reading;
    enum exec_talk_state state;

    talk->written = talk->line.bytes;
    do {
        reading = read_more(talk);
        state = judge_read(talk, reading);
    } while (state == TALK_GOES_ON && reading == READ_SOME);
    return state != TALK_GOES_ON ? state : TALK_ENDED;
}

static enum exec_talk_state step(struct exec_talk *talk)
{
    bool all_written = talk->written == talk->line.bytes;
    struct pollfd watched[3] = {
        {talk->process.output, POLLIN, 0},
        {talk->process.handle, POLLIN, 0},
        {talk->process.input, all_written ? 0 : POLLOUT, 0}, /* POLLERR: nobody has it any more */
    };
    if (poll(watched, 3, talk->process.input >= 0 ? -1 : 0) < 0)
        return TALK_GOES_ON; /* EINTR; nothing else can be wrong with these */
    if ((watched[2].revents & POLLERR) != 0)
        close_input(talk);
    else if (watched[2].revents != 0)
        write_more(talk);
    if (watched[1].revents != 0 || talk->process.input < 0)
        return read_last(talk);
    if (watched[0].revents != 0)
        return judge_read(talk, read_more(talk));
    return judge(talk); /* an answer that came before all was written */
}

static struct json_span take_line(struct exec_talk *talk)
{
    const char *line = talk->answers + talk->first;
    const char *feed = memchr(line, '\n', talk->end - talk->first);

    talk->first = (size_t)(feed + 1 - talk->answers);
    talk->line_count--;
    talk->due--;
    return (struct json_span){line, (size_t)(feed - line)};
}

enum exec_talk_state exec_talk_answer(struct exec_talk *talk, struct json_span *line)
{
    if (talk->written == 0)
        write_more(talk); /* nearly always fits into the pipe */
    enum exec_talk_state state = judge(talk);
    while (state == TALK_GOES_ON)
        state = step(talk);
    if (state == TALK_ANSWERED)
        *line = take_line(talk);
    return state;
}

enum exec_talk_state exec_talk_quiet(struct exec_talk *talk, uint64_t wait_ns)
{
    struct pollfd watched = {talk->process.output, POLLIN, 0};
    const struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000),
                                  .tv_nsec = (long)(wait_ns % 1000000000)};

    /* Its end is none of these events': whoever sends the next finds it. */
    if (ppoll(&watched, 1, &wait, NULL) <= 0 || (watched.revents & POLLIN) == 0)
        return TALK_GOES_ON;
    switch (read_more(talk)) {
    case READ_SOME:
        return TALK_STRAY;
    case READ_NO_MEMORY:
        return TALK_NO_MEMORY;
    default:
        return TALK_GOES_ON;
    }
}

struct json_span exec_talk_stray(const struct exec_talk *talk)
{
    const char *at = talk->answers + talk->first, *end = talk->answers + talk->end;

    for (size_t i = 0; i < talk->due; i++)
        at = (const char *)memchr(at, '\n', (size_t)(end - at)) + 1;
    const char *feed = memchr(at, '\n', (size_t)(end - at));
    return (struct json_span){at, (size_t)((feed != NULL ? feed : end) - at)};
}

void exec_talk_reset(struct exec_talk *talk)
{
    if (talk->room > KEEP_BYTES) {
        free(talk->answers);
        talk->answers = NULL;
        talk->room = 0;
    }
    talk->first = talk->end = talk->tail = talk->line_count = 0;
    if (talk->line.room > KEEP_BYTES)
        json_out_free(&talk->line);
    json_out_reset(&talk->line);
    talk->written = talk->due = 0;
    talk->begun = false;
}

void exec_talk_close(struct exec_talk *talk)
{
    exec_process_close(&talk->process);
    json_out_free(&talk->line);
    free(talk->answers);
    talk->answers = NULL;
}
