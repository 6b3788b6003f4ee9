/* SPDX-License-Identifier: MIT */
/*
 * What producer, worker and keeper have in common. Runs in each of them, after fork.
 *
 * Invariants
 *  1. A store that cannot be written (full, locked, read-only) never ends a process and never loses what it
 * holds: the process waits and tries again, and the segment says why.
 *  2. A store that is broken ends the process with words; the supervisor backs off.
 */
#include "src/process/process.h"

#include <bsd/unistd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "shm/commit_request.h"
#include "shm/wake.h"
#include "src/base/log.h"

#define LOG_BYTES (UINT64_C(8) << 20)      /* the keeper moves the store's log at this size */
#define LOG_NUDGE_NS UINT64_C(20000000)    /* tell it so at most every 20 ms */
#define STORE_PAUSE_NS UINT64_C(500000000) /* between two tries at a store that cannot be written */

static bool titled;
static int title_width; /* libbsd marks the end of argv[0] with a '.', unless the title goes beyond it */

void process_titles(int argc, char **argv)
{
    title_width = argc > 0 ? (int)strlen(argv[0]) + 1 : 0;
    setproctitle_init(argc, argv, environ);
    titled = true;
}

void process_title(const char *format, ...)
{
    if (!titled)
        return;
    char title[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(title, sizeof title, format, arguments);
    va_end(arguments);
    setproctitle("-eventpiped: %-*s", title_width - (int)strlen("eventpiped: "), title);
}

void process_open(struct process *process, const struct inherit *inherit, const char *name)
{
    *process = (struct process){.inherit = inherit, .header = inherit->segment.header};
    process->slot = segment_slot(&inherit->segment, inherit->slot);
    log_name("%s", name);
    process_title("%s starting", name);
    prctl(PR_SET_NAME, "eventpiped");
}

uint32_t process_phase(const struct process *process)
{
    return atomic_load_explicit(&process->header->phase, memory_order_acquire);
}

bool process_stopping(const struct process *process)
{
    return process_phase(process) >= SHM_PHASE_STOPPING;
}

void process_worked(const struct process *process)
{
    atomic_fetch_add_explicit(&process->slot->commits, 1, memory_order_relaxed);
}

void process_fail(const struct process *process, enum child_exit code, const char *words)
{
    log_error("fail code=%d error=\"%s\"", code, words);
    notice_send(process->inherit, NOTICE_FAILED, words);
    _exit(code);
}

void process_ready(const struct process *process)
{
    notice_send(process->inherit, NOTICE_READY, "");
}

static void log_grown(void *user)
{
    struct process *process = user;
    uint64_t now = shm_now_ns();
    if (now - process->log_nudged_ns < LOG_NUDGE_NS)
        return;
    process->log_nudged_ns = now;
    keeper_nudge_log(process->inherit);
}

static void gate_left(void *user)
{
    const struct process *process = user;
    offer_nudge(&process->inherit->segment, process->inherit->slot);
}

static void sleep_a_while(struct process *process)
{
    uint32_t key = wake_prepare_elsewhere(process->slot); /* also a committer's, while a call runs */
    if (process_stopping(process))
        wake_cancel(process->slot);
    else
        wake_sleep(process->slot, key, STORE_PAUSE_NS);
}

/* The words of a store that fails stand in the segment from the first process that sees it to the first that
 * sees it work. */
static void tell_store_failing(struct process *process, const char *words)
{
    uint64_t never = 0;
    bool first =
        atomic_compare_exchange_strong(&process->header->store_failing_since_ms, &never, shm_realtime_ms());
    if (first)
        text_set(&process->header->store_error, words);
    if (!process->store_failed)
        log_warning("store-waits error=\"%s\"", words);
    process->store_failed = true;
    if (atomic_load(&process->slot->event) == 0) /* a worker's committer meets this while a call runs */
        slot_state(process->slot, SHM_SLOT_WAITING);
}

static void tell_store_works(struct process *process)
{
    if (process->store_failed)
        log_info("store-works");
    process->store_failed = false;
    if (atomic_load_explicit(&process->header->store_failing_since_ms, memory_order_relaxed) != 0)
        atomic_store(&process->header->store_failing_since_ms, 0);
}

void process_store_waits(struct process *process, const char *words)
{
    tell_store_failing(process, words);
    sleep_a_while(process);
}

bool process_store_done(struct process *process, int result)
{
    if (result == 0) {
        tell_store_works(process);
        return true;
    }
    if (result != EP_ESTOREBUSY)
        process_fail(process, CHILD_STORE, store_words(process->store));
    process_store_waits(process, store_words(process->store));
    return false;
}

void process_open_store(struct process *process)
{
    const struct config *config = process->inherit->config;
    const struct store_options options = {
        .url = config->storage,
        .instance = config->instance,
        .synchronous = config->synchronous,
        .gate = &process->header->gate,
        .trace = config->trace.keep_ms > 0,
        .start_number = atomic_load(&process->header->start_number),
        .log_bytes = LOG_BYTES,
        .log_grown = log_grown,
        .gate_left = gate_left,
        .user = process,
    };
    struct error error = {0};
    while (store_open(&options, &process->store, &error) != 0) {
        if (error.code != EP_ESTOREBUSY)
            process_fail(process, CHILD_STORE, error.words);
        process_store_waits(process, error.words);
        if (process_stopping(process))
            _exit(CHILD_DONE);
    }
    tell_store_works(process);
}
