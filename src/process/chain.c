/* SPDX-License-Identifier: MIT */
/*
 * Chains of stages, pure: no store, no segment, no clock. Runs in producers (where does an event enter?)
 * and in workers (what does an answer do?).
 *
 * Progress is kept by stage name, so that stages can be added, dropped and reordered between restarts: an
 * event enters at the first stage of the chain that it has not done, wherever that stage is.
 */
#include "src/process/chain.h"
#include "src/base/backoff.h"

#include <stdlib.h>
#include <string.h>

#define LONGEST_DELAY_MS UINT64_C(3155760000000) /* a hundred years: more means never, and would overflow */

/* Returns whether the event's list of done stages ("a\nb\n") contains this stage. Producers and workers
 * ask it to find the stage that an event needs next; so does `eventpipe import`. */
bool process_chain_is_stage_done(const char *done_stages, const char *stage_name)
{
    size_t length = strlen(stage_name);
    for (const char *line = done_stages; *line != '\0';) {
        const char *line_end = strchrnul(line, '\n');
        if ((size_t)(line_end - line) == length && memcmp(line, stage_name, length) == 0)
            return true;
        line = *line_end == '\n' ? line_end + 1 : line_end;
    }
    return false;
}

/* Returns the position of the first stage in the source's chain (its stages, in order) that the event has
 * not done; stage_count if all are done. Producers call it when they claim an event, workers after an
 * answer, and `eventpipe import`. */
size_t process_chain_find_next(const struct source_config *source, const char *done_stages)
{
    size_t position = 0;
    while (position < source->stage_count &&
           process_chain_is_stage_done(done_stages, source->stages[position].name))
        position++;
    return position;
}

/* Returns a copy of the event's list of done stages with one more name, which the caller frees; NULL if
 * out of memory. A worker runs it when its stage has processed an event. */
static char *append_done_stage(const char *done_stages, const char *stage_name)
{
    size_t old_bytes = strlen(done_stages), added_bytes = strlen(stage_name);
    char *text = malloc(old_bytes + added_bytes + 2);
    if (text == NULL)
        return NULL;
    memcpy(text, done_stages, old_bytes);
    memcpy(text + old_bytes, stage_name, added_bytes);
    memcpy(text + old_bytes + added_bytes, "\n", 2);
    return text;
}

/* Turns a stage's answer EP_PROCESSED into a change of the store: the event goes to its next stage, or
 * is complete after its last one. A worker runs it after the call. Returns 0 or EP_ENOMEM. */
static int apply_processed(const struct source_config *source, const struct stage_config *stage,
                           const struct store_row *row, struct chain_answer *out)
{
    char *done = append_done_stage(row->done, stage->name);
    if (done == NULL)
        return EP_ENOMEM;
    out->next = process_chain_find_next(source, done);
    if (out->next == source->stage_count) {
        free(done);
        out->store.change = STORE_COMPLETE;
        return 0;
    }
    out->done = done;
    out->store.done = done;
    out->store.change = STORE_ADVANCE;
    return 0;
}

/* Turns a stage's answer EP_NOT_PROCESSED or EP_ERROR into a change of the store. The event is tried
 * again after a delay; it becomes a dead letter if it has used up max_attempts or is older than
 * max_age. A worker runs it after the call. */
static void apply_not_processed(const struct stage_config *stage, const struct store_row *row,
                                const struct ep_call *call, uint64_t now_ms, uint32_t random,
                                struct store_answer *answer)
{
    uint32_t attempts = row->attempts + 1;
    answer->failed = call->answer == EP_ERROR;
    answer->error = call->reason[0] != '\0' ? call->reason : NULL;
    if (stage->max_attempts > 0 && attempts >= stage->max_attempts) {
        answer->change = STORE_DEAD_LETTER;
        answer->reason = STORE_REASON_EXHAUSTED;
        return;
    }
    if (stage->max_age_ms > 0 && now_ms >= row->arrival_ms + stage->max_age_ms) {
        answer->change = STORE_DEAD_LETTER;
        answer->reason = STORE_REASON_EXPIRED;
        return;
    }
    uint64_t delay_ms = call->retry_after_ms > 0
                            ? call->retry_after_ms
                            : base_backoff_ms(stage->retry.min_ms, stage->retry.max_ms, attempts, random);
    answer->change = STORE_DELAY;
    answer->due_ms = now_ms + (delay_ms < LONGEST_DELAY_MS ? delay_ms : LONGEST_DELAY_MS);
}

/* Turns a stage's answer into the change of its event that the store will commit. A worker calls it
 * after each call of its stage. Returns 0, EP_ENOMEM, or EP_EINVAL for an answer that does not exist.
 * */
int process_chain_apply_answer(const struct source_config *source, size_t position,
                               const struct store_row *row, const struct ep_call *call, uint64_t now_ms,
                               uint32_t random, struct chain_answer *out)
{
    const struct stage_config *stage = &source->stages[position];
    *out = (struct chain_answer){0};
    if (call->new_context != NULL) {
        out->store.context = call->new_context;
        out->store.context_bytes = strlen(call->new_context);
    }
    if (call->new_event != NULL) {
        out->store.data = call->new_event;
        out->store.data_bytes = strlen(call->new_event);
    }
    switch (call->answer) {
    case EP_PROCESSED:
        return apply_processed(source, stage, row, out);
    case EP_REMOVE:
        out->store.change = STORE_REMOVE_BY_STAGE;
        return 0;
    case EP_REJECT:
        out->store.change = STORE_DEAD_LETTER;
        out->store.reason = STORE_REASON_REJECTED;
        out->store.error = call->reason[0] != '\0' ? call->reason : "rejected without a reason";
        return 0;
    case EP_NOT_PROCESSED:
    case EP_ERROR:
        apply_not_processed(stage, row, call, now_ms, random, &out->store);
        return 0;
    }
    return EP_EINVAL;
}
