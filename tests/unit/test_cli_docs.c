/* SPDX-License-Identifier: MIT */
/*
 * The manual page and the program say the same: commands, options, JSON members, fields. Reads
 * src/man/eventpipe.1 under top_srcdir (the current folder if that is not set).
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <unistd.h>

#include "src/cli/cli.h"
#include "src/cli/status.h"
#include "tests/lib/answers.h"
#include "tests/lib/fake_segment.h"

#define ITEMS_MAX 300

struct items {
    char text[ITEMS_MAX][160];
    size_t count;
};

static void add(struct items *items, const char *text)
{
    for (size_t i = 0; i < items->count; i++)
        if (strcmp(items->text[i], text) == 0)
            return;
    CU_ASSERT_FATAL(items->count < ITEMS_MAX);
    snprintf(items->text[items->count++], sizeof items->text[0], "%s", text);
}

static bool has(const struct items *items, const char *text)
{
    for (size_t i = 0; i < items->count; i++)
        if (strcmp(items->text[i], text) == 0)
            return true;
    return false;
}

static void expect_same(const struct items *documented, const struct items *real)
{
    CU_ASSERT(real->count > 0);
    for (size_t i = 0; i < real->count; i++)
        if (!has(documented, real->text[i])) {
            printf("\n    not in eventpipe.1: %s", real->text[i]);
            CU_FAIL("undocumented");
        }
    for (size_t i = 0; i < documented->count; i++)
        if (!has(real, documented->text[i])) {
            printf("\n    only in eventpipe.1: %s", documented->text[i]);
            CU_FAIL("documented, but not there");
        }
}

/* The first word, or all of it, of each `.It MACRO words` in a section or subsection of the page. */
static void read_page(const char *section, const char *item, struct items *items)
{
    char path[512], line[512], title[200] = "";
    const char *base = getenv("top_srcdir");
    snprintf(path, sizeof path, "%s/src/man/eventpipe.1", base != NULL ? base : ".");
    FILE *file = fopen(path, "re");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    *items = (struct items){0};
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, ".Sh ", 4) == 0 || strncmp(line, ".Ss ", 4) == 0)
            snprintf(title, sizeof title, "%.190s", line + 4);
        size_t length = strlen(item);
        if (strcmp(title, section) != 0 || strncmp(line, item, length) != 0)
            continue;
        char *words = line + length;
        words[strcspn(words, " ")] = '\0';
        add(items, words);
    }
    fclose(file);
}

static void test_commands(void)
{
    static struct items page, program;
    program = (struct items){0};
    read_page("COMMANDS", ".It Cm ", &page);
    for (size_t i = 0; i < CONTROL_COMMAND_COUNT; i++)
        if (control_commands[i].help != NULL)
            add(&program, control_commands[i].name);
    expect_same(&page, &program);
    CU_ASSERT_PTR_NULL(control_commands[CONTROL_COMMAND_PING].help); /* the only one that is not offered */
    CU_ASSERT_EQUAL(program.count, CONTROL_COMMAND_COUNT - 1);
}

/* `.It Fl c , -config Ar FILE` and `.It Fl -json`. */
static void test_options(void)
{
    char line[512], path[512];
    static struct items page, program;
    page = program = (struct items){0};
    const char *base = getenv("top_srcdir");
    snprintf(path, sizeof path, "%s/src/man/eventpipe.1", base != NULL ? base : ".");
    FILE *file = fopen(path, "re");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    while (fgets(line, sizeof line, file) != NULL) {
        char letter, name[64], both[80];
        if (sscanf(line, ".It Fl %c , -%63s", &letter, name) == 2)
            snprintf(both, sizeof both, "-%c --%s", letter, name);
        else if (sscanf(line, ".It Fl -%63s", name) == 1)
            snprintf(both, sizeof both, "--%s", name);
        else
            continue;
        add(&page, both);
    }
    fclose(file);
    struct text usage = {0};
    cli_options_write_usage(&usage);
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++) {
        char both[80];
        if (cli_options[i].letter != 0)
            snprintf(both, sizeof both, "-%c --%s", cli_options[i].letter, cli_options[i].name);
        else
            snprintf(both, sizeof both, "--%s", cli_options[i].name);
        add(&program, both);
        snprintf(both, sizeof both, "--%s ", cli_options[i].name);
        CU_ASSERT_PTR_NOT_NULL(strstr(usage.text, both)); /* in the usage text, too */
    }
    for (size_t i = 0; i < CONTROL_COMMAND_COUNT; i++) {
        char both[80];
        snprintf(both, sizeof both, "\n  %s ", control_commands[i].name);
        CU_ASSERT_EQUAL(strstr(usage.text, both) != NULL, control_commands[i].help != NULL);
    }
    base_text_free(&usage);
    expect_same(&page, &program);
}

/* Paths of all leaves: a.b, c[].d; an array of plain values, or an empty one, is c[]. */
static void add_paths(const cJSON *value, const char *path, struct items *items, bool deep)
{
    char below[160];
    const cJSON *child;
    if (cJSON_IsObject(value) && (deep || path[0] == '\0')) {
        cJSON_ArrayForEach(child, value)
        {
            snprintf(below, sizeof below, "%s%s%s", path, path[0] != '\0' ? "." : "", child->string);
            add_paths(child, below, items, deep);
        }
        return;
    }
    if (cJSON_IsArray(value)) {
        snprintf(below, sizeof below, "%s[]", path);
        if (cJSON_GetArraySize(value) == 0)
            add(items, below);
        cJSON_ArrayForEach(child, value) add_paths(child, below, items, deep);
        return;
    }
    add(items, path);
}

static void test_status_members(void)
{
    static struct items page, program;
    struct segment segment;
    struct status status;
    struct text out = {0};
    program = (struct items){0};
    fake_create(&segment);
    CU_ASSERT_EQUAL(cli_status_read_segment(&segment, &status), EP_OK);
    cli_status_write_json(&status, &out);
    cJSON *json = cJSON_Parse(out.text);
    add_paths(json, "", &program, true);
    cJSON_Delete(json);
    base_text_free(&out);
    cli_status_close(&status);
    fake_destroy(&segment);
    read_page("Status members", ".It Va ", &page);
    expect_same(&page, &program);
}

/* An event that shows all its members, and a change of it, from the keeper's command engine itself. */
static void test_event_members(void)
{
    static struct items page, program;
    static struct answers answers;
    char folder[200], url[240], path[256];
    const char *base = getenv("TMPDIR"), *const stages[] = {"only"};
    int64_t ids[1];
    uint64_t start;
    struct store_names names = {.source = "s", .stages = stages, .stage_count = 1, .stage_ids = ids};
    snprintf(folder, sizeof folder, "%.160s/test_docs.XXXXXX", base != NULL ? base : "/tmp");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
    snprintf(url, sizeof url, "sqlite:%s/events.db", folder);
    struct store_options options = {.url = url, .instance = "docs"};
    CU_ASSERT_EQUAL_FATAL(store_prepare(&options, &names, 1, &start, NULL), EP_OK);
    options.start_number = start;
    struct store *store;
    CU_ASSERT_EQUAL_FATAL(store_open(&options, &store, NULL), EP_OK);
    const struct store_event bad = {
        .uid = "u", .data = "{no", .data_bytes = 3, .dead = STORE_REASON_CORRUPT, .error = "w"};
    struct store_page ingest = {.events = &bad, .count = 1, .now_ms = 1};
    struct store_ingested ingested;
    CU_ASSERT_EQUAL_FATAL(store_ingest(store, names.source_id, &ingest, &ingested), EP_OK);
    store_close(&store);

    program = (struct items){0};
    answers_ask(&options, NULL, "{\"command\":\"queue\"}", NULL, 0, &answers);
    CU_ASSERT_EQUAL_FATAL(answers.count, 1);
    add_paths(answers.lines[0], "", &program, false);
    read_page("Event members", ".It Va ", &page);
    expect_same(&page, &program);
    for (size_t i = 0; cli_queue_fields[i] != NULL; i++)
        CU_ASSERT(has(&program, cli_queue_fields[i]));
    CU_ASSERT_PTR_NULL(cli_queue_fields[program.count]); /* -o takes them all */

    static struct items extra;
    read_page("Members of show", ".It Va ", &extra);
    for (size_t i = 0; i < extra.count; i++)
        add(&page, extra.text[i]);
    program = (struct items){0};
    answers_ask(&options, NULL, "{\"command\":\"show\",\"uids\":[\"u\"]}", NULL, 0, &answers);
    add_paths(answers.lines[0], "", &program, false);
    expect_same(&page, &program);

    program = (struct items){0};
    answers_ask(&options, NULL, "{\"command\":\"hold\",\"all\":true}", NULL, 0, &answers);
    add_paths(answers.lines[0], "", &program, false);
    read_page("Members of a change", ".It Va ", &page);
    expect_same(&page, &program);
    answers_clear(&answers);
    static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(path, sizeof path, "%s/events.db%s", folder, suffixes[i]);
        unlink(path);
    }
    CU_ASSERT_EQUAL(rmdir(folder), 0);
}

UNIT_MAIN("cli_docs", {"commands", test_commands}, {"options, in the page and the usage text", test_options},
          {"members of status --json", test_status_members}, {"members of events", test_event_members})
