/* SPDX-License-Identifier: MIT */
/* The segment: created by the supervisor, inherited by its children, attached read-only by the command line.
 */
#ifndef SHM_SEGMENT_H
#define SHM_SEGMENT_H

#include "shm/layout.h"

struct segment_stage_plan {
    const char *name, *type;
    uint32_t concurrency, input_buffer;
    uint64_t timeout_ms;
};

struct segment_source_plan {
    const char *id, *type;
    const struct segment_stage_plan *stages;
    uint32_t stage_count;
    uint32_t ticket_count; /* 0 = segment_tickets_for() its stages */
};

struct segment_plan {
    const char *instance, *version, *store_url;
    const struct segment_source_plan *sources;
    uint32_t source_count;
};

struct segment {
    struct shm_header *header; /* the mapping */
    size_t size_bytes;
    /* The creator holds an exclusive flock on it for life; -1 in children after segment_close_lock. */
    int fd;
    bool writable;
};

/* The shared memory object's name, "/eventpipe-INSTANCE". */
void segment_name(const char *instance, char *buffer, size_t buffer_bytes);
/* Whether an instance may have this name: 0, -EINVAL (empty, or with a slash) or -ENAMETOOLONG. */
int segment_name_check(const char *instance);

/* How many events may be in flight for these stages: what their rings and their workers' batches hold. */
uint32_t segment_tickets_for(const struct segment_stage_plan *stages, uint32_t stage_count);

/*
 * Supervisor, before it forks: creates the segment, in place of a crashed instance's segment of this name.
 * Allocates its space first (a full /dev/shm is -ENOSPC here and never SIGBUS later), mode 0600, every
 * field zero or initial, header.ready still 0, and takes an exclusive flock on it. Slot order: keeper,
 * then for each source its producer and its stages' workers. Returns 0 or -errno (-E2BIG: more than 4095
 * stages in a source, 65534 slots, or a million tickets in a source; -EINVAL: a name is missing or a count
 * is 0; -EBUSY: the segment of a living creator has this name). On error it leaves nothing behind. Call
 * segment_publish when the rest is complete.
 */
int segment_create(const struct segment_plan *plan, struct segment *out);
void segment_publish(struct segment *segment);

/* In a child after fork: closes the descriptor, so that only the supervisor holds the flock. */
void segment_close_lock(struct segment *segment);

/*
 * Maps an existing segment read-only. -ENOENT: no such instance runs; -EPROTO: another layout (out->
 * untouched); -EAGAIN: not ready yet; -EBADMSG: not a segment, or shorter than it says.
 */
int segment_attach(const char *instance, struct segment *out);

/* Whether the supervisor that created this segment still lives (its flock is held). */
bool segment_owner_lives(const struct segment *segment);

/*
 * Whether a living daemon of any version owns the instance's segment. It does not read the content, since
 * another layout or an unfinished segment cannot be read. *pid: its process as /proc/locks has it, 0 = not
 * known.
 */
bool segment_is_held(const char *instance, int *pid);

void segment_close(struct segment *segment); /* unmaps; the object stays */
int segment_unlink(const char *instance);    /* 0 also when there is none */

struct shm_source *segment_source(const struct segment *segment, uint32_t index);
struct shm_stage *segment_stage(const struct segment *segment, uint32_t index);
struct shm_slot *segment_slot(const struct segment *segment, uint32_t index);
struct shm_ticket *segment_ticket(const struct segment *segment, uint32_t index); /* segment-wide index */
struct shm_cause *segment_cause(const struct segment *segment, uint32_t ticket);

const char *shm_phase_name(uint32_t phase);
const char *shm_kind_name(uint32_t kind);
const char *shm_slot_state_name(uint32_t state);
const char *shm_source_state_name(uint32_t state);
const char *shm_cause_name(uint32_t cause);

#endif
