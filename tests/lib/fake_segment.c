/* SPDX-License-Identifier: MIT */
/* A segment as a supervisor and its children leave it, without them. */
#include "tests/lib/fake_segment.h"

#include <stdio.h>
#include <unistd.h>

char fake_instance[64];

struct shm_slot *fake_worker(const struct segment *segment, uint32_t stage, uint32_t worker)
{
    return segment_slot(segment, segment_stage(segment, stage)->first_slot + worker);
}

void fake_process(struct shm_slot *slot, int32_t pid, enum shm_slot_state state)
{
    slot_open(slot);
    slot_set_pid(slot, pid);
    slot_set_state(slot, state);
}

void fake_create(struct segment *segment)
{
    static const struct segment_stage_plan quakes[] = {
        {.name = "locate", .type = "exec", .concurrency = 2, .input_buffer = 8, .timeout_ms = 30000},
        {.name = "keep", .type = "plugin", .concurrency = 1, .input_buffer = 8},
    };
    static const struct segment_stage_plan web[] = {
        {.name = "only", .type = "http", .concurrency = 1, .input_buffer = 8}};
    static const struct segment_source_plan sources[] = {
        {.id = "quakes", .type = "file", .stages = quakes, .stage_count = 2},
        {.id = "web", .type = "http", .stages = web, .stage_count = 1},
    };
    snprintf(fake_instance, sizeof fake_instance, "fake-%d", (int)getpid());
    const struct segment_plan plan = {.instance = fake_instance,
                                      .version = "0.1.0",
                                      .store_url = "sqlite:/no/such/store.db",
                                      .sources = sources,
                                      .source_count = 2};
    CU_ASSERT_EQUAL_FATAL(segment_create(&plan, segment), 0);
    struct shm_header *header = segment->header;
    header->supervisor_pid = getpid();
    header->started_ns = shm_now_ns();
    atomic_store(&header->heartbeat_ns, shm_now_ns());
    atomic_store(&header->phase, SHM_PHASE_RUNNING);
    for (uint32_t i = 0; i < header->slot_count; i++)
        fake_process(segment_slot(segment, i), 1000 + (int32_t)i, SHM_SLOT_IDLE);
    for (uint32_t i = 0; i < header->source_count; i++)
        atomic_store(&segment_source(segment, i)->state, SHM_SOURCE_FETCHING);
    segment_publish(segment);
}

void fake_destroy(struct segment *segment)
{
    segment_close(segment);
    CU_ASSERT_EQUAL(segment_unlink(fake_instance), 0);
}

uint32_t fake_event(const struct segment *segment, uint32_t source, uint32_t stage, int64_t event,
                    struct shm_slot *worker, uint32_t worker_slot)
{
    const struct shm_source *of = segment_source(segment, source);
    uint32_t hint = 0, ticket = ticket_load(segment, of, of->producer_slot, &hint);
    CU_ASSERT_NOT_EQUAL_FATAL(ticket, SHM_NO_TICKET);
    ticket_bind(segment, ticket, event, 1);
    CU_ASSERT_FATAL(ticket_mark_queued(segment, ticket, of->producer_slot, stage));
    ring_push(segment, &segment_stage(segment, of->first_stage + stage)->ring, ticket);
    struct ticket_view view;
    if (worker != NULL) {
        CU_ASSERT_FATAL(ticket_take(segment, ticket, stage, worker_slot, &view));
        slot_begin_event(worker, ticket, &(struct slot_event){.id = event}, shm_now_ns());
    }
    return ticket;
}
