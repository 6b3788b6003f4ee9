/* SPDX-License-Identifier: MIT */
/* Where to kill a process that is stepped through: at each of its system calls, and after each instruction
 * that changed a piece of memory it shares with others. */
#ifndef TESTS_LIB_STEP_PLACES_H
#define TESTS_LIB_STEP_PLACES_H

#include "tests/lib/step_rig.h"

#define STEP_HALTS_MOST 4000

struct step_place { /* `calls` halts at system calls, then `instructions` more */
    uint32_t calls, instructions;
};

struct step_route {                    /* where its system calls are, from one run */
    uint64_t pointer[STEP_HALTS_MOST]; /* behind the call that begins at this halt; 0: a call ends here */
    uint32_t halts;
};

/* Brings a process that step_fork gave to a place. */
enum step_stop step_to(pid_t pid, struct step_place place);

/* Runs a process that step_fork gave to its second mark, and ends it. */
void step_find_route(pid_t pid, struct step_route *route);

/* Steps another such process through the same route, and notes after which instructions the memory was
 * another (and, in the long form, other instructions). Returns how many places; counts the instructions. */
uint32_t step_find_places(pid_t pid, const struct step_route *route, const void *memory, size_t bytes,
                          struct step_place *places, uint32_t most, uint32_t *instructions);

#endif
