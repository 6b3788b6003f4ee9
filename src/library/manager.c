/* SPDX-License-Identifier: MIT */
/*
 * The library's managers, sources and stages. Builds a struct config from calls, with the defaults and
 * rules of a configuration file; config_validate checks it before a run. Runs in the caller's process;
 * forks nothing.
 */
#include "src/library/manager.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/log.h"

const char *ep_version(void)
{
    return PACKAGE_VERSION;
}

const char *ep_strerror(int code)
{
    switch (code) {
    case EP_OK:
        return "success";
    case EP_END:
        return "nothing more will come";
    case EP_EINVAL:
        return "an argument is wrong";
    case EP_ENOMEM:
        return "out of memory";
    case EP_EEXIST:
        return "the name is taken";
    case EP_ENOENT:
        return "there is no such thing";
    case EP_EBUSY:
        return "held by another";
    case EP_EACCESS:
        return "permission denied";
    case EP_ESYSTEM:
        return "the operating system refused";
    case EP_ECONFIG:
        return "the configuration is wrong";
    case EP_ESTORE:
        return "the store is broken, foreign or newer";
    case EP_ESTOREBUSY:
        return "the store cannot be written now";
    case EP_EBACKEND:
        return "the backend failed";
    case EP_EAUTH:
        return "the backend refuses the account";
    case EP_EPROTO:
        return "the backend's answer cannot be understood";
    case EP_ESTATE:
        return "not possible now";
    }
    return "unknown error";
}

const char *ep_errmsg(const ep_manager *manager)
{
    if (manager == NULL)
        return "no manager";
    return manager->error.message[0] != '\0' ? manager->error.message : ep_strerror(manager->error.code);
}

/* Copies a text that may be NULL; false when memory is out. */
static bool copy(const char *from, char **to)
{
    if (from == NULL)
        return true;
    char *text = strdup(from);
    if (text == NULL)
        return false;
    free(*to);
    *to = text;
    return true;
}

static bool manager_fill(ep_manager *manager, const struct ep_manager_params *params)
{
    struct config *config = manager->config = calloc(1, sizeof *config);
    if (config == NULL)
        return false;
    config_defaults(config);
    manager->client = params->client;
    manager->client_user = params->client_user;
    manager->log = params->log;
    manager->log_user = params->log_user;
    manager->log_level = params->log_level != 0 ? (enum ep_severity)params->log_level : EP_LOG_WARNING;
    config->log_level = manager->log_level;
    config->synchronous = params->durability == EP_DURABILITY_NORMAL ? SYNCHRONOUS_NORMAL : SYNCHRONOUS_FULL;
    char instance[32];
    snprintf(instance, sizeof instance, "ep-%d", (int)getpid());
    const char *storage =
        params->storage == NULL || strcmp(params->storage, ":memory") == 0 ? "memory:" : params->storage;
    return copy(params->instance != NULL ? params->instance : instance, &config->instance) &&
           copy(storage, &config->storage) && copy(params->control, &config->control);
}

int ep_manager_open(const struct ep_manager_params *params, ep_manager **out)
{
    if (params == NULL || out == NULL || (params->instance != NULL && !config_name_valid(params->instance)))
        return EP_EINVAL;
    if (params->storage != NULL && strcmp(params->storage, ":memory") != 0 &&
        strcmp(params->storage, "memory:") != 0 &&
        (strncmp(params->storage, "sqlite:", 7) != 0 || params->storage[7] == '\0'))
        return EP_EINVAL;
    if ((unsigned)params->durability > EP_DURABILITY_NORMAL)
        return EP_EINVAL;
    ep_manager *manager = calloc(1, sizeof *manager);
    if (manager == NULL)
        return EP_ENOMEM;
    if (!manager_fill(manager, params)) {
        ep_manager_close(&manager);
        return EP_ENOMEM;
    }
    *out = manager;
    return EP_OK;
}

void ep_manager_close(ep_manager **manager)
{
    if (manager == NULL || *manager == NULL)
        return;
    ep_manager *gone = *manager;
    *manager = NULL;
    if (gone->sources != NULL && gone->config != NULL)
        for (size_t i = 0; i < gone->config->source_count; i++)
            free(gone->sources[i]);
    free(gone->sources);
    config_close(&gone->config);
    free(gone);
}

static int may_change(ep_manager *manager)
{
    manager->error = (struct error){0};
    if (atomic_load(&manager->state) != MANAGER_IDLE)
        return base_error_set(&manager->error, EP_ESTATE,
                              "the manager runs: add sources and stages before or after");
    return 0;
}

/* ---- sources */

static int source_type(ep_manager *manager, const struct ep_source_params *params, enum source_type *type)
{
    static const enum source_type known[] = {SOURCE_HTTP, SOURCE_FILE, SOURCE_GENERATE, SOURCE_IDEFIX};
    if (params->type == NULL) {
        if (params->client == NULL && manager->client == NULL)
            return base_error_set(
                &manager->error, EP_EINVAL,
                "source %s: neither a type (file, generate, http, idefix) nor a client is given", params->id);
        *type = SOURCE_CLIENT;
        return 0;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(params->type, config_source_type_name(known[i])) == 0) {
            *type = known[i];
            return 0;
        }
    return base_error_set(&manager->error, EP_EINVAL,
                          "source %s: expected type file, generate, http or idefix, found \"%s\"", params->id,
                          params->type);
}

static bool source_fill_type(const ep_manager *manager, const struct ep_source_params *params,
                             struct source_config *config)
{
    switch (config->type) {
    case SOURCE_CLIENT:
        config->client.client = params->client != NULL ? params->client : manager->client;
        config->client.state = params->client != NULL ? params->client_user : manager->client_user;
        return true;
    case SOURCE_FILE:
        return copy(params->path, &config->file.path);
    case SOURCE_GENERATE:
        config->generate.count = params->generate_count;
        config->generate.rate = params->generate_rate;
        if (params->generate_bytes > 0)
            config->generate.size_bytes = params->generate_bytes;
        return true;
    case SOURCE_HTTP:
        config->http.cursor_increment = params->cursor_increment;
        return copy(params->url, &config->http.url) && copy(params->events, &config->http.events) &&
               copy(params->cursor_path, &config->http.cursor_path) &&
               copy(params->cursor_last_event_path, &config->http.cursor_last_event_path);
    case SOURCE_IDEFIX:
    case SOURCE_UNKNOWN:
        return true;
    }
    return true;
}

static bool source_fill(const ep_manager *manager, const struct ep_source_params *params,
                        struct source_config *config)
{
    config_source_defaults(config);
    if (params->long_poll_ms > 0)
        config->long_poll_ms = params->long_poll_ms;
    if (params->page_size > 0)
        config->page_size = params->page_size;
    return source_fill_type(manager, params, config) && copy(params->id, &config->id) &&
           copy(params->domain, &config->domain) && copy(params->address, &config->address) &&
           copy(params->event_type, &config->event_type) && copy(params->since, &config->since) &&
           copy(params->continuation_id, &config->continuation_id);
}

static int source_check(ep_manager *manager, const struct ep_source_params *params, enum source_type *type)
{
    if (params->id == NULL || params->id[0] == '\0')
        return base_error_set(&manager->error, EP_EINVAL, "a source needs an id");
    if (!config_name_valid(params->id))
        return base_error_set(&manager->error, EP_EINVAL,
                              "source id \"%s\": expected 1 to 63 of A-Z a-z 0-9 . _ -", params->id);
    for (size_t i = 0; i < manager->config->source_count; i++)
        if (strcmp(manager->config->sources[i].id, params->id) == 0)
            return base_error_set(&manager->error, EP_EEXIST, "there is a source \"%s\" already", params->id);
    int result = source_type(manager, params, type);
    if (result == 0 && *type == SOURCE_IDEFIX && params->domain == NULL && params->address == NULL)
        return base_error_set(&manager->error, EP_EINVAL,
                              "source %s: neither domain nor address is given, idefix needs one", params->id);
    if (result != 0 || *type != SOURCE_CLIENT)
        return result;
    const struct ep_client *client = params->client != NULL ? params->client : manager->client;
    if (client->events_get == NULL)
        return base_error_set(&manager->error, EP_EINVAL, "source %s: its client has no events_get",
                              params->id);
    if (client->requires_filter && params->domain == NULL && params->address == NULL)
        return base_error_set(&manager->error, EP_EINVAL,
                              "source %s: neither domain nor address is given, its client needs one",
                              params->id);
    return 0;
}

/* Appends a source that was checked. */
static int source_append(ep_manager *manager, const struct ep_source_params *params, enum source_type type,
                         ep_source **out)
{
    struct config *config = manager->config;
    size_t count = config->source_count;
    struct source_config *configs = realloc(config->sources, (count + 1) * sizeof *configs);
    if (configs != NULL)
        config->sources = configs;
    ep_source **sources =
        realloc(manager->sources, (count + 1) * sizeof *sources); // NOLINT(bugprone-sizeof-expression)
    if (sources != NULL)
        manager->sources = sources;
    ep_source *source = malloc(sizeof *source);
    if (configs == NULL || sources == NULL || source == NULL) {
        free(source);
        return base_error_set(&manager->error, EP_ENOMEM, "no memory for source %s", params->id);
    }
    configs[count] = (struct source_config){.type = type};
    *source = (ep_source){.manager = manager, .index = count};
    sources[count] = source;
    config->source_count = count + 1; /* owned from here on, also if a text could not be copied */
    if (!source_fill(manager, params, &configs[count])) {
        config->source_count = count;
        free(source);
        return base_error_set(&manager->error, EP_ENOMEM, "no memory for source %s", params->id);
    }
    *out = source;
    return EP_OK;
}

/* Reads the idefix parameters first, since that may fail, then swaps them with the source's defaults. */
static int source_append_idefix(ep_manager *manager, const struct ep_source_params *params, ep_source **out)
{
    struct config *idefix = NULL;
    int result = library_idefix_config(params->idefix, &idefix, &manager->error);
    if (result != 0) {
        base_error_prefix(&manager->error, "source %s", params->id);
        return result;
    }
    result = source_append(manager, params, SOURCE_IDEFIX, out);
    if (result == EP_OK) {
        struct idefix_source_config *own =
            &manager->config->sources[manager->config->source_count - 1].idefix;
        struct idefix_source_config defaults = *own;
        *own = idefix->sources[0].idefix;
        idefix->sources[0].idefix = defaults;
    }
    config_close(&idefix);
    return result;
}

int ep_source_add(ep_manager *manager, const struct ep_source_params *params, ep_source **out)
{
    if (manager == NULL || params == NULL || out == NULL)
        return EP_EINVAL;
    enum source_type type = SOURCE_CLIENT;
    int result = may_change(manager);
    if (result == 0)
        result = source_check(manager, params, &type);
    if (result != 0)
        return result;
    return type == SOURCE_IDEFIX ? source_append_idefix(manager, params, out)
                                 : source_append(manager, params, type, out);
}

/* ---- stages */

static bool stage_fill(const struct ep_stage_options *options, struct stage_config *config)
{
    config->concurrency = options->concurrency;
    if (options->input_buffer > 0)
        config->input_buffer = options->input_buffer;
    if (options->batch > 0)
        config->batch = options->batch;
    if (options->prefetch > 0)
        config->prefetch = options->prefetch;
    if (options->commit_delay_ms > 0)
        config->commit_delay_ms = options->commit_delay_ms;
    if (options->timeout_ms > 0)
        config->timeout_ms = options->timeout_ms;
    if (options->retry_min_ms > 0)
        config->retry.min_ms = options->retry_min_ms;
    if (options->retry_max_ms > 0)
        config->retry.max_ms = options->retry_max_ms;
    if (config->retry.max_ms < config->retry.min_ms)
        config->retry.max_ms = config->retry.min_ms;
    if (options->max_crashes > 0)
        config->max_crashes = options->max_crashes;
    config->max_attempts = options->max_attempts;
    config->max_age_ms = options->max_age_ms;
    config->function_user = options->user;
    return copy(options->options, &config->options);
}

static int stage_check_push(ep_source *source, const char *name, const struct ep_stage_options *options)
{
    struct error *error = &source->manager->error;
    const struct source_config *config = &source->manager->config->sources[source->index];
    if (name == NULL || name[0] == '\0')
        return base_error_set(error, EP_EINVAL, "source %s: a stage needs a name", config->id);
    if (!config_name_valid(name))
        return base_error_set(error, EP_EINVAL,
                              "source %s: stage name \"%s\": expected 1 to 63 of A-Z a-z 0-9 . _ -",
                              config->id, name);
    if (options->concurrency == 0)
        return base_error_set(error, EP_EINVAL,
                              "source %s: stage %s: concurrency 0: expected at least 1 worker", config->id,
                              name);
    for (size_t i = 0; i < config->stage_count; i++)
        if (strcmp(config->stages[i].name, name) == 0)
            return base_error_set(error, EP_EEXIST, "source %s: there is a stage \"%s\" already", config->id,
                                  name);
    return 0;
}

/* Appends a stage; the caller sets what its type needs. NULL: the manager's error has the reason. */
static struct stage_config *stage_push(ep_source *source, const char *name, enum stage_type type,
                                       const struct ep_stage_options *options)
{
    struct error *error = &source->manager->error;
    if (may_change(source->manager) != 0 || stage_check_push(source, name, options) != 0)
        return NULL;
    struct source_config *config = &source->manager->config->sources[source->index];
    struct stage_config *stages = realloc(config->stages, (config->stage_count + 1) * sizeof *stages);
    if (stages == NULL) {
        base_error_set(error, EP_ENOMEM, "no memory for stage %s", name);
        return NULL;
    }
    config->stages = stages;
    struct stage_config *stage = &stages[config->stage_count];
    *stage = (struct stage_config){.type = type};
    config_stage_defaults(stage);
    config->stage_count++; /* owned from here on; a run refuses an incomplete stage */
    if (!copy(name, &stage->name) || !stage_fill(options, stage)) {
        config->stage_count--;
        base_error_set(error, EP_ENOMEM, "no memory for stage %s", name);
        return NULL;
    }
    return stage;
}

static const struct ep_stage_options default_options = EP_STAGE_OPTIONS_INIT;

int ep_source_push(ep_source *source, const struct ep_stage *stage, const struct ep_stage_options *options)
{
    if (source == NULL || stage == NULL)
        return EP_EINVAL;
    options = options != NULL ? options : &default_options;
    const char *name = options->name != NULL ? options->name : stage->name;
    struct error *error = &source->manager->error;
    if (stage->abi != EP_STAGE_ABI)
        return base_error_set(error, EP_EINVAL, "stage %s: expected ABI %d, found %u",
                              name != NULL ? name : "?", EP_STAGE_ABI, stage->abi);
    if (stage->process == NULL)
        return base_error_set(error, EP_EINVAL, "stage %s: it has no process function",
                              name != NULL ? name : "?");
    struct stage_config *config = stage_push(source, name, STAGE_FUNCTION, options);
    if (config == NULL)
        return error->code;
    config->function = stage;
    return EP_OK;
}

int ep_source_push_exec(ep_source *source, const char *const *argv, const struct ep_stage_options *options)
{
    if (source == NULL || argv == NULL || argv[0] == NULL)
        return EP_EINVAL;
    options = options != NULL ? options : &default_options;
    struct stage_config *config = stage_push(source, options->name, STAGE_EXEC, options);
    if (config == NULL)
        return source->manager->error.code;
    size_t count = 0;
    while (argv[count] != NULL)
        count++;
    config->exec.at = calloc(count + 1, sizeof *config->exec.at);
    while (config->exec.at != NULL && config->exec.count < count &&
           copy(argv[config->exec.count], &config->exec.at[config->exec.count]))
        config->exec.count++;
    if (config->exec.at == NULL || config->exec.count < count)
        return base_error_set(&source->manager->error, EP_ENOMEM, "no memory for stage %s", options->name);
    return EP_OK;
}

int ep_source_push_plugin(ep_source *source, const char *path, const struct ep_stage_options *options)
{
    if (source == NULL || path == NULL)
        return EP_EINVAL;
    options = options != NULL ? options : &default_options;
    struct stage_config *config = stage_push(source, options->name, STAGE_PLUGIN, options);
    if (config != NULL && !copy(path, &config->plugin))
        base_error_set(&source->manager->error, EP_ENOMEM, "no memory for stage %s", options->name);
    return source->manager->error.code;
}

int ep_source_push_http(ep_source *source, const char *url, const struct ep_stage_options *options)
{
    if (source == NULL || url == NULL)
        return EP_EINVAL;
    options = options != NULL ? options : &default_options;
    struct stage_config *config = stage_push(source, options->name, STAGE_HTTP, options);
    if (config != NULL && !copy(url, &config->url))
        base_error_set(&source->manager->error, EP_ENOMEM, "no memory for stage %s", options->name);
    return source->manager->error.code;
}
