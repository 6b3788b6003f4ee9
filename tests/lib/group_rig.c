/* SPDX-License-Identifier: MIT */
/* The store, the segment and the workers that commit. */
#include "tests/lib/group_rig.h"

#include <sqlite3.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

struct segment group_rig_segment;
struct group_rig *group_rig;
struct held group_rig_held;
struct group_rig_worker *group_rig_self;
static uint32_t self_slot;

struct group_rig_worker *group_rig_at(uint32_t slot)
{
    return &group_rig->workers[slot - GROUP_RIG_WORKER];
}

void group_rig_nap(void)
{
    usleep(1000);
}

static void on_write_lock_released(void *user)
{
    (void)user;
    commit_request_notify(&group_rig_segment, self_slot);
}

static int count_commit(void *user)
{
    (void)user;
    atomic_fetch_add(&group_rig->commits, 1);
    return 0;
}

void group_rig_begin(size_t count)
{
    wal_syncs_begin();
    fixture_begin();
    CU_ASSERT_EQUAL_FATAL(shm_fixture_make(&group_rig_segment, 1, 1, GROUP_RIG_WORKERS, 4, 4), 0);
    group_rig = mmap(NULL, sizeof *group_rig, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_FATAL(group_rig != MAP_FAILED);
    fixture.options.synchronous = SYNCHRONOUS_FULL;
    fixture.options.trace = true;
    fixture.options.busy_timeout_ms = 120000;
    fixture.options.write_lock = &group_rig_segment.header->write_lock;
    fixture.options.write_lock_released = on_write_lock_released;
    self_slot = GROUP_RIG_TEST_SLOT;
    fixture_restart();
    ingest("u", 0, (int)count);
    claim(&group_rig_held, count, 1000);
    CU_ASSERT_EQUAL_FATAL(group_rig_held.count, count);
    store_close(&fixture.store);
}

void group_rig_open(void)
{
    fixture.store = fixture_open(false);
    CU_ASSERT_PTR_NOT_NULL_FATAL(fixture.store);
}

void group_rig_end(void)
{
    fixture_end();
    munmap(group_rig, sizeof *group_rig);
    segment_close(&group_rig_segment);
    wal_syncs_end();
}

/* ---- workers ---- */

struct group_rig_worker *group_rig_report(uint32_t slot, enum store_change change, size_t first, size_t count)
{
    struct group_rig_worker *worker = group_rig_at(slot);
    for (size_t i = 0; i < count; i++)
        worker->answers[worker->count++] = (struct store_answer){.lock = group_rig_held.at[first + i],
                                                                 .change = change,
                                                                 .done = "first\n",
                                                                 .due_ms = 5000,
                                                                 .attempt = 1};
    return worker;
}

static int group_rig_commit(struct process_group_commit *group_commit, struct group_rig_worker *worker)
{
    int code;
    while ((code = process_group_commit(group_commit, fixture.source, fixture.stages[0], worker->answers,
                                        worker->count)) == EP_ESTOREBUSY) {
        atomic_fetch_add(&worker->refusals, 1);
        group_rig_nap();
    }
    return code;
}

static void group_rig_work(uint32_t slot, void prepare(struct store *store))
{
    static struct process_group_commit group_commit;
    alarm(GROUP_RIG_WATCHDOG_S);
    group_rig_self = group_rig_at(slot);
    self_slot = slot;
    struct store *store = fixture_open(false);
    if (store == NULL)
        _exit(EXIT_FAILURE);
    sqlite3_commit_hook(store_sqlite_of(store)->db, count_commit, NULL);
    if (prepare != NULL)
        prepare(store);
    group_commit.segment = &group_rig_segment;
    group_commit.slot = slot;
    group_commit.pid = (int32_t)getpid();
    group_commit.store = store;
    atomic_store(&group_rig_self->open, true);
    while (!atomic_load(&group_rig_self->go))
        group_rig_nap();
    group_rig_self->code = group_rig_commit(&group_commit, group_rig_self);
    for (size_t i = 0; i < group_rig_self->count; i++)
        group_rig_self->applied[i] = group_rig_self->answers[i].applied;
    _exit(EXIT_SUCCESS);
}

void group_rig_fork(uint32_t slot, void prepare(struct store *store))
{
    struct group_rig_worker *worker = group_rig_at(slot);
    fflush(NULL);
    pid_t pid = fork();
    CU_ASSERT_FATAL(pid >= 0);
    if (pid == 0)
        group_rig_work(slot, prepare);
    worker->pid = pid; /* not written by the child, with its 0 */
    while (!atomic_load(&worker->open)) {
        CU_ASSERT_EQUAL_FATAL(waitpid(worker->pid, NULL, WNOHANG), 0);
        group_rig_nap();
    }
}

void group_rig_go(uint32_t slot)
{
    atomic_store(&group_rig_at(slot)->go, true);
}

enum commit_request_state group_rig_state(uint32_t slot)
{
    const struct shm_commit_request *request =
        (struct shm_commit_request *)(void *)((char *)group_rig_segment.header +
                                              group_rig_segment.header->commit_request_offset) +
        slot;
    uint32_t state = atomic_load(&request->word) & 0xffff;
    return state > COMMIT_REQUEST_LOST ? COMMIT_REQUEST_WAITING : (enum commit_request_state)state;
}

/* The word of the bitmap in which a leader finds the slot's request. */
static _Atomic uint64_t *group_rig_bits(const struct segment *group_rig_segment, uint32_t slot)
{
    return (_Atomic uint64_t *)(void *)((char *)group_rig_segment->header +
                                        group_rig_segment->header->commit_request_bits_offset) +
           slot / 64;
}

void group_rig_await(uint32_t slot, enum commit_request_state state)
{
    while (group_rig_state(slot) != state)
        group_rig_nap();
    while (state == COMMIT_REQUEST_WAITING && group_rig_state(slot) == state &&
           (atomic_load(group_rig_bits(&group_rig_segment, slot)) >> slot % 64 & 1) == 0)
        group_rig_nap();
}

int group_rig_wait(uint32_t slot)
{
    int status;
    CU_ASSERT_EQUAL(waitpid(group_rig_at(slot)->pid, &status, 0), group_rig_at(slot)->pid);
    return status != 0 ? status : group_rig_at(slot)->code;
}

size_t group_rig_applied(uint32_t slot)
{
    size_t count = 0;
    for (size_t i = 0; i < group_rig_at(slot)->count; i++)
        count += group_rig_at(slot)->applied[i];
    return count;
}

void group_rig_through(uint32_t slot)
{
    CU_ASSERT_EQUAL(group_rig_wait(slot), 0);
    CU_ASSERT_EQUAL(group_rig_applied(slot), group_rig_at(slot)->count);
    CU_ASSERT_EQUAL(group_rig_state(slot), COMMIT_REQUEST_NONE);
}

/* ---- the test's part ---- */

void group_rig_shut(void)
{
    CU_ASSERT_EQUAL_FATAL(write_lock_acquire(&group_rig_segment.header->write_lock, 120000), 0);
}

void group_rig_let_go(void)
{
    write_lock_release(&group_rig_segment.header->write_lock);
    commit_request_notify(&group_rig_segment, GROUP_RIG_TEST_SLOT);
}
