/* SPDX-License-Identifier: MIT */
/*
 * An exec stage's answer: reads one line of JSON into the call. Pure but for memory; runs in workers.
 *
 *     {"processed":true}
 *     {"processed":false,"retry_after":"30s"}
 *     {"remove":true}
 *     {"reject":"why"}
 *     {"error":"why"}
 *
 * Each may also have "context":{...} and "event":{...}.
 *
 * Invariants:
 *   1. Context and event keep the bytes that came, so that 64-bit integers stay exact.
 *   2. A line is taken whole or not at all: if one member is wrong, nothing of the line is taken.
 *   3. If a line has several answers, remove wins over reject, reject over error, error over processed.
 *      null and "remove":false mean nothing. Members with other names are skipped. Of two members with
 *      one name the first counts.
 */
#include "src/stage/exec_answer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/log.h"

#define SHOWN_BYTES 160 /* how much of a line messages show */

enum answer_member { PROCESSED, REMOVE, REJECT, ERROR, RETRY_AFTER, CONTEXT, EVENT, MEMBER_COUNT };
static const char *const member_names[MEMBER_COUNT] = {
    [PROCESSED] = "processed",     [REMOVE] = "remove",   [REJECT] = "reject", [ERROR] = "error",
    [RETRY_AFTER] = "retry_after", [CONTEXT] = "context", [EVENT] = "event",
};

struct members {
    struct json_span at[MEMBER_COUNT]; /* .at is NULL where the line does not have it, or has null */
    bool is_seen[MEMBER_COUNT];
    bool is_out_of_memory;
};

/* Callback for each member of an answer line of the stage's program: keeps the known members, the first of
 * each name, and skips unknown ones. Returns 0, or 1 if out of memory, which ends the reading. Runs in a
 * worker. */
static int on_answer_member(struct json_span key, struct json_span value, void *user)
{
    struct members *members = user;
    char *name = json_text(key);

    if (name == NULL) {
        members->is_out_of_memory = true;
        return 1;
    }
    for (int i = 0; i < MEMBER_COUNT; i++)
        if (!members->is_seen[i] && strcmp(name, member_names[i]) == 0) {
            members->is_seen[i] = true;
            if (json_kind(value) != 'n')
                members->at[i] = value;
        }
    free(name);
    return 0;
}

static bool has_member(const struct members *members, enum answer_member member)
{
    return members->at[member].at != NULL;
}

static bool is_true(const struct members *members, enum answer_member member)
{
    return has_member(members, member) && json_kind(members->at[member]) == 't';
}

/* Returns whether each member of the stage program's answer has the right JSON type. If not, errbuf names
 * the wrong member and what it must be. Runs in a worker. */
static bool check_member_types(const struct members *members, char *errbuf, size_t errbuf_size)
{
    static const struct {
        const char *accepted_kinds, *expected_text;
    } type_rules[MEMBER_COUNT] = {
        [PROCESSED] = {"tf", "true or false"},
        [REMOVE] = {"tf", "true or false"},
        [REJECT] = {"\"", "a string that says why"},
        [ERROR] = {"\"", "a string that says why"},
        [RETRY_AFTER] = {"\"0", "a duration such as \"30s\", or a number of seconds"},
        [CONTEXT] = {"{", "an object"},
        [EVENT] = {"{", "an object"},
    };
    for (int i = 0; i < MEMBER_COUNT; i++)
        if (has_member(members, (enum answer_member)i) &&
            strchr(type_rules[i].accepted_kinds, json_kind(members->at[i])) == NULL) {
            snprintf(errbuf, errbuf_size, "\"%s\" must be %s", member_names[i], type_rules[i].expected_text);
            return false;
        }
    return true;
}

/* Reads "retry_after" of the stage program's answer, a duration such as "30s" or a number of seconds, as
 * milliseconds. Zero becomes 1 ms, since 0 means the stage's own backoff. Returns 0, EP_ENOMEM or
 * EP_EPROTO. Runs in a worker. */
static int read_retry_after(struct json_span value, uint64_t *ms)
{
    char *text = json_text(value);
    int code = 0;

    if (text == NULL)
        return EP_ENOMEM;
    if (json_kind(value) == '"') {
        code = base_units_read_duration(text, ms);
    } else {
        double seconds = strtod(text, NULL);
        if (!(seconds >= 0) || seconds > (double)UNITS_DURATION_MAX_MS / 1000)
            code = EP_EINVAL;
        else
            *ms = (uint64_t)ceil(seconds * 1000);
    }
    free(text);
    if (code == 0 && *ms == 0)
        *ms = 1;
    return code == 0 ? 0 : EP_EPROTO;
}

/* Copies the JSON text of "event" or "context" in the stage program's answer byte for byte, so that 64-bit
 * numbers stay exact. Returns 0 or EP_ENOMEM. *out, which the caller frees, stays as it is if the answer
 * lacks the member. Runs in a worker. */
static int copy_member_text(const struct members *members, enum answer_member member, char **out)
{
    if (!has_member(members, member))
        return 0;
    *out = strndup(members->at[member].at, members->at[member].bytes);
    return *out == NULL ? EP_ENOMEM : 0;
}

/* Copies the reason of the stage program's "reject" or "error" answer into the call. Returns 0 or
 * EP_ENOMEM. Runs in a worker. */
static int copy_reason(const struct members *members, enum answer_member member, struct ep_call *call)
{
    char *reason = json_text(members->at[member]);

    if (reason == NULL)
        return EP_ENOMEM;
    ep_call_set_reason(call, "%s", reason);
    free(reason);
    return 0;
}

/* Puts the checked answer of the stage's program into the call (the event as the stage sees it). Returns
 * 0, or EP_ENOMEM, which leaves the call's answer, event and context unchanged. Runs in a worker. */
static int apply_answer(const struct members *members, struct ep_call *call)
{
    char *event = NULL, *context = NULL;
    int code = copy_member_text(members, EVENT, &event);

    if (code == 0)
        code = copy_member_text(members, CONTEXT, &context);
    enum ep_answer answer = is_true(members, PROCESSED) ? EP_PROCESSED : EP_NOT_PROCESSED;
    if (is_true(members, REMOVE)) {
        answer = EP_REMOVE;
    } else if (has_member(members, REJECT)) {
        answer = EP_REJECT;
        code = code == 0 ? copy_reason(members, REJECT, call) : code;
    } else if (has_member(members, ERROR)) {
        answer = EP_ERROR;
        code = code == 0 ? copy_reason(members, ERROR, call) : code;
    }
    if (code != 0) {
        free(event);
        free(context);
        return code;
    }
    call->answer = answer;
    call->new_event = event;
    call->new_context = context;
    return 0;
}

/* Writes the error message for a malformed answer of the stage's program, with the beginning of the line
 * and the reason if it is known, and returns EP_EPROTO. Runs in a worker. */
static int report_malformed(const char *line, size_t bytes, const char *reason, char *errbuf,
                            size_t errbuf_size)
{
    char shown_line[SHOWN_BYTES + 16];

    stage_exec_answer_quote(line, bytes, shown_line, sizeof shown_line);
    snprintf(errbuf, errbuf_size, "malformed answer: %s%s%s%s", shown_line, reason[0] != '\0' ? " (" : "",
             reason, reason[0] != '\0' ? ")" : "");
    return EP_EPROTO;
}

/* Reads one answer line of the stage's program into the call, whole or not at all. Returns 0, EP_ENOMEM,
 * or EP_EPROTO with a message if the line is malformed. A worker calls it for each line. */
int stage_exec_answer_read(const char *line, size_t bytes, struct ep_call *call, char *errbuf,
                           size_t errbuf_size)
{
    struct members members = {0};
    struct json_span span = {line, bytes};
    uint64_t retry_after_ms = 0;
    char type_problem[128] = "";

    if (!json_valid(line, bytes, NULL) || json_kind(span) != '{')
        return report_malformed(line, bytes, "", errbuf, errbuf_size);
    json_each_member(span, on_answer_member, &members);
    if (members.is_out_of_memory)
        return EP_ENOMEM;
    if (!check_member_types(&members, type_problem, sizeof type_problem))
        return report_malformed(line, bytes, type_problem, errbuf, errbuf_size);
    if (!has_member(&members, PROCESSED) && !is_true(&members, REMOVE) && !has_member(&members, REJECT) &&
        !has_member(&members, ERROR))
        return report_malformed(line, bytes, "expected processed, remove, reject or error", errbuf,
                                errbuf_size);
    if (has_member(&members, RETRY_AFTER)) {
        int code = read_retry_after(members.at[RETRY_AFTER], &retry_after_ms);
        if (code == EP_EPROTO)
            return report_malformed(
                line, bytes, "\"retry_after\" must be a duration such as \"30s\", or a number of seconds",
                errbuf, errbuf_size);
        if (code != 0)
            return code;
    }
    int code = apply_answer(&members, call);
    if (code == 0)
        call->retry_after_ms = retry_after_ms;
    return code;
}

/* Quotes output of the stage's program for an error message: in backquotes, with control characters
 * replaced, and with "..." for what was cut off. Runs in a worker. */
void stage_exec_answer_quote(const char *bytes, size_t byte_count, char *buffer, size_t size)
{
    static const char ellipsis[] = "...";
    char text[SHOWN_BYTES + 4], clean_text[SHOWN_BYTES + 4];

    if (size < sizeof ellipsis + 2) {
        if (size > 0)
            buffer[0] = '\0';
        return;
    }
    size_t shown_max_bytes =
        size - sizeof ellipsis - 2; /* two backquotes, and the NUL, which sizeof ellipsis counts */
    if (shown_max_bytes > SHOWN_BYTES)
        shown_max_bytes = SHOWN_BYTES;
    /* A little more than is shown, so that base_log_clean sees where a character ends. */
    size_t copied_bytes = byte_count < shown_max_bytes + 3 ? byte_count : shown_max_bytes + 3;
    for (size_t i = 0; i < copied_bytes; i++)
        text[i] = bytes[i] != '\0' ? bytes[i] : '?';
    text[copied_bytes] = '\0';
    base_log_clean(text, clean_text, shown_max_bytes + 1);
    snprintf(buffer, size, "`%s%s`", clean_text, byte_count > shown_max_bytes ? ellipsis : "");
}
