/* SPDX-License-Identifier: MIT */
/*
 * show: prints everything about an event. Runs in eventpipe. Context and event are spread over lines,
 * and each token is printed byte for byte as stored: numbers are never parsed and printed again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cli/cli.h"
#include "src/cli/table.h"

#define LABEL_COLUMNS 10
#define INDENT_COLUMNS 2

static void start_new_line(struct text *out, size_t columns)
{
    base_text_append(out, "\n");
    while (columns-- > 0)
        base_text_append(out, " ");
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

/* Returns the position just after the closing quote of the JSON string that begins at `position`, or `end`
 * if it has none. `eventpipe show` finds the end of a token with it. */
static const char *find_string_end(const char *position, const char *end)
{
    for (position++; position < end && *position != '"'; position++)
        position += *position == '\\';
    return position < end ? position + 1 : end;
}

/* Prints one token of an event's JSON for `eventpipe show`, byte for byte. Only control characters are
 * replaced: JSON may contain DEL and the codes 0x80 to 0x9f, which a terminal obeys. */
static void print_token(struct text *out, const char *token, const char *token_end)
{
    char *token_copy = strndup(token, (size_t)(token_end - token));
    if (token_copy != NULL)
        cli_table_write_text(out, token_copy, 0);
    else
        out->failed = true;
    free(token_copy);
}

static const char *skip_blanks(const char *position, const char *end)
{
    while (position < end && is_blank(*position))
        position++;
    return position;
}

/* Prints a JSON value over several lines, from column `indent`; `eventpipe show` prints an event's context
 * and data with it. Each token stays byte for byte as stored, and numbers are never parsed, so no digit is
 * lost. Invalid JSON is printed as far as it goes. */
void cli_show_print_json(struct text *out, struct json_span value, size_t indent)
{
    const char *end = value.at + value.bytes;
    size_t depth = 0;
    for (const char *position = skip_blanks(value.at, end); position < end;
         position = skip_blanks(position, end)) {
        const char *token = position;
        if (*position == '"') {
            position = find_string_end(position, end);
            print_token(out, token, position);
        } else if (*position == '{' || *position == '[') {
            const char *next_token = skip_blanks(position + 1, end);
            bool is_empty = next_token < end && (*next_token == '}' || *next_token == ']');
            base_text_append_bytes(out, position, 1);
            position = is_empty ? next_token : position + 1;
            depth += !is_empty;
            if (is_empty)
                base_text_append_bytes(out, position++, 1);
            else
                start_new_line(out, indent + depth * INDENT_COLUMNS);
        } else if (*position == '}' || *position == ']') {
            depth -= depth > 0;
            start_new_line(out, indent + depth * INDENT_COLUMNS);
            base_text_append_bytes(out, position++, 1);
        } else if (*position == ',') {
            base_text_append_bytes(out, position++, 1);
            start_new_line(out, indent + depth * INDENT_COLUMNS);
        } else if (*position == ':') {
            base_text_append(out, ": ");
            position++;
        } else {
            while (position < end && !is_blank(*position) && strchr(",:{}[]\"", *position) == NULL)
                position++;
            position += position == token; /* not valid JSON: skip one byte */
            print_token(out, token, position);
        }
    }
}

static void print_label(struct text *out, const char *label)
{
    char padded[32];
    snprintf(padded, sizeof padded, "%-*s", LABEL_COLUMNS, label);
    base_text_append(out, padded);
}

/* Prints one labelled line of `eventpipe show`, such as "state     dead". Prints nothing if the member is
 * null or missing. */
static void print_text_member(struct text *out, struct json_span line, const char *label, const char *pointer)
{
    char *text = cli_queue_read_text(line, pointer);
    if (text != NULL && text[0] != '\0') {
        print_label(out, label);
        cli_table_write_text(out, text, 0);
        base_text_append(out, "\n");
    }
    free(text);
}

/* Prints a time of an event for `eventpipe show`, followed by how long ago or ahead it is, such as "(3m 5s
 * ago)". `age_pointer` is the member with that age in seconds, `age_format` the text around it. Prints
 * nothing if the time is null. */
static void print_time_member(struct text *out, struct json_span line, const char *label, const char *pointer,
                              const char *age_pointer, const char *age_format)
{
    char age[40], age_text[64], *text = cli_queue_read_text(line, pointer);
    cli_queue_format_age(line, age_pointer, age, sizeof age);
    snprintf(age_text, sizeof age_text, age_format, age);
    if (text != NULL && text[0] != '\0') {
        print_label(out, label);
        cli_table_write_text(out, text, 0);
        base_text_append(out, age_text);
        base_text_append(out, "\n");
    }
    free(text);
}

/* Called for each stage that has processed the event, while `eventpipe show` prints the line "done":
 * appends the stage's name. */
static int on_done_stage(struct json_span stage, void *user)
{
    struct text *out = user;
    char *text = json_text(stage);
    if (text != NULL) {
        cli_table_write_text(out, text, 0);
        base_text_append(out, " ");
    }
    free(text);
    return 0;
}

/* Prints the context or the data of an event for `eventpipe show`, as JSON over several lines. Prints
 * nothing if the member is null or missing. */
static void print_json_member(struct text *out, struct json_span line, const char *label, const char *pointer)
{
    struct json_span value;
    if (!json_find(line, pointer, &value) || json_kind(value) == 'n')
        return;
    print_label(out, label);
    cli_show_print_json(out, value, LABEL_COLUMNS);
    base_text_append(out, "\n");
}

/* Called for each event in the keeper's answer to `eventpipe show`: prints all that is stored about it, one
 * labelled line per value. With --json the line is printed unchanged instead. */
static int on_event_line(const char *text, size_t bytes, void *user)
{
    struct cli *cli = user;
    struct text *out = &cli->out;
    struct json_span line = {text, bytes}, done_stages;
    print_text_member(out, line, "uid", "/uid");
    print_text_member(out, line, "source", "/source");
    print_text_member(out, line, "stage", "/stage");
    print_text_member(out, line, "state", "/state");
    print_text_member(out, line, "reason", "/reason");
    print_text_member(out, line, "error", "/error");
    print_text_member(out, line, "number", "/number");
    print_text_member(out, line, "address", "/address");
    print_text_member(out, line, "type", "/type");
    print_time_member(out, line, "arrived", "/arrived", "/age_s", "  (%s ago)");
    print_time_member(out, line, "due", "/due", "/due_in_s", "  (in %s)");
    print_text_member(out, line, "attempts", "/attempts");
    print_text_member(out, line, "crashes", "/crashes");
    if (json_find(line, "/done", &done_stages) && done_stages.bytes > 2) {
        print_label(out, "done");
        json_each_element(done_stages, on_done_stage, out);
        base_text_append(out, "\n");
    }
    print_json_member(out, line, "context", "/context");
    print_json_member(out, line, "event", "/event");
    print_text_member(out, line, "raw", "/raw");
    base_text_append(out, "\n");
    return EP_OK;
}

/* Runs `eventpipe show UID...`, which prints everything that the store has about these events. The keeper
 * reads it; if the daemon is down, this process does. Returns an exit status. */
int cli_show(struct cli *cli)
{
    struct text request = {0};
    struct error error = {0};
    int status = cli_select_write_request(cli, &request, &error);
    if (status != 0) {
        cli_print_message("%s", error.message);
    } else {
        struct control_question question = {.line = request.text, .patience_ms = 60000};
        struct cli_answer answer = {.on_line = cli_has_option(cli, CLI_OPTION_JSON) ? NULL : on_event_line,
                                    .user = cli,
                                    .quiet = true};
        status = cli_send_request(cli, &question, &answer);
    }
    base_text_free(&request);
    return status;
}
