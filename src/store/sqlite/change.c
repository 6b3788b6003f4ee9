/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: lists and changes events for an operator. Runs in the keeper, while workers run. The
 * command line lists with it while the daemon is down; it never changes events.
 *
 * Invariants
 *  1. A change first finds its events in read transactions. Then, in one write transaction per chunk, it
 *     reads each event again and changes it only if it is still selected and in a state that the command
 *     takes.
 *  2. An event is reported as changed only after the commit.
 *  3. A list reads around damage and fails at its end if it met any. A change fails at the first damage.
 */
#include "src/store/sqlite/select.h"

#define STATE(state) (1u << (state))

static const unsigned all_states =
    STATE(STORE_READY) | STATE(STORE_RUNNING) | STATE(STORE_DELAYED) | STATE(STORE_HELD) | STATE(STORE_DEAD);

/* Returns how many events the next chunk of a list or change may have, so that it stays within the
 * operator's limit; 0 = the limit is reached. The keeper runs it on its store for operators' commands, the
 * command line while the daemon is down. */
static size_t compute_chunk_limit(const struct store_select *select, uint64_t reported_count)
{
    if (select->limit == 0)
        return SCAN_CHUNK_MAX;
    uint64_t remaining_count = select->limit - reported_count;
    return remaining_count < SCAN_CHUNK_MAX ? (size_t)remaining_count : SCAN_CHUNK_MAX;
}

/* Passes the events of a chunk, read from the store, to on_item and counts them. Returns the first answer
 * of on_item that is not 0, else 0. A list stops at that answer (stop_at_once); a change reports its whole
 * chunk, because all of it is committed. The keeper runs it for operators' commands, the command line while
 * the daemon is down. */
static int report_chunk(const struct event_scan *scan, store_on_item *on_item, void *user,
                        uint64_t *reported_count, bool stop_at_once)
{
    int first_answer = 0;
    for (size_t i = 0; i < scan->item_count; i++) {
        ++*reported_count;
        int item_answer = on_item != NULL ? on_item(&scan->items[i].item, user) : 0;
        if (item_answer != 0 && first_answer == 0)
            first_answer = item_answer;
        if (first_answer != 0 && stop_at_once)
            break;
    }
    return first_answer;
}

/* Passes the selected events of the store that are in one of these states to on_item, and counts them.
 * Returns 0 or a negative code. Events on damaged pages of the file are left out, and then it returns
 * EP_ESTORE at the end. The keeper runs it for `eventpipe queue` and for dry runs of changes, the command
 * line while the daemon is down. */
static int list_events(struct store_sqlite *store, const struct store_select *select, unsigned states,
                       bool with_data, store_on_item *on_item, void *user, uint64_t *reported_count)
{
    struct event_scan scan;
    int code = store_sqlite_open_scan(store, select, states, with_data, true, &scan);
    if (code != 0)
        return code;
    while (code == 0 && !scan.is_at_end && compute_chunk_limit(select, *reported_count) > 0) {
        code = store_sqlite_read_scan_chunk(&scan, compute_chunk_limit(select, *reported_count));
        if (code == 0)
            code = report_chunk(&scan, on_item, user, reported_count, true);
    }
    if (code == 0 && scan.unreadable_count > 0)
        code =
            base_error_set(&store->base.error, EP_ESTORE,
                           "%s: the file is damaged: up to %llu events cannot be read (run eventpipe check)",
                           store->path, (unsigned long long)scan.unreadable_count);
    store_sqlite_close_scan(&scan);
    return code < 0 ? code : 0;
}

/* store_list of the SQLite engine: passes the events that an operator selects, in any state, to on_item.
 * Returns 0 or a negative code. The keeper calls it for `eventpipe queue`, or the command line while the
 * daemon is down. */
int store_sqlite_list(struct store *base, const struct store_select *select, bool with_data,
                      store_on_item *on_item, void *user)
{
    uint64_t reported_count = 0;
    return list_events(store_sqlite_of(base), select, all_states, with_data, on_item, user, &reported_count);
}

/* ---- change ---- */

/* Takes the event out of the count of its state in the source's totals. */
static void subtract_old_state(struct store_sqlite_tally *tally, enum store_state state)
{
    tally->delayed -= state == STORE_DELAYED;
    tally->held -= state == STORE_HELD;
    tally->dead -= state == STORE_DEAD;
}

/* Runs a statement whose only parameter is the event. */
static int run_for_event(struct store_sqlite *store, enum store_sqlite_statement statement_id, int64_t event)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, statement_id);
    store_sqlite_bind(store, statement, 1, event);
    return store_sqlite_run_statement(store, statement);
}

/* Holds one event in the store for `eventpipe hold`, so that no producer claims it: moves a ready event to
 * the suspended ones, or marks a delayed or dead one as held. Returns 0 or a negative code. The keeper runs
 * it inside a write transaction. */
static int hold_event(struct store_sqlite *store, const struct scan_item *item)
{
    if (item->item.state != STORE_READY)
        return run_for_event(store, SQL_HOLD_SUSPENDED, item->item.id);
    bool is_moved;
    struct store_sqlite_suspend suspend = {
        .event = item->item.id,
        .source = item->source->id,
        .token = item->token,
        .state = STORE_HELD,
        .keep_error = true,
    };
    return store_sqlite_suspend_event(store, &suspend, &is_moved);
}

/* Deletes one event, its state and its data from the store, for `eventpipe remove`. Returns 0 or a negative
 * code. The keeper runs it inside a write transaction. */
static int remove_event(struct store_sqlite *store, const struct scan_item *item)
{
    bool is_suspended = item->item.state != STORE_READY;
    int code = run_for_event(store, is_suspended ? SQL_DELETE_SUSPENDED : SQL_DELETE_PROGRESS, item->item.id);
    return code == 0 ? store_sqlite_delete_events(store, item->item.id, item->item.id) : code;
}

/* Applies an operator's command to one event in the store, and notes the change for the totals of its
 * source. Returns 0 or a negative code. The keeper runs it inside a write transaction, for an event whose
 * state the command accepts. */
static int change_event(struct store_sqlite *store, enum store_command command, struct scan_item *item)
{
    struct store_sqlite_tally *tally = &item->source->tally;
    subtract_old_state(tally, item->item.state);
    switch (command) {
    case STORE_RETRY:
        return store_sqlite_resume_event(store, item->item.id, true, false);
    case STORE_HOLD:
        tally->held++;
        return hold_event(store, item);
    case STORE_RELEASE:
        return store_sqlite_resume_event(store, item->item.id, false, false);
    case STORE_REMOVE:
        tally->removed_by_operator++;
        tally->live--;
        return remove_event(store, item);
    case STORE_REQUEUE:
        return item->item.state == STORE_READY ? run_for_event(store, SQL_REQUEUE_PROGRESS, item->item.id)
                                               : store_sqlite_resume_event(store, item->item.id, true, true);
    }
    return base_error_set(&store->base.error, EP_EINVAL,
                          "%s: unknown command %d for events (a bug in eventpipe)", store->path,
                          (int)command);
}

/* Reads each event of the chunk from the store again and changes it only if it still matches the selection,
 * because a worker may have got it since. The chunk then has only the changed events. Returns 0 or a
 * negative code. The keeper runs it inside a write transaction. */
static int change_chunk_events(struct event_scan *scan, enum store_command command)
{
    size_t changed_count = 0;
    int code = 0;
    store_sqlite_begin_trace_row(scan->store);
    for (size_t i = 0; code >= 0 && i < scan->item_count; i++) {
        struct scan_item present_item;
        code = store_sqlite_read_scan_event(scan, scan->items[i].item.id, &present_item);
        store_sqlite_free_scan_item(&scan->items[i]);
        if (code != 1)
            continue;
        scan->items[changed_count++] = present_item;
        code = change_event(scan->store, command, &scan->items[changed_count - 1]);
        struct store_trace_step step = {.kind = store_command_rule(command)->step,
                                        .event = present_item.item.id};
        store_sqlite_add_trace_step(scan->store, &step);
    }
    if (code >= 0) /* else what is left of the chunk is freed with the scan */
        scan->item_count = changed_count;
    for (size_t i = 0; code >= 0 && i < scan->source_count; i++)
        code = store_sqlite_add_to_totals(scan->store, scan->sources[i].id, 0, &scan->sources[i].tally);
    return code < 0 ? code : store_sqlite_write_trace_row(scan->store);
}

/* Changes one chunk of the selected events in a write transaction of its own, so that workers can commit to
 * the store between two chunks. Returns 0 or a negative code, and then none of the chunk is changed. The
 * keeper runs it for operators' commands. */
static int change_chunk(struct event_scan *scan, enum store_command command)
{
    for (size_t i = 0; i < scan->source_count; i++)
        scan->sources[i].tally = (struct store_sqlite_tally){0};
    int code = store_sqlite_begin_write(scan->store);
    if (code != 0)
        return code;
    code = store_sqlite_end_transaction(scan->store, change_chunk_events(scan, command));
    for (size_t i = 0; code == 0 && i < scan->item_count; i++)
        store_sqlite_rescan_from(scan->store, scan->items[i].source->id, scan->items[i].item.id);
    return code;
}

/* store_change of the SQLite engine: retries, holds, releases, removes or requeues the events that an
 * operator selects, chunk by chunk; with dry_run it only lists them. *changed counts them also if a later
 * chunk fails. Returns 0 or a negative code. The keeper calls it for `eventpipe retry`, `hold` and the
 * others. */
int store_sqlite_change(struct store *base, const struct store_select *select, enum store_command command,
                        bool dry_run, store_on_item *on_item, void *user, uint64_t *changed)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *changed = 0;
    if (dry_run)
        return list_events(store, select, store_command_rule(command)->takes, false, on_item, user, changed);
    struct event_scan scan;
    int code = store_sqlite_open_scan(store, select, store_command_rule(command)->takes, false, false, &scan);
    if (code != 0)
        return code;
    while (code == 0 && !scan.is_at_end && compute_chunk_limit(select, *changed) > 0) {
        code = store_sqlite_read_scan_chunk(&scan, compute_chunk_limit(select, *changed));
        if (code == 0 && scan.item_count > 0)
            code = change_chunk(&scan, command);
        if (code == 0)
            code = report_chunk(&scan, on_item, user, changed, false);
    }
    store_sqlite_close_scan(&scan);
    return code < 0 ? code : 0;
}
