/* SPDX-License-Identifier: MIT */
/* HTTP stages: what stage_check asks of them. */
#ifndef STAGE_HTTP_H
#define STAGE_HTTP_H

#include "src/stage/stage.h"

/* Checks the URL and that the named files can be read; sends nothing. */
int stage_http_check(const struct stage_config *config, struct error *error);

#endif
