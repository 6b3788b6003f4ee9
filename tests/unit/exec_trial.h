/* SPDX-License-Identifier: MIT */
/* What the tests of exec stages share: one stage that runs a program. */
#ifndef EXEC_TRIAL_H
#define EXEC_TRIAL_H

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/stage_fixture.h"

static pid_t told; /* what env.coprocess was told last */

static void tell(pid_t pid, void *user)
{
    (void)user;
    told = pid;
}

struct trial {
    struct stage_config config;
    struct stage_env env;
    char *argv[4];
    char *environment[8];
    void *state;
    struct stage_breakage breakage;
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
    trial->config.kind = STAGE_EXEC;
    trial->config.exec = (struct strings){trial->argv, script != NULL ? 3 : 1};
    if (script == NULL)
        trial->argv[1] = NULL;
    trial->config.environment = (struct strings){trial->environment, 0};
    trial->env = *fixture_env();
    trial->env.coprocess = tell;
    trial->env.group = getpgrp();
    told = 0;
}

static bool trial_start(struct trial *trial)
{
    int code = stage_ops_for(STAGE_EXEC)->open(&trial->config, &trial->env, &trial->state, &trial->error);
    if (code != 0)
        fprintf(stderr, "\n%s\n", trial->error.words);
    return code == 0;
}

/* Waits for the end of the program that was told last; its parent still finds how it ended. */
static inline void wait_for_end(void)
{
    siginfo_t end;
    CU_ASSERT_EQUAL(waitid(P_PID, (id_t)told, &end, WEXITED | WNOWAIT), 0);
}

#endif
