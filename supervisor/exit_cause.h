/* SPDX-License-Identifier: MIT */
/* Why a process exited, and which event is blamed: policy only. Reads the segment and changes nothing. */
#ifndef SUPERVISOR_EXIT_CAUSE_H
#define SUPERVISOR_EXIT_CAUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/segment.h"
#include "supervisor/child.h"

#define EXIT_OUTPUT_BYTES 400

struct supervisor;

struct exit_cause {
    int status;                          /* as waitpid returned it */
    bool clean;                          /* the process was to exit: no crash */
    uint32_t ticket;                     /* of the event it crashed with, SHM_NO_TICKET = none */
    enum shm_cause_kind kind;            /* SHM_CAUSE_NONE: no event is blamed */
    int code;                            /* exit code or signal number, as `kind` says */
    char how[SHM_TEXT_BYTES];            /* "signal 11 (Segmentation fault)" */
    char last_output[EXIT_OUTPUT_BYTES]; /* its last stderr output */
    char message[SHM_TEXT_BYTES];        /* `how`, and `last_output` after a crash */
};

/* Fills `out` for a reaped child. Its output must have been read, its slot and tickets must still be as
 * it left them. */
void exit_cause_find(const struct supervisor *supervisor, const struct child *child, int status,
                     struct exit_cause *out);
/* Whether the worker's program had been sent several events at once. */
bool exit_cause_had_several_events(const struct shm_slot *slot);

#endif
