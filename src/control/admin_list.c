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
    const char *becomes; /* a change: the state of the event afterwards */
    bool with_data;      /* show: with context and event */
    uint64_t now_ms;
};

/* Keeper, or `eventpipe` while the daemon is down: `eventpipe show`: writes the member "done", an array of
 * the stages that have finished the event. The store keeps their names one per line. */
static void write_done_member(struct text *out, const char *done)
{
    base_text_append(out, ",\"done\":[");
    const char *comma = "";
    for (const char *line = done != NULL ? done : ""; *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        base_text_append(out, comma);
        json_write_string(out, line, (size_t)(end - line));
        comma = ",";
        line = *end == '\0' ? end : end + 1;
    }
    base_text_append(out, "]");
}

/* Keeper, or `eventpipe` while the daemon is down: `eventpipe show`: writes an event's context and its data
 * as it was fetched. Data that is not JSON (a corrupt event) is written as text and, byte for byte, in
 * base64. */
static void write_event_data(struct text *out, const struct store_item *item)
{
    struct json_span data = {item->data, item->data_bytes};
    struct json_span context = {item->context, item->context_bytes};
    write_done_member(out, item->done);
    base_text_append(out, ",\"context\":");
    if (context.bytes > 0 && json_valid(context.at, context.bytes, NULL))
        json_write_line(out, context);
    else
        base_text_append(out, "{}");
    base_text_append(out, ",\"event\":");
    if (data.at != NULL && json_valid(data.at, data.bytes, NULL)) {
        json_write_line(out, data);
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

/* Keeper, or `eventpipe` while the daemon is down: `eventpipe queue` and `eventpipe show`: writes the
 * members that both list for an event, without the closing bracket. */
static void write_event_members(struct text *out, const struct store_item *item, uint64_t now_ms)
{
    char time[40];
    base_text_append(out, "{\"uid\":");
    json_write_string(out, item->uid, strlen(item->uid));
    control_admin_member(out, "source", item->source);
    control_admin_member(out, "stage", item->stage != NULL ? item->stage : "");
    control_admin_member(out, "state", store_state_name(item->state));
    base_text_append(out, ",\"number\":");
    json_write_uint(out, store_event_number(item->id));
    control_admin_member(out, "address", null_if_empty(item->address));
    control_admin_member(out, "type", null_if_empty(item->type));
    control_admin_time(item->arrival_ms, time, sizeof time);
    control_admin_member(out, "arrived", time);
    base_text_append(out, ",\"age_s\":");
    json_write_uint(out, now_ms > item->arrival_ms ? (now_ms - item->arrival_ms) / 1000 : 0);
    bool due = item->state == STORE_DELAYED;
    control_admin_time(item->due_ms, time, sizeof time);
    control_admin_member(out, "due", due ? time : NULL);
    base_text_append(out, ",\"due_in_s\":");
    if (due)
        json_write_uint(out, item->due_ms > now_ms ? (item->due_ms - now_ms + 999) / 1000 : 0);
    else
        base_text_append(out, "null");
    base_text_append(out, ",\"attempts\":");
    json_write_uint(out, item->attempts);
    base_text_append(out, ",\"crashes\":");
    json_write_uint(out, item->crashes);
    control_admin_member(out, "reason", item->state == STORE_DEAD ? store_reason_name(item->reason) : NULL);
    control_admin_member(out, "error", null_if_empty(item->error));
}

/* Callback of the store's list, in the keeper or an offline `eventpipe`: writes one event as a data line of
 * the answer to `eventpipe queue` or `eventpipe show`. Returns 1, which ends the list, once the client is
 * gone. */
static int on_listed_event(const struct store_item *item, void *user)
{
    struct listing *listing = user;
    write_event_members(&listing->answer.lines, item, listing->now_ms);
    if (listing->with_data)
        write_event_data(&listing->answer.lines, item);
    base_text_append(&listing->answer.lines, "}");
    return control_answer_line(&listing->answer) == EP_OK ? 0 : 1;
}

/* Serves `eventpipe queue` and `eventpipe show`, in the keeper or an offline `eventpipe`: lists the selected
 * events of the store, one data line each. */
void control_admin_list(struct admin_request *request)
{
    struct listing listing = {.request = request, .now_ms = shm_realtime_ms()};
    listing.with_data = request->command->id == CONTROL_COMMAND_SHOW;
    control_answer_begin(&listing.answer, request->client);
    int code =
        store_list(request->admin->store, &request->select, listing.with_data, on_listed_event, &listing);
    control_answer_flush(&listing.answer);
    char unknown[512];
    control_admin_unknown_name(request, unknown, sizeof unknown);
    if (code != EP_OK)
        control_admin_store_failed(request, "cannot read the store", "");
    else if (listing.answer.line_count > 0)
        control_end(request->client, CONTROL_DONE, "%" PRIu64 " event%s", listing.answer.line_count,
                    listing.answer.line_count == 1 ? "" : "s");
    else if (request->selective)
        control_end(request->client, CONTROL_NOTHING, "nothing matched%s", unknown);
    else
        control_end(request->client, CONTROL_DONE, "no events: the queue is empty");
    control_answer_close(&listing.answer);
}

/* ---- change ---- */

/* Callback of the store's change, in the keeper: answers an operator's retry, hold, release, requeue or
 * remove with one data line per event, and marks the event's source so that its producer is notified.
 * Returns 1 once the client is gone. */
static int on_changed_event(const struct store_item *item, void *user)
{
    struct listing *listing = user;
    struct text *out = &listing->answer.lines;
    if (!listing->request->dry_run)
        control_admin_mark_changed(listing->request, item->source);
    base_text_append(out, "{\"uid\":");
    json_write_string(out, item->uid, strlen(item->uid));
    control_admin_member(out, "source", item->source);
    control_admin_member(out, "stage", item->stage != NULL ? item->stage : "");
    control_admin_member(out, "state", listing->becomes);
    control_admin_member(out, "was", store_state_name(item->state));
    base_text_append(out, "}");
    return control_answer_line(&listing->answer) == EP_OK ? 0 : 1;
}

static int on_running_event(const struct store_item *item, void *user)
{
    (void)item;
    *(bool *)user = true;
    return 1;
}

/* Control command in the keeper: returns whether the operator selected a running event. No command changes
 * running events, and without this hint the answer "nothing matched" would puzzle the operator. */
static bool selects_running(const struct admin_request *request)
{
    struct store_select select = request->select;
    bool runs = false;
    if (select.state >= 0 && select.state != STORE_RUNNING)
        return false;
    select.state = STORE_RUNNING;
    select.limit = 1;
    return store_list(request->admin->store, &select, false, on_running_event, &runs) == EP_OK && runs;
}

/* Serves `eventpipe retry`, `hold`, `release`, `requeue` and `remove` in the keeper: changes the state of
 * the selected events in the store and answers with one data line per event. */
void control_admin_change(struct admin_request *request)
{
    const struct control_change *change = request->command->change;
    struct listing listing = {.request = request, .becomes = control_command_makes(change)};
    control_answer_begin(&listing.answer, request->client);
    uint64_t changed = 0;
    int code = store_change(request->admin->store, &request->select, change->store_command, request->dry_run,
                            on_changed_event, &listing, &changed);
    control_answer_flush(&listing.answer);
    char done[128], takes[64], unknown[512];
    control_command_states(store_command_rule(change->store_command)->takes, takes, sizeof takes);
    control_admin_unknown_name(request, unknown, sizeof unknown);
    snprintf(done, sizeof done, "%" PRIu64 " event%s %s%s", changed, changed == 1 ? "" : "s",
             request->dry_run ? "would be " : "", change->done);
    if (code != EP_OK)
        control_admin_store_failed(request, "the change failed", done);
    else if (changed > 0)
        control_end(request->client, CONTROL_DONE, "%s", done);
    else
        control_end(request->client, CONTROL_NOTHING, "nothing matched: %s takes %s events%s%s",
                    request->command->name, takes,
                    selects_running(request) ? "; running events are never changed" : "", unknown);
    control_answer_close(&listing.answer);
}
