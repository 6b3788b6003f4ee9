/* SPDX-License-Identifier: MIT */
/* The gate: one at a time, across processes; a holder's death opens it; a time-out is an answer. */
#include "shm/gate.h"
#include "shm/slot.h"
#include "tests/unit/shm_fixture.h"
#include "tests/unit/unit.h"

#include <signal.h>
#include <sys/wait.h>

#ifdef __SANITIZE_THREAD__
/* The sanitizer of gcc 12 does not know pthread_mutex_clocklock and takes such a lock's owner for somebody
 * else; and leaving a gate that one does not hold, which is tried here, is what it reports by right. Visible,
 * since the sanitizer's library looks for it. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "mutex:gate_leave\n";
}
#endif

/* A child that holds the gate until it is killed. */
static pid_t holder(pthread_mutex_t *gate)
{
    int ready[2];
    char byte = 0;
    if (pipe(ready) != 0)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        if (gate_enter(gate, 1000) == 0 && write(ready[1], "x", 1) == 1)
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
    struct segment segment = fixture(1, 1, 4, 4);
    pthread_mutex_t *gate = &segment.header->gate;
    for (int i = 0; i < 100; i++) {
        CU_ASSERT_EQUAL(gate_enter(gate, 0), 0);
        gate_leave(gate);
    }
    gate_leave(gate); /* not held: no harm */
    CU_ASSERT_EQUAL(gate_enter(gate, UINT64_MAX), 0);
    CU_ASSERT_TRUE(gate_enter(gate, 10) < 0); /* twice is refused, not a deadlock */
    gate_leave(gate);
    segment_close(&segment);
}

static void test_timeout(void)
{
    struct segment segment = fixture(1, 1, 4, 4);
    pthread_mutex_t *gate = &segment.header->gate;
    pid_t child = holder(gate);
    uint64_t before = shm_now_ns();
    CU_ASSERT_EQUAL(gate_enter(gate, 0), -ETIMEDOUT);
    CU_ASSERT_EQUAL(gate_enter(gate, 30), -ETIMEDOUT);
    uint64_t took = shm_now_ns() - before;
    CU_ASSERT_TRUE(took >= 30000000);
    gate_leave(gate); /* not ours: it stays shut */
    CU_ASSERT_EQUAL(gate_enter(gate, 0), -ETIMEDOUT);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    segment_close(&segment);
}

static void test_holder_killed(void)
{
    struct segment segment = fixture(1, 1, 4, 4);
    pthread_mutex_t *gate = &segment.header->gate;
    for (int i = 0; i < 20; i++) {
        pid_t child = holder(gate);
        kill(child, SIGKILL); /* while we may already wait */
        CU_ASSERT_EQUAL(gate_enter(gate, 10000), 0);
        gate_leave(gate);
        waitpid(child, NULL, 0);
        CU_ASSERT_EQUAL(gate_enter(gate, 0), 0);
        gate_leave(gate);
    }
    segment_close(&segment);
}

/* Four processes count with a plain variable, each inside the gate; now and then one dies inside. */
static void test_one_at_a_time(void)
{
    struct segment segment = fixture(1, 1, 4, 4);
    pthread_mutex_t *gate = &segment.header->gate;
    int *counter = &segment_cause(&segment, 0)->code;
    pid_t children[4];
    for (int i = 0; i < 4; i++)
        if ((children[i] = fork()) == 0) {
            for (int n = 0; n < 5000; n++) {
                if (gate_enter(gate, 30000) != 0)
                    _exit(1);
                *counter += 1;
                if (i == 3 && n == 4999)
                    kill(getpid(), SIGKILL);
                gate_leave(gate);
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

UNIT_MAIN("gate", {"in and out", test_enter_leave}, {"a time-out is an answer", test_timeout},
          {"a killed holder opens it", test_holder_killed}, {"one at a time", test_one_at_a_time})
