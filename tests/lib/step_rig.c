/* SPDX-License-Identifier: MIT */
/* Steps a process with ptrace. */
#include "tests/lib/step_rig.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#define STEP_SKIP 77

void step_mark(void)
{
    kill(getpid(), SIGSTOP);
}

void step_kill(pid_t pid)
{
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

pid_t step_fork(void (*body)(void *user), void *user)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(STEP_SKIP);
        body(user);
        _exit(EXIT_SUCCESS);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP ||
        ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)) != 0) {
        if (WIFSTOPPED(status))
            step_kill(pid);
        return -1;
    }
    return pid;
}

enum step_stop step_wait(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        return STEP_LOST;
    if (WSTOPSIG(status) == SIGSTOP)
        return STEP_DONE;
    return WSTOPSIG(status) == SIGTRAP || WSTOPSIG(status) == (SIGTRAP | 0x80) ? STEP_HALTED : STEP_LOST;
}

enum step_stop step_on(pid_t pid, uint32_t count)
{
    enum step_stop stop = STEP_HALTED;
    while (count-- > 0 && stop == STEP_HALTED) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0)
            return STEP_LOST;
        stop = step_wait(pid);
    }
    return stop;
}

enum step_stop step_calls(pid_t pid, uint32_t count)
{
    enum step_stop stop = STEP_HALTED;
    while (count-- > 0 && stop == STEP_HALTED) {
        if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) != 0)
            return STEP_LOST;
        stop = step_wait(pid);
    }
    return stop;
}

enum step_stop step_finish(pid_t pid)
{
    return ptrace(PTRACE_CONT, pid, NULL, NULL) == 0 ? step_wait(pid) : STEP_LOST;
}

static void step_nothing(void *user)
{
    (void)user;
    step_mark();
    step_mark();
}

void step_or_skip(void)
{
    const char *sanitizers = getenv("sanitizers");
    if (sanitizers != NULL && strstr(sanitizers, "san") != NULL) {
        printf("skipped: instruction by instruction is for code without sanitizers (%s)\n", sanitizers);
        exit(STEP_SKIP);
    }
    pid_t pid = step_fork(step_nothing, NULL);
    if (pid < 0 || step_on(pid, 1) != STEP_HALTED) {
        printf("skipped: no process may be traced here, or not step by step\n");
        step_kill(pid);
        exit(STEP_SKIP);
    }
    step_kill(pid);
}

bool step_long(void)
{
    return getenv("STEP_LONG") != NULL;
}

bool step_takes(uint32_t instruction)
{
    unsigned long every = step_long() ? strtoul(getenv("STEP_LONG"), NULL, 10) : 0;
    return every > 0 && instruction % every == 0;
}

char step_state(pid_t pid)
{
    char path[40], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 'Z';
    const char *end = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
    fclose(file);
    return end != NULL && end[1] == ' ' ? end[2] : 'Z';
}

bool step_asleep(pid_t pid)
{
    for (int tries = 0; tries < STEP_PATIENCE_MS * 10; tries++) {
        char state = step_state(pid);
        if (state == 'Z')
            return false;
        if (state == 'S')
            return true;
        if (tries > 100)
            usleep(100);
    }
    return false;
}
