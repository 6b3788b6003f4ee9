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

#define TAKE_MAX 64 /* events taken at a time; segment_tickets_for counts on it */
#define STAGE_CLOSE_MS 2000
#define ALONE_NS \
    500000 /* about the time of a transaction: less work than this is not shared with other workers */

/* Makes stdout line-buffered, so that what C stages print is not lost in a buffer when the process is
 * killed. */
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

/* Sets the stage's limits (CPU, memory, ...) on the worker itself, which runs plugin and other in-process
 * stages. The program of an exec stage gets its own limits when it starts. The worker runs it once at its
 * start. */
static void set_stage_limits(struct worker *worker)
{
    const char *limit = "cpu";
    if (worker->config->type == STAGE_EXEC)
        return;
    int code = config_limits_renew_cpu(0, &worker->config->limits);
    if (code == 0)
        code = config_limits_set(&worker->config->limits, &limit);
    if (code == 0)
        return;
    char message[128];
    snprintf(message, sizeof message, "cannot set the stage's limit of %s: %s", limit, strerror(code));
    process_fail(&worker->process, CHILD_OPEN, message);
}

/* Opens everything a worker needs after fork: shared memory, store, batch, the stage itself and the
 * committer thread. Then it tells the supervisor that it is ready. A failure ends the process. */
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
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->flush_timer_started, &clock);
    pthread_condattr_destroy(&clock);
    if (process_batch_open(&worker->batch, TAKE_MAX) != 0 ||
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
    int result = process_worker_start_committer(worker);
    if (result != 0)
        process_fail(&worker->process, CHILD_MEMORY, strerror(result));
    worker->awake_ns = shm_now_ns();
    process_ready(&worker->process);
}

static bool is_paused(const struct worker *worker)
{
    return atomic_load_explicit(&worker->stage->paused, memory_order_relaxed) != 0 ||
           atomic_load_explicit(&worker->source->paused, memory_order_relaxed) != 0;
}

/* Returns how many events the next stage can take: room in its ring and its idle workers; SIZE_MAX after
 * the last stage. The worker runs it before it takes events, so that a slow stage holds back the stages
 * before it. */
static size_t count_room_ahead(const struct worker *worker, const struct shm_stage **next)
{
    *next = NULL;
    if (worker->stage->position + 1 >= worker->source->stage_count)
        return SIZE_MAX;
    *next = worker->stage + 1;
    uint32_t waiting = ring_count(&(*next)->ring), limit = (*next)->ring.limit;
    size_t room = waiting < limit ? limit - waiting : 0;
    return room < TAKE_MAX ? room + wake_idle(&worker->child->segment, *next) : room;
}

/* Returns how many events a worker takes now (invariant 1): no more than it likely runs within
 * commit_delay, and no more than its share of those that wait. It reads pending answers, so the caller
 * holds the worker's lock. */
static size_t compute_batch_limit(const struct worker *worker, size_t room)
{
    size_t pending = worker->pending.count;
    size_t most = worker->config->batch - pending;
    if (most > TAKE_MAX)
        most = TAKE_MAX;
    size_t left = room > pending ? room - pending : 0; /* pending answers will go there too */
    if (most > left)
        most = left;
    uint64_t delay_ns = worker->config->commit_delay_ms * 1000000;
    size_t likely = worker->mean_ns > 0 ? (size_t)(delay_ns / worker->mean_ns) : 1;
    uint32_t waiting = ring_count(&worker->stage->ring);
    size_t share = waiting * worker->mean_ns < ALONE_NS ? waiting : waiting / worker->config->concurrency;
    if (likely > share)
        likely = share;
    if (likely < 1)
        likely = 1;
    return most < likely ? most : likely;
}

/* Takes up to `count` events from the stage's ring into the worker's batch, then wakes others for room and
 * for what is left. Returns how many the batch has. */
static size_t take_events(struct worker *worker, size_t count)
{
    const struct segment *segment = &worker->child->segment;
    uint32_t ticket;
    while (worker->batch.count < count && ring_pop(segment, &worker->stage->ring, &ticket) == RING_OK) {
        struct ticket_view view;
        if (ticket_take(segment, ticket, worker->stage->position, worker->child->slot, &view))
            process_batch_add(&worker->batch, ticket, view.event, view.token);
    }
    wake_room(segment, worker->stage);
    process_worker_lock(worker);
    worker->leftover_ns = shm_now_ns();
    bool little = worker->mean_ns > 0 && ring_count(&worker->stage->ring) * worker->mean_ns < ALONE_NS;
    worker->leftover_pending = little && ring_count(&worker->stage->ring) > 0;
    process_worker_unlock(worker);
    if (!little)
        wake_for_leftover(segment, worker->stage);
    return worker->batch.count;
}

/* Puts the worker to sleep in this state until `due` is true or the instance stops. `due` runs between
 * wake_prepare and wake_sleep, so that no wake-up is lost. */
static void sleep_worker_until(struct worker *worker, enum shm_slot_state state, bool (*due)(struct worker *))
{
    struct shm_slot *slot = worker->process.slot;
    process_title("%s %s", worker->name, shm_slot_state_name(state));
    slot_state(slot, state);
    atomic_fetch_add_explicit(&slot->work_ns, shm_now_ns() - worker->awake_ns, memory_order_relaxed);
    for (;;) {
        uint32_t key = wake_prepare(slot);
        if (due(worker) || process_stopping(&worker->process)) {
            wake_cancel(slot);
            break;
        }
        wake_sleep(slot, key, WAKE_FOREVER);
    }
    worker->awake_ns = shm_now_ns();
}

static bool is_resumed(struct worker *worker)
{
    return !is_paused(worker);
}

static bool has_work(struct worker *worker)
{
    return is_paused(worker) || ring_count(&worker->stage->ring) > 0;
}

/* Asks in each round to be woken for room, before it looks (wake_room). */
static bool has_room(struct worker *worker)
{
    struct shm_stage *next = worker->stage + 1;
    wake_want_room(&next->ring);
    return is_paused(worker) || ring_has_room(&next->ring);
}

/* One turn of the worker's loop: takes events and runs the stage on them, or commits its answers and
 * sleeps until there is an event, room in the next stage, or the end of a pause. */
static void run_worker_turn(struct worker *worker)
{
    if (is_paused(worker)) {
        process_worker_commit_due(worker, false);
        sleep_worker_until(worker, SHM_SLOT_PAUSED, is_resumed);
        return;
    }
    const struct shm_stage *next;
    size_t room = count_room_ahead(worker, &next);
    process_worker_lock(worker);
    size_t batch_limit = compute_batch_limit(worker, room);
    process_worker_unlock(worker);
    if (batch_limit == 0) {
        process_worker_commit_due(worker, false);
        if (!has_work(worker)) /* one that waits for room without an event would only wake in vain */
            sleep_worker_until(worker, SHM_SLOT_IDLE, has_work);
        else if (!ring_has_room(&next->ring))
            sleep_worker_until(worker, SHM_SLOT_BLOCKED, has_room);
        return;
    }
    if (take_events(worker, batch_limit) == 0) {
        process_worker_commit_due(worker, false);
        if (!has_work(worker))
            sleep_worker_until(worker, SHM_SLOT_IDLE, has_work);
        return;
    }
    process_worker_run(worker);
}

/* The main function of a worker process. The supervisor calls it in the child after fork; it never
 * returns. At a clean stop the worker commits its answers and closes its stage. */
void process_worker_main(const struct child_context *child, uint32_t stage)
{
    static struct worker worker;
    open_worker(&worker, child, stage);
    while (!process_stopping(&worker.process))
        run_worker_turn(&worker);
    slot_state(worker.process.slot, SHM_SLOT_STOPPING);
    process_worker_commit_due(&worker, false);
    worker.ops->close(worker.state, STAGE_CLOSE_MS);
    fflush(stdout);
    process_worker_lock(&worker); /* the committer looks at what is pending */
    process_pending_close(&worker.pending);
    process_batch_close(&worker.batch);
    process_worker_unlock(&worker);
    store_close(&worker.process.store);
    _exit(CHILD_DONE);
}
