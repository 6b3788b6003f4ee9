/* SPDX-License-Identifier: MIT */
/* Group commit between processes: who finds the write lock held is taken along by whoever comes through it,
 * or killed with it in its hands. */
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/group_rig.h"

#define TAKER (GROUP_RIG_WORKER + 30)

/* ---- together ---- */

/* All submit while the write lock is held: the first to get it takes all others. */
static void together(uint32_t workers)
{
    group_rig_begin(6 * workers);
    for (uint32_t i = 0; i < workers; i++) {
        group_rig_report(GROUP_RIG_WORKER + i, STORE_ADVANCE, 6 * i, 2);
        group_rig_report(GROUP_RIG_WORKER + i, STORE_COMPLETE, 6 * i + 2, 2);
        group_rig_report(GROUP_RIG_WORKER + i, STORE_DELAY, 6 * i + 4, 1);
        group_rig_fork(GROUP_RIG_WORKER + i, NULL);
    }
    group_rig_open();
    group_rig_shut();
    for (uint32_t i = 0; i < workers; i++)
        group_rig_go(GROUP_RIG_WORKER + i);
    for (uint32_t i = 0; i < workers; i++)
        group_rig_await(GROUP_RIG_WORKER + i, COMMIT_REQUEST_WAITING);
    CU_ASSERT_EQUAL(atomic_load(&group_rig->commits), 0);
    group_rig_let_go();
    for (uint32_t i = 0; i < workers; i++)
        group_rig_through(GROUP_RIG_WORKER + i);
    CU_ASSERT_EQUAL(atomic_load(&group_rig->commits), 1);
    struct store_totals t = totals();
    CU_ASSERT_EQUAL(t.completed, 2 * workers);
    CU_ASSERT_EQUAL(t.delayed, workers);
    CU_ASSERT_EQUAL(t.live, 4 * workers);
    CU_ASSERT_EQUAL(stage_totals().processed, 4 * workers);
    CU_ASSERT_EQUAL(stage_totals().retried, workers);
    group_rig_end();
}

static void two_go_together(void)
{
    together(2);
}

static void many_go_together(void)
{
    together(12);
}

/* ---- a write lock that is free ---- */

static void alone_it_submits_nothing(void)
{
    group_rig_begin(10);
    group_rig_report(GROUP_RIG_WORKER, STORE_COMPLETE, 0, 10);
    group_rig_fork(GROUP_RIG_WORKER, NULL);
    group_rig_open();
    group_rig_go(GROUP_RIG_WORKER);
    group_rig_through(GROUP_RIG_WORKER);
    CU_ASSERT_EQUAL(atomic_load(&group_rig->commits), 1);
    CU_ASSERT_EQUAL(totals().completed, 10);
    group_rig_end();
}

/* ---- too large for a commit request ---- */

static bool somebody_queues(void)
{
    return (__atomic_load_n(&group_rig_segment.header->write_lock.__data.__lock, __ATOMIC_SEQ_CST) &
            (int)0x80000000) != 0;
}

static void take_the_write_lock(const struct group_rig_worker *worker)
{
    group_rig_fork(GROUP_RIG_WORKER, NULL);
    group_rig_open();
    group_rig_shut();
    group_rig_go(GROUP_RIG_WORKER);
    while (!somebody_queues()) {
        CU_ASSERT_EQUAL_FATAL(group_rig_state(GROUP_RIG_WORKER), COMMIT_REQUEST_NONE);
        group_rig_nap();
    }
    CU_ASSERT_EQUAL(group_rig_state(GROUP_RIG_WORKER), COMMIT_REQUEST_NONE);
    group_rig_let_go();
    group_rig_through(GROUP_RIG_WORKER);
    CU_ASSERT_EQUAL(totals().completed, worker->count);
    group_rig_end();
}

static void many_answers_take_the_write_lock(void)
{
    group_rig_begin(COMMIT_REQUEST_RESULTS + 1);
    take_the_write_lock(group_rig_report(GROUP_RIG_WORKER, STORE_COMPLETE, 0, COMMIT_REQUEST_RESULTS + 1));
}

static void long_texts_take_the_write_lock(void)
{
    static char text[SHM_COMMIT_REQUEST_BYTES];
    group_rig_begin(2);
    memset(text, 'x', sizeof text - 1);
    struct group_rig_worker *worker = group_rig_report(GROUP_RIG_WORKER, STORE_COMPLETE, 0, 2);
    worker->answers[1].context = text;
    worker->answers[1].context_bytes = sizeof text - 1;
    take_the_write_lock(worker);
}

/* ---- a taker that is killed ---- */

static void stand_still(void)
{
    atomic_store(&group_rig_self->stands, true);
    for (;;)
        pause();
}

/* A WAL that begins again is synced within the commit, too: then the write lock is held. */
static void stand_without_the_write_lock(void)
{
    if (write_lock_try(&group_rig_segment.header->write_lock) != 0)
        return;
    write_lock_release(&group_rig_segment.header->write_lock);
    stand_still();
}

/* Its answers and those of others are committed, and not known to be on the disk. */
static void stand_after_the_commit(struct store *store)
{
    (void)store;
    wal_syncs_before = stand_without_the_write_lock;
}

static int stand_in_the_commit(void *user)
{
    (void)user;
    stand_still();
    return 0;
}

static void stand_before_the_commit(struct store *store)
{
    sqlite3_commit_hook(store_sqlite_of(store)->db, stand_in_the_commit, NULL);
}

/* An owner's answers are in the hands of one that is killed: it does them itself, as far as they are not
 * done. */
static void kill_taker(void stand(struct store *store))
{
    group_rig_begin(20);
    group_rig_report(TAKER, STORE_COMPLETE, 0, 2);
    group_rig_report(GROUP_RIG_WORKER, STORE_ADVANCE, 2, 3);
    group_rig_report(GROUP_RIG_WORKER, STORE_COMPLETE, 5, 3);
    group_rig_report(GROUP_RIG_WORKER, STORE_DELAY, 8, 2);
    group_rig_report(GROUP_RIG_WORKER, STORE_REMOVE_BY_STAGE, 10, 2);
    struct group_rig_worker *worker = group_rig_report(GROUP_RIG_WORKER, STORE_DEAD_LETTER, 12, 1);
    worker->answers[worker->count - 1].reason = STORE_REASON_REJECTED;
    group_rig_fork(GROUP_RIG_WORKER, NULL);
    group_rig_fork(TAKER, stand);
    group_rig_shut();
    group_rig_go(GROUP_RIG_WORKER);
    group_rig_await(GROUP_RIG_WORKER, COMMIT_REQUEST_WAITING);
    kill(group_rig_at(GROUP_RIG_WORKER)->pid,
         SIGSTOP); /* so that it is not the first to hold the write lock */
    write_lock_release(&group_rig_segment.header->write_lock);
    group_rig_go(TAKER);
    while (!atomic_load(&group_rig_at(TAKER)->stands))
        group_rig_nap();
    CU_ASSERT_EQUAL(group_rig_state(GROUP_RIG_WORKER), COMMIT_REQUEST_TAKEN);
    kill(group_rig_at(GROUP_RIG_WORKER)->pid, SIGCONT);
    for (int i = 0; i < 100; i++) { /* it waits as long as the taker lives */
        CU_ASSERT_EQUAL_FATAL(waitpid(group_rig_at(GROUP_RIG_WORKER)->pid, NULL, WNOHANG), 0);
        CU_ASSERT_EQUAL_FATAL(group_rig_state(GROUP_RIG_WORKER), COMMIT_REQUEST_TAKEN);
        group_rig_nap();
    }
    kill(group_rig_at(TAKER)->pid, SIGKILL);
    CU_ASSERT_EQUAL(group_rig_wait(TAKER), SIGKILL);
    commit_request_recover(&group_rig_segment, TAKER);
    group_rig_through(GROUP_RIG_WORKER);
    group_rig_open();
    bool committed = stand == stand_after_the_commit;
    struct store_totals t = totals();
    CU_ASSERT_EQUAL(t.completed, committed ? 5 : 3);
    CU_ASSERT_EQUAL(t.removed_by_stage, 2);
    CU_ASSERT_EQUAL(t.delayed, 2);
    CU_ASSERT_EQUAL(t.dead, 1);
    struct store_stage_totals s = stage_totals();
    CU_ASSERT_EQUAL(s.processed, committed ? 8 : 6);
    CU_ASSERT_EQUAL(s.removed, 2);
    CU_ASSERT_EQUAL(s.retried, 2);
    CU_ASSERT_EQUAL(s.rejected, 1);
    group_rig_end();
}

static void killed_after_its_commit(void)
{
    kill_taker(stand_after_the_commit);
}

static void killed_before_its_commit(void)
{
    kill_taker(stand_before_the_commit);
}

/* ---- a taker whose transaction fails ---- */

static int refuse_once(void *user)
{
    (void)user;
    return atomic_fetch_add(&group_rig->commits, 1) == 0;
}

static void refuse_the_first(struct store *store)
{
    sqlite3_commit_hook(store_sqlite_of(store)->db, refuse_once, NULL);
}

static void a_failure_with_others_is_tried_alone(void)
{
    group_rig_begin(10);
    group_rig_report(TAKER, STORE_COMPLETE, 0, 2);
    group_rig_report(GROUP_RIG_WORKER, STORE_COMPLETE, 2, 3);
    group_rig_fork(GROUP_RIG_WORKER, NULL);
    group_rig_fork(TAKER, refuse_the_first);
    group_rig_open();
    group_rig_shut();
    group_rig_go(GROUP_RIG_WORKER);
    group_rig_await(GROUP_RIG_WORKER, COMMIT_REQUEST_WAITING);
    kill(group_rig_at(GROUP_RIG_WORKER)->pid, SIGSTOP);
    write_lock_release(&group_rig_segment.header->write_lock);
    group_rig_go(TAKER);
    group_rig_through(TAKER);
    CU_ASSERT_EQUAL(atomic_load(&group_rig->commits), 2);
    CU_ASSERT_EQUAL(totals().completed, 2);
    CU_ASSERT_EQUAL(group_rig_state(GROUP_RIG_WORKER), COMMIT_REQUEST_RETURNED);
    kill(group_rig_at(GROUP_RIG_WORKER)->pid, SIGCONT);
    group_rig_through(GROUP_RIG_WORKER);
    CU_ASSERT_EQUAL(atomic_load(&group_rig->commits), 3);
    CU_ASSERT_EQUAL(totals().completed, 5);
    group_rig_end();
}

static void a_failure_alone_is_told(void)
{
    group_rig_begin(10);
    group_rig_report(GROUP_RIG_WORKER, STORE_COMPLETE, 2, 3);
    group_rig_fork(GROUP_RIG_WORKER, refuse_the_first);
    group_rig_open();
    group_rig_go(GROUP_RIG_WORKER);
    CU_ASSERT_EQUAL(group_rig_wait(GROUP_RIG_WORKER), EP_ESTORE);
    CU_ASSERT_EQUAL(group_rig_applied(GROUP_RIG_WORKER), 0);
    CU_ASSERT_EQUAL(totals().completed, 0);
    group_rig_end();
}

int main(void)
{
    const struct unit_case cases[] = {{"two go together", two_go_together},
                                      {"many go together", many_go_together},
                                      {"alone it submits nothing", alone_it_submits_nothing},
                                      {"many answers take the write lock", many_answers_take_the_write_lock},
                                      {"so do long texts", long_texts_take_the_write_lock},
                                      {"a taker is killed after its commit", killed_after_its_commit},
                                      {"a taker is killed before its commit", killed_before_its_commit},
                                      {"a failure with others is tried alone",
                                       a_failure_with_others_is_tried_alone},
                                      {"a failure alone is told", a_failure_alone_is_told}};
    alarm(GROUP_RIG_WATCHDOG_S);
    return unit_run("group commit: processes", cases, sizeof cases / sizeof cases[0]);
}
