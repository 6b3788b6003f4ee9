/* SPDX-License-Identifier: MIT */
/*
 * The configuration in memory. yaml.c reads it from a file, or the library's calls build it. The struct
 * config owns everything in it, and config_close frees it. After the first fork it never changes, so
 * children use what they inherit over fork.
 */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "src/base/error.h"
#include "src/base/units.h"

/* The limits of a configuration. config_validate and the reader enforce them. */
#define CONFIG_FILE_BYTES_MAX (1u << 20)
#define CONFIG_SOURCES_MAX 256
#define CONFIG_STAGES_MAX 4000      /* in all sources together: a ticket has 12 bits for the stage */
#define CONFIG_WORKERS_MAX 60000    /* in all stages together: a ticket has 16 bits for the slot */
#define CONFIG_CONCURRENCY_MAX 1000 /* of one stage */
#define CONFIG_INPUT_BUFFER_MAX 100000
#define CONFIG_BATCH_MAX 10000
#define CONFIG_PREFETCH_MAX 64
#define CONFIG_PAGE_MAX 10000
#define CONFIG_LIMIT_MEMORY_MIN 1000000 /* no program starts with less */
#define CONFIG_LIMIT_MEMORY_MAX (UINT64_C(1) << 50)
#define CONFIG_LIMIT_FILES_MIN 8
#define CONFIG_LIMIT_FILES_MAX (1 << 20) /* the kernel's own, unless an administrator has raised it */
#define CONFIG_LIMIT_PROCESSES_MAX (1 << 22)
/* A worker that runs the stage itself needs some memory for the store, the log and its own thread. */
#define CONFIG_WORKER_MEMORY_MIN (UINT64_C(64) << 20)
#define CONFIG_WORKER_FILES_MIN 64
#define CONFIG_TRACE_BYTES_MIN 1000000
#define CONFIG_TRACE_BYTES_MAX (UINT64_C(1) << 40)
#define CONFIG_CONTROL_BYTES_MAX 107 /* the size of a socket address */

enum synchronous { SYNCHRONOUS_FULL, SYNCHRONOUS_NORMAL };
/* UNKNOWN: the file has no valid type, and the reader has reported that. */
enum source_type { SOURCE_IDEFIX, SOURCE_HTTP, SOURCE_FILE, SOURCE_GENERATE, SOURCE_CLIENT, SOURCE_UNKNOWN };
enum stage_type { STAGE_FUNCTION, STAGE_PLUGIN, STAGE_EXEC, STAGE_HTTP };
const char *config_source_type_name(enum source_type type);
const char *config_stage_type_name(enum stage_type type);

struct strings {
    char **at; /* count of them, then NULL */
    size_t count;
};

/* JSON pointers to an event's members in an element of the answer; NULL = not given. */
struct event_pointers {
    char *uid, *event_type, *timestamp, *address;
};

struct http_source_config {
    char *url;              /* with {cursor} {limit} {timeout} {since} */
    struct strings headers; /* "Name: value" */
    char *token;       /* secret: sent as "Authorization: Bearer TOKEN"; read from token_file or token_env */
    char *events;      /* JSON pointer to the array; "" = the answer itself */
    char *cursor_path; /* JSON pointer in the answer, or NULL */
    char *cursor_last_event_path; /* JSON pointer in the last event, or NULL */
    int64_t cursor_increment;     /* added to an integer cursor_last_event_path */
    char *cursor_initial;         /* the cursor to begin with, "" */
    uint64_t connect_timeout_ms;  /* 10 s */
    uint64_t max_bytes;           /* of an answer, 64 MiB */
    uint64_t interval_ms;         /* least pause after an empty answer that came at once, 1 s */
    char *ca_file;
};

struct idefix_source_config {
    char *broker;   /* ssl://HOST:PORT, mqtts://, tcp://, mqtt://; the port may be left out */
    char *account;  /* the address that logs in */
    char *token;    /* secret: read from token_file or token_env; NULL = "" */
    char *encoding; /* the forms that we accept and send: mg, m, jg, j, jmg... Default "mg" */
    char *session;  /* MQTT client id and topic; NULL = 16 random hex digits for each connection's owner */
    char *user, *password;        /* of MQTT: "device" and "77dev22p1" */
    char *ca_file;                /* NULL = the system's certificates */
    char *meta;                   /* JSON text of an object sent at login, NULL = null */
    struct strings groups;        /* sent at login, empty = null */
    uint64_t connect_timeout_ms;  /* TCP, TLS and CONNACK together, 10 s */
    uint64_t response_timeout_ms; /* how long an answer may be overdue, 10 s */
    uint64_t max_bytes;           /* of an answer, inflated, 64 MiB */
};

struct file_source_config {
    char *path;
    enum { FILE_FROM_START, FILE_FROM_END } from; /* without a cursor; default start */
    enum {
        FILE_JSON,
        FILE_TEXT,
        FILE_AUTO
    } format;                /* auto: a line that is a JSON object or array is JSON, any other is text */
    uint64_t max_line_bytes; /* 16 MiB; a longer line is kept as a dead/corrupt event, cut */
};

struct generate_source_config {
    uint64_t count;      /* 0 = no limit */
    uint64_t size_bytes; /* of the payload, 220 */
    double rate;         /* events per second, 0 = as fast as the stages take them */
};

struct client_source_config {
    const struct ep_client *client; /* the library caller's */
    void *state;
};

struct retry_config {
    uint64_t min_ms, max_ms; /* backoff between attempts: 1 s, 5 min */
};

struct limits_config {     /* 0 = the daemon's own limit */
    uint64_t memory_bytes; /* of address space */
    uint64_t cpu_ms;       /* whole seconds, of one event */
    uint64_t files;        /* one more than the largest descriptor */
    uint64_t processes;    /* and threads, of the user that the stage runs as */
};

struct stage_config {
    char *name;
    enum stage_type type;
    uint32_t concurrency;     /* 1 */
    uint32_t input_buffer;    /* 512 events */
    uint32_t batch;           /* answers committed together at most, 500 */
    uint32_t prefetch;        /* exec: events sent together at most, 64 */
    uint64_t commit_delay_ms; /* 5 */
    uint64_t timeout_ms;      /* of one call, 0 = none; default 60 s */
    struct retry_config retry;
    uint32_t max_attempts;           /* 0 = never */
    uint64_t max_age_ms;             /* since arrival, 0 = never */
    uint32_t max_crashes;            /* 3, 0 = never dead from crashes */
    uint64_t restart_max_backoff_ms; /* 30 s: longest pause before a crashed worker is started again */

    struct strings exec;                         /* exec: argv */
    char *directory;                             /* exec: working directory or NULL */
    struct strings environment;                  /* exec: "NAME=value", added to the daemon's */
    char *user, *group;                          /* exec: names or numbers, NULL = the daemon's */
    unsigned user_line, group_line, limits_line; /* in the file, 0 = not given there */
    struct limits_config limits;
    char *plugin;  /* plugin: path */
    char *options; /* plugin, function: JSON text of `options`, "{}" if not given */
    char *url;     /* http */
    struct strings headers;
    char *token; /* http: secret bearer token */
    char *ca_file;
    const struct ep_stage *function; /* function: the library caller's */
    void *function_user;
};

struct source_config {
    char *id;
    enum source_type type;
    char *domain, *address, *event_type, *continuation_id; /* filters; NULL = not given */
    char *since;           /* RFC 3339 text, or NULL (a duration was turned into a time when read) */
    uint64_t long_poll_ms; /* how long a fetch may wait, 60 s */
    uint32_t page_size;    /* events per fetch, 100 */
    struct event_pointers pointers;
    struct retry_config retry;   /* of failed fetches: 1 s, 1 min */
    uint64_t backlog_max_events; /* 0 = no limit; default 10 million */
    union {
        struct idefix_source_config idefix;
        struct http_source_config http;
        struct file_source_config file;
        struct generate_source_config generate;
        struct client_source_config client;
    };
    struct stage_config *stages;
    size_t stage_count;
};

struct config {
    char *path;            /* of the file, NULL from the library */
    char *instance;        /* [A-Za-z0-9._-]{1,63} */
    char *storage;         /* "sqlite:/path" or "memory:" */
    char *control;         /* socket path; /run/eventpipe/INSTANCE.sock; NULL = none (library) */
    uint32_t control_mode; /* of the socket, 0600 */
    enum synchronous synchronous;
    uint64_t drain_timeout_ms; /* 30 s */
    enum ep_severity log_level;
    struct trace_config {
        uint64_t keep_ms, bytes; /* 1 day, 0 = off; 64 MiB */
    } trace;
    struct strings token_variables; /* environment variables, removed before any program is started */
    struct source_config *sources;
    size_t source_count;
};

/*
 * Reads a YAML file and calls report() for every problem, in file order. The message says what was
 * expected, and suggests a similar key for an unknown one. Returns 0 and sets *out if there was no
 * problem, otherwise EP_ECONFIG. A file that cannot be read is one problem (line 0).
 */
struct config_problem {
    const char *file;
    unsigned line;       /* from 1 */
    const char *key;     /* "sources[0].stages[1].retry.min", or "" */
    const char *message; /* "expected a duration such as 500ms, 30s or 5m, found \"quick\"" */
};
typedef void config_report(const struct config_problem *problem, void *user);
int config_read(const char *path, config_report *report, void *user, struct config **out);

/*
 * Converts the file to one JSON object: every key and value as written there, with relative paths made
 * absolute. `eventpipe chaos` calls it for its helper program, after config_read found no problem. Sets
 * *out to text that the caller frees. 0, or a negative code with a message.
 */
int config_convert_to_json(const char *path, char **out, struct error *error);

/*
 * Set the defaults documented in eventpipe.yaml(5), in a struct that is all zero (a source: except its
 * type). Call them first and then set what differs, since 0 has a meaning of its own in many fields.
 * Texts are allocated.
 */
void config_set_defaults(struct config *config);
void config_set_source_defaults(struct source_config *source);
void config_set_stage_defaults(struct stage_config *stage);
/* Checks the rules for every configuration, from a file or from the library: names, duplicates, ranges,
 * at least one source and stage, the settings each type needs. Calls report() for each problem with line
 * 0; config_read calls it too and adds the lines. 0 or EP_ECONFIG. No message contains a secret or a
 * header's value. */
int config_validate(const struct config *config, config_report *report, void *user);
/*
 * Checks whether this process may start every stage as its user and within its limits. The supervisor
 * calls it before it starts stages; an operator's command, which only reads the configuration, does not.
 * Looks users up. Reports as config_validate does, with lines. 0 or EP_ECONFIG.
 */
int config_rights_check(const struct config *config, config_report *report, void *user);
/* Checks, for eventpiped -t, whether the store's directory exists and this process may write to it.
 * Reports as config_validate does. 0 or EP_ECONFIG. */
int config_check_storage(const struct config *config, config_report *report, void *user);
/* Removes the variables that tokens were read from from our environment, so that no stage's program sees
 * them. */
void config_hide_tokens(const struct config *config);
void config_close(struct config **config);

/* Calls each() once for every key that a file may have: "storage", "sources",
 * "sources[].stages[].retry.min"... */
void config_call_for_each_key(void (*on_key)(const char *path, void *user), void *user);

bool config_is_name_valid(
    const char *name); /* of instances, sources, stages: [A-Za-z0-9._-]{1,63}, not "ALL", not
                                      beginning with '-' or '.' */

#endif
