/* SPDX-License-Identifier: MIT */
/* What the tests of exec stages share: one stage that runs a program. */
#ifndef TESTS_LIB_EXEC_TRIAL_H
#define TESTS_LIB_EXEC_TRIAL_H

#include <unistd.h>

#include "tests/lib/stage_fixture.h"

extern pid_t trial_program; /* what env.on_program was told last */

struct trial {
    struct stage_config config;
    struct stage_env env;
    char *argv[4];
    char *environment[8];
    void *state;
    struct stage_failure failure;
    struct error error;
};

/* script: NULL for a program without arguments. */
void trial_with(struct trial *trial, const char *interpreter, const char *script);

/* Opens the stage; prints why it could not. */
bool trial_start(struct trial *trial);

/* Waits for the end of the program that was told last; its parent still finds how it ended. */
void trial_wait_for_end(void);

#endif
