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

#define VERSION 1 /* PRAGMA user_version of the tables this knows */

struct import_go {
    char *path; /* for messages */
    sqlite3 *db;
    sqlite3_stmt *rows;
    struct import_go_source *sources;
    size_t source_count;
};

/* Sets the error from SQLite's last result on the database to import: not a database, damaged, or not
 * readable. `eventpipe import` runs it after each failure. */
static int set_sqlite_error(const struct import_go *file, struct error *error)
{
    int result = sqlite3_extended_errcode(file->db), primary = result & 0xff;
    if (primary == SQLITE_NOMEM)
        return base_error_set(error, EP_ENOMEM, "out of memory");
    if (primary == SQLITE_NOTADB)
        return base_error_set(error, EP_EINVAL,
                              "%s: not an SQLite database; expected one of the Go eventpipe", file->path);
    if (primary == SQLITE_CORRUPT)
        return base_error_set(error, EP_EINVAL, "%s: the database is damaged (%s)", file->path,
                              sqlite3_errmsg(file->db));
    return base_error_set(error, primary == SQLITE_FULL || primary == SQLITE_IOERR ? EP_ESYSTEM : EP_EINVAL,
                          "%s: its copy cannot be read: %s", file->path, sqlite3_errmsg(file->db));
}

static int run_sql(const struct import_go *file, const char *sql, struct error *error)
{
    return sqlite3_exec(file->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : set_sqlite_error(file, error);
}

/* ---- checks ---- */

/* *out: the number that an SQL statement returns from the database to import, 0 = no row. text: its
 * parameter, or NULL. `eventpipe import` runs it to check the file. */
static int query_number(const struct import_go *file, const char *sql, const char *text, int64_t *out,
                        struct error *error)
{
    sqlite3_stmt *statement = NULL;
    *out = 0;
    int result = sqlite3_prepare_v2(file->db, sql, -1, &statement, NULL);
    if (result == SQLITE_OK && text != NULL)
        result = sqlite3_bind_text(statement, 1, text, -1, SQLITE_STATIC);
    if (result == SQLITE_OK)
        result = sqlite3_step(statement);
    if (result == SQLITE_ROW)
        *out = sqlite3_column_int64(statement, 0);
    int code = result == SQLITE_ROW || result == SQLITE_DONE ? 0 : set_sqlite_error(file, error);
    sqlite3_finalize(statement);
    return code;
}

/* Checks that the database to import has the Go eventpipe's tables with their columns. `eventpipe import`
 * runs it, so that a wrong file gives a clear message. */
static int check_columns(const struct import_go *file, struct error *error)
{
    static const struct {
        const char *table, *sql, *columns[7];
    } wanted[] = {
        {"sources", "SELECT 1 FROM pragma_table_info('sources') WHERE name = ?1", {"id", "cursor"}},
        {"items",
         "SELECT 1 FROM pragma_table_info('items') WHERE name = ?1",
         {"source_id", "id", "data", "context", "locked", "order_index"}},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        int64_t there;
        int code = query_number(file, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1",
                                wanted[i].table, &there, error);
        if (code == 0 && there == 0)
            code = base_error_set(
                error, EP_EINVAL,
                "%s: there is no table \"%s\"; expected a database of the Go eventpipe, with the "
                "tables \"sources\" and \"items\"",
                file->path, wanted[i].table);
        for (size_t j = 0; code == 0 && wanted[i].columns[j] != NULL; j++) {
            code = query_number(file, wanted[i].sql, wanted[i].columns[j], &there, error);
            if (code == 0 && there == 0)
                code = base_error_set(
                    error, EP_EINVAL,
                    "%s: table \"%s\" has no column \"%s\"; expected a database of the Go eventpipe",
                    file->path, wanted[i].table, wanted[i].columns[j]);
        }
        if (code != 0)
            return code;
    }
    return 0;
}

/* Checks the whole database to import: a damaged index would hide events from us, and a damaged table
 * would lose them. `eventpipe import` runs it before it reads any row. */
static int check_integrity(const struct import_go *file, struct error *error)
{
    sqlite3_stmt *statement = NULL;
    int code = 0;
    int result = sqlite3_prepare_v2(file->db, "PRAGMA integrity_check(1)", -1, &statement, NULL);
    if (result == SQLITE_OK)
        result = sqlite3_step(statement);
    if (result != SQLITE_ROW)
        code = set_sqlite_error(file, error);
    else if (strcmp((const char *)sqlite3_column_text(statement, 0), "ok") != 0)
        code = base_error_set(
            error, EP_EINVAL,
            "%s: the database is damaged: %s; nothing was imported (`sqlite3 FILE .recover` makes a new "
            "one of what can be read)",
            file->path, (const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    return code;
}

/* Checks that the file to import is a whole database of the Go eventpipe, of the version that we know.
 * `eventpipe import` runs it before it reads any row. */
static int check_database(const struct import_go *file, struct error *error)
{
    int64_t version, application, twice = 0;
    int code = query_number(file, "PRAGMA user_version", NULL, &version, error);
    if (code == 0)
        code = query_number(file, "PRAGMA application_id", NULL, &application, error);
    if (code == 0 && application != 0)
        return base_error_set(
            error, EP_EINVAL,
            "%s: a database of another program (application id %lld); expected one of the Go eventpipe",
            file->path, (long long)application);
    if (code == 0 && version != VERSION)
        return base_error_set(
            error, EP_EINVAL,
            "%s: PRAGMA user_version is %lld; expected %d, as in a database of the Go eventpipe", file->path,
            (long long)version, VERSION);
    if (code == 0)
        code = check_integrity(file, error);
    if (code == 0)
        code = check_columns(file, error);
    /* The original has a key over both. Without it an event could come twice; with it this only reads an
     * index. */
    if (code == 0)
        code = query_number(file, "SELECT 1 FROM items GROUP BY source_id, id HAVING count(*) > 1 LIMIT 1",
                            NULL, &twice, error);
    if (code == 0 && twice != 0)
        code = base_error_set(
            error, EP_EINVAL,
            "%s: table \"items\" has two rows of one source and id, which the Go eventpipe never writes",
            file->path);
    return code;
}

/* ---- sources ---- */

/* Adds a source (id, cursor) that the database to import has to the list of its sources.
 * `eventpipe import` runs it for each row. */
static int add_source(struct import_go *file, sqlite3_stmt *statement)
{
    const char *id = (const char *)sqlite3_column_text(statement, 0);
    bool has_cursor = sqlite3_column_type(statement, 1) != SQLITE_NULL;
    const char *cursor = has_cursor ? (const char *)sqlite3_column_text(statement, 1) : NULL;
    struct import_go_source *sources =
        reallocarray(file->sources, file->source_count + 1, sizeof *file->sources);
    if (sources == NULL || id == NULL || (has_cursor && cursor == NULL))
        return EP_ENOMEM;
    file->sources = sources;
    struct import_go_source *source = &sources[file->source_count];
    *source = (struct import_go_source){.id = strdup(id), .cursor = has_cursor ? strdup(cursor) : NULL};
    file->source_count++;
    return source->id == NULL || (has_cursor && source->cursor == NULL) ? EP_ENOMEM : 0;
}

/* Reads the sources of the database to import, also those that have only events. DISTINCT runs along the
 * index of order_index, where the rows of a source stand together. `eventpipe import` runs it once. */
static int read_sources(struct import_go *file, struct error *error)
{
    sqlite3_stmt *statement = NULL;
    int code = 0;
    int result = sqlite3_prepare_v2(file->db,
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
            code = add_source(file, statement);
        else
            result = step;
    }
    if (code != 0)
        base_error_set(error, code, "out of memory");
    if (code == 0 && result != SQLITE_OK)
        code = set_sqlite_error(file, error);
    sqlite3_finalize(statement);
    return code;
}

size_t import_go_sources(const struct import_go *file, const struct import_go_source **out)
{
    *out = file->sources;
    return file->source_count;
}

/* ---- rows ---- */

/* Begins to read the events of one source of the database to import, in the order in which the Go
 * eventpipe would process them. `eventpipe import` calls it for each source. */
int import_go_start(struct import_go *file, const char *source, struct error *error)
{
    static const char sql[] = "SELECT id, data, context, locked FROM items WHERE source_id = ?1 "
                              "ORDER BY order_index, rowid";
    int result = SQLITE_OK;
    if (file->rows == NULL)
        result = sqlite3_prepare_v2(file->db, sql, -1, &file->rows, NULL);
    else
        sqlite3_reset(file->rows);
    if (result == SQLITE_OK) /* copied: the caller's text need not stay */
        result = sqlite3_bind_text(file->rows, 1, source, -1, SQLITE_TRANSIENT);
    return result == SQLITE_OK ? 0 : set_sqlite_error(file, error);
}

/* Reads the next event of the source from the database to import. Returns 1 and *row, 0 when there are no
 * more, or a negative code. `eventpipe import` calls it for each row that the store asks for. */
int import_go_next(struct import_go *file, struct import_row *row, bool *locked, struct error *error)
{
    int result = sqlite3_step(file->rows);
    if (result == SQLITE_DONE)
        return 0;
    if (result != SQLITE_ROW)
        return set_sqlite_error(file, error);
    /* First the text or blob, then its number of bytes: SQLite converts the value at the first call. */
    const char *id = (const char *)sqlite3_column_text(file->rows, 0);
    struct json_span uid = {id != NULL ? id : "", (size_t)sqlite3_column_bytes(file->rows, 0)};
    struct msgpack data = {sqlite3_column_blob(file->rows, 1), (size_t)sqlite3_column_bytes(file->rows, 1)};
    struct msgpack context = {sqlite3_column_blob(file->rows, 2),
                              (size_t)sqlite3_column_bytes(file->rows, 2)};
    if (data.at == NULL) { /* NULL or empty */
        if (sqlite3_errcode(file->db) == SQLITE_NOMEM)
            return set_sqlite_error(file, error);
        data = (struct msgpack){"", 0};
    }
    *locked = sqlite3_column_int(file->rows, 3) != 0;
    int code = import_row_read(row, uid, data, context);
    return code == 0 ? 1 : base_error_set(error, code, "out of memory");
}

/* ---- open and close ---- */

/* Opens the private copy of the database to import, begins the one transaction in which it is read, checks
 * it and reads its sources. `eventpipe import` runs it. */
static int open_copy(struct import_go *file, const struct import_copy *copy, struct error *error)
{
    int result = sqlite3_open_v2(copy->path, &file->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (result != SQLITE_OK)
        return set_sqlite_error(file, error);
    sqlite3_extended_result_codes(file->db, 1);
    sqlite3_db_config(file->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_db_config(file->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL); /* we do not trust the file */
    int code = run_sql(file, "PRAGMA locking_mode = EXCLUSIVE", error);
    if (code == 0)
        code = run_sql(file, "BEGIN", error);
    if (code == 0)
        code = check_database(file, error);
    return code == 0 ? read_sources(file, error) : code;
}

/* Opens a database of the Go eventpipe for `eventpipe import`: copies it, opens the copy and checks it.
 * The copy has no name afterwards, so it disappears with the process. */
int import_go_open(const char *path, import_stop *stop, void *user, struct import_go **out,
                   struct error *error)
{
    struct import_copy copy = {0};
    struct import_go *file = calloc(1, sizeof *file);
    if (file == NULL || (file->path = strdup(path)) == NULL) {
        free(file);
        return base_error_set(error, EP_ENOMEM, "out of memory");
    }
    int code = import_copy_make(path, stop, user, &copy, error);
    if (code == 0)
        code = open_copy(file, &copy, error);
    import_copy_remove(&copy);
    if (code == 0)
        *out = file;
    else
        import_go_close(&file);
    return code;
}

/* Closes the database of the Go eventpipe and frees it; NULL is ignored. `eventpipe import` calls it at
 * its end, and after a failure to open. */
void import_go_close(struct import_go **file)
{
    struct import_go *closing = *file;
    *file = NULL;
    if (closing == NULL)
        return;
    sqlite3_finalize(closing->rows);
    sqlite3_close(closing->db);
    for (size_t i = 0; i < closing->source_count; i++) {
        free(closing->sources[i].id);
        free(closing->sources[i].cursor);
    }
    free(closing->sources);
    free(closing->path);
    free(closing);
}
