/* SPDX-License-Identifier: MIT */
/*
 * The commit rule: a worker's answers are committed together when nothing more waits, when the batch is full,
 * or when the oldest is older than commit_delay. Runs in workers. The first two are the main thread's
 * (worker.c); the third is the committer's, a thread that acts only while a call of the stage runs and keeps
 * answers waiting.
 *
 * Invariants
 *  1. An answer is visible to the next stage only after its commit: the ticket is handed over after it.
 *  2. A kill between commit and hand-over leaves a RUNNING ticket of a dead slot: it is orphaned, its event
 * released by token, and it enters again at the stage its committed progress names.
 *  3. Handing over never waits: rings hold all tickets there are, and copies (ticket_pass). Who is held back
 * by a full ring is held before it takes more (worker.c), so a ring exceeds input_buffer by what workers had
 * in hand at most.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "shm/ring.h"
#include "shm/ticket.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/process/worker.h"

#define LEFTOVER_WAIT_NS \
    UINT64_C(5000000) /* what a worker left in its ring waits so long for its next turn */

void process_worker_lock(struct worker *worker)
{
    pthread_mutex_lock(&worker->lock);
}

void process_worker_unlock(struct worker *worker)
{
    pthread_mutex_unlock(&worker->lock);
}

static void note_due(struct worker *worker, uint64_t due_ms)
{
    uint64_t known = atomic_load(&worker->source->next_due_ms);
    while (due_ms < known)
        if (atomic_compare_exchange_weak(&worker->source->next_due_ms, &known, due_ms)) {
            wake_slot(segment_slot(&worker->child->segment, worker->source->producer_slot));
            return;
        }
}

/* Before any ticket is freed: a producer that finds no ticket in use must have been told of every delay. */
static void report_delays(struct worker *worker)
{
    uint64_t earliest_ms = UINT64_MAX;
    for (size_t i = 0; i < worker->pending.count; i++) {
        const struct store_answer *answer = &worker->pending.answers[i];
        if (answer->applied && answer->change == STORE_DELAY && answer->due_ms < earliest_ms)
            earliest_ms = answer->due_ms;
    }
    if (earliest_ms != UINT64_MAX)
        note_due(worker, earliest_ms);
}

static void hand_over(struct worker *worker, bool *pushed)
{
    const struct segment *segment = &worker->child->segment;
    uint32_t slot = worker->child->slot;
    bool freed = false;
    for (size_t i = 0; i < worker->pending.count; i++) {
        const struct store_answer *answer = &worker->pending.answers[i];
        const struct pending_answer *extra = &worker->pending.extra[i];
        if (!answer->applied)
            base_log_warning("lease-lost event=%llu",
                             (unsigned long long)store_event_number(answer->lock.event));
        if (!answer->applied || answer->change != STORE_ADVANCE) {
            ticket_free(segment, extra->ticket, slot);
            freed = true;
            continue;
        }
        if (ticket_pass(segment, worker->source, extra->ticket, slot, (uint32_t)extra->next))
            pushed[extra->next] = true;
    }
    if (freed)
        wake_ticket_freed(segment, worker->source);
}

void process_worker_commit(struct worker *worker)
{
    struct pending *pending = &worker->pending;
    if (pending->count == 0)
        return;
    int64_t source = atomic_load_explicit(&worker->source->store_id, memory_order_relaxed);
    int64_t stage = atomic_load_explicit(&worker->stage->store_id, memory_order_relaxed);
    if (!worker->calling)
        slot_state(worker->process.slot, SHM_SLOT_COMMITTING);
    while (!process_store_done(&worker->process, process_group_commit(&worker->group_commit, source, stage,
                                                                      pending->answers, pending->count)))
        if (process_stopping(&worker->process)) {
            process_pending_clear(
                pending); /* not committed: their tickets stay ours and are released after our end */
            return;
        }
    process_mark_progress(&worker->process);
    bool pushed[worker->source_config->stage_count];
    memset(pushed, 0, sizeof pushed);
    report_delays(worker);
    hand_over(worker, pushed);
    for (uint32_t i = 0; i < worker->source_config->stage_count; i++)
        if (pushed[i])
            wake_stage(&worker->child->segment,
                       segment_stage(&worker->child->segment, worker->source->first_stage + i));
    process_pending_clear(pending);
    process_notify_keeper(worker->child);
}

static uint64_t commit_old(struct worker *worker)
{
    uint64_t delay_ns = worker->config->commit_delay_ms * 1000000;
    if (worker->pending.count == 0)
        return 0;
    uint64_t age = shm_now_ns() - worker->pending.oldest_ns;
    if (age < delay_ns)
        return delay_ns - age;
    process_worker_commit(worker);
    return 0;
}

/* For what the worker left in the ring because it would soon be back. */
static uint64_t wake_if_leftover_waits(struct worker *worker)
{
    if (!worker->leftover_pending)
        return 0;
    uint64_t age = shm_now_ns() - worker->leftover_ns;
    if (age < LEFTOVER_WAIT_NS)
        return LEFTOVER_WAIT_NS - age;
    worker->leftover_pending = false;
    wake_for_leftover(&worker->child->segment, worker->stage);
    return 0;
}

/* One look: does what is due; returns how long until the next look, 0 = nothing waits. */
static uint64_t flush_due(struct worker *worker)
{
    if (!worker->calling)
        return 0;
    uint64_t leftover_ns = wake_if_leftover_waits(worker), wait_ns = commit_old(worker);
    return leftover_ns > 0 && (wait_ns == 0 || leftover_ns < wait_ns) ? leftover_ns : wait_ns;
}

static void *committer(void *user)
{
    struct worker *worker = user;
    uint32_t idle_rounds = 0;
    process_worker_lock(worker);
    for (;;) {
        uint64_t wait_ns = flush_due(worker);
        idle_rounds = wait_ns == 0 ? idle_rounds + 1 : 0;
        if (idle_rounds > 2) {
            worker->flush_timer_running = false;
            while (!worker->flush_timer_running)
                pthread_cond_wait(&worker->flush_timer_started, &worker->lock);
            idle_rounds = 0;
            continue;
        }
        if (wait_ns == 0)
            wait_ns = worker->config->commit_delay_ms * 1000000 + 1000000;
        worker->flush_deadline_ns = shm_now_ns() + wait_ns;
        const struct timespec look = {.tv_sec = (time_t)(worker->flush_deadline_ns / 1000000000),
                                      .tv_nsec = (long)(worker->flush_deadline_ns % 1000000000)};
        pthread_cond_timedwait(&worker->flush_timer_started, &worker->lock, &look);
    }
    return NULL;
}

int process_worker_start_committer(struct worker *worker)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int result = pthread_attr_init(&attributes);
    if (result != 0)
        return result;
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    result = pthread_create(&thread, &attributes, committer, worker);
    pthread_attr_destroy(&attributes);
    return result;
}

/* What was left in the ring may have to be looked at long before answers are too old. */
void process_worker_flush_timer_start(struct worker *worker)
{
    bool late =
        worker->leftover_pending && worker->flush_deadline_ns > worker->leftover_ns + 2 * LEFTOVER_WAIT_NS;
    if (!worker->flush_timer_running || late) {
        worker->flush_timer_running = true;
        worker->flush_deadline_ns = 0;
        pthread_cond_signal(&worker->flush_timer_started);
    }
}
