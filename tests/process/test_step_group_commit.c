/* SPDX-License-Identifier: MIT */
/*
 * Whoever commits for others may be killed at any instruction, and so may whoever lets others commit: each
 * answer is committed, counted once, and nobody waits for ever. A leader with another's commit request
 * before it, or an owner waiting for a write lock that is held, is killed at each of its system calls and
 * after each instruction that changed the segment. Then the supervisor's part is done
 * (commit_request_recover), the living does what is left to it, and a successor what the crashed one left.
 */
#include "tests/lib/step_places.h"

#include "shm/write_lock.h"
#include "src/process/group_codec.h"
#include "src/process/group_commit.h"
#include "tests/lib/shm_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEADER 2
#define OWNER 3
#define EVENTS 8000 /* two a trial */
#define PAGE 500
#define PLACES_MOST 3000
#define FAULTS_ENOUGH 3
#define DONE "first\n"

static struct shared { /* what outlives the processes beside segment and store */
    uint64_t start, token;
    int64_t source, stage;
    int64_t events[EVENTS];
    uint32_t count, next; /* events there are; the next pair */
    uint32_t faults;
} * shared;
static struct segment segment;
static struct store_options options;
static char where[96];

static void fault(const char *what, const char *message)
{
    fprintf(stderr, "FAULT in %s: %s: %s\n", where, what, message);
    shared->faults++;
}

static void must(struct store *store, int code, const char *what)
{
    if (code != 0) {
        fault(what, store_errmsg(store));
        _exit(EXIT_FAILURE);
    }
}

static struct store *open_store(void)
{
    struct store *store;
    struct error error;
    options.start_number = shared->start;
    if (store_open(&options, &store, &error) != 0) {
        fault("store_open", error.message);
        _exit(EXIT_FAILURE);
    }
    return store;
}

/* Events 2n and 2n + 1 are the leader's and the owner's of trial n. */
static int64_t event_of(uint32_t slot)
{
    return shared->events[shared->next + (slot == OWNER)];
}

static struct store_answer answer_of(uint32_t slot)
{
    return (struct store_answer){.lock = {event_of(slot), shared->token},
                                 .change = STORE_ADVANCE,
                                 .done = DONE,
                                 .context = "{}",
                                 .context_bytes = 2,
                                 .attempt = 1};
}

static void group_commit_begin(struct process_group_commit *group_commit, uint32_t slot, struct store *store)
{
    group_commit->segment = &segment;
    group_commit->slot = slot;
    group_commit->store = store;
}

static void notify(void *user)
{
    commit_request_notify(&segment, (uint32_t)(uintptr_t)user);
}

/* --- who is killed */

static struct process_group_commit group_commit;

/* The statements are compiled: what is stepped through is what happens from the second time on. The lock is
 * nobody's, so nothing is changed. */
static void warm_up(struct store *store)
{
    struct store_answer answer = answer_of(LEADER);
    answer.lock.token++;
    must(store, store_commit(store, shared->source, shared->stage, &answer, 1), "store_commit");
}

static void commits(void *user)
{
    uint32_t slot = (uint32_t)(uintptr_t)user;
    options.write_lock_released = notify;
    options.user = user;
    struct store *store = open_store();
    if (slot == LEADER)
        warm_up(store);
    group_commit_begin(&group_commit, slot, store);
    struct store_answer answer = answer_of(slot);
    step_mark();
    must(store, process_group_commit(&group_commit, shared->source, shared->stage, &answer, 1),
         "process_group_commit");
    if (!answer.applied)
        fault("an answer", "was refused though the lock is ours");
    step_mark();
}

/* --- what is left to others, in a process of their own */

static int on_row(size_t index, const struct store_row *row, void *user)
{
    (void)index;
    *(bool *)user = strcmp(row->done, DONE) == 0;
    return 0;
}

static bool committed(struct store *store, uint32_t slot)
{
    bool done = false;
    struct store_event_lock lock = {event_of(slot), shared->token};
    must(store, store_read(store, &lock, 1, on_row, &done), "store_read");
    return done;
}

static void commit_oneself(struct store *store, uint32_t slot, bool again)
{
    struct store_answer answer = answer_of(slot);
    struct store_group_commit transaction = {.member[0] = {shared->source, shared->stage, getpid(), again,
                                                           &answer, 1},
                                             .count = 1};
    must(store, store_group_commit(store, &transaction), "store_group_commit");
    if (!answer.applied)
        fault("an answer", "was refused though the lock is ours");
}

static void owner_goes_on(struct store *store)
{
    uint32_t result;
    enum commit_request_state state = commit_request_poll(&segment, OWNER, &result);
    if (state == COMMIT_REQUEST_TAKEN)
        fault("an owner", "waits for an exited process");
    else if (state == COMMIT_REQUEST_DONE && (result != 1 || !committed(store, OWNER)))
        fault("an owner", "was told what is not so");
    else if (state == COMMIT_REQUEST_LOST)
        commit_oneself(store, OWNER, true);
    else if (state == COMMIT_REQUEST_WAITING && commit_request_withdraw(&segment, OWNER))
        commit_oneself(store, OWNER, false);
    else if (state != COMMIT_REQUEST_DONE)
        fault("an owner", "does not know what became of its commit request");
}

/* The crashed one's successor looks first, as all do who take an event up again. */
static void successor_goes_on(struct store *store, uint32_t slot)
{
    if (!committed(store, slot))
        commit_oneself(store, slot, false);
}

static _Noreturn void go_on(uint32_t dead)
{
    struct store *store = open_store();
    struct store_stage_totals totals;
    if (dead == LEADER)
        owner_goes_on(store);
    else /* a leader comes by: what the crashed one offered is gone */
        commit_oneself(store, LEADER, false);
    successor_goes_on(store, dead);
    if (!committed(store, LEADER) || !committed(store, OWNER))
        fault("an answer", "is lost");
    must(store, store_stage_totals(store, shared->stage, &totals), "store_stage_totals");
    if (totals.processed != shared->next + 2)
        fault("an answer", "counts twice, or not at all");
    _exit(EXIT_SUCCESS);
}

/* --- the trials */

static void request_submitted(void)
{
    struct store_answer answer = answer_of(OWNER);
    struct store_group_member own = {shared->source, shared->stage, getpid(), false, &answer, 1};
    size_t bytes =
        process_group_codec_encode(&own, commit_request_body(&segment, OWNER), SHM_COMMIT_REQUEST_BYTES);
    commit_request_submit(&segment, OWNER, (uint32_t)bytes);
}

static pid_t start_victim(uint32_t slot)
{
    commit_request_recover(&segment, LEADER);
    commit_request_recover(&segment, OWNER);
    if (slot == LEADER)
        request_submitted();
    else if (write_lock_acquire(&segment.header->write_lock, 1000) != 0)
        fault("the write lock", "is held");
    return step_fork(commits, (void *)(uintptr_t)slot);
}

static void finish_trial(uint32_t slot)
{
    int status = 1;
    if (slot == OWNER)
        write_lock_release(&segment.header->write_lock);
    commit_request_recover(&segment, slot);
    pid_t pid = fork();
    if (pid == 0)
        go_on(slot);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        fault("who goes on", "failed");
    shared->next += 2;
}

static enum step_stop one_kill(uint32_t slot, struct step_place place)
{
    snprintf(where, sizeof where, "%s, killed at halt %u + %u", slot == LEADER ? "a leader" : "an owner",
             place.calls, place.instructions);
    pid_t pid = start_victim(slot);
    enum step_stop stop = step_to(pid, place);
    step_kill(pid);
    if (stop == STEP_LOST)
        fault("the process", "was lost");
    finish_trial(slot);
    return stop;
}

static uint32_t trials_left(void)
{
    return shared->faults < FAULTS_ENOUGH ? (shared->count - shared->next) / 2 : 0;
}

static void kill_leader(uint32_t *calls, uint32_t *changes, uint32_t *instructions)
{
    static struct step_route route;
    static struct step_place places[PLACES_MOST];
    step_find_route(start_victim(LEADER), &route);
    finish_trial(LEADER);
    uint32_t count = step_find_places(start_victim(LEADER), &route, segment.header, segment.size_bytes,
                                      places, PLACES_MOST, instructions);
    finish_trial(LEADER);
    while (trials_left() > 0 && one_kill(LEADER, (struct step_place){*calls, 0}) == STEP_HALTED)
        ++*calls;
    for (; *changes < count && trials_left() > 0; ++*changes)
        one_kill(LEADER, places[*changes]);
    if (*changes < count && shared->faults == 0)
        fault("the test", "has too few events for so many places");
}

/* Waiting for a write lock that stays held it never comes to its end: it looks again and again. */
static uint32_t kill_owner(void)
{
    uint32_t instructions = 0;
    for (bool waits = false; trials_left() > 0 && instructions < 20000; instructions += waits ? 1 : 7) {
        one_kill(OWNER, (struct step_place){0, instructions});
        pid_t pid = start_victim(OWNER); /* where is it by then? */
        uint32_t result;
        step_on(pid, instructions + 1);
        waits = commit_request_poll(&segment, OWNER, &result) == COMMIT_REQUEST_WAITING;
        step_kill(pid);
        finish_trial(OWNER);
        if (waits && instructions % 100 == 99)
            break;
    }
    return instructions;
}

static _Noreturn void prepare(void)
{
    static const char *const names[] = {"first", "second"};
    struct error error;
    int64_t stages[2];
    struct store_names wanted = {"a", names, 2, 0, stages};
    struct store_event events[PAGE];
    char uids[PAGE][16];
    if (store_prepare(&options, &wanted, 1, &shared->start, &error) != 0)
        _exit(EXIT_FAILURE);
    shared->source = wanted.source_id;
    shared->stage = stages[0];
    shared->token = STORE_TOKEN(shared->start, 1);
    struct store *store = open_store();
    for (uint32_t first = 0; first < EVENTS; first += PAGE) {
        const struct store_claim claim = {shared->token, PAGE};
        struct store_ingested out;
        struct store_claimed claimed;
        for (uint32_t i = 0; i < PAGE; i++) {
            snprintf(uids[i], sizeof uids[i], "%u", first + i);
            events[i] = (struct store_event){.uid = uids[i], .data = "{}", .data_bytes = 2};
        }
        struct store_page page = {.events = events, .count = PAGE, .now_ms = 1000};
        must(store, store_ingest_begin(store, shared->source, &page, &claim, &out, &claimed),
             "store_ingest_begin");
        for (size_t i = 0; i < claimed.count; i++)
            shared->events[shared->count++] = claimed.events[i].event;
        must(store, store_claim_end(store), "store_claim_end");
    }
    store_close(&store);
    _exit(EXIT_SUCCESS);
}

int main(void)
{
    const char *temporary = getenv("TMPDIR");
    char directory[200], url[300], command[320];
    int lock, status = 1;
    uint32_t calls = 0, changes = 0, instructions = 0;
    struct error error;
    step_or_skip();
    segment = shm_fixture(1, 2, 4, 4);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(directory, sizeof directory, "%.150s/stepXXXXXX", temporary != NULL ? temporary : "/tmp");
    if (shared == MAP_FAILED || mkdtemp(directory) == NULL)
        return EXIT_FAILURE;
    snprintf(url, sizeof url, "sqlite:%s/group.db", directory);
    options = (struct store_options){.url = url,
                                     .instance = "step",
                                     .synchronous = SYNCHRONOUS_FULL,
                                     .write_lock = &segment.header->write_lock};
    if (store_hold(&options, 0, &lock, &error) != 0)
        return EXIT_FAILURE;
    pid_t pid = fork();
    if (pid == 0)
        prepare();
    if (waitpid(pid, &status, 0) != pid || status != 0 || shared->count != EVENTS)
        return EXIT_FAILURE;
    kill_leader(&calls, &changes, &instructions);
    printf("a leader: %u instructions, %u kills at system calls, %u between\n", instructions, calls, changes);
    printf("an owner: kills up to instruction %u\n", kill_owner());
    printf("%u trials, %u faults\n", shared->next / 2, shared->faults);
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command) == 0 && shared->faults == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
