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

/* Checks that a plugin or function has a stage description of this version's ABI with a process
 * function. Returns 0, or EP_EINVAL with a message that begins with stage_label. Without this check a
 * plugin of another ABI would crash its worker. Runs in a starting worker, and for a plugin also in
 * `eventpiped -t` and `eventpipe check`. */
int stage_native_check(const struct ep_stage *stage, const char *stage_label, struct error *error)
{
    if (stage == NULL)
        return base_error_set(error, EP_EINVAL, "%s: there is no stage description", stage_label);
    if (stage->abi != EP_STAGE_ABI)
        return base_error_set(
            error, EP_EINVAL,
            "%s: made for stage ABI %u, but this eventpipe has ABI %u: build it again with the "
            "eventpipe.h of this version",
            stage_label, stage->abi, EP_STAGE_ABI);
    if (stage->process == NULL)
        return base_error_set(error, EP_EINVAL, "%s: its stage description has no process function",
                              stage_label);
    return 0;
}

/* Checks the description of a plugin or function and calls its init with the stage's options. Returns 0,
 * or an error code with the message that init gave; that is a failed start. A worker calls it once, when
 * it starts. */
int stage_native_open(struct native *native, const struct stage_config *config, const char *stage_label,
                      void *user, struct error *error)
{
    int code = stage_native_check(native->stage, stage_label, error);
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
                              "%s: its init failed with code %d and gave no message", stage_label, code);
    return base_error_set(error, code < 0 ? code : EP_EINVAL, "%s: %s", stage_label, errbuf);
}

/* Calls the process function of a plugin or function for one event. Always returns STAGE_ANSWERED; an
 * invalid answer becomes an error answer. The C code runs in the worker itself, so a crash there ends
 * the worker. The worker's loop calls it. */
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

/* Opens a stage that a program has registered with the library as a C function. Returns 0 or an error
 * code with a message. A worker of that program calls it when it starts. */
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

/* Calls the fini of a function stage and frees the stage's state. A worker calls it at a graceful
 * shutdown. Accepts NULL. */
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
