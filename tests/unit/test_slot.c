/* SPDX-License-Identifier: MIT */
/* Slots and the texts in the segment, also those of writers that were killed while writing. */
#include "shm/counter.h"
#include "shm/slot.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/unit.h"

#include <pthread.h>
#include <sched.h>

static void test_clocks(void)
{
    uint64_t first = shm_now_ns();
    CU_ASSERT_TRUE(first > 0);
    CU_ASSERT_TRUE(shm_now_ns() >= first);
    CU_ASSERT_TRUE(shm_realtime_ms() > UINT64_C(1577836800000)); /* after 2020 */
}

static void test_open_clear(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct shm_slot *slot = segment_slot(&segment, 2);
    CU_ASSERT_EQUAL(slot->ticket, SHM_NO_TICKET);
    CU_ASSERT_EQUAL(slot->state, SHM_SLOT_EMPTY);
    CU_ASSERT_EQUAL(slot_open(slot), 1);
    CU_ASSERT_EQUAL(slot->state, SHM_SLOT_STARTING);
    slot_set_pid(slot, 1234);
    CU_ASSERT_EQUAL(slot->pid, 1234);
    CU_ASSERT_TRUE(slot->forked_ns > 0);
    slot_begin_event(slot, 3, &(struct slot_event){.id = 4711, .crashes = 2}, shm_now_ns());
    atomic_store(&slot->program_pid, 77);
    atomic_store(&slot->wake, 1);
    atomic_store(&slot->cause_kind, SHM_CAUSE_MALFORMED);
    text_set(&slot->cause_message, "no answer");
    slot_clear(slot, SHM_SLOT_BACKOFF);
    CU_ASSERT_EQUAL(slot->state, SHM_SLOT_BACKOFF);
    CU_ASSERT_EQUAL(slot->pid, 0);
    CU_ASSERT_EQUAL(slot->ticket, SHM_NO_TICKET);
    CU_ASSERT_EQUAL(slot->event, 0);
    CU_ASSERT_EQUAL(slot->event_crashes, 0);
    CU_ASSERT_EQUAL(slot->event_arrival_ms, 0);
    CU_ASSERT_EQUAL(slot->program_pid, 0);
    CU_ASSERT_EQUAL(slot->wake, 0);
    CU_ASSERT_EQUAL(slot->cause_kind, SHM_CAUSE_MALFORMED); /* still to be read */
    CU_ASSERT_EQUAL(slot_open(slot), 2);
    CU_ASSERT_EQUAL(slot->cause_kind, SHM_CAUSE_NONE);
    char message[16];
    text_get(&slot->cause_message, message, sizeof message);
    CU_ASSERT_STRING_EQUAL(message, "");
    segment_close(&segment);
}

static void test_in_hand(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    struct shm_slot *slot = segment_slot(&segment, 2);
    slot_begin_event(slot, 3, &(struct slot_event){4711, 5, 2, 99}, 1000000);
    CU_ASSERT_EQUAL(slot->state, SHM_SLOT_BUSY);
    CU_ASSERT_EQUAL(slot->ticket, 3);
    CU_ASSERT_EQUAL(slot->event, 4711);
    CU_ASSERT_EQUAL(slot->event_attempts, 5);
    CU_ASSERT_EQUAL(slot->event_crashes, 2);
    CU_ASSERT_EQUAL(slot->event_arrival_ms, 99);
    CU_ASSERT_EQUAL(slot->since_ns, 1000000);
    slot_end_event(slot, 1500000);
    CU_ASSERT_EQUAL(slot->ticket, SHM_NO_TICKET);
    CU_ASSERT_EQUAL(slot->event, 0);
    CU_ASSERT_EQUAL(slot->state, SHM_SLOT_BUSY);
    CU_ASSERT_EQUAL(slot->since_ns, 1500000);
    CU_ASSERT_EQUAL(slot->calls, 1);
    CU_ASSERT_EQUAL(slot->busy_ns, 500000);
    CU_ASSERT_EQUAL(slot->latency.buckets[histogram_bucket(500)], 1);
    slot_begin_event(slot, 3, &(struct slot_event){.id = 4712}, 2000000);
    slot_end_event(slot, 1); /* a clock that goes back does no harm */
    CU_ASSERT_EQUAL(slot->calls, 2);
    CU_ASSERT_EQUAL(slot->busy_ns, 500000);
    slot_clear(slot, SHM_SLOT_EMPTY);
    slot_open(slot);
    CU_ASSERT_EQUAL(slot->calls, 2); /* over all generations */
    uint64_t before = shm_now_ns();
    slot_set_state(slot, SHM_SLOT_IDLE);
    CU_ASSERT_EQUAL(slot->state, SHM_SLOT_IDLE);
    CU_ASSERT_TRUE(slot->since_ns >= before);
    segment_close(&segment);
}

static void test_text(void)
{
    static struct shm_text text;
    char buffer[SHM_TEXT_BYTES + 10], small[4] = "xxx", longest[SHM_TEXT_BYTES + 50];
    text_get(&text, buffer, sizeof buffer);
    CU_ASSERT_STRING_EQUAL(buffer, "");
    text_set(&text, "connection refused");
    text_get(&text, buffer, sizeof buffer);
    CU_ASSERT_STRING_EQUAL(buffer, "connection refused");
    text_get(&text, small, sizeof small);
    CU_ASSERT_STRING_EQUAL(small, "con");
    text_get(&text, small, 0);
    CU_ASSERT_STRING_EQUAL(small, "con");
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    text_set(&text, longest);
    text_get(&text, buffer, sizeof buffer);
    CU_ASSERT_EQUAL(strlen(buffer), SHM_TEXT_BYTES - 1);
    memcpy(longest + SHM_TEXT_BYTES - 3, "\xe2\x82\xac", 3); /* three bytes, of which two would fit */
    text_set(&text, longest);
    text_get(&text, buffer, sizeof buffer);
    CU_ASSERT_EQUAL(strlen(buffer), SHM_TEXT_BYTES - 3);
    text_set(&text, "");
    text_get(&text, buffer, sizeof buffer);
    CU_ASSERT_STRING_EQUAL(buffer, "");
}

/* Its writer was killed after three bytes; the reader ends, and the next writer makes all good. */
static void test_text_killed_writer(void)
{
    static struct shm_text text;
    char buffer[64];
    text_set(&text, "before");
    atomic_fetch_add(&text.sequence, 1);
    memcpy(text.bytes, "aft", 3);
    text_get(&text, buffer, sizeof buffer);
    CU_ASSERT_STRING_EQUAL(buffer, "aftore");
    memset(text.bytes, 'x', sizeof text.bytes); /* not even an end */
    char whole[SHM_TEXT_BYTES + 8];
    text_get(&text, whole, sizeof whole);
    CU_ASSERT_EQUAL(strlen(whole), SHM_TEXT_BYTES);
    text_set(&text, "next");
    CU_ASSERT_EQUAL(text.sequence % 2, 0);
    text_get(&text, buffer, sizeof buffer);
    CU_ASSERT_STRING_EQUAL(buffer, "next");
}

#define TEXT_READS 20000

static struct shm_text shared;
static atomic_int text_reads;

/* A new text for each that was read, so that a read meets one write at most. */
static void *write_texts(void *unused)
{
    char message[SHM_TEXT_BYTES];
    for (int reads = 0; reads < TEXT_READS;) {
        memset(message, 'a' + reads % 26, sizeof message);
        message[300 + reads % 150] = '\0';
        text_set(&shared, message);
        int before = reads;
        while ((reads = atomic_load(&text_reads)) == before)
            sched_yield();
    }
    return unused;
}

/* A text that is read whole while it is written holds one letter only. When the writer loses its processor in
 * the midst of a text, the reader's tries may end before the text does: a few may be mixed, not many. */
static void test_text_threads(void)
{
    pthread_t writer;
    int mixed = 0;
    atomic_store(&text_reads, 0);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&writer, NULL, write_texts, NULL), 0);
    for (int i = 0; i < TEXT_READS; i++) {
        char message[SHM_TEXT_BYTES];
        text_get(&shared, message, sizeof message);
        if (strspn(message, (char[]){message[0], '\0'}) != strlen(message))
            mixed++;
        atomic_fetch_add(&text_reads, 1);
        if (i % 16 == 0)
            sched_yield(); /* lets both run on one processor */
    }
    pthread_join(writer, NULL);
    CU_ASSERT_TRUE(mixed < TEXT_READS / 50);
}

UNIT_MAIN("slot", {"clocks", test_clocks}, {"opened, born, cleared", test_open_clear},
          {"an event in hand", test_in_hand}, {"texts, cut to fit", test_text},
          {"texts of a killed writer", test_text_killed_writer},
          {"texts read while written", test_text_threads})
