/* SPDX-License-Identifier: MIT */
/*
 * After an exit, always in this order: reap; read what the process said last; find the cause; hand the events
 * it held to the producer (their tickets become ORPHANED, with a cause) and put back what fell out of a ring;
 * clear the slot; decide when the next process starts there. Starting it is watch_restarts' part. Run by the
 * supervisor.
 *
 * Invariants
 *  1. Recovering one (slot, generation) twice does nothing.
 *  2. At most one event is blamed for a crash: the one in hand, and only while its ticket agrees. The others
 * of its batch are released without blame, and so is the one in hand when we ended the process for a reason
 * of our own, or when its program had several: then they come again one by one, and show who it was.
 *  3. Nothing here waits, and nothing touches the store: the producer, or its successor, releases the
 * orphans.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/commit_request.h"
#include "shm/slot.h"
#include "shm/ticket.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/store/store.h"
#include "supervisor/family.h"

#define LAST_OUTPUT_BYTES 400
#define ALONE_FIRST_NS (5000 * SUPERVISOR_MS_NS)
#define ALONE_MOST_NS (3600000 * SUPERVISOR_MS_NS)
#define OTHER_RESTART_MAX_MS UINT64_C(30000) /* producers and the keeper */

struct process_exit {
    int status;
    bool in_order;   /* it ended because it was to */
    uint32_t ticket; /* of the event in hand, SHM_NO_TICKET = none */
    enum shm_cause_kind kind;
    int code;
    char message[SHM_TEXT_BYTES], how[SHM_TEXT_BYTES], last[LAST_OUTPUT_BYTES]; /* message: the other two */
};

/* The event it crashed with, if its ticket still says so. */
static uint32_t ticket_in_hand(const struct supervisor *supervisor, const struct child *child)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    uint32_t ticket = atomic_load(&slot->ticket);
    if (slot->kind != SHM_KIND_WORKER || ticket >= supervisor->segment.header->ticket_count)
        return SHM_NO_TICKET;
    const struct ticket_view view = ticket_look(&supervisor->segment, ticket);
    bool ours =
        view.phase == TICKET_RUNNING && view.slot == child->slot && view.event == atomic_load(&slot->event);
    return ours ? ticket : SHM_NO_TICKET;
}

/* We killed it for an event that ran too long: was it still the same event when the kill came? */
static bool timed_out(const struct supervisor *supervisor, const struct child *child, uint32_t ticket)
{
    return ticket == child->order_ticket &&
           atomic_load(&supervisor_slot(supervisor, child)->since_ns) == child->order_since_ns;
}

static void say(struct process_exit *process_exit, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct process_exit *process_exit, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(process_exit->message, sizeof process_exit->message, format, arguments);
    va_end(arguments);
}

/* It ended as we told it to. */
static void find_ordered_cause(const struct supervisor *supervisor, const struct child *child,
                               struct process_exit *process_exit)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    process_exit->in_order = child->order != ORDER_TIMEOUT;
    if (child->order == ORDER_RESTART) {
        say(process_exit, "restarted on request");
    } else if (child->order == ORDER_STOP) {
        say(process_exit, "killed to stop");
    } else {
        char limit[32];
        base_units_duration_text(segment_stage(&supervisor->segment, slot->stage)->timeout_ms, limit,
                                 sizeof limit);
        say(process_exit, "timed out after %s", limit);
        if (timed_out(supervisor, child, process_exit->ticket))
            process_exit->kind = SHM_CAUSE_TIMEOUT;
    }
}

/* It ended by itself. */
static void find_own_cause(const struct supervisor *supervisor, const struct child *child,
                           struct process_exit *process_exit)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    bool exited = WIFEXITED(process_exit->status);
    int code = exited ? WEXITSTATUS(process_exit->status) : WTERMSIG(process_exit->status);
    uint32_t reported = atomic_load(&slot->cause_kind); /* the worker told itself why it gives up */
    if (reported != SHM_CAUSE_NONE) {
        process_exit->kind = reported;
        process_exit->code = atomic_load(&slot->cause_code);
        text_get(&slot->cause_message, process_exit->message, sizeof process_exit->message);
    } else if (exited && supervisor_phase(supervisor) >= SHM_PHASE_STOPPING && code == CHILD_DONE) {
        process_exit->in_order = true;
    } else if (exited && child->failed[0] != '\0') {
        say(process_exit, "%s", child->failed); /* the store's or the set-up's failing, not the event's */
    } else {
        process_exit->kind = exited ? SHM_CAUSE_EXIT : SHM_CAUSE_SIGNAL;
        process_exit->code = code;
        const char *name = exited ? NULL : sigdescr_np(code);
        if (exited)
            say(process_exit, "exit code %d", code);
        else
            say(process_exit, "signal %d (%s)", code, name != NULL ? name : "unknown");
    }
}

/* The worker's program was sent several events at once. */
static bool had_several(const struct shm_slot *slot)
{
    return slot->kind == SHM_KIND_WORKER && atomic_load(&slot->pipeline) > 1;
}

static void find_cause(struct supervisor *supervisor, struct child *child, struct process_exit *process_exit)
{
    process_exit->ticket = ticket_in_hand(supervisor, child);
    bool ordered = child->order != ORDER_NONE && WIFSIGNALED(process_exit->status) &&
                   WTERMSIG(process_exit->status) == child->order_signal;
    if (ordered)
        find_ordered_cause(supervisor, child, process_exit);
    else
        find_own_cause(supervisor, child, process_exit);
    /* Its program may have been further than the answers that it had read. One that gave up had read all.
     */
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    if (!ordered && had_several(slot) && atomic_load(&slot->cause_kind) == SHM_CAUSE_NONE)
        process_exit->ticket = SHM_NO_TICKET;
    relay_last_output(&child->relay, process_exit->last, sizeof process_exit->last);
    memcpy(process_exit->how, process_exit->message, sizeof process_exit->how);
    size_t used = strlen(process_exit->message);
    if (!process_exit->in_order && process_exit->last[0] != '\0' &&
        used + sizeof "; last stderr output: " < sizeof process_exit->message)
        snprintf(process_exit->message + used, sizeof process_exit->message - used,
                 "; last stderr output: %s", process_exit->last);
}

/* Everything it owned goes to the producer; the cause stands beside a ticket before the ticket changes. */
static uint32_t orphan_tickets(struct supervisor *supervisor, struct child *child,
                               const struct process_exit *process_exit)
{
    const struct segment *segment = &supervisor->segment;
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    const struct shm_source *source = segment_source(segment, slot->source);
    uint32_t orphans = 0;
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        uint32_t ticket = source->first_ticket + i;
        const struct ticket_view view = ticket_look(segment, ticket);
        if (view.slot != child->slot || (view.phase != TICKET_RUNNING && view.phase != TICKET_LOADING))
            continue;
        bool blamed = ticket == process_exit->ticket && process_exit->kind != SHM_CAUSE_NONE;
        struct shm_cause *cause = segment_cause(segment, ticket);
        cause->kind = blamed ? process_exit->kind : SHM_CAUSE_NONE;
        cause->code = blamed ? process_exit->code : 0;
        cause->pid = process_exit->in_order ? 0 : (int32_t)child->pid;
        cause->stage = slot->kind == SHM_KIND_WORKER ? slot->stage : source->first_stage;
        snprintf(cause->message, sizeof cause->message, "%s", blamed ? process_exit->message : "");
        orphans += ticket_orphan(segment, ticket, child->slot);
    }
    return orphans;
}

void recover_requeue(struct supervisor *supervisor, uint32_t source)
{
    bool left = false;
    struct shm_source *shared = segment_source(&supervisor->segment, source);
    uint32_t back = ticket_requeue_lost(&supervisor->segment, shared, &left);
    supervisor->requeue[source] = left;
    if (back > 0) {
        base_log_info("requeue source=%s events=%" PRIu32, shared->id, back);
        wake_source(&supervisor->segment, shared);
    }
}

static void recover_events(struct supervisor *supervisor, struct child *child,
                           const struct process_exit *process_exit)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    commit_request_recover(&supervisor->segment, child->slot);
    if (slot->kind == SHM_KIND_KEEPER) {
        supervisor_unwatch_fd(supervisor, &supervisor->keeper_fd);
        /* It may have crashed after it changed events for an operator and before it told their producers. */
        for (uint32_t i = 0; i < supervisor->segment.header->source_count; i++) {
            struct shm_source *source = segment_source(&supervisor->segment, i);
            atomic_store(&source->rescan, 1);
            wake_source(&supervisor->segment, source);
        }
        return;
    }
    struct shm_source *source = segment_source(&supervisor->segment, slot->source);
    if (orphan_tickets(supervisor, child, process_exit) > 0)
        atomic_store(&source->orphans, 1);
    recover_requeue(supervisor, slot->source);
    wake_source(&supervisor->segment, source);
}

/* The group of a stage without any worker is over: its number may come back as somebody else's. */
static void forget_process_group(struct supervisor *supervisor, const struct child *child)
{
    const struct shm_slot *slot = supervisor_slot(supervisor, child);
    if (slot->kind != SHM_KIND_WORKER)
        return;
    struct shm_stage *stage = segment_stage(&supervisor->segment, slot->stage);
    for (uint32_t i = 0; i < stage->concurrency; i++)
        if (supervisor->children[stage->first_slot + i].pid != 0)
            return;
    atomic_store(&stage->process_group, 0);
}

static void log_child_exit(const struct supervisor *supervisor, const struct child *child,
                           const struct process_exit *process_exit, pid_t pid)
{
    if (process_exit->in_order) {
        base_log_debug("end process=\"%s\" pid=%d", child->name, (int)pid);
        return;
    }
    char event[48] = "";
    if (process_exit->ticket != SHM_NO_TICKET)
        snprintf(event, sizeof event, " event=%" PRId64,
                 (int64_t)store_event_number(ticket_look(&supervisor->segment, process_exit->ticket).event));
    base_log_warning("crash process=\"%s\" pid=%d%s how=\"%s\"", child->name, (int)pid, event,
                     process_exit->message);
}

static void report_crash(struct supervisor *supervisor, const struct child *child,
                         const struct process_exit *process_exit)
{
    bool in_hand = process_exit->ticket != SHM_NO_TICKET;
    const struct crash_report report = {
        .status = process_exit->status,
        .code = process_exit->code,
        .cause = child->order == ORDER_TIMEOUT && process_exit->kind == SHM_CAUSE_NONE ? SHM_CAUSE_TIMEOUT
                                                                                       : process_exit->kind,
        .event = in_hand ? ticket_look(&supervisor->segment, process_exit->ticket).event : 0,
        .how = process_exit->how,
        .last_output = process_exit->last,
    };
    crash_report_add(supervisor, child, &report);
}

/* Something went wrong while a stage had several events at once, and it may be that it cannot have them so,
 * or that nobody knows which of them it was: it gets them one by one for a while, each time longer. */
static void send_alone(struct supervisor *supervisor, const struct shm_slot *slot,
                       const struct process_exit *process_exit)
{
    if (!had_several(slot) || process_exit->kind == SHM_CAUSE_NONE)
        return;
    struct shm_stage *stage = segment_stage(&supervisor->segment, slot->stage);
    uint64_t now_ns = shm_now_ns();
    bool expired = now_ns > atomic_load(&stage->alone_until_ns) + ALONE_MOST_NS;
    uint64_t pause_ns = stage->alone_ns == 0 || expired ? ALONE_FIRST_NS : stage->alone_ns * 2;
    stage->alone_ns = pause_ns < ALONE_MOST_NS ? pause_ns : ALONE_MOST_NS;
    atomic_store(&stage->alone_until_ns, now_ns + stage->alone_ns);
    base_log_info("pipelining-off stage=%s/%s for_ms=%" PRIu64,
                  segment_source(&supervisor->segment, slot->source)->id, stage->name,
                  stage->alone_ns / SUPERVISOR_MS_NS);
}

static void recover_one(struct supervisor *supervisor, struct child *child, int status)
{
    if (child->recovered == child->generation)
        return;
    child->recovered = child->generation;
    phase_notices(supervisor);
    child_output_close(supervisor, child);

    struct shm_slot *slot = supervisor_slot(supervisor, child);
    struct process_exit process_exit = {.status = status};
    find_cause(supervisor, child, &process_exit);
    log_child_exit(supervisor, child, &process_exit, child->pid);
    if (!process_exit.in_order) {
        text_set(&slot->last_exit, process_exit.message);
        report_crash(supervisor, child, &process_exit);
    }
    const struct restart_life life = {
        .born_ns = child->born_ns,
        .now_ns = shm_now_ns(),
        .ready = child->ready,
        .made_progress = atomic_load(&slot->calls) + atomic_load(&slot->commits) != child->work_before,
        .asked = child->order == ORDER_RESTART,
        .gave_up = WIFEXITED(status) && WEXITSTATUS(status) == CHILD_STORE,
        .event_suspect = process_exit.ticket != SHM_NO_TICKET && process_exit.kind != SHM_CAUSE_NONE &&
                         atomic_load(&slot->event_crashes) > 0,
    };
    send_alone(supervisor, slot, &process_exit); /* before its events can come again */
    recover_events(supervisor, child, &process_exit);
    child->pid = 0;
    child->ready = false;
    child->seen |= !process_exit.in_order;
    forget_process_group(supervisor, child);
    supervisor->orphans_pending = true;
    atomic_fetch_add(&supervisor->segment.header->recoveries, 1);
    bool unprepared =
        slot->kind == SHM_KIND_KEEPER && atomic_load(&supervisor->segment.header->prepared) == 0;
    if (unprepared && WIFEXITED(status) && WEXITSTATUS(status) == CHILD_STORE)
        phase_fail(supervisor, EP_ESTORE, process_exit.message);
    recover_slot(supervisor, child, &life);
}

void recover_slot(struct supervisor *supervisor, struct child *child, const struct restart_life *life)
{
    struct shm_slot *slot = supervisor_slot(supervisor, child);
    bool worker = slot->kind == SHM_KIND_WORKER;
    if (supervisor_phase(supervisor) >= SHM_PHASE_STOPPING) {
        slot_clear(slot, SHM_SLOT_EMPTY);
    } else {
        uint64_t longest_ms = OTHER_RESTART_MAX_MS;
        if (worker)
            longest_ms = supervisor->config->sources[slot->source]
                             .stages[segment_stage(&supervisor->segment, slot->stage)->position]
                             .restart_max_backoff_ms;
        uint64_t pause_ms = restart_after_exit(&child->restart, life, longest_ms);
        child->restart_ns = life->now_ns + pause_ms * SUPERVISOR_MS_NS;
        slot_clear(slot, SHM_SLOT_BACKOFF);
        atomic_store(&slot->restart_at_ns, child->restart_ns);
        if (pause_ms > 0)
            base_log_info("restart-delayed process=\"%s\" pause_ms=%" PRIu64, child->name, pause_ms);
    }
    if (worker)
        watch_degraded(supervisor, slot->stage);
    phase_child_exited(supervisor);
}

static struct child *find_child(struct supervisor *supervisor, pid_t pid)
{
    for (uint32_t i = 0; i < supervisor->child_count; i++)
        if (supervisor->children[i].pid == pid)
            return &supervisor->children[i];
    return NULL;
}

void recover_children(struct supervisor *supervisor)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        struct child *child = find_child(supervisor, pid);
        if (child != NULL)
            recover_one(supervisor, child, status);
        else
            supervisor->orphans_pending = true; /* an orphan; it may have left some of its own */
    }
    if (supervisor->orphans_pending)
        supervisor->orphans_pending = orphan_kill(supervisor);
}
