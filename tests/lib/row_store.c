/* SPDX-License-Identifier: MIT */
/* The transactions of the store of one-word rows. */
#include "tests/lib/row_store.h"

#include <stddef.h>
#include <sys/mman.h>

uint64_t row_word(enum row_state state, uint32_t stage, uint64_t token)
{
    return (uint64_t)state << 56 | (uint64_t)stage << 48 | token;
}

enum row_state row_state(uint64_t word)
{
    return (enum row_state)(word >> 56);
}

uint32_t row_stage(uint64_t word)
{
    return (uint32_t)(word >> 48) & 0xff;
}

uint64_t row_token(uint64_t word)
{
    return word & UINT64_C(0xffffffffffff);
}

struct row_store *row_store_make(uint32_t capacity)
{
    size_t size = sizeof(struct row_store) + (size_t)capacity * sizeof(struct row);
    struct row_store *store =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (store == MAP_FAILED)
        return NULL;
    store->capacity = capacity;
    return store;
}

bool row_store_ingest(struct row_store *store, int64_t *event)
{
    uint32_t created = atomic_load(&store->created);
    if (created >= atomic_load(&store->allowed) || created >= store->capacity)
        return false;
    atomic_store(&store->rows[created].word, row_word(ROW_READY, 0, 0));
    atomic_store(&store->created, created + 1);
    *event = created;
    return true;
}

bool row_store_claim(struct row_store *store, int64_t event, uint64_t token, uint32_t *stage)
{
    uint64_t seen = atomic_load(&store->rows[event].word);
    *stage = row_stage(seen);
    return row_state(seen) == ROW_READY &&
           atomic_compare_exchange_strong(&store->rows[event].word, &seen,
                                          row_word(ROW_LOCKED, *stage, token));
}

bool row_store_commit(struct row_store *store, int64_t event, uint64_t token, uint32_t stage, uint32_t stages)
{
    uint64_t seen = row_word(ROW_LOCKED, stage, token);
    uint64_t next =
        stage + 1 < stages ? row_word(ROW_LOCKED, stage + 1, token) : row_word(ROW_DONE, stages, 0);
    if (!atomic_compare_exchange_strong(&store->rows[event].word, &seen, next))
        return false;
    atomic_fetch_add(&store->commits, 1);
    return true;
}

bool row_store_unlock(struct row_store *store, int64_t event, uint64_t token)
{
    uint64_t seen = atomic_load(&store->rows[event].word);
    return row_state(seen) == ROW_LOCKED && row_token(seen) == token &&
           atomic_compare_exchange_strong(&store->rows[event].word, &seen,
                                          row_word(ROW_READY, row_stage(seen), 0));
}

uint32_t row_store_first(struct row_store *store)
{
    uint32_t first = atomic_load(&store->first), created = atomic_load(&store->created);
    while (first < created && row_state(atomic_load(&store->rows[first].word)) == ROW_DONE)
        first++;
    atomic_store(&store->first, first); /* two at once may set it back: it is a hint */
    return first;
}
