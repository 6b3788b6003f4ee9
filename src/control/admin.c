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

void control_answer_begin(struct answer *answer, int client)
{
    *answer = (struct answer){.client = client};
}

/* Control answer: sends the collected data lines to the client. Returns EP_ESYSTEM once the client is
 * gone. The keeper calls it when the buffer is full and before it sends an answer's last line. */
int control_answer_flush(struct answer *answer)
{
    if (answer->lines.failed)
        answer->lost = true;
    if (!answer->lost && answer->lines.bytes > 0) /* control_send_line adds the last line feed */
        answer->lost =
            control_send_line(answer->client, answer->lines.text, answer->lines.bytes - 1) != EP_OK;
    base_text_reset(&answer->lines);
    return answer->lost ? EP_ESYSTEM : EP_OK;
}

/* Control answer: ends the data line that was just written and sends the lines once 32 KiB are collected.
 * The keeper calls it for each line, also the child of `eventpipe` that reads the store while the daemon
 * is down. Returns EP_ESYSTEM if the client is gone, which ends the command. */
int control_answer_line(struct answer *answer)
{
    base_text_append(&answer->lines, "\n");
    answer->line_count++;
    if (answer->lines.failed || answer->lines.bytes >= ANSWER_BYTES)
        return control_answer_flush(answer);
    return answer->lost ? EP_ESYSTEM : EP_OK;
}

void control_answer_close(struct answer *answer)
{
    base_text_free(&answer->lines);
}

/* JSON writer: appends ,"name":"value" to a data line, or null. The keeper uses it in answers to control
 * commands, and `eventpipe trace` and `eventpipe crashes` in their --json output. */
void control_admin_member(struct text *out, const char *name, const char *value)
{
    base_text_append(out, ",\"");
    base_text_append(out, name);
    base_text_append(out, "\":");
    if (value == NULL)
        base_text_append(out, "null");
    else
        json_write_string(out, value, strlen(value));
}

/* Writes a wall-clock time as RFC 3339 text in UTC with milliseconds, or "-" if it cannot be shown. The
 * keeper uses it in answers to control commands, `eventpipe trace` and `eventpipe crashes` in their own
 * output. */
void control_admin_time(uint64_t ms, char *buffer, size_t size)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    char date[32];
    if (gmtime_r(&seconds, &parts) == NULL || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts) == 0) {
        snprintf(buffer, size, "-");
        return;
    }
    snprintf(buffer, size, "%s.%03uZ", date, (unsigned)(ms % 1000));
}

void control_admin_store_failed(const struct admin_request *request, const char *what, const char *done)
{
    control_end(request->client, CONTROL_NO, "%s: %s%s%s", what, store_errmsg(request->admin->store),
                *done != '\0' ? "; " : "", done);
}

/* Control command in the keeper: records that it changed events of this source. The keeper then wakes the
 * source's producer. Without this, a retried or injected event would wait until the producer looks at the
 * store by itself. Bit 63 stands for all sources from the 64th on. */
void control_admin_mark_changed(struct admin_request *request, const char *source)
{
    const struct config *config = request->admin->config;
    size_t index = 63;
    for (size_t i = 0; config != NULL && i < config->source_count && i < 63; i++)
        if (strcmp(config->sources[i].id, source) == 0)
            index = i;
    *request->changed_sources |= UINT64_C(1) << index;
}

struct wanted_source {
    const char *name;
    int64_t id;
};

/* Control command, in the keeper or an offline `eventpipe`: callback of the store's list of sources;
 * remembers the id of the source that the operator named. */
static int match_source(int64_t id, const char *name, void *user)
{
    struct wanted_source *wanted = user;
    if (strcmp(name, wanted->name) == 0)
        wanted->id = id;
    return 0;
}

/* Control command, in the keeper or an offline `eventpipe`: looks up the store's id of a source by name, for
 * `eventpipe cursor` and `eventpipe inject`. An unknown name is EP_ENOENT, with a similar name as a
 * suggestion. */
int control_admin_source_id(const struct admin_request *request, const char *name, int64_t *id,
                            struct error *error)
{
    struct wanted_source wanted = {name, 0};
    bool known = false;
    for (size_t i = 0; i < request->names->count; i++)
        known = known || strcmp(request->names->sources[i], name) == 0;
    if (!known) {
        const char *near = base_suggest_near(name, (const char *const *)request->names->sources);
        return base_error_set(error, EP_ENOENT, "there is no source \"%s\"%s%s%s", name,
                              near != NULL ? ": did you mean \"" : "", near != NULL ? near : "",
                              near != NULL ? "\"?" : "");
    }
    int code = store_each_source(request->admin->store, match_source, &wanted);
    if (code != EP_OK)
        return base_error_set(error, code, "%s", store_errmsg(request->admin->store));
    if (wanted.id == 0)
        return base_error_set(
            error, EP_ENOENT,
            "source \"%s\" is configured, but not in the store yet: start the daemon with this configuration",
            name);
    *id = wanted.id;
    return EP_OK;
}

/* Serves `eventpipe cursor`: shows where a source fetches from, or sets it. Runs in the keeper; while the
 * daemon is down, a child of `eventpipe` runs it and can only show the cursor. */
void control_admin_cursor(struct admin_request *request)
{
    struct error error;
    int64_t id = 0;
    const char *source = request->select.source;
    int code = control_admin_source_id(request, source, &id, &error);
    if (code != EP_OK) {
        control_end(request->client, code == EP_ENOENT ? CONTROL_USAGE : CONTROL_NO, "%s", error.message);
        return;
    }
    struct store *store = request->admin->store;
    char *cursor = NULL;
    if (store_cursor(store, id, &cursor) != EP_OK) {
        control_admin_store_failed(request, "cannot read the cursor", "");
        return;
    }
    if (request->set != NULL && !request->dry_run) {
        if (store_set_cursor(store, id, request->set) != EP_OK) {
            free(cursor);
            control_admin_store_failed(request, "cannot set the cursor", "");
            return;
        }
        control_admin_mark_changed(request, source);
    }
    struct answer answer;
    control_answer_begin(&answer, request->client);
    base_text_append(&answer.lines, "{\"source\":");
    json_write_string(&answer.lines, source, strlen(source));
    control_admin_member(&answer.lines, "cursor", request->set != NULL ? request->set : cursor);
    if (request->set != NULL)
        control_admin_member(&answer.lines, "was", cursor);
    base_text_append(&answer.lines, "}");
    control_answer_line(&answer);
    control_answer_flush(&answer);
    control_answer_close(&answer);
    free(cursor);
    if (request->set == NULL)
        control_end(request->client, CONTROL_DONE, "%s", "");
    else
        control_end(request->client, CONTROL_DONE,
                    request->dry_run ? "the cursor would be set" : "the cursor is set");
}

/* Callback of the store's check, in the keeper or an offline `eventpipe`: writes one problem as a data line
 * of the answer to `eventpipe check`, and sends it at once because the check of a large store takes long. */
static void on_store_problem(const char *message, void *user)
{
    struct answer *answer = user;
    base_text_append(&answer->lines, "{\"where\":\"store\"");
    control_admin_member(&answer->lines, "problem", message);
    base_text_append(&answer->lines, "}");
    control_answer_line(answer);
    control_answer_flush(answer);
}

/* Serves `eventpipe check`, in the keeper or an offline `eventpipe`: lets the store check itself and sends
 * one data line per problem. */
void control_admin_check(struct admin_request *request)
{
    struct answer answer;
    control_answer_begin(&answer, request->client);
    int code = store_check(request->admin->store, on_store_problem, &answer);
    control_answer_flush(&answer);
    if (code != EP_OK)
        control_admin_store_failed(request, "cannot check the store", "");
    else if (answer.line_count > 0)
        control_end(request->client, CONTROL_NO, "the store has %" PRIu64 " problem%s", answer.line_count,
                    answer.line_count == 1 ? "" : "s");
    else
        control_end(request->client, CONTROL_DONE, "the store is sound");
    control_answer_close(&answer);
}

/* The functions of the commands that control/command.c gives to the keeper. */
static void (*const runs[CONTROL_COMMAND_COUNT])(struct admin_request *request) = {
    [CONTROL_COMMAND_QUEUE] = control_admin_list,     [CONTROL_COMMAND_SHOW] = control_admin_list,
    [CONTROL_COMMAND_RETRY] = control_admin_change,   [CONTROL_COMMAND_HOLD] = control_admin_change,
    [CONTROL_COMMAND_RELEASE] = control_admin_change, [CONTROL_COMMAND_REQUEUE] = control_admin_change,
    [CONTROL_COMMAND_REMOVE] = control_admin_change,  [CONTROL_COMMAND_INJECT] = control_admin_inject,
    [CONTROL_COMMAND_CHECK] = control_admin_check,    [CONTROL_COMMAND_CURSOR] = control_admin_cursor,
};

/* Serves one control command: checks the request, runs the command's function on the store and sends the
 * whole answer. The keeper calls it for each request that the supervisor passes on. While the daemon is
 * down or does not answer, a child of `eventpipe` calls it for commands that only read. */
void control_admin_serve(const struct admin *admin, const cJSON *json, int client, uint64_t *changed_sources)
{
    struct error error = {0};
    uint64_t touched = 0;
    struct admin_request request = {.admin = admin, .client = client, .changed_sources = &touched};
    int code = control_admin_request_read(&request, json, &error);
    if (code == EP_OK)
        runs[request.command->id](&request);
    else
        control_end(client, code == EP_EINVAL ? CONTROL_USAGE : CONTROL_NO, "%s", error.message);
    control_admin_request_close(&request);
    if (changed_sources != NULL)
        *changed_sources = touched;
}
