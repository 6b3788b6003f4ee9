/* SPDX-License-Identifier: MIT */
/*
 * Power losses: two handles ingest, claim, answer and move the log over a disk that forgets (power_disk.h).
 * Then, for every sync and for random instants, the files are made as a loss of power could have left them,
 * and opened by the real store, which must find them sound and hold:
 *
 *   synchronous: full    what was acknowledged before that instant, and at most the transaction in the making
 *   synchronous: normal  the state after some number of whole transactions, none from between
 *
 * The state after each transaction is written down as a hash of all events, so "whole" is compared, not
 * guessed. POWER_SEED repeats a run; POWER_LONG=1 makes it twenty times as long.
 */
#include <inttypes.h>
#include <sys/stat.h>

#include "src/store/store.h"
#include "tests/process/power_disk.h"

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
