/* SPDX-License-Identifier: MIT */
/*
 * The worker: takes the events that wait for its stage, runs the stage on each (worker_run.c), and commits
 * the answers together (worker_commit.c). One process per worker. It owns its store handle, its batch and
 * its stage's state.
 *
 * Invariants
 *  1. A worker takes no more events than it is likely to run within commit_delay, by the stage's mean time
 *     so far. So no event waits behind a slow one while another worker is idle. It also takes no more than
 *     its share of the waiting events, unless it can run all of them in less time than another transaction
 *     takes. It wakes no other worker for the few that it leaves, and takes them next time; if a call
 *     takes long, the committer wakes one for them.
 *  2. At a clean stop it finishes and commits the current event, with those that were sent to a program
 *     together with it. The others stay RUNNING in their tickets; the supervisor and the producer unlock
 *     them after this process has exited.
 *
 * Fatal: no memory, limits that cannot be set, a stage that cannot be opened or whose program fails, a
 * broken store.
 */
#include "src/process/worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/ring.h"
#include "shm/ticket.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/config/limits.h"
#include "src/json/json.h"

#define BATCH_EVENTS_MAX 64 /* events taken at a time; segment_tickets_for counts on it */
#define STAGE_CLOSE_MS 2000
#define ONE_WORKER_SUFFICES_NS \
    500000 /* about the time of a transaction: less work than this is not shared with other workers */

/* Makes stdout line-buffered, so that what stages in C print is not lost in a buffer when the process
 * is killed. The worker runs it at its start. */
static void set_line_buffering(void)
{
    static char buffer[BUFSIZ];
    setvbuf(stdout, buffer, _IOLBF, sizeof buffer);
}

static void on_program(pid_t pid, void *user)
{
    struct worker *worker = user;
    atomic_store(&worker->process.slot->program_pid, pid);
}

/* Sets the limits of the stage's configuration (CPU, memory, ...) on the worker itself, which runs
 * plugin and other in-process stages. The program of an exec stage gets its own limits when it starts.
 * The worker runs it once at its start; a limit that cannot be set ends the process. */
static void set_stage_limits(struct worker *worker)
{
    const char *limit_name = "cpu";
    if (worker->config->type == STAGE_EXEC)
        return;
    int error = config_limits_renew_cpu(0, &worker->config->limits);
    if (error == 0)
        error = config_limits_set(&worker->config->limits, &limit_name);
    if (error == 0)
        return;
    char message[128];
    snprintf(message, sizeof message, "cannot set the stage's limit of %s: %s", limit_name, strerror(error));
    process_fail(&worker->process, CHILD_OPEN, message);
}

/* Opens everything that a worker needs after fork: shared memory, store, batch, the stage itself and
 * the committer thread. Then it tells the supervisor that it is ready. A failure ends the process.
 * process_worker_main runs it. */
static void open_worker(struct worker *worker, const struct child_context *child, uint32_t stage)
{
    *worker = (struct worker){.child = child};
    worker->stage = segment_stage(&child->segment, stage);
    worker->source = segment_source(&child->segment, worker->stage->source);
    worker->source_config = &child->config->sources[worker->stage->source];
    worker->config = &worker->source_config->stages[worker->stage->position];
    const struct shm_slot *slot = segment_slot(&child->segment, child->slot);
    snprintf(worker->name, sizeof worker->name, "%s/%s[%u]", worker->source->id, worker->stage->name,
             slot->index);
    process_open(&worker->process, child, worker->name);
    process_open_store(&worker->process);
    worker->group_commit.segment = &child->segment;
    worker->group_commit.slot = child->slot;
    worker->group_commit.pid = (int32_t)getpid();
    worker->group_commit.store = worker->process.store;

    signal(SIGPIPE, SIG_IGN);
    set_line_buffering();
    pthread_mutex_init(&worker->lock, NULL);
    pthread_condattr_t clock_attributes;
    pthread_condattr_init(&clock_attributes);
    pthread_condattr_setclock(&clock_attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->flush_timer_started, &clock_attributes);
    pthread_condattr_destroy(&clock_attributes);
    if (process_batch_open(&worker->batch, BATCH_EVENTS_MAX) != 0 ||
        process_pending_open(&worker->pending, worker->config->batch) != 0)
        process_fail(&worker->process, CHILD_MEMORY, "out of memory");
    const struct stage_env env = {
        .instance = child->config->instance,
        .source = worker->source->id,
        .worker = slot->index,
        .process_group = getpgrp(),
        .on_program = on_program,
        .user = worker,
    };
    struct error error = {0};
    set_stage_limits(worker);
    worker->ops = stage_ops_for(worker->config->type);
    if (worker->ops->open(worker->config, &env, &worker->state, &error) != 0)
        process_fail(&worker->process, CHILD_OPEN, error.message);
    int thread_error = process_worker_start_committer(worker);
    if (thread_error != 0) {
        char message[128];
        snprintf(message, sizeof message, "cannot start the committer thread: %s", strerror(thread_error));
        process_fail(&worker->process, CHILD_MEMORY, message);
    }
    worker->awake_since_ns = shm_now_ns();
    process_report_ready(&worker->process);
}

static bool is_paused(const struct worker *worker)
{
    return atomic_load_explicit(&worker->stage->paused, memory_order_relaxed) != 0 ||
           atomic_load_explicit(&worker->source->paused, memory_order_relaxed) != 0;
}

/* Returns how many more events the next stage's workers can take: the room in its ring and its idle
 * workers; SIZE_MAX after the last stage. *next becomes that stage or NULL. The worker runs it before it
 * takes events, so that a slow stage holds back the stages before it. */
static size_t count_next_stage_room(const struct worker *worker, const struct shm_stage **next)
{
    *next = NULL;
    if (worker->stage->position + 1 >= worker->source->stage_count)
        return SIZE_MAX;
    *next = worker->stage + 1;
    uint32_t waiting_count = ring_count(&(*next)->ring), ring_limit = (*next)->ring.limit;
    size_t room = waiting_count < ring_limit ? ring_limit - waiting_count : 0;
    return room < BATCH_EVENTS_MAX ? room + wake_count_idle_workers(&worker->child->segment, *next) : room;
}

/* Returns how many events a worker takes now: no more than it can probably run within commit_delay, the
 * next stage has room for, and its share of the waiting events. If these are less work than a
 * transaction (ONE_WORKER_SUFFICES_NS), it may take all. It reads pending answers, so the caller holds
 * the worker's lock. */
static size_t compute_batch_limit(const struct worker *worker, size_t next_stage_room)
{
    size_t pending_count = worker->pending.count;
    size_t upper_limit = worker->config->batch - pending_count;
    if (upper_limit > BATCH_EVENTS_MAX)
        upper_limit = BATCH_EVENTS_MAX;
    size_t free_places = next_stage_room > pending_count ? next_stage_room - pending_count
                                                         : 0; /* pending answers will go there, too */
    if (upper_limit > free_places)
        upper_limit = free_places;
    uint64_t delay_ns = worker->config->commit_delay_ms * 1000000;
    size_t expected_in_delay = worker->mean_call_ns > 0 ? (size_t)(delay_ns / worker->mean_call_ns) : 1;
    uint32_t waiting_count = ring_count(&worker->stage->ring);
    size_t share = waiting_count * worker->mean_call_ns < ONE_WORKER_SUFFICES_NS
                       ? waiting_count
                       : waiting_count / worker->config->concurrency;
    if (expected_in_delay > share)
        expected_in_delay = share;
    if (expected_in_delay < 1)
        expected_in_delay = 1;
    return upper_limit < expected_in_delay ? upper_limit : expected_in_delay;
}

/* Takes events from the ring of the worker's stage until the worker's batch has upper_limit of them. Then
 * it wakes processes that wait for room in the ring, and another worker if many events are left. Returns
 * how many the batch has. The worker runs it once a turn. */
static size_t take_events(struct worker *worker, size_t upper_limit)
{
    const struct segment *segment = &worker->child->segment;
    uint32_t ticket;
    while (worker->batch.count < upper_limit && ring_pop(segment, &worker->stage->ring, &ticket) == RING_OK) {
        struct ticket_view view;
        if (ticket_take(segment, ticket, worker->stage->position, worker->child->slot, &view))
            process_batch_add(&worker->batch, ticket, view.event, view.token);
    }
    wake_waiters_for_room(segment, worker->stage);
    process_worker_lock(worker);
    worker->leftover_since_ns = shm_now_ns();
    bool one_worker_suffices =
        worker->mean_call_ns > 0 &&
        ring_count(&worker->stage->ring) * worker->mean_call_ns < ONE_WORKER_SUFFICES_NS;
    worker->has_leftover = one_worker_suffices && ring_count(&worker->stage->ring) > 0;
    process_worker_unlock(worker);
    if (!one_worker_suffices)
        wake_for_leftover(segment, worker->stage);
    return worker->batch.count;
}

/* Sets the worker's state in its slot, shown by `eventpipe status`, and sleeps until must_wake returns
 * true or the instance stops. must_wake runs between wake_prepare and wake_sleep, so that no wake-up is
 * lost. The worker's loop runs it when it has nothing to do. */
static void sleep_worker_until(struct worker *worker, enum shm_slot_state state,
                               bool (*must_wake)(struct worker *))
{
    struct shm_slot *slot = worker->process.slot;
    process_set_title("%s %s", worker->name, shm_slot_state_name(state));
    slot_set_state(slot, state);
    atomic_fetch_add_explicit(&slot->work_ns, shm_now_ns() - worker->awake_since_ns, memory_order_relaxed);
    for (;;) {
        uint32_t key = wake_prepare(slot);
        if (must_wake(worker) || process_is_stopping(&worker->process)) {
            wake_cancel(slot);
            break;
        }
        wake_sleep(slot, key, WAKE_FOREVER);
    }
    worker->awake_since_ns = shm_now_ns();
}

static bool is_resumed(struct worker *worker)
{
    return !is_paused(worker);
}

static bool has_work_to_do(struct worker *worker)
{
    return is_paused(worker) || ring_count(&worker->stage->ring) > 0;
}

/* Returns whether the next stage can take an event of this worker, or the worker's own stage is paused.
 * sleep_worker_until asks before each sleep; has_room_in_next_stage first notes that this worker wants
 * room, so that a worker of the next stage that makes room afterwards wakes it. */
static bool has_room_in_next_stage(struct worker *worker)
{
    struct shm_stage *next = worker->stage + 1;
    wake_want_room(&next->ring);
    return is_paused(worker) || ring_has_room(&next->ring);
}

/* One turn of the worker's loop: takes events and runs the stage on them. If it can take none, it
 * commits its answers and sleeps until there is an event, room in the next stage, or the end of a
 * pause. */
static void run_worker_turn(struct worker *worker)
{
    if (is_paused(worker)) {
        process_worker_commit_if_due(worker, false);
        sleep_worker_until(worker, SHM_SLOT_PAUSED, is_resumed);
        return;
    }
    const struct shm_stage *next;
    size_t next_stage_room = count_next_stage_room(worker, &next);
    process_worker_lock(worker);
    size_t batch_limit = compute_batch_limit(worker, next_stage_room);
    process_worker_unlock(worker);
    if (batch_limit == 0) {
        process_worker_commit_if_due(worker, false);
        if (!has_work_to_do(
                worker)) /* one that waits for next_stage_room without an event would only wake in vain */
            sleep_worker_until(worker, SHM_SLOT_IDLE, has_work_to_do);
        else if (!ring_has_room(&next->ring))
            sleep_worker_until(worker, SHM_SLOT_BLOCKED, has_room_in_next_stage);
        return;
    }
    if (take_events(worker, batch_limit) == 0) {
        process_worker_commit_if_due(worker, false);
        if (!has_work_to_do(worker))
            sleep_worker_until(worker, SHM_SLOT_IDLE, has_work_to_do);
        return;
    }
    process_worker_run_batch(worker);
}

/* The main function of a worker process. The supervisor calls it in the child after fork; it never
 * returns. At a clean stop the worker commits its answers and closes its stage. */
void process_worker_main(const struct child_context *child, uint32_t stage)
{
    static struct worker worker;
    open_worker(&worker, child, stage);
    while (!process_is_stopping(&worker.process))
        run_worker_turn(&worker);
    slot_set_state(worker.process.slot, SHM_SLOT_STOPPING);
    process_worker_commit_if_due(&worker, false);
    worker.ops->close(worker.state, STAGE_CLOSE_MS);
    fflush(stdout);
    process_worker_lock(&worker); /* the committer looks at what is pending */
    process_pending_close(&worker.pending);
    process_batch_close(&worker.batch);
    process_worker_unlock(&worker);
    store_close(&worker.process.store);
    _exit(CHILD_DONE);
}
