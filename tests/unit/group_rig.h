/* SPDX-License-Identifier: MIT */
/*
 * What the tests of group commit share: a store of held events, a segment, and workers in processes of their
 * own that commit what they are told to. The test itself is whoever else there is: it holds the write lock,
 * takes commit requests, recovers.
 */
#ifndef GROUP_RIG_H
#define GROUP_RIG_H

#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "shm/write_lock.h"
#include "src/process/group_codec.h"
#include "src/process/group_commit.h"
#include "src/store/sqlite/sqlite.h"
#include "tests/unit/shm_make.h"
#include "tests/unit/store_files.h"
#include "tests/unit/wal_syncs.h"

#define RIG_WORKERS 40
#define RIG_WORKER 2       /* slot of the first of them; 0 is the keeper's, 1 the producer's */
#define RIG_ANSWERS 20     /* of one worker, at most */
#define RIG_WATCHDOG_S 240 /* what hangs ends the test */
#define RIG_TEST_SLOT 0    /* the test's own */

struct rig_worker { /* what a worker is told, and tells */
    struct store_answer answers[RIG_ANSWERS];
    size_t count;
    _Atomic bool open; /* it has its store */
    _Atomic bool go;
    _Atomic bool stands;  /* it does what its at_wal_sync or at_commit said, and stays there */
    _Atomic int refusals; /* EP_ESTOREBUSY that it got */
    bool applied[RIG_ANSWERS];
    int code;
    pid_t pid;
};

struct rig {             /* shared by all */
    _Atomic int commits; /* transactions of workers */
    struct rig_worker workers[RIG_WORKERS];
};

static struct segment segment;
static struct rig *rig;
static struct held rig_held;
static struct rig_worker *self; /* in a worker */
static uint32_t self_slot;

static inline struct rig_worker *rig_at(uint32_t slot)
{
    return &rig->workers[slot - RIG_WORKER];
}

static inline void rig_nap(void)
{
    usleep(1000);
}

static inline void rig_write_lock_released(void *user)
{
    (void)user;
    commit_request_notify(&segment, self_slot);
}

static inline int rig_count_commit(void *user)
{
    (void)user;
    atomic_fetch_add(&rig->commits, 1);
    return 0;
}

/* A store of `count` events, all held, and nobody at work yet. The test has no handle: workers are forked. */
static inline void rig_begin(size_t count)
{
    wal_syncs_begin();
    fixture_begin();
    CU_ASSERT_EQUAL_FATAL(fixture_make(&segment, 1, 1, RIG_WORKERS, 4, 4), 0);
    rig = mmap(NULL, sizeof *rig, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_FATAL(rig != MAP_FAILED);
    fixture.options.synchronous = SYNCHRONOUS_FULL;
    fixture.options.trace = true;
    fixture.options.busy_timeout_ms = 120000;
    fixture.options.write_lock = &segment.header->write_lock;
    fixture.options.write_lock_released = rig_write_lock_released;
    self_slot = RIG_TEST_SLOT;
    fixture_restart();
    ingest("u", 0, (int)count);
    claim(&rig_held, count, 1000);
    CU_ASSERT_EQUAL_FATAL(rig_held.count, count);
    store_close(&fixture.store);
}

/* After the last worker was forked. */
static inline void rig_open(void)
{
    fixture.store = fixture_open(false);
    CU_ASSERT_PTR_NOT_NULL_FATAL(fixture.store);
}

static inline void rig_end(void)
{
    fixture_end();
    munmap(rig, sizeof *rig);
    segment_close(&segment);
    wal_syncs_end();
}

/* ---- workers ---- */

/* Told before it is forked: `count` answers from this event on. */
static inline struct rig_worker *rig_report(uint32_t slot, enum store_change change, size_t first,
                                            size_t count)
{
    struct rig_worker *worker = rig_at(slot);
    for (size_t i = 0; i < count; i++)
        worker->answers[worker->count++] = (struct store_answer){.lock = rig_held.at[first + i],
                                                                 .change = change,
                                                                 .done = "first\n",
                                                                 .due_ms = 5000,
                                                                 .attempt = 1};
    return worker;
}

static inline int rig_commit(struct process_group_commit *group_commit, struct rig_worker *worker)
{
    int code;
    while ((code = process_group_commit(group_commit, fixture.source, fixture.stages[0], worker->answers,
                                        worker->count)) == EP_ESTOREBUSY) {
        atomic_fetch_add(&worker->refusals, 1);
        rig_nap();
    }
    return code;
}

static inline void rig_work(uint32_t slot, void prepare(struct store *store))
{
    static struct process_group_commit group_commit;
    alarm(RIG_WATCHDOG_S);
    self = rig_at(slot);
    self_slot = slot;
    struct store *store = fixture_open(false);
    if (store == NULL)
        _exit(EXIT_FAILURE);
    sqlite3_commit_hook(store_sqlite_of(store)->db, rig_count_commit, NULL);
    if (prepare != NULL)
        prepare(store);
    group_commit.segment = &segment;
    group_commit.slot = slot;
    group_commit.pid = (int32_t)getpid();
    group_commit.store = store;
    atomic_store(&self->open, true);
    while (!atomic_load(&self->go))
        rig_nap();
    self->code = rig_commit(&group_commit, self);
    for (size_t i = 0; i < self->count; i++)
        self->applied[i] = self->answers[i].applied;
    _exit(EXIT_SUCCESS);
}

/* prepare: done in the worker once it has opened its store; NULL = nothing. */
static inline void rig_fork(uint32_t slot, void prepare(struct store *store))
{
    struct rig_worker *worker = rig_at(slot);
    fflush(NULL);
    pid_t pid = fork();
    CU_ASSERT_FATAL(pid >= 0);
    if (pid == 0)
        rig_work(slot, prepare);
    worker->pid = pid; /* not written by the child, with its 0 */
    while (!atomic_load(&worker->open)) {
        CU_ASSERT_EQUAL_FATAL(waitpid(worker->pid, NULL, WNOHANG), 0);
        rig_nap();
    }
}

static inline void rig_go(uint32_t slot)
{
    atomic_store(&rig_at(slot)->go, true);
}

/* The state of its commit request, without touching it. */
static inline enum commit_request_state rig_state(uint32_t slot)
{
    const struct shm_commit_request *request =
        (struct shm_commit_request *)(void *)((char *)segment.header +
                                              segment.header->commit_request_offset) +
        slot;
    uint32_t state = atomic_load(&request->word) & 0xffff;
    return state > COMMIT_REQUEST_LOST ? COMMIT_REQUEST_WAITING : (enum commit_request_state)state;
}

/* The word of the bitmap in which a leader finds the slot's request. */
static inline _Atomic uint64_t *rig_bits(const struct segment *segment, uint32_t slot)
{
    return (_Atomic uint64_t *)(void *)((char *)segment->header +
                                        segment->header->commit_request_bits_offset) +
           slot / 64;
}

/* A request that waits is complete once its bit is set, too: submit sets the state first, then the bit. */
static inline void rig_await(uint32_t slot, enum commit_request_state state)
{
    while (rig_state(slot) != state)
        rig_nap();
    while (state == COMMIT_REQUEST_WAITING && rig_state(slot) == state &&
           (atomic_load(rig_bits(&segment, slot)) >> slot % 64 & 1) == 0)
        rig_nap();
}

/* How it ended: 0 = it came through. */
static inline int rig_wait(uint32_t slot)
{
    int status;
    CU_ASSERT_EQUAL(waitpid(rig_at(slot)->pid, &status, 0), rig_at(slot)->pid);
    return status != 0 ? status : rig_at(slot)->code;
}

static inline size_t rig_applied(uint32_t slot)
{
    size_t count = 0;
    for (size_t i = 0; i < rig_at(slot)->count; i++)
        count += rig_at(slot)->applied[i];
    return count;
}

/* It came through, and all its answers were committed. */
static inline void rig_through(uint32_t slot)
{
    CU_ASSERT_EQUAL(rig_wait(slot), 0);
    CU_ASSERT_EQUAL(rig_applied(slot), rig_at(slot)->count);
    CU_ASSERT_EQUAL(rig_state(slot), COMMIT_REQUEST_NONE);
}

/* ---- the test's part ---- */

static inline void rig_shut(void)
{
    CU_ASSERT_EQUAL_FATAL(write_lock_acquire(&segment.header->write_lock, 120000), 0);
}

static inline void rig_let_go(void)
{
    write_lock_release(&segment.header->write_lock);
    commit_request_notify(&segment, RIG_TEST_SLOT);
}

#endif
