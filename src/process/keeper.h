/* SPDX-License-Identifier: MIT */
/* What the keeper's eventfd counts. The eventfd adds up what is written, so the two are told apart by
 * magnitude. */
#ifndef PROCESS_KEEPER_H
#define PROCESS_KEEPER_H

#define KEEPER_ACTIVITY UINT64_C(1) /* something changed: the keeper reads totals again, within a second */
#define KEEPER_WAL_GROWN (UINT64_C(1) << 32) /* the store's WAL has grown: checkpoint now */

#endif
