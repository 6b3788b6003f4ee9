/* SPDX-License-Identifier: MIT */
/*
 * Writes a cJSON tree as text without loss. cJSON keeps numbers as doubles and compares them with a
 * tolerance. A context passes through many stages; a member that a stage does not change must keep its bytes.
 */
#ifndef STAGE_CONTEXT_H
#define STAGE_CONTEXT_H

#include <cjson/cJSON.h>

#include "src/json/json.h"

/*
 * Adds the tree to out. `kept` is the text from which the tree was parsed, or {NULL, 0}. A member whose value
 * is still the one in `kept` is written with its bytes from there. Out of memory: out->failed.
 */
void stage_context_print(struct text *out, const cJSON *tree, struct json_span kept);

#endif
