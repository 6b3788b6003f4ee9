/* SPDX-License-Identifier: MIT */
/*
 * The stand-ins: process_keeper_main, process_producer_main and process_worker_main. They replace the real
 * ones since the linker finds them first: whoever uses instance_world, which is defined here, has this file.
 */
#include "tests/lib/supervisor_bodies.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/crash_log.h"
#include "shm/ring.h"
#include "shm/slot.h"
#include "shm/ticket.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/control/control.h"
#include "src/process/child_context.h"

struct instance_world *instance_world;

static void body_notice(const struct child_context *child, enum notice_kind kind, const char *message)
{
    process_notice_send(child, kind, message);
}

static bool body_stopping(const struct child_context *child)
{
    return atomic_load(&child->segment.header->phase) >= SHM_PHASE_STOPPING;
}

static bool others_empty(const struct child_context *child)
{
    for (uint32_t i = 0; i < child->segment.header->slot_count; i++)
        if (i != child->slot && atomic_load(&segment_slot(&child->segment, i)->state) != SHM_SLOT_EMPTY)
            return false;
    return true;
}

static void keeper_answer(const struct child_context *child)
{
    char line[CONTROL_REQUEST_BYTES];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = line, .iov_len = sizeof line - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t bytes = recvmsg(child->keeper_fd, &message, MSG_DONTWAIT);
    if (bytes < 0 || CMSG_FIRSTHDR(&message) == NULL)
        return;
    line[bytes] = '\0';
    int client;
    memcpy(&client, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof client);
    char rest[256] = ""; /* what follows the request is still to be read, untouched */
    ssize_t more = recv(client, rest, sizeof rest - 1, MSG_DONTWAIT);
    rest[more > 0 ? more : 0] = '\0';
    control_end(client, CONTROL_DONE, "keeper read [%s] and [%s]", line, rest);
    close(client);
}

void process_keeper_main(const struct child_context *child)
{
    atomic_fetch_add(&instance_world->keeper_starts, 1);
    base_log_set_name("keeper");
    if (atomic_load(&instance_world->keeper_refuses)) {
        body_notice(child, NOTICE_FAILED, "the store is of another age");
        _exit(CHILD_STORE);
    }
    if (atomic_load(&instance_world->keeper_busy) > 0) {
        atomic_fetch_sub(&instance_world->keeper_busy, 1);
        body_notice(child, NOTICE_FAILED, "the store is locked");
        _exit(1);
    }
    if (child->prepare)
        atomic_store(&child->segment.header->prepared, 1);
    slot_set_state(segment_slot(&child->segment, child->slot), SHM_SLOT_IDLE);
    body_notice(child, NOTICE_READY, "");
    while (!body_stopping(child) || !others_empty(child)) {
        struct pollfd ready[2] = {{.fd = child->activity_fd, .events = POLLIN},
                                  {.fd = child->keeper_fd, .events = POLLIN}};
        poll(ready, 2, -1);
        uint64_t count;
        if (ready[0].revents != 0 && read(child->activity_fd, &count, sizeof count) < 0 && errno != EAGAIN)
            _exit(1);
        if (ready[1].revents != 0)
            keeper_answer(child);
    }
    crash_log_set_stored_end(&child->segment, crash_log_end(&child->segment));
    atomic_store(&instance_world->keeper_end, atomic_fetch_add(&instance_world->sequence, 1) + 1);
    _exit(CHILD_DONE);
}

/* The store's part after an exit: what the tickets' causes say goes into the world. */
static void free_one_orphan(const struct segment *segment, uint32_t ticket)
{
    const struct ticket_view view = ticket_read(segment, ticket);
    const struct shm_cause *cause = segment_cause(segment, ticket);
    if (view.event > 0 && view.event <= INSTANCE_EVENTS) {
        struct instance_event *event = &instance_world->event[view.event];
        if (cause->kind == SHM_CAUSE_NONE) {
            atomic_fetch_add(&event->released, 1);
        } else {
            snprintf(event->cause_message, sizeof event->cause_message, "%s", cause->message);
            atomic_store(&event->cause_code, cause->code);
            atomic_store(&event->cause_kind, cause->kind);
            if (cause->kind == SHM_CAUSE_TIMEOUT)
                atomic_fetch_add(&event->timeouts, 1);
            if (atomic_fetch_add(&event->crashes, 1) + 1 >= INSTANCE_MAX_CRASHES)
                atomic_store(&event->dead, 1);
        }
    }
    ticket_free_orphan(segment, ticket);
}

static bool in_flight(const struct segment *segment, const struct shm_source *source, int64_t event)
{
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        const struct ticket_view view = ticket_read(segment, source->first_ticket + i);
        if (view.phase != TICKET_FREE && view.event == event)
            return true;
    }
    return false;
}

/* One round: frees orphans, loads what is neither done, dead nor under way; true when all is done. */
static bool produce(const struct child_context *child, struct shm_source *source, uint32_t *hint)
{
    const struct segment *segment = &child->segment;
    struct shm_stage *first = segment_stage(segment, source->first_stage);
    if (atomic_exchange(&source->orphans, 0) != 0)
        for (uint32_t i = 0; i < source->ticket_count; i++)
            if (ticket_read(segment, source->first_ticket + i).phase == TICKET_ORPHANED)
                free_one_orphan(segment, source->first_ticket + i);
    bool all = true;
    for (uint32_t id = 1; id <= atomic_load(&instance_world->events); id++) {
        if (atomic_load(&instance_world->event[id].done) > 0 ||
            atomic_load(&instance_world->event[id].dead) > 0)
            continue;
        all = false;
        if (in_flight(segment, source, id) || !ring_has_room(&first->ring) || atomic_load(&source->paused))
            continue;
        /* it may have ended between the two looks */
        if (atomic_load(&instance_world->event[id].done) > 0)
            continue;
        uint32_t ticket = ticket_load(segment, source, child->slot, hint);
        if (ticket == SHM_NO_TICKET)
            break;
        ticket_bind(segment, ticket, id, id);
        ticket_pass_on(segment, source, ticket, child->slot, 0);
        wake_stage(segment, first);
    }
    return all;
}

void process_producer_main(const struct child_context *child, uint32_t source_index)
{
    struct shm_source *source = segment_source(&child->segment, source_index);
    struct shm_slot *slot = segment_slot(&child->segment, child->slot);
    uint32_t hint = 0;
    base_log_set_name("producer %s", source->id);
    /* A producer begins with what its predecessor left, as the real one does. */
    atomic_store(&source->orphans, 1);
    body_notice(child, NOTICE_READY, "");
    while (!body_stopping(child)) {
        slot_set_state(slot, SHM_SLOT_BUSY);
        bool all = produce(child, source, &hint);
        bool draining = atomic_load(&child->segment.header->phase) == SHM_PHASE_DRAINING;
        if (all && (draining || !atomic_load(&instance_world->never_ends)) &&
            atomic_exchange(&source->ended, 1) == 0)
            body_notice(child, NOTICE_ENDED, "");
        slot_set_state(slot, SHM_SLOT_IDLE);
        uint32_t key = wake_prepare(slot);
        if (body_stopping(child) || atomic_load(&source->orphans) != 0)
            wake_cancel(slot);
        else
            wake_sleep(slot, key, 5000000); /* the stand-in store wakes no process */
    }
    for (;;) {
        uint32_t key = wake_prepare(slot);
        bool gone = true;
        for (uint32_t i = 0; i < child->segment.header->slot_count; i++) {
            const struct shm_slot *other = segment_slot(&child->segment, i);
            gone &= other->kind != SHM_KIND_WORKER || atomic_load(&other->state) == SHM_SLOT_EMPTY;
        }
        if (gone)
            break;
        wake_sleep(slot, key, WAKE_FOREVER);
    }
    wake_cancel(slot);
    for (uint32_t i = 0; i < source->ticket_count; i++)
        if (ticket_revoke(&child->segment, source->first_ticket + i))
            free_one_orphan(&child->segment, source->first_ticket + i);
    atomic_store(&instance_world->producer_end, atomic_fetch_add(&instance_world->sequence, 1) + 1);
    _exit(CHILD_DONE);
}

static void meet_doom(const struct child_context *child, struct shm_slot *slot, struct instance_event *event,
                      uint32_t stage)
{
    uint32_t tried = atomic_fetch_add(&event->tries[stage], 1);
    if (atomic_load(&instance_world->call_us) > 0)
        usleep(atomic_load(&instance_world->call_us));
    switch (stage == 0 ? atomic_load(&event->doom) : DOOM_NONE) {
    case DOOM_SEGV_ONCE:
        if (tried > 0)
            return;
        /* fall through */
    case DOOM_SEGV:
        fprintf(stderr, "about to fail\nnull pointer, of course\n");
        prctl(PR_SET_DUMPABLE, 0);
        raise(SIGSEGV);
        break;
    case DOOM_EXIT:
        _exit(3);
    case DOOM_BROKEN:
        text_set(&slot->cause_message, "its program gave a malformed answer");
        atomic_store(&slot->cause_code, 0);
        atomic_store(&slot->cause_kind, SHM_CAUSE_MALFORMED);
        _exit(CHILD_BROKEN);
    case DOOM_HANG: {
        pid_t grandchild = fork();
        if (grandchild == 0)
            for (;;)
                pause();
        atomic_store(&instance_world->grandchild, grandchild);
        atomic_fetch_add(&instance_world->waiting, 1);
        for (;;)
            pause();
    }
    case DOOM_WAIT:
        atomic_fetch_add(&instance_world->waiting, 1);
        while (!atomic_load(&instance_world->let_go))
            usleep(1000);
        break;
    case DOOM_FLOOD:
        for (int i = 0; i < 20000; i++)
            fprintf(stderr, "water water water %d\n", i);
        break;
    default:
        break;
    }
    (void)child;
}

/* Copies of a ticket that is FREE, as many as there are places, while nobody takes them out: of the last one,
 * which is not used before all others were. */
static void fill_ring(const struct segment *segment, struct shm_stage *stage, struct shm_source *source)
{
    uint32_t ticket = source->first_ticket + source->ticket_count - 1;
    atomic_store(&stage->paused, 1);
    wake_source(segment, source);
    for (uint32_t i = 0; i < stage->concurrency; i++)
        while (atomic_load(&segment_slot(segment, stage->first_slot + i)->state) != SHM_SLOT_PAUSED)
            usleep(1000);
    while (ring_push(segment, &stage->ring, ticket) == RING_OK)
        atomic_fetch_add(&instance_world->stale, 1);
}

static void work_one(const struct child_context *child, struct shm_slot *slot, struct shm_stage *stage,
                     struct shm_source *source, uint32_t ticket)
{
    const struct segment *segment = &child->segment;
    int64_t id = ticket_read(segment, ticket).event;
    struct instance_event *event = &instance_world->event[id];
    slot_begin_event(slot, ticket, &(struct slot_event){.id = id, .crashes = atomic_load(&event->crashes)},
                     shm_now_ns());
    meet_doom(child, slot, event, stage->position);
    slot_end_event(slot, shm_now_ns());
    if (stage->position + 1 < source->stage_count) {
        struct shm_stage *next = segment_stage(segment, source->first_stage + stage->position + 1);
        bool full = atomic_exchange(&instance_world->fill_ring, 0) != 0;
        if (full)
            fill_ring(segment, next, source);
        if (ticket_pass_on(segment, source, ticket, child->slot, stage->position + 1))
            wake_stage(segment, next);
        if (full) {
            atomic_store(&next->paused, 0);
            wake_source(segment, source);
        }
    } else {
        atomic_fetch_add(&event->done, 1);
        ticket_free(segment, ticket, child->slot);
        wake_ticket_freed(segment, source);
    }
}

/* Those at the end of it are only held when a worker crashes over the first. */
static uint32_t take_batch(const struct segment *segment, struct shm_stage *stage, uint32_t slot,
                           uint32_t *batch)
{
    uint32_t count = 0, ticket,
             most = atomic_load(&instance_world->batch) > 0 ? atomic_load(&instance_world->batch) : 1;
    struct ticket_view view;
    while (count < most && ring_pop(segment, &stage->ring, &ticket) == RING_OK) {
        if (atomic_exchange(&instance_world->fall_out, 0) != 0)
            raise(SIGKILL); /* taken out of the ring, without an owner yet */
        if (ticket_take(segment, ticket, stage->position, slot, &view))
            batch[count++] = ticket;
    }
    return count;
}

void process_worker_main(const struct child_context *child, uint32_t stage_index)
{
    const struct segment *segment = &child->segment;
    struct shm_stage *stage = segment_stage(segment, stage_index);
    struct shm_source *source = segment_source(segment, stage->source);
    struct shm_slot *slot = segment_slot(segment, child->slot);
    base_log_set_name("%s/%s[%u]", source->id, stage->name, slot->index);
    if (stage->position == 0 && atomic_load(&instance_world->open_fails)) {
        body_notice(child, NOTICE_FAILED, "no such program");
        _exit(CHILD_OPEN);
    }
    body_notice(child, NOTICE_READY, "");
    while (!body_stopping(child)) {
        uint32_t batch[INSTANCE_BATCH], key = wake_prepare(slot);
        bool paused = atomic_load(&stage->paused) || atomic_load(&source->paused);
        uint32_t count = paused ? 0 : take_batch(segment, stage, child->slot, batch);
        if (count > 0) {
            wake_cancel(slot);
            wake_waiters_for_room(segment, stage);
            for (uint32_t i = 0; i < count && !body_stopping(child); i++)
                work_one(child, slot, stage, source, batch[i]);
            continue;
        }
        slot_set_state(slot, paused ? SHM_SLOT_PAUSED : SHM_SLOT_IDLE);
        if (body_stopping(child))
            wake_cancel(slot);
        else
            wake_sleep(slot, key, WAKE_FOREVER);
    }
    atomic_store(&instance_world->worker_end, atomic_fetch_add(&instance_world->sequence, 1) + 1);
    _exit(CHILD_DONE);
}
