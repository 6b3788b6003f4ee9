/* SPDX-License-Identifier: MIT */
/*
 * trace: prints the history of an event as far as it is kept: arrival, each stage's answer, crashes,
 * retries, its end. Runs in eventpipe and reads the store itself, whether the daemon is up, hangs or
 * is down.
 *
 * A UID whose events are gone may stand for several events, one after the other or in several sources.
 * Each has its history. The store keeps only a hash of such a UID, so by a chance of 1 in 2^64 it
 * shows another event.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cli/cli.h"
#include "src/cli/status.h"
#include "src/cli/table.h"
#include "src/control/admin.h"

struct store_name {
    int64_t id;
    char *text;
};

struct history {
    struct cli *cli;
    struct store *store;
    struct store_name *names; /* of sources (ids below) and stages */
    size_t source_count, name_count;
    int64_t only_source_id;                          /* this source, 0 = any */
    int64_t last_event;                              /* the one the last step was of */
    size_t step_count, event_count, truncated_count; /* truncated: their beginning is no longer kept */
    struct table table;
};

/* ---- names ---- */

/* Adds a source's or stage's id and name to the list in which `eventpipe trace` looks up the ids of a
 * trace. Returns 0 or EP_ENOMEM. */
static int add_name(struct history *history, int64_t id, const char *text)
{
    struct store_name *names = reallocarray(history->names, history->name_count + 1, sizeof *names);
    if (names == NULL)
        return EP_ENOMEM;
    history->names = names;
    names[history->name_count] = (struct store_name){id, strdup(text)};
    return names[history->name_count].text != NULL ? (history->name_count++, 0) : EP_ENOMEM;
}

/* Called for each source in the store, while `eventpipe trace` reads the names: keeps the name, and the id
 * of the source that the user gave with --source. Returns 0 or EP_ENOMEM. */
static int on_stored_source(int64_t source_id, const char *source_name, void *user)
{
    struct history *history = user;
    const char *wanted_source = history->cli->values[CLI_OPTION_SOURCE];
    history->source_count++;
    if (wanted_source != NULL && strcmp(source_name, wanted_source) == 0)
        history->only_source_id = source_id;
    return add_name(history, source_id, source_name);
}

static int on_stored_stage(int64_t stage_id, const char *stage_name, void *user)
{
    struct history *history = user;
    return add_name(history, stage_id, stage_name);
}

/* Reads the names of all sources, then of all stages from the store. The steps of a trace have only ids,
 * and `eventpipe trace` shows names. Returns 0 or an error code of the store. */
static int read_store_names(struct history *history)
{
    int code = store_each_source(history->store, on_stored_source, history);
    for (size_t i = 0; code == 0 && i < history->source_count; i++)
        code = store_each_stage(history->store, history->names[i].id, on_stored_stage, history);
    return code;
}

/* Returns the name of the source with this id for `eventpipe trace`, or NULL if the store no longer has
 * it. */
static const char *find_source_name(const struct history *history, int64_t id)
{
    for (size_t i = 0; i < history->source_count; i++)
        if (history->names[i].id == id)
            return history->names[i].text;
    return NULL;
}

/* Returns the name of the stage with this id for `eventpipe trace`, or NULL if the step has no stage or the
 * store no longer has it. */
static const char *find_stage_name(const struct history *history, int64_t id)
{
    for (size_t i = history->source_count; i < history->name_count; i++)
        if (history->names[i].id == id)
            return history->names[i].text;
    return NULL;
}

/* ---- a step ---- */

static bool is_arrival(const struct store_trace_step *step)
{
    return step->kind == STORE_TRACE_STEP_FETCHED || step->kind == STORE_TRACE_STEP_INJECTED;
}

/* Returns how the event ended with this step of its trace ("dead", "completed", "removed"), or NULL if it
 * did not end with it. `eventpipe trace` shows it as the result. */
static const char *get_event_end_name(const struct store_trace_step *step)
{
    if (step->reason != STORE_REASON_NONE)
        return "dead";
    switch (step->kind) {
    case STORE_TRACE_STEP_COMPLETED:
        return "completed";
    case STORE_TRACE_STEP_REMOVED_BY_STAGE:
    case STORE_TRACE_STEP_REMOVED_BY_OPERATOR:
        return "removed";
    default:
        return NULL;
    }
}

/* Appends ,"name":value to a JSON object that already has a member; null unless `is_known`. `eventpipe
 * trace --json` writes the numbers of a step with it. */
static void write_number_or_null_member(struct text *out, const char *name, bool is_known, uint64_t value)
{
    base_text_append(out, ",\"");
    base_text_append(out, name);
    base_text_append(out, "\":");
    if (is_known)
        json_write_uint(out, value);
    else
        base_text_append(out, "null");
}

/* Prints one step of an event's history as one JSON line, for `eventpipe trace --json`. Every line has all
 * members; those that the step does not have are null. */
static void print_step_json(const struct history *history, const struct store_trace_step *step)
{
    struct text *out = &history->cli->out;
    const char *uid = history->cli->args[0];
    char time_text[32], due_text[32];
    control_admin_format_time(step->at_ms, time_text, sizeof time_text);
    control_admin_format_time(step->due_ms, due_text, sizeof due_text);
    base_text_append(out, "{\"at\":");
    json_write_string(out, time_text, strlen(time_text));
    control_admin_write_member(out, "step", store_trace_step_name(step->kind));
    control_admin_write_member(out, "source", find_source_name(history, store_event_source(step->event)));
    write_number_or_null_member(out, "number", true, store_event_number(step->event));
    control_admin_write_member(out, "uid", uid);
    control_admin_write_member(out, "stage", find_stage_name(history, step->stage));
    write_number_or_null_member(out, "pid", step->pid != 0, (uint64_t)step->pid);
    write_number_or_null_member(out, "attempt", step->attempt != 0, step->attempt);
    write_number_or_null_member(out, "duration_us", step->duration_us != 0, step->duration_us);
    control_admin_write_member(out, "due", step->due_ms != 0 ? due_text : NULL);
    control_admin_write_member(out, "end", get_event_end_name(step));
    control_admin_write_member(out, "reason",
                               step->reason != STORE_REASON_NONE ? store_reason_name(step->reason) : NULL);
    control_admin_write_member(out, "error", step->error);
    base_text_append(out, "}\n");
}

/* ---- for people ---- */

static const struct table_column step_columns[] = {
    {"AT", false, false, false},    {"STEP", false, false, false},   {"STAGE", false, true, false},
    {"PID", true, false, false},    {"ATTEMPT", true, false, false}, {"DURATION", true, false, false},
    {"RESULT", false, true, false},
};

static void add_text_cell(struct table *table, const char *text)
{
    cli_table_add_cell(table, text != NULL && text[0] != '\0' ? text : "-", NULL);
}

/* Adds a number to the table of `eventpipe trace`; 0, which means that the step has no such number, is
 * shown as "-". */
static void add_number_cell(struct table *table, uint64_t value)
{
    char text[24] = "";
    if (value != 0)
        snprintf(text, sizeof text, "%" PRIu64, value);
    add_text_cell(table, text);
}

/* Fills the RESULT cell of a step in the table of `eventpipe trace`: how the event ended, or when it is
 * tried again, and the error. */
static void add_result_cell(struct table *table, const struct store_trace_step *step)
{
    char due_text[32], text[512];
    const char *event_end = get_event_end_name(step), *error = step->error != NULL ? step->error : "";
    control_admin_format_time(step->due_ms, due_text, sizeof due_text);
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s", event_end != NULL ? event_end : "",
             step->reason != STORE_REASON_NONE ? ", " : "", store_reason_name(step->reason),
             step->due_ms != 0 ? "again at " : "", step->due_ms != 0 ? due_text : "",
             error[0] != '\0' && (event_end != NULL || step->due_ms != 0) ? ": " : "", error);
    add_text_cell(table, text);
}

/* Adds one step of an event's history as a row to the table of `eventpipe trace`. */
static void add_step_row(struct history *history, const struct store_trace_step *step)
{
    struct table *table = &history->table;
    char time_text[32], duration_text[40] = "";
    control_admin_format_time(step->at_ms, time_text, sizeof time_text);
    if (step->duration_us != 0)
        cli_status_format_latency(step->duration_us, duration_text, sizeof duration_text);
    add_text_cell(table, time_text);
    add_text_cell(table, store_trace_step_name(step->kind));
    add_text_cell(table, find_stage_name(history, step->stage));
    add_number_cell(table, (uint64_t)step->pid);
    add_number_cell(table, step->attempt);
    add_text_cell(table, duration_text);
    add_result_cell(table, step);
}

static void print_step_rows(struct history *history)
{
    if (history->table.cell_count > 0)
        cli_table_print(&history->table, &history->cli->out, cli_terminal_width(), 2, true);
}

/* Prints the line above the history of one event in `eventpipe trace`: its UID, source and number. Several
 * events may have had the same UID, and each has its own table. */
static void print_event_heading(struct history *history, const struct store_trace_step *step)
{
    struct text *out = &history->cli->out;
    const char *source = find_source_name(history, store_event_source(step->event));
    char number[64];
    snprintf(number, sizeof number, ", event %" PRIu64, store_event_number(step->event));
    base_text_append(out, history->event_count > 1 ? "\n" : "");
    cli_table_write_text(out, history->cli->args[0], 0);
    base_text_append(out, " of ");
    cli_table_write_text(out, source != NULL ? source : "a source that the store no longer has", 0);
    base_text_append(out, number);
    base_text_append(out, is_arrival(step) ? "\n" : "; the trace no longer has its beginning\n");
}

/* Called for each step that the store has kept of the event, oldest first, while `eventpipe trace` reads
 * it. Prints the step as JSON or adds it to the table; a step of another event begins a new table. Returns
 * 0 or EP_ENOMEM. */
static int on_trace_step(const struct store_trace_step *step, void *user)
{
    struct history *history = user;
    bool as_json = cli_has_option(history->cli, CLI_OPTION_JSON);
    bool is_new_event = history->step_count++ == 0 || step->event != history->last_event;
    history->last_event = step->event;
    if (is_new_event) {
        history->event_count++;
        history->truncated_count += !is_arrival(step);
        if (!as_json) {
            print_step_rows(history);
            print_event_heading(history, step);
        }
    }
    if (as_json)
        print_step_json(history, step);
    else
        add_step_row(history, step);
    return history->cli->out.failed || history->table.failed ? EP_ENOMEM : 0;
}

/* ---- the command ---- */

/* Does the work of `eventpipe trace`: reads the names and the steps from the store, prints them, and says
 * what the store no longer has. Returns an exit status. */
static int print_event_history(struct history *history)
{
    struct cli *cli = history->cli;
    const char *source = cli->values[CLI_OPTION_SOURCE];
    size_t stored_count = 0;
    int code = read_store_names(history);
    if (code == 0 && source != NULL && history->only_source_id == 0) {
        cli_print_message("%s: its store has no source \"%s\"", cli->instance, source);
        return CONTROL_NOTHING;
    }
    cli_table_open(&history->table, step_columns, sizeof step_columns / sizeof step_columns[0]);
    if (code == 0)
        code = store_trace(history->store, history->only_source_id, cli->args[0], on_trace_step, history,
                           &stored_count);
    if (code == 0)
        print_step_rows(history);
    cli_table_close(&history->table);
    if (code != 0) {
        cli_print_message("%s: its store cannot be read: %s", cli->instance,
                          code == EP_ENOMEM ? "out of memory" : store_errmsg(history->store));
        return CONTROL_FAILED;
    }
    if (history->step_count == 0)
        cli_print_message(
            stored_count > 0
                ? "%s: the trace has no steps of \"%s\", but the event is in the store (see eventpipe show)"
                : "%s: the trace has no steps of \"%s\"",
            cli->instance, cli->args[0]);
    else if (history->truncated_count > 0 && cli_has_option(cli, CLI_OPTION_JSON))
        cli_print_message("%s: the trace no longer has the beginning of \"%s\"", cli->instance, cli->args[0]);
    return history->step_count > 0 ? CONTROL_DONE : CONTROL_NOTHING;
}

/* Runs `eventpipe trace UID`, which prints an event's history: arrival, answers of the stages, crashes, its
 * end. Reads the store itself, so it works while the daemon hangs or is down. Returns an exit status. */
int cli_trace(struct cli *cli)
{
    struct history history = {.cli = cli};
    struct store_options options = {.url = cli->store_url, .instance = cli->instance, .readonly = true};
    struct error error = {0};
    if (cli->store_url == NULL) {
        cli_print_message("%s: the location of its store is not known: give -c FILE", cli->instance);
        return CONTROL_FAILED;
    }
    if (store_open(&options, &history.store, &error) != 0) {
        cli_print_message("%s: its store cannot be read: %s", cli->instance, error.message);
        return CONTROL_FAILED;
    }
    int status = print_event_history(&history);
    for (size_t i = 0; i < history.name_count; i++)
        free(history.names[i].text);
    free(history.names);
    store_close(&history.store);
    return status;
}
