/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: stores a page of events with its cursor, and claims in the same transaction. The
 * producer of the source calls it; so do `eventpipe inject` (in the keeper) and tests, without a claim.
 *
 * Invariants
 *  1. A page, its cursor and the totals of its source are one transaction.
 *  2. The page's own events are claimed only after all older ready events.
 *  3. An empty page whose cursor is stored already writes nothing.
 */
#include <string.h>

#include "src/store/sqlite/sqlite.h"

struct ingest {
    struct store_sqlite *store;
    int64_t source, next_event;
    const struct store_page *page;
    const struct store_claim *claim;
    bool claims_new_events; /* the page's own events may be claimed too */
    int64_t low_water_mark; /* of the handle, after the commit */
    int64_t stored_count, duplicate_count, dead_count;
    int64_t first_pending_event; /* first of the new events without a row in progress yet, 0 = none */
    int64_t pending_token;       /* their token, 0 = not claimed */
};

/* Inserts the row of one new event (UID, address, type, data) into the store. *is_stored is false if its
 * source already has the UID. Returns 0 or a negative code. The producer calls it for each event of a page,
 * the keeper for `eventpipe inject`, the command line for `eventpipe import`. */
int store_sqlite_insert_event(struct store_sqlite *store, int64_t source, int64_t id, uint64_t now_ms,
                              const struct store_event *event, bool *is_stored)
{
    if (event->uid == NULL || (event->data == NULL && event->data_bytes != 0))
        return base_error_set(&store->base.error, EP_EINVAL, "%s: cannot store an event without %s",
                              store->path, event->uid == NULL ? "a uid" : "data");
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_INSERT_EVENT);
    store_sqlite_bind(store, statement, 1, id);
    store_sqlite_bind(store, statement, 2, source);
    store_sqlite_bind_string(store, statement, 3, event->uid);
    store_sqlite_bind_string(store, statement, 4, event->address);
    store_sqlite_bind_string(store, statement, 5, event->type);
    store_sqlite_bind(store, statement, 6, store_sqlite_signed(now_ms));
    store_sqlite_bind_text(store, statement, 7, event->data != NULL ? event->data : "", event->data_bytes);
    int code = store_sqlite_run_statement(store, statement);
    *is_stored = code == 0 && sqlite3_changes(store->db) == 1;
    return code;
}

/* Makes all pending events ready, or claimed if they have a token (the number of a claim). Pending are the
 * page's consecutive events whose own rows are in the store but not their states: one statement for all of
 * them is much faster than one each. The producer runs it while it stores a page, and the keeper for
 * `eventpipe inject`. */
static int insert_pending_states(struct ingest *ingest)
{
    if (ingest->first_pending_event == 0)
        return 0;
    sqlite3_stmt *statement = store_sqlite_use_statement(ingest->store, SQL_INSERT_PROGRESS);
    store_sqlite_bind(ingest->store, statement, 1, ingest->first_pending_event);
    store_sqlite_bind(ingest->store, statement, 2, ingest->next_event - 1);
    store_sqlite_bind(ingest->store, statement, 3, ingest->pending_token);
    ingest->first_pending_event = 0;
    return store_sqlite_run_statement(ingest->store, statement);
}

/* Stores the state of a new event that is dead from the start because its data is corrupt, with the error.
 * No stage will get the event; an operator can see it. The producer runs it while it stores a page. */
static int insert_dead_state(struct ingest *ingest, int64_t id, const struct store_event *event)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(ingest->store, SQL_INSERT_DEAD);
    store_sqlite_bind(ingest->store, statement, 1, id);
    store_sqlite_bind(ingest->store, statement, 2, ingest->source);
    store_sqlite_bind(ingest->store, statement, 3, event->dead);
    store_sqlite_bind_string(ingest->store, statement, 4, event->error != NULL ? event->error : "");
    ingest->dead_count++;
    return store_sqlite_run_statement(ingest->store, statement);
}

/* Adds an event that was just stored to the pending ones (stored, but without a state yet), and claims it
 * if the claim's limit is not reached. Claiming new events in the transaction that stores them saves a
 * second one. The producer runs it while it stores a page, and the keeper, without a claim, for `eventpipe
 * inject`. */
static int mark_event_ready(struct ingest *ingest, int64_t id)
{
    if (ingest->claims_new_events && ingest->store->open_claim.count == ingest->claim->limit) {
        ingest->claims_new_events = false;
        ingest->low_water_mark = id;
    }
    int code = ingest->claims_new_events ? store_sqlite_add_event_to_claim(ingest->store, id, "") : 0;
    if (code != 0)
        return code;
    int64_t token = ingest->claims_new_events ? (int64_t)ingest->claim->token : 0;
    code = token != ingest->pending_token ? insert_pending_states(ingest) : 0;
    if (ingest->first_pending_event == 0)
        ingest->first_pending_event = id;
    ingest->pending_token = token;
    return code;
}

/* Stores one event of a page: its row, its trace step and its state (ready, claimed or dead). A duplicate
 * is only counted. Returns 0 or a negative code. The producer runs it for each event that its source
 * delivered, and the keeper for `eventpipe inject`. */
static int ingest_event(struct ingest *ingest, const struct store_event *event)
{
    struct store_sqlite *store = ingest->store;
    bool is_stored = false;
    int code = store_sqlite_insert_event(store, ingest->source, ingest->next_event, ingest->page->now_ms,
                                         event, &is_stored);
    if (code != 0 || !is_stored) {
        ingest->duplicate_count += code == 0;
        return code;
    }
    int64_t id = ingest->next_event;
    struct store_trace_step step = {
        .kind = ingest->page->injected ? STORE_TRACE_STEP_INJECTED : STORE_TRACE_STEP_FETCHED,
        .reason = event->dead,
        .event = id,
        .pid = store->pid,
        .uid_hash = store->is_trace_on ? store_trace_uid_hash(event->uid) : 0,
        .error = event->dead != STORE_REASON_NONE ? event->error : NULL,
        .error_bytes = event->error != NULL ? strlen(event->error) : 0,
    };
    store_sqlite_add_trace_step(store, &step);
    if (event->dead == STORE_REASON_NONE) {
        code = mark_event_ready(ingest, id);
    } else {
        code = insert_pending_states(ingest);
        if (code == 0)
            code = insert_dead_state(ingest, id, event);
    }
    ingest->next_event++;
    ingest->stored_count++;
    return code;
}

/* Binds, at parameter and the one after it, the cursor from which the page was fetched: if an operator has
 * set another cursor in the store meanwhile, the statement keeps the operator's. */
static void bind_expected_cursor(struct ingest *ingest, sqlite3_stmt *statement, int parameter)
{
    store_sqlite_bind(ingest->store, statement, parameter, ingest->page->follows);
    store_sqlite_bind_string(ingest->store, statement, parameter + 1,
                             ingest->page->after != NULL ? ingest->page->after : "");
}

/* Stores the cursor of a page without events, but only if it has changed, so that polling an idle backend
 * writes nothing. Returns 0 or a negative code. The producer runs it in the page's transaction. */
static int update_cursor(struct ingest *ingest)
{
    if (ingest->page->cursor == NULL)
        return 0;
    sqlite3_stmt *statement = store_sqlite_use_statement(ingest->store, SQL_MOVE_CURSOR);
    store_sqlite_bind(ingest->store, statement, 1, ingest->source);
    store_sqlite_bind_string(ingest->store, statement, 2, ingest->page->cursor);
    bind_expected_cursor(ingest, statement, 3);
    return store_sqlite_run_statement(ingest->store, statement);
}

/* Writes next event number, cursor and totals of the source to the store after its page. It is the same
 * transaction as the page's events, so a stored cursor never skips events that are not stored. The producer
 * runs it, and the keeper for `eventpipe inject`. */
static int update_source_row(struct ingest *ingest)
{
    if (ingest->page->count == 0)
        return update_cursor(ingest);
    sqlite3_stmt *statement = store_sqlite_use_statement(ingest->store, SQL_INGESTED);
    store_sqlite_bind(ingest->store, statement, 1, ingest->source);
    store_sqlite_bind(ingest->store, statement, 2, ingest->next_event - EVENT_FIRST(ingest->source));
    store_sqlite_bind_string(ingest->store, statement, 3, ingest->page->cursor);
    store_sqlite_bind(ingest->store, statement, 4, ingest->stored_count);
    store_sqlite_bind(ingest->store, statement, 5, ingest->duplicate_count);
    store_sqlite_bind(ingest->store, statement, 6, ingest->page->injected ? ingest->stored_count : 0);
    store_sqlite_bind(ingest->store, statement, 7, ingest->dead_count);
    bind_expected_cursor(ingest, statement, 8);
    return store_sqlite_run_statement(ingest->store, statement);
}

/* Runs the whole store transaction of a page: claims older ready events first, then stores the page's
 * events and claims those that still fit, then writes cursor and totals. Returns 0 or a negative code. The
 * producer runs it, and the keeper, without a claim, for `eventpipe inject`. */
static int ingest_page(struct ingest *ingest)
{
    struct store_sqlite *store = ingest->store;
    bool is_limit_reached = false;
    int code = store_sqlite_read_next_event_id(store, ingest->source, &ingest->next_event);
    ingest->low_water_mark = store_sqlite_get_low_water_mark(store, ingest->source);
    if (code == 0 && ingest->claim->limit > 0) {
        code = store_sqlite_claim_ready_events(store, ingest->claim, &ingest->low_water_mark,
                                               ingest->next_event, &is_limit_reached);
        ingest->claims_new_events = !is_limit_reached;
    }
    store_sqlite_begin_trace_row(store);
    for (size_t i = 0; code == 0 && i < ingest->page->count; i++)
        code = ingest_event(ingest, &ingest->page->events[i]);
    if (code == 0)
        code = insert_pending_states(ingest);
    if (code == 0 && ingest->next_event > EVENT_LAST(ingest->source))
        code = base_error_set(&store->base.error, EP_ESTORE,
                              "%s: a source has used all event numbers of this store; start with a new store",
                              store->path);
    if (ingest->claims_new_events) /* everything up to here is claimed */
        ingest->low_water_mark = ingest->next_event;
    if (code == 0)
        code = update_source_row(ingest);
    return code == 0 ? store_sqlite_write_trace_row(store) : code;
}

/* store_ingest_begin of the SQLite engine: stores a page of events with its cursor and claims up to
 * claim->limit events, in one transaction. store_claim_end commits it, after the producer has recorded the
 * claimed events in its tickets (in shared memory, one per event in flight). The keeper calls it for
 * `eventpipe inject`, with limit 0. */
int store_sqlite_ingest_begin(struct store *base, int64_t source, const struct store_page *page,
                              const struct store_claim *claim, struct store_ingested *out,
                              struct store_claimed *claimed)
{
    struct store_sqlite *store = store_sqlite_of(base);
    struct ingest ingest = {.store = store, .source = source, .page = page, .claim = claim};
    *out = (struct store_ingested){0};
    *claimed = (struct store_claimed){.next_due_ms = UINT64_MAX};
    int code = store_sqlite_check_claim_token(store, claim);
    if (code == 0)
        code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    code = ingest_page(&ingest);
    code = store_sqlite_leave_claim_open(store, code, source, ingest.low_water_mark, true);
    if (code != 0)
        return code;
    *out = (struct store_ingested){(size_t)ingest.stored_count, (size_t)ingest.duplicate_count};
    claimed->events = store->open_claim.events;
    claimed->count = store->open_claim.count;
    return 0;
}
