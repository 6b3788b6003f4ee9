/* SPDX-License-Identifier: MIT */
/* What a child may tell: notices to the supervisor, nudges to the keeper. Runs in every child; owns nothing.
 */
#include "src/process/child_context.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "src/process/keeper.h"

static_assert(sizeof(struct notice) <= PIPE_BUF, "a notice is one atomic write");

int notice_send(const struct inherit *inherit, enum notice_kind kind, const char *words)
{
    struct notice notice = {.slot = inherit->slot, .generation = inherit->generation, .kind = kind};
    strncpy(notice.words, words, sizeof notice.words - 1);
    ssize_t written;
    do
        written = write(inherit->notice_fd, &notice, sizeof notice);
    while (written < 0 && errno == EINTR);
    return written == (ssize_t)sizeof notice ? 0 : EP_ESYSTEM;
}

static void nudge(const struct inherit *inherit, uint64_t amount)
{
    /* EAGAIN: the counter is full, so the keeper has been told often enough. */
    ssize_t ignored = write(inherit->activity_fd, &amount, sizeof amount);
    (void)ignored;
}

void keeper_nudge(const struct inherit *inherit)
{
    struct shm_header *header = inherit->segment.header;
    if (atomic_load_explicit(&header->activity, memory_order_relaxed) == 0 &&
        atomic_exchange(&header->activity, 1) == 0)
        nudge(inherit, KEEPER_ACTIVITY);
}

void keeper_nudge_log(const struct inherit *inherit)
{
    nudge(inherit, KEEPER_LOG_GROWN);
}
