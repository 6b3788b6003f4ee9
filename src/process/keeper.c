/* SPDX-License-Identifier: MIT */
/*
 * The keeper: prepares the store at a start, copies its totals into the segment for status, moves the store's
 * log into its main file, and serves the operators' verbs that read or change the store. Loses nothing when
 * it dies.
 *
 * It sleeps in poll(2) on its eventfd (nudges) and on the supervisor's socket (requests). Totals are copied
 * at most once a second, and only after somebody has said that something changed: an idle instance costs it
 * nothing.
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
#include "src/control/control.h"
#include "src/store/crash.h"
#include "src/process/keeper.h"
#include "src/base/log.h"
#include "src/process/process.h"

#define REFRESH_NS UINT64_C(1000000000)
#define TRIM_PIECES 200 /* of the trace, in one refresh */

struct keeper {
    struct process process;
    const struct inherit *inherit;
    uint64_t refreshed_ns;
    bool stale;     /* something changed since the totals were copied */
    bool log_waits; /* for a reader to let go of it */
};

/* ---- the start */

static void name_stages(const struct source_config *source, struct store_names *names, const char **stages,
                        int64_t *ids)
{
    for (size_t i = 0; i < source->stage_count; i++)
        stages[i] = source->stages[i].name;
    *names = (struct store_names){.source = source->id,
                                  .stages = stages,
                                  .stage_count = source->stage_count,
                                  .stage_ids = ids};
}

static void publish_ids(const struct inherit *inherit, const struct store_names *names)
{
    const struct segment *segment = &inherit->segment;
    for (uint32_t i = 0; i < segment->header->source_count; i++) {
        struct shm_source *source = segment_source(segment, i);
        atomic_store(&source->store_id, names[i].source_id);
        for (uint32_t j = 0; j < source->stage_count; j++)
            atomic_store(&segment_stage(segment, source->first_stage + j)->store_id, names[i].stage_ids[j]);
    }
}

/* The supervisor refuses to start on CHILD_STORE; EP_ESTOREBUSY is tried again until the store can be had. */
static void prepare(struct keeper *keeper)
{
    const struct inherit *inherit = keeper->inherit;
    const struct config *config = inherit->config;
    uint32_t stage_count = inherit->segment.header->stage_count;
    struct store_names *names = calloc(config->source_count, sizeof *names);
    const char **stages = calloc(stage_count, sizeof *stages);
    int64_t *ids = calloc(stage_count, sizeof *ids);
    if (names == NULL || stages == NULL || ids == NULL)
        process_fail(&keeper->process, CHILD_MEMORY, "out of memory");
    for (size_t i = 0, at = 0; i < config->source_count; at += config->sources[i++].stage_count)
        name_stages(&config->sources[i], &names[i], stages + at, ids + at);
    const struct store_options options = {.url = config->storage,
                                          .instance = config->instance,
                                          .synchronous = config->synchronous};
    struct error error = {0};
    uint64_t start;
    while (store_prepare(&options, names, config->source_count, &start, &error) != 0) {
        if (error.code != EP_ESTOREBUSY)
            process_fail(&keeper->process, CHILD_STORE, error.words);
        process_store_waits(&keeper->process, error.words);
        if (process_stopping(&keeper->process))
            _exit(CHILD_DONE);
    }
    publish_ids(inherit, names);
    atomic_store(&inherit->segment.header->start_number, start);
    atomic_store_explicit(&inherit->segment.header->prepared, 1, memory_order_release);
    log_info("store-ready url=\"%s\" start=%llu", config->storage, (unsigned long long)start);
    free(names);
    free(stages);
    free(ids);
}

/* ---- deaths */

/* What the supervisor saw goes into the store; where that fails it is tried again at the next refresh. */
static void store_deaths(struct keeper *keeper)
{
    static struct shm_death deaths[SHM_DEATHS];
    struct store_death rows[SHM_DEATHS];
    const struct segment *segment = &keeper->inherit->segment;
    uint64_t end = deaths_end(segment), first = deaths_first(segment), stored = deaths_stored_end(segment);
    if (stored >= end)
        return;
    size_t count = 0;
    for (uint64_t number = first; number < end && count < SHM_DEATHS; number++)
        if (deaths_read(segment, number, &deaths[count])) {
            death_row(&deaths[count], &rows[count]);
            count++;
        }
    uint64_t lost = end - stored - count;
    if (store_add_deaths(keeper->process.store, rows, count, lost) == 0)
        deaths_stored(segment, end);
    else
        keeper->stale = true;
}

/* ---- trace */

/* A piece of what is to go, then the pipeline's turn; what is left waits for the next refresh. */
static void trim_trace(struct keeper *keeper)
{
    const struct trace_config *trace = &keeper->inherit->config->trace;
    uint64_t bytes = trace->keep_ms > 0 ? trace->bytes : 0;
    int code = 1;
    for (int piece = 0; piece < TRIM_PIECES && code == 1; piece++)
        code = store_trim_trace(keeper->process.store, shm_realtime_ms(), trace->keep_ms, bytes);
    if (code == 1)
        keeper->stale = true;
}

/* ---- totals */

static void refresh_source(struct keeper *keeper, struct shm_source *source)
{
    struct store_totals totals;
    if (store_source_totals(keeper->process.store, atomic_load(&source->store_id), &totals) != 0)
        return;
    struct shm_source_totals *shown = &source->totals;
    atomic_store_explicit(&shown->fetched, totals.fetched, memory_order_relaxed);
    atomic_store_explicit(&shown->duplicates, totals.duplicates, memory_order_relaxed);
    atomic_store_explicit(&shown->injected, totals.injected, memory_order_relaxed);
    atomic_store_explicit(&shown->finished, totals.finished, memory_order_relaxed);
    atomic_store_explicit(&shown->removed, totals.removed, memory_order_relaxed);
    atomic_store_explicit(&shown->discarded, totals.discarded, memory_order_relaxed);
    atomic_store_explicit(&shown->delayed, totals.delayed, memory_order_relaxed);
    atomic_store_explicit(&shown->held, totals.held, memory_order_relaxed);
    atomic_store_explicit(&shown->dead, totals.dead, memory_order_relaxed);
    atomic_store_explicit(&shown->live, totals.live, memory_order_relaxed);
    atomic_store_explicit(&shown->oldest_ms, totals.oldest_ms, memory_order_relaxed);
}

static void refresh_stage(struct keeper *keeper, struct shm_stage *stage)
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

static void refresh(struct keeper *keeper)
{
    const struct segment *segment = &keeper->inherit->segment;
    atomic_store(&segment->header->activity, 0); /* first: what changes from here on is told again */
    keeper->stale = false;
    keeper->refreshed_ns = shm_now_ns();
    process_worked(&keeper->process);
    for (uint32_t i = 0; i < segment->header->source_count; i++)
        refresh_source(keeper, segment_source(segment, i));
    for (uint32_t i = 0; i < segment->header->stage_count; i++)
        refresh_stage(keeper, segment_stage(segment, i));
    store_deaths(keeper);
    trim_trace(keeper);
    uint64_t bytes, log_bytes;
    if (store_sizes(keeper->process.store, &bytes, &log_bytes) == 0) {
        atomic_store(&segment->header->store_bytes, bytes);
        atomic_store(&segment->header->wal_bytes, log_bytes);
    }
}

/* What this start found: a run's own figures are counted from here. */
static void note_beginning(struct keeper *keeper)
{
    const struct segment *segment = &keeper->inherit->segment;
    for (uint32_t i = 0; i < segment->header->source_count; i++) {
        struct shm_source_totals *totals = &segment_source(segment, i)->totals;
        atomic_store(&totals->fetched_before, atomic_load(&totals->fetched));
        atomic_store(&totals->finished_before, atomic_load(&totals->finished));
        atomic_store(&totals->removed_before, atomic_load(&totals->removed));
    }
}

/* ---- operators' requests */

static void tell_producers(struct keeper *keeper, uint64_t changed)
{
    const struct segment *segment = &keeper->inherit->segment;
    for (uint32_t i = 0; i < segment->header->source_count; i++) {
        if ((changed >> (i < 63 ? i : 63) & 1) == 0)
            continue;
        struct shm_source *source = segment_source(segment, i);
        atomic_store(&source->rescan, 1);
        wake_slot(segment_slot(segment, source->producer_slot));
    }
}

static void serve(struct keeper *keeper, const char *line, size_t bytes, int client)
{
    cJSON *request = cJSON_ParseWithLength(line, bytes);
    uint64_t changed = 0;
    slot_state(keeper->process.slot, SHM_SLOT_BUSY);
    const struct admin admin = {.store = keeper->process.store,
                                .config = keeper->inherit->config,
                                .daemon_up = true};
    admin_serve(&admin, request, client, &changed);
    cJSON_Delete(request);
    if (changed != 0) {
        tell_producers(keeper, changed);
        keeper->stale = true;
    }
}

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
    ssize_t bytes = recvmsg(keeper->inherit->keeper_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (bytes == 0)
        _exit(CHILD_DONE); /* the supervisor is gone, and with it whoever would want us */
    if (bytes < 0)
        return;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return;
    int client;
    memcpy(&client, CMSG_DATA(header), sizeof client);
    serve(keeper, line, (size_t)bytes, client);
    close(client);
}

/* ---- the loop */

static int poll_timeout_ms(const struct keeper *keeper)
{
    if (!keeper->stale)
        return keeper->log_waits ? (int)(REFRESH_NS / 1000000) : -1;
    uint64_t age = shm_now_ns() - keeper->refreshed_ns;
    return age >= REFRESH_NS ? 0 : (int)((REFRESH_NS - age) / 1000000) + 1;
}

static void take_nudge(struct keeper *keeper)
{
    uint64_t amount;
    if (read(keeper->inherit->activity_fd, &amount, sizeof amount) != sizeof amount)
        return;
    if (amount >= KEEPER_LOG_GROWN)
        keeper->log_waits = true;
    if (amount % KEEPER_LOG_GROWN != 0)
        keeper->stale = true;
}

static bool others_gone(const struct keeper *keeper)
{
    const struct segment *segment = &keeper->inherit->segment;
    for (uint32_t i = 0; i < segment->header->slot_count; i++)
        if (i != keeper->inherit->slot && atomic_load(&segment_slot(segment, i)->state) != SHM_SLOT_EMPTY)
            return false;
    return true;
}

static void keeper_turn(struct keeper *keeper)
{
    struct pollfd ready[2] = {{.fd = keeper->inherit->activity_fd, .events = POLLIN},
                              {.fd = keeper->inherit->keeper_fd, .events = POLLIN}};
    slot_state(keeper->process.slot, SHM_SLOT_IDLE);
    if (poll(ready, 2, poll_timeout_ms(keeper)) < 0)
        return;
    if (ready[0].revents != 0)
        take_nudge(keeper);
    if (keeper->log_waits) /* what fails here is tried at the next growth */
        keeper->log_waits = store_checkpoint(keeper->process.store, false) == 1;
    if (ready[1].revents != 0)
        take_request(keeper);
    if (keeper->stale && shm_now_ns() - keeper->refreshed_ns >= REFRESH_NS)
        refresh(keeper);
}

void keeper_main(const struct inherit *inherit)
{
    static struct keeper keeper;
    keeper.inherit = inherit;
    process_open(&keeper.process, inherit, "keeper");
    signal(SIGPIPE, SIG_IGN);
    if (inherit->prepare)
        prepare(&keeper);
    process_open_store(&keeper.process);
    refresh(&keeper);
    if (inherit->prepare)
        note_beginning(&keeper);
    process_title("keeper");
    process_ready(&keeper.process);
    while (!process_stopping(&keeper.process) || !others_gone(&keeper))
        keeper_turn(&keeper);
    refresh(&keeper);
    store_checkpoint(keeper.process.store, true);
    store_close(&keeper.process.store);
    _exit(CHILD_DONE);
}
