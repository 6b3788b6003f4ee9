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

static void new_line(struct json_out *out, size_t columns)
{
    json_write_text(out, "\n");
    while (columns-- > 0)
        json_write_text(out, " ");
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

/* Returns the position behind the closing quote of the string that begins at `at`. */
static const char *string_end(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++)
        at += *at == '\\';
    return at < end ? at + 1 : end;
}

/* Prints a token byte for byte. Control characters are replaced: JSON may have DEL and C1, which a terminal
 * obeys. */
static void token(struct json_out *out, const char *at, const char *end)
{
    char *copy = strndup(at, (size_t)(end - at));
    if (copy != NULL)
        cli_table_text_out(out, copy, 0);
    else
        out->failed = true;
    free(copy);
}

static const char *next_token(const char *at, const char *end)
{
    while (at < end && is_blank(*at))
        at++;
    return at;
}

void cli_show_pretty(struct json_out *out, struct json_span value, size_t indent)
{
    const char *end = value.at + value.bytes;
    size_t depth = 0;
    for (const char *at = next_token(value.at, end); at < end; at = next_token(at, end)) {
        const char *start = at;
        if (*at == '"') {
            at = string_end(at, end);
            token(out, start, at);
        } else if (*at == '{' || *at == '[') {
            const char *next = next_token(at + 1, end);
            bool empty = next < end && (*next == '}' || *next == ']');
            json_write_raw(out, at, 1);
            at = empty ? next : at + 1;
            depth += !empty;
            if (empty)
                json_write_raw(out, at++, 1);
            else
                new_line(out, indent + depth * INDENT_COLUMNS);
        } else if (*at == '}' || *at == ']') {
            depth -= depth > 0;
            new_line(out, indent + depth * INDENT_COLUMNS);
            json_write_raw(out, at++, 1);
        } else if (*at == ',') {
            json_write_raw(out, at++, 1);
            new_line(out, indent + depth * INDENT_COLUMNS);
        } else if (*at == ':') {
            json_write_text(out, ": ");
            at++;
        } else {
            while (at < end && !is_blank(*at) && strchr(",:{}[]\"", *at) == NULL)
                at++;
            at += at == start; /* not valid JSON: skip one byte */
            token(out, start, at);
        }
    }
}

static void label(struct json_out *out, const char *name)
{
    char padded[32];
    snprintf(padded, sizeof padded, "%-*s", LABEL_COLUMNS, name);
    json_write_text(out, padded);
}

static void field(struct json_out *out, struct json_span line, const char *name, const char *pointer)
{
    char *text = cli_queue_field(line, pointer);
    if (text != NULL && text[0] != '\0') {
        label(out, name);
        cli_table_text_out(out, text, 0);
        json_write_text(out, "\n");
    }
    free(text);
}

static void time_field(struct json_out *out, struct json_span line, const char *name, const char *pointer,
                       const char *seconds, const char *format)
{
    char age[40], shown[64], *text = cli_queue_field(line, pointer);
    cli_queue_age(line, seconds, age, sizeof age);
    snprintf(shown, sizeof shown, format, age);
    if (text != NULL && text[0] != '\0') {
        label(out, name);
        cli_table_text_out(out, text, 0);
        json_write_text(out, shown);
        json_write_text(out, "\n");
    }
    free(text);
}

static int add_stage(struct json_span stage, void *user)
{
    struct json_out *out = user;
    char *text = json_text(stage);
    if (text != NULL) {
        cli_table_text_out(out, text, 0);
        json_write_text(out, " ");
    }
    free(text);
    return 0;
}

static void value_field(struct json_out *out, struct json_span line, const char *name, const char *pointer)
{
    struct json_span value;
    if (!json_find(line, pointer, &value) || json_kind(value) == 'n')
        return;
    label(out, name);
    cli_show_pretty(out, value, LABEL_COLUMNS);
    json_write_text(out, "\n");
}

static int show_event(const char *text, size_t bytes, void *user)
{
    struct cli *cli = user;
    struct json_out *out = &cli->out;
    struct json_span line = {text, bytes}, done;
    field(out, line, "uid", "/uid");
    field(out, line, "source", "/source");
    field(out, line, "stage", "/stage");
    field(out, line, "state", "/state");
    field(out, line, "reason", "/reason");
    field(out, line, "error", "/error");
    field(out, line, "number", "/number");
    field(out, line, "address", "/address");
    field(out, line, "type", "/type");
    time_field(out, line, "arrived", "/arrived", "/age_s", "  (%s ago)");
    time_field(out, line, "due", "/due", "/due_in_s", "  (in %s)");
    field(out, line, "attempts", "/attempts");
    field(out, line, "crashes", "/crashes");
    if (json_find(line, "/done", &done) && done.bytes > 2) {
        label(out, "done");
        json_each_element(done, add_stage, out);
        json_write_text(out, "\n");
    }
    value_field(out, line, "context", "/context");
    value_field(out, line, "event", "/event");
    field(out, line, "raw", "/raw");
    json_write_text(out, "\n");
    return EP_OK;
}

int cli_show(struct cli *cli)
{
    struct json_out request = {0};
    struct error error = {0};
    int status = cli_select_request(cli, &request, &error);
    if (status != 0) {
        cli_message("%s", error.message);
    } else {
        struct control_question question = {.line = request.text, .patience_ms = 60000};
        struct cli_answer answer = {.on_line = cli_given(cli, CLI_OPTION_JSON) ? NULL : show_event,
                                    .user = cli,
                                    .quiet = true};
        status = cli_client_ask(cli, &question, &answer);
    }
    json_write_free(&request);
    return status;
}
