/* SPDX-License-Identifier: MIT */
/*
 * The library's Idefix client for programs without a manager. Managers use its check of the parameters, too.
 * Runs in the library caller's process, in the calling thread.
 *
 * Owns a configuration with one source, which holds copies of the parameters. A page owns everything that
 * its events point to.
 */
#include <errno.h>
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
#define ANSWER_BYTES_MAX (UINT64_C(4) << 30)

struct ep_idefix {
    struct config *config;
    const struct source_config *source; /* the only source of config */
    struct idefix *client;
    struct error error;
    atomic_bool interrupted; /* stays set until a call sees it */
};

/* A page for the caller, with the page that owns its strings. */
struct library_page {
    struct ep_idefix_page caller_page; /* first: freed by its address */
    struct page page;
    struct ep_idefix_event events[];
};

/* ---- parameters */

/* Replaces *target by a copy of new_text and frees the old text; does nothing if new_text is NULL.
 * Returns false if out of memory. Used for each parameter of the library caller's Idefix client. */
static bool replace_text(const char *new_text, char **target)
{
    if (new_text == NULL)
        return true;
    char *copy = strdup(new_text);
    if (copy == NULL)
        return false;
    free(*target);
    *target = copy;
    return true;
}

/* Copies the library caller's NULL-terminated list of Idefix groups into a source configuration, which
 * owns the copies. NULL or an empty list leaves the configuration without groups. Returns false if out of
 * memory. */
static bool copy_groups(const char *const *groups, struct strings *group_list)
{
    size_t group_count = 0;

    while (groups != NULL && groups[group_count] != NULL)
        group_count++;
    if (group_count == 0)
        return true;
    group_list->at = calloc(group_count + 1, sizeof *group_list->at);
    while (group_list->at != NULL && group_list->count < group_count &&
           replace_text(groups[group_list->count], &group_list->at[group_list->count]))
        group_list->count++;
    return group_list->at != NULL && group_list->count == group_count;
}

/* Returns the smaller value. The library's Idefix client lowers its caller's times and sizes with it, so
 * that sums cannot overflow. */
static uint64_t lower_to_maximum(uint64_t value, uint64_t maximum)
{
    return value < maximum ? value : maximum;
}

/* Copies the library caller's Idefix parameters into a source configuration. Zero and NULL leave the
 * default; too large times and sizes are lowered, so that sums of them cannot overflow. Returns false if
 * out of memory. */
static bool copy_idefix_params(const struct ep_idefix_params *params, struct idefix_source_config *config)
{
    if (params->connect_timeout_ms > 0)
        config->connect_timeout_ms = lower_to_maximum(params->connect_timeout_ms, UNITS_DURATION_MAX_MS);
    if (params->response_timeout_ms > 0)
        config->response_timeout_ms = lower_to_maximum(params->response_timeout_ms, UNITS_DURATION_MAX_MS);
    if (params->max_bytes > 0)
        config->max_bytes = lower_to_maximum(params->max_bytes, ANSWER_BYTES_MAX);
    return replace_text(params->broker, &config->broker) && replace_text(params->account, &config->account) &&
           (config->token != NULL ||
            replace_text(params->token != NULL ? params->token : "", &config->token)) &&
           replace_text(params->encoding, &config->encoding) &&
           replace_text(params->session, &config->session) && replace_text(params->user, &config->user) &&
           replace_text(params->password, &config->password) &&
           replace_text(params->ca_file, &config->ca_file) && replace_text(params->meta, &config->meta) &&
           copy_groups(params->groups, &config->groups);
}

/* Makes a configuration with one idefix source from the library caller's parameters and the content of
 * token_file, because the protocol client in src/idefix takes its settings from such a source.
 * ep_idefix_open and ep_source_add call this. Returns 0 or a negative code; the caller closes *out. */
int library_idefix_make_config(const struct ep_idefix_params *params, struct config **out,
                               struct error *error)
{
    if (params == NULL || params->broker == NULL || params->account == NULL)
        return base_error_set(error, EP_EINVAL, "idefix needs a broker and an account");
    if (params->token != NULL && params->token_file != NULL)
        return base_error_set(error, EP_EINVAL, "both token and token_file are given: give one of them");
    struct config *config = calloc(1, sizeof *config);
    if (config != NULL)
        config->sources = calloc(1, sizeof *config->sources);
    if (config == NULL || config->sources == NULL) {
        free(config);
        return base_error_set(error, EP_ENOMEM, "out of memory for an Idefix client");
    }
    config->source_count = 1;
    config->sources[0].type = SOURCE_IDEFIX;
    config_set_source_defaults(&config->sources[0]);
    struct idefix_source_config *idefix = &config->sources[0].idefix;
    int code = params->token_file != NULL ? base_secret_read(params->token_file, &idefix->token, error) : 0;
    if (code == 0 && !copy_idefix_params(params, idefix))
        code = base_error_set(error, EP_ENOMEM, "out of memory for an Idefix client");
    if (code != 0) {
        config_close(&config);
        return code;
    }
    *out = config;
    return 0;
}

/* ---- the client */

/* Allocates the library's Idefix client and checks the caller's parameters; ep_idefix_open calls this.
 * Does not connect yet: the first ep_idefix_events_get or ep_idefix_event_create does. Returns 0 and sets
 * *out, or returns a negative code and fills the error. */
static int open_idefix_client(const struct ep_idefix_params *params, ep_idefix **out, struct error *error)
{
    ep_idefix *idefix = calloc(1, sizeof *idefix);

    if (idefix == NULL)
        return base_error_set(error, EP_ENOMEM, "out of memory for an Idefix client");
    int code = library_idefix_make_config(params, &idefix->config, error);
    if (idefix->config != NULL) {
        idefix->source = &idefix->config->sources[0];
        const char *ca_file = idefix->source->idefix.ca_file;
        if (ca_file != NULL && access(ca_file, R_OK) != 0)
            code =
                base_error_set(error, EP_EACCESS, "ca_file %s cannot be read: %s", ca_file, strerror(errno));
    }
    if (code == 0)
        code = idefix_open(&idefix->source->idefix, &idefix->client, error);
    if (code != 0) {
        ep_idefix_close(&idefix);
        return code;
    }
    *out = idefix;
    return 0;
}

/* Opens an Idefix client for a program that talks to the backend itself, without ep_manager and its
 * processes. Does not connect yet: the first ep_idefix_events_get or ep_idefix_event_create does. Returns
 * 0, or a negative code with its reason in errbuf. */
int ep_idefix_open(const struct ep_idefix_params *params, ep_idefix **out, char *errbuf, size_t errbuf_size)
{
    struct error error = {0};
    int code = out == NULL ? base_error_set(&error, EP_EINVAL, "out is NULL: pass a pointer for the client")
                           : open_idefix_client(params, out, &error);

    if (code != 0 && errbuf != NULL && errbuf_size > 0)
        snprintf(errbuf, errbuf_size, "%s", error.message[0] != '\0' ? error.message : ep_strerror(code));
    return code;
}

/* Disconnects the library's Idefix client, frees it and sets the pointer to NULL. The library's caller
 * must not call this while another thread uses the client. */
void ep_idefix_close(ep_idefix **idefix)
{
    if (idefix == NULL || *idefix == NULL)
        return;
    ep_idefix *closing_client = *idefix;
    *idefix = NULL;
    idefix_close(&closing_client->client);
    if (closing_client->config != NULL)
        config_close(&closing_client->config);
    free(closing_client);
}

/* Returns why the Idefix client's last call failed. The library's caller may read the text until its next
 * call with this client. */
const char *ep_idefix_errmsg(const ep_idefix *idefix)
{
    if (idefix == NULL)
        return "no Idefix client is open";
    return idefix->error.message[0] != '\0' ? idefix->error.message : ep_strerror(idefix->error.code);
}

/* Makes the Idefix client's running call return EP_EBUSY at once; if none runs, the next call does so. The
 * library's caller may call this from any thread or signal handler. */
void ep_idefix_interrupt(ep_idefix *idefix)
{
    if (idefix == NULL)
        return;
    atomic_store(&idefix->interrupted, true);
    idefix_interrupt(idefix->client);
}

/* Sends a command with its JSON data to the Idefix backend and waits for the answer; frees `request`, the
 * data. Keeps the reason of a failure for ep_idefix_errmsg. Returns 0 and fills message, or a negative
 * code: EP_EBUSY after ep_idefix_interrupt, which ends one call only. Runs in the library caller's
 * thread. */
static int call_backend(ep_idefix *idefix, const char *command, struct text *request, uint64_t wait_ms,
                        struct idefix_message *message, struct idefix_failure *failure)
{
    int code = request->failed
                   ? base_error_set(&failure->error, EP_ENOMEM, "out of memory for a request")
                   : idefix_call(idefix->client, command, (struct json_span){request->text, request->bytes},
                                 wait_ms, &idefix->interrupted, message, failure);

    base_text_free(request);
    if (code == EP_EBUSY)
        atomic_store(&idefix->interrupted, false);
    idefix->error = failure->error;
    return code;
}

/* ---- events */

/* Frees a page from ep_idefix_events_get with all its texts and sets the pointer to NULL. The library's
 * caller may call this from any thread, also after the client was closed. */
void ep_idefix_page_free(struct ep_idefix_page **page)
{
    if (page == NULL || *page == NULL)
        return;
    struct library_page *freed_page = (struct library_page *)*page;
    *page = NULL;
    source_page_clear(&freed_page->page);
    free(freed_page);
}

/* Makes the page that the library's caller gets from ep_idefix_events_get. It takes over `page`, since its
 * events point to the texts there; ep_idefix_page_free frees both. Returns 0 or EP_ENOMEM; after
 * EP_ENOMEM, `page` still belongs to the caller. */
static int make_caller_page(struct page *page, struct ep_idefix_page **out)
{
    struct library_page *library_page =
        malloc(sizeof *library_page + page->count * sizeof library_page->events[0]);

    if (library_page == NULL)
        return EP_ENOMEM;
    library_page->page = *page;
    library_page->caller_page = (struct ep_idefix_page){page->count, library_page->events, page->cursor};
    for (size_t i = 0; i < page->count; i++) {
        const struct store_event *event = &page->events[i];
        library_page->events[i] = (struct ep_idefix_event){
            .uid = event->uid,
            .address = event->address,
            .type = event->type,
            .text = event->data,
            .text_bytes = event->data_bytes,
            .problem = event->dead == STORE_REASON_CORRUPT ? event->error : NULL,
        };
    }
    *out = &library_page->caller_page;
    return 0;
}

/* Whether the backend's error code only says that there are no events yet. ep_idefix_events_get then
 * returns an empty page to the library's caller instead of an error. */
static bool means_no_events_yet(const struct idefix_failure *failure)
{
    const char *setting;

    return failure->backend_code != 0 &&
           idefix_error_verdict(failure->backend_code, &setting) == IDEFIX_NOTHING_YET;
}

/* Returns 0, or EP_EINVAL with the client's error set if a text of the library's caller is not UTF-8: the
 * backend would receive another text than the caller gave. NULL is valid. `name` is the parameter's name
 * for the message. */
static int check_text_is_utf8(ep_idefix *idefix, const char *name, const char *text)
{
    if (text == NULL || base_utf8_valid(text, strlen(text)))
        return 0;
    return base_error_set(&idefix->error, EP_EINVAL, "%s is not UTF-8", name);
}

/* Checks what the library's caller passes to ep_idefix_events_get: domain or address must be there, and
 * all texts must be UTF-8. Returns 0, or EP_EINVAL with the client's error set. */
static int check_query_texts(ep_idefix *idefix, const struct ep_idefix_query *query)
{
    if (query->domain == NULL && query->address == NULL)
        return base_error_set(&idefix->error, EP_EINVAL,
                              "neither domain nor address is given: idefix needs one of them");
    int code = check_text_is_utf8(idefix, "domain", query->domain);
    if (code == 0)
        code = check_text_is_utf8(idefix, "address", query->address);
    if (code == 0)
        code = check_text_is_utf8(idefix, "event_type", query->event_type);
    if (code == 0)
        code = check_text_is_utf8(idefix, "since", query->since);
    return code == 0 ? check_text_is_utf8(idefix, "cursor", query->cursor) : code;
}

/* Fetches a page of events from the Idefix backend. The library's caller blocks here for wait_ms plus at
 * most the client's timeouts. Returns 0 and a page that the caller frees, which is empty if there are no
 * events yet, or a negative code; ep_idefix_errmsg then has the reason. */
int ep_idefix_events_get(ep_idefix *idefix, const struct ep_idefix_query *query, struct ep_idefix_page **out)
{
    struct text request = {0};
    struct idefix_message message = {0};
    struct idefix_failure failure = {0};
    struct page page;

    if (idefix == NULL || query == NULL || out == NULL)
        return EP_EINVAL;
    int code = check_query_texts(idefix, query);
    if (code != 0)
        return code;
    const struct idefix_query backend_query = {
        .domain = query->domain,
        .address = query->address,
        .event_type = query->event_type,
        .since = query->since,
        .cursor = query->cursor,
        .limit = query->limit != 0 ? query->limit : LIMIT_DEFAULT,
        .timeout_ms = lower_to_maximum(query->wait_ms, UNITS_DURATION_MAX_MS),
    };
    source_page_open(&page);
    idefix_query_write_data(&backend_query, &request); /* a failure stays noted in request.failed */
    code = call_backend(idefix, "events.get", &request, backend_query.timeout_ms, &message, &failure);
    if (code == 0)
        code = source_idefix_events_read(&message, &page, &idefix->error);
    else if (means_no_events_yet(&failure))
        code = 0;
    idefix_message_free(&message);
    if (code == 0 && make_caller_page(&page, out) != 0)
        code = base_error_set(&idefix->error, EP_ENOMEM, "out of memory for a page of events");
    if (code != 0)
        source_page_clear(&page);
    else
        idefix->error = (struct error){0};
    return code;
}

/* Writes one member of the event object that ep_idefix_event_create sends to the backend for the
 * library's caller. With is_json, the text is JSON and is written as it is, or as null for NULL;
 * otherwise it becomes a JSON string. */
static void write_event_member(struct text *out, const char *name, const char *text, bool is_json)
{
    base_text_append(out, out->bytes > 1 ? ",\"" : "\"");
    base_text_append(out, name);
    base_text_append(out, "\":");
    if (is_json)
        base_text_append(out, text != NULL ? text : "null");
    else
        json_write_string(out, text, strlen(text));
}

static bool has_invalid_json(const char *text)
{
    return text != NULL && !json_valid(text, strlen(text), NULL);
}

/* Checks an event that the library's caller passes to ep_idefix_event_create: it must have a UID, its
 * texts must be UTF-8, payload and meta valid JSON. Returns 0, or EP_EINVAL with the client's error set. */
static int check_event_members(ep_idefix *idefix, const struct ep_event *event)
{
    if (event->uid == NULL || event->uid[0] == '\0')
        return base_error_set(&idefix->error, EP_EINVAL, "the event has no uid");
    int code = check_text_is_utf8(idefix, "uid", event->uid);
    if (code == 0)
        code = check_text_is_utf8(idefix, "type", event->type);
    if (code == 0)
        code = check_text_is_utf8(idefix, "source_id", event->source_id);
    if (code == 0)
        code = check_text_is_utf8(idefix, "domain", event->domain);
    if (code == 0 && (has_invalid_json(event->payload) || has_invalid_json(event->meta)))
        code = base_error_set(&idefix->error, EP_EINVAL, "the %s of event %.100s is not valid JSON",
                              has_invalid_json(event->meta) ? "meta" : "payload", event->uid);
    return code;
}

/* Creates an event in the Idefix backend; the library's caller blocks here until the backend answers.
 * Returns 0 or a negative code. After a failure the event may exist all the same: creating it again with
 * the same UID is safe. */
int ep_idefix_event_create(ep_idefix *idefix, const struct ep_event *event)
{
    struct text request = {0};
    struct idefix_message message = {0};
    struct idefix_failure failure = {0};

    if (idefix == NULL || event == NULL)
        return EP_EINVAL;
    int code = check_event_members(idefix, event);
    if (code != 0)
        return code;
    base_text_append(&request, "{");
    write_event_member(&request, "uid", event->uid, false);
    if (event->domain != NULL)
        write_event_member(&request, "domain", event->domain, false);
    if (event->source_id != NULL)
        write_event_member(&request, "sourceId", event->source_id, false);
    write_event_member(&request, "type", event->type != NULL ? event->type : "", false);
    write_event_member(&request, "meta", event->meta, true);
    write_event_member(&request, "payload", event->payload, true);
    base_text_append(&request, "}");
    code = call_backend(idefix, "events.create", &request, 0, &message, &failure);
    idefix_message_free(&message);
    return code;
}
