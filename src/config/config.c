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

/* Whether a name can be part of file and shared memory names and a word on a command line, without
 * characters that have a meaning there. */
bool config_name_valid(const char *name)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t length = strlen(name);
    return length >= 1 && length <= 63 && strspn(name, letters) == length && name[0] != '-' &&
           name[0] != '.' && strcmp(name, "ALL") != 0;
}

void config_defaults(struct config *config)
{
    config->control_mode = 0600;
    config->synchronous = SYNCHRONOUS_FULL;
    config->drain_timeout_ms = 30 * SECOND_MS;
    config->log_level = EP_LOG_INFO;
    config->trace = (struct trace_config){.keep_ms = 24 * 3600 * SECOND_MS, .bytes = UINT64_C(64) << 20};
}

void config_source_defaults(struct source_config *source)
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

void config_stage_defaults(struct stage_config *stage)
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

static void wipe(char *secret)
{
    if (secret != NULL)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

/* Wipes the texts too: headers and environment variables may hold secrets. */
static void strings_free(struct strings *strings)
{
    for (size_t i = 0; i < strings->count; i++)
        wipe(strings->at[i]);
    free(strings->at);
}

static void stage_free(struct stage_config *stage)
{
    strings_free(&stage->exec);
    strings_free(&stage->environment);
    strings_free(&stage->headers);
    wipe(stage->token);
    free(stage->name);
    free(stage->directory);
    free(stage->user);
    free(stage->group);
    free(stage->plugin);
    free(stage->options);
    free(stage->url);
    free(stage->ca_file);
}

static void idefix_source_free(struct idefix_source_config *idefix)
{
    strings_free(&idefix->groups);
    wipe(idefix->token);
    wipe(idefix->password);
    free(idefix->broker);
    free(idefix->account);
    free(idefix->encoding);
    free(idefix->session);
    free(idefix->user);
    free(idefix->ca_file);
    free(idefix->meta);
}

static void http_source_free(struct http_source_config *http)
{
    strings_free(&http->headers);
    wipe(http->token);
    free(http->url);
    free(http->events);
    free(http->cursor_path);
    free(http->cursor_last_event_path);
    free(http->cursor_initial);
    free(http->ca_file);
}

static void source_free(struct source_config *source)
{
    for (size_t i = 0; i < source->stage_count; i++)
        stage_free(&source->stages[i]);
    free(source->stages);
    if (source->type == SOURCE_IDEFIX)
        idefix_source_free(&source->idefix);
    if (source->type == SOURCE_HTTP)
        http_source_free(&source->http);
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

void config_close(struct config **config)
{
    struct config *gone = *config;
    if (gone == NULL)
        return;
    *config = NULL;
    for (size_t i = 0; i < gone->source_count; i++)
        source_free(&gone->sources[i]);
    free(gone->sources);
    strings_free(&gone->token_variables);
    free(gone->path);
    free(gone->instance);
    free(gone->storage);
    free(gone->control);
    free(gone);
}
