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

/* Whether the list "a\nb\n" names the stage. */
static bool is_done(const char *done, const char *stage)
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

/* The stage the event waits for: the first of the chain that is not done. */
static const char *stage_of(const struct walk_source *source, const char *done)
{
    for (size_t i = 0; source->chain != NULL && source->chain[i] != NULL; i++)
        if (!is_done(done, source->chain[i]))
            return source->chain[i];
    return "";
}

static const char *const *chain_of(const struct store_select *select, const char *source)
{
    for (size_t i = 0; i < select->chain_count; i++)
        if (strcmp(select->chain_sources[i], source) == 0)
            return select->chains[i];
    return NULL;
}

/* ---- open ---- */

/* store_each_source calls it: adds the source to the walk if it is selected. */
static int add_source(int64_t id, const char *name, void *user)
{
    struct walk *walk = user;
    if (walk->select->source != NULL && strcmp(walk->select->source, name) != 0)
        return 0;
    struct walk_source *grown = realloc(walk->sources, (walk->source_count + 1) * sizeof *grown);
    if (grown == NULL)
        return store_sqlite_fail(walk->store, SQLITE_NOMEM);
    walk->sources = grown;
    struct walk_source *source = &grown[walk->source_count];
    *source = (struct walk_source){.id = id, .name = strdup(name), .chain = chain_of(walk->select, name)};
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

/* Adds the ids of the events with this uid, of all walked sources. */
static int find_uid(struct walk *walk, const char *uid)
{
    for (size_t i = 0; i < walk->source_count; i++) {
        sqlite3_stmt *statement = store_sqlite_use(walk->store, SQL_FIND_UID);
        store_sqlite_bind(walk->store, statement, 1, walk->sources[i].id);
        store_sqlite_bind_string(walk->store, statement, 2, uid);
        int code = store_sqlite_step(walk->store, statement);
        if (code < 0)
            return code;
        if (code == 0)
            continue;
        walk->found[walk->found_count++] = sqlite3_column_int64(statement, 0);
        sqlite3_reset(statement);
    }
    return 0;
}

static int find_uids(struct walk *walk)
{
    const struct store_select *select = walk->select;
    walk->found = calloc(select->uid_count * walk->source_count + 1, sizeof *walk->found);
    if (walk->found == NULL)
        return store_sqlite_fail(walk->store, SQLITE_NOMEM);
    int code = store_sqlite_begin_read(walk->store);
    if (code != 0)
        return code;
    for (size_t i = 0; code == 0 && i < select->uid_count; i++)
        code = find_uid(walk, select->uids[i]);
    code = store_sqlite_end(walk->store, code);
    qsort(walk->found, walk->found_count, sizeof *walk->found, compare_ids);
    size_t kept = 0; /* a UID named twice is one event */
    for (size_t i = 0; i < walk->found_count; i++)
        if (i == 0 || walk->found[i] != walk->found[kept - 1])
            walk->found[kept++] = walk->found[i];
    walk->found_count = kept;
    return code;
}

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
    int code = store_sqlite_each_source(&store->store, add_source, out);
    if (code == 0 && (out->items = calloc(WALK_CHUNK, sizeof *out->items)) == NULL)
        code = store_sqlite_fail(store, SQLITE_NOMEM);
    if (code == 0 && select->uids != NULL)
        code = find_uids(out);
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

static void forget_chunk(struct walk *walk)
{
    for (size_t i = 0; i < walk->item_count; i++)
        store_sqlite_select_free(&walk->items[i]);
    walk->item_count = 0;
}

void store_sqlite_select_close(struct walk *walk)
{
    forget_chunk(walk);
    for (size_t i = 0; i < walk->source_count; i++)
        free(walk->sources[i].name);
    free(walk->sources);
    free(walk->found);
    free(walk->items);
    *walk = (struct walk){.end = true};
}

/* ---- one event ---- */

static const char *column(sqlite3_stmt *statement, int at)
{
    const char *text = (const char *)sqlite3_column_text(statement, at);
    return text != NULL ? text : "";
}

/* Fills the item from the row. Its texts are borrowed from the statement. */
static void read_item(const struct walk *walk, sqlite3_stmt *statement, struct walk_source *source,
                      struct walk_item *out)
{
    bool suspended = sqlite3_column_type(statement, 6) == SQLITE_NULL;
    *out = (struct walk_item){.source = source, .token = suspended ? -1 : sqlite3_column_int64(statement, 6)};
    out->item = (struct store_item){
        .id = sqlite3_column_int64(statement, 0),
        .source = source->name,
        .uid = column(statement, 1),
        .address = column(statement, 2),
        .type = column(statement, 3),
        .arrival_ms = (uint64_t)sqlite3_column_int64(statement, 4),
        .state = suspended ? (enum store_state)sqlite3_column_int64(statement, 7)
                 : out->token >= walk->store->first_valid_token ? STORE_RUNNING
                                                                : STORE_READY,
        .reason = (enum store_reason)sqlite3_column_int64(statement, 8),
        .due_ms = (uint64_t)sqlite3_column_int64(statement, 9),
        .attempts = (uint32_t)sqlite3_column_int64(statement, 10),
        .crashes = (uint32_t)sqlite3_column_int64(statement, 11),
        .done = column(statement, 12),
        .error = column(statement, 14),
    };
    out->item.stage = stage_of(source, out->item.done);
    if (!walk->with_data)
        return;
    out->item.data = column(statement, 5);
    out->item.data_bytes = (size_t)sqlite3_column_bytes(statement, 5);
    out->item.context = column(statement, 13);
    out->item.context_bytes = (size_t)sqlite3_column_bytes(statement, 13);
}

static bool differs(const char *wanted, const char *found)
{
    return wanted != NULL && strcmp(wanted, found) != 0;
}

static bool is_named(const struct store_select *select, const char *uid)
{
    for (size_t i = 0; i < select->uid_count; i++)
        if (strcmp(select->uids[i], uid) == 0)
            return true;
    return false;
}

/* Compares the parts of the selection that the statement does not. */
static bool is_wanted(const struct walk *walk, const struct store_item *item)
{
    const struct store_select *select = walk->select;
    return (!walk->by_uid || is_named(select, item->uid)) && (walk->states & STATE(item->state)) != 0 &&
           !differs(select->address, item->address) && !differs(select->type, item->type) &&
           !differs(select->stage, item->stage) &&
           (select->older_than_ms == 0 || item->arrival_ms < select->older_than_ms) &&
           (select->error == NULL || strstr(item->error, select->error) != NULL);
}

/* Copies a text to *end, points *text at the copy and moves *end behind it. */
static void move_text(char **end, const char **text, size_t bytes)
{
    memcpy(*end, *text, bytes);
    (*end)[bytes] = '\0';
    *text = *end;
    *end += bytes + 1;
}

/* Copies the borrowed texts into a block of the item's own. Returns its size, 0 = out of memory. */
static size_t keep_item(struct walk_item *item)
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
        move_text(&end, texts[i], strlen(*texts[i]));
    if (view->data != NULL)
        move_text(&end, &view->data, view->data_bytes);
    if (view->context != NULL)
        move_text(&end, &view->context, view->context_bytes);
    return total;
}

static struct walk_source *source_of(const struct walk *walk, int64_t event)
{
    for (size_t i = 0; i < walk->source_count; i++)
        if (walk->sources[i].id == event >> EVENT_SOURCE_SHIFT)
            return &walk->sources[i];
    return NULL;
}

/* Runs a statement that reads one event. */
static int step_to_item(struct walk *walk, enum store_sqlite_statement which, int64_t event,
                        sqlite3_stmt **statement)
{
    *statement = store_sqlite_use(walk->store, which);
    store_sqlite_bind(walk->store, *statement, 1, walk->with_data);
    store_sqlite_bind(walk->store, *statement, 2, event);
    return store_sqlite_step(walk->store, *statement);
}

int store_sqlite_select_again(struct walk *walk, int64_t event, struct walk_item *out)
{
    struct walk_source *source = source_of(walk, event);
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
    else if (keep_item(out) == 0)
        code = store_sqlite_fail(walk->store, SQLITE_NOMEM);
    sqlite3_reset(statement);
    return code;
}

/* ---- a chunk ---- */

/* A chunk of the events that were found by uid. */
static int next_found(struct walk *walk, size_t limit)
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

/* The statement that reads the smallest table with the wanted states. */
static sqlite3_stmt *start_rows(struct walk *walk, const struct walk_source *source)
{
    struct store_sqlite *store = walk->store;
    bool one_state = (walk->states & (walk->states - 1)) == 0;
    enum store_sqlite_statement which = SQL_LIST_ALL;
    if ((walk->states & SUSPENDED) == 0)
        which = SQL_LIST_PROGRESS;
    else if ((walk->states & ~SUSPENDED) == 0)
        which = one_state ? SQL_LIST_STATE : SQL_LIST_SUSPENDED;
    sqlite3_stmt *statement = store_sqlite_use(store, which);
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

static void next_source(struct walk *walk)
{
    walk->at++;
    walk->end = walk->at == walk->source_count;
    if (!walk->end)
        walk->last = EVENT_FIRST(walk->sources[walk->at].id);
}

/* A chunk read event by event, after the walk met a damaged page. */
static int next_carefully(struct walk *walk, size_t limit)
{
    int64_t next;
    size_t bytes = 0;
    int code = store_sqlite_next_event(walk->store, walk->sources[walk->at].id, &next);
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
        next_source(walk);
    return 0;
}

/* A chunk of one source, read row by row. */
static int next_rows(struct walk *walk, size_t limit)
{
    if (walk->last < walk->careful_until)
        return next_carefully(walk, limit);
    struct walk_source *source = &walk->sources[walk->at];
    size_t bytes = 0, rows = 0;
    sqlite3_stmt *statement = start_rows(walk, source);
    int code;
    while ((code = store_sqlite_step(walk->store, statement)) == 1) {
        struct walk_item *item = &walk->items[walk->item_count];
        read_item(walk, statement, source, item);
        walk->last = item->item.id;
        rows++;
        if (!is_wanted(walk, &item->item))
            continue;
        size_t kept = keep_item(item);
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
        next_source(walk);
    if (code != EP_ESTORE || !walk->skip_damage)
        return code;
    walk->careful_until = walk->last + WALK_CHUNK;
    return 0;
}

int store_sqlite_select_next(struct walk *walk, size_t limit)
{
    forget_chunk(walk);
    if (limit > WALK_CHUNK)
        limit = WALK_CHUNK;
    int code = 0;
    while (code == 0 && !walk->end && walk->item_count == 0) {
        code = store_sqlite_begin_read(walk->store);
        if (code == 0)
            code = walk->found != NULL ? next_found(walk, limit) : next_rows(walk, limit);
        store_sqlite_roll_back(walk->store); /* nothing was written; a commit would report the damage again */
    }
    return code;
}
