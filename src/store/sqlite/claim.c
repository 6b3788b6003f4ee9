/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: ingest and claim, the transactions of a source's producer.
 *
 * Each handle remembers a low-water mark per source: no event below it can be claimed, so a claim does not
 * search the running events again. The mark may be too low, never too high. It moves up after the commit of
 * a transaction that saw everything below it, and down when this handle makes an older event ready or the
 * caller asks for a rescan.
 *
 * Invariants
 *  1. Claims go in order of arrival: a page's own events only after all older ready events.
 *  2. on_claim is called before the commit, so no lock is ever stored without its owner's record of it.
 *  3. A claim that finds nothing writes nothing. A claim need not survive a power failure: locks hold for
 *     one start only, and what was due is due again.
 *  4. Retries get at most half of a claim while other events are ready, so retries starve nothing, however
 *     long they take.
 */
#include "src/store/sqlite/sqlite.h"

#include <stdlib.h>
#include <string.h>

static struct store_sqlite_low_water_mark *find_low_water_mark(struct store_sqlite *store, int64_t source)
{
    for (size_t i = 0; i < store->low_water_mark_count; i++)
        if (store->low_water_marks[i].source == source)
            return &store->low_water_marks[i];
    return NULL;
}

static int64_t low_water_mark_of(const struct store_sqlite *store, int64_t source)
{
    for (size_t i = 0; i < store->low_water_mark_count; i++)
        if (store->low_water_marks[i].source == source)
            return store->low_water_marks[i].event;
    return EVENT_FIRST(source);
}

/* If memory runs out, the low-water mark stays at the source's first event: slower, but still correct. */
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
    if (event < low_water_mark_of(store, source))
        set_low_water_mark(store, source, event);
}

void store_sqlite_rescan(struct store *store, int64_t source)
{
    set_low_water_mark(store_sqlite_of(store), source, EVENT_FIRST(source));
}

/* Refuses a token that is not of this start: it would be no lock. */
static int check_claim(struct store_sqlite *store, const struct store_claim *claim)
{
    if (claim == NULL || claim->limit == 0)
        return 0;
    if ((int64_t)claim->token >= store->first_valid_token && (int64_t)claim->token > 0 &&
        (claim->token >> 40) == store->start_number)
        return 0;
    return base_error_set(&store->store.error, EP_EINVAL, "%s: token %llx is not of start %llu", store->path,
                          (unsigned long long)claim->token, (unsigned long long)store->start_number);
}

int store_sqlite_next_event(struct store_sqlite *store, int64_t source, int64_t *next)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_SOURCE_NEXT);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step(store, statement);
    if (code < 0)
        return code;
    if (code == 0)
        return base_error_set(&store->store.error, EP_ENOENT, "%s: no source has the number %lld",
                              store->path, (long long)source);
    *next = EVENT_FIRST(source) + sqlite3_column_int64(statement, 0);
    sqlite3_reset(statement);
    return 0;
}

/*
 * Claims the ready events in [*from, to), oldest first, up to the claim's limit. *from moves past the events
 * seen. *more: ready events are left.
 */
static int claim_ready(struct store_sqlite *store, const struct store_claim *claim, int64_t *from, int64_t to,
                       size_t *claimed, bool *more)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_CLAIM_SCAN);
    store_sqlite_bind(store, statement, 1, *from);
    store_sqlite_bind(store, statement, 2, to);
    store_sqlite_bind(store, statement, 3, store->first_valid_token);
    store_sqlite_bind(store, statement, 4, store_sqlite_signed((uint64_t)claim->limit + 1));
    int64_t first = 0, last = 0;
    int code;
    *claimed = 0;
    *more = false;
    while ((code = store_sqlite_step(store, statement)) == 1) {
        int64_t event = sqlite3_column_int64(statement, 0);
        if (*claimed == claim->limit ||
            !claim->on_claim(event, (const char *)sqlite3_column_text(statement, 1), claim->user)) {
            *more = true;
            *from = event;
            sqlite3_reset(statement);
            break;
        }
        if (++*claimed == 1)
            first = event;
        last = event;
    }
    if (code < 0)
        return code;
    if (!*more)
        *from = to;
    if (*claimed == 0)
        return 0;
    statement = store_sqlite_use(store, SQL_CLAIM_TAKE);
    store_sqlite_bind(store, statement, 1, (int64_t)claim->token);
    store_sqlite_bind(store, statement, 2, first);
    store_sqlite_bind(store, statement, 3, last);
    store_sqlite_bind(store, statement, 4, store->first_valid_token);
    return store_sqlite_run(store, statement);
}

/* ---- ingest ---- */

struct ingest {
    struct store_sqlite *store;
    int64_t source, next;
    const struct store_page *page;
    const struct store_claim *claim;
    size_t claimed;         /* of older events and of this page */
    bool claiming;          /* the page's own events may be claimed too */
    int64_t low_water_mark; /* of the handle, after the commit */
    int64_t stored, duplicates, dead;
    int64_t pending_first; /* first of the new events without a row in progress yet, 0 = none */
    int64_t pending_token; /* their token, 0 = not claimed */
};

int store_sqlite_insert_event(struct store_sqlite *store, int64_t source, int64_t id, uint64_t now_ms,
                              const struct store_event *event, bool *stored)
{
    if (event->uid == NULL || (event->data == NULL && event->data_bytes != 0))
        return base_error_set(&store->store.error, EP_EINVAL, "%s: an event without %s", store->path,
                              event->uid == NULL ? "uid" : "data");
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_INSERT_EVENT);
    store_sqlite_bind(store, statement, 1, id);
    store_sqlite_bind(store, statement, 2, source);
    store_sqlite_bind_string(store, statement, 3, event->uid);
    store_sqlite_bind_string(store, statement, 4, event->address);
    store_sqlite_bind_string(store, statement, 5, event->type);
    store_sqlite_bind(store, statement, 6, store_sqlite_signed(now_ms));
    store_sqlite_bind_text(store, statement, 7, event->data != NULL ? event->data : "", event->data_bytes);
    int code = store_sqlite_run(store, statement);
    *stored = code == 0 && sqlite3_changes(store->db) == 1;
    return code;
}

/* Gives the pending events their rows in progress, with one statement. */
static int flush_pending(struct ingest *ingest)
{
    if (ingest->pending_first == 0)
        return 0;
    sqlite3_stmt *statement = store_sqlite_use(ingest->store, SQL_INSERT_PROGRESS);
    store_sqlite_bind(ingest->store, statement, 1, ingest->pending_first);
    store_sqlite_bind(ingest->store, statement, 2, ingest->next - 1);
    store_sqlite_bind(ingest->store, statement, 3, ingest->pending_token);
    ingest->pending_first = 0;
    return store_sqlite_run(ingest->store, statement);
}

/* Sets a new event aside as dead. */
static int store_dead(struct ingest *ingest, int64_t id, const struct store_event *event)
{
    sqlite3_stmt *statement = store_sqlite_use(ingest->store, SQL_INSERT_DEAD);
    store_sqlite_bind(ingest->store, statement, 1, id);
    store_sqlite_bind(ingest->store, statement, 2, ingest->source);
    store_sqlite_bind(ingest->store, statement, 3, event->dead);
    store_sqlite_bind_string(ingest->store, statement, 4, event->error != NULL ? event->error : "");
    ingest->dead++;
    return store_sqlite_run(ingest->store, statement);
}

/* Claims the event just stored if the claim has room left, and adds it to the pending events. */
static int store_ready(struct ingest *ingest, int64_t id)
{
    if (ingest->claiming &&
        (ingest->claimed == ingest->claim->limit || !ingest->claim->on_claim(id, "", ingest->claim->user))) {
        ingest->claiming = false;
        ingest->low_water_mark = id;
    }
    ingest->claimed += ingest->claiming;
    int64_t token = ingest->claiming ? (int64_t)ingest->claim->token : 0;
    int code = token != ingest->pending_token ? flush_pending(ingest) : 0;
    if (ingest->pending_first == 0)
        ingest->pending_first = id;
    ingest->pending_token = token;
    return code;
}

/* Stores one event of the page; a duplicate is only counted. */
static int ingest_one(struct ingest *ingest, const struct store_event *event)
{
    struct store_sqlite *store = ingest->store;
    bool stored = false;
    int code =
        store_sqlite_insert_event(store, ingest->source, ingest->next, ingest->page->now_ms, event, &stored);
    if (code != 0 || !stored) {
        ingest->duplicates += code == 0;
        return code;
    }
    int64_t id = ingest->next;
    struct store_trace_step step = {
        .kind = ingest->page->injected ? STORE_TRACE_STEP_INJECTED : STORE_TRACE_STEP_FETCHED,
        .reason = event->dead,
        .event = id,
        .pid = store->pid,
        .uid_hash = store->trace ? store_trace_uid_hash(event->uid) : 0,
        .error = event->dead != STORE_REASON_NONE ? event->error : NULL,
        .error_bytes = event->error != NULL ? strlen(event->error) : 0,
    };
    store_sqlite_trace_add(store, &step);
    if (event->dead == STORE_REASON_NONE) {
        code = store_ready(ingest, id);
    } else {
        code = flush_pending(ingest);
        if (code == 0)
            code = store_dead(ingest, id, event);
    }
    ingest->next++;
    ingest->stored++;
    return code;
}

/* Binds the cursor that the page follows: the statement compares it with the stored one. */
static void bind_after(struct ingest *ingest, sqlite3_stmt *statement, int at)
{
    store_sqlite_bind(ingest->store, statement, at, ingest->page->follows);
    store_sqlite_bind_string(ingest->store, statement, at + 1,
                             ingest->page->after != NULL ? ingest->page->after : "");
}

/* Stores the cursor of a page without events if it has changed, so that an idle backend causes no writes. */
static int move_cursor(struct ingest *ingest)
{
    if (ingest->page->cursor == NULL)
        return 0;
    sqlite3_stmt *statement = store_sqlite_use(ingest->store, SQL_MOVE_CURSOR);
    store_sqlite_bind(ingest->store, statement, 1, ingest->source);
    store_sqlite_bind_string(ingest->store, statement, 2, ingest->page->cursor);
    bind_after(ingest, statement, 3);
    return store_sqlite_run(ingest->store, statement);
}

/* Writes the source's row: next number, cursor and totals. */
static int count_page(struct ingest *ingest)
{
    if (ingest->page->count == 0)
        return move_cursor(ingest);
    sqlite3_stmt *statement = store_sqlite_use(ingest->store, SQL_INGESTED);
    store_sqlite_bind(ingest->store, statement, 1, ingest->source);
    store_sqlite_bind(ingest->store, statement, 2, ingest->next - EVENT_FIRST(ingest->source));
    store_sqlite_bind_string(ingest->store, statement, 3, ingest->page->cursor);
    store_sqlite_bind(ingest->store, statement, 4, ingest->stored);
    store_sqlite_bind(ingest->store, statement, 5, ingest->duplicates);
    store_sqlite_bind(ingest->store, statement, 6, ingest->page->injected ? ingest->stored : 0);
    store_sqlite_bind(ingest->store, statement, 7, ingest->dead);
    bind_after(ingest, statement, 8);
    return store_sqlite_run(ingest->store, statement);
}

/* The whole ingest, inside its transaction. */
static int ingest_all(struct ingest *ingest)
{
    struct store_sqlite *store = ingest->store;
    bool more = false;
    int code = store_sqlite_next_event(store, ingest->source, &ingest->next);
    ingest->low_water_mark = low_water_mark_of(store, ingest->source);
    if (code == 0 && ingest->claim != NULL && ingest->claim->limit > 0) {
        code =
            claim_ready(store, ingest->claim, &ingest->low_water_mark, ingest->next, &ingest->claimed, &more);
        ingest->claiming = !more;
    }
    store_sqlite_trace_begin(store);
    for (size_t i = 0; code == 0 && i < ingest->page->count; i++)
        code = ingest_one(ingest, &ingest->page->events[i]);
    if (code == 0)
        code = flush_pending(ingest);
    if (code == 0 && ingest->next > EVENT_LAST(ingest->source))
        code = base_error_set(&store->store.error, EP_ESTORE, "%s: a source has used up its numbers",
                              store->path);
    if (ingest->claiming) /* everything up to here is claimed */
        ingest->low_water_mark = ingest->next;
    if (code == 0)
        code = count_page(ingest);
    return code == 0 ? store_sqlite_trace_write(store) : code;
}

int store_sqlite_ingest(struct store *base, int64_t source, const struct store_page *page,
                        const struct store_claim *claim, struct store_ingested *out)
{
    struct store_sqlite *store = store_sqlite_of(base);
    struct ingest ingest = {.store = store, .source = source, .page = page, .claim = claim};
    *out = (struct store_ingested){0};
    int code = check_claim(store, claim);
    if (code == 0)
        code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    code = store_sqlite_end(store, ingest_all(&ingest));
    if (code != 0)
        return code;
    set_low_water_mark(store, source, ingest.low_water_mark);
    *out = (struct store_ingested){(size_t)ingest.stored, (size_t)ingest.duplicates, ingest.claimed};
    return 0;
}

/* ---- claim ---- */

/* *due_ms: when the earliest delayed event is due, UINT64_MAX = none is delayed. */
static int next_due(struct store_sqlite *store, int64_t source, uint64_t *due_ms)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_NEXT_DUE);
    store_sqlite_bind(store, statement, 1, source);
    int code = store_sqlite_step(store, statement);
    *due_ms = UINT64_MAX;
    if (code == 1) {
        *due_ms = (uint64_t)sqlite3_column_int64(statement, 0);
        sqlite3_reset(statement);
        code = 0;
    }
    return code;
}

/* Whether a claim would find an event. A read transaction, because mostly there is none. */
static int find_claimable(struct store_sqlite *store, int64_t source, uint64_t now_ms, bool *found,
                          uint64_t *due_ms)
{
    int64_t next = 0, from = low_water_mark_of(store, source);
    int code = store_sqlite_begin_read(store);
    if (code != 0)
        return code;
    code = store_sqlite_next_event(store, source, &next);
    if (code == 0)
        code = next_due(store, source, due_ms);
    *found = code == 0 && *due_ms <= now_ms;
    if (code == 0 && !*found) {
        sqlite3_stmt *statement = store_sqlite_use(store, SQL_CLAIM_SCAN);
        store_sqlite_bind(store, statement, 1, from);
        store_sqlite_bind(store, statement, 2, next);
        store_sqlite_bind(store, statement, 3, store->first_valid_token);
        store_sqlite_bind(store, statement, 4, 1);
        code = store_sqlite_step(store, statement);
        *found = code == 1;
        if (code == 1) {
            next = sqlite3_column_int64(statement, 0);
            sqlite3_reset(statement);
            code = 0;
        }
    }
    bool scanned = code == 0 && *due_ms > now_ms;
    code = store_sqlite_end(store, code);
    if (code == 0 && scanned)
        set_low_water_mark(store, source, next);
    return code;
}

/* How many due events a claim may make ready: half of it while others are ready. Claims of one event take
 * turns. */
static int retry_share(struct store_sqlite *store, const struct store_claim *claim, int64_t from, int64_t to,
                       size_t *share)
{
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_CLAIM_SCAN);
    store_sqlite_bind(store, statement, 1, from);
    store_sqlite_bind(store, statement, 2, to);
    store_sqlite_bind(store, statement, 3, store->first_valid_token);
    store_sqlite_bind(store, statement, 4, 1);
    int code = store_sqlite_step(store, statement);
    *share = claim->limit;
    if (code != 1)
        return code;
    sqlite3_reset(statement);
    *share = (claim->limit + !store->others_turn) / 2;
    store->others_turn = !store->others_turn;
    return 0;
}

/* Makes up to `limit` due events ready again. They keep their numbers, so they are claimed in order of
 * arrival. */
static int resume_due(struct store_sqlite *store, int64_t source, uint64_t now_ms, size_t limit,
                      int64_t *low_water_mark)
{
    if (limit > STORE_SQLITE_WAKE_LIMIT)
        limit = STORE_SQLITE_WAKE_LIMIT;
    sqlite3_stmt *statement = store_sqlite_use(store, SQL_DUE_SCAN);
    store_sqlite_bind(store, statement, 1, source);
    store_sqlite_bind(store, statement, 2, store_sqlite_signed(now_ms));
    store_sqlite_bind(store, statement, 3, (int64_t)limit);
    size_t count = 0;
    int code;
    while ((code = store_sqlite_step(store, statement)) == 1)
        store->woken[count++] = sqlite3_column_int64(statement, 0);
    for (size_t i = 0; code == 0 && i < count; i++) {
        if (store->woken[i] < *low_water_mark)
            *low_water_mark = store->woken[i];
        code = store_sqlite_resume(store, store->woken[i], false, false);
    }
    if (code != 0 || count == 0)
        return code;
    return store_sqlite_tally(store, source, 0, &(struct store_sqlite_tally){.delayed = -(int64_t)count});
}

int store_sqlite_claim(struct store *base, int64_t source, uint64_t now_ms, const struct store_claim *claim,
                       struct store_claimed *out)
{
    struct store_sqlite *store = store_sqlite_of(base);
    bool found = false, more = false;
    size_t claimed = 0;
    uint64_t due_ms = UINT64_MAX;
    *out = (struct store_claimed){.next_due_ms = UINT64_MAX};
    int code = check_claim(store, claim);
    if (code == 0)
        code = find_claimable(store, source, now_ms, &found, &due_ms);
    if (code != 0 || !found || claim == NULL || claim->limit == 0) {
        if (code == 0)
            *out = (struct store_claimed){.more = found, .next_due_ms = due_ms};
        return code;
    }
    code = store_sqlite_begin_write(store);
    if (code != 0)
        return code;
    int64_t next = 0, low_water_mark = low_water_mark_of(store, source);
    size_t share = 0;
    code = store_sqlite_next_event(store, source, &next);
    if (code == 0 && due_ms <= now_ms)
        code = retry_share(store, claim, low_water_mark, next, &share);
    if (code == 0 && share > 0)
        code = resume_due(store, source, now_ms, share, &low_water_mark);
    if (code == 0)
        code = claim_ready(store, claim, &low_water_mark, next, &claimed, &more);
    if (code == 0)
        code = next_due(store, source, &due_ms);
    code = store_sqlite_end_lazily(store, code);
    if (code != 0)
        return code;
    set_low_water_mark(store, source, low_water_mark);
    *out = (struct store_claimed){claimed, more || due_ms <= now_ms, due_ms};
    return 0;
}
