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

static const char *const kind_names[] = {
    [MSGPACK_NIL] = "nil",        [MSGPACK_BOOL] = "a boolean", [MSGPACK_INTEGER] = "an integer",
    [MSGPACK_FLOAT] = "a float",  [MSGPACK_TEXT] = "text",      [MSGPACK_BYTES] = "bytes",
    [MSGPACK_ARRAY] = "an array", [MSGPACK_MAP] = "a map",      [MSGPACK_EXTENSION] = "an extension",
};

/* ---- parts ---- */

/* Returns the row's id as a UID. An id that cannot be one (not UTF-8, with a NUL, empty, too long) is
 * replaced by a hash of its bytes, so that two rows never become one event. NULL = out of memory.
 * `eventpipe import` runs it for each row. */
static char *make_uid(struct json_span id)
{
    char hash[HASH_UID_DIGITS + 1];

    if (id.bytes > 0 && id.bytes <= UID_BYTES_MAX && base_utf8_valid(id.at, id.bytes) &&
        memchr(id.at, '\0', id.bytes) == NULL)
        return strndup(id.at, id.bytes);
    base_hash_hex(id.at, id.bytes, hash, HASH_UID_DIGITS);
    return strdup(hash);
}

/* Reads the only MessagePack value in the bytes of an imported column; it is an error if more bytes
 * follow. `eventpipe import` runs it for each row's data and context. */
static int read_whole_value(struct msgpack bytes, struct msgpack *value, struct error *error)
{
    int code = json_msgpack_first(bytes, value, error);
    if (code == 0 && value->bytes != bytes.bytes)
        code = base_error_set(error, EP_EPROTO, "%zu bytes follow its end", bytes.bytes - value->bytes);
    return code;
}

/* Fails unless a MessagePack value of an imported row is a map. `what` begins the message, which becomes
 * the error of the dead event. `eventpipe import` runs it. */
static int expect_map(const char *what, struct msgpack value, struct error *error)
{
    if (json_msgpack_kind(value) == MSGPACK_MAP)
        return 0;
    return base_error_set(error, EP_EPROTO, "%sexpected a map, found %s", what,
                          kind_names[json_msgpack_kind(value)]);
}

/* ---- the event ---- */

/* Adds the member "uid" before the others in an imported event's JSON, if it has none: stages expect it.
 * `eventpipe import` runs it. */
static void add_uid_member(struct import_row *row)
{
    struct text *out = &row->spare;
    base_text_append(out, "{\"uid\":");
    json_write_string(out, row->uid, strlen(row->uid));
    base_text_append(out, row->data.bytes > 2 ? "," : ""); /* {} has no member to separate */
    base_text_append_bytes(out, row->data.text + 1, row->data.bytes - 1);
    struct text swap = row->data;
    row->data = *out;
    *out = swap;
}

/* *out: a member of an imported event as text, malloc'd; NULL if it does not exist or is neither text nor
 * number. `eventpipe import` runs it for uid, address and type. */
static int copy_member(struct json_span event, const char *pointer, char **out)
{
    struct json_span value;
    *out = NULL;
    if (!json_find(event, pointer, &value) || (json_kind(value) != '"' && json_kind(value) != '0'))
        return 0;
    *out = json_text(value);
    return *out != NULL ? 0 : EP_ENOMEM;
}

/* Reads the data of an imported row: turns its MessagePack into JSON, and finds UID, address and type.
 * `eventpipe import` runs it for each row. */
static int read_event(struct import_row *row, struct msgpack data)
{
    struct msgpack value;
    struct json_span found;
    int code = read_whole_value(data, &value, &row->error);
    if (code == 0)
        code = expect_map("", value, &row->error);
    if (code == 0)
        code = json_msgpack_json(value, &row->data, &row->error);
    struct json_span event = {row->data.text, row->data.bytes};
    if (code == 0)
        code = copy_member(event, "/uid", &row->other_uid);
    if (code == 0)
        code = copy_member(event, "/address", &row->address);
    if (code == 0)
        code = copy_member(event, "/type", &row->type);
    if (code != 0)
        return code;
    if (row->other_uid != NULL && strcmp(row->other_uid, row->uid) == 0) {
        free(row->other_uid);
        row->other_uid = NULL;
    }
    if (!json_find(event, "/uid", &found))
        add_uid_member(row);
    row->event.address = row->address;
    row->event.type = row->type;
    row->event.data = row->data.text;
    row->event.data_bytes = row->data.bytes;
    return row->data.failed ? EP_ENOMEM : 0;
}

/* ---- the context ---- */

/* Keeps one mark of processedStages, the Go eventpipe's record of the stages that an event has done.
 * `eventpipe import` runs it for each member. The names go into one text, each with its NUL;
 * set_mark_names sets the pointers when the text no longer grows. */
static int on_mark(struct msgpack key, struct msgpack value, void *user)
{
    struct import_row *row = user;
    struct json_span name;
    if (json_msgpack_kind(key) != MSGPACK_TEXT || !json_msgpack_content(key, &name))
        return base_error_set(&row->error, EP_EPROTO, "processedStages: a stage's name is %s, expected text",
                              kind_names[json_msgpack_kind(key)]);
    if (memchr(name.at, '\0', name.bytes) != NULL || memchr(name.at, '\n', name.bytes) != NULL)
        return base_error_set(
            &row->error, EP_EPROTO,
            "processedStages: a stage's name has a line feed or NUL in it, and cannot be kept");
    if (json_msgpack_kind(value) != MSGPACK_BOOL)
        return base_error_set(&row->error, EP_EPROTO,
                              "processedStages: %.*s: expected true or false, found %s",
                              (int)(name.bytes < 200 ? name.bytes : 200), name.at,
                              kind_names[json_msgpack_kind(value)]);
    if (row->mark_count == row->mark_room) {
        size_t room = row->mark_room == 0 ? 16 : 2 * row->mark_room;
        struct import_mark *marks = reallocarray(row->marks, room, sizeof *marks);
        if (marks == NULL)
            return EP_ENOMEM;
        row->marks = marks;
        row->mark_room = room;
    }
    row->marks[row->mark_count++].done = json_msgpack_bool(value);
    base_text_append_bytes(&row->names, name.at, name.bytes);
    base_text_append_bytes(&row->names, "", 1);
    return row->names.failed ? EP_ENOMEM : 0;
}

/* Sets the names of an imported event's stage marks. If a name comes twice, the last mark counts, as in
 * the Go eventpipe. `eventpipe import` runs it for each row. */
static void set_mark_names(struct import_row *row)
{
    const char *name = row->names.text;
    size_t kept = 0;
    for (size_t i = 0; i < row->mark_count; i++, name += strlen(name) + 1) {
        size_t at = 0;
        while (at < kept && strcmp(row->marks[at].stage, name) != 0)
            at++;
        row->marks[at] = (struct import_mark){name, row->marks[i].done};
        kept += at == kept;
    }
    row->mark_count = kept;
}

/* Reads processedStages of an imported row: which stages the event has done. `eventpipe import` runs it,
 * so that no stage runs twice on an event. */
static int read_marks(struct import_row *row, struct msgpack context)
{
    struct msgpack stages;
    if (!json_msgpack_find(context, "processedStages", &stages) || json_msgpack_kind(stages) == MSGPACK_NIL)
        return 0;
    int code = expect_map("processedStages: ", stages, &row->error);
    if (code == 0)
        code = json_msgpack_each_member(stages, on_mark, row);
    if (code == 0)
        set_mark_names(row);
    else
        row->mark_count = 0;
    return code;
}

/* Reads the context of an imported row: the marks of stages, and pipelineContext as JSON.
 * `eventpipe import` runs it for each row. */
static int read_context(struct import_row *row, struct msgpack bytes)
{
    struct msgpack context, map;
    if (bytes.at == NULL || bytes.bytes == 0)
        return 0;
    int code = read_whole_value(bytes, &context, &row->error);
    if (code == 0 && json_msgpack_kind(context) == MSGPACK_NIL)
        return 0;
    if (code == 0)
        code = expect_map("", context, &row->error);
    if (code == 0)
        code = read_marks(row, context);
    if (code != 0 || !json_msgpack_find(context, "pipelineContext", &map) ||
        json_msgpack_kind(map) == MSGPACK_NIL)
        return code;
    code = expect_map("pipelineContext: ", map, &row->error);
    if (code == 0)
        code = json_msgpack_json(map, &row->context, &row->error);
    if (code == EP_EPROTO)
        base_text_reset(&row->context);
    return code;
}

/* ---- the row ---- */

/* Empties the imported row; its buffers stay for the next one. `eventpipe import` runs it before each row
 * and at the end. */
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
    base_text_reset(&row->spare);
    base_text_reset(&row->names);
}

/* Turns a row of the Go eventpipe's database into an event of ours. What cannot be read makes the event
 * dead, with its error, so that nothing is lost. `eventpipe import` calls it for each row. 0 or EP_ENOMEM. */
int import_row_read(struct import_row *row, struct json_span id, struct msgpack data, struct msgpack context)
{
    clear_row(row);
    row->uid = make_uid(id);
    if (row->uid == NULL)
        return EP_ENOMEM;
    row->event.uid = row->uid;
    int code = read_event(row, data);
    if (code == EP_EPROTO) {
        row->event.dead = STORE_REASON_CORRUPT;
        row->event.data = data.at != NULL ? data.at : "";
        row->event.data_bytes = data.bytes;
        base_error_prefix(&row->error, "its data in the database of the Go eventpipe cannot be read");
    } else if (code != 0) {
        return code;
    }
    struct error first = row->error;
    code = read_context(row, context);
    if (code == EP_EPROTO) {
        base_error_prefix(&row->error, "its context in the database of the Go eventpipe cannot be read");
        code = 0;
        if (row->event.dead != STORE_REASON_NONE)
            row->error = first;
        row->event.dead = STORE_REASON_CORRUPT;
    }
    row->event.error = row->event.dead != STORE_REASON_NONE ? row->error.message : NULL;
    return code;
}

/* Frees what an imported row holds. `eventpipe import` calls it at the end of the import. */
void import_row_free(struct import_row *row)
{
    clear_row(row);
    free(row->marks);
    base_text_free(&row->context);
    base_text_free(&row->data);
    base_text_free(&row->spare);
    base_text_free(&row->names);
    *row = (struct import_row){0};
}
