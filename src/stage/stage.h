/* SPDX-License-Identifier: MIT */
/*
 * A stage as its worker runs it: one table of functions per type (function, plugin, exec, http), and the
 * call, which is one event as a stage sees it. A stage never touches the store or the segment.
 */
#ifndef STAGE_H
#define STAGE_H

#include <stdatomic.h>

#include "shm/layout.h" /* enum shm_cause_kind */
#include "src/base/error.h"
#include "src/config/config.h"
#include "src/json/json.h"

/* What a stage knows about its worker. Borrowed for the stage's life. */
struct stage_env {
    const char *instance, *source;
    uint32_t worker;     /* number in its stage */
    pid_t process_group; /* the stage's process group: a program stays in it */
    /* exec: records the program's pid in the slot, for the supervisor; 0 = it ended */
    void (*on_program)(pid_t pid, void *user);
    void *user;
};

/* One event as a stage sees it. The worker sets the first part; the stage answers in the second. */
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

    cJSON *event_tree,
        *context_tree; /* parsed on demand; unchanged_context_text is the text of the tree as parsed */
    char *unchanged_context_text;
    char key[3 * SHM_NAME_BYTES]; /* built on demand; a uid too long for it is replaced by its hash */
};
void stage_call_open(struct ep_call *call); /* clears the second part; the first must be set by then */
/* After process(): if the context tree was changed, prints it into new_context. 0 or EP_ENOMEM. */
int stage_call_print_changed_context(struct ep_call *call);
void stage_call_close(struct ep_call *call);          /* frees what the call owns */
const char *stage_call_get_key(struct ep_call *call); /* "SOURCE/UID/STAGE" */
/* Adds {"event":...,"context":...,"attempt":1,"key":"..."} on one line: what exec and http stages are sent. 0
 * or EP_ENOMEM. */
int stage_call_write_json(struct ep_call *call, struct text *out);

/* How the process of a stage failed, as opposed to an answer. */
struct stage_failure {
    enum shm_cause_kind kind; /* SIGNAL, EXIT, MALFORMED */
    int code;                 /* signal number or exit code */
    bool unsent;              /* the program had ended before the event was sent */
    char message[SHM_TEXT_BYTES];
};

enum stage_result {
    STAGE_ANSWERED = 0, /* the answer is in the call's second part */
    STAGE_BROKEN = 1    /* see failure: the worker commits what is finished and exits */
};

struct stage_ops {
    const char *type;
    /* Called once per worker, before it is ready. exec: starts the program. A failure is a failed start. */
    int (*open)(const struct stage_config *config, const struct stage_env *env, void **state,
                struct error *error);
    /*
     * NULL, or sends an event ahead of its turn, together with those accepted before. Returns false if it
     * does not accept this one. The worker then calls process() for the accepted events, in their order,
     * before any other; the last one ends the pipeline. After a malformed answer, earlier answers of the
     * pipeline may have been assigned to the wrong events.
     */
    bool (*send_ahead)(void *state, struct ep_call *call);
    enum stage_result (*process)(void *state, struct ep_call *call, struct stage_failure *failure);
    /* Ends the stage: exec closes the program's stdin, waits up to wait_ms, then TERM, then KILL. */
    void (*close)(void *state, uint64_t wait_ms);
};
const struct stage_ops *stage_ops_for(enum stage_type type);
extern const struct stage_ops stage_function_ops, stage_plugin_ops, stage_exec_ops, stage_http_ops;

/* For `eventpiped -t`: checks that the program is executable, the plugin loads, the URL is valid. */
int stage_check(const struct stage_config *config, struct error *error);

#endif
