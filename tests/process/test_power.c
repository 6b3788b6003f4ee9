/* SPDX-License-Identifier: MIT */
/*
 * Power losses: two handles ingest, claim, answer and move the log over a disk that forgets.
 * Then, for every sync and for random instants, the files are made as a loss of power could have left them,
 * and opened by the real store, which must find them sound and hold:
 *
 *   synchronous: full    what was acknowledged before that instant, and at most the transaction in the making
 *   synchronous: normal  the state after some number of whole transactions, none from between
 *
 * The state after each transaction is written down as a hash of all events, so "whole" is compared, not
 * guessed. POWER_SEED repeats a run; POWER_LONG=1 makes it twenty times as long.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/store.h"

/*
 * The disk that forgets: an SQLite VFS over the default one that notes every write, cut and sync of the
 * store's main file and log, in one order for both. From its notes the files are made again as a power loss
 * at any instant could have left them: all that was synced is there; of what was written since, each write
 * is there, or missing, or torn between two sectors. It runs in one process.
 */
#define DISK_SECTOR 512

enum disk_file { DISK_MAIN, DISK_WAL, DISK_FILES };
enum disk_kind { DISK_WRITE, DISK_CUT, DISK_SYNC };

struct disk_note {
    enum disk_file file;
    enum disk_kind kind;
    int64_t offset; /* of a cut: the new length */
    size_t bytes;
    char *data;
};

static struct {
    sqlite3_vfs vfs, *real;
    sqlite3_io_methods methods[DISK_FILES], below[DISK_FILES];
    struct disk_note *notes;
    size_t count, room;
    bool off; /* notes nothing: while a copy is looked at */
} disk;

static void disk_note(enum disk_file file, enum disk_kind kind, int64_t offset, const void *data,
                      size_t bytes)
{
    if (disk.off)
        return;
    if (disk.count == disk.room) {
        disk.room = disk.room * 2 + 1024;
        disk.notes = realloc(disk.notes, disk.room * sizeof *disk.notes);
    }
    struct disk_note note = {file, kind, offset, bytes, NULL};
    if (bytes > 0 && (note.data = malloc(bytes)) != NULL)
        memcpy(note.data, data, bytes);
    if (disk.notes == NULL || (bytes > 0 && note.data == NULL)) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    disk.notes[disk.count++] = note;
}

static enum disk_file disk_which(const sqlite3_file *file)
{
    return file->pMethods == &disk.methods[DISK_WAL] ? DISK_WAL : DISK_MAIN;
}

static int disk_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    disk_note(disk_which(file), DISK_WRITE, offset, data, (size_t)bytes);
    return disk.below[disk_which(file)].xWrite(file, data, bytes, offset);
}

static int disk_cut(sqlite3_file *file, sqlite3_int64 length)
{
    disk_note(disk_which(file), DISK_CUT, length, NULL, 0);
    return disk.below[disk_which(file)].xTruncate(file, length);
}

static int disk_sync(sqlite3_file *file, int flags)
{
    (void)flags; /* the real one is not needed, and slow */
    disk_note(disk_which(file), DISK_SYNC, 0, NULL, 0);
    return SQLITE_OK;
}

static int disk_open(sqlite3_vfs *self, const char *name, sqlite3_file *file, int flags, int *out)
{
    (void)self;
    int result = disk.real->xOpen(disk.real, name, file, flags, out);
    if (result != SQLITE_OK || (flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)) == 0)
        return result;
    enum disk_file which = (flags & SQLITE_OPEN_WAL) != 0 ? DISK_WAL : DISK_MAIN;
    sqlite3_io_methods *methods = &disk.methods[which];
    disk.below[which] = *file->pMethods;
    *methods = *file->pMethods;
    methods->xWrite = disk_write;
    methods->xTruncate = disk_cut;
    methods->xSync = disk_sync;
    file->pMethods = methods;
    return result;
}

/* A log is taken away only when the last handle is closed. */
static int disk_delete(sqlite3_vfs *self, const char *name, int sync)
{
    (void)self;
    size_t length = strlen(name);
    if (length > 4 && strcmp(name + length - 4, "-wal") == 0)
        disk_note(DISK_WAL, DISK_CUT, 0, NULL, 0);
    return disk.real->xDelete(disk.real, name, sync);
}

static void disk_begin(void)
{
    disk.real = sqlite3_vfs_find(NULL);
    disk.vfs = *disk.real;
    disk.vfs.zName = "forgets";
    disk.vfs.pNext = NULL;
    disk.vfs.xOpen = disk_open;
    disk.vfs.xDelete = disk_delete;
    if (sqlite3_vfs_register(&disk.vfs, 1) != SQLITE_OK)
        exit(1);
}

static void disk_forget(void)
{
    for (size_t i = 0; i < disk.count; i++)
        free(disk.notes[i].data);
    disk.count = 0;
}

/* ---- the files after a power loss ---- */

enum disk_loss { DISK_ALL, DISK_DROPPED, DISK_PARTLY, DISK_TORN, DISK_LOSSES };

static void disk_apply(int fd, const struct disk_note *note, size_t from, size_t to)
{
    bool good = note->kind == DISK_CUT ? ftruncate(fd, note->offset) == 0
                                       : pwrite(fd, note->data + from, to - from,
                                                note->offset + (int64_t)from) == (ssize_t)(to - from);
    if (!good) {
        perror("a file of the copy");
        exit(1);
    }
}

/* One write that was never synced, sector by sector; roll gives dice. */
static void disk_apply_unsynced(int fd, const struct disk_note *note, enum disk_loss loss,
                                unsigned roll(unsigned limit))
{
    if (loss == DISK_DROPPED || (loss != DISK_ALL && roll(2) == 0 && loss == DISK_PARTLY))
        return;
    if (loss != DISK_TORN || note->kind == DISK_CUT) {
        disk_apply(fd, note, 0, note->bytes);
        return;
    }
    for (size_t from = 0; from < note->bytes;) {
        int64_t sector_end = ((note->offset + (int64_t)from) / DISK_SECTOR + 1) * DISK_SECTOR;
        size_t to = (size_t)(sector_end - note->offset);
        if (to > note->bytes)
            to = note->bytes;
        if (roll(2) == 0)
            disk_apply(fd, note, from, to);
        from = to;
    }
}

/* Makes the files at `path` as they could stand after a power loss when `until` notes had been made. */
static void disk_make(const char *path, size_t until, enum disk_loss loss, unsigned roll(unsigned limit))
{
    char name[512];
    int fds[DISK_FILES];
    for (int i = 0; i < DISK_FILES; i++) {
        snprintf(name, sizeof name, "%s%s", path, i == DISK_WAL ? "-wal" : "");
        fds[i] = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    }
    snprintf(name, sizeof name, "%s-shm", path);
    unlink(name);
    size_t last_sync[DISK_FILES] = {0};
    for (size_t i = 0; i < until; i++)
        if (disk.notes[i].kind == DISK_SYNC)
            last_sync[disk.notes[i].file] = i;
    for (size_t i = 0; i < until; i++) {
        const struct disk_note *note = &disk.notes[i];
        if (note->kind == DISK_SYNC)
            continue;
        if (i < last_sync[note->file])
            disk_apply(fds[note->file], note, 0, note->bytes);
        else
            disk_apply_unsynced(fds[note->file], note, loss, roll);
    }
    for (int i = 0; i < DISK_FILES; i++)
        close(fds[i]);
}

/* ---- the trial ---- */

#define PAGE 8
#define TURNS_MOST 4000

static uint64_t seed;
static char directory[256], path[320], copy[320];
static struct store_options options;
static int64_t source, stages[2];
static struct store *handles[2];

/* The history: after transaction i the store was states[i], and that was acknowledged at note
 * acknowledged[i]. */
static uint64_t states[TURNS_MOST];
static size_t acknowledged[TURNS_MOST];
static int history;
static int losses, lost_acknowledged, failures;

static unsigned roll(unsigned limit)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (unsigned)(seed >> 33) % limit;
}

static void fail(const char *what, const char *message)
{
    fprintf(stderr, "FAILED: %s: %s\n", what, message);
    failures++;
}

static void must(struct store *store, int code, const char *what)
{
    if (code >= 0)
        return;
    fail(what, store_errmsg(store));
    exit(1);
}

/* ---- a state, as a number ---- */

static uint64_t mix(uint64_t hash, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * UINT64_C(1099511628211);
    return hash;
}

static int add_item(const struct store_item *item, void *user)
{
    uint64_t *hash = user;
    *hash = mix(*hash, item->uid, strlen(item->uid) + 1);
    *hash = mix(*hash, item->data, item->data_bytes);
    *hash = mix(*hash, item->context, item->context_bytes);
    *hash = mix(*hash, item->done, strlen(item->done) + 1);
    *hash = mix(*hash, &item->attempts, sizeof item->attempts);
    bool suspended = item->state == STORE_DELAYED; /* ready or running depends on who looks */
    *hash = mix(*hash, &suspended, sizeof suspended);
    return 0;
}

static int state_of(struct store *store, uint64_t *state)
{
    const struct store_select all = {.state = -1};
    char *cursor = NULL;
    *state = UINT64_C(14695981039346656037);
    int code = store_list(store, &all, true, add_item, state);
    if (code == 0)
        code = store_cursor(store, source, &cursor);
    if (code == 0 && cursor != NULL)
        *state = mix(*state, cursor, strlen(cursor));
    free(cursor);
    return code;
}

static void write_down(void)
{
    acknowledged[history] = disk.count;
    must(handles[0], state_of(handles[0], &states[history]), "the state");
    history++;
}

/* ---- the work ---- */

static int pages;
static uint64_t claims;

static void ingest(struct store *store)
{
    char uids[PAGE][32], data[PAGE][600], cursor[32];
    struct store_event events[PAGE];
    for (int i = 0; i < PAGE; i++) {
        snprintf(uids[i], sizeof uids[i], "uid-%d", pages * PAGE + i);
        size_t bytes = 1 + roll(sizeof data[i] - 1);
        memset(data[i], 'a' + (int)roll(26), bytes);
        events[i] = (struct store_event){.uid = uids[i], .data = data[i], .data_bytes = bytes};
    }
    snprintf(cursor, sizeof cursor, "%d", ++pages);
    struct store_page page = {events, PAGE, cursor, false, 1000, false, NULL};
    struct store_ingested out;
    must(store, store_ingest(store, source, &page, &out), "store_ingest");
    write_down();
}

static struct store_event_lock locks[PAGE];
static size_t locked;

static void answer(struct store *store)
{
    uint64_t token = STORE_TOKEN(options.start_number, ++claims);
    const struct store_claim claim = {token, 1 + roll(PAGE)};
    struct store_claimed out;
    store_rescan(store, source);
    must(store, store_claim_begin(store, source, 1000, &claim, &out), "store_claim_begin");
    for (locked = 0; locked < out.count; locked++)
        locks[locked] = (struct store_event_lock){out.events[locked].event, token};
    must(store, store_claim_end(store), "store_claim_end");
    if (locked == 0)
        return;
    write_down();
    struct store_answer answers[PAGE] = {0};
    for (size_t i = 0; i < locked; i++) {
        answers[i].lock = locks[i];
        answers[i].change = roll(3) == 0 ? STORE_ADVANCE : roll(6) == 0 ? STORE_DELAY : STORE_COMPLETE;
        answers[i].done = "first\n";
        answers[i].due_ms = 2000;
        answers[i].context = "{\"seen\":true}";
        answers[i].context_bytes = strlen(answers[i].context);
    }
    must(store, store_commit(store, source, stages[0], answers, locked), "store_commit");
    write_down();
    struct store_unlock unlocks[PAGE] = {0};
    for (size_t i = 0; i < locked; i++)
        unlocks[i].lock = locks[i];
    must(store, store_unlock(store, source, unlocks, locked), "store_unlock");
    write_down();
}

static void work(int turns)
{
    write_down();
    for (int turn = 0; turn < turns && history < TURNS_MOST - 8; turn++) {
        struct store *store = handles[roll(2)];
        unsigned dice = roll(10);
        if (dice < 4)
            ingest(store);
        else if (dice < 9)
            answer(store);
        else
            must(store, store_checkpoint(store, roll(4) == 0), "store_checkpoint");
    }
}

/* ---- power losses ---- */

static void report(const char *message, void *user)
{
    fprintf(stderr, "  check: %s\n", message);
    ++*(int *)user;
}

/* Looks at the copy: which transaction of the history is its last? -1: none is. */
static int last_of(uint64_t state, int most)
{
    for (int i = most; i >= 0; i--)
        if (states[i] == state)
            return i;
    return -1;
}

static void lose_power(size_t at, enum disk_loss loss, bool full)
{
    char message[160], url[360];
    snprintf(message, sizeof message, "power lost at note %zu, what was not synced %d", at, loss);
    snprintf(url, sizeof url, "sqlite:%s", copy);
    int promised = -1;
    while (promised + 1 < history && acknowledged[promised + 1] <= at)
        promised++;
    disk.off = true;
    disk_make(copy, at, loss, roll);
    struct store_options opened = options;
    opened.url = url;
    opened.write_lock = NULL;
    struct store *store = NULL;
    struct error error = {0};
    uint64_t state;
    int faults = 0;
    losses++;
    if (store_open(&opened, &store, &error) != 0)
        fail(message, error.message);
    else if (store_check(store, report, &faults) != 0 || faults != 0)
        fail(message, "the check found faults");
    else if (state_of(store, &state) != 0)
        fail(message, store_errmsg(store));
    else {
        int last = last_of(state, promised + 1 < history ? promised + 1 : promised);
        if (last < 0)
            fail(message, "the state is of no transaction's end");
        lost_acknowledged += last < promised;
        if (full && last < promised)
            fail(message, "what was acknowledged is gone");
    }
    store_close(&store);
    disk.off = false;
}

static void lose_power_often(bool full, int random_instants, size_t first)
{
    for (size_t i = first; i <= disk.count && failures == 0; i++)
        if (i == disk.count || disk.notes[i].kind == DISK_SYNC) /* just before a sync: most is at stake */
            lose_power(i, (enum disk_loss)roll(DISK_LOSSES), full);
    for (int i = 0; i < random_instants && failures == 0; i++)
        lose_power(first + roll((unsigned)(disk.count - first) + 1), (enum disk_loss)roll(DISK_LOSSES), full);
}

/* ---- */

static void open_handles(bool full)
{
    static const char *const names_of[] = {"first", "second", NULL};
    char url[360];
    struct error error = {0};
    struct store_names names = {"quakes", names_of, 2, 0, stages};
    snprintf(url, sizeof url, "sqlite:%s", path);
    options = (struct store_options){.url = strdup(url),
                                     .instance = "power",
                                     .synchronous = full ? SYNCHRONOUS_FULL : SYNCHRONOUS_NORMAL,
                                     .wal_bytes = 60000};
    int code = store_prepare(&options, &names, 1, &options.start_number, &error);
    for (int i = 0; code == 0 && i < 2; i++)
        code = store_open(&options, &handles[i], &error);
    if (code != 0) {
        fail("the store", error.message);
        exit(1);
    }
    source = names.source_id;
}

static void run(bool full, int turns, int random_instants)
{
    history = losses = lost_acknowledged = pages = 0;
    snprintf(path, sizeof path, "%s/%s.db", directory, full ? "full" : "normal");
    snprintf(copy, sizeof copy, "%s/copy.db", directory);
    disk_forget();
    open_handles(full);
    size_t first = disk.count;
    work(turns);
    lose_power_often(full, random_instants, first);
    printf("%s: %d transactions, %zu writes, cuts and syncs; %d power losses, %d lost what was acknowledged; "
           "%s\n",
           full ? "full" : "normal", history, disk.count, losses, lost_acknowledged,
           failures == 0 ? "passed" : "FAILED");
    fflush(stdout);
    disk.off = true; /* the clearing up */
    for (int i = 0; i < 2; i++)
        store_close(&handles[i]);
    disk.off = false;
    free((char *)options.url);
}

int main(void)
{
    const char *text = getenv("POWER_SEED"), *temporary = getenv("TMPDIR");
    bool is_long = getenv("POWER_LONG") != NULL;
    char command[320];
    seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)getpid() * 1000003 + 17;
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);
    seed = seed * 2654435761u + 1;
    snprintf(directory, sizeof directory, "%.200s/powerXXXXXX", temporary != NULL ? temporary : "/tmp");
    if (mkdtemp(directory) == NULL)
        return 2;
    disk_begin();
    for (int round = 0; round < (is_long ? 10 : 1) && failures == 0; round++) {
        run(true, 120, is_long ? 600 : 150);
        if (failures == 0)
            run(false, 120, is_long ? 1200 : 300);
        snprintf(command, sizeof command, "rm -rf '%s'/*", directory);
        if (system(command) != 0)
            return 2;
    }
    disk_forget();
    free(disk.notes);
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command) == 0 && failures == 0 ? 0 : 1;
}
