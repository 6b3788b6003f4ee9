/* SPDX-License-Identifier: MIT */
/*
 * Packs the steps of the trace: the steps of one transaction are one row, a few bytes a step. Pure; the
 * SQLite engine uses it.
 *
 * A row is a byte for the format, then its steps. A step begins with a varint: its kind (5 bits), and a bit
 * for each value that follows. A value is left out if it is that of the step before (stage, pid, the event
 * after the last one) or the usual one. Numbers are varints, signed ones in zigzag.
 */
#ifndef STORE_TRACE_PACK_H
#define STORE_TRACE_PACK_H

#include "src/store/store.h"

#define TRACE_ERROR_MAX 160 /* bytes kept of an error */

struct trace_pack {
    unsigned char *bytes; /* owned; reused from row to row */
    size_t used, capacity_bytes;
    bool failed; /* out of memory: steps are missing */
    uint64_t at_ms;
    int64_t event, stage; /* these and pid: of the step before */
    int32_t pid;
};

/* Starts a new row; at_ms is the wall-clock time of its steps. */
void store_trace_pack_begin(struct trace_pack *pack, uint64_t at_ms);
/* Adds a step. A time other than the row's marks it as moved from an older row. If memory runs out, the row
 * fails. */
void store_trace_pack_add(struct trace_pack *pack, const struct store_trace_step *step);
/* Whether the row has at least one step, and none is missing because memory ran out. */
bool store_trace_pack_has_steps(const struct trace_pack *pack);
void store_trace_pack_free(struct trace_pack *pack);

struct trace_unpack {
    const unsigned char *next_byte, *row_end;
    uint64_t at_ms;
    int64_t event, stage;
    int32_t pid;
    bool moved; /* the last step came from an older row */
};

/* Reads a row. The bytes are borrowed until the last step is read. */
void store_trace_unpack_begin(struct trace_unpack *unpack, uint64_t at_ms, const void *bytes,
                              size_t byte_count);
/* True: *step is the next one; its error points into the row's bytes and is not NUL-terminated. False:
 * there are no more, or the rest is not of this format. */
bool store_trace_unpack_next(struct trace_unpack *unpack, struct store_trace_step *step);

/* Returns the hash that stands for a UID in the trace. */
uint64_t store_trace_uid_hash(const char *uid);

#endif
