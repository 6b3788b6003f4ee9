/* SPDX-License-Identifier: MIT */
/*
 * Offers. Made, waited for and ended by the worker whose slot it is; taken and settled by another worker.
 *
 * The word: {taker or result:16, state:16}. The owner moves it NONE -> WAITING and back to NONE; who is at
 * the gate WAITING -> TAKEN, and then, wherever, TAKEN -> DONE or BACK; who left the gate WAITING -> NUDGED,
 * which the owner makes WAITING again before it tries the gate; the supervisor TAKEN -> LOST, and anything of
 * a dead owner's -> NONE. Every move but the owner's ends is a compare-and-swap, so of two exactly one
 * happens.
 *
 * Invariants
 *  1. One takes an offer once, and only its taker settles it. A taker settles all it took before its next
 * transaction, and gives back at once what it takes from a slot that it has taken from in this one (whose
 * owner has died since), so its number in the word is enough: no result meets another offer.
 *  2. Nobody waits for ever. The owner: make the offer, try the gate, sleep. Who was at the gate: leave it,
 * look for offers, nudge one. Either that look sees the offer, or it comes before the offer in the order of
 * all seq_cst operations, and then the owner's try finds the gate free. A nudged owner finds the gate free,
 * or held by one who looks after leaving it. A process killed between leaving and looking, or nudged and
 * killed, is made up for by the owner, who looks again after each slice (offer_wait's timeout). The one who
 * can keep an owner is a taker that is halted (SIGSTOP): until it goes on or is killed, since it alone knows
 * whether it will still commit.
 *  3. A dead owner's successor may write the body anew while a taker copies it. The supervisor has changed
 * the word by then, so the taker looks at the word after copying, and drops what was not its any more.
 *  4. A bit of `offered` is only a hint where to look: set after the word, cleared before it is looked at.
 */
#include "shm/commit_request.h"

#include <string.h>

#include "shm/wake.h"

#define NUDGED 15u /* WAITING, and told to try the gate */

static struct shm_offer *offer_of(const struct segment *segment, uint32_t slot)
{
    assert(slot < segment->header->slot_count);
    return (struct shm_offer *)(void *)((char *)segment->header + segment->header->offer_offset) + slot;
}

static _Atomic uint64_t *offered_word(const struct segment *segment, uint32_t slot)
{
    return (_Atomic uint64_t *)(void *)((char *)segment->header + segment->header->offered_offset) +
           slot / 64;
}

static void forget_bit(const struct segment *segment, uint32_t slot)
{
    atomic_fetch_and(offered_word(segment, slot), ~(UINT64_C(1) << slot % 64));
}

static uint32_t word_of(enum offer_state state, uint32_t half)
{
    return half << 16 | (uint32_t)state;
}

static uint32_t state_in(uint32_t word)
{
    return word & 0xffffu;
}

/* All moves are seq_cst: invariant 2 needs it of most, and none is hot. */
static bool move(struct shm_offer *offer, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong(&offer->word, &from, to);
}

/* From WAITING or NUDGED, whichever it is just now. A try of one and then of the other could miss both while
 * it changes between them; the bit is forgotten by then, and nobody would find the offer any more. */
static bool move_waiting(struct shm_offer *offer, uint32_t to)
{
    uint32_t word = atomic_load(&offer->word);
    while (word == word_of(OFFER_WAITING, 0) || word == NUDGED)
        if (atomic_compare_exchange_strong(&offer->word, &word, to))
            return true;
    return false;
}

/* ---- the owner ---- */

char *offer_body(const struct segment *segment, uint32_t slot)
{
    return offer_of(segment, slot)->body;
}

void offer_make(const struct segment *segment, uint32_t slot, uint32_t bytes)
{
    struct shm_offer *offer = offer_of(segment, slot);
    offer->bytes = bytes;
    atomic_store(&offer->word, word_of(OFFER_WAITING, 0));
    atomic_fetch_or(offered_word(segment, slot), UINT64_C(1) << slot % 64);
}

enum offer_state offer_look(const struct segment *segment, uint32_t slot, uint32_t *result)
{
    struct shm_offer *offer = offer_of(segment, slot);
    move(offer, NUDGED, word_of(OFFER_WAITING, 0));
    uint32_t word = atomic_load(&offer->word);
    *result = word >> 16;
    return state_in(word) == NUDGED ? OFFER_WAITING : (enum offer_state)state_in(word);
}

/* A nudge since offer_look makes the word another than is waited on: the wait ends at once. */
void offer_wait(const struct segment *segment, uint32_t slot, uint64_t timeout_ns)
{
    struct shm_offer *offer = offer_of(segment, slot);
    uint32_t word = atomic_load(&offer->word);
    if (word == word_of(OFFER_WAITING, 0) || state_in(word) == OFFER_TAKEN)
        wake_wait(&offer->word, word, timeout_ns);
}

bool offer_withdraw(const struct segment *segment, uint32_t slot)
{
    if (!move_waiting(offer_of(segment, slot), OFFER_NONE))
        return false;
    forget_bit(segment, slot);
    return true;
}

void offer_end(const struct segment *segment, uint32_t slot)
{
    atomic_store(&offer_of(segment, slot)->word, OFFER_NONE);
}

/* ---- who is at the gate ---- */

static bool take(const struct segment *segment, uint32_t taker, uint32_t slot, char *body, uint32_t *bytes)
{
    struct shm_offer *offer = offer_of(segment, slot);
    uint32_t taken = word_of(OFFER_TAKEN, taker);
    if (!move_waiting(offer, taken))
        return false;
    *bytes = offer->bytes <= SHM_OFFER_BYTES ? offer->bytes : 0;
    memcpy(body, offer->body, *bytes);
    /* Acquire fence: the copy is made before the word is looked at again. */
    atomic_thread_fence(memory_order_acquire);
    return atomic_load(&offer->word) == taken;
}

/* The next bit that is set at or after `slot`, below `end`; `end`: none. */
static uint32_t next_offered(const struct segment *segment, uint32_t slot, uint32_t end)
{
    while (slot < end) {
        uint64_t bits = atomic_load(offered_word(segment, slot)) >> slot % 64;
        if (bits != 0) {
            slot += (uint32_t)__builtin_ctzll(bits);
            return slot < end ? slot : end;
        }
        slot = (slot / 64 + 1) * 64;
    }
    return end;
}

/* The next slot that has its bit, in the order round to `from`; *step counts from 1. */
static bool next_round(const struct segment *segment, uint32_t from, uint32_t *step, uint32_t *slot)
{
    uint32_t count = segment->header->slot_count;
    while (*step < count) {
        uint32_t begin = (from + *step) % count, end = begin > from ? count : from;
        *slot = next_offered(segment, begin, end);
        *step += *slot - begin + (*slot < end);
        if (*slot < end)
            return true;
    }
    return false;
}

bool offer_take(const struct segment *segment, uint32_t taker, uint32_t *step, uint32_t *slot, char *body,
                uint32_t *bytes)
{
    while (next_round(segment, taker, step, slot)) {
        forget_bit(segment, *slot);
        if (take(segment, taker, *slot, body, bytes))
            return true;
    }
    return false;
}

void offer_settle(const struct segment *segment, uint32_t taker, uint32_t slot, enum offer_state state,
                  uint32_t result)
{
    struct shm_offer *offer = offer_of(segment, slot);
    if (move(offer, word_of(OFFER_TAKEN, taker), word_of(state, result)))
        wake_word(&offer->word);
}

/* ---- who has left the gate ---- */

void offer_nudge(const struct segment *segment, uint32_t from)
{
    uint32_t slot;
    for (uint32_t step = 1; next_round(segment, from, &step, &slot);) {
        struct shm_offer *offer = offer_of(segment, slot);
        bool nudged = move(offer, word_of(OFFER_WAITING, 0), NUDGED);
        if (nudged)
            wake_word(&offer->word);
        if (nudged || state_in(atomic_load(&offer->word)) == NUDGED) /* one is enough: it takes all others */
            return;
    }
}

/* ---- the supervisor ---- */

void offer_bury(const struct segment *segment, uint32_t slot)
{
    forget_bit(segment, slot);
    atomic_store(&offer_of(segment, slot)->word, OFFER_NONE);
    for (uint32_t other = 0; other < segment->header->slot_count; other++) {
        struct shm_offer *offer = offer_of(segment, other);
        if (move(offer, word_of(OFFER_TAKEN, slot), OFFER_LOST))
            wake_word(&offer->word);
    }
}
