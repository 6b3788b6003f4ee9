/* SPDX-License-Identifier: MIT */
/*
 * trace: one event's story, as far as it is kept: when it came, each stage's answer, crashes and retries, its
 * end. Runs in eventpipe and asks nobody: it reads the store, whether the daemon is up, stuck or down.
 *
 * An UID whose events are gone can have been several events, one after the other, or in several sources: each
 * has its story. The store keeps a hash of such an UID only, so that one in 2^64 would tell of a stranger.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cli/cli.h"
#include "src/cli/status.h"
#include "src/cli/table.h"
#include "src/control/admin.h"

struct name {
    int64_t id;
    char *text;
};

struct story {
    struct cli *cli;
    struct store *store;
    struct name *names; /* of sources (ids below) and stages */
    size_t source_count, name_count;
    int64_t only;                   /* this source, 0 = any */
    int64_t source;                 /* whose stages are being read */
    int64_t event;                  /* the one the last step was of */
    size_t steps, events, headless; /* headless: events whose beginning is no longer kept */
    struct table table;
};

/* ---- names ---- */

static int add_name(struct story *story, int64_t id, const char *text)
{
    struct name *names = reallocarray(story->names, story->name_count + 1, sizeof *names);
    if (names == NULL)
        return EP_ENOMEM;
    story->names = names;
    names[story->name_count] = (struct name){id, strdup(text)};
    return names[story->name_count].text != NULL ? (story->name_count++, 0) : EP_ENOMEM;
}

static int on_source(int64_t id, const char *name, void *user)
{
    struct story *story = user;
    const char *wanted = story->cli->values[CLI_OPTION_SOURCE];
    story->source_count++;
    if (wanted != NULL && strcmp(name, wanted) == 0)
        story->only = id;
    return add_name(story, id, name);
}

static int on_stage(int64_t id, const char *name, void *user)
{
    return add_name(user, id, name);
}

static int read_names(struct story *story)
{
    int code = store_each_source(story->store, on_source, story);
    for (size_t i = 0; code == 0 && i < story->source_count; i++)
        code = store_each_stage(story->store, story->names[i].id, on_stage, story);
    return code;
}

/* NULL: of none, or of one that the store has forgotten. */
static const char *source_name(const struct story *story, int64_t id)
{
    for (size_t i = 0; i < story->source_count; i++)
        if (story->names[i].id == id)
            return story->names[i].text;
    return NULL;
}

static const char *stage_name(const struct story *story, int64_t id)
{
    for (size_t i = story->source_count; i < story->name_count; i++)
        if (story->names[i].id == id)
            return story->names[i].text;
    return NULL;
}

/* ---- a step ---- */

static bool arrives(const struct store_trace_step *step)
{
    return step->kind == STORE_TRACE_STEP_FETCHED || step->kind == STORE_TRACE_STEP_INJECTED;
}

/* What the event came to with this step; NULL: it went on. */
static const char *end_of(const struct store_trace_step *step)
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

static void number(struct json_out *out, const char *name, bool known, uint64_t value)
{
    json_write_text(out, ",\"");
    json_write_text(out, name);
    json_write_text(out, "\":");
    if (known)
        json_write_uint(out, value);
    else
        json_write_text(out, "null");
}

static void print_json(const struct story *story, const struct store_trace_step *step)
{
    struct json_out *out = &story->cli->out;
    const char *uid = story->cli->args[0];
    char at[32], due[32];
    control_admin_time(step->at_ms, at, sizeof at);
    control_admin_time(step->due_ms, due, sizeof due);
    json_write_text(out, "{\"at\":");
    json_write_string(out, at, strlen(at));
    control_admin_member(out, "step", store_trace_step_name(step->kind));
    control_admin_member(out, "source", source_name(story, store_event_source(step->event)));
    number(out, "number", true, store_event_number(step->event));
    control_admin_member(out, "uid", uid);
    control_admin_member(out, "stage", stage_name(story, step->stage));
    number(out, "pid", step->pid != 0, (uint64_t)step->pid);
    number(out, "attempt", step->attempt != 0, step->attempt);
    number(out, "duration_us", step->duration_us != 0, step->duration_us);
    control_admin_member(out, "due", step->due_ms != 0 ? due : NULL);
    control_admin_member(out, "end", end_of(step));
    control_admin_member(out, "reason",
                         step->reason != STORE_REASON_NONE ? store_reason_name(step->reason) : NULL);
    control_admin_member(out, "error", step->error);
    json_write_text(out, "}\n");
}

/* ---- for people ---- */

static const struct table_column columns[] = {
    {"AT", false, false, false},    {"STEP", false, false, false},   {"STAGE", false, true, false},
    {"PID", true, false, false},    {"ATTEMPT", true, false, false}, {"DURATION", true, false, false},
    {"RESULT", false, true, false},
};

static void cell(struct table *table, const char *text)
{
    cli_table_cell(table, text != NULL && text[0] != '\0' ? text : "-", NULL);
}

static void number_cell(struct table *table, uint64_t value)
{
    char text[24] = "";
    if (value != 0)
        snprintf(text, sizeof text, "%" PRIu64, value);
    cell(table, text);
}

static void outcome_cell(struct table *table, const struct store_trace_step *step)
{
    char due[32], text[512];
    const char *end = end_of(step), *error = step->error != NULL ? step->error : "";
    control_admin_time(step->due_ms, due, sizeof due);
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s", end != NULL ? end : "",
             step->reason != STORE_REASON_NONE ? ", " : "", store_reason_name(step->reason),
             step->due_ms != 0 ? "again at " : "", step->due_ms != 0 ? due : "",
             error[0] != '\0' && (end != NULL || step->due_ms != 0) ? ": " : "", error);
    cell(table, text);
}

static void add_row(struct story *story, const struct store_trace_step *step)
{
    struct table *table = &story->table;
    char at[32], took[40] = "";
    control_admin_time(step->at_ms, at, sizeof at);
    if (step->duration_us != 0)
        cli_status_latency_text(step->duration_us, took, sizeof took);
    cell(table, at);
    cell(table, store_trace_step_name(step->kind));
    cell(table, stage_name(story, step->stage));
    number_cell(table, (uint64_t)step->pid);
    number_cell(table, step->attempt);
    cell(table, took);
    outcome_cell(table, step);
}

static void print_rows(struct story *story)
{
    if (story->table.cell_count > 0)
        cli_table_print(&story->table, &story->cli->out, cli_width(), 2, true);
}

static void print_head(struct story *story, const struct store_trace_step *step)
{
    struct json_out *out = &story->cli->out;
    const char *source = source_name(story, store_event_source(step->event));
    char number[64];
    snprintf(number, sizeof number, ", event %" PRIu64, store_event_number(step->event));
    json_write_text(out, story->events > 1 ? "\n" : "");
    cli_table_text_out(out, story->cli->args[0], 0);
    json_write_text(out, " of ");
    cli_table_text_out(out, source != NULL ? source : "a source that is gone", 0);
    json_write_text(out, number);
    json_write_text(out, arrives(step) ? "\n" : "; its beginning is no longer kept\n");
}

static int on_step(const struct store_trace_step *step, void *user)
{
    struct story *story = user;
    bool json = cli_given(story->cli, CLI_OPTION_JSON);
    bool first = story->steps++ == 0 || step->event != story->event;
    story->event = step->event;
    if (first) {
        story->events++;
        story->headless += !arrives(step);
        if (!json) {
            print_rows(story);
            print_head(story, step);
        }
    }
    if (json)
        print_json(story, step);
    else
        add_row(story, step);
    return story->cli->out.failed || story->table.failed ? EP_ENOMEM : 0;
}

/* ---- the command ---- */

static int print_story(struct story *story)
{
    struct cli *cli = story->cli;
    const char *source = cli->values[CLI_OPTION_SOURCE];
    size_t live = 0;
    int code = read_names(story);
    if (code == 0 && source != NULL && story->only == 0) {
        cli_message("%s: its store knows no source \"%s\"", cli->instance, source);
        return CONTROL_NOTHING;
    }
    cli_table_open(&story->table, columns, sizeof columns / sizeof columns[0]);
    if (code == 0)
        code = store_trace(story->store, story->only, cli->args[0], on_step, story, &live);
    if (code == 0)
        print_rows(story);
    cli_table_close(&story->table);
    if (code != 0) {
        cli_message("%s: its store cannot be read: %s", cli->instance,
                    code == EP_ENOMEM ? "out of memory" : store_errmsg(story->store));
        return CONTROL_NO;
    }
    if (story->steps == 0)
        cli_message(live > 0
                        ? "%s: nothing is kept of what was done to \"%s\", which is in the store: see show"
                        : "%s: nothing is known of \"%s\"",
                    cli->instance, cli->args[0]);
    else if (story->headless > 0 && cli_given(cli, CLI_OPTION_JSON))
        cli_message("%s: the beginning is no longer kept", cli->instance);
    return story->steps > 0 ? CONTROL_DONE : CONTROL_NOTHING;
}

int cli_trace(struct cli *cli)
{
    struct story story = {.cli = cli};
    struct store_options options = {.url = cli->storage, .instance = cli->instance, .readonly = true};
    struct error error = {0};
    if (cli->storage == NULL) {
        cli_message("%s: where its store is, is not known: give -c FILE", cli->instance);
        return CONTROL_NO;
    }
    if (store_open(&options, &story.store, &error) != 0) {
        cli_message("%s: its store cannot be read: %s", cli->instance, error.message);
        return CONTROL_NO;
    }
    int status = print_story(&story);
    for (size_t i = 0; i < story.name_count; i++)
        free(story.names[i].text);
    free(story.names);
    store_close(&story.store);
    return status;
}
