/* SPDX-License-Identifier: MIT */
/*
 * The long polls of contrib/idefix-sim. events.get is answered at once if there are events, and
 * otherwise held until there are some or until it times out.
 */
#include <stdlib.h>
#include <string.h>

#include "contrib/idefix_sim.h"
#include "src/json/scan.h"

#define LIMIT_DEFAULT 100
#define LIMIT_MAX 10000
#define HOLD_DEFAULT_MS 60000

static void query_free(struct sim_query *query)
{
    free(query->domain);
    free(query->address);
    free(query->type);
    free(query->uid);
}

static void poll_free(struct sim_poll *poll)
{
    free(poll->reply);
    query_free(&poll->query);
    free(poll);
}

void sim_polls_end(struct sim *sim, const struct sim_session *session)
{
    for (struct sim_poll **at = &sim->polls; *at != NULL;) {
        struct sim_poll *poll = *at;
        if (poll->session != session) {
            at = &poll->next;
            continue;
        }
        *at = poll->next;
        poll_free(poll);
    }
}

static void send_page(struct sim *sim, const struct sim_call *call, const struct sim_page *page,
                      bool no_payload, uint64_t due_ms)
{
    struct text data = {0};
    sim->stats.events_sent += page->count;
    sim_page_write(page, call->encoding.json, no_payload, NULL, &data);
    if (!data.failed)
        sim_answer_text(sim, call, NULL, (struct json_span){data.text, data.bytes}, due_ms);
    base_text_free(&data);
}

static void send_garbage(struct sim *sim, const struct sim_call *call, const struct sim_page *page)
{
    struct sim_answer answer;
    int result =
        sim_garbage_make(sim->garbage, sim->garbage_variant++, &call->encoding, call->reply, page, &answer);
    if (result == 0) {
        sim->stats.garbage++;
        sim_say(sim, "garbage session=%s kind=%s", call->session->id, sim_garbage_name(sim->garbage));
        sim_answer_send(sim, call, &answer, 0);
        free(answer.body);
    }
    if (sim->garbage_count != UINT64_MAX && --sim->garbage_count == 0)
        sim->garbage = SIM_GARBAGE_NONE;
}

/* These kinds change events, so they wait until there are some. */
static bool garbage_waits_for_events(enum sim_garbage kind)
{
    return kind == SIM_GARBAGE_BAD_EVENT || kind == SIM_GARBAGE_TIMESTAMPS;
}

/* Answers a poll if there is something to send. */
static bool poll_answer(struct sim *sim, struct sim_poll *poll, uint64_t now_ms)
{
    const struct sim_call call = {.session = poll->session,
                                  .encoding = poll->session->encoding,
                                  .command = "events.get",
                                  .reply = poll->reply};
    struct sim_page page;
    if (sim_events_page(&sim->events, &poll->query, &poll->position, &page) != 0)
        return false;
    bool answered = true;
    if (sim->garbage != SIM_GARBAGE_NONE && (page.count != 0 || !garbage_waits_for_events(sim->garbage))) {
        send_garbage(sim, &call, &page);
    } else if (sim->late_count != 0 && page.count != 0) {
        sim->late_count--;
        sim->stats.late++;
        send_page(sim, &call, &page, poll->query.no_payload, poll->end_ms + sim->late_ms);
    } else if (page.count != 0) {
        send_page(sim, &call, &page, poll->query.no_payload, 0);
    } else if (now_ms < poll->end_ms) {
        answered = false;
    } else if (sim->empty_on_timeout) {
        send_page(sim, &call, &page, false, 0);
    } else {
        sim_answer_error(sim, &call, 7, NULL);
    }
    sim_page_free(&page);
    return answered;
}

/* Reads a duration as Go writes it: 1m0s, 1.5s, 300ms. */
static bool read_go_duration(const char *text, uint64_t *ms)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"h", 3600000}, {"ms", 1},         {"m", 60000}, {"ns", 1e-6},
                 {"us", 1e-3},   {"\u00b5s", 1e-3}, {"s", 1000}};
    double sum = 0;
    if (strcmp(text, "0") == 0) {
        *ms = 0;
        return true;
    }
    do {
        char *end;
        if (!json_scan_is_digit(*text) && *text != '.')
            return false;
        double number = strtod(text, &end);
        size_t i = 0;
        while (i < sizeof units / sizeof units[0] && strncmp(end, units[i].name, strlen(units[i].name)) != 0)
            i++;
        if (end == text || i == sizeof units / sizeof units[0])
            return false;
        sum += number * units[i].ms;
        text = end + strlen(units[i].name);
    } while (*text != '\0');
    *ms = sum < 86400000.0 ? (uint64_t)sum : 86400000;
    return true;
}

static bool known(const struct sim *sim, const char *domain, const char *address)
{
    for (size_t i = 0; domain != NULL && i < sim->domain_count; i++)
        if (strcmp(sim->domains[i], domain) == 0)
            return true;
    for (size_t i = 0; address != NULL && i < sim->account_count; i++)
        if (strcmp(sim->accounts[i].address, address) == 0)
            return true;
    return sim_events_has(&sim->events, domain, address, NULL);
}

/* Reads the call's data. Returns 0, or an error code, and *what names the wrong member. */
static int read_query(const struct sim *sim, const struct sim_call *call, struct sim_poll *poll,
                      const char **what)
{
    struct sim_query *query = &poll->query;
    struct json_span value;
    char *since = NULL, *cid = NULL, *timeout = NULL;
    uint64_t hold_ms = HOLD_DEFAULT_MS;
    int64_t limit = LIMIT_DEFAULT;
    bool texts = sim_take_text(call, "/domain", &query->domain) &&
                 sim_take_text(call, "/address", &query->address) &&
                 sim_take_text(call, "/type", &query->type) && sim_take_text(call, "/uid", &query->uid) &&
                 sim_take_text(call, "/since", &since) && sim_take_text(call, "/cid", &cid) &&
                 sim_take_text(call, "/timeout", &timeout);
    *what = NULL;
    query->since_ns = INT64_MIN;
    if (!texts)
        *what = "types";
    else if (json_find(call->data, "/limit", &value) && (!json_int64(value, &limit) || limit < 0))
        *what = "limit";
    else if (timeout != NULL && !read_go_duration(timeout, &hold_ms))
        *what = "timeout";
    else if (since != NULL && !sim_time_read(since, &query->since_ns))
        *what = "since";
    else if (cid != NULL && !sim_cid_read(cid, &poll->position))
        *what = "cid";
    free(since);
    free(cid);
    free(timeout);
    query->limit = limit == 0 ? LIMIT_DEFAULT : limit > LIMIT_MAX ? LIMIT_MAX : (size_t)limit;
    query->no_payload = json_find(call->data, "/noPayload", &value) && json_kind(value) == 't';
    poll->end_ms = sim_now_ms() + hold_ms;
    if (*what != NULL)
        return 6;
    if (query->domain == NULL && query->address == NULL)
        return 203;
    if (query->domain != NULL && !known(sim, query->domain, NULL))
        return 208;
    return query->address != NULL && !known(sim, NULL, query->address) ? 209 : 0;
}

void sim_take_get(struct sim *sim, const struct sim_call *call)
{
    const char *what;
    struct sim_poll *poll = calloc(1, sizeof *poll);
    sim->stats.polls++;
    if (poll == NULL || (poll->reply = strdup(call->reply)) == NULL) {
        free(poll);
        return;
    }
    poll->session = call->session;
    int code = read_query(sim, call, poll, &what);
    if (code != 0)
        sim_answer_error(sim, call, code, what);
    if (code != 0 || poll_answer(sim, poll, sim_now_ms())) {
        poll_free(poll);
        return;
    }
    poll->next = sim->polls;
    sim->polls = poll;
}

void sim_polls_answer(struct sim *sim, bool all)
{
    uint64_t now_ms = sim_now_ms();
    for (struct sim_poll **at = &sim->polls; *at != NULL;) {
        struct sim_poll *poll = *at;
        if ((!all && now_ms < poll->end_ms) || sim->silent || !poll_answer(sim, poll, now_ms)) {
            at = &poll->next;
            continue;
        }
        *at = poll->next;
        poll_free(poll);
    }
}

void sim_polls_events_added(struct sim *sim)
{
    sim_polls_answer(sim, true);
}

size_t sim_polls_held(const struct sim *sim)
{
    size_t count = 0;
    for (const struct sim_poll *poll = sim->polls; poll != NULL; poll = poll->next)
        count++;
    return count;
}
