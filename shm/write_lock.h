/* SPDX-License-Identifier: MIT */
/* The write lock: the robust, process-shared mutex on which the store's writers queue. It orders them and
 * protects no data; the store's own locks do that. So a holder's crash costs only the wake-up of the next. */
#ifndef SHM_WRITE_LOCK_H
#define SHM_WRITE_LOCK_H

#include "shm/layout.h"

int write_lock_init(pthread_mutex_t *write_lock);
/* Waits at most timeout_ms. 0, or -ETIMEDOUT: go on without the lock, busy_timeout is the safety net. */
int write_lock_acquire(pthread_mutex_t *write_lock, uint64_t timeout_ms);
/* Only if it is free: 0, or -EBUSY. */
int write_lock_try(pthread_mutex_t *write_lock);
void write_lock_release(pthread_mutex_t *write_lock);

#endif
