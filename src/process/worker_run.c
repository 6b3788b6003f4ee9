/* SPDX-License-Identifier: MIT */
/*
 * Runs a worker's batch event by event. If the stage is fast and can be sent events ahead (exec), it sends
 * some as a pipeline: sent together, answered one by one. Runs in workers.
 *
 * Invariants
 *  1. The slot names the current event from before the stage sees it until the stage has answered. If the
 *     process dies in between, the supervisor finds the event there and blames only that event. It blames
 *     none if a program that has worked before turns out to have ended without it. In a pipeline the
 *     current event is the first without an answer, from when the answer before it was read. The program
 *     may be further when this process is killed, so then no event is blamed (recover.c in the
 *     supervisor).
 *  2. A pipeline is at most about two fifths of commit_delay of work, so that a stop waits no longer than
 *     that. It holds no event that has failed or crashed before: those go alone.
 *  3. The answers of a pipeline count when the last one has come without a surplus line. Before that the
 *     main thread commits none of them. A pipeline that ends with a malformed answer is dropped whole and
 *     no event is blamed. Its stage gets no pipelines for a while, so its events come again one by one,
 *     and then the one at fault shows. (The committer still commits answers older than commit_delay.)
 *
 * Fatal: a failure of the stage (CHILD_BROKEN), after what is finished was committed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/ticket.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/config/limits.h"
#include "src/json/json.h"
#include "src/process/worker.h"

#define ALONE_FIRST \
    256 /* the first events of a process go alone: a program that fails soon has failed by then */
#define PIPELINE_LEAST 8 /* fewer are not worth the short wait for silence at their end (stage_exec.c) */

/* Reads the texts of the batch's next events from the store, and waits while the store cannot be read. The
 * worker runs it when it reaches an event that is not read yet. */
static void read_batch(struct worker *worker)
{
    process_worker_lock(worker);
    while (!process_store_done(&worker->process, process_batch_read(&worker->batch, worker->process.store)))
        if (process_stopping(&worker->process))
            break;
    process_worker_unlock(worker);
}

static void exit_after_stage_failure(struct worker *worker, const struct stage_failure *failure)
    __attribute__((noreturn));

/* With the lock held: drops the answers of a pipeline, because it is unknown which event each belongs to. */
static void drop_pipeline(struct worker *worker)
{
    size_t answered = worker->pipeline.size - worker->pipeline.left, count = worker->pending.count;
    process_pending_cut(&worker->pending, count > answered ? count - answered : 0);
}

/* Whether no event is to blame. A malformed answer among several could belong to any of them. A program
 * that ends after an answer and before it is sent more did not crash over an event that it never saw. One
 * that has never answered is broken, and its events are blamed. */
static bool blames_no_event(const struct worker *worker, const struct stage_failure *failure)
{
    return (worker->pipeline.size > 1 && failure->kind == SHM_CAUSE_MALFORMED) ||
           (failure->unsent && worker->run_count > 0);
}

/* Ends the worker after its stage's program has ended or gave a malformed answer: says why in the slot,
 * commits what is finished and exits. The supervisor restarts it, and the producer unlocks the rest. */
static void exit_after_stage_failure(struct worker *worker, const struct stage_failure *failure)
{
    struct shm_slot *slot = worker->process.slot;
    if (failure->unsent)
        atomic_store(&slot->pipeline, 0);
    if (blames_no_event(worker, failure))
        atomic_store(&slot->ticket, SHM_NO_TICKET); /* before there is a cause to blame it for */
    text_set(&slot->cause_message, failure->message);
    atomic_store(&slot->cause_code, failure->code);
    atomic_store(&slot->cause_kind, failure->kind);
    process_worker_lock(worker);
    if (worker->pipeline.size > 1 && failure->kind == SHM_CAUSE_MALFORMED)
        drop_pipeline(worker);
    process_worker_commit(worker); /* `calling` is still set, so the slot still names the current event */
    base_log_warning("stage-failed error=\"%s\"", failure->message);
    _exit(CHILD_BROKEN);
}

/* Turns the answer of a call of the stage into an answer that waits for its commit. The worker runs it,
 * with its lock held, after each call. */
static void add_pending_answer(struct worker *worker, const struct batch_event *event,
                               const struct store_row *row, struct ep_call *call, uint64_t begin_ns,
                               uint64_t now_ns)
{
    struct chain_answer answer;
    int result = stage_call_complete(call);
    if (result == 0)
        result =
            process_chain_answer(worker->source_config, worker->stage->position, row, call, shm_realtime_ms(),
                                 call->answer == EP_PROCESSED ? 0 : arc4random(), &answer);
    if (result == 0) {
        answer.store.attempt = call->attempt;
        answer.store.duration_us = (now_ns - begin_ns) / 1000;
        result = process_pending_add(&worker->pending, event->ticket, event->lock, &answer, call, now_ns);
    }
    if (result != 0)
        process_fail(&worker->process, CHILD_MEMORY, "out of memory for an answer");
}

/* Updates the mean time of the stage's calls, by which the worker decides how many events it takes.
 * Answers of a pipeline come in bunches, so only its whole time says how long its events take. */
static void update_mean_duration(struct worker *worker, uint64_t ns)
{
    struct pipeline *pipeline = &worker->pipeline;
    pipeline->spent_ns += ns;
    if (pipeline->left > 1)
        return;
    ns = pipeline->size > 0 ? pipeline->spent_ns / pipeline->size : ns;
    if (ns == 0)
        ns = 1;
    worker->mean_ns = worker->mean_ns == 0 ? ns : (worker->mean_ns * 7 + ns) / 8;
}

/* Fills in a call of the stage with the event's data, context and attempt. The worker runs it for each
 * event, before the call or before it sends the event ahead in a pipeline. */
static void open_call(const struct worker *worker, const struct store_row *row, struct ep_call *call)
{
    call->source = worker->source->id;
    call->stage = worker->stage->name;
    call->uid = row->uid;
    call->event = row->data;
    call->event_bytes = row->data_bytes;
    call->context = row->context_bytes > 0 ? row->context : "{}";
    call->context_bytes = row->context_bytes > 0 ? row->context_bytes : 2;
    call->attempt = row->attempts + row->crashes + 1;
    stage_call_open(call);
}

/* Runs the stage on one event and adds its answer to the pending ones. The worker runs it for each event.
 * The slot names the event meanwhile: if the worker crashes, the supervisor blames only this one. */
static void run_event(struct worker *worker, const struct batch_event *event, const struct store_row *row)
{
    struct ep_call call;
    open_call(worker, row, &call);
    uint64_t begin = shm_now_ns();
    slot_name(worker->process.slot, row->uid);
    const struct slot_event current = {event->lock.event, row->attempts, row->crashes, row->arrival_ms};
    slot_take(worker->process.slot, event->ticket, &current, begin);
    process_title("%s busy ev %llu", worker->name, (unsigned long long)store_event_number(event->lock.event));

    process_worker_lock(worker);
    worker->calling = true;
    if (worker->pending.count > 0 || worker->leftover_pending)
        process_worker_flush_timer_start(worker);
    process_worker_unlock(worker);
    struct stage_failure failure = {0};
    if (worker->config->type != STAGE_EXEC)
        config_limits_renew_cpu(0, &worker->config->limits); /* it worked at the start */
    if (worker->ops->process(worker->state, &call, &failure) != STAGE_ANSWERED)
        exit_after_stage_failure(worker, &failure);

    uint64_t end = shm_now_ns();
    slot_put(worker->process.slot, end); /* before the lock: a store that waits is not the stage's time */
    process_worker_lock(worker);
    worker->calling = false;
    add_pending_answer(worker, event, row, &call, begin, end);
    process_worker_unlock(worker);
    stage_call_close(&call);
    update_mean_duration(worker, end - begin);
    worker->run_count++;
}

/* Returns why an event must not reach the stage, or NULL. Rows were valid when they were stored; one that
 * was damaged since goes to the dead letters alone. The worker runs it before each call of the stage. */
static const char *row_fault(const struct store_row *row)
{
    if (!json_valid(row->data, row->data_bytes, NULL))
        return "its data in the store is no longer valid JSON";
    if (row->context_bytes > 0 && !json_valid(row->context, row->context_bytes, NULL))
        return "its context in the store is no longer valid JSON";
    return NULL;
}

/* Makes an event whose row in the store is damaged a dead letter, without a call of the stage, which
 * expects valid JSON. The worker runs it instead of the call. */
static void mark_corrupt_dead(struct worker *worker, const struct batch_event *event, const char *fault)
{
    struct chain_answer answer = {.store = {.change = STORE_DEAD_LETTER,
                                            .reason = STORE_REASON_CORRUPT,
                                            .error = fault,
                                            .failed = true}};
    struct ep_call call;
    stage_call_open(&call);
    process_worker_lock(worker);
    int result =
        process_pending_add(&worker->pending, event->ticket, event->lock, &answer, &call, shm_now_ns());
    process_worker_unlock(worker);
    if (result != 0)
        process_fail(&worker->process, CHILD_MEMORY, "out of memory for an answer");
}

/* The store says that the event is no longer ours: frees its ticket. */
static void drop_lost_event(struct worker *worker, const struct batch_event *event)
{
    base_log_warning("lease-lost event=%llu", (unsigned long long)store_event_number(event->lock.event));
    ticket_free(&worker->child->segment, event->ticket, worker->child->slot);
    wake_ticket_freed(&worker->child->segment, worker->source);
}

/* Runs the stage on an event, or makes the event dead if its row in the store is damaged. The worker runs
 * it for each event of its batch; those of a pipeline were checked when they were sent. */
static void process_or_reject(struct worker *worker, const struct batch_event *event)
{
    struct store_row row;
    process_batch_row(&worker->batch, event, &row);
    const char *fault =
        worker->pipeline.left > 0 ? NULL : row_fault(&row); /* those sent ahead were checked */
    if (fault != NULL)
        mark_corrupt_dead(worker, event, fault);
    else
        run_event(worker, event, &row);
}

/* ---- pipelines ---- */

/* Returns how many events the worker may send to the stage's program together now; 0: each goes alone. A
 * new or a failing program gets no pipelines, so that each failure shows its event. */
static size_t compute_pipeline_limit(const struct worker *worker)
{
    if (worker->run_count < ALONE_FIRST ||
        shm_now_ns() < atomic_load_explicit(&worker->stage->alone_until_ns, memory_order_relaxed))
        return 0;
    uint64_t most = worker->config->commit_delay_ms * 400000 / worker->mean_ns;
    if (most > worker->config->prefetch)
        most = worker->config->prefetch;
    return most < PIPELINE_LEAST ? 0 : (size_t)most;
}

/* Returns how many events, from the batch's next one on, the worker may send together: events that have
 * failed or crashed before go alone. */
static size_t count_pipeline_events(const struct batch *batch, size_t most)
{
    size_t count = 0;
    while (count < most && batch->next + count < batch->count) {
        const struct batch_event *event = &batch->events[batch->next + count];
        if (!event->read || event->lost || event->attempts + event->crashes > 0)
            break;
        count++;
    }
    return count < PIPELINE_LEAST ? 0 : count;
}

/* Commits answers that would get too old while `count` events run in a pipeline, so that the committer
 * need not commit a part of it. The worker runs it before it sends a pipeline. */
static void commit_before_pipeline(struct worker *worker, size_t count)
{
    process_worker_lock(worker);
    if (worker->pending.count > 0 && shm_now_ns() - worker->pending.oldest_ns + count * worker->mean_ns >
                                         worker->config->commit_delay_ms * 1000000)
        process_worker_commit(worker);
    process_worker_unlock(worker);
}

/* Sends the next events of the batch to the stage's program together, if the stage can take them (exec
 * stages can). The worker runs it when no pipeline is under way; it reads the answers one by one
 * afterwards. */
static void send_pipeline(struct worker *worker)
{
    struct batch *batch = &worker->batch;
    if (worker->ops->send_ahead == NULL)
        return;
    size_t count = count_pipeline_events(batch, compute_pipeline_limit(worker)), sent = 0;
    if (count > 0)
        commit_before_pipeline(worker, count);
    while (sent < count && !process_stopping(&worker->process)) {
        struct store_row row;
        struct ep_call call;
        process_batch_row(batch, &batch->events[batch->next + sent], &row);
        if (row_fault(&row) != NULL)
            break;
        open_call(worker, &row, &call);
        bool taken = worker->ops->send_ahead(worker->state, &call);
        stage_call_close(&call);
        if (!taken)
            break;
        sent++;
    }
    worker->pipeline = (struct pipeline){.size = sent, .left = sent};
    atomic_store_explicit(&worker->process.slot->pipeline, (uint32_t)sent, memory_order_relaxed);
}

/* ---- the batch ---- */

/* Commits the worker's answers if the batch is full or old, or if no more events wait (more = false). The
 * worker's main thread calls it after each event or pipeline, and before it sleeps. */
void process_worker_commit_due(struct worker *worker, bool more)
{
    process_worker_lock(worker);
    const struct pending *pending = &worker->pending;
    uint64_t delay_ns = worker->config->commit_delay_ms * 1000000;
    if (pending->count > 0 &&
        (!more || pending->count >= worker->config->batch || shm_now_ns() - pending->oldest_ns >= delay_ns))
        process_worker_commit(worker);
    process_worker_unlock(worker);
}

/* Runs the stage on the worker's batch, event by event or in pipelines, and commits what is due on the
 * way. The worker's loop calls it after it has taken events. At a stop it leaves the rest, which the
 * producer unlocks. */
void process_worker_run(struct worker *worker)
{
    struct batch *batch = &worker->batch;
    struct pipeline *pipeline = &worker->pipeline;
    while (batch->next < batch->count && (pipeline->left > 0 || !process_stopping(&worker->process))) {
        struct batch_event *event = &batch->events[batch->next];
        if (!event->read && !event->lost) {
            read_batch(worker);
            continue;
        }
        if (pipeline->left == 0)
            send_pipeline(worker); /* which may commit, and that may take long */
        if (pipeline->left == 0 && process_stopping(&worker->process))
            break;
        if (event->lost)
            drop_lost_event(worker, event);
        else
            process_or_reject(worker, event);
        batch->next++;
        if (pipeline->left > 0 && --pipeline->left == 0)
            atomic_store_explicit(&worker->process.slot->pipeline, 0, memory_order_relaxed);
        if (pipeline->left == 0)
            process_worker_commit_due(worker, true);
    }
    if (batch->next == batch->count)
        process_batch_clear(batch);
}
