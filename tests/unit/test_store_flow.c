/* SPDX-License-Identifier: MIT */
/* The life of an event in the store: ingest, claim, read, commit, unlock. */
#include "tests/lib/store_fixture.h"

static void fifo(void)
{
    fixture_begin();
    struct held held;
    int64_t last = 0;
    ingest("u", 0, 25);
    ingest("u", 25, 25);
    for (int round = 0; round < 5; round++) {
        struct store_claimed out = claim(&held, 10, 1000);
        CU_ASSERT_EQUAL(held.count, 10);
        CU_ASSERT_EQUAL(out.more, round < 4);
        CU_ASSERT_EQUAL(out.next_due_ms, UINT64_MAX);
        for (size_t i = 0; i < held.count; i++) {
            CU_ASSERT(held.at[i].event > last);
            last = held.at[i].event;
        }
    }
    struct store_claimed out = claim(&held, 10, 1000);
    CU_ASSERT_EQUAL(out.count, 0);
    CU_ASSERT_FALSE(out.more);
    fixture_end();
}

static void duplicates_are_counted(void)
{
    fixture_begin();
    CU_ASSERT_EQUAL(ingest("u", 0, 10).stored, 10);
    struct store_ingested again = ingest("u", 5, 10); /* half of it known */
    CU_ASSERT_EQUAL(again.stored, 5);
    CU_ASSERT_EQUAL(again.duplicates, 5);
    struct store_event twice[] = {{.uid = "x", .data = "1", .data_bytes = 1},
                                  {.uid = "x", .data = "2", .data_bytes = 1}};
    struct store_page page = {twice, 2, NULL, false, 1000, false, NULL};
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &again), 0);
    CU_ASSERT_EQUAL(again.stored, 1);
    CU_ASSERT_EQUAL(again.duplicates, 1);
    CU_ASSERT_EQUAL(totals().fetched, 16);
    CU_ASSERT_EQUAL(totals().duplicates, 6);
    CU_ASSERT_EQUAL(totals().live, 16);
    fixture_end();
}

static void page_and_cursor_are_one(void)
{
    fixture_begin();
    char *cursor = NULL;
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_PTR_NULL(cursor);
    ingest_with_cursor("u", 0, 100, "c-100");
    fixture_restart(); /* killed before the backend heard of it: the same page comes again */
    CU_ASSERT_EQUAL(ingest_with_cursor("u", 0, 100, "c-100").duplicates, 100);
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_STRING_EQUAL(cursor, "c-100");
    free(cursor);
    /* an event that cannot be stored takes its whole page and the cursor with it */
    struct store_event events[] = {{.uid = "ok", .data = "1", .data_bytes = 1}, {.uid = NULL}};
    struct store_page page = {events, 2, "c-200", false, 1000, false, NULL};
    struct store_ingested out;
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &out), EP_EINVAL);
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_STRING_EQUAL(cursor, "c-100");
    free(cursor);
    CU_ASSERT_EQUAL(totals().live, 100);
    /* a page without events moves the cursor, too */
    page = (struct store_page){NULL, 0, "c-300", false, 1000, false, NULL};
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &out), 0);
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_STRING_EQUAL(cursor, "c-300");
    free(cursor);
    CU_ASSERT_EQUAL(store_set_cursor(fixture.store, fixture.source, NULL), 0);
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_PTR_NULL(cursor);
    fixture_end();
}

static void expect_cursor(const char *expected)
{
    char *cursor = NULL;
    CU_ASSERT_EQUAL(store_cursor(fixture.store, fixture.source, &cursor), 0);
    CU_ASSERT_STRING_EQUAL(cursor != NULL ? cursor : "(none)", expected);
    free(cursor);
}

/* An operator sets the cursor while a page is under way: the page's events are kept, its cursor is not. */
static void page_overtaken_by_a_set_cursor(void)
{
    fixture_begin();
    struct store_event event = {.uid = "u-1", .data = "1", .data_bytes = 1};
    struct store_page page = {&event, 1, "c-1", false, 1000, true, NULL};
    struct store_ingested out;
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &out), 0);
    expect_cursor("c-1"); /* none was stored, and none was expected */
    CU_ASSERT_EQUAL(store_set_cursor(fixture.store, fixture.source, "operator"), 0);
    event.uid = "u-2";
    page = (struct store_page){&event, 1, "c-2", false, 1000, true, "c-1"};
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &out), 0);
    CU_ASSERT_EQUAL(out.stored, 1);
    expect_cursor("operator");
    page = (struct store_page){NULL, 0, "c-2", false, 1000, true, "c-1"};
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &out), 0);
    expect_cursor("operator");
    page = (struct store_page){NULL, 0, "c-3", false, 1000, true, "operator"};
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &out), 0);
    expect_cursor("c-3");
    CU_ASSERT_EQUAL(totals().live, 2);
    fixture_end();
}

static void claim_within_ingest(void)
{
    fixture_begin();
    struct held held;
    CU_ASSERT_EQUAL(ingest_claiming("a", 0, 10, NULL, &held, 6).stored, 10);
    CU_ASSERT_EQUAL(held.count, 6);
    /* four older ones are ready: they go first, then the page's own */
    struct held second;
    ingest_claiming("b", 0, 10, NULL, &second, 6);
    CU_ASSERT_EQUAL(second.count, 6);
    for (size_t i = 0; i < 6; i++)
        CU_ASSERT_EQUAL(second.at[i].event, held.at[0].event + 6 + (int64_t)i);
    /* eight are ready, room for three: nothing of the page */
    struct held third;
    ingest_claiming("c", 0, 1, NULL, &third, 3);
    CU_ASSERT_EQUAL(third.count, 3);
    CU_ASSERT_EQUAL(third.at[0].event, second.at[5].event + 1);
    claim(&third, 100, 1000);
    CU_ASSERT_EQUAL(third.count, 6);
    fixture_end();
}

static void events_beyond_the_limit_stay_ready(void)
{
    fixture_begin();
    struct held held, rest;
    ingest_claiming("a", 0, 10, NULL, &held, 3);
    CU_ASSERT_EQUAL(held.count, 3);
    struct store_claimed out = claim(&held, 2, 1000);
    CU_ASSERT_EQUAL(held.count, 2);
    CU_ASSERT_TRUE(out.more);
    CU_ASSERT_EQUAL(claim(&rest, 100, 1000).count, 5);
    CU_ASSERT_EQUAL(rest.at[0].event, held.at[1].event + 1);
    fixture_end();
}

/* As after a crash between the two steps of a claim: nothing is locked, and nothing is stored. */
static void a_claim_that_never_ends_changes_nothing(void)
{
    fixture_begin();
    struct held held;
    struct store_event event = {.uid = "new", .data = "{}", .data_bytes = 2};
    struct store_page page = {&event, 1, "lost", false, 1000, false, NULL};
    struct store_ingested ingested;
    struct store_claimed out;
    ingest("u", 0, 10);
    for (int round = 0; round < 2; round++) {
        const struct store_claim wanted = held_claim(&held, 100);
        int code = round == 0
                       ? store_claim_begin(fixture.store, fixture.source, 1000, &wanted, &out)
                       : store_ingest_begin(fixture.store, fixture.source, &page, &wanted, &ingested, &out);
        CU_ASSERT_EQUAL(code, 0);
        CU_ASSERT_EQUAL(out.count, round == 0 ? 10 : 11);
        store_close(&fixture.store);
        fixture.store = fixture_open(false);
        CU_ASSERT_EQUAL(totals().live, 10);
    }
    claim(&held, 100, 1000);
    CU_ASSERT_EQUAL(held.count, 10);
    CU_ASSERT_EQUAL(ingest_with_cursor("new", 0, 1, NULL).stored, 1);
    fixture_end();
}

static void tokens_of_another_start_are_void(void)
{
    fixture_begin();
    struct held held, again;
    ingest("u", 0, 10);
    claim(&held, 10, 1000);
    answer(held.at[0], (struct store_answer){.change = STORE_ADVANCE, .done = "first\n"});
    uint64_t token = held.token;
    fixture_restart();
    /* the old owner changes nothing, before and after its events have a new one */
    CU_ASSERT_FALSE(answer(held.at[1], (struct store_answer){.change = STORE_COMPLETE}));
    CU_ASSERT_FALSE(unlock(held.at[1], (struct store_unlock){.crashed = true, .max_crashes = 1}));
    CU_ASSERT_EQUAL(claim(&again, 100, 1000).count, 10);
    CU_ASSERT_EQUAL(again.at[0].event, held.at[0].event);
    CU_ASSERT_NOT_EQUAL(again.token, token);
    CU_ASSERT_FALSE(answer(held.at[2], (struct store_answer){.change = STORE_REMOVE_BY_STAGE}));
    CU_ASSERT_TRUE(answer(again.at[2], (struct store_answer){.change = STORE_REMOVE_BY_STAGE}));
    /* a claim with a token of an older start is refused */
    const struct store_claim wanted = {token, 1};
    struct store_claimed out;
    CU_ASSERT_EQUAL(store_claim_begin(fixture.store, fixture.source, 1000, &wanted, &out), EP_EINVAL);
    fixture_end();
}

static void handles_of_an_older_start_cannot_write(void)
{
    fixture_begin();
    struct held held;
    ingest("u", 0, 3);
    claim(&held, 3, 1000);
    struct store *old = fixture.store;
    CU_ASSERT_EQUAL(fixture_prepare(), 0);
    struct store_answer finish = {.lock = held.at[0], .change = STORE_COMPLETE};
    CU_ASSERT_EQUAL(store_commit(old, fixture.source, 0, &finish, 1), EP_ESTORE);
    CU_ASSERT_FALSE(finish.applied);
    CU_ASSERT_PTR_NOT_NULL(strstr(store_errmsg(old), "belongs to an older one"));
    CU_ASSERT_EQUAL(totals().live, 3);
    store_close(&old);
    fixture.store = fixture_open(false);
    fixture_end();
}

struct seen_row {
    size_t calls, index;
    char uid[64], data[64], context[64], done[64];
    uint32_t attempts, crashes;
};

static int on_row(size_t index, const struct store_row *row, void *user)
{
    struct seen_row *seen = user;
    seen->calls++;
    seen->index = index;
    snprintf(seen->uid, sizeof seen->uid, "%s", row->uid);
    snprintf(seen->data, sizeof seen->data, "%s", row->data);
    snprintf(seen->context, sizeof seen->context, "%s", row->context);
    snprintf(seen->done, sizeof seen->done, "%s", row->done);
    seen->attempts = row->attempts;
    seen->crashes = row->crashes;
    CU_ASSERT_EQUAL(row->data_bytes, strlen(row->data));
    CU_ASSERT_EQUAL(row->context_bytes, strlen(row->context));
    CU_ASSERT_EQUAL(row->arrival_ms, 1000);
    return 0;
}

static void advance_keeps_the_lock(void)
{
    fixture_begin();
    struct held held;
    struct seen_row seen = {0};
    ingest("u", 7, 1);
    claim(&held, 1, 1000);
    struct store_event_lock locks[] = {{held.at[0].event, held.token + 1}, held.at[0], {99, held.token}};
    CU_ASSERT_EQUAL(store_read(fixture.store, locks, 3, on_row, &seen), 0);
    CU_ASSERT_EQUAL(seen.calls, 1);
    CU_ASSERT_EQUAL(seen.index, 1);
    CU_ASSERT_STRING_EQUAL(seen.uid, "u7");
    CU_ASSERT_STRING_EQUAL(seen.data, "{\"n\":7}");
    CU_ASSERT_STRING_EQUAL(seen.context, "");
    CU_ASSERT_TRUE(answer(held.at[0], (struct store_answer){.change = STORE_ADVANCE,
                                                            .done = "first\n",
                                                            .context = "{\"c\":1}",
                                                            .context_bytes = 7,
                                                            .data = "{\"m\":2}",
                                                            .data_bytes = 7}));
    CU_ASSERT_TRUE(
        answer(held.at[0], (struct store_answer){.change = STORE_ADVANCE, .done = "first\nsecond\n"}));
    CU_ASSERT_EQUAL(store_read(fixture.store, held.at, 1, on_row, &seen), 0);
    CU_ASSERT_STRING_EQUAL(seen.data, "{\"m\":2}");
    CU_ASSERT_STRING_EQUAL(seen.context, "{\"c\":1}");
    CU_ASSERT_STRING_EQUAL(seen.done, "first\nsecond\n");
    CU_ASSERT_EQUAL(stage_totals().processed, 2);
    CU_ASSERT_TRUE(answer(held.at[0], (struct store_answer){.change = STORE_COMPLETE}));
    CU_ASSERT_FALSE(answer(held.at[0], (struct store_answer){.change = STORE_COMPLETE}));
    CU_ASSERT_EQUAL(totals().completed, 1);
    CU_ASSERT_EQUAL(totals().live, 0);
    CU_ASSERT_EQUAL(stage_totals().processed, 3);
    CU_ASSERT_EQUAL(ingest("u", 7, 1).stored, 1); /* its uid is free again */
    fixture_end();
}

static void unlocks_are_by_token(void)
{
    fixture_begin();
    struct held held, again;
    ingest("u", 0, 3);
    claim(&held, 3, 1000);
    CU_ASSERT_TRUE(unlock(held.at[1], (struct store_unlock){0}));
    CU_ASSERT_FALSE(unlock(held.at[1], (struct store_unlock){0}));
    CU_ASSERT_EQUAL(claim(&again, 3, 1000).count, 1); /* without a rescan: this handle released it */
    CU_ASSERT_EQUAL(again.at[0].event, held.at[1].event);
    CU_ASSERT_FALSE(unlock(held.at[1], (struct store_unlock){0})); /* it runs under a new owner */
    CU_ASSERT_FALSE(answer(held.at[1], (struct store_answer){.change = STORE_COMPLETE}));
    /* what another handle releases is found after a rescan */
    struct store *other = fixture_open(false);
    struct store_unlock by_other = {.lock = held.at[0]};
    CU_ASSERT_EQUAL(store_unlock(other, fixture.source, &by_other, 1), 0);
    CU_ASSERT_TRUE(by_other.applied);
    store_close(&other);
    store_rescan(fixture.store, fixture.source);
    CU_ASSERT_EQUAL(claim(&again, 3, 1000).count, 1);
    CU_ASSERT_EQUAL(again.at[0].event, held.at[0].event);
    fixture_end();
}

static void delayed_events_stand_in_nobodys_way(void)
{
    fixture_begin();
    struct held held, again;
    ingest("u", 0, 10);
    claim(&held, 5, 1000);
    for (int i = 0; i < 5; i++)
        CU_ASSERT_TRUE(answer(held.at[i], (struct store_answer){.change = STORE_DELAY,
                                                                .due_ms = 2000 - 100 * (uint64_t)i,
                                                                .failed = i == 0,
                                                                .error = "no, later"}));
    CU_ASSERT_EQUAL(totals().delayed, 5);
    CU_ASSERT_EQUAL(stage_totals().failed, 1);
    CU_ASSERT_EQUAL(stage_totals().retried, 4);
    struct store_claimed out = claim(&again, 2, 1500); /* newer ones go past them */
    CU_ASSERT_EQUAL(out.count, 2);
    CU_ASSERT_EQUAL(again.at[0].event, held.at[4].event + 1);
    CU_ASSERT_EQUAL(out.next_due_ms, 1600);
    CU_ASSERT_TRUE(out.more);
    out = claim(&again, 100, 1700); /* two are due: they come first, in order of arrival */
    CU_ASSERT_EQUAL(out.count, 5);
    CU_ASSERT_EQUAL(again.at[0].event, held.at[3].event);
    CU_ASSERT_EQUAL(again.at[1].event, held.at[4].event);
    CU_ASSERT_EQUAL(again.at[2].event, held.at[4].event + 3);
    CU_ASSERT_EQUAL(out.next_due_ms, 1800);
    CU_ASSERT_FALSE(out.more);
    CU_ASSERT_EQUAL(totals().delayed, 3);
    struct seen_row seen = {0};
    CU_ASSERT_EQUAL(store_read(fixture.store, again.at, 1, on_row, &seen), 0);
    CU_ASSERT_EQUAL(seen.attempts, 1);
    out = claim(&again, 0, 5000); /* nothing wanted: only told that there is something */
    CU_ASSERT_TRUE(out.more);
    CU_ASSERT_EQUAL(totals().delayed, 3);
    fixture_end();
}

static void failing_events_starve_none(void)
{
    fixture_begin();
    struct held failing, held;
    ingest("u", 0, 20);
    claim(&failing, 10, 1000);
    for (int i = 0; i < 10; i++)
        CU_ASSERT_TRUE(answer(failing.at[i], (struct store_answer){.change = STORE_DELAY, .due_ms = 1000}));
    CU_ASSERT_EQUAL(claim(&held, 4, 2000).count, 4); /* half of it is for retries, half for the others */
    CU_ASSERT_EQUAL(held.at[0].event, failing.at[0].event);
    CU_ASSERT_EQUAL(held.at[1].event, failing.at[1].event);
    CU_ASSERT_EQUAL(held.at[2].event, failing.at[9].event + 1);
    CU_ASSERT_EQUAL(held.at[3].event, failing.at[9].event + 2);
    int retries = 0;
    for (int i = 0; i < 4; i++) { /* one at a time: in turns */
        CU_ASSERT_EQUAL(claim(&held, 1, 2000).count, 1);
        retries += held.at[0].event <= failing.at[9].event;
    }
    CU_ASSERT_EQUAL(retries, 2);
    CU_ASSERT_EQUAL(claim(&held, 100, 2000).count, 12);
    CU_ASSERT_EQUAL(claim(&held, 100, 2000).count, 0);
    CU_ASSERT_EQUAL(totals().delayed, 0);
    fixture_end();
}

static void crashes_end_in_death(void)
{
    fixture_begin();
    struct held held;
    struct seen_row seen = {0};
    ingest("u", 0, 1);
    for (uint32_t round = 1; round <= 3; round++) {
        store_rescan(fixture.store, fixture.source);
        claim(&held, 1, 10000 * round);
        CU_ASSERT_EQUAL(held.count, 1);
        CU_ASSERT_EQUAL(store_read(fixture.store, held.at, 1, on_row, &seen), 0);
        CU_ASSERT_EQUAL(seen.crashes, round - 1);
        CU_ASSERT_TRUE(unlock(held.at[0], (struct store_unlock){.crashed = true,
                                                                .max_crashes = 3,
                                                                .stage = fixture.stages[0],
                                                                .due_ms = 10000 * round + 1,
                                                                .error = "signal 11"}));
    }
    CU_ASSERT_EQUAL(totals().dead, 1);
    CU_ASSERT_EQUAL(totals().delayed, 0);
    CU_ASSERT_EQUAL(stage_totals().crashed, 3);
    ingest("u", 1, 1);
    for (uint32_t round = 1; round <= 2; round++) { /* the second event: timeouts are attempts */
        claim(&held, 1, 100000 * round);
        CU_ASSERT_TRUE(unlock(held.at[0], (struct store_unlock){.timed_out = true,
                                                                .max_attempts = 2,
                                                                .stage = fixture.stages[0],
                                                                .due_ms = 100000 * round + 1}));
    }
    CU_ASSERT_EQUAL(totals().dead, 2);
    CU_ASSERT_EQUAL(stage_totals().failed, 2);
    CU_ASSERT_EQUAL(claim(&held, 1, UINT64_MAX - 1).count, 0);
    fixture_end();
}

static void too_old_to_be_tried_again(void)
{
    fixture_begin();
    struct held held;
    ingest("u", 0, 2);
    claim(&held, 2, 1000);
    CU_ASSERT_TRUE(
        unlock(held.at[0], (struct store_unlock){.timed_out = true, .due_ms = 1, .expired = true}));
    CU_ASSERT_TRUE(unlock(held.at[1], (struct store_unlock){.expired = true})); /* not blamed: as it was */
    CU_ASSERT_EQUAL(totals().dead, 1);
    CU_ASSERT_EQUAL(totals().delayed, 0);
    CU_ASSERT_EQUAL(claim(&held, 2, 1000).count, 1);
    fixture_end();
}

static void an_answer_begins_the_counts_again(void)
{
    fixture_begin();
    struct held held;
    struct seen_row seen = {0};
    ingest("u", 0, 1);
    claim(&held, 1, 1000);
    CU_ASSERT_TRUE(unlock(held.at[0], (struct store_unlock){.crashed = true, .due_ms = 1}));
    claim(&held, 1, 1000);
    CU_ASSERT_TRUE(answer(held.at[0], (struct store_answer){.change = STORE_DELAY, .due_ms = 1}));
    claim(&held, 1, 1000);
    CU_ASSERT_EQUAL(store_read(fixture.store, held.at, 1, on_row, &seen), 0);
    CU_ASSERT_EQUAL(seen.attempts, 1);
    CU_ASSERT_EQUAL(seen.crashes, 1);
    CU_ASSERT_TRUE(answer(held.at[0], (struct store_answer){.change = STORE_ADVANCE, .done = "first\n"}));
    CU_ASSERT_EQUAL(store_read(fixture.store, held.at, 1, on_row, &seen), 0);
    CU_ASSERT_EQUAL(seen.attempts, 0);
    CU_ASSERT_EQUAL(seen.crashes, 0);
    fixture_restart(); /* what is done is handed to the next claim */
    claim(&held, 1, 1000);
    CU_ASSERT_STRING_EQUAL(held.done, "first\n");
    fixture_end();
}

static void corrupt_events_go_to_the_dead(void)
{
    fixture_begin();
    struct held held;
    struct store_event events[] = {
        {.uid = "a", .data = "1", .data_bytes = 1},
        {.uid = "b", .data = "\0\xff", .data_bytes = 2, .dead = STORE_REASON_CORRUPT, .error = "not JSON"},
        {.uid = "c", .data = "3", .data_bytes = 1}};
    struct store_page page = {events, 3, "c", true, 1000, false, NULL};
    CU_ASSERT_EQUAL(ingest_page(&page, &held, 10).stored, 3);
    CU_ASSERT_EQUAL(held.count, 2);
    CU_ASSERT_EQUAL(totals().dead, 1);
    CU_ASSERT_EQUAL(totals().live, 3);
    CU_ASSERT_EQUAL(totals().injected, 3);
    CU_ASSERT_EQUAL(totals().oldest_ms, 1000);
    fixture_end();
}

static void stage_answers_are_counted(void)
{
    fixture_begin();
    struct held held;
    ingest("u", 0, 5);
    claim(&held, 5, 1000);
    struct store_answer answers[] = {
        {.lock = held.at[0], .change = STORE_REMOVE_BY_STAGE},
        {.lock = held.at[1], .change = STORE_DEAD_LETTER, .reason = STORE_REASON_REJECTED, .error = "bad"},
        {.lock = held.at[2], .change = STORE_DEAD_LETTER, .reason = STORE_REASON_EXHAUSTED, .failed = true},
        {.lock = {held.at[3].event, held.token - 1}, .change = STORE_COMPLETE},
        {.lock = held.at[4], .change = STORE_COMPLETE},
    };
    CU_ASSERT_EQUAL(store_commit(fixture.store, fixture.source, fixture.stages[0], answers, 5), 0);
    for (int i = 0; i < 5; i++)
        CU_ASSERT_EQUAL(answers[i].applied, i != 3);
    struct store_stage_totals stage = stage_totals();
    CU_ASSERT_EQUAL(stage.processed, 1);
    CU_ASSERT_EQUAL(stage.removed, 1);
    CU_ASSERT_EQUAL(stage.rejected, 1);
    CU_ASSERT_EQUAL(stage.failed, 1);
    struct store_totals source = totals();
    CU_ASSERT_EQUAL(source.completed, 1);
    CU_ASSERT_EQUAL(source.removed_by_stage, 1);
    CU_ASSERT_EQUAL(source.dead, 2);
    CU_ASSERT_EQUAL(source.live, 3);
    fixture_end();
}

/* ---- bytes ---- */

static const char *wanted_bytes;
static size_t wanted_size;

static int on_row_bytes(size_t index, const struct store_row *row, void *user)
{
    (void)index, (void)user;
    CU_ASSERT_EQUAL_FATAL(row->data_bytes, wanted_size);
    CU_ASSERT_EQUAL(memcmp(row->data, wanted_bytes, wanted_size + 1), 0); /* with the NUL behind it */
    if (row->context_bytes != 0) {
        CU_ASSERT_EQUAL_FATAL(row->context_bytes, wanted_size);
        CU_ASSERT_EQUAL(memcmp(row->context, wanted_bytes, wanted_size + 1), 0);
    }
    return 0;
}

/* size 0 = up to its NUL */
static void check_bytes(const char *uid, const char *bytes, size_t size)
{
    if (size == 0)
        size = strlen(bytes);
    struct held held;
    struct store_event event = {.uid = uid, .data = bytes, .data_bytes = size};
    struct store_page page = {&event, 1, NULL, false, 1000, false, NULL};
    struct store_ingested out;
    wanted_bytes = bytes;
    wanted_size = size;
    CU_ASSERT_EQUAL(ingest_page(&page, &held, 1).stored, 1);
    CU_ASSERT_EQUAL(store_ingest(fixture.store, fixture.source, &page, &out), 0);
    CU_ASSERT_EQUAL(out.duplicates, 1);
    CU_ASSERT_EQUAL(store_read(fixture.store, held.at, 1, on_row_bytes, NULL), 0);
    CU_ASSERT_TRUE(answer(held.at[0], (struct store_answer){.change = STORE_ADVANCE,
                                                            .done = "first\n",
                                                            .context = bytes,
                                                            .context_bytes = size,
                                                            .data = bytes,
                                                            .data_bytes = size}));
    CU_ASSERT_EQUAL(store_read(fixture.store, held.at, 1, on_row_bytes, NULL), 0);
    CU_ASSERT_TRUE(answer(held.at[0], (struct store_answer){.change = STORE_COMPLETE}));
}

static void bytes_come_back_as_they_went(void)
{
    fixture_begin();
    check_bytes("quote's \"uid\"; DROP TABLE event;--", "{\"a\":1}", 0);
    check_bytes("Pläne-日本-\xf0\x9f\x8c\x8b", "{\"n\":9223372036854775807,\"m\":-9223372036854775808}", 0);
    check_bytes("007", "1e400 0.1000000000000000055511151231257827", 0); /* text that looks like numbers */
    check_bytes("7", "", 0);
    check_bytes("zeros", "a\0b\0\xff\xfe\x80", 7);
    char *big = malloc((1 << 20) + 1);
    for (int i = 0; i < 1 << 20; i++)
        big[i] = (char)('a' + i % 26);
    big[1 << 20] = '\0';
    check_bytes("big", big, 1 << 20);
    big[10000] = '\0';
    check_bytes(big, "\"long uid\"", 0);
    free(big);
    fixture_end();
}

static int64_t first_id;
static int note_source(int64_t id, const char *name, void *user)
{
    ++*(int *)user;
    first_id = id;
    CU_ASSERT_STRING_EQUAL(name, "quakes");
    return 0;
}
static int note_stage(int64_t id, const char *name, void *user)
{
    int *count = user;
    CU_ASSERT_EQUAL(id, fixture.stages[*count]);
    CU_ASSERT_STRING_EQUAL(name, fixture_stages[*count]);
    ++*count;
    return 0;
}

static void names_are_kept(void)
{
    fixture_begin();
    int64_t source = fixture.source;
    fixture_restart(); /* the same names have the same ids at every start */
    CU_ASSERT_EQUAL(fixture.source, source);
    int count = 0;
    CU_ASSERT_EQUAL(store_each_source(fixture.store, note_source, &count), 0);
    CU_ASSERT_EQUAL(count, 1);
    CU_ASSERT_EQUAL(first_id, source);
    count = 0;
    CU_ASSERT_EQUAL(store_each_stage(fixture.store, source, note_stage, &count), 0);
    CU_ASSERT_EQUAL(count, 3);
    CU_ASSERT_STRING_EQUAL(store_state_name(STORE_DELAYED), "delayed");
    CU_ASSERT_STRING_EQUAL(store_reason_name(STORE_REASON_CRASHED), "crashed");
    struct store_totals none;
    CU_ASSERT_EQUAL(store_source_totals(fixture.store, 77, &none), EP_ENOENT);
    fixture_end();
}

STORE_MAIN("store: flow", {"events are claimed in order of arrival", fifo},
           {"a known uid is counted and skipped", duplicates_are_counted},
           {"a page and its cursor are stored together or not at all", page_and_cursor_are_one},
           {"a page does not undo a cursor that was set meanwhile", page_overtaken_by_a_set_cursor},
           {"a page can be claimed as it is stored, older events first", claim_within_ingest},
           {"what the caller refuses to claim stays ready", events_beyond_the_limit_stay_ready},
           {"a claim that never ends changes nothing", a_claim_that_never_ends_changes_nothing},
           {"after a new start all older locks are void", tokens_of_another_start_are_void},
           {"a process of an older start cannot write", handles_of_an_older_start_cannot_write},
           {"advance stores progress and keeps the lock", advance_keeps_the_lock},
           {"only the owner can unlock, and once", unlocks_are_by_token},
           {"delayed events come back in their place when due", delayed_events_stand_in_nobodys_way},
           {"events that keep failing starve no others", failing_events_starve_none},
           {"crashes and timeouts count up to death", crashes_end_in_death},
           {"what crashed or ran too long beyond its age is dead", too_old_to_be_tried_again},
           {"attempts and crashes are per stage", an_answer_begins_the_counts_again},
           {"a corrupt event is dead at once, the rest of the page goes on", corrupt_events_go_to_the_dead},
           {"answers are counted once each", stage_answers_are_counted},
           {"data, context and uid are kept byte for byte", bytes_come_back_as_they_went},
           {"sources and stages are known by name", names_are_kept})
