/* SPDX-License-Identifier: MIT */
/* The steps of the producer and of the workers in a real store. */
#include "tests/lib/step_store_life.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const store_life_names[STORE_LIFE_STAGES] = {"first", "second"};
const char *const store_life_done_texts[STORE_LIFE_STAGES + 1] = {"", "first\n", "first\nsecond\n"};
struct store_life *store_life;
struct segment store_life_segment;
struct shm_source *store_life_source;
struct store_options store_life_options;
char store_life_path[256];
char store_life_where[96];

void store_life_fault(const char *what, const char *message)
{
    fprintf(stderr, "FAULT in %s: %s: %s\n", store_life_where, what, message);
    store_life->faults++;
}

void store_life_must(struct store *store, int result, const char *what)
{
    if (result != 0) {
        store_life_fault(what, store_errmsg(store));
        _exit(EXIT_FAILURE);
    }
}

struct store *store_life_open(void)
{
    struct store *store;
    struct error error;
    store_life_options.write_lock = &store_life_segment.header->write_lock;
    store_life_options.start_number = store_life->start;
    if (store_open(&store_life_options, &store, &error) != 0) {
        store_life_fault("store_open", error.message);
        _exit(EXIT_FAILURE);
    }
    return store;
}

/* --- what producers and workers do */

struct claiming {
    uint64_t token;
    uint32_t tickets[STORE_LIFE_EVENTS + STORE_LIFE_PAGE], positions[STORE_LIFE_EVENTS + STORE_LIFE_PAGE],
        count, hint;
};

/* Not more than there are free tickets. */
static struct store_claim next_claim(struct claiming *claiming, size_t limit)
{
    uint32_t unused =
        store_life_source->ticket_count - ticket_count(&store_life_segment, store_life_source, NULL, NULL);
    claiming->token = STORE_TOKEN(store_life->start, atomic_fetch_add(&store_life_source->claims, 1) + 1);
    return (struct store_claim){claiming->token, limit < unused ? limit : unused};
}

/* As process_producer_commit_claim. */
static void end_claim(struct store *store, struct claiming *claiming, const struct store_claimed *claimed)
{
    for (size_t i = 0; i < claimed->count; i++) {
        uint32_t ticket =
            ticket_load(&store_life_segment, store_life_source, STORE_LIFE_PRODUCER, &claiming->hint);
        ticket_bind(&store_life_segment, ticket, claimed->events[i].event, claiming->token);
        claiming->tickets[claiming->count] = ticket;
        claiming->positions[claiming->count++] =
            strcmp(claimed->events[i].done, store_life_done_texts[1]) == 0;
    }
    store_life_must(store, store_claim_end(store), "store_claim_end");
}

static void publish_claim(struct claiming *claiming)
{
    for (uint32_t i = 0; i < claiming->count; i++)
        if (ticket_pass_on(&store_life_segment, store_life_source, claiming->tickets[i], STORE_LIFE_PRODUCER,
                           claiming->positions[i]))
            wake_stage(&store_life_segment, segment_stage(&store_life_segment, claiming->positions[i]));
}

void store_life_claim(struct store *store, size_t limit)
{
    struct claiming claiming = {0};
    const struct store_claim claim = next_claim(&claiming, limit);
    struct store_claimed out;
    store_life_must(store, store_claim_begin(store, store_life->source, STORE_LIFE_NOW_MS, &claim, &out),
                    "store_claim_begin");
    end_claim(store, &claiming, &out);
    publish_claim(&claiming);
}

void store_life_ingest(struct store *store, uint32_t first, uint32_t count, const char *cursor, size_t limit)
{
    struct store_event events[STORE_LIFE_EVENTS];
    char uids[STORE_LIFE_EVENTS][16];
    struct claiming claiming = {0};
    const struct store_claim claim = next_claim(&claiming, limit);
    struct store_ingested out;
    struct store_claimed claimed;
    for (uint32_t i = 0; i < count; i++) {
        snprintf(uids[i], sizeof uids[i], "uid-%u", first + i);
        events[i] = (struct store_event){.uid = uids[i], .data = "{}", .data_bytes = 2};
    }
    struct store_page page = {.events = events, .count = count, .cursor = cursor, .now_ms = 1000};
    store_life_must(store, store_ingest_begin(store, store_life->source, &page, &claim, &out, &claimed),
                    "store_ingest_begin");
    end_claim(store, &claiming, &claimed);
    if (out.stored != count)
        store_life_fault("store_ingest", "a page was known already, or in part");
    publish_claim(&claiming);
}

void store_life_ingest_page(struct store *store)
{
    store_life_ingest(store, STORE_LIFE_EVENTS, STORE_LIFE_PAGE, "page", 2);
    store_life->paged = true;
}

int store_life_on_row(size_t index, const struct store_row *row, void *user)
{
    (void)index;
    for (uint32_t i = 0; i <= STORE_LIFE_STAGES; i++)
        if (strcmp(row->done, store_life_done_texts[i]) == 0)
            *(uint32_t *)user = i;
    return 0;
}

void store_life_commit(struct store *store, uint32_t slot, uint32_t ticket, enum store_change change)
{
    struct ticket_view view = ticket_read(&store_life_segment, ticket);
    uint32_t stage = slot - STORE_LIFE_WORKER(0), done = UINT32_MAX;
    struct store_event_lock lock = {view.event, view.token};
    store_life_must(store, store_read(store, &lock, 1, store_life_on_row, &done), "store_read");
    if (done != stage)
        store_life_fault("a worker", "has an event that is not its own, or was done by its stage before");
    struct store_answer answer = {.lock = lock,
                                  .change = change,
                                  .done = store_life_done_texts[stage + 1],
                                  .due_ms = 1};
    store_life_must(store, store_commit(store, store_life->source, store_life->stages[stage], &answer, 1),
                    "store_commit");
    if (!answer.applied)
        store_life_fault("an answer", "was refused though the lock is ours");
    if (change == STORE_ADVANCE) {
        store_life->committed = view.event;
        if (ticket_pass_on(&store_life_segment, store_life_source, ticket, slot, stage + 1))
            wake_stage(&store_life_segment, segment_stage(&store_life_segment, stage + 1));
    } else if (ticket_free(&store_life_segment, ticket, slot)) {
        wake_ticket_freed(&store_life_segment, store_life_source);
    }
}

bool store_life_turn(struct store *store, uint32_t slot, enum store_change change)
{
    struct steps steps = steps_for(&store_life_segment, slot);
    struct ticket_view view;
    uint32_t ticket;
    if (steps_take(&steps, &ticket, &view, 1) == 0)
        return false;
    store_life_commit(store, slot, ticket, change);
    return true;
}

void store_life_unlock(struct store *store)
{
    struct store_unlock unlocks[STORE_LIFE_EVENTS + STORE_LIFE_PAGE] = {0};
    uint32_t tickets[STORE_LIFE_EVENTS + STORE_LIFE_PAGE], count = 0;
    atomic_store(&store_life_source->orphans, 0);
    for (uint32_t i = 0; i < store_life_source->ticket_count; i++) {
        struct ticket_view view = ticket_read(&store_life_segment, i);
        if (view.phase != TICKET_ORPHANED)
            continue;
        unlocks[count].lock = (struct store_event_lock){view.event, view.token};
        tickets[count++] = i;
    }
    store_life_must(store, store_unlock(store, store_life->source, unlocks, count), "store_unlock");
    for (uint32_t i = 0; i < count; i++)
        ticket_free_orphan(&store_life_segment, tickets[i]);
    store_rescan(store, store_life->source);
}
