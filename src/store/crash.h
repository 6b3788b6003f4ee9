/* SPDX-License-Identifier: MIT */
/* A death in the segment as the store's row of it; the row borrows its texts from the death. */
#ifndef DEATH_H
#define DEATH_H

#include "shm/layout.h"
#include "src/store/store.h"

void death_row(const struct shm_death *death, struct store_death *out);

#endif
