/* SPDX-License-Identifier: MIT */
/*
 * Packs and unpacks the rows of the trace. Pure. Survived: unpacking takes any bytes, because a file may be
 * damaged.
 */
#include "src/store/trace_pack.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"

#define FORMAT_VERSION 1
#define KIND_MASK 0x1fu
#define STEP_BYTES_MAX (128 + TRACE_ERROR_MAX) /* more than ten varints and the error */

enum {
    HAS_DURATION = 1 << 5,
    HAS_EVENT = 1 << 6, /* up to here one byte */
    HAS_STAGE = 1 << 7,
    HAS_PID = 1 << 8,
    HAS_ATTEMPT = 1 << 9,
    HAS_DUE = 1 << 10,
    HAS_REASON = 1 << 11,
    HAS_ERROR = 1 << 12,
    HAS_TIME = 1 << 13,
    FLAGS_LIMIT = 1 << 14
};

_Static_assert(STORE_TRACE_STEP_KINDS <= KIND_MASK + 1, "kinds have five bits");

/* Returns the 64-bit hash that stands for a UID in the store's trace, because a hash is shorter than the
 * UID. It is written when an event is stored (by the producer, or the keeper for `eventpipe inject`), and
 * `eventpipe trace` searches for it. Stored traces depend on it: never change it. */
uint64_t store_trace_uid_hash(const char *uid)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (; *uid != '\0'; uid++)
        hash = (hash ^ (unsigned char)*uid) * UINT64_C(0x100000001b3);
    return hash;
}

/* Whether the step is the first one of an event: fetched or injected. Such a step carries the hash of the
 * event's UID. */
static bool is_arrival(enum store_trace_step_kind kind)
{
    return kind == STORE_TRACE_STEP_FETCHED || kind == STORE_TRACE_STEP_INJECTED;
}

/* Returns the attempt number that is left out of a packed step of the store's trace: 1 for answers of a
 * stage, 0 for steps without an attempt. */
static uint32_t default_attempt(enum store_trace_step_kind kind)
{
    return kind >= STORE_TRACE_STEP_PROCESSED && kind <= STORE_TRACE_STEP_TIMEOUT;
}

/* ---- packing ---- */

void store_trace_pack_begin(struct trace_pack *pack, uint64_t at_ms)
{
    *pack = (struct trace_pack){.bytes = pack->bytes, .capacity_bytes = pack->capacity_bytes, .at_ms = at_ms};
}

bool store_trace_pack_has_steps(const struct trace_pack *pack)
{
    return pack->used > 0 && !pack->failed;
}

void store_trace_pack_free(struct trace_pack *pack)
{
    free(pack->bytes);
    *pack = (struct trace_pack){0};
}

/* Enlarges a packed row of the store's trace, if needed, so that one more step fits. False: out of memory;
 * then the row is marked as failed and is not stored, because the event is more important than its trace.
 * Every process that changes events in the store runs it. */
static bool reserve_step(struct trace_pack *pack)
{
    if (pack->capacity_bytes - pack->used > STEP_BYTES_MAX)
        return true;
    size_t new_capacity = pack->capacity_bytes * 2 + 2 * STEP_BYTES_MAX;
    unsigned char *grown_bytes = realloc(pack->bytes, new_capacity);
    if (grown_bytes == NULL) {
        pack->failed = true;
        return false;
    }
    pack->bytes = grown_bytes;
    pack->capacity_bytes = new_capacity;
    return true;
}

/* Appends an unsigned number to a packed row of the store's trace in 7-bit groups, lowest first; the caller
 * has reserved the bytes. */
static void append_varint(struct trace_pack *pack, uint64_t value)
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

/* Returns how many bytes of a step's error text the store's trace keeps: at most TRACE_ERROR_MAX, and never
 * a part of a UTF-8 character; 0 = no error. Every process that changes events runs it. */
static size_t count_error_bytes(const struct store_trace_step *step)
{
    size_t error_bytes = step->error != NULL ? step->error_bytes : 0;
    return error_bytes > TRACE_ERROR_MAX ? base_utf8_find_cut(step->error, TRACE_ERROR_MAX) : error_bytes;
}

/* Returns the number that begins a packed step of the store's trace: its kind, plus a HAS_ bit for each
 * value that is stored after it. To keep the trace small, a value is left out if the reader can predict it:
 * the same stage or process as in the step before, the next event, or the default. */
static unsigned make_step_head(const struct trace_pack *pack, const struct store_trace_step *step,
                               size_t error_bytes)
{
    unsigned head = (unsigned)step->kind & KIND_MASK;
    head |= step->duration_us != 0 ? HAS_DURATION : 0;
    head |= (uint64_t)step->event != (uint64_t)pack->event + 1 ? HAS_EVENT : 0;
    head |= step->stage != pack->stage ? HAS_STAGE : 0;
    head |= step->pid != pack->pid ? HAS_PID : 0;
    head |= step->attempt != default_attempt(step->kind) ? HAS_ATTEMPT : 0;
    head |= step->due_ms != 0 ? HAS_DUE : 0;
    head |= step->reason != STORE_REASON_NONE ? HAS_REASON : 0;
    head |= error_bytes > 0 ? HAS_ERROR : 0;
    head |= step->at_ms != pack->at_ms ? HAS_TIME : 0;
    return head;
}

/* Appends one step (something that was done to an event) to the packed trace row of a store transaction. If
 * memory runs out, the row is marked as failed. Producers, workers and the keeper call it through
 * store_sqlite_add_trace_step; the keeper also for steps that it keeps when it trims the trace. */
void store_trace_pack_add(struct trace_pack *pack, const struct store_trace_step *step)
{
    if (!reserve_step(pack))
        return;
    size_t error_bytes = count_error_bytes(step);
    unsigned head = make_step_head(pack, step, error_bytes);
    if (pack->used == 0)
        pack->bytes[pack->used++] = FORMAT_VERSION;
    append_varint(pack, head);
    if (head & HAS_EVENT)
        append_varint(pack, encode_zigzag((uint64_t)step->event - (uint64_t)pack->event));
    if (head & HAS_STAGE)
        append_varint(pack, (uint64_t)step->stage);
    if (head & HAS_PID)
        append_varint(pack, (uint32_t)step->pid);
    if (head & HAS_DURATION)
        append_varint(pack, step->duration_us);
    if (head & HAS_ATTEMPT)
        append_varint(pack, step->attempt);
    if (head & HAS_DUE)
        append_varint(pack, encode_zigzag(step->due_ms - pack->at_ms));
    if (head & HAS_REASON)
        append_varint(pack, step->reason);
    if (head & HAS_TIME)
        append_varint(pack, encode_zigzag(pack->at_ms - step->at_ms));
    if (head & HAS_ERROR) {
        append_varint(pack, error_bytes);
        memcpy(pack->bytes + pack->used, step->error, error_bytes);
        pack->used += error_bytes;
    }
    if (is_arrival(step->kind))
        for (int shift = 0; shift < 64; shift += 8)
            pack->bytes[pack->used++] = (unsigned char)(step->uid_hash >> shift);
    pack->event = step->event;
    pack->stage = step->stage;
    pack->pid = step->pid;
}

/* ---- unpacking ---- */

/* Starts reading a packed row of the store's trace; store_trace_unpack_next then returns its steps. A row
 * in an unknown format has no steps. `eventpipe trace` calls it for each row of the trace, and the keeper
 * when it trims the trace. */
void store_trace_unpack_begin(struct trace_unpack *unpack, uint64_t at_ms, const void *bytes,
                              size_t byte_count)
{
    *unpack = (struct trace_unpack){.next_byte = bytes, .at_ms = at_ms};
    bool is_known_format = byte_count > 0 && *unpack->next_byte == FORMAT_VERSION;
    unpack->row_end = is_known_format ? unpack->next_byte + byte_count : unpack->next_byte;
    unpack->next_byte += is_known_format;
}

/* Reads the next number of a packed row of the store's trace into *value. False if the row ends within the
 * number, or if the number exceeds upper_limit: then the file is damaged. `eventpipe trace` runs it, and
 * the keeper when it trims the trace. */
static bool read_varint(struct trace_unpack *unpack, uint64_t upper_limit, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64 && unpack->next_byte < unpack->row_end; shift += 7) {
        uint64_t byte = *unpack->next_byte++;
        *value |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return *value <= upper_limit;
    }
    return false;
}

/* Reads the next number of a packed row of the store's trace if it is present; otherwise sets *value to the
 * default. False: the file is damaged. `eventpipe trace` runs it, and the keeper when it trims the trace.
 * */
static bool read_varint_or_default(struct trace_unpack *unpack, bool is_present, uint64_t upper_limit,
                                   uint64_t default_value, uint64_t *value)
{
    *value = default_value;
    return !is_present || read_varint(unpack, upper_limit, value);
}

/* Reads the error text of a packed step of the store's trace, if it has one. The text is borrowed from the
 * row and not NUL-terminated. False if its length exceeds the row or the limit: then the file is damaged.
 * `eventpipe trace` runs it, and the keeper when it trims the trace. */
static bool read_error(struct trace_unpack *unpack, bool is_present, struct store_trace_step *step)
{
    uint64_t error_bytes;
    if (!is_present)
        return true;
    if (!read_varint(unpack, TRACE_ERROR_MAX, &error_bytes) ||
        error_bytes > (uint64_t)(unpack->row_end - unpack->next_byte))
        return false;
    step->error = (const char *)unpack->next_byte;
    step->error_bytes = (size_t)error_bytes;
    unpack->next_byte += error_bytes;
    return true;
}

/* Reads the UID hash that ends the packed step of an event's arrival in the store's trace. False if fewer
 * than 8 bytes are left: then the file is damaged. `eventpipe trace` runs it, and the keeper when it trims
 * the trace. */
static bool read_uid_hash(struct trace_unpack *unpack, struct store_trace_step *step)
{
    if (unpack->row_end - unpack->next_byte < 8)
        return false;
    for (int shift = 0; shift < 64; shift += 8)
        step->uid_hash |= (uint64_t)*unpack->next_byte++ << shift;
    return true;
}

/* Reads the next step of a packed row of the store's trace into *step, and fills in the values that were
 * left out. False at the end of the row, or where its bytes are damaged. `eventpipe trace` calls it to find
 * an event's steps, and the keeper when it trims the trace. */
bool store_trace_unpack_next(struct trace_unpack *unpack, struct store_trace_step *step)
{
    uint64_t head, event_difference, stage, pid, duration_us, attempt, due_difference, reason,
        time_difference;
    *step = (struct store_trace_step){0};
    bool is_valid = read_varint(unpack, FLAGS_LIMIT - 1, &head);
    step->kind = (enum store_trace_step_kind)(head & KIND_MASK);
    is_valid = is_valid && step->kind < STORE_TRACE_STEP_KINDS &&
               read_varint_or_default(unpack, head & HAS_EVENT, UINT64_MAX, 2, &event_difference) &&
               read_varint_or_default(unpack, head & HAS_STAGE, INT64_MAX, (uint64_t)unpack->stage, &stage) &&
               read_varint_or_default(unpack, head & HAS_PID, INT32_MAX, (uint64_t)unpack->pid, &pid) &&
               read_varint_or_default(unpack, head & HAS_DURATION, INT64_MAX, 0, &duration_us) &&
               read_varint_or_default(unpack, head & HAS_ATTEMPT, UINT32_MAX, default_attempt(step->kind),
                                      &attempt) &&
               read_varint_or_default(unpack, head & HAS_DUE, UINT64_MAX, 0, &due_difference) &&
               read_varint_or_default(unpack, head & HAS_REASON, STORE_REASON_KINDS - 1, STORE_REASON_NONE,
                                      &reason) &&
               read_varint_or_default(unpack, head & HAS_TIME, UINT64_MAX, 0, &time_difference) &&
               read_error(unpack, head & HAS_ERROR, step) &&
               (!is_arrival(step->kind) || read_uid_hash(unpack, step));
    if (!is_valid) {
        unpack->next_byte = unpack->row_end;
        return false;
    }
    step->at_ms = unpack->at_ms - decode_zigzag(time_difference);
    step->event = (int64_t)((uint64_t)unpack->event + decode_zigzag(event_difference));
    step->stage = (int64_t)stage;
    step->pid = (int32_t)pid;
    step->duration_us = duration_us;
    step->attempt = (uint32_t)attempt;
    step->due_ms = head & HAS_DUE ? unpack->at_ms + decode_zigzag(due_difference) : 0;
    step->reason = (enum store_reason)reason;
    unpack->moved = (head & HAS_TIME) != 0;
    unpack->event = step->event;
    unpack->stage = step->stage;
    unpack->pid = step->pid;
    return true;
}
