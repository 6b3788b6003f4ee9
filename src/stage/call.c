/* SPDX-License-Identifier: MIT */
/*
 * The call: one event as a stage sees it, and the ep_call_ functions by which a C stage reads and answers
 * it. Runs in workers; plugins and library stages call these functions there.
 * Owns the texts and trees of the call until stage_call_close.
 *
 * Invariants:
 *   1. What a stage reads does not change during process(). What it sets is kept apart and read by the
 *      worker only. So no pointer that a stage got becomes invalid while the stage runs.
 *   2. Text that a stage sets is checked first. Only JSON objects reach the store from here.
 *   3. A context set as text wins over changes to the context tree.
 */
#include <sha2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"
#include "src/stage/context.h"
#include "src/stage/stage.h"

#define HASH_DIGITS 32 /* of SHA-256: enough that no two uids of a source meet */

/* Stage call: clears the answer part of a call. A worker calls it before it hands an event to its stage,
 * and closing the call does, too. */
void stage_call_open(struct ep_call *call)
{
    call->answer = EP_PROCESSED;
    call->retry_after_ms = 0;
    call->new_event = NULL;
    call->new_context = NULL;
    call->reason[0] = '\0';
    call->event_tree = NULL;
    call->context_tree = NULL;
    call->context_print = NULL;
    call->key[0] = '\0';
}

/* Stage call: frees the new event, new context and parsed trees of a call. A worker calls it after it has
 * copied the stage's answer to the answers to be committed. */
void stage_call_close(struct ep_call *call)
{
    free(call->new_event);
    free(call->new_context);
    free(call->context_print);
    cJSON_Delete(call->event_tree);
    cJSON_Delete(call->context_tree);
    stage_call_open(call);
}

/* Stage call, in a worker: returns whether the event's key has no control characters. HTTP stages send it
 * as a header, in which a line feed from a hostile UID would begin another header. */
static bool fits_http_header(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

/* Stage call: returns the event's idempotency key, SOURCE/UID/STAGE, by which a stage recognises an event
 * it gets again after a crash. A UID that is too long or has control characters is replaced by its hash. A
 * worker builds it for exec and HTTP stages; plugins and functions ask for it. */
const char *stage_call_key(struct ep_call *call)
{
    if (call->key[0] != '\0')
        return call->key;
    int length = snprintf(call->key, sizeof call->key, "%s/%s/%s", call->source, call->uid, call->stage);
    if (length > 0 && (size_t)length < sizeof call->key && fits_http_header(call->key))
        return call->key;
    char hash[SHA256_DIGEST_STRING_LENGTH];
    SHA256Data((const uint8_t *)call->uid, strlen(call->uid), hash);
    snprintf(call->key, sizeof call->key, "%.63s/sha256:%.*s/%.63s", call->source, HASH_DIGITS, hash,
             call->stage);
    return call->key;
}

/* Stage call: writes the JSON line that a worker sends to an exec program or an HTTP server: event,
 * context, attempt and key. Returns 0 or EP_ENOMEM. The context keeps its bytes, so that 64-bit numbers
 * stay exact. */
int stage_call_document(struct ep_call *call, struct text *out)
{
    const char *key = stage_call_key(call);

    base_text_append(out, "{\"event\":");
    json_write_line(out, (struct json_span){call->event, call->event_bytes});
    base_text_append(out, ",\"context\":");
    json_write_line(out, (struct json_span){call->context, call->context_bytes});
    base_text_append(out, ",\"attempt\":");
    json_write_uint(out, call->attempt);
    base_text_append(out, ",\"key\":");
    json_write_string(out, key, strlen(key));
    base_text_append(out, "}");
    return out->failed ? EP_ENOMEM : 0;
}

/* Stage call: a worker calls it after its stage has processed an event. If a plugin or function changed
 * the context tree, it is printed as the new context. A tree that is not valid JSON becomes an error
 * answer and never reaches the store. Returns 0 or EP_ENOMEM. */
int stage_call_complete(struct ep_call *call)
{
    if (call->context_tree == NULL || call->new_context != NULL)
        return 0;
    struct text now = {0}, merged = {0};
    stage_context_print(&now, call->context_tree, (struct json_span){0});
    if (now.failed) {
        base_text_free(&now);
        return EP_ENOMEM;
    }
    bool changed = strcmp(now.text, call->context_print) != 0;
    base_text_free(&now);
    if (!changed)
        return 0;
    stage_context_print(&merged, call->context_tree, (struct json_span){call->context, call->context_bytes});
    if (merged.failed) {
        base_text_free(&merged);
        return EP_ENOMEM;
    }
    /* A stage can build a tree that is not JSON (nested too deep, raw items). It must not reach the store. */
    if (json_valid(merged.text, merged.bytes, NULL)) {
        call->new_context = merged.text;
        return 0;
    }
    base_text_free(&merged);
    call->answer = EP_ERROR;
    ep_call_set_reason(call, "the stage left a context that is not valid JSON");
    return 0;
}

/* ---- what a stage reads ---- */

const char *ep_call_event_text(const ep_call *call, size_t *bytes)
{
    if (bytes != NULL)
        *bytes = call->event_bytes;
    return call->event;
}

/* Public API for plugins and functions, in a worker: returns the event as a cJSON tree, parsed at the
 * first call. NULL without memory. The tree belongs to the call. */
const cJSON *ep_call_event(ep_call *call)
{
    if (call->event_tree == NULL)
        call->event_tree = cJSON_ParseWithLength(call->event, call->event_bytes);
    return call->event_tree;
}

const char *ep_call_context_text(const ep_call *call, size_t *bytes)
{
    if (bytes != NULL)
        *bytes = call->context_bytes;
    return call->context;
}

/* Public API for plugins and functions, in a worker: returns the event's context as a cJSON tree that the
 * stage may change. The text of the unchanged tree is kept, so that the worker finds out later whether it
 * was changed. NULL without memory. */
cJSON *ep_call_context(ep_call *call)
{
    if (call->context_tree != NULL)
        return call->context_tree;
    cJSON *tree = cJSON_ParseWithLength(call->context, call->context_bytes);
    struct text print = {0};
    if (tree != NULL)
        stage_context_print(&print, tree, (struct json_span){0});
    if (!cJSON_IsObject(tree) || print.failed) {
        cJSON_Delete(tree);
        base_text_free(&print);
        return NULL;
    }
    call->context_tree = tree;
    call->context_print = print.text;
    return tree;
}

uint32_t ep_call_attempt(const ep_call *call)
{
    return call->attempt;
}

const char *ep_call_key(const ep_call *call)
{
    /* The key is built on demand; the caller sees no change. */
    return stage_call_key((ep_call *)call);
}

const char *ep_call_uid(const ep_call *call)
{
    return call->uid;
}

/* ---- what it answers ---- */

/* Public API for plugins and functions, in a worker: keeps a copy of a JSON object as the new event or
 * context. Returns EP_EINVAL if the text is not one: only valid JSON may reach the store. */
static int set_json_object(char **out, const char *text)
{
    if (text == NULL)
        return EP_EINVAL;
    size_t bytes = strlen(text);
    if (json_kind((struct json_span){text, bytes}) != '{' || !json_valid(text, bytes, NULL))
        return EP_EINVAL;
    char *copy = strdup(text);
    if (copy == NULL)
        return EP_ENOMEM;
    free(*out);
    *out = copy;
    return 0;
}

int ep_call_set_event(ep_call *call, const char *text)
{
    return set_json_object(&call->new_event, text);
}

int ep_call_set_context(ep_call *call, const char *text)
{
    return set_json_object(&call->new_context, text);
}

void ep_call_set_retry_after(ep_call *call, uint64_t ms)
{
    call->retry_after_ms = ms;
}

/* Public API for plugins and functions, in a worker: sets the reason of an answer (printf format), which
 * operators see in `eventpipe show`. A long text is cut between two characters. The worker also uses it
 * for its own exec and HTTP stages. */
void ep_call_set_reason(ep_call *call, const char *format, ...)
{
    char reason[sizeof call->reason]; /* not written in place: an argument may be call->reason itself */
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(reason, sizeof reason, format, arguments);
    if (length < 0)
        reason[0] = '\0';
    else if ((size_t)length >= sizeof reason)
        base_utf8_cut(reason);
    va_end(arguments);
    memcpy(call->reason, reason, strlen(reason) + 1);
}
