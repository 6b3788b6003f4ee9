/* SPDX-License-Identifier: MIT */
/* A plugin for test_stage_plugin, made for another version of the interface. */
#include "src/eventpipe.h"

static enum ep_answer old_process(ep_call *call, void *state)
{
    (void)call;
    (void)state;
    return EP_PROCESSED;
}

EP_API extern const struct ep_stage ep_plugin_stage;
const struct ep_stage ep_plugin_stage = {.abi = EP_STAGE_ABI + 41, .name = "old", .process = old_process};
