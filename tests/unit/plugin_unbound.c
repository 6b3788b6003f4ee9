/* SPDX-License-Identifier: MIT */
/* A plugin for test_stage_plugin that needs a function nobody has: it must be refused when it is loaded. */
#include "src/eventpipe.h"

int function_that_nobody_has(void);

static enum ep_answer unbound_process(ep_call *call, void *state)
{
    (void)call;
    (void)state;
    return (enum ep_answer)function_that_nobody_has();
}

EP_API extern const struct ep_stage ep_plugin_stage;
const struct ep_stage ep_plugin_stage = {.abi = EP_STAGE_ABI, .name = "unbound", .process = unbound_process};
