/* SPDX-License-Identifier: MIT */
/*
 * A database of the original eventpipe (Go). Runs in the command line, for eventpipe import. Owns the
 * private copy that it reads, and the one transaction in which it reads.
 *
 * The copy is opened for writing, so that SQLite can roll back a hot journal and read a WAL; after that it
 * is only read. Its name is removed as soon as it is open. (In exclusive mode SQLite keeps the WAL's index
 * in memory and needs no file for it that it would have to find by name.)
 *
 * Locked rows are imported like all others: no process holds their locks, or the copy would have failed.
 */
#include "src/import/go_database.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define GO_DATABASE_VERSION 1 /* PRAGMA user_version of the tables this knows */

struct import_go {
    char *path; /* for messages */
    sqlite3 *db;
    sqlite3_stmt *row_statement;
    struct import_go_source *sources;
    size_t source_count;
};

/* Turns the last failure of SQLite on the database to import into an error whose message names the file and
 * says whether it is no database, is damaged, or cannot be read. The functions of this file return what it
 * returns: EP_ENOMEM, EP_EINVAL or EP_ESYSTEM. */
static int set_sqlite_error(const struct import_go *database, struct error *error)
{
    int result = sqlite3_extended_errcode(database->db), primary = result & 0xff;
    if (primary == SQLITE_NOMEM)
        return base_error_set(error, EP_ENOMEM, "out of memory");
    if (primary == SQLITE_NOTADB)
        return base_error_set(error, EP_EINVAL,
                              "%s: not an SQLite database; expected one of the Go eventpipe", database->path);
    if (primary == SQLITE_CORRUPT)
        return base_error_set(error, EP_EINVAL, "%s: the database is damaged (%s)", database->path,
                              sqlite3_errmsg(database->db));
    return base_error_set(error, primary == SQLITE_FULL || primary == SQLITE_IOERR ? EP_ESYSTEM : EP_EINVAL,
                          "cannot read the copy of %s: %s", database->path, sqlite3_errmsg(database->db));
}

static int run_sql(const struct import_go *database, const char *sql, struct error *error)
{
    return sqlite3_exec(database->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0
                                                                          : set_sqlite_error(database, error);
}

/* ---- checks ---- */

/* Sets *number to the number that an SQL query returns from the database to import, or to 0 if it returns
 * no row. `parameter` is bound to ?1 unless it is NULL. `eventpipe import` checks the file with such
 * queries. Returns 0 or a negative code with a message. */
static int query_number(const struct import_go *database, const char *sql, const char *parameter,
                        int64_t *number, struct error *error)
{
    sqlite3_stmt *statement = NULL;
    *number = 0;
    int result = sqlite3_prepare_v2(database->db, sql, -1, &statement, NULL);
    if (result == SQLITE_OK && parameter != NULL)
        result = sqlite3_bind_text(statement, 1, parameter, -1, SQLITE_STATIC);
    if (result == SQLITE_OK)
        result = sqlite3_step(statement);
    if (result == SQLITE_ROW)
        *number = sqlite3_column_int64(statement, 0);
    int code = result == SQLITE_ROW || result == SQLITE_DONE ? 0 : set_sqlite_error(database, error);
    sqlite3_finalize(statement);
    return code;
}

/* Checks that the database to import has the Go eventpipe's tables with their columns, so that `eventpipe
 * import` refuses a wrong file with a message that names the missing table or column. Returns 0 or a
 * negative code. */
static int check_columns(const struct import_go *database, struct error *error)
{
    static const struct {
        const char *table, *sql, *columns[7];
    } expected_tables[] = {
        {"sources", "SELECT 1 FROM pragma_table_info('sources') WHERE name = ?1", {"id", "cursor"}},
        {"items",
         "SELECT 1 FROM pragma_table_info('items') WHERE name = ?1",
         {"source_id", "id", "data", "context", "locked", "order_index"}},
    };
    for (size_t i = 0; i < sizeof expected_tables / sizeof expected_tables[0]; i++) {
        int64_t is_present;
        int code = query_number(database, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1",
                                expected_tables[i].table, &is_present, error);
        if (code == 0 && is_present == 0)
            code = base_error_set(
                error, EP_EINVAL,
                "%s: there is no table \"%s\"; expected a database of the Go eventpipe, with the "
                "tables \"sources\" and \"items\"",
                database->path, expected_tables[i].table);
        for (size_t j = 0; code == 0 && expected_tables[i].columns[j] != NULL; j++) {
            code = query_number(database, expected_tables[i].sql, expected_tables[i].columns[j], &is_present,
                                error);
            if (code == 0 && is_present == 0)
                code = base_error_set(
                    error, EP_EINVAL,
                    "%s: table \"%s\" has no column \"%s\"; expected a database of the Go eventpipe",
                    database->path, expected_tables[i].table, expected_tables[i].columns[j]);
        }
        if (code != 0)
            return code;
    }
    return 0;
}

/* Lets SQLite check the whole database to import. `eventpipe import` does this before it reads any row,
 * because a damaged index would hide events and a damaged table would lose them. Returns 0, or EP_EINVAL
 * with SQLite's first finding. */
static int check_integrity(const struct import_go *database, struct error *error)
{
    sqlite3_stmt *statement = NULL;
    int code = 0;
    int result = sqlite3_prepare_v2(database->db, "PRAGMA integrity_check(1)", -1, &statement, NULL);
    if (result == SQLITE_OK)
        result = sqlite3_step(statement);
    if (result != SQLITE_ROW)
        code = set_sqlite_error(database, error);
    else if (strcmp((const char *)sqlite3_column_text(statement, 0), "ok") != 0)
        code = base_error_set(
            error, EP_EINVAL,
            "%s: the database is damaged: %s; nothing was imported (`sqlite3 FILE .recover` writes what "
            "can be read as SQL for a new database)",
            database->path, (const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    return code;
}

/* Checks that the file to import is an undamaged database of the Go eventpipe, of the version that this
 * program can read. `eventpipe import` does this before it reads any row. Returns 0 or a negative code with
 * a message. */
static int check_database(const struct import_go *database, struct error *error)
{
    int64_t user_version, application_id, has_duplicates = 0;
    int code = query_number(database, "PRAGMA user_version", NULL, &user_version, error);
    if (code == 0)
        code = query_number(database, "PRAGMA application_id", NULL, &application_id, error);
    if (code == 0 && application_id != 0)
        return base_error_set(
            error, EP_EINVAL,
            "%s: a database of another program (application id %lld); expected one of the Go eventpipe",
            database->path, (long long)application_id);
    if (code == 0 && user_version != GO_DATABASE_VERSION)
        return base_error_set(
            error, EP_EINVAL,
            "%s: PRAGMA user_version is %lld; expected %d, as in a database of the Go eventpipe",
            database->path, (long long)user_version, GO_DATABASE_VERSION);
    if (code == 0)
        code = check_integrity(database, error);
    if (code == 0)
        code = check_columns(database, error);
    /* The original has a key over both. Without it an event could come twice; with it this only reads an
     * index. */
    if (code == 0)
        code =
            query_number(database, "SELECT 1 FROM items GROUP BY source_id, id HAVING count(*) > 1 LIMIT 1",
                         NULL, &has_duplicates, error);
    if (code == 0 && has_duplicates != 0)
        code = base_error_set(
            error, EP_EINVAL,
            "%s: table \"items\" has two rows of one source and id, which the Go eventpipe never writes",
            database->path);
    return code;
}

/* ---- sources ---- */

/* Adds the source in the current row of the query (id, cursor) to the list of sources in the database to
 * import. `eventpipe import` calls it for each such row. Returns 0 or EP_ENOMEM. */
static int add_source_from_row(struct import_go *database, sqlite3_stmt *statement)
{
    const char *id = (const char *)sqlite3_column_text(statement, 0);
    bool has_cursor = sqlite3_column_type(statement, 1) != SQLITE_NULL;
    const char *cursor = has_cursor ? (const char *)sqlite3_column_text(statement, 1) : NULL;
    struct import_go_source *sources =
        reallocarray(database->sources, database->source_count + 1, sizeof *database->sources);
    if (sources == NULL || id == NULL || (has_cursor && cursor == NULL))
        return EP_ENOMEM;
    database->sources = sources;
    struct import_go_source *source = &sources[database->source_count];
    *source = (struct import_go_source){.id = strdup(id), .cursor = has_cursor ? strdup(cursor) : NULL};
    database->source_count++;
    return source->id == NULL || (has_cursor && source->cursor == NULL) ? EP_ENOMEM : 0;
}

/* Reads the sources of the database to import, including those that have events but no row in table
 * `sources`; `eventpipe import` does this once. The inner DISTINCT follows the index of order_index, which
 * is fast because it keeps the rows of a source together. Returns 0 or a negative code with a message. */
static int read_sources(struct import_go *database, struct error *error)
{
    sqlite3_stmt *statement = NULL;
    int code = 0;
    int result = sqlite3_prepare_v2(database->db,
                                    "SELECT id, cursor FROM sources WHERE id IS NOT NULL UNION ALL SELECT * "
                                    "FROM (SELECT DISTINCT source_id, NULL "
                                    "FROM items WHERE source_id IS NOT NULL) WHERE source_id NOT IN (SELECT "
                                    "id FROM sources WHERE id IS NOT NULL) "
                                    "ORDER BY 1",
                                    -1, &statement, NULL);
    while (code == 0 && result == SQLITE_OK) {
        int step = sqlite3_step(statement);
        if (step == SQLITE_DONE)
            break;
        if (step == SQLITE_ROW)
            code = add_source_from_row(database, statement);
        else
            result = step;
    }
    if (code != 0)
        base_error_set(error, code, "out of memory");
    if (code == 0 && result != SQLITE_OK)
        code = set_sqlite_error(database, error);
    sqlite3_finalize(statement);
    return code;
}

size_t import_go_list_sources(const struct import_go *database, const struct import_go_source **out)
{
    *out = database->sources;
    return database->source_count;
}

/* ---- rows ---- */

/* Selects the source whose events import_go_read_row reads next, in the order in which the Go eventpipe
 * would process them. `eventpipe import` calls it once for each source that it imports. Returns 0 or a
 * negative code with a message. */
int import_go_select_source(struct import_go *database, const char *source, struct error *error)
{
    static const char sql[] = "SELECT id, data, context, locked FROM items WHERE source_id = ?1 "
                              "ORDER BY order_index, rowid";
    int result = SQLITE_OK;
    if (database->row_statement == NULL)
        result = sqlite3_prepare_v2(database->db, sql, -1, &database->row_statement, NULL);
    else
        sqlite3_reset(database->row_statement);
    if (result == SQLITE_OK) /* copied: the caller's text need not stay */
        result = sqlite3_bind_text(database->row_statement, 1, source, -1, SQLITE_TRANSIENT);
    return result == SQLITE_OK ? 0 : set_sqlite_error(database, error);
}

/* Reads the next event of the selected source from the database to import. `eventpipe import` calls it each
 * time the store asks for a row. Returns 1 with *row and *is_locked set, 0 when there are no more rows, or
 * a negative code with a message. */
int import_go_read_row(struct import_go *database, struct import_row *row, bool *is_locked,
                       struct error *error)
{
    int result = sqlite3_step(database->row_statement);
    if (result == SQLITE_DONE)
        return 0;
    if (result != SQLITE_ROW)
        return set_sqlite_error(database, error);
    /* First the text or blob, then its number of bytes: SQLite converts the value at the first call. */
    const char *id = (const char *)sqlite3_column_text(database->row_statement, 0);
    struct json_span uid = {id != NULL ? id : "", (size_t)sqlite3_column_bytes(database->row_statement, 0)};
    struct msgpack data = {sqlite3_column_blob(database->row_statement, 1),
                           (size_t)sqlite3_column_bytes(database->row_statement, 1)};
    struct msgpack context = {sqlite3_column_blob(database->row_statement, 2),
                              (size_t)sqlite3_column_bytes(database->row_statement, 2)};
    if (data.at == NULL) { /* NULL or empty */
        if (sqlite3_errcode(database->db) == SQLITE_NOMEM)
            return set_sqlite_error(database, error);
        data = (struct msgpack){"", 0};
    }
    *is_locked = sqlite3_column_int(database->row_statement, 3) != 0;
    int code = import_row_read(row, uid, data, context);
    return code == 0 ? 1 : base_error_set(error, code, "out of memory");
}

/* ---- open and close ---- */

/* Opens the private copy of the database to import, checks it, and reads its sources, for `eventpipe
 * import`. The transaction that it begins lasts until the connection is closed, so all reads see one state.
 * Returns 0 or a negative code with a message. */
static int open_private_copy(struct import_go *database, const struct import_copy *copy, struct error *error)
{
    int result =
        sqlite3_open_v2(copy->path, &database->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (result != SQLITE_OK)
        return set_sqlite_error(database, error);
    sqlite3_extended_result_codes(database->db, 1);
    sqlite3_db_config(database->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_db_config(database->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL); /* we do not trust the file */
    int code = run_sql(database, "PRAGMA locking_mode = EXCLUSIVE", error);
    if (code == 0)
        code = run_sql(database, "BEGIN", error);
    if (code == 0)
        code = check_database(database, error);
    return code == 0 ? read_sources(database, error) : code;
}

/* Opens a database of the Go eventpipe for `eventpipe import`: copies it, opens and checks the copy, and
 * then deletes the copy's files, which vanish when the process ends. Returns 0 and *out, which the caller
 * closes, or a negative code. */
int import_go_open(const char *path, import_stop *should_stop, void *user, struct import_go **out,
                   struct error *error)
{
    struct import_copy copy = {0};
    struct import_go *database = calloc(1, sizeof *database);
    if (database == NULL || (database->path = strdup(path)) == NULL) {
        free(database);
        return base_error_set(error, EP_ENOMEM, "out of memory");
    }
    int code = import_copy_make(path, should_stop, user, &copy, error);
    if (code == 0)
        code = open_private_copy(database, &copy, error);
    import_copy_remove(&copy);
    if (code == 0)
        *out = database;
    else
        import_go_close(&database);
    return code;
}

/* Closes the database of the Go eventpipe, frees it and sets *database to NULL; a NULL in it is ignored.
 * `eventpipe import` calls it at its end; import_go_open calls it after a failure. */
void import_go_close(struct import_go **database)
{
    struct import_go *closing = *database;
    *database = NULL;
    if (closing == NULL)
        return;
    sqlite3_finalize(closing->row_statement);
    sqlite3_close(closing->db);
    for (size_t i = 0; i < closing->source_count; i++) {
        free(closing->sources[i].id);
        free(closing->sources[i].cursor);
    }
    free(closing->sources);
    free(closing->path);
    free(closing);
}
