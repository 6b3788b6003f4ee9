/* SPDX-License-Identifier: MIT */
/*
 * Group commit. Runs in workers, with their lock held. Many workers with an answer or two each would queue at
 * the gate for a transaction and a sync of the log each. Instead: who finds the gate shut lays its answers
 * out as an offer (shm/commit_request.h) and sleeps; who is at the gate takes all offers there are into its
 * transaction, syncs the log once, and then tells each owner what became of its answers.
 *
 * Invariants
 *  1. An owner is told only what is committed and, as far as a commit is, on the disk.
 *  2. Who dies at the gate or after it leaves its owners in doubt, never blocked: the supervisor tells them,
 * and they commit again what may have been committed already (`again`), which changes nothing twice; they
 * stay in doubt until that has succeeded.
 *  3. Answers of others never spoil a worker's own: if the transaction with them fails, all offers go back to
 * their owners, and everybody commits alone.
 *  4. Large groups are never offered: a transaction of their own is cheap enough.
 */
#include "src/process/group_commit.h"

#include <string.h>

#include "shm/slot.h"
#include "src/process/group_codec.h"

#define SLICE_NS UINT64_C(50000000)      /* an owner looks again: for a wake-up that a kill has swallowed */
#define PATIENCE_NS UINT64_C(5000000000) /* ... and after so long without a taker queues at the gate */

static bool taken_from(const struct group *group, uint32_t slot)
{
    for (size_t i = 0; i < group->taken; i++)
        if (group->slots[i] == slot)
            return true;
    return false;
}

/* At the gate, before the transaction and before its end: takes what others offer. False: another has taken
 * our own, there is nothing to do here. From a slot twice: its first owner has died since; the result of that
 * one's answers must not reach its successor, who does it itself. */
static bool gather(struct store_groups *groups, void *user)
{
    struct group *group = user;
    if (group->offered && !offer_withdraw(group->segment, group->slot))
        return false;
    group->offered = false;
    uint32_t step = 1, bytes;
    while (!group->alone && group->taken < GROUP_OTHERS &&
           group->answer_count + OFFER_RESULTS <= GROUP_ANSWERS) {
        uint32_t *slot = &group->slots[group->taken];
        char *body = group->bodies[group->taken];
        if (!offer_take(group->segment, group->slot, &step, slot, body, &bytes))
            break;
        struct store_group *other = &groups->group[groups->count];
        if (taken_from(group, *slot) ||
            !group_unpack(body, bytes, other, &group->answers[group->answer_count], OFFER_RESULTS)) {
            offer_settle(group->segment, group->slot, *slot, OFFER_BACK, 0);
            continue;
        }
        group->answer_count += other->count;
        group->taken++;
        groups->count++;
    }
    return true;
}

static uint32_t result_of(const struct store_group *group)
{
    uint32_t result = 0;
    for (size_t i = 0; i < group->count; i++)
        result |= (uint32_t)group->answers[i].applied << i;
    return result;
}

/* What was not committed goes back. What was, but is not known to be on the disk, stays with us: this process
 * ends, and then its owners are in doubt. */
static void settle(struct group *group, int code)
{
    for (size_t i = 0; i < group->taken; i++) {
        const struct store_group *other = &group->groups.group[1 + i];
        if (code == 0)
            offer_settle(group->segment, group->slot, group->slots[i], OFFER_DONE, result_of(other));
        else if (!group->groups.committed)
            offer_settle(group->segment, group->slot, group->slots[i], OFFER_BACK, 0);
    }
}

/* Commits at the gate, with what others offer. EP_EBUSY: the gate was not free (at_once), or our offer has
 * been taken. */
static int lead(struct group *group, const struct store_group *own, bool at_once)
{
    group->groups.group[0] = *own;
    group->groups.count = 1;
    group->groups.at_once = at_once;
    group->groups.gather = gather;
    group->groups.user = group;
    group->taken = group->answer_count = 0;
    int code = store_commit_groups(group->store, &group->groups);
    settle(group, code);
    if (code == 0 || group->taken == 0 || group->groups.committed)
        return code;
    group->alone = true;
    return lead(group, own, false);
}

/* Our offer has been settled, or nobody can settle it any more. */
static int conclude(struct group *group, struct store_group *own, enum offer_state state, uint32_t result)
{
    offer_end(group->segment, group->slot);
    group->offered = false;
    if (state == OFFER_DONE) {
        for (size_t i = 0; i < own->count; i++)
            own->answers[i].applied = (result >> i & 1) != 0;
        return 0;
    }
    group->alone = true;
    own->again = group->again = state == OFFER_LOST;
    return lead(group, own, false);
}

static int follow(struct group *group, struct store_group *own)
{
    uint64_t begin_ns = shm_now_ns();
    for (;;) {
        uint32_t result;
        enum offer_state state = offer_look(group->segment, group->slot, &result);
        if (state != OFFER_WAITING && state != OFFER_TAKEN)
            return conclude(group, own, state, result);
        if (state == OFFER_WAITING) {
            bool late = shm_now_ns() - begin_ns > PATIENCE_NS;
            int code = lead(group, own, !late);
            if (code != EP_EBUSY)
                return code;
        }
        offer_wait(group->segment, group->slot, SLICE_NS);
    }
}

/* Lays it out for others, if it is small enough. */
static bool offer(struct group *group, const struct store_group *own)
{
    if (own->count > OFFER_RESULTS)
        return false;
    size_t bytes = group_pack(own, offer_body(group->segment, group->slot), SHM_OFFER_BYTES);
    if (bytes == 0)
        return false;
    offer_make(group->segment, group->slot, (uint32_t)bytes);
    return true;
}

int group_commit(struct group *group, int64_t source, int64_t stage, struct store_answer *answers,
                 size_t count)
{
    struct store_group own = {.source = source,
                              .stage = stage,
                              .pid = group->pid,
                              .again = group->again,
                              .answers = answers,
                              .count = count};
    group->offered = false;
    group->alone = group->again;
    int code = lead(group, &own, !group->alone);
    if (code == EP_EBUSY) {
        group->offered = offer(group, &own);
        code = group->offered ? follow(group, &own) : lead(group, &own, false);
    }
    group->again = group->again && code != 0;
    return code;
}
