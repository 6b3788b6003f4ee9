/* SPDX-License-Identifier: MIT */
/*
 * The store of the kill test: one word an event, {state:8, stage:8, token:48}, changed by one
 * compare-and-swap per transaction, so that a kill finds each transaction done or not begun, as in the real
 * store. Claim, commit and release go by token as DESIGN section 4 tells.
 */
#ifndef SHM_STORE_H
#define SHM_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

enum row_state { ROW_NONE, ROW_READY, ROW_LOCKED, ROW_DONE };

struct row {
    _Atomic uint64_t word;
    _Atomic uint32_t holder; /* slot + 1 of the worker that has the event in its hands, 0 = nobody */
    uint32_t spare;
};

struct store {
    uint32_t capacity;
    _Atomic uint32_t created;   /* rows that exist */
    _Atomic uint32_t allowed;   /* how many the producer may create */
    _Atomic uint32_t first;     /* all rows before it are DONE; a hint */
    _Atomic uint32_t commits;   /* a sign of life */
    _Atomic uint32_t violation; /* a process has seen what must not be, and told it on stderr */
    struct row rows[];
};

static inline uint64_t row_word(enum row_state state, uint32_t stage, uint64_t token)
{
    return (uint64_t)state << 56 | (uint64_t)stage << 48 | token;
}

static inline enum row_state row_state(uint64_t word)
{
    return (enum row_state)(word >> 56);
}

static inline uint32_t row_stage(uint64_t word)
{
    return (uint32_t)(word >> 48) & 0xff;
}

static inline uint64_t row_token(uint64_t word)
{
    return word & UINT64_C(0xffffffffffff);
}

static inline struct store *store_make(uint32_t capacity)
{
    size_t size = sizeof(struct store) + (size_t)capacity * sizeof(struct row);
    struct store *store =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (store == MAP_FAILED)
        return NULL;
    store->capacity = capacity;
    return store;
}

/* Ingest, by the producer: the row, then the count that makes it exist; a successor writes the same row
 * again. */
static inline bool store_ingest(struct store *store, int64_t *event)
{
    uint32_t created = atomic_load(&store->created);
    if (created >= atomic_load(&store->allowed) || created >= store->capacity)
        return false;
    atomic_store(&store->rows[created].word, row_word(ROW_READY, 0, 0));
    atomic_store(&store->created, created + 1);
    *event = created;
    return true;
}

/* READY -> LOCKED by the token; *stage is where the event goes on. */
static inline bool store_claim_row(struct store *store, int64_t event, uint64_t token, uint32_t *stage)
{
    uint64_t seen = atomic_load(&store->rows[event].word);
    *stage = row_stage(seen);
    return row_state(seen) == ROW_READY &&
           atomic_compare_exchange_strong(&store->rows[event].word, &seen,
                                          row_word(ROW_LOCKED, *stage, token));
}

/* The answer 'processed' of a stage: the lock stays with the token, or the row is DONE. */
static inline bool store_commit_row(struct store *store, int64_t event, uint64_t token, uint32_t stage,
                                    uint32_t stages)
{
    uint64_t seen = row_word(ROW_LOCKED, stage, token);
    uint64_t next =
        stage + 1 < stages ? row_word(ROW_LOCKED, stage + 1, token) : row_word(ROW_DONE, stages, 0);
    if (!atomic_compare_exchange_strong(&store->rows[event].word, &seen, next))
        return false;
    atomic_fetch_add(&store->commits, 1);
    return true;
}

/* Clears the lock if it is this token's. */
static inline bool store_unlock_row(struct store *store, int64_t event, uint64_t token)
{
    uint64_t seen = atomic_load(&store->rows[event].word);
    return row_state(seen) == ROW_LOCKED && row_token(seen) == token &&
           atomic_compare_exchange_strong(&store->rows[event].word, &seen,
                                          row_word(ROW_READY, row_stage(seen), 0));
}

/* The first row that is not DONE. */
static inline uint32_t store_first(struct store *store)
{
    uint32_t first = atomic_load(&store->first), created = atomic_load(&store->created);
    while (first < created && row_state(atomic_load(&store->rows[first].word)) == ROW_DONE)
        first++;
    atomic_store(&store->first, first); /* two at once may set it back: it is a hint */
    return first;
}

#endif
