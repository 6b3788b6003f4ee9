/* SPDX-License-Identifier: MIT */
/*
 * What the processes of a measured pipeline write down while it runs, in memory that they share. The program
 * is linked so that each call of store_ingest_begin, store_claim_end and process_group_commit comes by here
 * (ld's --wrap): the product itself is as always.
 *
 * Everything is counted from the run's start on; events are told by their number in the source, `already`
 * being those that stood in the store before.
 */
#ifndef CONTRIB_BENCH_STAMPS_H
#define CONTRIB_BENCH_STAMPS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct bench_stamps {
    /* set before the run */
    uint64_t already, events; /* to be waited for */
    bool refuse_tenth;        /* every tenth event is not processed at first, and not waited for */
    pid_t whom;               /* gets a SIGUSR1 when all that is waited for is through */
    /* written while it runs; times on CLOCK_MONOTONIC */
    _Atomic uint64_t ingested, completed, awaited; /* awaited: completed ones that are waited for */
    _Atomic uint64_t first_ns, last_ns;            /* of the commits that end awaited events */
    _Atomic uint64_t early_ns, early_count, late_ns,
        late_count;                   /* when a tenth, and nine tenths, were through */
    _Atomic uint64_t all_ns;          /* all ingested and through */
    uint64_t *arrival_ns, *finish_ns; /* for each event, NULL = not kept */
};

/* Makes them, before the first fork; keep_each: with the times of each event. NULL: no memory. */
struct bench_stamps *bench_stamps_new(uint64_t already, uint64_t events, bool keep_each);
bool bench_stamps_refused(const struct bench_stamps *stamps, uint64_t number);

#endif
