/* SPDX-License-Identifier: MIT */
/*
 * Group commit. Runs in workers, while they hold locks of events. Many workers with an answer or two each
 * would queue for the write lock, for a transaction and a sync of the WAL each. Instead, a worker that
 * finds the write lock held (a follower) puts its answers into a commit request (shm/commit_request.h) and
 * sleeps. The holder of the write lock (the leader) takes all commit requests into its transaction, syncs
 * the WAL once, and then completes each request with its result.
 *
 * Invariants
 *  1. A follower learns only of a commit that is done and, as far as the store is durable, on the disk.
 *  2. If the leader crashes, its followers cannot know whether their answers were committed. The
 *     supervisor marks their requests as lost, and each follower commits again; `may_be_committed` makes
 *     that idempotent. It stays set until such a commit has succeeded.
 *  3. The answers of others never spoil a worker's own: if a transaction with them fails, all requests go
 *     back to their owners, and every worker commits alone.
 *  4. A large batch is never put into a request: its own transaction is cheap enough.
 */
#include "src/process/group_commit.h"

#include <string.h>

#include "shm/slot.h"
#include "src/process/group_codec.h"

/* A follower checks its request this often, in case a kill has prevented the wake-up ... */
#define POLL_INTERVAL_NS UINT64_C(50000000)
/* ... and queues for the write lock if no leader has taken the request after so long. */
#define LEADER_TIMEOUT_NS UINT64_C(5000000000)

/* Returns whether this transaction holds a commit request of this slot (each worker has one slot) already.
 * The worker that leads the group commit asks before it takes one: a second request comes from the
 * successor of a crashed worker. */
static bool has_request_of_slot(const struct process_group_commit *group_commit, uint32_t slot)
{
    for (size_t i = 0; i < group_commit->taken_count; i++)
        if (group_commit->slots[i] == slot)
            return true;
    return false;
}

/* Takes the commit requests of other workers (their answers, in shared memory) into the open transaction,
 * and returns whether there were any. The worker that leads the group commit runs it while it holds the
 * write lock. A second request from one slot goes back to its owner: the first owner has crashed, and the
 * result of its answers must not reach its successor. */
static bool collect_requests(struct process_group_commit *group_commit)
{
    struct store_group_commit *transaction = &group_commit->transaction;
    size_t taken_before = group_commit->taken_count;
    uint32_t step = 1, bytes;
    while (!group_commit->must_commit_alone && group_commit->taken_count < PROCESS_GROUP_COMMIT_OTHERS &&
           group_commit->answer_count + COMMIT_REQUEST_RESULTS <= PROCESS_GROUP_COMMIT_ANSWERS) {
        uint32_t *slot = &group_commit->slots[group_commit->taken_count];
        char *body = group_commit->bodies[group_commit->taken_count];
        if (!commit_request_take(group_commit->segment, group_commit->slot, &step, slot, body, &bytes))
            break;
        struct store_group_member *other_member = &transaction->member[transaction->count];
        if (has_request_of_slot(group_commit, *slot) ||
            !process_group_codec_decode(body, bytes, other_member,
                                        &group_commit->answers[group_commit->answer_count],
                                        COMMIT_REQUEST_RESULTS)) {
            commit_request_complete(group_commit->segment, group_commit->slot, *slot, COMMIT_REQUEST_RETURNED,
                                    0);
            continue;
        }
        group_commit->answer_count += other_member->count;
        group_commit->taken_count++;
        transaction->count++;
    }
    return group_commit->taken_count > taken_before;
}

/* Returns which answers of a follower (a worker whose answers this one commits, too) the store has
 * applied, one bit for each (a request has at most 32). The worker that leads the group commit sends it to
 * the follower as the result of its request. */
static uint32_t make_applied_bits(const struct store_group_member *member)
{
    uint32_t applied_bits = 0;
    for (size_t i = 0; i < member->count; i++)
        applied_bits |= (uint32_t)member->answers[i].applied << i;
    return applied_bits;
}

/* Gives the followers (workers whose answers this one commits, too) their results after the commit (code
 * 0), or returns their requests after a failure. The worker that leads the group commit runs it. Requests
 * that were committed but may not be on the disk stay taken: the leader exits, and its followers commit
 * again. */
static void complete_requests(struct process_group_commit *group_commit, int code)
{
    for (size_t i = 0; i < group_commit->taken_count; i++) {
        const struct store_group_member *other_member = &group_commit->transaction.member[1 + i];
        if (code == 0)
            commit_request_complete(group_commit->segment, group_commit->slot, group_commit->slots[i],
                                    COMMIT_REQUEST_DONE, make_applied_bits(other_member));
        else if (!group_commit->transaction.committed)
            commit_request_complete(group_commit->segment, group_commit->slot, group_commit->slots[i],
                                    COMMIT_REQUEST_RETURNED, 0);
    }
}

/* Runs one transaction of the store with this worker's answers and those of others. While it is open, this
 * worker, the leader, looks for commit requests until there are no more, so that one sync of the WAL
 * serves many workers. Returns 0, an error code, or EP_EBUSY if the write lock is held (and at_once is
 * set) or another leader has taken this worker's request. */
static int run_transaction(struct process_group_commit *group_commit)
{
    struct store *store = group_commit->store;
    struct store_group_commit *transaction = &group_commit->transaction;
    int code = store_group_commit_begin(store, transaction);
    if (code != 0)
        return code;
    if (group_commit->has_submitted && !commit_request_withdraw(group_commit->segment, group_commit->slot)) {
        store_group_commit_end(store, transaction); /* releases the write lock */
        return EP_EBUSY;
    }
    group_commit->has_submitted = false;
    collect_requests(group_commit);
    do {
        code = store_group_commit_add(store, transaction);
    } while (code == 0 && collect_requests(group_commit));
    return store_group_commit_end(store, transaction);
}

/* Commits a worker's answers under the write lock, together with the commit requests of other workers.
 * If that transaction fails, it returns their requests and commits its own answers alone. Returns 0, an
 * error code, or EP_EBUSY as run_transaction does. */
static int commit_as_leader(struct process_group_commit *group_commit,
                            const struct store_group_member *own_member, bool at_once)
{
    group_commit->transaction.member[0] = *own_member;
    group_commit->transaction.count = 1;
    group_commit->transaction.at_once = at_once;
    group_commit->taken_count = group_commit->answer_count = 0;
    int code = run_transaction(group_commit);
    complete_requests(group_commit, code);
    if (code == 0 || group_commit->taken_count == 0 || group_commit->transaction.committed)
        return code;
    group_commit->must_commit_alone = true;
    return commit_as_leader(group_commit, own_member, false);
}

/* Ends a worker's wait for the leader of a group commit: notes which answers the leader has applied.
 * Commits them alone instead if the request was returned, or lost because the leader crashed. Returns 0
 * or an error code. */
static int finish_waiting(struct process_group_commit *group_commit, struct store_group_member *own_member,
                          enum commit_request_state state, uint32_t applied_bits)
{
    commit_request_clear(group_commit->segment, group_commit->slot);
    group_commit->has_submitted = false;
    if (state == COMMIT_REQUEST_DONE) {
        for (size_t i = 0; i < own_member->count; i++)
            own_member->answers[i].applied = (applied_bits >> i & 1) != 0;
        return 0;
    }
    group_commit->must_commit_alone = true;
    own_member->again = group_commit->may_be_committed = state == COMMIT_REQUEST_LOST;
    return commit_as_leader(group_commit, own_member, false);
}

/* Sleeps until the leader of a group commit has committed this worker's answers, or commits them itself
 * once the write lock is free. A worker runs it when another process holds the lock. Returns 0 or an
 * error code. */
static int wait_for_leader(struct process_group_commit *group_commit, struct store_group_member *own_member)
{
    uint64_t begin_ns = shm_now_ns();
    for (;;) {
        uint32_t applied_bits;
        enum commit_request_state state =
            commit_request_poll(group_commit->segment, group_commit->slot, &applied_bits);
        if (state != COMMIT_REQUEST_WAITING && state != COMMIT_REQUEST_TAKEN)
            return finish_waiting(group_commit, own_member, state, applied_bits);
        if (state == COMMIT_REQUEST_WAITING) {
            bool waited_too_long = shm_now_ns() - begin_ns > LEADER_TIMEOUT_NS;
            int code = commit_as_leader(group_commit, own_member, !waited_too_long);
            if (code != EP_EBUSY)
                return code;
        }
        commit_request_wait(group_commit->segment, group_commit->slot, POLL_INTERVAL_NS);
    }
}

/* Writes a worker's answers into its commit request, so that the holder of the write lock commits them.
 * Returns false if they do not fit; then the worker must wait for the lock. A worker runs it when it
 * finds the write lock held. */
static bool submit_request(struct process_group_commit *group_commit,
                           const struct store_group_member *own_member)
{
    if (own_member->count > COMMIT_REQUEST_RESULTS)
        return false;
    size_t bytes =
        process_group_codec_encode(own_member, commit_request_body(group_commit->segment, group_commit->slot),
                                   SHM_COMMIT_REQUEST_BYTES);
    if (bytes == 0)
        return false;
    commit_request_submit(group_commit->segment, group_commit->slot, (uint32_t)bytes);
    return true;
}

/* Commits a worker's answers in the store: alone, as the leader of a group commit, or through another
 * worker that leads one. The worker's main thread or its committer thread calls it under worker->lock.
 * Returns 0 or an error code; after an error it must be called again with the same answers. */
int process_group_commit(struct process_group_commit *group_commit, int64_t source, int64_t stage,
                         struct store_answer *answers, size_t count)
{
    struct store_group_member own_member = {.source = source,
                                            .stage = stage,
                                            .pid = group_commit->pid,
                                            .again = group_commit->may_be_committed,
                                            .answers = answers,
                                            .count = count};
    group_commit->has_submitted = false;
    group_commit->must_commit_alone = group_commit->may_be_committed;
    int code = commit_as_leader(group_commit, &own_member, !group_commit->must_commit_alone);
    if (code == EP_EBUSY) {
        group_commit->has_submitted = submit_request(group_commit, &own_member);
        code = group_commit->has_submitted ? wait_for_leader(group_commit, &own_member)
                                           : commit_as_leader(group_commit, &own_member, false);
    }
    group_commit->may_be_committed = group_commit->may_be_committed && code != 0;
    return code;
}
