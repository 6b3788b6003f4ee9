/* SPDX-License-Identifier: MIT */
/*
 * Packs and unpacks the rows of the trace. Pure. Survived: unpacking takes any bytes, because a file may be
 * damaged.
 */
#include "src/store/trace_pack.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"

#define FORMAT 1
#define KIND_MASK 0x1fu
#define STEP_BYTES_MAX (128 + TRACE_ERROR_MAX) /* more than ten varints and the error */

enum {
    HAS_DURATION = 1 << 5,
    HAS_DELTA = 1 << 6, /* up to here one byte */
    HAS_STAGE = 1 << 7,
    HAS_PID = 1 << 8,
    HAS_ATTEMPT = 1 << 9,
    HAS_DUE = 1 << 10,
    HAS_REASON = 1 << 11,
    HAS_ERROR = 1 << 12,
    HAS_AGE = 1 << 13,
    HAS_END = 1 << 14
};

_Static_assert(STORE_TRACE_STEP_KINDS <= KIND_MASK + 1, "kinds have five bits");

/* Returns the 64-bit hash that stands for a UID in the trace of the store. Who stores an event (the
 * producer, an injection) writes it; `eventpipe trace` searches for it. Files depend on it: never change
 * it. */
uint64_t store_trace_uid_hash(const char *uid)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (; *uid != '\0'; uid++)
        hash = (hash ^ (unsigned char)*uid) * UINT64_C(0x100000001b3);
    return hash;
}

static bool is_arrival(enum store_trace_step_kind kind)
{
    return kind == STORE_TRACE_STEP_FETCHED || kind == STORE_TRACE_STEP_INJECTED;
}

/* The attempt that is left out: the first one at a stage. */
static uint32_t default_attempt(enum store_trace_step_kind kind)
{
    return kind >= STORE_TRACE_STEP_PROCESSED && kind <= STORE_TRACE_STEP_TIMEOUT;
}

/* ---- packing ---- */

void store_trace_pack_begin(struct trace_pack *pack, uint64_t at_ms)
{
    *pack = (struct trace_pack){.bytes = pack->bytes, .room = pack->room, .at_ms = at_ms};
}

bool store_trace_pack_any(const struct trace_pack *pack)
{
    return pack->used > 0 && !pack->failed;
}

void store_trace_pack_free(struct trace_pack *pack)
{
    free(pack->bytes);
    *pack = (struct trace_pack){0};
}

/* Makes room in a packed trace row for one more step. False: out of memory, and the row is marked as
 * failed, so that it is left out. Runs in every process that changes events in the store. */
static bool reserve_step(struct trace_pack *pack)
{
    if (pack->room - pack->used > STEP_BYTES_MAX)
        return true;
    size_t room = pack->room * 2 + 2 * STEP_BYTES_MAX;
    unsigned char *bytes = realloc(pack->bytes, room);
    if (bytes == NULL) {
        pack->failed = true;
        return false;
    }
    pack->bytes = bytes;
    pack->room = room;
    return true;
}

/* Appends a varint. */
static void put_varint(struct trace_pack *pack, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        pack->bytes[pack->used++] = (unsigned char)(value | 0x80);
    pack->bytes[pack->used++] = (unsigned char)value;
}

static uint64_t encode_zigzag(uint64_t difference)
{
    return difference << 1 ^ (0 - (difference >> 63));
}

static uint64_t decode_zigzag(uint64_t value)
{
    return value >> 1 ^ (0 - (value & 1));
}

/* Returns how many bytes of a step's error the trace of the store keeps. It does not cut inside a UTF-8
 * character. Any process that writes the trace runs it. */
static size_t count_error_bytes(const struct store_trace_step *step)
{
    size_t bytes = step->error != NULL ? step->error_bytes : 0;
    return bytes > TRACE_ERROR_MAX ? base_utf8_fit(step->error, TRACE_ERROR_MAX) : bytes;
}

/* Returns the first number of a packed trace step: its kind, and a flag for each value that follows.
 * Values equal to those of the step before are left out. Any process that writes the trace runs it. */
static unsigned choose_flags(const struct trace_pack *pack, const struct store_trace_step *step, size_t bytes)
{
    unsigned flags = (unsigned)step->kind & KIND_MASK;
    flags |= step->duration_us != 0 ? HAS_DURATION : 0;
    flags |= (uint64_t)step->event != (uint64_t)pack->event + 1 ? HAS_DELTA : 0;
    flags |= step->stage != pack->stage ? HAS_STAGE : 0;
    flags |= step->pid != pack->pid ? HAS_PID : 0;
    flags |= step->attempt != default_attempt(step->kind) ? HAS_ATTEMPT : 0;
    flags |= step->due_ms != 0 ? HAS_DUE : 0;
    flags |= step->reason != STORE_REASON_NONE ? HAS_REASON : 0;
    flags |= bytes > 0 ? HAS_ERROR : 0;
    flags |= step->at_ms != pack->at_ms ? HAS_AGE : 0;
    return flags;
}

/* Adds one step to the packed trace row of a transaction. Every process that changes events in the store
 * calls it (through the SQLite engine): producers, workers, the keeper. */
void store_trace_pack_add(struct trace_pack *pack, const struct store_trace_step *step)
{
    if (!reserve_step(pack))
        return;
    size_t bytes = count_error_bytes(step);
    unsigned flags = choose_flags(pack, step, bytes);
    if (pack->used == 0)
        pack->bytes[pack->used++] = FORMAT;
    put_varint(pack, flags);
    if (flags & HAS_DELTA)
        put_varint(pack, encode_zigzag((uint64_t)step->event - (uint64_t)pack->event));
    if (flags & HAS_STAGE)
        put_varint(pack, (uint64_t)step->stage);
    if (flags & HAS_PID)
        put_varint(pack, (uint32_t)step->pid);
    if (flags & HAS_DURATION)
        put_varint(pack, step->duration_us);
    if (flags & HAS_ATTEMPT)
        put_varint(pack, step->attempt);
    if (flags & HAS_DUE)
        put_varint(pack, encode_zigzag(step->due_ms - pack->at_ms));
    if (flags & HAS_REASON)
        put_varint(pack, step->reason);
    if (flags & HAS_AGE)
        put_varint(pack, encode_zigzag(pack->at_ms - step->at_ms));
    if (flags & HAS_ERROR) {
        put_varint(pack, bytes);
        memcpy(pack->bytes + pack->used, step->error, bytes);
        pack->used += bytes;
    }
    if (is_arrival(step->kind))
        for (int shift = 0; shift < 64; shift += 8)
            pack->bytes[pack->used++] = (unsigned char)(step->uid_hash >> shift);
    pack->event = step->event;
    pack->stage = step->stage;
    pack->pid = step->pid;
}

/* ---- unpacking ---- */

/* Begins to read a packed trace row. A row of an unknown format reads as empty. `eventpipe trace` calls it
 * for each row, and the keeper when it trims the trace. */
void store_trace_unpack_begin(struct trace_unpack *unpack, uint64_t at_ms, const void *bytes, size_t count)
{
    *unpack = (struct trace_unpack){.at = bytes, .at_ms = at_ms};
    bool ours = count > 0 && *unpack->at == FORMAT;
    unpack->end = ours ? unpack->at + count : unpack->at;
    unpack->at += ours;
}

/* Reads a varint of a packed trace row. False if it is cut or larger than `most`, as in a damaged file.
 * The keeper (trimming) and `eventpipe trace` run it. */
static bool get_varint(struct trace_unpack *unpack, uint64_t most, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64 && unpack->at < unpack->end; shift += 7) {
        uint64_t byte = *unpack->at++;
        *value |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return *value <= most;
    }
    return false;
}

/* The same if it follows, else the usual value. */
static bool get_varint_if(struct trace_unpack *unpack, bool present, uint64_t most, uint64_t usual,
                          uint64_t *value)
{
    *value = usual;
    return !present || get_varint(unpack, most, value);
}

/* Reads the error text of a trace step, if one follows. False if it would go beyond the row, as in a
 * damaged file. The keeper (trimming) and `eventpipe trace` run it. */
static bool read_error(struct trace_unpack *unpack, bool present, struct store_trace_step *step)
{
    uint64_t count;
    if (!present)
        return true;
    if (!get_varint(unpack, TRACE_ERROR_MAX, &count) || count > (uint64_t)(unpack->end - unpack->at))
        return false;
    step->error = (const char *)unpack->at;
    step->error_bytes = (size_t)count;
    unpack->at += count;
    return true;
}

/* Reads the hash of the UID that follows the arrival of an event in a trace row. False if the row is cut.
 * The keeper (trimming) and `eventpipe trace` run it. */
static bool read_uid_hash(struct trace_unpack *unpack, struct store_trace_step *step)
{
    if (unpack->end - unpack->at < 8)
        return false;
    for (int shift = 0; shift < 64; shift += 8)
        step->uid_hash |= (uint64_t)*unpack->at++ << shift;
    return true;
}

/* Reads the next step of a packed trace row; false at its end or at damaged bytes. The keeper calls it
 * when it trims the trace, and `eventpipe trace` when it searches for an event. */
bool store_trace_unpack_next(struct trace_unpack *unpack, struct store_trace_step *step)
{
    uint64_t flags, delta, stage, pid, duration, attempt, due, reason, age;
    *step = (struct store_trace_step){0};
    bool good = get_varint(unpack, HAS_END - 1, &flags);
    step->kind = (enum store_trace_step_kind)(flags & KIND_MASK);
    good = good && step->kind < STORE_TRACE_STEP_KINDS &&
           get_varint_if(unpack, flags & HAS_DELTA, UINT64_MAX, 2, &delta) &&
           get_varint_if(unpack, flags & HAS_STAGE, INT64_MAX, (uint64_t)unpack->stage, &stage) &&
           get_varint_if(unpack, flags & HAS_PID, INT32_MAX, (uint64_t)unpack->pid, &pid) &&
           get_varint_if(unpack, flags & HAS_DURATION, INT64_MAX, 0, &duration) &&
           get_varint_if(unpack, flags & HAS_ATTEMPT, UINT32_MAX, default_attempt(step->kind), &attempt) &&
           get_varint_if(unpack, flags & HAS_DUE, UINT64_MAX, 0, &due) &&
           get_varint_if(unpack, flags & HAS_REASON, STORE_REASON_KINDS - 1, STORE_REASON_NONE, &reason) &&
           get_varint_if(unpack, flags & HAS_AGE, UINT64_MAX, 0, &age) &&
           read_error(unpack, flags & HAS_ERROR, step) &&
           (!is_arrival(step->kind) || read_uid_hash(unpack, step));
    if (!good) {
        unpack->at = unpack->end;
        return false;
    }
    step->at_ms = unpack->at_ms - decode_zigzag(age);
    step->event = (int64_t)((uint64_t)unpack->event + decode_zigzag(delta));
    step->stage = (int64_t)stage;
    step->pid = (int32_t)pid;
    step->duration_us = duration;
    step->attempt = (uint32_t)attempt;
    step->due_ms = flags & HAS_DUE ? unpack->at_ms + decode_zigzag(due) : 0;
    step->reason = (enum store_reason)reason;
    unpack->moved = (flags & HAS_AGE) != 0;
    unpack->event = step->event;
    unpack->stage = step->stage;
    unpack->pid = step->pid;
    return true;
}
