/* SPDX-License-Identifier: MIT */
/*
 * libeventpipe: fetch events, store them, and pass each through a chain of stages, each in processes of
 * its own.
 *
 *   #include <eventpipe.h>
 *
 *   static enum ep_answer greet(ep_call *call, void *state)
 *   {
 *       (void)state;
 *       cJSON_AddStringToObject(ep_call_context(call), "greeting", "hello");
 *       printf("hello %s\n", ep_call_uid(call));
 *       return EP_PROCESSED;
 *   }
 *
 *   int main(void)
 *   {
 *       static const struct ep_stage stage = {.abi = EP_STAGE_ABI, .name = "greet", .process = greet};
 *       struct ep_stage_options options = EP_STAGE_OPTIONS_INIT;
 *       options.concurrency = 4;
 *       ep_manager *manager;
 *       ep_source *source;
 *       if (ep_manager_open(&(struct ep_manager_params){.storage = "memory:"}, &manager) != EP_OK)
 *           return 1;
 *       struct ep_source_params params = {.id = "trial", .type = "generate", .generate_count = 10};
 *       int result = ep_source_add(manager, &params, &source);
 *       if (result == EP_OK)
 *           result = ep_source_push(source, &stage, &options);
 *       if (result == EP_OK)
 *           result = ep_source_run(source);
 *       if (result != EP_OK)
 *           fprintf(stderr, "%s\n", ep_errmsg(manager));
 *       ep_manager_close(&manager);
 *       return result == EP_OK ? 0 : 1;
 *   }
 *
 * Link with `pkg-config --cflags --libs libeventpipe`.
 *
 * Rules for all functions; a comment names only what differs:
 *   Result     EP_OK (0) or a negative enum ep_code. EP_ENOMEM, out of memory, may come from any of them.
 *              No function prints, exits or raises a signal in the calling process.
 *   Pointers   The library copies what it is passed and keeps no pointer to it.
 *   Blocking   A function does not block.
 *   Threads    Use a manager and its sources in one thread at a time. Any thread may call ep_manager_stop.
 *   Fork       Use an object only in the process that opened it, not in a child that was forked.
 */
#ifndef EVENTPIPE_H
#define EVENTPIPE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EP_API __attribute__((visibility("default")))

enum ep_code {
    EP_OK = 0,
    EP_END = 1,      /* a client's answer: no event will ever come again */
    EP_EINVAL = -1,  /* an argument is wrong: correct the call */
    EP_ENOMEM = -2,  /* out of memory */
    EP_EEXIST = -3,  /* the name of a source, or of a stage in its source, is taken: choose another */
    EP_ENOENT = -4,  /* no such file or directory */
    EP_EBUSY = -5,   /* another instance holds the store, or this manager runs: the message names it */
    EP_EACCESS = -6, /* permission denied, or others can read a secret: correct the file's mode or owner */
    EP_ESYSTEM = -7, /* the operating system refused: the message says what */
    EP_ECONFIG = -8, /* the configuration is wrong: the message says where and what was expected */
    EP_ESTORE = -9,  /* the store is broken, not a store, or of a newer version */
    EP_ESTOREBUSY = -10, /* the store cannot be written now (full, locked, read-only): try again later */
    EP_EBACKEND = -11,   /* the backend is unreachable, slow, or failed: try again later */
    EP_EAUTH = -12,      /* the backend refuses the account or token: correct them */
    EP_EPROTO = -13,     /* the backend's answer is malformed */
    EP_ESTATE = -14      /* not possible while the manager runs */
};

/*
 * Returns what a code means, in a few words.
 * code: an enum ep_code; any other number gives "unknown error".
 * Owner: the library; static, never NULL. Any thread, any process.
 */
EP_API const char *ep_strerror(int code);
/* Returns the library's version, such as "0.1.0". Owner: the library; static. Any thread, any process. */
EP_API const char *ep_version(void);

/* Severities are those of syslog(3). */
enum ep_severity { EP_LOG_ERROR = 3, EP_LOG_WARNING = 4, EP_LOG_INFO = 6, EP_LOG_DEBUG = 7 };
/*
 * Receives one log line.
 * line: without its line feed, valid during the call. user: ep_manager_params.log_user.
 * The processes that the library forks call it, so what it stores in memory does not reach the caller's
 * process.
 */
typedef void ep_log_function(enum ep_severity severity, const char *line, void *user);

/* --------------------------------------------------------------------------------------------- manager */

typedef struct ep_manager ep_manager;
typedef struct ep_source ep_source;
struct ep_client;
struct ep_idefix_params;

/* What a commit survives: the key `synchronous` of eventpipe.yaml(5). */
enum ep_durability {
    EP_DURABILITY_DEFAULT = 0, /* EP_DURABILITY_FULL */
    EP_DURABILITY_FULL = 1,    /* crashes and power loss */
    EP_DURABILITY_NORMAL = 2   /* crashes; power loss may undo the latest commits. Faster. */
};

struct ep_manager_params {
    const char *instance; /* names the shared memory segment: 1 to 63 of [A-Za-z0-9._-]; NULL = "ep-PID" */
    const char *storage;  /* "sqlite:PATH", "memory:" or ":memory"; NULL = "memory:" */
    enum ep_durability durability;  /* what a commit survives; 0 = EP_DURABILITY_FULL */
    const char *control;            /* path of a control socket for eventpipe(1); NULL = none */
    const struct ep_client *client; /* for sources with neither type nor client; NULL = none */
    void *client_user;              /* passed to that client's open */
    ep_log_function *log;           /* NULL = lines go to stderr */
    void *log_user;                 /* passed to log */
    int log_level; /* the least important enum ep_severity that is logged; 0 = EP_LOG_WARNING */
};

/*
 * Creates a manager. Starts no process and opens no store.
 * params  copied. client, client_user and log_user are not: they must live until ep_manager_close.
 * out     set on success only; the caller owns the manager and closes it with ep_manager_close.
 * EP_EINVAL  the instance, storage or durability is not valid: correct it.
 */
EP_API int ep_manager_open(const struct ep_manager_params *params, ep_manager **out);

/*
 * Frees the manager and its sources and clears *manager.
 * manager  NULL, or a pointer to NULL: nothing happens. Must not be called while the manager runs.
 */
EP_API void ep_manager_close(ep_manager **manager);

/*
 * Returns the message of the manager's last failure: what happened, where, and what was expected.
 * Owner: the manager; valid until its next call. Never NULL.
 */
EP_API const char *ep_errmsg(const ep_manager *manager);

/* --------------------------------------------------------------------------------------------- sources */

struct ep_source_params {
    const char *id;   /* required; 1 to 63 of [A-Za-z0-9._-]; unique in its manager and in its store */
    const char *type; /* "file", "generate", "http", "idefix"; NULL = client */
    const char *domain, *address, *event_type; /* filters for clients and idefix; NULL = any */
    const char *since;                         /* for clients and idefix: RFC 3339 time; NULL = all events */
    const char *continuation_id;               /* the first cursor, if the store has none; NULL = none */
    uint64_t long_poll_ms;                     /* how long a fetch may wait for events; 0 = 60,000 */
    uint32_t page_size;                        /* the most events per fetch; 0 = the type's default */
    const struct ep_client *client;            /* NULL = the manager's */
    void *client_user;                         /* passed to the client's open */
    const char *path;                          /* file: the file */
    const char *url;                           /* http: the template, see eventpipe.yaml(5) */
    const char *events, *cursor_path, *cursor_last_event_path; /* http: JSON pointers */
    int64_t cursor_increment;              /* http: added to the number at cursor_last_event_path */
    uint64_t generate_count;               /* generate: how many events; 0 = without end */
    uint64_t generate_bytes;               /* generate: size of a payload in bytes; 0 = 220 */
    double generate_rate;                  /* generate: events per second; 0 = as fast as they are taken */
    const struct ep_idefix_params *idefix; /* idefix: required, as is domain or address */
};

/*
 * Adds a source to a manager.
 * params  copied. client and client_user are not: they must live until ep_manager_close.
 * out     set on success only; the manager owns the source, which is valid until ep_manager_close.
 * EP_EINVAL   no valid id; an unknown type; neither type nor client; neither domain nor address where one
 *             is required; no broker or account for idefix: correct params.
 * EP_EEXIST   the manager has a source with this id: choose another.
 * EP_EACCESS  idefix's token_file cannot be used: correct its mode or owner.
 * EP_ESTATE   the manager runs: add the source before or after the run.
 */
EP_API int ep_source_add(ep_manager *manager, const struct ep_source_params *params, ep_source **out);

/* ---------------------------------------------------------------------------------------------- stages */

#define EP_STAGE_ABI 1

/* One event, as a stage sees it; valid until process() returns. */
typedef struct ep_call ep_call;

enum ep_answer {
    EP_PROCESSED = 0, /* the event goes to the next stage, or is completed; it never returns to this stage */
    EP_NOT_PROCESSED = 1, /* try again later: after ep_call_set_retry_after, or after the stage's backoff */
    EP_REMOVE = 2,        /* remove the event from the store */
    EP_REJECT = 3, /* the event is dead, with the reason of ep_call_set_reason, until an operator acts */
    EP_ERROR = 4   /* as EP_NOT_PROCESSED, but counted and shown as a failure, with the reason */
};

/*
 * A stage in C: passed to ep_source_push, or exported by a plugin as
 * `const struct ep_stage ep_plugin_stage`.
 */
struct ep_stage {
    uint32_t abi; /* EP_STAGE_ABI */
    const char *name;
    /*
     * Prepares a worker; called once per worker process, before its first event. May be NULL.
     * options  JSON text of the configuration's `options`, "{}" if it has none; valid during the call.
     * state    set it to the stage's own state; the stage owns it until fini.
     * errbuf   on failure, put the reason here, at most errbuf_size bytes.
     * Returns 0, or another number on failure: the worker exits and is restarted after a backoff.
     */
    int (*init)(const char *options, void **state, char *errbuf, size_t errbuf_size);
    /*
     * Processes one event.
     * call   valid until process() returns, as are all texts and trees got from it.
     * state  what init set, or ep_stage_options.user if there is no init.
     * May block, up to the stage's timeout. A worker makes one call at a time. A crash here ends the worker
     * and counts against this event only.
     */
    enum ep_answer (*process)(ep_call *call, void *state);
    /* Frees the stage's state when the worker ends cleanly; not called after a kill. May be NULL. */
    void (*fini)(void *state);
};
#define EP_PLUGIN_SYMBOL "ep_plugin_stage"

struct ep_stage_options {
    const char *name;         /* NULL = the stage's own */
    uint32_t concurrency;     /* worker processes, at least 1 */
    uint32_t input_buffer;    /* events that may wait before this stage; 0 = 512 */
    uint32_t batch;           /* the most answers committed together; 0 = 500 */
    uint32_t prefetch;        /* exec: the most events sent together, up to 64; 1 = one by one; 0 = 64 */
    uint64_t commit_delay_ms; /* how long a finished answer may wait for its commit, at least 1; 0 = 5 */
    uint64_t timeout_ms;      /* how long one call may take; 0 = 60,000 */
    uint64_t retry_min_ms;    /* first backoff after an answer other than 'processed'; 0 = 1,000 */
    uint64_t retry_max_ms;    /* longest backoff; 0 = 300,000 */
    uint32_t max_attempts;    /* the event is dead after so many attempts; 0 = never */
    uint64_t max_age_ms;      /* an event not processed and older than this is dead; 0 = never */
    uint32_t max_crashes;     /* the event is dead after crashing so many workers; 0 = 3 */
    const char *options;      /* JSON text for init; NULL = "{}" */
    void *user;               /* state of a stage without init; must live until ep_manager_close */
};
#define EP_STAGE_OPTIONS_INIT \
    {                         \
        .concurrency = 1      \
    }

/*
 * Appends a C stage to the source's chain.
 * stage    not copied: it must live until ep_manager_close.
 * options  copied, except user; NULL = the defaults, one worker.
 * EP_EINVAL  no valid name, no process function, another ABI, or concurrency 0: correct the call.
 * EP_EEXIST  the source has a stage with this name: choose another.
 * EP_ESTATE  the manager runs: push before or after the run.
 */
EP_API int ep_source_push(ep_source *source, const struct ep_stage *stage,
                          const struct ep_stage_options *options);

/*
 * Appends a program to the source's chain.
 * argv     copied; ends with NULL. argv[0] is searched in PATH when the run begins.
 * options  copied; name is required.
 * Errors as ep_source_push.
 */
EP_API int ep_source_push_exec(ep_source *source, const char *const *argv,
                               const struct ep_stage_options *options);

/*
 * Appends a plugin to the source's chain.
 * path     copied; the shared object, loaded when the run begins.
 * options  copied; name is required.
 * Errors as ep_source_push.
 */
EP_API int ep_source_push_plugin(ep_source *source, const char *path, const struct ep_stage_options *options);

/*
 * Appends an HTTP endpoint, to which each event is POSTed, to the source's chain.
 * url      copied; http:// or https://.
 * options  copied; name is required.
 * Errors as ep_source_push.
 */
EP_API int ep_source_push_http(ep_source *source, const char *url, const struct ep_stage_options *options);

/*
 * ---- What a stage reads. Only process() may call these, in the thread that runs it. The call owns every
 * result; it is valid until process() returns.
 */

/*
 * Returns the event's JSON text, byte for byte as it is stored, NUL-terminated.
 * bytes  NULL, or set to the length in bytes.
 */
EP_API const char *ep_call_event_text(const ep_call *call, size_t *bytes);
/*
 * Returns the event as a tree, parsed at the first use. Numbers are doubles: integers beyond 2^53 lose
 * digits.
 * NULL: the event is not JSON, or memory is out: return EP_ERROR, or use the text.
 */
EP_API const cJSON *ep_call_event(ep_call *call);
/* Returns the PipelineContext's JSON text, "{}" at first. bytes: NULL, or set to the length in bytes. */
EP_API const char *ep_call_context_text(const ep_call *call, size_t *bytes);
/*
 * Returns the PipelineContext as a tree, an object. The stage may change it: it is stored with the answer.
 * NULL: out of memory: return EP_ERROR.
 */
EP_API cJSON *ep_call_context(ep_call *call);
/* Returns how often this stage has been called for this event, this call included: 1 at first. */
EP_API uint32_t ep_call_attempt(const ep_call *call);
/*
 * Returns a key that is the same at every attempt: "SOURCE/UID/STAGE", with a hash for a long UID.
 * Send it along with an effect that must be recognised when it is repeated.
 */
EP_API const char *ep_call_key(const ep_call *call);
/* Returns the event's UID. */
EP_API const char *ep_call_uid(const ep_call *call);

/* ---- What a stage sets. Only process() may call these, in the thread that runs it. Texts are copied. */

/*
 * Replaces the stored event.
 * text  a JSON object.
 * EP_EINVAL  text is not a JSON object: the event stays as it was.
 */
EP_API int ep_call_set_event(ep_call *call, const char *text);
/* Replaces the stored context; wins over changes to the tree. Parameters and errors as ep_call_set_event. */
EP_API int ep_call_set_context(ep_call *call, const char *text);
/*
 * Sets when the event returns after EP_NOT_PROCESSED or EP_ERROR. ms: milliseconds; 0 = the stage's
 * backoff.
 */
EP_API void ep_call_set_retry_after(ep_call *call, uint64_t ms);
/* Sets the reason that operators see. format: as printf(3); the result is cut to 499 bytes. */
EP_API void ep_call_set_reason(ep_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --------------------------------------------------------------------------------------------- clients */

struct ep_filter {
    const char *domain, *address, *event_type, *since; /* NULL = not given */
};

struct ep_event {
    const char *uid;                                             /* required, unique in its source */
    const char *source_id, *domain, *address, *type, *timestamp; /* NULL = left out; timestamp: RFC 3339 */
    const char *meta;                                            /* JSON text; NULL = left out */
    const char *payload;                                         /* JSON text; NULL = left out */
};

/*
 * The page that a client's events_get fills; valid during that call. Only events_get may call the
 * functions below, in its own thread. Texts are copied.
 */
typedef struct ep_page ep_page;

/*
 * Adds an event to the page. An event without UID, or whose meta or payload is not valid JSON, is stored
 * as dead with the reason; the call still returns EP_OK.
 * event  copied.
 * EP_EINVAL  page or event is NULL.
 */
EP_API int ep_page_add(ep_page *page, const struct ep_event *event);
/*
 * Adds an event that already is JSON text; it is stored byte for byte. Text that is not a JSON object, or
 * has no UID, is stored as dead with the reason; the call still returns EP_OK.
 * uid  NULL = the text's own member `uid`.
 * EP_EINVAL  page or event_json is NULL.
 */
EP_API int ep_page_add_text(ep_page *page, const char *uid, const char *event_json);
/*
 * Sets the cursor that follows the page's events. It is stored with them in one transaction and passed to
 * the next events_get.
 * EP_EINVAL  page or cursor is NULL.
 */
EP_API int ep_page_set_cursor(ep_page *page, const char *cursor);
/*
 * Sets the reason why events_get fails.
 * retry_after_ms  milliseconds until the next fetch; 0 = the source's backoff.
 * Returns EP_EBACKEND, so that a client can write `return ep_page_fail(...)`; EP_EINVAL if page is NULL.
 */
EP_API int ep_page_fail(ep_page *page, uint64_t retry_after_ms, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * A client of the caller's own. Its functions run in the producer process, which is forked from the
 * caller's, in a thread of their own, one at a time.
 */
struct ep_client {
    /*
     * Opens a session; called before the first fetch, and again after it failed. May be NULL: session is
     * user.
     * user     ep_source_params.client_user.
     * filter   valid during the call.
     * session  set it to the client's own state; the client owns it until close.
     * errbuf   on failure, put the reason here, at most errbuf_size bytes.
     * Returns 0 or a negative enum ep_code.
     */
    int (*open)(void *user, const struct ep_filter *filter, void **session, char *errbuf, size_t errbuf_size);
    /*
     * Fetches once.
     * cursor   fetch the events after it; NULL = none yet. Valid during the call, as is filter.
     * limit    the most events to add.
     * wait_ms  how long to wait for the first event, in milliseconds.
     * EP_OK    the page is filled, or empty if there is no event yet: the next call follows, at most ten
     *          a second.
     * EP_END   as EP_OK, and no event will ever come again.
     * Negative: the fetch failed. Nothing of the page is stored; the fetch is repeated after a backoff,
     * for ever.
     */
    int (*events_get)(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                      uint64_t wait_ms, ep_page *page);
    void (*close)(void *session); /* ends the session; may be NULL */
    int requires_filter;          /* 1: the source must have a domain or an address */
};

/* ---------------------------------------------------------------------------------------------- Idefix */

/*
 * A connection to an Idefix backend, for programs that need its events without stages and store. Each
 * call connects and logs in if there is no connection.
 *
 *   ep_idefix *idefix;
 *   struct ep_idefix_page *page;
 *   char errbuf[200];
 *   struct ep_idefix_params params = {
 *       .broker = "ssl://idefix.example", .account = "me@acme", .token_file = "acme.token"};
 *   struct ep_idefix_query query = {.domain = "acme", .wait_ms = 30000};
 *   if (ep_idefix_open(&params, &idefix, errbuf, sizeof errbuf) != EP_OK)
 *       errx(1, "%s", errbuf);
 *   if (ep_idefix_events_get(idefix, &query, &page) != EP_OK)
 *       errx(1, "%s", ep_idefix_errmsg(idefix));
 *   for (size_t i = 0; i < page->count; i++)
 *       puts(page->events[i].text);
 *   ep_idefix_page_free(&page);
 *   ep_idefix_close(&idefix);
 */
typedef struct ep_idefix ep_idefix;

/* 0 or NULL = the default. */
struct ep_idefix_params {
    const char *broker;  /* required: "ssl://HOST:PORT" (mqtts:, 8883) or "tcp://HOST:PORT" (mqtt:, 1883) */
    const char *account; /* required: the address that logs in */
    const char *token;   /* the account's secret; default "" */
    const char *token_file;       /* instead of token: a file that only its owner can read; its first line */
    const char *encoding;         /* accepted and sent: m MessagePack, j JSON, with g gzip; default "mg" */
    const char *session;          /* the session ID; default 16 random digits */
    const char *user, *password;  /* of the broker; default: those that all Idefix clients send */
    const char *ca_file;          /* certificates to trust, PEM; default: the system's */
    const char *meta;             /* JSON text of an object, sent at login; default: none */
    const char *const *groups;    /* sent at login, ends with NULL; default: none */
    uint64_t connect_timeout_ms;  /* for TCP, TLS and the broker's greeting together; default 10,000 */
    uint64_t response_timeout_ms; /* how long an answer may be late; default 10,000 */
    uint64_t max_bytes;           /* size of an uncompressed answer; default 64 MiB */
};

/*
 * Creates a client. It connects at the first call, in a thread of its own.
 * params  copied, with all it points to.
 * out     set on success only; the caller owns the client and closes it with ep_idefix_close.
 * errbuf  NULL, or set on failure to the reason, cut to errbuf_size bytes.
 * Signals: at each connection libmosquitto ignores SIGPIPE in this process for a moment, then restores it.
 * EP_EINVAL   no broker or no account: correct params.
 * EP_ECONFIG  a value is not valid: errbuf says which.
 * EP_EACCESS  token_file or ca_file cannot be used: correct its mode or owner.
 * EP_ESYSTEM  the operating system refused: errbuf says what.
 */
EP_API int ep_idefix_open(const struct ep_idefix_params *params, ep_idefix **out, char *errbuf,
                          size_t errbuf_size);

struct ep_idefix_query {
    const char *domain, *address; /* one of them is required */
    const char *event_type;       /* NULL = all */
    const char *since;            /* RFC 3339 time; NULL = all events; not used with a cursor */
    const char *cursor;           /* of the page before; NULL = none */
    uint32_t limit;               /* the most events; 0 = 100 */
    uint64_t wait_ms;             /* how long the backend may wait for the first event; 0 = not at all */
};
struct ep_idefix_event {
    const char *uid;            /* of an undecodable event without UID: a hash of its bytes */
    const char *address, *type; /* NULL = it has none */
    const char *text;           /* JSON text, NUL-terminated; the raw bytes of an undecodable event */
    size_t text_bytes;
    const char *problem; /* NULL, or why this one event could not be decoded */
};
struct ep_idefix_page {
    size_t count;
    const struct ep_idefix_event *events; /* in the backend's order */
    const char *cursor;                   /* for the next call; NULL = use the same cursor again */
};
/*
 * Fetches events ("events.get"). Connects and logs in first if there is no connection.
 * query  borrowed for the call.
 * out    set on success only; the caller owns the page and frees it with ep_idefix_page_free, also after
 *        the client is closed. No events: there are none yet.
 * Blocks for up to wait_ms and response_timeout_ms; with a new connection, up to connect_timeout_ms
 * (twice that with a slow name server) and 3 s more.
 * Threads: one call at a time on the same client.
 * ep_idefix_errmsg has the message of each error:
 * EP_EINVAL    neither domain nor address, or text that is not UTF-8: correct query.
 * EP_EBUSY     ep_idefix_interrupt ended the call.
 * EP_EBACKEND  the backend is unreachable, lost or silent, or reports an error: call again later.
 * EP_EAUTH     the backend refuses account, token, MQTT user or certificate: correct it, then call again.
 * EP_ECONFIG   the backend refuses domain or address: correct it.
 * EP_EPROTO    the answer is malformed or exceeds max_bytes: fetch fewer events at once, or raise
 *              max_bytes.
 * EP_ESYSTEM   the operating system refused.
 */
EP_API int ep_idefix_events_get(ep_idefix *idefix, const struct ep_idefix_query *query,
                                struct ep_idefix_page **out);
/*
 * Frees a page and all it points to, and clears *page. NULL, or a pointer to NULL: nothing happens. Any
 * thread.
 */
EP_API void ep_idefix_page_free(struct ep_idefix_page **page);
/*
 * Creates an event ("events.create") in the account's name.
 * event  borrowed for the call; uid is required. address and timestamp are not sent: the backend sets
 *        them. A member of meta or payload whose key ends in ":b64" is sent as bytes.
 * Blocks as ep_idefix_events_get with wait_ms 0. Threads and errors as there, and:
 * EP_EINVAL  no uid, text that is not UTF-8, or meta or payload is not valid JSON: correct event.
 * EP_EBUSY, EP_EBACKEND, EP_EPROTO  the event may exist: create it again with the same uid.
 */
EP_API int ep_idefix_event_create(ep_idefix *idefix, const struct ep_event *event);
/*
 * Returns the message of the client's last failure. It never holds the token or password.
 * Owner: the client; valid until its next call.
 */
EP_API const char *ep_idefix_errmsg(const ep_idefix *idefix);
/*
 * Ends the running call with EP_EBUSY, or the next call if none runs. Keeps the connection.
 * Any thread, and signal handlers (async-signal-safe); not after ep_idefix_close.
 */
EP_API void ep_idefix_interrupt(ep_idefix *idefix);
/*
 * Disconnects, frees the client and clears *idefix. NULL, or a pointer to NULL: nothing happens.
 * Blocks for at most a second. Must not be called while a call runs.
 */
EP_API void ep_idefix_close(ep_idefix **idefix);

/* --------------------------------------------------------------------------------------------- running */

/*
 * ep_manager_run runs all sources of a manager, ep_source_run one. They fork a supervisor process, which
 * runs producers and workers.
 * Blocks until the sources have ended (a client's EP_END, a finished `generate`) and their events are
 * completed, or until ep_manager_stop. Events that are held or dead stay in the store; the run does not
 * wait for them.
 * Fork: the caller may have threads. Locks that other threads hold at the fork stay locked in the children.
 * EP_OK      ended or stopped gracefully.
 * EP_EINVAL  a source has no stages: push one.
 * EP_EBUSY   another instance holds the store, or this manager runs: wait for it, or stop it.
 * EP_ECONFIG, EP_ESTORE, EP_ESYSTEM  the run could not start or go on: ep_errmsg says why.
 */
EP_API int ep_source_run(ep_source *source);
EP_API int ep_manager_run(ep_manager *manager);

/*
 * Stops a run: running events are finished and committed, all others are released. The run then returns
 * EP_OK.
 * Without a run nothing happens.
 * Any thread, and signal handlers (async-signal-safe).
 */
EP_API void ep_manager_stop(ep_manager *manager);

/* What one worker did in a run. Times in nanoseconds. */
struct ep_worker_metrics {
    const char *stage; /* owned by the metrics */
    uint32_t worker;   /* number in its stage */
    uint64_t items;    /* answers */
    uint64_t stage_ns; /* in the stage */
    uint64_t work_ns;  /* in all: reading, the stage, committing, handing over */
};
/* What a run did. */
struct ep_metrics {
    uint64_t wall_ns;
    uint64_t fetched, completed, removed_by_stage; /* of this run */
    size_t worker_count;
    struct ep_worker_metrics *workers;
};
/*
 * Runs one source as ep_source_run and measures the run.
 * out  set whenever EP_OK is returned; the caller owns it and frees it with ep_metrics_free.
 * Blocking, fork and errors as ep_source_run.
 */
EP_API int ep_source_run_and_measure(ep_source *source, struct ep_metrics **out);
/*
 * Prints the metrics as a table. Blocks as writing to stream does.
 * EP_ESYSTEM  the stream cannot be written.
 */
EP_API int ep_metrics_print(const struct ep_metrics *metrics, FILE *stream);
/* Frees the metrics and clears *metrics. NULL, or a pointer to NULL: nothing happens. */
EP_API void ep_metrics_free(struct ep_metrics **metrics);

#ifdef __cplusplus
}
#endif

#endif
