/* SPDX-License-Identifier: MIT */
/*
 * The configuration in memory: its defaults, its names, and its release. The supervisor or the library's
 * caller builds it before the first fork; every child inherits it, and no process changes it afterwards.
 *
 * Invariants
 *  1. Everything in a struct config is allocated and belongs to it. Only `client`, `state`, `function`
 *     and `function_user` belong to the library's caller.
 *  2. Secrets are wiped before their memory is freed.
 */
#include <stdlib.h>
#include <string.h>

#include "src/config/config.h"

#define SECOND_MS UINT64_C(1000)
#define MINUTE_MS (60 * SECOND_MS)

static const char *const source_types[] = {
    [SOURCE_IDEFIX] = "idefix",     [SOURCE_HTTP] = "http",     [SOURCE_FILE] = "file",
    [SOURCE_GENERATE] = "generate", [SOURCE_CLIENT] = "client", [SOURCE_UNKNOWN] = "unknown",
};

static const char *const stage_types[] = {
    [STAGE_FUNCTION] = "function",
    [STAGE_PLUGIN] = "plugin",
    [STAGE_EXEC] = "exec",
    [STAGE_HTTP] = "http",
};

const char *config_source_type_name(enum source_type type)
{
    return source_types[type];
}

const char *config_stage_type_name(enum stage_type type)
{
    return stage_types[type];
}

/* Returns whether a text can be the name of an instance, source or stage. Such names become parts of file
 * names, shared memory names and command lines, so characters with a meaning there are refused.
 * config_validate calls it, and `eventpipe` for the instance that its user names. */
bool config_is_name_valid(const char *name)
{
    static const char allowed_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t name_bytes = strlen(name);
    return name_bytes >= 1 && name_bytes <= 63 && strspn(name, allowed_chars) == name_bytes &&
           name[0] != '-' && name[0] != '.' && strcmp(name, "ALL") != 0;
}

/* Sets the defaults of the top keys of a configuration, in a struct that is all zero. config_read calls it
 * first in the supervisor and in `eventpipe`, and the library when a program creates a manager (its handle
 * of a pipeline). */
void config_set_defaults(struct config *config)
{
    config->control_mode = 0600;
    config->synchronous = SYNCHRONOUS_FULL;
    config->drain_timeout_ms = 30 * SECOND_MS;
    config->log_level = EP_LOG_INFO;
    config->trace = (struct trace_config){.keep_ms = 24 * 3600 * SECOND_MS, .bytes = UINT64_C(64) << 20};
}

/* Sets the defaults of one source by its type, which the caller has set in a struct that is otherwise
 * zero. config_read calls it before it reads the source's keys, and the library when a program adds a
 * source or opens an Idefix client. */
void config_set_source_defaults(struct source_config *source)
{
    source->long_poll_ms = 60 * SECOND_MS;
    source->page_size = 100;
    source->retry = (struct retry_config){.min_ms = SECOND_MS, .max_ms = MINUTE_MS};
    source->backlog_max_events = 10000000;
    switch (source->type) {
    case SOURCE_IDEFIX:
        source->idefix.encoding = strdup("mg");
        source->idefix.user = strdup("device");
        source->idefix.password = strdup("77dev22p1");
        source->idefix.connect_timeout_ms = 10 * SECOND_MS;
        source->idefix.response_timeout_ms = 10 * SECOND_MS;
        source->idefix.max_bytes = UINT64_C(64) << 20;
        break;
    case SOURCE_HTTP:
        source->http.events = strdup("");
        source->http.cursor_initial = strdup("");
        source->http.connect_timeout_ms = 10 * SECOND_MS;
        source->http.max_bytes = UINT64_C(64) << 20;
        source->http.interval_ms = SECOND_MS;
        break;
    case SOURCE_FILE:
        source->file.from = FILE_FROM_START;
        source->file.format = FILE_AUTO;
        source->file.max_line_bytes = UINT64_C(16) << 20;
        break;
    case SOURCE_GENERATE:
        source->generate.size_bytes = 220;
        break;
    case SOURCE_CLIENT:
    case SOURCE_UNKNOWN:
        break;
    }
}

/* Sets the defaults of one stage, in a struct that is all zero. config_read calls it before it reads the
 * stage's keys, and the library when a program adds a stage. */
void config_set_stage_defaults(struct stage_config *stage)
{
    stage->concurrency = 1;
    stage->input_buffer = 512;
    stage->batch = 500;
    stage->prefetch = CONFIG_PREFETCH_MAX;
    stage->commit_delay_ms = 5;
    stage->timeout_ms = MINUTE_MS;
    stage->retry = (struct retry_config){.min_ms = SECOND_MS, .max_ms = 5 * MINUTE_MS};
    stage->max_crashes = 3;
    stage->restart_max_backoff_ms = 30 * SECOND_MS;
    stage->options = strdup("{}");
}

/* Overwrites a secret of the configuration (a token, a password) with zeros and frees it, so that a core
 * dump or a later allocation cannot show it. NULL is allowed. */
static void wipe_secret(char *secret)
{
    if (secret != NULL)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

/* Frees a list of texts of the configuration and overwrites each text first, since headers and environment
 * variables may hold secrets. */
static void free_strings(struct strings *strings)
{
    for (size_t i = 0; i < strings->count; i++)
        wipe_secret(strings->at[i]);
    free(strings->at);
}

/* Frees everything that the configuration of one stage owns, and overwrites its secrets. config_close
 * calls it for each stage. */
static void free_stage_config(struct stage_config *stage)
{
    free_strings(&stage->exec);
    free_strings(&stage->environment);
    free_strings(&stage->headers);
    wipe_secret(stage->token);
    free(stage->name);
    free(stage->directory);
    free(stage->user);
    free(stage->group);
    free(stage->plugin);
    free(stage->options);
    free(stage->url);
    free(stage->ca_file);
}

/* Frees the configuration of an Idefix source, and overwrites its token and password. config_close calls it
 * for each source of this type. */
static void free_idefix_config(struct idefix_source_config *idefix)
{
    free_strings(&idefix->groups);
    wipe_secret(idefix->token);
    wipe_secret(idefix->password);
    free(idefix->broker);
    free(idefix->account);
    free(idefix->encoding);
    free(idefix->session);
    free(idefix->user);
    free(idefix->ca_file);
    free(idefix->meta);
}

/* Frees the configuration of an http source, and overwrites its headers and token. config_close calls it
 * for each source of this type. */
static void free_http_config(struct http_source_config *http)
{
    free_strings(&http->headers);
    wipe_secret(http->token);
    free(http->url);
    free(http->events);
    free(http->cursor_path);
    free(http->cursor_last_event_path);
    free(http->cursor_initial);
    free(http->ca_file);
}

/* Frees everything that the configuration of one source owns, with its stages, and overwrites its secrets.
 * config_close calls it for each source. */
static void free_source_config(struct source_config *source)
{
    for (size_t i = 0; i < source->stage_count; i++)
        free_stage_config(&source->stages[i]);
    free(source->stages);
    if (source->type == SOURCE_IDEFIX)
        free_idefix_config(&source->idefix);
    if (source->type == SOURCE_HTTP)
        free_http_config(&source->http);
    if (source->type == SOURCE_FILE)
        free(source->file.path);
    free(source->pointers.uid);
    free(source->pointers.event_type);
    free(source->pointers.timestamp);
    free(source->pointers.address);
    free(source->id);
    free(source->domain);
    free(source->address);
    free(source->event_type);
    free(source->continuation_id);
    free(source->since);
}

void config_hide_tokens(const struct config *config)
{
    for (size_t i = 0; i < config->token_variables.count; i++)
        unsetenv(config->token_variables.at[i]);
}

/* Frees a configuration, overwrites its secrets, and sets *config to NULL; *config may be NULL. The
 * supervisor and each `eventpipe` command call it before they exit, the library when a program closes a
 * manager or an Idefix client. */
void config_close(struct config **config)
{
    struct config *old_config = *config;
    if (old_config == NULL)
        return;
    *config = NULL;
    for (size_t i = 0; i < old_config->source_count; i++)
        free_source_config(&old_config->sources[i]);
    free(old_config->sources);
    free_strings(&old_config->token_variables);
    free(old_config->path);
    free(old_config->instance);
    free(old_config->storage);
    free(old_config->control);
    free(old_config);
}
