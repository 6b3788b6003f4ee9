/* SPDX-License-Identifier: MIT */
/* A plugin for test_stage_plugin: a description without a process function. */
#include "src/eventpipe.h"

EP_API extern const struct ep_stage ep_plugin_stage;
const struct ep_stage ep_plugin_stage = {.abi = EP_STAGE_ABI, .name = "idle"};
