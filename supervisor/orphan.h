/* SPDX-License-Identifier: MIT */
/* Orphans: processes that an exited child of the supervisor left running. */
#ifndef SUPERVISOR_ORPHAN_H
#define SUPERVISOR_ORPHAN_H

#include <stdbool.h>

struct supervisor;

/* Makes this process the parent of its descendants' orphans (a subreaper). 0 or EP_ESYSTEM. */
int orphan_adopt(void);
/* Undoes orphan_adopt. */
void orphan_disown(void);
/* Kills every child process without a slot. True when it must be called again: it killed some, whose own
 * children then become ours, or /proc could not be read. */
bool orphan_kill(struct supervisor *supervisor);

#endif
