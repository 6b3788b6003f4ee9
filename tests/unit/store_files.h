/* SPDX-License-Identifier: MIT */
/* For tests of the store that look behind it: the file it stands in, whichever implementation runs. */
#ifndef STORE_FILES_H
#define STORE_FILES_H

#include <sqlite3.h>

#include "tests/unit/store_fixture.h"

static inline const char *database(void)
{
    static char path[320];
    if (fixture.kind == KIND_MEMORY)
        snprintf(path, sizeof path, "/dev/shm/eventpipe-%s.store/store.db", fixture.instance);
    else
        snprintf(path, sizeof path, "%s", fixture.url + strlen("sqlite:"));
    return path;
}

/* Does something to the file behind the store's back. */
static inline void meddle(const char *sql)
{
    sqlite3 *db;
    CU_ASSERT_EQUAL_FATAL(sqlite3_open(database(), &db), SQLITE_OK);
    char *message = NULL;
    int result = sqlite3_exec(db, sql, NULL, NULL, &message);
    if (result != SQLITE_OK)
        fprintf(stderr, "%s\n", message);
    CU_ASSERT_EQUAL(result, SQLITE_OK);
    sqlite3_free(message);
    sqlite3_close(db);
}

#endif
