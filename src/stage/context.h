/* SPDX-License-Identifier: MIT */
/*
 * A cJSON tree as text, without loss. cJSON keeps numbers as doubles and compares them with some tolerance; a
 * context passes through many stages, and what one of them does not touch must reach the next as the very
 * bytes that came.
 */
#ifndef STAGE_CONTEXT_H
#define STAGE_CONTEXT_H

#include <cjson/cJSON.h>

#include "src/json/json.h"

/*
 * Adds the tree to out. `kept` is the text the tree was parsed from, or {NULL, 0}: every member that still
 * has the value it had there is written with its bytes of then. Failure for want of memory: out->failed.
 */
void stage_context_print(struct json_out *out, const cJSON *tree, struct json_span kept);

#endif
