/* SPDX-License-Identifier: MIT */
/* eventpipe, the command line: parses the arguments, finds the instance, runs the command. */
#include <stdio.h>
#include <string.h>

#include "src/cli/cli.h"

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif

/* Prints the usage text on stdout, for `eventpipe --help` (all commands) or `eventpipe COMMAND --help`.
 * Returns an exit status. */
static int print_help(struct cli *cli)
{
    if (cli->command != NULL)
        cli_options_write_command_usage(cli->command, &cli->out);
    else
        cli_options_write_usage(&cli->out);
    return cli_finish_output(cli, CONTROL_DONE);
}

/* Prints the error in the arguments of `eventpipe` and a usage line on stderr. Returns the exit status. */
static int report_usage_error(const struct cli *cli, const struct error *error)
{
    cli_print_message("%s", error->message);
    if (cli->command != NULL)
        fprintf(stderr, "usage: eventpipe [-c FILE | -i INSTANCE] %s [OPTIONS]%s%s\n", cli->command->name,
                cli->command->arguments[0] != '\0' ? " " : "", cli->command->arguments);
    else
        fputs(
            "usage: eventpipe [-c FILE | -i INSTANCE] COMMAND [OPTIONS] [ARGUMENTS]; eventpipe --help lists "
            "them\n",
            stderr);
    return error->code;
}

/* The functions of the commands, in the order of control/command.c. */
static int (*const run_functions[CONTROL_COMMAND_COUNT])(struct cli *cli) = {
    [CONTROL_COMMAND_STATUS] = cli_status,
    [CONTROL_COMMAND_QUEUE] = cli_queue,
    [CONTROL_COMMAND_SHOW] = cli_show,
    [CONTROL_COMMAND_CRASHES] = cli_crashes,
    [CONTROL_COMMAND_TRACE] = cli_trace,
    [CONTROL_COMMAND_RETRY] = cli_change_events,
    [CONTROL_COMMAND_HOLD] = cli_change_events,
    [CONTROL_COMMAND_RELEASE] = cli_change_events,
    [CONTROL_COMMAND_REQUEUE] = cli_change_events,
    [CONTROL_COMMAND_REMOVE] = cli_change_events,
    [CONTROL_COMMAND_INJECT] = cli_inject,
    [CONTROL_COMMAND_IMPORT] = cli_import,
    [CONTROL_COMMAND_PAUSE] = cli_pause_resume_restart,
    [CONTROL_COMMAND_RESUME] = cli_pause_resume_restart,
    [CONTROL_COMMAND_RESTART] = cli_pause_resume_restart,
    [CONTROL_COMMAND_DRAIN] = cli_drain_or_stop,
    [CONTROL_COMMAND_STOP] = cli_drain_or_stop,
    [CONTROL_COMMAND_CHECK] = cli_check,
    [CONTROL_COMMAND_CHAOS] = cli_chaos,
    [CONTROL_COMMAND_CURSOR] = cli_cursor,
};

/* Runs the whole `eventpipe` program: parses the arguments, finds the instance, calls the command's
 * function, and writes the rest of its output. --help and --version need no instance, so they end before
 * one is looked for. Returns the exit status. */
static int run_command(struct cli *cli, int argc, char **argv)
{
    struct error error = {0};
    int code = cli_options_parse(cli, argc, argv, &error);
    if (code != 0)
        return report_usage_error(cli, &error);
    if (cli_has_option(cli, CLI_OPTION_HELP))
        return print_help(cli);
    if (cli_has_option(cli, CLI_OPTION_VERSION)) {
        base_text_append(&cli->out, "eventpipe " PACKAGE_VERSION "\n");
        return cli_finish_output(cli, CONTROL_DONE);
    }
    code = cli_instance_find(cli, &error);
    if (code != 0) {
        cli_print_message("%s", error.message);
        return code;
    }
    if (cli->problem_count > 0 && cli->command->id != CONTROL_COMMAND_CHECK)
        cli_print_message("%s has %zu problem%s (eventpipe check lists %s); using instance %s",
                          cli->config_path, cli->problem_count, cli->problem_count == 1 ? "" : "s",
                          cli->problem_count == 1 ? "it" : "them", cli->instance);
    return cli_finish_output(cli, run_functions[cli->command->id](cli));
}

/* The main function of `eventpipe`, the command line. The daemon, `eventpiped`, is a separate program. The
 * attach_error -1 means that no shared memory is attached yet; cli_instance_close then detaches none. */
int main(int argc, char **argv)
{
    struct cli cli = {.attach_error = -1};
    int status = run_command(&cli, argc, argv);
    cli_instance_close(&cli);
    return status;
}
