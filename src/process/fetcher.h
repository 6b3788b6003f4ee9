/* SPDX-License-Identifier: MIT */
/*
 * The fetcher: a thread of the producer that runs its source's functions, so that a fetch that waits for
 * the backend delays nothing else. One fetch at a time. The page goes to the producer's main thread, which
 * owns it from then on.
 */
#ifndef PROCESS_FETCHER_H
#define PROCESS_FETCHER_H

#include <pthread.h>

#include "shm/wake.h"
#include "src/source/source.h"

enum fetcher_state { FETCHER_IDLE, FETCHER_ASKED, FETCHER_FETCHING, FETCHER_ANSWERED };

struct fetcher {
    const struct source_config *config;
    const struct source_ops *ops;
    struct shm_slot *slot; /* woken when there is an answer */
    void *source;          /* the source's state, NULL = not open; fetcher's thread only */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t asked;
    atomic_int state; /* enum fetcher_state */
    atomic_bool abort, quit;
    bool is_source_open; /* under lock: `interrupt` may be called */

    char *cursor; /* of the fetch under way */
    struct page page;
    struct source_failure failure;
    int result;
};

/* 0 or an errno. The source itself is opened by the thread before its first fetch, and again after it failed
 * to open. */
int process_fetcher_open(struct fetcher *fetcher, const struct source_config *config, struct shm_slot *slot);
/* In state IDLE: begins a fetch. cursor is copied. 0 or EP_ENOMEM. */
int process_fetcher_ask(struct fetcher *fetcher, const char *cursor);
/* Makes the running fetch end soon; its answer is dropped. */
void process_fetcher_interrupt(struct fetcher *fetcher);
/* In state ANSWERED: the answer has been used; back to IDLE. */
void process_fetcher_release_page(struct fetcher *fetcher);
/* Ends the thread and closes the source if that takes no longer than wait_ms; otherwise the exit of the
 * process does. */
void process_fetcher_close(struct fetcher *fetcher, uint64_t wait_ms);

#endif
