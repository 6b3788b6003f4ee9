/* SPDX-License-Identifier: MIT */
/*
 * The gate: writers of the store queue here before their transaction, which is faster than contending for the
 * store's own lock. Run by every process that writes to the store.
 *
 * A holder killed at any instruction, even between being told of its predecessor's death and saying that all
 * is well, makes the kernel mark the mutex and wake the next, who takes it over: nothing stands behind the
 * gate that could be half done. One instruction is left out: killed after the mutex was let go and before the
 * system call that wakes the next, the holder no longer owns anything, and not every kernel makes that call
 * in its stead; the same holds for one killed after it was woken and before it took the mutex. So nobody
 * sleeps longer than SLICE_MS without a look: the free mutex is found then. Errors are survived by going on
 * without: the store's busy_timeout is the net.
 */
#include "shm/write_lock.h"

#include "shm/slot.h"

#include <errno.h>
#include <time.h>

#define MS_NS UINT64_C(1000000)
#define SLICE_MS UINT64_C(50)

/* Error-checking besides robust: leaving a gate that one does not hold, or entering twice, is then an answer
 * and neither undefined nor a deadlock. */
int gate_init(pthread_mutex_t *gate)
{
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0)
        return -error;
    if ((error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED)) == 0 &&
        (error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST)) == 0 &&
        (error = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK)) == 0)
        error = pthread_mutex_init(gate, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return -error;
}

static int gate_taken(pthread_mutex_t *gate, int error)
{
    return error == EOWNERDEAD ? -pthread_mutex_consistent(gate) : -error;
}

static int gate_wait(pthread_mutex_t *gate, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / (1000 * MS_NS)),
                             .tv_nsec = (long)(until_ns % (1000 * MS_NS))};
    return pthread_mutex_clocklock(gate, CLOCK_MONOTONIC, &until);
}

int gate_try(pthread_mutex_t *gate)
{
    return gate_taken(gate, pthread_mutex_trylock(gate));
}

int gate_enter(pthread_mutex_t *gate, uint64_t timeout_ms)
{
    int error = pthread_mutex_trylock(gate); /* mostly free: no clock is read then */
    if (error == EBUSY && timeout_ms == 0)
        return -ETIMEDOUT;
    uint64_t begin_ns = error == EBUSY ? shm_now_ns() : 0, waited_ms = 0;
    while (error == EBUSY || (error == ETIMEDOUT && waited_ms < timeout_ms)) {
        waited_ms += timeout_ms - waited_ms < SLICE_MS ? timeout_ms - waited_ms : SLICE_MS;
        error = gate_wait(gate, begin_ns + waited_ms * MS_NS);
    }
    return gate_taken(gate, error);
}

void gate_leave(pthread_mutex_t *gate)
{
    pthread_mutex_unlock(gate);
}
