/* SPDX-License-Identifier: MIT */
/* The write lock: one at a time, across processes; a holder's crash opens it; a time-out is an answer. */
#include "shm/slot.h"
#include "shm/write_lock.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/unit.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONG_WAIT_MS 120000 /* nobody waits for it but where the test fails */

#ifdef __SANITIZE_THREAD__
/* The sanitizer of gcc 12 does not know pthread_mutex_clocklock and takes such a lock's owner for somebody
 * else; and releasing a write lock that one does not hold, which is tried here, is what it reports by right.
 * Visible, since the sanitizer's library looks for it. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "mutex:write_lock_release\n";
}
#endif

/* A child that holds the write lock until it is killed. */
static pid_t holder(pthread_mutex_t *write_lock)
{
    int ready[2];
    char byte = 0;
    if (pipe(ready) != 0)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        if (write_lock_acquire(write_lock, 1000) == 0 && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    close(ready[1]);
    CU_ASSERT_EQUAL(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void test_enter_leave(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    pthread_mutex_t *write_lock = &segment.header->write_lock;
    for (int i = 0; i < 100; i++) {
        CU_ASSERT_EQUAL(write_lock_acquire(write_lock, 0), 0);
        write_lock_release(write_lock);
    }
    write_lock_release(write_lock); /* not held: no harm */
    CU_ASSERT_EQUAL(write_lock_acquire(write_lock, UINT64_MAX), 0);
    CU_ASSERT_TRUE(write_lock_acquire(write_lock, 10) < 0); /* twice is refused, not a deadlock */
    write_lock_release(write_lock);
    segment_close(&segment);
}

static void test_timeout(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    pthread_mutex_t *write_lock = &segment.header->write_lock;
    pid_t child = holder(write_lock);
    uint64_t before = shm_now_ns();
    CU_ASSERT_EQUAL(write_lock_acquire(write_lock, 0), -ETIMEDOUT);
    CU_ASSERT_EQUAL(write_lock_acquire(write_lock, 30), -ETIMEDOUT);
    uint64_t took = shm_now_ns() - before;
    CU_ASSERT_TRUE(took >= 30000000);
    write_lock_release(write_lock); /* not ours: it stays held */
    CU_ASSERT_EQUAL(write_lock_acquire(write_lock, 0), -ETIMEDOUT);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    segment_close(&segment);
}

static void test_holder_killed(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    pthread_mutex_t *write_lock = &segment.header->write_lock;
    for (int i = 0; i < 20; i++) {
        pid_t child = holder(write_lock);
        kill(child, SIGKILL); /* while we may already wait */
        CU_ASSERT_EQUAL(write_lock_acquire(write_lock, 10000), 0);
        write_lock_release(write_lock);
        waitpid(child, NULL, 0);
        CU_ASSERT_EQUAL(write_lock_acquire(write_lock, 0), 0);
        write_lock_release(write_lock);
    }
    segment_close(&segment);
}

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

/*
 * A holder that crashes after its unlock and before the call that wakes the next: what is left is a free
 * mutex with a sleeper. That is made here by hand, in the fields of the C library's mutex: whoever waits
 * finds it by itself, long before its time is over.
 */
static void test_killed_before_waking(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    pthread_mutex_t *write_lock = &segment.header->write_lock;
    pid_t victim = holder(write_lock), waiter = fork();
    if (waiter == 0)
        _exit(write_lock_acquire(write_lock, LONG_WAIT_MS) == 0 ? 0 : 1);
    while ((__atomic_load_n(&write_lock->__data.__lock, __ATOMIC_SEQ_CST) & (int)FUTEX_WAITERS) == 0 ||
           !is_asleep(waiter))
        usleep(1000);
    write_lock->__data.__owner = 0;
    write_lock->__data.__nusers--;
    __atomic_store_n(&write_lock->__data.__lock, 0, __ATOMIC_SEQ_CST);
    int status;
    waitpid(waiter, &status, 0); /* the holder still lives: the kernel has nothing to say for it */
    CU_ASSERT_EQUAL(status, 0);
    kill(victim, SIGKILL);
    waitpid(victim, NULL, 0);
    segment_close(&segment);
}

/* Four processes count with a plain variable, each holding the write lock; now and then one crashes inside.
 * */
static void test_one_at_a_time(void)
{
    struct segment segment = shm_fixture(1, 1, 4, 4);
    pthread_mutex_t *write_lock = &segment.header->write_lock;
    int *counter = &segment_cause(&segment, 0)->code;
    pid_t children[4];
    for (int i = 0; i < 4; i++)
        if ((children[i] = fork()) == 0) {
            for (int n = 0; n < 5000; n++) {
                if (write_lock_acquire(write_lock, 30000) != 0)
                    _exit(1);
                *counter += 1;
                if (i == 3 && n == 4999)
                    kill(getpid(), SIGKILL);
                write_lock_release(write_lock);
            }
            _exit(0);
        }
    for (int i = 0; i < 4; i++) {
        int status;
        waitpid(children[i], &status, 0);
        CU_ASSERT_EQUAL(status, i == 3 ? SIGKILL : 0);
    }
    CU_ASSERT_EQUAL(*counter, 20000);
    segment_close(&segment);
}

UNIT_MAIN("write lock", {"in and out", test_enter_leave}, {"a time-out is an answer", test_timeout},
          {"a killed holder opens it", test_holder_killed},
          {"killed before it wakes the next", test_killed_before_waking},
          {"one at a time", test_one_at_a_time})
