/* SPDX-License-Identifier: MIT */
/*
 * The library's manager and source: a configuration built by calls instead of a file. They live in the
 * library caller's process; supervisor/library.c runs them.
 */
#ifndef LIBRARY_MANAGER_H
#define LIBRARY_MANAGER_H

#include <stdatomic.h>

#include "src/base/error.h"
#include "src/config/config.h"

struct ep_source {
    ep_manager *manager;
    size_t index; /* in manager->config->sources, which may move while sources are added */
};

enum manager_state { MANAGER_IDLE, MANAGER_RUNNING, MANAGER_STOPPING };

struct ep_manager {
    struct config *config;
    ep_source **sources; /* config->source_count of them */
    const struct ep_client *client;
    void *client_user;
    ep_log_function *log;
    void *log_user;
    enum ep_severity log_level;
    struct error error;
    atomic_int state;      /* enum manager_state; one atomic, so that a late stop cannot end the next run */
    atomic_int supervisor; /* pid while it runs, else 0 */
};

/*
 * Makes a configuration with one idefix source from params; the source has no id and no filters. The caller
 * closes it. 0, EP_EINVAL, EP_EACCESS, EP_ENOMEM.
 */
int library_idefix_make_config(const struct ep_idefix_params *params, struct config **out,
                               struct error *error);

/* Allocates metrics with room for worker_count workers; ep_metrics_free frees them. NULL: out of memory. */
struct ep_metrics *library_metrics_new(size_t worker_count);

#endif
