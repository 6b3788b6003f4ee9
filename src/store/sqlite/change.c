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

/* Returns how many more events the next chunk of an operator's list or change may have, so that the
 * selection stays within its limit. Runs in the keeper; for lists also in the command line while the
 * daemon is down. */
static size_t compute_chunk_limit(const struct store_select *select, uint64_t seen)
{
    if (select->limit == 0)
        return WALK_CHUNK;
    uint64_t left = select->limit - seen;
    return left < WALK_CHUNK ? (size_t)left : WALK_CHUNK;
}

/* Passes the events of a chunk to on_item and counts them. Returns the first answer of on_item other than
 * 0. A list stops there (stop_at_once); a change reports the whole chunk, because all of it is committed.
 * The keeper runs it for operators' commands, the command line for lists while the daemon is down. */
static int report_chunk(const struct walk *walk, store_on_item *on_item, void *user, uint64_t *seen,
                        bool stop_at_once)
{
    int answer = 0;
    for (size_t i = 0; i < walk->item_count; i++) {
        ++*seen;
        int now = on_item != NULL ? on_item(&walk->items[i].item, user) : 0;
        if (now != 0 && answer == 0)
            answer = now;
        if (answer != 0 && stop_at_once)
            break;
    }
    return answer;
}

/* Lists the events of the store that an operator selects and that are in one of these states. It skips
 * damaged events, and then fails at its end. Runs in the keeper (`eventpipe queue`, the dry run of a
 * change) and in the command line while the daemon is down. */
static int list_events(struct store_sqlite *store, const struct store_select *select, unsigned states,
                       bool with_data, store_on_item *on_item, void *user, uint64_t *seen)
{
    struct walk walk;
    int code = store_sqlite_select_open(store, select, states, with_data, true, &walk);
    if (code != 0)
        return code;
    while (code == 0 && !walk.end && compute_chunk_limit(select, *seen) > 0) {
        code = store_sqlite_select_next(&walk, compute_chunk_limit(select, *seen));
        if (code == 0)
            code = report_chunk(&walk, on_item, user, seen, true);
    }
    if (code == 0 && walk.unreadable > 0)
        code =
            base_error_set(&store->store.error, EP_ESTORE,
                           "%s: the file is damaged: up to %llu events cannot be read (run eventpipe check)",
                           store->path, (unsigned long long)walk.unreadable);
    store_sqlite_select_close(&walk);
    return code < 0 ? code : 0;
}

int store_sqlite_list(struct store *base, const struct store_select *select, bool with_data,
                      store_on_item *on_item, void *user)
{
    uint64_t seen = 0;
    return list_events(store_sqlite_of(base), select, all_states, with_data, on_item, user, &seen);
}

/* ---- change ---- */

/* Takes the event out of the count of its state in the source's totals. */
static void count_leaving(struct store_sqlite_tally *tally, enum store_state state)
{
    tally->delayed -= state == STORE_DELAYED;
    tally->held -= state == STORE_HELD;
    tally->dead -= state == STORE_DEAD;
}

/* Runs a statement whose only parameter is the event. */
static int run_for_event(struct store_sqlite *store, enum store_sqlite_statement which, int64_t event)
{
    sqlite3_stmt *statement = store_sqlite_use_statement(store, which);
    store_sqlite_bind(store, statement, 1, event);
    return store_sqlite_run_statement(store, statement);
}

/* Holds one event for an operator (`eventpipe hold`): moves a ready event out of the way of claims, or
 * marks a suspended one as held. The keeper runs it inside the change's write transaction. */
static int hold_event(struct store_sqlite *store, const struct walk_item *item)
{
    if (item->item.state != STORE_READY)
        return run_for_event(store, SQL_HOLD_SUSPENDED, item->item.id);
    bool moved;
    struct store_sqlite_suspend suspend = {
        .event = item->item.id,
        .source = item->source->id,
        .token = item->token,
        .state = STORE_HELD,
        .keep_error = true,
    };
    return store_sqlite_suspend_event(store, &suspend, &moved);
}

/* Deletes an event's rows from the store for an operator (`eventpipe remove`). The keeper runs it. */
static int remove_event(struct store_sqlite *store, const struct walk_item *item)
{
    bool suspended = item->item.state != STORE_READY;
    int code = run_for_event(store, suspended ? SQL_DELETE_SUSPENDED : SQL_DELETE_PROGRESS, item->item.id);
    return code == 0 ? store_sqlite_delete_events(store, item->item.id, item->item.id) : code;
}

/* Applies an operator's command to one event of the store, and counts it in the totals of its source. The
 * keeper runs it inside the change's write transaction. */
static int change_event(struct store_sqlite *store, enum store_command command, struct walk_item *item)
{
    struct store_sqlite_tally *tally = &item->source->tally;
    count_leaving(tally, item->item.state);
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
    return base_error_set(&store->store.error, EP_EINVAL, "unknown command for events");
}

/* Inside the write transaction of an operator's change: reads each event of the chunk again, and changes
 * it only if it is still selected; a worker may have taken it since. The keeper runs it. */
static int change_events(struct walk *walk, enum store_command command)
{
    size_t kept = 0;
    int code = 0;
    store_sqlite_trace_begin(walk->store);
    for (size_t i = 0; code >= 0 && i < walk->item_count; i++) {
        struct walk_item now;
        code = store_sqlite_select_again(walk, walk->items[i].item.id, &now);
        store_sqlite_select_free(&walk->items[i]);
        if (code != 1)
            continue;
        walk->items[kept++] = now;
        code = change_event(walk->store, command, &walk->items[kept - 1]);
        struct store_trace_step step = {.kind = store_command_rule(command)->step, .event = now.item.id};
        store_sqlite_trace_add(walk->store, &step);
    }
    if (code >= 0) /* else what is left of the chunk is freed with the walk */
        walk->item_count = kept;
    for (size_t i = 0; code >= 0 && i < walk->source_count; i++)
        code = store_sqlite_add_to_totals(walk->store, walk->sources[i].id, 0, &walk->sources[i].tally);
    return code < 0 ? code : store_sqlite_trace_write(walk->store);
}

/* Changes one chunk of the events that an operator selected, in a write transaction of its own, so that
 * workers can write in between. The keeper runs it. */
static int change_chunk(struct walk *walk, enum store_command command)
{
    for (size_t i = 0; i < walk->source_count; i++)
        walk->sources[i].tally = (struct store_sqlite_tally){0};
    int code = store_sqlite_begin_write(walk->store);
    if (code != 0)
        return code;
    code = store_sqlite_end_transaction(walk->store, change_events(walk, command));
    for (size_t i = 0; code == 0 && i < walk->item_count; i++)
        store_sqlite_rescan_from(walk->store, walk->items[i].source->id, walk->items[i].item.id);
    return code;
}

/* store_change of the SQLite engine: retries, holds, releases, removes or requeues the events that an
 * operator selected. The keeper calls it for the command. */
int store_sqlite_change(struct store *base, const struct store_select *select, enum store_command command,
                        bool dry_run, store_on_item *on_item, void *user, uint64_t *changed)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *changed = 0;
    if (dry_run)
        return list_events(store, select, store_command_rule(command)->takes, false, on_item, user, changed);
    struct walk walk;
    int code =
        store_sqlite_select_open(store, select, store_command_rule(command)->takes, false, false, &walk);
    if (code != 0)
        return code;
    while (code == 0 && !walk.end && compute_chunk_limit(select, *changed) > 0) {
        code = store_sqlite_select_next(&walk, compute_chunk_limit(select, *changed));
        if (code == 0 && walk.item_count > 0)
            code = change_chunk(&walk, command);
        if (code == 0)
            code = report_chunk(&walk, on_item, user, changed, false);
    }
    store_sqlite_select_close(&walk);
    return code < 0 ? code : 0;
}
