/* SPDX-License-Identifier: MIT */
/* The command line's words: what is taken, what is refused, and the request that comes of it. */
#include <stdio.h>

#include "src/cli/cli.h"
#include "src/cli/table.h"
#include "tests/lib/unit.h"

#define WORDS_MAX 16

static struct error error;
static struct text request;

/* Parses words separated by blanks; _ stands for an empty word. Returns cli_options_parse's code, then
 * cli_select_write_request's.
 */
static int parse(const char *line, struct cli *cli)
{
    static char copy[512];
    static char *argv[WORDS_MAX + 2];
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    argv[0] = (char *)"eventpipe";
    for (char *word = strtok(copy, " "); word != NULL && argc < WORDS_MAX; word = strtok(NULL, " "))
        argv[argc++] = strcmp(word, "_") == 0 ? (char *)"" : word;
    argv[argc] = NULL;
    *cli = (struct cli){0};
    error = (struct error){0};
    base_text_reset(&request);
    return cli_options_parse(cli, argc, argv, &error);
}

static int parse_request(const char *line, struct cli *cli)
{
    int code = parse(line, cli);
    return code != 0 ? code : cli_select_write_request(cli, &request, &error);
}

static void test_requests(void)
{
    static const struct {
        const char *line, *request;
    } cases[] = {
        {"queue", "{\"command\":\"queue\"}"},
        {"queue --json --state dead", "{\"command\":\"queue\",\"state\":\"dead\"}"},
        {"--state=dead -c x queue", "{\"command\":\"queue\",\"state\":\"dead\"}"},
        {"-cx queue --source s --limit 5", "{\"command\":\"queue\",\"source\":\"s\",\"limit\":5}"},
        {"retry a b\"c", "{\"command\":\"retry\",\"uids\":[\"a\",\"b\\\"c\"]}"},
        {"remove ALL --dry-run", "{\"command\":\"remove\",\"all\":true,\"dry_run\":true}"},
        {"remove -- --limit", "{\"command\":\"remove\",\"uids\":[\"--limit\"]}"},
        {"hold --stage s/t", "{\"command\":\"hold\",\"source\":\"s\",\"stage\":\"t\"}"},
        {"hold --older 1h30m --error x", "{\"command\":\"hold\",\"error\":\"x\",\"older_ms\":5400000}"},
        {"requeue --address d --type t", "{\"command\":\"requeue\",\"address\":\"d\",\"type\":\"t\"}"},
        {"show a --source s", "{\"command\":\"show\",\"uids\":[\"a\"],\"source\":\"s\"}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cli cli;
        CU_ASSERT_EQUAL(parse_request(cases[i].line, &cli), 0);
        CU_ASSERT_STRING_EQUAL(request.text != NULL ? request.text : "", cases[i].request);
        cli_instance_close(&cli);
    }
}

/* Refused before anything is asked of anybody, with the status for wrong usage and a message that names the
 * fault.
 */
static void test_refused(void)
{
    static const struct {
        const char *line, *message;
    } cases[] = {
        {"_", "no command"},
        {"--json", "no command given"},
        {"remve ALL", "did you mean \"remove\""},
        {"emport x", "did you mean \"import\""},
        {"import", "expected FILE"},
        {"import a b", "too many"},
        {"import a --limit 3", "does not take --limit"},
        {"queue --as x", "does not take --as"},
        {"queue --sorce x", "did you mean --source"},
        {"queue -z", "no option -z"},
        {"queue --limit", "N is missing"},
        {"queue -c", "FILE is missing"},
        {"queue --json=yes", "takes no argument"},
        {"queue --limit 1 --limit 2", "twice"},
        {"queue -c a -i b", "not both"},
        {"queue --limit 0", "--limit"},
        {"queue --limit -1", "--limit"},
        {"queue --limit 1x", "--limit"},
        {"queue --limit 99999999999999999999", "--limit"},
        {"queue --older 5", "--older"},
        {"queue --state gone", "--state"},
        {"queue --source a --stage b/c", "omit --source"},
        {"queue --dry-run", "does not take --dry-run"},
        {"status x", "too many"},
        {"status --limit 3", "does not take"},
        {"show", "expected UID"},
        {"show ALL", "not ALL"},
        {"show a _", "must not be empty"},
        {"remove", "which events"},
        {"remove --limit 5", "which events"},
        {"remove --dry-run", "which events"},
        {"remove ALL a", "not both"},
        {"pause", "expected SOURCE"},
        {"inject a b c", "too many"},
        {"stop now", "too many"},
        {"remove all", ""}, /* a UID: ALL is for capitals only */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cli cli;
        bool right = cases[i].message[0] == '\0';
        int code = parse_request(cases[i].line, &cli);
        CU_ASSERT_EQUAL(code, right ? 0 : CONTROL_USAGE);
        CU_ASSERT_PTR_NOT_NULL(strstr(error.message, cases[i].message));
        if ((code != CONTROL_USAGE) != right || strstr(error.message, cases[i].message) == NULL)
            printf("\n    %s: %d, %s", cases[i].line, code, error.message);
        cli_instance_close(&cli);
    }
}

static void test_too_many_uids(void)
{
    static char *argv[20004];
    struct cli cli = {0};
    argv[0] = (char *)"eventpipe";
    argv[1] = (char *)"remove";
    for (size_t i = 2; i < 20002; i++)
        argv[i] = (char *)"some-uid";
    base_text_reset(&request);
    CU_ASSERT_EQUAL(cli_options_parse(&cli, 20002, argv, &error), 0);
    CU_ASSERT_EQUAL(cli_select_write_request(&cli, &request, &error), CONTROL_USAGE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "too many UIDs"));
    cli_instance_close(&cli);
    base_text_free(&request);
}

static void test_help(void)
{
    struct cli cli;
    CU_ASSERT_EQUAL(parse("--help", &cli), 0); /* needs no command */
    CU_ASSERT(cli_has_option(&cli, CLI_OPTION_HELP));
    cli_instance_close(&cli);
    CU_ASSERT_EQUAL(parse("remove -h", &cli), 0); /* nor anything else that the command needs */
    cli_instance_close(&cli);
    struct text usage = {0};
    cli_options_write_usage(&usage);
    for (const char *line = usage.text; line != NULL && *line != '\0'; line = strchr(line, '\n') + 1)
        CU_ASSERT(strcspn(line, "\n") <= 80);
    base_text_free(&usage);
}

/* Byte for byte, but for white space between the tokens. */
static void test_pretty(void)
{
    static const char text[] =
        "{\"a\":[1.50,12345678901234567890, -0.0e+1],\"b\":{},\"c\":[ ],\"d\":\"x\\\"{,}\",\"e\":null}";
    static const char expected[] =
        "{\n  \"a\": [\n    1.50,\n    12345678901234567890,\n    -0.0e+1\n  ],\n  \"b\": {},\n"
        "  \"c\": [],\n  \"d\": \"x\\\"{,}\",\n  \"e\": null\n}";
    struct text out = {0};
    cli_show_print_json(&out, (struct json_span){text, sizeof text - 1}, 0);
    CU_ASSERT_STRING_EQUAL(out.text, expected);
    base_text_free(&out);
    for (size_t cut = 1; cut < sizeof text; cut++) { /* what is no JSON does not run away either */
        cli_show_print_json(&out, (struct json_span){text, cut}, 0);
        base_text_free(&out);
    }
}

static void test_table(void)
{
    static const struct table_column columns[] = {{"NAME", false, true, false},
                                                  {"N", true, false, false},
                                                  {"WORDS", false, true, true}};
    struct table table;
    struct text out = {0};
    cli_table_open(&table, columns, 3);
    const char *const cells[] = {"a", "1", "first\033[31m", "b\xc3\xa4", "22", "a second, longer, cell \xff"};
    for (size_t i = 0; i < 6; i++)
        cli_table_add_cell(&table, cells[i], NULL);
    cli_table_print(&table, &out, 30, 0, true);
    CU_ASSERT_STRING_EQUAL(out.text,
                           "NAME   N  WORDS\na      1  first?[31m\nb\xc3\xa4    22  a second, longer, c…\n");
    base_text_free(&out);
    for (size_t i = 0; i < 6; i++)
        cli_table_add_cell(&table, cells[i], NULL);
    cli_table_print(&table, &out, 12, 0, false); /* too narrow even when cut: the last column goes */
    CU_ASSERT_STRING_EQUAL(out.text, "a     1\nb\xc3\xa4   22\n");
    base_text_free(&out);
    cli_table_close(&table);
}

UNIT_MAIN("cli_args", {"words become requests", test_requests}, {"wrong usage is refused", test_refused},
          {"more UIDs than a request holds", test_too_many_uids}, {"help", test_help},
          {"pretty printing keeps every token", test_pretty}, {"tables", test_table})
