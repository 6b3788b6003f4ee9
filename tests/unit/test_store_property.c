/* SPDX-License-Identifier: MIT */
/*
 * Thousands of random operations on the store beside a model of it in plain arrays: after each, totals and,
 * every so often, every single event must agree. STORE_SEED and STORE_STEPS change the run; the seed is
 * printed.
 */
#include <inttypes.h>
#include <stdio.h>

#include "tests/lib/store_fixture.h"

#define EVENTS 600 /* uids e0 to e599; each may come again once it is gone */
#define STAGES 3

struct model_event {
    bool live;
    int64_t id; /* 0 = stored, but never seen in a claim or list yet */
    uint64_t order, token, due_ms;
    enum store_state state;
    uint32_t attempts, crashes;
    unsigned done; /* stages done, in order */
};

static struct model_event model[EVENTS];
static struct store_totals expected;
static uint64_t order, now_ms, seed;
static bool others_turn; /* as the handle keeps it */

static unsigned roll(unsigned limit)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (unsigned)(seed >> 33) % limit;
}

static const char *done_text(unsigned done)
{
    static const char *const texts[] = {"", "first\n", "first\nsecond\n", "first\nsecond\nthird\n"};
    return texts[done];
}

static void move(struct model_event *event, enum store_state state)
{
    expected.delayed += (state == STORE_DELAYED) - (event->state == STORE_DELAYED);
    expected.held += (state == STORE_HELD) - (event->state == STORE_HELD);
    expected.dead += (state == STORE_DEAD) - (event->state == STORE_DEAD);
    event->state = state;
}

static void drop(struct model_event *event)
{
    move(event, STORE_READY);
    event->live = false;
    expected.live--;
}

static struct model_event *oldest(enum store_state state)
{
    struct model_event *found = NULL;
    for (int i = 0; i < EVENTS; i++)
        if (model[i].live && model[i].state == state && (found == NULL || model[i].order < found->order))
            found = &model[i];
    return found;
}

/* Takes from the model what a claim of `limit` must take, and sees that `held` is the same. */
static void expect_claimed(const struct held *held, size_t limit)
{
    size_t count = 0;
    for (struct model_event *next; count < limit && (next = oldest(STORE_READY)) != NULL; count++) {
        if (count >= held->count)
            break;
        if (next->id != 0)
            CU_ASSERT_EQUAL(next->id, held->at[count].event);
        next->id = held->at[count].event;
        next->state = STORE_RUNNING;
        next->token = held->token;
    }
    CU_ASSERT_EQUAL(count, held->count);
    CU_ASSERT_TRUE(count == limit || oldest(STORE_READY) == NULL);
}

static void step_ingest(void)
{
    struct held held;
    struct store_event events[40];
    char uids[40][16];
    size_t count = roll(40), limit = roll(3) == 0 ? roll(30) : 0;
    struct store_page page = {events, count, "c", roll(4) == 0, now_ms, false, NULL};
    size_t fresh = 0;
    for (size_t i = 0; i < count; i++) {
        int at = (int)roll(EVENTS);
        bool corrupt = roll(20) == 0;
        snprintf(uids[i], sizeof uids[i], "e%d", at);
        events[i] = (struct store_event){.uid = uids[i],
                                         .data = "{}",
                                         .data_bytes = 2,
                                         .dead = corrupt ? STORE_REASON_CORRUPT : STORE_REASON_NONE};
        if (model[at].live)
            continue;
        order++;
        model[at] = (struct model_event){.live = true, .order = order};
        if (corrupt)
            move(&model[at], STORE_DEAD);
        fresh++;
    }
    struct store_ingested out = ingest_page(&page, &held, limit);
    CU_ASSERT_EQUAL(out.stored, fresh);
    CU_ASSERT_EQUAL(out.duplicates, count - fresh);
    expected.fetched += fresh;
    expected.live += fresh;
    expected.injected += page.injected ? fresh : 0;
    expected.duplicates += count - fresh;
    expect_claimed(&held, limit);
}

static struct model_event *earliest_due(void)
{
    struct model_event *due = NULL;
    for (int i = 0; i < EVENTS; i++)
        if (model[i].live && model[i].state == STORE_DELAYED && model[i].due_ms <= now_ms &&
            (due == NULL || model[i].due_ms < due->due_ms))
            due = &model[i];
    return due;
}

static void step_claim(void)
{
    struct held held;
    size_t limit = 1 + roll(40), share = limit;
    if (oldest(STORE_READY) != NULL && earliest_due() != NULL) { /* half of the claim is for each */
        share = (limit + !others_turn) / 2;
        others_turn = !others_turn;
    }
    for (size_t woken = 0; woken < share; woken++) { /* the earliest due ones become ready */
        struct model_event *due = earliest_due();
        if (due == NULL)
            break;
        move(due, STORE_READY);
    }
    struct store_claimed out = claim(&held, limit, now_ms);
    expect_claimed(&held, limit);
    uint64_t due_ms = UINT64_MAX;
    for (int i = 0; i < EVENTS; i++)
        if (model[i].live && model[i].state == STORE_DELAYED && model[i].due_ms < due_ms)
            due_ms = model[i].due_ms;
    CU_ASSERT_EQUAL(out.next_due_ms, due_ms);
    CU_ASSERT_EQUAL(out.more, oldest(STORE_READY) != NULL || due_ms <= now_ms);
}

/* Some event that ever was, running or not, with its token or a wrong one. */
static struct model_event *pick(struct store_event_lock *lock)
{
    struct model_event *event = &model[roll(EVENTS)];
    for (int i = 0; i < 20 && !(event->live && event->state == STORE_RUNNING); i++)
        event = &model[roll(EVENTS)];
    bool wrong = roll(10) == 0;
    *lock = (struct store_event_lock){event->id, wrong ? event->token - 1 : event->token};
    bool theirs = !wrong && event->live && event->id != 0 && event->state == STORE_RUNNING;
    return theirs ? event : NULL;
}

/* The model needs an order without ties: the time goes in whole TICKs, and no two events are due in the same
 * part of one. */
#define TICK 1000000
static uint64_t unique_due(void)
{
    static uint64_t number;
    return now_ms + TICK * roll(50) + ++number % TICK;
}

static void step_commit(void)
{
    struct store_answer answers[30];
    struct model_event *events[30];
    size_t count = 1 + roll(30);
    for (size_t i = 0; i < count; i++) {
        answers[i] = (struct store_answer){.change = (enum store_change)roll(5), .due_ms = unique_due()};
        struct model_event *event = events[i] = pick(&answers[i].lock);
        if (event == NULL)
            continue;
        if (answers[i].change == STORE_ADVANCE && event->done == STAGES)
            answers[i].change = STORE_COMPLETE;
        answers[i].done = done_text(event->done < STAGES ? event->done + 1 : STAGES);
        answers[i].reason = STORE_REASON_REJECTED;
        switch (answers[i].change) {
        case STORE_ADVANCE:
            event->done++;
            event->attempts = event->crashes = 0;
            break;
        case STORE_COMPLETE:
            expected.completed++;
            drop(event);
            break;
        case STORE_REMOVE_BY_STAGE:
            expected.removed_by_stage++;
            drop(event);
            break;
        case STORE_DELAY:
        case STORE_DEAD_LETTER:
            event->attempts++;
            event->due_ms = answers[i].due_ms;
            move(event, answers[i].change == STORE_DELAY ? STORE_DELAYED : STORE_DEAD);
            break;
        }
    }
    CU_ASSERT_EQUAL(store_commit(fixture.store, fixture.source, fixture.stages[0], answers, count), 0);
    for (size_t i = 0; i < count; i++)
        CU_ASSERT_EQUAL(answers[i].applied, events[i] != NULL);
}

static void step_release(void)
{
    struct store_unlock unlocks[10];
    bool applied[10];
    size_t count = 1 + roll(10);
    for (size_t i = 0; i < count; i++) {
        unlocks[i] = (struct store_unlock){.crashed = roll(3) == 0,
                                           .max_crashes = 3,
                                           .max_attempts = 4,
                                           .due_ms = unique_due(),
                                           .stage = fixture.stages[0]};
        unlocks[i].timed_out = !unlocks[i].crashed && roll(2) == 0;
        struct model_event *event = pick(&unlocks[i].lock);
        applied[i] = event != NULL;
        if (event == NULL)
            continue;
        event->crashes += unlocks[i].crashed;
        event->attempts += unlocks[i].timed_out;
        bool dead =
            (unlocks[i].crashed && event->crashes >= 3) || (unlocks[i].timed_out && event->attempts >= 4);
        event->due_ms = unlocks[i].due_ms;
        move(event, dead                                         ? STORE_DEAD
                    : unlocks[i].crashed || unlocks[i].timed_out ? STORE_DELAYED
                                                                 : STORE_READY);
    }
    CU_ASSERT_EQUAL(store_unlock(fixture.store, fixture.source, unlocks, count), 0);
    for (size_t i = 0; i < count; i++)
        CU_ASSERT_EQUAL(unlocks[i].applied, applied[i]);
}

/* What a command does to one event of the model; false = it leaves it. */
static bool change_model(struct model_event *event, enum store_command command)
{
    enum store_state state = event->state;
    if (!event->live || state == STORE_RUNNING ||
        (command == STORE_RETRY && state != STORE_DELAYED && state != STORE_DEAD) ||
        (command == STORE_HOLD && state == STORE_HELD) || (command == STORE_RELEASE && state != STORE_HELD))
        return false;
    if (command == STORE_REMOVE) {
        expected.removed_by_operator++;
        drop(event);
        return true;
    }
    if (command == STORE_RETRY || command == STORE_REQUEUE)
        event->attempts = event->crashes = 0;
    if (command == STORE_REQUEUE)
        event->done = 0;
    move(event, command == STORE_HOLD ? STORE_HELD : STORE_READY);
    return true;
}

static void step_change(void)
{
    char text[25][16];
    const char *uids[25];
    bool picked[EVENTS] = {false};
    enum store_command command = (enum store_command)roll(5);
    uint64_t changed, should = 0;
    for (int i = 0; i < 25; i++) {
        int at = (int)roll(EVENTS);
        snprintf(text[i], sizeof text[i], "e%d", at);
        uids[i] = text[i];
        picked[at] = true;
    }
    for (int i = 0; i < EVENTS; i++)
        should += picked[i] && change_model(&model[i], command);
    struct store_select select = {.uids = uids, .uid_count = 25, .state = -1};
    CU_ASSERT_EQUAL(store_change(fixture.store, &select, command, false, NULL, NULL, &changed), 0);
    CU_ASSERT_EQUAL(changed, should);
}

static void step_restart(void)
{
    fixture_restart();
    others_turn = false;
    for (int i = 0; i < EVENTS; i++)
        if (model[i].live && model[i].state == STORE_RUNNING)
            model[i].state = STORE_READY;
}

static uint64_t listed;
static int compare_item(const struct store_item *item, void *user)
{
    (void)user;
    struct model_event *event = &model[atoi(item->uid + 1)];
    CU_ASSERT_TRUE(event->live);
    CU_ASSERT_EQUAL(item->state, event->state);
    CU_ASSERT_EQUAL(item->attempts, event->attempts);
    CU_ASSERT_EQUAL(item->crashes, event->crashes);
    CU_ASSERT_STRING_EQUAL(item->done, done_text(event->done));
    CU_ASSERT_TRUE(event->id == 0 || event->id == item->id);
    CU_ASSERT_TRUE(event->state != STORE_DELAYED || event->due_ms == item->due_ms);
    listed++;
    return 0;
}

static void compare_all(void)
{
    struct store_select all = {.state = -1};
    listed = 0;
    CU_ASSERT_EQUAL(store_list(fixture.store, &all, false, compare_item, NULL), 0);
    CU_ASSERT_EQUAL(listed, expected.live);
    int faults = 0;
    CU_ASSERT_EQUAL(store_check(fixture.store, fixture_fault, &faults), 0);
    CU_ASSERT_EQUAL(faults, 0);
}

static void store_agrees_with_its_model(void)
{
    static const struct {
        unsigned weight;
        void (*run)(void);
    } steps[] = {{20, step_ingest},  {30, step_claim}, {40, step_commit},
                 {20, step_release}, {5, step_change}, {1, step_restart}};
    const char *text = getenv("STORE_SEED"), *many = getenv("STORE_STEPS");
    seed = text != NULL ? strtoull(text, NULL, 0) : 20261123;
    int count = many != NULL ? atoi(many) : 3000;
    printf("(seed %" PRIu64 ") ", seed);
    memset(model, 0, sizeof model);
    expected = (struct store_totals){0};
    order = 0;
    others_turn = false;
    now_ms = 1000000000000;
    fixture_begin();
    for (int step = 0; step < count && CU_get_number_of_failures() == 0; step++) {
        unsigned ticket = roll(116), at = 0;
        while (ticket >= steps[at].weight)
            ticket -= steps[at++].weight;
        steps[at].run();
        now_ms += TICK * roll(5);
        struct store_totals found = totals();
        found.oldest_ms = 0;
        CU_ASSERT_EQUAL(memcmp(&found, &expected, sizeof found), 0);
        if (step % 100 == 99)
            compare_all();
    }
    compare_all();
    fixture_end();
}

STORE_MAIN("store: properties", {"the store agrees with its model", store_agrees_with_its_model})
