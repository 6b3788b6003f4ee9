/* SPDX-License-Identifier: MIT */
/*
 * queue, and the commands that change events: prints the data lines of their answers for people and
 * scripts. Runs in eventpipe. Rows are printed in blocks, so a long queue appears at once and never
 * fills the memory.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/suggest.h"
#include "src/cli/cli.h"
#include "src/cli/status.h"
#include "src/cli/table.h"

#define BLOCK_ROWS 200
#define FIELDS_MAX 32

const char *const cli_queue_fields[] = {"uid",     "source",  "stage", "state", "number",   "address",
                                        "type",    "arrived", "age_s", "due",   "due_in_s", "attempts",
                                        "crashes", "reason",  "error", NULL};

struct list {
    struct cli *cli;
    struct table table;
    size_t rows;
    bool begun;
    const char *fields[FIELDS_MAX];
    size_t field_count;
    char *field_text;
};

char *cli_queue_field(struct json_span line, const char *pointer)
{
    struct json_span value;
    char *text = json_find(line, pointer, &value) ? json_text(value) : NULL;
    return text != NULL ? text : strdup("");
}

void cli_queue_age(struct json_span line, const char *pointer, char *buffer, size_t size)
{
    struct json_span value;
    int64_t seconds;
    if (json_find(line, pointer, &value) && json_int64(value, &seconds) && seconds >= 0)
        cli_status_age_text((uint64_t)seconds * 1000, buffer, size);
    else
        snprintf(buffer, size, "-");
    if (strcmp(buffer, "0 ms") == 0)
        snprintf(buffer, size, "0 s");
}

static void print_block(struct list *list)
{
    if (list->rows > 0)
        cli_table_print(&list->table, &list->cli->out, cli_width(), 0, !list->begun);
    list->begun = list->begun || list->rows > 0;
    list->rows = 0;
}

static void cell(struct list *list, struct json_span line, const char *pointer)
{
    char *text = cli_queue_field(line, pointer);
    cli_table_cell(&list->table, text != NULL && text[0] != '\0' ? text : "-", NULL);
    free(text);
}

static void end_row(struct list *list)
{
    if (++list->rows == BLOCK_ROWS)
        print_block(list);
}

/* ---- queue ---- */

static const struct table_column queue_columns[] = {
    {"UID", false, true, false},      {"SOURCE", false, true, false}, {"STAGE", false, true, false},
    {"STATE", false, false, false},   {"AGE", true, false, false},    {"DUE IN", true, false, false},
    {"ATTEMPTS", true, false, false}, {"REASON", false, true, true},
};

/* `crashed: signal 11`; either part may be missing. */
static void reason_cell(struct list *list, struct json_span line)
{
    char *reason = cli_queue_field(line, "/reason"), *error = cli_queue_field(line, "/error"), all[2048];
    if (reason != NULL && error != NULL) {
        snprintf(all, sizeof all, "%s%s%s", reason, reason[0] != '\0' && error[0] != '\0' ? ": " : "", error);
        cli_table_cell(&list->table, all, NULL);
    } else {
        list->table.failed = true;
    }
    free(reason);
    free(error);
}

static int queue_row(const char *text, size_t bytes, void *user)
{
    struct list *list = user;
    struct json_span line = {text, bytes};
    char age[40];
    cell(list, line, "/uid");
    cell(list, line, "/source");
    cell(list, line, "/stage");
    cell(list, line, "/state");
    cli_queue_age(line, "/age_s", age, sizeof age);
    cli_table_cell(&list->table, age, NULL);
    cli_queue_age(line, "/due_in_s", age, sizeof age);
    cli_table_cell(&list->table, age, NULL);
    cell(list, line, "/attempts");
    reason_cell(list, line);
    end_row(list);
    return EP_OK;
}

/* Prints the fields of -o. Control characters in a value, such as tab and line feed, become blanks. */
static int field_row(const char *text, size_t bytes, void *user)
{
    struct list *list = user;
    for (size_t i = 0; i < list->field_count; i++) {
        char pointer[40];
        snprintf(pointer, sizeof pointer, "/%s", list->fields[i]);
        char *value = cli_queue_field((struct json_span){text, bytes}, pointer);
        if (value == NULL)
            return EP_ENOMEM;
        for (char *at = value; *at != '\0'; at++)
            if ((unsigned char)*at < 0x20 || *at == 0x7f)
                *at = ' ';
        json_write_text(&list->cli->out, i == 0 ? "" : "\t");
        json_write_text(&list->cli->out, value);
        free(value);
    }
    json_write_text(&list->cli->out, "\n");
    return EP_OK;
}

static int read_fields(struct list *list, const char *text)
{
    list->field_text = strdup(text);
    if (list->field_text == NULL)
        return CONTROL_NO;
    char *rest = list->field_text;
    for (char *field = strsep(&rest, ","); field != NULL; field = strsep(&rest, ",")) {
        size_t i = 0;
        while (cli_queue_fields[i] != NULL && strcmp(cli_queue_fields[i], field) != 0)
            i++;
        if (cli_queue_fields[i] == NULL || list->field_count == FIELDS_MAX) {
            const char *near = base_suggest_near(field, cli_queue_fields);
            cli_message("-o: there is no field \"%s\"%s%s%s", field, near != NULL ? ": did you mean \"" : "",
                        near != NULL ? near : "", near != NULL ? "\"?" : "");
            return CONTROL_USAGE;
        }
        list->fields[list->field_count++] = cli_queue_fields[i];
    }
    return 0;
}

/* Sends the request with the given filters. Each data line goes to on_line; with --json it is printed
 * as it is. */
static int ask(struct cli *cli, struct list *list, control_on_line *on_line, bool quiet)
{
    struct json_out request = {0};
    struct error error = {0};
    int status = cli_select_request(cli, &request, &error);
    if (status != 0) {
        cli_message("%s", error.message);
    } else {
        struct control_question question = {.line = request.text, .patience_ms = 60000};
        struct cli_answer answer = {.on_line = cli_given(cli, CLI_OPTION_JSON) ? NULL : on_line,
                                    .user = list,
                                    .quiet = quiet};
        status = cli_client_ask(cli, &question, &answer);
        print_block(list);
    }
    json_write_free(&request);
    return status;
}

int cli_queue(struct cli *cli)
{
    struct list list = {.cli = cli};
    const char *fields = cli->values[CLI_OPTION_FIELDS];
    int status = fields != NULL ? read_fields(&list, fields) : 0;
    if (fields != NULL && cli_given(cli, CLI_OPTION_JSON)) {
        cli_message("-o or --json, not both");
        status = CONTROL_USAGE;
    }
    cli_table_open(&list.table, queue_columns, sizeof queue_columns / sizeof queue_columns[0]);
    if (status == 0)
        status = ask(cli, &list, fields != NULL ? field_row : queue_row, true);
    cli_table_close(&list.table);
    free(list.field_text);
    return status;
}

/* ---- retry, hold, release, requeue, remove ---- */

static const struct table_column change_columns[] = {
    {"UID", false, true, false},  {"SOURCE", false, true, false}, {"STAGE", false, true, false},
    {"WAS", false, false, false}, {"STATE", false, false, false},
};

static int change_row(const char *text, size_t bytes, void *user)
{
    struct list *list = user;
    struct json_span line = {text, bytes};
    cell(list, line, "/uid");
    cell(list, line, "/source");
    cell(list, line, "/stage");
    cell(list, line, "/was");
    cell(list, line, "/state");
    end_row(list);
    return EP_OK;
}

int cli_change(struct cli *cli)
{
    struct list list = {.cli = cli};
    cli_table_open(&list.table, change_columns, sizeof change_columns / sizeof change_columns[0]);
    int status = ask(cli, &list, change_row, false);
    cli_table_close(&list.table);
    return status;
}
