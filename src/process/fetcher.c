/* SPDX-License-Identifier: MIT */
/*
 * The fetcher's thread. Runs in producers; owns the source's state. It touches neither the store nor the
 * segment, except that it wakes the producer's slot when an answer is there.
 *
 * Invariants
 *  1. Page and failure belong to the thread in ASKED and FETCHING, and to the producer's main thread in
 *     ANSWERED and IDLE. `state` is stored with release and read with acquire, so what one thread wrote
 *     before it hands over, the other sees.
 */
#include "src/process/fetcher.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Connects the producer's source to its backend, or starts the source's program or plugin. The producer's
 * fetcher thread runs it before the first fetch, and again if that failed: a slow backend must not block
 * the producer's main thread. Returns 0, or an error code with the message in fetcher->failure. */
static int open_source(struct fetcher *fetcher)
{
    void *source;
    int result = fetcher->ops->open(fetcher->config, &source, &fetcher->failure.error);
    if (result != 0)
        return result;
    pthread_mutex_lock(&fetcher->lock);
    fetcher->source = source;
    fetcher->is_source_open = true;
    pthread_mutex_unlock(&fetcher->lock);
    return 0;
}

/* Opens the source if it is not open, and fetches one page of events into fetcher->page. Leaves 0 or an
 * error code in fetcher->result. Only the producer's fetcher thread runs it, because it may block on
 * the backend. */
static void open_and_fetch_page(struct fetcher *fetcher)
{
    source_page_clear(&fetcher->page);
    fetcher->failure = (struct source_failure){0};
    fetcher->result = fetcher->is_source_open ? 0 : open_source(fetcher);
    if (fetcher->result == 0) {
        const struct fetch fetch = {
            .cursor = fetcher->cursor,
            .limit = fetcher->config->page_size,
            .wait_ms = fetcher->config->long_poll_ms,
            .abort = &fetcher->abort,
        };
        fetcher->result = fetcher->ops->fetch(fetcher->source, &fetch, &fetcher->page, &fetcher->failure);
    }
}

/* The producer's fetcher thread: waits until the main thread asks for a page, fetches it, and wakes the
 * main thread. Closes the source when the producer stops. */
static void *run_fetcher_thread(void *user)
{
    struct fetcher *fetcher = user;
    for (;;) {
        pthread_mutex_lock(&fetcher->lock);
        while (atomic_load(&fetcher->state) != FETCHER_ASKED && !atomic_load(&fetcher->quit))
            pthread_cond_wait(&fetcher->asked, &fetcher->lock);
        pthread_mutex_unlock(&fetcher->lock);
        if (atomic_load(&fetcher->quit))
            break;
        atomic_store_explicit(&fetcher->state, FETCHER_FETCHING, memory_order_release);
        open_and_fetch_page(fetcher);
        atomic_store_explicit(&fetcher->state, FETCHER_ANSWERED, memory_order_release);
        wake_slot(fetcher->slot);
    }
    if (fetcher->is_source_open)
        fetcher->ops->close(fetcher->source);
    return NULL;
}

/* Starts the fetcher thread, which runs the source's functions. The producer calls it once at its start.
 * Returns 0 or an errno. */
int process_fetcher_open(struct fetcher *fetcher, const struct source_config *config, struct shm_slot *slot)
{
    *fetcher = (struct fetcher){.config = config, .ops = source_ops_for(config->type), .slot = slot};
    source_page_open(&fetcher->page);
    pthread_mutex_init(&fetcher->lock, NULL);
    pthread_cond_init(&fetcher->asked, NULL);
    return pthread_create(&fetcher->thread, NULL, run_fetcher_thread, fetcher);
}

/* Asks the fetcher thread for the page that follows the cursor (copied; NULL = from the beginning). The
 * producer's main thread calls it when the last page is stored and fetching is allowed. Returns 0 or
 * EP_ENOMEM. */
int process_fetcher_ask(struct fetcher *fetcher, const char *cursor)
{
    free(fetcher->cursor);
    fetcher->cursor = NULL;
    if (cursor != NULL && (fetcher->cursor = strdup(cursor)) == NULL)
        return EP_ENOMEM;
    pthread_mutex_lock(&fetcher->lock);
    atomic_store(&fetcher->abort, false);
    atomic_store_explicit(&fetcher->state, FETCHER_ASKED, memory_order_release);
    pthread_cond_signal(&fetcher->asked);
    pthread_mutex_unlock(&fetcher->lock);
    return 0;
}

/* Makes the running fetch end soon; its page is dropped. The producer's main thread calls it at a pause,
 * at a stop, or when an operator has changed the cursor. */
void process_fetcher_interrupt(struct fetcher *fetcher)
{
    pthread_mutex_lock(&fetcher->lock);
    atomic_store(&fetcher->abort, true);
    if (fetcher->is_source_open && fetcher->ops->interrupt != NULL)
        fetcher->ops->interrupt(fetcher->source);
    pthread_mutex_unlock(&fetcher->lock);
}

void process_fetcher_release_page(struct fetcher *fetcher)
{
    source_page_clear(&fetcher->page);
    atomic_store_explicit(&fetcher->state, FETCHER_IDLE, memory_order_release);
}

/* Stops the fetcher thread and waits for it at most wait_ms milliseconds: a backend that hangs must not
 * delay the shutdown. If it still hangs then, the exit of the process ends it. The producer calls it at
 * its clean stop. */
void process_fetcher_close(struct fetcher *fetcher, uint64_t wait_ms)
{
    process_fetcher_interrupt(fetcher);
    pthread_mutex_lock(&fetcher->lock);
    atomic_store(&fetcher->quit, true);
    pthread_cond_signal(&fetcher->asked);
    pthread_mutex_unlock(&fetcher->lock);
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += (time_t)(wait_ms / 1000);
    deadline.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    if (pthread_clockjoin_np(fetcher->thread, NULL, CLOCK_MONOTONIC, &deadline) == 0) {
        source_page_clear(&fetcher->page);
        free(fetcher->cursor);
        fetcher->cursor = NULL;
    }
}
