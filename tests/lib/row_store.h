/* SPDX-License-Identifier: MIT */
/*
 * The store of the kill test: one word an event, {state:8, stage:8, token:48}, changed by one
 * compare-and-swap per transaction, so that a kill finds each transaction done or not begun, as in the real
 * store. Claim, commit and release go by token as DESIGN section 4 tells.
 */
#ifndef TESTS_LIB_ROW_STORE_H
#define TESTS_LIB_ROW_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum row_state { ROW_NONE, ROW_READY, ROW_LOCKED, ROW_DONE };

struct row {
    _Atomic uint64_t word;
    _Atomic uint32_t holder; /* slot + 1 of the worker that has the event in its hands, 0 = nobody */
    uint32_t spare;
};

struct row_store {
    uint32_t capacity;
    _Atomic uint32_t created;   /* rows that exist */
    _Atomic uint32_t allowed;   /* how many the producer may create */
    _Atomic uint32_t first;     /* all rows before it are DONE; a hint */
    _Atomic uint32_t commits;   /* a sign of life */
    _Atomic uint32_t violation; /* a process has seen what must not be, and told it on stderr */
    struct row rows[];
};

/* The word of a row, and its parts. */
uint64_t row_word(enum row_state state, uint32_t stage, uint64_t token);
enum row_state row_state(uint64_t word);
uint32_t row_stage(uint64_t word);
uint64_t row_token(uint64_t word);

/* In memory that children share; NULL if there is none. */
struct row_store *row_store_make(uint32_t capacity);

/* Ingest, by the producer: the row, then the count that makes it exist; a successor writes the same row
 * again. */
bool row_store_ingest(struct row_store *store, int64_t *event);

/* READY -> LOCKED by the token; *stage is where the event goes on. */
bool row_store_claim(struct row_store *store, int64_t event, uint64_t token, uint32_t *stage);

/* The answer 'processed' of a stage: the lock stays with the token, or the row is DONE. */
bool row_store_commit(struct row_store *store, int64_t event, uint64_t token, uint32_t stage,
                      uint32_t stages);

/* Clears the lock if it is this token's. */
bool row_store_unlock(struct row_store *store, int64_t event, uint64_t token);

/* The first row that is not DONE. */
uint32_t row_store_first(struct row_store *store);

#endif
