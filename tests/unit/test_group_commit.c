/* SPDX-License-Identifier: MIT */
/* Group commit of one worker in a process of its own, while the test plays all others: what each end of a
 * commit request means to its owner; and of the test itself holding the write lock, with commit requests
 * laid out by hand. */
#include <sqlite3.h>
#include <unistd.h>

#include "tests/lib/group_rig.h"

#define OTHER (GROUP_RIG_WORKER + 20)

static struct process_group_commit group_commit; /* the test's own */

static char taken_body[SHM_COMMIT_REQUEST_BYTES];
static struct store_answer taken_answers[COMMIT_REQUEST_RESULTS];

/* A worker of five answers waits with its commit request waiting for a write lock that the test holds. */
static void begin_waiting(void)
{
    group_rig_begin(20);
    group_rig_report(GROUP_RIG_WORKER, STORE_ADVANCE, 0, 3);
    group_rig_report(GROUP_RIG_WORKER, STORE_COMPLETE, 3, 2);
    group_rig_fork(GROUP_RIG_WORKER, NULL);
    group_rig_open();
    group_rig_shut();
    group_rig_go(GROUP_RIG_WORKER);
    group_rig_await(GROUP_RIG_WORKER, COMMIT_REQUEST_WAITING);
}

/* Takes it as another worker would. */
static struct store_group_member take_it(void)
{
    uint32_t step = 1, slot = 0, bytes = 0;
    struct store_group_member taken = {0};
    CU_ASSERT_TRUE_FATAL(commit_request_take(&group_rig_segment, OTHER, &step, &slot, taken_body, &bytes));
    CU_ASSERT_EQUAL(slot, GROUP_RIG_WORKER);
    CU_ASSERT_TRUE_FATAL(
        process_group_codec_decode(taken_body, bytes, &taken, taken_answers, COMMIT_REQUEST_RESULTS));
    CU_ASSERT_EQUAL(taken.pid, group_rig_at(GROUP_RIG_WORKER)->pid);
    CU_ASSERT_EQUAL(taken.source, fixture.source);
    CU_ASSERT_EQUAL(taken.stage, fixture.stages[0]);
    CU_ASSERT_EQUAL(taken.count, 5);
    return taken;
}

static void commit_it(struct store_group_member *taken)
{
    CU_ASSERT_EQUAL(store_commit(fixture.store, taken->source, taken->stage, taken->answers, taken->count),
                    0);
}

/* Once each, whoever did it. */
static void end_counted_once(void)
{
    group_rig_through(GROUP_RIG_WORKER);
    CU_ASSERT_EQUAL(stage_totals().processed, 5);
    CU_ASSERT_EQUAL(totals().completed, 2);
    CU_ASSERT_EQUAL(totals().live, 18);
    group_rig_end();
}

static void what_is_done_is_believed(void)
{
    static const bool wanted[] = {true, false, true, true, false};
    begin_waiting();
    take_it();
    commit_request_complete(&group_rig_segment, OTHER, GROUP_RIG_WORKER, COMMIT_REQUEST_DONE, 1 | 4 | 8);
    group_rig_let_go();
    CU_ASSERT_EQUAL(group_rig_wait(GROUP_RIG_WORKER), 0);
    for (size_t i = 0; i < 5; i++)
        CU_ASSERT_EQUAL(group_rig_at(GROUP_RIG_WORKER)->applied[i], wanted[i]);
    CU_ASSERT_EQUAL(group_rig_state(GROUP_RIG_WORKER), COMMIT_REQUEST_NONE);
    CU_ASSERT_EQUAL(atomic_load(&group_rig->commits), 0);
    group_rig_end();
}

static void what_comes_back_is_done_by_its_owner(void)
{
    begin_waiting();
    take_it();
    commit_request_complete(&group_rig_segment, OTHER, GROUP_RIG_WORKER, COMMIT_REQUEST_RETURNED, 0);
    group_rig_let_go();
    end_counted_once();
}

static void in_doubt_and_committed(void)
{
    begin_waiting();
    struct store_group_member taken = take_it();
    group_rig_let_go();
    commit_it(&taken);
    commit_request_recover(&group_rig_segment, OTHER);
    end_counted_once();
}

static void in_doubt_and_not_committed(void)
{
    begin_waiting();
    take_it();
    group_rig_let_go();
    commit_request_recover(&group_rig_segment, OTHER);
    end_counted_once();
}

/* The store refuses it for a while: it stays in doubt until it has succeeded. */
static void in_doubt_until_it_succeeds(void)
{
    group_rig_begin(20);
    group_rig_report(GROUP_RIG_WORKER, STORE_ADVANCE, 0, 3);
    group_rig_report(GROUP_RIG_WORKER, STORE_COMPLETE, 3, 2);
    fixture.options.busy_timeout_ms = 20;
    group_rig_fork(GROUP_RIG_WORKER, NULL);
    fixture.options.busy_timeout_ms = 120000;
    group_rig_open();
    group_rig_shut();
    group_rig_go(GROUP_RIG_WORKER);
    group_rig_await(GROUP_RIG_WORKER, COMMIT_REQUEST_WAITING);
    struct store_group_member taken = take_it();
    group_rig_let_go();
    commit_it(&taken);
    sqlite3 *locker;
    CU_ASSERT_EQUAL(sqlite3_open(store_files_path(), &locker), SQLITE_OK);
    sqlite3_busy_timeout(locker, 120000);
    CU_ASSERT_EQUAL(sqlite3_exec(locker, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    commit_request_recover(&group_rig_segment, OTHER);
    while (atomic_load(&group_rig_at(GROUP_RIG_WORKER)->refusals) < 2)
        group_rig_nap();
    sqlite3_close(locker);
    end_counted_once();
}

/* ---- the test's own commit takes what was laid out by hand ---- */

static void group_commit_begin(size_t count)
{
    group_rig_begin(count);
    group_rig_open();
    memset(&group_commit, 0, sizeof group_commit);
    group_commit.segment = &group_rig_segment;
    group_commit.slot = GROUP_RIG_TEST_SLOT;
    group_commit.pid = (int32_t)getpid();
    group_commit.store = fixture.store;
}

static struct store_answer finish_of(size_t event)
{
    return (struct store_answer){.lock = group_rig_held.at[event], .change = STORE_COMPLETE};
}

static void lay_out(uint32_t slot, const size_t *events, size_t count)
{
    struct store_answer answers[COMMIT_REQUEST_RESULTS];
    struct store_group_member other = {
        .source = fixture.source, .stage = fixture.stages[1], .pid = 7, .answers = answers, .count = count};
    for (size_t i = 0; i < count; i++)
        answers[i] = finish_of(events[i]);
    size_t bytes = process_group_codec_encode(&other, commit_request_body(&group_rig_segment, slot),
                                              SHM_COMMIT_REQUEST_BYTES);
    CU_ASSERT_FATAL(bytes > 0);
    commit_request_submit(&group_rig_segment, slot, (uint32_t)bytes);
}

static void commit_one(size_t event)
{
    struct store_answer own = finish_of(event);
    CU_ASSERT_EQUAL(process_group_commit(&group_commit, fixture.source, fixture.stages[0], &own, 1), 0);
    CU_ASSERT_TRUE(own.applied);
}

static void expect_done(uint32_t slot, uint32_t wanted)
{
    uint32_t result;
    CU_ASSERT_EQUAL(commit_request_poll(&group_rig_segment, slot, &result), COMMIT_REQUEST_DONE);
    CU_ASSERT_EQUAL(result, wanted);
}

static void each_is_told_of_its_own(void)
{
    group_commit_begin(20);
    CU_ASSERT_TRUE(unlock(group_rig_held.at[4], (struct store_unlock){0})); /* a lock that was lost */
    lay_out(OTHER, (const size_t[]){1, 2}, 2);
    lay_out(OTHER + 1, (const size_t[]){3, 4, 5}, 3);
    lay_out(OTHER + 2, (const size_t[]){6}, 1);
    commit_one(0);
    expect_done(OTHER, 3);
    expect_done(OTHER + 1, 1 | 4);
    expect_done(OTHER + 2, 1);
    CU_ASSERT_EQUAL(totals().completed, 6);
    group_rig_end();
}

static void what_cannot_be_read_goes_back(void)
{
    uint32_t result;
    group_commit_begin(20);
    memset(commit_request_body(&group_rig_segment, OTHER), 0xff, 100);
    commit_request_submit(&group_rig_segment, OTHER, 100);
    lay_out(OTHER + 1, (const size_t[]){1}, 1);
    commit_one(0);
    CU_ASSERT_EQUAL(commit_request_poll(&group_rig_segment, OTHER, &result), COMMIT_REQUEST_RETURNED);
    expect_done(OTHER + 1, 1);
    CU_ASSERT_EQUAL(totals().completed, 2);
    group_rig_end();
}

/* No more than there is room for; the others wait for the next. */
static void as_many_as_there_is_room_for(void)
{
    uint32_t result, done = 0, requests = GROUP_RIG_WORKERS;
    size_t most = 0;
    group_commit_begin(2 + GROUP_RIG_WORKERS * COMMIT_REQUEST_RESULTS);
    for (size_t each = 1; each <= COMMIT_REQUEST_RESULTS; each += COMMIT_REQUEST_RESULTS - 1) {
        for (uint32_t i = 0; i < requests; i++) {
            size_t events[COMMIT_REQUEST_RESULTS];
            for (size_t at = 0; at < each; at++)
                events[at] = 2 + i * COMMIT_REQUEST_RESULTS + (each == 1 ? COMMIT_REQUEST_RESULTS - 1 : at);
            lay_out(GROUP_RIG_WORKER + i, events, each == 1 ? 1 : 8);
        }
        for (int turns = 0; done < requests; turns++) {
            struct store_answer own = {.lock = {0, 0}, .change = STORE_COMPLETE};
            CU_ASSERT_FATAL(turns < (int)requests);
            CU_ASSERT_EQUAL(process_group_commit(&group_commit, fixture.source, fixture.stages[0], &own, 1),
                            0);
            CU_ASSERT_FALSE(own.applied);
            size_t now = 0;
            for (uint32_t i = 0; i < requests; i++)
                if (commit_request_poll(&group_rig_segment, GROUP_RIG_WORKER + i, &result) ==
                    COMMIT_REQUEST_DONE) {
                    CU_ASSERT_EQUAL(result, each == 1 ? 1 : 0xff);
                    commit_request_clear(&group_rig_segment, GROUP_RIG_WORKER + i);
                    now++;
                }
            CU_ASSERT_FATAL(now > 0 && now <= PROCESS_GROUP_COMMIT_OTHERS &&
                            now * (each == 1 ? 1 : 8) <= PROCESS_GROUP_COMMIT_ANSWERS);
            most = now > most ? now : most;
            done += (uint32_t)now;
        }
        CU_ASSERT_EQUAL(most, each == 1 ? PROCESS_GROUP_COMMIT_OTHERS
                                        : (size_t)PROCESS_GROUP_COMMIT_ANSWERS / 8 - 1);
        done = 0, most = 0;
    }
    CU_ASSERT_EQUAL(totals().completed, GROUP_RIG_WORKERS * 9);
    group_rig_end();
}

/* An owner crashes while its commit request is in the transaction, and its successor submits one before the
 * end of it. */
static void successor_submits(void *user, int change, const char *schema, const char *table,
                              sqlite3_int64 row)
{
    (void)change, (void)schema, (void)table, (void)row;
    if ((*(int *)user)++ != 0)
        return;
    commit_request_recover(&group_rig_segment, OTHER);
    lay_out(OTHER, (const size_t[]){5, 5, 6}, 3);
}

static void a_result_never_meets_another_request(void)
{
    uint32_t result;
    int changes = 0;
    group_commit_begin(20);
    lay_out(OTHER, (const size_t[]){1, 2}, 2);
    sqlite3_update_hook(store_sqlite_of(fixture.store)->db, successor_submits, &changes);
    commit_one(0);
    sqlite3_update_hook(store_sqlite_of(fixture.store)->db, NULL, NULL);
    CU_ASSERT(changes > 0);
    enum commit_request_state state = commit_request_poll(&group_rig_segment, OTHER, &result);
    CU_ASSERT(state == COMMIT_REQUEST_RETURNED || (state == COMMIT_REQUEST_DONE && result == (1 | 4)));
    CU_ASSERT_EQUAL(totals().completed, state == COMMIT_REQUEST_RETURNED ? 3 : 5);
    group_rig_end();
}

int main(void)
{
    const struct unit_case cases[] = {{"what is done is believed", what_is_done_is_believed},
                                      {"what comes back is done by its owner",
                                       what_comes_back_is_done_by_its_owner},
                                      {"in doubt, and committed", in_doubt_and_committed},
                                      {"in doubt, and not committed", in_doubt_and_not_committed},
                                      {"in doubt until it succeeds", in_doubt_until_it_succeeds},
                                      {"each is told of its own", each_is_told_of_its_own},
                                      {"what cannot be read goes back", what_cannot_be_read_goes_back},
                                      {"as many as there is room for", as_many_as_there_is_room_for},
                                      {"a result never meets another commit request",
                                       a_result_never_meets_another_request}};
    alarm(GROUP_RIG_WATCHDOG_S);
    return unit_run("group commit", cases, sizeof cases / sizeof cases[0]);
}
