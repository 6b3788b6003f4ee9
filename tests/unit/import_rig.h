/* SPDX-License-Identifier: MIT */
/* For tests of the import: little databases as the Go eventpipe writes them, made with SQLite and our
 * MessagePack writer. */
#ifndef IMPORT_RIG_H
#define IMPORT_RIG_H

#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/import/go_database.h"
#include "src/json/msgpack_write.h"
#include "tests/unit/unit.h"

static struct {
    char directory[64], temporary[80], path[96];
} rig;

/* A directory for the database, and one beside it for the copies. */
static inline void rig_begin(void)
{
    const char *base = getenv("RIG_BASE"); /* TMPDIR as it was: rig_begin changes it */
    if (base == NULL) {
        base = getenv("TMPDIR");
        setenv("RIG_BASE", base != NULL && strlen(base) < 40 ? base : "/tmp", 1);
        base = getenv("RIG_BASE");
    }
    snprintf(rig.directory, sizeof rig.directory, "%.40s/importXXXXXX", base);
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(rig.directory));
    snprintf(rig.temporary, sizeof rig.temporary, "%s/tmp", rig.directory);
    snprintf(rig.path, sizeof rig.path, "%s/go?#.db", rig.directory);
    CU_ASSERT_EQUAL_FATAL(mkdir(rig.temporary, 0777), 0);
    setenv("TMPDIR", rig.temporary, 1);
}

static inline size_t rig_entries(const char *directory)
{
    size_t count = 0;
    DIR *folder = opendir(directory);
    CU_ASSERT_PTR_NOT_NULL_FATAL(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

/* No test leaves a copy behind. */
static inline void rig_end(void)
{
    char command[128];
    CU_ASSERT_EQUAL(rig_entries(rig.temporary), 0);
    snprintf(command, sizeof command, "rm -rf '%s'", rig.directory);
    CU_ASSERT_EQUAL(system(command), 0);
    setenv("TMPDIR", getenv("RIG_BASE"), 1);
}

/* ---- the database ---- */

static const char rig_schema[] = "CREATE TABLE sources (id TEXT PRIMARY KEY, cursor TEXT NOT NULL);"
                                 "CREATE TABLE items (source_id TEXT NOT NULL, id TEXT NOT NULL, data BLOB "
                                 "NOT NULL, context BLOB, locked BOOLEAN "
                                 "NOT NULL DEFAULT 0, order_index INTEGER NOT NULL DEFAULT 0, PRIMARY KEY "
                                 "(source_id, id), FOREIGN KEY (source_id) "
                                 "REFERENCES sources(id) ON DELETE CASCADE);"
                                 "CREATE INDEX idx_items_order ON items(source_id, order_index);"
                                 "PRAGMA user_version = 1;";

static inline void rig_run(sqlite3 *db, const char *sql)
{
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fprintf(stderr, "%s\n", message);
    CU_ASSERT_PTR_NULL(message);
    sqlite3_free(message);
}

static inline sqlite3 *rig_open(void)
{
    sqlite3 *db = NULL;
    CU_ASSERT_EQUAL_FATAL(sqlite3_open(rig.path, &db), SQLITE_OK);
    return db;
}

/* Begins a database again, with these sources: "INSERT INTO ..." or "". */
static inline sqlite3 *rig_create(const char *sql)
{
    unlink(rig.path);
    sqlite3 *db = rig_open();
    rig_run(db, rig_schema);
    rig_run(db, sql);
    return db;
}

struct rig_bytes {
    const void *at; /* NULL = NULL */
    size_t bytes;
};
#define RIG_TEXT(text) ((struct rig_bytes){text, sizeof(text) - 1})
#define RIG_NULL ((struct rig_bytes){NULL, 0})

static inline struct rig_bytes rig_packed(const struct json_out *packed)
{
    return (struct rig_bytes){packed->text, packed->bytes};
}

static inline void rig_add(sqlite3 *db, const char *source, const char *id, int order, bool locked,
                           struct rig_bytes data, struct rig_bytes context)
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

static inline void rig_text(struct json_out *packed, const char *text)
{
    json_msgpack_write_text(packed, text, strlen(text));
}

/* {"uid":UID,"address":"device-1","type":"t"} */
static inline void rig_event(struct json_out *packed, const char *uid)
{
    *packed = (struct json_out){0};
    json_msgpack_write_map(packed, 3);
    rig_text(packed, "uid"), rig_text(packed, uid);
    rig_text(packed, "address"), rig_text(packed, "device-1");
    rig_text(packed, "type"), rig_text(packed, "t");
}

/* {"pipelineContext":{"note":NOTE},"processedStages":{...}}; marks: "enrich+ route-", + = done */
static inline void rig_context(struct json_out *packed, const char *note, const char *marks)
{
    size_t count = 0;
    for (const char *at = marks; *at != '\0'; at++)
        count += *at == '+' || *at == '-';
    *packed = (struct json_out){0};
    json_msgpack_write_map(packed, 2);
    rig_text(packed, "pipelineContext");
    json_msgpack_write_map(packed, 1);
    rig_text(packed, "note"), rig_text(packed, note);
    rig_text(packed, "processedStages");
    json_msgpack_write_map(packed, count);
    for (const char *at = marks; count > 0; count--) {
        at += strspn(at, " ");
        size_t length = strcspn(at, "+-");
        json_msgpack_write_text(packed, at, length);
        json_msgpack_write_bool(packed, at[length] == '+');
        at += length + 1;
    }
}

/* An ordinary row. marks NULL: a context of NULL. */
static inline void rig_row(sqlite3 *db, const char *source, const char *id, int order, bool locked,
                           const char *marks)
{
    struct json_out event = {0}, context = {0};
    rig_event(&event, id);
    rig_context(&context, id, marks != NULL ? marks : "");
    rig_add(db, source, id, order, locked, rig_packed(&event),
            marks != NULL ? rig_packed(&context) : RIG_NULL);
    json_write_free(&event);
    json_write_free(&context);
}

#endif
