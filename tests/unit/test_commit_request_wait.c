/* SPDX-License-Identifier: MIT */
/* Commit requests between threads and between processes: of two moves one happens, who waits is woken. Most
 * sleep without a time-out, so a lost wake-up hangs the test, and its alarm ends it. */
#include "shm/commit_request.h"
#include "shm/wake.h"
#include "shm/write_lock.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/unit.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WATCHDOG_SECONDS 240
#define KEEPER 0
#define WORKER 2
#define OWNERS 4
#define ROUNDS 2000

static struct segment segment;

static bool is_asleep(pid_t pid)
{
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    const char *read = fgets(line, sizeof line, file), *name_end = read == NULL ? NULL : strrchr(line, ')');
    fclose(file);
    return name_end != NULL && name_end[1] == ' ' && name_end[2] == 'S';
}

/* ---- one owner in a process of its own ---- */

/* Ends with the state that ended its waiting. With `notified_too`, a notification does, too. */
static pid_t owner(uint32_t slot, bool notified_too)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    uint32_t result;
    alarm(WATCHDOG_SECONDS);
    commit_request_submit(&segment, slot, 8);
    enum commit_request_state state;
    do { /* no look before: it would take a notification for itself */
        commit_request_wait(&segment, slot, WAKE_FOREVER);
        state = commit_request_poll(&segment, slot, &result);
    } while (!notified_too && (state == COMMIT_REQUEST_WAITING || state == COMMIT_REQUEST_TAKEN));
    _exit((int)state);
}

static int state_of(pid_t child)
{
    int status;
    CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void wait_for_sleep(uint32_t slot, pid_t child)
{
    struct shm_commit_request *request =
        (struct shm_commit_request *)(void *)((char *)segment.header +
                                              segment.header->commit_request_offset) +
        slot;
    while (atomic_load(&request->word) == COMMIT_REQUEST_NONE || !is_asleep(child))
        usleep(1000);
}

static bool take(uint32_t taker)
{
    char body[SHM_COMMIT_REQUEST_BYTES];
    uint32_t step = 1, slot, bytes;
    return commit_request_take(&segment, taker, &step, &slot, body, &bytes);
}

static void test_wait_ends(void)
{
    segment = shm_fixture(1, OWNERS, 4, 4);
    for (enum commit_request_state end = COMMIT_REQUEST_DONE; end <= COMMIT_REQUEST_LOST; end++) {
        pid_t child = owner(WORKER, false);
        wait_for_sleep(WORKER, child);
        CU_ASSERT_TRUE(take(KEEPER));
        usleep(1000);
        CU_ASSERT_EQUAL(kill(child, 0), 0); /* taken: nothing to wake for */
        if (end == COMMIT_REQUEST_LOST)
            commit_request_recover(&segment, KEEPER);
        else
            commit_request_complete(&segment, KEEPER, WORKER, end, 1);
        CU_ASSERT_EQUAL(state_of(child), (int)end);
        commit_request_clear(&segment, WORKER);
    }
    segment_close(&segment);
}

static void test_notify_wakes_one(void)
{
    segment = shm_fixture(1, OWNERS, 4, 4);
    pid_t children[OWNERS];
    for (uint32_t i = 0; i < OWNERS; i++)
        children[i] = owner(WORKER + i, true);
    for (uint32_t i = 0; i < OWNERS; i++)
        wait_for_sleep(WORKER + i, children[i]);
    for (uint32_t i = 0; i < OWNERS; i++) {
        commit_request_notify(&segment, KEEPER); /* the first that is left */
        CU_ASSERT_EQUAL(state_of(children[i]), COMMIT_REQUEST_WAITING);
        for (uint32_t other = i + 1; other < OWNERS; other++)
            CU_ASSERT_EQUAL(waitpid(children[other], NULL, WNOHANG), 0);
        CU_ASSERT_TRUE(commit_request_withdraw(&segment, WORKER + i));
    }
    segment_close(&segment);
}

static void test_wait_times_out(void)
{
    segment = shm_fixture(1, OWNERS, 4, 4);
    uint32_t result;
    commit_request_submit(&segment, WORKER, 8);
    commit_request_wait(&segment, WORKER, 1000000);
    CU_ASSERT_EQUAL(commit_request_poll(&segment, WORKER, &result), COMMIT_REQUEST_WAITING);
    CU_ASSERT_TRUE(take(KEEPER));
    commit_request_wait(&segment, WORKER, 1000000);
    CU_ASSERT_EQUAL(commit_request_poll(&segment, WORKER, &result), COMMIT_REQUEST_TAKEN);
    segment_close(&segment);
}

/* ---- threads, for the thread sanitizer to see ---- */

static _Atomic int takes;

static void *taker_of_one(void *user)
{
    char body[SHM_COMMIT_REQUEST_BYTES];
    const _Atomic bool *over = user;
    while (!atomic_load(over)) {
        uint32_t step = 1, slot, bytes;
        if (!commit_request_take(&segment, KEEPER, &step, &slot, body, &bytes)) {
            sched_yield();
            continue;
        }
        atomic_fetch_add(&takes, 1);
        commit_request_complete(&segment, KEEPER, slot, COMMIT_REQUEST_DONE,
                                (uint32_t)(unsigned char)body[0]);
    }
    return NULL;
}

static void test_withdraw_or_take(void)
{
    segment = shm_fixture(1, OWNERS, 4, 4);
    _Atomic bool over = false;
    pthread_t thread;
    int withdrawn = 0, done = 0, wrong = 0;
    atomic_store(&takes, 0);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, taker_of_one, &over), 0);
    for (int i = 0; withdrawn + done < ROUNDS || (atomic_load(&takes) == 0 && wrong == 0); i++) {
        uint32_t result;
        memset(commit_request_body(&segment, WORKER), i, 8);
        commit_request_submit(&segment, WORKER, 8);
        if (i % 3 == 0)
            sched_yield();
        if (commit_request_withdraw(&segment, WORKER)) {
            withdrawn++;
            continue;
        }
        enum commit_request_state state;
        while ((state = commit_request_poll(&segment, WORKER, &result)) == COMMIT_REQUEST_TAKEN)
            commit_request_wait(&segment, WORKER, WAKE_FOREVER);
        wrong += state != COMMIT_REQUEST_DONE || result != (uint32_t)(unsigned char)i;
        done++;
        commit_request_clear(&segment, WORKER);
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(atomic_load(&takes), done);
    segment_close(&segment);
}

/* ---- as workers do it: who finds the write lock free takes what others request ---- */

struct sums { /* written holding the write lock */
    uint64_t sum, turns, takes;
};
static struct sums *sums;

/* Holding the write lock: in the first turns, not before another requests. */
static void meet_others(void)
{
    const _Atomic uint64_t *bits =
        (_Atomic uint64_t *)(void *)((char *)segment.header + segment.header->commit_request_bits_offset);
    while (sums->turns < 100 && atomic_load(bits) == 0)
        sched_yield();
}

/* Holding the write lock, which is left here. False: our own has been taken. */
static bool commit_as_leader(uint32_t slot, bool submitted, uint32_t number)
{
    uint32_t slots[OWNERS], results[OWNERS], count = 0, step = 1, bytes;
    char body[SHM_COMMIT_REQUEST_BYTES];
    bool ours = !submitted || commit_request_withdraw(&segment, slot);
    if (ours)
        meet_others();
    sums->turns++;
    sums->sum += ours ? number : 0;
    while (ours && commit_request_take(&segment, slot, &step, &slots[count], body, &bytes)) {
        memcpy(&results[count], body, sizeof results[0]);
        sums->sum += results[count++];
        sums->takes++;
    }
    write_lock_release(&segment.header->write_lock);
    commit_request_notify(&segment, slot);
    for (uint32_t i = 0; i < count; i++)
        commit_request_complete(&segment, slot, slots[i], COMMIT_REQUEST_DONE, results[i] & 0xffff);
    return ours;
}

/* As process_group_commit, but it never looks again by itself. False: a wrong end. */
static bool bring(uint32_t slot, uint32_t number)
{
    if (write_lock_try(&segment.header->write_lock) == 0)
        return commit_as_leader(slot, false, number);
    memcpy(commit_request_body(&segment, slot), &number, sizeof number);
    commit_request_submit(&segment, slot, sizeof number);
    for (;;) {
        uint32_t result;
        enum commit_request_state state = commit_request_poll(&segment, slot, &result);
        if (state == COMMIT_REQUEST_DONE) {
            commit_request_clear(&segment, slot);
            return result == (number & 0xffff);
        }
        if (state != COMMIT_REQUEST_WAITING && state != COMMIT_REQUEST_TAKEN)
            return false;
        if (state == COMMIT_REQUEST_WAITING && write_lock_try(&segment.header->write_lock) == 0 &&
            commit_as_leader(slot, true, number))
            return true;
        commit_request_wait(&segment, slot, WAKE_FOREVER);
    }
}

static void *bring_all(void *user)
{
    uint32_t slot = *(uint32_t *)user;
    for (uint32_t i = 0; i < ROUNDS; i++)
        if (!bring(slot, slot * ROUNDS + i))
            return user;
    return NULL;
}

static void begin_sums(void)
{
    segment = shm_fixture(1, OWNERS, 4, 4);
    sums = (struct sums *)(void *)segment_cause(&segment, 0); /* shared, and of no use here otherwise */
}

static void end_sums(void)
{
    uint64_t wanted = 0;
    for (uint64_t i = WORKER * ROUNDS; i < (WORKER + OWNERS) * ROUNDS; i++)
        wanted += i;
    CU_ASSERT_EQUAL(sums->sum, wanted);
    CU_ASSERT(sums->takes >= 50);
    CU_ASSERT(sums->turns + sums->takes >= OWNERS * ROUNDS);
    for (uint32_t i = 0; i < OWNERS; i++) {
        uint32_t result;
        CU_ASSERT_EQUAL(commit_request_poll(&segment, WORKER + i, &result), COMMIT_REQUEST_NONE);
    }
    segment_close(&segment);
}

static void test_threads(void)
{
    begin_sums();
    pthread_t threads[OWNERS];
    uint32_t slots[OWNERS];
    for (uint32_t i = 0; i < OWNERS; i++) {
        slots[i] = WORKER + i;
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, bring_all, &slots[i]), 0);
    }
    for (uint32_t i = 0; i < OWNERS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        CU_ASSERT_PTR_NULL(failed);
    }
    end_sums();
}

static void test_processes(void)
{
    begin_sums();
    pid_t children[OWNERS];
    for (uint32_t i = 0; i < OWNERS; i++)
        if ((children[i] = fork()) == 0) {
            uint32_t slot = WORKER + i;
            alarm(WATCHDOG_SECONDS);
            _exit(bring_all(&slot) == NULL ? 0 : 1);
        }
    for (uint32_t i = 0; i < OWNERS; i++)
        CU_ASSERT_EQUAL(state_of(children[i]), 0);
    end_sums();
}

int main(void)
{
    const struct unit_case cases[] = {{"waiting ends", test_wait_ends},
                                      {"a notification wakes one", test_notify_wakes_one},
                                      {"waiting has an end of its own", test_wait_times_out},
                                      {"withdrawn or taken", test_withdraw_or_take},
                                      {"threads at a write lock", test_threads},
                                      {"processes at a write lock", test_processes}};
    alarm(WATCHDOG_SECONDS);
    return unit_run("commit request: waiting", cases, sizeof cases / sizeof cases[0]);
}
