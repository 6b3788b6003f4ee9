/* SPDX-License-Identifier: MIT */
/* What the keeper's eventfd counts: told apart by magnitude, since eventfd adds up what is written. */
#ifndef PROCESS_KEEPER_H
#define PROCESS_KEEPER_H

#define KEEPER_ACTIVITY UINT64_C(1) /* something changed: totals are to be read again, within a second */
#define KEEPER_WAL_GROWN (UINT64_C(1) << 32) /* the store's WAL wants moving, now */

#endif
