/* SPDX-License-Identifier: MIT */
/*
 * Making the segment. The supervisor runs it once, before it forks.
 *
 * The order within the segment is header, sources, stages, slots, tickets, causes, words of the rings,
 * crashes, commit requests. Each part begins on a cache line. A new object is all zero, and zero is the
 * right start for nearly everything: tickets are FREE, rings empty, slots EMPTY. Only fields that differ
 * are written.
 *
 * Invariants
 *  1. An object that others may map never changes its size: a new segment is a new object of the same
 *     name.
 *  2. Its space is allocated before it is mapped, so that no later write can fail.
 *  3. The creator holds an exclusive flock on it from before `ready` until it exits.
 *  4. Only the process that holds the flock on an object takes the name from it. So of two that create a
 *     segment at the same instant, one continues and the other learns of it.
 *
 * No space, no memory or a foreign object of that name is an error to the caller, and nothing is left
 * behind.
 */
#include "shm/segment.h"

#include "shm/slot.h"
#include "shm/write_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_ATTEMPTS 50
#define LOCK_PAUSE_NS 20000000L
#define STAGES_MAX 4095u  /* of a source: a ticket's word has 12 bits for the stage */
#define SLOTS_MAX 65534u  /* of an instance: it has 16 bits for the slot, and SHM_NO_SLOT is one of them */
#define BATCH_TICKETS 64u /* a worker may hold a batch of answers that are not yet committed */
#define TICKETS_MIN 256u  /* small rings must not make claims small: one transaction claims many */
#define TICKETS_MAX \
    1048576u /* a million events in flight hide any latency; more only make recovery slow, which \
              * looks at every ticket, and each stage's ring takes 8 bytes for each of them */

/* Where each part of the segment lies, and how many entries it has. */
struct layout {
    uint32_t stage_count, slot_count, ticket_count;
    uint64_t source_offset, stage_offset, slot_offset, ticket_offset, cause_offset, ring_offset, crash_offset,
        commit_request_bits_offset, commit_request_offset, size_bytes;
};

/* Returns how many events of a source with these stages may be in flight, each with a ticket: as many as
 * the stages' rings and the workers' batches hold, within TICKETS_MIN and TICKETS_MAX. The supervisor
 * calls it when it plans the shared memory. A ticket says which process owns an event. */
uint32_t segment_tickets_for(const struct segment_stage_plan *stages, uint32_t stage_count)
{
    uint64_t ticket_count = 0;
    for (uint32_t i = 0; i < stage_count; i++)
        ticket_count += stages[i].input_buffer + (uint64_t)stages[i].concurrency * BATCH_TICKETS;
    if (ticket_count < TICKETS_MIN)
        return TICKETS_MIN;
    return ticket_count < TICKETS_MAX ? (uint32_t)ticket_count : TICKETS_MAX;
}

static uint32_t count_source_tickets(const struct segment_source_plan *source)
{
    return source->ticket_count != 0 ? source->ticket_count
                                     : segment_tickets_for(source->stages, source->stage_count);
}

/* Returns how many words the ring of a stage gets in shared memory, for a source with so many tickets (one
 * for each event in flight): a power of two with room for every ticket and for a stale copy of each, which
 * recoveries leave there. More copies are possible but very unlikely (ticket_pass_on). The supervisor
 * calls it when it creates the segment. */
static uint32_t choose_ring_word_count(uint32_t ticket_count)
{
    uint32_t word_count = 2;
    while (word_count < 2 * ticket_count)
        word_count *= 2;
    return word_count;
}

static int check_member_name(const char *name)
{
    if (name == NULL || name[0] == '\0')
        return -EINVAL;
    return strlen(name) < SHM_NAME_BYTES ? 0 : -ENAMETOOLONG;
}

/* The supervisor calls this before it creates the shared memory segment: checks the names, counts and
 * limits of one source and its stages. Returns 0, -EINVAL (a name or type is missing, a count is 0),
 * -ENAMETOOLONG or -E2BIG. */
static int check_source_plan(const struct segment_source_plan *source)
{
    int error = check_member_name(source->id);
    if (error != 0)
        return error;
    if (source->type == NULL || source->stage_count == 0 || source->stages == NULL)
        return -EINVAL;
    if (source->stage_count > STAGES_MAX || count_source_tickets(source) > TICKETS_MAX)
        return -E2BIG;
    for (uint32_t i = 0; i < source->stage_count; i++) {
        const struct segment_stage_plan *stage = &source->stages[i];
        if ((error = check_member_name(stage->name)) != 0)
            return error;
        if (stage->type == NULL || stage->concurrency == 0 || stage->input_buffer == 0)
            return -EINVAL;
    }
    return 0;
}

static uint64_t reserve_space(uint64_t *end_offset, uint64_t count, uint64_t entry_bytes)
{
    uint64_t offset = *end_offset;
    *end_offset = (offset + count * entry_bytes + SHM_LINE - 1) / SHM_LINE * SHM_LINE;
    return offset;
}

/* Computes the counts, the offset of each part and the size of the shared memory segment from its plan.
 * The supervisor calls it first when it creates the segment. Returns 0, or a negative errno if the plan
 * is not valid. */
static int compute_layout(const struct segment_plan *plan, struct layout *layout)
{
    uint64_t slot_count = 1, stage_count = 0, ticket_count = 0,
             ring_word_count = 0; /* one slot for the keeper */
    int error = segment_name_check(plan->instance);
    for (uint32_t i = 0; error == 0 && i < plan->source_count; i++) {
        const struct segment_source_plan *source = &plan->sources[i];
        if ((error = check_source_plan(source)) != 0)
            break;
        slot_count++;
        for (uint32_t stage_index = 0; stage_index < source->stage_count; stage_index++)
            slot_count += source->stages[stage_index].concurrency;
        stage_count += source->stage_count;
        ticket_count += count_source_tickets(source);
        ring_word_count +=
            (uint64_t)source->stage_count * choose_ring_word_count(count_source_tickets(source));
        if (slot_count > SLOTS_MAX || ticket_count >= SHM_NO_TICKET)
            error = -E2BIG;
    }
    if (error != 0)
        return error;
    uint64_t end_offset = 0;
    reserve_space(&end_offset, 1, sizeof(struct shm_header));
    *layout = (struct layout){.stage_count = (uint32_t)stage_count,
                              .slot_count = (uint32_t)slot_count,
                              .ticket_count = (uint32_t)ticket_count};
    layout->source_offset = reserve_space(&end_offset, plan->source_count, sizeof(struct shm_source));
    layout->stage_offset = reserve_space(&end_offset, stage_count, sizeof(struct shm_stage));
    layout->slot_offset = reserve_space(&end_offset, slot_count, sizeof(struct shm_slot));
    layout->ticket_offset = reserve_space(&end_offset, ticket_count, sizeof(struct shm_ticket));
    layout->cause_offset = reserve_space(&end_offset, ticket_count, sizeof(struct shm_cause));
    layout->ring_offset = reserve_space(&end_offset, ring_word_count, sizeof(uint64_t));
    layout->crash_offset = reserve_space(&end_offset, 1, sizeof(struct shm_crashes));
    layout->commit_request_bits_offset = reserve_space(&end_offset, (slot_count + 63) / 64, sizeof(uint64_t));
    layout->commit_request_offset = reserve_space(&end_offset, slot_count, sizeof(struct shm_commit_request));
    layout->size_bytes = end_offset;
    return 0;
}

static void copy_name(char *member, size_t member_bytes, const char *text)
{
    snprintf(member, member_bytes, "%s", text != NULL ? text : "");
}

/* Writes the header of a new shared memory segment: layout, counts, offsets, names, start times, and the
 * store's write lock. The supervisor calls it; `ready` stays 0 until segment_publish. Returns 0, or a
 * negative errno if the lock cannot be made. */
static int fill_header(struct shm_header *header, const struct segment_plan *plan,
                       const struct layout *layout)
{
    header->layout = SHM_LAYOUT;
    header->size_bytes = layout->size_bytes;
    header->source_count = plan->source_count;
    header->stage_count = layout->stage_count;
    header->slot_count = layout->slot_count;
    header->ticket_count = layout->ticket_count;
    header->source_offset = layout->source_offset;
    header->stage_offset = layout->stage_offset;
    header->slot_offset = layout->slot_offset;
    header->ticket_offset = layout->ticket_offset;
    header->cause_offset = layout->cause_offset;
    header->ring_offset = layout->ring_offset;
    header->crash_offset = layout->crash_offset;
    header->commit_request_bits_offset = layout->commit_request_bits_offset;
    header->commit_request_offset = layout->commit_request_offset;
    copy_name(header->instance, sizeof header->instance, plan->instance);
    copy_name(header->version, sizeof header->version, plan->version);
    copy_name(header->store_url, sizeof header->store_url, plan->store_url);
    header->supervisor_pid = (int32_t)getpid();
    header->started_realtime_ms = shm_realtime_ms();
    header->started_boot_ms = shm_boot_ms();
    header->started_ns = shm_now_ns();
    atomic_init(&header->heartbeat_ns, header->started_ns);
    header->magic = SHM_MAGIC;
    return write_lock_init(&header->write_lock);
}

/* Writes into a slot (each process has one) of a new shared memory segment what never changes: which kind
 * of process runs there, for which source and stage, and its index among the workers of its stage. The
 * supervisor calls it once for each slot. */
static void fill_slot(struct shm_slot *slot, enum shm_kind kind, uint32_t source, uint32_t stage,
                      uint32_t index)
{
    slot->kind = kind;
    slot->source = source;
    slot->stage = stage;
    slot->index = index;
    atomic_init(&slot->ticket, SHM_NO_TICKET);
    atomic_init(&slot->since_ns, shm_now_ns());
}

/* Where the next source's, stage's, … part begins. */
struct fill_position {
    uint32_t stage, slot, ticket;
    uint64_t word_offset;
};

/* Writes a stage of a new shared memory segment: its name, its ring and the slots of its workers. Moves
 * *position to where the next stage begins. The supervisor calls it once for each stage. */
static void fill_stage(const struct segment *segment, const struct segment_stage_plan *plan,
                       struct shm_stage *stage, uint32_t ticket_count, struct fill_position *position)
{
    copy_name(stage->name, sizeof stage->name, plan->name);
    copy_name(stage->type, sizeof stage->type, plan->type);
    stage->first_slot = position->slot;
    stage->concurrency = plan->concurrency;
    stage->timeout_ms = plan->timeout_ms;
    stage->ring.size = choose_ring_word_count(ticket_count);
    stage->ring.limit = plan->input_buffer < stage->ring.size ? plan->input_buffer : stage->ring.size;
    stage->ring.words_offset =
        (uint64_t)((char *)segment->header + position->word_offset - (char *)&stage->ring);
    for (uint32_t i = 0; i < plan->concurrency; i++)
        fill_slot(segment_slot(segment, position->slot++), SHM_KIND_WORKER, stage->source, position->stage,
                  i);
    position->word_offset += stage->ring.size * sizeof(uint64_t);
    position->stage++;
}

/* Writes a source of a new shared memory segment with its producer's slot and its stages. Moves *position
 * to where the next source begins. The supervisor calls it once for each source. */
static void fill_source(const struct segment *segment, const struct segment_source_plan *plan, uint32_t index,
                        struct fill_position *position)
{
    struct shm_source *source = segment_source(segment, index);
    copy_name(source->id, sizeof source->id, plan->id);
    copy_name(source->type, sizeof source->type, plan->type);
    source->first_stage = position->stage;
    source->stage_count = plan->stage_count;
    source->first_ticket = position->ticket;
    source->ticket_count = count_source_tickets(plan);
    source->producer_slot = position->slot;
    atomic_init(&source->next_due_ms, UINT64_MAX);
    fill_slot(segment_slot(segment, position->slot++), SHM_KIND_PRODUCER, index, position->stage, 0);
    position->ticket += source->ticket_count;
    for (uint32_t i = 0; i < plan->stage_count; i++) {
        struct shm_stage *stage = segment_stage(segment, position->stage);
        stage->source = index;
        stage->position = i;
        fill_stage(segment, &plan->stages[i], stage, source->ticket_count, position);
    }
}

/* Writes all fields of a new shared memory segment that are not zero: the header, the keeper's slot, every
 * source with its stages. The supervisor calls it before it forks any process. Returns 0 or a negative
 * errno. */
static int fill_segment(struct segment *segment, const struct segment_plan *plan, const struct layout *layout)
{
    assert(segment->header != NULL); /* map_new_shared_memory has mapped it */
    int error = fill_header(segment->header, plan, layout);
    if (error != 0)
        return error;
    struct fill_position position = {.word_offset = layout->ring_offset};
    segment->header->keeper_slot = position.slot;
    fill_slot(segment_slot(segment, position.slot++), SHM_KIND_KEEPER, 0, 0, 0);
    for (uint32_t i = 0; i < plan->source_count; i++)
        fill_source(segment, &plan->sources[i], i, &position);
    return 0;
}

static bool is_same_object(int one_fd, int other_fd)
{
    struct stat one_status, other_status;
    return fstat(one_fd, &one_status) == 0 && fstat(other_fd, &other_status) == 0 &&
           one_status.st_dev == other_status.st_dev && one_status.st_ino == other_status.st_ino;
}

/* Opens the shared memory object that has this name and takes an exclusive flock on it, which shows other
 * processes that this supervisor lives. A reader may hold a flock for an instant, so it tries for about a
 * second. Returns 0, -EBUSY (another supervisor holds it), -ENOENT (there is none) or another negative
 * errno. The supervisor calls it while it creates its segment. */
static int lock_shared_memory(const char *name, int flags, int *locked_fd)
{
    for (int attempts_left = LOCK_ATTEMPTS;;) {
        int fd = shm_open(name, flags, 0), named_fd;
        if (fd < 0)
            return -errno;
        bool is_locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
        int error = is_locked || errno == EWOULDBLOCK ? 0 : -errno;
        if (is_locked && (named_fd = shm_open(name, O_RDONLY, 0)) >= 0) {
            is_locked = is_same_object(fd, named_fd); /* its holder may have removed it */
            close(named_fd);
        } else {
            is_locked = false;
        }
        if (is_locked) {
            *locked_fd = fd;
            return 0;
        }
        close(fd);
        if (error != 0)
            return error;
        if (--attempts_left == 0)
            return -EBUSY;
        nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_NS}, NULL);
    }
}

/* Creates a new shared memory object for the segment. If there is one of this name that it can lock,
 * that one's supervisor is dead, and it is removed. Returns 0, -EBUSY if a living supervisor has the
 * name or others keep creating it, or another negative errno. The supervisor runs it. */
static int create_shared_memory(const char *name, int *new_fd)
{
    for (int attempts_left = LOCK_ATTEMPTS; attempts_left > 0; attempts_left--) {
        int old_fd = -1, fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd >= 0) {
            *new_fd = fd;
            return 0;
        }
        if (errno != EEXIST)
            return -errno;
        int error = lock_shared_memory(name, O_RDONLY, &old_fd);
        if (error == -ENOENT)
            continue;
        if (error != 0)
            return error;
        error = shm_unlink(name) == 0 ? 0 : -errno;
        close(old_fd);
        if (error != 0)
            return error;
    }
    return -EBUSY;
}

/* Allocates the space of the supervisor's new shared memory object and maps it. Returns 0 or a negative
 * errno. The flock is taken on another descriptor than the one that is mapped: children inherit the
 * mapping, which would keep its descriptor's flock even after the supervisor has crashed. */
static int map_new_shared_memory(int fd, const char *name, uint64_t size_bytes, struct segment *segment)
{
    int error;
    if (size_bytes > (uint64_t)INT64_MAX)
        return -E2BIG;
    if (fchmod(fd, 0600) != 0) /* whatever the umask is */
        return -errno;
    if ((error = lock_shared_memory(name, O_RDWR, &segment->fd)) != 0)
        return error == -ENOENT ? -EBUSY : error;
    if (!is_same_object(
            fd,
            segment->fd)) /* another creator took it for a dead one before it was locked, and replaced it */
        return -EBUSY;
    do
        error = posix_fallocate(fd, 0, (off_t)size_bytes);
    while (error == EINTR);
    if (error != 0)
        return -error;
    void *mapping = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED)
        return -errno;
    segment->header = mapping;
    segment->size_bytes = size_bytes;
    segment->writable = true;
    return 0;
}

/* Creates the shared memory segment, in place of one that a crashed instance left. The supervisor calls
 * it once at its start, before it forks. Returns 0 or a negative errno (segment.h lists them), and
 * leaves nothing behind on an error. segment_publish must follow when the rest is complete. */
int segment_create(const struct segment_plan *plan, struct segment *out)
{
    struct layout layout;
    int error = compute_layout(plan, &layout);
    if (error != 0)
        return error;
    char name[SHM_NAME_BYTES + 16];
    segment_name(plan->instance, name, sizeof name);
    int fd = -1;
    if ((error = create_shared_memory(name, &fd)) != 0)
        return error;
    struct segment segment = {.fd = -1};
    error = map_new_shared_memory(fd, name, layout.size_bytes, &segment);
    close(fd);
    if (error == 0 && (error = fill_segment(&segment, plan, &layout)) == 0) {
        *out = segment;
        return 0;
    }
    if (error != -EBUSY) /* else it is another's by now */
        shm_unlink(name);
    segment_close(&segment);
    return error;
}

/* Release: a process that sees `ready` sees everything written before. */
void segment_publish(struct segment *segment)
{
    atomic_store_explicit(&segment->header->ready, 1, memory_order_release);
}

void segment_close_lock(struct segment *segment)
{
    if (segment->fd >= 0)
        close(segment->fd);
    segment->fd = -1;
}
