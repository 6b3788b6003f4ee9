/* SPDX-License-Identifier: MIT */
/* What the tests of exec stages share: one stage that runs a program. */
#ifndef EXEC_TRIAL_H
#define EXEC_TRIAL_H

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/stage_fixture.h"

static pid_t program_reported; /* what env.on_program was told last */

static void on_program(pid_t pid, void *user)
{
    (void)user;
    program_reported = pid;
}

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
static void trial_with(struct trial *trial, const char *interpreter, const char *script)
{
    memset(trial, 0, sizeof *trial);
    trial->argv[0] = (char *)interpreter;
    trial->argv[1] = "-c";
    trial->argv[2] = (char *)script;
    trial->config.name = "locate";
    trial->config.type = STAGE_EXEC;
    trial->config.exec = (struct strings){trial->argv, script != NULL ? 3 : 1};
    if (script == NULL)
        trial->argv[1] = NULL;
    trial->config.environment = (struct strings){trial->environment, 0};
    trial->env = *fixture_env();
    trial->env.on_program = on_program;
    trial->env.process_group = getpgrp();
    program_reported = 0;
}

static bool trial_start(struct trial *trial)
{
    int code = stage_ops_for(STAGE_EXEC)->open(&trial->config, &trial->env, &trial->state, &trial->error);
    if (code != 0)
        fprintf(stderr, "\n%s\n", trial->error.message);
    return code == 0;
}

/* Waits for the end of the program that was told last; its parent still finds how it ended. */
static inline void wait_for_end(void)
{
    siginfo_t end;
    CU_ASSERT_EQUAL(waitid(P_PID, (id_t)program_reported, &end, WEXITED | WNOWAIT), 0);
}

#endif
