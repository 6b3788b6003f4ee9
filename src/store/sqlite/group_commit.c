/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: commits the answers of one worker, or of several, in one transaction. Runs in workers,
 * and in producers for events that have no stage left.
 *
 * The caller begins, adds members as they come, and ends. All adds go into one transaction, which the first
 * of them opens.
 *
 * Invariants
 *  1. All members are committed, or none.
 *  2. The write lock is held from begin to the end of the transaction. It is released once in between where
 *     a range of answers has lost locks: then end rolls back, and writes all members again, event by event.
 *  3. An answer says `applied` only after a commit that succeeded and, if the store is durable, was synced.
 */
#include "src/store/sqlite/sqlite.h"

/* Returns the changes of totals for a member's source and stage, adding an empty entry if there is none:
 * workers of one stage often commit together, and then the store writes their totals once. The worker that
 * leads the group commit runs it. */
static struct store_sqlite_tally *find_or_add_tally(struct store_sqlite_group *group,
                                                    const struct store_group_member *member)
{
    size_t i = 0;
    while (i < group->tally_count &&
           (group->tallies[i].source != member->source || group->tallies[i].stage != member->stage))
        i++;
    if (i == group->tally_count)
        group->tallies[group->tally_count++] =
            (struct store_sqlite_stage_tally){.source = member->source, .stage = member->stage};
    return &group->tallies[i].tally;
}

static void clear_applied(const struct store_group_member *member)
{
    for (size_t i = 0; i < member->count; i++)
        member->answers[i].applied = false;
}

/* Resets the store handle's state of a group commit (one transaction for the answers of several workers);
 * one_by_one = write event by event instead of in ranges. A worker runs it at the start of each commit, and
 * again after locks of a range were lost. */
static void reset_group(struct store_sqlite_group *group, bool one_by_one)
{
    group->is_open = false;
    group->one_by_one = one_by_one;
    group->code = 0;
    group->written_count = group->tally_count = 0;
}

/* store_group_commit_begin of the SQLite engine: takes the write lock. With at_once it does not wait and
 * returns EP_EBUSY while another process holds the lock; else it returns 0. A worker calls it for each
 * commit, and the producer for events that have no stage left. */
int store_sqlite_commit_begin(struct store *base, struct store_group_commit *group_commit)
{
    struct store_sqlite *store = store_sqlite_of(base);
    group_commit->committed = false;
    reset_group(&store->group, false);
    if (!group_commit->at_once)
        store_sqlite_acquire_write_lock(store);
    else if (!store_sqlite_try_write_lock(store))
        return EP_EBUSY;
    return 0;
}

/* Writes the members (workers' answers) that were added since the last call to the store, and opens the
 * transaction first if needed. Returns 0, a negative code, or STORE_SQLITE_PARTIAL (locks of a range were
 * lost). The worker that leads the group commit runs it whenever it has collected answers of other workers.
 * */
static int write_members(struct store_sqlite *store, const struct store_group_commit *group_commit)
{
    struct store_sqlite_group *group = &store->group;
    int code = group->is_open ? 0 : store_sqlite_begin_write_locked(store);
    if (code != 0)
        return code;
    if (!group->is_open)
        store_sqlite_begin_trace_row(store);
    group->is_open = true;
    while (code == 0 && group->written_count < group_commit->count) {
        const struct store_group_member *member = &group_commit->member[group->written_count++];
        clear_applied(member);
        code = store_sqlite_write_member_answers(store, member, group->one_by_one,
                                                 find_or_add_tally(group, member));
    }
    return code;
}

/* store_group_commit_add of the SQLite engine: writes the new members into the open transaction. Returns 0
 * or a negative code. Once locks of a range were lost it writes nothing more and returns 0, because the end
 * writes all members again. The worker that leads the group commit calls it. */
int store_sqlite_commit_add(struct store *base, struct store_group_commit *group_commit)
{
    struct store_sqlite *store = store_sqlite_of(base);
    if (store->group.code == 0)
        store->group.code = write_members(store, group_commit);
    return store->group.code == STORE_SQLITE_PARTIAL ? 0 : store->group.code;
}

/* Whether a member repeats answers that a crashed process may have committed to the store before, perhaps
 * without the sync. Then the WAL must be synced even if this commit wrote nothing. The worker that leads
 * the group commit runs it. */
static bool has_repeated_member(const struct store_group_commit *group_commit)
{
    bool has_repeated = false;
    for (size_t i = 0; i < group_commit->count; i++)
        has_repeated = has_repeated || group_commit->member[i].again;
    return has_repeated;
}

/* Ends the store's transaction of a group commit: writes totals and trace, commits, releases the write lock
 * and then syncs the WAL; after a failure it rolls back. Returns 0, a negative code or
 * STORE_SQLITE_PARTIAL. The worker that leads the group commit runs it. */
static int end_group_transaction(struct store_sqlite *store, struct store_group_commit *group_commit)
{
    struct store_sqlite_group *group = &store->group;
    int code = group->code;
    for (size_t i = 0; code == 0 && i < group->tally_count; i++)
        code = store_sqlite_add_to_totals(store, group->tallies[i].source, group->tallies[i].stage,
                                          &group->tallies[i].tally);
    if (code == 0)
        code = store_sqlite_write_trace_row(store);
    code = store_sqlite_end_transaction_unsynced(store, code);
    group->is_open = false;
    group_commit->committed = code == 0;
    if (code == 0 && store->is_durable && (store->has_written || has_repeated_member(group_commit)))
        code = store_sqlite_sync_wal(store);
    return code;
}

/* store_group_commit_end of the SQLite engine: commits all members or none, and releases the write lock. If
 * locks of a range were lost, it first writes all members again, event by event. Returns 0 or a negative
 * code. The worker that leads the group commit calls it once after each begin; the producer, too. */
int store_sqlite_commit_end(struct store *base, struct store_group_commit *group_commit)
{
    struct store_sqlite *store = store_sqlite_of(base);
    struct store_sqlite_group *group = &store->group;
    if (!group->is_open && group->code == 0) { /* nothing was added */
        store_sqlite_release_write_lock(store);
        return 0;
    }
    int code = group->is_open ? end_group_transaction(store, group_commit) : group->code;
    if (code == STORE_SQLITE_PARTIAL) {
        store_sqlite_acquire_write_lock(store);
        reset_group(group, true);
        group->code = write_members(store, group_commit);
        code = group->is_open ? end_group_transaction(store, group_commit) : group->code;
    }
    store_sqlite_release_write_lock(store); /* still held only where no transaction could begin */
    for (size_t i = 0; code != 0 && i < group_commit->count; i++)
        clear_applied(&group_commit->member[i]);
    return code;
}
