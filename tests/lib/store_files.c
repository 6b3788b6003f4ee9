/* SPDX-License-Identifier: MIT */
/* Opens the file of the fixture's store beside it. */
#include "tests/lib/store_files.h"

#include <sqlite3.h>
#include <stdio.h>

const char *store_files_path(void)
{
    static char path[320];
    if (fixture.kind == KIND_MEMORY)
        snprintf(path, sizeof path, "/dev/shm/eventpipe-%s.store/store.db", fixture.instance);
    else
        snprintf(path, sizeof path, "%s", fixture.url + strlen("sqlite:"));
    return path;
}

void store_files_meddle(const char *sql)
{
    sqlite3 *db;
    CU_ASSERT_EQUAL_FATAL(sqlite3_open(store_files_path(), &db), SQLITE_OK);
    char *message = NULL;
    int result = sqlite3_exec(db, sql, NULL, NULL, &message);
    if (result != SQLITE_OK)
        fprintf(stderr, "%s\n", message);
    CU_ASSERT_EQUAL(result, SQLITE_OK);
    sqlite3_free(message);
    sqlite3_close(db);
}
