/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: the full check of the store. Runs in the keeper, and in the command line for a
 * store that no daemon holds. The check reads everything in one read transaction and is slow.
 *
 * Survived: damage of any kind is reported as a fault.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/store/sqlite/sqlite.h"

/* What a fault says of an event, for the table with this alias: its number of arrival, and its source. */
#define EVENT(alias)                                                                                    \
    "'event ' || (" alias ".seq & 17592186044415) || ' of source ' || ifnull((SELECT name FROM source " \
    "WHERE id = " alias ".seq >> 44), '(unknown)') || "

/* Each query returns one row per fault, with its text in the first column. */

static const char *const fault_queries[] = {
    "SELECT " EVENT("e") "' (uid ' || e.uid || ') has no progress and is not suspended' FROM event e "
                         "WHERE NOT EXISTS (SELECT 1 FROM progress p WHERE p.seq = e.seq) "
                         "AND NOT EXISTS (SELECT 1 FROM suspended k WHERE k.seq = e.seq)",
    "SELECT " EVENT("p") "' has progress but no data' FROM progress p "
                         "WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.seq = p.seq)",
    "SELECT " EVENT("k") "' is suspended but has no data' FROM suspended k "
                         "WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.seq = k.seq)",
    "SELECT " EVENT("k") "' has progress but is also suspended' FROM suspended k JOIN progress p ON "
                         "p.seq = k.seq",
    "SELECT " EVENT("k") "' is suspended in an unknown state' FROM suspended k "
                         "WHERE k.state NOT IN (2, 3, 4)",
    "SELECT " EVENT("e") "' (uid ' || e.uid || ') is stored as an event of another source, ' || "
                         "ifnull((SELECT name FROM source WHERE id = e.source), '(unknown)') FROM event e "
                         "WHERE e.source IS NOT e.seq >> 44",
    "SELECT " EVENT(
        "k") "' is suspended as an event of another source, ' || "
             "ifnull((SELECT name FROM source WHERE id = k.source), '(unknown)') FROM suspended k "
             "WHERE k.source IS NOT k.seq >> 44",
    "SELECT 'the event with uid ' || e.uid || ' belongs to no known source' FROM event e "
    "WHERE NOT EXISTS (SELECT 1 FROM source s WHERE s.id = e.seq >> 44)",
    "SELECT 'source ' || s.name || ': an event has the number of the next event already' FROM source s "
    "WHERE (s.id << 44) + s.next_number <= (SELECT max(seq) FROM event e WHERE e.seq < (s.id + 1) << 44 "
    "AND e.seq >= s.id << 44)",
    "SELECT " EVENT("p") "' is locked by a start of the daemon that is yet to come' "
                         "FROM progress p, settings t WHERE p.token >> 40 > t.start_number",
    "SELECT 'source ' || s.name || ': fetched ' || s.fetched || ' is not completed ' || s.completed || ' + "
    "removed_by_stage ' || "
    "s.removed_by_stage || ' + removed_by_operator ' || s.removed_by_operator || ' + live ' || s.live FROM "
    "source s "
    "WHERE s.fetched <> s.completed + s.removed_by_stage + s.removed_by_operator + s.live",
    "SELECT 'source ' || s.name || ': counts ' || s.live || ' events, there are ' || n FROM (SELECT s.*, "
    "(SELECT count(*) FROM event e WHERE e.seq >= s.id << 44 AND e.seq < (s.id + 1) << 44) n FROM source s) "
    "s "
    "WHERE s.live <> n",
    "SELECT 'source ' || s.name || ': counts ' || s.delayed || ' delayed, ' || s.held || ' held and ' || "
    "s.dead || "
    "' dead, there are ' || d || ', ' || h || ' and ' || x FROM (SELECT s.*, "
    "(SELECT count(*) FROM suspended k WHERE k.source = s.id AND k.state = 2) d, "
    "(SELECT count(*) FROM suspended k WHERE k.source = s.id AND k.state = 3) h, "
    "(SELECT count(*) FROM suspended k WHERE k.source = s.id AND k.state = 4) x FROM source s) s "
    "WHERE s.delayed <> d OR s.held <> h OR s.dead <> x",
};

/* Reports one result row of the full check of the store. A row that begins with "***" is split, so that
 * each of its lines is one fault: SQLite's integrity_check puts all faults of damaged pages into one such
 * row. The keeper runs it for `eventpipe check`, the command line while the daemon is down. */
static void report_fault_lines(const char *message, void (*report)(const char *message, void *user),
                               void *user)
{
    char *copy = strncmp(message, "***", 3) == 0 ? strdup(message) : NULL;
    if (copy == NULL) {
        report(message, user);
        return;
    }
    char *remaining_lines = copy;
    for (const char *line = strsep(&remaining_lines, "\n"); line != NULL;
         line = strsep(&remaining_lines, "\n"))
        if (*line != '\0' && strncmp(line, "***", 3) != 0)
            report(line, user);
    free(copy);
}

/* Runs one query of the full check of the store and reports each row that it returns as a fault. Returns 0
 * also if there were faults; a negative code if the query failed. The keeper runs it for `eventpipe check`,
 * the command line while the daemon is down. */
static int report_query_faults(struct store_sqlite *store, const char *sql,
                               void (*report)(const char *message, void *user), void *user)
{
    sqlite3_stmt *statement = NULL;
    int result = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL);
    while (result == SQLITE_OK || result == SQLITE_ROW) {
        result = sqlite3_step(statement);
        const char *message = result == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
        if (message != NULL && strcmp(message, "ok") != 0) /* "ok": no fault was found */
            report_fault_lines(message, report, user);
    }
    int code = result == SQLITE_DONE ? 0 : store_sqlite_fail(store, sqlite3_extended_errcode(store->db));
    sqlite3_finalize(statement);
    return code;
}

/* store_check of the SQLite engine: runs SQLite's own integrity check, then our queries, which find events,
 * totals and locks that contradict each other. Returns 0 also if there were faults; if the file is too
 * damaged to be checked, that is reported as a fault. The keeper calls it for `eventpipe check`, or the
 * command line while the daemon is down. */
int store_sqlite_check(struct store *base, void (*report)(const char *message, void *user), void *user)
{
    struct store_sqlite *store = store_sqlite_of(base);
    int code = store_sqlite_begin_read(store);
    if (code != 0)
        return code;
    code = report_query_faults(store, "PRAGMA integrity_check(100)", report, user);
    for (size_t i = 0; code == 0 && i < sizeof fault_queries / sizeof fault_queries[0]; i++)
        code = report_query_faults(store, fault_queries[i], report, user);
    code = store_sqlite_end_transaction(store, code);
    if (code == EP_ESTORE) { /* so damaged that the check cannot go on: this is a fault, too */
        report(base->error.message, user);
        return 0;
    }
    return code;
}
