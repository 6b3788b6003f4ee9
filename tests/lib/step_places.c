/* SPDX-License-Identifier: MIT */
/* Finds the places by running the process twice: by system calls, and by instructions. */
#include "tests/lib/step_places.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>

enum step_stop step_to(pid_t pid, struct step_place place)
{
    enum step_stop stop = pid > 0 ? step_calls(pid, place.calls) : STEP_LOST;
    return stop == STEP_HALTED ? step_on(pid, place.instructions) : stop;
}

void step_find_route(pid_t pid, struct step_route *route)
{
    route->halts = 0;
    while (pid > 0 && route->halts < STEP_HALTS_MOST && step_calls(pid, 1) == STEP_HALTED) {
        struct __ptrace_syscall_info info;
        ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof info, &info);
        route->pointer[route->halts++] = info.op == PTRACE_SYSCALL_INFO_ENTRY ? info.instruction_pointer : 0;
    }
    step_kill(pid);
}

uint32_t step_find_places(pid_t pid, const struct step_route *route, const void *memory, size_t bytes,
                          struct step_place *places, uint32_t most, uint32_t *instructions)
{
    uint32_t count = 0, halt = 0;
    struct step_place at = {0, 0};
    void *before = malloc(bytes);
    if (before != NULL)
        memcpy(before, memory, bytes);
    for (; pid > 0 && before != NULL && step_on(pid, 1) == STEP_HALTED && count < most; ++*instructions) {
        struct __ptrace_syscall_info info;
        ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof info, &info);
        at.instructions++;
        if (halt < route->halts && info.instruction_pointer == route->pointer[halt]) {
            at = (struct step_place){halt + 2, 0}; /* the call and its end are one step */
            halt += 2;
        }
        bool changed = memcmp(before, memory, bytes) != 0;
        if (changed || step_takes(*instructions))
            places[count++] = at;
        if (changed)
            memcpy(before, memory, bytes);
    }
    step_kill(pid);
    free(before);
    return count;
}
