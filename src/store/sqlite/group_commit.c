/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: the answers of one worker, or of several, in one transaction. Runs in workers; in
 * producers for events that have no stage left.
 *
 * Invariants
 *  1. All groups are committed or none.
 *  2. Where a run of answers turns out not to be ours as a whole, all groups are done again, event by event.
 */
#include "src/store/sqlite/sqlite.h"

/* What changed at one stage: workers of one stage often come together. */
struct stage_tally {
    int64_t source, stage;
    struct store_sqlite_tally tally;
};

static struct store_sqlite_tally *tally_of(struct stage_tally *tallies, size_t *count,
                                           const struct store_group *group)
{
    size_t i = 0;
    while (i < *count && (tallies[i].source != group->source || tallies[i].stage != group->stage))
        i++;
    if (i == *count)
        tallies[(*count)++] = (struct stage_tally){.source = group->source, .stage = group->stage};
    return &tallies[i].tally;
}

static int commit_groups(struct store_sqlite *store, struct store_groups *groups, bool singly)
{
    struct stage_tally tallies[STORE_GROUPS_MAX];
    size_t count = 0;
    int code = 0;
    store_sqlite_trace_begin(store);
    for (size_t i = 0; code == 0 && i < groups->count; i++) {
        code = store_sqlite_commit_group(store, &groups->group[i], singly,
                                         tally_of(tallies, &count, &groups->group[i]));
        if (i + 1 == groups->count && !singly && groups->gather != NULL) /* who has come meanwhile */
            groups->gather(groups, groups->user);
    }
    for (size_t i = 0; code == 0 && i < count; i++)
        code = store_sqlite_tally(store, tallies[i].source, tallies[i].stage, &tallies[i].tally);
    return code == 0 ? store_sqlite_trace_write(store) : code;
}

static void forget_applied(const struct store_groups *groups)
{
    for (size_t i = 0; i < groups->count; i++)
        for (size_t answer = 0; answer < groups->group[i].count; answer++)
            groups->group[i].answers[answer].applied = false;
}

/* One that was committed already by a process that has died: was it synced, too? */
static bool any_again(const struct store_groups *groups)
{
    bool again = false;
    for (size_t i = 0; i < groups->count; i++)
        again = again || groups->group[i].again;
    return again;
}

static int commit_at_gate(struct store_sqlite *store, struct store_groups *groups, bool singly)
{
    forget_applied(groups);
    int code = store_sqlite_begin_at_gate(store);
    if (code != 0)
        return code;
    code = store_sqlite_end_lazily(store, commit_groups(store, groups, singly));
    groups->committed = code == 0;
    if (code == 0 && store->durable && (store->wrote || any_again(groups)))
        code = store_sqlite_sync_log(store);
    return code;
}

int store_sqlite_commit(struct store *base, struct store_groups *groups)
{
    struct store_sqlite *store = store_sqlite_of(base);
    groups->committed = false;
    if (!groups->at_once)
        store_sqlite_enter_gate(store);
    else if (!store_sqlite_try_gate(store))
        return EP_EBUSY;
    if (groups->gather != NULL && !groups->gather(groups, groups->user)) {
        store_sqlite_leave_gate(store);
        return EP_EBUSY;
    }
    int code = commit_at_gate(store, groups, false);
    if (code == STORE_SQLITE_PARTED) {
        store_sqlite_enter_gate(store);
        code = commit_at_gate(store, groups, true);
    }
    if (code != 0)
        forget_applied(groups);
    return code;
}
