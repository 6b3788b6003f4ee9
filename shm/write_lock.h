/* SPDX-License-Identifier: MIT */
/* The gate: the robust, process-shared mutex on which the store's writers queue. It orders them, it protects
 * nothing: the store's own locks do. So a holder's death costs nothing but the wake-up of the next. */
#ifndef SHM_GATE_H
#define SHM_GATE_H

#include "shm/layout.h"

int gate_init(pthread_mutex_t *gate);
/* Waits at most timeout_ms; 0, or -ETIMEDOUT (go on without: busy_timeout is the safety net). */
int gate_enter(pthread_mutex_t *gate, uint64_t timeout_ms);
/* Only if it is free: 0, or -EBUSY. */
int gate_try(pthread_mutex_t *gate);
void gate_leave(pthread_mutex_t *gate);

#endif
