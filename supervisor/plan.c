/* SPDX-License-Identifier: MIT */
/*
 * The plan of the segment, made from the configuration, and the number of descriptors that it needs. Run
 * by the supervisor once, before it creates the segment.
 */
#include "supervisor/plan.h"

#include <stdlib.h>
#include <sys/resource.h>

#define OTHER_DESCRIPTORS 64

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif

/* Fills in the plan of one source and its stages for the shared memory segment: names, types and sizes.
 * The names stay the configuration's. The supervisor runs it for each source when it plans the segment. */
static void plan_source(const struct source_config *config, struct segment_stage_plan *stages,
                        struct segment_source_plan *source)
{
    for (size_t i = 0; i < config->stage_count; i++) {
        const struct stage_config *stage = &config->stages[i];
        stages[i] = (struct segment_stage_plan){
            .name = stage->name,
            .type = config_stage_type_name(stage->type),
            .concurrency = stage->concurrency,
            .input_buffer = stage->input_buffer,
            .timeout_ms = stage->timeout_ms,
        };
    }
    *source = (struct segment_source_plan){
        .id = config->id,
        .type = config_source_type_name(config->type),
        .stages = stages,
        .stage_count = (uint32_t)config->stage_count,
    };
}

/* Makes the plan of the shared memory segment from the configuration, whose names it borrows. The
 * supervisor calls it once at its start. Returns 0, or EP_ENOMEM with nothing to close. */
int plan_open(struct plan *plan, const struct config *config)
{
    size_t stage_count = 0;
    for (size_t i = 0; i < config->source_count; i++)
        stage_count += config->sources[i].stage_count;
    struct segment_source_plan *source_plans = calloc(config->source_count + 1, sizeof *source_plans);
    struct segment_stage_plan *stage_plans = calloc(stage_count + 1, sizeof *stage_plans);
    if (source_plans == NULL || stage_plans == NULL) {
        free(source_plans);
        free(stage_plans);
        return EP_ENOMEM;
    }
    size_t first_stage = 0;
    for (size_t i = 0; i < config->source_count; i++) {
        plan_source(&config->sources[i], stage_plans + first_stage, &source_plans[i]);
        first_stage += config->sources[i].stage_count;
    }
    *plan = (struct plan){
        .segment = {.instance = config->instance,
                    .version = PACKAGE_VERSION,
                    .store_url = config->storage,
                    .sources = source_plans,
                    .source_count = (uint32_t)config->source_count},
        .sources = source_plans,
        .stages = stage_plans,
    };
    return 0;
}

void plan_close(struct plan *plan)
{
    free(plan->sources);
    free(plan->stages);
    *plan = (struct plan){0};
}

/* Raises the limit of open files to `count` and 64 more, because the supervisor needs a pipe for each
 * process. It calls this at its start. Returns 0, or EP_ESYSTEM with a message that says which limit to
 * raise. */
int plan_raise_file_limit(uint32_t descriptor_count, struct error *error)
{
    struct rlimit limit;
    rlim_t wanted_files = (rlim_t)descriptor_count + OTHER_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted_files)
        return 0; /* RLIM_INFINITY is the largest value */
    limit.rlim_cur = wanted_files;
    if (limit.rlim_max < wanted_files || setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return base_error_set(
            error, EP_ESYSTEM,
            "the workers need %ju open files, but the limit is %ju: raise it (ulimit -n, LimitNOFILE)",
            (uintmax_t)wanted_files, (uintmax_t)limit.rlim_max);
    return 0;
}
