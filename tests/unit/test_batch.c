/* SPDX-License-Identifier: MIT */
/* A worker's batch, read from a store that stands in here: what is copied, what is lost, how much at a time;
 * and its pending answers, and who owns their texts. */
#include "src/process/batch.h"

#include <stdio.h>

#include "src/store/engine.h"
#include "tests/lib/unit.h"

#define EVENTS 100

/* A store of EVENTS events: event n has n's own text, of `bytes` bytes; some have other owners by now. */
static struct {
    struct store base;
    size_t bytes;
    bool lost[EVENTS + 1];
    int fail; /* what the next read returns */
    unsigned reads, rows;
} fake;

static int fake_read(struct store *store, const struct store_event_lock *locks, size_t count,
                     store_on_row *on_row, void *user)
{
    (void)store;
    fake.reads++;
    if (fake.fail != 0)
        return fake.fail;
    for (size_t i = 0; i < count; i++) {
        unsigned number = (unsigned)locks[i].event;
        if (number > EVENTS || fake.lost[number] || locks[i].token != 1000 + number)
            continue;
        char uid[16], context[32], *data = malloc(fake.bytes + 1);
        snprintf(uid, sizeof uid, "u%u", number);
        snprintf(context, sizeof context, "{\"c\":%u}", number);
        memset(data, 'a' + (int)(number % 26), fake.bytes);
        data[fake.bytes] = '\0';
        const struct store_row row = {.uid = uid,
                                      .data = data,
                                      .data_bytes = fake.bytes,
                                      .context = context,
                                      .context_bytes = strlen(context),
                                      .done = "first\n",
                                      .attempts = number,
                                      .crashes = number + 1,
                                      .arrival_ms = 5000 + number};
        int result = on_row(i, &row, user);
        free(data);
        if (result != 0)
            return result;
        fake.rows++;
    }
    return 0;
}

static struct batch batch;

static void set_up(size_t bytes, unsigned count)
{
    static const struct store_ops ops = {.read = fake_read};
    memset(&fake, 0, sizeof fake);
    fake.base.ops = &ops;
    fake.bytes = bytes;
    CU_ASSERT_EQUAL_FATAL(process_batch_open(&batch, EVENTS), 0);
    for (unsigned number = 1; number <= count; number++)
        process_batch_add(&batch, 7 * number, number, 1000 + number);
}

/* Event `number` stands where it was added, whole. */
static bool is_whole(unsigned number)
{
    const struct batch_event *event = &batch.events[number - 1];
    struct store_row row;
    char uid[16], context[32];
    snprintf(uid, sizeof uid, "u%u", number);
    snprintf(context, sizeof context, "{\"c\":%u}", number);
    process_batch_fill_row(&batch, event, &row);
    bool same = event->ticket == 7 * number && strcmp(row.uid, uid) == 0 &&
                strcmp(row.context, context) == 0 && row.context_bytes == strlen(context) &&
                strcmp(row.done, "first\n") == 0 && row.attempts == number && row.crashes == number + 1 &&
                row.arrival_ms == 5000 + number && row.data_bytes == fake.bytes &&
                row.data[fake.bytes] == '\0';
    for (size_t i = 0; same && i < fake.bytes; i++)
        same = row.data[i] == 'a' + (int)(number % 26);
    return same;
}

static void all_texts_are_read_at_once(void)
{
    set_up(200, EVENTS);
    CU_ASSERT_EQUAL(process_batch_read(&batch, &fake.base), 0);
    CU_ASSERT_EQUAL(fake.reads, 2); /* 64 at a time */
    for (unsigned number = 1; number <= EVENTS; number++) {
        CU_ASSERT_TRUE(batch.events[number - 1].is_read);
        CU_ASSERT_FALSE(batch.events[number - 1].is_lost);
        CU_ASSERT_TRUE(is_whole(number));
    }
    process_batch_clear(&batch);
    CU_ASSERT_EQUAL(batch.count, 0);
    process_batch_add(&batch, 7, 1, 1001);
    CU_ASSERT_FALSE(batch.events[0].is_read);
    CU_ASSERT_EQUAL(process_batch_read(&batch, &fake.base), 0);
    CU_ASSERT_TRUE(is_whole(1));
    process_batch_close(&batch);
}

static void events_of_others_are_lost(void)
{
    set_up(50, 70);
    fake.lost[1] = fake.lost[64] = fake.lost[65] = fake.lost[70] = true;
    CU_ASSERT_EQUAL(process_batch_read(&batch, &fake.base), 0);
    for (unsigned number = 1; number <= 70; number++) {
        CU_ASSERT_EQUAL(batch.events[number - 1].is_lost, fake.lost[number]);
        CU_ASSERT_EQUAL(batch.events[number - 1].is_read, !fake.lost[number]);
    }
    process_batch_close(&batch);
}

static void a_failing_store_changes_nothing(void)
{
    set_up(50, 3);
    fake.fail = EP_ESTOREBUSY;
    CU_ASSERT_EQUAL(process_batch_read(&batch, &fake.base), EP_ESTOREBUSY);
    CU_ASSERT_FALSE(batch.events[0].is_read || batch.events[0].is_lost);
    fake.fail = 0;
    CU_ASSERT_EQUAL(process_batch_read(&batch, &fake.base), 0);
    CU_ASSERT_TRUE(is_whole(1) && is_whole(2) && is_whole(3));
    process_batch_close(&batch);
}

/* As a worker does it: reads when the next event is not there, runs it, goes on. */
static void run_all(unsigned count)
{
    unsigned fruitless = 0;
    while (batch.next < batch.count && fruitless < 2) {
        const struct batch_event *event = &batch.events[batch.next];
        if (!event->is_read && !event->is_lost) {
            CU_ASSERT_EQUAL(process_batch_read(&batch, &fake.base), 0);
            fruitless = event->is_read || event->is_lost ? 0 : fruitless + 1;
            continue;
        }
        unsigned number = (unsigned)batch.next + 1;
        CU_ASSERT_EQUAL(event->is_lost, fake.lost[number]);
        if (!event->is_lost)
            CU_ASSERT_TRUE(is_whole(number));
        batch.next++;
    }
    CU_ASSERT_EQUAL(fruitless, 0); /* a read always gets the next event, or finds it lost */
    CU_ASSERT_EQUAL(batch.next, count);
}

static void huge_events_are_read_a_few_at_a_time(void)
{
    set_up((size_t)1 << 20, 40);
    CU_ASSERT_EQUAL(process_batch_read(&batch, &fake.base), 0);
    CU_ASSERT_TRUE(batch.events[7].is_read);
    CU_ASSERT_FALSE(batch.events[9].is_read || batch.events[9].is_lost || batch.events[39].is_lost);
    run_all(40);
    CU_ASSERT(batch.arena_bytes <= 2 * BATCH_ARENA_BYTES);
    process_batch_clear(&batch);
    CU_ASSERT(batch.arena_bytes <= BATCH_ARENA_BYTES);
    process_batch_close(&batch);
}

static void lost_ones_among_huge_ones(void)
{
    set_up((size_t)1 << 20, 40);
    fake.lost[1] = fake.lost[9] = fake.lost[10] = fake.lost[11] = fake.lost[20] = fake.lost[40] = true;
    run_all(40);
    process_batch_close(&batch);
}

static void one_event_larger_than_the_limit(void)
{
    set_up(BATCH_ARENA_BYTES + 5000, 3);
    run_all(3);
    CU_ASSERT_EQUAL(fake.reads, 3);
    process_batch_clear(&batch);
    CU_ASSERT_PTR_NULL(batch.arena); /* given back */
    process_batch_close(&batch);
}

/* ---- pending answers */

static struct chain_answer advance_to(size_t next)
{
    struct chain_answer answer = {.store = {.change = STORE_ADVANCE},
                                  .next = next,
                                  .done = strdup("first\n")};
    answer.store.done = answer.done;
    return answer;
}

static void answers_own_their_texts(void)
{
    struct pending pending;
    CU_ASSERT_EQUAL_FATAL(process_pending_open(&pending, 4), 0);
    struct ep_call call = {.source = "s", .stage = "first", .uid = "u", .event = "{}", .event_bytes = 2};
    stage_call_open(&call);
    CU_ASSERT_EQUAL(ep_call_set_context(&call, "{\"a\":1}"), 0);
    CU_ASSERT_EQUAL(ep_call_set_event(&call, "{\"b\":2}"), 0);
    ep_call_set_reason(&call, "because");
    struct chain_answer answer = advance_to(1);
    answer.store.context = call.new_context;
    answer.store.data = call.new_event;
    answer.store.error = call.reason;
    CU_ASSERT_EQUAL(process_pending_add(&pending, 3, (struct store_event_lock){8, 9}, &answer, &call, 700),
                    0);
    stage_call_close(&call);
    memset(call.reason, 'x', sizeof call.reason);

    struct chain_answer second = advance_to(2);
    stage_call_open(&call);
    CU_ASSERT_EQUAL(process_pending_add(&pending, 4, (struct store_event_lock){10, 11}, &second, &call, 800),
                    0);
    CU_ASSERT_EQUAL(pending.count, 2);
    CU_ASSERT_EQUAL(pending.oldest_ns, 700);
    const struct store_answer *stored = pending.answers;
    CU_ASSERT_STRING_EQUAL(stored[0].context, "{\"a\":1}");
    CU_ASSERT_STRING_EQUAL(stored[0].data, "{\"b\":2}");
    CU_ASSERT_STRING_EQUAL(stored[0].error, "because");
    CU_ASSERT_STRING_EQUAL(stored[0].done, "first\n");
    CU_ASSERT(stored[0].lock.event == 8 && stored[0].lock.token == 9);
    CU_ASSERT(pending.extra[0].ticket == 3 && pending.extra[0].next == 1);
    CU_ASSERT(pending.extra[1].ticket == 4 && pending.extra[1].next == 2);
    CU_ASSERT_PTR_NULL(stored[1].error);
    stage_call_close(&call);

    process_pending_truncate(&pending, 1);
    CU_ASSERT(pending.count == 1 && pending.oldest_ns == 700);
    CU_ASSERT_STRING_EQUAL(stored[0].error, "because");
    process_pending_truncate(&pending, 0);
    CU_ASSERT(pending.count == 0 && pending.oldest_ns == 0);
    struct chain_answer third = advance_to(1);
    stage_call_open(&call);
    CU_ASSERT_EQUAL(process_pending_add(&pending, 5, (struct store_event_lock){1, 1}, &third, &call, 900), 0);
    CU_ASSERT_EQUAL(pending.oldest_ns, 900);
    process_pending_close(&pending);
    CU_ASSERT_PTR_NULL(pending.answers);
}

UNIT_MAIN("batch", {"all texts are read at once", all_texts_are_read_at_once},
          {"events of others are lost", events_of_others_are_lost},
          {"a failing store changes nothing", a_failing_store_changes_nothing},
          {"huge events are read a few at a time", huge_events_are_read_a_few_at_a_time},
          {"lost ones among huge ones", lost_ones_among_huge_ones},
          {"one event larger than the limit", one_event_larger_than_the_limit},
          {"answers own their texts", answers_own_their_texts})
