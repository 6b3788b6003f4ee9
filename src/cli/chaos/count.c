/* SPDX-License-Identifier: MIT */
/*
 * What became of every single event of a trial, counted when all is over: by the store's list and totals, and
 * by what the witness wrote down. Runs in `eventpipe chaos`.
 *
 * An event that went in is in the store, or was seen by the witness, or a stage removed it; what is neither
 * listed nor witnessed must be as many as the store says were removed, and what was witnessed and is gone as
 * many as it says were finished: so a lost event cannot hide behind one that came twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cli/chaos/chaos.h"

struct ledger { /* per event of one source, by its number */
    const struct chaos_feed *feed;
    struct chaos_count *count;
    uint8_t *listed;
    uint32_t *witnessed;
};

static int list_one(const struct store_item *item, void *user)
{
    struct ledger *ledger = user;
    ledger->count->listed[item->state]++;
    if (item->state == STORE_DEAD)
        ledger->count->dead[item->reason]++;
    uint64_t number = chaos_feed_find(ledger->feed, item->uid);
    if (number == UINT64_MAX)
        ledger->count->strangers++;
    else if (ledger->listed[number]++ > 0)
        ledger->count->listed_doubles++;
    return 0;
}

static void read_witness(const char *path, struct ledger *ledger)
{
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    while (file != NULL && getline(&line, &room, file) > 0) {
        uint64_t number = chaos_feed_find(ledger->feed, line);
        if (number == UINT64_MAX)
            ledger->count->strangers++;
        else if (ledger->witnessed[number]++ > 0)
            ledger->count->witness_repeats++;
    }
    free(line);
    if (file != NULL)
        fclose(file);
}

struct finding { /* names in the store, by id */
    struct store *store;
    struct chaos_count *count;
    int64_t source;
};

static int see_source(int64_t id, const char *name, void *user)
{
    struct finding *finding = user;
    if (strcmp(name, finding->count->id) == 0)
        finding->source = id;
    return EP_OK;
}

struct stage_ids {
    struct chaos_count *count;
    int64_t *ids;
};

static int see_stage(int64_t id, const char *name, void *user)
{
    struct stage_ids *stages = user;
    for (size_t i = 0; i < stages->count->stage_count; i++)
        if (strcmp(name, stages->count->stages[i].name) == 0)
            stages->ids[i] = id;
    return EP_OK;
}

static int read_totals(struct store *store, struct chaos_count *count)
{
    struct finding finding = {.store = store, .count = count};
    struct stage_ids stages = {count, calloc(count->stage_count + 1, sizeof *stages.ids)};
    int code = stages.ids != NULL ? store_each_source(store, see_source, &finding) : EP_ENOMEM;
    if (code == EP_OK)
        code = store_source_totals(store, finding.source, &count->totals);
    if (code == EP_OK)
        code = store_each_stage(store, finding.source, see_stage, &stages);
    for (size_t i = 0; code == EP_OK && i < count->stage_count; i++)
        code = store_stage_totals(store, stages.ids[i], &count->stages[i].totals);
    free(stages.ids);
    return code;
}

static int count_source(struct store *store, struct chaos_source *source)
{
    struct chaos_count *count = &source->count;
    struct ledger ledger = {.feed = &source->feed, .count = count};
    count->fed = source->feed.count;
    ledger.listed = calloc(count->fed + 1, sizeof *ledger.listed);
    ledger.witnessed = calloc(count->fed + 1, sizeof *ledger.witnessed);
    int code = ledger.listed != NULL && ledger.witnessed != NULL ? read_totals(store, count) : EP_ENOMEM;
    const struct store_select select = {.source = count->id, .state = -1};
    if (code == EP_OK)
        code = store_list(store, &select, false, list_one, &ledger);
    if (code == EP_OK) {
        read_witness(source->witness, &ledger);
        for (uint64_t i = 0; i < count->fed; i++)
            count->witnessed += ledger.witnessed[i] > 0 && ledger.listed[i] == 0;
    }
    free(ledger.listed);
    free(ledger.witnessed);
    return code;
}

static void fault(const char *words, void *user)
{
    struct chaos *chaos = user;
    if (chaos->store_faults++ == 0)
        snprintf(chaos->store_words, sizeof chaos->store_words, "%s", words);
}

int chaos_count(struct chaos *chaos, struct error *error)
{
    struct store *store = NULL;
    int code = chaos_store_open(chaos, chaos->start_number, &store, error);
    if (code != EP_OK)
        return code;
    for (size_t i = 0; code == EP_OK && i < chaos->source_count; i++)
        code = count_source(store, &chaos->sources[i]);
    if (code == EP_OK)
        code = store_check(store, fault, chaos);
    if (code != EP_OK)
        error_set(error, code, "the trial's store cannot be read: %s",
                  code == EP_ENOMEM ? "out of memory" : store_words(store));
    store_close(&store);
    return code;
}

static uint64_t beyond(uint64_t more, uint64_t less)
{
    return more > less ? more - less : 0;
}

void chaos_sum(const struct chaos_count *count, struct chaos_sum *out)
{
    const struct store_totals *totals = &count->totals;
    uint64_t listed = 0;
    for (int i = 0; i <= STORE_DEAD; i++)
        listed += count->listed[i];
    uint64_t taken = totals->removed + totals->discarded;
    uint64_t gone = beyond(count->fed, listed);
    *out = (struct chaos_sum){.locked = count->listed[STORE_RUNNING],
                              .waiting = count->listed[STORE_READY],
                              .through = totals->finished + totals->removed};
    out->lost = beyond(gone, count->witnessed + taken);      /* neither here, nor seen, nor removed */
    out->lost += beyond(count->witnessed, totals->finished); /* gone without an answer that was stored */
    out->lost += beyond(totals->live, listed);
    out->doubled = beyond(totals->finished, count->witnessed);
    out->doubled += beyond(count->witnessed + taken, gone);
    out->doubled += beyond(totals->fetched, count->fed) + beyond(listed, totals->live);
    out->doubled += count->strangers + count->listed_doubles;
    for (size_t i = 0; i < count->stage_count; i++) {
        const struct store_stage_totals *stage = &count->stages[i].totals;
        uint64_t stored =
            stage->processed + stage->retried + stage->removed + stage->rejected + stage->failed;
        out->repeated += beyond(count->stages[i].calls, stored) + stage->crashed;
    }
}
