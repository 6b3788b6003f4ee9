/* SPDX-License-Identifier: MIT */
/* The parts of a producer: producer.c (its loop), producer_fetch.c (pages in), producer_claim.c (tickets out
 * and back). */
#ifndef PROCESS_PRODUCER_H
#define PROCESS_PRODUCER_H

#include "src/process/fetcher.h"
#include "src/process/process.h"

struct producer {
    struct process process;
    const struct child_context *child;
    const struct source_config *config;
    struct shm_source *source;
    int64_t store_id;
    char name[SHM_NAME_BYTES + 16];

    /* producer_fetch.c */
    struct fetcher fetcher;
    char *cursor;           /* as it stands in the store; NULL = none */
    bool ended;             /* the source said that nothing more will come */
    uint64_t next_try_ns;   /* CLOCK_MONOTONIC: not before; 0 = now */
    uint64_t page_since_ns; /* since when a page waits for room, 0 = none does */
    uint64_t backlog; /* events in the store that are to be worked on, at most: for backlog.max_events */
    bool full;        /* backlog.max_events is reached */
    bool discard;     /* the answer under way is not wanted any more */

    /* producer_claim.c */
    uint32_t *loaded; /* tickets loaded by the claim under way, with the position they enter at */
    uint32_t *entry;
    size_t loaded_count, loaded_room;
    uint64_t token; /* of the claim under way */
    uint32_t ticket_hint;
    bool waiting;    /* there may be events to claim in the store */
    uint64_t due_ms; /* wall clock of the next delayed event, UINT64_MAX = none */
};

/* ---- producer_claim.c */
int process_producer_claim_open(struct producer *producer);
/* How many events may be claimed now: room in the first ring and free tickets, 0 while a useful number is not
 * there. */
size_t process_producer_claim_room(struct producer *producer);
/* Ready the claim of a transaction; afterwards hand its tickets to their stages, or take them back when it
 * failed. */
void process_producer_claim_begin(struct producer *producer, struct store_claim *claim, size_t limit);
void process_producer_claim_publish(struct producer *producer);
void process_producer_claim_undo(struct producer *producer);
/* Whether an event's delay is over. */
bool process_producer_claim_overdue(struct producer *producer);
/* Claims what is due, if there is room. True: did something. */
bool process_producer_claim_due(struct producer *producer);
/* Unlocks in the store what exited processes held, by token, and frees their tickets. True: did something. */
bool process_producer_claim_unlock_orphans(struct producer *producer);
/* At an orderly stop, when the workers are gone: gives back every event in flight. */
void process_producer_claim_unlock_all(struct producer *producer);
bool process_producer_nothing_in_flight(const struct producer *producer);

/* ---- producer_fetch.c */
/* Takes a finished fetch: stores the page with its cursor. True: did something. */
bool process_producer_fetch_take(struct producer *producer);
/* Begins the next fetch when it may. True: did something. */
bool process_producer_fetch_ask(struct producer *producer);
/* Others changed the store: the cursor may be another now. */
void process_producer_fetch_rescan(struct producer *producer);
/* Reads how many events there are to be worked on. */
void process_producer_count_backlog(struct producer *producer);
/* CLOCK_MONOTONIC of the next thing to do here, UINT64_MAX = none. */
uint64_t process_producer_fetch_next_ns(const struct producer *producer);
void process_producer_set_state(struct producer *producer, enum shm_source_state state);

#endif
