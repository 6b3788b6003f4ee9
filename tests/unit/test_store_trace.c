/* SPDX-License-Identifier: MIT */
/* The store's trace: each step is told once, in order, and only what was done; its size is bounded, by age
 * and by bytes. */
#include <stdio.h>
#include <unistd.h>

#include "tests/lib/store_fixture.h"

#define PIECES_MAX 10000

struct seen {
    size_t count, live;
    struct store_trace_step at[64];
    char error[64][40];
};

static int on_step(const struct store_trace_step *step, void *user)
{
    struct seen *seen = user;
    CU_ASSERT_FATAL(seen->count < 64);
    snprintf(seen->error[seen->count], sizeof seen->error[0], "%s", step->error != NULL ? step->error : "");
    seen->at[seen->count++] = *step;
    return 0;
}

static struct seen story(const char *uid)
{
    struct seen seen = {0}, same = {0};
    CU_ASSERT_EQUAL(store_trace(fixture.store, fixture.source, uid, on_step, &seen, &seen.live), 0);
    CU_ASSERT_EQUAL(store_trace(fixture.store, 0, uid, on_step, &same, &same.live), 0);
    CU_ASSERT_EQUAL(seen.count, same.count);
    for (size_t i = 1; i < seen.count; i++)
        CU_ASSERT(seen.at[i].event > seen.at[i - 1].event || seen.at[i].at_ms >= seen.at[i - 1].at_ms);
    return seen;
}

static void expect_kinds(const struct seen *seen, size_t count, const enum store_trace_step_kind *kinds)
{
    CU_ASSERT_EQUAL_FATAL(seen->count, count);
    for (size_t i = 0; i < count; i++)
        CU_ASSERT_EQUAL(seen->at[i].kind, kinds[i]);
}

static void begin_traced(void)
{
    fixture_begin();
    fixture.options.trace = true;
    fixture_restart();
}

static void trim(uint64_t now_ms, uint64_t keep_ms, uint64_t bytes)
{
    int code = 1, pieces = 0;
    while (code == 1 && pieces++ < PIECES_MAX)
        code = store_trim_trace(fixture.store, now_ms, keep_ms, bytes);
    CU_ASSERT_EQUAL(code, 0);
}

static const uint64_t far_ms = UINT64_C(1) << 42; /* later than any clock of these tests */

static void each_step_is_told(void)
{
    static const enum store_trace_step_kind kinds[] = {STORE_TRACE_STEP_FETCHED,  STORE_TRACE_STEP_PROCESSED,
                                                       STORE_TRACE_STEP_FAILED,   STORE_TRACE_STEP_LOST,
                                                       STORE_TRACE_STEP_CRASHED,  STORE_TRACE_STEP_TIMEOUT,
                                                       STORE_TRACE_STEP_REJECTED, STORE_TRACE_STEP_HELD,
                                                       STORE_TRACE_STEP_RELEASED, STORE_TRACE_STEP_COMPLETED};
    struct held held;
    begin_traced();
    ingest("other", 0, 3);
    ingest("e", 1, 1);
    claim(&held, 3, 1000);
    claim(&held, 1, 1000);
    CU_ASSERT(answer(
        held.at[0],
        (struct store_answer){.change = STORE_ADVANCE, .done = "first\n", .attempt = 1, .duration_us = 250}));
    CU_ASSERT(answer(held.at[0], (struct store_answer){.change = STORE_DELAY,
                                                       .failed = true,
                                                       .attempt = 1,
                                                       .due_ms = 5,
                                                       .error = "no such pump"}));
    CU_ASSERT_FALSE(
        answer(held.at[0], (struct store_answer){.change = STORE_REMOVE_BY_STAGE})); /* not ours: not told */
    claim(&held, 1, 1000);
    CU_ASSERT(unlock(held.at[0], (struct store_unlock){.pid = 77, .stage = fixture.stages[1]}));
    claim(&held, 1, 1000);
    CU_ASSERT(unlock(held.at[0], (struct store_unlock){.pid = 78,
                                                       .crashed = true,
                                                       .stage = fixture.stages[1],
                                                       .due_ms = 6,
                                                       .error = "signal 11"}));
    claim(&held, 1, 1000);
    CU_ASSERT(
        unlock(held.at[0],
               (struct store_unlock){.pid = 79, .timed_out = true, .stage = fixture.stages[1], .due_ms = 7}));
    claim(&held, 1, 1000);
    CU_ASSERT(answer(held.at[0], (struct store_answer){.change = STORE_DEAD_LETTER,
                                                       .reason = STORE_REASON_REJECTED,
                                                       .attempt = 4}));
    struct store_select select = {.uids = (const char *const[]){"e1"}, .uid_count = 1, .state = -1};
    uint64_t changed;
    CU_ASSERT_EQUAL(store_change(fixture.store, &select, STORE_HOLD, false, NULL, NULL, &changed), 0);
    CU_ASSERT_EQUAL(store_change(fixture.store, &select, STORE_RELEASE, false, NULL, NULL, &changed), 0);
    CU_ASSERT_EQUAL(story("e1").live, 1);
    claim(&held, 1, 1000);
    CU_ASSERT(answer(held.at[0], (struct store_answer){.change = STORE_COMPLETE, .attempt = 5}));
    fixture_restart();

    struct seen seen = story("e1");
    CU_ASSERT_EQUAL(seen.live, 0);
    expect_kinds(&seen, sizeof kinds / sizeof kinds[0], kinds);
    CU_ASSERT_EQUAL(seen.at[0].pid, getpid());
    CU_ASSERT_EQUAL(seen.at[1].duration_us, 250);
    CU_ASSERT_EQUAL(seen.at[1].pid, getpid());
    CU_ASSERT_EQUAL(seen.at[1].stage, fixture.stages[0]);
    CU_ASSERT_EQUAL(seen.at[2].due_ms, 5);
    CU_ASSERT_STRING_EQUAL(seen.error[2], "no such pump");
    CU_ASSERT_EQUAL(seen.at[3].pid, 77);
    CU_ASSERT_EQUAL(seen.at[4].pid, 78);
    CU_ASSERT_EQUAL(seen.at[4].stage, fixture.stages[1]);
    CU_ASSERT_EQUAL(seen.at[4].attempt, 2); /* after the failure */
    CU_ASSERT_EQUAL(seen.at[4].due_ms, 6);
    CU_ASSERT_STRING_EQUAL(seen.error[4], "signal 11");
    CU_ASSERT_EQUAL(seen.at[5].attempt, 3);
    CU_ASSERT_EQUAL(seen.at[6].reason, STORE_REASON_REJECTED);
    CU_ASSERT_EQUAL(story("other0").count, 1);
    CU_ASSERT_EQUAL(story("other0").live, 1);
    CU_ASSERT_EQUAL(story("nobody").count, 0);

    ingest("e", 1, 1); /* the same uid, once more */
    seen = story("e1");
    CU_ASSERT_EQUAL(seen.count, 11);
    CU_ASSERT_EQUAL(seen.live, 1);
    fixture_end();
}

static void without_it_nothing_is_kept(void)
{
    begin_traced();
    ingest("e", 1, 1);
    CU_ASSERT_EQUAL(story("e1").count, 1);
    fixture.options.trace = false;
    fixture_restart();
    ingest("e", 2, 1);
    struct seen seen = story("e2");
    CU_ASSERT_EQUAL(seen.count, 0);
    CU_ASSERT_EQUAL(seen.live, 1);
    fixture_end();
}

/* Runs `count` events through, one transaction each. */
static void run_through(int count)
{
    struct held held;
    for (int i = 0; i < count; i++) {
        ingest("gone", i, 1);
        claim(&held, 1, 1000);
        CU_ASSERT_EQUAL_FATAL(held.count, 1);
        CU_ASSERT(answer(held.at[0], (struct store_answer){.change = STORE_COMPLETE, .attempt = 1}));
    }
}

static void old_steps_go(void)
{
    struct held held;
    begin_traced();
    ingest("live", 0, 1);
    claim(&held, 1, 1000);
    struct store_event_lock lives = held.at[0];
    run_through(600); /* more than a piece */
    trim(1, 1, UINT64_MAX);
    CU_ASSERT_EQUAL(story("gone0").count, 2);
    trim(far_ms, 1, UINT64_MAX);
    for (int i = 0; i < 599; i += 99) {
        char uid[16];
        snprintf(uid, sizeof uid, "gone%d", i);
        CU_ASSERT_EQUAL(story(uid).count, 0);
    }
    CU_ASSERT_EQUAL(story("live0").count, 1); /* it still lives */
    CU_ASSERT(answer(lives, (struct store_answer){.change = STORE_COMPLETE, .attempt = 1}));
    struct seen seen = story("live0");
    expect_kinds(&seen, 2,
                 (const enum store_trace_step_kind[]){STORE_TRACE_STEP_FETCHED, STORE_TRACE_STEP_COMPLETED});
    ingest("last", 0, 1);
    trim(3 * far_ms, 1, UINT64_MAX); /* long after what was kept had been written again */
    CU_ASSERT_EQUAL(story("live0").count, 0);
    run_through(1);
    fixture_end();
}

static void off_takes_all_but_the_last(void)
{
    begin_traced();
    ingest("live", 0, 1);
    ingest("live", 1, 1);
    ingest("live", 2, 1);
    trim(far_ms, 0, 0);
    CU_ASSERT_EQUAL(story("live0").count, 0);
    CU_ASSERT_EQUAL(story("live1").count, 0);
    fixture_end();
}

static void size_is_bounded(void)
{
    struct held held;
    begin_traced();
    ingest("live", 0, 1);
    claim(&held, 1, 1000);
    for (int i = 0; i < 5; i++) {
        run_through(300);
        trim(1, 1000, 2000); /* a row counts for some 30 bytes */
    }
    CU_ASSERT_EQUAL(story("gone0").count, 0);
    CU_ASSERT_EQUAL(story("live0").count, 1);
    CU_ASSERT(story("gone299").count >= 2);
    size_t kept = 0;
    for (int i = 0; i < 300; i++) {
        char uid[16];
        snprintf(uid, sizeof uid, "gone%d", i);
        kept += story(uid).count;
    }
    CU_ASSERT(kept > 10 && kept < 200);
    /* What lives does not stop it either. */
    for (int i = 0; i < 40; i++)
        ingest("wait", 100 * i, 100);
    trim(1, 1000, 2000);
    for (int i = 0; i < 4000; i += 50) {
        char uid[16];
        snprintf(uid, sizeof uid, "wait%d", i);
        struct seen seen = story(uid);
        CU_ASSERT_EQUAL(seen.live, 1);
        kept += seen.count;
    }
    CU_ASSERT(kept < 300);
    fixture_end();
}

STORE_MAIN("store: trace", {"each step is told", each_step_is_told},
           {"without it nothing is kept", without_it_nothing_is_kept}, {"old steps go", old_steps_go},
           {"off takes all but the last row", off_takes_all_but_the_last},
           {"its size is bounded", size_is_bounded})
