/* SPDX-License-Identifier: MIT */
/* A VFS that counts the syncs of the store's WAL, can do something at one, and can refuse all syncs. For
 * stores that are opened between wal_syncs_begin and wal_syncs_end. */
#ifndef TESTS_LIB_WAL_SYNCS_H
#define TESTS_LIB_WAL_SYNCS_H

#include "tests/lib/unit.h"

extern int wal_syncs, wal_syncs_refused; /* how many there were, how many more fail */
extern bool wal_syncs_main_refused;      /* whether those of the main file fail */
extern void (*wal_syncs_before)(void);   /* called before each sync of the WAL, unless NULL */

void wal_syncs_begin(void);
void wal_syncs_end(void);

#endif
