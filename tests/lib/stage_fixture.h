/* SPDX-License-Identifier: MIT */
/* What the stage tests share: a call to run, and looks at what became of it. */
#ifndef TESTS_LIB_STAGE_FIXTURE_H
#define TESTS_LIB_STAGE_FIXTURE_H

#include "src/stage/stage.h"
#include "tests/lib/unit.h"

/* An event "u-1" of quakes at its stage locate, to be closed. */
void stage_fixture_call(struct ep_call *call, const char *event, const char *context);
const struct stage_env *stage_fixture_env(void);

/* Says what was found when it is not what was expected. */
bool stage_fixture_same(const char *found, const char *expected);
bool stage_fixture_contains(const char *found, const char *part);

#endif
