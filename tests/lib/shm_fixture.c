/* SPDX-License-Identifier: MIT */
/* Small segments for tests, each of a name of its own. */
#include "tests/lib/shm_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SHM_FIXTURE_STAGES_MAX 8

void shm_fixture_name(char *buffer, size_t size)
{
    static unsigned number;
    snprintf(buffer, size, "test-%ld-%u", (long)getpid(), number++);
}

int shm_fixture_make(struct segment *segment, uint32_t sources, uint32_t stages, uint32_t concurrency,
                     uint32_t limit, uint32_t tickets)
{
    static const char *const names[SHM_FIXTURE_STAGES_MAX] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    struct segment_stage_plan stage_plans[SHM_FIXTURE_STAGES_MAX];
    struct segment_source_plan source_plans[SHM_FIXTURE_STAGES_MAX];
    char name[64];
    if (stages > SHM_FIXTURE_STAGES_MAX || sources > SHM_FIXTURE_STAGES_MAX)
        return -E2BIG;
    for (uint32_t i = 0; i < stages; i++)
        stage_plans[i] = (struct segment_stage_plan){.name = names[i],
                                                     .type = "function",
                                                     .concurrency = concurrency,
                                                     .input_buffer = limit};
    for (uint32_t i = 0; i < sources; i++)
        source_plans[i] = (struct segment_source_plan){.id = names[i],
                                                       .type = "generate",
                                                       .stages = stage_plans,
                                                       .stage_count = stages,
                                                       .ticket_count = tickets};
    shm_fixture_name(name, sizeof name);
    struct segment_plan plan = {.instance = name,
                                .version = "1",
                                .store_url = "memory:",
                                .sources = source_plans,
                                .source_count = sources};
    int error = segment_create(&plan, segment);
    if (error == 0) {
        segment_publish(segment);
        segment_unlink(name);
    }
    return error;
}

struct segment shm_fixture(uint32_t stages, uint32_t concurrency, uint32_t limit, uint32_t tickets)
{
    struct segment segment;
    int error = shm_fixture_make(&segment, 1, stages, concurrency, limit, tickets);
    if (error != 0) {
        fprintf(stderr, "cannot make a segment: error %d\n", -error);
        exit(EXIT_FAILURE);
    }
    return segment;
}
