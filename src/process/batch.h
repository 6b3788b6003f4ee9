/* SPDX-License-Identifier: MIT */
/*
 * A worker's batch: the events it has taken and read, and the answers that wait for their commit. Memory is
 * reused from batch to batch; one thread at a time (the worker's lock).
 */
#ifndef PROCESS_BATCH_H
#define PROCESS_BATCH_H

#include "src/process/chain.h"
#include "src/store/store.h"

/* An event taken from the ring. The texts lie in the batch's arena, by offset, since it may move while it
 * grows. */
struct batch_event {
    uint32_t ticket;
    struct store_event_lock lock;
    bool is_read; /* the texts are there */
    bool is_lost; /* the store says that it is no longer ours */
    size_t uid_offset, data_offset, context_offset, done_offset;
    size_t data_bytes, context_bytes;
    uint32_t attempts, crashes;
    uint64_t arrival_ms;
};

struct batch {
    struct batch_event *events; /* taken; those before `next` have been run */
    size_t count, next, room;
    char *arena;
    size_t arena_used_bytes, arena_bytes;
};

#define BATCH_ARENA_BYTES \
    ((size_t)8 << 20) /* beyond this no further event of the batch is read before these have run */

int process_batch_open(struct batch *batch, size_t room);
/* Forgets the events; frees memory that one huge event needed. */
void process_batch_clear(struct batch *batch);
void process_batch_close(struct batch *batch);
void process_batch_add(struct batch *batch, uint32_t ticket, int64_t event, uint64_t token);
/* Reads the texts of the events from `next` on that are not read yet. 0 or the store's code. */
int process_batch_read(struct batch *batch, struct store *store);
void process_batch_fill_row(const struct batch *batch, const struct batch_event *event,
                            struct store_row *row);

/* Answers that wait for their commit; each owns its texts. */
struct pending_answer {
    uint32_t ticket;
    size_t next;
    char *done, *context, *data, *error;
};
struct pending {
    struct store_answer *answers;
    struct pending_answer *extra; /* parallel to answers */
    size_t count, room;
    uint64_t oldest_ns; /* when the oldest answer was given; 0 = none waits */
};
int process_pending_open(struct pending *pending, size_t room);
/* Takes over the chain answer's and the call's texts. 0 or EP_ENOMEM. */
int process_pending_add(struct pending *pending, uint32_t ticket, struct store_event_lock lock,
                        struct chain_answer *answer, struct ep_call *call, uint64_t now_ns);
void process_pending_truncate(struct pending *pending,
                              size_t count); /* forgets all after the first `count` */
void process_pending_clear(struct pending *pending);
void process_pending_close(struct pending *pending);

#endif
