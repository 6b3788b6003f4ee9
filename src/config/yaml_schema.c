/* SPDX-License-Identifier: MIT */
/*
 * The one table of keys that a configuration file may have: name, how the value is read, where it is
 * stored, its bounds, and for which type of source or stage it is. eventpipe.yaml(5) documents exactly
 * these keys, and a test compares the two through config_call_for_each_key. Runs in the supervisor before it
 * forks, and in `eventpipe` commands.
 *
 * Invariants
 *  1. Entries with the same name in one table are for different variants (`variant_bits`), and each
 *     variant sees at most one of them.
 *  2. A key that fills a member of struct source_config's union is for one type only. While the type is
 *     unknown, such keys are skipped and nothing is written there.
 */
#include <stdio.h>
#include <string.h>

#include "src/config/yaml.h"

#define COUNT_MAX UINT32_MAX

#define BIT(variant) (1u << (variant))
#define AT_CONFIG(member) offsetof(struct config, member)
#define AT_SOURCE(member) offsetof(struct source_config, member)
#define AT_STAGE(member) offsetof(struct stage_config, member)

static const char *const synchronous_names[] = {"full", "normal", NULL};
static const char *const from_names[] = {"start", "end", NULL};
static const char *const format_names[] = {"json", "text", "auto", NULL};
/* in the order of enum source_type */
const char *const config_yaml_schema_types[] = {"idefix", "http", "file", "generate", NULL};

static const struct schema_key retry_keys[] = {
    {.name = "min",
     .read = config_yaml_value_read_duration,
     .offset = offsetof(struct retry_config, min_ms),
     .min = 1},
    {.name = "max",
     .read = config_yaml_value_read_duration,
     .offset = offsetof(struct retry_config, max_ms),
     .min = 1},
    {.name = NULL},
};

static const struct schema_key restart_keys[] = {
    {.name = "max_backoff", .read = config_yaml_value_read_duration, .min = 1},
    {.name = NULL},
};

static const struct schema_key trace_keys[] = {
    {.name = "keep",
     .read = config_yaml_value_read_duration,
     .offset = offsetof(struct trace_config, keep_ms)},
    {.name = "size",
     .read = config_yaml_value_read_size,
     .offset = offsetof(struct trace_config, bytes),
     .min = CONFIG_TRACE_BYTES_MIN,
     .max = CONFIG_TRACE_BYTES_MAX},
    {.name = NULL},
};

static const struct schema_key backlog_keys[] = {
    {.name = "max_events", .read = config_yaml_value_read_count64, .max = INT64_MAX},
    {.name = NULL},
};

static const struct schema_key cursor_keys[] = {
    {.name = "path",
     .read = config_yaml_value_read_pointer,
     .offset = offsetof(struct http_source_config, cursor_path)},
    {.name = "last_event_path",
     .read = config_yaml_value_read_pointer,
     .offset = offsetof(struct http_source_config, cursor_last_event_path)},
    {.name = "increment",
     .read = config_yaml_value_read_integer,
     .offset = offsetof(struct http_source_config, cursor_increment)},
    {.name = "initial",
     .read = config_yaml_value_read_pointer,
     .offset = offsetof(struct http_source_config, cursor_initial)},
    {.name = NULL},
};

#define AT_LIMITS(member) offsetof(struct limits_config, member)

static const struct schema_key limits_keys[] = {
    {.name = "memory",
     .read = config_yaml_value_read_size,
     .offset = AT_LIMITS(memory_bytes),
     .min = CONFIG_LIMIT_MEMORY_MIN,
     .max = CONFIG_LIMIT_MEMORY_MAX},
    {.name = "cpu", .read = config_yaml_value_read_seconds, .offset = AT_LIMITS(cpu_ms), .min = 1000},
    {.name = "files",
     .read = config_yaml_value_read_count64,
     .offset = AT_LIMITS(files),
     .min = CONFIG_LIMIT_FILES_MIN,
     .max = CONFIG_LIMIT_FILES_MAX},
    {.name = "processes",
     .read = config_yaml_value_read_count64,
     .offset = AT_LIMITS(processes),
     .min = 1,
     .max = CONFIG_LIMIT_PROCESSES_MAX},
    {.name = NULL},
};

#define STAGE_PLUGIN_BIT BIT(STAGE_PLUGIN)
#define STAGE_EXEC_BIT BIT(STAGE_EXEC)
#define STAGE_HTTP_BIT BIT(STAGE_HTTP)

static const struct schema_key stage_keys[] = {
    {.name = "name", .read = config_yaml_value_read_text, .offset = AT_STAGE(name)},
    {.name = "exec", .read = config_yaml_list_read_program, .offset = AT_STAGE(exec)},
    {.name = "plugin", .read = config_yaml_value_read_path, .offset = AT_STAGE(plugin)},
    {.name = "url", .read = config_yaml_value_read_text, .offset = AT_STAGE(url)},
    {.name = "concurrency",
     .read = config_yaml_value_read_count,
     .offset = AT_STAGE(concurrency),
     .min = 1,
     .max = CONFIG_CONCURRENCY_MAX},
    {.name = "input_buffer",
     .read = config_yaml_value_read_count,
     .offset = AT_STAGE(input_buffer),
     .min = 1,
     .max = CONFIG_INPUT_BUFFER_MAX},
    {.name = "batch",
     .read = config_yaml_value_read_count,
     .offset = AT_STAGE(batch),
     .min = 1,
     .max = CONFIG_BATCH_MAX},
    {.name = "commit_delay", .read = config_yaml_value_read_duration, .offset = AT_STAGE(commit_delay_ms)},
    {.name = "timeout", .read = config_yaml_value_read_duration, .offset = AT_STAGE(timeout_ms)},
    {.name = "retry",
     .read = config_yaml_mapping_read_children,
     .offset = AT_STAGE(retry),
     .children = retry_keys},
    {.name = "max_attempts",
     .read = config_yaml_value_read_count,
     .offset = AT_STAGE(max_attempts),
     .max = COUNT_MAX},
    {.name = "max_age", .read = config_yaml_value_read_duration, .offset = AT_STAGE(max_age_ms)},
    {.name = "max_crashes",
     .read = config_yaml_value_read_count,
     .offset = AT_STAGE(max_crashes),
     .max = COUNT_MAX},
    {.name = "restart",
     .read = config_yaml_mapping_read_children,
     .offset = AT_STAGE(restart_max_backoff_ms),
     .children = restart_keys},
    {.name = "limits", .read = config_yaml_mapping_read_limits, .children = limits_keys},
    {.name = "user",
     .read = config_yaml_value_read_text,
     .offset = AT_STAGE(user),
     .variant_bits = STAGE_EXEC_BIT},
    {.name = "group",
     .read = config_yaml_value_read_text,
     .offset = AT_STAGE(group),
     .variant_bits = STAGE_EXEC_BIT},
    {.name = "prefetch",
     .read = config_yaml_value_read_count,
     .offset = AT_STAGE(prefetch),
     .min = 1,
     .max = CONFIG_PREFETCH_MAX,
     .variant_bits = STAGE_EXEC_BIT},
    {.name = "directory",
     .read = config_yaml_value_read_path,
     .offset = AT_STAGE(directory),
     .variant_bits = STAGE_EXEC_BIT},
    {.name = "environment",
     .read = config_yaml_list_read_environment,
     .offset = AT_STAGE(environment),
     .variant_bits = STAGE_EXEC_BIT},
    {.name = "options",
     .read = config_yaml_json_read_any_value,
     .offset = AT_STAGE(options),
     .variant_bits = STAGE_PLUGIN_BIT},
    {.name = "headers",
     .read = config_yaml_list_read_headers,
     .offset = AT_STAGE(headers),
     .variant_bits = STAGE_HTTP_BIT},
    {.name = "token_file",
     .read = config_yaml_list_read_token_file,
     .offset = AT_STAGE(token),
     .variant_bits = STAGE_HTTP_BIT},
    {.name = "token_env",
     .read = config_yaml_list_read_token_env,
     .offset = AT_STAGE(token),
     .variant_bits = STAGE_HTTP_BIT},
    {.name = "ca_file",
     .read = config_yaml_value_read_path,
     .offset = AT_STAGE(ca_file),
     .variant_bits = STAGE_HTTP_BIT},
    {.name = NULL},
};

#define IDEFIX BIT(SOURCE_IDEFIX)
#define HTTP BIT(SOURCE_HTTP)
#define FEED_FILE BIT(SOURCE_FILE)
#define GENERATE BIT(SOURCE_GENERATE)

static const struct schema_key source_keys[] = {
    {.name = "id", .read = config_yaml_value_read_text, .offset = AT_SOURCE(id)},
    {.name = "type",
     .read = config_yaml_value_read_choice,
     .offset = AT_SOURCE(type),
     .choices = config_yaml_schema_types},
    {.name = "page_size",
     .read = config_yaml_value_read_count,
     .offset = AT_SOURCE(page_size),
     .min = 1,
     .max = CONFIG_PAGE_MAX},
    {.name = "retry",
     .read = config_yaml_mapping_read_children,
     .offset = AT_SOURCE(retry),
     .children = retry_keys},
    {.name = "backlog",
     .read = config_yaml_mapping_read_children,
     .offset = AT_SOURCE(backlog_max_events),
     .children = backlog_keys},
    {.name = "stages", .read = config_yaml_mapping_read_stages, .children = stage_keys},
    {.name = "long_poll",
     .read = config_yaml_value_read_duration,
     .offset = AT_SOURCE(long_poll_ms),
     .variant_bits = IDEFIX | HTTP},
    {.name = "since",
     .read = config_yaml_value_read_since,
     .offset = AT_SOURCE(since),
     .variant_bits = IDEFIX | HTTP},
    {.name = "domain",
     .read = config_yaml_value_read_text,
     .offset = AT_SOURCE(domain),
     .variant_bits = IDEFIX},
    {.name = "address",
     .read = config_yaml_value_read_text,
     .offset = AT_SOURCE(address),
     .variant_bits = IDEFIX},
    {.name = "event_type",
     .read = config_yaml_value_read_text,
     .offset = AT_SOURCE(event_type),
     .variant_bits = IDEFIX},
    {.name = "continuation_id",
     .read = config_yaml_value_read_text,
     .offset = AT_SOURCE(continuation_id),
     .variant_bits = IDEFIX},
    {.name = "uid",
     .read = config_yaml_value_read_pointer,
     .offset = AT_SOURCE(pointers.uid),
     .variant_bits = HTTP | FEED_FILE},
    {.name = "event_type",
     .read = config_yaml_value_read_pointer,
     .offset = AT_SOURCE(pointers.event_type),
     .variant_bits = HTTP | FEED_FILE},
    {.name = "timestamp",
     .read = config_yaml_value_read_pointer,
     .offset = AT_SOURCE(pointers.timestamp),
     .variant_bits = HTTP | FEED_FILE},
    {.name = "address",
     .read = config_yaml_value_read_pointer,
     .offset = AT_SOURCE(pointers.address),
     .variant_bits = HTTP | FEED_FILE},
    {.name = "broker",
     .read = config_yaml_value_read_text,
     .offset = AT_SOURCE(idefix.broker),
     .variant_bits = IDEFIX},
    {.name = "account",
     .read = config_yaml_value_read_text,
     .offset = AT_SOURCE(idefix.account),
     .variant_bits = IDEFIX},
    {.name = "token_file",
     .read = config_yaml_list_read_token_file,
     .offset = AT_SOURCE(idefix.token),
     .variant_bits = IDEFIX},
    {.name = "token_env",
     .read = config_yaml_list_read_token_env,
     .offset = AT_SOURCE(idefix.token),
     .variant_bits = IDEFIX},
    {.name = "encoding",
     .read = config_yaml_value_read_text,
     .offset = AT_SOURCE(idefix.encoding),
     .variant_bits = IDEFIX},
    {.name = "session",
     .read = config_yaml_value_read_text,
     .offset = AT_SOURCE(idefix.session),
     .variant_bits = IDEFIX},
    {.name = "user",
     .read = config_yaml_value_read_text,
     .offset = AT_SOURCE(idefix.user),
     .variant_bits = IDEFIX},
    {.name = "password",
     .read = config_yaml_list_read_secret,
     .offset = AT_SOURCE(idefix.password),
     .variant_bits = IDEFIX},
    {.name = "ca_file",
     .read = config_yaml_value_read_path,
     .offset = AT_SOURCE(idefix.ca_file),
     .variant_bits = IDEFIX},
    {.name = "meta",
     .read = config_yaml_json_read_any_value,
     .offset = AT_SOURCE(idefix.meta),
     .variant_bits = IDEFIX},
    {.name = "groups",
     .read = config_yaml_list_read_texts,
     .offset = AT_SOURCE(idefix.groups),
     .variant_bits = IDEFIX},
    {.name = "connect_timeout",
     .read = config_yaml_value_read_duration,
     .offset = AT_SOURCE(idefix.connect_timeout_ms),
     .variant_bits = IDEFIX,
     .min = 1},
    {.name = "response_timeout",
     .read = config_yaml_value_read_duration,
     .offset = AT_SOURCE(idefix.response_timeout_ms),
     .variant_bits = IDEFIX,
     .min = 1},
    {.name = "max_bytes",
     .read = config_yaml_value_read_size,
     .offset = AT_SOURCE(idefix.max_bytes),
     .variant_bits = IDEFIX,
     .min = 1,
     .max = UINT64_C(4) << 30},
    {.name = "url", .read = config_yaml_value_read_text, .offset = AT_SOURCE(http.url), .variant_bits = HTTP},
    {.name = "headers",
     .read = config_yaml_list_read_headers,
     .offset = AT_SOURCE(http.headers),
     .variant_bits = HTTP},
    {.name = "token_file",
     .read = config_yaml_list_read_token_file,
     .offset = AT_SOURCE(http.token),
     .variant_bits = HTTP},
    {.name = "token_env",
     .read = config_yaml_list_read_token_env,
     .offset = AT_SOURCE(http.token),
     .variant_bits = HTTP},
    {.name = "events",
     .read = config_yaml_value_read_pointer,
     .offset = AT_SOURCE(http.events),
     .variant_bits = HTTP},
    {.name = "cursor",
     .read = config_yaml_mapping_read_children,
     .offset = AT_SOURCE(http),
     .variant_bits = HTTP,
     .children = cursor_keys},
    {.name = "connect_timeout",
     .read = config_yaml_value_read_duration,
     .offset = AT_SOURCE(http.connect_timeout_ms),
     .variant_bits = HTTP,
     .min = 1},
    {.name = "max_bytes",
     .read = config_yaml_value_read_size,
     .offset = AT_SOURCE(http.max_bytes),
     .variant_bits = HTTP,
     .min = 1,
     .max = UINT64_C(4) << 30},
    {.name = "interval",
     .read = config_yaml_value_read_duration,
     .offset = AT_SOURCE(http.interval_ms),
     .variant_bits = HTTP,
     .min = 1},
    {.name = "ca_file",
     .read = config_yaml_value_read_path,
     .offset = AT_SOURCE(http.ca_file),
     .variant_bits = HTTP},
    {.name = "path",
     .read = config_yaml_value_read_path,
     .offset = AT_SOURCE(file.path),
     .variant_bits = FEED_FILE},
    {.name = "from",
     .read = config_yaml_value_read_choice,
     .offset = AT_SOURCE(file.from),
     .variant_bits = FEED_FILE,
     .choices = from_names},
    {.name = "format",
     .read = config_yaml_value_read_choice,
     .offset = AT_SOURCE(file.format),
     .variant_bits = FEED_FILE,
     .choices = format_names},
    {.name = "max_line",
     .read = config_yaml_value_read_size,
     .offset = AT_SOURCE(file.max_line_bytes),
     .variant_bits = FEED_FILE,
     .min = 1,
     .max = UINT64_C(1) << 30},
    {.name = "count",
     .read = config_yaml_value_read_count64,
     .offset = AT_SOURCE(generate.count),
     .variant_bits = GENERATE,
     .max = INT64_MAX},
    {.name = "size",
     .read = config_yaml_value_read_size,
     .offset = AT_SOURCE(generate.size_bytes),
     .variant_bits = GENERATE,
     .max = UINT64_C(64) << 20},
    {.name = "rate",
     .read = config_yaml_value_read_rate,
     .offset = AT_SOURCE(generate.rate),
     .variant_bits = GENERATE,
     .max = 1000000000},
    {.name = NULL},
};

const struct schema_key config_yaml_schema_top[] = {
    {.name = "instance", .read = config_yaml_value_read_text, .offset = AT_CONFIG(instance)},
    {.name = "storage", .read = config_yaml_value_read_storage, .offset = AT_CONFIG(storage)},
    {.name = "control", .read = config_yaml_value_read_path, .offset = AT_CONFIG(control)},
    {.name = "control_mode", .read = config_yaml_value_read_mode, .offset = AT_CONFIG(control_mode)},
    {.name = "synchronous",
     .read = config_yaml_value_read_choice,
     .offset = AT_CONFIG(synchronous),
     .choices = synchronous_names},
    {.name = "drain_timeout", .read = config_yaml_value_read_duration, .offset = AT_CONFIG(drain_timeout_ms)},
    {.name = "log_level", .read = config_yaml_value_read_severity, .offset = AT_CONFIG(log_level)},
    {.name = "trace",
     .read = config_yaml_mapping_read_children,
     .offset = AT_CONFIG(trace),
     .children = trace_keys},
    {.name = "sources", .read = config_yaml_mapping_read_sources, .children = source_keys},
    {.name = NULL},
};

/* Calls on_key once for each key in a table of the configuration's schema and in the tables below it, with
 * its path, such as sources[].retry.min. Only a test uses it, to compare the keys with the manual. */
static void call_for_each_key(const struct schema_key *keys, const char *prefix,
                              void (*on_key)(const char *path, void *user), void *user)
{
    for (const struct schema_key *key = keys; key->name != NULL; key++) {
        bool is_repeated = false;
        for (const struct schema_key *earlier = keys; earlier < key; earlier++)
            is_repeated = is_repeated || strcmp(earlier->name, key->name) == 0;
        if (is_repeated)
            continue;
        char path[160];
        snprintf(path, sizeof path, "%s%s", prefix, key->name);
        on_key(path, user);
        if (key->children == NULL)
            continue;
        snprintf(path, sizeof path, "%s%s%s.", prefix, key->name,
                 key->read == config_yaml_mapping_read_sources || key->read == config_yaml_mapping_read_stages
                     ? "[]"
                     : "");
        call_for_each_key(key->children, path, on_key, user);
    }
}

void config_call_for_each_key(void (*on_key)(const char *path, void *user), void *user)
{
    call_for_each_key(config_yaml_schema_top, "", on_key, user);
}
