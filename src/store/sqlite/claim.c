/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: claims of ready events, by the producer of their source (see also ingest.c).
 *
 * Each handle remembers a low-water mark per source: no event below it can be claimed, so a claim does not
 * search the running events again. The mark may be too low, never too high. It moves up after the commit of
 * a transaction that saw everything below it, and down when this handle makes an older event ready or the
 * caller asks for a rescan.
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

/* Returns the low-water mark that this store handle remembers for a source, or NULL if it has none. Runs
 * in the producer, the keeper, and any other writer whose change makes an older event ready. */
static struct store_sqlite_low_water_mark *find_low_water_mark(struct store_sqlite *store, int64_t source)
{
    for (size_t i = 0; i < store->low_water_mark_count; i++)
        if (store->low_water_marks[i].source == source)
            return &store->low_water_marks[i];
    return NULL;
}

/* Returns the event from which a claim must search: no event of the source before it can be claimed. The
 * source's first event if the store handle remembers nothing. Mostly the producer runs it, for each claim. */
int64_t store_sqlite_get_low_water_mark(const struct store_sqlite *store, int64_t source)
{
    for (size_t i = 0; i < store->low_water_mark_count; i++)
        if (store->low_water_marks[i].source == source)
            return store->low_water_marks[i].event;
    return EVENT_FIRST(source);
}

/* Remembers in the store handle from which event on a source's next claim must search. If memory runs out,
 * the mark stays at the source's first event: slower, but still correct. Mostly the producer runs it. */
static void set_low_water_mark(struct store_sqlite *store, int64_t source, int64_t event)
{
    struct store_sqlite_low_water_mark *low_water_mark = find_low_water_mark(store, source);
    if (low_water_mark == NULL) {
        low_water_mark =
            realloc(store->low_water_marks, (store->low_water_mark_count + 1) * sizeof *low_water_mark);
        if (low_water_mark == NULL)
            return;
        store->low_water_marks = low_water_mark;
        low_water_mark += store->low_water_mark_count++;
        low_water_mark->source = source;
    }
    low_water_mark->event = event;
}

void store_sqlite_rescan_from(struct store_sqlite *store, int64_t source, int64_t event)
{
    if (event < store_sqlite_get_low_water_mark(store, source))
        set_low_water_mark(store, source, event);
}

void store_sqlite_rescan(struct store *store, int64_t source)
{
    set_low_water_mark(store_sqlite_of(store), source, EVENT_FIRST(source));
}

/* Refuses a claim whose token is not of this start of the daemon: its locks would be void, and two workers
 * could run one event. The producer runs it before each claim in the store. */
int store_sqlite_claim_check_token(struct store_sqlite *store, const struct store_claim *claim)
{
    if (claim->limit == 0)
        return 0;
    if ((int64_t)claim->token >= store->first_valid_token && (int64_t)claim->token > 0 &&
        (claim->token >> 40) == store->start_number)
        return 0;
    return base_error_set(
        &store->store.error, EP_EINVAL,
        "%s: a claim is not of the present start of the daemon (an error of eventpipe); restart the daemon",
        store->path);
}

/* Reads the id that the next event of a source will get in the store. The producer calls it for each page
 * and claim, the keeper for `eventpipe inject`, the command line for an import; a list that reads around
 * damage does too. */
int store_sqlite_read_next_event_id(struct store_sqlite *store, int64_t source, int64_t *next)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_SOURCE_NEXT);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step_statement(store, statement);
    if (code < 0)
        return code;
    if (code == 0)
        return base_error_set(
            &store->store.error, EP_ENOENT,
            "%s: a source is not in this store (was the file replaced?); restart the daemon", store->path);
    *next = EVENT_FIRST(source) + sqlite3_column_int64(statement, 0);
    sqlite3_reset(statement);
    return 0;
}

/* The producer's claim has found one more event: notes it with the stages that it has done, for the caller,
 * which hands it to the next stage. */
int store_sqlite_claim_add_event(struct store_sqlite *store, int64_t event, const char *done)
{
    struct store_sqlite_claiming *claiming = &store->claiming;
    if (claiming->count == claiming->room) {
        size_t room = claiming->room == 0 ? 64 : 2 * claiming->room;
        struct store_claimed_event *events = realloc(claiming->events, room * sizeof *events);
        if (events == NULL)
            return store_sqlite_fail(store, SQLITE_NOMEM);
        claiming->events = events;
        claiming->room = room;
    }
    done = *done == '\0' ? "" : strdup(done);
    if (done == NULL)
        return store_sqlite_fail(store, SQLITE_NOMEM);
    claiming->events[claiming->count++] = (struct store_claimed_event){event, done};
    return 0;
}

/* Forgets the events of the claim under way: after its end, after a failure and when the handle closes. */
void store_sqlite_claim_forget_events(struct store_sqlite *store)
{
    struct store_sqlite_claiming *claiming = &store->claiming;
    for (size_t i = 0; i < claiming->count; i++)
        if (*claiming->events[i].done != '\0')
            free((char *)claiming->events[i].done);
    claiming->count = 0;
}

/* The producer runs this in the store's transactions of a page and of a claim. Claims the ready events in
 * [*from, to), oldest first, up to the claim's limit. *from moves past the events seen. *more: ready
 * events are left. */
int store_sqlite_claim_ready_events(struct store_sqlite *store, const struct store_claim *claim,
                                    int64_t *from, int64_t to, bool *more)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_CLAIM_SCAN);
    store_sqlite_bind(store, statement, 1, *from);
    store_sqlite_bind(store, statement, 2, to);
    store_sqlite_bind(store, statement, 3, store->first_valid_token);
    store_sqlite_bind(store, statement, 4, store_sqlite_signed((uint64_t)claim->limit + 1));
    const struct store_sqlite_claiming *claiming = &store->claiming;
    int code;
    *more = false;
    while ((code = store_sqlite_step_statement(store, statement)) == 1) {
        int64_t event = sqlite3_column_int64(statement, 0);
        *more = claiming->count == claim->limit;
        if (!*more)
            code =
                store_sqlite_claim_add_event(store, event, (const char *)sqlite3_column_text(statement, 1));
        if (*more || code < 0) {
            *from = event;
            sqlite3_reset(statement);
            break;
        }
    }
    if (code < 0)
        return code;
    if (!*more)
        *from = to;
    if (claiming->count == 0)
        return 0;
    statement = store_sqlite_use_statement(store, SQL_CLAIM_TAKE);
    store_sqlite_bind(store, statement, 1, (int64_t)claim->token);
    store_sqlite_bind(store, statement, 2, claiming->events[0].event);
    store_sqlite_bind(store, statement, 3, claiming->events[claiming->count - 1].event);
    store_sqlite_bind(store, statement, 4, store->first_valid_token);
    return store_sqlite_run_statement(store, statement);
}

/* Reads when the earliest delayed event of a source is due for its retry; UINT64_MAX if none is delayed.
 * The producer runs it in each claim, so that it knows how long it may sleep. */
static int next_due(struct store_sqlite *store, int64_t source, uint64_t *due_ms)
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

/* Finds out whether a claim would find an event. It only reads, because mostly there is none and a write
 * transaction would be wasted. The producer runs it at the start of each claim in the store. */
static int find_claimable(struct store_sqlite *store, int64_t source, uint64_t now_ms, bool *found,
                          uint64_t *due_ms)
{
    int64_t next = 0, from = store_sqlite_get_low_water_mark(store, source);
    int code = store_sqlite_begin_read(store);
    if (code != 0)
        return code;
    code = store_sqlite_read_next_event_id(store, source, &next);
    if (code == 0)
        code = next_due(store, source, due_ms);
    *found = code == 0 && *due_ms <= now_ms;
    if (code == 0 && !*found) {
        sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_CLAIM_SCAN);
        store_sqlite_bind(store, statement, 1, from);
        store_sqlite_bind(store, statement, 2, next);
        store_sqlite_bind(store, statement, 3, store->first_valid_token);
        store_sqlite_bind(store, statement, 4, 1);
        code = store_sqlite_step_statement(store, statement);
        *found = code == 1;
        if (code == 1) {
            next = sqlite3_column_int64(statement, 0);
            sqlite3_reset(statement);
            code = 0;
        }
    }
    bool scanned = code == 0 && *due_ms > now_ms;
    code = store_sqlite_end_transaction(store, code);
    if (code == 0 && scanned)
        set_low_water_mark(store, source, next);
    return code;
}

/* Computes how many delayed events that are due one claim may make ready: half of it while others are
 * ready, so that retries never starve new events. Claims of one event take turns. The producer runs it. */
static int retry_share(struct store_sqlite *store, const struct store_claim *claim, int64_t from, int64_t to,
                       size_t *share)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_CLAIM_SCAN);
    store_sqlite_bind(store, statement, 1, from);
    store_sqlite_bind(store, statement, 2, to);
    store_sqlite_bind(store, statement, 3, store->first_valid_token);
    store_sqlite_bind(store, statement, 4, 1);
    int code = store_sqlite_step_statement(store, statement);
    *share = claim->limit;
    if (code != 1)
        return code;
    sqlite3_reset(statement);
    *share = (claim->limit + !store->others_turn) / 2;
    store->others_turn = !store->others_turn;
    return 0;
}

/* Makes up to `limit` delayed events that are due ready again. They keep their numbers, so they are
 * claimed in order of arrival. The producer runs it inside a claim's transaction in the store. */
static int resume_due(struct store_sqlite *store, int64_t source, uint64_t now_ms, size_t limit,
                      int64_t *low_water_mark)
{
    if (limit > STORE_SQLITE_WAKE_LIMIT)
        limit = STORE_SQLITE_WAKE_LIMIT;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, SQL_DUE_SCAN);
    store_sqlite_bind(store, statement, 1, source);
    store_sqlite_bind(store, statement, 2, store_sqlite_signed(now_ms));
    store_sqlite_bind(store, statement, 3, (int64_t)limit);
    size_t count = 0;
    int code;
    while ((code = store_sqlite_step_statement(store, statement)) == 1)
        store->woken[count++] = sqlite3_column_int64(statement, 0);
    for (size_t i = 0; code == 0 && i < count; i++) {
        if (store->woken[i] < *low_water_mark)
            *low_water_mark = store->woken[i];
        code = store_sqlite_resume_event(store, store->woken[i], false, false);
    }
    if (code != 0 || count == 0)
        return code;
    return store_sqlite_add_to_totals(store, source, 0,
                                      &(struct store_sqlite_tally){.delayed = -(int64_t)count});
}

/* Ends the first step of the producer's claim: leaves the transaction open for store_sqlite_claim_end, or
 * rolls it back if `code` is a failure. */
int store_sqlite_claim_leave_open(struct store_sqlite *store, int code, int64_t source,
                                  int64_t low_water_mark, bool durable)
{
    struct store_sqlite_claiming *claiming = &store->claiming;
    if (code != 0) {
        store_sqlite_claim_forget_events(store);
        return store_sqlite_end_transaction(store, code);
    }
    claiming->open = true;
    claiming->durable = durable;
    claiming->source = source;
    claiming->low_water_mark = low_water_mark;
    return 0;
}

/* store_claim_end of the SQLite engine: commits a claim. The producer calls it when it has recorded each
 * claimed event in a ticket, so a producer that is killed leaves no lock without a ticket. */
int store_sqlite_claim_end(struct store *base)
{
    struct store_sqlite *store = store_sqlite_of(base);
    struct store_sqlite_claiming *claiming = &store->claiming;
    if (!claiming->open)
        return 0; /* the claim found nothing, so it wrote nothing */
    claiming->open = false;
    store_sqlite_claim_forget_events(store);
    int code = claiming->durable ? store_sqlite_end_transaction(store, 0)
                                 : store_sqlite_end_transaction_unsynced(store, 0);
    if (code == 0)
        set_low_water_mark(store, claiming->source, claiming->low_water_mark);
    return code;
}

/* store_claim_begin of the SQLite engine: locks ready events of a source, and delayed ones that are due, for
 * the producer. The producer calls it when the first stage has room, or when a retry is due. */
int store_sqlite_claim_begin(struct store *base, int64_t source, uint64_t now_ms,
                             const struct store_claim *claim, struct store_claimed *out)
{
    struct store_sqlite *store = store_sqlite_of(base);
    bool found = false, more = false;
    uint64_t due_ms = UINT64_MAX;
    *out = (struct store_claimed){.next_due_ms = UINT64_MAX};
    int code = store_sqlite_claim_check_token(store, claim);
    if (code == 0)
        code = find_claimable(store, source, now_ms, &found, &due_ms);
    if (code != 0 || !found || claim->limit == 0) {
        if (code == 0)
            *out = (struct store_claimed){.more = found, .next_due_ms = due_ms};
        return code;
    }
    code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    int64_t next = 0, low_water_mark = store_sqlite_get_low_water_mark(store, source);
    size_t share = 0;
    code = store_sqlite_read_next_event_id(store, source, &next);
    if (code == 0 && due_ms <= now_ms)
        code = retry_share(store, claim, low_water_mark, next, &share);
    if (code == 0 && share > 0)
        code = resume_due(store, source, now_ms, share, &low_water_mark);
    if (code == 0)
        code = store_sqlite_claim_ready_events(store, claim, &low_water_mark, next, &more);
    if (code == 0)
        code = next_due(store, source, &due_ms);
    code = store_sqlite_claim_leave_open(store, code, source, low_water_mark, false);
    if (code == 0)
        *out = (struct store_claimed){store->claiming.events, store->claiming.count, more || due_ms <= now_ms,
                                      due_ms};
    return code;
}
