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

static void member(struct json_out *out, const char *name, const char *text)
{
    json_write_text(out, ",\"");
    json_write_text(out, name);
    json_write_text(out, "\":");
    json_write_string(out, text, strlen(text));
}

static void report(struct cli *cli, unsigned line, const char *key, const char *message)
{
    struct json_out *out = &cli->out;
    char number[16];
    snprintf(number, sizeof number, "%u", line);
    if (cli_given(cli, CLI_OPTION_JSON)) {
        json_write_text(out, "{\"where\":\"config\"");
        member(out, "file", cli->config_path);
        json_write_text(out, ",\"line\":");
        json_write_text(out, line > 0 ? number : "null");
        member(out, "key", key);
        member(out, "problem", message);
        json_write_text(out, "}\n");
        return;
    }
    cli_table_text_out(out, cli->config_path, 0);
    json_write_text(out, ":");
    json_write_text(out, line > 0 ? number : "");
    json_write_text(out, line > 0 ? ": " : " ");
    cli_table_text_out(out, key, 0);
    json_write_text(out, key[0] != '\0' ? ": " : "");
    cli_table_text_out(out, message, 0);
    json_write_text(out, "\n");
}

/* Checks the configuration against this machine: programs exist, plugins load, ca_file is readable. */
static size_t check_machine(struct cli *cli)
{
    size_t problems = 0;
    for (size_t i = 0; cli->config != NULL && i < cli->config->source_count; i++) {
        struct error wrong = {0};
        char source[32];
        snprintf(source, sizeof source, "sources[%zu]", i);
        if (source_check(&cli->config->sources[i], &wrong) != EP_OK) {
            report(cli, 0, source, wrong.message);
            problems++;
        }
        for (size_t j = 0; j < cli->config->sources[i].stage_count; j++) {
            struct error error = {0};
            char key[64];
            if (stage_check(&cli->config->sources[i].stages[j], &error) == EP_OK)
                continue;
            snprintf(key, sizeof key, "sources[%zu].stages[%zu]", i, j);
            report(cli, 0, key, error.message);
            problems++;
        }
    }
    return problems;
}

static int store_line(const char *text, size_t bytes, void *user)
{
    struct cli *cli = user;
    char *problem = cli_queue_field((struct json_span){text, bytes}, "/problem");
    json_write_text(&cli->out, "store: ");
    cli_table_text_out(&cli->out, problem != NULL ? problem : "", 0);
    json_write_text(&cli->out, "\n");
    free(problem);
    return EP_OK;
}

struct waiting {
    struct cli *cli;
    bool reported;
};

/* A check may take long and sends nothing meanwhile. control_ask calls this then: true while the
 * keeper is busy, false when it is stopped or does something else. */
static bool keeper_works(void *user)
{
    struct waiting *waiting = user;
    struct cli *cli = waiting->cli;
    if (cli->attached == 0) {
        const struct shm_header *header = cli->segment.header;
        const struct shm_slot *keeper = segment_slot(&cli->segment, header->keeper_slot);
        if (atomic_load(&keeper->state) != SHM_SLOT_BUSY ||
            cli_status_halted(atomic_load(&keeper->pid), header->supervisor_pid))
            return false;
    }
    if (!waiting->reported)
        cli_message("%s: waiting for the keeper, which is busy", cli->instance);
    waiting->reported = true;
    return true;
}

int cli_check(struct cli *cli)
{
    size_t problems = cli->problem_count;
    for (size_t i = 0; i < cli->problem_count; i++)
        report(cli, cli->problems[i].line, cli->problems[i].key != NULL ? cli->problems[i].key : "",
               cli->problems[i].message != NULL ? cli->problems[i].message : "");
    problems += check_machine(cli);
    if (cli->config_path == NULL)
        cli_message("%s: no configuration given, checking the store only", cli->instance);
    else if (problems == 0)
        cli_message("%s: no problems", cli->config_path);
    else
        cli_message("%s: %zu problem%s", cli->config_path, problems, problems == 1 ? "" : "s");
    struct waiting waiting = {.cli = cli};
    struct control_question question = {.line = "{\"command\":\"check\"}",
                                        .patience_ms = CLI_FIRST_MS,
                                        .on_silence = keeper_works,
                                        .on_silence_user = &waiting};
    struct cli_answer answer = {.on_line = cli_given(cli, CLI_OPTION_JSON) ? NULL : store_line, .user = cli};
    int status = cli_client_ask(cli, &question, &answer);
    return status == CONTROL_DONE && problems > 0 ? CONTROL_NO : status;
}
