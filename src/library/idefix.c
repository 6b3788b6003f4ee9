/* SPDX-License-Identifier: MIT */
/*
 * The library's Idefix client for programs without a manager, and the reading of its parameters, which
 * managers share. Runs in the caller's process, in the calling thread.
 *
 * Owns a configuration with one source, which holds copies of the parameters. A page owns everything that
 * its events point to.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/secret.h"
#include "src/base/utf8.h"
#include "src/idefix/client.h"
#include "src/library/manager.h"
#include "src/source/idefix_events.h"

#define LIMIT_DEFAULT 100
#define BYTES_MAX (UINT64_C(4) << 30)

struct ep_idefix {
    struct config *config;
    const struct source_config *source; /* its only one */
    struct idefix *idefix;
    struct error error;
    atomic_bool interrupted; /* until a call has seen it */
};

/* A page for the caller, with the page that owns its strings. */
struct library_page {
    struct ep_idefix_page seen; /* first: freed by its address */
    struct page page;
    struct ep_idefix_event events[];
};

/* ---- parameters */

/* Replaces *to by a copy of text, unless text is NULL. Returns false when memory is out. */
static bool replace(const char *text, char **to)
{
    if (text == NULL)
        return true;
    char *copy = strdup(text);
    if (copy == NULL)
        return false;
    free(*to);
    *to = copy;
    return true;
}

static bool groups_copy(const char *const *groups, struct strings *to)
{
    size_t count = 0;

    while (groups != NULL && groups[count] != NULL)
        count++;
    if (count == 0)
        return true;
    to->at = calloc(count + 1, sizeof *to->at);
    while (to->at != NULL && to->count < count && replace(groups[to->count], &to->at[to->count]))
        to->count++;
    return to->at != NULL && to->count == count;
}

/* Limits a value, so that adding to it later cannot overflow. */
static uint64_t at_most(uint64_t value, uint64_t most)
{
    return value < most ? value : most;
}

static bool params_copy(const struct ep_idefix_params *params, struct idefix_source_config *to)
{
    if (params->connect_timeout_ms > 0)
        to->connect_timeout_ms = at_most(params->connect_timeout_ms, UNITS_DURATION_MAX_MS);
    if (params->response_timeout_ms > 0)
        to->response_timeout_ms = at_most(params->response_timeout_ms, UNITS_DURATION_MAX_MS);
    if (params->max_bytes > 0)
        to->max_bytes = at_most(params->max_bytes, BYTES_MAX);
    return replace(params->broker, &to->broker) && replace(params->account, &to->account) &&
           (to->token != NULL || replace(params->token != NULL ? params->token : "", &to->token)) &&
           replace(params->encoding, &to->encoding) && replace(params->session, &to->session) &&
           replace(params->user, &to->user) && replace(params->password, &to->password) &&
           replace(params->ca_file, &to->ca_file) && replace(params->meta, &to->meta) &&
           groups_copy(params->groups, &to->groups);
}

int library_idefix_config(const struct ep_idefix_params *params, struct config **out, struct error *error)
{
    if (params == NULL || params->broker == NULL || params->account == NULL)
        return base_error_set(error, EP_EINVAL, "idefix needs a broker and an account");
    if (params->token != NULL && params->token_file != NULL)
        return base_error_set(error, EP_EINVAL, "both token and token_file are given");
    struct config *config = calloc(1, sizeof *config);
    if (config != NULL)
        config->sources = calloc(1, sizeof *config->sources);
    if (config == NULL || config->sources == NULL) {
        free(config);
        return base_error_set(error, EP_ENOMEM, "no memory for an Idefix client");
    }
    config->source_count = 1;
    config->sources[0].type = SOURCE_IDEFIX;
    config_source_defaults(&config->sources[0]);
    struct idefix_source_config *idefix = &config->sources[0].idefix;
    int code = params->token_file != NULL ? base_secret_read(params->token_file, &idefix->token, error) : 0;
    if (code == 0 && !params_copy(params, idefix))
        code = base_error_set(error, EP_ENOMEM, "no memory for an Idefix client");
    if (code != 0) {
        config_close(&config);
        return code;
    }
    *out = config;
    return 0;
}

/* ---- the client */

static int client_open(const struct ep_idefix_params *params, ep_idefix **out, struct error *error)
{
    ep_idefix *idefix = calloc(1, sizeof *idefix);

    if (idefix == NULL)
        return base_error_set(error, EP_ENOMEM, "no memory for an Idefix client");
    int code = library_idefix_config(params, &idefix->config, error);
    if (idefix->config != NULL) {
        idefix->source = &idefix->config->sources[0];
        const char *ca_file = idefix->source->idefix.ca_file;
        if (ca_file != NULL && access(ca_file, R_OK) != 0)
            code = base_error_set(error, EP_EACCESS, "ca_file %s cannot be read", ca_file);
    }
    if (code == 0)
        code = idefix_open(&idefix->source->idefix, &idefix->idefix, error);
    if (code != 0) {
        ep_idefix_close(&idefix);
        return code;
    }
    *out = idefix;
    return 0;
}

int ep_idefix_open(const struct ep_idefix_params *params, ep_idefix **out, char *errbuf, size_t errbuf_size)
{
    struct error error = {0};
    int code = out == NULL ? base_error_set(&error, EP_EINVAL, "out is NULL: pass a pointer for the client")
                           : client_open(params, out, &error);

    if (code != 0 && errbuf != NULL && errbuf_size > 0)
        snprintf(errbuf, errbuf_size, "%s", error.message[0] != '\0' ? error.message : ep_strerror(code));
    return code;
}

void ep_idefix_close(ep_idefix **idefix)
{
    if (idefix == NULL || *idefix == NULL)
        return;
    ep_idefix *gone = *idefix;
    *idefix = NULL;
    idefix_close(&gone->idefix);
    if (gone->config != NULL)
        config_close(&gone->config);
    free(gone);
}

const char *ep_idefix_errmsg(const ep_idefix *idefix)
{
    if (idefix == NULL)
        return "no client";
    return idefix->error.message[0] != '\0' ? idefix->error.message : ep_strerror(idefix->error.code);
}

void ep_idefix_interrupt(ep_idefix *idefix)
{
    if (idefix == NULL)
        return;
    atomic_store(&idefix->interrupted, true);
    idefix_interrupt(idefix->idefix);
}

static int call(ep_idefix *idefix, const char *command, struct json_out *data, uint64_t wait_ms,
                struct idefix_message *message, struct idefix_failure *failure)
{
    int code = data->failed
                   ? base_error_set(&failure->error, EP_ENOMEM, "no memory for a request")
                   : idefix_call(idefix->idefix, command, (struct json_span){data->text, data->bytes},
                                 wait_ms, &idefix->interrupted, message, failure);

    json_write_free(data);
    if (code == EP_EBUSY)
        atomic_store(&idefix->interrupted, false);
    idefix->error = failure->error;
    return code;
}

/* ---- events */

void ep_idefix_page_free(struct ep_idefix_page **page)
{
    if (page == NULL || *page == NULL)
        return;
    struct library_page *gone = (struct library_page *)*page;
    *page = NULL;
    source_page_clear(&gone->page);
    free(gone);
}

/* Makes the caller's page; it takes ownership of `page`. */
static int page_show(struct page *page, struct ep_idefix_page **out)
{
    struct library_page *shown = malloc(sizeof *shown + page->count * sizeof shown->events[0]);

    if (shown == NULL)
        return EP_ENOMEM;
    shown->page = *page;
    shown->seen = (struct ep_idefix_page){page->count, shown->events, page->cursor};
    for (size_t i = 0; i < page->count; i++) {
        const struct store_event *event = &page->events[i];
        shown->events[i] = (struct ep_idefix_event){
            .uid = event->uid,
            .address = event->address,
            .type = event->type,
            .text = event->data,
            .text_bytes = event->data_bytes,
            .problem = event->dead == STORE_REASON_CORRUPT ? event->error : NULL,
        };
    }
    *out = &shown->seen;
    return 0;
}

static bool nothing_yet(const struct idefix_failure *failure)
{
    const char *setting;

    return failure->backend_code != 0 &&
           idefix_error_verdict(failure->backend_code, &setting) == IDEFIX_NOTHING_YET;
}

/* Refuses text that is not UTF-8: it would arrive as different text. */
static int check_text(ep_idefix *idefix, const char *name, const char *text)
{
    if (text == NULL || base_utf8_valid(text, strlen(text)))
        return 0;
    return base_error_set(&idefix->error, EP_EINVAL, "%s is not UTF-8", name);
}

static int check_query(ep_idefix *idefix, const struct ep_idefix_query *query)
{
    if (query->domain == NULL && query->address == NULL)
        return base_error_set(&idefix->error, EP_EINVAL, "neither domain nor address is given");
    int code = check_text(idefix, "domain", query->domain);
    if (code == 0)
        code = check_text(idefix, "address", query->address);
    if (code == 0)
        code = check_text(idefix, "event_type", query->event_type);
    if (code == 0)
        code = check_text(idefix, "since", query->since);
    return code == 0 ? check_text(idefix, "cursor", query->cursor) : code;
}

int ep_idefix_events_get(ep_idefix *idefix, const struct ep_idefix_query *query, struct ep_idefix_page **out)
{
    struct json_out data = {0};
    struct idefix_message message = {0};
    struct idefix_failure failure = {0};
    struct page page;

    if (idefix == NULL || query == NULL || out == NULL)
        return EP_EINVAL;
    int code = check_query(idefix, query);
    if (code != 0)
        return code;
    const struct idefix_query asked = {
        .domain = query->domain,
        .address = query->address,
        .event_type = query->event_type,
        .since = query->since,
        .cursor = query->cursor,
        .limit = query->limit != 0 ? query->limit : LIMIT_DEFAULT,
        .timeout_ms = at_most(query->wait_ms, UNITS_DURATION_MAX_MS),
    };
    source_page_open(&page);
    idefix_query_data(&asked, &data); /* a failure sticks to data */
    code = call(idefix, "events.get", &data, asked.timeout_ms, &message, &failure);
    if (code == 0)
        code = source_idefix_events_read(&message, &page, &idefix->error);
    else if (nothing_yet(&failure))
        code = 0;
    idefix_message_free(&message);
    if (code == 0 && page_show(&page, out) != 0)
        code = base_error_set(&idefix->error, EP_ENOMEM, "no memory for a page of events");
    if (code != 0)
        source_page_clear(&page);
    else
        idefix->error = (struct error){0};
    return code;
}

static void out_named(struct json_out *out, const char *name, const char *text, bool is_json)
{
    json_write_text(out, out->bytes > 1 ? ",\"" : "\"");
    json_write_text(out, name);
    json_write_text(out, "\":");
    if (is_json)
        json_write_text(out, text != NULL ? text : "null");
    else
        json_write_string(out, text, strlen(text));
}

static bool broken_json(const char *text)
{
    return text != NULL && !json_valid(text, strlen(text), NULL);
}

static int check_event(ep_idefix *idefix, const struct ep_event *event)
{
    if (event->uid == NULL || event->uid[0] == '\0')
        return base_error_set(&idefix->error, EP_EINVAL, "the event has no uid");
    int code = check_text(idefix, "uid", event->uid);
    if (code == 0)
        code = check_text(idefix, "type", event->type);
    if (code == 0)
        code = check_text(idefix, "source_id", event->source_id);
    if (code == 0)
        code = check_text(idefix, "domain", event->domain);
    if (code == 0 && (broken_json(event->payload) || broken_json(event->meta)))
        code = base_error_set(&idefix->error, EP_EINVAL, "the %s of event %.100s is not valid JSON",
                              broken_json(event->meta) ? "meta" : "payload", event->uid);
    return code;
}

int ep_idefix_event_create(ep_idefix *idefix, const struct ep_event *event)
{
    struct json_out data = {0};
    struct idefix_message message = {0};
    struct idefix_failure failure = {0};

    if (idefix == NULL || event == NULL)
        return EP_EINVAL;
    int code = check_event(idefix, event);
    if (code != 0)
        return code;
    json_write_text(&data, "{");
    out_named(&data, "uid", event->uid, false);
    if (event->domain != NULL)
        out_named(&data, "domain", event->domain, false);
    if (event->source_id != NULL)
        out_named(&data, "sourceId", event->source_id, false);
    out_named(&data, "type", event->type != NULL ? event->type : "", false);
    out_named(&data, "meta", event->meta, true);
    out_named(&data, "payload", event->payload, true);
    json_write_text(&data, "}");
    code = call(idefix, "events.create", &data, 0, &message, &failure);
    idefix_message_free(&message);
    return code;
}
