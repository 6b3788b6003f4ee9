/* SPDX-License-Identifier: MIT */
/*
 * check: reports every problem of the configuration with file, line and key, then those that the
 * store's full check finds. The keeper checks the store; while the daemon is down or hangs, this
 * process does. Runs in eventpipe. Changes nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cli/cli.h"
#include "src/cli/status.h"
#include "src/cli/table.h"
#include "src/source/source.h"
#include "src/stage/stage.h"

/* Prints a problem of the configuration for `eventpipe check`: as FILE:LINE: KEY: MESSAGE, or as a JSON
 * object with --json. `line` is 0 if the line is not known, and then left out. */
static void report_config_problem(struct cli *cli, unsigned line, const char *key, const char *message)
{
    struct text *out = &cli->out;
    char line_number[16];
    snprintf(line_number, sizeof line_number, "%u", line);
    if (cli_has_option(cli, CLI_OPTION_JSON)) {
        base_text_append(out, "{\"where\":\"config\"");
        json_write_member_text(out, "file", cli->config_path);
        base_text_append(out, ",\"line\":");
        base_text_append(out, line > 0 ? line_number : "null");
        json_write_member_text(out, "key", key);
        json_write_member_text(out, "problem", message);
        base_text_append(out, "}\n");
        return;
    }
    cli_table_write_text(out, cli->config_path, 0);
    base_text_append(out, ":");
    base_text_append(out, line > 0 ? line_number : "");
    base_text_append(out, line > 0 ? ": " : " ");
    cli_table_write_text(out, key, 0);
    base_text_append(out, key[0] != '\0' ? ": " : "");
    cli_table_write_text(out, message, 0);
    base_text_append(out, "\n");
}

/* Checks for `eventpipe check` whether the configuration works on this machine: that programs exist,
 * plugins load and each ca_file is readable. Reports each problem and returns how many there are. */
static size_t check_config_on_machine(struct cli *cli)
{
    size_t problem_count = 0;
    for (size_t i = 0; cli->config != NULL && i < cli->config->source_count; i++) {
        struct error source_error = {0};
        char source_key[32];
        snprintf(source_key, sizeof source_key, "sources[%zu]", i);
        if (source_check(&cli->config->sources[i], &source_error) != EP_OK) {
            report_config_problem(cli, 0, source_key, source_error.message);
            problem_count++;
        }
        for (size_t j = 0; j < cli->config->sources[i].stage_count; j++) {
            struct error stage_error = {0};
            char stage_key[64];
            if (stage_check(&cli->config->sources[i].stages[j], &stage_error) == EP_OK)
                continue;
            snprintf(stage_key, sizeof stage_key, "sources[%zu].stages[%zu]", i, j);
            report_config_problem(cli, 0, stage_key, stage_error.message);
            problem_count++;
        }
    }
    return problem_count;
}

/* Called for each problem that the full check of the store found, while `eventpipe check` reads the
 * keeper's answer. Prints it for people; with --json the answer's lines are printed unchanged instead. */
static int on_store_problem(const char *text, size_t bytes, void *user)
{
    struct cli *cli = user;
    char *problem = cli_queue_read_text((struct json_span){text, bytes}, "/problem");
    base_text_append(&cli->out, "store: ");
    cli_table_write_text(&cli->out, problem != NULL ? problem : "", 0);
    base_text_append(&cli->out, "\n");
    free(problem);
    return EP_OK;
}

struct keeper_wait {
    struct cli *cli;
    bool is_reported;
};

/* Called while `eventpipe check` waits for the keeper, which sends nothing during a long check of the
 * store. Returns true (wait on) while the keeper is busy, false if it is stopped or idle: then the command
 * checks the store itself. */
static bool on_keeper_silence(void *user)
{
    struct keeper_wait *keeper_wait = user;
    struct cli *cli = keeper_wait->cli;
    if (cli->attach_error == 0) {
        const struct shm_header *header = cli->segment.header;
        const struct shm_slot *keeper = segment_slot(&cli->segment, header->keeper_slot);
        if (atomic_load(&keeper->state) != SHM_SLOT_BUSY ||
            cli_status_is_process_stopped(atomic_load(&keeper->pid), header->supervisor_pid))
            return false;
    }
    if (!keeper_wait->is_reported)
        cli_print_message("%s: waiting for the keeper, which is busy", cli->instance);
    keeper_wait->is_reported = true;
    return true;
}

/* Runs `eventpipe check`: reports the problems of the configuration, then those of the store, and changes
 * nothing. Returns an exit status, CONTROL_FAILED if there is any problem. */
int cli_check(struct cli *cli)
{
    size_t problem_count = cli->problem_count;
    for (size_t i = 0; i < cli->problem_count; i++)
        report_config_problem(cli, cli->problems[i].line,
                              cli->problems[i].key != NULL ? cli->problems[i].key : "",
                              cli->problems[i].message != NULL ? cli->problems[i].message : "");
    problem_count += check_config_on_machine(cli);
    if (cli->config_path == NULL)
        cli_print_message("%s: no configuration given, checking the store only", cli->instance);
    else if (problem_count == 0)
        cli_print_message("%s: no problems", cli->config_path);
    else
        cli_print_message("%s: %zu problem%s", cli->config_path, problem_count,
                          problem_count == 1 ? "" : "s");
    struct keeper_wait keeper_wait = {.cli = cli};
    struct control_question question = {.line = "{\"command\":\"check\"}",
                                        .patience_ms = CLI_SILENCE_LIMIT_MS,
                                        .on_silence = on_keeper_silence,
                                        .on_silence_user = &keeper_wait};
    struct cli_answer answer = {.on_line = cli_has_option(cli, CLI_OPTION_JSON) ? NULL : on_store_problem,
                                .user = cli};
    int status = cli_send_request(cli, &question, &answer);
    return status == CONTROL_DONE && problem_count > 0 ? CONTROL_FAILED : status;
}
