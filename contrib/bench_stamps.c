/* SPDX-License-Identifier: MIT */
/* Stamps: see bench_stamps.h. Runs in the producer and the workers of a measured pipeline. */
#include "contrib/bench_stamps.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "contrib/bench_tool.h"
#include "src/process/group_commit.h"

int __real_store_ingest_begin(struct store *store, int64_t source, const struct store_page *page,
                              const struct store_claim *claim, struct store_ingested *out,
                              struct store_claimed *claimed);
int __wrap_store_ingest_begin(struct store *store, int64_t source, const struct store_page *page,
                              const struct store_claim *claim, struct store_ingested *out,
                              struct store_claimed *claimed);
int __real_store_claim_end(struct store *store);
int __wrap_store_claim_end(struct store *store);
int __real_process_group_commit(struct process_group_commit *group_commit, int64_t source, int64_t stage,
                                struct store_answer *answers, size_t count);
int __wrap_process_group_commit(struct process_group_commit *group_commit, int64_t source, int64_t stage,
                                struct store_answer *answers, size_t count);

static struct bench_stamps *stamps;

struct bench_stamps *bench_stamps_new(uint64_t already, uint64_t events, bool keep_each)
{
    size_t times_bytes = keep_each ? events * sizeof(uint64_t) : 0;
    char *memory = mmap(NULL, sizeof *stamps + 2 * times_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    stamps = (struct bench_stamps *)memory;
    stamps->already = already;
    stamps->events = events;
    if (keep_each) {
        stamps->arrival_ns = (uint64_t *)(memory + sizeof *stamps);
        stamps->finish_ns = stamps->arrival_ns + events;
    }
    return stamps;
}

bool bench_stamps_refused(const struct bench_stamps *from, uint64_t number)
{
    return from->refuse_tenth && number % 10 == 0;
}

static void note_if_all(uint64_t now)
{
    uint64_t none = 0;
    uint64_t ingested = atomic_load(&stamps->ingested), awaited = atomic_load(&stamps->awaited);
    uint64_t wanted = stamps->refuse_tenth ? stamps->events - stamps->events / 10 : stamps->events;
    if (ingested >= stamps->events && awaited >= wanted &&
        atomic_compare_exchange_strong(&stamps->all_ns, &none, now))
        kill(stamps->whom, SIGUSR1);
}

/* Notes when the count passed a mark, and where exactly it stood then. */
static void note_mark(uint64_t mark, uint64_t before, uint64_t after, uint64_t now, _Atomic uint64_t *at_ns,
                      _Atomic uint64_t *at_count)
{
    if (before < mark && after >= mark) {
        atomic_store(at_ns, now);
        atomic_store(at_count, after);
    }
}

static size_t ingesting; /* events of the page whose transaction is open */

int __wrap_store_ingest_begin(struct store *store, int64_t source, const struct store_page *page,
                              const struct store_claim *claim, struct store_ingested *out,
                              struct store_claimed *claimed)
{
    int code = __real_store_ingest_begin(store, source, page, claim, out, claimed);
    ingesting = code == 0 ? out->stored : 0;
    return code;
}

int __wrap_store_claim_end(struct store *store)
{
    int code = __real_store_claim_end(store);
    if (code == 0 && stamps != NULL && ingesting > 0) {
        atomic_fetch_add(&stamps->ingested, ingesting);
        note_if_all(bench_now_ns());
    }
    ingesting = 0;
    return code;
}

/* How many of these answers end an event that is waited for. */
static uint64_t count_ends(const struct store_answer *answers, size_t count, uint64_t now)
{
    uint64_t awaited = 0, completed = 0;
    for (size_t i = 0; i < count; i++) {
        if (!answers[i].applied || answers[i].change != STORE_COMPLETE)
            continue;
        uint64_t number = store_event_number(answers[i].lock.event);
        completed++;
        if (!bench_stamps_refused(stamps, number))
            awaited++;
        if (stamps->finish_ns != NULL && number > stamps->already &&
            number <= stamps->already + stamps->events)
            stamps->finish_ns[number - stamps->already - 1] = now;
    }
    if (completed > 0)
        atomic_fetch_add(&stamps->completed, completed);
    return awaited;
}

int __wrap_process_group_commit(struct process_group_commit *group_commit, int64_t source, int64_t stage,
                                struct store_answer *answers, size_t count)
{
    int code = __real_process_group_commit(group_commit, source, stage, answers, count);
    if (code != 0 || stamps == NULL)
        return code;
    uint64_t now = bench_now_ns(), ends = count_ends(answers, count, now), none = 0;
    if (ends == 0)
        return code;
    uint64_t before = atomic_fetch_add(&stamps->awaited, ends);
    atomic_compare_exchange_strong(&stamps->first_ns, &none, now);
    atomic_store(&stamps->last_ns, now);
    note_mark((stamps->events + 9) / 10, before, before + ends, now, &stamps->early_ns, &stamps->early_count);
    note_mark(stamps->events * 9 / 10, before, before + ends, now, &stamps->late_ns, &stamps->late_count);
    note_if_all(now);
    return code;
}
