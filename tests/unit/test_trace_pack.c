/* SPDX-License-Identifier: MIT */
/* The trace's rows: what is packed comes out again, small; any bytes are taken. */
#include "src/store/trace_pack.h"
#include "tests/lib/unit.h"

static void expect_same(const struct store_trace_step *a, const struct store_trace_step *b)
{
    CU_ASSERT_EQUAL(a->at_ms, b->at_ms);
    CU_ASSERT_EQUAL(a->kind, b->kind);
    CU_ASSERT_EQUAL(a->reason, b->reason);
    CU_ASSERT_EQUAL(a->event, b->event);
    CU_ASSERT_EQUAL(a->stage, b->stage);
    CU_ASSERT_EQUAL(a->pid, b->pid);
    CU_ASSERT_EQUAL(a->attempt, b->attempt);
    CU_ASSERT_EQUAL(a->duration_us, b->duration_us);
    CU_ASSERT_EQUAL(a->due_ms, b->due_ms);
    CU_ASSERT_EQUAL(a->uid_hash, b->uid_hash);
    CU_ASSERT_EQUAL_FATAL(a->error_bytes, b->error_bytes);
    CU_ASSERT(a->error_bytes == 0 || memcmp(a->error, b->error, a->error_bytes) == 0);
}

static void round_trip(const struct store_trace_step *steps, size_t count, uint64_t at_ms, size_t most_bytes)
{
    struct trace_pack pack = {0};
    struct trace_unpack unpack;
    struct store_trace_step step;
    store_trace_pack_begin(&pack, at_ms);
    CU_ASSERT_FALSE(store_trace_pack_has_steps(&pack));
    for (size_t i = 0; i < count; i++)
        store_trace_pack_add(&pack, &steps[i]);
    CU_ASSERT_TRUE(store_trace_pack_has_steps(&pack));
    CU_ASSERT(pack.used <= most_bytes);
    store_trace_unpack_begin(&unpack, at_ms, pack.bytes, pack.used);
    for (size_t i = 0; i < count; i++) {
        CU_ASSERT_TRUE_FATAL(store_trace_unpack_next(&unpack, &step));
        CU_ASSERT_EQUAL(unpack.moved, steps[i].at_ms != at_ms);
        expect_same(&step, &steps[i]);
    }
    CU_ASSERT_FALSE(store_trace_unpack_next(&unpack, &step));
    store_trace_pack_free(&pack);
}

static void test_round_trip(void)
{
    static const struct store_trace_step extremes[] = {
        {.kind = STORE_TRACE_STEP_FETCHED, .at_ms = 1000, .event = INT64_MAX, .uid_hash = UINT64_MAX},
        {.kind = STORE_TRACE_STEP_INJECTED, .at_ms = 0, .event = INT64_MIN, .uid_hash = 1},
        {.kind = STORE_TRACE_STEP_FAILED,
         .at_ms = UINT64_MAX,
         .event = -1,
         .stage = INT64_MAX,
         .pid = INT32_MAX,
         .attempt = UINT32_MAX,
         .duration_us = INT64_MAX,
         .due_ms = 1,
         .reason = STORE_REASON_CORRUPT,
         .error = "no\0way",
         .error_bytes = 6},
        {.kind = STORE_TRACE_STEP_REQUEUED, .at_ms = 1000, .event = 0},
        {.kind = STORE_TRACE_STEP_CRASHED, .at_ms = 1000, .event = 5, .attempt = 0, .due_ms = UINT64_MAX},
    };
    round_trip(extremes, sizeof extremes / sizeof extremes[0], 1000, 400);
}

/* What an event costs at full speed. */
static void test_small(void)
{
    enum { COUNT = 100, FIRST = 1 << 20 };
    struct store_trace_step steps[COUNT];
    for (int64_t i = 0; i < COUNT; i++)
        steps[i] = (struct store_trace_step){.kind = STORE_TRACE_STEP_FETCHED,
                                             .at_ms = 7,
                                             .event = FIRST + i,
                                             .pid = 4711,
                                             .uid_hash = (uint64_t)i << 40};
    round_trip(steps, COUNT, 7, 10 * COUNT);
    for (int64_t i = 0; i < COUNT; i++)
        steps[i] = (struct store_trace_step){.kind = STORE_TRACE_STEP_PROCESSED,
                                             .at_ms = 7,
                                             .event = FIRST + i,
                                             .stage = 3,
                                             .pid = 4711,
                                             .attempt = 1,
                                             .duration_us = 300};
    round_trip(steps, COUNT, 7, 4 * COUNT);
}

static void test_long_errors(void)
{
    char error[400];
    for (size_t i = 0; i < sizeof error; i += 2)
        memcpy(error + i, i == 0 ? "ab" : "\xc3\xa4", 2);
    error[1] = '\xc3'; /* from here on characters of two bytes begin at odd places */
    for (size_t i = 2; i + 1 < sizeof error; i += 2)
        memcpy(error + i, "\xa4\xc3", 2);
    struct trace_pack pack = {0};
    struct trace_unpack unpack;
    struct store_trace_step step = {
        .kind = STORE_TRACE_STEP_FAILED, .at_ms = 1, .event = 1, .error = error, .error_bytes = sizeof error};
    store_trace_pack_begin(&pack, 1);
    store_trace_pack_add(&pack, &step);
    store_trace_unpack_begin(&unpack, 1, pack.bytes, pack.used);
    CU_ASSERT_TRUE_FATAL(store_trace_unpack_next(&unpack, &step));
    CU_ASSERT_EQUAL(step.error_bytes, TRACE_ERROR_MAX - 1); /* not half a character */
    store_trace_pack_free(&pack);
}

/* Any bytes: each step that comes out is within its bounds, and it ends. The bytes stand in memory of just
 * their size, so that a sanitizer sees a look beyond them. */
static void take_bytes(const unsigned char *bytes, size_t count)
{
    unsigned char *exact = malloc(count > 0 ? count : 1);
    struct trace_unpack unpack;
    struct store_trace_step step;
    size_t steps = 0, sum = 0;
    CU_ASSERT_PTR_NOT_NULL_FATAL(exact);
    if (count > 0)
        memcpy(exact, bytes, count);
    store_trace_unpack_begin(&unpack, 1000, exact, count);
    while (store_trace_unpack_next(&unpack, &step)) {
        steps++;
        for (size_t i = 0; i < step.error_bytes; i++)
            sum += (unsigned char)step.error[i];
        if (step.kind >= STORE_TRACE_STEP_KINDS || step.reason >= STORE_REASON_KINDS || step.pid < 0 ||
            step.error_bytes > TRACE_ERROR_MAX || step.stage < 0)
            CU_FAIL("a step out of bounds");
    }
    if (steps > count || sum > count * 255)
        CU_FAIL("more than there is");
    free(exact);
}

static void test_any_bytes(void)
{
    unsigned char bytes[300] = {0};
    uint64_t dice = 88172645463325252u;
    struct trace_pack pack = {0};
    for (int round = 0; round < 20000; round++) {
        size_t count = (size_t)round % sizeof bytes;
        for (size_t i = 0; i < count; i++) {
            dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
            bytes[i] = (unsigned char)(round % 2 == 0 ? dice : dice & 0x87);
        }
        bytes[0] = round % 10 == 0 ? bytes[0] : 1;
        take_bytes(bytes, count);
    }
    const struct store_trace_step whole = {.kind = STORE_TRACE_STEP_FAILED,
                                           .at_ms = 5,
                                           .event = 9,
                                           .stage = 300,
                                           .pid = 70000,
                                           .attempt = 3,
                                           .duration_us = 70000,
                                           .due_ms = 900,
                                           .reason = STORE_REASON_EXPIRED,
                                           .error = "words",
                                           .error_bytes = 5};
    store_trace_pack_begin(&pack, 1000);
    store_trace_pack_add(&pack, &whole);
    for (size_t cut = 0; cut < pack.used; cut++) {
        struct trace_unpack unpack;
        struct store_trace_step step;
        take_bytes(pack.bytes, cut);
        store_trace_unpack_begin(&unpack, 1000, pack.bytes, cut);
        CU_ASSERT_FALSE(store_trace_unpack_next(&unpack, &step));
    }
    store_trace_pack_free(&pack);
}

static void test_hash(void)
{
    CU_ASSERT_EQUAL(store_trace_uid_hash(""), UINT64_C(0xcbf29ce484222325)); /* FNV-1a's own examples */
    CU_ASSERT_EQUAL(store_trace_uid_hash("foobar"), UINT64_C(0x85944171f73967e8));
}

UNIT_MAIN("trace_pack", {"what goes in comes out", test_round_trip}, {"few bytes", test_small},
          {"long errors are cut between characters", test_long_errors}, {"any bytes", test_any_bytes},
          {"hash", test_hash})
