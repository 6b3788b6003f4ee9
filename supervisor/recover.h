/* SPDX-License-Identifier: MIT */
/* What the supervisor does after a process has exited. */
#ifndef SUPERVISOR_RECOVER_H
#define SUPERVISOR_RECOVER_H

#include <stdint.h>

#include "supervisor/child.h"
#include "supervisor/restart.h"

struct supervisor;

/* Reaps and recovers every child that has exited, and kills their orphans. Called on SIGCHLD. Never
 * blocks. */
void recover_children(struct supervisor *supervisor);
/* Clears a slot without a process and decides when the next one starts. Called after an exit, and by
 * child_start when a process could not be started. */
void recover_slot(struct supervisor *supervisor, struct child *child, const struct restart_life *life);
/* Puts events that fell out of a ring of this source back into it, as far as there is room. */
void recover_requeue(struct supervisor *supervisor, uint32_t source_index);

#endif
