/* SPDX-License-Identifier: MIT */
/*
 * Exec stages: any program, one co-process per worker, fed one JSON line per event and answering one JSON
 * line. Runs in workers. Owns the co-process and the buffer for its answers.
 *
 * Invariants
 *  1. Writing and reading go on together: a co-process may answer before it has read all, read slowly, or
 * write much before it reads, and nobody waits for nobody.
 *  2. One line per event, and only then: whatever it writes beside that is nonsense, found as soon as it is
 * read, at the latest at the next call. An answer is taken when the event has been written whole.
 *  3. When it dies, closes its output or talks nonsense it is reaped (killed first where it lives), the slot
 * forgets it, and every later call says STAGE_BROKEN: a new worker starts a new one.
 *  4. When it has ended, or nobody has its input any more (it is of no use to a next event), what it has
 * written is read, and no more is waited for: a child of its own may hold its output open, and without a time
 * limit that would be for ever.
 *  5. No time limit here: the supervisor kills a worker that overruns, and the co-process goes with it.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/exec_answer.h"
#include "src/exec_process.h"
#include "src/limits.h"

#define LINE_BYTES_MAX ((size_t)64 << 20)
#define READ_BYTES ((size_t)64 << 10)
#define KEEP_BYTES ((size_t)1 << 20) /* buffers that a big event made larger than this are given back */
#define CLOSED_WAIT_MS 1000          /* between the end of its output and its own */

struct exec_stage {
    struct exec_process process;
    struct exec_death death; /* once process.pid is 0 */
    struct stage_env env;
    const struct limits_config *limits; /* borrowed */
    struct json_out line;               /* what is sent */
    char *answer;                       /* what came back */
    size_t answer_bytes, answer_room;
};

/* One event's way there and back. */
struct talk {
    const char *left; /* still to be written */
    size_t left_bytes;
    size_t searched; /* bytes of the answer that hold no line feed */
    bool output_ended;
};

enum talk_state { TALK_GOES_ON, TALK_ANSWERED, TALK_BROKEN };

/* ---- how it breaks ---- */

/* Before it is reaped: from then on its pid may be another's, and the supervisor must not be told to kill
 * that. */
static void forget(struct exec_stage *stage)
{
    if (stage->env.coprocess != NULL)
        stage->env.coprocess(0, stage->env.user);
}

static void say_death(const struct exec_death *death, char *words, size_t words_bytes)
{
    const char *name = death->kind == SHM_CAUSE_SIGNAL ? sigabbrev_np(death->code) : NULL;

    if (death->kind == SHM_CAUSE_EXIT)
        snprintf(words, words_bytes, "co-process exited with code %d", death->code);
    else if (name != NULL)
        snprintf(words, words_bytes, "co-process was killed by signal %d (SIG%s)", death->code, name);
    else
        snprintf(words, words_bytes, "co-process was killed by signal %d", death->code);
}

/* It ended by itself, or is about to: a pipe of it was closed. What it had begun to answer stands in the
 * answer buffer. */
static void break_ended(struct exec_stage *stage, const char *when, struct stage_breakage *breakage)
{
    char how[128], half[200] = "";

    forget(stage);
    bool closed_only = exec_process_wait(&stage->process, CLOSED_WAIT_MS, &stage->death) != 0;
    if (closed_only)
        exec_process_kill(&stage->process, &stage->death);
    if (closed_only)
        snprintf(how, sizeof how, "co-process closed its %s but went on running",
                 stage->process.input < 0 ? "input" : "output");
    else
        say_death(&stage->death, how, sizeof how);
    if (stage->answer_bytes > 0)
        exec_answer_show(stage->answer, stage->answer_bytes, half, sizeof half);
    breakage->kind = closed_only ? SHM_CAUSE_NONSENSE : stage->death.kind;
    breakage->code = closed_only ? 0 : stage->death.code;
    snprintf(breakage->words, sizeof breakage->words, "%s%s%s%s", how, when,
             half[0] != '\0' ? ", after half a line: " : "", half);
}

static void break_nonsense(struct exec_stage *stage, const char *words, struct stage_breakage *breakage)
{
    forget(stage);
    exec_process_kill(&stage->process, &stage->death);
    breakage->kind = SHM_CAUSE_NONSENSE;
    breakage->code = 0;
    snprintf(breakage->words, sizeof breakage->words, "%s", words);
}

static void break_stray(struct exec_stage *stage, const char *what, const char *bytes, size_t count,
                        struct stage_breakage *breakage)
{
    char shown[200], words[SHM_TEXT_BYTES];
    const char *feed = memchr(bytes, '\n', count);

    exec_answer_show(bytes, feed != NULL ? (size_t)(feed - bytes) : count, shown, sizeof shown);
    snprintf(words, sizeof words, "%s: %s", what, shown);
    break_nonsense(stage, words, breakage);
}

/* ---- reading ---- */

enum reading { READ_SOME, READ_NOTHING, READ_END, READ_NO_MEMORY };

static enum reading read_more(struct exec_stage *stage)
{
    if (stage->answer_room - stage->answer_bytes < READ_BYTES) {
        size_t room = stage->answer_room * 2 > READ_BYTES * 2 ? stage->answer_room * 2 : READ_BYTES * 2;
        char *answer = realloc(stage->answer, room);
        if (answer == NULL)
            return READ_NO_MEMORY;
        stage->answer = answer;
        stage->answer_room = room;
    }
    ssize_t got = read(stage->process.output, stage->answer + stage->answer_bytes, READ_BYTES);
    if (got > 0) {
        stage->answer_bytes += (size_t)got;
        return READ_SOME;
    }
    return got == 0 || (errno != EAGAIN && errno != EINTR) ? READ_END : READ_NOTHING;
}

/* Where the answer's line ends, or NULL; each byte is looked at once. */
static const char *line_end(const struct exec_stage *stage, struct talk *talk)
{
    if (stage->answer_bytes == talk->searched)
        return NULL;
    const char *feed = memchr(stage->answer + talk->searched, '\n', stage->answer_bytes - talk->searched);
    if (feed == NULL)
        talk->searched = stage->answer_bytes;
    return feed;
}

/* ---- one event ---- */

/* Before an event is sent there must be nothing from the co-process, not even its end. */
static enum talk_state talk_begin(struct exec_stage *stage, struct stage_breakage *breakage)
{
    stage->answer_bytes = 0;
    enum reading reading = read_more(stage);

    if (reading == READ_NOTHING && stage->process.input >= 0)
        return TALK_GOES_ON;
    switch (reading) {
    case READ_SOME:
        break_stray(stage, "wrote a line without having been asked", stage->answer, stage->answer_bytes,
                    breakage);
        return TALK_BROKEN;
    case READ_NO_MEMORY:
        break_nonsense(stage, "out of memory for an answer", breakage);
        return TALK_BROKEN;
    default:
        break_ended(stage, " before the event was sent", breakage);
        return TALK_BROKEN;
    }
}

/* Nobody has its input any more: the rest is dropped. */
static void close_input(struct exec_stage *stage, struct talk *talk)
{
    close(stage->process.input);
    stage->process.input = -1;
    talk->left_bytes = 0;
}

static void talk_write(struct exec_stage *stage, struct talk *talk)
{
    ssize_t written = write(stage->process.input, talk->left, talk->left_bytes);

    if (written >= 0) {
        talk->left += written;
        talk->left_bytes -= (size_t)written;
    } else if (errno != EAGAIN && errno != EINTR) {
        close_input(stage, talk);
    }
}

static enum talk_state talk_read(struct exec_stage *stage, struct talk *talk, struct stage_breakage *breakage)
{
    switch (read_more(stage)) {
    case READ_NO_MEMORY:
        break_nonsense(stage, "out of memory for an answer", breakage);
        return TALK_BROKEN;
    case READ_END:
        talk->output_ended = true;
        break;
    default:
        break;
    }
    const char *feed = line_end(stage, talk);
    if (feed != NULL && feed + 1 < stage->answer + stage->answer_bytes) {
        break_stray(stage, "wrote more than one line for one event", feed + 1,
                    (size_t)(stage->answer + stage->answer_bytes - feed - 1), breakage);
        return TALK_BROKEN;
    }
    if (feed == NULL && stage->answer_bytes > LINE_BYTES_MAX) {
        break_stray(stage, "answered a line of more than 64 MiB", stage->answer, stage->answer_bytes,
                    breakage);
        return TALK_BROKEN;
    }
    if (feed != NULL && (talk->left_bytes == 0 || talk->output_ended))
        return TALK_ANSWERED; /* where its output ended: the next call finds that */
    if (talk->output_ended) {
        break_ended(stage, " before it answered", breakage);
        return TALK_BROKEN;
    }
    return TALK_GOES_ON;
}

static enum talk_state talk_finish(struct exec_stage *stage, struct talk *talk,
                                   struct stage_breakage *breakage)
{
    size_t before;
    enum talk_state state;

    talk->left_bytes = 0;
    do {
        before = stage->answer_bytes;
        state = talk_read(stage, talk, breakage);
    } while (state == TALK_GOES_ON && stage->answer_bytes > before);
    if (state != TALK_GOES_ON)
        return state;
    break_ended(stage, " before it answered", breakage);
    return TALK_BROKEN;
}

static enum talk_state talk_step(struct exec_stage *stage, struct talk *talk, struct stage_breakage *breakage)
{
    struct pollfd watched[3] = {
        {stage->process.output, POLLIN, 0},
        {stage->process.handle, POLLIN, 0},
        {stage->process.input, talk->left_bytes > 0 ? POLLOUT : 0, 0}, /* POLLERR: nobody has it any more */
    };
    if (poll(watched, 3, stage->process.input >= 0 ? -1 : 0) < 0)
        return TALK_GOES_ON; /* EINTR; nothing else can be wrong with these */
    if ((watched[2].revents & POLLERR) != 0)
        close_input(stage, talk);
    else if (watched[2].revents != 0)
        talk_write(stage, talk);
    if (watched[1].revents != 0 || stage->process.input < 0)
        return talk_finish(stage, talk, breakage);
    if (watched[0].revents != 0 || (stage->answer_bytes > 0 && talk->left_bytes == 0))
        return talk_read(stage, talk, breakage);
    return TALK_GOES_ON;
}

static enum stage_result talk_with(struct exec_stage *stage, struct ep_call *call,
                                   struct stage_breakage *breakage)
{
    struct talk talk = {.left = stage->line.text, .left_bytes = stage->line.bytes};
    enum talk_state state = talk_begin(stage, breakage);

    limits_renew_cpu(stage->process.pid,
                     stage->limits); /* where it has ended just now, that is found below */
    if (state == TALK_GOES_ON)
        talk_write(stage, &talk); /* nearly always fits into the pipe */
    while (state == TALK_GOES_ON)
        state = talk_step(stage, &talk, breakage);
    if (state == TALK_BROKEN)
        return STAGE_BROKEN;

    char words[SHM_TEXT_BYTES] = "";
    size_t bytes = stage->answer_bytes - 1;
    int code = exec_answer_read(stage->answer, bytes, call, words, sizeof words);
    if (code == EP_EGARBAGE) {
        break_nonsense(stage, words, breakage);
        return STAGE_BROKEN;
    }
    if (code != 0) {
        call->answer = EP_ERROR;
        ep_call_words(call, "out of memory for the answer");
    }
    return STAGE_ANSWERED;
}

static void give_back(struct exec_stage *stage)
{
    if (stage->answer_room > KEEP_BYTES) {
        free(stage->answer);
        stage->answer = NULL;
        stage->answer_room = 0;
    }
    stage->answer_bytes = 0;
    if (stage->line.room > KEEP_BYTES)
        json_out_free(&stage->line);
}

static enum stage_result exec_process_event(void *state, struct ep_call *call,
                                            struct stage_breakage *breakage)
{
    struct exec_stage *stage = state;

    if (stage->process.pid == 0) {
        breakage->kind = stage->death.kind;
        breakage->code = stage->death.code;
        say_death(&stage->death, breakage->words, sizeof breakage->words);
        return STAGE_BROKEN;
    }
    json_out_reset(&stage->line);
    int code = call_document(call, &stage->line);
    if (code != 0 || memchr(stage->line.text, '\n', stage->line.bytes) != NULL) {
        /* The store holds only what was valid; but half a line would put the co-process out of step for good.
         */
        call->answer = EP_ERROR;
        ep_call_words(call, code != 0 ? "out of memory for the event" : "the event is not valid JSON");
        give_back(stage);
        return STAGE_ANSWERED;
    }
    json_out_words(&stage->line, "\n");
    if (stage->line.failed) {
        call->answer = EP_ERROR;
        ep_call_words(call, "out of memory for the event");
        give_back(stage);
        return STAGE_ANSWERED;
    }
    enum stage_result result = talk_with(stage, call, breakage);
    give_back(stage);
    return result;
}

/* ---- the table ---- */

static int exec_open(const struct stage_config *config, const struct stage_env *env, void **state,
                     struct error *error)
{
    struct exec_stage *stage = calloc(1, sizeof *stage);

    if (stage == NULL)
        return error_set(error, EP_ENOMEM, "out of memory");
    stage->env = *env;
    /* A co-process that ends while it is written to is an error of write, not the worker's death. */
    sigset_t pipe_signal;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, NULL);
    int code = exec_process_start(config, env, &stage->process, error);
    if (code != 0) {
        free(stage);
        return code;
    }
    stage->limits = &config->limits;
    code = limits_renew_cpu(stage->process.pid, stage->limits);
    if (code != 0) {
        exec_process_kill(&stage->process, &stage->death);
        exec_process_close(&stage->process);
        free(stage);
        return error_set(error, EP_ESYSTEM, "cannot run %s: its limit of cpu: %s", config->exec.at[0],
                         strerror(code));
    }
    if (env->coprocess != NULL)
        env->coprocess(stage->process.pid, env->user);
    *state = stage;
    return 0;
}

static void exec_close(void *state, uint64_t wait_ms)
{
    struct exec_stage *stage = state;

    if (stage == NULL)
        return;
    if (stage->process.pid != 0) {
        forget(stage);
        exec_process_end(&stage->process, wait_ms);
    }
    exec_process_close(&stage->process);
    json_out_free(&stage->line);
    free(stage->answer);
    free(stage);
}

const struct stage_ops stage_exec_ops = {
    .kind = "exec",
    .open = exec_open,
    .process = exec_process_event,
    .close = exec_close,
};
