/* SPDX-License-Identifier: MIT */
/* What the files of the keeper's command engine share: the checked request, and the answer being
 * written. */
#ifndef CONTROL_ADMIN_H
#define CONTROL_ADMIN_H

#include "src/control/command.h"
#include "src/control/control.h"
#include "src/json/json.h"

#define ADMIN_UIDS_MAX 5000

/* The answer's data lines, collected into large writes. `client_lost`: the client is gone, or took nothing
 * for 5 s. */
struct answer {
    int client_fd;
    struct text lines;
    uint64_t line_count;
    bool client_lost;
};
void control_answer_begin(struct answer *answer, int client_fd);
/* Ends the line built in answer->lines. 0, or EP_ESYSTEM: the client is lost. */
int control_answer_end_line(struct answer *answer);
int control_answer_flush(struct answer *answer);
void control_answer_close(struct answer *answer);

struct admin_request {
    const struct admin *admin;
    const struct control_command *command;
    int client_fd;
    struct store_select select; /* points into the request, `uids` and `names` */
    bool select_all, dry_run;
    bool has_filter;        /* it has a filter; commands that change events require one */
    const char *new_cursor; /* cursor --set: the value to set, or NULL */
    uint64_t first_line;
    const char **uids;
    struct admin_names *names;
    uint64_t *changed_sources;
};

/* Checks every member. 0; EP_EINVAL with a message for the user; EP_ENOMEM. The caller closes the
 * request in every case. */
int control_admin_read_request(struct admin_request *request, const cJSON *json, struct error *error);
void control_admin_close_request(struct admin_request *request);

/* The names of sources and stages: those of the configuration or, without one, those in the store. */
struct admin_names {
    char **sources; /* ends with NULL */
    char ***chains; /* per source, its stages in order; ends with NULL */
    size_t count;
};
int control_admin_read_names(const struct admin *admin, struct admin_names **out, struct error *error);
void control_admin_free_names(struct admin_names *names);
/* Records that events of this source were changed, so that the keeper notifies its producer. */
void control_admin_mark_source_changed(struct admin_request *request, const char *source);
/* The store's id of a configured source; EP_ENOENT with a suggestion. */
int control_admin_find_source_id(const struct admin_request *request, const char *name, int64_t *id,
                                 struct error *error);
/* `; there is no source "x": did you mean "y"?` when the request names an unknown source or stage,
 * else "". */
void control_admin_describe_unknown_name(const struct admin_request *request, char *buffer, size_t size);

/* Ends the answer with the store's error. `failed_action` is what could not be done, as in "cannot read the
 * cursor"; `done_before` (or "") says what was done before. */
void control_admin_end_with_store_error(const struct admin_request *request, const char *failed_action,
                                        const char *done_before);

void control_admin_serve_list(struct admin_request *request);   /* queue, show */
void control_admin_serve_change(struct admin_request *request); /* retry, hold, release, requeue, remove */
void control_admin_serve_cursor(struct admin_request *request);
void control_admin_serve_check(struct admin_request *request);
void control_admin_serve_inject(struct admin_request *request);

/* `,"name":"value"`, or `,"name":null`. */
void control_admin_write_member(struct text *out, const char *name, const char *value);
/* A wall-clock time as RFC 3339 in UTC with milliseconds; size at least 32. */
void control_admin_format_time(uint64_t ms, char *buffer, size_t size);

#endif
