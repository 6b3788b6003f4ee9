/* SPDX-License-Identifier: MIT */
/*
 * The limit that the pipeline is measured against: one process alone that does the same durable row
 * operations on one SQLite table. It inserts each event locked, with a unique UID as the store keeps one; for
 * each stage but the last it reads the event and updates a context of 120 bytes; for the last it reads and
 * deletes the event. Each batch is one transaction per step, and is on disk when the commit returns, unless
 * --normal is given.
 *
 *   bench-alone --file PATH [OPTION...]
 *     --events N       to be carried, 50000
 *     --batch N        events in one transaction, 500
 *     --payload BYTES  of each, 220
 *     --stages N       3
 *     --normal         synchronous=NORMAL
 *     --pace N         one event at a time, so many a second; the latency of each is noted
 *
 * Prints one JSON line: events; seconds; per_s; with --pace latency_us, a number an event: from its arrival
 * to the end of its last transaction. The file must not exist yet, and is left behind.
 */
#include <getopt.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contrib/bench_tool.h"

#define CONTEXT_BYTES 120

struct alone {
    const char *path;
    uint64_t events, batch, payload, stages, pace;
    bool normal;
    char *data;
    char context[CONTEXT_BYTES];
    sqlite3 *database;
    sqlite3_stmt *begin, *commit, *insert, *read, *update, *delete;
};

static sqlite3_stmt *prepare(sqlite3 *database, const char *sql)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v3(database, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK)
        bench_give_up(sql, sqlite3_errmsg(database));
    return statement;
}

static void step(struct alone *alone, sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    if (code != SQLITE_DONE && code != SQLITE_ROW)
        bench_give_up(alone->path, sqlite3_errmsg(alone->database));
    sqlite3_reset(statement);
}

static void open_table(struct alone *alone)
{
    static const char full[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;";
    static const char normal[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;";
    /* The same index as in src/store/sqlite/schema.c: each event enters it once and leaves it once. */
    static const char table[] =
        "CREATE TABLE event(id INTEGER PRIMARY KEY, source INTEGER NOT NULL, uid TEXT NOT NULL, data BLOB, "
        "context TEXT, locked INTEGER);"
        "CREATE UNIQUE INDEX event_uid ON event(source, length(uid), uid);";
    if (sqlite3_open(alone->path, &alone->database) != SQLITE_OK ||
        sqlite3_exec(alone->database, alone->normal ? normal : full, NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(alone->database, table, NULL, NULL, NULL) != SQLITE_OK)
        bench_give_up(alone->path, sqlite3_errmsg(alone->database));
    alone->begin = prepare(alone->database, "BEGIN IMMEDIATE");
    alone->commit = prepare(alone->database, "COMMIT");
    alone->insert = prepare(alone->database, "INSERT INTO event VALUES(?1, 1, ?3, ?2, '', 1) "
                                             "ON CONFLICT(source, length(uid), uid) DO NOTHING");
    alone->read = prepare(alone->database, "SELECT data, context, locked FROM event WHERE id = ?1");
    alone->update = prepare(alone->database, "UPDATE event SET context = ?2 WHERE id = ?1");
    alone->delete = prepare(alone->database, "DELETE FROM event WHERE id = ?1");
}

static void close_table(struct alone *alone)
{
    sqlite3_stmt *statements[] = {alone->begin, alone->commit, alone->insert,
                                  alone->read,  alone->update, alone->delete};
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++)
        sqlite3_finalize(statements[i]);
    sqlite3_close(alone->database);
}

static void insert(struct alone *alone, uint64_t first, uint64_t count)
{
    char uid[32];
    step(alone, alone->begin);
    for (uint64_t i = first; i < first + count; i++) {
        int length = snprintf(uid, sizeof uid, "bench-%" PRIu64, i); /* like those of bench-pipeline */
        sqlite3_bind_int64(alone->insert, 1, (sqlite3_int64)i);
        sqlite3_bind_text(alone->insert, 3, uid, length, SQLITE_STATIC);
        sqlite3_bind_blob64(alone->insert, 2, alone->data, alone->payload, SQLITE_STATIC);
        step(alone, alone->insert);
    }
    step(alone, alone->commit);
}

/* Reads each event, then changes or deletes it. */
static void pass(struct alone *alone, uint64_t first, uint64_t count, bool last)
{
    sqlite3_stmt *change = last ? alone->delete : alone->update;
    step(alone, alone->begin);
    for (uint64_t i = first; i < first + count; i++) {
        sqlite3_bind_int64(alone->read, 1, (sqlite3_int64)i);
        step(alone, alone->read);
        sqlite3_bind_int64(change, 1, (sqlite3_int64)i);
        if (!last)
            sqlite3_bind_text(change, 2, alone->context, CONTEXT_BYTES, SQLITE_STATIC);
        step(alone, change);
    }
    step(alone, alone->commit);
}

static void carry(struct alone *alone, uint64_t first, uint64_t count)
{
    insert(alone, first, count);
    for (uint64_t stage = 1; stage <= alone->stages; stage++)
        pass(alone, first, count, stage == alone->stages);
}

static void run_batches(struct alone *alone)
{
    uint64_t begin = bench_now_ns();
    open_table(alone);
    for (uint64_t first = 1; first <= alone->events; first += alone->batch) {
        uint64_t left = alone->events - first + 1;
        carry(alone, first, left < alone->batch ? left : alone->batch);
    }
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    close_table(alone);
    printf("{\"events\":%" PRIu64 ",\"seconds\":%.6f,\"per_s\":%.2f}\n", alone->events, seconds,
           (double)alone->events / seconds);
}

static void run_paced(struct alone *alone)
{
    uint64_t *latencies = calloc(alone->events, sizeof *latencies);
    if (latencies == NULL)
        bench_give_up("latencies", "out of memory");
    open_table(alone);
    uint64_t begin = bench_now_ns();
    for (uint64_t i = 0; i < alone->events; i++) {
        uint64_t arrival = bench_arrival(begin + (i + 1) * BENCH_SECOND_NS / alone->pace);
        carry(alone, i + 1, 1);
        latencies[i] = bench_now_ns() - arrival;
    }
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    close_table(alone);
    printf("{\"events\":%" PRIu64 ",\"seconds\":%.6f,", alone->events, seconds);
    bench_print_us("latency_us", latencies, alone->events);
    puts("}");
    free(latencies);
}

static _Noreturn void print_versions(void)
{
#ifdef __OPTIMIZE__
    const char *optimised = "optimised";
#else
    const char *optimised = "not optimised";
#endif
    printf("{\"eventpipe\":\"%s\",\"sqlite\":\"%s\",\"compiler\":\"%s, %s\"}\n", PACKAGE_VERSION,
           sqlite3_libversion(), __VERSION__, optimised);
    exit(0);
}

static void read_options(struct alone *alone, int argc, char **argv)
{
    static const struct option options[] = {{"file", required_argument, NULL, 'f'},
                                            {"events", required_argument, NULL, 'n'},
                                            {"batch", required_argument, NULL, 'b'},
                                            {"payload", required_argument, NULL, 's'},
                                            {"stages", required_argument, NULL, 'k'},
                                            {"pace", required_argument, NULL, 'p'},
                                            {"normal", no_argument, NULL, 'N'},
                                            {"versions", no_argument, NULL, 'v'},
                                            {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'f':
            alone->path = optarg;
            break;
        case 'n':
            alone->events = bench_number(optarg, 1, 1000000000);
            break;
        case 'b':
            alone->batch = bench_number(optarg, 1, 1000000);
            break;
        case 's':
            alone->payload = bench_number(optarg, 1, 64 << 20);
            break;
        case 'k':
            alone->stages = bench_number(optarg, 1, 100);
            break;
        case 'p':
            alone->pace = bench_number(optarg, 1, 1000000);
            break;
        case 'N':
            alone->normal = true;
            break;
        case 'v':
            print_versions();
        default:
            exit(2);
        }
    if (alone->path == NULL || optind < argc) {
        fprintf(stderr,
                "usage: bench-alone --file PATH [--events N] [--batch N] [--payload BYTES] [--stages N] "
                "[--normal] [--pace N]\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct alone alone = {.events = 50000, .batch = 500, .payload = 220, .stages = 3};
    read_options(&alone, argc, argv);
    memset(alone.context, 'c', sizeof alone.context);
    alone.data = malloc(alone.payload);
    if (alone.data == NULL)
        bench_give_up("payload", "out of memory");
    memset(alone.data, 'd', alone.payload);
    if (alone.pace > 0)
        run_paced(&alone);
    else
        run_batches(&alone);
    free(alone.data);
    return 0;
}
