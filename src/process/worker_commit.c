/* SPDX-License-Identifier: MIT */
/*
 * The commit rule: a worker commits its answers together when no more events wait, when the batch is full,
 * or when the oldest answer is older than commit_delay. Runs in workers. The main thread does the first
 * two (worker.c, worker_run.c). The committer does the third: a thread that acts only while a call of the
 * stage runs and answers wait.
 *
 * Invariants
 *  1. An answer is visible to the next stage only after its commit: the ticket is handed on after it.
 *  2. A kill between commit and hand-over leaves a RUNNING ticket of a dead slot. The supervisor orphans
 *     it, the producer unlocks its event by token, and the event enters again at the stage that its
 *     committed progress names.
 *  3. Handing on never waits: rings have room for all tickets and for stale copies (ticket_pass). A worker
 *     is held back by a full ring before it takes more events (worker.c). So a ring exceeds input_buffer
 *     at most by the events that workers had taken.
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
    UINT64_C(5000000) /* entries that a worker left in its ring wait this long for its next turn */

void process_worker_lock(struct worker *worker)
{
    pthread_mutex_lock(&worker->lock);
}

void process_worker_unlock(struct worker *worker)
{
    pthread_mutex_unlock(&worker->lock);
}

/* Tells the producer that a delayed event is due earlier than it knows, and wakes it. The worker runs it
 * after the commit of a delay; otherwise the retry would come too late. */
static void report_due_time(struct worker *worker, uint64_t due_ms)
{
    uint64_t known = atomic_load(&worker->source->next_due_ms);
    while (due_ms < known)
        if (atomic_compare_exchange_weak(&worker->source->next_due_ms, &known, due_ms)) {
            wake_slot(segment_slot(&worker->child->segment, worker->source->producer_slot));
            return;
        }
}

/* Reports the earliest delay of a commit to the producer, before any ticket is freed: a producer that
 * finds no ticket in use must know of every delay. The worker runs it after each commit. */
static void report_delays(struct worker *worker)
{
    uint64_t earliest_ms = UINT64_MAX;
    for (size_t i = 0; i < worker->pending.count; i++) {
        const struct store_answer *answer = &worker->pending.answers[i];
        if (answer->applied && answer->change == STORE_DELAY && answer->due_ms < earliest_ms)
            earliest_ms = answer->due_ms;
    }
    if (earliest_ms != UINT64_MAX)
        report_due_time(worker, earliest_ms);
}

/* Passes each committed event to its next stage's ring, or frees its ticket. Notes in `pushed` which
 * stages to wake. The worker runs it after the commit, never before (invariant 1). */
static void hand_over_events(struct worker *worker, bool *pushed)
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

/* Commits the worker's pending answers in the store and hands the events on to their next stages. The main
 * thread calls it when the batch is full or no event waits, the committer when answers get old. The lock
 * is held. */
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
                pending); /* not committed: the tickets stay ours and are recovered after our exit */
            return;
        }
    process_mark_progress(&worker->process);
    bool pushed[worker->source_config->stage_count];
    memset(pushed, 0, sizeof pushed);
    report_delays(worker);
    hand_over_events(worker, pushed);
    for (uint32_t i = 0; i < worker->source_config->stage_count; i++)
        if (pushed[i])
            wake_stage(&worker->child->segment,
                       segment_stage(&worker->child->segment, worker->source->first_stage + i));
    process_pending_clear(pending);
    process_notify_keeper(worker->child);
}

/* Commits the worker's answers if the oldest is older than commit_delay. Returns how long until it will
 * be, 0 = nothing waits. The committer thread runs it while a call of the stage lasts. */
static uint64_t commit_old_answers(struct worker *worker)
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

/* Wakes another worker for events that this one left in the ring, if it has not come back for
 * LEFTOVER_WAIT_NS. Returns how long until then, 0 = nothing waits. The worker's committer thread runs it. */
static uint64_t wake_for_old_leftover(struct worker *worker)
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

/* Does what is due while a call of the stage lasts: commits old answers, wakes a worker for events left in
 * the ring. Returns how long until the next look, 0 = nothing waits. The worker's committer thread runs
 * it. */
static uint64_t run_flush_timer(struct worker *worker)
{
    if (!worker->calling)
        return 0;
    uint64_t leftover_ns = wake_for_old_leftover(worker), wait_ns = commit_old_answers(worker);
    return leftover_ns > 0 && (wait_ns == 0 || leftover_ns < wait_ns) ? leftover_ns : wait_ns;
}

/* The worker's committer thread: commits answers that get older than commit_delay while a long call of the
 * stage blocks the main thread. After three idle rounds it sleeps until the flush timer is started. */
static void *run_committer(void *user)
{
    struct worker *worker = user;
    uint32_t idle_rounds = 0;
    process_worker_lock(worker);
    for (;;) {
        uint64_t wait_ns = run_flush_timer(worker);
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
        const struct timespec deadline = {.tv_sec = (time_t)(worker->flush_deadline_ns / 1000000000),
                                          .tv_nsec = (long)(worker->flush_deadline_ns % 1000000000)};
        pthread_cond_timedwait(&worker->flush_timer_started, &worker->lock, &deadline);
    }
    return NULL;
}

/* Starts the committer thread with a small stack. The worker calls it once at its start, after the stage
 * is open. Returns 0 or an errno. */
int process_worker_start_committer(struct worker *worker)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int result = pthread_attr_init(&attributes);
    if (result != 0)
        return result;
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    result = pthread_create(&thread, &attributes, run_committer, worker);
    pthread_attr_destroy(&attributes);
    return result;
}

/* Starts the timer of the committer thread, also again if it would look too late for events left in the
 * ring. The worker calls it before a call of the stage, with the lock held, while answers or leftover
 * events wait. */
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
