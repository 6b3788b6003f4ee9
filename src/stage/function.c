/* SPDX-License-Identifier: MIT */
/*
 * Stages that are C code in the worker: a library caller's function, and what plugins share with it. Runs
 * in workers.
 * Owns the struct native. The stage owns its own state from init to fini.
 *
 * A crash of such code ends the worker; the supervisor handles that. An init that fails and an invalid
 * answer are survived here: the first is returned as an error, the second becomes EP_ERROR.
 */
#include "src/stage/native.h"

#include <stdlib.h>

/* Plugin and function stages: checks a stage description: it exists, has this version's ABI and a process
 * function. `eventpiped -t`, `eventpipe check` and a starting worker call it; a plugin of another ABI
 * would crash the worker. */
int stage_native_check(const struct ep_stage *stage, const char *what, struct error *error)
{
    if (stage == NULL)
        return base_error_set(error, EP_EINVAL, "%s: there is no stage description", what);
    if (stage->abi != EP_STAGE_ABI)
        return base_error_set(
            error, EP_EINVAL,
            "%s: made for stage ABI %u, but this eventpipe has ABI %u: build it again with the "
            "eventpipe.h of this version",
            what, stage->abi, EP_STAGE_ABI);
    if (stage->process == NULL)
        return base_error_set(error, EP_EINVAL, "%s: its stage description has no process function", what);
    return 0;
}

/* Plugin and function stages: a worker calls it once when it starts; it calls the stage's init with its
 * options. A failing init is an error with the stage's message, and a failed start. */
int stage_native_open(struct native *native, const struct stage_config *config, const char *what, void *user,
                      struct error *error)
{
    int code = stage_native_check(native->stage, what, error);
    if (code != 0)
        return code;
    native->state = user;
    if (native->stage->init == NULL)
        return 0;
    char errbuf[512] = "";
    code = native->stage->init(config->options != NULL ? config->options : "{}", &native->state, errbuf,
                               sizeof errbuf);
    if (code == 0)
        return 0;
    errbuf[sizeof errbuf - 1] = '\0';
    if (errbuf[0] == '\0')
        return base_error_set(error, code < 0 ? code : EP_EINVAL,
                              "%s: its init failed with code %d and gave no message", what, code);
    return base_error_set(error, code < 0 ? code : EP_EINVAL, "%s: %s", what, errbuf);
}

/* Plugin and function stages: the worker's loop calls it for each event; it runs the stage's C code in the
 * worker itself, so a crash there ends the worker. An invalid answer becomes an error answer. */
enum stage_result stage_native_process(void *state, struct ep_call *call, struct stage_failure *failure)
{
    struct native *native = state;

    (void)failure;
    int answer = (int)native->stage->process(call, native->state);
    if (answer < EP_PROCESSED || answer > EP_ERROR) {
        ep_call_set_reason(call, "the stage returned %d, which is not an answer", answer);
        answer = EP_ERROR;
    }
    call->answer = (enum ep_answer)answer;
    return STAGE_ANSWERED;
}

void stage_native_close(struct native *native)
{
    if (native->stage->fini != NULL)
        native->stage->fini(native->state);
}

/* Function stage: a worker of a program that uses the library opens the stage that the program registered
 * as a C function. */
static int function_open(const struct stage_config *config, const struct stage_env *env, void **state,
                         struct error *error)
{
    struct native *native = calloc(1, sizeof *native);

    (void)env;
    if (native == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory");
    native->stage = config->function;
    int code = stage_native_open(native, config, "function", config->function_user, error);
    if (code != 0) {
        free(native);
        return code;
    }
    *state = native;
    return 0;
}

/* Function stage: a worker closes it at a graceful shutdown; it calls the function's fini. */
static void function_close(void *state, uint64_t wait_ms)
{
    (void)wait_ms;
    if (state != NULL)
        stage_native_close(state);
    free(state);
}

const struct stage_ops stage_function_ops = {
    .type = "function",
    .open = function_open,
    .process = stage_native_process,
    .close = function_close,
};
