/* SPDX-License-Identifier: MIT */
/* From the numbers that stand in the segment to the words that are stored and shown. Pure. */
#include "src/store/crash.h"

#include "shm/segment.h"

void death_row(const struct shm_death *death, struct store_death *out)
{
    *out = (struct store_death){
        .died_ms = death->died_ms,
        .lived_ms = death->lived_ms,
        .pid = death->pid,
        .code = death->code,
        .event = death->event,
        .kind = death->kind == SHM_KIND_NONE ? "daemon" : shm_kind_name(death->kind),
        .cause = death->cause == SHM_CAUSE_NONE ? "unknown" : shm_cause_name(death->cause),
        .process = death->process,
        .source = death->source,
        .stage = death->stage,
        .uid = death->uid,
        .how = death->how,
        .words = death->words,
    };
}
