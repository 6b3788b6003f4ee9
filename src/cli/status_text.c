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
    struct json_out *out;
    size_t width;
    bool colours;
};

static void print(const struct view *view, const char *text)
{
    json_write_text(view->out, text);
}

static void coloured(const struct view *view, const char *colour, const char *text)
{
    print(view, view->colours ? colour : "");
    cli_table_text_out(view->out, text, 0);
    print(view, view->colours ? "\033[0m" : "");
}

static const char *state_colour(const struct view *view, const char *state)
{
    static const char *const bad[] = {"backoff", "degraded", "waiting", "full", "down"};
    if (!view->colours)
        return NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (strcmp(bad[i], state) == 0)
            return red;
    return strcmp(state, "paused") == 0 || strcmp(state, "blocked") == 0 ? yellow : NULL;
}

/* Text folded at blanks: the first line begins at `column`, further ones at `indent`. */
static void folded(const struct view *view, const char *text, size_t column, size_t indent)
{
    size_t at = column;
    for (bool first = true; *text != '\0'; first = false) {
        char word[512];
        size_t bytes = strcspn(text, " ");
        snprintf(word, sizeof word, "%.*s", (int)(bytes < sizeof word ? bytes : sizeof word - 1), text);
        size_t width = cli_table_text_width(word);
        if (!first && view->width > 0 && at + 1 + width > view->width) {
            print(view, "\n");
            for (at = 0; at < indent; at++)
                print(view, " ");
        } else if (!first) {
            print(view, " ");
            at++;
        }
        cli_table_text_out(view->out, word, 0);
        at += width;
        text += bytes;
        text += strspn(text, " ");
    }
    print(view, "\n");
}

static void head(const struct view *view)
{
    const struct status *status = view->status;
    char facts[256], age[40], size[40], wal[40];
    coloured(view, bold, status->instance);
    print(view, ": ");
    size_t column = cli_table_text_width(status->instance) + 2;
    cli_status_age_text(status->uptime_s * 1000, age, sizeof age);
    snprintf(facts, sizeof facts, "up %s   eventpiped %s pid %d", age, status->version, (int)status->pid);
    if (status->health == STATUS_OK) {
        coloured(view, green, "ok");
        print(view, "   ");
        print(view, facts);
        print(view, "\n");
    } else {
        const char *health = status->health == STATUS_DOWN ? "DOWN" : "DEGRADED";
        coloured(view, status->health == STATUS_DOWN ? red : yellow, health);
        print(view, "  ");
        folded(view, status->reason_count > 0 ? status->reasons[0] : "", column + strlen(health) + 2, column);
        for (size_t i = 1; i < status->reason_count; i++) {
            for (size_t blank = 0; blank < column; blank++)
                print(view, " ");
            folded(view, status->reasons[i], column, column + 2);
        }
    }
    print(view, "  ");
    if (status->health == STATUS_DEGRADED) {
        print(view, facts);
        print(view, "\n  ");
    }
    cli_status_bytes_text(status->store_bytes, size, sizeof size);
    cli_status_bytes_text(status->wal_bytes, wal, sizeof wal);
    cli_table_text_out(view->out, status->store_url, view->width > 50 ? view->width - 35 : 0);
    snprintf(facts, sizeof facts, "   %s, WAL %s\n", size, wal);
    print(view, facts);
}

/* One source's first lines: its state, cursor and last error. */
static void source_head(const struct view *view, const struct status_source *source)
{
    print(view, "\n");
    coloured(view, bold, source->id);
    print(view, source->type[0] != '\0' ? " (" : "");
    cli_table_text_out(view->out, source->type, 0);
    print(view, source->type[0] != '\0' ? ")  " : "  ");
    const char *colour = state_colour(view, source->state);
    coloured(view, colour != NULL ? colour : "", source->state);
    size_t used = cli_table_text_width(source->id) + cli_table_text_width(source->type) +
                  cli_table_text_width(source->state) + 5;
    if (source->cursor != NULL) {
        print(view, "  cursor ");
        cli_table_text_out(view->out, source->cursor, view->width > used + 20 ? view->width - used - 9 : 12);
    }
    print(view, "\n");
    if (source->error[0] == '\0')
        return;
    char next[60] = "", all[SHM_TEXT_BYTES + 80];
    if (source->next_try_in_ms > 0) {
        char age[40];
        cli_status_age_text(source->next_try_in_ms, age, sizeof age);
        snprintf(next, sizeof next, "; next try in %s", age);
    }
    snprintf(all, sizeof all, "last error: %s%s", source->error, next);
    print(view, "  ");
    folded(view, all, 2, 4);
}

static void cell_count(const struct view *view, struct table *table, uint64_t count, const char *colour)
{
    char text[32];
    cli_status_count_text(count, view->width > 0 && view->width < FULL_WIDTH, text, sizeof text);
    cli_table_cell(table, text, count > 0 && view->colours ? colour : NULL);
}

static void source_counts(const struct view *view, const struct status_source *source)
{
    static const struct table_column columns[] = {
        {"FETCHED", true, false, false}, {"DUPLICATES", true, false, false}, {"READY", true, false, false},
        {"RUNNING", true, false, false}, {"DELAYED", true, false, false},    {"HELD", true, false, false},
        {"DEAD", true, false, false},    {"OLDEST", true, false, false},
    };
    struct table table;
    char age[40];
    cli_table_open(&table, columns, sizeof columns / sizeof columns[0]);
    cell_count(view, &table, source->fetched, NULL);
    cell_count(view, &table, source->duplicates, NULL);
    cell_count(view, &table, source->ready, NULL);
    cell_count(view, &table, source->running, NULL);
    cell_count(view, &table, source->delayed, NULL);
    cell_count(view, &table, source->held, yellow);
    cell_count(view, &table, source->dead, red);
    cli_status_age_text(source->oldest_s * 1000, age, sizeof age);
    cli_table_cell(&table, source->live > 0 ? age : "-", NULL);
    cli_table_print(&table, view->out, view->width, INDENT, true);
    cli_table_close(&table);
}

static void stage_row(const struct view *view, struct table *table, const struct status_stage *stage)
{
    char text[40];
    cli_table_cell(table, stage->name, NULL);
    cli_table_cell(table, stage->type, NULL);
    cli_table_cell(table, stage->state, state_colour(view, stage->state));
    snprintf(text, sizeof text, "%" PRIu32 "/%" PRIu32, stage->busy, stage->concurrency);
    cli_table_cell(table, stage->workers != NULL ? text : "-", NULL);
    cell_count(view, table, stage->queue, NULL);
    cell_count(view, table, stage->processed, NULL);
    cell_count(view, table, stage->retried, NULL);
    cell_count(view, table, stage->removed, NULL);
    cell_count(view, table, stage->rejected, yellow);
    cell_count(view, table, stage->failed, yellow);
    cell_count(view, table, stage->crashed, red);
    cli_status_latency_text(stage->p50_us, text, sizeof text);
    cli_table_cell(table, text, NULL);
    cli_status_latency_text(stage->p99_us, text, sizeof text);
    cli_table_cell(table, text, NULL);
}

static void source_stages(const struct view *view, const struct status_source *source)
{
    static const struct table_column wide[] = {
        {"STAGE", false, true, false},   {"TYPE", false, false, true},    {"STATE", false, false, false},
        {"WORKERS", true, false, false}, {"QUEUE", true, false, false},   {"PROCESSED", true, false, false},
        {"RETRIED", true, false, false}, {"REMOVED", true, false, false}, {"REJECTED", true, false, false},
        {"FAILED", true, false, false},  {"CRASHED", true, false, false}, {"P50", true, false, true},
        {"P99", true, false, true},
    };
    static const struct table_column narrow[] = {
        {"STAGE", false, true, false}, {"TYPE", false, false, true},  {"STATE", false, false, false},
        {"WORK", true, false, false},  {"QUEUE", true, false, false}, {"DONE", true, false, false},
        {"RETR", true, false, false},  {"REM", true, false, false},   {"REJ", true, false, false},
        {"FAIL", true, false, false},  {"CRASH", true, false, false}, {"P50", true, false, true},
        {"P99", true, false, true},
    };
    bool wide_enough = view->width == 0 || view->width >= FULL_WIDTH;
    struct table table;
    cli_table_open(&table, wide_enough ? wide : narrow, sizeof wide / sizeof wide[0]);
    for (size_t i = 0; i < source->stage_count; i++)
        stage_row(view, &table, &source->stages[i]);
    cli_table_print(&table, view->out, view->width, INDENT, true);
    cli_table_close(&table);
}

/* Lists events that have been processed for a second or longer, with their workers. */
static void long_calls(const struct view *view, const struct status_source *source)
{
    for (size_t i = 0; i < source->stage_count; i++)
        for (uint32_t j = 0; source->stages[i].workers != NULL && j < source->stages[i].concurrency; j++) {
            const struct status_process *worker = &source->stages[i].workers[j];
            char age[40], line[256];
            if (worker->event == 0 || worker->since_ms < STATUS_PROCESSING_MS ||
                view->status->health == STATUS_DOWN)
                continue;
            cli_status_age_text(worker->since_ms, age, sizeof age);
            snprintf(line, sizeof line, "%s[%" PRIu32 "] processing event %" PRIu64 " for %s",
                     source->stages[i].name, worker->index, worker->event, age);
            print(view, "  ");
            cli_table_text_out(view->out, line, view->width > INDENT ? view->width - INDENT : 0);
            print(view, "\n");
        }
}

void cli_status_text(const struct status *status, size_t width, bool colours, struct json_out *out)
{
    struct view view = {status, out, width, colours};
    head(&view);
    for (size_t i = 0; i < status->source_count; i++) {
        source_head(&view, &status->sources[i]);
        source_counts(&view, &status->sources[i]);
        if (status->sources[i].stage_count > 0)
            source_stages(&view, &status->sources[i]);
        long_calls(&view, &status->sources[i]);
    }
}
