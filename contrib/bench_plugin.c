/* SPDX-License-Identifier: MIT */
/* A plugin that does nothing. */
#include "src/eventpipe.h"

static enum ep_answer process(ep_call *call, void *state)
{
    (void)call;
    (void)state;
    return EP_PROCESSED;
}

const struct ep_stage ep_plugin_stage = {.abi = EP_STAGE_ABI, .name = "no-op", .process = process};
