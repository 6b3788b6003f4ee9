/* SPDX-License-Identifier: MIT */
/*
 * The store: where events live. One table of functions, neutral to engine, source and format; SQLite behind
 * it.
 *
 * Each process opens its own handle after fork. A handle is used by one thread at a time. Every call is one
 * transaction, all or nothing, unless it says otherwise, and returns 0 or a negative code: EP_ESTOREBUSY
 * (disk full, locked, read-only for now: nothing was acknowledged, call again later), EP_ESTORE (broken or
 * wrong: store_errmsg says what), EP_EINVAL.
 *
 * Locks are tokens: an event that runs carries the token of its claim; commit and unlock change a row only
 * where its token is still the one they name. A token is (start number << 40 | claim count): unique over the
 * life of the store. store_prepare adds one to the start number, and a token of an older start counts as no
 * lock at all: so whatever was locked when everything was killed is ready again, without a scan.
 *
 * Order: events of a source have ids that increase with arrival, and are claimed in that order (FIFO).
 */
#ifndef STORE_H
#define STORE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/config/config.h"

#define STORE_TOKEN(start, claim) ((uint64_t)(start) << 40 | (uint64_t)(claim))

/* An event's id for people: its number in its source's order of arrival. Ids themselves are opaque. */
uint64_t store_event_number(int64_t event);
int64_t store_event_source(int64_t event); /* store id of its source */

#define STORE_STATES(X) \
    X(READY, "ready") X(RUNNING, "running") X(DELAYED, "delayed") X(HELD, "held") X(DEAD, "dead")
enum store_state {
#define X(name, text) STORE_##name,
    STORE_STATES(X)
#undef X
};
const char *store_state_name(enum store_state state);

/* Why an event is dead. */
#define STORE_REASONS(X)      \
    X(NONE, "")               \
    X(EXHAUSTED, "exhausted") \
    X(EXPIRED, "expired")     \
    X(REJECTED, "rejected")   \
    X(CRASHED, "crashed")     \
    X(CORRUPT, "corrupt")
enum store_reason {
#define X(name, text) STORE_REASON_##name,
    STORE_REASONS(X)
#undef X
        STORE_REASON_KINDS
};
const char *store_reason_name(enum store_reason reason);

struct store_options {
    const char *url; /* "sqlite:PATH" or "memory:" (then `instance` finds the directory) */
    const char *instance;
    enum synchronous synchronous;
    bool readonly;
    uint32_t busy_timeout_ms;    /* 0 = 5000 */
    bool trace;                  /* writes down what is done to each event, for store_trace */
    pthread_mutex_t *write_lock; /* writers queue on it (shm/write_lock.h); NULL = none */
    uint64_t start_number; /* of this run, to make tokens of older runs void; 0 for a reader when the daemon
                              is down */
    /* called after a commit when the WAL of the engine has grown beyond wal_bytes: wakes the keeper */
    uint64_t wal_bytes;
    void (*wal_grown)(void *user);
    void (*write_lock_released)(
        void *user); /* called each time after releasing the write lock; NULL = nobody wants to know */
    void *user;
};

struct store; /* one process's handle */

/*
 * Holds the store for one instance: takes the lock beside the store that a second supervisor
 * finds. The descriptor (CLOEXEC, shared over fork) is the lock; it goes when the last copy is closed. If
 * another instance that is ending holds it, waits up to wait_ms. EP_EBUSY: the message names the holder (pid,
 * instance, since when). For memory: also makes the private directory (clearing what an earlier, crashed instance
 * left).
 */
int store_hold(const struct store_options *options, uint64_t wait_ms, int *lock_fd, struct error *error);
/* The last to leave (supervisor): for memory:, removes the directory. Harmless otherwise. */
void store_leave(const struct store_options *options);

/* The first step of a start (keeper, import): creates or migrates, adds 1 to the start number, registers the
 * names.
 */
struct store_names {
    const char *source;
    const char *const *stages;
    size_t stage_count;
    int64_t source_id;  /* out */
    int64_t *stage_ids; /* out, stage_count of them */
};
int store_prepare(const struct store_options *options, struct store_names *names, size_t count,
                  uint64_t *start_number, struct error *error);

/* Opens what was prepared. A reader (readonly) never creates or changes anything; EP_ENOENT when there is no
 * store. */
int store_open(const struct store_options *options, struct store **out, struct error *error);
void store_close(struct store **store);
const char *store_errmsg(const struct store *store); /* of the last failure, until the next call */

/* ---- ingest ---- */
struct store_event {
    const char *uid;     /* unique within its source */
    const char *address; /* for selectors; may be NULL */
    const char *type;    /* may be NULL */
    const char *data;    /* the event's JSON text, kept byte for byte */
    size_t data_bytes;
    enum store_reason
        dead; /* STORE_REASON_CORRUPT: goes to the dead at once, with `error`; data may then be anything */
    const char *error;
};
struct store_page {
    const struct store_event *events;
    size_t count;
    const char *cursor; /* stored with the events; NULL = unchanged */
    bool injected;      /* counts as injected too */
    uint64_t now_ms;    /* wall clock, the arrival */
    /* follows: the cursor only where the stored one is still `after` (NULL and "" are the same). The events
     * are stored either way; the cursor is not when somebody has set another while the page was under way. */
    bool follows;
    const char *after;
};
/* Called for each event the transaction claims, before it commits: write it down where your successor finds
 * it. The token is the same for all of one call. `done` names the stages already done ("a\nb\n"). Returns
 * false to take no more. */
typedef bool store_on_claim(int64_t event, const char *done, void *user);
struct store_claim {
    uint64_t token;
    size_t limit; /* 0 = claim nothing */
    store_on_claim *on_claim;
    void *user;
};
struct store_ingested {
    size_t stored, duplicates, claimed;
};
/* Claims of the page just stored happen only when no older event of the source is ready (FIFO), else older
 * ones go first. */
int store_ingest(struct store *store, int64_t source, const struct store_page *page,
                 const struct store_claim *claim, struct store_ingested *out);

/* ---- claim: first come first served. Delayed ones whose time has come become ready in their place of
 * arrival, at most half of a claim while others are ready: what keeps failing starves nothing */
struct store_claimed {
    size_t claimed;
    bool more;            /* there is more that could be claimed now */
    uint64_t next_due_ms; /* wall clock of the earliest event still delayed, UINT64_MAX = none */
};
int store_claim(struct store *store, int64_t source, uint64_t now_ms, const struct store_claim *claim,
                struct store_claimed *out);
/* Others have changed rows (unlock, retry...): look from the oldest on again. */
void store_rescan(struct store *store, int64_t source);

/* ---- read: what a stage needs of the events it holds; one read transaction for all */
struct store_event_lock {
    int64_t event;
    uint64_t token;
};
struct store_row {
    const char *uid, *data, *context,
        *done; /* NUL-terminated, borrowed until on_row returns; context "" = none yet */
    size_t data_bytes, context_bytes;
    uint32_t attempts, crashes; /* at the stage it waits for */
    uint64_t arrival_ms;
};
/* on_row is called for each lock that still holds, with its index; the others are simply not called. */
typedef int store_on_row(size_t index, const struct store_row *row, void *user);
int store_read(struct store *store, const struct store_event_lock *locks, size_t count, store_on_row *on_row,
               void *user);

/* ---- commit: a batch of answers of one stage */
enum store_change {
    STORE_ADVANCE,  /* processed, goes on: done is stored, attempts and crashes begin again, the lock stays */
    STORE_COMPLETE, /* processed by the last stage: gone */
    STORE_REMOVE_BY_STAGE, /* removed by the stage: gone */
    STORE_DELAY,           /* not processed: attempts + 1, due at due_ms, unlocked; failed = by an error */
    STORE_DEAD_LETTER      /* dead, with reason and error */
};
struct store_answer {
    struct store_event_lock lock;
    enum store_change change;
    const char *done;    /* ADVANCE: the new list, "a\nb\n" */
    const char *context; /* NULL = unchanged */
    size_t context_bytes;
    const char *data; /* NULL = unchanged */
    size_t data_bytes;
    uint64_t due_ms;
    bool failed; /* an error (tally failed), not a plain 'not processed' (tally retried) */
    enum store_reason reason;
    const char *error; /* DELAY, DEAD_LETTER: the error, NULL = none */
    uint32_t attempt;  /* at this stage, from 1; for the trace, as is the next one */
    uint64_t duration_us;
    bool applied; /* out: false = the lock was no longer ours, nothing was changed */
};
int store_commit(struct store *store, int64_t source, int64_t stage, struct store_answer *answers,
                 size_t count);

/* The answers of several workers in one transaction: all of them are committed, or none. */
struct store_group_member {
    int64_t source, stage;
    int32_t pid; /* of the worker, for the trace */
    /* It may have been committed already, by another process, with the same content: what was is `applied` and
     * counts no second time. */
    bool again;
    struct store_answer *answers;
    size_t count;
};
#define STORE_GROUP_COMMIT_MAX 33
struct store_group_commit {
    struct store_group_member member[STORE_GROUP_COMMIT_MAX];
    size_t count;
    bool at_once;   /* do not queue for the write lock */
    bool committed; /* out, of a failure: committed all the same, but not known to be on the disk */
};

/*
 * A group commit in steps, so that the caller can collect more members while the transaction is open:
 *   begin            waits for the write lock and holds it. With at_once: EP_EBUSY, and nothing is done, while
 *                    another process holds the lock.
 *   add, repeatedly  writes the members that the caller has put behind those of the call before. The members
 *                    and their answers must stay as they are until the end: the engine may write them again.
 *   end              commits what was added and releases the write lock. Without an add it only releases the
 *                    lock.
 * After begin has returned 0, call end exactly once, also after a failed add: end rolls back and returns that
 * failure. Between begin and end the handle takes no other call.
 */
int store_group_commit_begin(struct store *store, struct store_group_commit *group_commit);
int store_group_commit_add(struct store *store, struct store_group_commit *group_commit);
int store_group_commit_end(struct store *store, struct store_group_commit *group_commit);
/* All three for the members that group_commit has at the call. */
int store_group_commit(struct store *store, struct store_group_commit *group_commit);

/* ---- unlock: by token, after an exit or at an orderly stop */
struct store_unlock {
    struct store_event_lock lock;
    bool crashed;   /* crashes + 1, due at due_ms; dead (CRASHED) when that makes max_crashes (0 = never) */
    bool timed_out; /* attempts + 1, due at due_ms; dead (EXHAUSTED) when that makes max_attempts (0 = never)
                     */
    uint32_t max_crashes, max_attempts;
    int64_t stage;   /* store id of the stage it was at, for the tally; 0 = none */
    uint64_t due_ms; /* used as is when crashed or timed_out */
    const char *error;
    bool expired; /* when crashed or timed_out: too old to be tried again, dead (EXPIRED) */
    int32_t pid;  /* of the exited process, for the trace; 0 = none has crashed */
    bool applied; /* out */
};
int store_unlock(struct store *store, int64_t source, struct store_unlock *unlocks, size_t count);

/* ---- cursor and totals */
int store_cursor(struct store *store, int64_t source,
                 char **cursor); /* malloc'd; NULL when none is stored yet */
int store_set_cursor(struct store *store, int64_t source, const char *cursor);
struct store_totals {
    uint64_t fetched, duplicates, injected, completed, removed_by_stage,
        removed_by_operator;            /* over the store's life; fetched counts injected too */
    uint64_t live, delayed, held, dead; /* now; all kept exact in the transactions */
    uint64_t oldest_ms;
};
int store_source_totals(struct store *store, int64_t source, struct store_totals *out);
struct store_stage_totals {
    uint64_t processed, retried, removed, rejected, failed, crashed;
};
int store_stage_totals(struct store *store, int64_t stage, struct store_stage_totals *out);
/* Names known to the store, for a reader while the daemon is down. */
typedef int store_on_source(int64_t id, const char *name, void *user);
typedef int store_on_stage(int64_t id, const char *name, void *user);
int store_each_source(struct store *store, store_on_source *on_source, void *user);
int store_each_stage(struct store *store, int64_t source, store_on_stage *on_stage, void *user);

/* ---- crashes of processes: the latest 1,000 are kept */
struct store_crash {
    uint64_t crashed_ms, uptime_ms; /* wall clock */
    int32_t pid, code;              /* its signal or exit code */
    int64_t event;                  /* in hand, 0 = none */
    const char *kind, *cause, *process, *source, *stage, *uid, *how, *last_output; /* "" = none */
};
/* A crash that is stored already (same time and pid) is not stored again. lost: so many more there were. */
int store_add_crashes(struct store *store, const struct store_crash *crashes, size_t count, uint64_t lost);
/* Oldest first; *dropped: how many more there were over the store's life. */
typedef int store_on_crash(const struct store_crash *crash, void *user);
int store_each_crash(struct store *store, store_on_crash *on_crash, void *user, uint64_t *dropped);

/* ---- trace: what was done to each event, as far as it is kept */
#define STORE_TRACE_STEPS(X)                                                           \
    X(FETCHED, "fetched")                                                              \
    X(INJECTED, "injected")                                                            \
    X(PROCESSED, "processed")                                                          \
    X(COMPLETED, "completed")      /* by the last stage: gone */                       \
    X(REMOVED_BY_STAGE, "removed") /* by the stage: gone */                            \
    X(RETRIED, "retried")          /* it said 'not processed' */                       \
    X(FAILED, "failed")                                                                \
    X(REJECTED, "rejected")                                                            \
    X(CRASHED, "crashed")                                                              \
    X(TIMEOUT, "timeout")                                                              \
    X(LOST, "lost")         /* waited in a process that crashed over something else */ \
    X(UNLOCKED, "unlocked") /* waited in a process that ended cleanly */               \
    X(RETRY, "retry")       /* from here on: by an operator */                         \
    X(HELD, "hold")                                                                    \
    X(RELEASED, "release")                                                             \
    X(REMOVED_BY_OPERATOR, "remove")                                                   \
    X(REQUEUED, "requeue")
enum store_trace_step_kind {
#define X(name, text) STORE_TRACE_STEP_##name,
    STORE_TRACE_STEPS(X)
#undef X
        STORE_TRACE_STEP_KINDS
};
const char *store_trace_step_name(enum store_trace_step_kind kind);
struct store_trace_step {
    uint64_t at_ms; /* wall clock: when it was committed */
    enum store_trace_step_kind kind;
    enum store_reason reason; /* not NONE: the event is dead from here on */
    int64_t event, stage;     /* store ids; stage 0 = none */
    int32_t pid;              /* of the process that did it, or that crashed over it; 0 = not known */
    uint32_t attempt;         /* 0 = none */
    uint64_t duration_us;     /* of the stage's call, 0 = not known */
    uint64_t due_ms;          /* tried again then, 0 = is not */
    uint64_t uid_hash;        /* FETCHED, INJECTED */
    const char *error;        /* the error, NULL = none; not NUL-terminated */
    size_t error_bytes;
};
/* All steps of the events that have or had this uid; source 0 = of any. Event by event, in order of arrival,
 * each in order of time. on_step returns 0 to go on, or a code. *live: so many of the events are in the
 * store. Reads the whole trace. */
typedef int store_on_trace_step(const struct store_trace_step *step, void *user);
int store_trace(struct store *store, int64_t source, const char *uid, store_on_trace_step *on_step,
                void *user, size_t *live);
/* Drops what is older than twice keep_ms, and the oldest where all takes more than `bytes`; what still lives
 * is kept over the first, and as a quarter of what goes over the second. One bounded piece a call: 1 = there
 * is more to drop. By one handle of a store only. */
int store_trim_trace(struct store *store, uint64_t now_ms, uint64_t keep_ms, uint64_t bytes);

/* ---- for operators */
struct store_select {
    const char *const *uids; /* NULL = any */
    size_t uid_count;
    const char *source, *stage; /* names; stage = the one it waits for or died at; NULL = any */
    int state;                  /* enum store_state, -1 = any */
    const char *address, *type; /* exact */
    uint64_t older_than_ms;     /* arrived before this wall-clock time; 0 = any */
    const char *error;          /* its text contains this */
    uint64_t limit;             /* 0 = no limit */
    const char *const *const
        *chains; /* per configured source (see names): its stages in order, NULL-ended; to tell the stage */
    const char *const *chain_sources;
    size_t chain_count;
};
struct store_item {
    int64_t id;
    const char *source, *uid, *address, *type;
    enum store_state state;
    enum store_reason reason;
    const char *stage; /* the first of its source's chain that is not done; "" = unknown */
    const char *done, *error, *context, *data;
    size_t data_bytes, context_bytes;
    uint32_t attempts, crashes;
    uint64_t arrival_ms, due_ms;
};
/* Oldest first. on_item returns 0 to go on, 1 to stop, or a negative code. data and context are NULL unless
 * with_data. */
typedef int store_on_item(const struct store_item *item, void *user);
int store_list(struct store *store, const struct store_select *select, bool with_data, store_on_item *on_item,
               void *user);

enum store_command {
    STORE_RETRY,   /* delayed, dead -> ready; attempts and crashes 0 */
    STORE_HOLD,    /* ready, delayed, dead -> held */
    STORE_RELEASE, /* held -> ready */
    STORE_REMOVE,  /* ready, delayed, held, dead -> gone */
    STORE_REQUEUE  /* ready, delayed, held, dead -> ready, from the first stage, with an empty context */
};
/* Changes what is selected, in transactions of at most 1,000; events in another state than the command takes are
 * left (running ones always). on_item sees each that is changed, or would be under dry_run. */
int store_change(struct store *store, const struct store_select *select, enum store_command command,
                 bool dry_run, store_on_item *on_item, void *user, uint64_t *changed);

/* ---- import (eventpipe import, while no daemon holds the store): what another program's database holds, all
 * of it in one transaction. UIDs are remembered for ever: an event that was imported once is known from then
 * on, also when it is gone since. */
struct store_import_row {
    int64_t source; /* rows of one source come together; 0, in a trial only: one that the store has not yet */
    struct store_event event;
    const char *done;    /* "a\nb\n" */
    const char *context; /* "" = none yet */
    size_t context_bytes;
};
struct store_import_cursor {
    int64_t source;
    const char *cursor; /* NULL or "": there is none */
    bool set;           /* out: false where the source keeps its own, or there is none */
};
struct store_import {
    /* The next row, which must stand until the call after it: 1; 0: there are no more; negative: nothing at
     * all is stored, and store_import returns that very code (the message is the caller's). */
    int (*next)(struct store_import_row *row, void *user);
    /* What became of it: stored as ready (or dead), or known: in the store, or imported before. */
    void (*took)(const struct store_import_row *row, bool stored, void *user);
    void *user;
    struct store_import_cursor *cursors; /* only where the source has none */
    size_t cursor_count;
    uint64_t now_ms; /* wall clock, the arrival */
    bool trial;      /* writes nothing (a reader's handle will do), says what would become of the rows */
};
/* Stored rows count as fetched and injected, known ones as duplicates. */
int store_import(struct store *store, struct store_import *import);

/* ---- upkeep (keeper) */
/* Moves the WAL into the main file; final: and shortens it. 1: not all of it, because a reader holds an old
 * state of the store; call again later. */
int store_checkpoint(struct store *store, bool final);
int store_sizes(struct store *store, uint64_t *bytes, uint64_t *wal_bytes);
/* Full check (slow): one call of report per fault found. 0 also when faults were found. */
int store_check(struct store *store, void (*report)(const char *message, void *user), void *user);

#endif
