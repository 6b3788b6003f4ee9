/* SPDX-License-Identifier: MIT */
/* pause, resume, restart, drain and stop, which the supervisor carries out; and cursor, which the
 * keeper does. Runs in eventpipe. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "src/cli/cli.h"

#define ANSWER_TIMEOUT_MS 15000
#define POLL_MS 100

/* Appends ,"member":"text", of `text_bytes` bytes, to the JSON request that `eventpipe pause`, resume,
 * restart, drain, stop or cursor sends to the daemon. */
static void write_sized_text_member(struct text *out, const char *member, const char *text, size_t text_bytes)
{
    base_text_append(out, ",\"");
    base_text_append(out, member);
    base_text_append(out, "\":");
    json_write_string(out, text, text_bytes);
}

/* Begins the JSON request of `eventpipe pause`, resume, restart, drain, stop or cursor: the command, and
 * the source and stage that the user named as SOURCE[/STAGE]. The caller may add members;
 * finish_and_send_request closes the object. */
static void begin_order_request(const struct cli *cli, struct text *out)
{
    base_text_append(out, "{\"command\":\"");
    base_text_append(out, cli->command->name);
    base_text_append(out, "\"");
    if (cli->arg_count > 0) {
        const char *target = cli->args[0], *slash = strchr(target, '/');
        write_sized_text_member(out, "source", target,
                                slash != NULL ? (size_t)(slash - target) : strlen(target));
        if (slash != NULL)
            write_sized_text_member(out, "stage", slash + 1, strlen(slash + 1));
    }
    if (cli_has_option(cli, CLI_OPTION_DRY_RUN))
        base_text_append(out, ",\"dry_run\":true");
}

/* Closes the JSON request that begin_order_request began, sends it to the daemon, and frees it. `eventpipe
 * pause`, resume, restart, drain, stop and cursor end with it. Returns an exit status. */
static int finish_and_send_request(struct cli *cli, struct text *request, struct cli_answer *answer)
{
    base_text_append(request, "}");
    struct control_question question = {.line = request->text, .patience_ms = ANSWER_TIMEOUT_MS};
    int status = request->failed ? CONTROL_FAILED : cli_send_request(cli, &question, answer);
    base_text_free(request);
    return status;
}

/* Runs `eventpipe pause`, `resume` and `restart`: asks the daemon's supervisor to pause, resume or restart
 * a source or a stage. Returns an exit status. */
int cli_pause_resume_restart(struct cli *cli)
{
    struct text request = {0};
    struct cli_answer answer = {0};
    begin_order_request(cli, &request);
    return finish_and_send_request(cli, &request, &answer);
}

/* Waits for `eventpipe stop --wait` and `drain --wait` until the daemon that got the request has ended.
 * Watches the shared memory that was attached before, not the instance's name, because a new daemon may
 * already have started under it. Returns CONTROL_DONE. */
static int wait_for_daemon_end(struct cli *cli)
{
    cli_finish_output(cli, CONTROL_DONE); /* prints the answer first */
    while (cli->attach_error == 0 && segment_owner_lives(&cli->segment))
        poll(NULL, 0, POLL_MS);
    cli_print_message("%s: the daemon has ended", cli->instance);
    return CONTROL_DONE;
}

/* Runs `eventpipe drain` and `stop`: asks the daemon's supervisor to shut down; with --wait it returns only
 * when the daemon has ended. Returns an exit status. */
int cli_drain_or_stop(struct cli *cli)
{
    struct text request = {0};
    struct cli_answer answer = {0};
    begin_order_request(cli, &request);
    int status = finish_and_send_request(cli, &request, &answer);
    bool must_wait = status == CONTROL_DONE && cli_has_option(cli, CLI_OPTION_WAIT) &&
                     !cli_has_option(cli, CLI_OPTION_DRY_RUN);
    return must_wait ? wait_for_daemon_end(cli) : status;
}

/* Called for the data line of the keeper's answer to `eventpipe cursor SOURCE`: prints the stored cursor as
 * plain text. With --json the line is printed unchanged instead. */
static int on_cursor_line(const char *text, size_t bytes, void *user)
{
    struct cli *cli = user;
    struct json_span value;
    char *cursor = NULL;
    if (json_find((struct json_span){text, bytes}, "/cursor", &value))
        cursor = json_text(value);
    if (cursor != NULL) {
        base_text_append(&cli->out, cursor);
        base_text_append(&cli->out, "\n");
    } else {
        cli_print_message("%s: no cursor is stored yet", cli->instance);
    }
    free(cursor);
    return EP_OK;
}

/* Runs `eventpipe cursor SOURCE [--set CURSOR]`: asks the keeper to show the cursor from which the source
 * continues to fetch, or to set it. Returns an exit status. */
int cli_cursor(struct cli *cli)
{
    const char *new_cursor = cli->values[CLI_OPTION_SET];
    if (new_cursor == NULL && cli_has_option(cli, CLI_OPTION_DRY_RUN)) {
        cli_print_message("cursor: --dry-run needs --set");
        return CONTROL_USAGE;
    }
    struct text request = {0};
    struct cli_answer answer = {.on_line = cli_has_option(cli, CLI_OPTION_JSON) ? NULL : on_cursor_line,
                                .user = cli,
                                .quiet = new_cursor == NULL};
    begin_order_request(cli, &request);
    if (new_cursor != NULL)
        write_sized_text_member(&request, "set", new_cursor, strlen(new_cursor));
    return finish_and_send_request(cli, &request, &answer);
}
