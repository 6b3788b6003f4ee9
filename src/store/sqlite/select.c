/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: finds the events that an operator selects. Runs in the keeper and the command line.
 *
 * With UIDs, every event is found by the index. Otherwise we walk along the smallest table that can hold the
 * wanted states, source by source in order of arrival, and compare the rest of the selection here.
 *
 * Survived: a damaged page hides only the events in it. A list reads around it, event by event.
 */
#include "src/store/sqlite/select.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (4 << 20) /* copied data of a chunk, so that large events do not fill the memory */
#define STATE(state) (1u << (state))
#define SUSPENDED (STATE(STORE_DELAYED) | STATE(STORE_HELD) | STATE(STORE_DEAD))

/* ---- the chain ---- */

/* Whether the list of done stages "a\nb\n" of an event names the stage. Runs in the keeper or the command
 * line for an operator who lists or changes events of the store. */
static bool is_stage_done(const char *done, const char *stage)
{
    size_t length = strlen(stage);
    for (const char *line = done; line != NULL && *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        if ((size_t)(end - line) == length && memcmp(line, stage, length) == 0)
            return true;
        line = *end == '\0' ? end : end + 1;
    }
    return false;
}

/* Returns the stage that an event waits for, or died at: the first of its source's chain that is not done;
 * "" = unknown. Runs in the keeper or the command line for an operator who lists or changes events. */
static const char *find_next_stage(const struct walk_source *source, const char *done)
{
    for (size_t i = 0; source->chain != NULL && source->chain[i] != NULL; i++)
        if (!is_stage_done(done, source->chain[i]))
            return source->chain[i];
    return "";
}

/* Returns the names of a source's stages as the operator's selection gives them, or NULL if the
 * configuration lacks the source. Runs in the keeper or the command line when a selection of events
 * begins. */
static const char *const *find_chain(const struct store_select *select, const char *source)
{
    for (size_t i = 0; i < select->chain_count; i++)
        if (strcmp(select->chain_sources[i], source) == 0)
            return select->chains[i];
    return NULL;
}

/* ---- open ---- */

/* Adds a source of the store to an operator's walk over events, if the selection names it or names none.
 * store_each_source calls it in the keeper or the command line. */
static int on_store_source(int64_t id, const char *name, void *user)
{
    struct walk *walk = user;
    if (walk->select->source != NULL && strcmp(walk->select->source, name) != 0)
        return 0;
    struct walk_source *grown = realloc(walk->sources, (walk->source_count + 1) * sizeof *grown);
    if (grown == NULL)
        return store_sqlite_fail(walk->store, SQLITE_NOMEM);
    walk->sources = grown;
    struct walk_source *source = &grown[walk->source_count];
    *source = (struct walk_source){.id = id, .name = strdup(name), .chain = find_chain(walk->select, name)};
    if (source->name == NULL)
        return store_sqlite_fail(walk->store, SQLITE_NOMEM);
    walk->source_count++;
    return 0;
}

static int compare_ids(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* Finds the events with this UID by the index, in all sources of the walk. Runs in the keeper or the
 * command line for an operator who selects events by UID. */
static int find_events_of_uid(struct walk *walk, const char *uid)
{
    for (size_t i = 0; i < walk->source_count; i++) {
        sqlite3_stmt *statement = store_sqlite_use_statement(walk->store, SQL_FIND_UID);
        store_sqlite_bind(walk->store, statement, 1, walk->sources[i].id);
        store_sqlite_bind_string(walk->store, statement, 2, uid);
        int code = store_sqlite_step_statement(walk->store, statement);
        if (code < 0)
            return code;
        if (code == 0)
            continue;
        walk->found[walk->found_count++] = sqlite3_column_int64(statement, 0);
        sqlite3_reset(statement);
    }
    return 0;
}

/* Finds the events of all UIDs that an operator named, sorted by arrival and each once. Runs in the keeper
 * or the command line when a selection by UID begins. */
static int find_selected_events(struct walk *walk)
{
    const struct store_select *select = walk->select;
    walk->found = calloc(select->uid_count * walk->source_count + 1, sizeof *walk->found);
    if (walk->found == NULL)
        return store_sqlite_fail(walk->store, SQLITE_NOMEM);
    int code = store_sqlite_begin_read(walk->store);
    if (code != 0)
        return code;
    for (size_t i = 0; code == 0 && i < select->uid_count; i++)
        code = find_events_of_uid(walk, select->uids[i]);
    code = store_sqlite_end_transaction(walk->store, code);
    qsort(walk->found, walk->found_count, sizeof *walk->found, compare_ids);
    size_t kept = 0; /* a UID named twice is one event */
    for (size_t i = 0; i < walk->found_count; i++)
        if (i == 0 || walk->found[i] != walk->found[kept - 1])
            walk->found[kept++] = walk->found[i];
    walk->found_count = kept;
    return code;
}

/* Begins a walk over the events of the store that an operator selects. The keeper calls it for
 * `eventpipe queue`, `retry` and the like; the command line does for lists while the daemon is down. If
 * the index of UIDs is damaged, it compares every event. */
int store_sqlite_select_open(struct store_sqlite *store, const struct store_select *select, unsigned states,
                             bool with_data, bool skip_damage, struct walk *out)
{
    *out = (struct walk){.store = store,
                         .select = select,
                         .states = states,
                         .with_data = with_data,
                         .skip_damage = skip_damage};
    if (select->state >= 0)
        out->states &= STATE(select->state);
    int code = store_sqlite_each_source(&store->store, on_store_source, out);
    if (code == 0 && (out->items = calloc(WALK_CHUNK, sizeof *out->items)) == NULL)
        code = store_sqlite_fail(store, SQLITE_NOMEM);
    if (code == 0 && select->uids != NULL)
        code = find_selected_events(out);
    if (code == EP_ESTORE && skip_damage && out->found != NULL) {
        free(out->found);
        out->found = NULL;
        out->by_uid = true;
        code = 0;
    }
    out->end = out->source_count == 0 || out->states == 0;
    out->last = out->end ? 0 : EVENT_FIRST(out->sources[0].id);
    if (code != 0)
        store_sqlite_select_close(out);
    return code;
}

void store_sqlite_select_free(struct walk_item *item)
{
    free(item->block);
    item->block = NULL;
}

static void free_chunk(struct walk *walk)
{
    for (size_t i = 0; i < walk->item_count; i++)
        store_sqlite_select_free(&walk->items[i]);
    walk->item_count = 0;
}

/* Ends an operator's walk over events of the store and frees it. The list or change that began it calls
 * this, in the keeper or the command line. */
void store_sqlite_select_close(struct walk *walk)
{
    free_chunk(walk);
    for (size_t i = 0; i < walk->source_count; i++)
        free(walk->sources[i].name);
    free(walk->sources);
    free(walk->found);
    free(walk->items);
    *walk = (struct walk){.end = true};
}

/* ---- one event ---- */

static const char *column_text(sqlite3_stmt *statement, int at)
{
    const char *text = (const char *)sqlite3_column_text(statement, at);
    return text != NULL ? text : "";
}

/* Fills in an event for an operator's list from the statement's row. Its texts are borrowed from the row:
 * copy_item must copy them before the next step. Runs in the keeper or the command line. */
static void read_item(const struct walk *walk, sqlite3_stmt *statement, struct walk_source *source,
                      struct walk_item *out)
{
    bool suspended = sqlite3_column_type(statement, 6) == SQLITE_NULL;
    *out = (struct walk_item){.source = source, .token = suspended ? -1 : sqlite3_column_int64(statement, 6)};
    out->item = (struct store_item){
        .id = sqlite3_column_int64(statement, 0),
        .source = source->name,
        .uid = column_text(statement, 1),
        .address = column_text(statement, 2),
        .type = column_text(statement, 3),
        .arrival_ms = (uint64_t)sqlite3_column_int64(statement, 4),
        .state = suspended ? (enum store_state)sqlite3_column_int64(statement, 7)
                 : out->token >= walk->store->first_valid_token ? STORE_RUNNING
                                                                : STORE_READY,
        .reason = (enum store_reason)sqlite3_column_int64(statement, 8),
        .due_ms = (uint64_t)sqlite3_column_int64(statement, 9),
        .attempts = (uint32_t)sqlite3_column_int64(statement, 10),
        .crashes = (uint32_t)sqlite3_column_int64(statement, 11),
        .done = column_text(statement, 12),
        .error = column_text(statement, 14),
    };
    out->item.stage = find_next_stage(source, out->item.done);
    if (!walk->with_data)
        return;
    out->item.data = column_text(statement, 5);
    out->item.data_bytes = (size_t)sqlite3_column_bytes(statement, 5);
    out->item.context = column_text(statement, 13);
    out->item.context_bytes = (size_t)sqlite3_column_bytes(statement, 13);
}

static bool differs(const char *wanted, const char *found)
{
    return wanted != NULL && strcmp(wanted, found) != 0;
}

/* Whether the operator's selection names this UID. Runs in the keeper or the command line, only while the
 * store's index of UIDs is damaged. */
static bool is_selected_uid(const struct store_select *select, const char *uid)
{
    for (size_t i = 0; i < select->uid_count; i++)
        if (strcmp(select->uids[i], uid) == 0)
            return true;
    return false;
}

/* Compares the parts of an operator's selection that the SQL statement does not: state, stage, address,
 * type, age and error. Runs in the keeper or the command line for each event that the walk reads. */
static bool is_wanted(const struct walk *walk, const struct store_item *item)
{
    const struct store_select *select = walk->select;
    return (!walk->by_uid || is_selected_uid(select, item->uid)) &&
           (walk->states & STATE(item->state)) != 0 && !differs(select->address, item->address) &&
           !differs(select->type, item->type) && !differs(select->stage, item->stage) &&
           (select->older_than_ms == 0 || item->arrival_ms < select->older_than_ms) &&
           (select->error == NULL || strstr(item->error, select->error) != NULL);
}

/* Copies a text to *end, points *text at the copy and moves *end behind it. An operator's walk over the
 * store runs it for each text of an event, in the keeper or the command line. */
static void copy_text(char **end, const char **text, size_t bytes)
{
    memcpy(*end, *text, bytes);
    (*end)[bytes] = '\0';
    *text = *end;
    *end += bytes + 1;
}

/* Copies an event's borrowed texts into a block of its own, so that no read transaction stays open while
 * an operator reads the list. Returns its size, 0 = out of memory. Runs in the keeper or the command line. */
static size_t copy_item(struct walk_item *item)
{
    struct store_item *view = &item->item;
    const char **texts[] = {&view->uid, &view->address, &view->type, &view->done, &view->error};
    size_t total = view->data_bytes + view->context_bytes + 2;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        total += strlen(*texts[i]) + 1;
    char *end = item->block = malloc(total);
    if (end == NULL)
        return 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        copy_text(&end, texts[i], strlen(*texts[i]));
    if (view->data != NULL)
        copy_text(&end, &view->data, view->data_bytes);
    if (view->context != NULL)
        copy_text(&end, &view->context, view->context_bytes);
    return total;
}

/* Returns the source of an event within an operator's walk, or NULL if the selection leaves that source
 * out. Runs in the keeper or the command line. */
static struct walk_source *find_walk_source(const struct walk *walk, int64_t event)
{
    for (size_t i = 0; i < walk->source_count; i++)
        if (walk->sources[i].id == event >> EVENT_SOURCE_SHIFT)
            return &walk->sources[i];
    return NULL;
}

/* Runs a statement of the store that reads one event by its id. Returns 1 = found, 0 = not, or a code. An
 * operator's walk uses it in the keeper or the command line. */
static int step_to_item(struct walk *walk, enum store_sqlite_statement which, int64_t event,
                        sqlite3_stmt **statement)
{
    *statement = store_sqlite_use_statement(walk->store, which);
    store_sqlite_bind(walk->store, *statement, 1, walk->with_data);
    store_sqlite_bind(walk->store, *statement, 2, event);
    return store_sqlite_step_statement(walk->store, *statement);
}

/* Reads one event again and compares it with the operator's selection. Returns 1 if it is still selected.
 * The keeper calls it inside a change's write transaction, because a worker may have taken the event
 * since; lists by UID use it too. */
int store_sqlite_select_again(struct walk *walk, int64_t event, struct walk_item *out)
{
    struct walk_source *source = find_walk_source(walk, event);
    sqlite3_stmt *statement;
    int code = source == NULL ? 0 : step_to_item(walk, SQL_ITEM, event, &statement);
    if (code == EP_ESTORE && walk->skip_damage) { /* the damaged table may hold nothing of this event */
        code = step_to_item(walk, SQL_ITEM_PROGRESS, event, &statement);
        if (code != 1)
            code = step_to_item(walk, SQL_ITEM_SUSPENDED, event, &statement);
        if (code == 0)
            code = EP_ESTORE;
    }
    if (code != 1)
        return code;
    read_item(walk, statement, source, out);
    if (!is_wanted(walk, &out->item))
        code = 0;
    else if (copy_item(out) == 0)
        code = store_sqlite_fail(walk->store, SQLITE_NOMEM);
    sqlite3_reset(statement);
    return code;
}

/* ---- a chunk ---- */

/* Reads the next chunk of an operator's walk over events that were found by UID. Runs in the keeper or the
 * command line. */
static int read_found_chunk(struct walk *walk, size_t limit)
{
    size_t bytes = 0;
    int code = 0;
    while (code >= 0 && walk->at < walk->found_count && walk->item_count < limit && bytes < CHUNK_BYTES) {
        struct walk_item *item = &walk->items[walk->item_count];
        code = store_sqlite_select_again(walk, walk->found[walk->at++], item);
        if (code == EP_ESTORE && walk->skip_damage) {
            walk->unreadable++;
            code = 0;
        }
        if (code == 1) {
            walk->item_count++;
            bytes += item->item.data_bytes + item->item.context_bytes;
        }
    }
    walk->end = walk->at == walk->found_count;
    return code < 0 ? code : 0;
}

/* Returns the statement for an operator's walk that reads the smallest table with the wanted states: dead
 * events of a large backlog are found without reading it. Runs in the keeper or the command line. */
static sqlite3_stmt *begin_rows(struct walk *walk, const struct walk_source *source)
{
    struct store_sqlite *store = walk->store;
    bool one_state = (walk->states & (walk->states - 1)) == 0;
    enum store_sqlite_statement which = SQL_LIST_ALL;
    if ((walk->states & SUSPENDED) == 0)
        which = SQL_LIST_PROGRESS;
    else if ((walk->states & ~SUSPENDED) == 0)
        which = one_state ? SQL_LIST_STATE : SQL_LIST_SUSPENDED;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, which);
    store_sqlite_bind(store, statement, 1, walk->with_data);
    store_sqlite_bind(store, statement, 2, walk->last);
    store_sqlite_bind(store, statement, 3, EVENT_LAST(source->id));
    store_sqlite_bind(store, statement, 4, WALK_CHUNK);
    if (which == SQL_LIST_STATE) {
        store_sqlite_bind(store, statement, 5, source->id);
        store_sqlite_bind(store, statement, 6, __builtin_ctz(walk->states));
    }
    return statement;
}

/* Moves an operator's walk to the next source of the store, or to its end. Runs in the keeper or the
 * command line after the last event of a source. */
static void begin_next_source(struct walk *walk)
{
    walk->at++;
    walk->end = walk->at == walk->source_count;
    if (!walk->end)
        walk->last = EVENT_FIRST(walk->sources[walk->at].id);
}

/* Reads a chunk of an operator's walk event by event, after it met a damaged page of the store: only the
 * damaged events are lost for the list. Runs in the keeper or the command line. */
static int read_chunk_carefully(struct walk *walk, size_t limit)
{
    int64_t next;
    size_t bytes = 0;
    int code = store_sqlite_read_next_event_id(walk->store, walk->sources[walk->at].id, &next);
    if (code != 0)
        return code;
    int64_t until = walk->careful_until < next - 1 ? walk->careful_until : next - 1;
    while (walk->last < until && walk->item_count < limit && bytes < CHUNK_BYTES) {
        struct walk_item *item = &walk->items[walk->item_count];
        code = store_sqlite_select_again(walk, ++walk->last, item);
        if (code == 1) {
            walk->item_count++;
            bytes += item->item.data_bytes + item->item.context_bytes;
        } else if (code == EP_ESTORE) {
            walk->unreadable++;
        } else if (code < 0) {
            return code;
        }
    }
    if (walk->last >= next - 1)
        begin_next_source(walk);
    return 0;
}

/* Reads a chunk of an operator's walk over one source, row by row in order of arrival. Runs in the keeper
 * or the command line. */
static int read_row_chunk(struct walk *walk, size_t limit)
{
    if (walk->last < walk->careful_until)
        return read_chunk_carefully(walk, limit);
    struct walk_source *source = &walk->sources[walk->at];
    size_t bytes = 0, rows = 0;
    sqlite3_stmt *statement = begin_rows(walk, source);
    int code;
    while ((code = store_sqlite_step_statement(walk->store, statement)) == 1) {
        struct walk_item *item = &walk->items[walk->item_count];
        read_item(walk, statement, source, item);
        walk->last = item->item.id;
        rows++;
        if (!is_wanted(walk, &item->item))
            continue;
        size_t kept = copy_item(item);
        if (kept == 0)
            code = store_sqlite_fail(walk->store, SQLITE_NOMEM);
        else
            walk->item_count++;
        bytes += kept;
        if (kept == 0 || walk->item_count == limit || bytes >= CHUNK_BYTES) {
            sqlite3_reset(statement);
            return code < 0 ? code : 0;
        }
    }
    if (code == 0 && rows < WALK_CHUNK) /* this source has no more */
        begin_next_source(walk);
    if (code != EP_ESTORE || !walk->skip_damage)
        return code;
    walk->careful_until = walk->last + WALK_CHUNK;
    return 0;
}

/* Reads the next chunk of an operator's walk, in a read transaction of its own; an open one would keep the
 * WAL from being checkpointed. A list or change calls it in the keeper or the command line until the end. */
int store_sqlite_select_next(struct walk *walk, size_t limit)
{
    free_chunk(walk);
    if (limit > WALK_CHUNK)
        limit = WALK_CHUNK;
    int code = 0;
    while (code == 0 && !walk->end && walk->item_count == 0) {
        code = store_sqlite_begin_read(walk->store);
        if (code == 0)
            code = walk->found != NULL ? read_found_chunk(walk, limit) : read_row_chunk(walk, limit);
        store_sqlite_roll_back(walk->store); /* nothing was written; a commit would report the damage again */
    }
    return code;
}
