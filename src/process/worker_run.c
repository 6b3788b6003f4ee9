/* SPDX-License-Identifier: MIT */
/*
 * A worker's batch, run: event by event, or, where the stage is fast and takes them ahead (exec), some of
 * them as a volley: sent together, answered one by one. Runs in workers.
 *
 * Invariants
 *  1. The event in hand stands in the slot from before the stage sees it until the stage has answered:
 * whoever dies in between leaves its name for the supervisor, and only that event is blamed; not where a
 * program that has worked before turns out to have ended without it. Of a volley it
 * is the first that has no answer, from when the answer before it was read; the program may be further when
 * this process is killed, so then nobody is blamed (the supervisor, recover.c).
 *  2. A volley is about two fifths of commit_delay of work at most, so that a stop waits for no more than
 * that, and holds no event that has failed or crashed before: those go alone.
 *  3. Answers of a volley are believed when its last has come and no line too many: before that the main
 * thread commits none of them, and a volley that ends in nonsense is dropped whole and blamed on nobody. Its
 * stage is not sent volleys for a while, so its events come again one by one, and
 * whichever is to blame then is. (The committer still commits what gets older than commit_delay.)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/ticket.h"
#include "shm/wake.h"
#include "src/json/json.h"
#include "src/config/limits.h"
#include "src/base/log.h"
#include "src/process/worker.h"

#define ALONE_FIRST 256 /* of a process' life: a program that fails soon is known by then */
#define VOLLEY_LEAST 8  /* fewer are not worth the moment's silence at their end (stage_exec.c) */

static void read_batch(struct worker *worker)
{
    worker_lock(worker);
    while (!process_store_done(&worker->process, batch_read(&worker->batch, worker->process.store)))
        if (process_stopping(&worker->process))
            break;
    worker_unlock(worker);
}

static void worker_broken(struct worker *worker, const struct stage_breakage *breakage)
    __attribute__((noreturn));

/* With the lock held: nobody knows which event of the volley each of its answers was for. */
static void drop_volley(struct worker *worker)
{
    size_t answered = worker->volley.size - worker->volley.left, count = worker->pending.count;
    pending_cut(&worker->pending, count > answered ? count - answered : 0);
}

/* Nonsense in a volley was any event's. A program that ends after it has answered and before it is sent more
 * did not die of what it never saw; one that has never answered anything is broken, and its events say so. */
static bool blames_nobody(const struct worker *worker, const struct stage_breakage *breakage)
{
    return (worker->volley.size > 1 && breakage->kind == SHM_CAUSE_NONSENSE) ||
           (breakage->unsent && worker->run_count > 0);
}

/* The co-process is gone or talks nonsense: what is finished is committed, the rest is the supervisor's to
 * sort out. */
static void worker_broken(struct worker *worker, const struct stage_breakage *breakage)
{
    struct shm_slot *slot = worker->process.slot;
    if (breakage->unsent)
        atomic_store(&slot->volley, 0);
    if (blames_nobody(worker, breakage))
        atomic_store(&slot->ticket, SHM_NO_TICKET); /* before there is a cause to blame it for */
    text_set(&slot->cause_words, breakage->words);
    atomic_store(&slot->cause_code, breakage->code);
    atomic_store(&slot->cause_kind, breakage->kind);
    worker_lock(worker);
    if (worker->volley.size > 1 && breakage->kind == SHM_CAUSE_NONSENSE)
        drop_volley(worker);
    worker_commit(worker); /* `calling` is still set, so the slot goes on naming the event in hand */
    log_warning("stage-broken error=\"%s\"", breakage->words);
    _exit(CHILD_BROKEN);
}

static void add_answer(struct worker *worker, const struct batch_event *event, const struct store_row *row,
                       struct ep_call *call, uint64_t begin_ns, uint64_t now_ns)
{
    struct chain_answer answer;
    int result = call_settle(call);
    if (result == 0)
        result = chain_answer(worker->source_config, worker->stage->position, row, call, shm_realtime_ms(),
                              call->answer == EP_PROCESSED ? 0 : arc4random(), &answer);
    if (result == 0) {
        answer.store.attempt = call->attempt;
        answer.store.duration_us = (now_ns - begin_ns) / 1000;
        result = pending_add(&worker->pending, event->ticket, event->lease, &answer, call, now_ns);
    }
    if (result != 0)
        process_fail(&worker->process, CHILD_MEMORY, "out of memory for an answer");
}

/* Answers of a volley come in bunches: only its whole time says how long its events take. */
static void learn_duration(struct worker *worker, uint64_t ns)
{
    struct volley *volley = &worker->volley;
    volley->spent_ns += ns;
    if (volley->left > 1)
        return;
    ns = volley->size > 0 ? volley->spent_ns / volley->size : ns;
    if (ns == 0)
        ns = 1;
    worker->mean_ns = worker->mean_ns == 0 ? ns : (worker->mean_ns * 7 + ns) / 8;
}

static void begin_call(const struct worker *worker, const struct store_row *row, struct ep_call *call)
{
    call->source = worker->source->id;
    call->stage = worker->stage->name;
    call->uid = row->uid;
    call->event = row->data;
    call->event_bytes = row->data_bytes;
    call->context = row->context_bytes > 0 ? row->context : "{}";
    call->context_bytes = row->context_bytes > 0 ? row->context_bytes : 2;
    call->attempt = row->attempts + row->crashes + 1;
    call_open(call);
}

static void run_event(struct worker *worker, const struct batch_event *event, const struct store_row *row)
{
    struct ep_call call;
    begin_call(worker, row, &call);
    uint64_t begin = shm_now_ns();
    slot_name(worker->process.slot, row->uid);
    slot_take(worker->process.slot, event->ticket, event->lease.event, row->crashes, begin);
    process_title("%s busy ev %llu", worker->name,
                  (unsigned long long)store_event_number(event->lease.event));

    worker_lock(worker);
    worker->calling = true;
    if (worker->pending.count > 0 || worker->rest_waits)
        worker_arm_committer(worker);
    worker_unlock(worker);
    struct stage_breakage breakage = {0};
    if (worker->config->kind != STAGE_EXEC)
        limits_renew_cpu(0, &worker->config->limits); /* it worked at the start */
    if (worker->ops->process(worker->state, &call, &breakage) != STAGE_ANSWERED)
        worker_broken(worker, &breakage);

    uint64_t end = shm_now_ns();
    slot_put(worker->process.slot, end); /* before the lock: a store that waits is not the stage's time */
    worker_lock(worker);
    worker->calling = false;
    add_answer(worker, event, row, &call, begin, end);
    worker_unlock(worker);
    call_close(&call);
    learn_duration(worker, end - begin);
    worker->run_count++;
}

/* Rows were valid when they were stored. One that something has spoilt since is set aside by itself: the
 * stage never sees it. */
static const char *row_fault(const struct store_row *row)
{
    if (!json_valid(row->data, row->data_bytes, NULL))
        return "its data in the store is no longer valid JSON";
    if (row->context_bytes > 0 && !json_valid(row->context, row->context_bytes, NULL))
        return "its context in the store is no longer valid JSON";
    return NULL;
}

static void bury_corrupt(struct worker *worker, const struct batch_event *event, const char *fault)
{
    struct chain_answer answer = {
        .store = {.change = STORE_BURY, .reason = STORE_REASON_CORRUPT, .words = fault, .failed = true}};
    struct ep_call call;
    call_open(&call);
    worker_lock(worker);
    int result = pending_add(&worker->pending, event->ticket, event->lease, &answer, &call, shm_now_ns());
    worker_unlock(worker);
    if (result != 0)
        process_fail(&worker->process, CHILD_MEMORY, "out of memory for an answer");
}

static void drop_lost(struct worker *worker, const struct batch_event *event)
{
    log_warning("lock-lost event=%llu", (unsigned long long)store_event_number(event->lease.event));
    ticket_free(&worker->inherit->segment, event->ticket, worker->inherit->slot);
    wake_ticket_freed(&worker->inherit->segment, worker->source);
}

static void judge_event(struct worker *worker, const struct batch_event *event)
{
    struct store_row row;
    batch_row(&worker->batch, event, &row);
    const char *fault = worker->volley.left > 0 ? NULL : row_fault(&row); /* those sent were looked at */
    if (fault != NULL)
        bury_corrupt(worker, event, fault);
    else
        run_event(worker, event, &row);
}

/* ---- volleys ---- */

/* How many events may be sent together now; 0: each goes alone. */
static size_t volley_most(const struct worker *worker)
{
    if (worker->run_count < ALONE_FIRST ||
        shm_now_ns() < atomic_load_explicit(&worker->stage->alone_until_ns, memory_order_relaxed))
        return 0;
    uint64_t most = worker->config->commit_delay_ms * 400000 / worker->mean_ns;
    if (most > worker->config->prefetch)
        most = worker->config->prefetch;
    return most < VOLLEY_LEAST ? 0 : (size_t)most;
}

/* How many from the next event on could go together. */
static size_t volley_ready(const struct batch *batch, size_t most)
{
    size_t count = 0;
    while (count < most && batch->next + count < batch->count) {
        const struct batch_event *event = &batch->events[batch->next + count];
        if (!event->read || event->lost || event->attempts + event->crashes > 0)
            break;
        count++;
    }
    return count < VOLLEY_LEAST ? 0 : count;
}

/* What would get too old while `count` events run is committed first, so that the committer need not take
 * part of their volley. */
static void volley_clear_way(struct worker *worker, size_t count)
{
    worker_lock(worker);
    if (worker->pending.count > 0 && shm_now_ns() - worker->pending.oldest_ns + count * worker->mean_ns >
                                         worker->config->commit_delay_ms * 1000000)
        worker_commit(worker);
    worker_unlock(worker);
}

/* Sends a volley, where the next events and the stage are such. */
static void volley_send(struct worker *worker)
{
    struct batch *batch = &worker->batch;
    if (worker->ops->ahead == NULL)
        return;
    size_t count = volley_ready(batch, volley_most(worker)), sent = 0;
    if (count > 0)
        volley_clear_way(worker, count);
    while (sent < count && !process_stopping(&worker->process)) {
        struct store_row row;
        struct ep_call call;
        batch_row(batch, &batch->events[batch->next + sent], &row);
        if (row_fault(&row) != NULL)
            break;
        begin_call(worker, &row, &call);
        bool taken = worker->ops->ahead(worker->state, &call);
        call_close(&call);
        if (!taken)
            break;
        sent++;
    }
    worker->volley = (struct volley){.size = sent, .left = sent};
    atomic_store_explicit(&worker->process.slot->volley, (uint32_t)sent, memory_order_relaxed);
}

/* ---- the batch ---- */

/* With nothing pending or the batch full or old: commits. */
void worker_commit_due(struct worker *worker, bool more)
{
    worker_lock(worker);
    const struct pending *pending = &worker->pending;
    uint64_t delay_ns = worker->config->commit_delay_ms * 1000000;
    if (pending->count > 0 &&
        (!more || pending->count >= worker->config->batch || shm_now_ns() - pending->oldest_ns >= delay_ns))
        worker_commit(worker);
    worker_unlock(worker);
}

void worker_run(struct worker *worker)
{
    struct batch *batch = &worker->batch;
    struct volley *volley = &worker->volley;
    while (batch->next < batch->count && (volley->left > 0 || !process_stopping(&worker->process))) {
        struct batch_event *event = &batch->events[batch->next];
        if (!event->read && !event->lost) {
            read_batch(worker);
            continue;
        }
        if (volley->left == 0)
            volley_send(worker); /* which may commit, and that may take long */
        if (volley->left == 0 && process_stopping(&worker->process))
            break;
        if (event->lost)
            drop_lost(worker, event);
        else
            judge_event(worker, event);
        batch->next++;
        if (volley->left > 0 && --volley->left == 0)
            atomic_store_explicit(&worker->process.slot->volley, 0, memory_order_relaxed);
        if (volley->left == 0)
            worker_commit_due(worker, true);
    }
    if (batch->next == batch->count)
        batch_clear(batch);
}
