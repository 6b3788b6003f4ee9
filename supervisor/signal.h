/* SPDX-License-Identifier: MIT */
/* Signals of the supervisor, and the signal state of its children. */
#ifndef SUPERVISOR_SIGNAL_H
#define SUPERVISOR_SIGNAL_H

struct supervisor;

/* Blocks the signals that the supervisor handles and opens a descriptor to read them from. 0 or -errno. */
int signal_open(struct supervisor *supervisor);
/* Reads all pending signals and acts on them. Called by the loop. */
void signal_read(struct supervisor *supervisor);
/* Restores the caller's mask and dispositions, and drops signals that are still pending. */
void signal_restore(struct supervisor *supervisor);
/* In a new child: default dispositions, empty mask. */
void signal_reset_in_child(void);
/* In a supervisor that the library has forked with all signals blocked: default dispositions; then only the
 * signals that signal_open will read stay blocked, so that no stop is lost, and none kills. */
void signal_reset_in_supervisor(void);

#endif
