/* SPDX-License-Identifier: MIT */
/* What good configuration files become, and what the library's calls build. */
#include <stdio.h>
#include <unistd.h>

#include "tests/lib/config_file.h"

static void a_small_file_gets_all_defaults(void)
{
    struct config *config = config_file_read(FILE_SOURCE STAGES);
    CU_ASSERT_PTR_NOT_NULL_FATAL(config);
    CU_ASSERT_STRING_EQUAL(config->path, config_path);
    CU_ASSERT_STRING_EQUAL(config->instance, "quakes");
    CU_ASSERT_STRING_EQUAL(config->storage, "sqlite:/var/lib/eventpipe/quakes.db");
    CU_ASSERT_STRING_EQUAL(config->control, "/run/eventpipe/quakes.sock");
    CU_ASSERT_EQUAL(config->control_mode, 0600);
    CU_ASSERT_EQUAL(config->synchronous, SYNCHRONOUS_FULL);
    CU_ASSERT_EQUAL(config->drain_timeout_ms, 30000);
    CU_ASSERT_EQUAL(config->log_level, EP_LOG_INFO);
    CU_ASSERT_EQUAL_FATAL(config->source_count, 1);
    const struct source_config *source = &config->sources[0];
    CU_ASSERT_STRING_EQUAL(source->id, "a");
    CU_ASSERT_EQUAL(source->type, SOURCE_FILE);
    CU_ASSERT_EQUAL(source->page_size, 100);
    CU_ASSERT_EQUAL(source->retry.min_ms, 1000);
    CU_ASSERT_EQUAL(source->retry.max_ms, 60000);
    CU_ASSERT_EQUAL(source->backlog_max_events, 10000000);
    CU_ASSERT_EQUAL(source->file.from, FILE_FROM_START);
    CU_ASSERT_EQUAL(source->file.format, FILE_AUTO);
    CU_ASSERT_EQUAL(source->file.max_line_bytes, 16 << 20);
    CU_ASSERT_PTR_NULL(source->pointers.uid);
    CU_ASSERT_EQUAL_FATAL(source->stage_count, 1);
    const struct stage_config *stage = &source->stages[0];
    CU_ASSERT_EQUAL(stage->type, STAGE_EXEC);
    CU_ASSERT_EQUAL(stage->concurrency, 1);
    CU_ASSERT_EQUAL(stage->input_buffer, 512);
    CU_ASSERT_EQUAL(stage->batch, 500);
    CU_ASSERT_EQUAL(stage->prefetch, 64);
    CU_ASSERT_EQUAL(stage->commit_delay_ms, 5);
    CU_ASSERT_EQUAL(stage->timeout_ms, 60000);
    CU_ASSERT_EQUAL(stage->retry.min_ms, 1000);
    CU_ASSERT_EQUAL(stage->retry.max_ms, 300000);
    CU_ASSERT_EQUAL(stage->max_attempts, 0);
    CU_ASSERT_EQUAL(stage->max_age_ms, 0);
    CU_ASSERT_EQUAL(stage->max_crashes, 3);
    CU_ASSERT_EQUAL(stage->restart_max_backoff_ms, 30000);
    CU_ASSERT_STRING_EQUAL(stage->options, "{}");
    CU_ASSERT(stage->limits.memory_bytes == 0 && stage->limits.cpu_ms == 0 && stage->limits.files == 0 &&
              stage->limits.processes == 0);
    CU_ASSERT(stage->user == NULL && stage->group == NULL);
    config_close(&config);
    CU_ASSERT_PTR_NULL(config);
    config_close(&config); /* nothing left to do */
}

static void check_http_source(const struct source_config *http)
{
    char expected[5000];
    CU_ASSERT_STRING_EQUAL(http->http.token, "s3cret");
    CU_ASSERT_EQUAL(http->http.headers.count, 2);
    CU_ASSERT_STRING_EQUAL(http->http.headers.at[1], "C: d: e");
    CU_ASSERT_STRING_EQUAL(http->http.events, "/results");
    CU_ASSERT_PTR_NULL(http->http.cursor_path);
    CU_ASSERT_STRING_EQUAL(http->http.cursor_last_event_path, "/id");
    CU_ASSERT_EQUAL(http->http.cursor_increment, -1);
    CU_ASSERT_STRING_EQUAL(http->http.cursor_initial, "0");
    CU_ASSERT_EQUAL(http->http.connect_timeout_ms, 3000);
    CU_ASSERT_EQUAL(http->http.max_bytes, 2 << 20);
    CU_ASSERT_EQUAL(http->http.interval_ms, 10);
    snprintf(expected, sizeof expected, "%s/ca.pem", config_directory);
    CU_ASSERT_STRING_EQUAL(http->http.ca_file, expected);
    CU_ASSERT_STRING_EQUAL(http->since, "2026-11-23T10:00:00Z");
    CU_ASSERT_EQUAL(http->long_poll_ms, 5000);
    CU_ASSERT_EQUAL(http->page_size, 7);
    CU_ASSERT_EQUAL(http->retry.min_ms, 2000);
    CU_ASSERT_EQUAL(http->retry.max_ms, 3000);
    CU_ASSERT_EQUAL(http->backlog_max_events, 5);
}

static void every_key_of_a_source_is_read(void)
{
    config_file_write("token", "s3cret\nsecond line\n", 19, 0600);
    struct config *config =
        config_file_read("instance: other\n"
                         "storage: sqlite:data/x.db\n"
                         "control: run/x.sock\n"
                         "control_mode: 0660\n"
                         "synchronous: normal\n"
                         "drain_timeout: 1m30s\n"
                         "log_level: debug\n"
                         "sources:\n"
                         "- {id: f, type: file, path: /in, from: end, format: text, max_line: 1KiB,\n"
                         "   uid: /id, event_type: /t~1x, timestamp: '', address: /d, stages: &s\n"
                         "     [{name: s, exec: [cat, -n, '']}]}\n"
                         "- id: h\n"
                         "  type: http\n"
                         "  url: https://h/?c={cursor}&n={limit}&t={timeout}&s={since}\n"
                         "  headers: ['A: b', 'C: d: e']\n"
                         "  token_file: token\n"
                         "  events: /results\n"
                         "  cursor: {last_event_path: /id, increment: -1, initial: \"0\"}\n"
                         "  connect_timeout: 3s\n"
                         "  max_bytes: 2MiB\n"
                         "  interval: 10ms\n"
                         "  ca_file: ca.pem\n"
                         "  since: 2026-11-23T10:00:00Z\n"
                         "  long_poll: 5s\n"
                         "  page_size: 7\n"
                         "  retry: {min: 2s, max: 3s}\n"
                         "  backlog: {max_events: 5}\n"
                         "  stages: *s\n"
                         "- {id: g, type: generate, count: 9, size: 1k, rate: 0.25, stages: *s}\n");
    config_file_show_all();
    CU_ASSERT_PTR_NOT_NULL_FATAL(config);
    char expected[5000];
    CU_ASSERT_STRING_EQUAL(config->instance, "other");
    snprintf(expected, sizeof expected, "sqlite:%s/data/x.db", config_directory);
    CU_ASSERT_STRING_EQUAL(config->storage, expected);
    snprintf(expected, sizeof expected, "%s/run/x.sock", config_directory);
    CU_ASSERT_STRING_EQUAL(config->control, expected);
    CU_ASSERT_EQUAL(config->control_mode, 0660);
    CU_ASSERT_EQUAL(config->synchronous, SYNCHRONOUS_NORMAL);
    CU_ASSERT_EQUAL(config->drain_timeout_ms, 90000);
    CU_ASSERT_EQUAL(config->log_level, EP_LOG_DEBUG);
    CU_ASSERT_EQUAL_FATAL(config->source_count, 3);
    const struct source_config *file = &config->sources[0], *http = &config->sources[1];
    CU_ASSERT_STRING_EQUAL(file->file.path, "/in");
    CU_ASSERT_EQUAL(file->file.from, FILE_FROM_END);
    CU_ASSERT_EQUAL(file->file.format, FILE_TEXT);
    CU_ASSERT_EQUAL(file->file.max_line_bytes, 1024);
    CU_ASSERT_STRING_EQUAL(file->pointers.event_type, "/t~1x");
    CU_ASSERT_STRING_EQUAL(file->pointers.timestamp, "");
    CU_ASSERT_PTR_NULL(file->event_type);
    CU_ASSERT_EQUAL(file->stages[0].exec.count, 3);
    CU_ASSERT_STRING_EQUAL(file->stages[0].exec.at[2], "");
    CU_ASSERT_PTR_NULL(file->stages[0].exec.at[3]);
    check_http_source(http);
    CU_ASSERT_STRING_EQUAL(http->stages[0].name, "s");
    CU_ASSERT_EQUAL(config->sources[2].generate.count, 9);
    CU_ASSERT_EQUAL(config->sources[2].generate.size_bytes, 1000);
    CU_ASSERT_DOUBLE_EQUAL(config->sources[2].generate.rate, 0.25, 1e-9);
    config_close(&config);
}

static void every_key_of_an_idefix_source_is_read(void)
{
    config_file_write("token", "tok-1\n", 6, 0600);
    struct config *config = config_file_read("sources:\n"
                                             "- id: a\n"
                                             "  type: idefix\n"
                                             "  broker: mqtts://h:9\n"
                                             "  account: u@d\n"
                                             "  token_file: token\n"
                                             "  domain: d\n"
                                             "  address: dev\n"
                                             "  event_type: temperature\n"
                                             "  continuation_id: c-1\n"
                                             "  encoding: jg\n"
                                             "  session: s-1\n"
                                             "  user: u1\n"
                                             "  password: \"\"\n"
                                             "  ca_file: /ca.pem\n"
                                             "  meta: {app: x, n: 9007199254740993}\n"
                                             "  groups: [one, two]\n"
                                             "  connect_timeout: 1s\n"
                                             "  response_timeout: 2s\n"
                                             "  max_bytes: 1MiB\n"
                                             "  long_poll: 3s\n" STAGES);
    config_file_show_all();
    CU_ASSERT_PTR_NOT_NULL_FATAL(config);
    const struct source_config *source = &config->sources[0];
    const struct idefix_source_config *idefix = &source->idefix;
    CU_ASSERT_STRING_EQUAL(idefix->broker, "mqtts://h:9");
    CU_ASSERT_STRING_EQUAL(idefix->account, "u@d");
    CU_ASSERT_STRING_EQUAL(idefix->token, "tok-1");
    CU_ASSERT_STRING_EQUAL(source->domain, "d");
    CU_ASSERT_STRING_EQUAL(source->address, "dev");
    CU_ASSERT_STRING_EQUAL(source->event_type, "temperature");
    CU_ASSERT_STRING_EQUAL(source->continuation_id, "c-1");
    CU_ASSERT_STRING_EQUAL(idefix->encoding, "jg");
    CU_ASSERT_STRING_EQUAL(idefix->session, "s-1");
    CU_ASSERT_STRING_EQUAL(idefix->user, "u1");
    CU_ASSERT_STRING_EQUAL(idefix->password, "");
    CU_ASSERT_STRING_EQUAL(idefix->ca_file, "/ca.pem");
    CU_ASSERT_STRING_EQUAL(idefix->meta, "{\"app\":\"x\",\"n\":9007199254740993}");
    CU_ASSERT_EQUAL(idefix->groups.count, 2);
    CU_ASSERT_STRING_EQUAL(idefix->groups.at[1], "two");
    CU_ASSERT_EQUAL(idefix->connect_timeout_ms, 1000);
    CU_ASSERT_EQUAL(idefix->response_timeout_ms, 2000);
    CU_ASSERT_EQUAL(idefix->max_bytes, 1048576);
    CU_ASSERT_EQUAL(source->long_poll_ms, 3000);
    config_close(&config);
    config = config_file_read(IN_IDEFIX("  since: 2026-01-01T00:00:00Z"));
    CU_ASSERT_PTR_NOT_NULL_FATAL(config);
    idefix = &config->sources[0].idefix;
    CU_ASSERT_STRING_EQUAL(idefix->encoding, "mg");
    CU_ASSERT_STRING_EQUAL(idefix->user, "device");
    CU_ASSERT_STRING_EQUAL(idefix->password, "77dev22p1");
    CU_ASSERT_PTR_NULL(idefix->session);
    CU_ASSERT_PTR_NULL(idefix->meta);
    CU_ASSERT_EQUAL(idefix->groups.count, 0);
    CU_ASSERT_EQUAL(idefix->connect_timeout_ms, 10000);
    CU_ASSERT_EQUAL(idefix->response_timeout_ms, 10000);
    CU_ASSERT_EQUAL(idefix->max_bytes, 64 << 20);
    CU_ASSERT_EQUAL(config->sources[0].page_size, 100);
    config_close(&config);
}

static void every_key_of_a_stage_is_read(void)
{
    setenv("TEST_CONFIG_TOKEN", "from-env", 1);
    struct config *config = config_file_read(FILE_SOURCE "  stages:\n"
                                                         "  - name: e\n"
                                                         "    exec: [./x]\n"
                                                         "    directory: work\n"
                                                         "    environment: {A: 1, B: 'x=y', C: ''}\n"
                                                         "    concurrency: 1000\n"
                                                         "    input_buffer: 64\n"
                                                         "    batch: 10\n"
                                                         "    prefetch: 1\n"
                                                         "    commit_delay: 0\n"
                                                         "    timeout: 0\n"
                                                         "    retry: {min: 1m, max: 1h}\n"
                                                         "    max_attempts: 20\n"
                                                         "    max_age: 7d\n"
                                                         "    max_crashes: 0\n"
                                                         "    restart: {max_backoff: 2m}\n"
                                                         "  - {name: p, plugin: p.so}\n"
                                                         "  - name: h\n"
                                                         "    url: http://h\n"
                                                         "    headers: {A: b, C: 'd: e'}\n"
                                                         "    token_env: TEST_CONFIG_TOKEN\n"
                                                         "    ca_file: /ca.pem\n");
    config_file_show_all();
    CU_ASSERT_PTR_NOT_NULL_FATAL(config);
    char expected[5000];
    const struct stage_config *stages = config->sources[0].stages;
    CU_ASSERT_EQUAL_FATAL(config->sources[0].stage_count, 3);
    snprintf(expected, sizeof expected, "%s/work", config_directory);
    CU_ASSERT_STRING_EQUAL(stages[0].directory, expected);
    CU_ASSERT_EQUAL(stages[0].environment.count, 3);
    CU_ASSERT_STRING_EQUAL(stages[0].environment.at[1], "B=x=y");
    CU_ASSERT_STRING_EQUAL(stages[0].environment.at[2], "C=");
    CU_ASSERT_EQUAL(stages[0].concurrency, 1000);
    CU_ASSERT_EQUAL(stages[0].input_buffer, 64);
    CU_ASSERT_EQUAL(stages[0].batch, 10);
    CU_ASSERT_EQUAL(stages[0].prefetch, 1);
    CU_ASSERT_EQUAL(stages[0].commit_delay_ms, 0);
    CU_ASSERT_EQUAL(stages[0].timeout_ms, 0);
    CU_ASSERT_EQUAL(stages[0].retry.min_ms, 60000);
    CU_ASSERT_EQUAL(stages[0].retry.max_ms, 3600000);
    CU_ASSERT_EQUAL(stages[0].max_attempts, 20);
    CU_ASSERT_EQUAL(stages[0].max_age_ms, 7 * 86400000);
    CU_ASSERT_EQUAL(stages[0].max_crashes, 0);
    CU_ASSERT_EQUAL(stages[0].restart_max_backoff_ms, 120000);
    CU_ASSERT_EQUAL(stages[1].type, STAGE_PLUGIN);
    snprintf(expected, sizeof expected, "%s/p.so", config_directory);
    CU_ASSERT_STRING_EQUAL(stages[1].plugin, expected);
    CU_ASSERT_EQUAL(stages[2].type, STAGE_HTTP);
    CU_ASSERT_STRING_EQUAL(stages[2].headers.at[0], "A: b");
    CU_ASSERT_STRING_EQUAL(stages[2].headers.at[1], "C: d: e");
    CU_ASSERT_STRING_EQUAL(stages[2].token, "from-env");
    CU_ASSERT_STRING_EQUAL(stages[2].ca_file, "/ca.pem");
    config_close(&config);
}

static void options_become_json(void)
{
    static const struct {
        const char *yaml, *json;
    } pairs[] = {
        {"{n: 9223372036854775807, m: -1, f: 1.50, e: 1e3}",
         "{\"n\":9223372036854775807,\"m\":-1,\"f\":1.50,\"e\":1e3}"},
        {"{q: \"12\", r: 'true', s: \"\"}", "{\"q\":\"12\",\"r\":\"true\",\"s\":\"\"}"},
        {"[007, 0x1f, yes, .5, 1., +1, -, 1e, nan, 1_000]",
         "[\"007\",\"0x1f\",\"yes\",\".5\",\"1.\",\"+1\",\"-\",\"1e\",\"nan\",\"1_000\"]"},
        {"[true, False, ~, null, , 0, -0.0]", "[true,false,null,null,null,0,-0.0]"},
        {"\"a\\\"b\\\\c\\n\\u00e9\"", "\"a\\\"b\\\\c\\n\xc3\xa9\""},
        {"{a: &x {b: [1]}, c: *x}", "{\"a\":{\"b\":[1]},\"c\":{\"b\":[1]}}"},
        {"{}", "{}"},
        {"18446744073709551616123", "18446744073709551616123"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char text[600];
        snprintf(text, sizeof text, FILE_SOURCE "  stages: [{name: p, plugin: /p, options: %s}]\n",
                 pairs[i].yaml);
        if (strstr(pairs[i].yaml, ", ,") != NULL) /* flow lists have no empty elements; block lists do */
            snprintf(text, sizeof text,
                     FILE_SOURCE "  stages:\n  - name: p\n    plugin: /p\n    options:\n    - true\n"
                                 "    - False\n    - ~\n    - null\n    -\n    - 0\n    - -0.0\n");
        struct config *config = config_file_read(text);
        config_file_show_all();
        CU_ASSERT_PTR_NOT_NULL(config);
        if (config != NULL)
            CU_ASSERT_STRING_EQUAL(config->sources[0].stages[0].options, pairs[i].json);
        config_close(&config);
    }
}

static void memory_storage_has_several_spellings(void)
{
    static const char *const spellings[] = {"'memory:'", "memory", ":memory", "':memory:'"};
    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
        char text[300];
        snprintf(text, sizeof text, AT_TOP("storage: %s"), spellings[i]);
        struct config *config = config_file_read(text);
        CU_ASSERT_PTR_NOT_NULL_FATAL(config);
        CU_ASSERT_STRING_EQUAL(config->storage, "memory:");
        config_close(&config);
    }
}

/* ---- the library's way ---- */

static int get_nothing(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                       uint64_t wait_ms, ep_page *page)
{
    (void)session, (void)filter, (void)cursor, (void)limit, (void)wait_ms, (void)page;
    return 0;
}

static enum ep_answer pass(ep_call *call, void *state)
{
    (void)call, (void)state;
    return EP_PROCESSED;
}

static void a_built_configuration_obeys_the_same_rules(void)
{
    static const struct ep_client client = {.events_get = get_nothing, .requires_filter = 1};
    static const struct ep_stage function = {.abi = EP_STAGE_ABI, .name = "s", .process = pass};
    struct stage_config stages[2] = {{.type = STAGE_FUNCTION, .name = (char[]){"s"}, .function = &function},
                                     {.type = STAGE_FUNCTION, .name = (char[]){"t"}, .function = &function}};
    struct source_config source = {.type = SOURCE_CLIENT,
                                   .id = (char[]){"a"},
                                   .stages = stages,
                                   .stage_count = 2};
    struct config config = {.instance = (char[]){"i"},
                            .storage = (char[]){"memory:"},
                            .sources = &source,
                            .source_count = 1};
    config_set_defaults(&config);
    config_set_source_defaults(&source);
    config_set_stage_defaults(&stages[0]);
    config_set_stage_defaults(&stages[1]);
    source.client.client = &client;
    config_seen_count = 0;
    CU_ASSERT_EQUAL(config_validate(&config, config_file_on_problem, config_seen), EP_ECONFIG);
    CU_ASSERT(config_file_reported(0, "sources[0].domain", "neither domain nor address"));
    source.address = (char[]){"address"};
    CU_ASSERT_EQUAL(config_validate(&config, NULL, NULL), EP_OK);
    stages[1].name = stages[0].name;
    stages[1].concurrency = 0;
    stages[1].function = NULL;
    source.id = NULL;
    config_seen_count = 0;
    CU_ASSERT_EQUAL(config_validate(&config, config_file_on_problem, config_seen), EP_ECONFIG);
    CU_ASSERT(config_file_reported(0, "sources[0].id", "is missing"));
    CU_ASSERT(config_file_reported(0, "sources[0].stages[1].name", "already the name"));
    CU_ASSERT(config_file_reported(0, "sources[0].stages[1].concurrency", "from 1 to 1000, found 0"));
    CU_ASSERT(config_file_reported(0, "sources[0].stages[1].function", "process function"));
    CU_ASSERT_EQUAL(config_seen_count, 4);
    free(stages[0].options);
    free(stages[1].options);
}

static void limits_and_users_are_read(void)
{
    struct config *config =
        config_file_read(FILE_SOURCE STAGE "    exec: [cat]\n"
                                           "    limits: {memory: 256M, cpu: 60s, files: 64, processes: 32}\n"
                                           "    user: no such user\n"
                                           "    group: '54321'\n");
    CU_ASSERT_PTR_NOT_NULL_FATAL(config); /* who only reads it does not look whether they are there */
    const struct stage_config *stage = &config->sources[0].stages[0];
    CU_ASSERT_EQUAL(stage->limits.memory_bytes, 256000000);
    CU_ASSERT_EQUAL(stage->limits.cpu_ms, 60000);
    CU_ASSERT_EQUAL(stage->limits.files, 64);
    CU_ASSERT_EQUAL(stage->limits.processes, 32);
    CU_ASSERT_STRING_EQUAL(stage->user, "no such user");
    CU_ASSERT_STRING_EQUAL(stage->group, "54321");
    CU_ASSERT_EQUAL(config_rights_check(config, config_file_on_problem, config_seen),
                    EP_ECONFIG); /* who starts stages looks */
    CU_ASSERT(config_file_reported(9, "sources[0].stages[0].user", "there is no user \"no such user\""));
    config_close(&config);
    config = config_file_read(IN_EXEC("    limits: {files: 64}"));
    CU_ASSERT_PTR_NOT_NULL_FATAL(config);
    CU_ASSERT_EQUAL(config_rights_check(config, config_file_on_problem, config_seen), 0);
    config_close(&config);
    if (geteuid() != 0)
        return;
    config = config_file_read(IN_EXEC("    limits: {processes: 64}"));
    CU_ASSERT_PTR_NOT_NULL_FATAL(config);
    CU_ASSERT_EQUAL(config_rights_check(config, config_file_on_problem, config_seen), EP_ECONFIG);
    CU_ASSERT(config_file_reported(8, "sources[0].stages[0].limits.processes", "does not bind root"));
    config_close(&config);
}

static void names_of_types(void)
{
    CU_ASSERT_STRING_EQUAL(config_source_type_name(SOURCE_IDEFIX), "idefix");
    CU_ASSERT_STRING_EQUAL(config_source_type_name(SOURCE_CLIENT), "client");
    CU_ASSERT_STRING_EQUAL(config_stage_type_name(STAGE_FUNCTION), "function");
    CU_ASSERT_STRING_EQUAL(config_stage_type_name(STAGE_HTTP), "http");
}

int main(void)
{
    const struct unit_case cases[] = {
        {"a small file gets all defaults", a_small_file_gets_all_defaults},
        {"every key of a source is read", every_key_of_a_source_is_read},
        {"every key of an idefix source is read", every_key_of_an_idefix_source_is_read},
        {"every key of a stage is read", every_key_of_a_stage_is_read},
        {"limits and users are read", limits_and_users_are_read},
        {"options become JSON", options_become_json},
        {"memory storage has several spellings", memory_storage_has_several_spellings},
        {"a built configuration obeys the same rules", a_built_configuration_obeys_the_same_rules},
        {"names of types", names_of_types},
    };
    return config_file_run("config", cases, sizeof cases / sizeof cases[0]);
}
