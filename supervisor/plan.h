/* SPDX-License-Identifier: MIT */
/* What the segment is to hold, as the configuration says. */
#ifndef SUPERVISOR_PLAN_H
#define SUPERVISOR_PLAN_H

#include "shm/segment.h"
#include "src/config/config.h"

struct plan {
    struct segment_plan segment;
    struct segment_source_plan *sources;
    struct segment_stage_plan *stages; /* of all sources */
};

/* Borrows its names from the configuration. 0 or EP_ENOMEM; nothing to close then. */
int plan_open(struct plan *plan, const struct config *config);
void plan_close(struct plan *plan);

/* Makes room for so many descriptors besides our own few. 0 or EP_ESYSTEM with a message. */
int plan_descriptors(uint32_t count, struct error *error);

#endif
