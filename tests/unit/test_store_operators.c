/* SPDX-License-Identifier: MIT */
/* What operators do with the store: lists by every selector, and changes of what is selected. */
#include <stdio.h>

#include "tests/lib/store_fixture.h"

static const char *const reversed[] = {"second", "first", NULL};
static const char *const *const chains[] = {fixture_stages};
static const char *const chain_sources[] = {"quakes"};
#define ANY .state = -1, .chains = chains, .chain_sources = chain_sources, .chain_count = 1

struct seen { /* what a list or a change showed */
    size_t count, stop_at;
    char uids[2048][32];
    struct store_item last; /* numbers only: its texts are gone */
    char stage[32], error[64], data[64], context[64];
};
static struct seen seen;

static int on_item(const struct store_item *item, void *user)
{
    (void)user;
    CU_ASSERT_STRING_EQUAL(item->source, "quakes");
    snprintf(seen.uids[seen.count++], sizeof seen.uids[0], "%s", item->uid);
    seen.last = *item;
    snprintf(seen.stage, sizeof seen.stage, "%s", item->stage);
    snprintf(seen.error, sizeof seen.error, "%s", item->error);
    snprintf(seen.data, sizeof seen.data, "%s", item->data != NULL ? item->data : "(none)");
    snprintf(seen.context, sizeof seen.context, "%s", item->context != NULL ? item->context : "(none)");
    return seen.count == seen.stop_at;
}

static size_t list(struct store_select select)
{
    seen.count = 0;
    CU_ASSERT_EQUAL(store_list(fixture.store, &select, false, on_item, NULL), 0);
    return seen.count;
}

static uint64_t change(struct store_select select, enum store_command command, bool dry_run)
{
    uint64_t changed = 99;
    seen.count = 0;
    CU_ASSERT_EQUAL(store_change(fixture.store, &select, command, dry_run, on_item, NULL, &changed), 0);
    CU_ASSERT_EQUAL(changed, seen.count);
    return changed;
}

/* Twelve events: u0 u1 running (u1 past `first`), u2 u3 delayed, u4 u5 dead, u6 held, u7 to u11 ready. */
static struct held running;
static void populate(void)
{
    fixture_begin();
    seen = (struct seen){0};
    ingest("u", 0, 12);
    claim(&running, 6, 1000);
    answer(running.at[1], (struct store_answer){.change = STORE_ADVANCE,
                                                .done = "first\n",
                                                .context = "{}",
                                                .context_bytes = 2});
    for (int i = 2; i < 4; i++)
        answer(running.at[i],
               (struct store_answer){.change = STORE_DELAY, .due_ms = 5000, .error = "later, please"});
    answer(running.at[4], (struct store_answer){.change = STORE_ADVANCE,
                                                .done = "first\nsecond\n",
                                                .context = "{\"c\":1}",
                                                .context_bytes = 7});
    for (int i = 4; i < 6; i++)
        answer(running.at[i], (struct store_answer){.change = STORE_DEAD_LETTER,
                                                    .reason = STORE_REASON_REJECTED,
                                                    .error = "100% bad_"});
    const char *uids[] = {"u6"};
    struct store_select select = {.uids = uids, .uid_count = 1, ANY};
    CU_ASSERT_EQUAL(change(select, STORE_HOLD, false), 1);
    CU_ASSERT_EQUAL(totals().delayed, 2);
    CU_ASSERT_EQUAL(totals().dead, 2);
    CU_ASSERT_EQUAL(totals().held, 1);
    CU_ASSERT_EQUAL(totals().live, 12);
}

static void every_selector_selects(void)
{
    populate();
    CU_ASSERT_EQUAL(list((struct store_select){ANY}), 12);
    for (int i = 0; i < 12; i++) {
        char uid[16];
        snprintf(uid, sizeof uid, "u%d", i);
        CU_ASSERT_STRING_EQUAL(seen.uids[i], uid); /* oldest first */
    }
    static const size_t expected[] = {5, 2, 2, 1, 2};
    for (int state = STORE_READY; state <= STORE_DEAD; state++) {
        CU_ASSERT_EQUAL(list((struct store_select){.state = state}), expected[state]);
        CU_ASSERT_EQUAL((int)seen.last.state, state);
    }
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .stage = "first"}), 10);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .stage = "second"}), 1);
    CU_ASSERT_STRING_EQUAL(seen.uids[0], "u1");
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .stage = "third"}), 1); /* the one that died there */
    CU_ASSERT_STRING_EQUAL(seen.uids[0], "u4");
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .source = "quakes"}), 12);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .source = "Quakes"}), 0);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .address = "device-1"}), 12);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .address = "address"}), 0);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .type = "quake"}), 12);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .type = "rain"}), 0);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .older_than_ms = 1000}), 0);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .older_than_ms = 1001}), 12);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .error = "0% bad_"}), 2); /* plain text, no pattern */
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .error = "%bad"}), 0);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .limit = 3}), 3);
    CU_ASSERT_STRING_EQUAL(seen.uids[2], "u2");
    const char *uids[] = {"u9", "none", "u1", "u9", "u' OR 1"};
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .uids = uids, .uid_count = 5}), 2);
    CU_ASSERT_STRING_EQUAL(seen.uids[0], "u1");
    CU_ASSERT_EQUAL(list((struct store_select){.uids = uids, .uid_count = 5, .state = STORE_READY}), 1);
    CU_ASSERT_EQUAL(list((struct store_select){.uids = uids, .uid_count = 0, .state = -1}), 0);
    seen.stop_at = 2;
    CU_ASSERT_EQUAL(list((struct store_select){ANY}), 2); /* whoever looks has seen enough */
    fixture_end();
}

static void items_tell_all(void)
{
    populate();
    const char *uids[] = {"u4"};
    struct store_select select = {.uids = uids, .uid_count = 1, ANY};
    CU_ASSERT_EQUAL(list(select), 1);
    CU_ASSERT_STRING_EQUAL(seen.data, "(none)");
    seen.count = 0;
    CU_ASSERT_EQUAL(store_list(fixture.store, &select, true, on_item, NULL), 0);
    CU_ASSERT_STRING_EQUAL(seen.data, "{\"n\":4}");
    CU_ASSERT_EQUAL(seen.last.data_bytes, 7);
    CU_ASSERT_STRING_EQUAL(seen.context, "{\"c\":1}");
    CU_ASSERT_STRING_EQUAL(seen.error, "100% bad_");
    CU_ASSERT_STRING_EQUAL(seen.stage, "third");
    CU_ASSERT_EQUAL(seen.last.reason, STORE_REASON_REJECTED);
    CU_ASSERT_EQUAL(seen.last.id, running.at[4].event);
    CU_ASSERT_EQUAL(seen.last.arrival_ms, 1000);
    uids[0] = "u2";
    CU_ASSERT_EQUAL(list(select), 1);
    CU_ASSERT_EQUAL(seen.last.due_ms, 5000);
    CU_ASSERT_EQUAL(seen.last.attempts, 1);
    /* the stage is the first of the chain as it is configured now */
    const char *const *const other[] = {reversed};
    select.chains = other;
    uids[0] = "u4";
    list(select);
    CU_ASSERT_STRING_EQUAL(seen.stage, "");
    uids[0] = "u1";
    list(select);
    CU_ASSERT_STRING_EQUAL(seen.stage, "second");
    select.chain_count = 0;
    list(select);
    CU_ASSERT_STRING_EQUAL(seen.stage, "");
    /* for a reader without a start number, nothing runs */
    uint64_t start = fixture.options.start_number;
    fixture.options.start_number = 0;
    struct store *reader = fixture_open(true);
    fixture.options.start_number = start;
    seen.count = 0;
    struct store_select ready = {.state = STORE_READY};
    CU_ASSERT_EQUAL(store_list(reader, &ready, false, on_item, NULL), 0);
    CU_ASSERT_EQUAL(seen.count, 7);
    uint64_t changed;
    CU_ASSERT_EQUAL(store_change(reader, &ready, STORE_REMOVE, false, NULL, NULL, &changed), EP_EINVAL);
    store_close(&reader);
    fixture_end();
}

static void retry_makes_ready(void)
{
    populate();
    struct held held;
    CU_ASSERT_EQUAL(change((struct store_select){ANY}, STORE_RETRY, true), 4);
    CU_ASSERT_EQUAL(totals().dead, 2); /* that was a rehearsal */
    CU_ASSERT_EQUAL(change((struct store_select){ANY, .limit = 3}, STORE_RETRY, false), 3);
    CU_ASSERT_EQUAL(totals().dead, 1);
    CU_ASSERT_EQUAL(totals().delayed, 0);
    CU_ASSERT_EQUAL(change((struct store_select){ANY}, STORE_RETRY, false), 1);
    CU_ASSERT_EQUAL(claim(&held, 4, 1000).count, 4); /* in their old place, before u7 */
    for (int i = 0; i < 4; i++)
        CU_ASSERT_EQUAL(held.at[i].event, running.at[2 + i].event);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .error = "a"}), 0);
    const char *uids[] = {"u4"};
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .uids = uids, .uid_count = 1}), 1);
    CU_ASSERT_EQUAL(seen.last.attempts, 0);
    CU_ASSERT_STRING_EQUAL(seen.stage, "third"); /* from where it was */
    CU_ASSERT_EQUAL(seen.last.state, STORE_RUNNING);
    CU_ASSERT_EQUAL(change((struct store_select){ANY, .uids = uids, .uid_count = 1}, STORE_RETRY, false), 0);
    fixture_end();
}

static void hold_and_release(void)
{
    populate();
    struct held held;
    CU_ASSERT_EQUAL(change((struct store_select){ANY}, STORE_HOLD, false),
                    9); /* all but two running, one held */
    CU_ASSERT_EQUAL(totals().held, 10);
    CU_ASSERT_EQUAL(totals().dead, 0);
    CU_ASSERT_EQUAL(totals().delayed, 0);
    CU_ASSERT_EQUAL(claim(&held, 100, UINT64_MAX - 1).count, 0);
    CU_ASSERT_TRUE(
        answer(running.at[0], (struct store_answer){.change = STORE_COMPLETE})); /* its owner goes on */
    CU_ASSERT_EQUAL(change((struct store_select){.state = STORE_DEAD}, STORE_RELEASE, false), 0);
    CU_ASSERT_EQUAL(change((struct store_select){ANY}, STORE_RELEASE, false), 10);
    CU_ASSERT_EQUAL(totals().held, 0);
    CU_ASSERT_EQUAL(claim(&held, 100, 1000).count, 10);
    CU_ASSERT_EQUAL(held.at[0].event, running.at[2].event);
    fixture_end();
}

static void remove_removes_for_good(void)
{
    populate();
    CU_ASSERT_EQUAL(change((struct store_select){.state = STORE_DEAD}, STORE_REMOVE, false), 2);
    CU_ASSERT_EQUAL(change((struct store_select){ANY}, STORE_REMOVE, false), 8);
    CU_ASSERT_EQUAL(totals().removed_by_operator, 10);
    CU_ASSERT_EQUAL(totals().live, 2);
    CU_ASSERT_EQUAL(totals().dead + totals().held + totals().delayed, 0);
    CU_ASSERT_TRUE(answer(running.at[1], (struct store_answer){.change = STORE_COMPLETE}));
    CU_ASSERT_EQUAL(ingest("u", 7, 1).stored, 1);
    fixture_end();
}

static void requeue_begins_from_the_first_stage(void)
{
    populate();
    struct held held;
    unlock(running.at[1], (struct store_unlock){0}); /* ready, past `first`, with a context */
    CU_ASSERT_EQUAL(change((struct store_select){ANY}, STORE_REQUEUE, false), 11);
    CU_ASSERT_EQUAL(totals().dead + totals().held + totals().delayed, 0);
    CU_ASSERT_EQUAL(claim(&held, 100, 1000).count, 11);
    struct store_select select = {ANY, .stage = "first"};
    seen.count = 0;
    CU_ASSERT_EQUAL(store_list(fixture.store, &select, true, on_item, NULL), 0);
    CU_ASSERT_EQUAL(seen.count, 12);
    CU_ASSERT_STRING_EQUAL(seen.context, "");
    fixture_end();
}

static void many_events_in_many_transactions(void)
{
    fixture_begin();
    seen = (struct seen){0};
    ingest("u", 0, 2500);
    CU_ASSERT_EQUAL(totals().live, 2500);
    uint64_t changed;
    struct store_select all = {ANY};
    CU_ASSERT_EQUAL(store_change(fixture.store, &all, STORE_HOLD, false, NULL, NULL, &changed), 0);
    CU_ASSERT_EQUAL(changed, 2500);
    all.limit = 1700;
    CU_ASSERT_EQUAL(store_change(fixture.store, &all, STORE_RELEASE, false, NULL, NULL, &changed), 0);
    CU_ASSERT_EQUAL(changed, 1700);
    CU_ASSERT_EQUAL(totals().held, 800);
    CU_ASSERT_EQUAL(list((struct store_select){ANY, .type = "quake", .limit = 2001}), 2001);
    fixture_end();
}

/* An event that a worker takes between the look and the change is left alone: here the same, through another
 * handle. */
static int claim_meanwhile(const struct store_item *item, void *user)
{
    (void)item;
    struct held *held = user;
    if (held->count == 0) {
        struct store *other = fixture_open(false);
        claim_from(other, held, 4000, 1000);
        store_close(&other);
    }
    return 0;
}

static void what_runs_meanwhile_is_left_alone(void)
{
    fixture_begin();
    struct held held = {0};
    ingest("u", 0, 1500);
    struct store_select all = {ANY};
    uint64_t changed;
    /* the first thousand are gone when their report comes; the rest is claimed then, before its own chunk */
    CU_ASSERT_EQUAL(store_change(fixture.store, &all, STORE_REMOVE, false, claim_meanwhile, &held, &changed),
                    0);
    CU_ASSERT_EQUAL(changed, 1000);
    CU_ASSERT_EQUAL(held.count, 500);
    CU_ASSERT_EQUAL(totals().live, 500);
    CU_ASSERT_TRUE(answer(held.at[499], (struct store_answer){.change = STORE_COMPLETE}));
    fixture_end();
}

STORE_MAIN("store: operators", {"every selector selects", every_selector_selects},
           {"items tell all", items_tell_all},
           {"retry makes delayed and dead events ready", retry_makes_ready},
           {"hold and release", hold_and_release}, {"remove removes for good", remove_removes_for_good},
           {"requeue begins from the first stage", requeue_begins_from_the_first_stage},
           {"many events are changed in many transactions", many_events_in_many_transactions},
           {"what runs meanwhile is left alone", what_runs_meanwhile_is_left_alone})
