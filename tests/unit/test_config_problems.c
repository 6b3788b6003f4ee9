/* SPDX-License-Identifier: MIT */
/* What is said about every kind of bad configuration file: line, key, what was expected, what was found. */
#include <stdio.h>
#include <unistd.h>

#include "src/base/secret.h"
#include "tests/lib/config_file.h"

static void all_problems_are_reported_in_file_order(void)
{
    struct config *config = config_file_read("instnce: q\n"         /* 1 */
                                             "synchronous: fulll\n" /* 2 */
                                             "sources:\n"           /* 3 */
                                             "- id: a\n"            /* 4 */
                                             "  type: file\n"       /* 5 */
                                             "  url: http://x/\n"   /* 6 */
                                             "  uid: id\n"          /* 7 */
                                             "  stages:\n"          /* 8 */
                                             "  - name: s\n"        /* 9 */
                                             "    exec: cat\n"      /* 10 */
                                             "    timeout: quick\n" /* 11 */
                                             "  - name: s\n"        /* 12 */
                                             "    plugin: x\n"      /* 13 */
                                             "    directory: /\n"   /* 14 */
                                             "    concurrency: 0\n" /* 15 */
                                             "- {id: a, type: generate, stages: 3}\n" /* 16 */);
    config_close(&config);
    CU_ASSERT(config_file_reported(1, "instnce", "did you mean `instance`?"));
    CU_ASSERT(config_file_reported(2, "synchronous", "expected full or normal, found \"fulll\""));
    CU_ASSERT(config_file_reported(4, "sources[0].path", "is missing"));
    CU_ASSERT(
        config_file_reported(6, "sources[0].url", "`url` is not for type file; it belongs to type http"));
    CU_ASSERT(config_file_reported(7, "sources[0].uid", "found \"id\"; write /id"));
    CU_ASSERT(config_file_reported(10, "sources[0].stages[0].exec", "write [\"sh\", \"-c\", \"...\"]"));
    CU_ASSERT(config_file_reported(11, "sources[0].stages[0].timeout", "expected a duration such as 500ms"));
    CU_ASSERT(
        config_file_reported(12, "sources[0].stages[1].name", "already the name of this source's stage 1"));
    CU_ASSERT(config_file_reported(14, "sources[0].stages[1].directory", "it belongs to a stage with exec"));
    CU_ASSERT(config_file_reported(15, "sources[0].stages[1].concurrency", "from 1 to 1000, found \"0\""));
    CU_ASSERT(config_file_reported(16, "sources[1].id", "already the id of source 1"));
    CU_ASSERT(config_file_reported(16, "sources[1].stages", "expected a list of stages"));
    CU_ASSERT_EQUAL(config_seen_count, 12);
    for (size_t i = 1; i < config_seen_count; i++)
        CU_ASSERT(config_seen[i - 1].line <= config_seen[i].line);
}

static void what_is_missing_is_named(void)
{
    CU_ASSERT(config_file_only_problem("instance: x\n", 0, "sources", "is missing"));
    CU_ASSERT(config_file_only_problem("sources: []\n", 1, "sources", "expected a list of 1 to"));
    CU_ASSERT(config_file_only_problem("sources:\n- type: file\n  path: x\n" STAGES, 2, "sources[0].id",
                                       "is missing"));
    CU_ASSERT(config_file_only_problem("sources:\n- id: x\n" STAGES, 2, "sources[0].type",
                                       "is missing, expected idefix, http, file"));
    CU_ASSERT(config_file_only_problem("sources:\n- id: x\n  type: file\n" STAGES, 2, "sources[0].path",
                                       "is missing"));
    CU_ASSERT(config_file_only_problem("sources:\n- id: x\n  type: http\n" STAGES, 2, "sources[0].url",
                                       "is missing"));
    CU_ASSERT(config_file_only_problem(FILE_SOURCE, 2, "sources[0].stages", "is missing"));
    CU_ASSERT(config_file_only_problem(FILE_SOURCE "  stages:\n  - exec: [x]\n", 6,
                                       "sources[0].stages[0].name", "is missing"));
    CU_ASSERT(config_file_only_problem(FILE_SOURCE STAGE, 6, "sources[0].stages[0].exec",
                                       "exactly one of exec, plugin and url"));
    CU_ASSERT(config_file_only_problem(FILE_SOURCE STAGE "    exec: [x]\n    plugin: y\n", 8,
                                       "sources[0].stages[0].plugin", "found `plugin` beside `exec`"));
    /* a mistyped key is one problem, not also a missing one */
    CU_ASSERT(config_file_only_problem("sources:\n- id: x\n  tpye: file\n" STAGES, 3, "sources[0].tpye",
                                       "did you mean `type`?"));
    CU_ASSERT(config_file_only_problem(FILE_SOURCE STAGE "    exce: [x]\n", 7, "sources[0].stages[0].exce",
                                       "mean `exec`?"));
    CU_ASSERT(config_file_only_problem("suorces: []\n", 1, "suorces", "did you mean `sources`?"));
}

static void wrong_kinds_are_told(void)
{
    CU_ASSERT(config_file_only_problem("- a\n- b\n", 1, "",
                                       "expected keys with values such as `instance: ...`, found a list"));
    CU_ASSERT(config_file_only_problem("just words\n", 1, "", "found \"just words\""));
    CU_ASSERT(
        config_file_only_problem(AT_TOP("instance: [a]"), 7, "instance", "expected a text, found a list"));
    CU_ASSERT(config_file_only_problem(AT_TOP("instance:"), 7, "instance", "expected a text, found nothing"));
    CU_ASSERT(
        config_file_only_problem(AT_TOP("? [a]\n: b"), 7, "", "expected a plain word as key, found a list"));
    CU_ASSERT(config_file_only_problem("sources: {id: a}\n", 1, "sources",
                                       "expected a list of sources, each beginning with"));
    CU_ASSERT(config_file_only_problem("sources:\n- file\n", 2, "sources[0]",
                                       "expected keys with values such as `id: ...`"));
    CU_ASSERT(config_file_only_problem(IN_FILE("  retry: 3s"), 5, "sources[0].retry",
                                       "such as `min: ...`, found \"3s\""));
    CU_ASSERT(
        config_file_only_problem(IN_FILE("  id: b"), 5, "sources[0].id", "given twice, first in line 2"));
    CU_ASSERT(
        config_file_only_problem(IN_EXEC("    <<: {a: b}"), 8, "sources[0].stages[0].<<", "merge keys"));
    CU_ASSERT(config_file_only_problem(IN_EXEC("    environment: [A=b]"), 8,
                                       "sources[0].stages[0].environment", "found a list"));
    CU_ASSERT(config_file_only_problem(IN_EXEC("    environment: {A: }"), 8,
                                       "sources[0].stages[0].environment.A", "nothing"));
    CU_ASSERT(config_file_only_problem(IN_EXEC("    environment: {A=: b}"), 8,
                                       "sources[0].stages[0].environment.A=", "a name"));
    CU_ASSERT(config_file_only_problem(IN_POST("    headers: {A: b, A: c}"), 8,
                                       "sources[0].stages[0].headers.A", "given twice"));
    CU_ASSERT(config_file_only_problem(FILE_SOURCE STAGE "    exec: []\n", 7, "sources[0].stages[0].exec",
                                       "expected a program"));
    CU_ASSERT(config_file_only_problem(FILE_SOURCE STAGE "    exec: [a, {b: c}]\n", 7,
                                       "sources[0].stages[0].exec[1]", "found keys with values"));
    CU_ASSERT(config_file_only_problem(AT_TOP("instance: \"a\\0b\""), 7, "instance", "NUL"));
    CU_ASSERT(config_file_only_problem(AT_TOP("potato: 1"), 7, "potato",
                                       "expected one of instance, storage, control"));
    CU_ASSERT(config_file_only_problem(IN_FILE("  type: file"), 5, "sources[0].type", "given twice"));
}

static const struct {
    const char *text;
    unsigned line;
    const char *key, *message;
} wrong_values[] = {
    {AT_TOP("instance: a/b"), 7, "instance", "found \"a/b\""},
    {AT_TOP("storage: /x.db"), 7, "storage", "found \"/x.db\"; write sqlite:/x.db"},
    {AT_TOP("storage: 'sqlite:'"), 7, "storage", "found \"sqlite:\""},
    {AT_TOP("control_mode: rw"), 7, "control_mode", "in octal such as 0600 or 0660, found \"rw\""},
    {AT_TOP("control_mode: 1777"), 7, "control_mode", "found \"1777\""},
    {AT_TOP("drain_timeout: 30"), 7, "drain_timeout", "found \"30\", a number without a unit"},
    {AT_TOP("drain_timeout: 99999999999999999999d"), 7, "drain_timeout", "longer than 100 years"},
    {AT_TOP("log_level: verbose"), 7, "log_level", "expected error, warning, info or debug"},
    {IN_FILE("  page_size: 10001"), 5, "sources[0].page_size", "from 1 to 10000, found \"10001\""},
    {IN_FILE("  page_size: 1.5"), 5, "sources[0].page_size", "from 1 to 10000, found \"1.5\""},
    {IN_FILE("  page_size: 18446744073709551617"), 5, "sources[0].page_size", "from 1 to 10000"},
    {IN_FILE("  backlog: {max_events: -1}"), 5, "sources[0].backlog.max_events", "found \"-1\""},
    {IN_FILE("  retry: {min: 0}"), 5, "sources[0].retry.min", "at least 1ms, found \"0\""},
    {IN_FILE("  retry: {min: 2m}"), 5, "sources[0].retry", "min (2m) is above max (1m, which is the default"},
    {IN_FILE("  from: middle"), 5, "sources[0].from", "expected start or end, found \"middle\""},
    {IN_FILE("  max_line: 2TiB"), 5, "sources[0].max_line", "from 1 to 1073741824 bytes"},
    {IN_FILE("  max_line: big"), 5, "sources[0].max_line",
     "such as 4096, 10k, 64KiB or 64MiB, found \"big\""},
    {IN_FILE("  uid: /a~2"), 5, "sources[0].uid", "'~' is written ~0"},
    {IN_FILE("  domain: d"), 5, "sources[0].domain", "not for type file; it belongs to type idefix"},
    {IN_HTTP("  since: yesterday"), 5, "sources[0].since", "found \"yesterday\""},
    {IN_HTTP("  since: 36500d"), 5, "sources[0].since", "before 1970"},
    {IN_HTTP("  cursor: {path: /a, last_event_path: /b}"), 5, "sources[0].cursor", "found both"},
    {IN_HTTP("  cursor: {path: a}"), 5, "sources[0].cursor.path", "write /a"},
    {IN_HTTP("  cursor: {increment: 1}"), 5, "sources[0].cursor.increment", "`last_event_path` is not given"},
    {IN_HTTP("  cursor: {last_event_path: /a, increment: one}"), 5, "sources[0].cursor.increment",
     "found \"one\""},
    {IN_HTTP("  cursor: {last_event_path: /a, increment: 9223372036854775808}"), 5,
     "sources[0].cursor.increment", "of at most 64 bits"},
    {IN_HTTP("  headers: [X]"), 5, "sources[0].headers[0]", "without a name and ':'"},
    {IN_HTTP("  headers: {'X Y': z}"), 5, "sources[0].headers.X Y", "expected a name"},
    {IN_HTTP("  headers: {X: \"a\\r\\nB: c\"}"), 5, "sources[0].headers[0]", "line break in the value of X"},
    {IN_HTTP("  path: /x"), 5, "sources[0].path", "it belongs to type file"},
    {IN_POST("    concurrency: 1001"), 8, "sources[0].stages[0].concurrency",
     "from 1 to 1000, found \"1001\""},
    {IN_POST("    input_buffer: 0"), 8, "sources[0].stages[0].input_buffer", "found \"0\""},
    {IN_POST("    restart: {max_backoff: 0s}"), 8, "sources[0].stages[0].restart.max_backoff",
     "at least 1ms"},
    {IN_EXEC("    limits: 256M"), 8, "sources[0].stages[0].limits", "such as `memory: ...`, found \"256M\""},
    {IN_EXEC("    limits:\n      memry: 1G"), 9, "sources[0].stages[0].limits.memry", "mean `memory`?"},
    {IN_EXEC("    limits: {memory: lots}"), 8, "sources[0].stages[0].limits.memory", "found \"lots\""},
    {IN_EXEC("    limits: {memory: 999999}"), 8, "sources[0].stages[0].limits.memory", "from 1000000 to"},
    {IN_EXEC("    limits: {memory: 2048TiB}"), 8, "sources[0].stages[0].limits.memory", "found \"2048TiB\""},
    {IN_EXEC("    limits: {cpu: 60}"), 8, "sources[0].stages[0].limits.cpu", "a number without a unit"},
    {IN_EXEC("    limits: {cpu: 1500ms}"), 8, "sources[0].stages[0].limits.cpu", "expected whole seconds"},
    {IN_EXEC("    limits: {cpu: 0s}"), 8, "sources[0].stages[0].limits.cpu", "at least 1000ms"},
    {IN_EXEC("    limits: {files: 7}"), 8, "sources[0].stages[0].limits.files", "from 8 to 1048576"},
    {IN_EXEC("    limits:\n      files: 64\n      processes: 0"), 10, "sources[0].stages[0].limits.processes",
     "from 1 to 4194304"},
    {IN_POST("    limits: {files: 63}"), 8, "sources[0].stages[0].limits.files", "from 64 to 1048576"},
    {IN_POST("    limits: {memory: 63MiB}"), 8, "sources[0].stages[0].limits.memory", "from 67108864 to"},
    {IN_POST("    user: nobody"), 8, "sources[0].stages[0].user", "it belongs to a stage with exec"},
    {IN_POST("    group: nogroup"), 8, "sources[0].stages[0].group", "it belongs to a stage with exec"},
    {IN_POST("    options: {}"), 8, "sources[0].stages[0].options", "it belongs to a stage with plugin"},
    {FILE_SOURCE "  stages:\n  - {name: ALL, exec: [x]}\n", 6, "sources[0].stages[0].name", "found \"ALL\""},
    {FILE_SOURCE STAGE "    url: ftp://x\n", 7, "sources[0].stages[0].url",
     "http:// or https://, found \"ftp://x\""},
    {FILE_SOURCE STAGE "    url: https://\n", 7, "sources[0].stages[0].url", "expected a host"},
    {"sources:\n- {id: a, type: http, url: 'http://h/{curser}'}\n", 2, "sources[0].url",
     "did you mean {cursor}?"},
    {"sources:\n- {id: a, type: http, url: 'http://h/{cursor'}\n", 2, "sources[0].url", "without its }"},
    {"sources:\n- {id: a, type: http, url: 'http://h/{cursor}'}\n", 2, "sources[0].cursor",
     "expected `path` or `last_event_path`"},
    {"sources:\n- {id: a, type: generate, rate: fast}\n", 2, "sources[0].rate", "such as 100 or 0.5"},
    {"sources:\n- {id: a, type: generate, rate: -1}\n", 2, "sources[0].rate", "found \"-1\""},
    {"sources:\n- {id: a, type: idefix, broker: h, account: u, token_env: PATH, domain: d}\n", 2,
     "sources[0].broker", "ssl://"},
    {"sources:\n- {id: a, type: idefix, account: u, token_env: PATH, domain: d}\n", 2, "sources[0].broker",
     "is missing"},
    {"sources:\n- {id: a, type: idefix, broker: 'ssl://h', token_env: PATH, domain: d}\n", 2,
     "sources[0].account", "is missing"},
    {"sources:\n- {id: a, type: idefix, broker: 'ssl://h', account: u, domain: d}\n", 2,
     "sources[0].token_file", "or token_env"},
    {"sources:\n- {id: a, type: idefix, broker: 'ssl://h', account: u, token_env: PATH}\n", 2,
     "sources[0].domain", "neither domain nor address"},
    {IN_IDEFIX("  encoding: mz"), 8, "sources[0].encoding", "found \"mz\""},
    {IN_IDEFIX("  encoding: g"), 8, "sources[0].encoding", "found \"g\""},
    {IN_IDEFIX("  session: a/b"), 8, "sources[0].session", "found \"a/b\""},
    {IN_IDEFIX("  meta: [a]"), 8, "sources[0].meta", "a mapping of names to values"},
    {IN_IDEFIX("  groups: a"), 8, "sources[0].groups", "such as [one, two], found \"a\""},
    {IN_IDEFIX("  password: [a]"), 8, "sources[0].password", "expected a text"},
    {IN_IDEFIX("  response_timeout: 0s"), 8, "sources[0].response_timeout", "at least 1ms"},
    {IN_IDEFIX("  uid: /a"), 8, "sources[0].uid", "not for type idefix"},
    {IN_IDEFIX("  ca_file: /ca.pem"), 8, "sources[0].ca_file", "for brokers with TLS"},
    {IDEFIX_SOURCE "  session: s1\n" STAGES
                   "- {id: b, type: idefix, broker: 'ssl://h', account: u, token_env: PATH, domain: d, "
                   "session: s1, stages: [{name: s, exec: [x]}]}\n",
     11, "sources[1].session", "also the session of source a"},
    {"sources:\n- {id: a, type: htp}\n", 2, "sources[0].type", "did you mean http?"},
};

static void wrong_values_are_told(void)
{
    for (size_t i = 0; i < sizeof wrong_values / sizeof wrong_values[0]; i++) {
        char text[1000];
        snprintf(text, sizeof text, "%s", wrong_values[i].text);
        char *brace = strrchr(text, '}');
        if (strstr(text, "stages:") == NULL) { /* a source in one line: its stages go inside the braces */
            snprintf(brace, sizeof text - (size_t)(brace - text), ", stages: [{name: s, exec: [x]}]}\n");
        }
        CU_ASSERT(config_file_only_problem(text, wrong_values[i].line, wrong_values[i].key,
                                           wrong_values[i].message));
    }
}

static void wrong_yaml_is_told_with_its_place(void)
{
    CU_ASSERT(config_file_only_problem("", 0, "", "the file is empty"));
    CU_ASSERT(config_file_only_problem("# only words\n", 0, "", "the file is empty"));
    CU_ASSERT(config_file_only_problem("sources:\n\t- id: x\n", 2, "",
                                       "begins with a tab: YAML is indented with spaces"));
    CU_ASSERT(config_file_only_problem("storage: memory:\n", 1, "", "write \"memory:\" in quotes"));
    CU_ASSERT(
        config_file_only_problem("instance: a: b\n", 1, "", "column 12: mapping values are not allowed"));
    CU_ASSERT(config_file_only_problem("sources:\n  - {id: a\nfoo: b\n", 3, "", "that begins in line 2"));
    CU_ASSERT(config_file_only_problem("a: \"b\n", 2, "", "found unexpected end of stream"));
    CU_ASSERT(config_file_only_problem("sources: *x\n", 1, "", "undefined alias"));
    CU_ASSERT(config_file_only_problem("a: 1\nb: \xff\n", 2, "", "expected YAML in UTF-8, found at byte 9"));
    CU_ASSERT(config_file_only_problem(FILE_SOURCE STAGES "---\na: 1\n", 8, "", "second YAML document"));
    struct config *config = config_file_read_bytes("a\0b", 3);
    CU_ASSERT_PTR_NULL(config);
    CU_ASSERT(config_file_reported(1, "", "control characters are not allowed"));
}

static void a_file_that_cannot_be_read_is_a_problem(void)
{
    struct config *config = NULL;
    char missing[5000];
    snprintf(missing, sizeof missing, "%s/none.yaml", config_directory);
    config_seen_count = 0;
    CU_ASSERT_EQUAL(config_read(missing, config_file_on_problem, config_seen, &config), EP_ECONFIG);
    CU_ASSERT(config_file_reported(0, "", "cannot be read: No such file"));
    config_seen_count = 0;
    CU_ASSERT_EQUAL(config_read(config_directory, config_file_on_problem, config_seen, &config), EP_ECONFIG);
    CU_ASSERT(config_file_reported(0, "", "cannot be read: Is a directory"));
    CU_ASSERT_EQUAL(config_read(missing, NULL, NULL, &config), EP_ECONFIG); /* nobody wants to know */
    CU_ASSERT_PTR_NULL(config);
    size_t length = CONFIG_FILE_BYTES_MAX + 1;
    char *large = malloc(length);
    memset(large, '#', length);
    config = config_file_read_bytes(large, length);
    CU_ASSERT(config_file_reported(0, "", "larger than 1 MiB"));
    config = config_file_read_bytes(large, length - 1);
    CU_ASSERT(config_file_reported(0, "", "the file is empty")); /* one long comment */
    free(large);
    CU_ASSERT_PTR_NULL(config);
}

/* ---- secrets ---- */

static bool token_problem(const char *name, const char *message)
{
    char text[5000];
    snprintf(text, sizeof text, IN_POST("    token_file: %s"), name);
    return config_file_only_problem(text, 8, "sources[0].stages[0].token_file", message);
}

static void secrets_that_others_can_read_are_refused(void)
{
    config_file_write("open", "abc\n", 4, 0640);
    CU_ASSERT(token_problem("open", "has mode 0640"));
    CU_ASSERT_PTR_NOT_NULL(strstr(config_seen[0].message, "run `chmod 600 /"));
    config_file_write("open", "abc\n", 4, 0602);
    CU_ASSERT(token_problem("open", "has mode 0602"));
    CU_ASSERT(token_problem("none", "cannot be opened: No such file"));
    CU_ASSERT(token_problem(".", "is not a regular file"));
    char fifo[5000];
    snprintf(fifo, sizeof fifo, "%s/fifo", config_directory);
    CU_ASSERT_EQUAL(mkfifo(fifo, 0600), 0);
    CU_ASSERT(token_problem("fifo", "is not a regular file")); /* and not waited for */
    config_file_write("empty", "\nabc", 4, 0600);
    CU_ASSERT(token_problem("empty", "is empty, expected the token"));
    config_file_write("control", "a\001b\n", 4, 0600);
    CU_ASSERT(token_problem("control", "control characters"));
    char large[9000];
    memset(large, 'x', sizeof large);
    config_file_write("large", large, sizeof large, 0600);
    CU_ASSERT(token_problem("large", "longer than 8191 bytes"));
    char *token = NULL;
    struct error error;
    const char *good = config_file_write("good", "  top secret \r\nrest", 19, 0400);
    CU_ASSERT_EQUAL(base_secret_read(good, &token, &error), EP_OK);
    CU_ASSERT_STRING_EQUAL(token, "top secret");
    free(token);
    if (geteuid() == 0) { /* somebody else's file: only root can make one */
        CU_ASSERT_EQUAL(chown(good, 12345, 0), 0);
        CU_ASSERT_EQUAL(base_secret_read(good, &token, &error), EP_EACCESS);
        CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "belongs to user 12345"));
    }
}

static void tokens_from_the_environment(void)
{
    unsetenv("TEST_CONFIG_NONE");
    setenv("TEST_CONFIG_EMPTY", "", 1);
    setenv("TEST_CONFIG_LINES", "a\nb", 1);
    config_file_write("token", "abc\n", 4, 0600);
    CU_ASSERT(config_file_only_problem(IN_HTTP("  token_env: TEST_CONFIG_NONE"), 5, "sources[0].token_env",
                                       "TEST_CONFIG_NONE is not set"));
    CU_ASSERT(config_file_only_problem(IN_HTTP("  token_env: TEST_CONFIG_EMPTY"), 5, "sources[0].token_env",
                                       "is empty"));
    CU_ASSERT(config_file_only_problem(IN_HTTP("  token_env: TEST_CONFIG_LINES"), 5, "sources[0].token_env",
                                       "line break"));
    CU_ASSERT(config_file_only_problem(IN_HTTP("  token_file: token\n  token_env: HOME"), 6,
                                       "sources[0].token_env", "found both"));
}

static void secrets_are_not_shown(void)
{
    struct config *config =
        config_file_read(HTTP_SOURCE "  headers: [hunter2]\n"
                                     "  token_env: hunter2\n" STAGE "    exec: [x]\n"
                                     "    environment: hunter2\n"
                                     "- {id: b, type: http, url: http://h, headers: hunter2}\n");
    config_close(&config);
    CU_ASSERT(config_seen_count >= 4);
    for (size_t i = 0; i < config_seen_count; i++)
        CU_ASSERT_PTR_NULL(strstr(config_seen[i].message, "hunter2"));
}

/* ---- sizes ---- */

static void aliases_cannot_multiply(void)
{
    char text[4000];
    int used = snprintf(text, sizeof text,
                        FILE_SOURCE STAGE "    exec: [x]\n  - name: p\n    plugin: p\n    options:\n");
    used += snprintf(text + used, sizeof text - (size_t)used, "      x0: &x0 [1,1,1,1,1,1,1,1,1,1]\n");
    for (int i = 1; i < 12; i++)
        used += snprintf(text + used, sizeof text - (size_t)used,
                         "      x%d: &x%d [*x%d,*x%d,*x%d,*x%d,*x%d,*x%d,*x%d,*x%d]\n", i, i, i - 1, i - 1,
                         i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
    struct config *config = config_file_read(text);
    CU_ASSERT_PTR_NULL(config);
    CU_ASSERT_EQUAL(config_seen_count, 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(config_seen[0].message, "aliases"));
    CU_ASSERT(config_file_only_problem(FILE_SOURCE "  stages: [{name: p, plugin: p, options: &a [*a]}]\n", 5,
                                       "sources[0].stages[0].options", "at most 64 levels"));
}

static void depth_and_counts_are_bounded(void)
{
    char *text = malloc(200000);
    memset(text, '[', 199999);
    text[199999] = '\0';
    CU_ASSERT(config_file_only_problem(text, 1, "", "nested too deeply"));
    size_t used = 0;
    for (int i = 0; i < 1001; i++)
        used += (size_t)sprintf(text + used, "k%d: 1\n", i);
    CU_ASSERT(config_file_only_problem(text, 1, "", "at most 1000 keys"));
    used = (size_t)sprintf(text, "sources:\n");
    for (int i = 0; i < 256; i++) /* eight unknown keys each: more than are ever shown */
        used += (size_t)sprintf(text + used, "- {q1: , q2: , q3: , q4: , q5: , q6: , q7: , q8: }\n");
    struct config *config = config_file_read(text);
    CU_ASSERT_PTR_NULL(config);
    CU_ASSERT_EQUAL(config_seen_count, 1000);
    CU_ASSERT_PTR_NOT_NULL(strstr(config_seen[999].message, "more problems than can be shown"));
    used = (size_t)sprintf(text, "sources:\n");
    for (int i = 0; i < 61; i++)
        used += (size_t)sprintf(text + used,
                                "- {id: s%d, type: generate, stages: [{name: a, concurrency: 1000, "
                                "exec: [x]}]}\n",
                                i);
    CU_ASSERT(config_file_only_problem(text, 1, "sources", "at most 60000 processes"));
    free(text);
}

int main(void)
{
    const struct unit_case cases[] = {
        {"all problems are reported, in file order", all_problems_are_reported_in_file_order},
        {"what is missing is named", what_is_missing_is_named},
        {"wrong kinds are told", wrong_kinds_are_told},
        {"wrong values are told", wrong_values_are_told},
        {"wrong YAML is told with its place", wrong_yaml_is_told_with_its_place},
        {"a file that cannot be read is a problem", a_file_that_cannot_be_read_is_a_problem},
        {"secrets that others can read are refused", secrets_that_others_can_read_are_refused},
        {"tokens from the environment", tokens_from_the_environment},
        {"secrets are not shown", secrets_are_not_shown},
        {"aliases cannot multiply", aliases_cannot_multiply},
        {"depth and counts are bounded", depth_and_counts_are_bounded},
    };
    return config_file_run("config problems", cases, sizeof cases / sizeof cases[0]);
}
