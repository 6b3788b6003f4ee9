/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: finds the events that an operator selects. Runs in the keeper and the command line.
 *
 * With UIDs, every event is found by the index. Otherwise we read the smallest table that can hold the
 * wanted states, source by source in order of arrival, and compare the rest of the selection here.
 *
 * Survived: a damaged page hides only the events in it. A list reads around it, event by event.
 */
#include "src/store/sqlite/select.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (4 << 20) /* copied data of a chunk, so that large events do not fill the memory */
#define STATE(state) (1u << (state))
#define SUSPENDED_STATES (STATE(STORE_DELAYED) | STATE(STORE_HELD) | STATE(STORE_DEAD))

/* ---- the stages of an event ---- */

/* Whether the list of done stages "a\nb\n" that the store keeps of an event contains this stage.
 * find_next_stage calls it for each event that an operator lists or changes. */
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

/* Returns the name of the stage that a stored event waits for or died at: the first of its source's
 * configured stages that it has not done; "" if the configuration lacks the source. The events that an
 * operator lists show it. */
static const char *find_next_stage(const struct scan_source *source, const char *done)
{
    for (size_t i = 0; source->stage_names != NULL && source->stage_names[i] != NULL; i++)
        if (!is_stage_done(done, source->stage_names[i]))
            return source->stage_names[i];
    return "";
}

/* Returns the NULL-terminated names of a source's stages in the order of the configuration, or NULL if the
 * configuration lacks the source. A scan of the store needs them to tell which stage an event waits for. */
static const char *const *find_configured_stages(const struct store_select *select, const char *source)
{
    for (size_t i = 0; i < select->chain_count; i++)
        if (strcmp(select->chain_sources[i], source) == 0)
            return select->chains[i];
    return NULL;
}

/* ---- open ---- */

/* Adds one source of the store to a scan (the reading of the events that an operator selects), unless the
 * selection names another source. Returns 0 or a negative code. store_each_source calls it for each source
 * when a scan starts, in the keeper or the command line. */
static int add_source_to_scan(int64_t id, const char *name, void *user)
{
    struct event_scan *scan = user;
    if (scan->select->source != NULL && strcmp(scan->select->source, name) != 0)
        return 0;
    struct scan_source *grown_sources =
        realloc(scan->sources, (scan->source_count + 1) * sizeof *grown_sources);
    if (grown_sources == NULL)
        return store_sqlite_fail(scan->store, SQLITE_NOMEM);
    scan->sources = grown_sources;
    struct scan_source *source = &grown_sources[scan->source_count];
    *source = (struct scan_source){.id = id,
                                   .name = strdup(name),
                                   .stage_names = find_configured_stages(scan->select, name)};
    if (source->name == NULL)
        return store_sqlite_fail(scan->store, SQLITE_NOMEM);
    scan->source_count++;
    return 0;
}

static int compare_ids(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* Looks up the event with this UID in each source of the scan, through the index of the store, and adds its
 * id to found_ids. Returns 0 or a negative code. It runs for each UID that an operator names. */
static int find_events_of_uid(struct event_scan *scan, const char *uid)
{
    for (size_t i = 0; i < scan->source_count; i++) {
        sqlite3_stmt *statement = store_sqlite_use_statement(scan->store, SQL_FIND_UID);
        store_sqlite_bind(scan->store, statement, 1, scan->sources[i].id);
        store_sqlite_bind_string(scan->store, statement, 2, uid);
        int code = store_sqlite_step_statement(scan->store, statement);
        if (code < 0)
            return code;
        if (code == 0)
            continue;
        scan->found_ids[scan->found_count++] = sqlite3_column_int64(statement, 0);
        sqlite3_reset(statement);
    }
    return 0;
}

/* Fills found_ids with the ids of the stored events whose UIDs the operator named, in order of arrival and
 * each only once. Returns 0 or a negative code. It runs when a scan by UID starts. */
static int find_selected_events(struct event_scan *scan)
{
    const struct store_select *select = scan->select;
    scan->found_ids = calloc(select->uid_count * scan->source_count + 1, sizeof *scan->found_ids);
    if (scan->found_ids == NULL)
        return store_sqlite_fail(scan->store, SQLITE_NOMEM);
    int code = store_sqlite_begin_read(scan->store);
    if (code != 0)
        return code;
    for (size_t i = 0; code == 0 && i < select->uid_count; i++)
        code = find_events_of_uid(scan, select->uids[i]);
    code = store_sqlite_end_transaction(scan->store, code);
    qsort(scan->found_ids, scan->found_count, sizeof *scan->found_ids, compare_ids);
    size_t unique_count = 0; /* a UID named twice is one event */
    for (size_t i = 0; i < scan->found_count; i++)
        if (i == 0 || scan->found_ids[i] != scan->found_ids[unique_count - 1])
            scan->found_ids[unique_count++] = scan->found_ids[i];
    scan->found_count = unique_count;
    return code;
}

/* Starts a scan of the store: the reading of the events that an operator selects. Returns 0 or a negative
 * code; the caller closes *out. If the index of UIDs is damaged and skip_damage is set, the scan compares
 * the UID of every event instead. The keeper calls it for lists and changes, the command line for lists
 * while the daemon is down. */
int store_sqlite_open_scan(struct store_sqlite *store, const struct store_select *select, unsigned states,
                           bool with_data, bool skip_damage, struct event_scan *out)
{
    *out = (struct event_scan){.store = store,
                               .select = select,
                               .states = states,
                               .with_data = with_data,
                               .skip_damage = skip_damage};
    if (select->state >= 0)
        out->states &= STATE(select->state);
    int code = store_sqlite_each_source(&store->base, add_source_to_scan, out);
    if (code == 0 && (out->items = calloc(SCAN_CHUNK_MAX, sizeof *out->items)) == NULL)
        code = store_sqlite_fail(store, SQLITE_NOMEM);
    if (code == 0 && select->uids != NULL)
        code = find_selected_events(out);
    if (code == EP_ESTORE && skip_damage && out->found_ids != NULL) {
        free(out->found_ids);
        out->found_ids = NULL;
        out->compares_uids = true;
        code = 0;
    }
    out->is_at_end = out->source_count == 0 || out->states == 0;
    out->last_id = out->is_at_end ? 0 : EVENT_FIRST(out->sources[0].id);
    if (code != 0)
        store_sqlite_close_scan(out);
    return code;
}

void store_sqlite_free_scan_item(struct scan_item *item)
{
    free(item->block);
    item->block = NULL;
}

static void free_chunk(struct event_scan *scan)
{
    for (size_t i = 0; i < scan->item_count; i++)
        store_sqlite_free_scan_item(&scan->items[i]);
    scan->item_count = 0;
}

/* Frees everything that a scan of the store owns. The list or change that started the scan calls it, in the
 * keeper or the command line; to call it twice is harmless. */
void store_sqlite_close_scan(struct event_scan *scan)
{
    free_chunk(scan);
    for (size_t i = 0; i < scan->source_count; i++)
        free(scan->sources[i].name);
    free(scan->sources);
    free(scan->found_ids);
    free(scan->items);
    *scan = (struct event_scan){.is_at_end = true};
}

/* ---- one event ---- */

static const char *read_text_column(sqlite3_stmt *statement, int column)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    return text != NULL ? text : "";
}

/* Fills in *out, an event for an operator's list, from the statement's present row. Its texts are borrowed
 * from that row, so copy_item_texts must copy them before the statement goes on. The keeper runs it for
 * operators' commands, the command line while the daemon is down. */
static void fill_item(const struct event_scan *scan, sqlite3_stmt *statement, struct scan_source *source,
                      struct scan_item *out)
{
    bool is_suspended = sqlite3_column_type(statement, 6) == SQLITE_NULL;
    *out =
        (struct scan_item){.source = source, .token = is_suspended ? -1 : sqlite3_column_int64(statement, 6)};
    out->item = (struct store_item){
        .id = sqlite3_column_int64(statement, 0),
        .source = source->name,
        .uid = read_text_column(statement, 1),
        .address = read_text_column(statement, 2),
        .type = read_text_column(statement, 3),
        .arrival_ms = (uint64_t)sqlite3_column_int64(statement, 4),
        .state = is_suspended ? (enum store_state)sqlite3_column_int64(statement, 7)
                 : out->token >= scan->store->lowest_valid_token ? STORE_RUNNING
                                                                 : STORE_READY,
        .reason = (enum store_reason)sqlite3_column_int64(statement, 8),
        .due_ms = (uint64_t)sqlite3_column_int64(statement, 9),
        .attempts = (uint32_t)sqlite3_column_int64(statement, 10),
        .crashes = (uint32_t)sqlite3_column_int64(statement, 11),
        .done = read_text_column(statement, 12),
        .error = read_text_column(statement, 14),
    };
    out->item.stage = find_next_stage(source, out->item.done);
    if (!scan->with_data)
        return;
    out->item.data = read_text_column(statement, 5);
    out->item.data_bytes = (size_t)sqlite3_column_bytes(statement, 5);
    out->item.context = read_text_column(statement, 13);
    out->item.context_bytes = (size_t)sqlite3_column_bytes(statement, 13);
}

static bool differs_from_wanted(const char *wanted, const char *found)
{
    return wanted != NULL && strcmp(wanted, found) != 0;
}

/* Whether the operator named this UID. It is needed only while the store's index of UIDs is damaged,
 * because then a scan compares every event. */
static bool is_selected_uid(const struct store_select *select, const char *uid)
{
    for (size_t i = 0; i < select->uid_count; i++)
        if (strcmp(select->uids[i], uid) == 0)
            return true;
    return false;
}

/* Whether an event of the store matches the parts of the operator's selection that no SQL statement
 * compares: state, stage, address, type, age and error text. It runs for each event that a scan reads. */
static bool matches_selection(const struct event_scan *scan, const struct store_item *item)
{
    const struct store_select *select = scan->select;
    return (!scan->compares_uids || is_selected_uid(select, item->uid)) &&
           (scan->states & STATE(item->state)) != 0 && !differs_from_wanted(select->address, item->address) &&
           !differs_from_wanted(select->type, item->type) &&
           !differs_from_wanted(select->stage, item->stage) &&
           (select->older_than_ms == 0 || item->arrival_ms < select->older_than_ms) &&
           (select->error == NULL || strstr(item->error, select->error) != NULL);
}

/* Copies a text of an event to *next_byte, makes *text point to the copy, adds a NUL, and advances
 * *next_byte past it. copy_item_texts calls it for each text. */
static void copy_text_to_block(char **next_byte, const char **text, size_t byte_count)
{
    memcpy(*next_byte, *text, byte_count);
    (*next_byte)[byte_count] = '\0';
    *text = *next_byte;
    *next_byte += byte_count + 1;
}

/* Copies an event's borrowed texts into one block that the item owns, so that no read transaction of the
 * store stays open while an operator reads the list. Returns the size of the block, 0 = out of memory. The
 * keeper runs it for operators' commands, the command line while the daemon is down. */
static size_t copy_item_texts(struct scan_item *item)
{
    struct store_item *view = &item->item;
    const char **texts[] = {&view->uid, &view->address, &view->type, &view->done, &view->error};
    size_t block_bytes = view->data_bytes + view->context_bytes + 2;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        block_bytes += strlen(*texts[i]) + 1;
    char *next_byte = item->block = malloc(block_bytes);
    if (next_byte == NULL)
        return 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        copy_text_to_block(&next_byte, texts[i], strlen(*texts[i]));
    if (view->data != NULL)
        copy_text_to_block(&next_byte, &view->data, view->data_bytes);
    if (view->context != NULL)
        copy_text_to_block(&next_byte, &view->context, view->context_bytes);
    return block_bytes;
}

/* Returns the scan's source to which an event of the store belongs, or NULL if the operator's selection
 * leaves that source out. The id of an event contains that of its source. */
static struct scan_source *find_scan_source(const struct event_scan *scan, int64_t event)
{
    for (size_t i = 0; i < scan->source_count; i++)
        if (scan->sources[i].id == event >> EVENT_SOURCE_SHIFT)
            return &scan->sources[i];
    return NULL;
}

/* Runs a statement that reads one event of the store by its id. Returns 1 = *statement stands at its row,
 * which is valid until the caller resets it; 0 = there is no such event; or a negative code. */
static int read_event_row(struct event_scan *scan, enum store_sqlite_statement statement_id, int64_t event,
                          sqlite3_stmt **statement)
{
    *statement = store_sqlite_use_statement(scan->store, statement_id);
    store_sqlite_bind(scan->store, *statement, 1, scan->with_data);
    store_sqlite_bind(scan->store, *statement, 2, event);
    return store_sqlite_step_statement(scan->store, *statement);
}

/* Reads one event of the store by its id. Returns 1 and *out if it matches the operator's selection, 0 if
 * it does not or is gone, or a negative code. The keeper calls it inside a change's write transaction,
 * because a worker may have got the event since it was listed; scans by UID use it, too. */
int store_sqlite_read_scan_event(struct event_scan *scan, int64_t event, struct scan_item *out)
{
    struct scan_source *source = find_scan_source(scan, event);
    sqlite3_stmt *statement;
    int code = source == NULL ? 0 : read_event_row(scan, SQL_ITEM, event, &statement);
    if (code == EP_ESTORE && scan->skip_damage) { /* the damaged table may hold nothing of this event */
        code = read_event_row(scan, SQL_ITEM_PROGRESS, event, &statement);
        if (code != 1)
            code = read_event_row(scan, SQL_ITEM_SUSPENDED, event, &statement);
        if (code == 0)
            code = EP_ESTORE;
    }
    if (code != 1)
        return code;
    fill_item(scan, statement, source, out);
    if (!matches_selection(scan, &out->item))
        code = 0;
    else if (copy_item_texts(out) == 0)
        code = store_sqlite_fail(scan->store, SQLITE_NOMEM);
    sqlite3_reset(statement);
    return code;
}

/* ---- a chunk ---- */

/* Reads the next chunk of a scan by UID from the store: up to `limit` of the events in found_ids, fewer if
 * they are large. Returns 0 or a negative code; events on damaged pages are only counted if skip_damage is
 * set. The keeper runs it for operators' commands, the command line while the daemon is down. */
static int read_chunk_by_ids(struct event_scan *scan, size_t limit)
{
    size_t chunk_bytes = 0;
    int code = 0;
    while (code >= 0 && scan->source_or_id_index < scan->found_count && scan->item_count < limit &&
           chunk_bytes < CHUNK_BYTES) {
        struct scan_item *item = &scan->items[scan->item_count];
        code = store_sqlite_read_scan_event(scan, scan->found_ids[scan->source_or_id_index++], item);
        if (code == EP_ESTORE && scan->skip_damage) {
            scan->unreadable_count++;
            code = 0;
        }
        if (code == 1) {
            scan->item_count++;
            chunk_bytes += item->item.data_bytes + item->item.context_bytes;
        }
    }
    scan->is_at_end = scan->source_or_id_index == scan->found_count;
    return code < 0 ? code : 0;
}

/* Returns the bound statement that lists a source's events from the smallest table of the store that holds
 * the wanted states: so a few dead events are found without reading a large backlog. The keeper runs it for
 * operators' commands, the command line while the daemon is down. */
static sqlite3_stmt *choose_list_statement(struct event_scan *scan, const struct scan_source *source)
{
    struct store_sqlite *store = scan->store;
    bool is_one_state = (scan->states & (scan->states - 1)) == 0;
    enum store_sqlite_statement statement_id = SQL_LIST_ALL;
    if ((scan->states & SUSPENDED_STATES) == 0)
        statement_id = SQL_LIST_PROGRESS;
    else if ((scan->states & ~SUSPENDED_STATES) == 0)
        statement_id = is_one_state ? SQL_LIST_STATE : SQL_LIST_SUSPENDED;
    sqlite3_stmt *statement = store_sqlite_use_statement(store, statement_id);
    store_sqlite_bind(store, statement, 1, scan->with_data);
    store_sqlite_bind(store, statement, 2, scan->last_id);
    store_sqlite_bind(store, statement, 3, EVENT_LAST(source->id));
    store_sqlite_bind(store, statement, 4, SCAN_CHUNK_MAX);
    if (statement_id == SQL_LIST_STATE) {
        store_sqlite_bind(store, statement, 5, source->id);
        store_sqlite_bind(store, statement, 6, __builtin_ctz(scan->states));
    }
    return statement;
}

/* Moves a scan of the store to the first event of the next source, or marks the scan as finished after the
 * last source. It runs when all events of a source have been read. */
static void go_to_next_source(struct event_scan *scan)
{
    scan->source_or_id_index++;
    scan->is_at_end = scan->source_or_id_index == scan->source_count;
    if (!scan->is_at_end)
        scan->last_id = EVENT_FIRST(scan->sources[scan->source_or_id_index].id);
}

/* Reads a chunk event by event where the scan met a damaged page of the store's file: only events that are
 * on such a page are missing from the list, and they are counted. Returns 0 or a negative code. The keeper
 * runs it for operators' commands, the command line while the daemon is down. */
static int read_chunk_around_damage(struct event_scan *scan, size_t limit)
{
    int64_t next_event;
    size_t chunk_bytes = 0;
    int code =
        store_sqlite_read_next_event_id(scan->store, scan->sources[scan->source_or_id_index].id, &next_event);
    if (code != 0)
        return code;
    int64_t last_to_read = scan->one_by_one_until < next_event - 1 ? scan->one_by_one_until : next_event - 1;
    while (scan->last_id < last_to_read && scan->item_count < limit && chunk_bytes < CHUNK_BYTES) {
        struct scan_item *item = &scan->items[scan->item_count];
        code = store_sqlite_read_scan_event(scan, ++scan->last_id, item);
        if (code == 1) {
            scan->item_count++;
            chunk_bytes += item->item.data_bytes + item->item.context_bytes;
        } else if (code == EP_ESTORE) {
            scan->unreadable_count++;
        } else if (code < 0) {
            return code;
        }
    }
    if (scan->last_id >= next_event - 1)
        go_to_next_source(scan);
    return 0;
}

/* Reads the next chunk of a scan over all stored events of one source, in order of arrival: up to `limit`
 * matching events, fewer if they are large. Returns 0 or a negative code. If skip_damage is set, it returns
 * 0 at a damaged page too, and the next chunk is read event by event. The keeper runs it for operators'
 * commands, the command line while the daemon is down. */
static int read_chunk_by_source(struct event_scan *scan, size_t limit)
{
    if (scan->last_id < scan->one_by_one_until)
        return read_chunk_around_damage(scan, limit);
    struct scan_source *source = &scan->sources[scan->source_or_id_index];
    size_t chunk_bytes = 0, row_count = 0;
    sqlite3_stmt *statement = choose_list_statement(scan, source);
    int code;
    while ((code = store_sqlite_step_statement(scan->store, statement)) == 1) {
        struct scan_item *item = &scan->items[scan->item_count];
        fill_item(scan, statement, source, item);
        scan->last_id = item->item.id;
        row_count++;
        if (!matches_selection(scan, &item->item))
            continue;
        size_t copied_bytes = copy_item_texts(item);
        if (copied_bytes == 0)
            code = store_sqlite_fail(scan->store, SQLITE_NOMEM);
        else
            scan->item_count++;
        chunk_bytes += copied_bytes;
        if (copied_bytes == 0 || scan->item_count == limit || chunk_bytes >= CHUNK_BYTES) {
            sqlite3_reset(statement);
            return code < 0 ? code : 0;
        }
    }
    if (code == 0 && row_count < SCAN_CHUNK_MAX) /* this source has no more */
        go_to_next_source(scan);
    if (code != EP_ESTORE || !scan->skip_damage)
        return code;
    scan->one_by_one_until = scan->last_id + SCAN_CHUNK_MAX;
    return 0;
}

/* Reads the next chunk of the events that an operator selects from the store, in a read transaction of its
 * own, because one that stays open would keep the WAL from being checkpointed. Returns 0 or a negative
 * code; at the end of the scan the chunk is empty. The keeper calls it until then for lists and changes,
 * the command line for lists while the daemon is down. */
int store_sqlite_read_scan_chunk(struct event_scan *scan, size_t limit)
{
    free_chunk(scan);
    if (limit > SCAN_CHUNK_MAX)
        limit = SCAN_CHUNK_MAX;
    int code = 0;
    while (code == 0 && !scan->is_at_end && scan->item_count == 0) {
        code = store_sqlite_begin_read(scan->store);
        if (code == 0)
            code =
                scan->found_ids != NULL ? read_chunk_by_ids(scan, limit) : read_chunk_by_source(scan, limit);
        store_sqlite_roll_back(
            scan->store); /* nothing was written; a commit would report damage that was reported before */
    }
    return code;
}
