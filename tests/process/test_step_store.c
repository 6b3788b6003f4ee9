/* SPDX-License-Identifier: MIT */
/*
 * No kill within the store's transactions, or between them and the segment, loses an event, locks it for ever
 * or undoes a commit. A real process under ptrace ingests, claims, commits, releases or checkpoints, in the
 * order of the daemon's; it is killed at each of its system calls, before and after it, and after each
 * instruction that changed the segment. Then the supervisor's recovery runs, and another process (which had
 * the store open all the while, or every other time opens it again) does the successors' work to the end of
 * all events, and looks at the counts and at store_check. STEP_LONG=N: it is killed after every
 * Nth of the other instructions, too (1: hours).
 */
#include "tests/lib/step_places.h"
#include "tests/lib/step_store_life.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAULTS_ENOUGH 3
#define PLACES_MOST 200000

/* --- the operations: who is killed, and what stands before */

static void ready_stored(struct store *store)
{
    (void)store;
}
static void ready_claimed(struct store *store)
{
    store_life_claim(store, 3);
}
static void ready_advanced(struct store *store)
{
    store_life_claim(store, 3);
    store_life_turn(store, STORE_LIFE_WORKER(0), STORE_ADVANCE);
}
static void ready_orphans(struct store *store)
{
    store_life_claim(store, 2);
    store_life_turn(store, STORE_LIFE_WORKER(0), STORE_ADVANCE);
    for (uint32_t i = 0; i < store_life_source->ticket_count; i++)
        ticket_revoke(&store_life_segment, i);
}
static void do_claim_two(struct store *store)
{
    store_life_claim(store, 2);
}
static void do_advance(struct store *store)
{
    store_life_turn(store, STORE_LIFE_WORKER(0), STORE_ADVANCE);
}
static void do_finish(struct store *store)
{
    store_life_turn(store, STORE_LIFE_WORKER(1), STORE_COMPLETE);
}
static void do_delay(struct store *store)
{
    store_life_turn(store, STORE_LIFE_WORKER(0), STORE_DELAY);
}
static void do_checkpoint(struct store *store)
{
    store_life_must(store, store_checkpoint(store, false), "store_checkpoint");
}

struct operation {
    const char *name;
    uint32_t slot;
    void (*ready)(struct store *store);
    void (*operate)(struct store *store);
};
static const struct operation operations[] = {
    {"ingest, claim, enqueue", STORE_LIFE_PRODUCER, ready_stored, store_life_ingest_page},
    {"claim, enqueue", STORE_LIFE_PRODUCER, ready_stored, do_claim_two},
    {"dequeue, commit, hand-over", STORE_LIFE_WORKER(0), ready_claimed, do_advance},
    {"dequeue, commit, clear-up", STORE_LIFE_WORKER(1), ready_advanced, do_finish},
    {"dequeue, delay, clear-up", STORE_LIFE_WORKER(0), ready_claimed, do_delay},
    {"unlock, free", STORE_LIFE_PRODUCER, ready_orphans, store_life_unlock},
    {"checkpoint", 0, ready_advanced, do_checkpoint},
};

static void claim_warm(struct store *store, struct store_event_lock *lock)
{
    const struct store_claim claim = {lock->token, 1};
    struct store_claimed claimed;
    store_life_must(store, store_claim_begin(store, store_life->other, STORE_LIFE_NOW_MS, &claim, &claimed),
                    "store_claim_begin");
    lock->event = claimed.events[0].event;
    store_life_must(store, store_claim_end(store), "store_claim_end");
}

/* One event of the other source lives and ends, so that the statements are compiled: what is stepped through
 * is what happens from the second time on, a tenth of the first. */
static void warm_up(struct store *store)
{
    struct store_event_lock lock = {0, STORE_TOKEN(store_life->start, UINT32_MAX)};
    struct store_event event = {.uid = "warm", .data = "{}", .data_bytes = 2};
    struct store_page page = {.events = &event, .count = 1, .cursor = "warm", .now_ms = 1000};
    struct store_ingested ingested;
    uint32_t done;
    store_life_must(store, store_ingest(store, store_life->other, &page, &ingested), "store_ingest");
    for (int i = 0; i < 2; i++) {
        store_rescan(store, store_life->other);
        claim_warm(store, &lock);
        struct store_unlock unlocked = {.lock = lock};
        store_life_must(store, store_read(store, &lock, 1, store_life_on_row, &done), "store_read");
        if (i == 0)
            store_life_must(store, store_unlock(store, store_life->other, &unlocked, 1), "store_unlock");
    }
    static const enum store_change changes[] = {STORE_ADVANCE, STORE_DELAY, STORE_COMPLETE};
    for (int i = 0; i < 3; i++) {
        struct store_answer answer = {.lock = lock,
                                      .change = changes[i],
                                      .done = store_life_done_texts[1],
                                      .due_ms = 1};
        store_life_must(store,
                        store_commit(store, store_life->other, store_life->other_stages[0], &answer, 1),
                        "store_commit");
        if (changes[i] == STORE_DELAY)
            claim_warm(store, &lock);
    }
}

static void victim_run(void *user)
{
    const struct operation *operation = user;
    struct store *store = store_life_open();
    warm_up(store);
    step_mark();
    operation->operate(store);
    step_mark();
}

/* --- the successors, to the end of all events */

static void on_fault(const char *message, void *user)
{
    (void)user;
    store_life_fault("store_check", message);
}

static void check_end(struct store *store)
{
    struct store_totals totals;
    store_life_must(store, store_source_totals(store, store_life->source, &totals), "store_source_totals");
    if (totals.fetched != STORE_LIFE_EVENTS + STORE_LIFE_PAGE ||
        totals.completed != STORE_LIFE_EVENTS + STORE_LIFE_PAGE || totals.duplicates != 0)
        store_life_fault("the totals", "are not those of six events, each fetched and finished once");
    if (totals.live + totals.dead + totals.held != 0)
        store_life_fault("events", "are left in the store");
    if (ticket_count(&store_life_segment, store_life_source, NULL, NULL) != 0)
        store_life_fault("tickets", "are left");
    store_life_must(store, store_check(store, on_fault, NULL), "store_check");
}

static void look_at_committed(struct store *store)
{
    uint32_t done = UINT32_MAX;
    for (uint32_t i = 0; i < store_life_source->ticket_count; i++) {
        struct ticket_view view = ticket_read(&store_life_segment, i);
        if (store_life->committed == 0 || view.phase == TICKET_FREE || view.event != store_life->committed)
            continue;
        struct store_event_lock lock = {view.event, view.token};
        store_life_must(store, store_read(store, &lock, 1, store_life_on_row, &done), "store_read");
        if (done == 0)
            store_life_fault("a commit", "was acknowledged and is gone");
    }
}

static void go_on(struct store *store)
{
    char *cursor = NULL;
    look_at_committed(store);
    store_life_unlock(store);
    store_life_must(store, store_cursor(store, store_life->source, &cursor), "store_cursor");
    bool there = cursor != NULL && strcmp(cursor, "page") == 0;
    free(cursor);
    if (store_life->paged && !there)
        store_life_fault("a page", "was acknowledged and is gone");
    if (!there)
        store_life_ingest(store, STORE_LIFE_EVENTS, STORE_LIFE_PAGE, "page", 0);
    for (uint32_t i = 0; i < store_life_source->ticket_count; i++) { /* in the hands of who lives */
        struct ticket_view view = ticket_read(&store_life_segment, i);
        if (view.phase == TICKET_RUNNING)
            store_life_commit(store, view.slot, i, view.stage == 0 ? STORE_ADVANCE : STORE_COMPLETE);
    }
    for (uint32_t rounds = 0; rounds < 50; rounds++) {
        store_rescan(store, store_life->source);
        store_life_claim(store, 2);
        store_life_turn(store, STORE_LIFE_WORKER(0), STORE_ADVANCE);
        store_life_turn(store, STORE_LIFE_WORKER(1), STORE_COMPLETE);
    }
    check_end(store);
}

struct successor {
    pid_t pid;
    int go;
};

/* With `before`, it has the store open while the other is killed. */
static struct successor successor_start(bool before)
{
    int ready[2], go[2];
    char byte;
    struct successor successor;
    if (pipe(ready) != 0 || pipe(go) != 0 || (successor.pid = fork()) < 0)
        exit(EXIT_FAILURE);
    if (successor.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct store *store = before ? store_life_open() : NULL;
        struct store_totals totals;
        if (before)
            store_life_must(store, store_source_totals(store, store_life->source, &totals),
                            "store_source_totals");
        if (write(ready[1], "r", 1) != 1 || read(go[0], &byte, 1) != 1)
            _exit(EXIT_FAILURE);
        go_on(before ? store : (store = store_life_open()));
        store_close(&store);
        _exit(EXIT_SUCCESS);
    }
    close(ready[1]);
    close(go[0]);
    if (read(ready[0], &byte, 1) != 1)
        store_life_fault("a successor", "does not come up");
    close(ready[0]);
    successor.go = go[1];
    return successor;
}

static void successor_finish(struct successor *successor)
{
    int status = 1;
    if (write(successor->go, "g", 1) != 1 || waitpid(successor->pid, &status, 0) != successor->pid ||
        status != 0)
        store_life_fault("a successor", "failed");
    close(successor->go);
}

/* --- images of all that outlives a process */

static const char *const endings[] = {"", "-wal", "-shm"};
struct image {
    void *segment;
    struct store_life shared;
    struct {
        char *bytes;
        ssize_t count; /* -1 = there is none */
    } files[3];
};

static void image_take(struct image *image)
{
    memcpy(image->segment, store_life_segment.header, store_life_segment.size_bytes);
    image->shared = *store_life;
    for (int i = 0; i < 3; i++) {
        char name[300];
        struct stat stat;
        snprintf(name, sizeof name, "%s%s", store_life_path, endings[i]);
        free(image->files[i].bytes);
        image->files[i].bytes = NULL;
        image->files[i].count = -1;
        int fd = open(name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (fstat(fd, &stat) != 0 || (image->files[i].bytes = malloc((size_t)stat.st_size + 1)) == NULL ||
            (image->files[i].count = read(fd, image->files[i].bytes, (size_t)stat.st_size)) != stat.st_size)
            exit(EXIT_FAILURE);
        close(fd);
    }
}

static void image_put(const struct image *image)
{
    uint32_t faults = store_life->faults;
    memcpy(store_life_segment.header, image->segment, store_life_segment.size_bytes);
    *store_life = image->shared;
    store_life->faults = faults;
    for (int i = 0; i < 3; i++) {
        char name[300];
        snprintf(name, sizeof name, "%s%s", store_life_path, endings[i]);
        unlink(name);
        if (image->files[i].count < 0)
            continue;
        int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 ||
            write(fd, image->files[i].bytes, (size_t)image->files[i].count) != image->files[i].count)
            exit(EXIT_FAILURE);
        close(fd);
    }
}

/* --- the kills */

static void recover(uint32_t slot)
{
    bool left;
    if (slot == 0)
        return;
    for (uint32_t i = 0; i < store_life_source->ticket_count; i++)
        if (ticket_mark_orphaned(&store_life_segment, i, slot))
            atomic_store(&store_life_source->orphans, 1);
    ticket_requeue_lost(&store_life_segment, store_life_source, &left);
    if (left)
        store_life_fault("a ring", "has no room for what fell out");
    slot_clear(segment_slot(&store_life_segment, slot), SHM_SLOT_BACKOFF);
    wake_source(&store_life_segment, store_life_source);
    slot_open(segment_slot(&store_life_segment, slot));
}

static enum step_stop one_kill(const struct operation *operation, struct step_place place,
                               const struct image *start)
{
    static uint32_t number;
    image_put(start);
    snprintf(store_life_where, sizeof store_life_where, "%s, killed at halt %u + %u", operation->name,
             place.calls, place.instructions);
    struct successor successor = successor_start(number++ % 2 == 0);
    pid_t pid = step_fork(victim_run, (void *)(uintptr_t)operation);
    enum step_stop stop = step_to(pid, place);
    step_kill(pid);
    if (stop == STEP_LOST)
        store_life_fault("the process", "was lost");
    if (stop == STEP_HALTED || operation->slot == STORE_LIFE_PRODUCER)
        recover(operation->slot);
    successor_finish(&successor);
    return stop;
}

static pid_t start_victim(const struct operation *operation, const struct image *start)
{
    image_put(start);
    return step_fork(victim_run, (void *)(uintptr_t)operation);
}

/* Steps through the whole, and kills afterwards at each place that was wanted. */
static uint32_t kill_between_calls(const struct operation *operation, const struct image *start,
                                   const struct step_route *route, uint32_t *instructions)
{
    static struct step_place places[PLACES_MOST];
    uint32_t count = step_find_places(start_victim(operation, start), route, store_life_segment.header,
                                      store_life_segment.size_bytes, places, PLACES_MOST, instructions);
    for (uint32_t i = 0; i < count && store_life->faults < FAULTS_ENOUGH; i++)
        one_kill(operation, places[i], start);
    return count;
}

static void run(const struct operation *operation, struct image *start, uint32_t *calls, uint32_t *changes)
{
    static struct step_route route;
    struct image ready = {.segment = malloc(store_life_segment.size_bytes)};
    uint32_t halts = 0, instructions = 0;
    image_put(start);
    snprintf(store_life_where, sizeof store_life_where, "%s, made ready", operation->name);
    pid_t pid = fork();
    if (pid == 0) {
        struct store *store = store_life_open();
        operation->ready(store);
        _exit(EXIT_SUCCESS); /* as a kill: its log stays */
    }
    waitpid(pid, NULL, 0);
    image_take(&ready);
    step_find_route(start_victim(operation, &ready), &route);
    while (store_life->faults < FAULTS_ENOUGH &&
           one_kill(operation, (struct step_place){halts, 0}, &ready) == STEP_HALTED)
        halts++;
    uint32_t more = 0; /* a checkpoint leaves the segment alone */
    if (operation->slot != 0)
        more = kill_between_calls(operation, &ready, &route, &instructions);
    printf("%-28s %6u instructions: %4u kills at system calls, %5u between\n", operation->name, instructions,
           halts, more);
    fflush(stdout);
    *calls += halts;
    *changes += more;
    for (int i = 0; i < 3; i++)
        free(ready.files[i].bytes);
    free(ready.segment);
}

static _Noreturn void prepare(void)
{
    struct error error;
    struct store_names wanted[2] = {{"a", store_life_names, STORE_LIFE_STAGES, 0, store_life->stages},
                                    {"b", store_life_names, STORE_LIFE_STAGES, 0, store_life->other_stages}};
    if (store_prepare(&store_life_options, wanted, 2, &store_life->start, &error) != 0) {
        fprintf(stderr, "store_prepare: %s\n", error.message);
        _exit(EXIT_FAILURE);
    }
    store_life->source = wanted[0].source_id;
    store_life->other = wanted[1].source_id;
    store_life_ingest(store_life_open(), 0, STORE_LIFE_EVENTS, "begun", 0);
    _exit(EXIT_SUCCESS);
}

int main(void)
{
    const char *temporary = getenv("TMPDIR");
    char directory[200], url[300], command[320];
    int lock, status = 1;
    uint32_t calls = 0, changes = 0;
    struct error error;
    step_or_skip();
    store_life_segment = shm_fixture(STORE_LIFE_STAGES, 1, 4, 4);
    store_life_source = segment_source(&store_life_segment, 0);
    store_life = mmap(NULL, sizeof *store_life, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(directory, sizeof directory, "%.150s/stepXXXXXX", temporary != NULL ? temporary : "/tmp");
    if (store_life == MAP_FAILED || mkdtemp(directory) == NULL)
        return EXIT_FAILURE;
    snprintf(store_life_path, sizeof store_life_path, "%s/step.db", directory);
    snprintf(url, sizeof url, "sqlite:%s", store_life_path);
    store_life_options =
        (struct store_options){.url = url, .instance = "step", .synchronous = SYNCHRONOUS_NORMAL};
    if (store_hold(&store_life_options, 0, &lock, &error) != 0)
        return EXIT_FAILURE;
    pid_t pid = fork();
    if (pid == 0)
        prepare();
    if (waitpid(pid, &status, 0) != pid || status != 0)
        return EXIT_FAILURE;
    struct image start = {.segment = malloc(store_life_segment.size_bytes)};
    image_take(&start);
    for (size_t i = 0; i < sizeof operations / sizeof operations[0] && store_life->faults < FAULTS_ENOUGH;
         i++)
        run(&operations[i], &start, &calls, &changes);
    printf("%u kills at system calls, %u after other instructions, %u faults\n", calls, changes,
           store_life->faults);
    free(start.segment);
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command) == 0 && store_life->faults == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
