/* SPDX-License-Identifier: MIT */
/*
 * The write lock: writers of the store queue here before their transaction, which is faster than contending for the
 * store's own lock. Run by every process that writes to the store.
 *
 * A holder killed at any instruction, even between being told of its predecessor's crash and saying that all
 * is well, makes the kernel mark the mutex and wake the next, who takes it over: nothing is protected by the write
 * lock that could be half done. One instruction is left out: killed after the mutex was let go and before the
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

/* Error-checking besides robust: releasing a write lock that one does not hold, or entering twice, is then an answer
 * and neither undefined nor a deadlock. */
int write_lock_init(pthread_mutex_t *write_lock)
{
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0)
        return -error;
    if ((error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED)) == 0 &&
        (error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST)) == 0 &&
        (error = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK)) == 0)
        error = pthread_mutex_init(write_lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return -error;
}

static int write_lock_result(pthread_mutex_t *write_lock, int error)
{
    return error == EOWNERDEAD ? -pthread_mutex_consistent(write_lock) : -error;
}

static int write_lock_wait(pthread_mutex_t *write_lock, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / (1000 * MS_NS)),
                             .tv_nsec = (long)(until_ns % (1000 * MS_NS))};
    return pthread_mutex_clocklock(write_lock, CLOCK_MONOTONIC, &until);
}

int write_lock_try(pthread_mutex_t *write_lock)
{
    return write_lock_result(write_lock, pthread_mutex_trylock(write_lock));
}

int write_lock_acquire(pthread_mutex_t *write_lock, uint64_t timeout_ms)
{
    int error = pthread_mutex_trylock(write_lock); /* mostly free: no clock is read then */
    if (error == EBUSY && timeout_ms == 0)
        return -ETIMEDOUT;
    uint64_t begin_ns = error == EBUSY ? shm_now_ns() : 0, waited_ms = 0;
    while (error == EBUSY || (error == ETIMEDOUT && waited_ms < timeout_ms)) {
        waited_ms += timeout_ms - waited_ms < SLICE_MS ? timeout_ms - waited_ms : SLICE_MS;
        error = write_lock_wait(write_lock, begin_ns + waited_ms * MS_NS);
    }
    return write_lock_result(write_lock, error);
}

void write_lock_release(pthread_mutex_t *write_lock)
{
    pthread_mutex_unlock(write_lock);
}
