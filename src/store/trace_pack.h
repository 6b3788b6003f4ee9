/* SPDX-License-Identifier: MIT */
/*
 * Steps of events' stories, packed: what one transaction did to its events is one row of the trace, a few
 * bytes a step. Pure; used by the SQLite engine.
 *
 * A row is a byte for the format, then its steps. A step is a varint of its kind (5 bits) and of what else
 * follows: what is as before (stage, pid, the event after the last one) or usual is left out. Numbers are
 * varints, signed ones in zigzag.
 */
#ifndef STORE_TRACE_PACK_H
#define STORE_TRACE_PACK_H

#include "src/store/store.h"

#define TRACE_ERROR_MAX 160 /* bytes kept of an error */

struct trace_pack {
    unsigned char *bytes; /* owned; reused from row to row */
    size_t used, room;
    bool failed; /* no memory: the row is not whole */
    uint64_t at_ms;
    int64_t event, stage; /* of the step before */
    int32_t pid;
};

/* A new row, of this time. */
void store_trace_pack_begin(struct trace_pack *pack, uint64_t at_ms);
/* A step of another time than the row's (one that was moved from an older row) is told apart by that. */
void store_trace_pack_add(struct trace_pack *pack, const struct store_trace_step *step);
bool store_trace_pack_any(const struct trace_pack *pack); /* there is a step, and all of them are there */
void store_trace_pack_free(struct trace_pack *pack);

struct trace_unpack {
    const unsigned char *at, *end;
    uint64_t at_ms;
    int64_t event, stage;
    int32_t pid;
    bool moved; /* the last step came from an older row */
};

void store_trace_unpack_begin(struct trace_unpack *unpack, uint64_t at_ms, const void *bytes, size_t count);
/* True: *step is the next one (its error lies in the row's bytes, without an end). False: there are no more,
 * or the rest is nothing that this version wrote. */
bool store_trace_unpack_next(struct trace_unpack *unpack, struct store_trace_step *step);

/* What stands in the trace for a UID. */
uint64_t store_trace_uid_hash(const char *uid);

#endif
