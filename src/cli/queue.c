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

struct event_list {
    struct cli *cli;
    struct table table;
    size_t pending_row_count;
    bool are_headings_printed;
    const char *fields[FIELDS_MAX];
    size_t field_count;
    char *field_text;
};

/* Returns a member of a JSON data line as text for people, "" if it is null or missing; NULL means out of
 * memory. The caller frees it. Commands of `eventpipe` that print answers use it: queue, show, crashes,
 * check, inject and those that change events. */
char *cli_queue_read_text(struct json_span line, const char *pointer)
{
    struct json_span value;
    char *text = json_find(line, pointer, &value) ? json_text(value) : NULL;
    return text != NULL ? text : strdup("");
}

/* Formats a member in whole seconds, such as age_s, as an age for people ("3m 5s"), or as "-" if it is
 * null. `eventpipe queue` and `eventpipe show` print ages with it. */
void cli_queue_format_age(struct json_span line, const char *pointer, char *buffer, size_t buffer_bytes)
{
    struct json_span value;
    int64_t seconds;
    if (json_find(line, pointer, &value) && json_int64(value, &seconds) && seconds >= 0)
        cli_status_format_age((uint64_t)seconds * 1000, buffer, buffer_bytes);
    else
        snprintf(buffer, buffer_bytes, "-");
    if (strcmp(buffer, "0 ms") == 0)
        snprintf(buffer, buffer_bytes, "0 s");
}

/* Prints the rows that `eventpipe queue`, retry, hold, release, requeue or remove has collected, and
 * removes them from the table; only the first call prints the headings. Printing in blocks keeps memory
 * small when the queue is long. */
static void print_pending_rows(struct event_list *list)
{
    if (list->pending_row_count > 0)
        cli_table_print(&list->table, &list->cli->out, cli_terminal_width(), 0, !list->are_headings_printed);
    list->are_headings_printed = list->are_headings_printed || list->pending_row_count > 0;
    list->pending_row_count = 0;
}

static void add_member_cell(struct event_list *list, struct json_span line, const char *pointer)
{
    char *text = cli_queue_read_text(line, pointer);
    cli_table_add_cell(&list->table, text != NULL && text[0] != '\0' ? text : "-", NULL);
    free(text);
}

static void end_table_row(struct event_list *list)
{
    if (++list->pending_row_count == BLOCK_ROWS)
        print_pending_rows(list);
}

/* ---- queue ---- */

static const struct table_column queue_columns[] = {
    {"UID", false, true, false},      {"SOURCE", false, true, false}, {"STAGE", false, true, false},
    {"STATE", false, false, false},   {"AGE", true, false, false},    {"DUE IN", true, false, false},
    {"ATTEMPTS", true, false, false}, {"REASON", false, true, true},
};

/* Fills the REASON cell in the table of `eventpipe queue`: why the event is dead, and its last error, as in
 * "crashed: signal 11". Either may be missing. */
static void add_reason_cell(struct event_list *list, struct json_span line)
{
    char *reason = cli_queue_read_text(line, "/reason"), *error = cli_queue_read_text(line, "/error"),
         reason_text[2048];
    if (reason != NULL && error != NULL) {
        snprintf(reason_text, sizeof reason_text, "%s%s%s", reason,
                 reason[0] != '\0' && error[0] != '\0' ? ": " : "", error);
        cli_table_add_cell(&list->table, reason_text, NULL);
    } else {
        list->table.failed = true;
    }
    free(reason);
    free(error);
}

/* Called for each event in the keeper's answer to `eventpipe queue`: adds a row to the table. Returns 0; if
 * memory runs out, the table remembers it. */
static int on_queue_line(const char *text, size_t bytes, void *user)
{
    struct event_list *list = user;
    struct json_span line = {text, bytes};
    char age[40];
    add_member_cell(list, line, "/uid");
    add_member_cell(list, line, "/source");
    add_member_cell(list, line, "/stage");
    add_member_cell(list, line, "/state");
    cli_queue_format_age(line, "/age_s", age, sizeof age);
    cli_table_add_cell(&list->table, age, NULL);
    cli_queue_format_age(line, "/due_in_s", age, sizeof age);
    cli_table_add_cell(&list->table, age, NULL);
    add_member_cell(list, line, "/attempts");
    add_reason_cell(list, line);
    end_table_row(list);
    return EP_OK;
}

/* Called for each event in the keeper's answer to `eventpipe queue -o FIELD,...`: prints the fields,
 * separated by tabs. A control character in a value becomes a blank, so that scripts can split the line.
 * Returns 0 or EP_ENOMEM. */
static int on_field_line(const char *text, size_t bytes, void *user)
{
    struct event_list *list = user;
    for (size_t i = 0; i < list->field_count; i++) {
        char pointer[40];
        snprintf(pointer, sizeof pointer, "/%s", list->fields[i]);
        char *value = cli_queue_read_text((struct json_span){text, bytes}, pointer);
        if (value == NULL)
            return EP_ENOMEM;
        for (char *character = value; *character != '\0'; character++)
            if ((unsigned char)*character < 0x20 || *character == 0x7f)
                *character = ' ';
        base_text_append(&list->cli->out, i == 0 ? "" : "\t");
        base_text_append(&list->cli->out, value);
        free(value);
    }
    base_text_append(&list->cli->out, "\n");
    return EP_OK;
}

/* Reads the field names of `eventpipe queue -o FIELD,...` into the list. Returns 0, CONTROL_USAGE after a
 * message that names the unknown field, or CONTROL_FAILED if memory runs out. */
static int parse_field_list(struct event_list *list, const char *text)
{
    list->field_text = strdup(text);
    if (list->field_text == NULL)
        return CONTROL_FAILED;
    char *remaining_fields = list->field_text;
    for (char *field = strsep(&remaining_fields, ","); field != NULL;
         field = strsep(&remaining_fields, ",")) {
        size_t field_index = 0;
        while (cli_queue_fields[field_index] != NULL && strcmp(cli_queue_fields[field_index], field) != 0)
            field_index++;
        if (cli_queue_fields[field_index] == NULL || list->field_count == FIELDS_MAX) {
            const char *suggestion = base_suggest_find_nearest(field, cli_queue_fields);
            cli_print_message("-o: there is no field \"%s\"%s%s%s", field,
                              suggestion != NULL ? ": did you mean \"" : "",
                              suggestion != NULL ? suggestion : "", suggestion != NULL ? "\"?" : "");
            return CONTROL_USAGE;
        }
        list->fields[list->field_count++] = cli_queue_fields[field_index];
    }
    return 0;
}

/* Sends the request of `eventpipe queue`, retry, hold, release, requeue or remove, with the filters and
 * UIDs that the user gave. Each data line of the answer goes to on_line, or unchanged to stdout with
 * --json. Returns an exit status. */
static int send_filter_request(struct cli *cli, struct event_list *list, control_on_line *on_line,
                               bool omits_message)
{
    struct text request = {0};
    struct error error = {0};
    int status = cli_select_write_request(cli, &request, &error);
    if (status != 0) {
        cli_print_message("%s", error.message);
    } else {
        struct control_question question = {.line = request.text, .patience_ms = 60000};
        struct cli_answer answer = {.on_line = cli_has_option(cli, CLI_OPTION_JSON) ? NULL : on_line,
                                    .user = list,
                                    .quiet = omits_message};
        status = cli_send_request(cli, &question, &answer);
        print_pending_rows(list);
    }
    base_text_free(&request);
    return status;
}

/* Runs `eventpipe queue`, which lists the events in the store that match the filters, oldest first. The
 * keeper reads them; if the daemon is down, this process does. Returns an exit status. */
int cli_queue(struct cli *cli)
{
    struct event_list list = {.cli = cli};
    const char *fields = cli->values[CLI_OPTION_FIELDS];
    int status = fields != NULL ? parse_field_list(&list, fields) : 0;
    if (fields != NULL && cli_has_option(cli, CLI_OPTION_JSON)) {
        cli_print_message("give -o or --json, not both");
        status = CONTROL_USAGE;
    }
    cli_table_open(&list.table, queue_columns, sizeof queue_columns / sizeof queue_columns[0]);
    if (status == 0)
        status = send_filter_request(cli, &list, fields != NULL ? on_field_line : on_queue_line, true);
    cli_table_close(&list.table);
    free(list.field_text);
    return status;
}

/* ---- retry, hold, release, requeue, remove ---- */

static const struct table_column change_columns[] = {
    {"UID", false, true, false},  {"SOURCE", false, true, false}, {"STAGE", false, true, false},
    {"WAS", false, false, false}, {"STATE", false, false, false},
};

/* Called for each event that the keeper has changed for `eventpipe retry`, hold, release, requeue or
 * remove: adds a row to the table, with the event's state before and after the change. */
static int on_changed_event_line(const char *text, size_t bytes, void *user)
{
    struct event_list *list = user;
    struct json_span line = {text, bytes};
    add_member_cell(list, line, "/uid");
    add_member_cell(list, line, "/source");
    add_member_cell(list, line, "/stage");
    add_member_cell(list, line, "/was");
    add_member_cell(list, line, "/state");
    end_table_row(list);
    return EP_OK;
}

/* Runs `eventpipe retry`, `hold`, `release`, `requeue` and `remove`: asks the keeper to change the events
 * that match the filters, and lists them. Returns an exit status. */
int cli_change_events(struct cli *cli)
{
    struct event_list list = {.cli = cli};
    cli_table_open(&list.table, change_columns, sizeof change_columns / sizeof change_columns[0]);
    int status = send_filter_request(cli, &list, on_changed_event_line, false);
    cli_table_close(&list.table);
    return status;
}
