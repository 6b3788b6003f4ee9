/* SPDX-License-Identifier: MIT */
/* What producers and workers of test_step_store do with store and segment, step by step, in the order in
 * which the daemon's do it; and what outlives them. */
#ifndef STEP_STORE_LIFE_H
#define STEP_STORE_LIFE_H

#include "tests/process/step_rig.h"

#include "src/store/store.h"
#include "tests/process/shm_steps.h"
#include "tests/unit/shm_fixture.h"

#define PRODUCER 1
#define WORKER(stage) (2 + (stage))
#define STAGES 2
#define EVENTS 4 /* in the store before */
#define PAGE 2   /* come with the ingest */
#define NOW_MS 100000

static const char *const names[STAGES] = {"first", "second"};
static const char *const done_texts[STAGES + 1] = {"", "first\n", "first\nsecond\n"};

struct shared { /* what outlives the processes beside segment and store: the test's own notes */
    uint64_t start;
    int64_t source, stages[STAGES];
    int64_t other, other_stages[STAGES]; /* a source whose events nobody counts */
    int64_t committed;                   /* this event's first stage was acknowledged */
    bool paged;                          /* the page was acknowledged */
    uint32_t faults;
};
static struct shared *shared;
static struct segment segment;
static struct shm_source *source;
static struct store_options options;
static char path[256];
static char where[96];

static void fault(const char *what, const char *message)
{
    fprintf(stderr, "FAULT in %s: %s: %s\n", where, what, message);
    shared->faults++;
}

static void must(struct store *store, int result, const char *what)
{
    if (result != 0) {
        fault(what, store_errmsg(store));
        _exit(EXIT_FAILURE);
    }
}

static struct store *open_store(void)
{
    struct store *store;
    struct error error;
    options.write_lock = &segment.header->write_lock;
    options.start_number = shared->start;
    if (store_open(&options, &store, &error) != 0) {
        fault("store_open", error.message);
        _exit(EXIT_FAILURE);
    }
    return store;
}

/* --- what producers and workers do */

struct claiming {
    uint64_t token;
    uint32_t tickets[EVENTS + PAGE], positions[EVENTS + PAGE], count, hint;
};

/* Not more than there are free tickets. */
static struct store_claim next_claim(struct claiming *claiming, size_t limit)
{
    uint32_t unused = source->ticket_count - ticket_count(&segment, source, NULL, NULL);
    claiming->token = STORE_TOKEN(shared->start, atomic_fetch_add(&source->claims, 1) + 1);
    return (struct store_claim){claiming->token, limit < unused ? limit : unused};
}

/* As process_producer_claim_end. */
static void end_claim(struct store *store, struct claiming *claiming, const struct store_claimed *claimed)
{
    for (size_t i = 0; i < claimed->count; i++) {
        uint32_t ticket = ticket_load(&segment, source, PRODUCER, &claiming->hint);
        ticket_bind(&segment, ticket, claimed->events[i].event, claiming->token);
        claiming->tickets[claiming->count] = ticket;
        claiming->positions[claiming->count++] = strcmp(claimed->events[i].done, done_texts[1]) == 0;
    }
    must(store, store_claim_end(store), "store_claim_end");
}

static void publish_claim(struct claiming *claiming)
{
    for (uint32_t i = 0; i < claiming->count; i++)
        if (ticket_pass(&segment, source, claiming->tickets[i], PRODUCER, claiming->positions[i]))
            wake_stage(&segment, segment_stage(&segment, claiming->positions[i]));
}

static void do_claim(struct store *store, size_t limit)
{
    struct claiming claiming = {0};
    const struct store_claim claim = next_claim(&claiming, limit);
    struct store_claimed out;
    must(store, store_claim_begin(store, shared->source, NOW_MS, &claim, &out), "store_claim_begin");
    end_claim(store, &claiming, &out);
    publish_claim(&claiming);
}

static void ingest(struct store *store, uint32_t first, uint32_t count, const char *cursor, size_t limit)
{
    struct store_event events[EVENTS];
    char uids[EVENTS][16];
    struct claiming claiming = {0};
    const struct store_claim claim = next_claim(&claiming, limit);
    struct store_ingested out;
    struct store_claimed claimed;
    for (uint32_t i = 0; i < count; i++) {
        snprintf(uids[i], sizeof uids[i], "uid-%u", first + i);
        events[i] = (struct store_event){.uid = uids[i], .data = "{}", .data_bytes = 2};
    }
    struct store_page page = {.events = events, .count = count, .cursor = cursor, .now_ms = 1000};
    must(store, store_ingest_begin(store, shared->source, &page, &claim, &out, &claimed),
         "store_ingest_begin");
    end_claim(store, &claiming, &claimed);
    if (out.stored != count)
        fault("store_ingest", "a page was known already, or in part");
    publish_claim(&claiming);
}

static void do_ingest(struct store *store)
{
    ingest(store, EVENTS, PAGE, "page", 2);
    shared->paged = true;
}

static int on_row(size_t index, const struct store_row *row, void *user)
{
    (void)index;
    for (uint32_t i = 0; i <= STAGES; i++)
        if (strcmp(row->done, done_texts[i]) == 0)
            *(uint32_t *)user = i;
    return 0;
}

static void commit(struct store *store, uint32_t slot, uint32_t ticket, enum store_change change)
{
    struct ticket_view view = ticket_look(&segment, ticket);
    uint32_t stage = slot - WORKER(0), done = UINT32_MAX;
    struct store_event_lock lock = {view.event, view.token};
    must(store, store_read(store, &lock, 1, on_row, &done), "store_read");
    if (done != stage)
        fault("a worker", "has an event that is not its own, or was done by its stage before");
    struct store_answer answer = {.lock = lock, .change = change, .done = done_texts[stage + 1], .due_ms = 1};
    must(store, store_commit(store, shared->source, shared->stages[stage], &answer, 1), "store_commit");
    if (!answer.applied)
        fault("an answer", "was refused though the lock is ours");
    if (change == STORE_ADVANCE) {
        shared->committed = view.event;
        if (ticket_pass(&segment, source, ticket, slot, stage + 1))
            wake_stage(&segment, segment_stage(&segment, stage + 1));
    } else if (ticket_free(&segment, ticket, slot)) {
        wake_ticket_freed(&segment, source);
    }
}

static bool turn(struct store *store, uint32_t slot, enum store_change change)
{
    struct steps steps = steps_for(&segment, slot);
    struct ticket_view view;
    uint32_t ticket;
    if (steps_take(&steps, &ticket, &view, 1) == 0)
        return false;
    commit(store, slot, ticket, change);
    return true;
}

static void unlock(struct store *store)
{
    struct store_unlock unlocks[EVENTS + PAGE] = {0};
    uint32_t tickets[EVENTS + PAGE], count = 0;
    atomic_store(&source->orphans, 0);
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        struct ticket_view view = ticket_look(&segment, i);
        if (view.phase != TICKET_ORPHANED)
            continue;
        unlocks[count].lock = (struct store_event_lock){view.event, view.token};
        tickets[count++] = i;
    }
    must(store, store_unlock(store, shared->source, unlocks, count), "store_unlock");
    for (uint32_t i = 0; i < count; i++)
        ticket_free_orphan(&segment, tickets[i]);
    store_rescan(store, shared->source);
}

#endif
