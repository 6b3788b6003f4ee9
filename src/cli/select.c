/* SPDX-License-Identifier: MIT */
/*
 * Builds the request line for the keeper (control.h) from the arguments: filters with their units,
 * UIDs, ALL. Runs in eventpipe. Pure. The keeper checks everything again; messages here name the
 * options as the user typed them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/cli/cli.h"

/* Writes the UIDs that the user gave to `eventpipe queue`, show, retry, hold, release, requeue or remove,
 * or the word ALL, into the request for the keeper. Returns 0, or CONTROL_USAGE with a message. */
static int write_uids(const struct cli *cli, struct text *out, struct error *error)
{
    if (cli->arg_count == 0)
        return 0;
    bool wants_all = false;
    for (int i = 0; i < cli->arg_count; i++)
        wants_all = wants_all || strcmp(cli->args[i], "ALL") == 0;
    if (wants_all && cli->arg_count > 1)
        return base_error_set(error, CONTROL_USAGE, "either UIDs or ALL, not both");
    if (wants_all && (cli->command->accepts & CLI_FILTERS) == 0)
        return base_error_set(error, CONTROL_USAGE, "%s takes UIDs, not ALL", cli->command->name);
    base_text_append(out, wants_all ? ",\"all\":true" : ",\"uids\":[");
    for (int i = 0; !wants_all && i < cli->arg_count; i++) {
        base_text_append(out, i == 0 ? "" : ",");
        if (cli->args[i][0] == '\0')
            return base_error_set(error, CONTROL_USAGE, "a UID must not be empty");
        json_write_string(out, cli->args[i], strlen(cli->args[i]));
    }
    base_text_append(out, wants_all ? "" : "]");
    return 0;
}

/* Writes the command line's filter --stage STAGE or --stage SOURCE/STAGE into the request for the keeper.
 * Returns 0, or CONTROL_USAGE with a message if --source is given, too: the two could contradict each
 * other. */
static int write_stage_filter(const struct cli *cli, struct text *out, struct error *error)
{
    const char *stage = cli->values[CLI_OPTION_STAGE];
    const char *slash = stage != NULL ? strchr(stage, '/') : NULL;
    if (slash != NULL && cli_has_option(cli, CLI_OPTION_SOURCE))
        return base_error_set(error, CONTROL_USAGE, "--stage %s already names its source: omit --source",
                              stage);
    if (slash != NULL) {
        base_text_append(out, ",\"source\":");
        json_write_string(out, stage, (size_t)(slash - stage));
        stage = slash + 1;
    }
    if (stage != NULL)
        json_write_member_text(out, "stage", stage);
    return 0;
}

/* Writes the filters --older and --limit of `eventpipe queue`, retry, hold, release, requeue or remove into
 * the request for the keeper. Returns 0, or CONTROL_USAGE with a message that shows what is expected. */
static int write_older_and_limit_filters(const struct cli *cli, struct text *out, struct error *error)
{
    const char *older_text = cli->values[CLI_OPTION_OLDER], *limit_text = cli->values[CLI_OPTION_LIMIT];
    uint64_t older_ms;
    if (older_text != NULL && base_units_read_duration(older_text, &older_ms) != EP_OK)
        return base_error_set(error, CONTROL_USAGE,
                              "--older: expected a duration such as 90s, 15m, 2h or 7d, found \"%s\"",
                              older_text);
    if (older_text != NULL)
        json_write_member_uint(out, "older_ms", older_ms);
    if (limit_text == NULL)
        return 0;
    char *number_end;
    errno = 0;
    unsigned long long limit_count = strtoull(limit_text, &number_end, 10);
    if (limit_text[0] < '0' || limit_text[0] > '9' || *number_end != '\0' || errno != 0 || limit_count == 0 ||
        limit_count > (1ULL << 53))
        return base_error_set(error, CONTROL_USAGE, "--limit: expected a number of 1 or more, found \"%s\"",
                              limit_text);
    json_write_member_uint(out, "limit", limit_count);
    return 0;
}

/* Checks the event state that the user of `eventpipe queue`, retry, hold, release, requeue or remove gave
 * with --state (NULL if not given). The keeper, which gets the request, would refuse a wrong one, too, but
 * could not name the option. Returns 0, or CONTROL_USAGE with a message that lists the states. */
static int check_state_name(const char *state, struct error *error)
{
    for (int i = STORE_READY; state != NULL && i <= STORE_DEAD; i++)
        if (strcmp(state, store_state_name((enum store_state)i)) == 0)
            return 0;
    return state == NULL
               ? 0
               : base_error_set(error, CONTROL_USAGE,
                                "--state: expected ready, running, delayed, held or dead, found \"%s\"",
                                state);
}

/* Checks that `eventpipe retry`, hold, release, requeue or remove got a filter, UIDs or ALL; --limit alone
 * is not enough, because a forgotten filter must not change every event. The keeper checks this again.
 * Returns 0, or CONTROL_USAGE with a message. */
static int check_filter_given(const struct cli *cli, struct error *error)
{
    static const enum cli_option_id filters[] = {CLI_OPTION_SOURCE,  CLI_OPTION_STAGE, CLI_OPTION_STATE,
                                                 CLI_OPTION_ADDRESS, CLI_OPTION_TYPE,  CLI_OPTION_OLDER,
                                                 CLI_OPTION_ERROR};
    bool is_event_named = cli->arg_count > 0 || !cli->command->changes;
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++)
        is_event_named = is_event_named || cli_has_option(cli, filters[i]);
    return is_event_named ? 0
                          : base_error_set(error, CONTROL_USAGE,
                                           "%s: which events? Give UIDs or filters, or ALL for every event",
                                           cli->command->name);
}

/* Writes the JSON request to the keeper for `eventpipe queue`, show, retry, hold, release, requeue or
 * remove, with the filters and UIDs that the user gave. Returns 0, or an exit status with a message. */
int cli_select_write_request(const struct cli *cli, struct text *out, struct error *error)
{
    static const struct {
        enum cli_option_id option;
        const char *member;
    } text_filters[] = {
        {CLI_OPTION_SOURCE, "source"}, {CLI_OPTION_STATE, "state"}, {CLI_OPTION_ADDRESS, "address"},
        {CLI_OPTION_TYPE, "type"},     {CLI_OPTION_ERROR, "error"},
    };
    base_text_append(out, "{\"command\":\"");
    base_text_append(out, cli->command->name);
    base_text_append(out, "\"");
    int code = check_filter_given(cli, error);
    if (code == 0)
        code = check_state_name(cli->values[CLI_OPTION_STATE], error);
    if (code == 0)
        code = write_uids(cli, out, error);
    for (size_t i = 0; i < sizeof text_filters / sizeof text_filters[0]; i++)
        if (cli->values[text_filters[i].option] != NULL)
            json_write_member_text(out, text_filters[i].member, cli->values[text_filters[i].option]);
    if (code == 0)
        code = write_stage_filter(cli, out, error);
    if (code == 0)
        code = write_older_and_limit_filters(cli, out, error);
    if (cli_has_option(cli, CLI_OPTION_DRY_RUN))
        base_text_append(out, ",\"dry_run\":true");
    base_text_append(out, "}");
    if (code == 0 && out->failed)
        return base_error_set(error, CONTROL_FAILED, "out of memory");
    if (code == 0 && out->bytes >= CONTROL_REQUEST_BYTES)
        return base_error_set(
            error, CONTROL_USAGE,
            "too many UIDs: a request holds %d KiB of them; split them, for example with xargs -n 500",
            CONTROL_REQUEST_BYTES / 1024 - 1);
    return code;
}
