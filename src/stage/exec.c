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

#define CLOSED_WAIT_MS 1000                 /* how long a program may live after it has closed a pipe */
#define SEND_AHEAD_BYTES ((size_t)32 << 10) /* of lines sent together: half of what a pipe holds */
#define SILENCE_MIN_NS UINT64_C(50000)      /* after a pipeline, no line may come for four times what an */
#define SILENCE_MAX_NS UINT64_C(1000000)    /* event took, within these limits */

struct exec_stage {
    struct exec_pipe pipe;
    struct exec_exit exit_status; /* once the process' pid is 0 */
    struct stage_env env;
    const struct limits_config *limits; /* borrowed */
    size_t sent_together_count;         /* events whose lines were sent together */
    uint64_t sent_ns;                   /* when they were sent */
};

/* ---- failures of the program ---- */

/*
 * Removes the program's pid from the slot. Called before the program is reaped: after that the pid may belong
 * to another process, which the supervisor must not kill.
 */
static void clear_program_pid(struct exec_stage *stage)
{
    if (stage->env.on_program != NULL)
        stage->env.on_program(0, stage->env.user);
}

/* Writes how the stage's program ended, by exit code or signal, as text for logs and crash records. The
 * worker of an exec stage calls it after it has reaped the program. */
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

/* Reports that the program of an exec stage closed its input or output, most often because it has ended:
 * reaps it, and kills it first if it still runs. `when_text` continues the message, such as " before it
 * answered". The text also shows the unfinished line that the program wrote last. Runs in a worker. */
static void report_closed_pipe(struct exec_stage *stage, const char *when_text, struct stage_failure *failure)
{
    char what_happened[128], partial_text[200] = "";
    const struct exec_pipe *pipe = &stage->pipe;

    clear_program_pid(stage);
    bool is_still_running =
        stage_exec_process_wait(&stage->pipe.process, CLOSED_WAIT_MS, &stage->exit_status) != 0;
    if (is_still_running)
        stage_exec_process_kill(&stage->pipe.process, &stage->exit_status);
    if (is_still_running)
        snprintf(what_happened, sizeof what_happened, "program closed its %s but went on running",
                 pipe->process.stdin_fd < 0 ? "input" : "output");
    else
        describe_exit(&stage->exit_status, what_happened, sizeof what_happened);
    if (pipe->answers_bytes > pipe->partial_line_offset)
        stage_exec_answer_quote(pipe->answers + pipe->partial_line_offset,
                                pipe->answers_bytes - pipe->partial_line_offset, partial_text,
                                sizeof partial_text);
    failure->kind = is_still_running ? SHM_CAUSE_MALFORMED : stage->exit_status.kind;
    failure->code = is_still_running ? 0 : stage->exit_status.code;
    snprintf(failure->message, sizeof failure->message, "%s%s%s%s", what_happened, when_text,
             partial_text[0] != '\0' ? ", after half a line: " : "", partial_text);
}

/* Kills the stage's program and reports `message` as the failure, because the program's answers can no
 * longer be trusted. The worker then exits; a new worker starts a new program. */
static void kill_program_and_report(struct exec_stage *stage, const char *message,
                                    struct stage_failure *failure)
{
    clear_program_pid(stage);
    stage_exec_process_kill(&stage->pipe.process, &stage->exit_status);
    failure->kind = SHM_CAUSE_MALFORMED;
    failure->code = 0;
    snprintf(failure->message, sizeof failure->message, "%s", message);
}

/* Kills the stage's program because it wrote an unexpected line. The failure's message is the problem,
 * such as "wrote more than one line for one event", and the line itself. Runs in a worker. */
static void kill_program_and_report_line(struct exec_stage *stage, const char *problem, struct json_span line,
                                         struct stage_failure *failure)
{
    char shown_line[200], message[SHM_TEXT_BYTES];

    stage_exec_answer_quote(line.at, line.bytes, shown_line, sizeof shown_line);
    snprintf(message, sizeof message, "%s: %s", problem, shown_line);
    kill_program_and_report(stage, message, failure);
}

/* Reports why the worker can no longer talk to the stage's program, and kills the program if it still
 * runs. unexpected_text is the message for a line that no event asked for, such as "wrote more than one
 * line for one event"; ended_text says when the program ended, such as " before it answered". */
static void report_pipe_failure(struct exec_stage *stage, enum exec_pipe_state state,
                                const char *unexpected_text, const char *ended_text,
                                struct stage_failure *failure)
{
    const struct exec_pipe *pipe = &stage->pipe;

    switch (state) {
    case EXEC_PIPE_UNEXPECTED:
        kill_program_and_report_line(stage, unexpected_text, stage_exec_pipe_find_unexpected(pipe), failure);
        return;
    case EXEC_PIPE_TOO_LONG:
        kill_program_and_report_line(stage, "answered a line of more than 64 MiB",
                                     (struct json_span){pipe->answers + pipe->partial_line_offset,
                                                        pipe->answers_bytes - pipe->partial_line_offset},
                                     failure);
        return;
    case EXEC_PIPE_NO_MEMORY:
        kill_program_and_report(stage, "out of memory for the program's answer", failure);
        return;
    default:
        report_closed_pipe(stage, ended_text, failure);
        return;
    }
}

/* ---- events ---- */

/* Adds an event's JSON line to the lines that the worker sends to the stage's program. Returns NULL, or
 * the reason why nothing was added. The line may have no line feed inside, because it would shift all
 * later answers. */
static const char *add_event_line(struct exec_pipe *pipe, struct ep_call *call)
{
    size_t old_bytes = pipe->event_lines.bytes;
    const char *problem = NULL;
    int code = stage_call_write_json(call, &pipe->event_lines);

    /* The store holds only valid JSON. A line feed in it would shift all later answers, so check again. */
    if (code != 0)
        problem = "out of memory for the event";
    else if (memchr(pipe->event_lines.text + old_bytes, '\n', pipe->event_lines.bytes - old_bytes) != NULL)
        problem = "the event is not valid JSON";
    base_text_append(&pipe->event_lines, "\n");
    if (problem == NULL && pipe->event_lines.failed)
        problem = "out of memory for the event";
    if (problem == NULL) {
        pipe->answers_due_count++;
        return NULL;
    }
    pipe->event_lines.failed = false;
    pipe->event_lines.bytes = old_bytes;
    return problem;
}

/* Adds an event to those that go to the stage's program in one write (a pipeline), so that neither side
 * sleeps between events. Returns false if the event does not fit, or with limits.cpu; it is then sent when
 * its turn comes. The worker's loop calls it for several events in a row. */
static bool exec_send_ahead(void *state, struct ep_call *call)
{
    struct exec_stage *stage = state;
    struct exec_pipe *pipe = &stage->pipe;

    if (pipe->process.pid == 0 || pipe->has_begun_sending || stage->limits->cpu_ms > 0)
        return false;
    size_t old_bytes = pipe->event_lines.bytes;
    if (call->event_bytes + call->context_bytes >= SEND_AHEAD_BYTES - old_bytes ||
        add_event_line(pipe, call) != NULL)
        return false;
    if (pipe->event_lines.bytes <= SEND_AHEAD_BYTES)
        return true;
    pipe->event_lines.bytes = old_bytes;
    pipe->answers_due_count--;
    return false;
}

/* Prepares the pipe for sending events to the stage's program and renews the program's CPU limit. Returns
 * EXEC_PIPE_STILL_OPEN, or why the program cannot be used any more. Runs in a worker. */
static enum exec_pipe_state begin_sending(struct exec_stage *stage)
{
    enum exec_pipe_state state = stage_exec_pipe_begin_sending(&stage->pipe);

    stage->sent_together_count = stage->pipe.answers_due_count;
    if (stage->sent_together_count > 1)
        stage->sent_ns = shm_now_ns();
    if (state == EXEC_PIPE_STILL_OPEN) /* if the program has just ended, the next read finds it */
        config_limits_renew_cpu(stage->pipe.process.pid, stage->limits);
    return state;
}

/* Waits a moment after the last answer to events that were sent to the stage's program together. A line
 * that comes now shows that earlier answers may belong to other events. Returns EXEC_PIPE_STILL_OPEN if
 * none comes. Runs in a worker. */
static enum exec_pipe_state wait_for_extra_line(struct exec_stage *stage)
{
    uint64_t wait_ns = (shm_now_ns() - stage->sent_ns) / stage->sent_together_count * 4;

    if (wait_ns < SILENCE_MIN_NS)
        wait_ns = SILENCE_MIN_NS;
    if (wait_ns > SILENCE_MAX_NS)
        wait_ns = SILENCE_MAX_NS;
    return stage_exec_pipe_check_silent(&stage->pipe, wait_ns);
}

/* Sends one event to the stage's program, unless it was sent ahead, and reads its answer into the call.
 * After the last of several events sent together it also checks that no extra line follows. Returns
 * STAGE_ANSWERED, also with an error answer if out of memory, or STAGE_BROKEN if the program has ended or
 * failed; the worker then exits. */
static enum stage_result exchange_event(struct exec_stage *stage, struct ep_call *call,
                                        struct stage_failure *failure)
{
    static const char unasked_text[] = "wrote a line without having been asked";
    struct exec_pipe *pipe = &stage->pipe;
    enum exec_pipe_state state;
    struct json_span line;

    if (!pipe->has_begun_sending && (state = begin_sending(stage)) != EXEC_PIPE_STILL_OPEN) {
        report_pipe_failure(stage, state, unasked_text, " before the event was sent", failure);
        failure->unsent = state == EXEC_PIPE_ENDED;
        return STAGE_BROKEN;
    }
    state = stage_exec_pipe_read_answer(pipe, &line);
    if (state != EXEC_PIPE_ANSWERED) {
        report_pipe_failure(stage, state, "wrote more than one line for one event", " before it answered",
                            failure);
        return STAGE_BROKEN;
    }
    char message[SHM_TEXT_BYTES] = "";
    int code = stage_exec_answer_read(line.at, line.bytes, call, message, sizeof message);
    if (code == EP_EPROTO) {
        kill_program_and_report(stage, message, failure);
        return STAGE_BROKEN;
    }
    if (code != 0) {
        call->answer = EP_ERROR;
        ep_call_set_reason(call, "out of memory for the program's answer");
    }
    if (pipe->answers_due_count == 0 && stage->sent_together_count > 1 &&
        (state = wait_for_extra_line(stage)) != EXEC_PIPE_STILL_OPEN) {
        report_pipe_failure(stage, state, unasked_text, "", failure);
        return STAGE_BROKEN;
    }
    return STAGE_ANSWERED;
}

/* Has the stage's program process one event. Returns STAGE_ANSWERED with the program's answer in the
 * call, or STAGE_BROKEN with the cause in failure, after which the worker exits. The worker's loop calls
 * it for each event. */
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
    const char *problem = pipe->answers_due_count == 0 ? add_event_line(pipe, call) : NULL;
    if (problem != NULL) {
        call->answer = EP_ERROR;
        ep_call_set_reason(call, "%s", problem);
        stage_exec_pipe_reset(pipe);
        return STAGE_ANSWERED;
    }
    enum stage_result result = exchange_event(stage, call, failure);
    if (result == STAGE_BROKEN || pipe->answers_due_count == 0)
        stage_exec_pipe_reset(pipe);
    return result;
}

/* ---- the table ---- */

/* Starts the stage's program. A worker calls it once, when it starts. Returns 0, or an error code with a
 * message: the supervisor counts that as a failed start and tries again later. */
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
        return base_error_set(error, EP_ESYSTEM, "cannot run %s: cannot set its limit of cpu: %s",
                              config->exec.at[0], strerror(code));
    }
    if (env->on_program != NULL)
        env->on_program(stage->pipe.process.pid, env->user);
    *state = stage;
    return 0;
}

/* Ends the stage's program: closes its stdin, waits up to wait_ms, then sends SIGTERM and a second later
 * SIGKILL. A worker calls it at a graceful shutdown; after a crash of the worker the kernel kills the
 * program instead. */
static void exec_close(void *state, uint64_t wait_ms)
{
    struct exec_stage *stage = state;

    if (stage == NULL)
        return;
    if (stage->pipe.process.pid != 0) {
        clear_program_pid(stage);
        stage_exec_process_stop(&stage->pipe.process, wait_ms);
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
