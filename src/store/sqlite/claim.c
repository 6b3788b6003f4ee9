/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: claims of ready events, by the producer of their source (see also ingest.c).
 *
 * Invariants
 *  1. Claims go in order of arrival.
 *  2. The transaction stays open from begin to end. The caller records its events in between, so no lock is
 *     ever stored without its owner's record of it.
 *  3. A claim that finds nothing writes nothing. A claim need not survive a power failure: locks hold for
 *     one start only, and what was due is due again.
 *  4. Retries get at most half of a claim while other events are ready, so retries starve nothing, however
 *     long they take.
 */
#include "src/store/sqlite/sqlite.h"

#include <stdlib.h>
#include <string.h>

/* Refuses a claim whose token is of another start of the daemon: EP_EINVAL, else 0. A token is the number
 * of a claim, with which the store locks its events; one of another start is no lock, and two workers could
 * get the same event. Each claim of a producer in the SQLite store starts with it. */
int store_sqlite_check_claim_token(struct store_sqlite *store, const struct store_claim *claim)
{
    if (claim->limit == 0)
        return 0;
    if ((int64_t)claim->token >= store->lowest_valid_token && (int64_t)claim->token > 0 &&
        (claim->token >> 40) == store->start_number)
        return 0;
    return base_error_set(&store->base.error, EP_EINVAL,
                          "%s: refused a claim with a token of another start of the daemon (a bug in "
                          "eventpipe); restart the daemon",
                          store->path);
}

/* Sets *next_id to the id that the next event of a source will get in the store. Returns 0, or EP_ENOENT if
 * the store lacks the source. The producer calls it for each page and claim, the keeper for `eventpipe
 * inject`, `eventpipe import` for each source, and a list that reads around damage. */
int store_sqlite_read_next_event_id(struct store_sqlite *store, int64_t source, int64_t *next_id)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_SOURCE_NEXT);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step_statement(store, statement);
    if (code < 0)
        return code;
    if (code == 0)
        return base_error_set(
            &store->base.error, EP_ENOENT,
            "%s: the store does not contain this source (was the file replaced?); restart the daemon",
            store->path);
    *next_id = EVENT_FIRST(source) + sqlite3_column_int64(statement, 0);
    sqlite3_reset(statement);
    return 0;
}

/* Adds an event of the store to the events of the open claim, with a copy of its list of done stages, from
 * which the producer learns the stage that gets it. Returns 0 or EP_ENOMEM. The producer runs it for each
 * event that its claim finds. */
int store_sqlite_add_event_to_claim(struct store_sqlite *store, int64_t event, const char *done_stages)
{
    struct store_sqlite_open_claim *open_claim = &store->open_claim;
    if (open_claim->count == open_claim->capacity) {
        size_t capacity = open_claim->capacity == 0 ? 64 : 2 * open_claim->capacity;
        struct store_claimed_event *events = realloc(open_claim->events, capacity * sizeof *events);
        if (events == NULL)
            return store_sqlite_fail(store, SQLITE_NOMEM);
        open_claim->events = events;
        open_claim->capacity = capacity;
    }
    done_stages = *done_stages == '\0' ? "" : strdup(done_stages);
    if (done_stages == NULL)
        return store_sqlite_fail(store, SQLITE_NOMEM);
    open_claim->events[open_claim->count++] = (struct store_claimed_event){event, done_stages};
    return 0;
}

/* Empties the store handle's list of claimed events and frees their texts. The producer runs it at the end
 * of each claim and after a failed one; closing the handle does, too. */
void store_sqlite_forget_claimed_events(struct store_sqlite *store)
{
    struct store_sqlite_open_claim *open_claim = &store->open_claim;
    for (size_t i = 0; i < open_claim->count; i++)
        if (*open_claim->events[i].done != '\0')
            free((char *)open_claim->events[i].done);
    open_claim->count = 0;
}

/* Claims ready events with ids in [*search_start, search_end), oldest first, up to claim->limit in all:
 * writes the claim's token into them. A token below lowest_valid_token, of an earlier daemon start, is no
 * lock. *search_start becomes the first event left, else search_end; *is_limit_reached: one is left. The
 * producer runs it in the store transaction of a claim or page. */
int store_sqlite_claim_ready_events(struct store_sqlite *store, const struct store_claim *claim,
                                    int64_t *search_start, int64_t search_end, bool *is_limit_reached)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_CLAIM_SCAN);
    store_sqlite_bind(store, statement, 1, *search_start);
    store_sqlite_bind(store, statement, 2, search_end);
    store_sqlite_bind(store, statement, 3, store->lowest_valid_token);
    /* One more than the limit shows whether events are left. */
    store_sqlite_bind(store, statement, 4, store_sqlite_signed((uint64_t)claim->limit + 1));
    const struct store_sqlite_open_claim *open_claim = &store->open_claim;
    int code;
    *is_limit_reached = false;
    while ((code = store_sqlite_step_statement(store, statement)) == 1) {
        int64_t event = sqlite3_column_int64(statement, 0);
        *is_limit_reached = open_claim->count == claim->limit;
        if (!*is_limit_reached)
            code = store_sqlite_add_event_to_claim(store, event,
                                                   (const char *)sqlite3_column_text(statement, 1));
        if (*is_limit_reached || code < 0) {
            *search_start = event;
            sqlite3_reset(statement);
            break;
        }
    }
    if (code < 0)
        return code;
    if (!*is_limit_reached)
        *search_start = search_end;
    if (open_claim->count == 0)
        return 0;
    statement = store_sqlite_use_statement(store, SQL_CLAIM_TAKE);
    store_sqlite_bind(store, statement, 1, (int64_t)claim->token);
    store_sqlite_bind(store, statement, 2, open_claim->events[0].event);
    store_sqlite_bind(store, statement, 3, open_claim->events[open_claim->count - 1].event);
    store_sqlite_bind(store, statement, 4, store->lowest_valid_token);
    return store_sqlite_run_statement(store, statement);
}

/* Sets *due_ms to the wall-clock time at which the earliest delayed event of a source in the store is due
 * for its retry, or to UINT64_MAX if none is delayed. Returns 0 or a negative code. The producer runs it in
 * each claim, to know how long it may sleep. */
static int read_earliest_retry_time(struct store_sqlite *store, int64_t source, uint64_t *due_ms)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_NEXT_DUE);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step_statement(store, statement);
    *due_ms = UINT64_MAX;
    if (code == 1) {
        *due_ms = (uint64_t)sqlite3_column_int64(statement, 0);
        sqlite3_reset(statement);
        code = 0;
    }
    return code;
}

/* Sets *is_found to whether the store has an event of the source to claim (ready, or delayed and due), and
 * *due_ms as read_earliest_retry_time does. It only reads: usually there is none, and a write transaction
 * would block other writers for nothing. Returns 0 or a negative code. Each claim of a producer starts with
 * it. */
static int find_claimable_event(struct store_sqlite *store, int64_t source, uint64_t now_ms, bool *is_found,
                                uint64_t *due_ms)
{
    int64_t next_event = 0, low_water_mark = store_sqlite_get_low_water_mark(store, source);
    int code = store_sqlite_begin_read(store);
    if (code != 0)
        return code;
    code = store_sqlite_read_next_event_id(store, source, &next_event);
    if (code == 0)
        code = read_earliest_retry_time(store, source, due_ms);
    *is_found = code == 0 && *due_ms <= now_ms;
    if (code == 0 && !*is_found) {
        sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_CLAIM_SCAN);
        store_sqlite_bind(store, statement, 1, low_water_mark);
        store_sqlite_bind(store, statement, 2, next_event);
        store_sqlite_bind(store, statement, 3, store->lowest_valid_token);
        store_sqlite_bind(store, statement, 4, 1);
        code = store_sqlite_step_statement(store, statement);
        *is_found = code == 1;
        if (code == 1) {
            next_event = sqlite3_column_int64(statement, 0);
            sqlite3_reset(statement);
            code = 0;
        }
    }
    bool has_scanned = code == 0 && *due_ms > now_ms;
    code = store_sqlite_end_transaction(store, code);
    if (code == 0 && has_scanned)
        store_sqlite_set_low_water_mark(store, source, next_event);
    return code;
}

/* Sets *retry_limit to how many due retries this claim may include: half of its limit while other events of
 * the store are ready from search_start on, so that retries never starve new events. Claims of a single
 * event alternate. Returns 0 or a negative code. The producer runs it inside a claim's transaction. */
static int compute_retry_limit(struct store_sqlite *store, const struct store_claim *claim,
                               int64_t search_start, int64_t search_end, size_t *retry_limit)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_CLAIM_SCAN);
    store_sqlite_bind(store, statement, 1, search_start);
    store_sqlite_bind(store, statement, 2, search_end);
    store_sqlite_bind(store, statement, 3, store->lowest_valid_token);
    store_sqlite_bind(store, statement, 4, 1);
    int code = store_sqlite_step_statement(store, statement);
    *retry_limit = claim->limit;
    if (code != 1)
        return code;
    sqlite3_reset(statement);
    *retry_limit = (claim->limit + !store->is_retry_turn_over) / 2;
    store->is_retry_turn_over = !store->is_retry_turn_over;
    return 0;
}

/* Makes up to `limit` delayed events of the store ready whose retry is due, and lowers *low_water_mark,
 * where the claim starts its search, to the oldest of them. Returns 0 or a negative code. The producer runs
 * it inside a claim's transaction. */
static int resume_due_events(struct store_sqlite *store, int64_t source, uint64_t now_ms, size_t limit,
                             int64_t *low_water_mark)
{
    if (limit > STORE_SQLITE_RESUME_MAX)
        limit = STORE_SQLITE_RESUME_MAX;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_DUE_SCAN);
    store_sqlite_bind(store, statement, 1, source);
    store_sqlite_bind(store, statement, 2, store_sqlite_signed(now_ms));
    store_sqlite_bind(store, statement, 3, (int64_t)limit);
    size_t due_count = 0;
    int code;
    while ((code = store_sqlite_step_statement(store, statement)) == 1)
        store->due_events[due_count++] = sqlite3_column_int64(statement, 0);
    for (size_t i = 0; code == 0 && i < due_count; i++) {
        if (store->due_events[i] < *low_water_mark)
            *low_water_mark = store->due_events[i];
        code = store_sqlite_resume_event(store, store->due_events[i], false, false);
    }
    if (code != 0 || due_count == 0)
        return code;
    return store_sqlite_add_to_totals(store, source, 0,
                                      &(struct store_sqlite_tally){.delayed = -(int64_t)due_count});
}

/* Ends the first of the two steps of a claim. If code is 0, the store's transaction stays open, so that the
 * producer can record the claimed events in shared memory before store_claim_end commits; otherwise it is
 * rolled back. Returns code. */
int store_sqlite_leave_claim_open(struct store_sqlite *store, int code, int64_t source,
                                  int64_t low_water_mark, bool durable)
{
    struct store_sqlite_open_claim *open_claim = &store->open_claim;
    if (code != 0) {
        store_sqlite_forget_claimed_events(store);
        return store_sqlite_end_transaction(store, code);
    }
    open_claim->is_open = true;
    open_claim->is_durable = durable;
    open_claim->source = source;
    open_claim->low_water_mark = low_water_mark;
    return 0;
}

/* store_claim_end of the SQLite engine: commits a claim. Returns 0 or a negative code. The producer calls
 * it after it has recorded each claimed event in a ticket (which says in shared memory what process has the
 * event), so that even a producer that is killed leaves no lock in the store without a ticket. */
int store_sqlite_claim_end(struct store *base)
{
    struct store_sqlite *store = store_sqlite_of(base);
    struct store_sqlite_open_claim *open_claim = &store->open_claim;
    if (!open_claim->is_open)
        return 0; /* the claim found nothing, so it wrote nothing */
    open_claim->is_open = false;
    store_sqlite_forget_claimed_events(store);
    int code = open_claim->is_durable ? store_sqlite_end_transaction(store, 0)
                                      : store_sqlite_end_transaction_unsynced(store, 0);
    if (code == 0)
        store_sqlite_set_low_water_mark(store, open_claim->source, open_claim->low_water_mark);
    return code;
}

/* store_claim_begin of the SQLite engine: claims (locks) up to claim->limit ready events of a source, among
 * them delayed ones that are due, and leaves the transaction open for store_claim_end. Returns 0 or a
 * negative code. The producer calls it when the first stage has room, or when a retry is due. */
int store_sqlite_claim_begin(struct store *base, int64_t source, uint64_t now_ms,
                             const struct store_claim *claim, struct store_claimed *out)
{
    struct store_sqlite *store = store_sqlite_of(base);
    bool has_claimable = false, is_limit_reached = false;
    uint64_t due_ms = UINT64_MAX;
    *out = (struct store_claimed){.next_due_ms = UINT64_MAX};
    int code = store_sqlite_check_claim_token(store, claim);
    if (code == 0)
        code = find_claimable_event(store, source, now_ms, &has_claimable, &due_ms);
    if (code != 0 || !has_claimable || claim->limit == 0) {
        if (code == 0)
            *out = (struct store_claimed){.more = has_claimable, .next_due_ms = due_ms};
        return code;
    }
    code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    int64_t next_event = 0, low_water_mark = store_sqlite_get_low_water_mark(store, source);
    size_t retry_limit = 0;
    code = store_sqlite_read_next_event_id(store, source, &next_event);
    if (code == 0 && due_ms <= now_ms)
        code = compute_retry_limit(store, claim, low_water_mark, next_event, &retry_limit);
    if (code == 0 && retry_limit > 0)
        code = resume_due_events(store, source, now_ms, retry_limit, &low_water_mark);
    if (code == 0)
        code = store_sqlite_claim_ready_events(store, claim, &low_water_mark, next_event, &is_limit_reached);
    if (code == 0)
        code = read_earliest_retry_time(store, source, &due_ms);
    code = store_sqlite_leave_claim_open(store, code, source, low_water_mark, false);
    if (code == 0)
        *out = (struct store_claimed){store->open_claim.events, store->open_claim.count,
                                      is_limit_reached || due_ms <= now_ms, due_ms};
    return code;
}
