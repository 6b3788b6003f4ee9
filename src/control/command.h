/* SPDX-License-Identifier: MIT */
/*
 * The one table of operators' commands. Each part of eventpipe reads from it what concerns that part:
 *   command line   usage, the options a command accepts, whether it may ask the store while the daemon
 *                  is down
 *   supervisor     which commands it serves itself, and which only root and the daemon's user may give
 *   keeper         the members a request may have, the change of events that the store makes
 * The functions that carry a command out stand with the process that runs them, in a switch or an array by
 * enum control_command_id.
 */
#ifndef CONTROL_COMMAND_H
#define CONTROL_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "src/store/store.h"

enum control_command_id {
    CONTROL_COMMAND_STATUS,
    CONTROL_COMMAND_QUEUE,
    CONTROL_COMMAND_SHOW,
    CONTROL_COMMAND_CRASHES,
    CONTROL_COMMAND_TRACE,
    CONTROL_COMMAND_RETRY,
    CONTROL_COMMAND_HOLD,
    CONTROL_COMMAND_RELEASE,
    CONTROL_COMMAND_REQUEUE,
    CONTROL_COMMAND_REMOVE,
    CONTROL_COMMAND_INJECT,
    CONTROL_COMMAND_IMPORT,
    CONTROL_COMMAND_PAUSE,
    CONTROL_COMMAND_RESUME,
    CONTROL_COMMAND_RESTART,
    CONTROL_COMMAND_DRAIN,
    CONTROL_COMMAND_STOP,
    CONTROL_COMMAND_CHECK,
    CONTROL_COMMAND_CHAOS,
    CONTROL_COMMAND_CURSOR,
    CONTROL_COMMAND_PING,
    CONTROL_COMMAND_COUNT
};

/* Which process carries a command out. */
enum control_server { CONTROL_BY_CLI, CONTROL_BY_SUPERVISOR, CONTROL_BY_KEEPER };

/* What a command accepts: options on the command line, and members of the request to the keeper. */
enum control_accepts {
    CONTROL_ACCEPTS_JSON = 1 << 0,    /* --json */
    CONTROL_ACCEPTS_FILTERS = 1 << 1, /* UIDs, ALL, --source, --stage and the other filters, --limit */
    CONTROL_ACCEPTS_UIDS = 1 << 2,    /* UIDs and --source; it needs a UID */
    CONTROL_ACCEPTS_DRY_RUN = 1 << 3, /* --dry-run */
    CONTROL_ACCEPTS_SET = 1 << 4,     /* --set; it needs a source */
    CONTROL_ACCEPTS_LINES = 1 << 5,   /* events as lines behind the request; it needs a source */
    CONTROL_ACCEPTS_FIELDS = 1 << 6,  /* --fields */
    CONTROL_ACCEPTS_WATCH = 1 << 7,   /* --watch */
    CONTROL_ACCEPTS_LIMIT = 1 << 8,   /* --limit, without the filters */
    CONTROL_ACCEPTS_AS = 1 << 9,      /* --source and --as */
    CONTROL_ACCEPTS_WAIT = 1 << 10,   /* --wait */
    CONTROL_ACCEPTS_CHAOS = 1 << 11   /* --seconds, --seed and the other options of a chaos run */
};

/* A command that changes events: store_command_rule says from which states, to which, and what the trace
 * records. */
struct control_change {
    enum store_command store_command;
    const char *done; /* as in "3 events retried" */
};

struct control_command {
    enum control_command_id id;
    const char *name;
    enum control_server server;
    bool changes;                 /* only root and the daemon's user may give it */
    unsigned accepts;             /* bits of enum control_accepts */
    const char *arguments, *help; /* for the usage text; help NULL: the command line does not offer it */
    int least, most;              /* arguments; most -1 = any number */
    const struct control_change *change; /* NULL: changes no events by their state */
};

extern const struct control_command control_commands[CONTROL_COMMAND_COUNT]; /* in the order of their ids */

/* NULL: there is no such command. */
const struct control_command *control_command_find(const char *name);
/* "delayed and dead": the states in `states` (bits 1 << enum store_state) as a phrase. */
void control_command_describe_states(unsigned states, char *buffer, size_t size);
/* The state of an event after this change, as a data line has it. */
const char *control_command_get_new_state(const struct control_change *change);

#endif
