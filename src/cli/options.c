/* SPDX-License-Identifier: MIT */
/*
 * The options of the command line: their table (cli.h), the usage texts, and the parser. The commands
 * are in src/control/command.c. Runs in eventpipe. Pure; the results point into argv.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/suggest.h"
#include "src/cli/cli.h"

const struct cli_option cli_options[CLI_OPTION_COUNT] = {
#define X(id, name, letter, argument, accepted_by, help) \
    [CLI_OPTION_##id] = {name, letter, argument, accepted_by, help},
    CLI_OPTIONS(X)
#undef X
};

/* Returns the command of this name, or NULL if `eventpipe` does not offer it: a command without help is
 * only for the control socket. */
static const struct control_command *find_command(const char *name)
{
    const struct control_command *command = control_command_find(name);
    return command != NULL && command->help != NULL ? command : NULL;
}

/* ---- usage ---- */

/* Writes one option into the usage text of `eventpipe`: its letter, name, argument and help, in columns. */
static void write_option_line(const struct cli_option *option, struct text *out)
{
    char syntax[64], line[200];
    char letter[8] = "    ";
    if (option->letter != 0)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(syntax, sizeof syntax, "%s--%s%s%s", letter, option->name, option->argument != NULL ? " " : "",
             option->argument != NULL ? option->argument : "");
    snprintf(line, sizeof line, "  %-28s %s\n", syntax, option->help);
    base_text_append(out, line);
}

/* Writes options into the usage text of `eventpipe`: those whose accepted_by has a bit of `accepted` and
 * none of `excluded`, and those that every command takes. */
static void write_option_lines(unsigned accepted, unsigned excluded, struct text *out)
{
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++) {
        unsigned accepted_by = cli_options[i].accepted_by;
        if (accepted_by == CLI_ANY || ((accepted_by & accepted) != 0 && (accepted_by & excluded) == 0))
            write_option_line(&cli_options[i], out);
    }
}

static void write_filter_lines(struct text *out)
{
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++)
        if (cli_options[i].accepted_by != CLI_ANY && (cli_options[i].accepted_by & CLI_FILTERS) != 0)
            write_option_line(&cli_options[i], out);
}

/* Writes the text of `eventpipe --help`: all commands, options, filters and exit statuses. Commands and
 * options come from the tables that the parser uses, so help and parser cannot differ. */
void cli_options_write_usage(struct text *out)
{
    base_text_append(out,
                     "usage: eventpipe [-c FILE | -i INSTANCE] COMMAND [OPTIONS] [ARGUMENTS]\n\ncommands:\n");
    for (size_t i = 0; i < CONTROL_COMMAND_COUNT; i++) {
        const struct control_command *command = &control_commands[i];
        char syntax[64], line[200];
        if (command->help == NULL)
            continue;
        snprintf(syntax, sizeof syntax, "%s %s", command->name, command->arguments);
        snprintf(line, sizeof line, "  %-24s %s\n", syntax, command->help);
        base_text_append(out, line);
    }
    base_text_append(out, "\noptions:\n");
    write_option_lines(CLI_ANY, CLI_FILTERS, out);
    base_text_append(out, "\nFILTERS: UIDs, or ALL for every event, or any of\n");
    write_filter_lines(out);
    base_text_append(out, "\nexit status: 0 done, or healthy; 1 failed, or not healthy; 2 wrong usage;\n"
                          "  3 the daemon is down; 4 nothing matched\n");
}

/* Writes the text of `eventpipe COMMAND --help`: the usage line, the events that the command takes and
 * their state afterwards, and its options. */
void cli_options_write_command_usage(const struct control_command *command, struct text *out)
{
    char line[200], accepted_states[64];
    snprintf(line, sizeof line, "usage: eventpipe [-c FILE | -i INSTANCE] %s [OPTIONS]%s%s\n", command->name,
             command->arguments[0] != '\0' ? " " : "", command->arguments);
    base_text_append(out, line);
    snprintf(line, sizeof line, "%s\n", command->help);
    base_text_append(out, line);
    if (command->change != NULL) {
        control_command_describe_states(store_command_rule(command->change->store_command)->takes,
                                        accepted_states, sizeof accepted_states);
        snprintf(line, sizeof line, "Takes %s events. Afterwards they are %s.\n", accepted_states,
                 control_command_get_new_state(command->change));
        base_text_append(out, line);
    }
    base_text_append(out, "\noptions:\n");
    write_option_lines(command->accepts, 0, out);
}

/* ---- parsing ---- */

/* Returns the name of the option that is spelt most like `name`, or NULL if none is similar. The parser of
 * `eventpipe` offers it in the message about an unknown option. */
static const char *suggest_option(const char *name)
{
    static const char *names[CLI_OPTION_COUNT + 1];
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++)
        names[i] = cli_options[i].name;
    return base_suggest_find_nearest(name, names);
}

/* Returns the name of the command that is spelt most like `name`, or NULL if none is similar. The parser of
 * `eventpipe` offers it in the message about an unknown command. */
static const char *suggest_command(const char *name)
{
    const char *names[CONTROL_COMMAND_COUNT + 1] = {NULL};
    size_t name_count = 0;
    for (size_t i = 0; i < CONTROL_COMMAND_COUNT; i++)
        if (control_commands[i].help != NULL)
            names[name_count++] = control_commands[i].name;
    return base_suggest_find_nearest(name, names);
}

/* Stores an option's value for the parser of `eventpipe`; the text still belongs to argv. An option that is
 * given twice is an error, because the user could not know which one counts. Returns 0, or CONTROL_USAGE
 * with a message. */
static int set_option_value(struct cli *cli, size_t option_index, const char *value, struct error *error)
{
    if (cli->values[option_index] != NULL)
        return base_error_set(error, CONTROL_USAGE, "--%s is given twice", cli_options[option_index].name);
    cli->values[option_index] = value;
    return 0;
}

/* Parses --name, --name=value or --name value of the `eventpipe` command line; `option_text` is what
 * follows the two dashes. Sets *used_next_count to 1 if it took the next argument as the value. Returns 0,
 * or CONTROL_USAGE with a message. */
static int parse_long_option(struct cli *cli, const char *option_text, const char *next_argument,
                             int *used_next_count, struct error *error)
{
    size_t name_bytes = strcspn(option_text, "=");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(name_bytes < sizeof name ? name_bytes : sizeof name - 1),
             option_text);
    for (size_t option_index = 0; option_index < CLI_OPTION_COUNT; option_index++) {
        if (strcmp(cli_options[option_index].name, name) != 0)
            continue;
        if (cli_options[option_index].argument == NULL)
            return option_text[name_bytes] == '\0'
                       ? set_option_value(cli, option_index, "", error)
                       : base_error_set(error, CONTROL_USAGE, "--%s takes no argument", name);
        if (option_text[name_bytes] == '=')
            return set_option_value(cli, option_index, option_text + name_bytes + 1, error);
        if (next_argument == NULL)
            return base_error_set(error, CONTROL_USAGE, "--%s: %s is missing", name,
                                  cli_options[option_index].argument);
        *used_next_count = 1;
        return set_option_value(cli, option_index, next_argument, error);
    }
    const char *suggestion = suggest_option(name);
    return base_error_set(error, CONTROL_USAGE, "there is no option --%s%s%s%s", name,
                          suggestion != NULL ? ": did you mean --" : "", suggestion != NULL ? suggestion : "",
                          suggestion != NULL ? "?" : "");
}

/* Parses -c FILE, -cFILE or -h of the `eventpipe` command line; `option_text` is what follows the dash.
 * Sets *used_next_count to 1 if it took the next argument as the value. Returns 0, or CONTROL_USAGE with a
 * message. */
static int parse_letter_option(struct cli *cli, const char *option_text, const char *next_argument,
                               int *used_next_count, struct error *error)
{
    for (size_t option_index = 0; option_index < CLI_OPTION_COUNT; option_index++) {
        if (cli_options[option_index].letter != *option_text)
            continue;
        if (cli_options[option_index].argument == NULL)
            return option_text[1] == '\0'
                       ? set_option_value(cli, option_index, "", error)
                       : base_error_set(error, CONTROL_USAGE, "-%c takes no argument", *option_text);
        if (option_text[1] != '\0')
            return set_option_value(cli, option_index, option_text + 1, error);
        if (next_argument == NULL)
            return base_error_set(error, CONTROL_USAGE, "-%c: %s is missing", *option_text,
                                  cli_options[option_index].argument);
        *used_next_count = 1;
        return set_option_value(cli, option_index, next_argument, error);
    }
    return base_error_set(error, CONTROL_USAGE, "there is no option -%s", option_text);
}

/* Takes an argument of `eventpipe` that is not an option: the first one names the command, the others are
 * the command's arguments. Returns 0, or CONTROL_USAGE with a message if there is no such command. */
static int take_command_or_argument(struct cli *cli, char *argument_text, struct error *error)
{
    if (cli->command != NULL) {
        cli->args[cli->arg_count++] = argument_text;
        return 0;
    }
    cli->command = find_command(argument_text);
    if (cli->command != NULL)
        return 0;
    const char *suggestion = suggest_command(argument_text);
    return base_error_set(error, CONTROL_USAGE, "there is no command \"%s\"%s%s%s", argument_text,
                          suggestion != NULL ? ": did you mean \"" : "", suggestion != NULL ? suggestion : "",
                          suggestion != NULL ? "\"?" : "");
}

/* Checks what can only be judged once all arguments of `eventpipe` are parsed: -c together with -i, no
 * command, options that the command does not take, too few or too many arguments. Returns 0, or
 * CONTROL_USAGE with a message. */
static int check_command_line(const struct cli *cli, struct error *error)
{
    if (cli_has_option(cli, CLI_OPTION_CONFIG) && cli_has_option(cli, CLI_OPTION_INSTANCE))
        return base_error_set(error, CONTROL_USAGE, "give -c FILE or -i INSTANCE, not both");
    if (cli->command == NULL)
        return base_error_set(error, CONTROL_USAGE, "no command given (see eventpipe --help)");
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++)
        if (cli->values[i] != NULL && cli_options[i].accepted_by != CLI_ANY &&
            (cli_options[i].accepted_by & cli->command->accepts) == 0)
            return base_error_set(error, CONTROL_USAGE, "%s does not take --%s", cli->command->name,
                                  cli_options[i].name);
    if (cli->arg_count < cli->command->least)
        return base_error_set(error, CONTROL_USAGE, "%s: expected %s", cli->command->name,
                              cli->command->arguments);
    if (cli->command->most >= 0 && cli->arg_count > cli->command->most)
        return base_error_set(error, CONTROL_USAGE, "%s: too many arguments, from \"%s\" on",
                              cli->command->name, cli->args[cli->command->most]);
    return 0;
}

/* Parses the arguments of `eventpipe` into *cli: the command, its arguments and the values of the options,
 * which all point into argv. Returns 0, or an exit status with a message. */
int cli_options_parse(struct cli *cli, int argc, char **argv, struct error *error)
{
    cli->args = calloc((size_t)argc + 1, sizeof *cli->args);
    if (cli->args == NULL)
        return base_error_set(error, CONTROL_FAILED, "out of memory");
    bool may_take_options = true;
    int code = 0;
    for (int i = 1; code == 0 && i < argc; i++) {
        char *argument_text = argv[i];
        const char *next_argument = argv[i + 1];
        int used_next_count = 0;
        if (may_take_options && strcmp(argument_text, "--") == 0)
            may_take_options = false;
        else if (may_take_options && strncmp(argument_text, "--", 2) == 0)
            code = parse_long_option(cli, argument_text + 2, next_argument, &used_next_count, error);
        else if (may_take_options && argument_text[0] == '-' && argument_text[1] != '\0')
            code = parse_letter_option(cli, argument_text + 1, next_argument, &used_next_count, error);
        else
            code = take_command_or_argument(cli, argument_text, error);
        i += used_next_count;
    }
    if (code != 0 || cli_has_option(cli, CLI_OPTION_HELP) || cli_has_option(cli, CLI_OPTION_VERSION))
        return code;
    return check_command_line(cli, error);
}
