/* SPDX-License-Identifier: MIT */
/*
 * No kill at any instruction of shm/ loses an event, doubles it, or stands in its way. A real process does
 * one operation on the segment under ptrace. It is halted after each of its instructions, and what a kill
 * would leave there, its memory, goes through the supervisor's recovery and on to the end of all events; then
 * what step_shm_life.h checks must hold. After each instruction that changed the segment it is killed for
 * real, while another process sleeps for what the operation brings: that one must wake.
 *
 * Then the same with a second process halted half-way, which goes on after the first one's crash and
 * recovery. Of an exited process nothing but the segment remains, so the first is killed wherever it has
 * changed that.
 *
 * By default the second halts at some places before and after its own changes. STEP_LONG=1: it halts after
 * each of its instructions, and every halt of a process alone is a kill.
 */
#include "tests/lib/step_rig.h"
#include "tests/lib/step_shm_life.h"

#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define OTHER_HALTS 6 /* of the second process, by default, for each operation */
#define MOST_INSTRUCTIONS 20000
#define FAULTS_ENOUGH 10
#define ROUND 8 /* a ring's size: twice the tickets */

/* What a process of this test holds, by its slot: made ready before the snapshot. */
struct holding {
    uint32_t ticket, position;
};
static struct holding held[LIFE_SLOTS];

enum sleeps { SLEEPS_WORK, SLEEPS_ROOM, SLEEPS_TICKET };

struct operation {
    const char *name;
    void (*ready)(void);
    void (*operate)(struct steps *steps);
    uint32_t slot;
    uint32_t sleeper; /* its slot; 0 = nobody sleeps */
    enum sleeps sleeps;
    uint32_t other; /* the second process's slot, 0 = none, and what it does */
    void (*other_operate)(struct steps *steps);
};

/* --- what stands before the operation */

static void feed(uint32_t count)
{
    struct steps steps = steps_for(&life_segment, LIFE_PRODUCER);
    uint32_t ticket, position;
    atomic_fetch_add(&life_store->allowed, count);
    while (count-- > 0 && life_claim(&steps, &ticket, &position))
        life_hand_on(&steps, ticket, position);
}

static void take(uint32_t slot)
{
    struct steps steps = steps_for(&life_segment, slot);
    struct ticket_view view;
    steps_take(&steps, &held[slot].ticket, &view, 1);
}

static void pass_on(uint32_t slot)
{
    struct steps steps = steps_for(&life_segment, slot);
    struct ticket_view view = ticket_read(&life_segment, held[slot].ticket);
    life_commit(&steps, held[slot].ticket, &view);
}

static void ready_nothing(void)
{
    atomic_fetch_add(&life_store->allowed, 2);
}

static void ready_claimed(void)
{
    struct steps steps = steps_for(&life_segment, LIFE_PRODUCER);
    feed(1);
    atomic_fetch_add(&life_store->allowed, 1);
    life_claim(&steps, &held[LIFE_PRODUCER].ticket, &held[LIFE_PRODUCER].position);
}

static void ready_one_and_more(void)
{
    feed(1);
    atomic_fetch_add(&life_store->allowed, 2);
}

static void ready_fed(void)
{
    feed(3);
}

static void ready_taken(void)
{
    feed(3);
    take(LIFE_WORKER(0, 0));
    take(LIFE_WORKER(0, 1));
}

/* All tickets in use, two of them at the last stage. */
static void ready_last(void)
{
    feed(4);
    for (uint32_t i = 0; i < 2; i++) {
        take(LIFE_WORKER(0, i));
        pass_on(LIFE_WORKER(0, i));
        take(LIFE_WORKER(1, i));
    }
}

/* The last stage's ring is at its limit. */
static void ready_full(void)
{
    feed(4);
    for (uint32_t i = 0; i < 2; i++) {
        take(LIFE_WORKER(0, i));
        pass_on(LIFE_WORKER(0, i));
    }
    take(LIFE_WORKER(0, 0));
}

static void ready_orphans(void)
{
    ready_last();
    life_recover(LIFE_WORKER(1, 0));
    ticket_mark_orphaned(&life_segment, held[LIFE_WORKER(1, 1)].ticket, LIFE_WORKER(1, 1));
}

/* --- the operations */

static void operate_claim(struct steps *steps)
{
    uint32_t ticket, position;
    life_claim(steps, &ticket, &position);
}

static void operate_hand_on(struct steps *steps)
{
    life_hand_on(steps, held[steps->slot_index].ticket, held[steps->slot_index].position);
}

static void operate_produce(struct steps *steps)
{
    uint32_t ticket, position;
    while (life_claim(steps, &ticket, &position))
        life_hand_on(steps, ticket, position);
}

static void operate_take(struct steps *steps)
{
    uint32_t ticket;
    struct ticket_view view;
    if (steps_take(steps, &ticket, &view, 1) > 0)
        slot_begin_event(steps->slot, ticket, &(struct slot_event){.id = view.event}, 1);
}

static void operate_commit(struct steps *steps)
{
    struct ticket_view view = ticket_read(&life_segment, held[steps->slot_index].ticket);
    life_work(steps, held[steps->slot_index].ticket, &view);
    life_commit(steps, held[steps->slot_index].ticket, &view);
}

static void operate_turn(struct steps *steps)
{
    uint32_t tickets[2];
    struct ticket_view views[2];
    uint32_t count = steps_take(steps, tickets, views, 2);
    for (uint32_t i = 0; i < count; i++)
        life_work(steps, tickets[i], &views[i]);
    for (uint32_t i = 0; i < count; i++)
        life_commit(steps, tickets[i], &views[i]);
}

/* Finds no work, or no room, and would sleep; there is some by then. */
static void operate_look(struct steps *steps)
{
    slot_set_state(steps->slot, SHM_SLOT_IDLE);
    wake_prepare(steps->slot);
    if (ring_count(&steps->stage->ring) > 0)
        wake_cancel(steps->slot);
}

static void operate_want(struct steps *steps)
{
    slot_set_state(steps->slot, SHM_SLOT_BLOCKED);
    wake_prepare(steps->slot);
    wake_want_room(&segment_stage(&life_segment, 1)->ring);
    if (!ring_has_room(&segment_stage(&life_segment, 1)->ring))
        wake_cancel(steps->slot);
}

#define A0 LIFE_WORKER(0, 0)
#define A1 LIFE_WORKER(0, 1)
#define B0 LIFE_WORKER(1, 0)
#define B1 LIFE_WORKER(1, 1)
static const struct operation operations[] = {
    {"claim", ready_nothing, operate_claim, LIFE_PRODUCER, 0, 0, 0, NULL},
    {"enqueue", ready_claimed, operate_hand_on, LIFE_PRODUCER, A1, SLEEPS_WORK, A0, operate_take},
    {"claim and enqueue", ready_one_and_more, operate_produce, LIFE_PRODUCER, A1, SLEEPS_WORK, A0,
     operate_turn},
    {"dequeue", ready_fed, operate_take, A0, A1, SLEEPS_WORK, A1, operate_take},
    {"dequeue, room", ready_full, operate_take, B0, A0, SLEEPS_ROOM, B1, operate_take},
    {"commit, hand-over", ready_taken, operate_commit, A0, B1, SLEEPS_WORK, A1, operate_commit},
    {"commit, clear-up", ready_last, operate_commit, B0, LIFE_PRODUCER, SLEEPS_TICKET, B1, operate_commit},
    {"unlock", ready_orphans, life_free_orphans, LIFE_PRODUCER, 0, 0, A0, operate_turn},
    {"a whole turn", ready_fed, operate_turn, A0, B1, SLEEPS_WORK, A1, operate_turn},
    {"look for work", ready_fed, operate_look, A0, 0, 0, A1, operate_take},
    {"want room", ready_full, operate_want, A0, 0, 0, B0, operate_take},
};

/* --- who sleeps */

struct sleeper {
    pid_t pid;
    int orders, answers;
};

static _Noreturn void sleeper_run(const struct operation *operation, int orders, int answers)
{
    struct shm_slot *slot = segment_slot(&life_segment, operation->sleeper);
    char byte;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(orders, &byte, 1) == 1) {
        slot_set_state(slot, operation->sleeps == SLEEPS_ROOM ? SHM_SLOT_BLOCKED : SHM_SLOT_IDLE);
        uint32_t key = wake_prepare(slot);
        if (operation->sleeps == SLEEPS_ROOM)
            wake_want_room(&segment_stage(&life_segment, 1)->ring);
        if (operation->sleeps == SLEEPS_TICKET)
            wake_want_ticket(life_source);
        if (write(answers, "s", 1) != 1)
            break;
        wake_sleep(slot, key, WAKE_FOREVER);
        if (write(answers, "w", 1) != 1)
            break;
    }
    _exit(EXIT_SUCCESS);
}

static struct sleeper sleeper_start(const struct operation *operation)
{
    struct sleeper sleeper = {0, -1, -1};
    int orders[2], answers[2];
    if (operation->sleeper == 0)
        return sleeper;
    if (pipe(orders) != 0 || pipe(answers) != 0 || (sleeper.pid = fork()) < 0) {
        perror("a sleeper");
        exit(EXIT_FAILURE);
    }
    if (sleeper.pid == 0) {
        close(orders[1]); /* or it would outlive us, waiting for its own end */
        sleeper_run(operation, orders[0], answers[1]);
    }
    close(orders[0]);
    close(answers[1]);
    sleeper.orders = orders[1];
    sleeper.answers = answers[0];
    return sleeper;
}

static bool sleeper_says(const struct sleeper *sleeper, char expected)
{
    struct pollfd wait = {sleeper->answers, POLLIN, 0};
    char byte = 0;
    return poll(&wait, 1, STEP_PATIENCE_MS) == 1 && read(sleeper->answers, &byte, 1) == 1 && byte == expected;
}

static void sleeper_send(const struct sleeper *sleeper)
{
    if (sleeper->pid > 0 &&
        (write(sleeper->orders, "s", 1) != 1 || !sleeper_says(sleeper, 's') || !step_asleep(sleeper->pid)))
        life_fault("nobody sleeps"); /* the rig's own failing */
}

static void sleeper_end(struct sleeper *sleeper)
{
    if (sleeper->pid <= 0)
        return;
    step_kill(sleeper->pid);
    close(sleeper->orders);
    close(sleeper->answers);
}

/* --- the runs */

struct image { /* of all that outlives a process */
    void *segment, *store;
};
static struct image start, now;
static size_t store_bytes;

static void image_open(struct image *image)
{
    image->segment = malloc(life_segment.size_bytes);
    image->store = malloc(store_bytes);
    if (image->segment == NULL || image->store == NULL)
        exit(EXIT_FAILURE);
}

static void image_close(struct image *image)
{
    free(image->segment);
    free(image->store);
}

static void image_take(struct image *image)
{
    memcpy(image->segment, life_segment.header, life_segment.size_bytes);
    memcpy(image->store, life_store, store_bytes);
}

static void image_put(const struct image *image)
{
    memcpy(life_segment.header, image->segment, life_segment.size_bytes);
    memcpy(life_store, image->store, store_bytes);
}

static bool image_stands(const struct image *image)
{
    return memcmp(life_segment.header, image->segment, life_segment.size_bytes) == 0 &&
           memcmp(life_store, image->store, store_bytes) == 0;
}

struct part {
    uint32_t slot;
    void (*operate)(struct steps *steps);
};

static void part_run(void *user)
{
    struct part *part = user;
    struct steps steps = steps_for(&life_segment, part->slot);
    step_mark();
    part->operate(&steps);
    step_mark();
}

/* One kill after k instructions; with `other`, that one halted after j before, and gone on after. Returns
 * what became of the first. */
static enum step_stop one_kill(const struct operation *operation, const struct sleeper *sleeper, uint32_t k,
                               pid_t other)
{
    struct part part = {operation->slot, operation->operate};
    life_where_k = k;
    pid_t pid = step_fork(part_run, &part);
    enum step_stop stop = pid > 0 ? step_on(pid, k) : STEP_LOST;
    step_kill(pid);
    if (stop == STEP_HALTED)
        life_recover(operation->slot);
    if (other > 0 && step_finish(other) != STEP_DONE)
        life_fault("the other did not come to its end");
    step_kill(other);
    if (stop == STEP_LOST)
        life_fault("the process was lost");
    if (sleeper->pid > 0 && !sleeper_says(sleeper, 'w')) {
        life_fault("somebody sleeps on for ever");
        wake_slot(segment_slot(&life_segment, operation->sleeper));
        sleeper_says(sleeper, 'w');
    }
    life_check_places(stop == STEP_HALTED ? operation->slot : LIFE_SLOTS);
    life_play_to_the_end();
    return stop;
}

/* After which of its instructions the segment was another than before. */
struct changes {
    uint32_t at[MOST_INSTRUCTIONS], count, instructions;
};

/*
 * Brings a process through the operation once, halting after each instruction; with `classify`, what a kill
 * there would leave is recovered and checked, and put back.
 */
static void halt_everywhere(const struct part *part, bool classify, struct changes *changes)
{
    struct part copy = *part;
    pid_t pid = step_fork(part_run, &copy);
    uint32_t k = 0;
    changes->count = 0;
    image_take(&now);
    for (; pid > 0 && k < MOST_INSTRUCTIONS && life_faults < FAULTS_ENOUGH; k++) {
        if (!image_stands(&now))
            changes->at[changes->count++] = k;
        image_take(&now);
        life_where_k = k;
        if (classify) {
            life_recover(part->slot);
            life_check_places(part->slot);
            life_play_to_the_end();
            image_put(&now);
        }
        if (step_on(pid, 1) != STEP_HALTED)
            break;
    }
    if (pid <= 0 || k == MOST_INSTRUCTIONS)
        life_fault("the process was lost, or comes to no end");
    changes->instructions = k + 1;
    step_kill(pid);
}

struct figures {
    uint32_t halts, kills, pairs;
};

static void every_instruction(const struct operation *operation, struct figures *figures)
{
    static struct changes changes;
    struct sleeper sleeper = sleeper_start(operation);
    enum step_stop stop = STEP_HALTED;
    image_put(&start);
    halt_everywhere(&(struct part){operation->slot, operation->operate}, true, &changes);
    figures->halts = changes.instructions;
    for (uint32_t i = 0, k = 0; stop == STEP_HALTED && life_faults < FAULTS_ENOUGH; i++) {
        image_put(&start);
        sleeper_send(&sleeper);
        k = step_long() ? i : i < changes.count ? changes.at[i] : MOST_INSTRUCTIONS; /* at last: to its end */
        stop = one_kill(operation, &sleeper, k, 0);
        figures->kills += stop == STEP_HALTED;
    }
    sleeper_end(&sleeper);
}

/* The second halted after j instructions, the first killed at each of its changes. False: there is no j. */
static bool beside_halted(const struct operation *operation, uint32_t j, uint32_t *pairs)
{
    static const struct sleeper nobody;
    static struct changes changes;
    struct part part = {operation->other, operation->other_operate};
    life_where_j = j;
    changes.count = 1;
    for (uint32_t i = 0; i < changes.count && life_faults < FAULTS_ENOUGH; i++) {
        image_put(&start);
        pid_t other = step_fork(part_run, &part);
        if (other < 0 || step_on(other, j) != STEP_HALTED) {
            step_kill(other);
            return false;
        }
        if (i == 0) { /* where they are depends on what the second has done by then */
            halt_everywhere(&(struct part){operation->slot, operation->operate}, false, &changes);
            step_kill(other);
            image_put(&start);
            other = step_fork(part_run, &part);
            if (step_on(other, j) != STEP_HALTED || changes.count == 0) {
                step_kill(other);
                return false;
            }
        }
        *pairs += one_kill(operation, &nobody, changes.at[i], other) == STEP_HALTED;
    }
    return true;
}

static void with_another(const struct operation *operation, struct figures *figures)
{
    static struct changes changes;
    if (operation->other == 0)
        return;
    image_put(&start);
    halt_everywhere(&(struct part){operation->other, operation->other_operate}, false, &changes);
    uint32_t halts = step_long() ? changes.instructions : OTHER_HALTS;
    for (uint32_t i = 0; i < halts && changes.count > 0; i++) {
        uint32_t change = changes.at[i * changes.count / halts];
        uint32_t j = step_long() ? i : change - i % 2; /* after it, or just before it */
        if (!beside_halted(operation, j, &figures->pairs))
            break;
    }
    life_where_j = 0;
}

/* So many events went through before that the rings come round within the operation, or not. */
static struct figures run(const struct operation *operation, uint32_t before)
{
    static char name[64];
    struct figures figures = {0};
    life_segment = shm_fixture(LIFE_STAGES, LIFE_WORKERS, LIFE_LIMIT, LIFE_TICKETS);
    life_source = segment_source(&life_segment, 0);
    life_store = row_store_make(LIFE_ROWS);
    if (life_store == NULL || segment_stage(&life_segment, 0)->ring.size != ROUND)
        exit(EXIT_FAILURE);
    store_bytes = sizeof *life_store + LIFE_ROWS * sizeof(struct row);
    image_open(&start);
    image_open(&now);
    snprintf(name, sizeof name, "%s (%u before)", operation->name, before);
    life_where = name;
    for (uint32_t i = 0; i < before; i++) {
        feed(1);
        take(A0), pass_on(A0);
        take(B0), pass_on(B0);
    }
    operation->ready();
    image_take(&start);
    every_instruction(operation, &figures);
    if (before > 0 || step_long())
        with_another(operation, &figures);
    printf("%-30s %5u instructions, %5u kills, %6u beside another\n", name, figures.halts, figures.kills,
           figures.pairs);
    fflush(stdout);
    image_close(&start);
    image_close(&now);
    munmap(life_store, store_bytes);
    segment_close(&life_segment);
    return figures;
}

int main(void)
{
    struct figures all = {0};
    step_or_skip();
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        for (uint32_t before = 0; before <= ROUND - 1; before += ROUND - 1) {
            struct figures figures = run(&operations[i], before);
            all.halts += figures.halts;
            all.kills += figures.kills;
            all.pairs += figures.pairs;
        }
    printf("recovered after every one of %u instructions; %u kills, %u more beside a halted process; %u "
           "faults\n",
           all.halts, all.kills, all.pairs, life_faults);
    return life_faults == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
