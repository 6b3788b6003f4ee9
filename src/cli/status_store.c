/* SPDX-License-Identifier: MIT */
/*
 * Reads the state of an instance that does not run from its store. Runs in the command line, on a reader's
 * handle. Values that only living processes have (workers, rings, latencies) stay empty. Events that
 * would be running are ready.
 */
#include <stdlib.h>
#include <string.h>

#include "shm/slot.h"
#include "src/cli/status.h"

struct store_reader {
    struct status *status;
    int64_t *store_ids; /* of the sources, then of the stages being read */
    struct status_source *source;
};

/* Copies a text into an array of `array_bytes` bytes and cuts it if it is too long. The names in the
 * snapshot of `eventpipe status` have fixed sizes. */
static void copy_text_cut(char *array, size_t array_bytes, const char *text)
{
    size_t copied_bytes = strnlen(text, array_bytes - 1);
    memcpy(array, text, copied_bytes);
    array[copied_bytes] = '\0';
}

/* Called for each source in the store, while `eventpipe status` reads the store of an instance that is
 * down: adds the source to the snapshot, and its id to reader->store_ids. Returns 0 or EP_ENOMEM. */
static int on_stored_source(int64_t source_id, const char *source_name, void *user)
{
    struct store_reader *reader = user;
    struct status *status = reader->status;
    int64_t *store_ids = reallocarray(reader->store_ids, status->source_count + 1, sizeof *store_ids);
    if (store_ids == NULL)
        return EP_ENOMEM;
    reader->store_ids = store_ids;
    struct status_source *sources = reallocarray(status->sources, status->source_count + 1, sizeof *sources);
    if (sources == NULL)
        return EP_ENOMEM;
    status->sources = sources;
    store_ids[status->source_count] = source_id;
    struct status_source *source = &sources[status->source_count++];
    *source = (struct status_source){.state = "down"};
    copy_text_cut(source->id, sizeof source->id, source_name);
    return EP_OK;
}

/* Called for each stage of a source in the store, while `eventpipe status` reads the store of an instance
 * that is down: adds the stage to the snapshot, and its id to reader->store_ids. Returns 0 or EP_ENOMEM. */
static int on_stored_stage(int64_t stage_id, const char *stage_name, void *user)
{
    struct store_reader *reader = user;
    struct status_source *source = reader->source;
    int64_t *store_ids = reallocarray(reader->store_ids, source->stage_count + 1, sizeof *store_ids);
    if (store_ids == NULL)
        return EP_ENOMEM;
    reader->store_ids = store_ids;
    struct status_stage *stages = reallocarray(source->stages, source->stage_count + 1, sizeof *stages);
    if (stages == NULL)
        return EP_ENOMEM;
    source->stages = stages;
    store_ids[source->stage_count] = stage_id;
    stages[source->stage_count] = (struct status_stage){.state = "down"};
    copy_text_cut(stages[source->stage_count++].name, sizeof stages->name, stage_name);
    return EP_OK;
}

/* Reads the stages of a source and their totals from the store, for `eventpipe status` while the daemon is
 * down. Returns 0 or an error code of the store. */
static int read_stored_stages(struct store *store, int64_t source_store_id, struct status_source *source)
{
    struct store_reader reader = {.source = source};
    int code = store_each_stage(store, source_store_id, on_stored_stage, &reader);
    for (size_t i = 0; code == EP_OK && i < source->stage_count; i++) {
        struct status_stage *stage = &source->stages[i];
        struct store_stage_totals totals;
        code = store_stage_totals(store, reader.store_ids[i], &totals);
        if (code != EP_OK)
            break;
        stage->processed = totals.processed;
        stage->retried = totals.retried;
        stage->removed = totals.removed;
        stage->rejected = totals.rejected;
        stage->failed = totals.failed;
        stage->crashed = totals.crashed;
    }
    free(reader.store_ids);
    return code;
}

/* Reads a source's totals, cursor and stages from the store, for `eventpipe status` while the daemon is
 * down. Returns 0 or an error code of the store. */
static int read_stored_source(struct store *store, int64_t store_id, struct status_source *source)
{
    struct store_totals totals;
    int code = store_source_totals(store, store_id, &totals);
    if (code == EP_OK)
        code = store_cursor(store, store_id, &source->cursor);
    if (code != EP_OK)
        return code;
    uint64_t now_ms = shm_realtime_ms(), inactive_count = totals.delayed + totals.held + totals.dead;
    source->fetched = totals.fetched;
    source->duplicates = totals.duplicates;
    source->injected = totals.injected;
    source->completed = totals.completed;
    source->removed_by_stage = totals.removed_by_stage;
    source->removed_by_operator = totals.removed_by_operator;
    source->live = totals.live;
    source->delayed = totals.delayed;
    source->held = totals.held;
    source->dead = totals.dead;
    source->ready = totals.live > inactive_count ? totals.live - inactive_count : 0;
    source->oldest_s =
        totals.oldest_ms != 0 && now_ms > totals.oldest_ms ? (now_ms - totals.oldest_ms) / 1000 : 0;
    return read_stored_stages(store, store_id, source);
}

/* Sets the types of a source and its stages from the configuration, for `eventpipe status` while the daemon
 * is down: the store does not have them. They stay empty if `config` is NULL. */
static void set_types_from_config(const struct config *config, struct status_source *source)
{
    for (size_t i = 0; config != NULL && i < config->source_count; i++) {
        const struct source_config *configured = &config->sources[i];
        if (strcmp(configured->id, source->id) != 0)
            continue;
        copy_text_cut(source->type, sizeof source->type, config_source_type_name(configured->type));
        for (size_t j = 0; j < source->stage_count; j++)
            for (size_t k = 0; k < configured->stage_count; k++)
                if (strcmp(configured->stages[k].name, source->stages[j].name) == 0)
                    copy_text_cut(source->stages[j].type, sizeof source->stages[j].type,
                                  config_stage_type_name(configured->stages[k].type));
    }
}

/* Reads the state of an instance that is down from its store, for `eventpipe status`. `store` is NULL if it
 * cannot be opened; then only `down_reason` is reported. Returns 0, or a negative code with a message; the
 * caller closes *out with cli_status_close in both cases. */
int cli_status_read_store(struct store *store, const struct config *config, const char *instance,
                          const char *url, const char *down_reason, struct status *out, struct error *error)
{
    *out = (struct status){.health = STATUS_DOWN, .phase = "stopped"};
    copy_text_cut(out->instance, sizeof out->instance, instance);
    copy_text_cut(out->store_url, sizeof out->store_url, url);
    struct store_reader reader = {.status = out};
    int code = cli_status_add_reason(out, "%s", down_reason);
    if (code == EP_OK && store != NULL) {
        code = store_each_source(store, on_stored_source, &reader);
        for (size_t i = 0; code == EP_OK && i < out->source_count; i++)
            code = read_stored_source(store, reader.store_ids[i], &out->sources[i]);
        if (code == EP_OK)
            code = store_sizes(store, &out->store_bytes, &out->wal_bytes);
    }
    free(reader.store_ids);
    for (size_t i = 0; i < out->source_count; i++)
        set_types_from_config(config, &out->sources[i]);
    if (code == EP_OK)
        return EP_OK;
    return base_error_set(error, code, "%s",
                          code == EP_ENOMEM || store == NULL ? "out of memory" : store_errmsg(store));
}
