/* SPDX-License-Identifier: MIT */
/* The crash record of the shared memory as the store's row. */
#ifndef STORE_CRASH_H
#define STORE_CRASH_H

#include "shm/layout.h"
#include "src/store/store.h"

/* Fills *out. Its texts are borrowed from the crash. */
void store_crash_row(const struct shm_crash *crash, struct store_crash *out);

#endif
