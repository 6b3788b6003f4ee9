/* SPDX-License-Identifier: MIT */
/* Plugin stages: what stage_check asks of them. */
#ifndef STAGE_PLUGIN_H
#define STAGE_PLUGIN_H

#include "src/stage/stage.h"

/* Loads the plugin and checks its description, without calling init. */
int stage_plugin_check(const struct stage_config *config, struct error *error);

#endif
