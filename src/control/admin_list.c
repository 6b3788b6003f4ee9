/* SPDX-License-Identifier: MIT */
/*
 * The verbs that read events (queue, show) and those that change them (retry, hold, release, requeue,
 * remove): one data line per event. Runs where admin_serve runs. The store shows what it has committed and
 * holds no lock while it does, so a slow client delays nobody but itself.
 */
#include <inttypes.h>
#include <string.h>

#include "shm/slot.h"
#include "src/control/admin.h"

struct listing {
    struct admin_request *request;
    struct answer answer;
    const char *becomes; /* a change: the state the event goes to */
    bool full;           /* show: with data */
    uint64_t now_ms;
};

static void add_done(struct json_out *out, const char *done)
{
    json_out_words(out, ",\"done\":[");
    const char *comma = "";
    for (const char *line = done != NULL ? done : ""; *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        json_out_words(out, comma);
        json_out_string(out, line, (size_t)(end - line));
        comma = ",";
        line = *end == '\0' ? end : end + 1;
    }
    json_out_words(out, "]");
}

/* The event as it came; what is no JSON (a corrupt one) as a text and, byte for byte, in base64. */
static void add_data(struct json_out *out, const struct store_item *item)
{
    struct json_span data = {item->data, item->data_bytes};
    struct json_span context = {item->context, item->context_bytes};
    add_done(out, item->done);
    json_out_words(out, ",\"context\":");
    if (context.bytes > 0 && json_valid(context.at, context.bytes, NULL))
        json_out_line(out, context);
    else
        json_out_words(out, "{}");
    json_out_words(out, ",\"event\":");
    if (data.at != NULL && json_valid(data.at, data.bytes, NULL)) {
        json_out_line(out, data);
        return;
    }
    json_out_words(out, "null,\"raw\":");
    json_out_string(out, data.at != NULL ? data.at : "", data.bytes);
    json_out_words(out, ",\"raw:b64\":");
    json_out_base64(out, data.at, data.bytes);
}

static const char *filled(const char *text)
{
    return text != NULL && text[0] != '\0' ? text : NULL;
}

static void add_item(struct json_out *out, const struct store_item *item, uint64_t now_ms)
{
    char time[40];
    json_out_words(out, "{\"uid\":");
    json_out_string(out, item->uid, strlen(item->uid));
    admin_member(out, "source", item->source);
    admin_member(out, "stage", item->stage != NULL ? item->stage : "");
    admin_member(out, "state", store_state_name(item->state));
    json_out_words(out, ",\"number\":");
    json_out_uint(out, store_event_number(item->id));
    admin_member(out, "device", filled(item->device));
    admin_member(out, "type", filled(item->type));
    admin_time(item->arrival_ms, time, sizeof time);
    admin_member(out, "arrived", time);
    json_out_words(out, ",\"age_s\":");
    json_out_uint(out, now_ms > item->arrival_ms ? (now_ms - item->arrival_ms) / 1000 : 0);
    bool due = item->state == STORE_DELAYED;
    admin_time(item->due_ms, time, sizeof time);
    admin_member(out, "due", due ? time : NULL);
    json_out_words(out, ",\"due_in_s\":");
    if (due)
        json_out_uint(out, item->due_ms > now_ms ? (item->due_ms - now_ms + 999) / 1000 : 0);
    else
        json_out_words(out, "null");
    json_out_words(out, ",\"attempts\":");
    json_out_uint(out, item->attempts);
    json_out_words(out, ",\"crashes\":");
    json_out_uint(out, item->crashes);
    admin_member(out, "reason", item->state == STORE_DEAD ? store_reason_name(item->reason) : NULL);
    admin_member(out, "error", filled(item->words));
}

static int see_item(const struct store_item *item, void *user)
{
    struct listing *listing = user;
    add_item(&listing->answer.lines, item, listing->now_ms);
    if (listing->full)
        add_data(&listing->answer.lines, item);
    json_out_words(&listing->answer.lines, "}");
    return answer_line(&listing->answer) == EP_OK ? 0 : 1;
}

void admin_list(struct admin_request *request)
{
    struct listing listing = {.request = request, .now_ms = shm_realtime_ms()};
    listing.full = strcmp(request->verb->name, "show") == 0;
    answer_begin(&listing.answer, request->client);
    int code = store_list(request->admin->store, &request->select, listing.full, see_item, &listing);
    answer_flush(&listing.answer);
    char unknown[512];
    admin_unknown_name(request, unknown, sizeof unknown);
    if (code != EP_OK)
        admin_store_failed(request, "cannot read the store", "");
    else if (listing.answer.line_count > 0)
        control_end(request->client, CONTROL_DONE, "%" PRIu64 " event%s", listing.answer.line_count,
                    listing.answer.line_count == 1 ? "" : "s");
    else if (request->selective)
        control_end(request->client, CONTROL_NOTHING, "nothing matched%s", unknown);
    else
        control_end(request->client, CONTROL_DONE, "no events: the queue is empty");
    answer_close(&listing.answer);
}

/* ---- change ---- */

static const struct change_verb {
    const char *name;
    enum store_verb verb;
    const char *becomes, *done; /* the state afterwards; "3 events retried" */
    const char *takes;
} change_verbs[] = {
    {"retry", STORE_RETRY, "ready", "retried", "delayed and dead"},
    {"hold", STORE_HOLD, "held", "held", "ready, delayed and dead"},
    {"release", STORE_FREE, "ready", "released", "held"},
    {"requeue", STORE_REQUEUE, "ready", "requeued", "ready, delayed, held and dead"},
    {"remove", STORE_DISCARD, "removed", "removed", "ready, delayed, held and dead"},
};

static int see_change(const struct store_item *item, void *user)
{
    struct listing *listing = user;
    struct json_out *out = &listing->answer.lines;
    if (!listing->request->dry_run)
        admin_touch(listing->request, item->source);
    json_out_words(out, "{\"uid\":");
    json_out_string(out, item->uid, strlen(item->uid));
    admin_member(out, "source", item->source);
    admin_member(out, "stage", item->stage != NULL ? item->stage : "");
    admin_member(out, "state", listing->becomes);
    admin_member(out, "was", store_state_name(item->state));
    json_out_words(out, "}");
    return answer_line(&listing->answer) == EP_OK ? 0 : 1;
}

static int see_one(const struct store_item *item, void *user)
{
    (void)item;
    *(bool *)user = true;
    return 1;
}

/* Whether something was selected and left, because it runs. */
static bool something_runs(const struct admin_request *request)
{
    struct store_select select = request->select;
    bool runs = false;
    if (select.state >= 0 && select.state != STORE_RUNNING)
        return false;
    select.state = STORE_RUNNING;
    select.limit = 1;
    return store_list(request->admin->store, &select, false, see_one, &runs) == EP_OK && runs;
}

void admin_change(struct admin_request *request)
{
    const struct change_verb *verb = change_verbs;
    while (strcmp(verb->name, request->verb->name) != 0)
        verb++;
    struct listing listing = {.request = request, .becomes = verb->becomes};
    answer_begin(&listing.answer, request->client);
    uint64_t changed = 0;
    int code = store_change(request->admin->store, &request->select, verb->verb, request->dry_run, see_change,
                            &listing, &changed);
    answer_flush(&listing.answer);
    char done[128], unknown[512];
    admin_unknown_name(request, unknown, sizeof unknown);
    snprintf(done, sizeof done, "%" PRIu64 " event%s %s%s", changed, changed == 1 ? "" : "s",
             request->dry_run ? "would be " : "", verb->done);
    if (code != EP_OK)
        admin_store_failed(request, "the store failed", done);
    else if (changed > 0)
        control_end(request->client, CONTROL_DONE, "%s", done);
    else
        control_end(request->client, CONTROL_NOTHING, "nothing matched: %s takes %s events%s%s", verb->name,
                    verb->takes,
                    something_runs(request) ? ", and leaves what runs or waits in a stage's ring" : "",
                    unknown);
    answer_close(&listing.answer);
}
