/* SPDX-License-Identifier: MIT */
/*
 * `eventpipe status` for people: first the health and its reasons, then each source with its stages.
 * Runs in the command line. Fits `width` columns: it shortens numbers first, then cuts names. Control
 * characters in text from outside never reach the terminal.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/cli/status.h"
#include "src/cli/table.h"

#define INDENT 2
#define FULL_WIDTH 120 /* from here on numbers stand in full */

static const char *const green = "\033[32m", *const yellow = "\033[33m", *const red = "\033[31m",
                         *const bold = "\033[1m";

struct view {
    const struct status *status;
    struct text *out;
    size_t width;
    bool uses_colours;
};

static void print_text(const struct view *view, const char *text)
{
    base_text_append(view->out, text);
}

/* Prints text of `eventpipe status` in a colour, or plain if colours are off. Control characters in the
 * text are replaced. */
static void print_coloured(const struct view *view, const char *colour, const char *text)
{
    print_text(view, view->uses_colours ? colour : "");
    cli_table_write_text(view->out, text, 0);
    print_text(view, view->uses_colours ? "\033[0m" : "");
}

/* Returns the colour in which `eventpipe status` shows the state of a source or stage: red if it fails,
 * yellow if it is paused or blocked, or NULL for none. */
static const char *choose_state_colour(const struct view *view, const char *state)
{
    static const char *const failing_states[] = {"backoff", "degraded", "waiting", "full", "down"};
    if (!view->uses_colours)
        return NULL;
    for (size_t i = 0; i < sizeof failing_states / sizeof failing_states[0]; i++)
        if (strcmp(failing_states[i], state) == 0)
            return red;
    return strcmp(state, "paused") == 0 || strcmp(state, "blocked") == 0 ? yellow : NULL;
}

/* Prints a long text of `eventpipe status`, such as an error, broken at blanks to the terminal's width: its
 * first line begins at `column`, the others at `indent`. */
static void print_folded_text(const struct view *view, const char *text, size_t column, size_t indent)
{
    size_t used_columns = column;
    for (bool is_first_word = true; *text != '\0'; is_first_word = false) {
        char word[512];
        size_t word_bytes = strcspn(text, " ");
        snprintf(word, sizeof word, "%.*s", (int)(word_bytes < sizeof word ? word_bytes : sizeof word - 1),
                 text);
        size_t word_width = cli_table_measure_text(word);
        if (!is_first_word && view->width > 0 && used_columns + 1 + word_width > view->width) {
            print_text(view, "\n");
            for (used_columns = 0; used_columns < indent; used_columns++)
                print_text(view, " ");
        } else if (!is_first_word) {
            print_text(view, " ");
            used_columns++;
        }
        cli_table_write_text(view->out, word, 0);
        used_columns += word_width;
        text += word_bytes;
        text += strspn(text, " ");
    }
    print_text(view, "\n");
}

/* Prints the first lines of `eventpipe status`: the instance, its health with all reasons, the daemon's
 * uptime and pid, and the store with its size. */
static void print_instance_header(const struct view *view)
{
    const struct status *status = view->status;
    char facts_line[256], age[40], size[40], wal[40];
    print_coloured(view, bold, status->instance);
    print_text(view, ": ");
    size_t column = cli_table_measure_text(status->instance) + 2;
    cli_status_format_age(status->uptime_s * 1000, age, sizeof age);
    snprintf(facts_line, sizeof facts_line, "up %s   eventpiped %s pid %d", age, status->version,
             (int)status->pid);
    if (status->health == STATUS_OK) {
        print_coloured(view, green, "ok");
        print_text(view, "   ");
        print_text(view, facts_line);
        print_text(view, "\n");
    } else {
        const char *health = status->health == STATUS_DOWN ? "DOWN" : "DEGRADED";
        print_coloured(view, status->health == STATUS_DOWN ? red : yellow, health);
        print_text(view, "  ");
        print_folded_text(view, status->reason_count > 0 ? status->reasons[0] : "",
                          column + strlen(health) + 2, column);
        for (size_t i = 1; i < status->reason_count; i++) {
            for (size_t blank = 0; blank < column; blank++)
                print_text(view, " ");
            print_folded_text(view, status->reasons[i], column, column + 2);
        }
    }
    print_text(view, "  ");
    if (status->health == STATUS_DEGRADED) {
        print_text(view, facts_line);
        print_text(view, "\n  ");
    }
    cli_status_format_bytes(status->store_bytes, size, sizeof size);
    cli_status_format_bytes(status->wal_bytes, wal, sizeof wal);
    cli_table_write_text(view->out, status->store_url, view->width > 50 ? view->width - 35 : 0);
    snprintf(facts_line, sizeof facts_line, "   %s, WAL %s\n", size, wal);
    print_text(view, facts_line);
}

/* Prints the first lines about a source in `eventpipe status`: its type, state, cursor and last error. */
static void print_source_header(const struct view *view, const struct status_source *source)
{
    print_text(view, "\n");
    print_coloured(view, bold, source->id);
    print_text(view, source->type[0] != '\0' ? " (" : "");
    cli_table_write_text(view->out, source->type, 0);
    print_text(view, source->type[0] != '\0' ? ")  " : "  ");
    const char *colour = choose_state_colour(view, source->state);
    print_coloured(view, colour != NULL ? colour : "", source->state);
    size_t used_columns = cli_table_measure_text(source->id) + cli_table_measure_text(source->type) +
                          cli_table_measure_text(source->state) + 5;
    if (source->cursor != NULL) {
        print_text(view, "  cursor ");
        cli_table_write_text(view->out, source->cursor,
                             view->width > used_columns + 20 ? view->width - used_columns - 9 : 12);
    }
    print_text(view, "\n");
    if (source->error[0] == '\0')
        return;
    char next_try[60] = "", error_line[SHM_TEXT_BYTES + 80];
    if (source->next_try_in_ms > 0) {
        char age[40];
        cli_status_format_age(source->next_try_in_ms, age, sizeof age);
        snprintf(next_try, sizeof next_try, "; next try in %s", age);
    }
    snprintf(error_line, sizeof error_line, "last error: %s%s", source->error, next_try);
    print_text(view, "  ");
    print_folded_text(view, error_line, 2, 4);
}

static void add_count_cell(const struct view *view, struct table *table, uint64_t count, const char *colour)
{
    char text[32];
    cli_status_format_count(count, view->width > 0 && view->width < FULL_WIDTH, text, sizeof text);
    cli_table_add_cell(table, text, count > 0 && view->uses_colours ? colour : NULL);
}

/* Prints the table of a source's events in `eventpipe status`: how many were fetched, and how many are
 * ready, running, delayed, held and dead. */
static void print_source_counts(const struct view *view, const struct status_source *source)
{
    static const struct table_column columns[] = {
        {"FETCHED", true, false, false}, {"DUPLICATES", true, false, false}, {"READY", true, false, false},
        {"RUNNING", true, false, false}, {"DELAYED", true, false, false},    {"HELD", true, false, false},
        {"DEAD", true, false, false},    {"OLDEST", true, false, false},
    };
    struct table table;
    char age[40];
    cli_table_open(&table, columns, sizeof columns / sizeof columns[0]);
    add_count_cell(view, &table, source->fetched, NULL);
    add_count_cell(view, &table, source->duplicates, NULL);
    add_count_cell(view, &table, source->ready, NULL);
    add_count_cell(view, &table, source->running, NULL);
    add_count_cell(view, &table, source->delayed, NULL);
    add_count_cell(view, &table, source->held, yellow);
    add_count_cell(view, &table, source->dead, red);
    cli_status_format_age(source->oldest_s * 1000, age, sizeof age);
    cli_table_add_cell(&table, source->live > 0 ? age : "-", NULL);
    cli_table_print(&table, view->out, view->width, INDENT, true);
    cli_table_close(&table);
}

/* Adds one stage to the stage table of `eventpipe status`: its state, busy workers, queue, counts of
 * answers and latency. */
static void add_stage_row(const struct view *view, struct table *table, const struct status_stage *stage)
{
    char text[40];
    cli_table_add_cell(table, stage->name, NULL);
    cli_table_add_cell(table, stage->type, NULL);
    cli_table_add_cell(table, stage->state, choose_state_colour(view, stage->state));
    snprintf(text, sizeof text, "%" PRIu32 "/%" PRIu32, stage->busy_worker_count, stage->concurrency);
    cli_table_add_cell(table, stage->workers != NULL ? text : "-", NULL);
    add_count_cell(view, table, stage->queued_count, NULL);
    add_count_cell(view, table, stage->processed, NULL);
    add_count_cell(view, table, stage->retried, NULL);
    add_count_cell(view, table, stage->removed, NULL);
    add_count_cell(view, table, stage->rejected, yellow);
    add_count_cell(view, table, stage->failed, yellow);
    add_count_cell(view, table, stage->crashed, red);
    cli_status_format_latency(stage->p50_us, text, sizeof text);
    cli_table_add_cell(table, text, NULL);
    cli_status_format_latency(stage->p99_us, text, sizeof text);
    cli_table_add_cell(table, text, NULL);
}

/* Prints the stage table of a source in `eventpipe status`. Headings are abbreviated if the terminal is
 * narrower than FULL_WIDTH columns. */
static void print_stage_table(const struct view *view, const struct status_source *source)
{
    static const struct table_column wide_columns[] = {
        {"STAGE", false, true, false},   {"TYPE", false, false, true},    {"STATE", false, false, false},
        {"WORKERS", true, false, false}, {"QUEUE", true, false, false},   {"PROCESSED", true, false, false},
        {"RETRIED", true, false, false}, {"REMOVED", true, false, false}, {"REJECTED", true, false, false},
        {"FAILED", true, false, false},  {"CRASHED", true, false, false}, {"P50", true, false, true},
        {"P99", true, false, true},
    };
    static const struct table_column narrow_columns[] = {
        {"STAGE", false, true, false}, {"TYPE", false, false, true},  {"STATE", false, false, false},
        {"WORK", true, false, false},  {"QUEUE", true, false, false}, {"DONE", true, false, false},
        {"RETR", true, false, false},  {"REM", true, false, false},   {"REJ", true, false, false},
        {"FAIL", true, false, false},  {"CRASH", true, false, false}, {"P50", true, false, true},
        {"P99", true, false, true},
    };
    bool is_wide = view->width == 0 || view->width >= FULL_WIDTH;
    struct table table;
    cli_table_open(&table, is_wide ? wide_columns : narrow_columns,
                   sizeof wide_columns / sizeof wide_columns[0]);
    for (size_t i = 0; i < source->stage_count; i++)
        add_stage_row(view, &table, &source->stages[i]);
    cli_table_print(&table, view->out, view->width, INDENT, true);
    cli_table_close(&table);
}

/* Lists in `eventpipe status` the events of a source that a worker has been processing for a second or
 * longer: they show which stage is slow or hangs. */
static void print_long_running_events(const struct view *view, const struct status_source *source)
{
    for (size_t i = 0; i < source->stage_count; i++)
        for (uint32_t j = 0; source->stages[i].workers != NULL && j < source->stages[i].concurrency; j++) {
            const struct status_process *worker = &source->stages[i].workers[j];
            char age[40], line[256];
            if (worker->event == 0 || worker->since_ms < STATUS_PROCESSING_MS ||
                view->status->health == STATUS_DOWN)
                continue;
            cli_status_format_age(worker->since_ms, age, sizeof age);
            snprintf(line, sizeof line, "%s[%" PRIu32 "] processing event %" PRIu64 " for %s",
                     source->stages[i].name, worker->index, worker->event, age);
            print_text(view, "  ");
            cli_table_write_text(view->out, line, view->width > INDENT ? view->width - INDENT : 0);
            print_text(view, "\n");
        }
}

/* Writes the snapshot of `eventpipe status` for people: the health first, then each source with its stages.
 * `width` is the number of columns of the terminal, 0 for no limit. */
void cli_status_write_text(const struct status *status, size_t width, bool uses_colours, struct text *out)
{
    struct view view = {status, out, width, uses_colours};
    print_instance_header(&view);
    for (size_t i = 0; i < status->source_count; i++) {
        print_source_header(&view, &status->sources[i]);
        print_source_counts(&view, &status->sources[i]);
        if (status->sources[i].stage_count > 0)
            print_stage_table(&view, &status->sources[i]);
        print_long_running_events(&view, &status->sources[i]);
    }
}
