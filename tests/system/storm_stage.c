/* SPDX-License-Identifier: MIT */
/*
 * The C stage of storm.py: leaves a record of each call in a file of records before it works, as the exec
 * stage in storm_calls.py does, and answers by the same rules.
 *
 * Options: {"records": PATH, "stage": POSITION from 1}; the environment's STORM_START says which start of the
 * daemon it is. The context's `path` has the digits of the stages that are done, 12 for the first two. Some
 * events (their number divided by DEFER leaves the position) are put off at their first attempt.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "src/eventpipe.h"

#define DEFER 64
#define DEFER_MS 10

/* 32 bytes divide a page: a write of one record is done or not, also when its process is killed in it. */
struct record {
    uint64_t time_ns;
    uint32_t number;
    uint16_t stage, start;
    uint32_t attempt, path;
    uint32_t caller, worker;
};
_Static_assert(sizeof(struct record) == 32, "storm_calls.py reads these");

struct storm {
    int records;
    uint16_t stage, start;
};

static int storm_init(const char *options, void **state, char *errbuf, size_t errbuf_size)
{
    struct storm *storm = calloc(1, sizeof *storm);
    cJSON *tree = cJSON_Parse(options);
    const char *records = cJSON_GetStringValue(cJSON_GetObjectItem(tree, "records"));
    const cJSON *stage = cJSON_GetObjectItem(tree, "stage");
    const char *start = getenv("STORM_START");
    int code = EP_EINVAL;
    if (storm != NULL && records != NULL && start != NULL && cJSON_IsNumber(stage)) {
        storm->stage = (uint16_t)stage->valueint;
        storm->start = (uint16_t)strtoul(start, NULL, 10);
        storm->records = open(records, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        code = storm->records >= 0 ? EP_OK : EP_ESYSTEM;
    }
    cJSON_Delete(tree);
    if (code == EP_OK) {
        *state = storm;
    } else {
        snprintf(errbuf, errbuf_size, "cannot use the options %s", options);
        free(storm);
    }
    return code;
}

/* The digits that its uid ends with. */
static uint32_t event_number(const ep_call *call)
{
    const char *uid = ep_call_uid(call), *digits = uid + strlen(uid);
    while (digits > uid && digits[-1] >= '0' && digits[-1] <= '9')
        digits--;
    return (uint32_t)strtoul(digits, NULL, 10);
}

static enum ep_answer storm_process(ep_call *call, void *state)
{
    const struct storm *storm = state;
    cJSON *context = ep_call_context(call);
    const cJSON *path = cJSON_GetObjectItem(context, "path");
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct record record = {
        .time_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
        .number = event_number(call),
        .stage = storm->stage,
        .start = storm->start,
        .attempt = ep_call_attempt(call),
        .path = path != NULL ? (uint32_t)path->valueint : 0,
        .caller = (uint32_t)getpid(),
        .worker = (uint32_t)getpid(),
    };
    if (write(storm->records, &record, sizeof record) != (ssize_t)sizeof record) {
        ep_call_set_reason(call, "the call cannot be recorded");
        return EP_REJECT;
    }
    if (record.attempt == 1 && record.number % DEFER == storm->stage) {
        ep_call_set_retry_after(call, DEFER_MS);
        return EP_NOT_PROCESSED;
    }
    cJSON_DeleteItemFromObject(context, "path");
    cJSON_AddNumberToObject(context, "path", record.path * 10 + storm->stage);
    return EP_PROCESSED;
}

static void storm_fini(void *state)
{
    struct storm *storm = state;
    close(storm->records);
    free(storm);
}

EP_API extern const struct ep_stage ep_plugin_stage;
const struct ep_stage ep_plugin_stage = {
    .abi = EP_STAGE_ABI,
    .name = "storm",
    .init = storm_init,
    .process = storm_process,
    .fini = storm_fini,
};
