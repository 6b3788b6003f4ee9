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
 *  3. Handing on never waits: rings have room for all tickets and for stale copies (ticket_pass_on). A worker
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

/* Tells the source's producer, through shared memory, when a delayed event is due, and wakes it if this is
 * earlier than all that it knows of. The worker runs it after the commit of a delay; otherwise the retry
 * would come too late. */
static void report_due_time(struct worker *worker, uint64_t due_ms)
{
    uint64_t known_due_ms = atomic_load(&worker->source->next_due_ms);
    while (due_ms < known_due_ms)
        if (atomic_compare_exchange_weak(&worker->source->next_due_ms, &known_due_ms, due_ms)) {
            wake_slot(segment_slot(&worker->child->segment, worker->source->producer_slot));
            return;
        }
}

/* Reports the earliest due time of the delays just committed to the producer. The worker runs it after
 * each commit and before it frees a ticket: a producer that finds no ticket in use must know of every
 * delay, or it would report its source as empty. */
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

/* Pushes each committed event into its next stage's ring, or frees its ticket (the record of who has an
 * event) if it needs no further stage. Sets was_pushed_to[i] for each stage whose workers must be woken.
 * The worker runs it after the commit, never before: the next stage must not see an answer that may be
 * rolled back. */
static void hand_over_events(struct worker *worker, bool *was_pushed_to)
{
    const struct segment *segment = &worker->child->segment;
    uint32_t slot = worker->child->slot;
    bool freed_any = false;
    for (size_t i = 0; i < worker->pending.count; i++) {
        const struct store_answer *answer = &worker->pending.answers[i];
        const struct pending_answer *extra = &worker->pending.extra[i];
        if (!answer->applied)
            base_log_warning("lease-lost event=%llu",
                             (unsigned long long)store_event_number(answer->lock.event));
        if (!answer->applied || answer->change != STORE_ADVANCE) {
            ticket_free(segment, extra->ticket, slot);
            freed_any = true;
            continue;
        }
        if (ticket_pass_on(segment, worker->source, extra->ticket, slot, (uint32_t)extra->next))
            was_pushed_to[extra->next] = true;
    }
    if (freed_any)
        wake_ticket_freed(segment, worker->source);
}

/* Commits the worker's pending answers in the store and hands the events on to their next stages. The
 * main thread calls it when the batch is full or no event waits, the committer thread when answers get
 * old. The caller holds worker->lock. Waits while the store is busy. */
void process_worker_commit_pending(struct worker *worker)
{
    struct pending *pending = &worker->pending;
    if (pending->count == 0)
        return;
    int64_t source = atomic_load_explicit(&worker->source->store_id, memory_order_relaxed);
    int64_t stage = atomic_load_explicit(&worker->stage->store_id, memory_order_relaxed);
    if (!worker->is_call_running)
        slot_set_state(worker->process.slot, SHM_SLOT_COMMITTING);
    while (!process_check_store_result(&worker->process,
                                       process_group_commit(&worker->group_commit, source, stage,
                                                            pending->answers, pending->count)))
        if (process_is_stopping(&worker->process)) {
            process_pending_clear(
                pending); /* not committed: the tickets stay ours and are recovered after our exit */
            return;
        }
    process_mark_progress(&worker->process);
    bool was_pushed_to[worker->source_config->stage_count];
    memset(was_pushed_to, 0, sizeof was_pushed_to);
    report_delays(worker);
    hand_over_events(worker, was_pushed_to);
    for (uint32_t i = 0; i < worker->source_config->stage_count; i++)
        if (was_pushed_to[i])
            wake_stage(&worker->child->segment,
                       segment_stage(&worker->child->segment, worker->source->first_stage + i));
    process_pending_clear(pending);
    process_notify_keeper(worker->child);
}

/* Commits the worker's answers if the oldest has waited for commit_delay. Returns how many nanoseconds
 * remain until then, 0 if no answer waits. The committer thread runs it while a call of the stage
 * lasts. */
static uint64_t commit_old_answers(struct worker *worker)
{
    uint64_t delay_ns = worker->config->commit_delay_ms * 1000000;
    if (worker->pending.count == 0)
        return 0;
    uint64_t age_ns = shm_now_ns() - worker->pending.oldest_ns;
    if (age_ns < delay_ns)
        return delay_ns - age_ns;
    process_worker_commit_pending(worker);
    return 0;
}

/* Wakes another worker for events that this one has left in the ring, if it has not taken them within
 * LEFTOVER_WAIT_NS. Returns how many nanoseconds remain until then, 0 if nothing is left. The worker's
 * committer thread runs it. */
static uint64_t wake_for_old_leftover(struct worker *worker)
{
    if (!worker->has_leftover)
        return 0;
    uint64_t age_ns = shm_now_ns() - worker->leftover_since_ns;
    if (age_ns < LEFTOVER_WAIT_NS)
        return LEFTOVER_WAIT_NS - age_ns;
    worker->has_leftover = false;
    wake_for_leftover(&worker->child->segment, worker->stage);
    return 0;
}

/* Does what cannot wait while a call of the stage lasts: commits old answers, wakes another worker for
 * events left in the ring. Returns how many nanoseconds until it must run again, 0 if nothing waits.
 * The worker's committer thread runs it. */
static uint64_t run_flush_timer(struct worker *worker)
{
    if (!worker->is_call_running)
        return 0;
    uint64_t leftover_wait_ns = wake_for_old_leftover(worker), commit_wait_ns = commit_old_answers(worker);
    return leftover_wait_ns > 0 && (commit_wait_ns == 0 || leftover_wait_ns < commit_wait_ns)
               ? leftover_wait_ns
               : commit_wait_ns;
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
            worker->is_flush_timer_running = false;
            while (!worker->is_flush_timer_running)
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

/* Starts the timer of the committer thread. If it runs, but would look too late for events left in the
 * ring, starts it again. The worker calls it, with worker->lock held, before a call of the stage while
 * answers or leftover events wait. */
void process_worker_flush_timer_start(struct worker *worker)
{
    bool looks_too_late =
        worker->has_leftover && worker->flush_deadline_ns > worker->leftover_since_ns + 2 * LEFTOVER_WAIT_NS;
    if (!worker->is_flush_timer_running || looks_too_late) {
        worker->is_flush_timer_running = true;
        worker->flush_deadline_ns = 0;
        pthread_cond_signal(&worker->flush_timer_started);
    }
}
