/* SPDX-License-Identifier: MIT */
/* One exec stage and the program it runs. */
#include "tests/lib/exec_trial.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

pid_t trial_program;

static void on_program(pid_t pid, void *user)
{
    (void)user;
    trial_program = pid;
}

void trial_with(struct trial *trial, const char *interpreter, const char *script)
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
    trial->env = *stage_fixture_env();
    trial->env.on_program = on_program;
    trial->env.process_group = getpgrp();
    trial_program = 0;
}

bool trial_start(struct trial *trial)
{
    int code = stage_ops_for(STAGE_EXEC)->open(&trial->config, &trial->env, &trial->state, &trial->error);
    if (code != 0)
        fprintf(stderr, "\n%s\n", trial->error.message);
    return code == 0;
}

void trial_wait_for_end(void)
{
    siginfo_t end;
    CU_ASSERT_EQUAL(waitid(P_PID, (id_t)trial_program, &end, WEXITED | WNOWAIT), 0);
}
