/* SPDX-License-Identifier: MIT */
/* eventpipe: the command line. Reads what is wanted, finds the instance, runs the command. */
#include <stdio.h>
#include <string.h>

#include "src/cli/cli.h"

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif

static int help(struct cli *cli)
{
    if (cli->command != NULL)
        cli_options_usage_command(cli->command, &cli->out);
    else
        cli_options_usage(&cli->out);
    return cli_out_end(cli, CONTROL_DONE);
}

static int wrong(const struct cli *cli, const struct error *error)
{
    cli_message("%s", error->message);
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

static int run(struct cli *cli, int argc, char **argv)
{
    struct error error = {0};
    int code = cli_options_parse(cli, argc, argv, &error);
    if (code != 0)
        return wrong(cli, &error);
    if (cli_given(cli, CLI_OPTION_HELP))
        return help(cli);
    if (cli_given(cli, CLI_OPTION_VERSION)) {
        json_write_text(&cli->out, "eventpipe " PACKAGE_VERSION "\n");
        return cli_out_end(cli, CONTROL_DONE);
    }
    code = cli_instance_target(cli, &error);
    if (code != 0) {
        cli_message("%s", error.message);
        return code;
    }
    if (cli->problem_count > 0 && cli->command->run != cli_check)
        cli_message("%s has %zu problem%s (eventpipe check lists %s): going on with instance %s",
                    cli->config_path, cli->problem_count, cli->problem_count == 1 ? "" : "s",
                    cli->problem_count == 1 ? "it" : "them", cli->instance);
    return cli_out_end(cli, cli->command->run(cli));
}

int main(int argc, char **argv)
{
    struct cli cli = {.attached = -1};
    int status = run(&cli, argc, argv);
    cli_instance_close(&cli);
    return status;
}
