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

#define FIRST_EVENTS_ALONE \
    256 /* the first events of a process go alone: a program that fails soon has failed by then */
#define PIPELINE_EVENTS_MIN 8 /* fewer are not worth the short wait for silence at their end (stage_exec.c) */

/* Reads the texts of the batch's next events from the store, and waits while the store is busy. The
 * worker runs it when the next event of its batch is not read yet. */
static void read_batch(struct worker *worker)
{
    process_worker_lock(worker);
    while (!process_check_store_result(&worker->process,
                                       process_batch_read(&worker->batch, worker->process.store)))
        if (process_is_stopping(&worker->process))
            break;
    process_worker_unlock(worker);
}

static void exit_after_stage_failure(struct worker *worker, const struct stage_failure *failure)
    __attribute__((noreturn));

/* Drops the answers that the events of a pipeline (events sent to a program together) have had so far,
 * because after a malformed one it is unknown which event each belongs to. The worker runs it with its
 * lock held, before it exits; these events run again one by one. */
static void drop_pipeline_answers(struct worker *worker)
{
    size_t answered_count = worker->pipeline.event_count - worker->pipeline.unanswered_count,
           pending_count = worker->pending.count;
    process_pending_truncate(&worker->pending,
                             pending_count > answered_count ? pending_count - answered_count : 0);
}

/* Returns whether the stage's failure cannot be blamed on the worker's current event. A malformed answer
 * in a pipeline (events sent together) could belong to any of its events. A program that has answered
 * before and ends before it is sent another event did not crash over that one. The worker asks before it
 * exits. */
static bool has_no_event_to_blame(const struct worker *worker, const struct stage_failure *failure)
{
    return (worker->pipeline.event_count > 1 && failure->kind == SHM_CAUSE_MALFORMED) ||
           (failure->unsent && worker->run_count > 0);
}

/* Ends the worker after its stage's program has ended or has given a malformed answer: stores the reason
 * in the worker's slot in shared memory for the supervisor, commits the finished answers, and exits. The
 * supervisor restarts the worker, and the producer unlocks the other events. */
static void exit_after_stage_failure(struct worker *worker, const struct stage_failure *failure)
{
    struct shm_slot *slot = worker->process.slot;
    if (failure->unsent)
        atomic_store(&slot->pipeline, 0);
    if (has_no_event_to_blame(worker, failure))
        atomic_store(&slot->ticket, SHM_NO_TICKET); /* before there is a cause to blame it for */
    text_set(&slot->cause_message, failure->message);
    atomic_store(&slot->cause_code, failure->code);
    atomic_store(&slot->cause_kind, failure->kind);
    process_worker_lock(worker);
    if (worker->pipeline.event_count > 1 && failure->kind == SHM_CAUSE_MALFORMED)
        drop_pipeline_answers(worker);
    process_worker_commit_pending(
        worker); /* `is_call_running` is still set, so the slot still names the current event */
    base_log_warning("stage-failed error=\"%s\"", failure->message);
    _exit(CHILD_BROKEN);
}

/* Turns the answer that the stage has set in *call into an answer that waits for its commit. The worker
 * runs it after each call, with its lock held. Ends the process if there is no memory. */
static void add_pending_answer(struct worker *worker, const struct batch_event *event,
                               const struct store_row *row, struct ep_call *call, uint64_t begin_ns,
                               uint64_t now_ns)
{
    struct chain_answer answer;
    int result = stage_call_print_changed_context(call);
    if (result == 0)
        result = process_chain_apply_answer(worker->source_config, worker->stage->position, row, call,
                                            shm_realtime_ms(),
                                            call->answer == EP_PROCESSED ? 0 : arc4random(), &answer);
    if (result == 0) {
        answer.store.attempt = call->attempt;
        answer.store.duration_us = (now_ns - begin_ns) / 1000;
        result = process_pending_add(&worker->pending, event->ticket, event->lock, &answer, call, now_ns);
    }
    if (result != 0)
        process_fail(&worker->process, CHILD_MEMORY, "out of memory");
}

/* Updates the mean time of the stage's calls, by which the worker decides how many events it takes. The
 * answers of a pipeline (events sent together) arrive together, so it counts the whole time of the
 * pipeline, divided by its events. The worker runs it after each call. */
static void update_mean_duration(struct worker *worker, uint64_t call_ns)
{
    struct pipeline *pipeline = &worker->pipeline;
    pipeline->spent_ns += call_ns;
    if (pipeline->unanswered_count > 1)
        return;
    call_ns = pipeline->event_count > 0 ? pipeline->spent_ns / pipeline->event_count : call_ns;
    if (call_ns == 0)
        call_ns = 1;
    worker->mean_call_ns = worker->mean_call_ns == 0 ? call_ns : (worker->mean_call_ns * 7 + call_ns) / 8;
}

/* Fills in a call of the stage with the event's data, context and attempt. The worker runs it for each
 * event, before it calls the stage or sends the event ahead in a pipeline. The call borrows the texts
 * of *row. */
static void fill_call(const struct worker *worker, const struct store_row *row, struct ep_call *call)
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

/* Runs the stage on one event and adds its answer to the pending ones. Meanwhile the worker's slot in
 * shared memory names the event: if the worker crashes, the supervisor blames only this one. The worker
 * runs it for each event. It does not return if the stage's program has failed. */
static void run_event(struct worker *worker, const struct batch_event *event, const struct store_row *row)
{
    struct ep_call call;
    fill_call(worker, row, &call);
    uint64_t begin_ns = shm_now_ns();
    slot_set_uid(worker->process.slot, row->uid);
    const struct slot_event current = {event->lock.event, row->attempts, row->crashes, row->arrival_ms};
    slot_begin_event(worker->process.slot, event->ticket, &current, begin_ns);
    process_set_title("%s busy ev %llu", worker->name,
                      (unsigned long long)store_event_number(event->lock.event));

    process_worker_lock(worker);
    worker->is_call_running = true;
    if (worker->pending.count > 0 || worker->has_leftover)
        process_worker_flush_timer_start(worker);
    process_worker_unlock(worker);
    struct stage_failure failure = {0};
    if (worker->config->type != STAGE_EXEC)
        config_limits_renew_cpu(0, &worker->config->limits); /* it worked at the start */
    if (worker->ops->process(worker->state, &call, &failure) != STAGE_ANSWERED)
        exit_after_stage_failure(worker, &failure);

    uint64_t end_ns = shm_now_ns();
    slot_end_event(worker->process.slot,
                   end_ns); /* before the lock: a store that waits is not the stage's time */
    process_worker_lock(worker);
    worker->is_call_running = false;
    add_pending_answer(worker, event, row, &call, begin_ns, end_ns);
    process_worker_unlock(worker);
    stage_call_close(&call);
    update_mean_duration(worker, end_ns - begin_ns);
    worker->run_count++;
}

/* Returns why an event must not reach the stage, as a text that names what is wrong with its row, or NULL
 * if it may. The store checked the JSON when the row was stored, so invalid JSON means that the store was
 * damaged since. The worker runs it before each call of the stage. */
static const char *describe_row_fault(const struct store_row *row)
{
    if (!json_valid(row->data, row->data_bytes, NULL))
        return "its data in the store is no longer valid JSON";
    if (row->context_bytes > 0 && !json_valid(row->context, row->context_bytes, NULL))
        return "its context in the store is no longer valid JSON";
    return NULL;
}

/* Makes an event whose row in the store is damaged a dead letter with this fault as its error. The
 * worker runs it in place of the call of the stage, which expects valid JSON. */
static void mark_corrupt_dead(struct worker *worker, const struct batch_event *event, const char *row_fault)
{
    struct chain_answer answer = {.store = {.change = STORE_DEAD_LETTER,
                                            .reason = STORE_REASON_CORRUPT,
                                            .error = row_fault,
                                            .failed = true}};
    struct ep_call call;
    stage_call_open(&call);
    process_worker_lock(worker);
    int result =
        process_pending_add(&worker->pending, event->ticket, event->lock, &answer, &call, shm_now_ns());
    process_worker_unlock(worker);
    if (result != 0)
        process_fail(&worker->process, CHILD_MEMORY, "out of memory");
}

/* Frees the ticket (the record of who has an event) of an event that the store has locked for another
 * process, and logs it. The worker runs it for each event of its batch that process_batch_read has marked
 * as lost. */
static void drop_lost_event(struct worker *worker, const struct batch_event *event)
{
    base_log_warning("lease-lost event=%llu", (unsigned long long)store_event_number(event->lock.event));
    ticket_free(&worker->child->segment, event->ticket, worker->child->slot);
    wake_ticket_freed(&worker->child->segment, worker->source);
}

/* Runs the stage on an event of the worker's batch, or makes the event dead if its row in the store is
 * damaged. Events of a pipeline were checked when they were sent. */
static void run_or_reject_event(struct worker *worker, const struct batch_event *event)
{
    struct store_row row;
    process_batch_fill_row(&worker->batch, event, &row);
    const char *row_fault = worker->pipeline.unanswered_count > 0
                                ? NULL
                                : describe_row_fault(&row); /* those sent ahead were checked */
    if (row_fault != NULL)
        mark_corrupt_dead(worker, event, row_fault);
    else
        run_event(worker, event, &row);
}

/* ---- pipelines ---- */

/* Returns how many events the worker may send to the stage's program together (as a pipeline) now, 0 if
 * each must go alone. A new program and one that has failed with a pipeline get their events one by one,
 * so that a failure shows its event. */
static size_t compute_pipeline_limit(const struct worker *worker)
{
    if (worker->run_count < FIRST_EVENTS_ALONE ||
        shm_now_ns() < atomic_load_explicit(&worker->stage->alone_until_ns, memory_order_relaxed))
        return 0;
    uint64_t upper_limit = worker->config->commit_delay_ms * 400000 / worker->mean_call_ns;
    if (upper_limit > worker->config->prefetch)
        upper_limit = worker->config->prefetch;
    return upper_limit < PIPELINE_EVENTS_MIN ? 0 : (size_t)upper_limit;
}

/* Returns how many of the batch's next events the worker may send together, at most upper_limit; 0 if
 * there are too few. Stops at an event that has failed or crashed before, which must go alone, and at
 * one that is not read yet. */
static size_t count_pipeline_events(const struct batch *batch, size_t upper_limit)
{
    size_t count = 0;
    while (count < upper_limit && batch->next + count < batch->count) {
        const struct batch_event *event = &batch->events[batch->next + count];
        if (!event->is_read || event->is_lost || event->attempts + event->crashes > 0)
            break;
        count++;
    }
    return count < PIPELINE_EVENTS_MIN ? 0 : count;
}

/* Commits the worker's pending answers if they would reach commit_delay while a pipeline runs, that is,
 * while `count` events sent to the program together are answered. Otherwise the committer thread would
 * commit them then, and with them answers of the pipeline, all of which a malformed answer must still be
 * able to drop. */
static void commit_if_due_during_pipeline(struct worker *worker, size_t count)
{
    process_worker_lock(worker);
    if (worker->pending.count > 0 && shm_now_ns() - worker->pending.oldest_ns + count * worker->mean_call_ns >
                                         worker->config->commit_delay_ms * 1000000)
        process_worker_commit_pending(worker);
    process_worker_unlock(worker);
}

/* Sends the next events of the worker's batch to the stage's program together, as a pipeline, if the stage
 * supports it (exec stages do), so that the program need not wait for each. The worker runs it when all
 * earlier answers are read; it reads the new answers one by one. */
static void send_pipeline(struct worker *worker)
{
    struct batch *batch = &worker->batch;
    if (worker->ops->send_ahead == NULL)
        return;
    size_t count = count_pipeline_events(batch, compute_pipeline_limit(worker)), sent_count = 0;
    if (count > 0)
        commit_if_due_during_pipeline(worker, count);
    while (sent_count < count && !process_is_stopping(&worker->process)) {
        struct store_row row;
        struct ep_call call;
        process_batch_fill_row(batch, &batch->events[batch->next + sent_count], &row);
        if (describe_row_fault(&row) != NULL)
            break;
        fill_call(worker, &row, &call);
        bool was_sent = worker->ops->send_ahead(worker->state, &call);
        stage_call_close(&call);
        if (!was_sent)
            break;
        sent_count++;
    }
    worker->pipeline = (struct pipeline){.event_count = sent_count, .unanswered_count = sent_count};
    atomic_store_explicit(&worker->process.slot->pipeline, (uint32_t)sent_count, memory_order_relaxed);
}

/* ---- the batch ---- */

/* Commits the worker's answers if the batch is full, if the oldest answer has waited for commit_delay,
 * or if no more events wait (more = false). The worker's main thread calls it after each event or
 * pipeline, and before it sleeps. */
void process_worker_commit_if_due(struct worker *worker, bool more)
{
    process_worker_lock(worker);
    const struct pending *pending = &worker->pending;
    uint64_t delay_ns = worker->config->commit_delay_ms * 1000000;
    if (pending->count > 0 &&
        (!more || pending->count >= worker->config->batch || shm_now_ns() - pending->oldest_ns >= delay_ns))
        process_worker_commit_pending(worker);
    process_worker_unlock(worker);
}

/* Runs the stage on the worker's batch, event by event or in pipelines, and commits answers when they
 * are due. The worker's loop calls it after it has taken events. At a stop it leaves the other events,
 * which the producer unlocks. */
void process_worker_run_batch(struct worker *worker)
{
    struct batch *batch = &worker->batch;
    struct pipeline *pipeline = &worker->pipeline;
    while (batch->next < batch->count &&
           (pipeline->unanswered_count > 0 || !process_is_stopping(&worker->process))) {
        struct batch_event *event = &batch->events[batch->next];
        if (!event->is_read && !event->is_lost) {
            read_batch(worker);
            continue;
        }
        if (pipeline->unanswered_count == 0)
            send_pipeline(worker); /* which may commit, and that may take long */
        if (pipeline->unanswered_count == 0 && process_is_stopping(&worker->process))
            break;
        if (event->is_lost)
            drop_lost_event(worker, event);
        else
            run_or_reject_event(worker, event);
        batch->next++;
        if (pipeline->unanswered_count > 0 && --pipeline->unanswered_count == 0)
            atomic_store_explicit(&worker->process.slot->pipeline, 0, memory_order_relaxed);
        if (pipeline->unanswered_count == 0)
            process_worker_commit_if_due(worker, true);
    }
    if (batch->next == batch->count)
        process_batch_clear(batch);
}
