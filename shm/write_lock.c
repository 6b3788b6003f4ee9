/* SPDX-License-Identifier: MIT */
/*
 * The write lock: writers of the store queue here before their transaction, which is faster than
 * contending for the store's own lock. Every process that writes to the store runs it. The lock orders
 * writers and protects no data.
 *
 * Invariants
 *  1. A holder killed at any instruction leaves a mutex that the next process takes over. The kernel marks
 *     it and wakes the next; nothing that the lock protects can be half done. This includes a kill between
 *     learning of a predecessor's crash and declaring the mutex consistent.
 *  2. No process sleeps longer than TRY_INTERVAL_MS without trying again. A holder killed after it let the
 *     mutex go and before the system call that wakes the next owns nothing, and not every kernel makes that
 *     call for it. The same holds for a process killed after it was woken and before it took the mutex. The
 *     next try finds the mutex free.
 *
 * Errors are survived: the caller goes on without the lock and relies on the store's busy_timeout.
 */
#include "shm/write_lock.h"

#include "shm/slot.h"

#include <errno.h>
#include <time.h>

#define MS_NS UINT64_C(1000000)
#define TRY_INTERVAL_MS UINT64_C(50)

/* Initialises the mutex in shared memory on which writers of the store queue. The supervisor calls it when
 * it creates the segment. Returns 0 or a negative errno. The mutex is robust (a crashed holder does not
 * block it) and error-checking (releasing it without holding it, or taking it twice, returns an error
 * instead of a deadlock). */
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

/* Takes over from a crashed holder; any other error becomes negative. */
static int recover_write_lock(pthread_mutex_t *write_lock, int error)
{
    return error == EOWNERDEAD ? -pthread_mutex_consistent(write_lock) : -error;
}

static int wait_for_write_lock(pthread_mutex_t *write_lock, uint64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / (1000 * MS_NS)),
                                .tv_nsec = (long)(deadline_ns % (1000 * MS_NS))};
    return pthread_mutex_clocklock(write_lock, CLOCK_MONOTONIC, &deadline);
}

int write_lock_try(pthread_mutex_t *write_lock)
{
    return recover_write_lock(write_lock, pthread_mutex_trylock(write_lock));
}

/* Waits for the store's write lock, a mutex in shared memory, at most timeout_ms. Producers, workers and
 * the keeper call it before they begin a write transaction. Returns 0, or -ETIMEDOUT: then the caller
 * writes without it, and the store's own locks protect the data. Tries again every TRY_INTERVAL_MS,
 * because a killed holder may wake no waiter. */
int write_lock_acquire(pthread_mutex_t *write_lock, uint64_t timeout_ms)
{
    int error = pthread_mutex_trylock(write_lock); /* mostly free: no clock is read then */
    if (error == EBUSY && timeout_ms == 0)
        return -ETIMEDOUT;
    uint64_t begin_ns = error == EBUSY ? shm_now_ns() : 0, waited_ms = 0;
    while (error == EBUSY || (error == ETIMEDOUT && waited_ms < timeout_ms)) {
        waited_ms += timeout_ms - waited_ms < TRY_INTERVAL_MS ? timeout_ms - waited_ms : TRY_INTERVAL_MS;
        error = wait_for_write_lock(write_lock, begin_ns + waited_ms * MS_NS);
    }
    return recover_write_lock(write_lock, error);
}

void write_lock_release(pthread_mutex_t *write_lock)
{
    pthread_mutex_unlock(write_lock);
}
