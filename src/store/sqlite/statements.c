/* SPDX-License-Identifier: MIT */
/*
 * The SQLite engine: the text of every prepared statement. Pure. A unit test asks SQLite for the plan of
 * each, and fails if one scans a table that grows with the backlog.
 */
#include "src/store/sqlite/sqlite.h"

/* The columns of a listed item, in the order in which select.c reads them: e = event, p = progress, k =
 * suspended. */
#define ITEM_COLUMNS                                                                                  \
    "e.seq, e.uid, e.address, e.type, e.arrival_ms, CASE WHEN ?1 THEN e.data END, p.token, k.state, " \
    "k.reason, k.due_ms, ifnull(p.attempts, k.attempts), ifnull(p.crashes, k.crashes), "              \
    "ifnull(p.done, k.done), CASE WHEN ?1 THEN ifnull(p.context, k.context) END, ifnull(p.error, k.error) "

struct statement_text {
    const char *sql;
    bool small; /* may scan a whole table */
};

static const struct statement_text texts[SQL_STATEMENTS] = {
    [SQL_BEGIN_READ] = {"BEGIN", false},
    [SQL_BEGIN_WRITE] = {"BEGIN IMMEDIATE", false},
    [SQL_COMMIT] = {"COMMIT", false},
    [SQL_ROLLBACK] = {"ROLLBACK", false},
    [SQL_START_NUMBER] = {"SELECT start_number FROM settings WHERE id = 1", false},

    [SQL_SOURCE_NEXT] = {"SELECT next_number FROM source WHERE id = ?1", false},
    [SQL_INSERT_EVENT] =
        {"INSERT INTO event(seq, source, uid, address, type, arrival_ms, data) "
         "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(source, length(uid), uid) DO NOTHING",
         false},
    [SQL_INSERT_PROGRESS] = {"INSERT INTO progress(seq, token) SELECT seq, ?3 FROM event "
                             "WHERE seq BETWEEN ?1 AND ?2",
                             false},
    [SQL_INSERT_DEAD] = {"INSERT INTO suspended(seq, source, state, reason, error) VALUES(?1, ?2, 4, ?3, ?4)",
                         false},
    [SQL_INGESTED] =
        {"UPDATE source SET next_number = ?2, "
         "cursor = iif(?8 AND ifnull(cursor, '') <> ?9, cursor, ifnull(?3, cursor)), fetched = fetched + ?4, "
         "duplicates = duplicates + ?5, injected = injected + ?6, live = live + ?4, dead = dead + ?7 "
         "WHERE id = ?1",
         false},
    [SQL_MOVE_CURSOR] = {"UPDATE source SET cursor = ?2 WHERE id = ?1 AND cursor IS NOT ?2 AND "
                         "NOT (?3 AND ifnull(cursor, '') <> ?4)",
                         false},

    [SQL_CLAIM_SCAN] = {"SELECT seq, done FROM progress WHERE seq >= ?1 AND seq < ?2 AND token < ?3 "
                        "ORDER BY seq LIMIT ?4",
                        false},
    [SQL_CLAIM_TAKE] = {"UPDATE progress SET token = ?1 WHERE seq >= ?2 AND seq <= ?3 AND token < ?4", false},
    [SQL_DUE_SCAN] = {"SELECT seq FROM suspended WHERE source = ?1 AND state = 2 AND due_ms <= ?2 "
                      "ORDER BY due_ms LIMIT ?3",
                      false},
    [SQL_NEXT_DUE] = {"SELECT due_ms FROM suspended WHERE source = ?1 AND state = 2 ORDER BY due_ms LIMIT 1",
                      false},
    [SQL_RESUME] = {"INSERT INTO progress(seq, token, attempts, crashes, done, context, error) "
                    "SELECT seq, 0, iif(?2, 0, attempts), iif(?2, 0, crashes), iif(?3, '', done), "
                    "iif(?3, '', context), iif(?2, '', error) FROM suspended WHERE seq = ?1",
                    false},
    [SQL_DELETE_SUSPENDED] = {"DELETE FROM suspended WHERE seq = ?1", false},

    [SQL_READ] = {"SELECT p.seq, p.context, p.done, p.attempts, p.crashes, e.uid, e.arrival_ms, e.data "
                  "FROM progress p CROSS JOIN event e ON e.seq = p.seq "
                  "WHERE p.seq BETWEEN ?1 AND ?2 AND p.token = ?3",
                  false},
    [SQL_ADVANCE] =
        {"UPDATE progress SET done = ?4, attempts = 0, crashes = 0, context = ifnull(?5, context), "
         "error = '' WHERE seq BETWEEN ?1 AND ?2 AND token = ?3",
         false},
    [SQL_COMPLETE] = {"DELETE FROM progress WHERE seq BETWEEN ?1 AND ?2 AND token = ?3", false},
    [SQL_PAD_ROWS] = {"UPDATE event SET data = zeroblob(?3) WHERE seq BETWEEN ?1 AND ?2", false},
    [SQL_DELETE_EVENT] = {"DELETE FROM event WHERE seq BETWEEN ?1 AND ?2", false},
    [SQL_SET_DATA] = {"UPDATE event SET data = ?2 WHERE seq = ?1", false},
    [SQL_COMPLETED] = {"SELECT 1, iif(token = ?2, done, NULL) FROM progress WHERE seq = ?1 "
                       "UNION ALL SELECT 0, NULL FROM suspended WHERE seq = ?1",
                       false},
    [SQL_COUNTS] = {"SELECT attempts, crashes FROM progress WHERE seq = ?1 AND token = ?2", false},
    [SQL_SUSPEND] =
        {"INSERT INTO suspended(seq, source, state, reason, due_ms, attempts, crashes, done, context, error) "
         "SELECT seq, ?3, ?4, ?5, ?6, attempts + ?7, crashes + ?8, done, ifnull(?9, context), "
         "ifnull(?10, error) FROM progress WHERE seq = ?1 AND token = ?2",
         false},
    [SQL_DELETE_PROGRESS] = {"DELETE FROM progress WHERE seq = ?1", false},
    [SQL_UNLOCK] = {"UPDATE progress SET token = 0 WHERE seq = ?1 AND token = ?2", false},
    [SQL_TALLY_SOURCE] =
        {"UPDATE source SET completed = completed + ?2, removed_by_stage = removed_by_stage + ?3, "
         "removed_by_operator = removed_by_operator + ?4, live = live + ?5, delayed = delayed + ?6, held = "
         "held + ?7, "
         "dead = dead + ?8 WHERE id = ?1",
         false},
    [SQL_TALLY_STAGE] = {"UPDATE stage SET processed = processed + ?2, retried = retried + ?3, "
                         "removed = removed + ?4, rejected = rejected + ?5, failed = failed + ?6, "
                         "crashed = crashed + ?7 WHERE id = ?1",
                         false},

    [SQL_CURSOR] = {"SELECT cursor FROM source WHERE id = ?1", false},
    [SQL_SET_CURSOR] = {"UPDATE source SET cursor = ?2 WHERE id = ?1", false},
    [SQL_SOURCE_TOTALS] = {"SELECT fetched, duplicates, injected, completed, removed_by_stage, "
                           "removed_by_operator, live, delayed, "
                           "held, dead FROM source WHERE id = ?1",
                           false},
    [SQL_OLDEST] = {"SELECT arrival_ms FROM event WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq LIMIT 1", false},
    [SQL_STAGE_TOTALS] =
        {"SELECT processed, retried, removed, rejected, failed, crashed FROM stage WHERE id = ?1", false},
    [SQL_EACH_SOURCE] = {"SELECT id, name FROM source ORDER BY id", true},
    [SQL_EACH_SOURCE_NAMED] = {"SELECT id, name FROM source ORDER BY name", true}, /* from its index */
    [SQL_EACH_STAGE] = {"SELECT id, name FROM stage WHERE source = ?1 ORDER BY id", true},

    [SQL_ADD_CRASH] =
        {"INSERT INTO crash(crashed_ms, uptime_ms, pid, code, event, kind, cause, process, source, "
         "stage, uid, how, last_output) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) "
         "ON CONFLICT DO NOTHING",
         false},
    [SQL_TRIM_CRASHES] = {"DELETE FROM crash WHERE id <= (SELECT max(id) FROM crash) - ?1", false},
    [SQL_DROP_CRASHES] = {"UPDATE settings SET crashes_dropped = crashes_dropped + ?1 WHERE id = 1", false},
    [SQL_CRASHES_DROPPED] = {"SELECT crashes_dropped FROM settings WHERE id = 1", false},
    [SQL_EACH_CRASH] =
        {"SELECT crashed_ms, uptime_ms, pid, code, event, kind, cause, process, source, stage, uid, "
         "how, last_output FROM crash ORDER BY id",
         true},

    [SQL_ADD_TRACE] = {"INSERT INTO trace(at_ms, bytes) VALUES(?1, ?2)", false},
    [SQL_EACH_TRACE] = {"SELECT at_ms, bytes FROM trace ORDER BY id", true},
    [SQL_TRACE_SIZE] = {"SELECT max(id), sum(length(bytes)) + 16 * count(*) FROM trace WHERE id > ?1", false},
    [SQL_TRACE_OLDEST] = {"SELECT id, at_ms, bytes FROM trace WHERE id < ?1 ORDER BY id LIMIT ?2", false},
    [SQL_TRACE_LIVE] = {"SELECT 1 FROM event WHERE seq >= ?1 AND seq <= ?2 LIMIT 1", false},
    [SQL_DELETE_TRACE] = {"DELETE FROM trace WHERE id <= ?1", false},

    /* A row value: from two conditions SQLite would make uid = ?2 AND length(?2) = length(?2). */
    [SQL_FIND_UID] = {"SELECT seq FROM event WHERE source = ?1 AND (length(uid), uid) = (length(?2), ?2)",
                      false},
    [SQL_ITEM] = {"SELECT " ITEM_COLUMNS "FROM event e LEFT JOIN progress p ON p.seq = e.seq "
                  "LEFT JOIN suspended k ON k.seq = e.seq WHERE e.seq = ?2",
                  false},
    /* The same from one of the two tables only; the other is not read. */
    [SQL_ITEM_PROGRESS] = {"SELECT " ITEM_COLUMNS "FROM progress p CROSS JOIN event e ON e.seq = p.seq "
                           "LEFT JOIN suspended k ON k.seq = NULL WHERE p.seq = ?2",
                           false},
    [SQL_ITEM_SUSPENDED] = {"SELECT " ITEM_COLUMNS "FROM suspended k CROSS JOIN event e ON e.seq = k.seq "
                            "LEFT JOIN progress p ON p.seq = NULL WHERE k.seq = ?2",
                            false},
    [SQL_LIST_ALL] =
        {"SELECT " ITEM_COLUMNS "FROM event e LEFT JOIN progress p ON p.seq = e.seq "
         "LEFT JOIN suspended k ON k.seq = e.seq WHERE e.seq > ?2 AND e.seq <= ?3 ORDER BY e.seq LIMIT ?4",
         false},
    [SQL_LIST_PROGRESS] = {"SELECT " ITEM_COLUMNS "FROM progress p CROSS JOIN event e ON e.seq = p.seq "
                           "LEFT JOIN suspended k ON k.seq = p.seq WHERE p.seq > ?2 AND p.seq <= ?3 "
                           "ORDER BY p.seq LIMIT ?4",
                           false},
    [SQL_LIST_SUSPENDED] = {"SELECT " ITEM_COLUMNS "FROM suspended k CROSS JOIN event e ON e.seq = k.seq "
                            "LEFT JOIN progress p ON p.seq = k.seq WHERE k.seq > ?2 AND k.seq <= ?3 "
                            "ORDER BY k.seq LIMIT ?4",
                            false},
    [SQL_LIST_STATE] =
        {"SELECT " ITEM_COLUMNS "FROM suspended k INDEXED BY suspended_state CROSS JOIN event e "
         "ON e.seq = k.seq LEFT JOIN progress p ON p.seq = k.seq "
         "WHERE k.source = ?5 AND k.state = ?6 AND k.seq > ?2 AND k.seq <= ?3 ORDER BY k.seq LIMIT ?4",
         false},
    [SQL_HOLD_SUSPENDED] = {"UPDATE suspended SET state = 3, due_ms = 0 WHERE seq = ?1", false},
    [SQL_REQUEUE_PROGRESS] =
        {"UPDATE progress SET token = 0, attempts = 0, crashes = 0, done = '', context = '', "
         "error = '' WHERE seq = ?1",
         false},

    [SQL_REMEMBER] = {"INSERT INTO imported(source, uid) VALUES(?1, ?2) ON CONFLICT DO NOTHING", false},
    [SQL_REMEMBERED] = {"SELECT 1 FROM imported WHERE source = ?1 AND uid = ?2", false},
    [SQL_IMPORT_PROGRESS] = {"INSERT INTO progress(seq, token, done, context) VALUES(?1, 0, ?2, ?3)", false},
    [SQL_IMPORT_DEAD] = {"INSERT INTO suspended(seq, source, state, reason, error, done, context) "
                         "VALUES(?1, ?2, 4, ?3, ?4, ?5, ?6)",
                         false},
    [SQL_FIRST_CURSOR] = {"UPDATE source SET cursor = ?2 WHERE id = ?1 AND ifnull(cursor, '') = ''", false},
};

/* The numbers 2, 3 and 4 in the statements and in the schema's indexes. */
_Static_assert(STORE_DELAYED == 2 && STORE_HELD == 3 && STORE_DEAD == 4, "states are stored by number");

const char *store_sqlite_sql(enum store_sqlite_statement statement_id, bool *small)
{
    if (small != NULL)
        *small = texts[statement_id].small;
    return texts[statement_id].sql;
}
