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

/* Whether the list of done stages "a\nb\n" of an event names the stage. Producers, workers and
 * `eventpipe import` use it through process_chain_next. */
bool process_chain_done(const char *done, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = done; *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        if ((size_t)(end - line) == length && memcmp(line, name, length) == 0)
            return true;
        line = *end == '\n' ? end + 1 : end;
    }
    return false;
}

/* Returns the position of the first stage of the source's chain that the event has not done; stage_count =
 * all are. Producers call it when they claim an event, workers after an answer, and `eventpipe import`. */
size_t process_chain_next(const struct source_config *source, const char *done)
{
    size_t position = 0;
    while (position < source->stage_count && process_chain_done(done, source->stages[position].name))
        position++;
    return position;
}

/* Returns the event's list of done stages with one more name, malloc'd; NULL = out of memory. A worker
 * runs it when its stage has processed an event. */
static char *append_done_stage(const char *done, const char *name)
{
    size_t old = strlen(done), added = strlen(name);
    char *text = malloc(old + added + 2);
    if (text == NULL)
        return NULL;
    memcpy(text, done, old);
    memcpy(text + old, name, added);
    memcpy(text + old + added, "\n", 2);
    return text;
}

/* Turns the answer 'processed' of a stage into a change of the store: the event goes to its next stage, or
 * is complete. A worker runs it after the call. */
static int apply_processed(const struct source_config *source, const struct stage_config *stage,
                           const struct store_row *row, struct chain_answer *out)
{
    char *done = append_done_stage(row->done, stage->name);
    if (done == NULL)
        return EP_ENOMEM;
    out->next = process_chain_next(source, done);
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

/* Turns the answer 'not processed' or an error of a stage into a change of the store: a delay for a retry,
 * or dead when the event has no attempts left or is too old. A worker runs it after the call. */
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

/* Turns a stage's answer into the change of its event that the store will commit. A worker calls it after
 * each call of its stage. 0, or EP_ENOMEM. */
int process_chain_answer(const struct source_config *source, size_t position, const struct store_row *row,
                         const struct ep_call *call, uint64_t now_ms, uint32_t random,
                         struct chain_answer *out)
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
