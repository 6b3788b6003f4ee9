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

/* Returns the commit request of a slot: a worker's place in shared memory for answers that another
 * worker may commit. Used by the worker that owns the slot, by a worker that commits for others, and by
 * the supervisor. */
static struct shm_commit_request *get_request(const struct segment *segment, uint32_t slot)
{
    assert(slot < segment->header->slot_count);
    return (struct shm_commit_request *)(void *)((char *)segment->header +
                                                 segment->header->commit_request_offset) +
           slot;
}

static _Atomic uint64_t *get_hint_bits(const struct segment *segment, uint32_t slot)
{
    return (_Atomic uint64_t *)(void *)((char *)segment->header +
                                        segment->header->commit_request_bits_offset) +
           slot / 64;
}

static void clear_hint_bit(const struct segment *segment, uint32_t slot)
{
    atomic_fetch_and(get_hint_bits(segment, slot), ~(UINT64_C(1) << slot % 64));
}

static uint32_t pack_state(enum commit_request_state state, uint32_t upper_half)
{
    return upper_half << 16 | (uint32_t)state;
}

static uint32_t unpack_state(uint32_t packed_state)
{
    return packed_state & 0xffffu;
}

/* All moves are seq_cst: invariant 2 needs it of most of them, and none is frequent. */
static bool swap_packed_state(struct shm_commit_request *request, uint32_t old_state, uint32_t new_state)
{
    return atomic_compare_exchange_strong(&request->word, &old_state, new_state);
}

/* Changes a commit request in shared memory that is WAITING or NOTIFIED to `new_state`, and returns
 * whether it did. The worker that owns the request withdraws it with this, another worker takes it. It
 * loops, because a single try from each state could miss both if the state changes in between; the hint
 * bit is clear by then, so no later taker would find the request. */
static bool move_waiting_request(struct shm_commit_request *request, uint32_t new_state)
{
    uint32_t packed_state = atomic_load(&request->word);
    while (packed_state == pack_state(COMMIT_REQUEST_WAITING, 0) || packed_state == NOTIFIED)
        if (atomic_compare_exchange_strong(&request->word, &packed_state, new_state))
            return true;
    return false;
}

/* ---- the owner ---- */

char *commit_request_body(const struct segment *segment, uint32_t slot)
{
    return get_request(segment, slot)->body;
}

/* A worker that finds the store's write lock held calls this after it has written its answers (`bytes`
 * long) to the request's body: from now on another worker may commit them. The bit is set after the
 * word, so a worker that sees the bit finds the request. */
void commit_request_submit(const struct segment *segment, uint32_t slot, uint32_t bytes)
{
    struct shm_commit_request *request = get_request(segment, slot);
    request->bytes = bytes;
    atomic_store(&request->word, pack_state(COMMIT_REQUEST_WAITING, 0));
    atomic_fetch_or(get_hint_bits(segment, slot), UINT64_C(1) << slot % 64);
}

/* Returns the state of a worker's commit request in shared memory and, once it is DONE, which answers were
 * applied (one bit each). The worker that owns it calls it in each round of its wait. It first changes
 * NOTIFIED back to WAITING, because the owner tries the store's write lock next, as the notification asks. */
enum commit_request_state commit_request_poll(const struct segment *segment, uint32_t slot, uint32_t *result)
{
    struct shm_commit_request *request = get_request(segment, slot);
    swap_packed_state(request, NOTIFIED, pack_state(COMMIT_REQUEST_WAITING, 0));
    uint32_t packed_state = atomic_load(&request->word);
    *result = packed_state >> 16;
    return unpack_state(packed_state) == NOTIFIED ? COMMIT_REQUEST_WAITING
                                                  : (enum commit_request_state)unpack_state(packed_state);
}

/* A worker calls this after it has found the store's write lock held: sleeps until its commit request in
 * shared memory may have changed, at most timeout_ns. A notification since commit_request_poll has changed
 * the request's futex word, so the call returns at once then. */
void commit_request_wait(const struct segment *segment, uint32_t slot, uint64_t timeout_ns)
{
    struct shm_commit_request *request = get_request(segment, slot);
    uint32_t packed_state = atomic_load(&request->word);
    if (packed_state == pack_state(COMMIT_REQUEST_WAITING, 0) ||
        unpack_state(packed_state) == COMMIT_REQUEST_TAKEN)
        wake_wait(&request->word, packed_state, timeout_ns);
}

/* Takes back a worker's commit request, when that worker has got the write lock itself. Returns false
 * if another worker has taken the request: then only that one may commit the answers. */
bool commit_request_withdraw(const struct segment *segment, uint32_t slot)
{
    if (!move_waiting_request(get_request(segment, slot), COMMIT_REQUEST_NONE))
        return false;
    clear_hint_bit(segment, slot);
    return true;
}

void commit_request_clear(const struct segment *segment, uint32_t slot)
{
    atomic_store(&get_request(segment, slot)->word, COMMIT_REQUEST_NONE);
}

/* ---- the holder of the write lock ---- */

/* Takes the commit request of one slot (each process has one in shared memory) and copies its body.
 * Returns false if the request was withdrawn or taken by another worker, or if its owner has crashed. The
 * worker that holds the store's write lock runs it for each slot that may have a request. */
static bool take_request(const struct segment *segment, uint32_t taker, uint32_t slot, char *body,
                         uint32_t *bytes)
{
    struct shm_commit_request *request = get_request(segment, slot);
    uint32_t taken_state = pack_state(COMMIT_REQUEST_TAKEN, taker);
    if (!move_waiting_request(request, taken_state))
        return false;
    *bytes = request->bytes <= SHM_COMMIT_REQUEST_BYTES ? request->bytes : 0;
    memcpy(body, request->body, *bytes);
    /* Acquire fence: the copy is made before the word is looked at again. */
    atomic_thread_fence(memory_order_acquire);
    return atomic_load(&request->word) == taken_state;
}

/* Returns the next slot in shared memory, from `slot` up to but not including `end_slot`, whose hint bit
 * says that its worker may have a commit request; `end_slot` if there is none. find_next_requester calls
 * it, in any process that takes commit requests or notifies their owners. */
static uint32_t find_next_slot_with_bit(const struct segment *segment, uint32_t slot, uint32_t end_slot)
{
    while (slot < end_slot) {
        uint64_t bits = atomic_load(get_hint_bits(segment, slot)) >> slot % 64;
        if (bits != 0) {
            slot += (uint32_t)__builtin_ctzll(bits);
            return slot < end_slot ? slot : end_slot;
        }
        slot = (slot / 64 + 1) * 64;
    }
    return end_slot;
}

/* Finds the next slot in shared memory whose worker may have a commit request. It visits all other slots
 * once, from the one after `from` on, and continues with slot 0 after the last. *step says how far it has
 * come: 1 for the first call, then as the last call left it. Returns false after the last slot. Workers
 * take requests or notify their owners with it. */
static bool find_next_requester(const struct segment *segment, uint32_t from, uint32_t *step, uint32_t *slot)
{
    uint32_t slot_count = segment->header->slot_count;
    while (*step < slot_count) {
        uint32_t begin_slot = (from + *step) % slot_count, end_slot = begin_slot > from ? slot_count : from;
        *slot = find_next_slot_with_bit(segment, begin_slot, end_slot);
        *step += *slot - begin_slot + (*slot < end_slot);
        if (*slot < end_slot)
            return true;
    }
    return false;
}

/* The worker that holds the store's write lock calls this until it returns false (no request is left):
 * it collects the answers of other workers into its own transaction. The bit is cleared before the word
 * is read, so a request submitted later sets it again. */
bool commit_request_take(const struct segment *segment, uint32_t taker, uint32_t *step, uint32_t *slot,
                         char *body, uint32_t *bytes)
{
    while (find_next_requester(segment, taker, step, slot)) {
        clear_hint_bit(segment, *slot);
        if (take_request(segment, taker, *slot, body, bytes))
            return true;
    }
    return false;
}

/* The worker that took a commit request calls this after its transaction: writes the result to shared
 * memory and wakes the owner. Does nothing if the supervisor has recovered the request meanwhile, because
 * the slot may have a new process then. */
void commit_request_complete(const struct segment *segment, uint32_t taker, uint32_t slot,
                             enum commit_request_state state, uint32_t result)
{
    struct shm_commit_request *request = get_request(segment, slot);
    if (swap_packed_state(request, pack_state(COMMIT_REQUEST_TAKEN, taker), pack_state(state, result)))
        wake_word(&request->word);
}

/* ---- a process that has released the write lock ---- */

/* Wakes one worker that waits with a commit request in shared memory, so that it tries the write lock. One
 * is enough, because it takes the requests of all others. Every process that writes to the store calls it
 * when it has released the write lock; `from` is its own slot. */
void commit_request_notify(const struct segment *segment, uint32_t from)
{
    uint32_t slot;
    for (uint32_t step = 1; find_next_requester(segment, from, &step, &slot);) {
        struct shm_commit_request *request = get_request(segment, slot);
        bool is_notified = swap_packed_state(request, pack_state(COMMIT_REQUEST_WAITING, 0), NOTIFIED);
        if (is_notified)
            wake_word(&request->word);
        if (is_notified ||
            unpack_state(atomic_load(&request->word)) == NOTIFIED) /* one is enough: it takes all others */
            return;
    }
}

/* ---- the supervisor ---- */

/* The supervisor calls this after a process has exited: it drops the commit request of that process in
 * shared memory, and marks those that the process had taken as LOST, so that their owners commit again.
 * Without it these workers would wait for ever. */
void commit_request_recover(const struct segment *segment, uint32_t slot)
{
    clear_hint_bit(segment, slot);
    atomic_store(&get_request(segment, slot)->word, COMMIT_REQUEST_NONE);
    for (uint32_t other = 0; other < segment->header->slot_count; other++) {
        struct shm_commit_request *request = get_request(segment, other);
        if (swap_packed_state(request, pack_state(COMMIT_REQUEST_TAKEN, slot), COMMIT_REQUEST_LOST))
            wake_word(&request->word);
    }
}
