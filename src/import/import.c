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

/* Adds a source of the file to the plan of an import: which source of the configuration it becomes.
 * `eventpipe import` runs it for each source before it stores anything. */
static int add_part(struct import *import, const struct import_go_source *from,
                    const struct source_config *source, struct error *error)
{
    struct import_part *parts = reallocarray(import->parts, import->part_count + 1, sizeof *parts);
    uint64_t *at_stage = calloc(source->stage_count + 1, sizeof *at_stage);
    if (parts != NULL)
        import->parts = parts;
    if (parts == NULL || at_stage == NULL) {
        free(at_stage);
        return base_error_set(error, EP_ENOMEM, "out of memory");
    }
    parts[import->part_count++] = (struct import_part){.from = from->id,
                                                       .cursor = from->cursor,
                                                       .source = source,
                                                       .at_stage = at_stage};
    return 0;
}

/* Returns the configured source with this id, or NULL. `eventpipe import` runs it for each source of the
 * file: events are imported only into sources of the configuration. */
static const struct source_config *find_source(const struct config *config, const char *id)
{
    for (size_t i = 0; i < config->source_count; i++)
        if (strcmp(config->sources[i].id, id) == 0)
            return &config->sources[i];
    return NULL;
}

static void append_name(struct text *names, const char *name)
{
    base_text_append(names, names->bytes > 0 ? ", " : "");
    base_text_append(names, name);
}

/* Sets the error of an import into a source that the configuration lacks, with the names that it has.
 * `eventpipe import` runs it while it plans. */
static int report_missing_source(const struct config *config, const char *id, bool renamed,
                                 struct error *error)
{
    struct text names = {0};
    for (size_t i = 0; i < config->source_count; i++)
        append_name(&names, config->sources[i].id);
    base_error_set(error, EP_ECONFIG,
                   "the configuration has no source \"%s\"; it has %s%s. Nothing was imported", id,
                   names.text != NULL ? names.text : "none",
                   renamed ? "" : " (--source ID imports one source of the file, --as ID under another id)");
    base_text_free(&names);
    return error->code;
}

/* Sets the error of an import of a source that the file lacks (--source), with the names that it has.
 * `eventpipe import` runs it while it plans. */
static int report_missing_part(const struct import_go_source *sources, size_t count, const char *only,
                               struct error *error)
{
    struct text names = {0};
    for (size_t i = 0; i < count; i++)
        append_name(&names, sources[i].id);
    base_error_set(error, EP_ENOENT, "the file has no source \"%s\"; it has %s", only,
                   names.text != NULL ? names.text : "none");
    base_text_free(&names);
    return error->code;
}

/* Plans an import: decides which source of the Go eventpipe's file becomes which source of the
 * configuration. Stores nothing. `eventpipe import` calls it first, so that it fails before it changes the
 * store. */
int import_plan(struct import_go *file, const struct config *config, const char *only, const char *as,
                struct import *out, struct error *error)
{
    const struct import_go_source *sources;
    size_t count = import_go_sources(file, &sources);
    struct import import = {.file = file};
    int code = 0;
    if (as != NULL && only == NULL && count > 1)
        return base_error_set(error, EP_EINVAL, "--as: the file has %zu sources; choose one with --source",
                              count);
    for (size_t i = 0; code == 0 && i < count; i++) {
        if (only != NULL && strcmp(only, sources[i].id) != 0)
            continue;
        const char *id = as != NULL ? as : sources[i].id;
        const struct source_config *source = find_source(config, id);
        code = source != NULL ? add_part(&import, &sources[i], source, error)
                              : report_missing_source(config, id, as != NULL, error);
    }
    if (code == 0 && only != NULL && import.part_count == 0)
        code = report_missing_part(sources, count, only, error);
    if (code == 0)
        *out = import;
    else
        import_close(&import);
    return code;
}

/* ---- marks ---- */

/* Whether the configured source has a stage of this name. `eventpipe import` runs it: stages that only the
 * file names are reported, and stay recorded as done. */
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

static void write_done_stage(struct text *done, const char *stage)
{
    base_text_append(done, stage);
    base_text_append(done, "\n");
}

/* Writes the list of stages that an imported event has done, as the store keeps it: those of the chain in
 * order, then the unknown ones by name. `eventpipe import` runs it for each row. */
static int write_done_list(const struct source_config *source, struct import_row *row, struct text *done)
{
    base_text_reset(done);
    base_text_append(done, "");
    if (row->mark_count > 1)
        qsort(row->marks, row->mark_count, sizeof *row->marks, compare_mark_names);
    for (size_t i = 0; i < source->stage_count; i++)
        for (size_t j = 0; j < row->mark_count; j++)
            if (row->marks[j].done && strcmp(row->marks[j].stage, source->stages[i].name) == 0)
                write_done_stage(done, row->marks[j].stage);
    for (size_t j = 0; j < row->mark_count; j++)
        if (row->marks[j].done && !is_stage_configured(source, row->marks[j].stage))
            write_done_stage(done, row->marks[j].stage);
    return done->failed ? EP_ENOMEM : 0;
}

/* Counts, for the import's report, a stage that the file names and the configuration lacks.
 * `eventpipe import` runs it for each such mark of an imported event. 0 or EP_ENOMEM. */
static int count_unknown(struct import_part *part, const struct import_mark *mark)
{
    size_t at = 0;
    while (at < part->unknown_count && strcmp(part->unknown[at].name, mark->stage) < 0)
        at++;
    if (at == part->unknown_count || strcmp(part->unknown[at].name, mark->stage) != 0) {
        struct import_unknown *grown = reallocarray(part->unknown, part->unknown_count + 1, sizeof *grown);
        if (grown != NULL)
            part->unknown = grown;
        char *name = strdup(mark->stage);
        if (grown == NULL || name == NULL) {
            free(name);
            return EP_ENOMEM;
        }
        memmove(&grown[at + 1], &grown[at], (part->unknown_count - at) * sizeof *grown);
        grown[at] = (struct import_unknown){.name = name};
        part->unknown_count++;
    }
    if (mark->done)
        part->unknown[at].done++;
    else
        part->unknown[at].waiting++;
    return 0;
}

/* ---- running ---- */

/* Gives the store the next event of the file to import, source by source. The store calls it in
 * `eventpipe import`, inside its transaction. 1 = a row, 0 = no more, or a code. */
static int on_next_row(struct store_import_row *out, void *user)
{
    struct import *import = user;
    int code = 0;
    if (import->failed) {
        base_error_set(import->error, EP_ENOMEM, "out of memory");
        return EP_ENOMEM;
    }
    while (code == 0 && import->at < import->part_count) {
        struct import_part *part = &import->parts[import->at];
        if (!import->started) {
            code = import_go_start(import->file, part->from, import->error);
            import->started = true;
        }
        if (code == 0)
            code = import_go_next(import->file, &import->row, &import->locked, import->error);
        if (code == 0) {
            import->at++;
            import->started = false;
        }
    }
    if (code != 1)
        return code;
    struct import_part *part = &import->parts[import->at];
    if (write_done_list(part->source, &import->row, &import->done) != 0) {
        base_error_set(import->error, EP_ENOMEM, "out of memory");
        return EP_ENOMEM;
    }
    *out = (struct store_import_row){
        .source = part->store_id,
        .event = import->row.event,
        .done = import->done.text,
        .context = import->row.context.text,
        .context_bytes = import->row.context.bytes,
    };
    return 1;
}

/* Counts in the import's report what became of a row: new or known, and which stage it waits for. The
 * store calls it in `eventpipe import` after each row. */
static void on_row_taken(const struct store_import_row *stored, bool is_new, void *user)
{
    struct import *import = user;
    struct import_part *part = &import->parts[import->at];
    const struct import_row *row = &import->row;
    if (!is_new) {
        part->known++;
        return;
    }
    size_t position = process_chain_next(part->source, stored->done);
    part->imported++;
    part->locked += import->locked;
    if (stored->event.dead != STORE_REASON_NONE)
        part->corrupt++;
    else if (position == part->source->stage_count)
        part->complete++;
    else
        part->at_stage[position]++;
    for (size_t i = 0; i < row->mark_count; i++)
        if (!is_stage_configured(part->source, row->marks[i].stage) &&
            count_unknown(part, &row->marks[i]) != 0)
            import->failed = true;
    if (row->other_uid != NULL && part->other_uids++ == 0) {
        part->other_row = strdup(row->uid);
        part->other_event = strdup(row->other_uid);
        import->failed = import->failed || part->other_row == NULL || part->other_event == NULL;
    }
}

/* Runs a trial (`eventpipe import --dry-run`) before the daemon's first start: there is no store, so every
 * event is new. */
static int run_trial_without_store(struct import *import)
{
    struct store_import_row row;
    int code;
    while ((code = on_next_row(&row, import)) == 1)
        on_row_taken(&row, true, import);
    for (size_t i = 0; i < import->part_count; i++) {
        struct import_part *part = &import->parts[i];
        part->cursor_set = part->cursor != NULL && part->cursor[0] != '\0';
    }
    return code;
}

/* Imports all planned sources in one transaction of the store, or with `trial` only finds out what it
 * would do. `eventpipe import` calls it; it holds the store meanwhile,
 * except in a trial. */
int import_run(struct import *import, struct store *store, bool trial, uint64_t now_ms, struct error *error)
{
    *error = (struct error){0};
    import->error = error;
    if (store == NULL)
        return run_trial_without_store(import);
    struct store_import_cursor *cursors = calloc(import->part_count + 1, sizeof *cursors);
    if (cursors == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory");
    for (size_t i = 0; i < import->part_count; i++)
        cursors[i] = (struct store_import_cursor){.source = import->parts[i].store_id,
                                                  .cursor = import->parts[i].cursor};
    struct store_import all = {
        .next = on_next_row,
        .took = on_row_taken,
        .user = import,
        .cursors = cursors,
        .cursor_count = import->part_count,
        .now_ms = now_ms,
        .trial = trial,
    };
    int code = store_import(store, &all);
    if (code != 0 && error->code == 0) /* otherwise the error is of the file */
        base_error_set(error, code, "%s", store_errmsg(store));
    for (size_t i = 0; i < import->part_count; i++)
        import->parts[i].cursor_set = code == 0 && cursors[i].set;
    free(cursors);
    return code;
}

/* Frees an import's plan and report. `eventpipe import` calls it after it has printed the report. */
void import_close(struct import *import)
{
    for (size_t i = 0; i < import->part_count; i++) {
        struct import_part *part = &import->parts[i];
        for (size_t j = 0; j < part->unknown_count; j++)
            free(part->unknown[j].name);
        free(part->unknown);
        free(part->at_stage);
        free(part->other_row);
        free(part->other_event);
    }
    free(import->parts);
    import_row_free(&import->row);
    base_text_free(&import->done);
    *import = (struct import){0};
}
