/* SPDX-License-Identifier: MIT */
/* What producer, worker and keeper have in common: their slot, their store, and how they wait while the
 * store cannot be written. */
#ifndef PROCESS_PROCESS_H
#define PROCESS_PROCESS_H

#include "shm/slot.h"
#include "src/process/child_context.h"
#include "src/store/store.h"

struct process {
    const struct child_context *child;
    struct shm_header *header;
    struct shm_slot *slot;
    struct store *store;
    bool has_reported_store_failure; /* false again once the store works */
    uint64_t wal_notified_ns;        /* when it last notified the keeper of the WAL */
};

/* First thing in a child: log, title ("eventpiped: NAME"), slot. */
void process_open(struct process *process, const struct child_context *child, const char *name);
/* Opens the store, waiting while it is busy. Ends the process when it is broken, or the instance stops. */
void process_open_store(struct process *process);
/* Tells the supervisor that this child is at work. */
void process_report_ready(const struct process *process);
/* Ends the process with `code`, after it has logged the message and told the supervisor. */
void process_fail(const struct process *process, enum child_exit code, const char *message)
    __attribute__((noreturn));

/*
 * Takes the result of every store call. True: it succeeded. False: the store is busy or full; status and
 * log say so, a pause has passed, and the caller tries again. A broken store ends the process.
 */
bool process_check_store_result(struct process *process, int result);

/* Reports (status, log) that the store cannot be used now, and why; then pauses. */
void process_store_backoff(struct process *process, const char *message);

/* The process did something useful: if it exits after that, it is started again at once. */
void process_mark_progress(const struct process *process);

bool process_is_stopping(const struct process *process);
uint32_t process_get_phase(const struct process *process);
/* For a main whose arguments are no longer needed once processes are forked: their titles are written over
 * them. Without it no titles are shown, because a library's caller may still read its arguments in stages
 * and clients. */
void process_enable_titles(int argc, char **argv);
void process_set_title(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
