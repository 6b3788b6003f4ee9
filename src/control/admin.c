/* SPDX-License-Identifier: MIT */
/*
 * The keeper's command engine: takes a request that came over the control socket, carries it out on
 * the store and sends the whole answer. The keeper runs it. The command line runs it on a reader's
 * handle while the daemon is down. It owns only the answer; store, configuration and connection belong
 * to the caller.
 *
 * Invariants
 *  1. Every request gets exactly one last line, unless its client is gone.
 *  2. A request is checked completely before anything is done. A malformed one ends with CONTROL_USAGE.
 *  3. A slow or lost client affects its own answer only. What was committed stays; nothing more is begun.
 */
#include "src/control/admin.h"
#include "src/base/suggest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ANSWER_BYTES 32768 /* lines are collected up to here */

void control_answer_begin(struct answer *answer, int client_fd)
{
    *answer = (struct answer){.client_fd = client_fd};
}

/* Sends the collected data lines (one JSON object each) of the answer to a control request to its client,
 * `eventpipe`. Returns EP_OK, or EP_ESYSTEM once the client is gone. The command functions in the keeper
 * call it when the buffer is full and before the last line of an answer. */
int control_answer_flush(struct answer *answer)
{
    if (answer->lines.failed)
        answer->client_lost = true;
    if (!answer->client_lost && answer->lines.bytes > 0) /* control_send_line adds the last line feed */
        answer->client_lost =
            control_send_line(answer->client_fd, answer->lines.text, answer->lines.bytes - 1) != EP_OK;
    base_text_reset(&answer->lines);
    return answer->client_lost ? EP_ESYSTEM : EP_OK;
}

/* Ends the data line of a control command's answer that was just written, and sends the lines once 32 KiB
 * are collected. Returns EP_OK, or EP_ESYSTEM if the client is gone, which ends the command. Each command
 * function in the keeper calls it after a line; so does the child of `eventpipe` that reads the store
 * while the daemon is down. */
int control_answer_end_line(struct answer *answer)
{
    base_text_append(&answer->lines, "\n");
    answer->line_count++;
    if (answer->lines.failed || answer->lines.bytes >= ANSWER_BYTES)
        return control_answer_flush(answer);
    return answer->client_lost ? EP_ESYSTEM : EP_OK;
}

void control_answer_close(struct answer *answer)
{
    base_text_free(&answer->lines);
}

/* Writes the JSON member ,"name":"value" to a data line of an answer to a control command, with null for a
 * NULL value. The line must already have a member before it, and `name` must need no escaping. The keeper
 * writes its answers with it, `eventpipe trace` and `eventpipe crashes` their --json output. */
void control_admin_write_member(struct text *out, const char *name, const char *value)
{
    base_text_append(out, ",\"");
    base_text_append(out, name);
    base_text_append(out, "\":");
    if (value == NULL)
        base_text_append(out, "null");
    else
        json_write_string(out, value, strlen(value));
}

/* Formats a wall-clock time in milliseconds for the answer to a control command, as RFC 3339 text in UTC,
 * or "-" if it is out of range. The buffer needs 32 bytes. The keeper, `eventpipe trace` and `eventpipe
 * crashes` show all times in this format. */
void control_admin_format_time(uint64_t ms, char *buffer, size_t size)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm utc;
    char date[32];
    if (gmtime_r(&seconds, &utc) == NULL || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc) == 0) {
        snprintf(buffer, size, "-");
        return;
    }
    snprintf(buffer, size, "%s.%03uZ", date, (unsigned)(ms % 1000));
}

void control_admin_end_with_store_error(const struct admin_request *request, const char *failed_action,
                                        const char *done_before)
{
    control_end(request->client_fd, CONTROL_FAILED, "%s: %s%s%s", failed_action,
                store_errmsg(request->admin->store), *done_before != '\0' ? "; " : "", done_before);
}

/* Records that a control command in the keeper changed events of this source. The keeper then wakes the
 * source's producer; without this, a retried or injected event would wait until the producer next looks at
 * the store by itself. Bit 63 stands for all sources from the 64th on and for a source that is not in the
 * configuration. */
void control_admin_mark_source_changed(struct admin_request *request, const char *source)
{
    const struct config *config = request->admin->config;
    size_t source_bit = 63;
    for (size_t i = 0; config != NULL && i < config->source_count && i < 63; i++)
        if (strcmp(config->sources[i].id, source) == 0)
            source_bit = i;
    *request->changed_sources |= UINT64_C(1) << source_bit;
}

struct wanted_source {
    const char *name;
    int64_t id;
};

/* Callback for each source in the store, in control_admin_find_source_id: keeps the id of the source that
 * the control request names. Always returns 0, so that the store goes on with the next source. */
static int match_source(int64_t id, const char *name, void *user)
{
    struct wanted_source *wanted = user;
    if (strcmp(name, wanted->name) == 0)
        wanted->id = id;
    return 0;
}

/* Finds the store's id of the source that the operator named for `eventpipe cursor` or `eventpipe
 * inject`. Returns EP_OK, or EP_ENOENT with a message that suggests a similar name. Runs in the keeper,
 * or in a child of `eventpipe` while the daemon is down. */
int control_admin_find_source_id(const struct admin_request *request, const char *name, int64_t *id,
                                 struct error *error)
{
    struct wanted_source wanted = {name, 0};
    bool is_known = false;
    for (size_t i = 0; i < request->names->count; i++)
        is_known = is_known || strcmp(request->names->sources[i], name) == 0;
    if (!is_known) {
        const char *similar_name =
            base_suggest_find_nearest(name, (const char *const *)request->names->sources);
        return base_error_set(error, EP_ENOENT, "there is no source \"%s\"%s%s%s", name,
                              similar_name != NULL ? ": did you mean \"" : "",
                              similar_name != NULL ? similar_name : "", similar_name != NULL ? "\"?" : "");
    }
    int code = store_each_source(request->admin->store, match_source, &wanted);
    if (code != EP_OK)
        return base_error_set(error, code, "cannot read the sources from the store: %s",
                              store_errmsg(request->admin->store));
    if (wanted.id == 0)
        return base_error_set(
            error, EP_ENOENT,
            "source \"%s\" is configured, but not in the store yet: start the daemon with this configuration",
            name);
    *id = wanted.id;
    return EP_OK;
}

/* Serves `eventpipe cursor`: shows the cursor, the position from which a source fetches next, or sets
 * it. Runs in the keeper; while the daemon is down, a child of `eventpipe` runs it and can only show the
 * cursor. */
void control_admin_serve_cursor(struct admin_request *request)
{
    struct error error;
    int64_t id = 0;
    const char *source = request->select.source;
    int code = control_admin_find_source_id(request, source, &id, &error);
    if (code != EP_OK) {
        control_end(request->client_fd, code == EP_ENOENT ? CONTROL_USAGE : CONTROL_FAILED, "%s",
                    error.message);
        return;
    }
    struct store *store = request->admin->store;
    char *cursor = NULL;
    if (store_cursor(store, id, &cursor) != EP_OK) {
        control_admin_end_with_store_error(request, "cannot read the cursor", "");
        return;
    }
    if (request->new_cursor != NULL && !request->dry_run) {
        if (store_set_cursor(store, id, request->new_cursor) != EP_OK) {
            free(cursor);
            control_admin_end_with_store_error(request, "cannot set the cursor", "");
            return;
        }
        control_admin_mark_source_changed(request, source);
    }
    struct answer answer;
    control_answer_begin(&answer, request->client_fd);
    base_text_append(&answer.lines, "{\"source\":");
    json_write_string(&answer.lines, source, strlen(source));
    control_admin_write_member(&answer.lines, "cursor",
                               request->new_cursor != NULL ? request->new_cursor : cursor);
    if (request->new_cursor != NULL)
        control_admin_write_member(&answer.lines, "was", cursor);
    base_text_append(&answer.lines, "}");
    control_answer_end_line(&answer);
    control_answer_flush(&answer);
    control_answer_close(&answer);
    free(cursor);
    if (request->new_cursor == NULL)
        control_end(request->client_fd, CONTROL_DONE, "%s", "");
    else
        control_end(request->client_fd, CONTROL_DONE,
                    request->dry_run ? "the cursor would be set" : "the cursor is set");
}

/* Callback for each problem that the store's check finds: sends it as a data line of the answer to
 * `eventpipe check`. The line is sent at once, because the check of a large store takes long and the
 * operator waits. */
static void on_store_problem(const char *message, void *user)
{
    struct answer *answer = user;
    base_text_append(&answer->lines, "{\"where\":\"store\"");
    control_admin_write_member(&answer->lines, "problem", message);
    base_text_append(&answer->lines, "}");
    control_answer_end_line(answer);
    control_answer_flush(answer);
}

/* Serves `eventpipe check`: lets the store check itself and sends one data line per problem. The
 * answer's last line has the number of problems. Runs in the keeper, or in a child of `eventpipe` while
 * the daemon is down. */
void control_admin_serve_check(struct admin_request *request)
{
    struct answer answer;
    control_answer_begin(&answer, request->client_fd);
    int code = store_check(request->admin->store, on_store_problem, &answer);
    control_answer_flush(&answer);
    if (code != EP_OK)
        control_admin_end_with_store_error(request, "cannot check the store", "");
    else if (answer.line_count > 0)
        control_end(request->client_fd, CONTROL_FAILED, "the store has %" PRIu64 " problem%s",
                    answer.line_count, answer.line_count == 1 ? "" : "s");
    else
        control_end(request->client_fd, CONTROL_DONE, "the store is sound");
    control_answer_close(&answer);
}

/* The functions of the commands that control/command.c gives to the keeper. */
static void (*const command_functions[CONTROL_COMMAND_COUNT])(struct admin_request *request) = {
    [CONTROL_COMMAND_QUEUE] = control_admin_serve_list,
    [CONTROL_COMMAND_SHOW] = control_admin_serve_list,
    [CONTROL_COMMAND_RETRY] = control_admin_serve_change,
    [CONTROL_COMMAND_HOLD] = control_admin_serve_change,
    [CONTROL_COMMAND_RELEASE] = control_admin_serve_change,
    [CONTROL_COMMAND_REQUEUE] = control_admin_serve_change,
    [CONTROL_COMMAND_REMOVE] = control_admin_serve_change,
    [CONTROL_COMMAND_INJECT] = control_admin_serve_inject,
    [CONTROL_COMMAND_CHECK] = control_admin_serve_check,
    [CONTROL_COMMAND_CURSOR] = control_admin_serve_cursor,
};

/* Serves one control command: checks the request, runs the command's function on the store and sends the
 * whole answer. The keeper calls it for each request that the supervisor passes on. While the daemon is
 * down or does not answer, a child of `eventpipe` calls it for commands that only read the store. */
void control_admin_serve(const struct admin *admin, const cJSON *json, int client_fd,
                         uint64_t *changed_sources)
{
    struct error error = {0};
    uint64_t changed = 0;
    struct admin_request request = {.admin = admin, .client_fd = client_fd, .changed_sources = &changed};
    int code = control_admin_read_request(&request, json, &error);
    if (code == EP_OK)
        command_functions[request.command->id](&request);
    else
        control_end(client_fd, code == EP_EINVAL ? CONTROL_USAGE : CONTROL_FAILED, "%s", error.message);
    control_admin_close_request(&request);
    if (changed_sources != NULL)
        *changed_sources = changed;
}
