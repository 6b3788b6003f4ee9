/* SPDX-License-Identifier: MIT */
/*
 * Offers: a worker that finds another at the gate lays its answers out in its slot's offer, and whoever
 * writes next commits them together with its own. What the bytes mean is not known here.
 */
#ifndef SHM_OFFER_H
#define SHM_OFFER_H

#include "shm/segment.h"

#define OFFER_RESULTS 16 /* bits of an offer's result */

enum offer_state {
    OFFER_NONE,
    OFFER_WAITING, /* made, and nobody has taken it */
    OFFER_TAKEN,   /* in the transaction of another */
    OFFER_DONE,    /* committed; the result says what of it */
    OFFER_BACK,    /* not committed, nothing of it: its owner does it itself */
    OFFER_LOST     /* whoever took it has died: committed or not */
};

/* ---- the owner: one offer at a time, between offer_body and offer_end ---- */
char *offer_body(const struct segment *segment,
                 uint32_t slot); /* SHM_OFFER_BYTES, 8-aligned: fill it, then */
void offer_make(const struct segment *segment, uint32_t slot, uint32_t bytes);
enum offer_state offer_look(const struct segment *segment, uint32_t slot, uint32_t *result);
/* Sleeps until there may be something new to look at, at most for so long. The owner of an offer that is
 * WAITING tries the gate between offer_look and this. */
void offer_wait(const struct segment *segment, uint32_t slot, uint64_t timeout_ns);
/* Takes it back; false: another has taken it. */
bool offer_withdraw(const struct segment *segment, uint32_t slot);
void offer_end(const struct segment *segment, uint32_t slot); /* the result is known */

/* ---- who is at the gate ---- */
/* Takes the next offer, in the order of slots from the taker's on round to it, and copies it into body
 * (SHM_OFFER_BYTES). *step begins as 1. False: there is no further one. */
bool offer_take(const struct segment *segment, uint32_t taker, uint32_t *step, uint32_t *slot, char *body,
                uint32_t *bytes);
/* DONE with a result, or BACK; when it is on the disk. The owner wakes. */
void offer_settle(const struct segment *segment, uint32_t taker, uint32_t slot, enum offer_state state,
                  uint32_t result);

/* ---- who has left the gate: one of those who wait tries it now ---- */
void offer_nudge(const struct segment *segment, uint32_t from);

/* ---- the supervisor, for a dead process: its own offer goes, and what it had taken is LOST ---- */
void offer_bury(const struct segment *segment, uint32_t slot);

#endif
