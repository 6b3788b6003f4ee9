/* SPDX-License-Identifier: MIT */
/*
 * A worker's batch and its pending answers. Runs in workers; touches neither segment nor clock.
 *
 * Invariants
 *  1. Texts of events are copied out of the store, so no read transaction stays open while a stage runs.
 *  2. Memory is bounded by BATCH_ARENA_BYTES plus one event: a batch of huge events is read a few at a
 *     time. The event at `next` always finds room, so a read always returns it.
 */
#include "src/process/batch.h"

#include <stdlib.h>
#include <string.h>

int process_batch_open(struct batch *batch, size_t room)
{
    *batch = (struct batch){.room = room};
    batch->events = calloc(room, sizeof *batch->events);
    return batch->events == NULL ? EP_ENOMEM : 0;
}

/* Forgets the events of a worker's batch, and frees memory that one huge event needed. The worker calls it
 * after it has run the whole batch. */
void process_batch_clear(struct batch *batch)
{
    batch->count = batch->next = batch->arena_used = 0;
    if (batch->arena_room > BATCH_ARENA_BYTES) {
        free(batch->arena);
        batch->arena = NULL;
        batch->arena_room = 0;
    }
}

void process_batch_close(struct batch *batch)
{
    free(batch->events);
    free(batch->arena);
    *batch = (struct batch){0};
}

void process_batch_add(struct batch *batch, uint32_t ticket, int64_t event, uint64_t token)
{
    batch->events[batch->count++] =
        (struct batch_event){.ticket = ticket, .lock = {.event = event, .token = token}};
}

/* Makes room for so many more bytes in the memory that holds the texts of a worker's batch; it may move.
 * False: out of memory. The worker runs it for each event that it reads from the store. */
static bool reserve_arena(struct batch *batch, size_t bytes)
{
    size_t room = batch->arena_room > 0 ? batch->arena_room : 4096;
    while (room - batch->arena_used < bytes)
        room *= 2;
    if (room == batch->arena_room)
        return true;
    char *arena = realloc(batch->arena, room);
    if (arena == NULL)
        return false;
    batch->arena = arena;
    batch->arena_room = room;
    return true;
}

/* Copies a text with a NUL behind it into the batch's memory, and returns its offset (the memory may move
 * later). The worker runs it for each event that it reads from the store. */
static size_t put_arena_text(struct batch *batch, const char *text, size_t bytes)
{
    size_t at = batch->arena_used;
    memcpy(batch->arena + at, text, bytes);
    batch->arena[at + bytes] = '\0';
    batch->arena_used += bytes + 1;
    return at;
}

struct batch_reader {
    struct batch *batch;
    size_t first;
    size_t full; /* index of the first that found no room, SIZE_MAX = none */
};

/* Copies one event from the store into the worker's batch, or notes that its memory is full. store_read
 * calls it in the worker while it reads the batch. */
static int on_batch_row(size_t index, const struct store_row *row, void *user)
{
    struct batch_reader *reader = user;
    struct batch *batch = reader->batch;
    struct batch_event *event = &batch->events[reader->first + index];
    if (batch->arena_used > BATCH_ARENA_BYTES) {
        if (reader->full == SIZE_MAX)
            reader->full = index;
        return 0;
    }
    size_t uid_bytes = strlen(row->uid), done_bytes = strlen(row->done);
    if (!reserve_arena(batch, uid_bytes + done_bytes + row->data_bytes + row->context_bytes + 4))
        return EP_ENOMEM;
    event->uid = put_arena_text(batch, row->uid, uid_bytes);
    event->done = put_arena_text(batch, row->done, done_bytes);
    event->data = put_arena_text(batch, row->data, row->data_bytes);
    event->context = put_arena_text(batch, row->context, row->context_bytes);
    event->data_bytes = row->data_bytes;
    event->context_bytes = row->context_bytes;
    event->attempts = row->attempts;
    event->crashes = row->crashes;
    event->arrival_ms = row->arrival_ms;
    event->read = true;
    return 0;
}

/* Reads the texts of the batch's events from the store, as many as fit into BATCH_ARENA_BYTES. Events
 * without a row are marked as lost: another process has them. The worker calls it before it runs the stage
 * on them. */
int process_batch_read(struct batch *batch, struct store *store)
{
    size_t first = batch->next;
    while (first < batch->count && batch->events[first].read)
        first++;
    if (first == batch->next)
        batch->arena_used = 0; /* those read before have been run: their texts are no longer needed */
    struct store_event_lock locks[64];
    while (first < batch->count) {
        size_t count = 0;
        while (count < 64 && first + count < batch->count) {
            locks[count] = batch->events[first + count].lock;
            count++;
        }
        struct batch_reader reader = {.batch = batch, .first = first, .full = SIZE_MAX};
        int result = store_read(store, locks, count, on_batch_row, &reader);
        if (result != 0)
            return result;
        bool full = reader.full != SIZE_MAX;
        size_t seen = full ? reader.full : count; /* events before that without a row are not ours */
        for (size_t i = first; i < first + seen; i++)
            batch->events[i].lost = !batch->events[i].read;
        if (full)
            return 0;
        first += count;
    }
    return 0;
}

/* Fills in *row with an event of the batch; its texts stay in the batch's memory. The worker calls it
 * right before it runs the stage on the event. */
void process_batch_row(const struct batch *batch, const struct batch_event *event, struct store_row *row)
{
    *row = (struct store_row){
        .uid = batch->arena + event->uid,
        .data = batch->arena + event->data,
        .data_bytes = event->data_bytes,
        .context = batch->arena + event->context,
        .context_bytes = event->context_bytes,
        .done = batch->arena + event->done,
        .attempts = event->attempts,
        .crashes = event->crashes,
        .arrival_ms = event->arrival_ms,
    };
}

/* Allocates a worker's list of answers that wait for their commit. The worker calls it once at its start;
 * `room` is the stage's batch size. 0 or EP_ENOMEM. */
int process_pending_open(struct pending *pending, size_t room)
{
    *pending = (struct pending){.room = room};
    pending->answers = calloc(room, sizeof *pending->answers);
    pending->extra = calloc(room, sizeof *pending->extra);
    return pending->answers == NULL || pending->extra == NULL ? EP_ENOMEM : 0;
}

/* Adds a stage's answer to those that wait for their commit, and takes over its texts. The worker calls it
 * after each call of the stage. 0 or EP_ENOMEM. */
int process_pending_add(struct pending *pending, uint32_t ticket, struct store_event_lock lock,
                        struct chain_answer *answer, struct ep_call *call, uint64_t now_ns)
{
    struct store_answer *stored = &pending->answers[pending->count];
    struct pending_answer *extra = &pending->extra[pending->count];
    *stored = answer->store;
    stored->lock = lock;
    *extra = (struct pending_answer){.ticket = ticket,
                                     .next = answer->next,
                                     .done = answer->done,
                                     .context = call->new_context,
                                     .data = call->new_event};
    if (stored->error != NULL) {
        extra->error = strdup(stored->error);
        if (extra->error == NULL)
            return EP_ENOMEM;
        stored->error = extra->error;
    }
    call->new_context = call->new_event = NULL;
    answer->done = NULL;
    if (pending->count++ == 0)
        pending->oldest_ns = now_ns;
    return 0;
}

/* Forgets all pending answers after the first `count`, and frees their texts. The worker calls it after a
 * malformed answer in a pipeline, because it cannot know which event each answer belongs to, and for all
 * answers after each commit. */
void process_pending_cut(struct pending *pending, size_t count)
{
    for (size_t i = count; i < pending->count; i++) {
        free(pending->extra[i].done);
        free(pending->extra[i].context);
        free(pending->extra[i].data);
        free(pending->extra[i].error);
    }
    pending->count = count;
    if (count == 0)
        pending->oldest_ns = 0;
}

void process_pending_clear(struct pending *pending)
{
    process_pending_cut(pending, 0);
}

/* Frees a worker's list of pending answers. The worker calls it at its clean stop, after the last commit. */
void process_pending_close(struct pending *pending)
{
    if (pending->extra != NULL)
        process_pending_clear(pending);
    free(pending->answers);
    free(pending->extra);
    *pending = (struct pending){0};
}
