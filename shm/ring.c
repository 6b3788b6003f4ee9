/* SPDX-License-Identifier: MIT */
/*
 * Rings: the order in which events wait for a stage. Every process of the instance runs it.
 *
 * A position counts all entries ever put in. Position p stands in word `p % size`, in cycle `p / size`. A
 * push turns a word of cycle c from {c, 0} into {c, ticket + 1}; a pop turns that into {c + 1, 0}. Each is
 * one compare-and-swap, so there is no state between done and not done in which a process could crash.
 *
 * Invariants
 *  1. head <= first position not popped <= first position not pushed, and tail <= first position not
 *     pushed. A hint moves from p to p + 1 only after the word has shown that p is done. Hints never go
 *     back.
 *  2. A push succeeds only at the first position not pushed, a pop only at the first not popped: strict
 *     FIFO.
 *  3. A kill leaves each hint at most one behind. The next push (pop) needs the hint at its own position
 *     and helps it there. A process that needs the true position walks from the hint.
 *  4. A cycle number comes back after 2^32 rounds. A process would have to be halted that long to mistake
 *     it.
 *
 * A full ring and an empty ring are answers. Nothing here fails, waits, or makes a system call.
 */
#include "shm/ring.h"

static _Atomic uint64_t *get_ring_words(const struct shm_ring *ring)
{
    return (_Atomic uint64_t *)(void *)((char *)(uintptr_t)ring + ring->words_offset);
}

static _Atomic uint64_t *get_ring_word(const struct shm_ring *ring, uint64_t position)
{
    return &get_ring_words(ring)[position & (ring->size - 1)];
}

static uint32_t compute_cycle(const struct shm_ring *ring, uint64_t position)
{
    return (uint32_t)(position >> __builtin_ctz(ring->size));
}

static uint64_t make_empty_word(uint32_t cycle)
{
    return (uint64_t)cycle << 32;
}

static uint32_t get_word_cycle(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static uint32_t get_word_entry(uint64_t word) /* ticket + 1, 0 = empty */
{
    return (uint32_t)word;
}

/* Acquire, paired with advance_hint's release: a process that sees a hint at p sees every word at least as
 * new as the positions before p left it. Otherwise a word could look a round older than the hint, and an
 * empty ring full. */
static uint64_t load_hint(const _Atomic uint64_t *hint)
{
    return atomic_load_explicit(hint, memory_order_acquire);
}

/* Moves a hint that still says `position` to the next one. Relaxed on failure: another process has helped,
 * and the value that was found is not used. */
static void advance_hint(_Atomic uint64_t *hint, uint64_t position)
{
    atomic_compare_exchange_strong_explicit(hint, &position, position + 1, memory_order_release,
                                            memory_order_relaxed);
}

/* Whether a position's entry was popped. seq_cst: wake_waiters_for_room relies on these loads being in one
 * order with the pops (wake.c). */
static bool is_popped(const struct shm_ring *ring, uint64_t position)
{
    uint64_t word = atomic_load_explicit(get_ring_word(ring, position), memory_order_seq_cst);
    return (int32_t)(get_word_cycle(word) - compute_cycle(ring, position)) > 0;
}

/* Whether an entry was ever pushed at a position: its word is neither empty nor still full from the round
 * before. seq_cst, for the same reason. */
static bool is_pushed(const struct shm_ring *ring, uint64_t position)
{
    uint64_t word = atomic_load_explicit(get_ring_word(ring, position), memory_order_seq_cst);
    int32_t cycles_ahead = (int32_t)(get_word_cycle(word) - compute_cycle(ring, position));
    return cycles_ahead > 0 || (cycles_ahead == 0 && get_word_entry(word) != 0);
}

/*
 * Returns the first position of a stage's ring for which `is_position_done` is false, searched from a
 * hint. Any process that counts the events in a ring calls it, for the head with is_popped and for the
 * tail with is_pushed.
 *
 * It is exact at the instant of the last load, because the position before it was popped (or pushed)
 * already. From a hint that stands still this takes at most one step more, the cost of a kill. While other
 * processes move the hint, it may take more steps, and after a whole round it starts from the new hint. If
 * the condition holds for a whole round and the hint has not moved, the memory is corrupt; the search must
 * still end.
 */
static uint64_t find_first_not_done(const struct shm_ring *ring, const _Atomic uint64_t *hint,
                                    bool (*is_position_done)(const struct shm_ring *ring, uint64_t position))
{
    for (;;) {
        uint64_t start_position = load_hint(hint);
        for (uint64_t position = start_position; position - start_position <= ring->size; position++)
            if (!is_position_done(ring, position))
                return position;
        if (load_hint(hint) == start_position)
            return start_position;
    }
}

/*
 * Puts a ticket, which stands for one event, into a stage's ring in shared memory. A producer and the
 * workers of the stage before call it when they pass an event on, the supervisor when it puts back a
 * ticket that is in no ring. Returns RING_OK or RING_FULL.
 *
 * Full is decided by the word itself: an entry of the round before still stands in it, so `size` entries
 * wait. An empty word of this cycle means that the entry of the round before was popped, so there is room.
 * The swap succeeds only while `tail` is the first position not pushed.
 *
 * If the process is killed before the swap, nothing has happened. If it is killed after the swap, the
 * entry is in the ring, and the next push moves the tail hint. No worker was woken for the entry; the
 * supervisor's wake_source does that after the exit.
 */
enum ring_answer ring_push(const struct segment *segment, struct shm_ring *ring, uint32_t ticket)
{
    assert(segment->writable && ticket != SHM_NO_TICKET);
    for (;;) {
        uint64_t tail_position = load_hint(&ring->tail);
        uint32_t cycle = compute_cycle(ring, tail_position);
        _Atomic uint64_t *word = get_ring_word(ring, tail_position);
        /* seq_cst: it may decide that the ring is full, so it must stand in one order with the pops
         * (wake.c). */
        uint64_t current_word = atomic_load_explicit(word, memory_order_seq_cst);
        if ((int32_t)(get_word_cycle(current_word) - cycle) < 0)
            return RING_FULL;
        if (current_word != make_empty_word(cycle)) {
            advance_hint(&ring->tail, tail_position);
            continue;
        }
        /* seq_cst: release, so that the popper sees what the ticket refers to; and in one order with the
         * wake words, so that a worker about to sleep sees the entry or is seen sleeping (wake.c). */
        if (atomic_compare_exchange_strong_explicit(word, &current_word,
                                                    make_empty_word(cycle) | (ticket + 1),
                                                    memory_order_seq_cst, memory_order_relaxed)) {
            advance_hint(&ring->tail, tail_position);
            return RING_OK;
        }
    }
}

/*
 * Takes the oldest ticket out of a stage's ring in shared memory. A worker of the stage calls it when it
 * looks for events to run. Returns RING_OK or RING_EMPTY.
 *
 * If the process is killed before the swap, nothing has happened. If it is killed after the swap and
 * before ticket_take, the ticket is QUEUED but in no ring, and ticket_requeue_lost puts it back; the next
 * pop moves the head hint.
 */
enum ring_answer ring_pop(const struct segment *segment, struct shm_ring *ring, uint32_t *ticket)
{
    assert(segment->writable);
    for (;;) {
        uint64_t head_position = load_hint(&ring->head);
        uint32_t cycle = compute_cycle(ring, head_position);
        _Atomic uint64_t *word = get_ring_word(ring, head_position);
        /* seq_cst: this load decides that the ring is empty, so it must stand in one order with the wake word
         * that the caller set before, and with the pushes (wake.c). */
        uint64_t current_word = atomic_load_explicit(word, memory_order_seq_cst);
        if (get_word_cycle(current_word) != cycle) {
            advance_hint(&ring->head, head_position);
            continue;
        }
        if (get_word_entry(current_word) == 0)
            return RING_EMPTY;
        /* seq_cst: acquire, to see what the pusher did before; release, so that a push that reuses the
         * word comes after; and in one order with space_wanted (wake_waiters_for_room). */
        if (atomic_compare_exchange_strong_explicit(word, &current_word, make_empty_word(cycle + 1),
                                                    memory_order_seq_cst, memory_order_relaxed)) {
            advance_hint(&ring->head, head_position);
            *ticket = get_word_entry(current_word) - 1;
            return RING_OK;
        }
    }
}

/* Loads the tail first: entries that come and go between the two loads make the count too small, never too
 * big. So "no room" is true at the instant of the second load. */
uint32_t ring_count(const struct shm_ring *ring)
{
    uint64_t tail_position = find_first_not_done(ring, &ring->tail, is_pushed);
    int64_t count = (int64_t)(tail_position - find_first_not_done(ring, &ring->head, is_popped));
    return count > 0 ? (uint32_t)count : 0;
}

bool ring_has_room(const struct shm_ring *ring)
{
    return ring_count(ring) < ring->limit;
}

/* Calls on_ticket for each ticket (it stands for one event) that waits in a stage's ring in shared memory.
 * The supervisor uses it after an exit, to find waiting events that are in no ring. An entry never moves
 * from its word, so one pass sees each entry that stays in the ring. */
void ring_each(const struct segment *segment, const struct shm_ring *ring,
               void (*on_ticket)(uint32_t ticket, void *user), void *user)
{
    const char *segment_end = (const char *)segment->header + segment->size_bytes;
    assert((const char *)(get_ring_words(ring) + ring->size) <= segment_end);
    for (uint32_t i = 0; i < ring->size; i++) {
        /* Acquire: a process that looks at the ticket sees what the pusher wrote before it pushed. */
        uint64_t word = atomic_load_explicit(&get_ring_words(ring)[i], memory_order_acquire);
        if (get_word_entry(word) != 0)
            on_ticket(get_word_entry(word) - 1, user);
    }
}
