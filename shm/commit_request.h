/* SPDX-License-Identifier: MIT */
/*
 * Commit requests: a worker that finds the write lock held writes its answers to the commit request of its
 * slot, and the next worker that writes commits them together with its own. The meaning of the bytes is
 * not known here.
 */
#ifndef SHM_COMMIT_REQUEST_H
#define SHM_COMMIT_REQUEST_H

#include "shm/segment.h"

#define COMMIT_REQUEST_RESULTS 16 /* bits of a commit request's result */

enum commit_request_state {
    COMMIT_REQUEST_NONE,
    COMMIT_REQUEST_WAITING,  /* submitted, not taken yet */
    COMMIT_REQUEST_TAKEN,    /* in the transaction of another worker */
    COMMIT_REQUEST_DONE,     /* committed; the result says which answers applied */
    COMMIT_REQUEST_RETURNED, /* nothing of it was committed: its owner commits it itself */
    COMMIT_REQUEST_LOST      /* its taker has crashed: committed or not */
};

/* ---- the owner: one commit request at a time, between commit_request_body and commit_request_clear ---- */
char *commit_request_body(const struct segment *segment,
                          uint32_t slot); /* SHM_COMMIT_REQUEST_BYTES, 8-aligned: fill it, then */
void commit_request_submit(const struct segment *segment, uint32_t slot, uint32_t bytes);
enum commit_request_state commit_request_poll(const struct segment *segment, uint32_t slot, uint32_t *result);
/* Sleeps until there may be something new, at most timeout_ns. The owner of a WAITING request tries the
 * write lock between commit_request_poll and this. */
void commit_request_wait(const struct segment *segment, uint32_t slot, uint64_t timeout_ns);
/* Takes it back. False: another worker has taken it. */
bool commit_request_withdraw(const struct segment *segment, uint32_t slot);
void commit_request_clear(const struct segment *segment, uint32_t slot); /* the result is known */

/* ---- the holder of the write lock ---- */
/* Takes the next commit request, in the order of slots from the taker's on, and copies it into body
 * (SHM_COMMIT_REQUEST_BYTES). *step begins as 1. False: there are no more. */
bool commit_request_take(const struct segment *segment, uint32_t taker, uint32_t *step, uint32_t *slot,
                         char *body, uint32_t *bytes);
/* Sets DONE with a result, or RETURNED, when the commit is on the disk, and wakes the owner. */
void commit_request_complete(const struct segment *segment, uint32_t taker, uint32_t slot,
                             enum commit_request_state state, uint32_t result);

/* ---- a process that has released the write lock: wakes one waiting owner, which tries the lock ---- */
void commit_request_notify(const struct segment *segment, uint32_t from);

/* ---- the supervisor, for an exited process: drops its own request and makes those it had taken LOST ---- */
void commit_request_recover(const struct segment *segment, uint32_t slot);

#endif
