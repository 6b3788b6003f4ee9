/* SPDX-License-Identifier: MIT */
/* The metrics of a finished run: allocates, prints and frees them. Runs in the library caller's process. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "src/library/manager.h"

/* Allocates the metrics of a run, all zero, with room for worker_count workers. ep_source_run_and_measure
 * calls this in the library caller's process after the run. Returns NULL if out of memory;
 * ep_metrics_free frees the result. */
struct ep_metrics *library_metrics_new(size_t worker_count)
{
    struct ep_metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics == NULL)
        return NULL;
    metrics->workers = calloc(worker_count > 0 ? worker_count : 1, sizeof *metrics->workers);
    if (metrics->workers == NULL) {
        free(metrics);
        return NULL;
    }
    metrics->worker_count = worker_count;
    return metrics;
}

/* Frees the metrics of a run and sets the pointer to NULL. The library's caller calls this after it has
 * read or printed them. */
void ep_metrics_free(struct ep_metrics **metrics)
{
    if (metrics == NULL || *metrics == NULL)
        return;
    for (size_t i = 0; i < (*metrics)->worker_count; i++)
        free((char *)(*metrics)->workers[i].stage);
    free((*metrics)->workers);
    free(*metrics);
    *metrics = NULL;
}

/* Prints the metrics of a run as a table: a line of totals, then one line for each worker. The library's
 * caller calls this after ep_source_run_and_measure. Returns EP_OK, or EP_ESYSTEM if the stream cannot be
 * written. */
int ep_metrics_print(const struct ep_metrics *metrics, FILE *stream)
{
    double seconds = (double)metrics->wall_ns / 1e9;
    uint64_t finished_count = metrics->completed + metrics->removed_by_stage;
    fprintf(stream,
            "wall %.3f s, fetched %" PRIu64 ", completed %" PRIu64 ", removed %" PRIu64 ", %.0f events/s\n",
            seconds, metrics->fetched, metrics->completed, metrics->removed_by_stage,
            seconds > 0 ? (double)finished_count / seconds : 0.0);
    fprintf(stream, "%-24s %6s %10s %12s %12s %10s %10s\n", "STAGE", "WORKER", "ITEMS", "STAGE ms", "WORK ms",
            "us/ITEM", "WORK us");
    for (size_t i = 0; i < metrics->worker_count; i++) {
        const struct ep_worker_metrics *worker = &metrics->workers[i];
        double item_count = worker->items > 0 ? (double)worker->items : 1.0;
        fprintf(stream, "%-24s %6" PRIu32 " %10" PRIu64 " %12.1f %12.1f %10.1f %10.1f\n", worker->stage,
                worker->worker, worker->items, (double)worker->stage_ns / 1e6, (double)worker->work_ns / 1e6,
                (double)worker->stage_ns / 1e3 / item_count, (double)worker->work_ns / 1e3 / item_count);
    }
    return ferror(stream) ? EP_ESYSTEM : EP_OK;
}
