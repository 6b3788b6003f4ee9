/* SPDX-License-Identifier: MIT */
/*
 * The keeper: one process per instance. It prepares the store at a start, copies its totals into the
 * segment for status, stores the crashes that the supervisor saw, trims the trace, moves the store's WAL
 * into its main file, and serves the operators' commands that read or change the store. Its crash loses
 * nothing.
 *
 * Invariants
 *  1. It sleeps in poll(2) on its eventfd (notifications) and on the supervisor's socket (requests).
 *  2. It copies totals at most once a second, and only after a process has reported a change: an idle
 *     instance costs it nothing.
 *
 * Fatal: no memory, a broken store. Survived: a store that is busy or cannot be written (tried again).
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/crash_log.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/control/control.h"
#include "src/process/keeper.h"
#include "src/process/process.h"

#define REFRESH_NS UINT64_C(1000000000)
#define TRIM_STEPS 200 /* of the trace, at most, in one refresh */

struct keeper {
    struct process process;
    const struct child_context *child;
    uint64_t refreshed_ns;
    bool stale;       /* something changed since the totals were copied */
    bool wal_pending; /* a checkpoint is still to be done, or a reader held it up */
};

/* ---- the start */

/* Fills in the names of a source and its stages, which the store registers. The keeper runs it at the
 * daemon's start, for each source of the configuration. */
static void fill_store_names(const struct source_config *source, struct store_names *names,
                             const char **stages, int64_t *ids)
{
    for (size_t i = 0; i < source->stage_count; i++)
        stages[i] = source->stages[i].name;
    *names = (struct store_names){.source = source->id,
                                  .stages = stages,
                                  .stage_count = source->stage_count,
                                  .stage_ids = ids};
}

/* Writes the ids that the store gave to sources and stages into the shared memory, where producers,
 * workers and status read them. The keeper runs it at the daemon's start, before any producer is started. */
static void publish_store_ids(const struct child_context *child, const struct store_names *names)
{
    const struct segment *segment = &child->segment;
    for (uint32_t i = 0; i < segment->header->source_count; i++) {
        struct shm_source *source = segment_source(segment, i);
        atomic_store(&source->store_id, names[i].source_id);
        for (uint32_t j = 0; j < source->stage_count; j++)
            atomic_store(&segment_stage(segment, source->first_stage + j)->store_id, names[i].stage_ids[j]);
    }
}

/* Prepares the store at the daemon's start (create or migrate, count the start, register names) and
 * publishes its ids. The first keeper of a start runs it. The supervisor refuses to start on CHILD_STORE;
 * a store that is busy is tried again. */
static void prepare_store(struct keeper *keeper)
{
    const struct child_context *child = keeper->child;
    const struct config *config = child->config;
    uint32_t stage_count = child->segment.header->stage_count;
    struct store_names *names = calloc(config->source_count, sizeof *names);
    const char **stages = calloc(stage_count, sizeof *stages);
    int64_t *ids = calloc(stage_count, sizeof *ids);
    if (names == NULL || stages == NULL || ids == NULL)
        process_fail(&keeper->process, CHILD_MEMORY, "out of memory");
    for (size_t i = 0, at = 0; i < config->source_count; at += config->sources[i++].stage_count)
        fill_store_names(&config->sources[i], &names[i], stages + at, ids + at);
    const struct store_options options = {.url = config->storage,
                                          .instance = config->instance,
                                          .synchronous = config->synchronous};
    struct error error = {0};
    uint64_t start;
    while (store_prepare(&options, names, config->source_count, &start, &error) != 0) {
        if (error.code != EP_ESTOREBUSY)
            process_fail(&keeper->process, CHILD_STORE, error.message);
        process_store_backoff(&keeper->process, error.message);
        if (process_stopping(&keeper->process))
            _exit(CHILD_DONE);
    }
    publish_store_ids(child, names);
    atomic_store(&child->segment.header->start_number, start);
    atomic_store_explicit(&child->segment.header->prepared, 1, memory_order_release);
    base_log_info("store-ready url=\"%s\" start=%llu", config->storage, (unsigned long long)start);
    free(names);
    free(stages);
    free(ids);
}

/* ---- crashes */

/* Stores the crashes of processes that the supervisor recorded in shared memory. The keeper runs it about
 * once a second after changes; if that fails, the next refresh tries again, and no crash is lost. */
static void store_crashes(struct keeper *keeper)
{
    static struct crash_record crashes[SHM_CRASHES];
    const struct segment *segment = &keeper->child->segment;
    uint64_t end = crash_log_end(segment), first = crash_log_first(segment),
             stored = crash_log_stored_end(segment);
    if (stored >= end)
        return;
    size_t count = 0;
    for (uint64_t number = first; number < end && count < SHM_CRASHES; number++)
        if (crash_log_read(segment, number, &crashes[count]))
            count++;
    uint64_t lost = end - stored - count;
    if (store_add_crashes(keeper->process.store, crashes, count, lost) == 0)
        crash_log_stored(segment, end);
    else
        keeper->stale = true;
}

/* ---- trace */

/* Removes old rows of the store's trace in small steps, so that other writers get their turn. The keeper
 * runs it in each refresh; the next one removes what is left. */
static void trim_trace(struct keeper *keeper)
{
    const struct trace_config *trace = &keeper->child->config->trace;
    uint64_t bytes = trace->keep_ms > 0 ? trace->bytes : 0;
    int code = 1;
    for (int step = 0; step < TRIM_STEPS && code == 1; step++)
        code = store_trim_trace(keeper->process.store, shm_realtime_ms(), trace->keep_ms, bytes);
    if (code == 1)
        keeper->stale = true;
}

/* ---- totals */

/* Copies a source's totals from the store into the shared memory, where `eventpipe status` and the metrics
 * read them. The keeper runs it about once a second while events change. */
static void refresh_source_totals(struct keeper *keeper, struct shm_source *source)
{
    struct store_totals totals;
    if (store_source_totals(keeper->process.store, atomic_load(&source->store_id), &totals) != 0)
        return;
    struct shm_source_totals *shown = &source->totals;
    atomic_store_explicit(&shown->fetched, totals.fetched, memory_order_relaxed);
    atomic_store_explicit(&shown->duplicates, totals.duplicates, memory_order_relaxed);
    atomic_store_explicit(&shown->injected, totals.injected, memory_order_relaxed);
    atomic_store_explicit(&shown->completed, totals.completed, memory_order_relaxed);
    atomic_store_explicit(&shown->removed_by_stage, totals.removed_by_stage, memory_order_relaxed);
    atomic_store_explicit(&shown->removed_by_operator, totals.removed_by_operator, memory_order_relaxed);
    atomic_store_explicit(&shown->delayed, totals.delayed, memory_order_relaxed);
    atomic_store_explicit(&shown->held, totals.held, memory_order_relaxed);
    atomic_store_explicit(&shown->dead, totals.dead, memory_order_relaxed);
    atomic_store_explicit(&shown->live, totals.live, memory_order_relaxed);
    atomic_store_explicit(&shown->oldest_ms, totals.oldest_ms, memory_order_relaxed);
}

/* Copies a stage's totals from the store into the shared memory, where `eventpipe status` and the metrics
 * read them. The keeper runs it about once a second while events change. */
static void refresh_stage_totals(struct keeper *keeper, struct shm_stage *stage)
{
    struct store_stage_totals totals;
    if (store_stage_totals(keeper->process.store, atomic_load(&stage->store_id), &totals) != 0)
        return;
    struct shm_stage_totals *shown = &stage->totals;
    atomic_store_explicit(&shown->processed, totals.processed, memory_order_relaxed);
    atomic_store_explicit(&shown->retried, totals.retried, memory_order_relaxed);
    atomic_store_explicit(&shown->removed, totals.removed, memory_order_relaxed);
    atomic_store_explicit(&shown->rejected, totals.rejected, memory_order_relaxed);
    atomic_store_explicit(&shown->failed, totals.failed, memory_order_relaxed);
    atomic_store_explicit(&shown->crashed, totals.crashed, memory_order_relaxed);
}

/* Copies totals and sizes of the store into the shared memory, stores crashes and trims the trace. The
 * keeper runs it at its start, about once a second while events change, and at its end. */
static void refresh_segment(struct keeper *keeper)
{
    const struct segment *segment = &keeper->child->segment;
    atomic_store(&segment->header->activity, 0); /* first: later changes are reported again */
    keeper->stale = false;
    keeper->refreshed_ns = shm_now_ns();
    process_mark_progress(&keeper->process);
    for (uint32_t i = 0; i < segment->header->source_count; i++)
        refresh_source_totals(keeper, segment_source(segment, i));
    for (uint32_t i = 0; i < segment->header->stage_count; i++)
        refresh_stage_totals(keeper, segment_stage(segment, i));
    store_crashes(keeper);
    trim_trace(keeper);
    uint64_t bytes, wal_bytes;
    if (store_sizes(keeper->process.store, &bytes, &wal_bytes) == 0) {
        atomic_store(&segment->header->store_bytes, bytes);
        atomic_store(&segment->header->wal_bytes, wal_bytes);
    }
}

/* Notes in the shared memory the totals at the daemon's start: `eventpipe status` counts the figures of
 * this run from there. The first keeper of a start runs it once. */
static void note_start_totals(struct keeper *keeper)
{
    const struct segment *segment = &keeper->child->segment;
    for (uint32_t i = 0; i < segment->header->source_count; i++) {
        struct shm_source_totals *totals = &segment_source(segment, i)->totals;
        atomic_store(&totals->fetched_before, atomic_load(&totals->fetched));
        atomic_store(&totals->completed_before, atomic_load(&totals->completed));
        atomic_store(&totals->removed_by_stage_before, atomic_load(&totals->removed_by_stage));
    }
}

/* ---- operators' requests */

/* Tells the producers of the changed sources to look at the store again, because an operator has changed
 * events or a cursor. The keeper runs it after each command that changed something. */
static void notify_producers(struct keeper *keeper, uint64_t changed)
{
    const struct segment *segment = &keeper->child->segment;
    for (uint32_t i = 0; i < segment->header->source_count; i++) {
        if ((changed >> (i < 63 ? i : 63) & 1) == 0)
            continue;
        struct shm_source *source = segment_source(segment, i);
        atomic_store(&source->rescan, 1);
        wake_slot(segment_slot(segment, source->producer_slot));
    }
}

/* Carries out one operator's command on the store (queue, retry, remove, inject, ...) and sends the answer
 * to the client. The keeper runs it; the supervisor has passed on the client's connection. */
static void serve_request(struct keeper *keeper, const char *line, size_t bytes, int client)
{
    cJSON *request = cJSON_ParseWithLength(line, bytes);
    uint64_t changed = 0;
    slot_state(keeper->process.slot, SHM_SLOT_BUSY);
    const struct admin admin = {.store = keeper->process.store,
                                .config = keeper->child->config,
                                .daemon_up = true};
    control_admin_serve(&admin, request, client, &changed);
    cJSON_Delete(request);
    if (changed != 0) {
        notify_producers(keeper, changed);
        keeper->stale = true;
    }
}

/* Receives one operator's command with the client's connection from the supervisor, and serves it. The
 * keeper's loop runs it. If the supervisor is gone, the keeper exits. */
static void take_request(struct keeper *keeper)
{
    static char line[CONTROL_REQUEST_BYTES];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = line, .iov_len = sizeof line};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t bytes = recvmsg(keeper->child->keeper_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (bytes == 0)
        _exit(CHILD_DONE); /* the supervisor has exited, so no request can come */
    if (bytes < 0)
        return;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return;
    int client;
    memcpy(&client, CMSG_DATA(header), sizeof client);
    serve_request(keeper, line, (size_t)bytes, client);
    close(client);
}

/* ---- the loop */

/* Returns how long the keeper may sleep: without end while nothing has changed, so that an idle daemon
 * costs nothing; at most a second otherwise. */
static int compute_poll_timeout_ms(const struct keeper *keeper)
{
    if (!keeper->stale)
        return keeper->wal_pending ? (int)(REFRESH_NS / 1000000) : -1;
    uint64_t age = shm_now_ns() - keeper->refreshed_ns;
    return age >= REFRESH_NS ? 0 : (int)((REFRESH_NS - age) / 1000000) + 1;
}

/* Reads what producers and workers have told the keeper through its eventfd: events have changed, or the
 * store's WAL has grown. The keeper's loop runs it. */
static void take_notification(struct keeper *keeper)
{
    uint64_t amount;
    if (read(keeper->child->activity_fd, &amount, sizeof amount) != sizeof amount)
        return;
    if (amount >= KEEPER_WAL_GROWN)
        keeper->wal_pending = true;
    if (amount % KEEPER_WAL_GROWN != 0)
        keeper->stale = true;
}

/* Whether all other processes of the instance have exited. At a shutdown the keeper runs it and leaves
 * last, so that its final checkpoint moves the whole WAL of the store. */
static bool have_others_exited(const struct keeper *keeper)
{
    const struct segment *segment = &keeper->child->segment;
    for (uint32_t i = 0; i < segment->header->slot_count; i++)
        if (i != keeper->child->slot && atomic_load(&segment_slot(segment, i)->state) != SHM_SLOT_EMPTY)
            return false;
    return true;
}

/* One turn of the keeper's loop: sleeps until something happens, then checkpoints the store's WAL, serves
 * an operator's command, or refreshes the totals. */
static void run_keeper_turn(struct keeper *keeper)
{
    struct pollfd ready[2] = {{.fd = keeper->child->activity_fd, .events = POLLIN},
                              {.fd = keeper->child->keeper_fd, .events = POLLIN}};
    slot_state(keeper->process.slot, SHM_SLOT_IDLE);
    if (poll(ready, 2, compute_poll_timeout_ms(keeper)) < 0)
        return;
    if (ready[0].revents != 0)
        take_notification(keeper);
    if (keeper->wal_pending) /* a checkpoint that fails is tried again when the WAL grows */
        keeper->wal_pending = store_checkpoint(keeper->process.store, false) == 1;
    if (ready[1].revents != 0)
        take_request(keeper);
    if (keeper->stale && shm_now_ns() - keeper->refreshed_ns >= REFRESH_NS)
        refresh_segment(keeper);
}

/* The main function of the keeper (housekeeping) process. The supervisor calls it in the child after fork;
 * it never returns. At a stop the keeper leaves last, after a final checkpoint of the store. */
void process_keeper_main(const struct child_context *child)
{
    static struct keeper keeper;
    keeper.child = child;
    process_open(&keeper.process, child, "keeper");
    signal(SIGPIPE, SIG_IGN);
    if (child->prepare)
        prepare_store(&keeper);
    process_open_store(&keeper.process);
    refresh_segment(&keeper);
    if (child->prepare)
        note_start_totals(&keeper);
    process_title("keeper");
    process_ready(&keeper.process);
    while (!process_stopping(&keeper.process) || !have_others_exited(&keeper))
        run_keeper_turn(&keeper);
    refresh_segment(&keeper);
    store_checkpoint(keeper.process.store, true);
    store_close(&keeper.process.store);
    _exit(CHILD_DONE);
}
