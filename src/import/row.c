/* SPDX-License-Identifier: MIT */
/*
 * Turns a row of the Go eventpipe's table `items` into an event of ours. Runs in the command line, for
 * eventpipe import. Pure.
 *
 * Invariants
 *  1. The row's id is the event's uid, whatever the event's data says; if it cannot be a uid, a hash of it
 *     is.
 *  2. No stage runs with a context or marks that are not those of the original. If these cannot be read,
 *     the event is dead and keeps its JSON; if the data cannot be read, it is dead and keeps its raw bytes.
 *
 * The original writes nil for an empty map: no context yet, no stage done.
 */
#include "src/import/row.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/utf8.h"
#include "src/source/source.h"

static const char *const kind_phrases[] = {
    [MSGPACK_NIL] = "nil",        [MSGPACK_BOOL] = "a boolean", [MSGPACK_INTEGER] = "an integer",
    [MSGPACK_FLOAT] = "a float",  [MSGPACK_TEXT] = "text",      [MSGPACK_BYTES] = "bytes",
    [MSGPACK_ARRAY] = "an array", [MSGPACK_MAP] = "a map",      [MSGPACK_EXTENSION] = "an extension",
};

/* ---- checks and conversions ---- */

/* Returns the id of an imported row as the UID of our event; the caller frees it, NULL means out of memory.
 * An id that cannot be a UID (not UTF-8, with a NUL, empty, too long) is replaced by a hash of its bytes,
 * so that different rows never become one event. `eventpipe import` calls it for each row. */
static char *make_uid(struct json_span id)
{
    char hash[HASH_UID_DIGITS + 1];

    if (id.bytes > 0 && id.bytes <= UID_BYTES_MAX && base_utf8_valid(id.at, id.bytes) &&
        memchr(id.at, '\0', id.bytes) == NULL)
        return strndup(id.at, id.bytes);
    base_hash_write_hex(id.at, id.bytes, hash, HASH_UID_DIGITS);
    return strdup(hash);
}

/* Finds the one MessagePack value that an imported column must hold; more bytes after it are an error
 * (EP_EPROTO), as they would be lost. `eventpipe import` calls it for each row's data and context. Returns
 * 0 or a negative code with a message. */
static int read_single_value(struct msgpack column_value, struct msgpack *value, struct error *error)
{
    int code = json_msgpack_find_first(column_value, value, error);
    if (code == 0 && value->bytes != column_value.bytes)
        code = base_error_set(error, EP_EPROTO, "unexpected bytes after the value: %zu",
                              column_value.bytes - value->bytes);
    return code;
}

/* Fails with EP_EPROTO unless a MessagePack value of an imported row is a map. `message_prefix` (such as
 * "pipelineContext: ") says in the message which value it is; the message becomes the error of the dead
 * event that `eventpipe import` stores. */
static int check_is_map(const char *message_prefix, struct msgpack value, struct error *error)
{
    if (json_msgpack_kind(value) == MSGPACK_MAP)
        return 0;
    return base_error_set(error, EP_EPROTO, "%sexpected a map, found %s", message_prefix,
                          kind_phrases[json_msgpack_kind(value)]);
}

/* ---- the event ---- */

/* Puts the member "uid" in front of the other members of an imported event's JSON. `eventpipe import` calls
 * it for an event without one, because stages expect it. */
static void add_uid_member(struct import_row *row)
{
    struct text *out = &row->spare_text;
    base_text_append(out, "{\"uid\":");
    json_write_string(out, row->uid, strlen(row->uid));
    base_text_append(out, row->data.bytes > 2 ? "," : ""); /* {} has no member to separate */
    base_text_append_bytes(out, row->data.text + 1, row->data.bytes - 1);
    struct text previous_data = row->data;
    row->data = *out;
    *out = previous_data;
}

/* Copies a member of an imported event as text into *out, which the caller frees. *out is NULL if there is
 * no such member or it is neither text nor a number. `eventpipe import` reads uid, address and type with
 * it. Returns 0 or EP_ENOMEM. */
static int copy_text_or_number(struct json_span event, const char *json_pointer, char **out)
{
    struct json_span value;
    *out = NULL;
    if (!json_find(event, json_pointer, &value) || (json_kind(value) != '"' && json_kind(value) != '0'))
        return 0;
    *out = json_text(value);
    return *out != NULL ? 0 : EP_ENOMEM;
}

/* Converts the MessagePack data of an imported row to JSON and takes UID, address and type from it;
 * `eventpipe import` calls it for each row. Returns 0, EP_ENOMEM, or EP_EPROTO if the data cannot be read;
 * the event is then stored as dead. */
static int read_event_data(struct import_row *row, struct msgpack data)
{
    struct msgpack value;
    struct json_span uid_value;
    int code = read_single_value(data, &value, &row->error);
    if (code == 0)
        code = check_is_map("", value, &row->error);
    if (code == 0)
        code = json_msgpack_convert_to_json(value, &row->data, &row->error);
    struct json_span event = {row->data.text, row->data.bytes};
    if (code == 0)
        code = copy_text_or_number(event, "/uid", &row->other_uid);
    if (code == 0)
        code = copy_text_or_number(event, "/address", &row->address);
    if (code == 0)
        code = copy_text_or_number(event, "/type", &row->type);
    if (code != 0)
        return code;
    if (row->other_uid != NULL && strcmp(row->other_uid, row->uid) == 0) {
        free(row->other_uid);
        row->other_uid = NULL;
    }
    if (!json_find(event, "/uid", &uid_value))
        add_uid_member(row);
    row->event.address = row->address;
    row->event.type = row->type;
    row->event.data = row->data.text;
    row->event.data_bytes = row->data.bytes;
    return row->data.failed ? EP_ENOMEM : 0;
}

/* ---- the context ---- */

/* Called for each member of processedStages, in which the Go eventpipe marks the stages that an event has
 * passed: keeps one mark. Its name is appended to row->mark_names, which may still move as it grows; so
 * set_mark_stage_names sets the pointers to the names later. Returns 0 or a negative code. */
static int on_stage_mark(struct msgpack key, struct msgpack value, void *user)
{
    struct import_row *row = user;
    struct json_span name;
    if (json_msgpack_kind(key) != MSGPACK_TEXT || !json_msgpack_find_content(key, &name))
        return base_error_set(&row->error, EP_EPROTO, "processedStages: a stage's name is %s, expected text",
                              kind_phrases[json_msgpack_kind(key)]);
    if (memchr(name.at, '\0', name.bytes) != NULL || memchr(name.at, '\n', name.bytes) != NULL)
        return base_error_set(
            &row->error, EP_EPROTO,
            "processedStages: a stage's name contains a line feed or NUL, so it cannot be stored");
    if (json_msgpack_kind(value) != MSGPACK_BOOL)
        return base_error_set(&row->error, EP_EPROTO,
                              "processedStages: %.*s: expected true or false, found %s",
                              (int)(name.bytes < 200 ? name.bytes : 200), name.at,
                              kind_phrases[json_msgpack_kind(value)]);
    if (row->mark_count == row->mark_capacity) {
        size_t capacity = row->mark_capacity == 0 ? 16 : 2 * row->mark_capacity;
        struct import_mark *marks = reallocarray(row->marks, capacity, sizeof *marks);
        if (marks == NULL)
            return EP_ENOMEM;
        row->marks = marks;
        row->mark_capacity = capacity;
    }
    row->marks[row->mark_count++].done = json_msgpack_bool(value);
    base_text_append_bytes(&row->mark_names, name.at, name.bytes);
    base_text_append_bytes(&row->mark_names, "", 1);
    return row->mark_names.failed ? EP_ENOMEM : 0;
}

/* Sets the stage name of each mark of an imported event (a mark says that a stage has done the event, or
 * has not), once all names have been read. If a name occurs
 * twice, the last mark counts, as in the Go eventpipe. `eventpipe import` calls it for each row that has
 * marks. */
static void set_mark_stage_names(struct import_row *row)
{
    const char *name = row->mark_names.text;
    size_t kept_count = 0;
    for (size_t i = 0; i < row->mark_count; i++, name += strlen(name) + 1) {
        size_t kept_index = 0;
        while (kept_index < kept_count && strcmp(row->marks[kept_index].stage, name) != 0)
            kept_index++;
        row->marks[kept_index] = (struct import_mark){name, row->marks[i].done};
        kept_count += kept_index == kept_count;
    }
    row->mark_count = kept_count;
}

/* Reads which stages an imported event has done (processedStages of its context), so that after `eventpipe
 * import` no stage runs twice on it. Returns 0 (also if there are no marks), EP_ENOMEM, or EP_EPROTO if
 * they cannot be read. */
static int read_stage_marks(struct import_row *row, struct msgpack context)
{
    struct msgpack marks_map;
    if (!json_msgpack_find(context, "processedStages", &marks_map) ||
        json_msgpack_kind(marks_map) == MSGPACK_NIL)
        return 0;
    int code = check_is_map("processedStages: ", marks_map, &row->error);
    if (code == 0)
        code = json_msgpack_each_member(marks_map, on_stage_mark, row);
    if (code == 0)
        set_mark_stage_names(row);
    else
        row->mark_count = 0;
    return code;
}

/* Reads the context of an imported row: the marks of the stages that are done, and pipelineContext, which
 * becomes JSON. `eventpipe import` calls it for each row. Returns 0, EP_ENOMEM, or EP_EPROTO if it cannot
 * be read; the event is then stored as dead. */
static int read_context(struct import_row *row, struct msgpack column_value)
{
    struct msgpack context, pipeline_context;
    if (column_value.at == NULL || column_value.bytes == 0)
        return 0;
    int code = read_single_value(column_value, &context, &row->error);
    if (code == 0 && json_msgpack_kind(context) == MSGPACK_NIL)
        return 0;
    if (code == 0)
        code = check_is_map("", context, &row->error);
    if (code == 0)
        code = read_stage_marks(row, context);
    if (code != 0 || !json_msgpack_find(context, "pipelineContext", &pipeline_context) ||
        json_msgpack_kind(pipeline_context) == MSGPACK_NIL)
        return code;
    code = check_is_map("pipelineContext: ", pipeline_context, &row->error);
    if (code == 0)
        code = json_msgpack_convert_to_json(pipeline_context, &row->context, &row->error);
    if (code == EP_EPROTO)
        base_text_reset(&row->context);
    return code;
}

/* ---- the row ---- */

/* Empties the imported row but keeps its buffers for the next one. `eventpipe import` calls it before it
 * reads a row, and at the end before it frees the buffers. */
static void clear_row(struct import_row *row)
{
    free(row->uid);
    free(row->address);
    free(row->type);
    free(row->other_uid);
    row->uid = row->address = row->type = row->other_uid = NULL;
    row->event = (struct store_event){0};
    row->mark_count = 0;
    base_text_reset(&row->context);
    base_text_reset(&row->data);
    base_text_reset(&row->spare_text);
    base_text_reset(&row->mark_names);
}

/* Turns a row of the Go eventpipe's database into an event of ours. An event whose data or context cannot
 * be read is kept as a dead event with the reason, so that nothing is lost. `eventpipe import` calls it for
 * each row. Returns 0 or EP_ENOMEM. */
int import_row_read(struct import_row *row, struct json_span id, struct msgpack data, struct msgpack context)
{
    clear_row(row);
    row->uid = make_uid(id);
    if (row->uid == NULL)
        return EP_ENOMEM;
    row->event.uid = row->uid;
    int code = read_event_data(row, data);
    if (code == EP_EPROTO) {
        row->event.dead = STORE_REASON_CORRUPT;
        row->event.data = data.at != NULL ? data.at : "";
        row->event.data_bytes = data.bytes;
        base_error_prefix(&row->error, "its data in the database of the Go eventpipe cannot be read");
    } else if (code != 0) {
        return code;
    }
    struct error data_error = row->error;
    code = read_context(row, context);
    if (code == EP_EPROTO) {
        base_error_prefix(&row->error, "its context in the database of the Go eventpipe cannot be read");
        code = 0;
        if (row->event.dead != STORE_REASON_NONE)
            row->error = data_error;
        row->event.dead = STORE_REASON_CORRUPT;
    }
    row->event.error = row->event.dead != STORE_REASON_NONE ? row->error.message : NULL;
    return code;
}

/* Frees the buffers of an imported row and sets it to zeros. `eventpipe import` calls it once, at the end
 * of the import. */
void import_row_free(struct import_row *row)
{
    clear_row(row);
    free(row->marks);
    base_text_free(&row->context);
    base_text_free(&row->data);
    base_text_free(&row->spare_text);
    base_text_free(&row->mark_names);
    *row = (struct import_row){0};
}
