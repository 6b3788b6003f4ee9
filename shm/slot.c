/* SPDX-License-Identifier: MIT */
/*
 * Slots and texts. The supervisor opens and clears a slot, the process that lives in it writes the rest,
 * and every process reads.
 *
 * Invariants
 *  1. `ticket` names the current event. slot_begin_event stores it last and slot_end_event clears it
 *     first. So a process that sees a ticket sees its event's start, and a process killed in between is
 *     blamed for no event that it had not begun or had already finished.
 *  2. The counters never decrease, not even when the slot changes hands.
 *  3. A text's sequence is odd from before its first byte changes until after its last has. A writer
 *     killed in between leaves it odd. Readers then take the bytes there are, and the next writer begins
 *     again.
 */
#include "shm/slot.h"

#include "shm/counter.h"

#include <string.h>
#include <time.h>

uint64_t shm_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t read_clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The instance's clock, set once, before there is another process or thread. CLOCK_BOOTTIME begins at 0
 * with the machine, so started_realtime_ms alone tells whether the clock is set. */
static uint64_t started_realtime_ms, started_boot_ms;

uint64_t shm_realtime_ms(void)
{
    if (started_realtime_ms == 0)
        return read_clock_ms(CLOCK_REALTIME);
    return started_realtime_ms + (read_clock_ms(CLOCK_BOOTTIME) - started_boot_ms);
}

uint64_t shm_boot_ms(void)
{
    return read_clock_ms(CLOCK_BOOTTIME);
}

void shm_clock_follow(const struct shm_header *header)
{
    started_realtime_ms = header->started_realtime_ms;
    started_boot_ms = header->started_boot_ms;
}

/* Relaxed: what these fields say to readers is ordered by the stores of `ticket` and `state` around them. */
#define STORE_RELAXED(field, value) atomic_store_explicit(&(field), value, memory_order_relaxed)
#define LOAD_RELAXED(field) atomic_load_explicit(&(field), memory_order_relaxed)

/* Clears what the previous process left in its slot in shared memory. The supervisor calls it before it
 * starts a process there and after it has recovered an exited one. */
static void reset_slot(struct shm_slot *slot)
{
    /* Release: a reader that sees no current event may rely on nothing older. */
    atomic_store_explicit(&slot->ticket, SHM_NO_TICKET, memory_order_release);
    STORE_RELAXED(slot->event, 0);
    STORE_RELAXED(slot->event_attempts, 0);
    STORE_RELAXED(slot->event_crashes, 0);
    STORE_RELAXED(slot->event_arrival_ms, 0);
    STORE_RELAXED(slot->pipeline, 0);
    STORE_RELAXED(slot->program_pid, 0);
    /* A crashed sleeper's bits would attract wake-ups meant for living workers; the next process sets its
     * own. */
    STORE_RELAXED(slot->wake, 0);
}

/* Clears a slot in shared memory (each process has one) for a new process, sets its state to STARTING, and
 * returns the generation, the number of this start. The supervisor calls it before it forks. A notice with
 * an older generation comes from a process that has exited, and is ignored. */
uint32_t slot_open(struct shm_slot *slot)
{
    reset_slot(slot);
    STORE_RELAXED(slot->pid, 0);
    STORE_RELAXED(slot->cause_kind, SHM_CAUSE_NONE);
    STORE_RELAXED(slot->cause_code, 0);
    text_set(&slot->cause_message, "");
    /* Relaxed: the supervisor alone writes it, and the child learns it through fork. */
    uint32_t generation = LOAD_RELAXED(slot->generation) + 1;
    STORE_RELAXED(slot->generation, generation);
    slot_set_state(slot, SHM_SLOT_STARTING);
    return generation;
}

/* Stores the process ID and the start time in a slot in shared memory, after the fork. The supervisor and
 * the new process both call it, with the same process ID, so that neither sees a slot without one. The
 * process writes other fields of the slot meanwhile, so this writes only these two. */
void slot_set_pid(struct shm_slot *slot, int32_t pid)
{
    STORE_RELAXED(slot->forked_ns, shm_now_ns());
    /* Release: a reader that sees the pid sees forked_ns. */
    atomic_store_explicit(&slot->pid, pid, memory_order_release);
}

void slot_clear(struct shm_slot *slot, enum shm_slot_state state)
{
    reset_slot(slot);
    STORE_RELAXED(slot->pid, 0);
    slot_set_state(slot, state);
}

/* Sets what a process does now, and since when, in its slot in shared memory. Each worker, producer and
 * keeper calls it for itself, the supervisor for a slot whose process has exited. `eventpipe status` shows
 * it. */
void slot_set_state(struct shm_slot *slot, enum shm_slot_state state)
{
    STORE_RELAXED(slot->since_ns, shm_now_ns());
    /* seq_cst: release, so that since_ns goes with it; and a process that sees space_wanted set
     * (wake_waiters_for_room), which other waiters may have set as well, must see BLOCKED. */
    atomic_store_explicit(&slot->state, state, memory_order_seq_cst);
}

void slot_set_uid(struct shm_slot *slot, const char *uid)
{
    size_t bytes = strnlen(uid, sizeof slot->uid - 1);
    memcpy(slot->uid, uid, bytes);
    slot->uid[bytes] = '\0';
}

/* Stores in the worker's slot in shared memory which event it begins to run, and sets the state to BUSY.
 * The worker calls it before each call of its stage. The ticket is stored last: if the worker crashes, the
 * supervisor blames the event that the ticket (it says who owns an event) names. */
void slot_begin_event(struct shm_slot *slot, uint32_t ticket, const struct slot_event *event, uint64_t now_ns)
{
    STORE_RELAXED(slot->since_ns, now_ns);
    STORE_RELAXED(slot->event, event->id);
    STORE_RELAXED(slot->event_attempts, event->attempts);
    STORE_RELAXED(slot->event_crashes, event->crashes);
    STORE_RELAXED(slot->event_arrival_ms, event->arrival_ms);
    /* Release, both: the state goes with its since_ns, and the ticket, last, with all of it. */
    atomic_store_explicit(&slot->state, SHM_SLOT_BUSY, memory_order_release);
    atomic_store_explicit(&slot->ticket, ticket, memory_order_release);
}

/* Clears the event from a worker's slot in shared memory and counts the call, its busy time and its
 * latency. The worker calls it when its stage has answered. A reader that saw the ticket before may read
 * the new since_ns: the event looks younger than it was, so no worker is killed for a timeout by mistake. */
void slot_end_event(struct shm_slot *slot, uint64_t now_ns)
{
    uint64_t event_start_ns = LOAD_RELAXED(slot->since_ns);
    uint64_t duration_ns = now_ns > event_start_ns ? now_ns - event_start_ns : 0;
    STORE_RELAXED(slot->ticket, SHM_NO_TICKET);
    /* Release: a reader that sees the event gone sees the ticket gone. */
    atomic_store_explicit(&slot->event, 0, memory_order_release);
    atomic_store_explicit(&slot->since_ns, now_ns, memory_order_release); /* as above */
    STORE_RELAXED(slot->busy_ns,
                  LOAD_RELAXED(slot->busy_ns) + duration_ns); /* one writer: no read-modify-write is needed */
    histogram_add(&slot->latency, duration_ns / 1000);
    STORE_RELAXED(slot->calls, LOAD_RELAXED(slot->calls) + 1);
}

/* Returns how many bytes of a message fit into a text in shared memory: at most SHM_TEXT_BYTES - 1, and
 * no part of a UTF-8 character. text_set calls it. */
static size_t compute_fitting_bytes(const char *message)
{
    size_t message_bytes = strnlen(message, SHM_TEXT_BYTES);
    if (message_bytes < SHM_TEXT_BYTES)
        return message_bytes;
    message_bytes = SHM_TEXT_BYTES - 1;
    while (message_bytes > 0 && ((unsigned char)message[message_bytes] & 0xc0) == 0x80)
        message_bytes--;
    return message_bytes;
}

/*
 * Stores a text for people in shared memory, such as the error of a source or how a process ended. The
 * process that owns the text calls it: supervisor, producer, worker, or any process for the store's error.
 * Readers copy it with text_get and never wait.
 *
 * Two writers at once (store_error may have them) can mix their text, nothing worse: each moves the sequence,
 * and each next writer starts from the value it finds.
 */
void text_set(struct shm_text *text, const char *message)
{
    size_t message_bytes = compute_fitting_bytes(message);
    /* Relaxed: one writer. If there is another, an older number only mixes the texts, as said. */
    uint32_t old_sequence = LOAD_RELAXED(text->sequence);
    uint32_t odd_sequence =
        (old_sequence | 1) + (old_sequence & 1) * 2; /* the next odd one, also after a killed writer's */
    STORE_RELAXED(text->sequence, odd_sequence);
    /* Release at each byte: a reader that sees it sees the odd sequence stored before it. */
    for (size_t i = 0; i < message_bytes; i++)
        __atomic_store_n(&text->bytes[i], message[i], __ATOMIC_RELEASE);
    __atomic_store_n(&text->bytes[message_bytes], '\0', __ATOMIC_RELEASE);
    /* Release: a reader that sees the even sequence sees all bytes. */
    atomic_store_explicit(&text->sequence, odd_sequence + 1, memory_order_release);
}

/* Copies a text out of shared memory. Returns false if a writer changed it meanwhile, so that the copy
 * may be mixed. text_get calls it again then. */
static bool copy_text_once(const struct shm_text *text, char *buffer, size_t buffer_bytes)
{
    /* Acquire: the bytes read after it are at least as new as this sequence. */
    uint32_t first_sequence = atomic_load_explicit(&text->sequence, memory_order_acquire);
    size_t i = 0;
    /* Acquire at each byte: having read a byte of a later text, it reads a later sequence below. */
    for (; i + 1 < buffer_bytes && i < SHM_TEXT_BYTES; i++)
        if ((buffer[i] = __atomic_load_n(&text->bytes[i], __ATOMIC_ACQUIRE)) == '\0')
            break;
    buffer[i] = '\0';
    /* Relaxed: the acquiring loads keep it behind them. */
    return (first_sequence & 1) == 0 && LOAD_RELAXED(text->sequence) == first_sequence;
}

/* Copies a text for people out of shared memory, such as an error, and terminates it. `eventpipe status`,
 * the supervisor and the producer read texts with it. It tries 16 times to get a whole text. Then it keeps
 * what it has: a writer that was killed halfway would make it wait for ever. */
void text_get(const struct shm_text *text, char *buffer, size_t buffer_bytes)
{
    if (buffer_bytes == 0)
        return;
    for (int try_count = 0; try_count < 16; try_count++)
        if (copy_text_once(text, buffer, buffer_bytes))
            return;
}
