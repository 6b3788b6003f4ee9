/* SPDX-License-Identifier: MIT */
/*
 * What the command line takes: one table of commands, one of options; usage text, checks and a test of the
 * manual page all come from them. Pure but for pointers into argv.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/suggest.h"
#include "src/cli/cli.h"

const struct cli_option cli_options[CLI_OPTION_COUNT] = {
#define X(id, name, letter, argument, groups, help) \
    [CLI_OPTION_##id] = {name, letter, argument, groups, help},
    CLI_OPTIONS(X)
#undef X
};

#define CHANGE (CLI_ANY | CLI_DATA | CLI_SELECT | CLI_WRITE)
const struct cli_command cli_commands[] = {
    {"status", "", "show health, sources and stages", CLI_ANY | CLI_DATA | CLI_STATUS, 0, 0, cli_status},
    {"queue", "[FILTERS]", "the events in the store, oldest first",
     CLI_ANY | CLI_DATA | CLI_QUEUE | CLI_SELECT, 0, -1, cli_queue},
    {"show", "UID...", "all about an event: its data, context, errors", CLI_ANY | CLI_DATA | CLI_SHOW, 1, -1,
     cli_show},
    {"crashes", "[SOURCE[/STAGE]]", "which processes crashed, when, how, over which event",
     CLI_ANY | CLI_DATA | CLI_CRASHES, 0, 1, cli_crashes},
    {"trace", "UID", "an event's story: stages, answers, crashes, retries", CLI_ANY | CLI_DATA | CLI_SHOW, 1,
     1, cli_trace},
    {"retry", "FILTERS", "delayed and dead events: retry now and reset counters", CHANGE, 0, -1, cli_change},
    {"hold", "FILTERS", "set events aside", CHANGE, 0, -1, cli_change},
    {"release", "FILTERS", "release held events", CHANGE, 0, -1, cli_change},
    {"requeue", "FILTERS", "send back to the first stage, with an empty context", CHANGE, 0, -1, cli_change},
    {"remove", "FILTERS", "take events out of the store, for good", CHANGE, 0, -1, cli_change},
    {"inject", "SOURCE [FILE]", "add events: a JSON object a line, - or nothing: stdin",
     CLI_ANY | CLI_DATA | CLI_WRITE, 1, 2, cli_inject},
    {"import", "FILE", "take over a database of the Go eventpipe",
     CLI_ANY | CLI_DATA | CLI_WRITE | CLI_IMPORT, 1, 1, cli_import},
    {"pause", "SOURCE[/STAGE]", "stop fetching, or running this stage", CLI_ANY | CLI_WRITE, 1, 1, cli_order},
    {"resume", "SOURCE[/STAGE]", "go on after a pause", CLI_ANY | CLI_WRITE, 1, 1, cli_order},
    {"restart", "SOURCE[/STAGE]", "restart its processes", CLI_ANY | CLI_WRITE, 1, 1, cli_order},
    {"drain", "", "fetch no more, finish what is ready, then stop", CLI_ANY | CLI_WRITE | CLI_ENDING, 0, 0,
     cli_end},
    {"stop", "", "stop gracefully: events being processed are finished", CLI_ANY | CLI_WRITE | CLI_ENDING, 0,
     0, cli_end},
    {"check", "", "look for faults in configuration and store", CLI_ANY | CLI_DATA, 0, 0, cli_check},
    {"chaos", "[SOURCE]", "test stages under kills, with a store of its own",
     CLI_ANY | CLI_DATA | CLI_CHAOS, 0, 1, cli_chaos},
    {"cursor", "SOURCE", "where a source fetches from", CLI_ANY | CLI_DATA | CLI_WRITE | CLI_CURSOR, 1, 1,
     cli_cursor},
    {0},
};

const struct cli_command *cli_command_find(const char *name)
{
    for (const struct cli_command *command = cli_commands; command->name != NULL; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}

/* ---- usage ---- */

static void option_line(const struct cli_option *option, struct json_out *out)
{
    char left[64], line[200];
    char letter[8] = "    ";
    if (option->letter != 0)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, option->name, option->argument != NULL ? " " : "",
             option->argument != NULL ? option->argument : "");
    snprintf(line, sizeof line, "  %-28s %s\n", left, option->help);
    json_write_text(out, line);
}

/* Options of any of these groups, but of none of the others. */
static void option_lines(unsigned groups, unsigned without, struct json_out *out)
{
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++)
        if ((cli_options[i].groups & groups) != 0 && (cli_options[i].groups & without) == 0)
            option_line(&cli_options[i], out);
}

void cli_options_usage(struct json_out *out)
{
    json_write_text(out,
                    "usage: eventpipe [-c FILE | -i INSTANCE] COMMAND [OPTIONS] [ARGUMENTS]\n\ncommands:\n");
    for (const struct cli_command *command = cli_commands; command->name != NULL; command++) {
        char left[64], line[200];
        snprintf(left, sizeof left, "%s %s", command->name, command->arguments);
        snprintf(line, sizeof line, "  %-22s %s\n", left, command->help);
        json_write_text(out, line);
    }
    json_write_text(out, "\noptions:\n");
    option_lines(~0u, CLI_SELECT, out);
    json_write_text(out, "\nSELECTORS: UIDs, or ALL for every event, or any of\n");
    option_lines(CLI_SELECT, 0, out);
    json_write_text(out, "\nexit status: 0 done, or healthy; 1 not healthy, or no; 2 wrong usage;\n"
                         "  3 the daemon is down; 4 nothing matched\n");
}

void cli_options_usage_command(const struct cli_command *command, struct json_out *out)
{
    char line[200];
    snprintf(line, sizeof line, "usage: eventpipe [-c FILE | -i INSTANCE] %s [OPTIONS]%s%s\n", command->name,
             command->arguments[0] != '\0' ? " " : "", command->arguments);
    json_write_text(out, line);
    snprintf(line, sizeof line, "%s\n\noptions:\n", command->help);
    json_write_text(out, line);
    option_lines(command->groups, 0, out);
}

/* ---- parsing ---- */

static const char *near_option(const char *name)
{
    static const char *names[CLI_OPTION_COUNT + 1];
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++)
        names[i] = cli_options[i].name;
    return base_suggest_near(name, names);
}

static const char *near_command(const char *name)
{
    const char *names[sizeof cli_commands / sizeof cli_commands[0]];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        names[i] = cli_commands[i].name;
    return base_suggest_near(name, names);
}

static int take_value(struct cli *cli, size_t option, const char *value, struct error *error)
{
    if (cli->values[option] != NULL)
        return base_error_set(error, CONTROL_USAGE, "--%s is given twice", cli_options[option].name);
    cli->values[option] = value;
    return 0;
}

/* --name, --name=value, --name value. *used counts what was taken beyond this argument. */
static int parse_long(struct cli *cli, const char *text, const char *next, int *used, struct error *error)
{
    size_t length = strcspn(text, "=");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), text);
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++) {
        if (strcmp(cli_options[i].name, name) != 0)
            continue;
        if (cli_options[i].argument == NULL)
            return text[length] == '\0'
                       ? take_value(cli, i, "", error)
                       : base_error_set(error, CONTROL_USAGE, "--%s takes no argument", name);
        if (text[length] == '=')
            return take_value(cli, i, text + length + 1, error);
        if (next == NULL)
            return base_error_set(error, CONTROL_USAGE, "--%s: %s is missing", name, cli_options[i].argument);
        *used = 1;
        return take_value(cli, i, next, error);
    }
    const char *near = near_option(name);
    return base_error_set(error, CONTROL_USAGE, "there is no option --%s%s%s%s", name,
                          near != NULL ? ": did you mean --" : "", near != NULL ? near : "",
                          near != NULL ? "?" : "");
}

/* -c FILE, -cFILE. */
static int parse_letter(struct cli *cli, const char *text, const char *next, int *used, struct error *error)
{
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++) {
        if (cli_options[i].letter != *text)
            continue;
        if (cli_options[i].argument == NULL)
            return text[1] == '\0' ? take_value(cli, i, "", error)
                                   : base_error_set(error, CONTROL_USAGE, "-%c takes no argument", *text);
        if (text[1] != '\0')
            return take_value(cli, i, text + 1, error);
        if (next == NULL)
            return base_error_set(error, CONTROL_USAGE, "-%c: %s is missing", *text, cli_options[i].argument);
        *used = 1;
        return take_value(cli, i, next, error);
    }
    return base_error_set(error, CONTROL_USAGE, "there is no option -%s", text);
}

static int take_word(struct cli *cli, char *word, struct error *error)
{
    if (cli->command != NULL) {
        cli->args[cli->arg_count++] = word;
        return 0;
    }
    cli->command = cli_command_find(word);
    if (cli->command != NULL)
        return 0;
    const char *near = near_command(word);
    return base_error_set(error, CONTROL_USAGE, "there is no command \"%s\"%s%s%s", word,
                          near != NULL ? ": did you mean \"" : "", near != NULL ? near : "",
                          near != NULL ? "\"?" : "");
}

/* What is right word by word, but not together. */
static int check_whole(const struct cli *cli, struct error *error)
{
    if (cli_given(cli, CLI_OPTION_CONFIG) && cli_given(cli, CLI_OPTION_INSTANCE))
        return base_error_set(error, CONTROL_USAGE, "-c or -i, not both");
    if (cli->command == NULL)
        return base_error_set(error, CONTROL_USAGE, "no command given (see eventpipe --help)");
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++)
        if (cli->values[i] != NULL && (cli_options[i].groups & cli->command->groups) == 0)
            return base_error_set(error, CONTROL_USAGE, "%s does not take --%s", cli->command->name,
                                  cli_options[i].name);
    if (cli->arg_count < cli->command->least)
        return base_error_set(error, CONTROL_USAGE, "%s: expected %s", cli->command->name,
                              cli->command->arguments);
    if (cli->command->most >= 0 && cli->arg_count > cli->command->most)
        return base_error_set(error, CONTROL_USAGE, "%s: \"%s\" is one argument too many", cli->command->name,
                              cli->args[cli->command->most]);
    return 0;
}

int cli_options_parse(struct cli *cli, int argc, char **argv, struct error *error)
{
    cli->args = calloc((size_t)argc + 1, sizeof *cli->args);
    if (cli->args == NULL)
        return base_error_set(error, CONTROL_NO, "out of memory");
    bool options = true;
    int code = 0;
    for (int i = 1; code == 0 && i < argc; i++) {
        char *word = argv[i];
        const char *next = argv[i + 1];
        int used = 0;
        if (options && strcmp(word, "--") == 0)
            options = false;
        else if (options && strncmp(word, "--", 2) == 0)
            code = parse_long(cli, word + 2, next, &used, error);
        else if (options && word[0] == '-' && word[1] != '\0')
            code = parse_letter(cli, word + 1, next, &used, error);
        else
            code = take_word(cli, word, error);
        i += used;
    }
    if (code != 0 || cli_given(cli, CLI_OPTION_HELP) || cli_given(cli, CLI_OPTION_VERSION))
        return code;
    return check_whole(cli, error);
}
