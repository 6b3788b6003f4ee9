/* SPDX-License-Identifier: MIT */
/*
 * An instance for the tests of the supervisor. Supervisor, segment, tickets and rings are the real ones; its
 * processes run the stand-ins of supervisor_bodies.h.
 */
#ifndef TESTS_LIB_SUPERVISOR_FIXTURE_H
#define TESTS_LIB_SUPERVISOR_FIXTURE_H

#include <unistd.h>

#include "shm/crash_log.h"
#include "shm/ring.h"
#include "shm/slot.h"
#include "shm/ticket.h"
#include "shm/wake.h"
#include "src/base/log.h"
#include "src/control/control.h"
#include "src/process/child_context.h"
#include "src/store/store.h"
#include "supervisor/supervisor.h"
#include "tests/lib/supervisor_bodies.h"
#include "tests/lib/unit.h"
#include "tests/lib/until.h"

#define INSTANCE_PATIENCE_MS 120000

struct instance {
    char directory[80], storage[128], control[128], log_path[128], name[48];
    struct stage_config stages[INSTANCE_STAGES];
    struct source_config source;
    struct config config;
    struct supervisor_options options;
    pid_t pid;
    int result_fd;
    struct segment segment; /* as a reader sees it */
};

extern struct instance instance;

/* A directory, a configuration of one source with two stages, and a world of this many events. */
void instance_prepare(uint32_t events);

/* Forks the supervisor. */
void instance_start(void);

/* Waits for its end; one that does not come to an end is killed, and that is a failure. */
int instance_wait(struct error *error);

/* Waits until it runs. */
bool instance_runs(void);

/* The slot of a worker. */
const struct shm_slot *instance_worker(uint32_t stage, uint32_t index);
bool instance_process_exists(pid_t pid);

/* Whether this is in its log. */
bool instance_log_has(const char *message);

/* How many events have reached their end. */
uint32_t instance_events_done(void);

/* Whatever happened, nothing is left of it. */
void instance_end(void);

/* Sends a request line (and what follows it) and returns the last line of the answer. */
const char *instance_ask(const char *request);

#endif
