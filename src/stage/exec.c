/* SPDX-License-Identifier: MIT */
/*
 * Exec stages: one child program per worker. It reads one JSON line per event and answers with one JSON
 * line (exec_pipe.c). Runs in workers. Owns the program and its pipes.
 *
 * Invariants:
 *   1. exec_send_ahead sends the lines of several events together, so that neither side sleeps between
 *      events. The lines fit into the pipe, and process() is called for the events in the same order. An
 *      extra line would be taken for the answer to the next event. Therefore a pipeline ends with a short
 *      wait in which no line may come; the worker commits the pipeline's answers only after it.
 *   2. If the program crashes, closes its output or writes a malformed answer, it is killed if it lives,
 *      and reaped. Its pid is removed from the slot. Every later call returns STAGE_BROKEN; a new worker
 *      starts a new program.
 *   3. There is no time limit here: the supervisor kills a worker that exceeds its timeout, and the
 *      program with it.
 *   4. With limits.cpu each event is sent alone, because the limit is set again for each event.
 * Nothing is fatal to this file; the worker exits after STAGE_BROKEN.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/slot.h" /* shm_now_ns */
#include "src/config/limits.h"
#include "src/stage/exec_answer.h"
#include "src/stage/exec_pipe.h"

#define CLOSED_WAIT_MS 1000                 /* between the end of its output and its own */
#define SEND_AHEAD_BYTES ((size_t)32 << 10) /* of lines sent together: half of what a pipe holds */
#define QUIET_LEAST_NS UINT64_C(50000)      /* a pipeline's last moment: four times what an event took, */
#define QUIET_MOST_NS UINT64_C(1000000)     /* within these */

struct exec_stage {
    struct exec_pipe pipe;
    struct exec_exit exit_status; /* once the process' pid is 0 */
    struct stage_env env;
    const struct limits_config *limits; /* borrowed */
    size_t pipeline;                    /* events that were sent together */
    uint64_t begin_ns;                  /* when */
};

/* ---- how it breaks ---- */

/*
 * Removes the program's pid from the slot. Called before the program is reaped: after that the pid may belong
 * to another process, which the supervisor must not kill.
 */
static void forget_program(struct exec_stage *stage)
{
    if (stage->env.on_program != NULL)
        stage->env.on_program(0, stage->env.user);
}

/* Exec stage, in a worker: writes how the stage's program ended, by exit code or signal, as text for logs
 * and crash records. */
static void describe_exit(const struct exec_exit *exit_status, char *errbuf, size_t errbuf_size)
{
    const char *name = exit_status->kind == SHM_CAUSE_SIGNAL ? sigabbrev_np(exit_status->code) : NULL;

    if (exit_status->kind == SHM_CAUSE_EXIT)
        snprintf(errbuf, errbuf_size, "program exited with code %d", exit_status->code);
    else if (name != NULL)
        snprintf(errbuf, errbuf_size, "program was killed by signal %d (SIG%s)", exit_status->code, name);
    else
        snprintf(errbuf, errbuf_size, "program was killed by signal %d", exit_status->code);
}

/* Exec stage, in a worker: reports a program that closed a pipe, because it has ended or is about to.
 * Reaps it, and kills it first if it still runs. The text shows the half line that it wrote last. */
static void break_ended(struct exec_stage *stage, const char *when, struct stage_failure *failure)
{
    char how[128], half[200] = "";
    const struct exec_pipe *pipe = &stage->pipe;

    forget_program(stage);
    bool closed_only =
        stage_exec_process_wait(&stage->pipe.process, CLOSED_WAIT_MS, &stage->exit_status) != 0;
    if (closed_only)
        stage_exec_process_kill(&stage->pipe.process, &stage->exit_status);
    if (closed_only)
        snprintf(how, sizeof how, "program closed its %s but went on running",
                 pipe->process.input < 0 ? "input" : "output");
    else
        describe_exit(&stage->exit_status, how, sizeof how);
    if (pipe->end > pipe->tail)
        stage_exec_answer_show(pipe->answers + pipe->tail, pipe->end - pipe->tail, half, sizeof half);
    failure->kind = closed_only ? SHM_CAUSE_MALFORMED : stage->exit_status.kind;
    failure->code = closed_only ? 0 : stage->exit_status.code;
    snprintf(failure->message, sizeof failure->message, "%s%s%s%s", how, when,
             half[0] != '\0' ? ", after half a line: " : "", half);
}

/* Exec stage, in a worker: kills a program that wrote something malformed, and reports it. The worker then
 * exits; a new worker starts a new program. */
static void break_malformed(struct exec_stage *stage, const char *message, struct stage_failure *failure)
{
    forget_program(stage);
    stage_exec_process_kill(&stage->pipe.process, &stage->exit_status);
    failure->kind = SHM_CAUSE_MALFORMED;
    failure->code = 0;
    snprintf(failure->message, sizeof failure->message, "%s", message);
}

/* Exec stage, in a worker: kills a program that wrote an unexpected line, and shows this line in the
 * report. */
static void break_shown(struct exec_stage *stage, const char *what, struct json_span line,
                        struct stage_failure *failure)
{
    char shown[200], message[SHM_TEXT_BYTES];

    stage_exec_answer_show(line.at, line.bytes, shown, sizeof shown);
    snprintf(message, sizeof message, "%s: %s", what, shown);
    break_malformed(stage, message, failure);
}

/* Exec stage, in a worker: reports what broke the pipe to the program. `unexpected` and `ended` say when
 * it happened. */
static void break_pipe(struct exec_stage *stage, enum exec_pipe_state state, const char *unexpected,
                       const char *ended, struct stage_failure *failure)
{
    const struct exec_pipe *pipe = &stage->pipe;

    switch (state) {
    case EXEC_PIPE_UNEXPECTED:
        break_shown(stage, unexpected, stage_exec_pipe_unexpected(pipe), failure);
        return;
    case EXEC_PIPE_TOO_LONG:
        break_shown(stage, "answered a line of more than 64 MiB",
                    (struct json_span){pipe->answers + pipe->tail, pipe->end - pipe->tail}, failure);
        return;
    case EXEC_PIPE_NO_MEMORY:
        break_malformed(stage, "out of memory for an answer", failure);
        return;
    default:
        break_ended(stage, ended, failure);
        return;
    }
}

/* ---- events ---- */

/* Exec stage, in a worker: adds an event's JSON line to the lines to send to the program. Returns NULL, or
 * the reason why nothing was added. */
static const char *add_event(struct exec_pipe *pipe, struct ep_call *call)
{
    size_t before = pipe->line.bytes;
    const char *why = NULL;
    int code = stage_call_document(call, &pipe->line);

    /* The store holds only valid JSON. A line feed in it would shift all later answers, so check again. */
    if (code != 0)
        why = "out of memory for the event";
    else if (memchr(pipe->line.text + before, '\n', pipe->line.bytes - before) != NULL)
        why = "the event is not valid JSON";
    base_text_append(&pipe->line, "\n");
    if (why == NULL && pipe->line.failed)
        why = "out of memory for the event";
    if (why == NULL) {
        pipe->due++;
        return NULL;
    }
    pipe->line.failed = false;
    pipe->line.bytes = before;
    return why;
}

/* Exec stage: the worker's loop calls it for several events in a row, which then go to the program in one
 * write. Returns false if this event does not fit: then it is sent in its turn. */
static bool exec_send_ahead(void *state, struct ep_call *call)
{
    struct exec_stage *stage = state;
    struct exec_pipe *pipe = &stage->pipe;

    if (pipe->process.pid == 0 || pipe->begun || stage->limits->cpu_ms > 0)
        return false;
    size_t before = pipe->line.bytes;
    if (call->event_bytes + call->context_bytes >= SEND_AHEAD_BYTES - before || add_event(pipe, call) != NULL)
        return false;
    if (pipe->line.bytes <= SEND_AHEAD_BYTES)
        return true;
    pipe->line.bytes = before;
    pipe->due--;
    return false;
}

/* Exec stage, in a worker: prepares the pipe for sending events, and renews the program's CPU limit. */
static enum exec_pipe_state begin_sending(struct exec_stage *stage)
{
    enum exec_pipe_state state = stage_exec_pipe_begin(&stage->pipe);

    stage->pipeline = stage->pipe.due;
    if (stage->pipeline > 1)
        stage->begin_ns = shm_now_ns();
    if (state == EXEC_PIPE_GOES_ON) /* if the program has just ended, the next read finds it */
        config_limits_renew_cpu(stage->pipe.process.pid, stage->limits);
    return state;
}

/* Exec stage, in a worker: after the last answer to events sent together, waits a moment to find an extra
 * line, which would make the answers doubtful. */
static enum exec_pipe_state end_pipeline(struct exec_stage *stage)
{
    uint64_t wait_ns = (shm_now_ns() - stage->begin_ns) / stage->pipeline * 4;

    if (wait_ns < QUIET_LEAST_NS)
        wait_ns = QUIET_LEAST_NS;
    if (wait_ns > QUIET_MOST_NS)
        wait_ns = QUIET_MOST_NS;
    return stage_exec_pipe_check_silent(&stage->pipe, wait_ns);
}

/* Exec stage, in a worker: sends one event to the program, unless it was sent ahead, and reads the answer.
 * STAGE_BROKEN: the program has ended or failed, and the worker exits. */
static enum stage_result exchange_event(struct exec_stage *stage, struct ep_call *call,
                                        struct stage_failure *failure)
{
    static const char unasked[] = "wrote a line without having been asked";
    struct exec_pipe *pipe = &stage->pipe;
    enum exec_pipe_state state;
    struct json_span line;

    if (!pipe->begun && (state = begin_sending(stage)) != EXEC_PIPE_GOES_ON) {
        break_pipe(stage, state, unasked, " before the event was sent", failure);
        failure->unsent = state == EXEC_PIPE_ENDED;
        return STAGE_BROKEN;
    }
    state = stage_exec_pipe_answer(pipe, &line);
    if (state != EXEC_PIPE_ANSWERED) {
        break_pipe(stage, state, "wrote more than one line for one event", " before it answered", failure);
        return STAGE_BROKEN;
    }
    char message[SHM_TEXT_BYTES] = "";
    int code = stage_exec_answer_read(line.at, line.bytes, call, message, sizeof message);
    if (code == EP_EPROTO) {
        break_malformed(stage, message, failure);
        return STAGE_BROKEN;
    }
    if (code != 0) {
        call->answer = EP_ERROR;
        ep_call_set_reason(call, "out of memory for the answer");
    }
    if (pipe->due == 0 && stage->pipeline > 1 && (state = end_pipeline(stage)) != EXEC_PIPE_GOES_ON) {
        break_pipe(stage, state, unasked, "", failure);
        return STAGE_BROKEN;
    }
    return STAGE_ANSWERED;
}

/* Exec stage: the worker's loop calls it for each event. Returns STAGE_ANSWERED with the program's answer
 * in the call, or STAGE_BROKEN with the cause, after which the worker exits. */
static enum stage_result exec_process_event(void *state, struct ep_call *call, struct stage_failure *failure)
{
    struct exec_stage *stage = state;
    struct exec_pipe *pipe = &stage->pipe;

    if (pipe->process.pid == 0) {
        failure->kind = stage->exit_status.kind;
        failure->code = stage->exit_status.code;
        describe_exit(&stage->exit_status, failure->message, sizeof failure->message);
        return STAGE_BROKEN;
    }
    const char *why = pipe->due == 0 ? add_event(pipe, call) : NULL;
    if (why != NULL) {
        call->answer = EP_ERROR;
        ep_call_set_reason(call, "%s", why);
        stage_exec_pipe_reset(pipe);
        return STAGE_ANSWERED;
    }
    enum stage_result result = exchange_event(stage, call, failure);
    if (result == STAGE_BROKEN || pipe->due == 0)
        stage_exec_pipe_reset(pipe);
    return result;
}

/* ---- the table ---- */

/* Exec stage: a worker calls it once when it starts; it starts the stage's program. A failure is a failed
 * start, which the supervisor tries again later. */
static int exec_open(const struct stage_config *config, const struct stage_env *env, void **state,
                     struct error *error)
{
    struct exec_stage *stage = calloc(1, sizeof *stage);

    if (stage == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory");
    stage->env = *env;
    /* A program that ends while it is written to is an error of write, not a crash of the worker. */
    sigset_t pipe_signal;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, NULL);
    int code = stage_exec_process_start(config, env, &stage->pipe.process, error);
    if (code != 0) {
        free(stage);
        return code;
    }
    stage->limits = &config->limits;
    code = config_limits_renew_cpu(stage->pipe.process.pid, stage->limits);
    if (code != 0) {
        stage_exec_process_kill(&stage->pipe.process, &stage->exit_status);
        stage_exec_process_close(&stage->pipe.process);
        free(stage);
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: its limit of cpu: %s", config->exec.at[0],
                              strerror(code));
    }
    if (env->on_program != NULL)
        env->on_program(stage->pipe.process.pid, env->user);
    *state = stage;
    return 0;
}

/* Exec stage: a worker calls it at a graceful shutdown; it ends the program and waits up to wait_ms before
 * SIGTERM. After a crash of the worker the kernel kills the program instead. */
static void exec_close(void *state, uint64_t wait_ms)
{
    struct exec_stage *stage = state;

    if (stage == NULL)
        return;
    if (stage->pipe.process.pid != 0) {
        forget_program(stage);
        stage_exec_process_end(&stage->pipe.process, wait_ms);
    }
    stage_exec_pipe_close(&stage->pipe);
    free(stage);
}

const struct stage_ops stage_exec_ops = {
    .type = "exec",
    .open = exec_open,
    .send_ahead = exec_send_ahead,
    .process = exec_process_event,
    .close = exec_close,
};
