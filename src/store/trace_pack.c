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

uint64_t store_trace_uid_hash(const char *uid)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (; *uid != '\0'; uid++)
        hash = (hash ^ (unsigned char)*uid) * UINT64_C(0x100000001b3);
    return hash;
}

static bool arrives(enum store_trace_step_kind kind)
{
    return kind == STORE_TRACE_STEP_FETCHED || kind == STORE_TRACE_STEP_INJECTED;
}

/* The attempt that is left out: the first one at a stage. */
static uint32_t usual_attempt(enum store_trace_step_kind kind)
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

/* Makes room for one more step. */
static bool make_room(struct trace_pack *pack)
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
static void put(struct trace_pack *pack, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        pack->bytes[pack->used++] = (unsigned char)(value | 0x80);
    pack->bytes[pack->used++] = (unsigned char)value;
}

static uint64_t zigzag(uint64_t difference)
{
    return difference << 1 ^ (0 - (difference >> 63));
}

static uint64_t unzigzag(uint64_t value)
{
    return value >> 1 ^ (0 - (value & 1));
}

/* How much of the error is kept; it is not cut inside a character. */
static size_t error_bytes(const struct store_trace_step *step)
{
    size_t bytes = step->error != NULL ? step->error_bytes : 0;
    return bytes > TRACE_ERROR_MAX ? base_utf8_fit(step->error, TRACE_ERROR_MAX) : bytes;
}

/* The step's first number: its kind, and which values follow. */
static unsigned what_follows(const struct trace_pack *pack, const struct store_trace_step *step, size_t bytes)
{
    unsigned has = (unsigned)step->kind & KIND_MASK;
    has |= step->duration_us != 0 ? HAS_DURATION : 0;
    has |= (uint64_t)step->event != (uint64_t)pack->event + 1 ? HAS_DELTA : 0;
    has |= step->stage != pack->stage ? HAS_STAGE : 0;
    has |= step->pid != pack->pid ? HAS_PID : 0;
    has |= step->attempt != usual_attempt(step->kind) ? HAS_ATTEMPT : 0;
    has |= step->due_ms != 0 ? HAS_DUE : 0;
    has |= step->reason != STORE_REASON_NONE ? HAS_REASON : 0;
    has |= bytes > 0 ? HAS_ERROR : 0;
    has |= step->at_ms != pack->at_ms ? HAS_AGE : 0;
    return has;
}

void store_trace_pack_add(struct trace_pack *pack, const struct store_trace_step *step)
{
    if (!make_room(pack))
        return;
    size_t bytes = error_bytes(step);
    unsigned has = what_follows(pack, step, bytes);
    if (pack->used == 0)
        pack->bytes[pack->used++] = FORMAT;
    put(pack, has);
    if (has & HAS_DELTA)
        put(pack, zigzag((uint64_t)step->event - (uint64_t)pack->event));
    if (has & HAS_STAGE)
        put(pack, (uint64_t)step->stage);
    if (has & HAS_PID)
        put(pack, (uint32_t)step->pid);
    if (has & HAS_DURATION)
        put(pack, step->duration_us);
    if (has & HAS_ATTEMPT)
        put(pack, step->attempt);
    if (has & HAS_DUE)
        put(pack, zigzag(step->due_ms - pack->at_ms));
    if (has & HAS_REASON)
        put(pack, step->reason);
    if (has & HAS_AGE)
        put(pack, zigzag(pack->at_ms - step->at_ms));
    if (has & HAS_ERROR) {
        put(pack, bytes);
        memcpy(pack->bytes + pack->used, step->error, bytes);
        pack->used += bytes;
    }
    if (arrives(step->kind))
        for (int shift = 0; shift < 64; shift += 8)
            pack->bytes[pack->used++] = (unsigned char)(step->uid_hash >> shift);
    pack->event = step->event;
    pack->stage = step->stage;
    pack->pid = step->pid;
}

/* ---- unpacking ---- */

void store_trace_unpack_begin(struct trace_unpack *unpack, uint64_t at_ms, const void *bytes, size_t count)
{
    *unpack = (struct trace_unpack){.at = bytes, .at_ms = at_ms};
    bool ours = count > 0 && *unpack->at == FORMAT;
    unpack->end = ours ? unpack->at + count : unpack->at;
    unpack->at += ours;
}

/* Reads a varint; false if it is cut or larger than `most`. */
static bool get(struct trace_unpack *unpack, uint64_t most, uint64_t *value)
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
static bool get_if(struct trace_unpack *unpack, bool has, uint64_t most, uint64_t usual, uint64_t *value)
{
    *value = usual;
    return !has || get(unpack, most, value);
}

static bool get_error(struct trace_unpack *unpack, bool has, struct store_trace_step *step)
{
    uint64_t count;
    if (!has)
        return true;
    if (!get(unpack, TRACE_ERROR_MAX, &count) || count > (uint64_t)(unpack->end - unpack->at))
        return false;
    step->error = (const char *)unpack->at;
    step->error_bytes = (size_t)count;
    unpack->at += count;
    return true;
}

static bool get_hash(struct trace_unpack *unpack, struct store_trace_step *step)
{
    if (unpack->end - unpack->at < 8)
        return false;
    for (int shift = 0; shift < 64; shift += 8)
        step->uid_hash |= (uint64_t)*unpack->at++ << shift;
    return true;
}

bool store_trace_unpack_next(struct trace_unpack *unpack, struct store_trace_step *step)
{
    uint64_t has, delta, stage, pid, duration, attempt, due, reason, age;
    *step = (struct store_trace_step){0};
    bool good = get(unpack, HAS_END - 1, &has);
    step->kind = (enum store_trace_step_kind)(has & KIND_MASK);
    good = good && step->kind < STORE_TRACE_STEP_KINDS &&
           get_if(unpack, has & HAS_DELTA, UINT64_MAX, 2, &delta) &&
           get_if(unpack, has & HAS_STAGE, INT64_MAX, (uint64_t)unpack->stage, &stage) &&
           get_if(unpack, has & HAS_PID, INT32_MAX, (uint64_t)unpack->pid, &pid) &&
           get_if(unpack, has & HAS_DURATION, INT64_MAX, 0, &duration) &&
           get_if(unpack, has & HAS_ATTEMPT, UINT32_MAX, usual_attempt(step->kind), &attempt) &&
           get_if(unpack, has & HAS_DUE, UINT64_MAX, 0, &due) &&
           get_if(unpack, has & HAS_REASON, STORE_REASON_KINDS - 1, STORE_REASON_NONE, &reason) &&
           get_if(unpack, has & HAS_AGE, UINT64_MAX, 0, &age) && get_error(unpack, has & HAS_ERROR, step) &&
           (!arrives(step->kind) || get_hash(unpack, step));
    if (!good) {
        unpack->at = unpack->end;
        return false;
    }
    step->at_ms = unpack->at_ms - unzigzag(age);
    step->event = (int64_t)((uint64_t)unpack->event + unzigzag(delta));
    step->stage = (int64_t)stage;
    step->pid = (int32_t)pid;
    step->duration_us = duration;
    step->attempt = (uint32_t)attempt;
    step->due_ms = has & HAS_DUE ? unpack->at_ms + unzigzag(due) : 0;
    step->reason = (enum store_reason)reason;
    unpack->moved = (has & HAS_AGE) != 0;
    unpack->event = step->event;
    unpack->stage = step->stage;
    unpack->pid = step->pid;
    return true;
}
