/* SPDX-License-Identifier: MIT */
/*
 * The rules for every configuration, whether from a file (yaml.c adds the lines) or from the library's
 * calls. Runs before the first fork, in the supervisor, an `eventpipe` command or a library caller. It looks
 * at the struct only: stage_check and source_check find out whether programs and files exist.
 *
 * Invariants
 *  1. Each problem is reported once, and one run reports all of them.
 *  2. Messages never contain a secret: header values, tokens and the environment are not quoted.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/config/config.h"
#include "src/config/idefix_syntax.h"
#include "src/config/url.h"
#include "src/json/json.h"

#define NAME_RULE \
    "a name of 1 to 63 letters, digits, '.', '_' or '-' that does not begin with '.' or '-' and is not ALL"

struct check {
    const struct config *config;
    config_report *report;
    void *report_user; /* what `report` gets */
    int code;
    char key_prefix[64]; /* of keys: "sources[0].stages[1]", "" at the top */
};

/* In the supervisor, `eventpipe` or a library caller: reports what is wrong in the configuration, with the
 * full key, such as sources[0].stages[1].retry. config_validate goes on after it, so that one run reports
 * all problems. */
__attribute__((format(printf, 3, 4))) static void report_problem(struct check *check, const char *key,
                                                                 const char *format, ...)
{
    char full_key[160], message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    snprintf(full_key, sizeof full_key, "%s%s%s", check->key_prefix, check->key_prefix[0] != '\0' ? "." : "",
             key);
    struct config_problem problem = {.file = check->config->path, .key = full_key, .message = message};
    check->code = EP_ECONFIG;
    if (check->report != NULL)
        check->report(&problem, check->report_user);
}

/* In the supervisor, `eventpipe` or a library caller: checks that the name of an instance, source or stage
 * is given and can be a name. `key` is where it stands in the configuration. */
static void check_name(struct check *check, const char *key, const char *name)
{
    if (name == NULL)
        report_problem(check, key, "is missing, expected " NAME_RULE);
    else if (!config_is_name_valid(name))
        report_problem(check, key, "expected " NAME_RULE ", found \"%.80s\"", name);
}

/* In the supervisor, `eventpipe` or a library caller: checks that the value of a key in the configuration
 * is not below `minimum` or above `maximum`. */
static void check_number_range(struct check *check, const char *key, uint64_t value, uint64_t minimum,
                               uint64_t maximum)
{
    if (value < minimum || value > maximum)
        report_problem(check, key, "expected a whole number from %" PRIu64 " to %" PRIu64 ", found %" PRIu64,
                       minimum, maximum, value);
}

/* In the supervisor, `eventpipe` or a library caller: checks the pauses between attempts (`retry`) of a
 * source or stage in the configuration. A pause of 0 would let a failing stage retry without end at full
 * speed. */
static void check_retry(struct check *check, const struct retry_config *retry)
{
    char min_text[48], max_text[48];
    base_units_write_duration(retry->min_ms, min_text, sizeof min_text);
    base_units_write_duration(retry->max_ms, max_text, sizeof max_text);
    if (retry->min_ms == 0)
        report_problem(check, "retry.min",
                       "expected at least 1ms, found 0: retries would follow each other without a pause");
    else if (retry->min_ms > retry->max_ms)
        report_problem(
            check, "retry",
            "min (%s) is above max (%s, which is the default if not given): lower min or raise max", min_text,
            max_text);
}

/* In the supervisor, `eventpipe` or a library caller: checks the syntax of a JSON pointer in the
 * configuration, which tells where in an answer an http source finds a UID, a cursor or the events. NULL
 * and "" are allowed. */
static void check_json_pointer(struct check *check, const char *key, const char *pointer)
{
    if (pointer == NULL || pointer[0] == '\0')
        return;
    if (pointer[0] != '/') {
        report_problem(
            check, key,
            "expected a JSON pointer: \"\" or a text that begins with '/', found \"%.80s\"; write /%.80s",
            pointer, pointer);
        return;
    }
    for (const char *tilde = pointer; (tilde = strchr(tilde, '~')) != NULL; tilde++)
        if (tilde[1] != '0' && tilde[1] != '1') {
            report_problem(
                check, key,
                "expected a JSON pointer, where '~' is written ~0 (and '/' in a name ~1), found \"%.80s\"",
                pointer);
            return;
        }
}

/* In the supervisor, `eventpipe` or a library caller: checks that a `url` in the configuration begins with
 * http:// or https:// and names a host. Reports a problem and returns false if not. */
static bool check_url(struct check *check, const char *key, const char *url)
{
    if (url == NULL) {
        report_problem(check, key, "is missing, expected an address that begins with http:// or https://");
        return false;
    }
    const char *after_scheme = strncmp(url, "http://", 7) == 0    ? url + 7
                               : strncmp(url, "https://", 8) == 0 ? url + 8
                                                                  : NULL;
    if (after_scheme == NULL)
        report_problem(check, key,
                       "expected an address that begins with http:// or https://, found \"%.40s\"", url);
    else if (*after_scheme == '\0' || strchr("/?#", *after_scheme) != NULL)
        report_problem(check, key, "expected a host after %.*s", (int)(after_scheme - url), url);
    else if (strpbrk(url, " \t\r\n") != NULL)
        report_problem(check, key, "expected an address without white space; write %%20 for a space");
    else
        return true;
    return false;
}

/* In the supervisor, `eventpipe` or a library caller: checks the HTTP headers of a source or stage in the
 * configuration. The messages never quote a header's value, which may be a secret. */
static void check_headers(struct check *check, const struct strings *headers)
{
    for (size_t i = 0; i < headers->count; i++) {
        char key[40];
        snprintf(key, sizeof key, "headers[%zu]", i);
        const char *header = headers->at[i];
        size_t name_bytes = strcspn(header, ":");
        if (header[name_bytes] == '\0' || name_bytes == 0)
            report_problem(check, key, "expected \"Name: value\", found a text without a name and ':'");
        else if (strcspn(header, " \t\"(),/;<=>?@[\\]{}") < name_bytes)
            report_problem(
                check, key,
                "expected \"Name: value\", found a character in the name that header names cannot contain");
        else if (strpbrk(header, "\r\n") != NULL)
            report_problem(check, key, "expected one line, found a line break in the value of %.*s",
                           (int)name_bytes, header);
    }
}

/* In the supervisor, `eventpipe` or a library caller: checks the settings of an http source in the
 * configuration: its URL, its headers, its limits, and where it finds the next cursor. */
static void check_http_source(struct check *check, const struct http_source_config *http)
{
    struct error error;
    bool is_url_valid = check_url(check, "url", http->url);
    if (is_url_valid && config_url_check(http->url, &error) != 0)
        report_problem(check, "url", "%s", error.message);
    bool has_cursor = is_url_valid && strstr(http->url, "{cursor}") != NULL;
    check_headers(check, &http->headers);
    check_json_pointer(check, "events", http->events);
    check_json_pointer(check, "cursor.path", http->cursor_path);
    check_json_pointer(check, "cursor.last_event_path", http->cursor_last_event_path);
    if (http->cursor_path != NULL && http->cursor_last_event_path != NULL)
        report_problem(
            check, "cursor",
            "expected one of `path` (in the answer) and `last_event_path` (in the last event), found both");
    if (http->cursor_increment != 0 && http->cursor_last_event_path == NULL)
        report_problem(
            check, "cursor.increment",
            "`last_event_path` is not given, and the increment is added to the number there: give both");
    if (has_cursor && http->cursor_path == NULL && http->cursor_last_event_path == NULL)
        report_problem(
            check, "cursor",
            "the url has {cursor}, so expected `path` or `last_event_path`, which say where the next "
            "cursor is");
    check_number_range(check, "connect_timeout", http->connect_timeout_ms, 1, UNITS_DURATION_MAX_MS);
    check_number_range(check, "max_bytes", http->max_bytes, 1, UINT64_C(4) << 30);
    check_number_range(check, "interval", http->interval_ms, 1, UNITS_DURATION_MAX_MS);
}

/* In the supervisor, `eventpipe` or a library caller: checks the session ID of an Idefix source in the
 * configuration, which is a level of MQTT topics and the client's name at the broker. Two sources with the
 * same one would disconnect each other all the time. */
static void check_idefix_session(struct check *check, const struct source_config *source)
{
    const char *session = source->idefix.session;
    if (session == NULL)
        return;
    if (!config_idefix_session_valid(session))
        report_problem(check, "session", "expected 1 to 64 letters, digits, '.', '_' or '-', found \"%.80s\"",
                       session);
    for (const struct source_config *other = check->config->sources; other < source; other++)
        if (other->type == SOURCE_IDEFIX && other->idefix.session != NULL &&
            strcmp(other->idefix.session, session) == 0)
            report_problem(
                check, "session",
                "\"%.80s\" is also the session of source %.63s, and a broker accepts one client per session: "
                "give each source its own, or leave it out",
                session, other->id != NULL ? other->id : "?");
}

/* In the supervisor, `eventpipe` or a library caller: checks the broker's address of an Idefix source in
 * the configuration, and that `ca_file` is given only for a broker with TLS. */
static void check_idefix_broker(struct check *check, const struct idefix_source_config *idefix)
{
    struct idefix_broker broker;
    struct error error;
    if (idefix->broker == NULL) {
        report_problem(check, "broker", "is missing, expected an address such as ssl://idefix.example:8883");
    } else if (config_idefix_broker_read(idefix->broker, &broker, &error) != 0) {
        report_problem(check, "broker", "%s", error.message);
    } else {
        if (!broker.tls && idefix->ca_file != NULL)
            report_problem(check, "ca_file",
                           "is for brokers with TLS (ssl:// or mqtts://), this one is %.200s",
                           idefix->broker);
        free(broker.host);
    }
}

/* In the supervisor, `eventpipe` or a library caller: checks the settings of an Idefix source in the
 * configuration: broker, login, session, filters, encoding and limits. */
static void check_idefix_source(struct check *check, const struct source_config *source)
{
    const struct idefix_source_config *idefix = &source->idefix;
    struct idefix_encoding encoding;
    check_idefix_broker(check, idefix);
    if (idefix->account == NULL)
        report_problem(check, "account",
                       "is missing, expected the address that logs in, such as user@domain");
    if (idefix->token == NULL)
        report_problem(check, "token_file",
                       "is missing, expected the file with the account's token, or token_env");
    if (source->domain == NULL && source->address == NULL)
        report_problem(check, "domain",
                       "neither domain nor address is given, and the backend needs one of them");
    if (idefix->encoding == NULL || config_idefix_encoding_read(idefix->encoding, &encoding) != 0)
        report_problem(check, "encoding",
                       "expected m (MessagePack), j (JSON) or both, and g to accept gzip, such as mg; found "
                       "\"%.20s\"",
                       idefix->encoding != NULL ? idefix->encoding : "");
    check_idefix_session(check, source);
    if (idefix->meta != NULL && (!json_valid(idefix->meta, strlen(idefix->meta), NULL) ||
                                 json_kind((struct json_span){idefix->meta, strlen(idefix->meta)}) != '{'))
        report_problem(check, "meta", "expected a mapping of names to values, such as {site: north}");
    check_number_range(check, "connect_timeout", idefix->connect_timeout_ms, 1, UNITS_DURATION_MAX_MS);
    check_number_range(check, "response_timeout", idefix->response_timeout_ms, 1, UNITS_DURATION_MAX_MS);
    check_number_range(check, "max_bytes", idefix->max_bytes, 1, UINT64_C(4) << 30);
}

/* Checks the settings that only one type of source has in the configuration: idefix, http, file, generate,
 * or a client that is code of a program that uses the library. */
static void check_source_settings(struct check *check, const struct source_config *source)
{
    switch (source->type) {
    case SOURCE_IDEFIX:
        check_idefix_source(check, source);
        break;
    case SOURCE_HTTP:
        check_http_source(check, &source->http);
        break;
    case SOURCE_FILE:
        if (source->file.path == NULL || source->file.path[0] == '\0')
            report_problem(check, "path", "is missing, expected the file to follow");
        check_number_range(check, "max_line", source->file.max_line_bytes, 1, UINT64_C(1) << 30);
        break;
    case SOURCE_GENERATE:
        check_number_range(check, "size", source->generate.size_bytes, 0, UINT64_C(64) << 20);
        if (!(source->generate.rate >= 0 && source->generate.rate <= 1e9))
            report_problem(check, "rate",
                           "expected events per second from 0 (no limit) to 1000000000, found %g",
                           source->generate.rate);
        break;
    case SOURCE_UNKNOWN:
        break;
    case SOURCE_CLIENT:
        if (source->client.client == NULL || source->client.client->events_get == NULL)
            report_problem(check, "type", "expected a client with an events_get function, found none");
        else if (source->client.client->requires_filter && source->domain == NULL && source->address == NULL)
            report_problem(check, "domain",
                           "neither domain nor address is given, and this client needs one of them");
        break;
    }
}

/* Checks the program and the environment of an exec stage in the configuration. Whether the program exists
 * is not checked here: `eventpiped -t` and `eventpipe check` call stage_check for that. */
static void check_exec_stage(struct check *check, const struct stage_config *stage)
{
    if (stage->exec.count == 0 || stage->exec.at[0][0] == '\0')
        report_problem(check, "exec",
                       "expected a program and its arguments, such as [python3, /opt/enrich.py]");
    for (size_t i = 0; i < stage->environment.count; i++)
        if (strcspn(stage->environment.at[i], "=") == 0 || strchr(stage->environment.at[i], '=') == NULL)
            report_problem(check, "environment", "expected variables with a name, found one without");
}

/* In the supervisor, `eventpipe` or a library caller: checks the settings that only one type of stage has
 * in the configuration: function, plugin, exec or http. */
static void check_stage_settings(struct check *check, const struct stage_config *stage)
{
    switch (stage->type) {
    case STAGE_FUNCTION:
        if (stage->function == NULL || stage->function->process == NULL)
            report_problem(check, "function", "expected a stage with a process function, found none");
        else if (stage->function->abi != EP_STAGE_ABI)
            report_problem(check, "function", "expected a stage of ABI version %d, found %" PRIu32,
                           EP_STAGE_ABI, stage->function->abi);
        break;
    case STAGE_PLUGIN:
        if (stage->plugin == NULL || stage->plugin[0] == '\0')
            report_problem(check, "plugin", "expected the path of a shared object");
        break;
    case STAGE_EXEC:
        check_exec_stage(check, stage);
        break;
    case STAGE_HTTP:
        check_url(check, "url", stage->url);
        check_headers(check, &stage->headers);
        break;
    }
}

/* Checks the memory and file limits of a stage in the configuration; 0 means no limit. Unless the stage is
 * an exec stage, the limits bind the worker itself, which needs a minimum for its own work. */
static void check_stage_limits(struct check *check, const struct stage_config *stage)
{
    const struct limits_config *limits = &stage->limits;
    bool is_exec = stage->type == STAGE_EXEC;

    if (limits->memory_bytes > 0)
        check_number_range(check, "limits.memory", limits->memory_bytes,
                           is_exec ? CONFIG_LIMIT_MEMORY_MIN : CONFIG_WORKER_MEMORY_MIN,
                           CONFIG_LIMIT_MEMORY_MAX);
    if (limits->files > 0)
        check_number_range(check, "limits.files", limits->files,
                           is_exec ? CONFIG_LIMIT_FILES_MIN : CONFIG_WORKER_FILES_MIN,
                           CONFIG_LIMIT_FILES_MAX);
}

/* In the supervisor, `eventpipe` or a library caller: checks stage number `stage_index` of a source in the
 * configuration: its name, which must be unique in its source, its settings and all its numbers. */
static void check_stage(struct check *check, const struct source_config *source, size_t stage_index)
{
    const struct stage_config *stage = &source->stages[stage_index];
    check_name(check, "name", stage->name);
    for (size_t i = 0; i < stage_index && stage->name != NULL; i++)
        if (source->stages[i].name != NULL && strcmp(source->stages[i].name, stage->name) == 0) {
            report_problem(check, "name", "\"%.80s\" is already the name of this source's stage %zu",
                           stage->name, i + 1);
            break;
        }
    check_stage_settings(check, stage);
    check_stage_limits(check, stage);
    check_number_range(check, "concurrency", stage->concurrency, 1, CONFIG_CONCURRENCY_MAX);
    check_number_range(check, "input_buffer", stage->input_buffer, 1, CONFIG_INPUT_BUFFER_MAX);
    check_number_range(check, "batch", stage->batch, 1, CONFIG_BATCH_MAX);
    check_number_range(check, "prefetch", stage->prefetch, 1, CONFIG_PREFETCH_MAX);
    /* the reader limits durations in a file; a program that uses the library may set longer ones */
    check_number_range(check, "commit_delay", stage->commit_delay_ms, 0, UNITS_DURATION_MAX_MS);
    check_number_range(check, "timeout", stage->timeout_ms, 0, UNITS_DURATION_MAX_MS);
    check_number_range(check, "max_age", stage->max_age_ms, 0, UNITS_DURATION_MAX_MS);
    check_number_range(check, "restart.max_backoff", stage->restart_max_backoff_ms, 0, UNITS_DURATION_MAX_MS);
    check_retry(check, &stage->retry);
    if (stage->restart_max_backoff_ms == 0)
        report_problem(check, "restart.max_backoff",
                       "expected at least 1ms, found 0: a crashing stage would be restarted without a pause");
    if (stage->options == NULL)
        report_problem(check, "options", "expected JSON text, found none");
}

/* In the supervisor, `eventpipe` or a library caller: checks source number `source_index` in the
 * configuration with all its stages. It sets check->key_prefix, so that problems name the source and
 * stage. */
static void check_source(struct check *check, size_t source_index)
{
    const struct source_config *source = &check->config->sources[source_index];
    snprintf(check->key_prefix, sizeof check->key_prefix, "sources[%zu]", source_index);
    check_name(check, "id", source->id);
    for (size_t i = 0; i < source_index && source->id != NULL; i++) {
        const char *other_id = check->config->sources[i].id;
        if (other_id != NULL && strcmp(other_id, source->id) == 0) {
            report_problem(check, "id", "\"%.80s\" is already the id of source %zu", source->id, i + 1);
            break;
        }
    }
    check_source_settings(check, source);
    check_number_range(check, "page_size", source->page_size, 1, CONFIG_PAGE_MAX);
    check_number_range(check, "long_poll", source->long_poll_ms, 0, UNITS_DURATION_MAX_MS);
    check_retry(check, &source->retry);
    check_json_pointer(check, "uid", source->pointers.uid);
    check_json_pointer(check, "event_type", source->pointers.event_type);
    check_json_pointer(check, "timestamp", source->pointers.timestamp);
    check_json_pointer(check, "address", source->pointers.address);
    if (source->stage_count == 0)
        report_problem(check, "stages", "is missing, expected a list of one stage or more");
    for (size_t i = 0; i < source->stage_count; i++) {
        snprintf(check->key_prefix, sizeof check->key_prefix, "sources[%zu].stages[%zu]", source_index, i);
        check_stage(check, source, i);
    }
    check->key_prefix[0] = '\0';
}

/* Checks the `storage` key of the configuration, which names the store. It looks at the text only and
 * opens nothing, since `eventpipe` may not be allowed to. */
static void check_storage_url(struct check *check, const char *storage)
{
    if (storage == NULL)
        report_problem(check, "storage", "is missing, expected sqlite:/path/to/file.db or memory:");
    else if (strcmp(storage, "memory:") != 0 && (strncmp(storage, "sqlite:", 7) != 0 || storage[7] == '\0'))
        report_problem(check, "storage",
                       "expected sqlite:/path/to/file.db or memory:, found \"%.200s\"%s%.200s", storage,
                       storage[0] == '/' ? "; write sqlite:" : "", storage[0] == '/' ? storage : "");
}

/* In the supervisor, `eventpipe` or a library caller: checks that the whole configuration does not have
 * more sources, stages and processes than a ticket has bits for (the word in shared memory that says which
 * stage and process has an event). */
static void check_total_counts(struct check *check)
{
    size_t stage_count = 0, process_count = 0;
    for (size_t i = 0; i < check->config->source_count; i++) {
        const struct source_config *source = &check->config->sources[i];
        stage_count += source->stage_count;
        process_count++;
        for (size_t j = 0; j < source->stage_count; j++)
            process_count += source->stages[j].concurrency;
    }
    if (check->config->source_count > CONFIG_SOURCES_MAX)
        report_problem(check, "sources", "expected at most %d sources, found %zu", CONFIG_SOURCES_MAX,
                       check->config->source_count);
    if (stage_count > CONFIG_STAGES_MAX)
        report_problem(check, "sources", "expected at most %d stages in all sources together, found %zu",
                       CONFIG_STAGES_MAX, stage_count);
    if (process_count > CONFIG_WORKERS_MAX)
        report_problem(check, "sources",
                       "expected at most %d processes in all sources and stages together, found %zu",
                       CONFIG_WORKERS_MAX, process_count);
}

/* Checks all values of a whole configuration and reports each problem. Returns 0 or EP_ECONFIG. config_read
 * calls it, in the supervisor before it forks and in `eventpipe` commands; a program that uses the library
 * calls it through its manager at the start of a run. */
int config_validate(const struct config *config, config_report *report, void *user)
{
    struct check check = {.config = config, .report = report, .report_user = user};
    check_name(&check, "instance", config->instance);
    check_storage_url(&check, config->storage);
    if (config->control != NULL &&
        (config->control[0] == '\0' || strlen(config->control) > CONFIG_CONTROL_BYTES_MAX))
        report_problem(&check, "control",
                       "expected the path of a socket, 1 to %d bytes long, found %zu bytes",
                       CONFIG_CONTROL_BYTES_MAX, strlen(config->control));
    if ((config->control_mode & ~0777u) != 0)
        report_problem(&check, "control_mode", "expected permission bits from 0000 to 0777, found %04" PRIo32,
                       config->control_mode);
    if (config->source_count == 0)
        report_problem(&check, "sources", "is missing, expected a list of one source or more");
    for (size_t i = 0; i < config->source_count; i++)
        check_source(&check, i);
    check_total_counts(&check);
    return check.code;
}
