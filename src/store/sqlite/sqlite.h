/* SPDX-License-Identifier: MIT */
/*
 * Inside the SQLite engine: what its files share. Nobody outside src/store_sqlite*.c and src/store/sqlite/memory.c
 * includes this, except tests that look at its statements.
 *
 * An event's id is its source's id and its number of arrival in one: so ids of a source stand next to each
 * other, in order of arrival. What waits or runs has a row in `progress`; what is set aside (delayed, held,
 * dead) has its row in `suspended` instead, so that it never stands in the way of a claim.
 */
#ifndef STORE_SQLITE_H
#define STORE_SQLITE_H

#include <limits.h>
#include <sqlite3.h>

#include "src/store/engine.h"
#include "src/store/trace_pack.h"

#define EVENT_SOURCE_SHIFT STORE_NUMBER_BITS
#define EVENT_FIRST(source) ((int64_t)(source) << EVENT_SOURCE_SHIFT)
#define EVENT_LAST(source) (EVENT_FIRST((source) + 1) - 1)

#define STORE_SQLITE_APPLICATION 0x65767070 /* PRAGMA application_id of our files: "evpp" */
#define STORE_SQLITE_WAKE_LIMIT 512         /* delayed events made ready by one claim */

/* Every statement the engine keeps; their text is in store_sqlite_statements.c. */
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
    SQL_STATEMENTS /* how many */
};

/* Where a store's files are. */
struct store_sqlite_place {
    char path[PATH_MAX];
    char lock[PATH_MAX + 8];
    int synchronous; /* as PRAGMA synchronous has it: 0 off, 1 normal, 2 full */
};

/* Changes of the numbers kept in a source's row and a stage's row, collected over one transaction. */
struct store_sqlite_tally {
    int64_t completed, removed_by_stage, removed_by_operator, live, delayed, held, dead;
    struct store_stage_totals stage;
};

/* What changed at one stage in one group commit: workers of one stage often come together. */
struct store_sqlite_stage_tally {
    int64_t source, stage;
    struct store_sqlite_tally tally;
};

/* A group commit under way, from its begin to its end. */
struct store_sqlite_group {
    bool begun;     /* its transaction is open */
    bool singly;    /* event by event, after a run of answers was not ours as a whole */
    int code;       /* the first failure of an add, or STORE_SQLITE_PARTED */
    size_t written; /* so many of its members are in the transaction */
    size_t tally_count;
    struct store_sqlite_stage_tally tallies[STORE_GROUP_COMMIT_MAX];
};

struct store_sqlite_low_water_mark {
    int64_t source, event; /* no event of the source below this one can be claimed */
};

struct store_sqlite {
    struct store store; /* first: a struct store pointer is a pointer to this */
    sqlite3 *db;
    sqlite3 *checkpointer; /* moves the WAL; NULL until that is first needed */
    sqlite3_stmt *statements[SQL_STATEMENTS];
    char *path;
    pthread_mutex_t *write_lock;
    bool holds_write_lock; /* this handle holds the write lock */
    bool readonly;
    bool disk_full;  /* seen since the transaction began */
    int synchronous; /* as in struct store_sqlite_place */
    bool durable;    /* what is committed is on the disk before a call returns */
    bool wrote;      /* the last transaction did */
    uint32_t busy_timeout_ms;
    uint64_t start_number;
    int64_t first_valid_token; /* a token below this is of an older start: no lock */
    bool checks_epoch;         /* write only while the store's start number is still ours */
    uint64_t page_bytes, wal_bytes, wal_limit_bytes;
    void (*wal_grown)(void *user);
    void (*write_lock_released)(void *user);
    void *user;
    int bind_code; /* first failure to bind since the last step */
    struct store_sqlite_low_water_mark *low_water_marks;
    size_t low_water_mark_count;
    int64_t woken[STORE_SQLITE_WAKE_LIMIT];
    bool trace;
    int32_t pid;            /* of this process */
    struct trace_pack pack; /* of the transaction under way */
    int64_t trace_counted;  /* rows up to this id are counted in trace_bytes */
    uint64_t trace_bytes;
    struct store_sqlite_group group;
    bool others_turn; /* of the next claim that serves retries and others, the odd one is for the others */
};

static inline struct store_sqlite *store_sqlite_of(struct store *store)
{
    return (struct store_sqlite *)store;
}

/* ---- store_sqlite_statements.c ---- */
/* The text of a statement; `small` is true where it may scan a whole table (the tables of names). */
const char *store_sqlite_sql(enum store_sqlite_statement which, bool *small);

/* ---- store_sqlite_open.c ---- */
enum store_sqlite_mode { STORE_SQLITE_CREATE, STORE_SQLITE_WRITE, STORE_SQLITE_READ };
int store_sqlite_open_at(const struct store_options *options, const struct store_sqlite_place *place,
                         enum store_sqlite_mode mode, const struct store_ops *ops, struct store_sqlite **out,
                         struct error *error);
void store_sqlite_close(struct store *store);

/* ---- store_sqlite.c: statements, transactions, failures ---- */
/* Keeps the message of what SQLite just refused, and returns the EP_ code it means. */
int store_sqlite_fail(struct store_sqlite *store, int result);
/* The same for a connection that is not the handle's own; NULL = there is none. */
int store_sqlite_fail_of(struct store_sqlite *store, sqlite3 *db, int result);

/*
 * Statements: use gets one ready (NULL after a failure, which the functions below pass on), bind_*, then run
 * (no rows wanted: 0 or a code) or step (1 a row, 0 no more, or a code; after 0 and codes the statement is
 * reset). Text is bound without a copy: it must stand until the statement is reset. Every parameter is bound
 * again at each use.
 */
sqlite3_stmt *store_sqlite_use(struct store_sqlite *store, enum store_sqlite_statement which);
void store_sqlite_bind(struct store_sqlite *store, sqlite3_stmt *statement, int at, int64_t value);
void store_sqlite_bind_text(struct store_sqlite *store, sqlite3_stmt *statement, int at, const char *text,
                            size_t bytes);
void store_sqlite_bind_string(struct store_sqlite *store, sqlite3_stmt *statement, int at, const char *text);
int store_sqlite_step(struct store_sqlite *store, sqlite3_stmt *statement);
int store_sqlite_run(struct store_sqlite *store, sqlite3_stmt *statement);
/* Text of SQL whose statement is not kept. */
int store_sqlite_execute(struct store_sqlite *store, const char *sql);
int store_sqlite_pragma(struct store_sqlite *store, const char *sql, int64_t *value);

/* Transactions: after begin, end(code) commits when code is 0, otherwise rolls back; it returns what came of
 * it. */
int store_sqlite_begin_read(struct store_sqlite *store);
int store_sqlite_begin_write(struct store_sqlite *store);
int store_sqlite_begin_write_locked(struct store_sqlite *store); /* the same, with the write lock held */
int store_sqlite_end(struct store_sqlite *store, int code);
/* The same, where a power failure may undo it. */
int store_sqlite_end_lazily(struct store_sqlite *store, int code);
void store_sqlite_roll_back(
    struct store_sqlite *store); /* if there is what to roll back; the message stays */
void store_sqlite_acquire_write_lock(struct store_sqlite *store);
bool store_sqlite_try_write_lock(struct store_sqlite *store); /* false: another process holds it */
void store_sqlite_release_write_lock(struct store_sqlite *store);

/* A wall-clock time or other unsigned number as SQLite can keep it. */
static inline int64_t store_sqlite_signed(uint64_t value)
{
    return value > INT64_MAX ? INT64_MAX : (int64_t)value;
}

/* Adds to the rows of the source and of the stage (0 = none) what is not zero. */
int store_sqlite_tally(struct store_sqlite *store, int64_t source, int64_t stage,
                       const struct store_sqlite_tally *tally);

/* ---- store_sqlite_log.c ---- */
/* The hook that SQLite calls after each commit that wrote. */
int store_sqlite_wal_count(void *handle, sqlite3 *db, const char *name, int pages);
/* After a transaction, holding the write lock: moves the WAL if it is much too long, or if the disk was full. */
void store_sqlite_wal_checkpoint_if_needed(struct store_sqlite *store);
/* After a transaction, without the write lock: the WAL is on the disk, or (EP_ESTORE) the disk refuses. */
int store_sqlite_wal_sync(struct store_sqlite *store);
/* Before a transaction of one who could not acquire the write lock: 0, or EP_ESTOREBUSY while the WAL is too long. */
int store_sqlite_wal_check_limit(struct store_sqlite *store);
int store_sqlite_checkpoint(struct store *store, bool final);

/* ---- store_sqlite_schema.c ---- */
/* Creates or migrates (create), or only checks that the file is ours and of this version. */
int store_sqlite_schema(struct store_sqlite *store, bool create);
int store_sqlite_prepare_at(const struct store_options *options, const struct store_sqlite_place *place,
                            const struct store_ops *ops, struct store_names *names, size_t count,
                            uint64_t *start_number, struct error *error);

/* ---- store_sqlite_hold.c ---- */
int store_sqlite_hold_at(const struct store_options *options, const struct store_sqlite_place *place,
                         uint64_t wait_ms, int *lock_fd, struct error *error);
/* Whether nobody holds the place, or this process does: then it may be cleared away. */
bool store_sqlite_may_clear(const struct store_sqlite_place *place);

/* ---- the functions of struct store_ops, each in the file of its subject ---- */
/* store_sqlite_claim.c */
int store_sqlite_ingest(struct store *store, int64_t source, const struct store_page *page,
                        const struct store_claim *claim, struct store_ingested *out);
int store_sqlite_claim(struct store *store, int64_t source, uint64_t now_ms, const struct store_claim *claim,
                       struct store_claimed *out);
void store_sqlite_rescan(struct store *store, int64_t source);
/* An event below the low-water mark can be claimed again. */
void store_sqlite_rescan_from(struct store_sqlite *store, int64_t source, int64_t event);

/* Number of the next event to arrive, as the id it will have. */
int store_sqlite_next_event(struct store_sqlite *store, int64_t source, int64_t *next);
/* Puts an event's own row in; *stored is false when the source has its uid already. */
int store_sqlite_insert_event(struct store_sqlite *store, int64_t source, int64_t id, uint64_t now_ms,
                              const struct store_event *event, bool *stored);

/* store_sqlite_import.c */
int store_sqlite_import(struct store *store, struct store_import *import);

/* store_sqlite_commit.c */
int store_sqlite_read(struct store *store, const struct store_event_lock *locks, size_t count,
                      store_on_row *on_row, void *user);
#define STORE_SQLITE_PARTED 1 /* not all of a run was ours: event by event, then */
/* In a write transaction. singly: event by event; otherwise it may be STORE_SQLITE_PARTED. */
int store_sqlite_commit_member(struct store_sqlite *store, const struct store_group_member *member,
                               bool singly, struct store_sqlite_tally *tally);
int store_sqlite_unlock(struct store *store, int64_t source, struct store_unlock *unlocks, size_t count);

/* store_sqlite_group.c */
int store_sqlite_commit_begin(struct store *store, struct store_group_commit *group_commit);
int store_sqlite_commit_add(struct store *store, struct store_group_commit *group_commit);
int store_sqlite_commit_end(struct store *store, struct store_group_commit *group_commit);

/* Moves an event from progress to suspended when its token is this one; *moved says whether it was. */
struct store_sqlite_suspend {
    int64_t event, source;
    int64_t token;
    enum store_state state;
    enum store_reason reason;
    uint64_t due_ms;
    uint32_t more_attempts, more_crashes; /* added */
    const char *context;                  /* NULL = unchanged */
    size_t context_bytes;
    const char *error; /* NULL = none */
    bool keep_error;   /* error as it was */
};
int store_sqlite_suspend(struct store_sqlite *store, const struct store_sqlite_suspend *suspend, bool *moved);
/* Moves an event from suspended to progress, unlocked; reset: attempts, crashes and error begin again; from_first:
 * done and context too. */
int store_sqlite_resume(struct store_sqlite *store, int64_t event, bool reset, bool from_first);
int store_sqlite_delete_events(struct store_sqlite *store, int64_t first, int64_t last);

/* store_sqlite_totals.c */
int store_sqlite_cursor(struct store *store, int64_t source, char **cursor);
int store_sqlite_set_cursor(struct store *store, int64_t source, const char *cursor);
int store_sqlite_source_totals(struct store *store, int64_t source, struct store_totals *out);
int store_sqlite_stage_totals(struct store *store, int64_t stage, struct store_stage_totals *out);
int store_sqlite_each_source(struct store *store, store_on_source *on_source, void *user);
int store_sqlite_each_stage(struct store *store, int64_t source, store_on_stage *on_stage, void *user);

/* store_sqlite_crashes.c */
int store_sqlite_add_crashes(struct store *store, const struct store_crash *crashes, size_t count,
                             uint64_t lost);
int store_sqlite_each_crash(struct store *store, store_on_crash *on_crash, void *user, uint64_t *dropped);

/* store_sqlite_trace.c */
/* In a write transaction: begin, add what is done, and before its end write. All do nothing without the
 * trace. */
void store_sqlite_trace_begin(struct store_sqlite *store);
void store_sqlite_trace_add(struct store_sqlite *store,
                            struct store_trace_step *step); /* fills in the time */
int store_sqlite_trace_write(struct store_sqlite *store);
int store_sqlite_trace(struct store *store, int64_t source, const char *uid, store_on_trace_step *on_step,
                       void *user, size_t *live);
int store_sqlite_trim_trace(struct store *store, uint64_t now_ms, uint64_t keep_ms, uint64_t bytes);

/* store_sqlite_walk.c, store_sqlite_change.c */
int store_sqlite_list(struct store *store, const struct store_select *select, bool with_data,
                      store_on_item *on_item, void *user);
int store_sqlite_change(struct store *store, const struct store_select *select, enum store_command command,
                        bool dry_run, store_on_item *on_item, void *user, uint64_t *changed);

/* store_sqlite_upkeep.c */
int store_sqlite_sizes(struct store *store, uint64_t *bytes, uint64_t *wal_bytes);
int store_sqlite_check(struct store *store, void (*report)(const char *message, void *user), void *user);

/* What a table of struct store_ops has in common wherever the files are. */
#define STORE_SQLITE_COMMON_OPS                                                                          \
    .close = store_sqlite_close, .ingest = store_sqlite_ingest, .claim = store_sqlite_claim,             \
    .rescan = store_sqlite_rescan, .read = store_sqlite_read, .commit_begin = store_sqlite_commit_begin, \
    .commit_add = store_sqlite_commit_add, .commit_end = store_sqlite_commit_end,                        \
    .unlock = store_sqlite_unlock, .cursor = store_sqlite_cursor, .set_cursor = store_sqlite_set_cursor, \
    .source_totals = store_sqlite_source_totals, .stage_totals = store_sqlite_stage_totals,              \
    .each_source = store_sqlite_each_source, .each_stage = store_sqlite_each_stage,                      \
    .add_crashes = store_sqlite_add_crashes, .each_crash = store_sqlite_each_crash,                      \
    .trace = store_sqlite_trace, .trim_trace = store_sqlite_trim_trace, .list = store_sqlite_list,       \
    .change = store_sqlite_change, .import = store_sqlite_import, .checkpoint = store_sqlite_checkpoint, \
    .sizes = store_sqlite_sizes, .check = store_sqlite_check

#endif
