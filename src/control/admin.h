/* SPDX-License-Identifier: MIT */
/* What the keeper's command engine shares among its files: the request as it was checked, and the answer as
 * it is written. */
#ifndef CONTROL_ADMIN_H
#define CONTROL_ADMIN_H

#include "src/control/command.h"
#include "src/control/control.h"
#include "src/json/json.h"

#define ADMIN_UIDS_MAX 5000

/* The answer's data lines, collected into large writes. A client that takes nothing for 5 s, or is gone, is
 * `lost`. */
struct answer {
    int client;
    struct json_out lines;
    uint64_t line_count;
    bool lost;
};
void control_answer_begin(struct answer *answer, int client);
/* Ends the line that was built in answer->lines. 0, or EP_ESYSTEM when the client is lost. */
int control_answer_line(struct answer *answer);
int control_answer_flush(struct answer *answer);
void control_answer_close(struct answer *answer);

struct admin_request {
    const struct admin *admin;
    const struct control_command *command;
    int client;
    struct store_select select; /* its pointers lead into the request, the configuration, or `owned` */
    bool all, dry_run;
    bool selective; /* something selects: a command that changes events insists on it */
    const char *set;
    uint64_t first_line;
    const char **uids;
    struct admin_names *names;
    uint64_t *changed_sources;
};

/* Checks every member. 0; EP_EINVAL with a message for the user; EP_ENOMEM. Closed either way by
 * control_admin_request_close. */
int control_admin_request_read(struct admin_request *request, const cJSON *json, struct error *error);
void control_admin_request_close(struct admin_request *request);

/* The names a selection may use: of the configuration, or, without one, those that the store remembers. */
struct admin_names {
    char **sources; /* NULL-ended */
    char ***chains; /* per source, NULL-ended */
    size_t count;
};
int control_admin_names_read(const struct admin *admin, struct admin_names **out, struct error *error);
void control_admin_names_free(struct admin_names *names);
/* Notes that events of this source were changed. */
void control_admin_touch(struct admin_request *request, const char *source);
/* The store's id of a configured source; EP_ENOENT with a suggestion. */
int control_admin_source_id(const struct admin_request *request, const char *name, int64_t *id,
                            struct error *error);
/* ` There is no source "x": did you mean "y"?`, or nothing, when a name of the selection is unknown. */
void control_admin_unknown_name(const struct admin_request *request, char *buffer, size_t size);

/* A store's failure as the answer's end. */
void control_admin_store_failed(const struct admin_request *request, const char *what, const char *done);

void control_admin_list(struct admin_request *request);   /* queue, show */
void control_admin_change(struct admin_request *request); /* retry, hold, release, requeue, remove */
void control_admin_cursor(struct admin_request *request);
void control_admin_check(struct admin_request *request);
void control_admin_inject(struct admin_request *request);

/* `,"name":"value"`, or `,"name":null`. */
void control_admin_member(struct json_out *out, const char *name, const char *value);
/* A wall-clock time as RFC 3339 in UTC with milliseconds; size at least 32. */
void control_admin_time(uint64_t ms, char *buffer, size_t size);

#endif
