/* SPDX-License-Identifier: MIT */
/* Turns a crash record of the shared memory, with its numbers, into the row that is stored and shown. Runs
 * in the keeper and the command line. Pure. */
#include "src/store/crash.h"

#include "shm/segment.h"

void store_crash_row(const struct shm_crash *crash, struct store_crash *out)
{
    *out = (struct store_crash){
        .crashed_ms = crash->crashed_ms,
        .uptime_ms = crash->uptime_ms,
        .pid = crash->pid,
        .code = crash->code,
        .event = crash->event,
        .kind = crash->kind == SHM_KIND_NONE ? "daemon" : shm_kind_name(crash->kind),
        .cause = crash->cause == SHM_CAUSE_NONE ? "unknown" : shm_cause_name(crash->cause),
        .process = crash->process,
        .source = crash->source,
        .stage = crash->stage,
        .uid = crash->uid,
        .how = crash->how,
        .last_output = crash->last_output,
    };
}
