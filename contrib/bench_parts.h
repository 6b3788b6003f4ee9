/* SPDX-License-Identifier: MIT */
/* What a measured pipeline is put together from: its stages and its paced source. */
#ifndef CONTRIB_BENCH_PARTS_H
#define CONTRIB_BENCH_PARTS_H

#include "contrib/bench_stamps.h"
#include "src/eventpipe.h"

#define BENCH_STAGES_MAX 16
#define BENCH_SOURCE "bench"
/* The names of the stages: "s1", "s2"... Static. */
const char *bench_stage_name(unsigned index);

/* state of all stages: what ep_stage_options.user points to */
struct bench_work {
    const struct bench_stamps *stamps;
    uint64_t sleep_ns; /* 0 = do nothing at all */
};
enum ep_answer bench_no_op(ep_call *call, void *state);
enum ep_answer bench_sleep(ep_call *call, void *state);
/* Does not process every tenth event when it comes first, and asks for it again after half a second. */
enum ep_answer bench_refuse_tenth(ep_call *call, void *state);

/* A source of so many events, one after the other at that pace; notes when each arrives. Used by one
 * producer. */
struct bench_pace {
    struct bench_stamps *stamps;
    uint64_t per_second, payload_bytes;
    uint64_t begin_ns; /* 0 = no event has been asked for yet */
};
extern const struct ep_client bench_paced_client; /* client_user: struct bench_pace */

#endif
