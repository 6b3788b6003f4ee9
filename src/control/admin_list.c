/* SPDX-License-Identifier: MIT */
/*
 * The commands that list events (queue, show) and those that change them (retry, hold, release, requeue,
 * remove), with one data line per event. Runs in the keeper, and in the command line while the daemon
 * is down (lists only). The store holds no lock while it lists, so a slow client delays only itself.
 */
#include <inttypes.h>
#include <string.h>

#include "shm/slot.h"
#include "src/control/admin.h"

struct listing {
    struct admin_request *request;
    struct answer answer;
    const char *new_state_name; /* a change: the state of the event afterwards */
    bool with_data;             /* show: with context and event */
    uint64_t now_ms;
};

/* Writes the member "done" of the keeper's answer to `eventpipe show`: an array of the stages that have
 * finished the event. NULL gives an empty array. Runs in the keeper, or in a child of `eventpipe` while
 * the daemon is down. */
static void write_done_member(struct text *out, const char *finished_stages)
{
    base_text_append(out, ",\"done\":[");
    const char *separator = "";
    for (const char *name = finished_stages != NULL ? finished_stages : ""; *name != '\0';) {
        const char *end = strchrnul(name, '\n');
        base_text_append(out, separator);
        json_write_string(out, name, (size_t)(end - name));
        separator = ",";
        name = *end == '\0' ? end : end + 1;
    }
    base_text_append(out, "]");
}

/* Writes an event's finished stages, context and data into the answer to the control command `eventpipe
 * show`. Data that is not JSON (a corrupt event) is written as "raw" text and, byte for byte, as base64.
 * Runs in the keeper, or in a child of `eventpipe` while the daemon is down. */
static void write_event_data(struct text *out, const struct store_item *item)
{
    struct json_span data = {item->data, item->data_bytes};
    struct json_span context = {item->context, item->context_bytes};
    write_done_member(out, item->done);
    base_text_append(out, ",\"context\":");
    if (context.bytes > 0 && json_valid(context.at, context.bytes, NULL))
        json_write_on_one_line(out, context);
    else
        base_text_append(out, "{}");
    base_text_append(out, ",\"event\":");
    if (data.at != NULL && json_valid(data.at, data.bytes, NULL)) {
        json_write_on_one_line(out, data);
        return;
    }
    base_text_append(out, "null,\"raw\":");
    json_write_string(out, data.at != NULL ? data.at : "", data.bytes);
    base_text_append(out, ",\"raw:b64\":");
    json_write_base64(out, data.at, data.bytes);
}

static const char *null_if_empty(const char *text)
{
    return text != NULL && text[0] != '\0' ? text : NULL;
}

/* Writes the members of an event that the answers to the control commands `eventpipe queue` and `eventpipe
 * show` both have, without the closing brace, because `show` adds more. Runs in the keeper, or in a child
 * of `eventpipe` while the daemon is down. */
static void write_event_members(struct text *out, const struct store_item *item, uint64_t now_ms)
{
    char time[40];
    base_text_append(out, "{\"uid\":");
    json_write_string(out, item->uid, strlen(item->uid));
    control_admin_write_member(out, "source", item->source);
    control_admin_write_member(out, "stage", item->stage != NULL ? item->stage : "");
    control_admin_write_member(out, "state", store_state_name(item->state));
    base_text_append(out, ",\"number\":");
    json_write_uint(out, store_event_number(item->id));
    control_admin_write_member(out, "address", null_if_empty(item->address));
    control_admin_write_member(out, "type", null_if_empty(item->type));
    control_admin_format_time(item->arrival_ms, time, sizeof time);
    control_admin_write_member(out, "arrived", time);
    base_text_append(out, ",\"age_s\":");
    json_write_uint(out, now_ms > item->arrival_ms ? (now_ms - item->arrival_ms) / 1000 : 0);
    bool is_delayed = item->state == STORE_DELAYED;
    control_admin_format_time(item->due_ms, time, sizeof time);
    control_admin_write_member(out, "due", is_delayed ? time : NULL);
    base_text_append(out, ",\"due_in_s\":");
    if (is_delayed)
        json_write_uint(out, item->due_ms > now_ms ? (item->due_ms - now_ms + 999) / 1000 : 0);
    else
        base_text_append(out, "null");
    base_text_append(out, ",\"attempts\":");
    json_write_uint(out, item->attempts);
    base_text_append(out, ",\"crashes\":");
    json_write_uint(out, item->crashes);
    control_admin_write_member(out, "reason",
                               item->state == STORE_DEAD ? store_reason_name(item->reason) : NULL);
    control_admin_write_member(out, "error", null_if_empty(item->error));
}

/* Callback for each event that the store lists: writes it as a data line of the answer to `eventpipe
 * queue` or `eventpipe show`; only show adds context and data. Runs in the keeper, or in a child of
 * `eventpipe` while the daemon is down. Returns 0, or 1 once the client is gone, which ends the list. */
static int on_listed_event(const struct store_item *item, void *user)
{
    struct listing *listing = user;
    write_event_members(&listing->answer.lines, item, listing->now_ms);
    if (listing->with_data)
        write_event_data(&listing->answer.lines, item);
    base_text_append(&listing->answer.lines, "}");
    return control_answer_end_line(&listing->answer) == EP_OK ? 0 : 1;
}

/* Serves `eventpipe queue` and `eventpipe show`: lists the selected events of the store, one data line
 * each. Runs in the keeper, or in a child of `eventpipe` while the daemon is down. */
void control_admin_serve_list(struct admin_request *request)
{
    struct listing listing = {.request = request, .now_ms = shm_realtime_ms()};
    listing.with_data = request->command->id == CONTROL_COMMAND_SHOW;
    control_answer_begin(&listing.answer, request->client_fd);
    int code =
        store_list(request->admin->store, &request->select, listing.with_data, on_listed_event, &listing);
    control_answer_flush(&listing.answer);
    char unknown_name[512];
    control_admin_describe_unknown_name(request, unknown_name, sizeof unknown_name);
    if (code != EP_OK)
        control_admin_end_with_store_error(request, "cannot read the store", "");
    else if (listing.answer.line_count > 0)
        control_end(request->client_fd, CONTROL_DONE, "%" PRIu64 " event%s", listing.answer.line_count,
                    listing.answer.line_count == 1 ? "" : "s");
    else if (request->has_filter)
        control_end(request->client_fd, CONTROL_NOTHING, "nothing matched%s", unknown_name);
    else
        control_end(request->client_fd, CONTROL_DONE, "no events: the queue is empty");
    control_answer_close(&listing.answer);
}

/* ---- change ---- */

/* Callback for each event that the store changed for an operator's retry, hold, release, requeue or
 * remove: writes it as a data line of the answer and marks its source, so that the keeper wakes the
 * producer. Returns 0, or 1 once the client is gone. Runs in the keeper. */
static int on_changed_event(const struct store_item *item, void *user)
{
    struct listing *listing = user;
    struct text *out = &listing->answer.lines;
    if (!listing->request->dry_run)
        control_admin_mark_source_changed(listing->request, item->source);
    base_text_append(out, "{\"uid\":");
    json_write_string(out, item->uid, strlen(item->uid));
    control_admin_write_member(out, "source", item->source);
    control_admin_write_member(out, "stage", item->stage != NULL ? item->stage : "");
    control_admin_write_member(out, "state", listing->new_state_name);
    control_admin_write_member(out, "was", store_state_name(item->state));
    base_text_append(out, "}");
    return control_answer_end_line(&listing->answer) == EP_OK ? 0 : 1;
}

static int on_running_event(const struct store_item *item, void *user)
{
    (void)item;
    *(bool *)user = true;
    return 1;
}

/* Returns whether the filters of a control request select a running event. No command changes running
 * events, so the keeper then says so after "nothing matched", which would otherwise puzzle the operator.
 * */
static bool has_selected_running_event(const struct admin_request *request)
{
    struct store_select select = request->select;
    bool found_running_event = false;
    if (select.state >= 0 && select.state != STORE_RUNNING)
        return false;
    select.state = STORE_RUNNING;
    select.limit = 1;
    return store_list(request->admin->store, &select, false, on_running_event, &found_running_event) ==
               EP_OK &&
           found_running_event;
}

/* Serves `eventpipe retry`, `hold`, `release`, `requeue` and `remove`: changes the state of the selected
 * events in the store and answers with one data line per event. With --dry-run nothing is changed. Runs
 * in the keeper. */
void control_admin_serve_change(struct admin_request *request)
{
    const struct control_change *change = request->command->change;
    struct listing listing = {.request = request, .new_state_name = control_command_get_new_state(change)};
    control_answer_begin(&listing.answer, request->client_fd);
    uint64_t changed_count = 0;
    int code = store_change(request->admin->store, &request->select, change->store_command, request->dry_run,
                            on_changed_event, &listing, &changed_count);
    control_answer_flush(&listing.answer);
    char summary[128], accepted_states[64], unknown_name[512];
    control_command_describe_states(store_command_rule(change->store_command)->takes, accepted_states,
                                    sizeof accepted_states);
    control_admin_describe_unknown_name(request, unknown_name, sizeof unknown_name);
    snprintf(summary, sizeof summary, "%" PRIu64 " event%s %s%s", changed_count,
             changed_count == 1 ? "" : "s", request->dry_run ? "would be " : "", change->done);
    if (code != EP_OK)
        control_admin_end_with_store_error(request, "cannot change the events", summary);
    else if (changed_count > 0)
        control_end(request->client_fd, CONTROL_DONE, "%s", summary);
    else
        control_end(request->client_fd, CONTROL_NOTHING, "nothing matched: %s takes %s events%s%s",
                    request->command->name, accepted_states,
                    has_selected_running_event(request) ? "; running events are never changed" : "",
                    unknown_name);
    control_answer_close(&listing.answer);
}
