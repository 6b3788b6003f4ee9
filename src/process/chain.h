/* SPDX-License-Identifier: MIT */
/* Chains of stages, pure: where an event enters, and what a stage's answer does to it. */
#ifndef PROCESS_CHAIN_H
#define PROCESS_CHAIN_H

#include "src/config/config.h"
#include "src/stage/stage.h"
#include "src/store/store.h"

/* The list of stages done is text: each name and a line feed, in the order they were done. */
bool process_chain_is_stage_done(const char *done_stages, const char *stage_name);
/* Position of the first stage of the chain that is not done; stage_count = all are. */
size_t process_chain_find_next(const struct source_config *source, const char *done_stages);

struct chain_answer {
    struct store_answer
        store;   /* lock and buffers are the caller's to fill: context, data, error point into the call */
    size_t next; /* ADVANCE: the position the event goes to */
    char *done;  /* ADVANCE: malloc'd, the caller frees it */
};
/*
 * Turns a call's answer into what is stored. row: as it was read. now_ms: wall clock. random: 32 random bits
 * for jitter. 0 or EP_ENOMEM.
 */
int process_chain_apply_answer(const struct source_config *source, size_t position,
                               const struct store_row *row, const struct ep_call *call, uint64_t now_ms,
                               uint32_t random, struct chain_answer *out);

#endif
