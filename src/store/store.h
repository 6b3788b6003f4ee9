/* SPDX-License-Identifier: MIT */
/*
 * The store: where events live. This is the interface; an engine behind it implements it (engine.h). SQLite
 * is the only one. Supervisor, keeper, producers, workers and the command line use it.
 *
 * Handles: each process opens its own after fork. One thread at a time uses a handle.
 *
 * Calls: each is one transaction, all or nothing, unless its comment says otherwise. A call blocks while
 * another process writes, for at most busy_timeout_ms. It returns 0 or a negative code; store_errmsg has
 * the message:
 *   EP_ESTOREBUSY   disk full, locked, or read-only for now. Nothing was stored: call again later.
 *   EP_ESTORE       damaged, or of another instance or version. Do not go on.
 *   EP_EINVAL, EP_ENOENT, EP_EACCESS, EP_ENOMEM   as everywhere.
 *
 * Invariants
 *  1. Locks are tokens. A running event carries the token of its claim; commit and unlock change a row only
 *     while it still carries the token they name.
 *  2. A token is (start number << 40 | claim count), unique over the life of the store. store_prepare adds
 *     one to the start number, and a token of an older start is no lock. So after a crash every event is
 *     ready again without a scan.
 *  3. The ids of a source's events increase in order of arrival, and events are claimed in that order.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/layout.h"
#include "src/base/error.h"
#include "src/config/config.h"

#define STORE_TOKEN(start, claim) ((uint64_t)(start) << 40 | (uint64_t)(claim))

/* Ids of events are opaque. The number is what people see: 1 for the first event of its source to arrive. */
uint64_t store_event_number(int64_t event);
/* The store id of the event's source. */
int64_t store_event_source(int64_t event);

#define STORE_STATES(X) \
    X(READY, "ready") X(RUNNING, "running") X(DELAYED, "delayed") X(HELD, "held") X(DEAD, "dead")
enum store_state {
#define X(name, text) STORE_##name,
    STORE_STATES(X)
#undef X
};
/* The state's name in commands, JSON and the manual; "unknown" for any other number. */
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
/* The reason's name in commands, JSON and the manual; "unknown" for any other number. */
const char *store_reason_name(enum store_reason reason);

struct store_options {
    const char *url;      /* "sqlite:PATH" or "memory:" */
    const char *instance; /* name of the instance; memory: finds its directory by it */
    enum synchronous synchronous;
    bool readonly;
    uint32_t busy_timeout_ms;    /* how long a call waits for other writers; 0 = 5000 */
    bool trace;                  /* record what is done to each event, for store_trace */
    pthread_mutex_t *write_lock; /* writers queue on it (shm/write_lock.h); NULL = none */
    uint64_t start_number;       /* of this run; tokens of older runs are void. 0 = the store's own, or for a
                                  * reader: no event runs */
    uint64_t wal_bytes;          /* limit of the WAL; 0 = 4 MiB */
    /* Called after a commit that left the WAL longer than wal_bytes: wakes the keeper. */
    void (*wal_grown)(void *user);
    /* Called after each release of the write lock: wakes workers that wait for it. NULL = none. */
    void (*write_lock_released)(void *user);
    void *user; /* for both */
};

struct store; /* one process's handle */

/*
 * Takes the lock beside the store, so that a second supervisor cannot use it. The supervisor and the import
 * call it before store_prepare. *lock_fd (CLOEXEC, inherited over fork) is the lock: the kernel drops it when
 * the last copy is closed, however the processes end. For memory: it also makes the private directory and
 * clears what a crashed instance left in it.
 * Waits up to wait_ms for an instance that is shutting down. EP_EBUSY: another instance holds the store; the
 * message names its pid, instance and start.
 */
int store_hold(const struct store_options *options, uint64_t wait_ms, int *lock_fd, struct error *error);
/* The supervisor's last call. For memory: it removes the directory; otherwise it does nothing. */
void store_leave(const struct store_options *options);

/* One source and its stages, in the order of the configuration. The caller owns all of it. */
struct store_names {
    const char *source;
    const char *const *stages;
    size_t stage_count;
    int64_t source_id;  /* out: store id */
    int64_t *stage_ids; /* out: store ids, stage_count of them */
};
/*
 * The first step of a start, called by the keeper and the import while the store is held. Creates the store
 * or migrates it, adds 1 to the start number, registers the names and gives their store ids. On success
 * *start_number is that of this run.
 */
int store_prepare(const struct store_options *options, struct store_names *names, size_t count,
                  uint64_t *start_number, struct error *error);

/*
 * Opens a handle of a prepared store; *out is set on success only. A reader (readonly) never creates or
 * changes a store. EP_ENOENT: there is none.
 */
int store_open(const struct store_options *options, struct store **out, struct error *error);
/* Frees the handle and sets *store to NULL. A NULL handle is ignored. */
void store_close(struct store **store);
/* The message of the handle's last failure. Borrowed: it stands until the next call. */
const char *store_errmsg(const struct store *store);

/* ---- ingest ---- */
struct store_event {
    const char *uid;     /* unique within its source */
    const char *address; /* for selectors; may be NULL */
    const char *type;    /* may be NULL */
    const char *data;    /* the event's JSON text, kept byte for byte */
    size_t data_bytes;
    enum store_reason dead; /* STORE_REASON_CORRUPT: dead at once, with `error`; data may then be anything */
    const char *error;
};
struct store_page {
    const struct store_event *events;
    size_t count;
    const char *cursor; /* stored with the events; NULL = unchanged */
    bool injected;      /* counts as injected too */
    uint64_t now_ms;    /* wall clock: the time of arrival */
    /* Store the cursor only if the stored one is still `after` (NULL and "" are the same): an operator may
     * have set another while the page was fetched. The events are stored either way. */
    bool follows;
    const char *after;
};
struct store_ingested {
    size_t stored, duplicates;
};
/*
 * Stores a page of events and its cursor. An event whose uid the source has already is a duplicate and is not
 * stored.
 */
int store_ingest(struct store *store, int64_t source, const struct store_page *page,
                 struct store_ingested *out);

/* ---- claim ---- */
/*
 * A claim locks ready events for one producer, in two steps:
 *   begin   claims the events and names them, and leaves the transaction open
 *   end     commits
 * In between, the caller records each event and the claim's token where a successor finds them (a producer:
 * in a ticket). So every lock in the store has a record, even if the process is killed at any instruction. A
 * claim whose end fails, or that is never ended, leaves records without locks, which is harmless. In between
 * the handle takes no other call.
 */
struct store_claim {
    uint64_t token; /* of all events of this claim, see STORE_TOKEN */
    size_t limit;   /* 0 = claim nothing */
};
struct store_claimed_event {
    int64_t event;
    const char *done; /* the stages already done, "a\nb\n" */
};
struct store_claimed {
    const struct store_claimed_event *events; /* borrowed until store_claim_end returns */
    size_t count;
    bool more;            /* store_claim_begin: more events could be claimed now */
    uint64_t next_due_ms; /* store_claim_begin: wall clock of the earliest event still delayed, UINT64_MAX =
                           * none */
};
/*
 * Claims ready events in order of arrival. Delayed events that are due become ready first; they get at most
 * half of a claim while others are ready, so that retries never starve new events. Producers call it.
 */
int store_claim_begin(struct store *store, int64_t source, uint64_t now_ms, const struct store_claim *claim,
                      struct store_claimed *out);
/*
 * store_ingest and a claim in one transaction: claims up to claim->limit events, first older ones that are
 * ready, then those of the page. Producers call it.
 */
int store_ingest_begin(struct store *store, int64_t source, const struct store_page *page,
                       const struct store_claim *claim, struct store_ingested *out,
                       struct store_claimed *claimed);
/* Call it after each begin that returned 0. After a failure nothing is stored and nothing is claimed. */
int store_claim_end(struct store *store);
/* Makes the next claim search from the oldest event on. Call it after another process made events ready. */
void store_rescan(struct store *store, int64_t source);

/* ---- read: what a stage needs of the events it holds ---- */
struct store_event_lock {
    int64_t event;
    uint64_t token;
};
/* NUL-terminated texts, borrowed until on_row returns. */
struct store_row {
    const char *uid, *data, *context, *done; /* context "" = none yet */
    size_t data_bytes, context_bytes;
    uint32_t attempts, crashes; /* at the stage it waits for */
    uint64_t arrival_ms;
};
/* Receives one event; index is that of its lock. Returns 0 to go on, or a code that ends the read. */
typedef int store_on_row(size_t index, const struct store_row *row, void *user);
/*
 * Reads the events of `locks` in one read transaction. on_row is called for each lock that still holds, and
 * not for the others. Returns the first code of on_row other than 0. Workers call it.
 */
int store_read(struct store *store, const struct store_event_lock *locks, size_t count, store_on_row *on_row,
               void *user);

/* ---- commit: the answers of a stage ---- */
enum store_change {
    /* The stage processed it, others follow: `done` is stored, attempts and crashes are 0, the lock stays. */
    STORE_ADVANCE,
    STORE_COMPLETE,        /* the last stage processed it: deleted */
    STORE_REMOVE_BY_STAGE, /* the stage removed it: deleted */
    STORE_DELAY,           /* not processed: attempts + 1, unlocked, ready again at due_ms */
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
    uint64_t due_ms; /* DELAY: wall clock */
    bool failed;     /* counts as failed (an error), not as retried ('not processed') */
    enum store_reason reason;
    const char *error; /* DELAY, DEAD_LETTER: the error, NULL = none */
    uint32_t attempt;  /* at this stage, from 1; for the trace, as is the next one */
    uint64_t duration_us;
    bool applied; /* out: committed. false = the event no longer carries the token; it is unchanged */
};
/* Commits the answers of one stage. stage 0 = none (an event that has no stage left). */
int store_commit(struct store *store, int64_t source, int64_t stage, struct store_answer *answers,
                 size_t count);

/* The answers of one worker in a group commit. */
struct store_group_member {
    int64_t source, stage;
    int32_t pid; /* of the worker, for the trace */
    bool again;  /* another process may have committed the same answers already: those are `applied`, and do
                  * not count a second time */
    struct store_answer *answers;
    size_t count;
};
#define STORE_GROUP_COMMIT_MAX 33
struct store_group_commit {
    struct store_group_member member[STORE_GROUP_COMMIT_MAX];
    size_t count;
    bool at_once;   /* do not wait for the write lock */
    bool committed; /* out: committed. With a failure: committed, but not known to be on the disk */
};

/*
 * A group commit in steps, so that the caller can collect more members while the transaction is open:
 *   begin            waits for the write lock and holds it. With at_once: EP_EBUSY, and nothing is done,
 *                    while another process holds the lock.
 *   add, repeatedly  writes the members that the caller has appended since the last call. The
 *                    members and their answers must stay as they are until the end: the engine may write
 *                    them again.
 *   end              commits what was added and releases the write lock. Without an add it only releases
 *                    the lock.
 * After begin has returned 0, call end exactly once, also after a failed add: end rolls back and returns
 * that failure. Between begin and end the handle takes no other call.
 */
int store_group_commit_begin(struct store *store, struct store_group_commit *group_commit);
int store_group_commit_add(struct store *store, struct store_group_commit *group_commit);
int store_group_commit_end(struct store *store, struct store_group_commit *group_commit);
/* All three for the members that group_commit has at the call. */
int store_group_commit(struct store *store, struct store_group_commit *group_commit);

/* ---- unlock: after a crash, or when a process stops ---- */
struct store_unlock {
    struct store_event_lock lock;
    bool crashed;   /* crashes + 1; dead (CRASHED) when that makes max_crashes */
    bool timed_out; /* attempts + 1; dead (EXHAUSTED) when that makes max_attempts */
    bool expired;   /* with crashed or timed_out: too old for another attempt, dead (EXPIRED) */
    uint32_t max_crashes, max_attempts; /* 0 = no limit */
    uint64_t due_ms;                    /* with crashed or timed_out: ready again then, wall clock */
    int64_t stage;                      /* store id of the stage it was at, for the totals; 0 = none */
    const char *error;
    int32_t pid;  /* of the exited process, for the trace; 0 = none has crashed */
    bool applied; /* out: as in struct store_answer */
};
/*
 * Takes the locks away. An event is ready again; one that is to blame (crashed, timed_out) is delayed or
 * dead.
 * Producers call it for what exited processes held. Repeating it changes nothing.
 */
int store_unlock(struct store *store, int64_t source, struct store_unlock *unlocks, size_t count);

/* ---- cursor and totals ---- */
/* *cursor: malloc'd, the caller frees it; NULL when none is stored yet. EP_ENOENT: no such source. */
int store_cursor(struct store *store, int64_t source, char **cursor);
/* NULL = none. EP_ENOENT: no such source. */
int store_set_cursor(struct store *store, int64_t source, const char *cursor);
struct store_totals {
    /* over the store's life; fetched counts injected events too */
    uint64_t fetched, duplicates, injected, completed, removed_by_stage, removed_by_operator;
    uint64_t live, delayed, held, dead; /* now; live counts all events there are */
    uint64_t oldest_ms;                 /* arrival of the oldest live event, 0 = there is none */
};
/* Totals are kept exact by the transactions that change them, so reading them counts no rows. EP_ENOENT: no
 * such source. */
int store_source_totals(struct store *store, int64_t source, struct store_totals *out);
struct store_stage_totals {
    uint64_t processed, retried, removed, rejected, failed, crashed;
};
/* EP_ENOENT: no such stage. */
int store_stage_totals(struct store *store, int64_t stage, struct store_stage_totals *out);
/* The callbacks return 0 to go on, or another code to stop. The name is borrowed until they return. */
typedef int store_on_source(int64_t id, const char *name, void *user);
typedef int store_on_stage(int64_t id, const char *name, void *user);
/* Every source the store knows, and every stage of one: for readers while the daemon is down. They return a
 * negative code of the callback. */
int store_each_source(struct store *store, store_on_source *on_source, void *user);
int store_each_stage(struct store *store, int64_t source, store_on_stage *on_stage, void *user);

/* ---- crashes of processes ---- */
/*
 * Adds crashes to the latest 1,000, which are kept. A crash that is stored already (same time and pid) is not
 * stored again. lost: how many more crashes there were that nothing recorded. The keeper calls it.
 */
int store_add_crashes(struct store *store, const struct crash_record *crashes, size_t count, uint64_t lost);
/* Returns 0 to go on, or another code to stop. */
typedef int store_on_crash(const struct crash_record *crash, void *user);
/* Oldest first. *dropped: how many more there were over the store's life. */
int store_each_crash(struct store *store, store_on_crash *on_crash, void *user, uint64_t *dropped);

/* ---- trace: what was done to each event, as far as it is kept ---- */
#define STORE_TRACE_STEPS(X)                                                           \
    X(FETCHED, "fetched")                                                              \
    X(INJECTED, "injected")                                                            \
    X(PROCESSED, "processed")                                                          \
    X(COMPLETED, "completed")      /* by the last stage: deleted */                    \
    X(REMOVED_BY_STAGE, "removed") /* by the stage: deleted */                         \
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
/* The step's name in `eventpipe trace` and JSON. */
const char *store_trace_step_name(enum store_trace_step_kind kind);
struct store_trace_step {
    uint64_t at_ms; /* wall clock: when it was committed */
    enum store_trace_step_kind kind;
    enum store_reason reason; /* not NONE: the event is dead from here on */
    int64_t event, stage;     /* store ids; stage 0 = none */
    int32_t pid;              /* of the process that did it, or that crashed over it; 0 = not known */
    uint32_t attempt;         /* 0 = none */
    uint64_t duration_us;     /* of the stage's call, 0 = not known */
    uint64_t due_ms;          /* when it is due again, 0 = it is not */
    uint64_t uid_hash;        /* FETCHED, INJECTED */
    const char *error;        /* the error, NULL = none; not NUL-terminated */
    size_t error_bytes;
};
/* Returns 0 to go on, or another code to stop. */
typedef int store_on_trace_step(const struct store_trace_step *step, void *user);
/*
 * Calls on_step for all steps of the events that have or had this uid, of one source or (0) of any: event by
 * event in order of arrival, each in order of time. *live: how many of the events are in the store. Reads the
 * whole trace, so it is slow.
 */
int store_trace(struct store *store, int64_t source, const char *uid, store_on_trace_step *on_step,
                void *user, size_t *live);
/*
 * Drops rows of the trace older than twice keep_ms, and the oldest ones while all of them take more than
 * `bytes`. Steps of live events are kept over the first limit; over the second, up to a quarter of what is
 * dropped. One bounded piece a call: returns 1 while there is more to drop. Only the keeper calls it, always
 * with the same handle: the handle remembers how much it has counted.
 */
int store_trim_trace(struct store *store, uint64_t now_ms, uint64_t keep_ms, uint64_t bytes);

/* ---- operators: select, list, change ---- */
struct store_select {
    const char *const *uids; /* NULL = any */
    size_t uid_count;
    const char *source, *stage; /* names; stage = the one it waits for or died at; NULL = any */
    int state;                  /* enum store_state, -1 = any */
    const char *address, *type; /* exact; NULL = any */
    uint64_t older_than_ms;     /* arrived before this wall-clock time; 0 = any */
    const char *error;          /* its error contains this text; NULL = any */
    uint64_t limit;             /* 0 = no limit */
    /* The configuration's chains, to find the stage an event waits for: of each source in chain_sources the
     * names of its stages in order, NULL-terminated. */
    const char *const *const *chains;
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
/* The item is borrowed until it returns. Returns 0 to go on, 1 to stop, or a negative code. */
typedef int store_on_item(const struct store_item *item, void *user);
/*
 * Calls on_item for each selected event, source by source, oldest first, in read transactions of bounded
 * size. data and context are NULL unless with_data. Returns a negative code of on_item.
 */
int store_list(struct store *store, const struct store_select *select, bool with_data, store_on_item *on_item,
               void *user);

enum store_command {
    STORE_RETRY, /* attempts and crashes become 0 */
    STORE_HOLD,
    STORE_RELEASE,
    STORE_REMOVE,
    STORE_REQUEUE /* from the first stage, with an empty context */
};
/* The states that a command takes events from, the state it gives them, and the step that the trace records.
 * */
struct store_command_rule {
    unsigned takes; /* bits 1 << enum store_state; running events are never changed */
    int makes;      /* enum store_state; -1 = the event is deleted */
    enum store_trace_step_kind step;
};
const struct store_command_rule *store_command_rule(enum store_command command);
/*
 * Changes the selected events, in transactions of at most 1,000. Events in a state that the command does not
 * take stay as they are; running ones always do. on_item is called for each changed event, or under dry_run
 * for each that would be. *changed counts them, also when the call fails half way. The keeper and the command
 * line call it.
 */
int store_change(struct store *store, const struct store_select *select, enum store_command command,
                 bool dry_run, store_on_item *on_item, void *user, uint64_t *changed);

/* ---- import: another program's events, while no daemon holds the store ---- */
struct store_import_row {
    int64_t source; /* rows of one source come together. 0, in a trial only: a source new to the store */
    struct store_event event;
    const char *done;    /* "a\nb\n" */
    const char *context; /* "" = none yet */
    size_t context_bytes;
};
struct store_import_cursor {
    int64_t source;
    const char *cursor; /* NULL or "" = none */
    bool set;           /* out: stored. false if the source has a cursor already, or there is none to set */
};
struct store_import {
    /* Gives the next row, which must stand until the call after it. Returns 1; 0 when there are no more; or
     * a negative code: then nothing is stored, and store_import returns that code (the caller has its
     * message). */
    int (*next)(struct store_import_row *row, void *user);
    /* Reports what became of the row: stored (ready or dead), or known: in the store, or imported before. */
    void (*took)(const struct store_import_row *row, bool stored, void *user);
    void *user;
    struct store_import_cursor *cursors; /* stored only for sources that have none */
    size_t cursor_count;
    uint64_t now_ms; /* wall clock: the time of arrival */
    bool trial; /* write nothing (a reader's handle will do), only report what would become of the rows */
};
/*
 * Stores all rows and cursors in one transaction. Stored rows count as fetched and injected, known ones as
 * duplicates. UIDs are remembered for ever: an event that was imported once stays known after it is deleted.
 */
int store_import(struct store *store, struct store_import *import);

/* ---- upkeep: for the keeper ---- */
/* Moves the WAL into the main file; final also truncates it. Returns 1 if a reader of an old state of the
 * store kept a part from being moved: call again later. */
int store_checkpoint(struct store *store, bool final);
/* The sizes of the main file and of the WAL. */
int store_sizes(struct store *store, uint64_t *bytes, uint64_t *wal_bytes);
/* Checks the whole store, which is slow, and calls report once per fault. Returns 0 also when faults were
 * found. The message is borrowed until report returns. */
int store_check(struct store *store, void (*report)(const char *message, void *user), void *user);

#endif
