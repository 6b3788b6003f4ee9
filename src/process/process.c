/* SPDX-License-Identifier: MIT */
/*
 * What producer, worker and keeper have in common. Runs in each of them, after fork.
 *
 * Invariants
 *  1. A store that cannot be written (full, locked, read-only) never ends a process and never loses its
 *     work: the process waits and tries again, and the segment says why.
 *  2. A store that is broken ends the process with a message; the supervisor backs off.
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

#define WAL_BYTES (UINT64_C(8) << 20)      /* the keeper checkpoints the store's WAL at this size */
#define WAL_NOTIFY_NS UINT64_C(20000000)   /* notify the keeper at most every 20 ms */
#define STORE_PAUSE_NS UINT64_C(500000000) /* between two tries at a store that cannot be written */

static bool titles_enabled;
static int title_width; /* libbsd marks the end of argv[0] with a '.', unless the title goes beyond it */

void process_enable_titles(int argc, char **argv)
{
    title_width = argc > 0 ? (int)strlen(argv[0]) + 1 : 0;
    setproctitle_init(argc, argv, environ);
    titles_enabled = true;
}

/* Sets the title that ps shows for this process, such as "eventpiped: quakes producer". Producers,
 * workers and the keeper call it when their state changes. Does nothing in a program that uses the
 * library. */
void process_set_title(const char *format, ...)
{
    if (!titles_enabled)
        return;
    char title[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(title, sizeof title, format, arguments);
    va_end(arguments);
    setproctitle("-eventpiped: %-*s", title_width - (int)strlen("eventpiped: "), title);
}

/* Sets up what every child of the supervisor needs first: its slot (each process has one in shared memory,
 * with its state), its name in the log, its title. Producers, workers and the keeper call it right after
 * fork. */
void process_open(struct process *process, const struct child_context *child, const char *name)
{
    *process = (struct process){.child = child, .header = child->segment.header};
    process->slot = segment_slot(&child->segment, child->slot);
    base_log_set_name("%s", name);
    process_set_title("%s starting", name);
    prctl(PR_SET_NAME, "eventpiped");
}

uint32_t process_get_phase(const struct process *process)
{
    return atomic_load_explicit(&process->header->phase, memory_order_acquire);
}

bool process_is_stopping(const struct process *process)
{
    return process_get_phase(process) >= SHM_PHASE_STOPPING;
}

void process_mark_progress(const struct process *process)
{
    atomic_fetch_add_explicit(&process->slot->commits, 1, memory_order_relaxed);
}

void process_fail(const struct process *process, enum child_exit code, const char *message)
{
    base_log_error("process-failed code=%d error=\"%s\"", code, message);
    process_notice_send(process->child, NOTICE_FAILED, message);
    _exit(code);
}

void process_report_ready(const struct process *process)
{
    process_notice_send(process->child, NOTICE_READY, "");
}

/* Tells the keeper to checkpoint the store, at most every 20 ms. The store calls it, in a producer,
 * a worker or the keeper, after a commit that left the WAL longer than WAL_BYTES. */
static void on_wal_grown(void *user)
{
    struct process *process = user;
    uint64_t now_ns = shm_now_ns();
    if (now_ns - process->wal_notified_ns < WAL_NOTIFY_NS)
        return;
    process->wal_notified_ns = now_ns;
    process_notify_keeper_wal(process->child);
}

static void on_write_lock_released(void *user)
{
    const struct process *process = user;
    commit_request_notify(&process->child->segment, process->child->slot);
}

/* Sleeps half a second before the next try at a store that is busy or full; a stop ends the sleep.
 * Producers and workers sleep so after a failed store call, the keeper while it opens the store. */
static void sleep_before_store_retry(struct process *process)
{
    uint32_t key = wake_prepare_elsewhere(process->slot); /* also a committer's, while a call runs */
    if (process_is_stopping(process))
        wake_cancel(process->slot);
    else
        wake_sleep(process->slot, key, STORE_PAUSE_NS);
}

/* Reports in log and status that the store cannot be used now, once per process until it works again.
 * Producers, workers and the keeper run it after a store call that failed. `eventpipe status` shows the
 * message of the first. */
static void report_store_failing(struct process *process, const char *message)
{
    uint64_t not_failing = 0;
    bool is_first_report = atomic_compare_exchange_strong(&process->header->store_failing_since_ms,
                                                          &not_failing, shm_realtime_ms());
    if (is_first_report)
        text_set(&process->header->store_error, message);
    if (!process->has_reported_store_failure)
        base_log_warning("store-unavailable error=\"%s\"", message);
    process->has_reported_store_failure = true;
    if (atomic_load(&process->slot->event) == 0) /* a worker's committer meets this while a call runs */
        slot_set_state(process->slot, SHM_SLOT_WAITING);
}

/* Clears the failure of the store in status, and logs it if this process has reported one. Producers
 * and workers run it after each store call that succeeded, the keeper when it has opened the store. */
static void report_store_recovered(struct process *process)
{
    if (process->has_reported_store_failure)
        base_log_info("store-recovered");
    process->has_reported_store_failure = false;
    if (atomic_load_explicit(&process->header->store_failing_since_ms, memory_order_relaxed) != 0)
        atomic_store(&process->header->store_failing_since_ms, 0);
}

void process_store_backoff(struct process *process, const char *message)
{
    report_store_failing(process, message);
    sleep_before_store_retry(process);
}

/* Returns whether a store call of a producer or worker succeeded. If the store is busy or full, it reports
 * that, sleeps half a second and returns false; the caller tries again. It ends the process if the store
 * is broken. They pass it the result of each store call. */
bool process_check_store_result(struct process *process, int result)
{
    if (result == 0) {
        report_store_recovered(process);
        return true;
    }
    if (result != EP_ESTOREBUSY)
        process_fail(process, CHILD_STORE, store_errmsg(process->store));
    process_store_backoff(process, store_errmsg(process->store));
    return false;
}

/* Opens this process's own handle of the store, and waits while the store is busy. Producers, workers
 * and the keeper call it after fork, because a handle must not be used across a fork. Ends the process
 * if the store is broken or the instance stops. */
void process_open_store(struct process *process)
{
    const struct config *config = process->child->config;
    const struct store_options options = {
        .url = config->storage,
        .instance = config->instance,
        .synchronous = config->synchronous,
        .write_lock = &process->header->write_lock,
        .trace = config->trace.keep_ms > 0,
        .start_number = atomic_load(&process->header->start_number),
        .wal_bytes = WAL_BYTES,
        .wal_grown = on_wal_grown,
        .write_lock_released = on_write_lock_released,
        .user = process,
    };
    struct error error = {0};
    while (store_open(&options, &process->store, &error) != 0) {
        if (error.code != EP_ESTOREBUSY)
            process_fail(process, CHILD_STORE, error.message);
        process_store_backoff(process, error.message);
        if (process_is_stopping(process))
            _exit(CHILD_DONE);
    }
    report_store_recovered(process);
}
