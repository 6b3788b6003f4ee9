/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: lists and changes events for an operator. Runs in the keeper and the command line,
 * while workers run.
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

/* The states that a command takes. Events in other states stay as they are, running ones always. */
static unsigned takes(enum store_command command)
{
    switch (command) {
    case STORE_RETRY:
        return STATE(STORE_DELAYED) | STATE(STORE_DEAD);
    case STORE_HOLD:
        return STATE(STORE_READY) | STATE(STORE_DELAYED) | STATE(STORE_DEAD);
    case STORE_RELEASE:
        return STATE(STORE_HELD);
    case STORE_REMOVE:
    case STORE_REQUEUE:
        return all_states & ~STATE(STORE_RUNNING);
    }
    return 0;
}

/* How many more events the next chunk may have, so that the selection stays within its limit. */
static size_t remaining(const struct store_select *select, uint64_t seen)
{
    if (select->limit == 0)
        return WALK_CHUNK;
    uint64_t left = select->limit - seen;
    return left < WALK_CHUNK ? (size_t)left : WALK_CHUNK;
}

/* Passes the events of the chunk to on_item and counts them. Returns the first answer of on_item other than
 * 0. A list stops there (stop_at_once); a change reports the whole chunk, because all of it is committed. */
static int show(const struct walk *walk, store_on_item *on_item, void *user, uint64_t *seen,
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

/* Lists what is selected and in one of these states; also the dry run of a change. */
static int list(struct store_sqlite *store, const struct store_select *select, unsigned states,
                bool with_data, store_on_item *on_item, void *user, uint64_t *seen)
{
    struct walk walk;
    int code = store_sqlite_select_open(store, select, states, with_data, true, &walk);
    if (code != 0)
        return code;
    while (code == 0 && !walk.end && remaining(select, *seen) > 0) {
        code = store_sqlite_select_next(&walk, remaining(select, *seen));
        if (code == 0)
            code = show(&walk, on_item, user, seen, true);
    }
    if (code == 0 && walk.unreadable > 0)
        code =
            base_error_set(&store->store.error, EP_ESTORE,
                           "%s: the file is damaged: what was stored under %llu event numbers cannot be read",
                           store->path, (unsigned long long)walk.unreadable);
    store_sqlite_select_close(&walk);
    return code < 0 ? code : 0;
}

int store_sqlite_list(struct store *base, const struct store_select *select, bool with_data,
                      store_on_item *on_item, void *user)
{
    uint64_t seen = 0;
    return list(store_sqlite_of(base), select, all_states, with_data, on_item, user, &seen);
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
    sqlite3_stmt *statement = store_sqlite_use(store, which);
    store_sqlite_bind(store, statement, 1, event);
    return store_sqlite_run(store, statement);
}

/* Sets a ready event aside as held, or marks a suspended one as held. */
static int hold_item(struct store_sqlite *store, const struct walk_item *item)
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
    return store_sqlite_suspend(store, &suspend, &moved);
}

/* Deletes the event's rows. */
static int remove_item(struct store_sqlite *store, const struct walk_item *item)
{
    bool suspended = item->item.state != STORE_READY;
    int code = run_for_event(store, suspended ? SQL_DELETE_SUSPENDED : SQL_DELETE_PROGRESS, item->item.id);
    return code == 0 ? store_sqlite_delete_events(store, item->item.id, item->item.id) : code;
}

/* Does what the command says to one event, and counts it in the tally of its source. */
static int change_item(struct store_sqlite *store, enum store_command command, struct walk_item *item)
{
    struct store_sqlite_tally *tally = &item->source->tally;
    count_leaving(tally, item->item.state);
    switch (command) {
    case STORE_RETRY:
        return store_sqlite_resume(store, item->item.id, true, false);
    case STORE_HOLD:
        tally->held++;
        return hold_item(store, item);
    case STORE_RELEASE:
        return store_sqlite_resume(store, item->item.id, false, false);
    case STORE_REMOVE:
        tally->removed_by_operator++;
        tally->live--;
        return remove_item(store, item);
    case STORE_REQUEUE:
        return item->item.state == STORE_READY ? run_for_event(store, SQL_REQUEUE_PROGRESS, item->item.id)
                                               : store_sqlite_resume(store, item->item.id, true, true);
    }
    return base_error_set(&store->store.error, EP_EINVAL, "no such command");
}

static const enum store_trace_step_kind step_kinds[] = {
    [STORE_RETRY] = STORE_TRACE_STEP_RETRY,      [STORE_HOLD] = STORE_TRACE_STEP_HELD,
    [STORE_RELEASE] = STORE_TRACE_STEP_RELEASED, [STORE_REMOVE] = STORE_TRACE_STEP_REMOVED_BY_OPERATOR,
    [STORE_REQUEUE] = STORE_TRACE_STEP_REQUEUED,
};

/* Inside the write transaction: reads each event of the chunk again, changes it if it is still selected, and
 * drops it from the chunk otherwise. */
static int change_items(struct walk *walk, enum store_command command)
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
        code = change_item(walk->store, command, &walk->items[kept - 1]);
        struct store_trace_step step = {.kind = step_kinds[command], .event = now.item.id};
        store_sqlite_trace_add(walk->store, &step);
    }
    if (code >= 0) /* else what is left of the chunk is freed with the walk */
        walk->item_count = kept;
    for (size_t i = 0; code >= 0 && i < walk->source_count; i++)
        code = store_sqlite_tally(walk->store, walk->sources[i].id, 0, &walk->sources[i].tally);
    return code < 0 ? code : store_sqlite_trace_write(walk->store);
}

/* Changes one chunk in a write transaction of its own. */
static int change_chunk(struct walk *walk, enum store_command command)
{
    for (size_t i = 0; i < walk->source_count; i++)
        walk->sources[i].tally = (struct store_sqlite_tally){0};
    int code = store_sqlite_begin_write(walk->store);
    if (code != 0)
        return code;
    code = store_sqlite_end(walk->store, change_items(walk, command));
    for (size_t i = 0; code == 0 && i < walk->item_count; i++)
        store_sqlite_rescan_from(walk->store, walk->items[i].source->id, walk->items[i].item.id);
    return code;
}

int store_sqlite_change(struct store *base, const struct store_select *select, enum store_command command,
                        bool dry_run, store_on_item *on_item, void *user, uint64_t *changed)
{
    struct store_sqlite *store = store_sqlite_of(base);
    *changed = 0;
    if (dry_run)
        return list(store, select, takes(command), false, on_item, user, changed);
    struct walk walk;
    int code = store_sqlite_select_open(store, select, takes(command), false, false, &walk);
    if (code != 0)
        return code;
    while (code == 0 && !walk.end && remaining(select, *changed) > 0) {
        code = store_sqlite_select_next(&walk, remaining(select, *changed));
        if (code == 0 && walk.item_count > 0)
            code = change_chunk(&walk, command);
        if (code == 0)
            code = show(&walk, on_item, user, changed, false);
    }
    store_sqlite_select_close(&walk);
    return code < 0 ? code : 0;
}
