/* SPDX-License-Identifier: MIT */
/* Writes databases of the Go eventpipe. */
#include "tests/lib/import_rig.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct import_rig import_rig;

void import_rig_begin(void)
{
    const char *base = getenv("RIG_BASE"); /* TMPDIR as it was: import_rig_begin changes it */
    if (base == NULL) {
        base = getenv("TMPDIR");
        setenv("RIG_BASE", base != NULL && strlen(base) < 40 ? base : "/tmp", 1);
        base = getenv("RIG_BASE");
    }
    snprintf(import_rig.directory, sizeof import_rig.directory, "%.40s/importXXXXXX", base);
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(import_rig.directory));
    snprintf(import_rig.temporary, sizeof import_rig.temporary, "%s/tmp", import_rig.directory);
    snprintf(import_rig.path, sizeof import_rig.path, "%s/go?#.db", import_rig.directory);
    CU_ASSERT_EQUAL_FATAL(mkdir(import_rig.temporary, 0777), 0);
    setenv("TMPDIR", import_rig.temporary, 1);
}

size_t import_rig_entries(const char *directory)
{
    size_t count = 0;
    DIR *folder = opendir(directory);
    CU_ASSERT_PTR_NOT_NULL_FATAL(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

void import_rig_end(void)
{
    char command[128];
    CU_ASSERT_EQUAL(import_rig_entries(import_rig.temporary), 0);
    snprintf(command, sizeof command, "rm -rf '%s'", import_rig.directory);
    CU_ASSERT_EQUAL(system(command), 0);
    setenv("TMPDIR", getenv("RIG_BASE"), 1);
}

/* ---- the database ---- */

static const char schema[] = "CREATE TABLE sources (id TEXT PRIMARY KEY, cursor TEXT NOT NULL);"
                             "CREATE TABLE items (source_id TEXT NOT NULL, id TEXT NOT NULL, data BLOB "
                             "NOT NULL, context BLOB, locked BOOLEAN "
                             "NOT NULL DEFAULT 0, order_index INTEGER NOT NULL DEFAULT 0, PRIMARY KEY "
                             "(source_id, id), FOREIGN KEY (source_id) "
                             "REFERENCES sources(id) ON DELETE CASCADE);"
                             "CREATE INDEX idx_items_order ON items(source_id, order_index);"
                             "PRAGMA user_version = 1;";

void import_rig_run(sqlite3 *db, const char *sql)
{
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fprintf(stderr, "%s\n", message);
    CU_ASSERT_PTR_NULL(message);
    sqlite3_free(message);
}

sqlite3 *import_rig_open(void)
{
    sqlite3 *db = NULL;
    CU_ASSERT_EQUAL_FATAL(sqlite3_open(import_rig.path, &db), SQLITE_OK);
    return db;
}

sqlite3 *import_rig_create(const char *sql)
{
    unlink(import_rig.path);
    sqlite3 *db = import_rig_open();
    import_rig_run(db, schema);
    import_rig_run(db, sql);
    return db;
}

struct import_rig_bytes import_rig_packed(const struct text *packed)
{
    return (struct import_rig_bytes){packed->text, packed->bytes};
}

void import_rig_add(sqlite3 *db, const char *source, const char *id, int order, bool locked,
                    struct import_rig_bytes data, struct import_rig_bytes context)
{
    sqlite3_stmt *statement;
    CU_ASSERT_EQUAL_FATAL(
        sqlite3_prepare_v2(db,
                           "INSERT INTO items(source_id, id, data, context, locked, order_index) "
                           "VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                           -1, &statement, NULL),
        SQLITE_OK);
    sqlite3_bind_text(statement, 1, source, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, id, -1, SQLITE_STATIC);
    sqlite3_bind_blob64(statement, 3, data.at, data.bytes, SQLITE_STATIC);
    sqlite3_bind_blob64(statement, 4, context.at, context.bytes, SQLITE_STATIC);
    sqlite3_bind_int(statement, 5, locked);
    sqlite3_bind_int(statement, 6, order);
    CU_ASSERT_EQUAL(sqlite3_step(statement), SQLITE_DONE);
    sqlite3_finalize(statement);
}

/* ---- MessagePack ---- */

void import_rig_text(struct text *packed, const char *text)
{
    json_msgpack_write_text(packed, text, strlen(text));
}

void import_rig_event(struct text *packed, const char *uid)
{
    *packed = (struct text){0};
    json_msgpack_write_map(packed, 3);
    import_rig_text(packed, "uid"), import_rig_text(packed, uid);
    import_rig_text(packed, "address"), import_rig_text(packed, "device-1");
    import_rig_text(packed, "type"), import_rig_text(packed, "t");
}

/* {"pipelineContext":{"note":NOTE},"processedStages":{...}}; marks: "enrich+ route-", + = done */
static void write_context(struct text *packed, const char *note, const char *marks)
{
    size_t count = 0;
    for (const char *at = marks; *at != '\0'; at++)
        count += *at == '+' || *at == '-';
    *packed = (struct text){0};
    json_msgpack_write_map(packed, 2);
    import_rig_text(packed, "pipelineContext");
    json_msgpack_write_map(packed, 1);
    import_rig_text(packed, "note"), import_rig_text(packed, note);
    import_rig_text(packed, "processedStages");
    json_msgpack_write_map(packed, count);
    for (const char *at = marks; count > 0; count--) {
        at += strspn(at, " ");
        size_t length = strcspn(at, "+-");
        json_msgpack_write_text(packed, at, length);
        json_msgpack_write_bool(packed, at[length] == '+');
        at += length + 1;
    }
}

void import_rig_row(sqlite3 *db, const char *source, const char *id, int order, bool locked,
                    const char *marks)
{
    struct text event = {0}, context = {0};
    import_rig_event(&event, id);
    write_context(&context, id, marks != NULL ? marks : "");
    import_rig_add(db, source, id, order, locked, import_rig_packed(&event),
                   marks != NULL ? import_rig_packed(&context) : IMPORT_RIG_NULL);
    base_text_free(&event);
    base_text_free(&context);
}
