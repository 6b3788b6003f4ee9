/* SPDX-License-Identifier: MIT */
/* The segment: what a plan becomes, and what is refused: wrong plans, foreign, unfinished and damaged
 * objects. */
#include "shm/segment.h"
#include "shm/write_lock.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct segment_stage_plan two_stages[] = {
    {.name = "enrich", .type = "exec", .concurrency = 3, .input_buffer = 10, .timeout_ms = 30000},
    {.name = "store", .type = "plugin", .concurrency = 1, .input_buffer = 5},
};
static const struct segment_stage_plan one_stage[] = {
    {.name = "only", .type = "http", .concurrency = 2, .input_buffer = 1000000},
};
static const struct segment_source_plan two_sources[] = {
    {.id = "quakes", .type = "http", .stages = two_stages, .stage_count = 2},
    {.id = "log", .type = "file", .stages = one_stage, .stage_count = 1, .ticket_count = 100},
};

static struct segment_plan plan_for(const char *instance)
{
    return (struct segment_plan){.instance = instance,
                                 .version = "1.0",
                                 .store_url = "sqlite:/tmp/x.db",
                                 .sources = two_sources,
                                 .source_count = 2};
}

static void check_stages(const struct segment *segment)
{
    const struct shm_stage *enrich = segment_stage(segment, 0), *only = segment_stage(segment, 2);
    CU_ASSERT_STRING_EQUAL(enrich->name, "enrich");
    CU_ASSERT_STRING_EQUAL(enrich->type, "exec");
    CU_ASSERT_EQUAL(enrich->timeout_ms, 30000);
    CU_ASSERT_EQUAL(enrich->first_slot, 2);
    CU_ASSERT_EQUAL(enrich->concurrency, 3);
    CU_ASSERT_EQUAL(enrich->ring.size, 1024); /* twice 271 tickets */
    CU_ASSERT_EQUAL(enrich->ring.limit, 10);
    CU_ASSERT_EQUAL(only->source, 1);
    CU_ASSERT_EQUAL(only->position, 0);
    CU_ASSERT_EQUAL(only->ring.size, 256);
    CU_ASSERT_EQUAL(only->ring.limit, 256);
    CU_ASSERT_EQUAL(segment_stage(segment, 1)->position, 1);
    CU_ASSERT_EQUAL(segment_stage(segment, 1)->first_slot, 5);
}

static void test_layout(void)
{
    char name[64];
    struct segment segment;
    shm_fixture_name(name, sizeof name);
    struct segment_plan plan = plan_for(name);
    CU_ASSERT_EQUAL_FATAL(segment_create(&plan, &segment), 0);
    const struct shm_header *header = segment.header;
    CU_ASSERT_TRUE(memcmp(&header->magic, "evtpipe1", 8) == 0);
    CU_ASSERT_EQUAL(header->ready, 0);
    CU_ASSERT_EQUAL(header->source_count, 2);
    CU_ASSERT_EQUAL(header->stage_count, 3);
    CU_ASSERT_EQUAL(header->slot_count, 1 + 1 + 3 + 1 + 1 + 2);
    CU_ASSERT_EQUAL(header->ticket_count, 271 + 100); /* 10 + 5 + 4 workers * 64 */
    CU_ASSERT_EQUAL(header->keeper_slot, 0);
    CU_ASSERT_EQUAL(header->supervisor_pid, getpid());
    CU_ASSERT_STRING_EQUAL(header->instance, name);
    CU_ASSERT_STRING_EQUAL(header->store_url, "sqlite:/tmp/x.db");
    const struct shm_source *log = segment_source(&segment, 1);
    CU_ASSERT_STRING_EQUAL(log->id, "log");
    CU_ASSERT_EQUAL(log->first_stage, 2);
    CU_ASSERT_EQUAL(log->first_ticket, 271);
    CU_ASSERT_EQUAL(log->ticket_count, 100);
    CU_ASSERT_EQUAL(log->producer_slot, 6);
    CU_ASSERT_EQUAL(log->next_due_ms, UINT64_MAX);
    const enum shm_kind kinds[] = {SHM_KIND_KEEPER,   SHM_KIND_PRODUCER, SHM_KIND_WORKER,
                                   SHM_KIND_WORKER,   SHM_KIND_WORKER,   SHM_KIND_WORKER,
                                   SHM_KIND_PRODUCER, SHM_KIND_WORKER,   SHM_KIND_WORKER};
    for (uint32_t i = 0; i < 9; i++)
        CU_ASSERT_EQUAL(segment_slot(&segment, i)->kind, kinds[i]);
    CU_ASSERT_EQUAL(segment_slot(&segment, 4)->index, 2);
    CU_ASSERT_EQUAL(segment_slot(&segment, 8)->stage, 2);
    CU_ASSERT_EQUAL(segment_slot(&segment, 8)->source, 1);
    check_stages(&segment);
    segment_close(&segment);
    CU_ASSERT_EQUAL(segment_unlink(name), 0);
    CU_ASSERT_EQUAL(segment_unlink(name), 0);
}

static void test_parts_apart(void)
{
    struct segment segment = shm_fixture(3, 2, 4, 10);
    char *base = (char *)segment.header;
    memset(segment_cause(&segment, 9), 0xee, sizeof(struct shm_cause)); /* the last before the rings' words */
    memset(segment_ticket(&segment, 9), 0xee, sizeof(struct shm_ticket));
    CU_ASSERT_EQUAL(*(base + segment.header->ring_offset), 0);
    CU_ASSERT_EQUAL(segment_cause(&segment, 0)->kind, 0);
    for (uint32_t i = 0; i < 3; i++) {
        struct shm_ring *ring = &segment_stage(&segment, i)->ring;
        char *message = (char *)ring + ring->words_offset;
        CU_ASSERT_TRUE(message >= base + segment.header->ring_offset);
        CU_ASSERT_TRUE(message + 16 * 8 <= base + segment.size_bytes);
        for (int byte = 0; byte < 16 * 8; byte++)
            CU_ASSERT_EQUAL_FATAL(message[byte], 0);
        memset(message, 0xee, 16 * 8);
    }
    segment_close(&segment);
}

static void test_tickets_for(void)
{
    struct segment_stage_plan small = {.concurrency = 1, .input_buffer = 1};
    struct segment_stage_plan huge[2] = {{.concurrency = 60000, .input_buffer = UINT32_MAX},
                                         {.concurrency = 60000, .input_buffer = UINT32_MAX}};
    CU_ASSERT_EQUAL(segment_tickets_for(&small, 1), 256);
    CU_ASSERT_EQUAL(segment_tickets_for(two_stages, 2), 271);
    CU_ASSERT_EQUAL(segment_tickets_for(huge, 2), 1 << 20);
}

static int create_with(uint32_t stages, uint32_t concurrency, uint32_t buffer, const char *stage_name,
                       uint32_t tickets)
{
    char name[64];
    struct segment segment;
    struct segment_stage_plan *plans = calloc(stages + 1, sizeof *plans);
    for (uint32_t i = 0; i < stages; i++)
        plans[i] = (struct segment_stage_plan){.name = stage_name,
                                               .type = "exec",
                                               .concurrency = concurrency,
                                               .input_buffer = buffer};
    struct segment_source_plan source = {
        .id = "s", .type = "file", .stages = plans, .stage_count = stages, .ticket_count = tickets};
    shm_fixture_name(name, sizeof name);
    struct segment_plan plan = {.instance = name, .sources = &source, .source_count = 1};
    int error = segment_create(&plan, &segment);
    if (error == 0) {
        segment_close(&segment);
        segment_unlink(name);
    } else {
        CU_ASSERT_EQUAL(segment_attach(name, &segment), -ENOENT); /* nothing is left behind */
    }
    free(plans);
    return error;
}

static void test_refused_plans(void)
{
    char long_name[SHM_NAME_BYTES + 1];
    memset(long_name, 'x', sizeof long_name);
    long_name[SHM_NAME_BYTES] = '\0';
    CU_ASSERT_EQUAL(create_with(1, 1, 1, "a", 0), 0);
    CU_ASSERT_EQUAL(create_with(4095, 1, 1, "a", 2), 0);
    CU_ASSERT_EQUAL(create_with(4096, 1, 1, "a", 2), -E2BIG);
    CU_ASSERT_EQUAL(create_with(1, 65532, 1, "a", 2), 0); /* and a keeper and a producer */
    CU_ASSERT_EQUAL(create_with(1, 65533, 1, "a", 2), -E2BIG);
    CU_ASSERT_EQUAL(create_with(1, 1, 1, "a", (1 << 20) + 1), -E2BIG);
    CU_ASSERT_EQUAL(create_with(0, 1, 1, "a", 0), -EINVAL);
    CU_ASSERT_EQUAL(create_with(1, 0, 1, "a", 0), -EINVAL);
    CU_ASSERT_EQUAL(create_with(1, 1, 0, "a", 0), -EINVAL);
    CU_ASSERT_EQUAL(create_with(1, 1, 1, "", 0), -EINVAL);
    CU_ASSERT_EQUAL(create_with(1, 1, 1, long_name, 0), -ENAMETOOLONG);
    CU_ASSERT_EQUAL(segment_name_check("quakes"), 0);
    CU_ASSERT_EQUAL(segment_name_check(""), -EINVAL);
    CU_ASSERT_EQUAL(segment_name_check("a/b"), -EINVAL);
    CU_ASSERT_EQUAL(segment_name_check(long_name), -ENAMETOOLONG);
}

static void test_attach(void)
{
    char name[64], object[80];
    struct segment segment, reader = {.fd = -7};
    struct stat status;
    shm_fixture_name(name, sizeof name);
    segment_name(name, object, sizeof object);
    CU_ASSERT_EQUAL(segment_attach(name, &reader), -ENOENT);
    struct segment_plan plan = plan_for(name);
    mode_t mask = umask(0);
    CU_ASSERT_EQUAL_FATAL(segment_create(&plan, &segment), 0);
    umask(mask);
    CU_ASSERT_EQUAL(fstat(segment.fd, &status), 0);
    CU_ASSERT_EQUAL(status.st_mode & 0777, 0600);
    CU_ASSERT_TRUE((uint64_t)status.st_blocks * 512 >= segment.size_bytes); /* its space is there */
    CU_ASSERT_EQUAL(segment_attach(name, &reader), -EAGAIN);
    CU_ASSERT_EQUAL(reader.fd, -7); /* untouched */
    segment_publish(&segment);
    CU_ASSERT_EQUAL_FATAL(segment_attach(name, &reader), 0);
    CU_ASSERT_FALSE(reader.writable);
    check_stages(&reader);
    atomic_store(&segment.header->phase, SHM_PHASE_DRAINING);
    CU_ASSERT_EQUAL(reader.header->phase, SHM_PHASE_DRAINING);
    segment_close(&reader);
    CU_ASSERT_EQUAL(reader.fd, -1);
    segment_close(&segment);
    segment_unlink(name);
}

static void test_replaced(void)
{
    char name[64];
    struct segment old, fresh, reader;
    shm_fixture_name(name, sizeof name);
    struct segment_plan plan = plan_for(name);
    CU_ASSERT_EQUAL_FATAL(segment_create(&plan, &old), 0);
    segment_publish(&old);
    atomic_store(&old.header->recoveries, 42);
    CU_ASSERT_EQUAL_FATAL(segment_attach(name, &reader), 0);
    CU_ASSERT_EQUAL_FATAL(segment_create(&plan, &fresh), -EBUSY); /* its creator lives */
    segment_close_lock(&old);                                     /* as if it were dead: its flock is gone */
    CU_ASSERT_EQUAL_FATAL(segment_create(&plan, &fresh), 0);
    CU_ASSERT_EQUAL(fresh.header->recoveries, 0);
    CU_ASSERT_EQUAL(reader.header->recoveries, 42); /* who has the old one mapped keeps it */
    segment_close(&reader);
    CU_ASSERT_EQUAL(segment_attach(name, &reader), -EAGAIN);
    segment_close(&old);
    segment_close(&fresh);
    segment_unlink(name);
}

/* The creator is a child that is killed: its flock goes with it, the object stays. */
static void test_owner(void)
{
    char name[64], byte;
    int ready[2];
    struct segment reader;
    shm_fixture_name(name, sizeof name);
    CU_ASSERT_EQUAL_FATAL(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct segment segment;
        struct segment_plan plan = plan_for(name);
        if (segment_create(&plan, &segment) != 0)
            _exit(1);
        segment_publish(&segment);
        if (segment_owner_lives(&segment) && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    CU_ASSERT_EQUAL_FATAL(read(ready[0], &byte, 1), 1);
    CU_ASSERT_EQUAL_FATAL(segment_attach(name, &reader), 0);
    CU_ASSERT_TRUE(segment_owner_lives(&reader));
    CU_ASSERT_TRUE(segment_owner_lives(&reader));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CU_ASSERT_FALSE(segment_owner_lives(&reader));
    CU_ASSERT_STRING_EQUAL(reader.header->instance, name);
    segment_close(&reader);
    segment_unlink(name);
    close(ready[0]);
    close(ready[1]);
}

/* A child that has it mapped outlives the creator: a mapping must not keep the creator's flock. */
static void test_owner_exits_before_child(void)
{
    char name[64], byte;
    int ready[2], end[2];
    struct segment reader;
    shm_fixture_name(name, sizeof name);
    CU_ASSERT_EQUAL_FATAL(pipe(ready), 0);
    CU_ASSERT_EQUAL_FATAL(pipe(end), 0);
    pid_t creator = fork();
    if (creator == 0) {
        struct segment segment;
        struct segment_plan plan = plan_for(name);
        if (segment_create(&plan, &segment) != 0)
            _exit(1);
        segment_publish(&segment);
        if (fork() != 0)
            for (;;)
                pause();
        segment_close_lock(&segment);
        close(end[1]);
        if (write(ready[1], "x", 1) == 1 && read(end[0], &byte, 1) == 0) /* until the test closes its end */
            _exit(0);
        _exit(1);
    }
    CU_ASSERT_EQUAL_FATAL(read(ready[0], &byte, 1), 1);
    CU_ASSERT_EQUAL_FATAL(segment_attach(name, &reader), 0);
    CU_ASSERT_TRUE(segment_owner_lives(&reader));
    kill(creator, SIGKILL);
    waitpid(creator, NULL, 0);
    CU_ASSERT_FALSE(segment_owner_lives(&reader));
    segment_close(&reader);
    segment_unlink(name);
    for (size_t i = 0; i < 2; i++) {
        close(ready[i]);
        close(end[i]);
    }
}

static void test_inherited(void)
{
    struct segment segment = shm_fixture(1, 1, 1, 2);
    int status;
    pid_t child = fork();
    if (child == 0) {
        int fd = segment.fd;
        segment_close_lock(&segment);
        segment_close_lock(&segment);
        bool gone = segment.fd == -1 && fcntl(fd, F_GETFD) == -1;
        atomic_store(&segment.header->phase, SHM_PHASE_STOPPED); /* still mapped */
        _exit(gone ? 0 : 1);
    }
    waitpid(child, &status, 0);
    CU_ASSERT_EQUAL(status, 0);
    CU_ASSERT_EQUAL(segment.header->phase, SHM_PHASE_STOPPED);
    segment_close(&segment);
}

/* What is written at `offset` of a good segment makes segment_attach answer `expected`. */
static void check_damage(size_t offset, const void *bytes, size_t count, int expected)
{
    char name[64];
    struct segment segment, reader;
    shm_fixture_name(name, sizeof name);
    struct segment_plan plan = plan_for(name);
    CU_ASSERT_EQUAL_FATAL(segment_create(&plan, &segment), 0);
    segment_publish(&segment);
    memcpy((char *)segment.header + offset, bytes, count);
    int answer = segment_attach(name, &reader);
    CU_ASSERT_EQUAL(answer, expected);
    if (answer == 0)
        segment_close(&reader);
    segment_close(&segment);
    segment_unlink(name);
}

static void test_damaged(void)
{
    char name[64];
    struct segment segment;
    shm_fixture_name(name, sizeof name);
    struct segment_plan plan = plan_for(name);
    CU_ASSERT_EQUAL_FATAL(segment_create(&plan, &segment), 0);
    size_t source = segment.header->source_offset, stage = segment.header->stage_offset;
    segment_close(&segment);
    segment_unlink(name);
    const uint32_t huge = 0x7fffff00, odd = 48, other_layout = SHM_LAYOUT + 1;
    const uint64_t far = UINT64_MAX - 63, beyond = UINT64_C(1) << 40, crooked = 4097;
    char full[SHM_NAME_BYTES];
    memset(full, 'x', sizeof full);
    check_damage(0, "EVTPIPE1", 8, -EBADMSG);
    check_damage(offsetof(struct shm_header, layout), &other_layout, 4, -EPROTO);
    check_damage(offsetof(struct shm_header, size_bytes), &beyond, 8, -EBADMSG);
    const size_t offsets[] = {offsetof(struct shm_header, source_offset),
                              offsetof(struct shm_header, stage_offset),
                              offsetof(struct shm_header, slot_offset),
                              offsetof(struct shm_header, ticket_offset),
                              offsetof(struct shm_header, cause_offset),
                              offsetof(struct shm_header, ring_offset)};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        check_damage(offsets[i], &far, 8, -EBADMSG);
        check_damage(offsets[i], &beyond, 8, -EBADMSG);
        check_damage(offsets[i], &crooked, 8, -EBADMSG);
    }
    const size_t counts[] = {offsetof(struct shm_header, source_count),
                             offsetof(struct shm_header, stage_count),
                             offsetof(struct shm_header, slot_count),
                             offsetof(struct shm_header, ticket_count)};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        check_damage(counts[i], &huge, 4, -EBADMSG);
    check_damage(offsetof(struct shm_header, keeper_slot), &huge, 4, -EBADMSG);
    check_damage(offsetof(struct shm_header, instance), full, sizeof full, -EBADMSG);
    check_damage(source + offsetof(struct shm_source, first_stage), &huge, 4, -EBADMSG);
    check_damage(source + offsetof(struct shm_source, ticket_count), &huge, 4, -EBADMSG);
    check_damage(source + offsetof(struct shm_source, producer_slot), &huge, 4, -EBADMSG);
    check_damage(source + offsetof(struct shm_source, id), full, sizeof full, -EBADMSG);
    check_damage(stage + offsetof(struct shm_stage, source), &huge, 4, -EBADMSG);
    check_damage(stage + offsetof(struct shm_stage, concurrency), &huge, 4, -EBADMSG);
    check_damage(stage + offsetof(struct shm_stage, name), full, sizeof full, -EBADMSG);
    check_damage(stage + offsetof(struct shm_stage, ring.size), &odd, 4, -EBADMSG);
    check_damage(stage + offsetof(struct shm_stage, ring.words_offset), &far, 8, -EBADMSG);
    check_damage(stage + offsetof(struct shm_stage, ring.words_offset), &beyond, 8, -EBADMSG);
}

static void test_foreign(void)
{
    char name[64], object[80], junk[sizeof(struct shm_header) + 100];
    struct segment reader;
    shm_fixture_name(name, sizeof name);
    segment_name(name, object, sizeof object);
    int fd = shm_open(object, O_RDWR | O_CREAT | O_EXCL, 0600);
    CU_ASSERT_TRUE_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(segment_attach(name, &reader), -EAGAIN); /* as its creator has it for an instant */
    memset(junk, 0x5a, sizeof junk);
    CU_ASSERT_EQUAL(write(fd, junk, 100), 100);
    CU_ASSERT_EQUAL(segment_attach(name, &reader), -EBADMSG);
    CU_ASSERT_EQUAL(write(fd, junk, sizeof junk), (ssize_t)sizeof junk);
    CU_ASSERT_EQUAL(segment_attach(name, &reader), -EBADMSG);
    close(fd);
    segment_unlink(name);
}

/* A segment cut short by somebody, and one larger than it says. */
static void test_cut(void)
{
    char name[64];
    struct segment segment, reader;
    shm_fixture_name(name, sizeof name);
    struct segment_plan plan = plan_for(name);
    CU_ASSERT_EQUAL_FATAL(segment_create(&plan, &segment), 0);
    segment_publish(&segment);
    off_t size = (off_t)segment.size_bytes;
    const off_t sizes[] = {size - 4096, size + 4096, (off_t)sizeof(struct shm_header) + 64, 100};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        CU_ASSERT_EQUAL(ftruncate(segment.fd, sizes[i]), 0);
        CU_ASSERT_EQUAL(segment_attach(name, &reader), -EBADMSG);
    }
    segment_close(&segment);
    segment_unlink(name);
}

static void test_names(void)
{
    CU_ASSERT_STRING_EQUAL(shm_phase_name(SHM_PHASE_STOPPED), "stopped");
    CU_ASSERT_STRING_EQUAL(shm_kind_name(SHM_KIND_KEEPER), "keeper");
    CU_ASSERT_STRING_EQUAL(shm_slot_state_name(SHM_SLOT_EMPTY), "down");
    CU_ASSERT_STRING_EQUAL(shm_slot_state_name(SHM_SLOT_STOPPING), "stopping");
    CU_ASSERT_STRING_EQUAL(shm_source_state_name(SHM_SOURCE_ENDED), "ended");
    CU_ASSERT_STRING_EQUAL(shm_cause_name(SHM_CAUSE_TIMEOUT), "timeout");
    CU_ASSERT_STRING_EQUAL(shm_cause_name(99), "unknown");
}

UNIT_MAIN("segment", {"what a plan becomes", test_layout}, {"its parts do not touch", test_parts_apart},
          {"tickets for stages", test_tickets_for}, {"plans that are refused", test_refused_plans},
          {"attached read-only, once it is ready", test_attach}, {"replaced, never changed", test_replaced},
          {"whether its owner lives", test_owner},
          {"owner crashes before a child", test_owner_exits_before_child},
          {"inherited without the descriptor", test_inherited}, {"damage is found", test_damaged},
          {"foreign objects are refused", test_foreign}, {"so is another size", test_cut},
          {"names", test_names})
