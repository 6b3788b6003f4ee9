/* SPDX-License-Identifier: MIT */
/* Where an event enters its chain, and what each answer does to it. */
#include "src/process/chain.h"
#include "tests/lib/unit.h"

static struct stage_config stages[3];
static struct source_config source;

static void set_up(const char *first, const char *second, const char *third)
{
    const char *names[] = {first, second, third};
    memset(&source, 0, sizeof source);
    memset(stages, 0, sizeof stages);
    source.stages = stages;
    for (size_t i = 0; i < 3 && names[i] != NULL; i++) {
        stages[i].name = (char *)names[i];
        stages[i].retry = (struct retry_config){.min_ms = 1000, .max_ms = 60000};
        source.stage_count++;
    }
}

static struct chain_answer answer(size_t position, const char *done, uint32_t attempts, enum ep_answer given,
                                  uint64_t retry_after_ms)
{
    struct store_row row = {
        .uid = "u", .data = "{}", .context = "", .done = done, .attempts = attempts, .arrival_ms = 1000};
    struct ep_call call = {
        .source = "s", .stage = stages[position].name, .uid = "u", .event = "{}", .event_bytes = 2};
    stage_call_open(&call);
    call.answer = given;
    call.retry_after_ms = retry_after_ms;
    struct chain_answer out;
    CU_ASSERT_EQUAL(process_chain_apply_answer(&source, position, &row, &call, 500000, 0, &out), 0);
    return out;
}

static void names_are_whole_lines(void)
{
    CU_ASSERT_TRUE(process_chain_is_stage_done("a\nbc\n", "a"));
    CU_ASSERT_TRUE(process_chain_is_stage_done("a\nbc\n", "bc"));
    CU_ASSERT_FALSE(process_chain_is_stage_done("a\nbc\n", "b"));
    CU_ASSERT_FALSE(process_chain_is_stage_done("a\nbc\n", "c"));
    CU_ASSERT_FALSE(process_chain_is_stage_done("", "a"));
}

static void an_event_enters_at_the_first_stage_not_done(void)
{
    set_up("a", "b", "c");
    CU_ASSERT_EQUAL(process_chain_find_next(&source, ""), 0);
    CU_ASSERT_EQUAL(process_chain_find_next(&source, "a\n"), 1);
    CU_ASSERT_EQUAL(process_chain_find_next(&source, "b\na\n"), 2);
    CU_ASSERT_EQUAL(process_chain_find_next(&source, "a\nb\nc\n"), 3);
    set_up("new", "b", NULL); /* a was dropped, new was added in front */
    CU_ASSERT_EQUAL(process_chain_find_next(&source, "a\nb\n"), 0);
    CU_ASSERT_EQUAL(process_chain_find_next(&source, "new\nb\n"), 2);
}

static void processed_goes_on_and_the_last_finishes(void)
{
    set_up("a", "b", "c");
    struct chain_answer out = answer(0, "", 4, EP_PROCESSED, 0);
    CU_ASSERT_EQUAL(out.store.change, STORE_ADVANCE);
    CU_ASSERT_STRING_EQUAL(out.store.done, "a\n");
    CU_ASSERT_EQUAL(out.next, 1);
    free(out.done);
    out = answer(0, "b\n", 0, EP_PROCESSED, 0); /* b was done before a was put in front of it */
    CU_ASSERT_EQUAL(out.next, 2);
    CU_ASSERT_STRING_EQUAL(out.store.done, "b\na\n");
    free(out.done);
    out = answer(2, "a\nb\n", 0, EP_PROCESSED, 0);
    CU_ASSERT_EQUAL(out.store.change, STORE_COMPLETE);
    out = answer(1, "a\n", 0, EP_REMOVE, 0);
    CU_ASSERT_EQUAL(out.store.change, STORE_REMOVE_BY_STAGE);
}

static void not_processed_waits_longer_each_time(void)
{
    set_up("a", NULL, NULL);
    struct chain_answer first = answer(0, "", 0, EP_NOT_PROCESSED, 0);
    CU_ASSERT_EQUAL(first.store.change, STORE_DELAY);
    CU_ASSERT_FALSE(first.store.failed);
    CU_ASSERT_TRUE(first.store.due_ms >= 500750 && first.store.due_ms <= 501250);
    struct chain_answer fourth = answer(0, "", 3, EP_ERROR, 0);
    CU_ASSERT_TRUE(fourth.store.failed);
    CU_ASSERT_TRUE(fourth.store.due_ms >= 506000 && fourth.store.due_ms <= 510000);
    struct chain_answer asked = answer(0, "", 3, EP_NOT_PROCESSED, 12345);
    CU_ASSERT_EQUAL(asked.store.due_ms, 512345);
}

static void limits_make_it_dead(void)
{
    set_up("a", NULL, NULL);
    stages[0].max_attempts = 3;
    CU_ASSERT_EQUAL(answer(0, "", 1, EP_ERROR, 0).store.change, STORE_DELAY);
    struct chain_answer out = answer(0, "", 2, EP_ERROR, 0);
    CU_ASSERT_EQUAL(out.store.change, STORE_DEAD_LETTER);
    CU_ASSERT_EQUAL(out.store.reason, STORE_REASON_EXHAUSTED);
    stages[0].max_attempts = 0;
    stages[0].max_age_ms = 400000;
    out = answer(0, "", 2, EP_NOT_PROCESSED, 0);
    CU_ASSERT_EQUAL(out.store.reason, STORE_REASON_EXPIRED);
    stages[0].max_age_ms = 600000;
    CU_ASSERT_EQUAL(answer(0, "", 2, EP_NOT_PROCESSED, 0).store.change, STORE_DELAY);
    out = answer(0, "", 0, EP_REJECT, 0);
    CU_ASSERT_EQUAL(out.store.change, STORE_DEAD_LETTER);
    CU_ASSERT_EQUAL(out.store.reason, STORE_REASON_REJECTED);
    CU_ASSERT_PTR_NOT_NULL(out.store.error);
}

UNIT_MAIN("chain", {"names are whole lines", names_are_whole_lines},
          {"an event enters at the first stage not done", an_event_enters_at_the_first_stage_not_done},
          {"processed goes on, the last finishes", processed_goes_on_and_the_last_finishes},
          {"not processed waits longer each time", not_processed_waits_longer_each_time},
          {"limits make it dead", limits_make_it_dead})
