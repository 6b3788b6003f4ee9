/* SPDX-License-Identifier: MIT */
/*
 * Exec stages: any program, one co-process per worker, fed one JSON line per event and answering one JSON
 * line (exec_talk.c). Runs in workers. Owns the co-process.
 *
 * Invariants
 *  1. Lines of several events may be sent together (exec_ahead), so that neither side sleeps for each: they
 * fit into the pipe, and the calls come in the same order. An answer too many after them would be taken for
 * the next event's; so a volley ends with a moment in which none may come. Whoever runs it believes its
 * answers only then.
 *  2. When the co-process dies, closes its output or talks nonsense it is reaped (killed first where it
 * lives), the slot forgets it, and every later call says STAGE_BROKEN: a new worker starts a new one.
 *  3. No time limit here: the supervisor kills a worker that overruns, and the co-process goes with it.
 *  4. With a limit of CPU time, which is set anew for each event, each goes alone.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/slot.h" /* shm_now_ns */
#include "src/stage/exec_answer.h"
#include "src/stage/exec_pipe.h"
#include "src/config/limits.h"

#define CLOSED_WAIT_MS 1000             /* between the end of its output and its own */
#define AHEAD_BYTES ((size_t)32 << 10)  /* of lines sent together: half of what a pipe holds */
#define QUIET_LEAST_NS UINT64_C(50000)  /* a volley's last moment: four times what an event took, */
#define QUIET_MOST_NS UINT64_C(1000000) /* within these */

struct exec_stage {
    struct exec_talk talk;
    struct exec_death death; /* once the process' pid is 0 */
    struct stage_env env;
    const struct limits_config *limits; /* borrowed */
    size_t volley;                      /* events that were sent together */
    uint64_t begin_ns;                  /* when */
};

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
 * buffer. */
static void break_ended(struct exec_stage *stage, const char *when, struct stage_breakage *breakage)
{
    char how[128], half[200] = "";
    const struct exec_talk *talk = &stage->talk;

    forget(stage);
    bool closed_only = exec_process_wait(&stage->talk.process, CLOSED_WAIT_MS, &stage->death) != 0;
    if (closed_only)
        exec_process_kill(&stage->talk.process, &stage->death);
    if (closed_only)
        snprintf(how, sizeof how, "co-process closed its %s but went on running",
                 talk->process.input < 0 ? "input" : "output");
    else
        say_death(&stage->death, how, sizeof how);
    if (talk->end > talk->tail)
        exec_answer_show(talk->answers + talk->tail, talk->end - talk->tail, half, sizeof half);
    breakage->kind = closed_only ? SHM_CAUSE_NONSENSE : stage->death.kind;
    breakage->code = closed_only ? 0 : stage->death.code;
    snprintf(breakage->words, sizeof breakage->words, "%s%s%s%s", how, when,
             half[0] != '\0' ? ", after half a line: " : "", half);
}

static void break_nonsense(struct exec_stage *stage, const char *words, struct stage_breakage *breakage)
{
    forget(stage);
    exec_process_kill(&stage->talk.process, &stage->death);
    breakage->kind = SHM_CAUSE_NONSENSE;
    breakage->code = 0;
    snprintf(breakage->words, sizeof breakage->words, "%s", words);
}

static void break_shown(struct exec_stage *stage, const char *what, struct json_span line,
                        struct stage_breakage *breakage)
{
    char shown[200], words[SHM_TEXT_BYTES];

    exec_answer_show(line.at, line.bytes, shown, sizeof shown);
    snprintf(words, sizeof words, "%s: %s", what, shown);
    break_nonsense(stage, words, breakage);
}

/* What broke the talk; `stray` and `ended` say when that was. */
static void break_talk(struct exec_stage *stage, enum exec_talk_state state, const char *stray,
                       const char *ended, struct stage_breakage *breakage)
{
    const struct exec_talk *talk = &stage->talk;

    switch (state) {
    case TALK_STRAY:
        break_shown(stage, stray, exec_talk_stray(talk), breakage);
        return;
    case TALK_TOO_LONG:
        break_shown(stage, "answered a line of more than 64 MiB",
                    (struct json_span){talk->answers + talk->tail, talk->end - talk->tail}, breakage);
        return;
    case TALK_NO_MEMORY:
        break_nonsense(stage, "out of memory for an answer", breakage);
        return;
    default:
        break_ended(stage, ended, breakage);
        return;
    }
}

/* ---- events ---- */

/* Adds an event to what is sent. NULL, or why not; then nothing was added. */
static const char *add_event(struct exec_talk *talk, struct ep_call *call)
{
    size_t before = talk->line.bytes;
    const char *why = NULL;
    int code = call_document(call, &talk->line);

    /* The store holds only what was valid; but half a line would put the co-process out of step for good. */
    if (code != 0)
        why = "out of memory for the event";
    else if (memchr(talk->line.text + before, '\n', talk->line.bytes - before) != NULL)
        why = "the event is not valid JSON";
    json_out_words(&talk->line, "\n");
    if (why == NULL && talk->line.failed)
        why = "out of memory for the event";
    if (why == NULL) {
        talk->due++;
        return NULL;
    }
    talk->line.failed = false;
    talk->line.bytes = before;
    return why;
}

static bool exec_ahead(void *state, struct ep_call *call)
{
    struct exec_stage *stage = state;
    struct exec_talk *talk = &stage->talk;

    if (talk->process.pid == 0 || talk->begun || stage->limits->cpu_ms > 0)
        return false;
    size_t before = talk->line.bytes;
    if (call->event_bytes + call->context_bytes >= AHEAD_BYTES - before || add_event(talk, call) != NULL)
        return false;
    if (talk->line.bytes <= AHEAD_BYTES)
        return true;
    talk->line.bytes = before;
    talk->due--;
    return false;
}

static enum exec_talk_state begin(struct exec_stage *stage)
{
    enum exec_talk_state state = exec_talk_begin(&stage->talk);

    stage->volley = stage->talk.due;
    if (stage->volley > 1)
        stage->begin_ns = shm_now_ns();
    if (state == TALK_GOES_ON) /* where it has ended just now, that is found later */
        limits_renew_cpu(stage->talk.process.pid, stage->limits);
    return state;
}

/* The last of a volley is answered: is that all? */
static enum exec_talk_state end_volley(struct exec_stage *stage)
{
    uint64_t wait_ns = (shm_now_ns() - stage->begin_ns) / stage->volley * 4;

    if (wait_ns < QUIET_LEAST_NS)
        wait_ns = QUIET_LEAST_NS;
    if (wait_ns > QUIET_MOST_NS)
        wait_ns = QUIET_MOST_NS;
    return exec_talk_quiet(&stage->talk, wait_ns);
}

static enum stage_result talk_with(struct exec_stage *stage, struct ep_call *call,
                                   struct stage_breakage *breakage)
{
    static const char unasked[] = "wrote a line without having been asked";
    struct exec_talk *talk = &stage->talk;
    enum exec_talk_state state;
    struct json_span line;

    if (!talk->begun && (state = begin(stage)) != TALK_GOES_ON) {
        break_talk(stage, state, unasked, " before the event was sent", breakage);
        breakage->unsent = state == TALK_ENDED;
        return STAGE_BROKEN;
    }
    state = exec_talk_answer(talk, &line);
    if (state != TALK_ANSWERED) {
        break_talk(stage, state, "wrote more than one line for one event", " before it answered", breakage);
        return STAGE_BROKEN;
    }
    char words[SHM_TEXT_BYTES] = "";
    int code = exec_answer_read(line.at, line.bytes, call, words, sizeof words);
    if (code == EP_EGARBAGE) {
        break_nonsense(stage, words, breakage);
        return STAGE_BROKEN;
    }
    if (code != 0) {
        call->answer = EP_ERROR;
        ep_call_words(call, "out of memory for the answer");
    }
    if (talk->due == 0 && stage->volley > 1 && (state = end_volley(stage)) != TALK_GOES_ON) {
        break_talk(stage, state, unasked, "", breakage);
        return STAGE_BROKEN;
    }
    return STAGE_ANSWERED;
}

static enum stage_result exec_process_event(void *state, struct ep_call *call,
                                            struct stage_breakage *breakage)
{
    struct exec_stage *stage = state;
    struct exec_talk *talk = &stage->talk;

    if (talk->process.pid == 0) {
        breakage->kind = stage->death.kind;
        breakage->code = stage->death.code;
        say_death(&stage->death, breakage->words, sizeof breakage->words);
        return STAGE_BROKEN;
    }
    const char *why = talk->due == 0 ? add_event(talk, call) : NULL;
    if (why != NULL) {
        call->answer = EP_ERROR;
        ep_call_words(call, "%s", why);
        exec_talk_reset(talk);
        return STAGE_ANSWERED;
    }
    enum stage_result result = talk_with(stage, call, breakage);
    if (result == STAGE_BROKEN || talk->due == 0)
        exec_talk_reset(talk);
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
    int code = exec_process_start(config, env, &stage->talk.process, error);
    if (code != 0) {
        free(stage);
        return code;
    }
    stage->limits = &config->limits;
    code = limits_renew_cpu(stage->talk.process.pid, stage->limits);
    if (code != 0) {
        exec_process_kill(&stage->talk.process, &stage->death);
        exec_process_close(&stage->talk.process);
        free(stage);
        return error_set(error, EP_ESYSTEM, "cannot run %s: its limit of cpu: %s", config->exec.at[0],
                         strerror(code));
    }
    if (env->coprocess != NULL)
        env->coprocess(stage->talk.process.pid, env->user);
    *state = stage;
    return 0;
}

static void exec_close(void *state, uint64_t wait_ms)
{
    struct exec_stage *stage = state;

    if (stage == NULL)
        return;
    if (stage->talk.process.pid != 0) {
        forget(stage);
        exec_process_end(&stage->talk.process, wait_ms);
    }
    exec_talk_close(&stage->talk);
    free(stage);
}

const struct stage_ops stage_exec_ops = {
    .kind = "exec",
    .open = exec_open,
    .ahead = exec_ahead,
    .process = exec_process_event,
    .close = exec_close,
};
