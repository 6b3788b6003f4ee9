/* SPDX-License-Identifier: MIT */
/* pause, resume, restart, drain and stop, which the supervisor carries out; and cursor, which the
 * keeper does. Runs in eventpipe. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "src/cli/cli.h"

#define ORDER_MS 15000
#define POLL_MS 100

static void put(struct json_out *out, const char *member, const char *text, size_t bytes)
{
    json_write_text(out, ",\"");
    json_write_text(out, member);
    json_write_text(out, "\":");
    json_write_string(out, text, bytes);
}

/* {"command":V, and {"source":S,"stage":T} from SOURCE[/STAGE]; without its closing bracket. */
static void begin_request(const struct cli *cli, struct json_out *out)
{
    json_write_text(out, "{\"command\":\"");
    json_write_text(out, cli->command->name);
    json_write_text(out, "\"");
    if (cli->arg_count > 0) {
        const char *target = cli->args[0], *slash = strchr(target, '/');
        put(out, "source", target, slash != NULL ? (size_t)(slash - target) : strlen(target));
        if (slash != NULL)
            put(out, "stage", slash + 1, strlen(slash + 1));
    }
    if (cli_given(cli, CLI_OPTION_DRY_RUN))
        json_write_text(out, ",\"dry_run\":true");
}

static int ask(struct cli *cli, struct json_out *request, struct cli_answer *answer)
{
    json_write_text(request, "}");
    struct control_question question = {.line = request->text, .patience_ms = ORDER_MS};
    int status = request->failed ? CONTROL_NO : cli_client_ask(cli, &question, answer);
    json_write_free(request);
    return status;
}

int cli_order(struct cli *cli)
{
    struct json_out request = {0};
    struct cli_answer answer = {0};
    begin_request(cli, &request);
    return ask(cli, &request, &answer);
}

/* Waits until the daemon that got the request has ended. Another one may start in its place. */
static int wait_for_end(struct cli *cli)
{
    cli_out_end(cli, CONTROL_DONE); /* prints the answer first */
    while (cli->attached == 0 && segment_owner_lives(&cli->segment))
        poll(NULL, 0, POLL_MS);
    cli_message("%s: ended", cli->instance);
    return CONTROL_DONE;
}

int cli_end(struct cli *cli)
{
    struct json_out request = {0};
    struct cli_answer answer = {0};
    begin_request(cli, &request);
    int status = ask(cli, &request, &answer);
    bool wait =
        status == CONTROL_DONE && cli_given(cli, CLI_OPTION_WAIT) && !cli_given(cli, CLI_OPTION_DRY_RUN);
    return wait ? wait_for_end(cli) : status;
}

static int cursor_line(const char *text, size_t bytes, void *user)
{
    struct cli *cli = user;
    struct json_span value;
    char *cursor = NULL;
    if (json_find((struct json_span){text, bytes}, "/cursor", &value))
        cursor = json_text(value);
    if (cursor != NULL) {
        json_write_text(&cli->out, cursor);
        json_write_text(&cli->out, "\n");
    } else {
        cli_message("%s: no cursor is stored yet", cli->instance);
    }
    free(cursor);
    return EP_OK;
}

int cli_cursor(struct cli *cli)
{
    const char *set = cli->values[CLI_OPTION_SET];
    if (set == NULL && cli_given(cli, CLI_OPTION_DRY_RUN)) {
        cli_message("cursor: --dry-run needs --set");
        return CONTROL_USAGE;
    }
    struct json_out request = {0};
    struct cli_answer answer = {.on_line = cli_given(cli, CLI_OPTION_JSON) ? NULL : cursor_line,
                                .user = cli,
                                .quiet = set == NULL};
    begin_request(cli, &request);
    if (set != NULL)
        put(&request, "set", set, strlen(set));
    return ask(cli, &request, &answer);
}
