/* SPDX-License-Identifier: MIT */
/* A crash in the segment as the store's row of it; the row borrows its texts from the crash. */
#ifndef STORE_CRASH_H
#define STORE_CRASH_H

#include "shm/layout.h"
#include "src/store/store.h"

void store_crash_row(const struct shm_crash *crash, struct store_crash *out);

#endif
