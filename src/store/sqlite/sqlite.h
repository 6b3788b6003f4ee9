/* SPDX-License-Identifier: MIT */
/*
 * Inside the SQLite engine: what its files share. Only src/store/sqlite/ includes this, and tests that
 * inspect its statements.
 *
 * An event's id is its source's id and its number of arrival in one: so the ids of a source stand next to
 * each other, in order of arrival. A ready or running event has a row in `progress`. A suspended one
 * (delayed, held, dead) has its row in `suspended` instead, so that it is never in the way of a claim.
 */
#ifndef STORE_SQLITE_SQLITE_H
#define STORE_SQLITE_SQLITE_H

#include <limits.h>
#include <sqlite3.h>

#include "src/store/engine.h"
#include "src/store/trace_pack.h"

#define EVENT_SOURCE_SHIFT STORE_NUMBER_BITS
#define EVENT_FIRST(source) ((int64_t)(source) << EVENT_SOURCE_SHIFT)
#define EVENT_LAST(source) (EVENT_FIRST((source) + 1) - 1)

#define STORE_SQLITE_APPLICATION 0x65767070 /* PRAGMA application_id of our files: "evpp" */
#define STORE_SQLITE_RESUME_MAX 512         /* delayed events made ready by one claim */

/* Every prepared statement; the texts are in statements.c. */
enum store_sqlite_statement {
    SQL_BEGIN_READ,
    SQL_BEGIN_WRITE,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_START_NUMBER,

    SQL_SOURCE_NEXT,
    SQL_INSERT_EVENT,
    SQL_INSERT_PROGRESS,
    SQL_INSERT_DEAD,
    SQL_INGESTED,
    SQL_MOVE_CURSOR,

    SQL_CLAIM_SCAN,
    SQL_CLAIM_TAKE,
    SQL_DUE_SCAN,
    SQL_NEXT_DUE,
    SQL_RESUME,
    SQL_DELETE_SUSPENDED,

    SQL_READ,
    SQL_ADVANCE,
    SQL_COMPLETE,
    SQL_PAD_ROWS,
    SQL_DELETE_EVENT,
    SQL_SET_DATA,
    SQL_COMPLETED,
    SQL_COUNTS,
    SQL_SUSPEND,
    SQL_DELETE_PROGRESS,
    SQL_UNLOCK,
    SQL_TALLY_SOURCE,
    SQL_TALLY_STAGE,

    SQL_CURSOR,
    SQL_SET_CURSOR,
    SQL_SOURCE_TOTALS,
    SQL_OLDEST,
    SQL_STAGE_TOTALS,
    SQL_EACH_SOURCE,
    SQL_EACH_SOURCE_NAMED,
    SQL_EACH_STAGE,

    SQL_ADD_CRASH,
    SQL_TRIM_CRASHES,
    SQL_DROP_CRASHES,
    SQL_CRASHES_DROPPED,
    SQL_EACH_CRASH,

    SQL_ADD_TRACE,
    SQL_EACH_TRACE,
    SQL_TRACE_SIZE,
    SQL_TRACE_OLDEST,
    SQL_TRACE_LIVE,
    SQL_DELETE_TRACE,

    SQL_FIND_UID,
    SQL_ITEM,
    SQL_ITEM_PROGRESS,
    SQL_ITEM_SUSPENDED,
    SQL_LIST_ALL,
    SQL_LIST_PROGRESS,
    SQL_LIST_SUSPENDED,
    SQL_LIST_STATE,
    SQL_HOLD_SUSPENDED,
    SQL_REQUEUE_PROGRESS,

    SQL_REMEMBER,
    SQL_REMEMBERED,
    SQL_IMPORT_PROGRESS,
    SQL_IMPORT_DEAD,
    SQL_FIRST_CURSOR,
    SQL_STATEMENTS /* their number */
};

/* The paths of a store's files, and how they are synced. */
struct store_sqlite_paths {
    char path[PATH_MAX];
    char lock[PATH_MAX + 8];
    int synchronous; /* value of PRAGMA synchronous: 0 off, 1 normal, 2 full */
};

/* Changes of the totals of a source and of a stage, summed over one transaction. */
struct store_sqlite_tally {
    int64_t completed, removed_by_stage, removed_by_operator, live, delayed, held, dead;
    struct store_stage_totals stage;
};

/* The changes at one stage in one group commit: workers of one stage often commit together. */
struct store_sqlite_stage_tally {
    int64_t source, stage;
    struct store_sqlite_tally tally;
};

/* A group commit under way, from its begin to its end. */
struct store_sqlite_group {
    bool is_open;         /* its transaction is open */
    bool one_by_one;      /* event by event, after locks of a range were lost */
    int code;             /* the first failure of an add, or STORE_SQLITE_PARTIAL */
    size_t written_count; /* so many of its members are in the transaction */
    size_t tally_count;
    struct store_sqlite_stage_tally tallies[STORE_GROUP_COMMIT_MAX];
};

struct store_sqlite_low_water_mark {
    int64_t source, event; /* no event of the source below this one can be claimed */
};

/* A claim under way, from its begin to its end. */
struct store_sqlite_open_claim {
    bool is_open;                   /* its transaction is */
    bool is_durable;                /* it stores events, so its commit must be on the disk */
    int64_t source, low_water_mark; /* of the handle, after the commit */
    struct store_claimed_event *events;
    size_t count, capacity;
};

struct store_sqlite {
    struct store base; /* first: a struct store pointer is a pointer to this */
    sqlite3 *db;
    sqlite3 *checkpointer; /* moves the WAL; NULL until first needed */
    sqlite3_stmt *statements[SQL_STATEMENTS];
    char *path;
    pthread_mutex_t *write_lock;
    bool holds_write_lock;
    bool is_readonly;
    bool is_disk_full; /* the disk was full since the transaction began */
    int synchronous;   /* as in struct store_sqlite_paths */
    bool is_durable;   /* a commit is on the disk before the call returns */
    bool has_written;  /* the last transaction wrote */
    uint32_t busy_timeout_ms;
    uint64_t start_number;
    int64_t lowest_valid_token; /* a token below this is of an older start: no lock */
    bool checks_start_number;   /* write only while the store's start number is ours */
    uint64_t page_bytes, wal_bytes, wal_limit_bytes;
    void (*wal_grown)(void *user);
    void (*write_lock_released)(void *user);
    void *user;
    int bind_code; /* first failure to bind since the last step */
    struct store_sqlite_low_water_mark *low_water_marks;
    size_t low_water_mark_count;
    int64_t due_events[STORE_SQLITE_RESUME_MAX];
    bool is_trace_on;
    int32_t pid;                   /* of this process */
    struct trace_pack pack;        /* of the transaction under way */
    int64_t last_counted_trace_id; /* rows up to this id are counted in trace_bytes */
    uint64_t trace_bytes;
    struct store_sqlite_group group;
    struct store_sqlite_open_claim open_claim;
    bool is_retry_turn_over; /* the next claim of one event is not for a retry */
};

static inline struct store_sqlite *store_sqlite_of(struct store *store)
{
    return (struct store_sqlite *)store;
}

/* ---- statements.c ---- */
/* The text of a statement. *small: it may scan a whole table, because the table is small. */
const char *store_sqlite_sql(enum store_sqlite_statement statement_id, bool *small);

/* ---- open.c ---- */
enum store_sqlite_mode { STORE_SQLITE_CREATE, STORE_SQLITE_WRITE, STORE_SQLITE_READ };
int store_sqlite_open_paths(const struct store_options *options, const struct store_sqlite_paths *paths,
                            enum store_sqlite_mode mode, const struct store_ops *ops,
                            struct store_sqlite **out, struct error *error);
void store_sqlite_close(struct store *store);

/* ---- sqlite.c: statements, transactions, failures ---- */
/* Sets the handle's message from the result of SQLite, and returns the EP_ code it means. */
int store_sqlite_fail(struct store_sqlite *store, int result);
/* The same for a connection other than the handle's own; NULL = none. */
int store_sqlite_fail_connection(struct store_sqlite *store, sqlite3 *db, int result);

/*
 * Statements, in this order:
 *   use           prepares it if needed. NULL after a failure, which the functions below return.
 *   bind, ...     for every parameter, at each use. Text is not copied: it must stand until the reset.
 *   run           for a statement without rows; returns 0 or a code.
 *   step          otherwise; returns 1 = a row, 0 = no more, or a code. After 0 or a code the statement is
 *                 reset; a caller that stops at a row resets it.
 */
sqlite3_stmt *store_sqlite_use_statement(struct store_sqlite *store,
                                         enum store_sqlite_statement statement_id);
void store_sqlite_bind(struct store_sqlite *store, sqlite3_stmt *statement, int parameter, int64_t value);
void store_sqlite_bind_text(struct store_sqlite *store, sqlite3_stmt *statement, int parameter,
                            const char *text, size_t bytes);
void store_sqlite_bind_string(struct store_sqlite *store, sqlite3_stmt *statement, int parameter,
                              const char *text);
int store_sqlite_step_statement(struct store_sqlite *store, sqlite3_stmt *statement);
int store_sqlite_run_statement(struct store_sqlite *store, sqlite3_stmt *statement);
/* Runs SQL that is not kept prepared. */
int store_sqlite_execute(struct store_sqlite *store, const char *sql);
/* *value: the first column of the first row, 0 = no row. */
int store_sqlite_read_number(struct store_sqlite *store, const char *sql, int64_t *value);

/* Transactions: after begin, end(code) commits if code is 0 and rolls back otherwise. It returns the
 * result: 0, code, or the failure of the commit. */
int store_sqlite_begin_read(struct store_sqlite *store);
int store_sqlite_begin_write(struct store_sqlite *store);
/* The same after store_sqlite_acquire_write_lock or _try_. A failure releases the lock. */
int store_sqlite_begin_write_locked(struct store_sqlite *store);
int store_sqlite_end_transaction(struct store_sqlite *store, int code);
/* The same without the sync: a power failure may undo it. */
int store_sqlite_end_transaction_unsynced(struct store_sqlite *store, int code);
/* Rolls back if a transaction is open. The handle's message stays. */
void store_sqlite_roll_back(struct store_sqlite *store);
/* Waits at most busy_timeout_ms; after that SQLite's own lock decides. */
void store_sqlite_acquire_write_lock(struct store_sqlite *store);
/* False: another process holds it. */
bool store_sqlite_try_write_lock(struct store_sqlite *store);
/* Releases it if this handle holds it, and calls write_lock_released. */
void store_sqlite_release_write_lock(struct store_sqlite *store);

/* An unsigned number for SQLite, which has signed ones only. */
static inline int64_t store_sqlite_signed(uint64_t value)
{
    return value > INT64_MAX ? INT64_MAX : (int64_t)value;
}

/* Adds the tally to the totals of the source and of the stage (0 = none). */
int store_sqlite_add_to_totals(struct store_sqlite *store, int64_t source, int64_t stage,
                               const struct store_sqlite_tally *tally);

/* ---- wal.c ---- */
/* SQLite calls it after each commit that wrote: notes the size of the WAL. */
int store_sqlite_note_wal_size(void *handle, sqlite3 *db, const char *name, int pages);
/* After a transaction, with the write lock: moves the WAL if it is much too long or the disk was full. */
void store_sqlite_checkpoint_if_needed(struct store_sqlite *store);
/* After a transaction, without the write lock: syncs the WAL. EP_ESTORE: the disk refuses. */
int store_sqlite_sync_wal(struct store_sqlite *store);
/* Before a transaction without the write lock. EP_ESTOREBUSY: the WAL is too long. */
int store_sqlite_check_wal_limit(struct store_sqlite *store);
int store_sqlite_checkpoint(struct store *store, bool final);

/* ---- schema.c ---- */
/* may_create: creates or migrates the tables. Otherwise checks that the file is ours and of a version we can
 * use. */
int store_sqlite_check_schema(struct store_sqlite *store, bool may_create);
int store_sqlite_prepare_paths(const struct store_options *options, const struct store_sqlite_paths *paths,
                               const struct store_ops *ops, struct store_names *names, size_t count,
                               uint64_t *start_number, struct error *error);

/* ---- lock.c ---- */
int store_sqlite_hold_paths(const struct store_options *options, const struct store_sqlite_paths *paths,
                            uint64_t wait_ms, int *lock_fd, struct error *error);
/* Whether the store is held by no process or by this one: then its files may be removed. */
bool store_sqlite_may_remove_files(const struct store_sqlite_paths *paths);

/* ---- the functions of struct store_ops, each in the file of its subject ---- */
/* low_water_mark.c */
void store_sqlite_rescan(struct store *store, int64_t source);
/* No event of the source below it can be claimed. */
int64_t store_sqlite_get_low_water_mark(const struct store_sqlite *store, int64_t source);
void store_sqlite_set_low_water_mark(struct store_sqlite *store, int64_t source, int64_t event);
/* An event below the low-water mark can be claimed again. */
void store_sqlite_rescan_from(struct store_sqlite *store, int64_t source, int64_t event);

/* claim.c */
int store_sqlite_claim_begin(struct store *store, int64_t source, uint64_t now_ms,
                             const struct store_claim *claim, struct store_claimed *out);
int store_sqlite_claim_end(struct store *store);
/* Refuses a token that is not of this start. */
int store_sqlite_check_claim_token(struct store_sqlite *store, const struct store_claim *claim);
/* Adds an event to the claim under way. */
int store_sqlite_add_event_to_claim(struct store_sqlite *store, int64_t event, const char *done);
/* Forgets the events of the claim under way. */
void store_sqlite_forget_claimed_events(struct store_sqlite *store);
/*
 * Claims the ready events in [*search_start, search_end), oldest first, up to the claim's limit.
 * *search_start moves to the first event left. *is_limit_reached: ready events are left.
 */
int store_sqlite_claim_ready_events(struct store_sqlite *store, const struct store_claim *claim,
                                    int64_t *search_start, int64_t search_end, bool *is_limit_reached);
/* Leaves the claim's transaction open for its end, or rolls it back if `code` is a failure. Returns `code`.
 * */
int store_sqlite_leave_claim_open(struct store_sqlite *store, int code, int64_t source,
                                  int64_t low_water_mark, bool durable);
/* *next: the id that the next event to arrive will have. */
int store_sqlite_read_next_event_id(struct store_sqlite *store, int64_t source, int64_t *next);

/* ingest.c */
int store_sqlite_ingest_begin(struct store *store, int64_t source, const struct store_page *page,
                              const struct store_claim *claim, struct store_ingested *out,
                              struct store_claimed *claimed);
/* Stores the event's own row. *is_stored is false if the source has its uid already. */
int store_sqlite_insert_event(struct store_sqlite *store, int64_t source, int64_t id, uint64_t now_ms,
                              const struct store_event *event, bool *is_stored);

/* import.c */
int store_sqlite_import(struct store *store, struct store_import *import);

/* commit.c */
int store_sqlite_read(struct store *store, const struct store_event_lock *locks, size_t count,
                      store_on_row *on_row, void *user);
#define STORE_SQLITE_PARTIAL 1 /* locks of a range were lost: roll back, and write event by event */
/* Inside a write transaction: writes one member's answers. one_by_one: event by event; otherwise it may
 * return STORE_SQLITE_PARTIAL. */
int store_sqlite_write_member_answers(struct store_sqlite *store, const struct store_group_member *member,
                                      bool one_by_one, struct store_sqlite_tally *tally);
int store_sqlite_unlock(struct store *store, int64_t source, struct store_unlock *unlocks, size_t count);

/* group_commit.c */
int store_sqlite_commit_begin(struct store *store, struct store_group_commit *group_commit);
int store_sqlite_commit_add(struct store *store, struct store_group_commit *group_commit);
int store_sqlite_commit_end(struct store *store, struct store_group_commit *group_commit);

/* Moves an event from progress to suspended if its token is this one; *is_moved says whether. */
struct store_sqlite_suspend {
    int64_t event, source;
    int64_t token;
    enum store_state state;
    enum store_reason reason;
    uint64_t due_ms;
    uint32_t more_attempts, more_crashes; /* added to the event's */
    const char *context;                  /* NULL = unchanged */
    size_t context_bytes;
    const char *error; /* NULL = none */
    bool keep_error;   /* the error stays as it is */
};
int store_sqlite_suspend_event(struct store_sqlite *store, const struct store_sqlite_suspend *suspend,
                               bool *is_moved);
/* Moves an event from suspended to progress, unlocked. clears_counts: clears attempts, crashes and error.
 * from_first_stage: clears done and context. */
int store_sqlite_resume_event(struct store_sqlite *store, int64_t event, bool clears_counts,
                              bool from_first_stage);
/* Deletes the event rows first..last. */
int store_sqlite_delete_events(struct store_sqlite *store, int64_t first, int64_t last);

/* totals.c */
int store_sqlite_read_cursor(struct store *store, int64_t source, char **cursor);
int store_sqlite_set_cursor(struct store *store, int64_t source, const char *cursor);
int store_sqlite_read_source_totals(struct store *store, int64_t source, struct store_totals *out);
int store_sqlite_read_stage_totals(struct store *store, int64_t stage, struct store_stage_totals *out);
int store_sqlite_each_source(struct store *store, store_on_source *on_source, void *user);
int store_sqlite_each_stage(struct store *store, int64_t source, store_on_stage *on_stage, void *user);

/* crashes.c */
int store_sqlite_add_crashes(struct store *store, const struct crash_record *crashes, size_t count,
                             uint64_t lost);
int store_sqlite_each_crash(struct store *store, store_on_crash *on_crash, void *user, uint64_t *dropped);

/* trace.c */
/* Inside a write transaction: begin, add each step, and write before its end. All do nothing if the trace is
 * off. */
void store_sqlite_begin_trace_row(struct store_sqlite *store);
void store_sqlite_add_trace_step(struct store_sqlite *store,
                                 struct store_trace_step *step); /* fills in the time */
int store_sqlite_write_trace_row(struct store_sqlite *store);
int store_sqlite_read_trace(struct store *store, int64_t source, const char *uid,
                            store_on_trace_step *on_step, void *user, size_t *stored_count);
int store_sqlite_trim_trace(struct store *store, uint64_t now_ms, uint64_t keep_ms, uint64_t bytes);

/* select.c, change.c */
int store_sqlite_list(struct store *store, const struct store_select *select, bool with_data,
                      store_on_item *on_item, void *user);
int store_sqlite_change(struct store *store, const struct store_select *select, enum store_command command,
                        bool dry_run, store_on_item *on_item, void *user, uint64_t *changed);

/* check.c */
int store_sqlite_read_sizes(struct store *store, uint64_t *bytes, uint64_t *wal_bytes);
int store_sqlite_check(struct store *store, void (*report)(const char *message, void *user), void *user);

/* The functions that both tables of struct store_ops share. */
#define STORE_SQLITE_COMMON_OPS                                                                             \
    .close = store_sqlite_close, .ingest_begin = store_sqlite_ingest_begin,                                 \
    .claim_begin = store_sqlite_claim_begin, .claim_end = store_sqlite_claim_end,                           \
    .rescan = store_sqlite_rescan, .read = store_sqlite_read, .commit_begin = store_sqlite_commit_begin,    \
    .commit_add = store_sqlite_commit_add, .commit_end = store_sqlite_commit_end,                           \
    .unlock = store_sqlite_unlock, .cursor = store_sqlite_read_cursor,                                      \
    .set_cursor = store_sqlite_set_cursor, .source_totals = store_sqlite_read_source_totals,                \
    .stage_totals = store_sqlite_read_stage_totals, .each_source = store_sqlite_each_source,                \
    .each_stage = store_sqlite_each_stage, .add_crashes = store_sqlite_add_crashes,                         \
    .each_crash = store_sqlite_each_crash, .trace = store_sqlite_read_trace,                                \
    .trim_trace = store_sqlite_trim_trace, .list = store_sqlite_list, .change = store_sqlite_change,        \
    .import = store_sqlite_import, .checkpoint = store_sqlite_checkpoint, .sizes = store_sqlite_read_sizes, \
    .check = store_sqlite_check

#endif
