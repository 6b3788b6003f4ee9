/* SPDX-License-Identifier: MIT */
/*
 * Commit requests. The worker that owns a slot submits its request, waits for it and clears it; another
 * worker takes and completes it; the supervisor recovers those of exited processes.
 *
 * The word is {taker or result:16, state:16}. The owner moves it NONE -> WAITING and back to NONE. The
 * holder of the write lock moves WAITING -> TAKEN, and later TAKEN -> DONE or RETURNED. The process that
 * released the write lock moves WAITING -> NOTIFIED, and the owner moves that back to WAITING before it
 * tries the write lock. The supervisor moves TAKEN -> LOST, and the word of a crashed owner to NONE. Every
 * move is a compare-and-swap, except the owner's submit and clear and the supervisor's reset, so of two
 * competing moves exactly one succeeds.
 *
 * Invariants
 *  1. A request is taken once, and only its taker completes it. A taker completes all it took before its
 *     next transaction. If it takes twice from one slot in a transaction (the first owner has crashed), it
 *     returns the second at once. So the taker's number in the word is enough: no result reaches another
 *     request.
 *  2. No owner waits for ever. The owner submits, tries the write lock, sleeps. The holder releases the
 *     write lock, looks for requests, notifies one. Either it sees the request, or it looked first in the
 *     order of all seq_cst operations, and then the owner's try finds the lock free. A notified owner
 *     finds the lock free, or held by a process that looks after it. A kill in between is covered by the
 *     owner, which looks again after each timeout of commit_request_wait. Only a halted taker (SIGSTOP)
 *     can keep an owner waiting, because it alone knows whether it will still commit.
 *  3. A crashed owner's successor may write the body while a taker copies it. The supervisor has changed
 *     the word by then, so the taker checks the word after copying and drops what is no longer its own.
 *  4. A bit of `commit_request_bits` is a hint where to look: set after the word, cleared before the word
 *     is read.
 */
#include "shm/commit_request.h"

#include <string.h>

#include "shm/wake.h"

#define NOTIFIED 15u /* WAITING, and its owner is to try the write lock */

static struct shm_commit_request *request_of(const struct segment *segment, uint32_t slot)
{
    assert(slot < segment->header->slot_count);
    return (struct shm_commit_request *)(void *)((char *)segment->header +
                                                 segment->header->commit_request_offset) +
           slot;
}

static _Atomic uint64_t *bits_word(const struct segment *segment, uint32_t slot)
{
    return (_Atomic uint64_t *)(void *)((char *)segment->header +
                                        segment->header->commit_request_bits_offset) +
           slot / 64;
}

static void clear_bit(const struct segment *segment, uint32_t slot)
{
    atomic_fetch_and(bits_word(segment, slot), ~(UINT64_C(1) << slot % 64));
}

static uint32_t word_of(enum commit_request_state state, uint32_t half)
{
    return half << 16 | (uint32_t)state;
}

static uint32_t state_in(uint32_t word)
{
    return word & 0xffffu;
}

/* All moves are seq_cst: invariant 2 needs it of most of them, and none is frequent. */
static bool move(struct shm_commit_request *request, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong(&request->word, &from, to);
}

/* Moves a request from WAITING or NOTIFIED, whichever it is. Trying one and then the other could miss both
 * while it changes between them; its bit is clear by then, so no later taker would find it. */
static bool move_waiting(struct shm_commit_request *request, uint32_t to)
{
    uint32_t word = atomic_load(&request->word);
    while (word == word_of(COMMIT_REQUEST_WAITING, 0) || word == NOTIFIED)
        if (atomic_compare_exchange_strong(&request->word, &word, to))
            return true;
    return false;
}

/* ---- the owner ---- */

char *commit_request_body(const struct segment *segment, uint32_t slot)
{
    return request_of(segment, slot)->body;
}

void commit_request_submit(const struct segment *segment, uint32_t slot, uint32_t bytes)
{
    struct shm_commit_request *request = request_of(segment, slot);
    request->bytes = bytes;
    atomic_store(&request->word, word_of(COMMIT_REQUEST_WAITING, 0));
    atomic_fetch_or(bits_word(segment, slot), UINT64_C(1) << slot % 64);
}

enum commit_request_state commit_request_poll(const struct segment *segment, uint32_t slot, uint32_t *result)
{
    struct shm_commit_request *request = request_of(segment, slot);
    move(request, NOTIFIED, word_of(COMMIT_REQUEST_WAITING, 0));
    uint32_t word = atomic_load(&request->word);
    *result = word >> 16;
    return state_in(word) == NOTIFIED ? COMMIT_REQUEST_WAITING : (enum commit_request_state)state_in(word);
}

/* A notification since commit_request_poll has changed the word, so the wait ends at once. */
void commit_request_wait(const struct segment *segment, uint32_t slot, uint64_t timeout_ns)
{
    struct shm_commit_request *request = request_of(segment, slot);
    uint32_t word = atomic_load(&request->word);
    if (word == word_of(COMMIT_REQUEST_WAITING, 0) || state_in(word) == COMMIT_REQUEST_TAKEN)
        wake_wait(&request->word, word, timeout_ns);
}

bool commit_request_withdraw(const struct segment *segment, uint32_t slot)
{
    if (!move_waiting(request_of(segment, slot), COMMIT_REQUEST_NONE))
        return false;
    clear_bit(segment, slot);
    return true;
}

void commit_request_clear(const struct segment *segment, uint32_t slot)
{
    atomic_store(&request_of(segment, slot)->word, COMMIT_REQUEST_NONE);
}

/* ---- the holder of the write lock ---- */

/* Takes the request of one slot and copies its body; false: it was withdrawn, taken, or its owner has
 * crashed. */
static bool take(const struct segment *segment, uint32_t taker, uint32_t slot, char *body, uint32_t *bytes)
{
    struct shm_commit_request *request = request_of(segment, slot);
    uint32_t taken = word_of(COMMIT_REQUEST_TAKEN, taker);
    if (!move_waiting(request, taken))
        return false;
    *bytes = request->bytes <= SHM_COMMIT_REQUEST_BYTES ? request->bytes : 0;
    memcpy(body, request->body, *bytes);
    /* Acquire fence: the copy is made before the word is looked at again. */
    atomic_thread_fence(memory_order_acquire);
    return atomic_load(&request->word) == taken;
}

/* The next bit that is set at or after `slot`, below `end`; `end`: none. */
static uint32_t next_bit(const struct segment *segment, uint32_t slot, uint32_t end)
{
    while (slot < end) {
        uint64_t bits = atomic_load(bits_word(segment, slot)) >> slot % 64;
        if (bits != 0) {
            slot += (uint32_t)__builtin_ctzll(bits);
            return slot < end ? slot : end;
        }
        slot = (slot / 64 + 1) * 64;
    }
    return end;
}

/* Finds the next slot whose bit is set, in the order round to `from`; *step counts from 1. */
static bool next_round(const struct segment *segment, uint32_t from, uint32_t *step, uint32_t *slot)
{
    uint32_t count = segment->header->slot_count;
    while (*step < count) {
        uint32_t begin = (from + *step) % count, end = begin > from ? count : from;
        *slot = next_bit(segment, begin, end);
        *step += *slot - begin + (*slot < end);
        if (*slot < end)
            return true;
    }
    return false;
}

bool commit_request_take(const struct segment *segment, uint32_t taker, uint32_t *step, uint32_t *slot,
                         char *body, uint32_t *bytes)
{
    while (next_round(segment, taker, step, slot)) {
        clear_bit(segment, *slot);
        if (take(segment, taker, *slot, body, bytes))
            return true;
    }
    return false;
}

void commit_request_complete(const struct segment *segment, uint32_t taker, uint32_t slot,
                             enum commit_request_state state, uint32_t result)
{
    struct shm_commit_request *request = request_of(segment, slot);
    if (move(request, word_of(COMMIT_REQUEST_TAKEN, taker), word_of(state, result)))
        wake_word(&request->word);
}

/* ---- who has released the write lock ---- */

void commit_request_notify(const struct segment *segment, uint32_t from)
{
    uint32_t slot;
    for (uint32_t step = 1; next_round(segment, from, &step, &slot);) {
        struct shm_commit_request *request = request_of(segment, slot);
        bool notified = move(request, word_of(COMMIT_REQUEST_WAITING, 0), NOTIFIED);
        if (notified)
            wake_word(&request->word);
        if (notified ||
            state_in(atomic_load(&request->word)) == NOTIFIED) /* one is enough: it takes all others */
            return;
    }
}

/* ---- the supervisor ---- */

void commit_request_recover(const struct segment *segment, uint32_t slot)
{
    clear_bit(segment, slot);
    atomic_store(&request_of(segment, slot)->word, COMMIT_REQUEST_NONE);
    for (uint32_t other = 0; other < segment->header->slot_count; other++) {
        struct shm_commit_request *request = request_of(segment, other);
        if (move(request, word_of(COMMIT_REQUEST_TAKEN, slot), COMMIT_REQUEST_LOST))
            wake_word(&request->word);
    }
}
