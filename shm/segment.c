/* SPDX-License-Identifier: MIT */
/*
 * The segment, for the processes that have it mapped or want to map it. The command line attaches it
 * read-only; the processes of the instance have it through fork. segment_create.c makes it.
 *
 * Invariants
 *  1. What segment_attach returns lies within the mapping, whatever the file's bytes say.
 *  2. Attaching, asking for the owner and closing change nothing in it and nothing for its owner.
 *
 * A missing, foreign, unfinished or damaged segment is an answer. An index out of range is a bug of ours:
 * fatal.
 */
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

void segment_name(const char *instance, char *buffer, size_t buffer_bytes)
{
    snprintf(buffer, buffer_bytes, "/eventpipe-%s", instance);
}

int segment_name_check(const char *instance)
{
    if (instance == NULL || instance[0] == '\0' || strchr(instance, '/') != NULL)
        return -EINVAL;
    return strlen(instance) < SHM_NAME_BYTES ? 0 : -ENAMETOOLONG;
}

/* Whether `entry_count` entries from this offset on lie within the segment, after its header and aligned.
 * The command line and a starting supervisor check each part of the shared memory segment with it. */
static bool is_part_inside(const struct shm_header *header, uint64_t offset, uint64_t entry_count,
                           uint64_t entry_bytes)
{
    /* Counts are 32 bits and `entry_bytes` is small: the product does not overflow. */
    return offset >= sizeof *header && offset % SHM_LINE == 0 && offset <= header->size_bytes &&
           entry_count * entry_bytes <= header->size_bytes - offset;
}

/* Whether all parts that the header of a shared memory segment names lie within the segment, and its texts
 * are terminated. A damaged segment must not make a reader read elsewhere. The command line and a starting
 * supervisor check this when they attach a segment. */
static bool are_header_parts_inside(const struct shm_header *header)
{
    return is_part_inside(header, header->source_offset, header->source_count, sizeof(struct shm_source)) &&
           is_part_inside(header, header->stage_offset, header->stage_count, sizeof(struct shm_stage)) &&
           is_part_inside(header, header->slot_offset, header->slot_count, sizeof(struct shm_slot)) &&
           is_part_inside(header, header->ticket_offset, header->ticket_count, sizeof(struct shm_ticket)) &&
           is_part_inside(header, header->cause_offset, header->ticket_count, sizeof(struct shm_cause)) &&
           is_part_inside(header, header->ring_offset, 0, 1) &&
           is_part_inside(header, header->crash_offset, 1, sizeof(struct shm_crashes)) &&
           is_part_inside(header, header->commit_request_bits_offset, (header->slot_count + 63) / 64,
                          sizeof(uint64_t)) &&
           is_part_inside(header, header->commit_request_offset, header->slot_count,
                          sizeof(struct shm_commit_request)) &&
           header->keeper_slot < header->slot_count &&
           memchr(header->instance, '\0', sizeof header->instance) != NULL &&
           memchr(header->version, '\0', sizeof header->version) != NULL &&
           memchr(header->store_url, '\0', sizeof header->store_url) != NULL;
}

static bool is_range_inside(uint32_t first_index, uint32_t count, uint32_t total_count)
{
    return first_index <= total_count && count <= total_count - first_index;
}

/* Whether the words of a stage's ring lie within the mapped segment and their number is a power of two.
 * The command line and a starting supervisor check this when they attach a segment; otherwise a damaged
 * one could crash them. */
static bool is_ring_inside(const struct segment *segment, const struct shm_ring *ring)
{
    uint64_t ring_offset = (uint64_t)((const char *)ring - (const char *)segment->header);
    uint64_t bytes_after_ring = segment->size_bytes - ring_offset;
    return ring->size >= 2 && (ring->size & (ring->size - 1)) == 0 &&
           ring->words_offset % sizeof(uint64_t) == 0 && ring->words_offset <= bytes_after_ring &&
           ring->size * sizeof(uint64_t) <= bytes_after_ring - ring->words_offset;
}

/* Whether a stage in a shared memory segment refers only to a source, slots and ring words that exist
 * there, and its texts are terminated. The command line and a starting supervisor check this when they
 * attach a segment. */
static bool is_stage_valid(const struct segment *segment, const struct shm_stage *stage)
{
    const struct shm_header *header = segment->header;
    return stage->source < header->source_count &&
           is_range_inside(stage->first_slot, stage->concurrency, header->slot_count) &&
           memchr(stage->name, '\0', sizeof stage->name) != NULL &&
           memchr(stage->type, '\0', sizeof stage->type) != NULL && is_ring_inside(segment, &stage->ring);
}

/* Whether a source in a shared memory segment refers only to stages, tickets and slots that exist there,
 * and its texts are terminated. The command line and a starting supervisor check this when they attach a
 * segment. */
static bool is_source_valid(const struct shm_header *header, const struct shm_source *source)
{
    return is_range_inside(source->first_stage, source->stage_count, header->stage_count) &&
           is_range_inside(source->first_ticket, source->ticket_count, header->ticket_count) &&
           source->producer_slot < header->slot_count &&
           memchr(source->id, '\0', sizeof source->id) != NULL &&
           memchr(source->type, '\0', sizeof source->type) != NULL;
}

/* Checks a shared memory segment that was just mapped. Returns 0, -EAGAIN (its creator has not
 * completed it yet), -EPROTO (the layout of another version) or -EBADMSG (damaged, or no segment). The
 * command line and a starting supervisor run it when they attach a segment. */
static int check_mapped_segment(const struct segment *segment)
{
    const struct shm_header *header = segment->header;
    /* Acquire: with segment_publish's release, everything after it is complete. Magic and layout are at
     * the same place in every layout and may be read earlier; the rest may not. */
    uint32_t is_ready = atomic_load_explicit(&header->ready, memory_order_acquire);
    if (header->magic != SHM_MAGIC)
        return header->magic == 0 && is_ready == 0 ? -EAGAIN : -EBADMSG;
    if (header->layout != SHM_LAYOUT)
        return -EPROTO;
    if (is_ready != 1)
        return -EAGAIN;
    if (header->size_bytes != segment->size_bytes || !are_header_parts_inside(header))
        return -EBADMSG;
    for (uint32_t i = 0; i < header->source_count; i++)
        if (!is_source_valid(header, segment_source(segment, i)))
            return -EBADMSG;
    for (uint32_t i = 0; i < header->stage_count; i++)
        if (!is_stage_valid(segment, segment_stage(segment, i)))
            return -EBADMSG;
    return 0;
}

/* Maps an opened shared memory object read-only and checks that it is a segment. Returns 0 or a
 * negative errno; on an error its caller, segment_attach, unmaps it. The command line and a starting
 * supervisor run it. */
static int map_shared_memory(int fd, struct segment *segment)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (status.st_size < (off_t)sizeof(struct shm_header))
        return status.st_size == 0 ? -EAGAIN : -EBADMSG; /* empty: its creator has only just opened it */
    void *mapping = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED)
        return -errno;
    segment->header = mapping;
    segment->size_bytes = (size_t)status.st_size;
    return check_mapped_segment(segment);
}

/* Maps the shared memory segment of an instance read-only. The command line calls it to read the
 * instance's state; a starting supervisor, to see whether a supervisor of its name runs, and to read the
 * crash records that a killed one left. Returns 0 or a negative errno (segment.h lists them). */
int segment_attach(const char *instance, struct segment *out)
{
    int error = segment_name_check(instance);
    if (error != 0)
        return error;
    char name[SHM_NAME_BYTES + 16];
    segment_name(instance, name, sizeof name);
    struct segment segment = {.fd = shm_open(name, O_RDONLY, 0)};
    if (segment.fd < 0)
        return -errno;
    error = map_shared_memory(segment.fd, &segment);
    if (error == 0)
        *out = segment;
    else
        segment_close(&segment);
    return error;
}

/*
 * Whether the supervisor that created a shared memory segment still runs. The command line asks before it
 * reports an instance as running, a starting supervisor before it takes a name.
 *
 * A reader asks for a shared lock for an instant: it is refused while the creator holds its own. Within the
 * instance the answer is always yes, because no process there outlives the supervisor, and asking would turn
 * the creator's own lock into a shared one. A reader never hinders a creator: it comes here only after
 * `ready`.
 */
bool segment_owner_lives(const struct segment *segment)
{
    if (segment->writable || segment->fd < 0)
        return true;
    if (flock(segment->fd, LOCK_SH | LOCK_NB) != 0)
        return true;
    flock(segment->fd, LOCK_UN);
    return false;
}

/* Returns the process ID of the supervisor that holds the flock on this shared memory object, 0 if it
 * is not known. A starting supervisor names it in its message. A line of /proc/locks is "1: FLOCK
 * ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF". */
static int find_lock_holder(int fd)
{
    struct stat status;
    FILE *locks_file = fstat(fd, &status) == 0 ? fopen("/proc/locks", "re") : NULL;
    char line[256];
    int holder_pid = 0;
    while (locks_file != NULL && holder_pid == 0 && fgets(line, sizeof line, locks_file) != NULL) {
        int lock_pid;
        unsigned device_major, device_minor;
        unsigned long long inode;
        if (sscanf(line, "%*s FLOCK %*s WRITE %d %x:%x:%llu", &lock_pid, &device_major, &device_minor,
                   &inode) == 4 &&
            inode == status.st_ino && device_major == major(status.st_dev) &&
            device_minor == minor(status.st_dev))
            holder_pid = lock_pid;
    }
    if (locks_file != NULL)
        fclose(locks_file);
    return holder_pid;
}

/* Whether a running supervisor, of any version, owns the shared memory segment of this name; *pid becomes
 * its process ID, or 0 if that is not known. A starting supervisor calls it when it cannot read the
 * segment. Looks only at the file lock that a supervisor holds for life, never at the content. */
bool segment_is_held(const char *instance, int *pid)
{
    *pid = 0;
    if (segment_name_check(instance) != 0)
        return false;
    char name[SHM_NAME_BYTES + 16];
    segment_name(instance, name, sizeof name);
    int fd = shm_open(name, O_RDONLY, 0);
    if (fd < 0)
        return false;
    const struct segment segment = {.fd = fd};
    bool is_held = segment_owner_lives(&segment);
    if (is_held)
        *pid = find_lock_holder(fd);
    close(fd);
    return is_held;
}

/* Unmaps a shared memory segment and closes its descriptor. The segment stays for other processes,
 * until segment_unlink. The command line and the supervisor call it. */
void segment_close(struct segment *segment)
{
    if (segment->header != NULL)
        munmap(segment->header, segment->size_bytes);
    if (segment->fd >= 0)
        close(segment->fd);
    *segment = (struct segment){.fd = -1};
}

/* Removes the shared memory segment of this instance name. Returns 0, also if there is none, or a
 * negative errno. The supervisor calls it at its end; processes that have it mapped may go on. */
int segment_unlink(const char *instance)
{
    int error = segment_name_check(instance);
    if (error != 0)
        return error;
    char name[SHM_NAME_BYTES + 16];
    segment_name(instance, name, sizeof name);
    return shm_unlink(name) == 0 || errno == ENOENT ? 0 : -errno;
}

struct shm_source *segment_source(const struct segment *segment, uint32_t index)
{
    assert(index < segment->header->source_count);
    return (struct shm_source *)(void *)((char *)segment->header + segment->header->source_offset) + index;
}

struct shm_stage *segment_stage(const struct segment *segment, uint32_t index)
{
    assert(index < segment->header->stage_count);
    return (struct shm_stage *)(void *)((char *)segment->header + segment->header->stage_offset) + index;
}

struct shm_slot *segment_slot(const struct segment *segment, uint32_t index)
{
    assert(index < segment->header->slot_count);
    return (struct shm_slot *)(void *)((char *)segment->header + segment->header->slot_offset) + index;
}

struct shm_ticket *segment_ticket(const struct segment *segment, uint32_t index)
{
    assert(index < segment->header->ticket_count);
    return (struct shm_ticket *)(void *)((char *)segment->header + segment->header->ticket_offset) + index;
}

struct shm_cause *segment_cause(const struct segment *segment, uint32_t ticket)
{
    assert(ticket < segment->header->ticket_count);
    return (struct shm_cause *)(void *)((char *)segment->header + segment->header->cause_offset) + ticket;
}

static const char *const phase_names[] = {
#define X(name, text) text,
    SHM_PHASES(X)
#undef X
};
static const char *const kind_names[] = {
#define X(name, text) text,
    SHM_KINDS(X)
#undef X
};
static const char *const slot_state_names[] = {
#define X(name, text) text,
    SHM_SLOT_STATES(X)
#undef X
};
static const char *const source_state_names[] = {
#define X(name, text) text,
    SHM_SOURCE_STATES(X)
#undef X
};
static const char *const cause_names[] = {
#define X(name, text) text,
    SHM_CAUSES(X)
#undef X
};

static const char *find_name(const char *const *names, size_t name_count, uint32_t value)
{
    return value < name_count ? names[value] : "unknown";
}

const char *shm_phase_name(uint32_t phase)
{
    return find_name(phase_names, sizeof phase_names / sizeof phase_names[0], phase);
}

const char *shm_kind_name(uint32_t kind)
{
    return find_name(kind_names, sizeof kind_names / sizeof kind_names[0], kind);
}

const char *shm_slot_state_name(uint32_t state)
{
    return find_name(slot_state_names, sizeof slot_state_names / sizeof slot_state_names[0], state);
}

const char *shm_source_state_name(uint32_t state)
{
    return find_name(source_state_names, sizeof source_state_names / sizeof source_state_names[0], state);
}

const char *shm_cause_name(uint32_t cause)
{
    return find_name(cause_names, sizeof cause_names / sizeof cause_names[0], cause);
}
