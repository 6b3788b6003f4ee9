/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: the answers of one worker, or of several, in one transaction. Runs in workers; in
 * producers for events that have no stage left.
 *
 * Invariants
 *  1. All members are committed or none.
 *  2. Where a run of answers turns out not to be ours as a whole, all members are done again, event by event.
 */
#include "src/store/sqlite/sqlite.h"

/* What changed at one stage: workers of one stage often come together. */
struct stage_tally {
    int64_t source, stage;
    struct store_sqlite_tally tally;
};

static struct store_sqlite_tally *tally_of(struct stage_tally *tallies, size_t *count,
                                           const struct store_group_member *member)
{
    size_t i = 0;
    while (i < *count && (tallies[i].source != member->source || tallies[i].stage != member->stage))
        i++;
    if (i == *count)
        tallies[(*count)++] = (struct stage_tally){.source = member->source, .stage = member->stage};
    return &tallies[i].tally;
}

static int commit_members(struct store_sqlite *store, struct store_group_commit *group_commit, bool singly)
{
    struct stage_tally tallies[STORE_GROUP_COMMIT_MAX];
    size_t count = 0;
    int code = 0;
    store_sqlite_trace_begin(store);
    for (size_t i = 0; code == 0 && i < group_commit->count; i++) {
        code = store_sqlite_commit_member(store, &group_commit->member[i], singly,
                                          tally_of(tallies, &count, &group_commit->member[i]));
        if (i + 1 == group_commit->count && !singly &&
            group_commit->collect != NULL) /* who has come meanwhile */
            group_commit->collect(group_commit, group_commit->user);
    }
    for (size_t i = 0; code == 0 && i < count; i++)
        code = store_sqlite_tally(store, tallies[i].source, tallies[i].stage, &tallies[i].tally);
    return code == 0 ? store_sqlite_trace_write(store) : code;
}

static void forget_applied(const struct store_group_commit *group_commit)
{
    for (size_t i = 0; i < group_commit->count; i++)
        for (size_t answer = 0; answer < group_commit->member[i].count; answer++)
            group_commit->member[i].answers[answer].applied = false;
}

/* One that was committed already by a process that has crashed: was it synced, too? */
static bool any_again(const struct store_group_commit *group_commit)
{
    bool again = false;
    for (size_t i = 0; i < group_commit->count; i++)
        again = again || group_commit->member[i].again;
    return again;
}

static int commit_locked(struct store_sqlite *store, struct store_group_commit *group_commit, bool singly)
{
    forget_applied(group_commit);
    int code = store_sqlite_begin_write_locked(store);
    if (code != 0)
        return code;
    code = store_sqlite_end_lazily(store, commit_members(store, group_commit, singly));
    group_commit->committed = code == 0;
    if (code == 0 && store->durable && (store->wrote || any_again(group_commit)))
        code = store_sqlite_wal_sync(store);
    return code;
}

int store_sqlite_commit(struct store *base, struct store_group_commit *group_commit)
{
    struct store_sqlite *store = store_sqlite_of(base);
    group_commit->committed = false;
    if (!group_commit->at_once)
        store_sqlite_acquire_write_lock(store);
    else if (!store_sqlite_try_write_lock(store))
        return EP_EBUSY;
    if (group_commit->collect != NULL && !group_commit->collect(group_commit, group_commit->user)) {
        store_sqlite_release_write_lock(store);
        return EP_EBUSY;
    }
    int code = commit_locked(store, group_commit, false);
    if (code == STORE_SQLITE_PARTED) {
        store_sqlite_acquire_write_lock(store);
        code = commit_locked(store, group_commit, true);
    }
    if (code != 0)
        forget_applied(group_commit);
    return code;
}
