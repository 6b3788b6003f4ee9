/* SPDX-License-Identifier: MIT */
/* The producer's parts: producer.c (its loop), producer_fetch.c (pages from the source into the store),
 * producer_claim.c (events to the stages, and back into the store). */
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
    char *cursor;                   /* as it stands in the store; NULL = none */
    bool ended;                     /* the source said that nothing more will come */
    uint64_t next_try_ns;           /* CLOCK_MONOTONIC: not before; 0 = now */
    uint64_t page_waiting_since_ns; /* since when a page waits for room, 0 = none does */
    uint64_t
        backlog; /* upper bound of the events in the store that stages will run: for backlog.max_events */
    bool backlog_full;       /* backlog.max_events is reached */
    bool must_discard_fetch; /* drop the answer of the fetch that runs: the cursor was changed */

    /* producer_claim.c */
    uint32_t *loaded_tickets; /* tickets loaded by the claim under way, with the position they enter at */
    uint32_t *entry_positions;
    size_t loaded_count, loaded_capacity;
    uint32_t ticket_hint;
    bool has_waiting_events; /* there may be events to claim in the store */
    uint64_t due_ms;         /* wall clock of the next delayed event, UINT64_MAX = none */
};

/* ---- producer_claim.c */
int process_producer_claim_open(struct producer *producer);
/* How many events may be claimed now, by room in the first ring and free tickets. 0 until a claim is worth a
 * transaction. Only the producer loads tickets of its source, so there are as many until it claims. */
size_t process_producer_compute_claim_limit(struct producer *producer);
/*
 * A claim goes in these steps:
 *   prepare   its token, and how many events it may take: at most process_producer_compute_claim_limit
 *   (the store begins the transaction and names the events)
 *   commit    records each event in a ticket, then commits; frees the tickets if the commit fails. Returns
 *             what store_claim_end returned.
 *   publish   after the commit: hands the tickets to their stages
 */
struct store_claim process_producer_prepare_claim(struct producer *producer, size_t limit);
int process_producer_commit_claim(struct producer *producer, uint64_t token,
                                  const struct store_claimed *claimed);
void process_producer_publish_claim(struct producer *producer);
/* Returns whether an event's delay is over. */
bool process_producer_has_due_event(struct producer *producer);
/* Claims ready and due events, if there is room. True: did something. */
bool process_producer_claim_events(struct producer *producer);
/* Unlocks in the store what exited processes held, by token, and frees their tickets. True: did something. */
bool process_producer_unlock_orphaned(struct producer *producer);
/* At a clean stop, when the workers are gone: unlocks every event in flight. */
void process_producer_unlock_in_flight(struct producer *producer);
bool process_producer_has_nothing_in_flight(const struct producer *producer);

/* ---- producer_fetch.c */
/* Takes a finished fetch: stores the page with its cursor. True: did something. */
bool process_producer_handle_fetched_page(struct producer *producer);
/* Begins the next fetch if it may. True: did something. */
bool process_producer_request_page(struct producer *producer);
/* Others changed the store: reads the cursor again, and drops a running fetch if the cursor is another. */
void process_producer_reload_cursor(struct producer *producer);
/* Counts the events in the store that stages will run. */
void process_producer_count_backlog(struct producer *producer);
/* CLOCK_MONOTONIC of the next thing to do here, UINT64_MAX = none. */
uint64_t process_producer_get_next_fetch_ns(const struct producer *producer);
void process_producer_set_state(struct producer *producer, enum shm_source_state state);

#endif
