/* SPDX-License-Identifier: MIT */
/*
 * chaos: tests the configuration's stages while their processes are killed. A helper program in Python
 * (contrib/chaos/) does the work; this file checks that a run can begin, and becomes the helper. Runs in
 * eventpipe.
 *
 * The helper gets the command's options unchanged. On its stdin it gets one JSON object: the paths of this
 * program and of the configuration, the configuration itself, and values that only its parsed form has.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/cli/cli.h"
#include "src/stage/stage.h"

#ifndef CHAOS_HELPER
#define CHAOS_HELPER "/usr/local/libexec/eventpipe/chaos/main.py"
#endif
#define HELPER_VARIABLE "EVENTPIPE_CHAOS_HELPER" /* names the helper of a build that is not installed */
#define ARGUMENTS_MAX (9 + CLI_OPTION_COUNT)     /* python3 and its options, ours, --, SOURCE, NULL */

/* Returns whether `eventpipe chaos` tests this source: the one that the user named, or every source if the
 * user named none. */
static bool is_source_in_run(const struct cli *cli, const struct source_config *source)
{
    return cli->arg_count == 0 || strcmp(cli->args[0], source->id) == 0;
}

/* Checks that `eventpipe chaos` got a configuration without problems, and that the configuration has the
 * source that the user named. Returns CONTROL_DONE, or CONTROL_USAGE after a message on stderr. */
static int check_config_has_source(const struct cli *cli)
{
    if (cli->config == NULL) {
        cli_print_message(cli->config_path == NULL
                              ? "no configuration given: use -c FILE"
                              : "the configuration has problems: eventpipe check lists them");
        return CONTROL_USAGE;
    }
    for (size_t i = 0; i < cli->config->source_count; i++)
        if (is_source_in_run(cli, &cli->config->sources[i]))
            return CONTROL_DONE;
    cli_print_message("there is no source \"%s\" in %s", cli->args[0], cli->config_path);
    return CONTROL_USAGE;
}

/* Refuses a run of `eventpipe chaos --yes` if a stage cannot start on this machine, for example because its
 * program is missing: its events would wait until the run ends. Prints a message for each such stage.
 * Returns CONTROL_DONE or CONTROL_FAILED. */
static int check_stages_can_start(const struct cli *cli)
{
    int exit_status = CONTROL_DONE;
    for (size_t i = 0; i < cli->config->source_count; i++) {
        const struct source_config *source = &cli->config->sources[i];
        for (size_t j = 0; is_source_in_run(cli, source) && j < source->stage_count; j++) {
            struct error error = {0};
            if (stage_check(&source->stages[j], &error) == EP_OK)
                continue;
            cli_print_message("%s/%s: %s", source->id, source->stages[j].name, error.message);
            exit_status = CONTROL_FAILED;
        }
    }
    return exit_status;
}

/* ---- the helper's stdin ---- */

/* Returns the payload sizes and timeouts of the configuration as numbers, in a JSON object that the caller
 * frees. `eventpipe chaos` passes them to its Python helper, because the configuration itself may write
 * them with a unit, such as "5s", which only the C parser reads. */
static cJSON *build_parsed_config_values(const struct config *config)
{
    cJSON *parsed_values = cJSON_CreateObject(),
          *payload_sizes = cJSON_AddObjectToObject(parsed_values, "payload_bytes");
    uint64_t longest_timeout_ms = 0;
    for (size_t i = 0; i < config->source_count; i++) {
        const struct source_config *source = &config->sources[i];
        if (source->type == SOURCE_GENERATE)
            cJSON_AddNumberToObject(payload_sizes, source->id, (double)source->generate.size_bytes);
        for (size_t j = 0; j < source->stage_count; j++)
            if (source->stages[j].timeout_ms > longest_timeout_ms)
                longest_timeout_ms = source->stages[j].timeout_ms;
    }
    cJSON_AddNumberToObject(parsed_values, "longest_timeout_ms", (double)longest_timeout_ms);
    cJSON_AddNumberToObject(parsed_values, "drain_timeout_ms", (double)config->drain_timeout_ms);
    return parsed_values;
}

/* Builds the JSON object that the Python helper of `eventpipe chaos` reads from stdin: the paths of this
 * program and of the configuration, the configuration, and its parsed values. Returns text that the caller
 * frees, or NULL with a message in `error`. */
static char *build_helper_input(const struct cli *cli, struct error *error)
{
    char program_path[4096], *config_text = NULL, *input_text;
    ssize_t path_bytes = readlink("/proc/self/exe", program_path, sizeof program_path - 1);
    if (config_convert_to_json(cli->config_path, &config_text, error) != EP_OK)
        return NULL;
    program_path[path_bytes > 0 ? path_bytes : 0] = '\0';
    cJSON *helper_input = build_parsed_config_values(cli->config);
    cJSON_AddStringToObject(helper_input, "eventpipe", program_path);
    cJSON_AddStringToObject(helper_input, "config_path", cli->config_path);
    cJSON_AddRawToObject(helper_input, "config", config_text);
    input_text = cJSON_PrintUnformatted(helper_input);
    cJSON_Delete(helper_input);
    free(config_text);
    if (input_text == NULL)
        base_error_set(error, EP_ENOMEM, "out of memory");
    return input_text;
}

/* Puts the text into a memory file that replaces stdin of this process; the Python helper that `eventpipe
 * chaos` then executes inherits it. A pipe would not do, because no process would be left to fill it.
 * Returns 0 or EP_ESYSTEM with a message. */
static int pass_text_on_stdin(const char *text, struct error *error)
{
    size_t text_bytes = strlen(text);
    int memory_fd = memfd_create("chaos", MFD_CLOEXEC);
    if (memory_fd < 0 || write(memory_fd, text, text_bytes) != (ssize_t)text_bytes ||
        lseek(memory_fd, 0, SEEK_SET) != 0 || dup2(memory_fd, STDIN_FILENO) < 0)
        base_error_set(error, EP_ESYSTEM, "cannot pass the configuration to the helper: %s", strerror(errno));
    if (memory_fd > STDERR_FILENO)
        close(memory_fd);
    return error->code;
}

/* ---- the helper ---- */

/* Replaces the `eventpipe chaos` process by its Python helper, with the user's options as arguments.
 * Returns only if that fails; errno then tells why. */
static void execute_helper(const struct cli *cli, const char *helper_path)
{
    /* Python imports only from the helper's folder and the standard library, and writes no files. */
    char *arguments[ARGUMENTS_MAX] = {"python3", "-E", "-s", "-S", "-B", (char *)(uintptr_t)helper_path};
    size_t argument_count = 6;
    for (size_t i = 0; i < CLI_OPTION_COUNT; i++) {
        const struct cli_option *option = &cli_options[i];
        const char *value = option->argument != NULL ? cli->values[i] : "";
        if (cli->values[i] == NULL || option->accepted_by == CLI_ANY ||
            (option->accepted_by & (CLI_CHAOS | CLI_JSON)) == 0)
            continue;
        if (asprintf(&arguments[argument_count++], "--%s%s%s", option->name,
                     option->argument != NULL ? "=" : "", value) < 0)
            return;
    }
    arguments[argument_count++] = "--";
    if (cli->arg_count > 0)
        arguments[argument_count++] = cli->args[0];
    execvp(arguments[0], arguments);
}

/* Runs `eventpipe chaos`, which tests the configuration's stages while a Python helper kills their
 * processes: checks the configuration, then replaces this process by the helper. Returns, with an exit
 * status, only if the run cannot begin. */
int cli_chaos(struct cli *cli)
{
    struct error error = {0};
    const char *helper_path = getenv(HELPER_VARIABLE);
    if (helper_path == NULL || helper_path[0] == '\0')
        helper_path = CHAOS_HELPER;
    int code = check_config_has_source(cli);
    if (code == CONTROL_DONE && cli_has_option(cli, CLI_OPTION_YES))
        code = check_stages_can_start(cli);
    if (code != CONTROL_DONE)
        return code;
    if (access(helper_path, R_OK) != 0) {
        cli_print_message(
            "the helper program %s cannot be read (%s): install eventpipe again, or name the helper "
            "in " HELPER_VARIABLE,
            helper_path, strerror(errno));
        return CONTROL_FAILED;
    }
    char *helper_input = build_helper_input(cli, &error);
    if (helper_input != NULL && pass_text_on_stdin(helper_input, &error) == EP_OK) {
        execute_helper(cli, helper_path);
        base_error_set(&error, EP_ESYSTEM, "cannot run python3 (%s): chaos needs it, install python3",
                       strerror(errno));
    }
    cli_print_message("%s", error.message);
    free(helper_input);
    return CONTROL_FAILED;
}
