/* SPDX-License-Identifier: MIT */
/*
 * After a death, always in this order: reap; read what the process said last; find the cause; hand the events
 * it held to the producer (their tickets become ORPHANED, with a cause) and put back what fell out of a ring;
 * clear the place; decide when the next process starts there. Starting it is watch_restarts' part. Run by the
 * supervisor.
 *
 * Invariants
 *  1. Recovering one (slot, generation) twice does nothing.
 *  2. At most one event is blamed for a death: the one in hand, and only while its ticket agrees. The others
 * of its batch are released without blame, and so is the one in hand when we ended the process for a reason
 * of our own, or when its co-process had several: then they come again one by one, and show who it was.
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

#define LAST_WORDS_BYTES 400
#define ALONE_FIRST_NS (5000 * FAMILY_MS_NS)
#define ALONE_MOST_NS (3600000 * FAMILY_MS_NS)
#define OTHER_RESTART_MAX_MS UINT64_C(30000) /* producers and the keeper */

struct death {
    int status;
    bool in_order;   /* it ended because it was to */
    uint32_t ticket; /* of the event in hand, SHM_NO_TICKET = none */
    enum shm_cause_kind kind;
    int code;
    char words[SHM_TEXT_BYTES], how[SHM_TEXT_BYTES], last[LAST_WORDS_BYTES]; /* words: the other two */
};

/* The event it died with, if its ticket still says so. */
static uint32_t ticket_in_hand(const struct supervisor *supervisor, const struct child *child)
{
    const struct shm_slot *slot = family_slot(supervisor, child);
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
           atomic_load(&family_slot(supervisor, child)->since_ns) == child->order_since_ns;
}

static void say(struct death *death, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct death *death, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(death->words, sizeof death->words, format, arguments);
    va_end(arguments);
}

/* It ended as we told it to. */
static void find_ordered_cause(const struct supervisor *supervisor, const struct child *child,
                               struct death *death)
{
    const struct shm_slot *slot = family_slot(supervisor, child);
    death->in_order = child->order != ORDER_TIMEOUT;
    if (child->order == ORDER_RESTART) {
        say(death, "restarted on request");
    } else if (child->order == ORDER_STOP) {
        say(death, "killed to stop");
    } else {
        char limit[32];
        unit_duration_text(segment_stage(&supervisor->segment, slot->stage)->timeout_ms, limit, sizeof limit);
        say(death, "ran longer than %s", limit);
        if (timed_out(supervisor, child, death->ticket))
            death->kind = SHM_CAUSE_TIMEOUT;
    }
}

/* It ended by itself. */
static void find_own_cause(const struct supervisor *supervisor, const struct child *child,
                           struct death *death)
{
    const struct shm_slot *slot = family_slot(supervisor, child);
    bool exited = WIFEXITED(death->status);
    int code = exited ? WEXITSTATUS(death->status) : WTERMSIG(death->status);
    uint32_t told = atomic_load(&slot->cause_kind); /* the worker told itself why it gives up */
    if (told != SHM_CAUSE_NONE) {
        death->kind = told;
        death->code = atomic_load(&slot->cause_code);
        text_get(&slot->cause_words, death->words, sizeof death->words);
    } else if (exited && family_phase(supervisor) >= SHM_PHASE_STOPPING && code == CHILD_DONE) {
        death->in_order = true;
    } else if (exited && child->failed[0] != '\0') {
        say(death, "%s", child->failed); /* the store's or the set-up's failing, not the event's */
    } else {
        death->kind = exited ? SHM_CAUSE_EXIT : SHM_CAUSE_SIGNAL;
        death->code = code;
        const char *name = exited ? NULL : sigdescr_np(code);
        if (exited)
            say(death, "exit code %d", code);
        else
            say(death, "signal %d (%s)", code, name != NULL ? name : "unknown");
    }
}

/* The worker's co-process was sent several events at once. */
static bool had_several(const struct shm_slot *slot)
{
    return slot->kind == SHM_KIND_WORKER && atomic_load(&slot->volley) > 1;
}

static void find_cause(struct supervisor *supervisor, struct child *child, struct death *death)
{
    death->ticket = ticket_in_hand(supervisor, child);
    bool ordered = child->order != ORDER_NONE && WIFSIGNALED(death->status) &&
                   WTERMSIG(death->status) == child->order_signal;
    if (ordered)
        find_ordered_cause(supervisor, child, death);
    else
        find_own_cause(supervisor, child, death);
    /* Its co-process may have been further than the answers that it had read. One that gave up had read all.
     */
    const struct shm_slot *slot = family_slot(supervisor, child);
    if (!ordered && had_several(slot) && atomic_load(&slot->cause_kind) == SHM_CAUSE_NONE)
        death->ticket = SHM_NO_TICKET;
    relay_last_words(&child->relay, death->last, sizeof death->last);
    memcpy(death->how, death->words, sizeof death->how);
    size_t used = strlen(death->words);
    if (!death->in_order && death->last[0] != '\0' && used + sizeof "; last words: " < sizeof death->words)
        snprintf(death->words + used, sizeof death->words - used, "; last words: %s", death->last);
}

/* Everything it owned goes to the producer; the cause stands beside a ticket before the ticket changes. */
static uint32_t orphan_tickets(struct supervisor *supervisor, struct child *child, const struct death *death)
{
    const struct segment *segment = &supervisor->segment;
    const struct shm_slot *slot = family_slot(supervisor, child);
    const struct shm_source *source = segment_source(segment, slot->source);
    uint32_t orphans = 0;
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        uint32_t ticket = source->first_ticket + i;
        const struct ticket_view view = ticket_look(segment, ticket);
        if (view.slot != child->slot || (view.phase != TICKET_RUNNING && view.phase != TICKET_LOADING))
            continue;
        bool blamed = ticket == death->ticket && death->kind != SHM_CAUSE_NONE;
        struct shm_cause *cause = segment_cause(segment, ticket);
        cause->kind = blamed ? death->kind : SHM_CAUSE_NONE;
        cause->code = blamed ? death->code : 0;
        cause->pid = death->in_order ? 0 : (int32_t)child->pid;
        cause->stage = slot->kind == SHM_KIND_WORKER ? slot->stage : source->first_stage;
        snprintf(cause->words, sizeof cause->words, "%s", blamed ? death->words : "");
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
        log_info("requeue source=%s events=%" PRIu32, shared->id, back);
        wake_source(&supervisor->segment, shared);
    }
}

static void recover_events(struct supervisor *supervisor, struct child *child, const struct death *death)
{
    const struct shm_slot *slot = family_slot(supervisor, child);
    offer_bury(&supervisor->segment, child->slot);
    if (slot->kind == SHM_KIND_KEEPER) {
        family_unwatch(supervisor, &supervisor->keeper_fd);
        /* It may have died after it changed events for an operator and before it told their producers. */
        for (uint32_t i = 0; i < supervisor->segment.header->source_count; i++) {
            struct shm_source *told = segment_source(&supervisor->segment, i);
            atomic_store(&told->rescan, 1);
            wake_source(&supervisor->segment, told);
        }
        return;
    }
    struct shm_source *source = segment_source(&supervisor->segment, slot->source);
    if (orphan_tickets(supervisor, child, death) > 0)
        atomic_store(&source->orphans, 1);
    recover_requeue(supervisor, slot->source);
    wake_source(&supervisor->segment, source);
}

/* The group of a stage without any worker is over: its number may come back as somebody else's. */
static void forget_group(struct supervisor *supervisor, const struct child *child)
{
    const struct shm_slot *slot = family_slot(supervisor, child);
    if (slot->kind != SHM_KIND_WORKER)
        return;
    struct shm_stage *stage = segment_stage(&supervisor->segment, slot->stage);
    for (uint32_t i = 0; i < stage->concurrency; i++)
        if (supervisor->children[stage->first_slot + i].pid != 0)
            return;
    atomic_store(&stage->group, 0);
}

static void log_death(const struct supervisor *supervisor, const struct child *child,
                      const struct death *death, pid_t pid)
{
    if (death->in_order) {
        log_debug("end process=\"%s\" pid=%d", child->name, (int)pid);
        return;
    }
    char event[48] = "";
    if (death->ticket != SHM_NO_TICKET)
        snprintf(event, sizeof event, " event=%" PRId64,
                 (int64_t)store_event_number(ticket_look(&supervisor->segment, death->ticket).event));
    log_warning("death process=\"%s\" pid=%d%s how=\"%s\"", child->name, (int)pid, event, death->words);
}

static void tell_operators(struct supervisor *supervisor, const struct child *child,
                           const struct death *death)
{
    bool in_hand = death->ticket != SHM_NO_TICKET;
    const struct obituary obituary = {
        .status = death->status,
        .code = death->code,
        .cause =
            child->order == ORDER_TIMEOUT && death->kind == SHM_CAUSE_NONE ? SHM_CAUSE_TIMEOUT : death->kind,
        .event = in_hand ? ticket_look(&supervisor->segment, death->ticket).event : 0,
        .how = death->how,
        .last_words = death->last,
    };
    obituary_add(supervisor, child, &obituary);
}

/* Something went wrong while a stage had several events at once, and it may be that it cannot have them so,
 * or that nobody knows which of them it was: it gets them one by one for a while, each time longer. */
static void send_alone(struct supervisor *supervisor, const struct shm_slot *slot, const struct death *death)
{
    if (!had_several(slot) || death->kind == SHM_CAUSE_NONE)
        return;
    struct shm_stage *stage = segment_stage(&supervisor->segment, slot->stage);
    uint64_t now_ns = shm_now_ns();
    bool forgiven = now_ns > atomic_load(&stage->alone_until_ns) + ALONE_MOST_NS;
    uint64_t pause_ns = stage->alone_ns == 0 || forgiven ? ALONE_FIRST_NS : stage->alone_ns * 2;
    stage->alone_ns = pause_ns < ALONE_MOST_NS ? pause_ns : ALONE_MOST_NS;
    atomic_store(&stage->alone_until_ns, now_ns + stage->alone_ns);
    log_info("one-by-one stage=%s/%s for_ms=%" PRIu64, segment_source(&supervisor->segment, slot->source)->id,
             stage->name, stage->alone_ns / FAMILY_MS_NS);
}

static void recover_one(struct supervisor *supervisor, struct child *child, int status)
{
    if (child->recovered == child->generation)
        return;
    child->recovered = child->generation;
    phase_notices(supervisor);
    child_output_close(supervisor, child);

    struct shm_slot *slot = family_slot(supervisor, child);
    struct death death = {.status = status};
    find_cause(supervisor, child, &death);
    log_death(supervisor, child, &death, child->pid);
    if (!death.in_order) {
        text_set(&slot->last_death, death.words);
        tell_operators(supervisor, child, &death);
    }
    const struct restart_life life = {
        .born_ns = child->born_ns,
        .now_ns = shm_now_ns(),
        .ready = child->ready,
        .worked = atomic_load(&slot->calls) + atomic_load(&slot->commits) != child->work_before,
        .asked = child->order == ORDER_RESTART,
        .gave_up = WIFEXITED(status) && WEXITSTATUS(status) == CHILD_STORE,
        .event_suspect = death.ticket != SHM_NO_TICKET && death.kind != SHM_CAUSE_NONE &&
                         atomic_load(&slot->event_crashes) > 0,
    };
    send_alone(supervisor, slot, &death); /* before its events can come again */
    recover_events(supervisor, child, &death);
    child->pid = 0;
    child->ready = false;
    child->seen |= !death.in_order;
    forget_group(supervisor, child);
    supervisor->stray_hunt = true;
    atomic_fetch_add(&supervisor->segment.header->recoveries, 1);
    bool unprepared =
        slot->kind == SHM_KIND_KEEPER && atomic_load(&supervisor->segment.header->prepared) == 0;
    if (unprepared && WIFEXITED(status) && WEXITSTATUS(status) == CHILD_STORE)
        phase_fail(supervisor, EP_ESTORE, death.words);
    recover_place(supervisor, child, &life);
}

void recover_place(struct supervisor *supervisor, struct child *child, const struct restart_life *life)
{
    struct shm_slot *slot = family_slot(supervisor, child);
    bool worker = slot->kind == SHM_KIND_WORKER;
    if (family_phase(supervisor) >= SHM_PHASE_STOPPING) {
        slot_clear(slot, SHM_SLOT_EMPTY);
    } else {
        uint64_t longest_ms = OTHER_RESTART_MAX_MS;
        if (worker)
            longest_ms = supervisor->config->sources[slot->source]
                             .stages[segment_stage(&supervisor->segment, slot->stage)->position]
                             .restart_max_ms;
        uint64_t pause_ms = restart_after_death(&child->restart, life, longest_ms);
        child->restart_ns = life->now_ns + pause_ms * FAMILY_MS_NS;
        slot_clear(slot, SHM_SLOT_BACKOFF);
        atomic_store(&slot->restart_at_ns, child->restart_ns);
        if (pause_ms > 0)
            log_info("restart-later process=\"%s\" pause_ms=%" PRIu64, child->name, pause_ms);
    }
    if (worker)
        watch_degraded(supervisor, slot->stage);
    phase_death(supervisor);
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
            supervisor->stray_hunt = true; /* an orphan; it may have left some of its own */
    }
    if (supervisor->stray_hunt)
        supervisor->stray_hunt = stray_kill(supervisor);
}
