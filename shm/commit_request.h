/* SPDX-License-Identifier: MIT */
/*
 * Commit requests: a worker that finds the write lock held lays its answers out in its slot's commit request, and whoever
 * writes next commits them together with its own. What the bytes mean is not known here.
 */
#ifndef SHM_COMMIT_REQUEST_H
#define SHM_COMMIT_REQUEST_H

#include "shm/segment.h"

#define COMMIT_REQUEST_RESULTS 16 /* bits of a commit request's result */

enum commit_request_state {
    COMMIT_REQUEST_NONE,
    COMMIT_REQUEST_WAITING,  /* made, and nobody has taken it */
    COMMIT_REQUEST_TAKEN,    /* in the transaction of another */
    COMMIT_REQUEST_DONE,     /* committed; the result says what of it */
    COMMIT_REQUEST_RETURNED, /* not committed, nothing of it: its owner does it itself */
    COMMIT_REQUEST_LOST      /* whoever took it has crashed: committed or not */
};

/* ---- the owner: one commit request at a time, between commit_request_body and commit_request_clear ---- */
char *commit_request_body(const struct segment *segment,
                          uint32_t slot); /* SHM_COMMIT_REQUEST_BYTES, 8-aligned: fill it, then */
void commit_request_submit(const struct segment *segment, uint32_t slot, uint32_t bytes);
enum commit_request_state commit_request_poll(const struct segment *segment, uint32_t slot, uint32_t *result);
/* Sleeps until there may be something new to look at, at most for so long. The owner of a commit request that is
 * WAITING tries the write lock between commit_request_poll and this. */
void commit_request_wait(const struct segment *segment, uint32_t slot, uint64_t timeout_ns);
/* Takes it back; false: another has taken it. */
bool commit_request_withdraw(const struct segment *segment, uint32_t slot);
void commit_request_clear(const struct segment *segment, uint32_t slot); /* the result is known */

/* ---- the holder of the write lock ---- */
/* Takes the next commit request, in the order of slots from the taker's on round to it, and copies it into body
 * (SHM_COMMIT_REQUEST_BYTES). *step begins as 1. False: there is no further one. */
bool commit_request_take(const struct segment *segment, uint32_t taker, uint32_t *step, uint32_t *slot,
                         char *body, uint32_t *bytes);
/* DONE with a result, or RETURNED; when it is on the disk. The owner wakes. */
void commit_request_complete(const struct segment *segment, uint32_t taker, uint32_t slot,
                             enum commit_request_state state, uint32_t result);

/* ---- who has released the write lock: one of those who wait tries it now ---- */
void commit_request_notify(const struct segment *segment, uint32_t from);

/* ---- the supervisor, for an exited process: its own commit request goes, and what it had taken is LOST ---- */
void commit_request_recover(const struct segment *segment, uint32_t slot);

#endif
