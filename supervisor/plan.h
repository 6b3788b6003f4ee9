/* SPDX-License-Identifier: MIT */
/* The plan of the segment: which sources, stages and slots the configuration asks for. */
#ifndef SUPERVISOR_PLAN_H
#define SUPERVISOR_PLAN_H

#include "shm/segment.h"
#include "src/config/config.h"

struct plan {
    struct segment_plan segment;
    struct segment_source_plan *sources;
    struct segment_stage_plan *stages; /* of all sources, in their order */
};

/* Makes the plan, which borrows names from the configuration. 0, or EP_ENOMEM with nothing to close. */
int plan_open(struct plan *plan, const struct config *config);
void plan_close(struct plan *plan);

/* Raises the limit of open files to `count` and a few more. 0, or EP_ESYSTEM with a message. */
int plan_raise_file_limit(uint32_t descriptor_count, struct error *error);

#endif
