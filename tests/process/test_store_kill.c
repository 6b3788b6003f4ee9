/* SPDX-License-Identifier: MIT */
/*
 * Real processes on one store, killed at random: two sources with a producer each that ingests numbered
 * pages, and six workers that claim, read, commit and unlock. Each killed process has a successor that
 * releases, by token, what its predecessor wrote down at its claims; now and then everything is killed and
 * started again (store_prepare), which makes all older locks void. After each such end, and at the last one,
 * the counts must be exact: nothing lost, nothing finished twice, no page acknowledged and gone, no fault in
 * the store. Each implementation has its turn.
 *
 * STORE_SEED and STORE_PAGES change the run; the seed is printed.
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/write_lock.h"
#include "src/store/store.h"

#define SOURCES 2
#define WORKERS 6
#define CHILDREN (SOURCES + WORKERS)
#define PAGE 25
#define PAGES_MOST 4000
#define LOCKS 40

static const char *const stages[] = {"one", "two", "three"};
static const char *const done_texts[] = {"", "one\n", "one\ntwo\n", "one\ntwo\nthree\n"};

struct shared { /* what outlives a kill */
    pthread_mutex_t write_lock;
    _Atomic uint64_t claims;
    uint64_t start;
    int64_t sources[SOURCES], stages[SOURCES][3];
    _Atomic int acknowledged[SOURCES];                /* pages whose ingest returned */
    _Atomic int finishes[SOURCES][PAGES_MOST * PAGE]; /* acknowledged ends, per event */
    _Atomic int ends[SOURCES];
    struct {
        struct store_event_lock locks[LOCKS];
        _Atomic int count; /* counted up after the lock is written */
        _Atomic int source;
    } notes[CHILDREN];
    _Atomic int failures;
};
static struct shared *shared;
static struct store_options options;
static int pages = 300;
static uint64_t seed;

static unsigned roll(unsigned limit)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (unsigned)(seed >> 33) % limit;
}

static _Noreturn void fail(const char *what, const char *message)
{
    fprintf(stderr, "FAILED: %s: %s\n", what, message);
    shared->failures++;
    _exit(1);
}

static void must(struct store *store, int code, const char *what)
{
    if (code != 0)
        fail(what, store_errmsg(store));
}

static struct store *open_store(void)
{
    struct store *store;
    struct error error;
    if (store_open(&options, &store, &error) != 0)
        fail("store_open", error.message);
    return store;
}

/* ---- the children ---- */

static void become_child(int number)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    seed = seed * 31 + (uint64_t)number + (uint64_t)getpid() * 7919 + 1;
}

static _Noreturn void produce(int source)
{
    become_child(source);
    struct store *store = open_store();
    for (;;) {
        char *cursor = NULL, text[16], uids[PAGE][32], data[PAGE][32];
        struct store_event events[PAGE];
        must(store, store_cursor(store, shared->sources[source], &cursor), "store_cursor");
        int page = cursor != NULL ? atoi(cursor) : 0;
        free(cursor);
        if (page < shared->acknowledged[source])
            fail("an acknowledged page", "its cursor is gone");
        if (page == pages)
            _exit(0);
        for (int i = 0; i < PAGE; i++) {
            snprintf(uids[i], sizeof uids[i], "uid-%d", page * PAGE + i);
            snprintf(data[i], sizeof data[i], "%d", page * PAGE + i);
            events[i] = (struct store_event){.uid = uids[i], .data = data[i], .data_bytes = strlen(data[i])};
        }
        snprintf(text, sizeof text, "%d", page + 1);
        struct store_page wanted = {events, PAGE, text, false, 1000, false, NULL};
        struct store_ingested out;
        must(store, store_ingest(store, shared->sources[source], &wanted, &out), "store_ingest");
        if (out.stored != PAGE)
            fail("a page", "was stored twice, or in part");
        shared->acknowledged[source] = page + 1;
    }
}

/* Notes what was claimed before the commit, as a producer does in tickets. */
static void write_down(int number, uint64_t token, const struct store_claimed *claimed)
{
    for (size_t i = 0; i < claimed->count; i++) {
        shared->notes[number].locks[i] = (struct store_event_lock){claimed->events[i].event, token};
        shared->notes[number].count = (int)i + 1;
    }
}

struct work {
    struct store_answer answers[LOCKS];
    size_t count;
    int events[LOCKS]; /* their numbers */
};

static int take_row(size_t index, const struct store_row *row, void *user)
{
    struct work *work = user;
    struct store_answer *answer = &work->answers[work->count];
    unsigned done = 0;
    while (strcmp(row->done, done_texts[done]) != 0)
        done++;
    (void)index;
    work->events[work->count++] = atoi(row->data);
    answer->done = done_texts[done + 1 < 3 ? done + 1 : 3];
    unsigned fate = roll(20);
    answer->change = fate == 0 ? STORE_DELAY : done >= 2 ? STORE_COMPLETE : STORE_ADVANCE;
    if (fate == 1 && done == 1)
        answer->change = STORE_REMOVE_BY_STAGE;
    answer->context = "{}";
    answer->context_bytes = 2;
    return 0;
}

/* Releases what stands in the notes, this worker's or its dead predecessor's, and forgets it. */
static void release_notes(struct store *store, int number, bool crashed)
{
    struct store_unlock unlocks[LOCKS] = {0};
    int count = shared->notes[number].count;
    for (int i = 0; i < count; i++) {
        unlocks[i].lock = shared->notes[number].locks[i];
        unlocks[i].crashed = crashed && i == 0;
        unlocks[i].due_ms = 1;
    }
    int source = shared->notes[number].source;
    must(store, store_unlock(store, shared->sources[source], unlocks, (size_t)count), "store_unlock");
    shared->notes[number].count = 0;
}

static void run_stages(struct store *store, int number)
{
    int source = shared->notes[number].source;
    for (int round = 0; round < 4; round++) {
        struct work work = {0};
        size_t at = 0;
        for (int i = 0; i < shared->notes[number].count; i++) {
            struct store_event_lock lock = shared->notes[number].locks[i];
            must(store, store_read(store, &lock, 1, take_row, &work), "store_read");
            if (work.count > at)
                work.answers[at++].lock = lock;
        }
        must(store,
             store_commit(store, shared->sources[source], shared->stages[source][round % 3], work.answers,
                          at),
             "store_commit");
        for (size_t i = 0; i < at; i++) {
            bool end =
                work.answers[i].change == STORE_COMPLETE || work.answers[i].change == STORE_REMOVE_BY_STAGE;
            if (!work.answers[i].applied)
                fail("an answer", "was refused though the lock is ours");
            if (end && ++shared->finishes[source][work.events[i]] > 1)
                fail("an event", "ended twice");
            shared->ends[source] += end;
        }
        if (roll(4) == 0)
            return; /* what is left is released */
    }
}

static _Noreturn void work(int number)
{
    become_child(number);
    struct store *store = open_store();
    release_notes(store, number, true);
    for (;;) {
        int source = (int)roll(SOURCES);
        shared->notes[number].source = source;
        const struct store_claim claim = {STORE_TOKEN(shared->start, ++shared->claims), 1 + roll(LOCKS)};
        struct store_claimed out;
        store_rescan(store, shared->sources[source]); /* many claim here, where a source has one producer */
        must(store, store_claim_begin(store, shared->sources[source], 1000, &claim, &out),
             "store_claim_begin");
        size_t claimed = out.count;
        write_down(number, claim.token, &out);
        must(store, store_claim_end(store), "store_claim_end");
        run_stages(store, number);
        release_notes(store, number, false);
        if (claimed != 0)
            continue;
        uint64_t left = 0, fetched = 0;
        for (int i = 0; i < SOURCES; i++) {
            struct store_totals totals;
            must(store, store_source_totals(store, shared->sources[i], &totals), "store_source_totals");
            left += totals.live;
            fetched += totals.fetched;
        }
        if (left == 0 && fetched == (uint64_t)SOURCES * (uint64_t)pages * PAGE)
            _exit(0);
        poll(NULL, 0, 1); /* others hold the rest; they end it, or are killed */
    }
}

/* ---- starts, ends and what must hold ---- */

static void report(const char *message, void *user)
{
    fprintf(stderr, "check: %s\n", message);
    ++*(int *)user;
}

static _Noreturn void inspect(bool last)
{
    struct store *store = open_store();
    int faults = 0;
    must(store, store_check(store, report, &faults), "store_check");
    if (faults != 0)
        fail("the check", "found faults");
    for (int i = 0; i < SOURCES; i++) {
        struct store_totals t;
        char *cursor = NULL;
        must(store, store_source_totals(store, shared->sources[i], &t), "store_source_totals");
        must(store, store_cursor(store, shared->sources[i], &cursor), "store_cursor");
        int page = cursor != NULL ? atoi(cursor) : 0;
        free(cursor);
        if (t.fetched != (uint64_t)page * PAGE || page < shared->acknowledged[i] || t.duplicates != 0)
            fail("pages", "are not what the cursor says");
        if (t.fetched != t.completed + t.removed_by_stage + t.live || t.dead + t.held != 0)
            fail("totals", "do not add up");
        if (t.completed + t.removed_by_stage <
            (uint64_t)shared->ends[i]) /* more: killed between commit and count */
            fail("an acknowledged end", "was lost");
        if (last && (t.live != 0 || page != pages))
            fail("at the end", "events are left");
    }
    _exit(0);
}

static _Noreturn void prepare(void)
{
    struct error error;
    struct store_names names[SOURCES] = {{"left", stages, 3, 0, shared->stages[0]},
                                         {"right", stages, 3, 0, shared->stages[1]}};
    if (store_prepare(&options, names, SOURCES, &shared->start, &error) != 0)
        fail("store_prepare", error.message);
    for (int i = 0; i < SOURCES; i++)
        shared->sources[i] = names[i].source_id;
    for (int i = 0; i < CHILDREN; i++)
        shared->notes[i].count = 0; /* all of them are void now */
    _exit(0);
}

static bool in_child(void run(bool last), bool last)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        run(last);
    return waitpid(pid, &status, 0) == pid && status == 0;
}

static void run_prepare(bool last)
{
    (void)last;
    prepare();
}

static void run_inspect(bool last)
{
    inspect(last);
}

static pid_t begin(int number)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (number < SOURCES)
            produce(number);
        work(number);
    }
    return pid;
}

static pid_t children[CHILDREN]; /* 0 = ended by itself */

static void kill_one(int number)
{
    int status;
    kill(children[number], SIGKILL);
    waitpid(children[number], &status, 0);
    children[number] = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
        shared->failures++;
    else if (WIFSIGNALED(status))
        children[number] = begin(number);
}

static int living(void)
{
    int count = 0, status;
    for (int i = 0; i < CHILDREN; i++) {
        if (children[i] > 0 && waitpid(children[i], &status, WNOHANG) == children[i]) {
            shared->failures += status != 0;
            children[i] = 0;
        }
        count += children[i] > 0;
    }
    return count;
}

static bool start_again(void)
{
    options.start_number = 0;
    if (!in_child(run_prepare, false))
        return false;
    options.start_number = shared->start;
    for (int i = 0; i < CHILDREN; i++)
        children[i] = begin(i);
    return true;
}

static void kill_all(void)
{
    for (int i = 0; i < CHILDREN; i++)
        if (children[i] > 0)
            kill(children[i], SIGKILL);
    for (int i = 0; i < CHILDREN; i++) {
        int status = 0;
        if (children[i] > 0 && waitpid(children[i], &status, 0) > 0 && WIFEXITED(status) &&
            WEXITSTATUS(status) != 0)
            shared->failures++;
        children[i] = 0;
    }
}

static bool storm(int *kills, int *starts)
{
    bool good = start_again();
    while (good && shared->failures == 0 && living() > 0) {
        poll(NULL, 0, (int)roll(15)); /* the moment of the kill is what is random here */
        if (roll(15) == 0) {
            kill_all();
            ++*starts;
            good = in_child(run_inspect, false) && start_again();
            continue;
        }
        int number = (int)roll(CHILDREN);
        if (children[number] > 0) {
            kill_one(number);
            ++*kills;
        }
    }
    kill_all();
    return good && shared->failures == 0 && in_child(run_inspect, true);
}

static bool run(const char *url, const char *instance)
{
    struct error error;
    int lock, kills = 0, starts = 1;
    memset(shared, 0, sizeof *shared);
    if (write_lock_init(&shared->write_lock) != 0)
        return false;
    options = (struct store_options){.url = url,
                                     .instance = instance,
                                     .synchronous = SYNCHRONOUS_NORMAL,
                                     .write_lock = &shared->write_lock,
                                     .wal_bytes = 200000};
    if (store_hold(&options, 0, &lock, &error) != 0) {
        fprintf(stderr, "store_hold: %s\n", error.message);
        return false;
    }
    bool good = storm(&kills, &starts);
    store_leave(&options);
    close(lock);
    printf("%s: %s, %d kills, %d starts, %d events\n", url, good ? "passed" : "FAILED", kills, starts,
           SOURCES * pages * PAGE);
    fflush(stdout);
    return good;
}

int main(void)
{
    const char *text = getenv("STORE_SEED"), *many = getenv("STORE_PAGES"), *temporary = getenv("TMPDIR");
    char directory[256], url[320], instance[64], command[320];
    seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)getpid() * 1000003 + 17;
    pages = many != NULL ? atoi(many) : pages;
    if (pages < 1 || pages > PAGES_MOST)
        return 2;
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(directory, sizeof directory, "%.200s/storekillXXXXXX", temporary != NULL ? temporary : "/tmp");
    if (shared == MAP_FAILED || mkdtemp(directory) == NULL)
        return 2;
    snprintf(url, sizeof url, "sqlite:%s/kill.db", directory);
    snprintf(instance, sizeof instance, "storekill-%d", (int)getpid());
    bool good = run(url, instance);
    good = run("memory:", instance) && good;
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command) == 0 && good ? 0 : 1;
}
