/* SPDX-License-Identifier: MIT */
/* What the files of the command line share: its options, and the state of one run. Runs in eventpipe
 * only. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <signal.h>

#include "shm/segment.h"
#include "src/config/config.h"
#include "src/control/command.h"
#include "src/control/control.h"
#include "src/json/json.h"

/* The only list of options: id, long name, letter, argument, commands that accept it (bits of enum
 * control_accepts, or CLI_ANY), help. */
#define CLI_OPTIONS(X)                                                                                   \
    X(CONFIG, "config", 'c', "FILE", CLI_ANY, "the daemon's configuration")                              \
    X(INSTANCE, "instance", 'i', "INSTANCE", CLI_ANY, "the instance, by name")                           \
    X(HELP, "help", 'h', NULL, CLI_ANY, "show this help and exit")                                       \
    X(VERSION, "version", 'V', NULL, CLI_ANY, "show version and exit")                                   \
    X(JSON, "json", 0, NULL, CLI_JSON, "print one JSON object a line")                                   \
    X(WATCH, "watch", 0, NULL, CLI_WATCH, "repeat every second, until q or Ctrl-C")                      \
    X(FIELDS, "fields", 'o', "FIELD,...", CLI_FIELDS, "print these fields, separated by tabs")           \
    X(SOURCE, "source", 0, "SOURCE", CLI_FILTERS | CLI_UIDS | CLI_AS, "events of this source")           \
    X(STAGE, "stage", 0, "[SOURCE/]STAGE", CLI_FILTERS, "waiting for this stage, or dead at it")         \
    X(STATE, "state", 0, "STATE", CLI_FILTERS, "ready, running, delayed, held or dead")                  \
    X(ADDRESS, "address", 0, "ADDRESS", CLI_FILTERS, "of this address")                                  \
    X(TYPE, "type", 0, "TYPE", CLI_FILTERS, "of this type")                                              \
    X(OLDER, "older", 0, "DURATION", CLI_FILTERS, "that arrived longer ago: 90s, 15m, 2h, 7d")           \
    X(ERROR, "error", 0, "TEXT", CLI_FILTERS, "whose error contains this text")                          \
    X(LIMIT, "limit", 0, "N", CLI_FILTERS | CLI_LIMIT, "at most N: the oldest events, the last crashes") \
    X(DRY_RUN, "dry-run", 0, NULL, CLI_DRY_RUN, "change nothing, show what would change")                \
    X(SET, "set", 0, "CURSOR", CLI_SET, "fetch from this cursor on")                                     \
    X(AS, "as", 0, "ID", CLI_AS, "import as this source of the configuration")                           \
    X(WAIT, "wait", 0, NULL, CLI_WAIT, "wait until the daemon has ended")                                \
    X(SECONDS, "seconds", 0, "N", CLI_CHAOS, "how long faults are injected (default: 20)")               \
    X(EVENTS, "events", 0, "N", CLI_CHAOS, "events of each source (default: no limit)")                  \
    X(SAMPLE, "sample", 0, "FILE", CLI_CHAOS, "payloads, a JSON value a line (default: made up)")        \
    X(SEED, "seed", 0, "N", CLI_CHAOS, "seed of the faults, to repeat a run")                            \
    X(YES, "yes", 0, NULL, CLI_CHAOS, "run the stages and kill them while they work")

#define CLI_ANY (~0u)
#define CLI_JSON CONTROL_ACCEPTS_JSON
#define CLI_WATCH CONTROL_ACCEPTS_WATCH
#define CLI_FIELDS CONTROL_ACCEPTS_FIELDS
#define CLI_FILTERS CONTROL_ACCEPTS_FILTERS
#define CLI_UIDS CONTROL_ACCEPTS_UIDS
#define CLI_LIMIT CONTROL_ACCEPTS_LIMIT
#define CLI_DRY_RUN CONTROL_ACCEPTS_DRY_RUN
#define CLI_SET CONTROL_ACCEPTS_SET
#define CLI_AS CONTROL_ACCEPTS_AS
#define CLI_WAIT CONTROL_ACCEPTS_WAIT
#define CLI_CHAOS CONTROL_ACCEPTS_CHAOS

enum cli_option_id {
#define X(id, ...) CLI_OPTION_##id,
    CLI_OPTIONS(X)
#undef X
        CLI_OPTION_COUNT
};

struct cli_option {
    const char *name;
    char letter;
    const char *argument; /* NULL: takes none */
    unsigned accepted_by;
    const char *help;
};
extern const struct cli_option cli_options[CLI_OPTION_COUNT];

#define CLI_PROBLEMS_MAX 200

struct cli_problem {
    unsigned line;
    char *key, *message;
};

struct cli {
    const struct control_command *command;
    const char *values[CLI_OPTION_COUNT]; /* NULL = not given; "" for an option without argument */
    char **args;                          /* of the command */
    int arg_count;

    /* the instance (cli_instance_find) */
    char instance[SHM_NAME_BYTES];
    char *config_path, *control_path, *store_url; /* NULL = not known */
    struct config *config;                        /* NULL: none, or it has problems */
    struct cli_problem *problems;
    size_t problem_count;
    struct segment segment;
    int attach_error;  /* 0 = attached, else the negative errno of segment_attach */
    bool daemon_alive; /* the segment's supervisor lives */

    struct text out; /* data not yet written to stdout */
    bool output_failed;
    char final_message[1200]; /* message to be printed once the data is written */
};

static inline bool cli_has_option(const struct cli *cli, enum cli_option_id option)
{
    return cli->values[option] != NULL;
}

/* options.c. 0, or CONTROL_USAGE with a message. */
int cli_options_parse(struct cli *cli, int argc, char **argv, struct error *error);
void cli_options_write_usage(struct text *out); /* of all commands */
void cli_options_write_command_usage(const struct control_command *command, struct text *out);

/* select.c: builds the request to the keeper. 0, or CONTROL_USAGE with a message. */
int cli_select_write_request(const struct cli *cli, struct text *out, struct error *error);

/* instance.c: finds the instance. 0, or an exit status with a message. */
int cli_instance_find(struct cli *cli, struct error *error);
int cli_instance_attach(struct cli *cli); /* closes an earlier segment first */
void cli_instance_close(struct cli *cli);

/* client.c */
#define CLI_SILENCE_LIMIT_MS 5000 /* a command that only reads opens the store itself after this silence */
struct cli_answer {
    control_on_line *on_line; /* data lines; NULL = printed as they are */
    void *user;
    uint64_t line_count;
    bool quiet; /* omits the message of a success that had data lines */
};
/* Sends the request to the daemon. A command that only reads opens the store itself if the daemon is
 * down or does not answer. Returns the exit status. cli_finish_output prints the answer's message after the
 * data. */
int cli_send_request(struct cli *cli, const struct control_question *question, struct cli_answer *answer);
void cli_print_message(const char *format, ...)
    __attribute__((format(printf, 1, 2))); /* on stderr, "eventpipe: " before them */

/* Writes what stdout takes now and keeps the rest, so that a pager never delays the daemon. */
void cli_write_available_output(struct cli *cli);
/* Writes the rest, then prints the final message. Returns CONTROL_FAILED if writing failed, else `status`. */
int cli_finish_output(struct cli *cli, int status);
size_t cli_terminal_width(void); /* columns of the terminal; 0: stdout is not a terminal */
bool cli_may_use_colours(void);

/* The commands; each returns the exit status. */
int cli_status(struct cli *cli);
int cli_queue(struct cli *cli);
int cli_show(struct cli *cli);
int cli_crashes(struct cli *cli);
int cli_trace(struct cli *cli);
int cli_change_events(struct cli *cli);
int cli_cursor(struct cli *cli);
int cli_pause_resume_restart(struct cli *cli);
int cli_drain_or_stop(struct cli *cli);
int cli_inject(struct cli *cli);
int cli_import(struct cli *cli);
int cli_check(struct cli *cli);
int cli_chaos(struct cli *cli);

/* A value of a data line as text for people; "" for null and for a missing member. The caller frees it. */
char *cli_queue_read_text(struct json_span line, const char *pointer);
/* An age in whole seconds, as a data line has it. */
void cli_queue_format_age(struct json_span line, const char *pointer, char *buffer, size_t buffer_bytes);
/* Fields that queue -o takes; ends with NULL. */
extern const char *const cli_queue_fields[];
/* Prints a JSON value over several lines and keeps each token byte for byte. */
void cli_show_print_json(struct text *out, struct json_span value, size_t indent);

#endif
