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

/* Clears the answer part of a call (one event as its stage sees it), the part that the stage fills. A
 * worker calls it before it gives an event to its stage. */
void stage_call_open(struct ep_call *call)
{
    call->answer = EP_PROCESSED;
    call->retry_after_ms = 0;
    call->new_event = NULL;
    call->new_context = NULL;
    call->reason[0] = '\0';
    call->event_tree = NULL;
    call->context_tree = NULL;
    call->unchanged_context_text = NULL;
    call->key[0] = '\0';
}

/* Frees the new event, new context and parsed trees of a call. A worker calls it after it has copied the
 * stage's answer into the batch that it commits. */
void stage_call_close(struct ep_call *call)
{
    free(call->new_event);
    free(call->new_context);
    free(call->unchanged_context_text);
    cJSON_Delete(call->event_tree);
    cJSON_Delete(call->context_tree);
    stage_call_open(call);
}

/* Returns whether the key of a stage's call has no control characters. HTTP stages send the event's key as
 * a header, in which a line feed from a hostile UID would begin another header. A worker checks each key
 * with it. */
static bool has_no_control_character(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

/* Returns the event's idempotency key, SOURCE/UID/STAGE, by which a stage recognises an event that it
 * gets again after a crash. A UID that is too long or has control characters is replaced by its hash.
 * The key belongs to the call. Workers send it to programs and HTTP servers; plugins and functions ask
 * for it with ep_call_key. */
const char *stage_call_get_key(struct ep_call *call)
{
    if (call->key[0] != '\0')
        return call->key;
    int length = snprintf(call->key, sizeof call->key, "%s/%s/%s", call->source, call->uid, call->stage);
    if (length > 0 && (size_t)length < sizeof call->key && has_no_control_character(call->key))
        return call->key;
    char hash[SHA256_DIGEST_STRING_LENGTH];
    SHA256Data((const uint8_t *)call->uid, strlen(call->uid), hash);
    snprintf(call->key, sizeof call->key, "%.63s/sha256:%.*s/%.63s", call->source, HASH_DIGITS, hash,
             call->stage);
    return call->key;
}

/* Writes the JSON line that a worker sends to the program of an exec stage or the server of an HTTP stage:
 * event, context, attempt and key. Event and context keep their bytes, so that 64-bit numbers stay exact.
 * Returns 0 or EP_ENOMEM. */
int stage_call_write_json(struct ep_call *call, struct text *out)
{
    const char *key = stage_call_get_key(call);

    base_text_append(out, "{\"event\":");
    json_write_on_one_line(out, (struct json_span){call->event, call->event_bytes});
    base_text_append(out, ",\"context\":");
    json_write_on_one_line(out, (struct json_span){call->context, call->context_bytes});
    base_text_append(out, ",\"attempt\":");
    json_write_uint(out, call->attempt);
    base_text_append(out, ",\"key\":");
    json_write_string(out, key, strlen(key));
    base_text_append(out, "}");
    return out->failed ? EP_ENOMEM : 0;
}

/* Prints the context tree as the call's new context if a plugin or function has changed it. A tree that
 * is not valid JSON becomes an error answer, so that it never reaches the store. Returns 0 or EP_ENOMEM.
 * A worker calls it after its stage has processed an event. */
int stage_call_print_changed_context(struct ep_call *call)
{
    if (call->context_tree == NULL || call->new_context != NULL)
        return 0;
    struct text current_text = {0}, merged_text = {0};
    stage_context_print(&current_text, call->context_tree, (struct json_span){0});
    if (current_text.failed) {
        base_text_free(&current_text);
        return EP_ENOMEM;
    }
    bool is_changed = strcmp(current_text.text, call->unchanged_context_text) != 0;
    base_text_free(&current_text);
    if (!is_changed)
        return 0;
    stage_context_print(&merged_text, call->context_tree,
                        (struct json_span){call->context, call->context_bytes});
    if (merged_text.failed) {
        base_text_free(&merged_text);
        return EP_ENOMEM;
    }
    /* A stage can build a tree that is not JSON (nested too deep, raw items). It must not reach the store. */
    if (json_valid(merged_text.text, merged_text.bytes, NULL)) {
        call->new_context = merged_text.text;
        return 0;
    }
    base_text_free(&merged_text);
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

/* Returns the event as a cJSON tree, which the first call parses, or NULL if out of memory. The tree
 * belongs to the call. Plugins and functions call it in a worker. */
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

/* Returns the event's context as a cJSON tree that the stage may change, or NULL if out of memory. The
 * tree belongs to the call. The text of the unchanged tree is kept, so that the worker later sees whether
 * the stage changed it. Plugins and functions call it. */
cJSON *ep_call_context(ep_call *call)
{
    if (call->context_tree != NULL)
        return call->context_tree;
    cJSON *tree = cJSON_ParseWithLength(call->context, call->context_bytes);
    struct text unchanged_text = {0};
    if (tree != NULL)
        stage_context_print(&unchanged_text, tree, (struct json_span){0});
    if (!cJSON_IsObject(tree) || unchanged_text.failed) {
        cJSON_Delete(tree);
        base_text_free(&unchanged_text);
        return NULL;
    }
    call->context_tree = tree;
    call->unchanged_context_text = unchanged_text.text;
    return tree;
}

uint32_t ep_call_attempt(const ep_call *call)
{
    return call->attempt;
}

const char *ep_call_key(const ep_call *call)
{
    /* The key is built on demand; the caller sees no change. */
    return stage_call_get_key((ep_call *)call);
}

const char *ep_call_uid(const ep_call *call)
{
    return call->uid;
}

/* ---- what it answers ---- */

/* Keeps a copy of a JSON object as the call's new event or context, in place of an earlier one. Returns
 * 0, EP_ENOMEM, or EP_EINVAL if the text is not a JSON object: only valid JSON may reach the store.
 * Serves ep_call_set_event and ep_call_set_context. Plugins and functions call these in a worker. */
static int replace_json_object(char **out, const char *text)
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
    return replace_json_object(&call->new_event, text);
}

int ep_call_set_context(ep_call *call, const char *text)
{
    return replace_json_object(&call->new_context, text);
}

void ep_call_set_retry_after(ep_call *call, uint64_t ms)
{
    call->retry_after_ms = ms;
}

/* Sets the reason of an answer (printf format), which operators see in `eventpipe show`. A reason that
 * is too long is cut at the end of a character. Plugins and functions call it, and the worker does for
 * its exec and HTTP stages. */
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
