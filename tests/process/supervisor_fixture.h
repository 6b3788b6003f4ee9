/* SPDX-License-Identifier: MIT */
/*
 * An instance for the tests of the supervisor. Supervisor, segment, tickets and rings are the real ones.
 * The bodies of producer, worker and keeper are stand-ins, and a struct in shared memory (world)
 * replaces the store; it outlives every process but the test. enum doom says what happens when a stage
 * gets an event.
 */
#ifndef TESTS_PROCESS_SUPERVISOR_FIXTURE_H
#define TESTS_PROCESS_SUPERVISOR_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/crash_log.h"
#include "shm/ring.h"
#include "shm/slot.h"
#include "shm/ticket.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/control/control.h"
#include "src/process/child_context.h"
#include "src/store/store.h"
#include "supervisor/supervisor.h"
#include "tests/process/until.h"
#include "tests/unit/unit.h"

#define WORLD_EVENTS 2000
#define WORLD_STAGES 2
#define WORLD_WORKERS 3 /* of each stage */
#define WORLD_BATCH 4
#define WORLD_MAX_CRASHES 3
#define PATIENCE_MS 120000

enum doom {
    DOOM_NONE,
    DOOM_SEGV,      /* crashes at every attempt, with output on its stderr */
    DOOM_SEGV_ONCE, /* crashes at the first attempt only */
    DOOM_EXIT,      /* exits with 3 */
    DOOM_BROKEN,    /* the worker gives up over its program, and reports the cause */
    DOOM_HANG,      /* never returns; has a child of its own */
    DOOM_WAIT,      /* waits until world.let_go is set */
    DOOM_FLOOD      /* prints without end for a while */
};

struct world_event {
    _Atomic uint32_t doom, done, dead; /* done: how often it reached its end */
    _Atomic uint32_t crashes, timeouts, released;
    _Atomic uint32_t tries[WORLD_STAGES];
    _Atomic uint32_t cause_kind;
    _Atomic int32_t cause_code;
    char cause_message[SHM_TEXT_BYTES];
};

struct world {
    _Atomic uint32_t events;      /* how many there are; ids are 1 .. events */
    _Atomic uint32_t let_go;      /* DOOM_WAIT ends */
    _Atomic uint32_t waiting;     /* how many wait or hang */
    _Atomic uint32_t open_fails;  /* workers of stage 0 cannot be opened */
    _Atomic uint32_t keeper_busy; /* so many starts of the keeper fail for now */
    _Atomic uint32_t keeper_refuses;
    _Atomic uint32_t fall_out;   /* the next worker to take an entry out of a ring crashes over it */
    _Atomic uint32_t fill_ring;  /* the next worker of stage 0 finds the second ring full of stale entries */
    _Atomic uint32_t stale;      /* how many it put there */
    _Atomic uint32_t batch;      /* how many events a worker takes at a time, at most WORLD_BATCH; 0 = 1 */
    _Atomic uint32_t call_us;    /* how long each call takes */
    _Atomic uint32_t never_ends; /* the producer does not say that the source has ended */
    _Atomic uint32_t sequence;   /* counts orderly ends */
    _Atomic uint32_t worker_end, producer_end, keeper_end; /* the last of each kind */
    _Atomic uint32_t keeper_starts;
    _Atomic int32_t grandchild; /* DOOM_HANG's child */
    struct world_event event[WORLD_EVENTS + 1];
};
static struct world *world;

/* ---- bodies ---- */

static inline void body_notice(const struct child_context *child, enum notice_kind kind, const char *message)
{
    process_notice_send(child, kind, message);
}

static inline bool body_stopping(const struct child_context *child)
{
    return atomic_load(&child->segment.header->phase) >= SHM_PHASE_STOPPING;
}

static inline bool others_empty(const struct child_context *child)
{
    for (uint32_t i = 0; i < child->segment.header->slot_count; i++)
        if (i != child->slot && atomic_load(&segment_slot(&child->segment, i)->state) != SHM_SLOT_EMPTY)
            return false;
    return true;
}

static inline void keeper_answer(const struct child_context *child)
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
    atomic_fetch_add(&world->keeper_starts, 1);
    base_log_name("keeper");
    if (atomic_load(&world->keeper_refuses)) {
        body_notice(child, NOTICE_FAILED, "the store is of another age");
        _exit(CHILD_STORE);
    }
    if (atomic_load(&world->keeper_busy) > 0) {
        atomic_fetch_sub(&world->keeper_busy, 1);
        body_notice(child, NOTICE_FAILED, "the store is locked");
        _exit(1);
    }
    if (child->prepare)
        atomic_store(&child->segment.header->prepared, 1);
    slot_state(segment_slot(&child->segment, child->slot), SHM_SLOT_IDLE);
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
    crash_log_stored(&child->segment, crash_log_end(&child->segment));
    atomic_store(&world->keeper_end, atomic_fetch_add(&world->sequence, 1) + 1);
    _exit(CHILD_DONE);
}

/* The store's part after an exit: what the tickets' causes say goes into the world. */
static inline void free_one_orphan(const struct segment *segment, uint32_t ticket)
{
    const struct ticket_view view = ticket_look(segment, ticket);
    const struct shm_cause *cause = segment_cause(segment, ticket);
    if (view.event > 0 && view.event <= WORLD_EVENTS) {
        struct world_event *event = &world->event[view.event];
        if (cause->kind == SHM_CAUSE_NONE) {
            atomic_fetch_add(&event->released, 1);
        } else {
            snprintf(event->cause_message, sizeof event->cause_message, "%s", cause->message);
            atomic_store(&event->cause_code, cause->code);
            atomic_store(&event->cause_kind, cause->kind);
            if (cause->kind == SHM_CAUSE_TIMEOUT)
                atomic_fetch_add(&event->timeouts, 1);
            if (atomic_fetch_add(&event->crashes, 1) + 1 >= WORLD_MAX_CRASHES)
                atomic_store(&event->dead, 1);
        }
    }
    ticket_free_orphan(segment, ticket);
}

static inline bool in_flight(const struct segment *segment, const struct shm_source *source, int64_t event)
{
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        const struct ticket_view view = ticket_look(segment, source->first_ticket + i);
        if (view.phase != TICKET_FREE && view.event == event)
            return true;
    }
    return false;
}

/* One round: frees orphans, loads what is neither done, dead nor under way; true when all is done. */
static inline bool produce(const struct child_context *child, struct shm_source *source, uint32_t *hint)
{
    const struct segment *segment = &child->segment;
    struct shm_stage *first = segment_stage(segment, source->first_stage);
    if (atomic_exchange(&source->orphans, 0) != 0)
        for (uint32_t i = 0; i < source->ticket_count; i++)
            if (ticket_look(segment, source->first_ticket + i).phase == TICKET_ORPHANED)
                free_one_orphan(segment, source->first_ticket + i);
    bool all = true;
    for (uint32_t id = 1; id <= atomic_load(&world->events); id++) {
        if (atomic_load(&world->event[id].done) > 0 || atomic_load(&world->event[id].dead) > 0)
            continue;
        all = false;
        if (in_flight(segment, source, id) || !ring_has_room(&first->ring) || atomic_load(&source->paused))
            continue;
        /* it may have ended between the two looks */
        if (atomic_load(&world->event[id].done) > 0)
            continue;
        uint32_t ticket = ticket_load(segment, source, child->slot, hint);
        if (ticket == SHM_NO_TICKET)
            break;
        ticket_bind(segment, ticket, id, id);
        ticket_pass(segment, source, ticket, child->slot, 0);
        wake_stage(segment, first);
    }
    return all;
}

void process_producer_main(const struct child_context *child, uint32_t source_index)
{
    struct shm_source *source = segment_source(&child->segment, source_index);
    struct shm_slot *slot = segment_slot(&child->segment, child->slot);
    uint32_t hint = 0;
    base_log_name("producer %s", source->id);
    /* A producer begins with what its predecessor left, as the real one does. */
    atomic_store(&source->orphans, 1);
    body_notice(child, NOTICE_READY, "");
    while (!body_stopping(child)) {
        slot_state(slot, SHM_SLOT_BUSY);
        bool all = produce(child, source, &hint);
        bool draining = atomic_load(&child->segment.header->phase) == SHM_PHASE_DRAINING;
        if (all && (draining || !atomic_load(&world->never_ends)) && atomic_exchange(&source->ended, 1) == 0)
            body_notice(child, NOTICE_ENDED, "");
        slot_state(slot, SHM_SLOT_IDLE);
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
    atomic_store(&world->producer_end, atomic_fetch_add(&world->sequence, 1) + 1);
    _exit(CHILD_DONE);
}

static inline void meet_doom(const struct child_context *child, struct shm_slot *slot,
                             struct world_event *event, uint32_t stage)
{
    uint32_t tried = atomic_fetch_add(&event->tries[stage], 1);
    if (atomic_load(&world->call_us) > 0)
        usleep(atomic_load(&world->call_us));
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
        atomic_store(&world->grandchild, grandchild);
        atomic_fetch_add(&world->waiting, 1);
        for (;;)
            pause();
    }
    case DOOM_WAIT:
        atomic_fetch_add(&world->waiting, 1);
        while (!atomic_load(&world->let_go))
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
static inline void fill_ring(const struct segment *segment, struct shm_stage *stage,
                             struct shm_source *source)
{
    uint32_t ticket = source->first_ticket + source->ticket_count - 1;
    atomic_store(&stage->paused, 1);
    wake_source(segment, source);
    for (uint32_t i = 0; i < stage->concurrency; i++)
        while (atomic_load(&segment_slot(segment, stage->first_slot + i)->state) != SHM_SLOT_PAUSED)
            usleep(1000);
    while (ring_push(segment, &stage->ring, ticket) == RING_OK)
        atomic_fetch_add(&world->stale, 1);
}

static inline void work_one(const struct child_context *child, struct shm_slot *slot, struct shm_stage *stage,
                            struct shm_source *source, uint32_t ticket)
{
    const struct segment *segment = &child->segment;
    int64_t id = ticket_look(segment, ticket).event;
    struct world_event *event = &world->event[id];
    slot_take(slot, ticket, &(struct slot_event){.id = id, .crashes = atomic_load(&event->crashes)},
              shm_now_ns());
    meet_doom(child, slot, event, stage->position);
    slot_put(slot, shm_now_ns());
    if (stage->position + 1 < source->stage_count) {
        struct shm_stage *next = segment_stage(segment, source->first_stage + stage->position + 1);
        bool full = atomic_exchange(&world->fill_ring, 0) != 0;
        if (full)
            fill_ring(segment, next, source);
        if (ticket_pass(segment, source, ticket, child->slot, stage->position + 1))
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
static inline uint32_t take_batch(const struct segment *segment, struct shm_stage *stage, uint32_t slot,
                                  uint32_t *batch)
{
    uint32_t count = 0, ticket, most = atomic_load(&world->batch) > 0 ? atomic_load(&world->batch) : 1;
    struct ticket_view view;
    while (count < most && ring_pop(segment, &stage->ring, &ticket) == RING_OK) {
        if (atomic_exchange(&world->fall_out, 0) != 0)
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
    base_log_name("%s/%s[%u]", source->id, stage->name, slot->index);
    if (stage->position == 0 && atomic_load(&world->open_fails)) {
        body_notice(child, NOTICE_FAILED, "no such program");
        _exit(CHILD_OPEN);
    }
    body_notice(child, NOTICE_READY, "");
    while (!body_stopping(child)) {
        uint32_t batch[WORLD_BATCH], key = wake_prepare(slot);
        bool paused = atomic_load(&stage->paused) || atomic_load(&source->paused);
        uint32_t count = paused ? 0 : take_batch(segment, stage, child->slot, batch);
        if (count > 0) {
            wake_cancel(slot);
            wake_room(segment, stage);
            for (uint32_t i = 0; i < count && !body_stopping(child); i++)
                work_one(child, slot, stage, source, batch[i]);
            continue;
        }
        slot_state(slot, paused ? SHM_SLOT_PAUSED : SHM_SLOT_IDLE);
        if (body_stopping(child))
            wake_cancel(slot);
        else
            wake_sleep(slot, key, WAKE_FOREVER);
    }
    atomic_store(&world->worker_end, atomic_fetch_add(&world->sequence, 1) + 1);
    _exit(CHILD_DONE);
}

/* ---- the instance ---- */

static struct {
    char directory[80], storage[128], control[128], log_path[128], name[48];
    struct stage_config stages[WORLD_STAGES];
    struct source_config source;
    struct config config;
    struct supervisor_options options;
    pid_t pid;
    int result_fd;
    struct segment segment; /* as a reader sees it */
} instance;

static inline void instance_prepare(uint32_t events)
{
    static int number;
    const char *temporary = getenv("TMPDIR");
    memset(&instance, 0, sizeof instance);
    snprintf(instance.directory, sizeof instance.directory, "%.40s/instanceXXXXXX",
             temporary != NULL && strlen(temporary) < 40 ? temporary : "/tmp");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(instance.directory));
    snprintf(instance.storage, sizeof instance.storage, "sqlite:%s/store.db", instance.directory);
    snprintf(instance.control, sizeof instance.control, "%s/control", instance.directory);
    snprintf(instance.log_path, sizeof instance.log_path, "%s/log", instance.directory);
    snprintf(instance.name, sizeof instance.name, "instance-%d-%d", (int)getpid(), ++number);
    static char *const names[WORLD_STAGES] = {"first", "second"};
    for (int i = 0; i < WORLD_STAGES; i++) {
        config_stage_defaults(&instance.stages[i]);
        instance.stages[i].name = names[i];
        instance.stages[i].concurrency = WORLD_WORKERS;
        instance.stages[i].input_buffer = 16;
    }
    instance.source = (struct source_config){.id = "quakes",
                                             .type = SOURCE_GENERATE,
                                             .stages = instance.stages,
                                             .stage_count = WORLD_STAGES};
    instance.config = (struct config){.instance = instance.name,
                                      .storage = instance.storage,
                                      .control = instance.control,
                                      .control_mode = 0600,
                                      .drain_timeout_ms = 10000,
                                      .log_level = EP_LOG_DEBUG,
                                      .sources = &instance.source,
                                      .source_count = 1};
    instance.options =
        (struct supervisor_options){.config = &instance.config, .until_end = true, .hold_wait_ms = 5000};
    world = mmap(NULL, sizeof *world, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_PTR_NOT_EQUAL_FATAL(world, MAP_FAILED);
    atomic_store(&world->events, events);
}

static inline void instance_start(void)
{
    int log = open(instance.log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int mine = dup(STDERR_FILENO);
    dup2(log, STDERR_FILENO); /* the supervisor's process has our standard error */
    base_log_open(EP_LOG_DEBUG, NULL, NULL);
    struct error error = {0};
    int result = supervisor_fork(&instance.options, &instance.pid, &instance.result_fd, &error);
    dup2(mine, STDERR_FILENO);
    close(mine);
    close(log);
    CU_ASSERT_EQUAL_FATAL(result, 0);
}

/* Waits for its end; one that does not come to an end is killed, and that is a failure. */
static inline int instance_wait(struct error *error)
{
    *error = (struct error){0};
    siginfo_t ended = {0};
    if (!UNTIL(waitid(P_PID, (id_t)instance.pid, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
               ended.si_pid != 0)) {
        CU_FAIL("the instance does not end");
        kill(instance.pid, SIGKILL);
    }
    int result = supervisor_wait(instance.pid, instance.result_fd, error);
    instance.pid = 0;
    return result;
}

static inline bool instance_attached(void)
{
    if (instance.segment.header != NULL)
        return true;
    return segment_attach(instance.name, &instance.segment) == 0;
}

static inline bool instance_runs(void)
{
    return UNTIL(instance_attached() && atomic_load(&instance.segment.header->phase) == SHM_PHASE_RUNNING);
}

static inline const struct shm_slot *worker_slot(uint32_t stage, uint32_t index)
{
    return segment_slot(&instance.segment, segment_stage(&instance.segment, stage)->first_slot + index);
}

static inline bool process_exists(pid_t pid)
{
    return pid > 0 && kill(pid, 0) == 0;
}

static inline bool log_has(const char *message)
{
    static char text[1 << 22];
    int fd = open(instance.log_path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[bytes > 0 ? bytes : 0] = '\0';
    return strstr(text, message) != NULL;
}

static inline uint32_t events_done(void)
{
    uint32_t done = 0;
    for (uint32_t id = 1; id <= atomic_load(&world->events); id++)
        done += atomic_load(&world->event[id].done) > 0;
    return done;
}

/* Whatever happened, nothing is left of it. */
static inline void instance_end(void)
{
    if (instance.pid > 0) {
        kill(instance.pid, SIGKILL);
        struct error error;
        instance_wait(&error);
    }
    if (instance.segment.header != NULL)
        segment_close(&instance.segment);
    segment_unlink(instance.name);
    for (int i = 0; i < WORLD_STAGES; i++)
        free(instance.stages[i].options);
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", instance.directory);
    if (system(command) != 0)
        CU_FAIL("the test's directory is left");
    munmap(world, sizeof *world);
}

/* Sends a request line (and what follows it) and returns the last line of the answer. */
static inline const char *ask(const char *request)
{
    static char answer[4096];
    answer[0] = '\0';
    int fd;
    struct error error = {0};
    if (control_connect(instance.control, &fd, &error) != 0)
        return "";
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)
        answer[0] = '\0';
    shutdown(fd, SHUT_WR);
    size_t used = 0;
    for (ssize_t got;
         used < sizeof answer - 1 && (got = recv(fd, answer + used, sizeof answer - 1 - used, 0)) > 0;)
        used += (size_t)got;
    answer[used] = '\0';
    close(fd);
    return answer;
}

#endif
