/* SPDX-License-Identifier: MIT */
/*
 * ep_manager_run, ep_manager_stop, ep_source_run and ep_source_run_and_measure: each run is a supervisor in a
 * process of its own, for one source or for all sources of a manager. Runs in the caller's process, except
 * on_instance_end, which the supervisor's process calls at its end.
 *
 * The figures of a run come back through anonymous shared memory that is mapped before the fork.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/slot.h"
#include "src/base/log.h"
#include "src/library/manager.h"
#include "supervisor/supervisor.h"

struct measured_worker {
    uint64_t items, stage_ns, work_ns;
};

/* What the supervisor's process leaves for the caller. */
struct run_figures {
    uint64_t fetched, completed, removed_by_stage;
    struct measured_worker workers[];
};

/* Returns how many workers all stages of a configuration have. The library caller's process allocates
 * the metrics of a run with it. */
static size_t count_workers(const struct config *config)
{
    size_t worker_count = 0;
    for (size_t i = 0; i < config->source_count; i++)
        for (size_t j = 0; j < config->sources[i].stage_count; j++)
            worker_count += config->sources[i].stages[j].concurrency;
    return worker_count;
}

/* Copies the figures of a run out of its segment, which is removed then, into memory that the library's
 * caller shares. The supervisor's process calls it at its end, when all other processes have exited, if
 * the caller wants metrics. */
static void on_instance_end(const struct segment *segment, void *user)
{
    struct run_figures *figures = user;
    for (uint32_t i = 0; i < segment->header->source_count; i++) {
        const struct shm_source_totals *totals = &segment_source(segment, i)->totals;
        figures->fetched += atomic_load(&totals->fetched) - atomic_load(&totals->fetched_before);
        figures->completed += atomic_load(&totals->completed) - atomic_load(&totals->completed_before);
        figures->removed_by_stage +=
            atomic_load(&totals->removed_by_stage) - atomic_load(&totals->removed_by_stage_before);
    }
    size_t worker_index = 0;
    for (uint32_t i = 0; i < segment->header->stage_count; i++) {
        const struct shm_stage *stage = segment_stage(segment, i);
        for (uint32_t j = 0; j < stage->concurrency; j++, worker_index++) {
            const struct shm_slot *slot = segment_slot(segment, stage->first_slot + j);
            figures->workers[worker_index] =
                (struct measured_worker){atomic_load(&slot->calls), atomic_load(&slot->busy_ns),
                                         atomic_load(&slot->work_ns)};
        }
    }
}

struct config_check {
    struct error *error;
    bool has_failed;
};

/* Keeps the first problem of the configuration as the error of the manager, which the library's caller
 * gets from ep_manager_run or ep_source_run. Without it the caller would not learn which setting is
 * wrong. */
static void on_config_problem(const struct config_problem *problem, void *user)
{
    struct config_check *check = user;
    if (!check->has_failed)
        base_error_set(check->error, EP_EINVAL, "%s%s%s", problem->key, problem->key[0] != '\0' ? ": " : "",
                       problem->message);
    check->has_failed = true;
}

/* Asks the forked supervisor of a library run to stop gracefully. */
static void send_stop_to_supervisor(ep_manager *manager)
{
    pid_t pid = atomic_load(&manager->supervisor);
    if (pid > 0)
        kill(pid, SIGTERM);
}

/* Runs in the library caller's process, for ep_manager_run and ep_source_run: checks the configuration,
 * forks a supervisor that runs it, and waits until that exits. Returns 0 or a negative code, with the
 * message in the manager. */
static int run_in_forked_supervisor(ep_manager *manager, const struct config *config,
                                    struct run_figures *figures)
{
    struct error *error = &manager->error;
    struct config_check check = {.error = error};
    if (config_validate(config, on_config_problem, &check) != 0)
        return error->code;
    base_log_open(manager->log_level, manager->log, manager->log_user);
    const struct supervisor_options options = {.config = config,
                                               .until_end = true,
                                               .at_end = figures != NULL ? on_instance_end : NULL,
                                               .user = figures};
    pid_t pid;
    int result_fd;
    int result = supervisor_fork(&options, &pid, &result_fd, error);
    if (result != 0)
        return result;
    atomic_store(&manager->supervisor, pid);
    if (atomic_load(&manager->state) ==
        MANAGER_STOPPING) /* ep_manager_stop came before the process was known */
        send_stop_to_supervisor(manager);
    result = supervisor_wait(pid, result_fd, error);
    atomic_store(&manager->supervisor, 0);
    return result;
}

/* Runs a configuration of the library's manager and returns what the run returned; EP_EBUSY if the
 * manager runs already. `figures` gets the run's figures if it is not NULL. Runs in the library
 * caller's process. */
static int run_if_idle(ep_manager *manager, const struct config *config, struct run_figures *figures)
{
    manager->error = (struct error){0};
    int expected_state = MANAGER_IDLE;
    if (!atomic_compare_exchange_strong(&manager->state, &expected_state, MANAGER_RUNNING))
        return base_error_set(&manager->error, EP_EBUSY, "this manager runs already");
    int result = run_in_forked_supervisor(manager, config, figures);
    atomic_store(&manager->state, MANAGER_IDLE);
    return result;
}

/* Stops a run of the manager gracefully. The library's caller may call it in another thread or a signal
 * handler, while ep_manager_run or ep_source_run blocks. Does nothing if nothing runs. */
void ep_manager_stop(ep_manager *manager)
{
    int expected_state = MANAGER_RUNNING;
    if (manager != NULL && atomic_compare_exchange_strong(&manager->state, &expected_state, MANAGER_STOPPING))
        send_stop_to_supervisor(
            manager); /* if it is not forked yet, run_in_forked_supervisor() sees the state */
}

int ep_manager_run(ep_manager *manager)
{
    return manager == NULL ? EP_EINVAL : run_if_idle(manager, manager->config, NULL);
}

/* Returns a copy of the manager's configuration that lists only this source, because ep_source_run runs
 * one source. Its pointers are the manager's, so it is valid as long as the manager. Runs in the
 * library caller's process. */
static struct config make_config_of_source(const ep_source *source)
{
    struct config config = *source->manager->config;
    config.sources = &source->manager->config->sources[source->index];
    config.source_count = 1;
    return config;
}

/* Runs one source with its stages until the source has ended or ep_manager_stop is called. The
 * library's caller calls it. Blocks. Returns 0 or a negative code, with the message in the manager. */
int ep_source_run(ep_source *source)
{
    if (source == NULL)
        return EP_EINVAL;
    struct config config = make_config_of_source(source);
    return run_if_idle(source->manager, &config, NULL);
}

/* Makes the struct ep_metrics for the library's caller from the figures that the supervisor has left in
 * shared memory. Returns 0, and *out for ep_metrics_free, or EP_ENOMEM. */
static int make_metrics(const struct config *config, const struct run_figures *figures, uint64_t wall_ns,
                        size_t worker_count, struct ep_metrics **out)
{
    struct ep_metrics *metrics = library_metrics_new(worker_count);
    if (metrics == NULL)
        return EP_ENOMEM;
    metrics->wall_ns = wall_ns;
    metrics->fetched = figures->fetched;
    metrics->completed = figures->completed;
    metrics->removed_by_stage = figures->removed_by_stage;
    const struct source_config *source = &config->sources[0];
    size_t worker_index = 0;
    for (size_t i = 0; i < source->stage_count; i++)
        for (uint32_t j = 0; j < source->stages[i].concurrency; j++, worker_index++) {
            const struct measured_worker *worker = &figures->workers[worker_index];
            metrics->workers[worker_index] =
                (struct ep_worker_metrics){strdup(source->stages[i].name), j, worker->items, worker->stage_ns,
                                           worker->work_ns};
            if (metrics->workers[worker_index].stage == NULL) {
                ep_metrics_free(&metrics);
                return EP_ENOMEM;
            }
        }
    *out = metrics;
    return 0;
}

/* Runs one source as ep_source_run does, and gives the library's caller the figures of the run: events,
 * wall time, and each worker's calls and busy time. The figures come back through memory that is shared
 * with the forked supervisor, because a fork's own memory is lost with it. */
int ep_source_run_and_measure(ep_source *source, struct ep_metrics **out)
{
    if (source == NULL || out == NULL)
        return EP_EINVAL;
    struct config config = make_config_of_source(source);
    size_t worker_count = count_workers(&config);
    size_t figures_bytes = sizeof(struct run_figures) + worker_count * sizeof(struct measured_worker);
    struct run_figures *figures =
        mmap(NULL, figures_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (figures == MAP_FAILED)
        return base_error_set(&source->manager->error, EP_ENOMEM,
                              "out of memory for the metrics of %zu workers", worker_count);
    uint64_t begin_ns = shm_now_ns();
    int result = run_if_idle(source->manager, &config, figures);
    if (result == 0)
        result = make_metrics(&config, figures, shm_now_ns() - begin_ns, worker_count, out);
    munmap(figures, figures_bytes);
    return result;
}
