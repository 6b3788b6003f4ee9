/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: the trace, a record of what was done to each event. Each transaction that changes events
 * adds one row with its steps (trace_pack.h). The keeper drops old rows. `eventpipe trace` reads all of them.
 *
 * Invariants
 *  1. A row is written in the transaction whose steps it holds: the trace is never ahead of the events, nor
 *     behind them. Only if memory runs out is the row left out: the events are more important.
 *  2. The last row is never dropped, so that ids only grow.
 *  3. Dropping ends: steps of live events are written again with the present time, and when the size must go
 *     down they are at most a quarter of what is dropped.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/store/sqlite/sqlite.h"

#define TRIM_ROWS 256
#define TRIM_BYTES ((size_t)1 << 20)
#define ROW_COST 16     /* as SQL_TRACE_SIZE counts it */
#define EVENTS_MAX 1000 /* events with one uid in one answer */

/* ---- writing ---- */

static uint64_t read_wall_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void store_sqlite_begin_trace_row(struct store_sqlite *store)
{
    if (store->is_trace_on)
        store_trace_pack_begin(&store->pack, read_wall_clock_ms());
}

/* Adds a step (what was done to one event) to the trace row of the store's open transaction, and sets its
 * time; does nothing if the trace is off. Producers, workers and the keeper call it whenever they change an
 * event. */
void store_sqlite_add_trace_step(struct store_sqlite *store, struct store_trace_step *step)
{
    if (!store->is_trace_on)
        return;
    step->at_ms = store->pack.at_ms;
    store_trace_pack_add(&store->pack, step);
}

/* Inserts one packed row of steps (what was done to events) into the store's trace. Returns 0 or a negative
 * code. Every process that changes events runs it at the end of its transaction, and the keeper for the
 * steps that it keeps when it trims the trace. */
static int insert_trace_row(struct store_sqlite *store, const struct trace_pack *pack)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_ADD_TRACE);
    store_sqlite_bind(store, statement, 1, store_sqlite_signed(pack->at_ms));
    if (statement != NULL && store->bind_code == SQLITE_OK)
        store->bind_code = sqlite3_bind_blob64(statement, 2, pack->bytes, pack->used, SQLITE_STATIC);
    return store_sqlite_run_statement(store, statement);
}

int store_sqlite_write_trace_row(struct store_sqlite *store)
{
    return store->is_trace_on && store_trace_pack_has_steps(&store->pack)
               ? insert_trace_row(store, &store->pack)
               : 0;
}

/* ---- trimming ---- */

struct trace_trim {
    struct store_sqlite *store;
    uint64_t before_ms;           /* rows older than this are dropped */
    uint64_t excess_bytes;        /* so many bytes are too many */
    bool keeps_live_steps;        /* keep the steps of live events */
    struct trace_pack kept_steps; /* these steps, of the dropped rows */
    int64_t last_dropped_id;      /* id of the last row to be dropped, 0 = none */
    uint64_t dropped_bytes;
};

/* Sets *is_any_live to whether at least one event with an id in first_event..last_event is still in the
 * store. Returns 0 or a negative code. The keeper runs it when it trims the trace, because it keeps the
 * steps of such events. */
static int find_live_event(struct store_sqlite *store, int64_t first_event, int64_t last_event,
                           bool *is_any_live)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_TRACE_LIVE);
    store_sqlite_bind(store, statement, 1, first_event);
    store_sqlite_bind(store, statement, 2, last_event);
    int code = store_sqlite_step_statement(store, statement);
    *is_any_live = code == 1;
    if (code == 1)
        sqlite3_reset(statement);
    return code < 0 ? code : 0;
}

/* Copies into trim->kept_steps the steps of a trace row whose events are still in the store; the row itself
 * will be dropped. Usually there are none, which a single query shows. Returns 0 or a negative code. The
 * keeper runs it when it trims the trace. */
static int collect_live_steps(struct trace_trim *trim, uint64_t at_ms, const void *bytes, size_t byte_count)
{
    struct trace_unpack unpack;
    struct store_trace_step step;
    int64_t first_event = INT64_MAX, last_event = 0;
    bool is_any_live = false;
    store_trace_unpack_begin(&unpack, at_ms, bytes, byte_count);
    while (store_trace_unpack_next(&unpack, &step)) {
        first_event = step.event < first_event ? step.event : first_event;
        last_event = step.event > last_event ? step.event : last_event;
    }
    int code = find_live_event(trim->store, first_event, last_event, &is_any_live);
    if (code != 0 || !is_any_live)
        return code;
    store_trace_unpack_begin(&unpack, at_ms, bytes, byte_count);
    while (code == 0 && store_trace_unpack_next(&unpack, &step)) {
        if (trim->excess_bytes > 0 && trim->kept_steps.used > trim->dropped_bytes / 4)
            break;
        code = find_live_event(trim->store, step.event, step.event, &is_any_live);
        if (code == 0 && is_any_live)
            store_trace_pack_add(&trim->kept_steps, &step);
    }
    return code;
}

/* Sets *must_drop to whether this row of the store's trace is dropped: because it is too old, or because
 * the trace is still too large. Then it also collects the row's steps that are kept. Returns 0 or a
 * negative code. The keeper runs it for the oldest rows when it trims the trace. */
static int check_row_to_drop(struct trace_trim *trim, sqlite3_stmt *statement, bool *must_drop)
{
    uint64_t at_ms = (uint64_t)sqlite3_column_int64(statement, 1);
    const void *bytes = sqlite3_column_blob(statement, 2);
    size_t byte_count = (size_t)sqlite3_column_bytes(statement, 2);
    *must_drop = at_ms < trim->before_ms || trim->dropped_bytes < trim->excess_bytes;
    if (!*must_drop)
        return 0;
    trim->last_dropped_id = sqlite3_column_int64(statement, 0);
    trim->dropped_bytes += byte_count + ROW_COST;
    return bytes != NULL && trim->keeps_live_steps ? collect_live_steps(trim, at_ms, bytes, byte_count) : 0;
}

/* Deletes a bounded number of the oldest rows of the store's trace, and writes the steps that are kept as
 * one new row. *has_more: another call has more to drop. Returns 0 or a negative code. The keeper runs it
 * inside a write transaction, which stays short that way. */
static int drop_old_rows(struct trace_trim *trim, bool *has_more)
{
    struct store_sqlite *store = trim->store;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_TRACE_OLDEST);
    store_sqlite_bind(store, statement, 1, store->last_counted_trace_id);
    store_sqlite_bind(store, statement, 2, TRIM_ROWS);
    int code, row_count = 0;
    bool must_drop = true;
    while ((code = store_sqlite_step_statement(store, statement)) == 1) {
        row_count++;
        code = check_row_to_drop(trim, statement, &must_drop);
        if (code != 0 || !must_drop || trim->dropped_bytes > TRIM_BYTES)
            break;
    }
    sqlite3_reset(statement);
    if (code < 0 || trim->last_dropped_id == 0)
        return code < 0 ? code : 0;
    *has_more = must_drop && (row_count == TRIM_ROWS || trim->dropped_bytes > TRIM_BYTES);
    statement = store_sqlite_use_statement(store, SQL_DELETE_TRACE);
    store_sqlite_bind(store, statement, 1, trim->last_dropped_id);
    code = store_sqlite_run_statement(store, statement);
    return code == 0 && store_trace_pack_has_steps(&trim->kept_steps)
               ? insert_trace_row(store, &trim->kept_steps)
               : code;
}

/* Adds the size of the trace rows that were stored since the last call to the store handle's trace_bytes,
 * so that the whole table is read only once. Returns 0 or a negative code. The keeper runs it before it
 * trims the trace. */
static int count_new_rows(struct store_sqlite *store)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_TRACE_SIZE);
    store_sqlite_bind(store, statement, 1, store->last_counted_trace_id);
    int code = store_sqlite_step_statement(store, statement);
    if (code != 1)
        return code;
    if (sqlite3_column_type(statement, 0) != SQLITE_NULL) {
        store->last_counted_trace_id = sqlite3_column_int64(statement, 0);
        store->trace_bytes += (uint64_t)sqlite3_column_int64(statement, 1);
    }
    sqlite3_reset(statement);
    return 0;
}

/* Sets *is_old to whether the oldest row of the store's trace is older than before_ms. Returns 0 or a
 * negative code. The keeper runs it, so that it opens a write transaction only if there is something to
 * drop. */
static int check_oldest_row(struct store_sqlite *store, uint64_t before_ms, bool *is_old)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_TRACE_OLDEST);
    store_sqlite_bind(store, statement, 1, store->last_counted_trace_id);
    store_sqlite_bind(store, statement, 2, 1);
    int code = store_sqlite_step_statement(store, statement);
    *is_old = code == 1 && (uint64_t)sqlite3_column_int64(statement, 1) < before_ms;
    if (code == 1)
        sqlite3_reset(statement);
    return code < 0 ? code : 0;
}

/* store_trim_trace of the SQLite engine: drops the oldest trace rows while they are too old or the trace is
 * too large. Returns 1 while there is more to drop, 0 when there is none, or a negative code. The keeper
 * calls it about once a second while the store changes. */
int store_sqlite_trim_trace(struct store *base, uint64_t now_ms, uint64_t keep_ms, uint64_t bytes)
{
    struct store_sqlite *store = store_sqlite_of(base);
    struct trace_trim trim = {.store = store,
                              .before_ms = now_ms > 2 * keep_ms ? now_ms - 2 * keep_ms : 0,
                              .keeps_live_steps = keep_ms > 0};
    bool has_old_row = false, has_more = false;
    int code = store_sqlite_begin_read(store);
    if (code != 0)
        return code;
    code = count_new_rows(store);
    if (code == 0)
        code = check_oldest_row(store, trim.before_ms, &has_old_row);
    code = store_sqlite_end_transaction(store, code);
    trim.excess_bytes = store->trace_bytes > bytes ? store->trace_bytes - bytes : 0;
    if (code != 0 || (!has_old_row && trim.excess_bytes == 0))
        return code;
    code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    store_trace_pack_begin(&trim.kept_steps, now_ms);
    code = store_sqlite_end_transaction(store, drop_old_rows(&trim, &has_more));
    store_trace_pack_free(&trim.kept_steps);
    if (code != 0)
        return code;
    store->trace_bytes -= trim.dropped_bytes < store->trace_bytes ? trim.dropped_bytes : store->trace_bytes;
    return has_more ? 1 : 0;
}

/* ---- reading the trace of an event ---- */

struct found_step {
    struct store_trace_step step;
    bool moved;
    size_t trace_position; /* position in the trace */
};

/* One call of store_trace. */
struct trace_query {
    struct store_sqlite *store;
    int64_t source;
    uint64_t uid_hash;
    int64_t event_ids[EVENTS_MAX];
    size_t event_count, stored_count;
    struct found_step *found_steps;
    size_t step_count, capacity;
};

/* Whether the event is one of those that have or had the UID for which `eventpipe trace` was called. The
 * command line runs it for each step in the store's trace. */
static bool is_found_event(const struct trace_query *query, int64_t event)
{
    for (size_t i = 0; i < query->event_count; i++)
        if (query->event_ids[i] == event)
            return true;
    return false;
}

static void add_found_event(struct trace_query *query, int64_t event)
{
    if (query->event_count < EVENTS_MAX && !is_found_event(query, event))
        query->event_ids[query->event_count++] = event;
}

/* Notes the event of a trace step if the step is its arrival with the wanted UID. `eventpipe trace` runs it
 * for each step in its first pass over the store's trace, and so finds events that have left the store,
 * too. Returns 0. */
static int note_event_of_step(struct trace_query *query, const struct trace_unpack *unpack,
                              const struct store_trace_step *step)
{
    (void)unpack;
    bool is_arrival = step->kind == STORE_TRACE_STEP_FETCHED || step->kind == STORE_TRACE_STEP_INJECTED;
    if (is_arrival && step->uid_hash == query->uid_hash &&
        (query->source == 0 || step->event >> EVENT_SOURCE_SHIFT == query->source))
        add_found_event(query, step->event);
    return 0;
}

static int fail_out_of_memory(struct trace_query *query)
{
    return base_error_set(&query->store->base.error, EP_ENOMEM, "out of memory");
}

/* Copies a trace step if it belongs to one of the found events, because the stored row that holds it is
 * borrowed. `eventpipe trace` runs it for each step in its second pass over the store's trace. Returns 0 or
 * EP_ENOMEM. */
static int copy_step_of_event(struct trace_query *query, const struct trace_unpack *unpack,
                              const struct store_trace_step *step)
{
    if (!is_found_event(query, step->event))
        return 0;
    if (query->step_count == query->capacity) {
        size_t capacity = query->capacity * 2 + 64;
        struct found_step *found = reallocarray(query->found_steps, capacity, sizeof *found);
        if (found == NULL)
            return fail_out_of_memory(query);
        query->found_steps = found;
        query->capacity = capacity;
    }
    struct found_step *found = &query->found_steps[query->step_count];
    *found = (struct found_step){.step = *step, .moved = unpack->moved, .trace_position = query->step_count};
    if (step->error != NULL && (found->step.error = strndup(step->error, step->error_bytes)) == NULL)
        return fail_out_of_memory(query);
    query->step_count++;
    return 0;
}

/* Calls on_step for every step in the store's whole trace, oldest row first. Returns 0 or the first other
 * code. `eventpipe trace` runs it twice; with a long trace that is slow. */
static int for_each_trace_step(struct trace_query *query,
                               int (*on_step)(struct trace_query *query, const struct trace_unpack *unpack,
                                              const struct store_trace_step *step))
{
    sqlite3_stmt *statement = store_sqlite_use_statement(query->store, SQL_EACH_TRACE);
    int code;
    while ((code = store_sqlite_step_statement(query->store, statement)) == 1) {
        struct trace_unpack unpack;
        struct store_trace_step step;
        const void *bytes = sqlite3_column_blob(statement, 1);
        code = 0;
        if (bytes != NULL)
            store_trace_unpack_begin(&unpack, (uint64_t)sqlite3_column_int64(statement, 0), bytes,
                                     (size_t)sqlite3_column_bytes(statement, 1));
        while (bytes != NULL && code == 0 && store_trace_unpack_next(&unpack, &step))
            code = on_step(query, &unpack, &step);
        if (code != 0) {
            sqlite3_reset(statement);
            return code;
        }
    }
    return code;
}

/* Notes the event that has this UID in one source, if the store has it now, and counts it. Returns 0 also
 * if there is none; otherwise a negative code. It takes one source because a UID is unique, and indexed,
 * within its source. `eventpipe trace` runs it. */
static int find_stored_event(struct trace_query *query, int64_t source, const char *uid)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(query->store, SQL_FIND_UID);
    store_sqlite_bind(query->store, statement, 1, source);
    store_sqlite_bind_string(query->store, statement, 2, uid);
    int code = store_sqlite_step_statement(query->store, statement);
    if (code != 1)
        return code;
    add_found_event(query, sqlite3_column_int64(statement, 0));
    query->stored_count++;
    sqlite3_reset(statement);
    return 0;
}

/* Notes the events that have this UID in the store now, in the wanted source or, if none is given, in each.
 * Returns 0 or a negative code. `eventpipe trace` runs it before it reads the trace. */
static int find_stored_events(struct trace_query *query, const char *uid)
{
    if (query->source != 0)
        return find_stored_event(query, query->source, uid);
    sqlite3_stmt *statement = store_sqlite_use_statement(query->store, SQL_EACH_SOURCE);
    int code;
    while ((code = store_sqlite_step_statement(query->store, statement)) == 1)
        if ((code = find_stored_event(query, sqlite3_column_int64(statement, 0), uid)) != 0) {
            sqlite3_reset(statement);
            return code;
        }
    return code;
}

/* Finds the events that have or had the UID and copies all their steps; it reads the store's trace twice,
 * first for the events and then for their steps. Returns 0 or a negative code. `eventpipe trace` runs it in
 * one read transaction. */
static int read_event_steps(struct trace_query *query, const char *uid)
{
    int64_t table_count;
    int code =
        store_sqlite_read_number(query->store, "SELECT count(*) FROM sqlite_schema WHERE name = 'trace'",
                                 &table_count);
    if (code == 0)
        code = find_stored_events(query, uid);
    if (code != 0 || table_count == 0) /* a store of an older version has no such table */
        return code;
    code = for_each_trace_step(query, note_event_of_step);
    return code == 0 && query->event_count > 0 ? for_each_trace_step(query, copy_step_of_event) : code;
}

/* Orders steps of the store's trace by event, then by time; qsort calls it for `eventpipe trace`. Of steps
 * with the same time, one that was moved from an older row comes first, because it is older. */
static int compare_found_steps(const void *left, const void *right)
{
    const struct found_step *a = left, *b = right;
    if (a->step.event != b->step.event)
        return a->step.event < b->step.event ? -1 : 1;
    if (a->step.at_ms != b->step.at_ms)
        return a->step.at_ms < b->step.at_ms ? -1 : 1;
    if (a->moved != b->moved)
        return a->moved ? -1 : 1;
    return a->trace_position < b->trace_position ? -1 : a->trace_position > b->trace_position;
}

/* store_trace of the SQLite engine: passes all kept trace steps of the events that have or had this UID to
 * on_step, event by event. *stored_count: how many of these events the store has now. Returns 0 or the
 * first other code. `eventpipe trace` calls it. */
int store_sqlite_read_trace(struct store *base, int64_t source, const char *uid, store_on_trace_step *on_step,
                            void *user, size_t *stored_count)
{
    struct trace_query query = {.store = store_sqlite_of(base),
                                .source = source,
                                .uid_hash = store_trace_uid_hash(uid)};
    int code = store_sqlite_begin_read(query.store);
    if (code == 0)
        code = store_sqlite_end_transaction(query.store, read_event_steps(&query, uid));
    if (code == 0 && query.step_count > 0)
        qsort(query.found_steps, query.step_count, sizeof *query.found_steps, compare_found_steps);
    for (size_t i = 0; code == 0 && i < query.step_count; i++)
        code = on_step(&query.found_steps[i].step, user);
    for (size_t i = 0; i < query.step_count; i++)
        free((char *)query.found_steps[i].step.error);
    free(query.found_steps);
    *stored_count = query.stored_count;
    return code;
}
