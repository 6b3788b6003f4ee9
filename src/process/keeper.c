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
    bool must_refresh;    /* something changed since the totals were copied */
    bool must_checkpoint; /* a checkpoint is still to be done, or a reader held it up */
};

/* ---- the start */

/* Fills in the names under which the store registers a source and its stages, and where it writes their
 * ids. The first keeper of a daemon runs it for each source of the configuration. */
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

/* Creates or migrates the store, counts this start, and registers the names of sources and stages. Then
 * it publishes the ids in shared memory. The first keeper of a daemon runs it before all else. A broken
 * store ends the process with CHILD_STORE, and the daemon does not start; a busy one is tried again. */
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
    for (size_t i = 0, first_stage = 0; i < config->source_count;
         first_stage += config->sources[i++].stage_count)
        fill_store_names(&config->sources[i], &names[i], stages + first_stage, ids + first_stage);
    const struct store_options options = {.url = config->storage,
                                          .instance = config->instance,
                                          .synchronous = config->synchronous};
    struct error error = {0};
    uint64_t start_number;
    while (store_prepare(&options, names, config->source_count, &start_number, &error) != 0) {
        if (error.code != EP_ESTOREBUSY)
            process_fail(&keeper->process, CHILD_STORE, error.message);
        process_store_backoff(&keeper->process, error.message);
        if (process_is_stopping(&keeper->process))
            _exit(CHILD_DONE);
    }
    publish_store_ids(child, names);
    atomic_store(&child->segment.header->start_number, start_number);
    atomic_store_explicit(&child->segment.header->prepared, 1, memory_order_release);
    base_log_info("store-ready url=\"%s\" start=%llu", config->storage, (unsigned long long)start_number);
    free(names);
    free(stages);
    free(ids);
}

/* ---- crashes */

/* Writes the crashes that the supervisor recorded in shared memory into the store, where `eventpipe
 * crashes` finds them. The keeper runs it in each refresh; if it fails, the next refresh tries again.
 * */
static void store_crashes(struct keeper *keeper)
{
    static struct crash_record crashes[SHM_CRASHES];
    const struct segment *segment = &keeper->child->segment;
    uint64_t end_number = crash_log_end(segment), first_number = crash_log_first(segment),
             stored_end = crash_log_stored_end(segment);
    if (stored_end >= end_number)
        return;
    size_t count = 0;
    for (uint64_t number = first_number; number < end_number && count < SHM_CRASHES; number++)
        if (crash_log_read(segment, number, &crashes[count]))
            count++;
    uint64_t lost_count = end_number - stored_end - count;
    if (store_add_crashes(keeper->process.store, crashes, count, lost_count) == 0)
        crash_log_set_stored_end(segment, end_number);
    else
        keeper->must_refresh = true;
}

/* ---- trace */

/* Removes rows of the store's trace that are too old or too many. It works in small steps, so that
 * other writers get their turn. The keeper runs it in each refresh; if rows remain, the next refresh
 * goes on. */
static void trim_trace(struct keeper *keeper)
{
    const struct trace_config *trace = &keeper->child->config->trace;
    uint64_t bytes = trace->keep_ms > 0 ? trace->bytes : 0;
    int code = 1;
    for (int step = 0; step < TRIM_STEPS && code == 1; step++)
        code = store_trim_trace(keeper->process.store, shm_realtime_ms(), trace->keep_ms, bytes);
    if (code == 1)
        keeper->must_refresh = true;
}

/* ---- totals */

/* Copies a source's totals from the store into the shared memory, where `eventpipe status` and the metrics
 * read them. The keeper runs it about once a second while events change. */
static void refresh_source_totals(struct keeper *keeper, struct shm_source *source)
{
    struct store_totals totals;
    if (store_source_totals(keeper->process.store, atomic_load(&source->store_id), &totals) != 0)
        return;
    struct shm_source_totals *shared_totals = &source->totals;
    atomic_store_explicit(&shared_totals->fetched, totals.fetched, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->duplicates, totals.duplicates, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->injected, totals.injected, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->completed, totals.completed, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->removed_by_stage, totals.removed_by_stage, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->removed_by_operator, totals.removed_by_operator,
                          memory_order_relaxed);
    atomic_store_explicit(&shared_totals->delayed, totals.delayed, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->held, totals.held, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->dead, totals.dead, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->live, totals.live, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->oldest_ms, totals.oldest_ms, memory_order_relaxed);
}

/* Copies a stage's totals from the store into the shared memory, where `eventpipe status` and the metrics
 * read them. The keeper runs it about once a second while events change. */
static void refresh_stage_totals(struct keeper *keeper, struct shm_stage *stage)
{
    struct store_stage_totals totals;
    if (store_stage_totals(keeper->process.store, atomic_load(&stage->store_id), &totals) != 0)
        return;
    struct shm_stage_totals *shared_totals = &stage->totals;
    atomic_store_explicit(&shared_totals->processed, totals.processed, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->retried, totals.retried, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->removed, totals.removed, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->rejected, totals.rejected, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->failed, totals.failed, memory_order_relaxed);
    atomic_store_explicit(&shared_totals->crashed, totals.crashed, memory_order_relaxed);
}

/* Copies totals and sizes from the store into the shared memory, stores crashes and trims the trace.
 * The keeper runs it at its start, about once a second while events change, and at its end. */
static void refresh_segment(struct keeper *keeper)
{
    const struct segment *segment = &keeper->child->segment;
    atomic_store(&segment->header->activity, 0); /* first: later changes are reported again */
    keeper->must_refresh = false;
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

/* Copies the totals at the daemon's start to separate fields in the shared memory, so that `eventpipe
 * status` can tell what this run has done. The first keeper of a daemon runs it once. */
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

/* Makes the producers of the changed sources (one bit each; bit 63 for all from the 64th) read the
 * store again. The keeper runs it after an operator's command has changed events or a cursor. */
static void notify_producers(struct keeper *keeper, uint64_t changed_sources)
{
    const struct segment *segment = &keeper->child->segment;
    for (uint32_t i = 0; i < segment->header->source_count; i++) {
        if ((changed_sources >> (i < 63 ? i : 63) & 1) == 0)
            continue;
        struct shm_source *source = segment_source(segment, i);
        atomic_store(&source->rescan, 1);
        wake_slot(segment_slot(segment, source->producer_slot));
    }
}

/* Carries out, in the keeper, one operator's command that needs the store (queue, retry, remove, inject,
 * ...) and sends the answer to the client. Runs for each request that the supervisor has passed on. */
static void serve_request(struct keeper *keeper, const char *request_text, size_t bytes, int client_fd)
{
    cJSON *request = cJSON_ParseWithLength(request_text, bytes);
    uint64_t changed_sources = 0;
    slot_set_state(keeper->process.slot, SHM_SLOT_BUSY);
    const struct admin admin = {.store = keeper->process.store,
                                .config = keeper->child->config,
                                .daemon_up = true};
    control_admin_serve(&admin, request, client_fd, &changed_sources);
    cJSON_Delete(request);
    if (changed_sources != 0) {
        notify_producers(keeper, changed_sources);
        keeper->must_refresh = true;
    }
}

/* Receives one operator's command and the client's connection from the supervisor, serves it and closes
 * the connection. The keeper's loop runs it. Exits if the supervisor is gone. */
static void receive_request(struct keeper *keeper)
{
    static char request_text[CONTROL_REQUEST_BYTES];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } ancillary;
    struct iovec buffer = {.iov_base = request_text, .iov_len = sizeof request_text};
    struct msghdr message = {.msg_iov = &buffer,
                             .msg_iovlen = 1,
                             .msg_control = &ancillary,
                             .msg_controllen = sizeof ancillary};
    ssize_t bytes = recvmsg(keeper->child->keeper_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (bytes == 0)
        _exit(CHILD_DONE); /* the supervisor has exited, so no request can come */
    if (bytes < 0)
        return;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return;
    int client_fd;
    memcpy(&client_fd, CMSG_DATA(header), sizeof client_fd);
    serve_request(keeper, request_text, (size_t)bytes, client_fd);
    close(client_fd);
}

/* ---- the loop */

/* Returns how long the keeper may sleep, in milliseconds: -1 (for ever) while nothing has changed, so that
 * an idle daemon costs nothing; a second while a checkpoint of the store's WAL must be tried again;
 * otherwise until the next refresh is due. */
static int compute_poll_timeout_ms(const struct keeper *keeper)
{
    if (!keeper->must_refresh)
        return keeper->must_checkpoint ? (int)(REFRESH_NS / 1000000) : -1;
    uint64_t since_refresh_ns = shm_now_ns() - keeper->refreshed_ns;
    return since_refresh_ns >= REFRESH_NS ? 0 : (int)((REFRESH_NS - since_refresh_ns) / 1000000) + 1;
}

/* Reads from the keeper's eventfd what producers and workers have reported: events have changed, or the
 * store's WAL has grown. The keeper's loop runs it. */
static void read_notifications(struct keeper *keeper)
{
    uint64_t notified_amount;
    if (read(keeper->child->activity_fd, &notified_amount, sizeof notified_amount) != sizeof notified_amount)
        return;
    if (notified_amount >= KEEPER_WAL_GROWN)
        keeper->must_checkpoint = true;
    if (notified_amount % KEEPER_WAL_GROWN != 0)
        keeper->must_refresh = true;
}

/* Returns whether all other processes of the instance have exited, by their slots in shared memory. The
 * keeper asks at a shutdown: it exits last, because its final checkpoint can copy the whole WAL into the
 * database only when no other process uses the store. */
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
    struct pollfd poll_fds[2] = {{.fd = keeper->child->activity_fd, .events = POLLIN},
                                 {.fd = keeper->child->keeper_fd, .events = POLLIN}};
    slot_set_state(keeper->process.slot, SHM_SLOT_IDLE);
    if (poll(poll_fds, 2, compute_poll_timeout_ms(keeper)) < 0)
        return;
    if (poll_fds[0].revents != 0)
        read_notifications(keeper);
    if (keeper->must_checkpoint) /* a checkpoint that fails is tried again when the WAL grows */
        keeper->must_checkpoint = store_checkpoint(keeper->process.store, false) == 1;
    if (poll_fds[1].revents != 0)
        receive_request(keeper);
    if (keeper->must_refresh && shm_now_ns() - keeper->refreshed_ns >= REFRESH_NS)
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
    process_set_title("keeper");
    process_report_ready(&keeper.process);
    while (!process_is_stopping(&keeper.process) || !have_others_exited(&keeper))
        run_keeper_turn(&keeper);
    refresh_segment(&keeper);
    store_checkpoint(keeper.process.store, true);
    store_close(&keeper.process.store);
    _exit(CHILD_DONE);
}
