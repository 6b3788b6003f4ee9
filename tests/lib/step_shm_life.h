/* SPDX-License-Identifier: MIT */
/*
 * The small world of test_step_shm: a source, two stages of two workers, the store of row_store.h; what each
 * of its processes does, in the order in which the daemon's do it; what the supervisor does after an exit;
 * and what must hold then. Processes are known to shm/ by their slots only, so the parent goes on in the name
 * of whoever lives or was started again.
 */
#ifndef TESTS_LIB_STEP_SHM_LIFE_H
#define TESTS_LIB_STEP_SHM_LIFE_H

#include <stdio.h>

#include "tests/lib/row_store.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/shm_steps.h"

#define LIFE_STAGES 2
#define LIFE_WORKERS 2
#define LIFE_LIMIT 2
#define LIFE_TICKETS 4
#define LIFE_ROWS 64
#define LIFE_PRODUCER 1
#define LIFE_WORKER(stage, index) (2 + (stage)*LIFE_WORKERS + (index))
#define LIFE_SLOTS (2 + LIFE_STAGES * LIFE_WORKERS)

extern struct segment life_segment;
extern struct shm_source *life_source;
extern struct row_store *life_store;
extern const char *life_where;              /* what is tried now, for the message of a fault */
extern uint32_t life_where_k, life_where_j; /* after how many instructions */
extern uint32_t life_faults;

/* Counts a fault and reports where it was seen. */
void life_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- what the processes do */

/* As process_producer_publish_claim and hand_over_events. */
void life_hand_on(struct steps *steps, uint32_t ticket, uint32_t position);

/* The next event: one that is READY, or a new one. The ticket names it before the store locks it. */
bool life_claim(struct steps *steps, uint32_t *ticket, uint32_t *position);

/* The producer releases what its crashed workers held. */
void life_free_orphans(struct steps *steps);

/* A stage's call: whoever has the event must find it locked by its ticket's token, at this stage. */
void life_work(struct steps *steps, uint32_t ticket, const struct ticket_view *view);

/* The answer "processed"; then the event goes to the next stage. */
void life_commit(struct steps *steps, uint32_t ticket, const struct ticket_view *view);

/* --- the supervisor, as recover.c: orphan, put back, clear, wake */
/* After an exit of the process of this slot. */
void life_recover(uint32_t index);

/* --- what must hold after it */

/* Each event is in exactly one place; none belongs to the dead. `dead`: LIFE_SLOTS = no process crashed. */
void life_check_places(uint32_t dead);

/* --- everything to its end */

/* New events come too, so that what stands is seen to move under load. */
void life_play_to_the_end(void);

#endif
