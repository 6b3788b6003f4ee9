/* SPDX-License-Identifier: MIT */
/*
 * libeventpipe: fetch events, store them, and pass each through a chain of stages, each in processes of its
 * own.
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
 * Link with `pkg-config --cflags --libs libeventpipe`. Every function returns EP_OK (0) or a negative enum
 * ep_code, unless its comment says otherwise; none prints, exits or raises a signal in the calling process.
 * No function is safe in two threads at once on the same manager, except ep_manager_stop.
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
    EP_END = 1,     /* a client's answer: nothing will ever come again */
    EP_EINVAL = -1, /* an argument is wrong: fix the call */
    EP_ENOMEM = -2,
    EP_EEXIST = -3,      /* a name is taken: of a source, or of a stage in its source */
    EP_ENOENT = -4,      /* there is no such thing */
    EP_EBUSY = -5,       /* another instance holds the store, or this manager runs: the message names it */
    EP_EACCESS = -6,     /* permission denied, or a secret that others can read */
    EP_ESYSTEM = -7,     /* the operating system refused: the message says what */
    EP_ECONFIG = -8,     /* the configuration is wrong: the message says where and what was expected */
    EP_ESTORE = -9,      /* the store is broken, foreign, or of a newer version */
    EP_ESTOREBUSY = -10, /* the store cannot be written now: full, locked, read-only; try again later */
    EP_EBACKEND = -11,   /* the backend is unreachable, slow, or failed */
    EP_EAUTH = -12,      /* the backend refuses the account or token */
    EP_EPROTO = -13,     /* the backend's answer cannot be understood */
    EP_ESTATE = -14      /* not now: for example a push while the manager runs */
};

/* What a code means, in a few words. Never NULL; static. Any thread. */
EP_API const char *ep_strerror(int code);
/* The library's version, "0.1.0". Static. Any thread. */
EP_API const char *ep_version(void);

/* Severities are those of syslog(3). */
enum ep_severity { EP_LOG_ERROR = 3, EP_LOG_WARNING = 4, EP_LOG_INFO = 6, EP_LOG_DEBUG = 7 };
/* Gets one line without its line feed, valid during the call. Called in the processes that the library forks.
 */
typedef void ep_log_function(enum ep_severity severity, const char *line, void *user);

/* ------------------------------------------------------------------------------------------------ manager */

typedef struct ep_manager ep_manager;
typedef struct ep_source ep_source;
struct ep_client;
struct ep_idefix_params;

/* What a commit survives, as the key `synchronous` of eventpipe.yaml(5). */
enum ep_durability {
    EP_DURABILITY_DEFAULT = 0, /* EP_DURABILITY_FULL */
    EP_DURABILITY_FULL = 1,    /* crashes and power loss */
    EP_DURABILITY_NORMAL = 2   /* crashes; power loss may take the latest commits. Faster. */
};

struct ep_manager_params {
    const char *instance; /* names the shared memory segment: 1 to 63 of [A-Za-z0-9._-]; NULL = "ep-PID" */
    const char *storage;  /* "sqlite:PATH", "memory:" or ":memory"; NULL = "memory:" */
    enum ep_durability durability;  /* what a commit survives; 0 = EP_DURABILITY_FULL */
    const char *control;            /* path of a control socket for eventpipe(1); NULL = none */
    const struct ep_client *client; /* default of sources that give neither type nor client; NULL = none */
    void *client_user;
    ep_log_function *log; /* NULL = lines go to stderr */
    void *log_user;
    int log_level; /* the least important enum ep_severity that is logged; 0 = EP_LOG_WARNING */
};

/*
 * Begins a manager. It starts nothing and opens no store.
 * params: copied; strings and structs it points to are copied too, except client, client_user and log_user,
 * which must live until ep_manager_close. out:    set on success only; to be closed with ep_manager_close.
 * Does not block. EP_EINVAL: a name, storage or durability that cannot be; EP_ENOMEM.
 */
EP_API int ep_manager_open(const struct ep_manager_params *params, ep_manager **out);
/* Ends it and its sources; clears *manager. NULL and a pointer to NULL are accepted. Not while it runs. */
EP_API void ep_manager_close(ep_manager **manager);
/* The message of the manager's last failure: what, where, what was expected. Owned by the manager, until its
 * next call. */
EP_API const char *ep_errmsg(const ep_manager *manager);

/* ------------------------------------------------------------------------------------------------ sources */

struct ep_source_params {
    const char *id;   /* required; 1 to 63 of [A-Za-z0-9._-]; unique in its manager and in its store */
    const char *type; /* "file", "generate", "http", "idefix"; NULL = client */
    const char *domain, *address, *event_type; /* filters for clients and idefix; NULL = any */
    const char *since;                         /* RFC 3339 time for them; NULL = from the beginning */
    const char *continuation_id;    /* the cursor to begin with, where the store has none yet; NULL = none */
    uint64_t long_poll_ms;          /* the longest a fetch may wait; 0 = 60,000 */
    uint32_t page_size;             /* the most events of one fetch; 0 = the type's default */
    const struct ep_client *client; /* NULL = the manager's; lives until ep_manager_close */
    void *client_user;
    const char *path;                                          /* file: the file */
    const char *url;                                           /* http: the template, see eventpipe.yaml(5) */
    const char *events, *cursor_path, *cursor_last_event_path; /* http: JSON pointers */
    int64_t cursor_increment;                                  /* http */
    uint64_t generate_count,
        generate_bytes;                    /* generate: how many (0 = without end), payload size (0 = 220) */
    double generate_rate;                  /* generate: events per second, 0 = as fast as they are taken */
    const struct ep_idefix_params *idefix; /* idefix: required there, like domain or address */
};

/*
 * Adds a source. params: copied as in ep_manager_open. out: owned by the manager, valid until
 * ep_manager_close. EP_EINVAL: no id, an unknown type, neither type nor client, neither domain nor address
 * for a client or a type that needs one, no broker or account for idefix; EP_EEXIST: the id is taken;
 * EP_EACCESS: idefix's token_file cannot be used; EP_ESTATE: the manager runs; EP_ENOMEM.
 */
EP_API int ep_source_add(ep_manager *manager, const struct ep_source_params *params, ep_source **out);

/* ------------------------------------------------------------------------------------------------ stages */

#define EP_STAGE_ABI 1

/* One event in a stage's hands; valid during process() only. */
typedef struct ep_call ep_call;

enum ep_answer {
    EP_PROCESSED = 0,     /* goes on to the next stage, or is completed; never comes here again */
    EP_NOT_PROCESSED = 1, /* comes again when due: after ep_call_set_retry_after, or the stage's backoff */
    EP_REMOVE = 2,        /* is removed */
    EP_REJECT = 3,        /* is dead, with the reason of ep_call_set_reason, until an operator decides */
    EP_ERROR = 4          /* as EP_NOT_PROCESSED, and counted and shown as a failure, with the reason */
};

/* A stage as C code: given to ep_source_push, or exported by a plugin as `const struct ep_stage
 * ep_plugin_stage`. */
struct ep_stage {
    uint32_t abi; /* EP_STAGE_ABI */
    const char *name;
    /* Once in each worker process, before its first event. options: JSON text of the configuration's
     * `options`, "{}" if it has none. Returns 0 and sets *state, or anything else and puts the reason into
     * errbuf. May be NULL. */
    int (*init)(const char *options, void **state, char *errbuf, size_t errbuf_size);
    /* One event. state: what init set, or ep_stage_options.user. Runs in the worker's only thread that calls
     * stages; it may block, up to the stage's timeout. A crash here costs the worker, and counts against this
     * event only. */
    enum ep_answer (*process)(ep_call *call, void *state);
    /* When the worker ends cleanly; not after a kill. May be NULL. */
    void (*fini)(void *state);
};
#define EP_PLUGIN_SYMBOL "ep_plugin_stage"

struct ep_stage_options {
    const char *name;         /* NULL = the stage's own */
    uint32_t concurrency;     /* worker processes, at least 1 */
    uint32_t input_buffer;    /* events that may wait before this stage; 0 = 512 */
    uint32_t batch;           /* the most answers committed together; 0 = 500 */
    uint32_t prefetch;        /* a program's events sent together at most, up to 64; 1 = one by one; 0 = 64 */
    uint64_t commit_delay_ms; /* the longest a finished answer waits for its commit, at least 1; 0 = 5 */
    uint64_t timeout_ms;      /* the longest one call may take; 0 = 60,000 */
    uint64_t retry_min_ms,
        retry_max_ms;      /* backoff of answers that were not 'processed'; 0 = 1,000 and 300,000 */
    uint32_t max_attempts; /* dead after so many; 0 = never */
    uint64_t max_age_ms;   /* dead when not processed and older than this; 0 = never */
    uint32_t max_crashes;  /* dead after killing so many workers; 0 = 3 */
    const char *options;   /* JSON text for init; NULL = "{}" */
    void *user;            /* state of a stage without init */
};
#define EP_STAGE_OPTIONS_INIT \
    {                         \
        .concurrency = 1      \
    }

/*
 * Appends a stage to the source's chain. stage, and user of the options, must live until ep_manager_close;
 * options (NULL = the defaults) and their strings are copied. EP_EINVAL: no name or no process, another ABI,
 * concurrency 0; EP_EEXIST: this source has a stage of that name; EP_ESTATE: the manager runs; EP_ENOMEM.
 */
EP_API int ep_source_push(ep_source *source, const struct ep_stage *stage,
                          const struct ep_stage_options *options);
/* The same for a program: argv ends with NULL, argv[0] is looked up in PATH; it and the name are copied. name
 * must be set in the options. */
EP_API int ep_source_push_exec(ep_source *source, const char *const *argv,
                               const struct ep_stage_options *options);
/* The same for a plugin (path of the shared object) and for an HTTP endpoint. */
EP_API int ep_source_push_plugin(ep_source *source, const char *path, const struct ep_stage_options *options);
EP_API int ep_source_push_http(ep_source *source, const char *url, const struct ep_stage_options *options);

/* ---- what a stage may ask of its call. All texts are borrowed until process() returns. */

/* The event's JSON text as it came, NUL-terminated; *bytes (may be NULL) is set to its length. */
EP_API const char *ep_call_event_text(const ep_call *call, size_t *bytes);
/* The event parsed, on first use; owned by the call. NULL: it is not JSON, or no memory. Numbers beyond 2^53
 * lose digits. */
EP_API const cJSON *ep_call_event(ep_call *call);
EP_API const char *ep_call_context_text(const ep_call *call, size_t *bytes);
/* The PipelineContext, an object; change it freely: it is stored with the answer. Owned by the call. NULL: no
 * memory. */
EP_API cJSON *ep_call_context(ep_call *call);
/* From 1: how often this stage has been called for this event, this time included. */
EP_API uint32_t ep_call_attempt(const ep_call *call);
/* "SOURCE/UID/STAGE": the same at every attempt. To be sent along where a repeated effect must be told from a
 * new one. */
EP_API const char *ep_call_key(const ep_call *call);
EP_API const char *ep_call_uid(const ep_call *call);

/* ---- what it may set. */

/* Replaces the stored event / context by this JSON object (copied). EP_EINVAL: it is none; EP_ENOMEM. */
EP_API int ep_call_set_event(ep_call *call, const char *text);
EP_API int ep_call_set_context(ep_call *call, const char *text);
/* With EP_NOT_PROCESSED or EP_ERROR: come again after so long, in milliseconds. */
EP_API void ep_call_set_retry_after(ep_call *call, uint64_t ms);
/* The reason that operators will see; cut to 499 bytes. */
EP_API void ep_call_set_reason(ep_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ------------------------------------------------------------------------------------------------ clients */

struct ep_filter {
    const char *domain, *address, *event_type, *since; /* NULL = not given */
};

struct ep_event {
    const char *uid;                                             /* required, unique in its source */
    const char *source_id, *domain, *address, *type, *timestamp; /* NULL = left out; timestamp: RFC 3339 */
    const char *meta;                                            /* JSON text; NULL = left out */
    const char *payload;                                         /* JSON text; NULL = left out */
};

/* The page that a client's events_get fills; valid during that call. */
typedef struct ep_page ep_page;

/* Adds an event (copied). EP_EINVAL: no uid, or meta or payload is not JSON; EP_ENOMEM. */
EP_API int ep_page_add(ep_page *page, const struct ep_event *event);
/* The same for an event that is JSON text already; stored byte for byte. */
EP_API int ep_page_add_text(ep_page *page, const char *uid, const char *event_json);
/* The cursor that follows these events (copied): stored with them in one transaction, and given to the next
 * call. */
EP_API int ep_page_set_cursor(ep_page *page, const char *cursor);
/* Says why the call fails; retry_after_ms: 0 = by backoff. Returns EP_EBACKEND, for `return
 * ep_page_fail(...)`. */
EP_API int ep_page_fail(ep_page *page, uint64_t retry_after_ms, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A backend client of the caller's own. Its functions run in the producer process, in a thread of its own. */
struct ep_client {
    /* Before the first call, and again after it failed. user: ep_source_params.client_user. 0 and *session,
     * or a negative code and the reason in errbuf. May be NULL: session is then user. */
    int (*open)(void *user, const struct ep_filter *filter, void **session, char *errbuf, size_t errbuf_size);
    /*
     * One fetch: at most `limit` events after `cursor` (NULL = none yet), waiting at most wait_ms for the
     * first. EP_OK: the page is filled, perhaps with nothing (nothing yet: it is called again, at most ten
     * times a second). EP_END: as EP_OK, and nothing will ever come again. Negative: a failure; ep_page_fail
     * gives a reason; it is tried again after a backoff, for ever.
     */
    int (*events_get)(void *session, const struct ep_filter *filter, const char *cursor, uint32_t limit,
                      uint64_t wait_ms, ep_page *page);
    void (*close)(void *session); /* may be NULL */
    int requires_filter;          /* 1: domain or address must be given */
};

/* ------------------------------------------------------------------------------------------------- Idefix */

/*
 * A connection to an Idefix backend, for programs that want its events without stages and store. It connects
 * and logs in by itself, when it is called and where that is not done, and again after every loss.
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
    const char *token;   /* the account's secret; "" */
    const char *token_file; /* instead of token: a file that none but its owner can read, its first line */
    const char *encoding;   /* accepted and sent: m MessagePack, j JSON, with g gzip; "mg" */
    const char *session;    /* the session ID; 16 random digits */
    const char *user, *password;  /* of the broker; those that all Idefix clients send */
    const char *ca_file;          /* certificates to trust, PEM; the system's */
    const char *meta;             /* JSON text of an object, sent at login; none */
    const char *const *groups;    /* sent at login, ends with NULL; none */
    uint64_t connect_timeout_ms;  /* for TCP, TLS and the broker's greeting together; 10,000 */
    uint64_t response_timeout_ms; /* how much later than asked for an answer may come; 10,000 */
    uint64_t max_bytes; /* of an answer, uncompressed; 64 MiB. A larger page is EP_EPROTO: ask for fewer
                           events at once, or allow more */
};

/*
 * Begins a client. Does not connect: that is done by the first call, in a thread of the client's own.
 * params: copied, with all it points to. out: set on success only; to be closed with ep_idefix_close. errbuf:
 * set on failure to what is wrong, cut to errbuf_size; may be NULL. Does not block. After fork the client
 * belongs to the process that opened it; a child must not use or close it. With each connection libmosquitto
 * sets the process's SIGPIPE to "ignored" for a moment; what it was is put back. EP_EINVAL: no broker or no
 * account; EP_ECONFIG: a value that cannot be; EP_EACCESS: the token_file or the ca_file cannot be used;
 * EP_ENOMEM, EP_ESYSTEM.
 */
EP_API int ep_idefix_open(const struct ep_idefix_params *params, ep_idefix **out, char *errbuf,
                          size_t errbuf_size);

struct ep_idefix_query {
    const char *domain, *address; /* one of them is required */
    const char *event_type;       /* NULL = all */
    const char *since;            /* RFC 3339 time; NULL = from the beginning; not used with a cursor */
    const char *cursor;           /* of the page before; NULL = none */
    uint32_t limit;               /* the most events; 0 = 100 */
    uint64_t wait_ms;             /* how long the backend may wait for the first event; 0 = not at all */
};
struct ep_idefix_event {
    const char *uid;            /* of a broken event: a hash of its bytes, where it has none */
    const char *address, *type; /* NULL = it has none */
    const char *text;           /* the event's JSON text, NUL-terminated; of a broken event its raw bytes */
    size_t text_bytes;
    const char
        *problem; /* NULL, or why this event could not be decoded; the others are not touched by that */
};
struct ep_idefix_page {
    size_t count;
    const struct ep_idefix_event *events; /* in the backend's order */
    const char *cursor;                   /* for the next call; NULL = the one that was given stays good */
};
/*
 * Asks for events ("events.get"), connecting and logging in first where that is not done.
 * query: borrowed for the call. out: set on success only; to be freed with ep_idefix_page_free, also after
 * the client is closed. Blocks for up to wait_ms and response_timeout_ms; with a new connection for up to
 * connect_timeout_ms (as long again where the name server is slow) and 3 s more. One call at a time on the
 * same client. EP_OK with no events: nothing yet. EP_EINVAL: neither domain nor address, or text that is not
 * UTF-8. EP_EBUSY: interrupted. EP_EBACKEND: unreachable, lost, silent, or an error of the backend; call
 * again after a while. EP_EAUTH: account, token, MQTT user or certificate; call again once that is fixed.
 * EP_ECONFIG: the backend does not accept domain or address. EP_EPROTO: its answer cannot be understood.
 * EP_ENOMEM, EP_ESYSTEM. ep_idefix_errmsg has a message for all of them.
 */
EP_API int ep_idefix_events_get(ep_idefix *idefix, const struct ep_idefix_query *query,
                                struct ep_idefix_page **out);
/* Frees a page and all it points to; clears *page. NULL and a pointer to NULL are accepted. Any thread. */
EP_API void ep_idefix_page_free(struct ep_idefix_page **page);
/*
 * Creates an event ("events.create") in the account's name.
 * event: borrowed for the call; uid is required, address and timestamp are not sent: the backend sets them;
 * in meta and payload a member whose key ends in ":b64" is sent as bytes. Blocks, threads and failures as
 * ep_idefix_events_get with wait_ms 0; EP_EINVAL: no uid, text that is not UTF-8, or meta or payload is not
 * JSON. After EP_EBUSY, EP_EBACKEND or EP_EPROTO the event may exist all the same: create it again with the
 * same uid.
 */
EP_API int ep_idefix_event_create(ep_idefix *idefix, const struct ep_event *event);
/* The message of the client's last failure, without its token and password. Owned by the client, until its next
 * call. */
EP_API const char *ep_idefix_errmsg(const ep_idefix *idefix);
/*
 * Ends the call under way with EP_EBUSY, or the next one where none is. The connection stays. Does not block;
 * any thread, and in a signal handler (async-signal-safe), but not after ep_idefix_close.
 */
EP_API void ep_idefix_interrupt(ep_idefix *idefix);
/* Disconnects and frees the client; clears *idefix. NULL and a pointer to NULL are accepted. Blocks for at
 * most a second. Not while a call is under way. */
EP_API void ep_idefix_close(ep_idefix **idefix);

/* ------------------------------------------------------------------------------------------------ running */

/*
 * Runs one source, or all of a manager's, in processes of their own, under a supervisor process. Blocks until
 * the sources have ended (a client's EP_END, a finished `generate`) and all their events are through, or
 * ep_manager_stop. Events that are held or dead stay in the store. The calling program may have threads; what
 * they hold when it forks is not touched in the children. EP_OK: ended or stopped gracefully. EP_EINVAL: a
 * source without stages. EP_EBUSY: the store is held by another instance, or this manager runs already.
 * EP_ESTORE, EP_ESYSTEM, EP_ECONFIG: it could not start, or not go on; see ep_errmsg.
 */
EP_API int ep_source_run(ep_source *source);
EP_API int ep_manager_run(ep_manager *manager);

/* Stops a run from another thread or from a signal handler (async-signal-safe): events in hand are finished
 * and committed, the rest is released. Returns at once; the run returns when all is down. Without a run:
 * nothing. */
EP_API void ep_manager_stop(ep_manager *manager);

/* What a run did, per worker. Times in nanoseconds. */
struct ep_worker_metrics {
    const char *stage; /* owned by the metrics */
    uint32_t worker;   /* number in its stage */
    uint64_t items;    /* answers */
    uint64_t stage_ns; /* in the stage */
    uint64_t work_ns;  /* in all: reading, the stage, committing, handing over */
};
struct ep_metrics {
    uint64_t wall_ns;
    uint64_t fetched, completed, removed_by_stage; /* of this run */
    size_t worker_count;
    struct ep_worker_metrics *workers;
};
/* As ep_source_run; *out (set whenever EP_OK is returned) is to be freed with ep_metrics_free. */
EP_API int ep_source_run_and_measure(ep_source *source, struct ep_metrics **out);
/* A table for people. 0, or EP_ESYSTEM when the stream cannot be written. */
EP_API int ep_metrics_print(const struct ep_metrics *metrics, FILE *stream);
EP_API void ep_metrics_free(struct ep_metrics **metrics);

#ifdef __cplusplus
}
#endif

#endif
