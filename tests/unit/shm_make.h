/* SPDX-License-Identifier: MIT */
/* Makes a small segment of a test's own: one source "s", `stages` stages of `concurrency` workers, `limit` as
 * input buffer. The name goes as soon as it is mapped, so that a test that crashes leaves nothing in /dev/shm.
 */
#ifndef SHM_MAKE_H
#define SHM_MAKE_H

#include "shm/segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FIXTURE_STAGES_MAX 8

static inline void fixture_name(char *buffer, size_t size)
{
    static unsigned number;
    snprintf(buffer, size, "test-%ld-%u", (long)getpid(), number++);
}

static inline int fixture_make(struct segment *segment, uint32_t sources, uint32_t stages,
                               uint32_t concurrency, uint32_t limit, uint32_t tickets)
{
    static const char *const names[FIXTURE_STAGES_MAX] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    struct segment_stage_plan stage_plans[FIXTURE_STAGES_MAX];
    struct segment_source_plan source_plans[FIXTURE_STAGES_MAX];
    char name[64];
    if (stages > FIXTURE_STAGES_MAX || sources > FIXTURE_STAGES_MAX)
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
    fixture_name(name, sizeof name);
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

#endif
