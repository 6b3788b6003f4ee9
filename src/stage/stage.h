/* SPDX-License-Identifier: MIT */
/*
 * A stage as its worker runs it: one table of functions per type (function, plugin, exec, http), and the
 * call: one event in a stage's hands. A stage never touches the store or the segment.
 */
#ifndef STAGE_H
#define STAGE_H

#include <stdatomic.h>

#include "shm/layout.h" /* enum shm_cause_kind */
#include "src/base/error.h"
#include "src/config/config.h"
#include "src/json/json.h"

/* What the worker tells a stage about itself. Borrowed for the stage's life. */
struct stage_env {
    const char *instance, *source;
    uint32_t worker;     /* number in its stage */
    pid_t process_group; /* the stage's process group: a program stays in it */
    /* exec: tells the supervisor (through the slot) of the program; 0 = gone */
    void (*on_program)(pid_t pid, void *user);
    void *user;
};

/* One event in a stage's hands. The worker sets the first part; the stage answers in the second. */
struct ep_call {
    const char *source, *stage, *uid;
    const char *event; /* JSON text, NUL-terminated */
    size_t event_bytes;
    const char *context; /* JSON object text, "{}" when it has none */
    size_t context_bytes;
    uint32_t attempt; /* from 1 */

    enum ep_answer answer;
    uint64_t retry_after_ms; /* 0 = by the stage's backoff */
    char *new_event;         /* malloc'd; NULL = unchanged */
    char *new_context;       /* malloc'd; NULL = unchanged */
    char reason[SHM_TEXT_BYTES];

    cJSON *event_tree, *context_tree; /* parsed on demand; stage_context_print is the tree as it was parsed */
    char *context_print;
    char key[3 * SHM_NAME_BYTES]; /* built on demand; a uid too long for it is replaced by its hash */
};
void stage_call_open(struct ep_call *call); /* clears the second part; the first must be set by then */
/* After process(): if the context tree was changed, prints it into new_context. 0 or EP_ENOMEM. */
int stage_call_complete(struct ep_call *call);
void stage_call_close(struct ep_call *call);      /* frees what the call owns */
const char *stage_call_key(struct ep_call *call); /* "SOURCE/UID/STAGE" */
/* Adds {"event":...,"context":...,"attempt":1,"key":"..."} on one line: what exec and http stages are sent. 0
 * or EP_ENOMEM. */
int stage_call_document(struct ep_call *call, struct json_out *out);

/* How a stage failed as a process, not as an answer. */
struct stage_failure {
    enum shm_cause_kind kind; /* SIGNAL, EXIT, MALFORMED */
    int code;                 /* signal number or exit code */
    bool unsent;              /* it had ended before it was sent the event */
    char message[SHM_TEXT_BYTES];
};

enum stage_result {
    STAGE_ANSWERED = 0, /* call's second part tells */
    STAGE_BROKEN = 1    /* failure tells: the worker commits what is finished and gives up */
};

struct stage_ops {
    const char *type;
    /* Once per worker, before it is ready. exec: starts the program. A failure is a bad start. */
    int (*open)(const struct stage_config *config, const struct stage_env *env, void **state,
                struct error *error);
    /*
     * NULL, or sends an event before its turn, together with those it took before: false when it does not
     * take this one. process() then follows for those taken, in their order, before any other; a pipeline
     * ends with its last. When it breaks with a malformed answer, its earlier answers may have been given to
     * the wrong events.
     */
    bool (*send_ahead)(void *state, struct ep_call *call);
    enum stage_result (*process)(void *state, struct ep_call *call, struct stage_failure *failure);
    /* Ends it gracefully: exec closes the program's stdin, waits up to wait_ms, then TERM, then KILL. */
    void (*close)(void *state, uint64_t wait_ms);
};
const struct stage_ops *stage_ops_for(enum stage_type type);
extern const struct stage_ops stage_function_ops, stage_plugin_ops, stage_exec_ops, stage_http_ops;

/* For `eventpiped -t`: opens nothing, only looks: is the program there and executable, does the plugin load?
 */
int stage_check(const struct stage_config *config, struct error *error);

#endif
