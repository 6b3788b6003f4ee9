/* SPDX-License-Identifier: MIT */
/*
 * The gate: writers of the store queue here before their transaction, which is faster than contending for the
 * store's own lock. Run by every process that writes to the store.
 *
 * A holder killed at any instruction, even between being told of its predecessor's death and saying that all
 * is well, makes the kernel mark the mutex and wake the next, who takes it over: nothing stands behind the
 * gate that could be half done. Errors are survived by going on without: the store's busy_timeout is the net.
 */
#include "shm/gate.h"

#include <errno.h>
#include <time.h>

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

int gate_enter(pthread_mutex_t *gate, uint64_t timeout_ms)
{
    int error = pthread_mutex_trylock(gate); /* mostly free: no clock is read then */
    if (error != EBUSY || timeout_ms == 0)
        return error == EBUSY ? -ETIMEDOUT : gate_taken(gate, error);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    return gate_taken(gate, pthread_mutex_clocklock(gate, CLOCK_MONOTONIC, &until));
}

void gate_leave(pthread_mutex_t *gate)
{
    pthread_mutex_unlock(gate);
}
