/* SPDX-License-Identifier: MIT */
/*
 * Throughput of the whole pipeline beside its limit, both measured in this run, in turns:
 *
 *   pipeline  `generate` -> three C stages that do nothing, one worker each, SQLite on disk, synchronous=FULL
 *   alone     one process that does the same durable row operations on one table by itself, in batches of
 * 100: insert locked; twice: read, update a 120-byte context; read, delete; a transaction for each batch and
 * step
 *
 *   bench [-n EVENTS] [-r ROUNDS] [-d DIRECTORY] [-s BYTES]      defaults: 50000 3 . 220
 *
 * Prints a line per round, then the medians and their ratio. The directory must be on the disk that is to be
 * measured.
 */
#include <errno.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/eventpipe.h"

#define BATCH 100
#define CONTEXT_BYTES 120
#define ROUNDS_MAX 99

struct bench {
    uint64_t events, size_bytes;
    unsigned rounds;
    const char *directory;
    char path[4096];
};

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "bench: %s: %s\n", what, why);
    exit(1);
}

static void remove_store(const char *path)
{
    static const char *const endings[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        char name[4200];
        snprintf(name, sizeof name, "%s%s", path, endings[i]);
        unlink(name);
    }
}

/* ---- the pipeline */

static enum ep_answer no_op(ep_call *call, void *state)
{
    (void)call;
    (void)state;
    return EP_PROCESSED;
}

static double run_pipeline(const struct bench *bench)
{
    static const struct ep_stage stages[] = {{.abi = EP_STAGE_ABI, .name = "first", .process = no_op},
                                             {.abi = EP_STAGE_ABI, .name = "second", .process = no_op},
                                             {.abi = EP_STAGE_ABI, .name = "third", .process = no_op}};
    char storage[4200], instance[32];
    snprintf(storage, sizeof storage, "sqlite:%s", bench->path);
    snprintf(instance, sizeof instance, "bench-%d", (int)getpid());
    const struct ep_manager_params params = {.instance = instance, .storage = storage};
    const struct ep_source_params generate = {.id = "generate",
                                              .type = "generate",
                                              .page = 500,
                                              .generate_count = bench->events,
                                              .generate_bytes = bench->size_bytes};
    ep_manager *manager;
    ep_source *source;
    struct ep_metrics *metrics;
    if (ep_manager_open(&params, &manager) != EP_OK)
        give_up("manager", "cannot be opened");
    int result = ep_source_add(manager, &generate, &source);
    for (size_t i = 0; result == EP_OK && i < 3; i++)
        result = ep_source_push(source, &stages[i], NULL);
    if (result == EP_OK)
        result = ep_source_run_and_measure(source, &metrics);
    if (result != EP_OK)
        give_up("pipeline", ep_errmsg(manager));
    if (metrics->finished != bench->events)
        give_up("pipeline", "not every event was finished");
    double seconds = (double)metrics->wall_ns / 1e9;
    ep_metrics_free(&metrics);
    ep_manager_close(&manager);
    remove_store(bench->path);
    return (double)bench->events / seconds;
}

/* ---- one process alone */

struct alone {
    sqlite3 *database;
    sqlite3_stmt *begin, *commit, *insert, *read, *update, *delete;
};

static sqlite3_stmt *prepare(sqlite3 *database, const char *sql)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(database, sql, -1, &statement, NULL) != SQLITE_OK)
        give_up(sql, sqlite3_errmsg(database));
    return statement;
}

static void step(struct alone *alone, sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    if (code != SQLITE_DONE && code != SQLITE_ROW)
        give_up("alone", sqlite3_errmsg(alone->database));
    sqlite3_reset(statement);
}

static void alone_open(struct alone *alone, const struct bench *bench)
{
    if (sqlite3_open(bench->path, &alone->database) != SQLITE_OK)
        give_up(bench->path, sqlite3_errmsg(alone->database));
    static const char set_up[] =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        "CREATE TABLE event(id INTEGER PRIMARY KEY, data BLOB, context TEXT, locked INTEGER)";
    if (sqlite3_exec(alone->database, set_up, NULL, NULL, NULL) != SQLITE_OK)
        give_up("alone", sqlite3_errmsg(alone->database));
    alone->begin = prepare(alone->database, "BEGIN IMMEDIATE");
    alone->commit = prepare(alone->database, "COMMIT");
    alone->insert = prepare(alone->database, "INSERT INTO event VALUES(?1, ?2, '', 1)");
    alone->read = prepare(alone->database, "SELECT data, context, locked FROM event WHERE id = ?1");
    alone->update = prepare(alone->database, "UPDATE event SET context = ?2 WHERE id = ?1");
    alone->delete = prepare(alone->database, "DELETE FROM event WHERE id = ?1");
}

static void alone_close(struct alone *alone)
{
    sqlite3_stmt *statements[] = {alone->begin, alone->commit, alone->insert,
                                  alone->read,  alone->update, alone->delete};
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++)
        sqlite3_finalize(statements[i]);
    sqlite3_close(alone->database);
}

static void alone_insert(struct alone *alone, uint64_t first, uint64_t count, const char *data,
                         uint64_t bytes)
{
    step(alone, alone->begin);
    for (uint64_t i = first; i < first + count; i++) {
        sqlite3_bind_int64(alone->insert, 1, (sqlite3_int64)i);
        sqlite3_bind_blob64(alone->insert, 2, data, bytes, SQLITE_STATIC);
        step(alone, alone->insert);
    }
    step(alone, alone->commit);
}

/* Reads each event, then changes or deletes it. */
static void alone_pass(struct alone *alone, uint64_t first, uint64_t count, const char *context)
{
    sqlite3_stmt *change = context != NULL ? alone->update : alone->delete;
    step(alone, alone->begin);
    for (uint64_t i = first; i < first + count; i++) {
        sqlite3_bind_int64(alone->read, 1, (sqlite3_int64)i);
        step(alone, alone->read);
        sqlite3_bind_int64(change, 1, (sqlite3_int64)i);
        if (context != NULL)
            sqlite3_bind_text(change, 2, context, CONTEXT_BYTES, SQLITE_STATIC);
        step(alone, change);
    }
    step(alone, alone->commit);
}

static double run_alone(const struct bench *bench)
{
    struct alone alone;
    char context[CONTEXT_BYTES];
    memset(context, 'c', sizeof context);
    char *data = malloc(bench->size_bytes);
    if (data == NULL)
        give_up("alone", "out of memory");
    memset(data, 'd', bench->size_bytes);
    double begin = seconds_now();
    alone_open(&alone, bench);
    for (uint64_t first = 1; first <= bench->events; first += BATCH) {
        uint64_t left = bench->events - first + 1, count = left < BATCH ? left : BATCH;
        alone_insert(&alone, first, count, data, bench->size_bytes);
        alone_pass(&alone, first, count, context);
        alone_pass(&alone, first, count, context);
        alone_pass(&alone, first, count, NULL);
    }
    alone_close(&alone);
    double seconds = seconds_now() - begin;
    free(data);
    remove_store(bench->path);
    return (double)bench->events / seconds;
}

/* ---- the run */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, by_value);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static uint64_t number(const char *text, uint64_t most)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *text == '-' || *text == '\0' || *end != '\0' || value < 1 || value > most)
        give_up(text, "expected a whole number in range");
    return value;
}

int main(int argc, char **argv)
{
    struct bench bench = {.events = 50000, .size_bytes = 220, .rounds = 3, .directory = "."};
    int option;
    while ((option = getopt(argc, argv, "n:r:d:s:")) != -1) {
        switch (option) {
        case 'n':
            bench.events = number(optarg, 1000000000);
            break;
        case 'r':
            bench.rounds = (unsigned)number(optarg, ROUNDS_MAX);
            break;
        case 'd':
            bench.directory = optarg;
            break;
        case 's':
            bench.size_bytes = number(optarg, 1 << 20);
            break;
        default:
            fprintf(stderr, "usage: bench [-n EVENTS] [-r ROUNDS] [-d DIRECTORY] [-s BYTES]\n");
            return 2;
        }
    }
    snprintf(bench.path, sizeof bench.path, "%s/bench-%d.db", bench.directory, (int)getpid());
    double pipeline[ROUNDS_MAX] = {0}, alone[ROUNDS_MAX] = {0};
    printf("%" PRIu64 " events of %" PRIu64 " bytes, SQLite %s, synchronous=FULL\n", bench.events,
           bench.size_bytes, sqlite3_libversion());
    for (unsigned i = 0; i < bench.rounds; i++) {
        alone[i] = run_alone(&bench);
        pipeline[i] = run_pipeline(&bench);
        printf("round %u: pipeline %.0f events/s, alone %.0f events/s, ratio %.2f\n", i + 1, pipeline[i],
               alone[i], pipeline[i] / alone[i]);
        fflush(stdout);
    }
    double left = median(pipeline, bench.rounds), right = median(alone, bench.rounds);
    printf("median:  pipeline %.0f events/s, alone %.0f events/s, ratio %.2f\n", left, right, left / right);
    return 0;
}
