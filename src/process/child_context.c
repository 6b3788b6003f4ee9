/* SPDX-License-Identifier: MIT */
/* What a child may report: notices to the supervisor, notifications to the keeper. Runs in every child;
 * owns nothing. */
#include "src/process/child_context.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "src/process/keeper.h"

static_assert(sizeof(struct notice) <= PIPE_BUF, "a notice is one atomic write");

/* Tells the supervisor that this child is ready, that it cannot start, or that its source has no more
 * events. Producers, workers and the keeper call it. It is one write to a pipe, so notices of several
 * children never mix. Returns 0, or EP_ESYSTEM if the write failed. */
int process_notice_send(const struct child_context *child, enum notice_kind kind, const char *message)
{
    struct notice notice = {.slot = child->slot, .generation = child->generation, .kind = kind};
    strncpy(notice.message, message, sizeof notice.message - 1);
    ssize_t written;
    do
        written = write(child->notice_fd, &notice, sizeof notice);
    while (written < 0 && errno == EINTR);
    return written == (ssize_t)sizeof notice ? 0 : EP_ESYSTEM;
}

static void write_activity(const struct child_context *child, uint64_t amount)
{
    /* EAGAIN: the counter is full, so the keeper will look. */
    ssize_t ignored = write(child->activity_fd, &amount, sizeof amount);
    (void)ignored;
}

/* Tells the keeper that something changed, so that it reads the totals from the store again. Makes at
 * most one system call until the keeper has read them. Producers and workers call it after a commit,
 * the supervisor after a crash. */
void process_notify_keeper(const struct child_context *child)
{
    struct shm_header *header = child->segment.header;
    if (atomic_load_explicit(&header->activity, memory_order_relaxed) == 0 &&
        atomic_exchange(&header->activity, 1) == 0)
        write_activity(child, KEEPER_ACTIVITY);
}

void process_notify_keeper_wal(const struct child_context *child)
{
    write_activity(child, KEEPER_WAL_GROWN);
}
