/* SPDX-License-Identifier: MIT */
/*
 * The layout of the shared memory segment of one instance: the specification.
 *
 * The supervisor creates the segment, and every process of the instance maps it. A reader (the command
 * line) maps it read-only. It holds only offsets and fixed-width types, never pointers. Each field names
 * its writer:
 *   S supervisor, P the source's producer, K keeper, * any process,
 *   W the worker that owns the slot or ticket.
 *
 * Invariants
 *  1. A process killed at any instruction leaves nothing here that blocks, loses or doubles an event.
 *  2. Tickets own, rings hint: an event in flight belongs to the process that its ticket's word names. An
 *     entry of a ring means nothing until the ticket agrees.
 *  3. header.ready is stored last. No process reads further before it is 1.
 *  4. Fields that one process writes while others read are atomics, or a shm_text.
 *  5. The layout number changes whenever any struct here changes.
 */
#ifndef SHM_LAYOUT_H
#define SHM_LAYOUT_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHM_MAGIC UINT64_C(0x3165706970747665) /* "evtpipe1" in memory on a little-endian machine */
#define SHM_LAYOUT 8u
#define SHM_LINE 64 /* bytes in a cache line: fields of different writers are in different lines */
#define SHM_NAME_BYTES 64
#define SHM_TEXT_BYTES 500
#define SHM_UID_BYTES 128             /* a longer UID is cut in the segment */
#define SHM_COMMIT_REQUEST_BYTES 1984 /* of a worker's commit request */
#define SHM_CRASHES 128               /* crashes that wait for the keeper to store them */
#define SHM_HISTOGRAM_BUCKETS 256
#define SHM_NO_SLOT 0xffffu /* as an owner: none */
#define SHM_NO_TICKET UINT32_MAX

#define SHM_ALIGNED _Alignas(SHM_LINE)

/* Text for people: one writer at a time, any number of readers (text_set, text_get in slot.h). */
struct shm_text {
    _Atomic uint32_t sequence; /* odd while being written, also for ever if its writer was killed then */
    char bytes[SHM_TEXT_BYTES];
};

/* The phases of an instance: enum value, name. The only list of them. */
#define SHM_PHASES(X)                                                                       \
    X(STARTING, "starting") /* the store is being prepared */                               \
    X(RUNNING, "running")                                                                   \
    X(DRAINING, "draining") /* nothing is fetched; ready events go through all stages */    \
    X(STOPPING, "stopping") /* workers finish the current event; the others are unlocked */ \
    X(STOPPED, "stopped")
enum shm_phase {
#define X(name, text) SHM_PHASE_##name,
    SHM_PHASES(X)
#undef X
};

#define SHM_KINDS(X)        \
    X(NONE, "none")         \
    X(PRODUCER, "producer") \
    X(WORKER, "worker")     \
    X(KEEPER, "keeper")
enum shm_kind {
#define X(name, text) SHM_KIND_##name,
    SHM_KINDS(X)
#undef X
};

/* What a process does now. EMPTY: no process; STARTING: forked, not yet ready. */
#define SHM_SLOT_STATES(X)                                                              \
    X(EMPTY, "down")                                                                    \
    X(STARTING, "starting")                                                             \
    X(IDLE, "idle")             /* sleeps until there is work */                        \
    X(BUSY, "busy")             /* runs a stage, or fetches */                          \
    X(COMMITTING, "committing") /* in a transaction of the store */                     \
    X(BLOCKED, "blocked")       /* the next stage's ring is full */                     \
    X(WAITING, "waiting")       /* the store cannot take it: full, locked, read-only */ \
    X(PAUSED, "paused")                                                                 \
    X(BACKOFF, "backoff") /* exited, to be started again at restart_at_ns */            \
    X(STOPPING, "stopping")
enum shm_slot_state {
#define X(name, text) SHM_SLOT_##name,
    SHM_SLOT_STATES(X)
#undef X
};

/* State of a source as its producer sees the backend. */
#define SHM_SOURCE_STATES(X)                                                            \
    X(STARTING, "starting")                                                             \
    X(FETCHING, "fetching") /* fetches work: asking, or waiting for the backend */      \
    X(BACKOFF, "backoff")   /* the last fetch failed; the next try is at next_try_ms */ \
    X(FULL, "full")         /* backlog.max_events is reached, fetching pauses */        \
    X(PAUSED, "paused")                                                                 \
    X(ENDED, "ended") /* the source said that nothing more will ever come */            \
    X(STOPPED, "stopped")
enum shm_source_state {
#define X(name, text) SHM_SOURCE_##name,
    SHM_SOURCE_STATES(X)
#undef X
};

/* Why a ticket was orphaned: what the exit of its owner means for the event. */
#define SHM_CAUSES(X)                                                                             \
    X(NONE, "released")              /* not the current event, or a clean end: no blame */        \
    X(SIGNAL, "signal")              /* worker killed by signal `code` while it ran this event */ \
    X(EXIT, "exit")                  /* worker, or its program, ended with exit code `code` */    \
    X(MALFORMED, "malformed-answer") /* the program sent a malformed answer */                    \
    X(TIMEOUT, "timeout")            /* killed by the supervisor: the event ran past the stage's timeout */
enum shm_cause_kind {
#define X(name, text) SHM_CAUSE_##name,
    SHM_CAUSES(X)
#undef X
};

struct shm_header {
    /* written once by S before ready */
    uint64_t magic;
    uint32_t layout;
    _Atomic uint32_t ready; /* S: 1, stored last with release */
    uint64_t size_bytes;
    uint32_t source_count, stage_count, slot_count, ticket_count;
    uint64_t source_offset, stage_offset, slot_offset, ticket_offset, cause_offset, ring_offset, crash_offset;
    uint64_t commit_request_bits_offset, commit_request_offset;
    char instance[SHM_NAME_BYTES];
    char version[32];
    char store_url[256]; /* as configured, without secrets */
    int32_t supervisor_pid;
    uint32_t keeper_slot;
    uint64_t started_realtime_ms,
        started_boot_ms; /* CLOCK_REALTIME and CLOCK_BOOTTIME: the instance's clock */
    uint64_t started_ns; /* CLOCK_MONOTONIC */

    SHM_ALIGNED _Atomic uint64_t heartbeat_ns; /* S: CLOCK_MONOTONIC of its last turn, about once a second */
    _Atomic uint32_t phase;                    /* S: enum shm_phase */
    _Atomic uint32_t recoveries;               /* S: exits recovered so far */

    SHM_ALIGNED _Atomic uint64_t start_number; /* K: the store's start counter, before any claim */
    _Atomic uint32_t prepared;                 /* K: 1 when the store can be used */
    _Atomic uint32_t activity; /* *: 1 = something changed since K last looked (process_notify_keeper) */
    _Atomic uint64_t store_bytes, wal_bytes; /* K */
    _Atomic uint64_t store_failing_since_ms; /* *: wall clock, 0 = the store works */
    struct shm_text store_error; /* *: why the store cannot be written, while failing_since != 0 */

    SHM_ALIGNED pthread_mutex_t
        write_lock; /* robust, process-shared: writers of the store queue here (write_lock.h) */
};

/* Lifetime totals of a source, copied from the store by K after they change. */
struct shm_source_totals {
    _Atomic uint64_t fetched, duplicates, injected, completed, removed_by_stage, removed_by_operator;
    _Atomic uint64_t delayed, held, dead; /* how many there are now */
    _Atomic uint64_t live;      /* all events in the store: ready + running + delayed + held + dead */
    _Atomic uint64_t oldest_ms; /* wall clock of the oldest live event's arrival, 0 = none */
    _Atomic uint64_t fetched_before, completed_before,
        removed_by_stage_before; /* as they stood at this start */
};

struct shm_source {
    /* S, once */
    char id[SHM_NAME_BYTES];
    char type[16];
    uint32_t first_stage, stage_count;   /* its stages stand next to each other, in chain order */
    uint32_t first_ticket, ticket_count; /* its part of the ticket and cause arrays */
    uint32_t producer_slot;
    _Atomic int64_t store_id; /* K, before prepared */

    SHM_ALIGNED _Atomic uint32_t paused; /* S */
    _Atomic uint32_t
        rescan; /* K sets (S at its exit), P clears: others changed the store, P must look again */
    _Atomic uint32_t orphans; /* S sets, P clears: there are ORPHANED tickets */
    _Atomic uint32_t fallen;  /* * sets, S clears: a ring was full, so a QUEUED ticket may be in no ring */
    _Atomic uint32_t
        tickets_wanted; /* P sets before it sleeps; the process that frees a ticket clears it and wakes P */
    _Atomic uint64_t
        next_due_ms; /* *: a delayed event may fall due earlier than P thinks (atomic min), UINT64_MAX = no */

    SHM_ALIGNED _Atomic uint64_t claims; /* P: counts claims; a token is start_number and this */
    _Atomic uint32_t state;              /* P: enum shm_source_state */
    _Atomic uint32_t failures;           /* P: failed fetches in a row */
    _Atomic uint64_t next_try_ms;        /* P: wall clock, 0 = not waiting */
    _Atomic uint64_t fetched_ms;         /* P: wall clock of the last good answer of the backend */
    _Atomic uint32_t ended;              /* P: 1 = source ended, and nothing is ready, running or delayed */
    struct shm_text error;               /* P: why the last fetch failed, empty = it did not */
    struct shm_text cursor;              /* P: the cursor stored last, cut to fit */

    SHM_ALIGNED struct shm_source_totals totals; /* K */
};

/* Lifetime totals of a stage, copied from the store by K. */
struct shm_stage_totals {
    _Atomic uint64_t processed, retried, removed, rejected, failed, crashed;
};

struct shm_ring {
    SHM_ALIGNED _Atomic uint64_t
        head; /* *: hint: the position to pop from; any process may help it forward */
    SHM_ALIGNED _Atomic uint64_t tail; /* *: hint: the position to push at */
    SHM_ALIGNED _Atomic uint32_t
        space_wanted;      /* *: a process sleeps until there is room (slot state BLOCKED) */
    uint32_t size;         /* S, once: a power of two, at least twice the source's ticket count */
    uint32_t limit;        /* S, once: input_buffer; ring_has_room says no from here on */
    uint64_t words_offset; /* S, once: bytes from this struct to its `size` words of 64 bits, {cycle:32,
                              ticket + 1 or 0:32} */
};

struct shm_stage {
    /* S, once */
    char name[SHM_NAME_BYTES];
    char type[16];             /* function, plugin, exec, http */
    uint32_t source, position; /* its source's index; its place in the chain, from 0 */
    uint32_t first_slot, concurrency;
    uint64_t timeout_ms;      /* 0 = none */
    _Atomic int64_t store_id; /* K, before prepared */

    SHM_ALIGNED _Atomic uint32_t paused; /* S */
    _Atomic uint32_t degraded;           /* S: 1 while a worker of it is kept in backoff */
    _Atomic int32_t process_group;       /* S: its process group, 0 = none */
    _Atomic uint64_t alone_until_ns;     /* S: CLOCK_MONOTONIC; until then it is sent one event at a time */
    uint64_t alone_ns;                   /* S: how long that was the last time */
    struct shm_ring ring;
    SHM_ALIGNED struct shm_stage_totals totals; /* K */
};

struct shm_histogram {
    _Atomic uint64_t buckets[SHM_HISTOGRAM_BUCKETS]; /* counter.h says which value falls where */
};

struct shm_slot {
    /* S, before it forks and after it reaps */
    SHM_ALIGNED _Atomic int32_t pid;
    _Atomic uint32_t generation;         /* counts the processes that lived here */
    uint32_t kind, source, stage, index; /* once: enum shm_kind; index = the worker's number in its stage */
    _Atomic uint32_t restarts;
    _Atomic uint64_t restart_at_ns; /* CLOCK_MONOTONIC, while BACKOFF */
    _Atomic uint64_t forked_ns;
    struct shm_text last_exit; /* how the process before this one ended, as text */

    /* the process that lives here (W) */
    SHM_ALIGNED _Atomic uint32_t state; /* enum shm_slot_state */
    _Atomic uint32_t ticket;            /* the ticket whose event runs now, SHM_NO_TICKET = none */
    _Atomic int64_t event;              /* that event's id, 0 = none */
    _Atomic uint64_t since_ns; /* CLOCK_MONOTONIC: since when in this state; for a current event: its start */
    char uid[SHM_UID_BYTES]; /* the event's, cut to fit; written before `ticket`, read by S after the exit */
    _Atomic uint32_t pipeline; /* how many events were sent to the program together with it */
    _Atomic uint32_t event_attempts, event_crashes; /* of that event at this stage, so far */
    _Atomic uint64_t event_arrival_ms;              /* wall clock: when the store received it */
    _Atomic int32_t program_pid;                    /* pid of the program, 0 = none */
    _Atomic uint32_t
        cause_kind; /* enum shm_cause_kind: W sets it before it exits because its program failed */
    _Atomic int32_t cause_code;
    struct shm_text cause_message;
    _Atomic uint64_t calls;   /* answers the stage gave in this slot, over all generations; never decreases */
    _Atomic uint64_t busy_ns; /* time spent in the stage, over all generations */
    _Atomic uint64_t work_ns; /* time not asleep: reading, the stage, committing, over all generations */
    _Atomic uint64_t commits; /* transactions committed */
    struct shm_histogram latency; /* microseconds of each call of the stage */

    SHM_ALIGNED _Atomic uint32_t wake; /* *: futex word, see wake.h */
};

/* One for each slot. There is also a bit for each slot: it may have a commit request. */
struct shm_commit_request {
    SHM_ALIGNED _Atomic uint32_t word; /* *: futex word, see commit_request.c */
    uint32_t bytes;                    /* W, before it makes the commit request, as the body */
    SHM_ALIGNED char body[SHM_COMMIT_REQUEST_BYTES];
};

/* {phase:4, stage:12, slot:16, generation:32} from the top; generation counts the uses of the ticket. */
struct shm_ticket {
    _Atomic uint64_t word;
    _Atomic int64_t event;  /* P, while LOADING */
    _Atomic uint64_t token; /* P, while LOADING */
    uint64_t spare;
};

/* One for each ticket. S writes it before it orphans the ticket; P reads it and clears it
 * (ticket_free_orphan). */
struct shm_cause {
    uint32_t kind; /* enum shm_cause_kind */
    int32_t code;
    uint32_t stage; /* segment-wide index of the stage the event was at */
    int32_t pid;    /* of the process that crashed, 0 = it ended cleanly */
    uint32_t attempts,
        crashes; /* of the event at this stage before; set if `kind` blames it, as is the next */
    uint64_t arrival_ms;
    char message[SHM_TEXT_BYTES];
};

/* How a process ended that should not have ended, or the previous supervisor. */
struct crash_record {
    uint64_t crashed_ms, uptime_ms; /* wall clock; 0 = not known */
    int64_t event;                  /* the current one, 0 = none */
    int32_t pid, code;              /* signal or exit code */
    char kind[24], cause[24];       /* "worker", "daemon"; "signal", "exit", "timeout", "unknown" */
    char process[160];              /* as the log names it */
    char source[SHM_NAME_BYTES], stage[SHM_NAME_BYTES]; /* "" = none */
    char uid[SHM_UID_BYTES];                            /* of the current event */
    char how[504], last_output[400];                    /* as text; the last lines on stderr */
};

struct shm_crash_entry {
    _Atomic uint64_t number; /* S: counts from 1; 0 = none, or just being written */
    _Atomic uint64_t words[sizeof(struct crash_record) / sizeof(uint64_t)]; /* S: the struct, word by word */
};

struct shm_crashes {
    SHM_ALIGNED _Atomic uint64_t written;                    /* S: how many ever */
    SHM_ALIGNED _Atomic uint64_t stored;                     /* K: up to this number they are in the store */
    SHM_ALIGNED struct shm_crash_entry records[SHM_CRASHES]; /* number % SHM_CRASHES */
};

static_assert(sizeof(_Atomic uint64_t) == 8, "64-bit atomics are plain words");
static_assert(sizeof(struct shm_ticket) == 32, "two tickets a cache line");
static_assert(sizeof(struct shm_text) == SHM_TEXT_BYTES + 4, "no padding in texts");

#endif
