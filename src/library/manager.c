/* SPDX-License-Identifier: MIT */
/*
 * The library's managers, sources and stages: builds a struct config by calls instead of a file, with the
 * same defaults. config_validate checks it before a run. Runs in the library caller's process; forks nothing.
 */
#include "src/library/manager.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/log.h"

/* Returns why the manager's last call failed. The library's caller may read the text until its next call
 * with this manager. */
const char *ep_errmsg(const ep_manager *manager)
{
    if (manager == NULL)
        return "no manager is open";
    return manager->error.message[0] != '\0' ? manager->error.message : ep_strerror(manager->error.code);
}

/* Replaces *target by a copy of new_text and frees the old text; does nothing if new_text is NULL.
 * Returns false if out of memory. Used for each text that the library's caller gives for managers,
 * sources and stages. */
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

/* Fills the configuration of a new manager: the defaults of a configuration file, then the library
 * caller's parameters. ep_manager_open calls this. Returns false if out of memory; ep_manager_close then
 * frees what was made. */
static bool fill_manager_config(ep_manager *manager, const struct ep_manager_params *params)
{
    struct config *config = manager->config = calloc(1, sizeof *config);
    if (config == NULL)
        return false;
    config_set_defaults(config);
    manager->client = params->client;
    manager->client_user = params->client_user;
    manager->log = params->log;
    manager->log_user = params->log_user;
    manager->log_level = params->log_level != 0 ? (enum ep_severity)params->log_level : EP_LOG_WARNING;
    config->log_level = manager->log_level;
    config->synchronous = params->durability == EP_DURABILITY_NORMAL ? SYNCHRONOUS_NORMAL : SYNCHRONOUS_FULL;
    char default_instance[32];
    snprintf(default_instance, sizeof default_instance, "ep-%d", (int)getpid());
    const char *storage =
        params->storage == NULL || strcmp(params->storage, ":memory") == 0 ? "memory:" : params->storage;
    return replace_text(params->instance != NULL ? params->instance : default_instance, &config->instance) &&
           replace_text(storage, &config->storage) && replace_text(params->control, &config->control);
}

/* Creates a manager: a configuration that the library's caller builds by calls instead of a file, and
 * later runs. Starts no process yet. Returns EP_OK, EP_ENOMEM, or EP_EINVAL if instance, storage or
 * durability is not valid. */
int ep_manager_open(const struct ep_manager_params *params, ep_manager **out)
{
    if (params == NULL || out == NULL ||
        (params->instance != NULL && !config_is_name_valid(params->instance)))
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
    if (!fill_manager_config(manager, params)) {
        ep_manager_close(&manager);
        return EP_ENOMEM;
    }
    *out = manager;
    return EP_OK;
}

/* Frees a manager with its sources and stages and sets the pointer to NULL. The library's caller must not
 * call this during a run, whose supervisor uses the manager. */
void ep_manager_close(ep_manager **manager)
{
    if (manager == NULL || *manager == NULL)
        return;
    ep_manager *closing_manager = *manager;
    *manager = NULL;
    if (closing_manager->sources != NULL && closing_manager->config != NULL)
        for (size_t i = 0; i < closing_manager->config->source_count; i++)
            free(closing_manager->sources[i]);
    free(closing_manager->sources);
    config_close(&closing_manager->config);
    free(closing_manager);
}

/* Returns EP_ESTATE, with the manager's error set, while the library caller's manager runs: its processes
 * got a copy of the configuration, so a source or stage added now would not start. Otherwise clears the
 * last error and returns 0. */
static int check_not_running(ep_manager *manager)
{
    manager->error = (struct error){0};
    if (atomic_load(&manager->state) != MANAGER_IDLE)
        return base_error_set(&manager->error, EP_ESTATE,
                              "the manager is running: add sources and stages before or after the run");
    return 0;
}

/* ---- sources */

/* Sets *type for a source that the library's caller adds: the one that params->type names or, if it is
 * NULL, a client source. Returns 0, or EP_EINVAL with the manager's error set for an unknown type, or if
 * neither a type nor a client is given. */
static int choose_source_type(ep_manager *manager, const struct ep_source_params *params,
                              enum source_type *type)
{
    static const enum source_type selectable_types[] = {SOURCE_HTTP, SOURCE_FILE, SOURCE_GENERATE,
                                                        SOURCE_IDEFIX};
    if (params->type == NULL) {
        if (params->client == NULL && manager->client == NULL)
            return base_error_set(
                &manager->error, EP_EINVAL,
                "source %s: neither a type (file, generate, http, idefix) nor a client is given", params->id);
        *type = SOURCE_CLIENT;
        return 0;
    }
    for (size_t i = 0; i < sizeof selectable_types / sizeof selectable_types[0]; i++)
        if (strcmp(params->type, config_source_type_name(selectable_types[i])) == 0) {
            *type = selectable_types[i];
            return 0;
        }
    return base_error_set(&manager->error, EP_EINVAL,
                          "source %s: expected type file, generate, http or idefix, found \"%s\"", params->id,
                          params->type);
}

/* Copies those parameters of the library's caller that only one type of source has, such as a file's
 * path, into a source configuration. Returns false if out of memory. An idefix source gets its own in
 * append_idefix_source. */
static bool fill_source_type_config(const ep_manager *manager, const struct ep_source_params *params,
                                    struct source_config *config)
{
    switch (config->type) {
    case SOURCE_CLIENT:
        config->client.client = params->client != NULL ? params->client : manager->client;
        config->client.state = params->client != NULL ? params->client_user : manager->client_user;
        return true;
    case SOURCE_FILE:
        return replace_text(params->path, &config->file.path);
    case SOURCE_GENERATE:
        config->generate.count = params->generate_count;
        config->generate.rate = params->generate_rate;
        if (params->generate_bytes > 0)
            config->generate.size_bytes = params->generate_bytes;
        return true;
    case SOURCE_HTTP:
        config->http.cursor_increment = params->cursor_increment;
        return replace_text(params->url, &config->http.url) &&
               replace_text(params->events, &config->http.events) &&
               replace_text(params->cursor_path, &config->http.cursor_path) &&
               replace_text(params->cursor_last_event_path, &config->http.cursor_last_event_path);
    case SOURCE_IDEFIX:
    case SOURCE_UNKNOWN:
        return true;
    }
    return true;
}

/* Fills the configuration of a new source: first the defaults, then the library caller's parameters, of
 * which 0 and NULL keep the default. ep_source_add calls this through append_source. Returns false if out
 * of memory. */
static bool fill_source_config(const ep_manager *manager, const struct ep_source_params *params,
                               struct source_config *config)
{
    config_set_source_defaults(config);
    if (params->long_poll_ms > 0)
        config->long_poll_ms = params->long_poll_ms;
    if (params->page_size > 0)
        config->page_size = params->page_size;
    return fill_source_type_config(manager, params, config) && replace_text(params->id, &config->id) &&
           replace_text(params->domain, &config->domain) && replace_text(params->address, &config->address) &&
           replace_text(params->event_type, &config->event_type) &&
           replace_text(params->since, &config->since) &&
           replace_text(params->continuation_id, &config->continuation_id);
}

/* Checks the parameters that the library's caller gives for a source, before ep_source_add adds it to a
 * manager, and sets its *type. Returns 0; EP_EINVAL for a bad id, type, client or filter, or EP_EEXIST
 * for an id in use, both with the manager's error set. */
static int check_source_params(ep_manager *manager, const struct ep_source_params *params,
                               enum source_type *type)
{
    if (params->id == NULL || params->id[0] == '\0')
        return base_error_set(&manager->error, EP_EINVAL, "a source needs an id");
    if (!config_is_name_valid(params->id))
        return base_error_set(&manager->error, EP_EINVAL,
                              "source id \"%s\": expected 1 to 63 of A-Z a-z 0-9 . _ -", params->id);
    for (size_t i = 0; i < manager->config->source_count; i++)
        if (strcmp(manager->config->sources[i].id, params->id) == 0)
            return base_error_set(&manager->error, EP_EEXIST,
                                  "source \"%s\" exists already: choose another id", params->id);
    int result = choose_source_type(manager, params, type);
    if (result == 0 && *type == SOURCE_IDEFIX && params->domain == NULL && params->address == NULL)
        return base_error_set(&manager->error, EP_EINVAL,
                              "source %s: neither domain nor address is given: idefix needs one of them",
                              params->id);
    if (result != 0 || *type != SOURCE_CLIENT)
        return result;
    const struct ep_client *client = params->client != NULL ? params->client : manager->client;
    if (client->events_get == NULL)
        return base_error_set(&manager->error, EP_EINVAL, "source %s: its client has no events_get function",
                              params->id);
    if (client->requires_filter && params->domain == NULL && params->address == NULL)
        return base_error_set(&manager->error, EP_EINVAL,
                              "source %s: neither domain nor address is given: its client needs one of them",
                              params->id);
    return 0;
}

/* Appends a source with checked parameters to the configuration of the library caller's manager; the
 * manager owns *out. ep_source_add calls this. Returns EP_OK, or EP_ENOMEM, which leaves the manager
 * without the new source. */
static int append_source(ep_manager *manager, const struct ep_source_params *params, enum source_type type,
                         ep_source **out)
{
    struct config *config = manager->config;
    size_t old_count = config->source_count;
    struct source_config *source_configs = realloc(config->sources, (old_count + 1) * sizeof *source_configs);
    if (source_configs != NULL)
        config->sources = source_configs;
    ep_source **sources =
        realloc(manager->sources, (old_count + 1) * sizeof *sources); // NOLINT(bugprone-sizeof-expression)
    if (sources != NULL)
        manager->sources = sources;
    ep_source *source = malloc(sizeof *source);
    if (source_configs == NULL || sources == NULL || source == NULL) {
        free(source);
        return base_error_set(&manager->error, EP_ENOMEM, "out of memory for source %s", params->id);
    }
    source_configs[old_count] = (struct source_config){.type = type};
    *source = (ep_source){.manager = manager, .index = old_count};
    sources[old_count] = source;
    config->source_count = old_count + 1; /* config owns the source from here on */
    if (!fill_source_config(manager, params, &source_configs[old_count])) {
        config->source_count = old_count;
        free(source);
        return base_error_set(&manager->error, EP_ENOMEM, "out of memory for source %s", params->id);
    }
    *out = source;
    return EP_OK;
}

/* Appends an idefix source to the configuration of the library caller's manager, for ep_source_add. Makes
 * the part with broker, account and token first, since reading token_file may fail, then swaps it with
 * the new source's defaults, so that each text has one owner. Returns EP_OK or a negative code. */
static int append_idefix_source(ep_manager *manager, const struct ep_source_params *params, ep_source **out)
{
    struct config *idefix_config = NULL;
    int result = library_idefix_make_config(params->idefix, &idefix_config, &manager->error);
    if (result != 0) {
        base_error_prefix(&manager->error, "source %s", params->id);
        return result;
    }
    result = append_source(manager, params, SOURCE_IDEFIX, out);
    if (result == EP_OK) {
        struct idefix_source_config *new_config =
            &manager->config->sources[manager->config->source_count - 1].idefix;
        struct idefix_source_config default_config = *new_config;
        *new_config = idefix_config->sources[0].idefix;
        idefix_config->sources[0].idefix = default_config;
    }
    config_close(&idefix_config);
    return result;
}

/* Adds a source to a manager before a run; nothing connects or starts yet. The library's caller calls this
 * for each source; *out stays valid until ep_manager_close. Returns EP_OK, or a negative code; ep_errmsg
 * then has the reason. */
int ep_source_add(ep_manager *manager, const struct ep_source_params *params, ep_source **out)
{
    if (manager == NULL || params == NULL || out == NULL)
        return EP_EINVAL;
    enum source_type type = SOURCE_CLIENT;
    int result = check_not_running(manager);
    if (result == 0)
        result = check_source_params(manager, params, &type);
    if (result != 0)
        return result;
    return type == SOURCE_IDEFIX ? append_idefix_source(manager, params, out)
                                 : append_source(manager, params, type, out);
}

/* ---- stages */

/* Copies the library caller's options of a stage into its configuration. Zero keeps the default, except
 * that max_attempts 0 and max_age_ms 0 mean no limit. Each ep_source_push function calls this through
 * append_stage. Returns false if out of memory. */
static bool fill_stage_config(const struct ep_stage_options *options, struct stage_config *config)
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
    return replace_text(options->options, &config->options);
}

/* Checks name and concurrency of the library caller's new stage before an ep_source_push function appends
 * it; a name may occur only once in a source. Returns 0, or EP_EINVAL or EP_EEXIST with the manager's
 * error set. */
static int check_new_stage(ep_source *source, const char *name, const struct ep_stage_options *options)
{
    struct error *error = &source->manager->error;
    const struct source_config *config = &source->manager->config->sources[source->index];
    if (name == NULL || name[0] == '\0')
        return base_error_set(error, EP_EINVAL, "source %s: a stage needs a name", config->id);
    if (!config_is_name_valid(name))
        return base_error_set(error, EP_EINVAL,
                              "source %s: stage name \"%s\": expected 1 to 63 of A-Z a-z 0-9 . _ -",
                              config->id, name);
    if (options->concurrency == 0)
        return base_error_set(error, EP_EINVAL,
                              "source %s: stage %s: concurrency 0: expected at least 1 worker", config->id,
                              name);
    for (size_t i = 0; i < config->stage_count; i++)
        if (strcmp(config->stages[i].name, name) == 0)
            return base_error_set(error, EP_EEXIST,
                                  "source %s: stage \"%s\" exists already: choose another name", config->id,
                                  name);
    return 0;
}

/* Appends the library caller's new stage to a source's configuration and returns it; the ep_source_push
 * function that calls this then sets what its type needs, such as the program. Returns NULL on failure;
 * the manager's error then has code and reason. */
static struct stage_config *append_stage(ep_source *source, const char *name, enum stage_type type,
                                         const struct ep_stage_options *options)
{
    struct error *error = &source->manager->error;
    if (check_not_running(source->manager) != 0 || check_new_stage(source, name, options) != 0)
        return NULL;
    struct source_config *config = &source->manager->config->sources[source->index];
    struct stage_config *stages = realloc(config->stages, (config->stage_count + 1) * sizeof *stages);
    if (stages == NULL) {
        base_error_set(error, EP_ENOMEM, "out of memory for stage %s", name);
        return NULL;
    }
    config->stages = stages;
    struct stage_config *stage = &stages[config->stage_count];
    *stage = (struct stage_config){.type = type};
    config_set_stage_defaults(stage);
    config->stage_count++; /* config owns it from here on; a run refuses an incomplete stage */
    if (!replace_text(name, &stage->name) || !fill_stage_config(options, stage)) {
        config->stage_count--;
        base_error_set(error, EP_ENOMEM, "out of memory for stage %s", name);
        return NULL;
    }
    return stage;
}

static const struct ep_stage_options default_options = EP_STAGE_OPTIONS_INIT;

/* Appends a stage that runs a function of the caller's own program to a source. The library's caller calls
 * this before a run; workers forked from its process call the function later. Events pass the stages in
 * the order of these calls. Returns EP_OK or a negative code. */
int ep_source_push(ep_source *source, const struct ep_stage *stage, const struct ep_stage_options *options)
{
    if (source == NULL || stage == NULL)
        return EP_EINVAL;
    options = options != NULL ? options : &default_options;
    const char *name = options->name != NULL ? options->name : stage->name;
    struct error *error = &source->manager->error;
    if (stage->abi != EP_STAGE_ABI)
        return base_error_set(
            error, EP_EINVAL,
            "stage %s: expected ABI %d, found %u: compile it with this library's eventpipe.h",
            name != NULL ? name : "?", EP_STAGE_ABI, stage->abi);
    if (stage->process == NULL)
        return base_error_set(error, EP_EINVAL, "stage %s has no process function",
                              name != NULL ? name : "?");
    struct stage_config *config = append_stage(source, name, STAGE_FUNCTION, options);
    if (config == NULL)
        return error->code;
    config->function = stage;
    return EP_OK;
}

/* Appends a stage that passes events to a program to a source; each worker starts one child. The library's
 * caller calls this before a run and may free argv afterwards. Returns EP_OK or a negative code; ep_errmsg
 * then has the reason. */
int ep_source_push_exec(ep_source *source, const char *const *argv, const struct ep_stage_options *options)
{
    if (source == NULL || argv == NULL || argv[0] == NULL)
        return EP_EINVAL;
    options = options != NULL ? options : &default_options;
    struct stage_config *config = append_stage(source, options->name, STAGE_EXEC, options);
    if (config == NULL)
        return source->manager->error.code;
    size_t argument_count = 0;
    while (argv[argument_count] != NULL)
        argument_count++;
    config->exec.at = calloc(argument_count + 1, sizeof *config->exec.at);
    while (config->exec.at != NULL && config->exec.count < argument_count &&
           replace_text(argv[config->exec.count], &config->exec.at[config->exec.count]))
        config->exec.count++;
    if (config->exec.at == NULL || config->exec.count < argument_count)
        return base_error_set(&source->manager->error, EP_ENOMEM, "out of memory for stage %s",
                              options->name);
    return EP_OK;
}

/* Appends a stage that runs a plugin (a shared object) to a source; its workers load it. The library's
 * caller calls this before a run and may free path afterwards. Returns EP_OK or a negative code; ep_errmsg
 * then has the reason. */
int ep_source_push_plugin(ep_source *source, const char *path, const struct ep_stage_options *options)
{
    if (source == NULL || path == NULL)
        return EP_EINVAL;
    options = options != NULL ? options : &default_options;
    struct stage_config *config = append_stage(source, options->name, STAGE_PLUGIN, options);
    if (config != NULL && !replace_text(path, &config->plugin))
        base_error_set(&source->manager->error, EP_ENOMEM, "out of memory for stage %s", options->name);
    return source->manager->error.code;
}

/* Appends a stage that sends each event to a URL to a source. The library's caller calls this before a run
 * and may free url afterwards. Returns EP_OK or a negative code; ep_errmsg then has the reason. */
int ep_source_push_http(ep_source *source, const char *url, const struct ep_stage_options *options)
{
    if (source == NULL || url == NULL)
        return EP_EINVAL;
    options = options != NULL ? options : &default_options;
    struct stage_config *config = append_stage(source, options->name, STAGE_HTTP, options);
    if (config != NULL && !replace_text(url, &config->url))
        base_error_set(&source->manager->error, EP_ENOMEM, "out of memory for stage %s", options->name);
    return source->manager->error.code;
}
