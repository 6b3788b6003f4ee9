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

/* Forgets the events of a worker's batch (those it has taken from the ring), and frees its memory if one
 * huge event has made it larger than BATCH_ARENA_BYTES. The worker calls it after it has run the whole
 * batch. */
void process_batch_clear(struct batch *batch)
{
    batch->count = batch->next = batch->arena_used_bytes = 0;
    if (batch->arena_bytes > BATCH_ARENA_BYTES) {
        free(batch->arena);
        batch->arena = NULL;
        batch->arena_bytes = 0;
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

/* Makes room for added_bytes more bytes in the arena, the memory that holds the texts of a worker's batch
 * of events. The memory may move, so its users keep offsets. Returns false if out of memory. The worker
 * runs it for each event that it reads from the store. */
static bool reserve_arena_bytes(struct batch *batch, size_t added_bytes)
{
    size_t new_arena_bytes = batch->arena_bytes > 0 ? batch->arena_bytes : 4096;
    while (new_arena_bytes - batch->arena_used_bytes < added_bytes)
        new_arena_bytes *= 2;
    if (new_arena_bytes == batch->arena_bytes)
        return true;
    char *arena = realloc(batch->arena, new_arena_bytes);
    if (arena == NULL)
        return false;
    batch->arena = arena;
    batch->arena_bytes = new_arena_bytes;
    return true;
}

/* Copies a text into the arena of a worker's batch, adds a NUL, and returns its offset there.
 * reserve_arena_bytes has made room before. The worker runs it for UID, done stages, data and context of
 * each event that it reads from the store. */
static size_t append_arena_text(struct batch *batch, const char *text, size_t bytes)
{
    size_t offset = batch->arena_used_bytes;
    memcpy(batch->arena + offset, text, bytes);
    batch->arena[offset + bytes] = '\0';
    batch->arena_used_bytes += bytes + 1;
    return offset;
}

struct batch_reader {
    struct batch *batch;
    size_t first_index;
    size_t unread_offset; /* index of the first event that found no room, SIZE_MAX = none */
};

/* Copies one event from the store into the worker's batch. Once the texts exceed BATCH_ARENA_BYTES, it
 * copies no more and notes the first event that was not copied, to be read later. store_read calls it in
 * the worker for each row. Returns 0 or EP_ENOMEM. */
static int on_batch_row(size_t index, const struct store_row *row, void *user)
{
    struct batch_reader *reader = user;
    struct batch *batch = reader->batch;
    struct batch_event *event = &batch->events[reader->first_index + index];
    if (batch->arena_used_bytes > BATCH_ARENA_BYTES) {
        if (reader->unread_offset == SIZE_MAX)
            reader->unread_offset = index;
        return 0;
    }
    size_t uid_bytes = strlen(row->uid), done_bytes = strlen(row->done);
    if (!reserve_arena_bytes(batch, uid_bytes + done_bytes + row->data_bytes + row->context_bytes + 4))
        return EP_ENOMEM;
    event->uid_offset = append_arena_text(batch, row->uid, uid_bytes);
    event->done_offset = append_arena_text(batch, row->done, done_bytes);
    event->data_offset = append_arena_text(batch, row->data, row->data_bytes);
    event->context_offset = append_arena_text(batch, row->context, row->context_bytes);
    event->data_bytes = row->data_bytes;
    event->context_bytes = row->context_bytes;
    event->attempts = row->attempts;
    event->crashes = row->crashes;
    event->arrival_ms = row->arrival_ms;
    event->is_read = true;
    return 0;
}

/* Reads the texts of the batch's events from the store, as many as fit into BATCH_ARENA_BYTES. Marks as
 * lost the events whose rows this worker no longer has locked: another process has them now. The worker
 * calls it when the next event of its batch is not read yet. Returns 0 or the store's error code. */
int process_batch_read(struct batch *batch, struct store *store)
{
    size_t first_index = batch->next;
    while (first_index < batch->count && batch->events[first_index].is_read)
        first_index++;
    if (first_index == batch->next)
        batch->arena_used_bytes = 0; /* those read before have been run: their texts are no longer needed */
    struct store_event_lock locks[64];
    while (first_index < batch->count) {
        size_t count = 0;
        while (count < 64 && first_index + count < batch->count) {
            locks[count] = batch->events[first_index + count].lock;
            count++;
        }
        struct batch_reader reader = {.batch = batch, .first_index = first_index, .unread_offset = SIZE_MAX};
        int result = store_read(store, locks, count, on_batch_row, &reader);
        if (result != 0)
            return result;
        bool arena_is_full = reader.unread_offset != SIZE_MAX;
        size_t looked_up_count =
            arena_is_full ? reader.unread_offset : count; /* events before that without a row are not ours */
        for (size_t i = first_index; i < first_index + looked_up_count; i++)
            batch->events[i].is_lost = !batch->events[i].is_read;
        if (arena_is_full)
            return 0;
        first_index += count;
    }
    return 0;
}

/* Fills in *row with an event of the batch; its texts stay in the batch's memory and are valid until
 * the next process_batch_read. The worker calls it right before it runs the stage on the event, or
 * sends it ahead. */
void process_batch_fill_row(const struct batch *batch, const struct batch_event *event, struct store_row *row)
{
    *row = (struct store_row){
        .uid = batch->arena + event->uid_offset,
        .data = batch->arena + event->data_offset,
        .data_bytes = event->data_bytes,
        .context = batch->arena + event->context_offset,
        .context_bytes = event->context_bytes,
        .done = batch->arena + event->done_offset,
        .attempts = event->attempts,
        .crashes = event->crashes,
        .arrival_ms = event->arrival_ms,
    };
}

/* Allocates a worker's list of answers that wait for their commit. The worker calls it once at its
 * start; `room` is how many answers the list can hold (the stage's batch size). Returns 0 or EP_ENOMEM.
 * */
int process_pending_open(struct pending *pending, size_t room)
{
    *pending = (struct pending){.room = room};
    pending->answers = calloc(room, sizeof *pending->answers);
    pending->extra = calloc(room, sizeof *pending->extra);
    return pending->answers == NULL || pending->extra == NULL ? EP_ENOMEM : 0;
}

/* Adds a stage's answer about one event to the worker's answers that wait for their commit; its texts then
 * belong to that list. The worker calls it after each call of the stage. Returns 0, or EP_ENOMEM with
 * nothing added. */
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

/* Keeps the first `count` pending answers, and drops the others with their texts. The worker calls it with
 * 0 after each commit. After a malformed answer in a pipeline (several events sent to a program at once)
 * it drops that pipeline's answers, because it cannot know which event each belongs to. */
void process_pending_truncate(struct pending *pending, size_t count)
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
    process_pending_truncate(pending, 0);
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
