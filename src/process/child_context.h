/* SPDX-License-Identifier: MIT */
/*
 * All that a child receives from the supervisor, and all that it may report to it.
 *
 * The supervisor forks. The child gets this struct by value, with its stderr already on its pipe. It has
 * its slot (state STARTING, pid and generation set by the supervisor), its process group, PR_SET_PDEATHSIG
 * = SIGKILL (checked), default signal dispositions and an empty signal mask. It opens its own store. It
 * never returns: it ends by _exit with one of the codes below.
 *
 * Orders come through the segment (header.phase, paused, the slot's wake word), never by signal. In phase
 * DRAINING a child goes on. In STOPPING it ends cleanly. A worker finishes and commits the current event,
 * gives up the others, and exits 0. The producer waits until all workers of its source are gone, unlocks
 * every event in flight, stores nothing more, and exits 0. The keeper exits last, after a final
 * checkpoint. SIGTERM to a single child does not stop it gracefully: it ends at once and is restarted.
 */
#ifndef PROCESS_CHILD_CONTEXT_H
#define PROCESS_CHILD_CONTEXT_H

#include "shm/segment.h"
#include "src/config/config.h"

enum child_exit {
    CHILD_DONE = 0,
    CHILD_STORE = 70,  /* the store is broken or the wrong one, not merely busy */
    CHILD_OPEN = 71,   /* the stage could not be opened */
    CHILD_BROKEN = 72, /* the program failed: the slot's cause fields say how */
    CHILD_MEMORY = 73
};

enum notice_kind {
    NOTICE_READY = 1,  /* open, and at work */
    NOTICE_FAILED = 2, /* cannot start: the message says why; sent before a CHILD_STORE or CHILD_OPEN exit */
    NOTICE_ENDED = 3   /* producer: shm_source.ended became 1; or, in DRAINING, it ran dry */
};

/* What a child writes to notice_fd: one write, atomic (shorter than PIPE_BUF). */
struct notice {
    uint32_t slot, generation;
    uint32_t kind;
    char message[SHM_TEXT_BYTES];
};

struct child_context {
    struct segment segment;
    const struct config *config;
    uint32_t slot, generation;
    int notice_fd;   /* write end of a pipe shared by all children */
    int activity_fd; /* eventfd, non-blocking: process_notify_keeper writes it, the keeper polls it */
    int keeper_fd;   /* keeper only: its end of a SOCK_SEQPACKET socketpair: admin requests with the client's
                        descriptor */
    int lock_fd;     /* the store's lock, held by inheritance; close-on-exec; a child does not use it */
    bool prepare; /* keeper only: this is the first one: run store_prepare and publish start_number and ids */
    bool until_end; /* library: sources that end make the instance end */
};

void process_producer_main(const struct child_context *child, uint32_t source) __attribute__((noreturn));
void process_worker_main(const struct child_context *child, uint32_t stage)
    __attribute__((noreturn)); /* segment-wide stage index */
void process_keeper_main(const struct child_context *child) __attribute__((noreturn));

/* Tells the keeper that something changed (at most one system call until it has looked). */
void process_notify_keeper(const struct child_context *child);
/* Tells it that the store's WAL has grown and needs a checkpoint now. */
void process_notify_keeper_wal(const struct child_context *child);
int process_notice_send(const struct child_context *child, enum notice_kind kind, const char *message);

#endif
