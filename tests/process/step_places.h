/* SPDX-License-Identifier: MIT */
/* Where to kill a process that is stepped through: at each of its system calls, and after each instruction
 * that changed a piece of memory it shares with others. */
#ifndef STEP_PLACES_H
#define STEP_PLACES_H

#include "tests/process/step_rig.h"

#define STEP_HALTS_MOST 4000

struct step_place { /* `calls` halts at system calls, then `instructions` more */
    uint32_t calls, instructions;
};

struct step_route {                    /* where its system calls are, from one run */
    uint64_t pointer[STEP_HALTS_MOST]; /* behind the call that begins at this halt; 0: a call ends here */
    uint32_t halts;
};

static inline enum step_stop step_to(pid_t pid, struct step_place place)
{
    enum step_stop stop = pid > 0 ? step_calls(pid, place.calls) : STEP_LOST;
    return stop == STEP_HALTED ? step_on(pid, place.instructions) : stop;
}

/* Runs a process that step_fork gave to its second mark, and ends it. */
static inline void step_find_route(pid_t pid, struct step_route *route)
{
    route->halts = 0;
    while (pid > 0 && route->halts < STEP_HALTS_MOST && step_calls(pid, 1) == STEP_HALTED) {
        struct __ptrace_syscall_info info;
        ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof info, &info);
        route->pointer[route->halts++] = info.op == PTRACE_SYSCALL_INFO_ENTRY ? info.instruction_pointer : 0;
    }
    step_kill(pid);
}

/* Steps another such process through the same route, and notes after which instructions the memory was
 * another (and, in the long form, other instructions). Returns how many places; counts the instructions. */
static inline uint32_t step_find_places(pid_t pid, const struct step_route *route, const void *memory,
                                        size_t bytes, struct step_place *places, uint32_t most,
                                        uint32_t *instructions)
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

#endif
