/* SPDX-License-Identifier: MIT */
/* The table of operators' commands, and lookups in it. Pure. Runs in eventpipe, the supervisor and the
 * keeper. */
#include "src/control/command.h"

#include <stdio.h>
#include <string.h>

static const struct control_change retry = {STORE_RETRY, "retried"};
static const struct control_change hold = {STORE_HOLD, "held"};
static const struct control_change release = {STORE_RELEASE, "released"};
static const struct control_change requeue = {STORE_REQUEUE, "requeued"};
static const struct control_change remove_events = {STORE_REMOVE, "removed"};

#define JSON CONTROL_ACCEPTS_JSON
#define FILTERS CONTROL_ACCEPTS_FILTERS
#define UIDS CONTROL_ACCEPTS_UIDS
#define DRY_RUN CONTROL_ACCEPTS_DRY_RUN
#define CHANGE (JSON | FILTERS | DRY_RUN)

/* clang-format off */
#define COMMAND(ID, name, server, changes, accepts, arguments, least, most, help, change) \
    [CONTROL_COMMAND_##ID] = {CONTROL_COMMAND_##ID, name, CONTROL_BY_##server, changes, accepts, arguments,  \
                              help, least, most, change},
const struct control_command control_commands[CONTROL_COMMAND_COUNT] = {
    COMMAND(STATUS, "status", CLI, false, JSON | CONTROL_ACCEPTS_WATCH, "", 0, 0,
            "show health, sources and stages", NULL)
    COMMAND(QUEUE, "queue", KEEPER, false, JSON | FILTERS | CONTROL_ACCEPTS_FIELDS, "[FILTERS]", 0, -1,
            "list the events in the store, oldest first", NULL)
    COMMAND(SHOW, "show", KEEPER, false, JSON | UIDS, "UID...", 1, -1,
            "show all of an event: data, context, errors", NULL)
    COMMAND(CRASHES, "crashes", CLI, false, JSON | CONTROL_ACCEPTS_LIMIT, "[SOURCE[/STAGE]]", 0, 1,
            "list crashes: process, time, cause, event", NULL)
    COMMAND(TRACE, "trace", CLI, false, JSON | UIDS, "UID", 1, 1,
            "show an event's history: stages, answers, crashes", NULL)
    COMMAND(RETRY, "retry", KEEPER, true, CHANGE, "FILTERS", 0, -1,
            "retry delayed and dead events now, reset counters", &retry)
    COMMAND(HOLD, "hold", KEEPER, true, CHANGE, "FILTERS", 0, -1,
            "hold events: no stage gets them until a release", &hold)
    COMMAND(RELEASE, "release", KEEPER, true, CHANGE, "FILTERS", 0, -1,
            "release held events", &release)
    COMMAND(REQUEUE, "requeue", KEEPER, true, CHANGE, "FILTERS", 0, -1,
            "send back to the first stage, with an empty context", &requeue)
    COMMAND(REMOVE, "remove", KEEPER, true, CHANGE, "FILTERS", 0, -1,
            "remove events from the store for good", &remove_events)
    COMMAND(INJECT, "inject", KEEPER, true, JSON | DRY_RUN | CONTROL_ACCEPTS_LINES, "SOURCE [FILE]", 1, 2,
            "add events, one JSON object a line (default: stdin)", NULL)
    COMMAND(IMPORT, "import", CLI, true, JSON | DRY_RUN | CONTROL_ACCEPTS_AS, "FILE", 1, 1,
            "import a database of the Go eventpipe", NULL)
    COMMAND(PAUSE, "pause", SUPERVISOR, true, DRY_RUN, "SOURCE[/STAGE]", 1, 1,
            "stop fetching, or running this stage", NULL)
    COMMAND(RESUME, "resume", SUPERVISOR, true, DRY_RUN, "SOURCE[/STAGE]", 1, 1,
            "end a pause", NULL)
    COMMAND(RESTART, "restart", SUPERVISOR, true, DRY_RUN, "SOURCE[/STAGE]", 1, 1,
            "restart its processes", NULL)
    COMMAND(DRAIN, "drain", SUPERVISOR, true, DRY_RUN | CONTROL_ACCEPTS_WAIT, "", 0, 0,
            "stop fetching, finish what is ready, then stop", NULL)
    COMMAND(STOP, "stop", SUPERVISOR, true, DRY_RUN | CONTROL_ACCEPTS_WAIT, "", 0, 0,
            "stop gracefully: finish events being processed", NULL)
    COMMAND(CHECK, "check", KEEPER, false, JSON, "", 0, 0,
            "check the configuration and the store", NULL)
    COMMAND(CHAOS, "chaos", CLI, false, JSON | CONTROL_ACCEPTS_CHAOS, "[SOURCE]", 0, 1,
            "test stages under kills, with a store of its own", NULL)
    COMMAND(CURSOR, "cursor", KEEPER, false, JSON | DRY_RUN | CONTROL_ACCEPTS_SET, "SOURCE", 1, 1,
            "show or set where a source fetches from", NULL)
    COMMAND(PING, "ping", SUPERVISOR, false, 0, "", 0, 0, NULL, NULL)
};
/* clang-format on */

/* Returns the control command (such as `eventpipe retry`) of this name, or NULL. `eventpipe` looks up what
 * the user typed; the supervisor and the keeper look up what a request on the control socket names. */
const struct control_command *control_command_find(const char *name)
{
    for (size_t i = 0; i < CONTROL_COMMAND_COUNT; i++)
        if (strcmp(control_commands[i].name, name) == 0)
            return &control_commands[i];
    return NULL;
}

/* Describes which states of events a control command accepts: writes the set (bits 1 << enum store_state)
 * as a phrase, such as "delayed and dead". `eventpipe help` shows the phrase; the keeper sends it in the
 * answer "nothing matched". */
void control_command_describe_states(unsigned states, char *buffer, size_t size)
{
    size_t used_bytes = 0;
    buffer[0] = '\0';
    for (int state = STORE_READY; state <= STORE_DEAD && used_bytes < size; state++) {
        unsigned later_states = states >> (state + 1);
        if ((states & (1u << state)) == 0)
            continue;
        const char *separator = later_states == 0                          ? ""
                                : (later_states & (later_states - 1)) == 0 ? " and "
                                                                           : ", ";
        used_bytes += (size_t)snprintf(buffer + used_bytes, size - used_bytes, "%s%s",
                                       store_state_name((enum store_state)state), separator);
    }
}

const char *control_command_get_new_state(const struct control_change *change)
{
    int makes = store_command_rule(change->store_command)->makes;
    return makes < 0 ? "removed" : store_state_name((enum store_state)makes);
}
