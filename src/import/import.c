/* SPDX-License-Identifier: MIT */
/*
 * Import: sources of a Go eventpipe's database become sources of ours. Runs in the command line, for
 * eventpipe import. Owns the report on each source. The store owns the transaction; it takes the rows one
 * by one, so that no database is too large.
 *
 * Invariants
 *  1. No source is stored unless all of them can be.
 *  2. An event's `done` lists the configured stages in the chain's order, then by name those that the
 *     configuration lacks: they stay recorded in case they are configured again.
 */
#include "src/import/import.h"

#include <stdlib.h>
#include <string.h>

#include "src/process/chain.h"

/* ---- the plan ---- */

/* Records in the plan of an import which configured source takes the events of one source of the imported
 * file. `eventpipe import` calls it for each source, before it stores anything. Returns 0 or EP_ENOMEM with
 * a message. */
static int add_source_mapping(struct import_plan *plan, const struct import_go_source *file_source,
                              const struct source_config *source, struct error *error)
{
    struct import_mapping *mappings = reallocarray(plan->mappings, plan->mapping_count + 1, sizeof *mappings);
    uint64_t *stage_event_counts = calloc(source->stage_count + 1, sizeof *stage_event_counts);
    if (mappings != NULL)
        plan->mappings = mappings;
    if (mappings == NULL || stage_event_counts == NULL) {
        free(stage_event_counts);
        return base_error_set(error, EP_ENOMEM, "out of memory");
    }
    mappings[plan->mapping_count++] = (struct import_mapping){.from_id = file_source->id,
                                                              .cursor = file_source->cursor,
                                                              .source = source,
                                                              .stage_event_counts = stage_event_counts};
    return 0;
}

/* Returns the source of the configuration that has this id, or NULL. `eventpipe import` looks up each
 * source of the imported file with it, since events can only be imported into configured sources. */
static const struct source_config *find_configured_source(const struct config *config, const char *id)
{
    for (size_t i = 0; i < config->source_count; i++)
        if (strcmp(config->sources[i].id, id) == 0)
            return &config->sources[i];
    return NULL;
}

static void append_name_to_list(struct text *names, const char *name)
{
    base_text_append(names, names->bytes > 0 ? ", " : "");
    base_text_append(names, name);
}

/* Sets and returns the error of an import into a source that the configuration lacks; the message lists the
 * sources that it has. `is_renamed` says that the user gave --as, so the message need not suggest it.
 * `eventpipe import` calls it while it makes its plan. */
static int set_source_not_configured_error(const struct config *config, const char *id, bool is_renamed,
                                           struct error *error)
{
    struct text source_names = {0};
    for (size_t i = 0; i < config->source_count; i++)
        append_name_to_list(&source_names, config->sources[i].id);
    base_error_set(error, EP_ECONFIG,
                   "the configuration has no source \"%s\"; it has %s%s. Nothing was imported", id,
                   source_names.text != NULL ? source_names.text : "none",
                   is_renamed ? ""
                              : " (--source ID imports one source of the file, --as ID under another id)");
    base_text_free(&source_names);
    return error->code;
}

/* Sets and returns the error (EP_ENOENT) of `eventpipe import --source ID` if the imported file has no such
 * source; the message lists the sources that it has. */
static int set_source_not_in_file_error(const struct import_go_source *sources, size_t source_count,
                                        const char *only_source, struct error *error)
{
    struct text source_names = {0};
    for (size_t i = 0; i < source_count; i++)
        append_name_to_list(&source_names, sources[i].id);
    base_error_set(error, EP_ENOENT, "the imported file has no source \"%s\"; it has %s (see --source)",
                   only_source, source_names.text != NULL ? source_names.text : "none");
    base_text_free(&source_names);
    return error->code;
}

/* Decides which source of the Go eventpipe's database becomes which source of the configuration, and stores
 * nothing. `eventpipe import` calls it first, so that a wrong name fails before the store is changed.
 * Returns 0 and *out, which import_close frees, or a negative code with a message. */
int import_make_plan(struct import_go *file, const struct config *config, const char *only_source,
                     const char *new_id, struct import_plan *out, struct error *error)
{
    const struct import_go_source *sources;
    size_t source_count = import_go_list_sources(file, &sources);
    struct import_plan plan = {.file = file};
    int code = 0;
    if (new_id != NULL && only_source == NULL && source_count > 1)
        return base_error_set(error, EP_EINVAL, "--as: the file has %zu sources; choose one with --source",
                              source_count);
    for (size_t i = 0; code == 0 && i < source_count; i++) {
        if (only_source != NULL && strcmp(only_source, sources[i].id) != 0)
            continue;
        const char *id = new_id != NULL ? new_id : sources[i].id;
        const struct source_config *source = find_configured_source(config, id);
        code = source != NULL ? add_source_mapping(&plan, &sources[i], source, error)
                              : set_source_not_configured_error(config, id, new_id != NULL, error);
    }
    if (code == 0 && only_source != NULL && plan.mapping_count == 0)
        code = set_source_not_in_file_error(sources, source_count, only_source, error);
    if (code == 0)
        *out = plan;
    else
        import_close(&plan);
    return code;
}

/* ---- marks ---- */

/* Returns whether the source has a stage of this name in the configuration. `eventpipe import` asks this
 * for each stage that an imported event has done: one that is not configured is reported and stays
 * recorded. */
static bool is_stage_configured(const struct source_config *source, const char *name)
{
    for (size_t i = 0; i < source->stage_count; i++)
        if (strcmp(source->stages[i].name, name) == 0)
            return true;
    return false;
}

static int compare_mark_names(const void *left, const void *right)
{
    return strcmp(((const struct import_mark *)left)->stage, ((const struct import_mark *)right)->stage);
}

static void write_done_stage(struct text *done_list, const char *stage)
{
    base_text_append(done_list, stage);
    base_text_append(done_list, "\n");
}

/* Writes the stages that an imported event has done, one per line, as the store keeps them: first those of
 * the configuration in their order, then the others by name. `eventpipe import` calls it for each row.
 * Returns 0 or EP_ENOMEM. */
static int write_done_list(const struct source_config *source, struct import_row *row, struct text *done_list)
{
    base_text_reset(done_list);
    base_text_append(done_list, "");
    if (row->mark_count > 1)
        qsort(row->marks, row->mark_count, sizeof *row->marks, compare_mark_names);
    for (size_t i = 0; i < source->stage_count; i++)
        for (size_t j = 0; j < row->mark_count; j++)
            if (row->marks[j].done && strcmp(row->marks[j].stage, source->stages[i].name) == 0)
                write_done_stage(done_list, row->marks[j].stage);
    for (size_t j = 0; j < row->mark_count; j++)
        if (row->marks[j].done && !is_stage_configured(source, row->marks[j].stage))
            write_done_stage(done_list, row->marks[j].stage);
    return done_list->failed ? EP_ENOMEM : 0;
}

/* Counts, for the report of `eventpipe import`, an event that has passed, or not passed, a stage which the
 * configuration lacks. Called for each mark of an imported event that names such a stage; the list stays
 * sorted by name. Returns 0 or EP_ENOMEM. */
static int count_unknown_stage(struct import_mapping *mapping, const struct import_mark *mark)
{
    size_t stage_index = 0;
    while (stage_index < mapping->unknown_stage_count &&
           strcmp(mapping->unknown_stages[stage_index].name, mark->stage) < 0)
        stage_index++;
    if (stage_index == mapping->unknown_stage_count ||
        strcmp(mapping->unknown_stages[stage_index].name, mark->stage) != 0) {
        struct import_unknown_stage *larger_list =
            reallocarray(mapping->unknown_stages, mapping->unknown_stage_count + 1, sizeof *larger_list);
        if (larger_list != NULL)
            mapping->unknown_stages = larger_list;
        char *name = strdup(mark->stage);
        if (larger_list == NULL || name == NULL) {
            free(name);
            return EP_ENOMEM;
        }
        memmove(&larger_list[stage_index + 1], &larger_list[stage_index],
                (mapping->unknown_stage_count - stage_index) * sizeof *larger_list);
        larger_list[stage_index] = (struct import_unknown_stage){.name = name};
        mapping->unknown_stage_count++;
    }
    if (mark->done)
        mapping->unknown_stages[stage_index].done_count++;
    else
        mapping->unknown_stages[stage_index].waiting_count++;
    return 0;
}

/* ---- the import itself ---- */

/* Called by the store, inside its transaction, while `eventpipe import` runs: gives it the next event of
 * the imported file, one source after the other. Returns 1 with *out set, 0 when all sources are read, or a
 * negative code. */
static int on_next_row(struct store_import_row *out, void *user)
{
    struct import_plan *plan = user;
    int code = 0;
    if (plan->is_out_of_memory) {
        base_error_set(plan->error, EP_ENOMEM, "out of memory");
        return EP_ENOMEM;
    }
    while (code == 0 && plan->mapping_index < plan->mapping_count) {
        struct import_mapping *mapping = &plan->mappings[plan->mapping_index];
        if (!plan->is_source_selected) {
            code = import_go_select_source(plan->file, mapping->from_id, plan->error);
            plan->is_source_selected = true;
        }
        if (code == 0)
            code = import_go_read_row(plan->file, &plan->row, &plan->is_row_locked, plan->error);
        if (code == 0) {
            plan->mapping_index++;
            plan->is_source_selected = false;
        }
    }
    if (code != 1)
        return code;
    struct import_mapping *mapping = &plan->mappings[plan->mapping_index];
    if (write_done_list(mapping->source, &plan->row, &plan->done_list) != 0) {
        base_error_set(plan->error, EP_ENOMEM, "out of memory");
        return EP_ENOMEM;
    }
    *out = (struct store_import_row){
        .source = mapping->store_id,
        .event = plan->row.event,
        .done = plan->done_list.text,
        .context = plan->row.context.text,
        .context_bytes = plan->row.context.bytes,
    };
    return 1;
}

/* Called by the store after each row of `eventpipe import`: counts the event for the report, as new or
 * known and by the stage it waits for. `is_new` is false if the store had the event already. It has
 * no return value, so it leaves lack of memory to on_next_row to report. */
static void on_row_taken(const struct store_import_row *stored, bool is_new, void *user)
{
    struct import_plan *plan = user;
    struct import_mapping *mapping = &plan->mappings[plan->mapping_index];
    const struct import_row *row = &plan->row;
    if (!is_new) {
        mapping->known_count++;
        return;
    }
    size_t stage_position = process_chain_find_next(mapping->source, stored->done);
    mapping->imported_count++;
    mapping->locked_count += plan->is_row_locked;
    if (stored->event.dead != STORE_REASON_NONE)
        mapping->corrupt_count++;
    else if (stage_position == mapping->source->stage_count)
        mapping->complete_count++;
    else
        mapping->stage_event_counts[stage_position]++;
    for (size_t i = 0; i < row->mark_count; i++)
        if (!is_stage_configured(mapping->source, row->marks[i].stage) &&
            count_unknown_stage(mapping, &row->marks[i]) != 0)
            plan->is_out_of_memory = true;
    if (row->other_uid != NULL && mapping->other_uid_count++ == 0) {
        mapping->first_row_uid = strdup(row->uid);
        mapping->first_event_uid = strdup(row->other_uid);
        plan->is_out_of_memory =
            plan->is_out_of_memory || mapping->first_row_uid == NULL || mapping->first_event_uid == NULL;
    }
}

/* Counts what `eventpipe import --dry-run` would import if the daemon has never started: there is no store
 * yet, so every event is new and every cursor would be set. Returns 0 or a negative code with a message. */
static int run_trial_without_store(struct import_plan *plan)
{
    struct store_import_row row;
    int code;
    while ((code = on_next_row(&row, plan)) == 1)
        on_row_taken(&row, true, plan);
    for (size_t i = 0; i < plan->mapping_count; i++) {
        struct import_mapping *mapping = &plan->mappings[i];
        mapping->is_cursor_set = mapping->cursor != NULL && mapping->cursor[0] != '\0';
    }
    return code;
}

/* Imports all planned sources in one transaction of the store, or with `is_trial` only counts what it would
 * import. `eventpipe import` holds the lock of the store meanwhile, if there is a store, so that no daemon
 * can start. Returns 0, or a negative code with a message; then nothing was stored. */
int import_run(struct import_plan *plan, struct store *store, bool is_trial, uint64_t now_ms,
               struct error *error)
{
    *error = (struct error){0};
    plan->error = error;
    if (store == NULL)
        return run_trial_without_store(plan);
    struct store_import_cursor *cursors = calloc(plan->mapping_count + 1, sizeof *cursors);
    if (cursors == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory");
    for (size_t i = 0; i < plan->mapping_count; i++)
        cursors[i] = (struct store_import_cursor){.source = plan->mappings[i].store_id,
                                                  .cursor = plan->mappings[i].cursor};
    struct store_import request = {
        .next = on_next_row,
        .took = on_row_taken,
        .user = plan,
        .cursors = cursors,
        .cursor_count = plan->mapping_count,
        .now_ms = now_ms,
        .trial = is_trial,
    };
    int code = store_import(store, &request);
    if (code != 0 && error->code == 0) /* otherwise the error is of the file */
        base_error_set(error, code, "%s", store_errmsg(store));
    for (size_t i = 0; i < plan->mapping_count; i++)
        plan->mappings[i].is_cursor_set = code == 0 && cursors[i].set;
    free(cursors);
    return code;
}

/* Frees an import's plan and report. `eventpipe import` calls it after it has printed the report. */
void import_close(struct import_plan *plan)
{
    for (size_t i = 0; i < plan->mapping_count; i++) {
        struct import_mapping *mapping = &plan->mappings[i];
        for (size_t j = 0; j < mapping->unknown_stage_count; j++)
            free(mapping->unknown_stages[j].name);
        free(mapping->unknown_stages);
        free(mapping->stage_event_counts);
        free(mapping->first_row_uid);
        free(mapping->first_event_uid);
    }
    free(plan->mappings);
    import_row_free(&plan->row);
    base_text_free(&plan->done_list);
    *plan = (struct import_plan){0};
}
