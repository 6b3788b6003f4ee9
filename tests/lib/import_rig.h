/* SPDX-License-Identifier: MIT */
/* For tests of the import: little databases as the Go eventpipe writes them, made with SQLite and our
 * MessagePack writer. */
#ifndef TESTS_LIB_IMPORT_RIG_H
#define TESTS_LIB_IMPORT_RIG_H

#include <sqlite3.h>

#include "src/import/go_database.h"
#include "src/json/msgpack_write.h"
#include "tests/lib/unit.h"

struct import_rig {
    char directory[64], temporary[80], path[96];
};

extern struct import_rig import_rig;

/* A directory for the database, and one beside it for the copies. */
void import_rig_begin(void);

/* How many files a folder has. */
size_t import_rig_entries(const char *directory);

/* No test leaves a copy behind. */
void import_rig_end(void);

/* ---- the database ---- */

void import_rig_run(sqlite3 *db, const char *sql);
sqlite3 *import_rig_open(void);

/* Begins a database again, with these sources: "INSERT INTO ..." or "". */
sqlite3 *import_rig_create(const char *sql);

struct import_rig_bytes {
    const void *at; /* NULL = NULL */
    size_t bytes;
};

#define IMPORT_RIG_TEXT(text) ((struct import_rig_bytes){text, sizeof(text) - 1})
#define IMPORT_RIG_NULL ((struct import_rig_bytes){NULL, 0})

struct import_rig_bytes import_rig_packed(const struct text *packed);

/* A row with exactly these bytes. */
void import_rig_add(sqlite3 *db, const char *source, const char *id, int order, bool locked,
                    struct import_rig_bytes data, struct import_rig_bytes context);

/* ---- MessagePack ---- */

void import_rig_text(struct text *packed, const char *text);

/* {"uid":UID,"address":"device-1","type":"t"} */
void import_rig_event(struct text *packed, const char *uid);

/* An ordinary row. marks NULL: a context of NULL. */
void import_rig_row(sqlite3 *db, const char *source, const char *id, int order, bool locked,
                    const char *marks);

#endif
