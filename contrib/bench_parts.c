/* SPDX-License-Identifier: MIT */
/* The stages run in workers, the paced source in the producer. */
#include "contrib/bench_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "contrib/bench_tool.h"

#define RETRY_AFTER_MS 500

const char *bench_stage_name(unsigned index)
{
    static char names[BENCH_STAGES_MAX][8];
    snprintf(names[index], sizeof names[index], "s%u", index + 1);
    return names[index];
}

enum ep_answer bench_no_op(ep_call *call, void *state)
{
    (void)call;
    (void)state;
    return EP_PROCESSED;
}

enum ep_answer bench_sleep(ep_call *call, void *state)
{
    const struct bench_work *work = state;
    const struct timespec pause = {(time_t)(work->sleep_ns / BENCH_SECOND_NS),
                                   (long)(work->sleep_ns % BENCH_SECOND_NS)};
    (void)call;
    nanosleep(&pause, NULL);
    return EP_PROCESSED;
}

enum ep_answer bench_refuse_tenth(ep_call *call, void *state)
{
    const struct bench_work *work = state;
    const char *number = strrchr(ep_call_uid(call), '-');
    if (ep_call_attempt(call) > 1 || number == NULL ||
        !bench_stamps_refused(work->stamps, strtoull(number + 1, NULL, 10)))
        return EP_PROCESSED;
    ep_call_set_retry_after(call, RETRY_AFTER_MS);
    return EP_NOT_PROCESSED;
}

static int paced_get(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                     uint64_t wait_ms, ep_page *page)
{
    struct bench_pace *pace = session;
    uint64_t number = cursor != NULL ? strtoull(cursor, NULL, 10) : 0;
    char uid[32], next[24];
    (void)filter;
    (void)limit;
    (void)wait_ms; /* an event is due long before that */
    if (pace->begin_ns == 0)
        pace->begin_ns = bench_now_ns();
    if (number >= pace->stamps->events)
        return EP_END;
    char *payload = malloc(pace->payload_bytes + 3);
    if (payload == NULL)
        return EP_ENOMEM;
    memset(payload, 'x', pace->payload_bytes);
    payload[0] = payload[pace->payload_bytes - 1] = '"';
    payload[pace->payload_bytes] = '\0';
    snprintf(uid, sizeof uid, BENCH_SOURCE "-%" PRIu64, number + 1);
    snprintf(next, sizeof next, "%" PRIu64, number + 1);
    pace->stamps->arrival_ns[number] =
        bench_arrival(pace->begin_ns + (number + 1) * BENCH_SECOND_NS / pace->per_second);
    int code = ep_page_add(page, &(struct ep_event){.uid = uid, .payload = payload});
    if (code == EP_OK)
        code = ep_page_set_cursor(page, next);
    free(payload);
    return code;
}

const struct ep_client bench_paced_client = {.events_get = paced_get};
