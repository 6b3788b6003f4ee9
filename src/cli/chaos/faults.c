/* SPDX-License-Identifier: MIT */
/*
 * The storm: whom it hits, when, and with what. Runs in `eventpipe chaos`, which reads the pids in the
 * trial's own segment.
 *
 * Invariants
 *  1. Only what descends from us is hit: the process is held by a pidfd before its parents are looked at, so
 * that a pid that has become somebody else's is left alone.
 *  2. A process is hit again only when its place has done work since: a stage whose calls are long gets ahead
 *     all the same.
 *  3. Whatever was halted goes on, at the latest when the storm is over.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/slot.h"
#include "src/cli/chaos/chaos.h"

#define NS_PER_MS UINT64_C(1000000)
#define PAUSE_LEAST_MS 10
#define PAUSE_MOST_MS 100
#define HALT_LEAST_MS 20
#define HALT_MOST_MS 250
#define FELLING_LEAST_MS 2000 /* between two deaths of the supervisor, on an average */
#define KEEPERS_A_LIFE \
    2 /* a keeper is seldom of use to the supervisor's eyes, and would not come back soon */
#define GENERATIONS_MAX 16

uint64_t chaos_roll(struct chaos_dice *dice)
{
    uint64_t mixed = dice->state += UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}

uint64_t chaos_between(struct chaos_dice *dice, uint64_t least, uint64_t most)
{
    return least + chaos_roll(dice) % (most - least + 1);
}

/* ---- one process ---- */

static pid_t parent_of(pid_t pid)
{
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    size_t bytes = file != NULL ? fread(line, 1, sizeof line - 1, file) : 0;
    if (file != NULL)
        fclose(file);
    line[bytes] = '\0';
    const char *closing = strrchr(line, ')');
    pid_t parent = 0;
    return closing != NULL && sscanf(closing + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

static bool descends_from_us(pid_t pid)
{
    for (int i = 0; i < GENERATIONS_MAX && pid > 1; i++) {
        pid = parent_of(pid);
        if (pid == getpid())
            return true;
    }
    return false;
}

/* A descriptor of the process if it is ours, else -1. */
static int grasp(pid_t pid)
{
    if (pid <= 1)
        return -1;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0 && !descends_from_us(pid)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool send_signal(int pidfd, int number)
{
    return syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0) == 0;
}

static bool hit(pid_t pid)
{
    int fd = grasp(pid);
    bool done = fd >= 0 && send_signal(fd, SIGKILL);
    if (fd >= 0)
        close(fd);
    return done;
}

static bool halt(struct chaos *chaos, pid_t pid)
{
    for (size_t i = 0; i < CHAOS_STOPPED_MAX; i++) {
        struct chaos_stopped *place = &chaos->stopped[i];
        if (place->until_ns != 0)
            continue;
        int fd = grasp(pid);
        if (fd < 0 || !send_signal(fd, SIGSTOP)) {
            if (fd >= 0)
                close(fd);
            return false;
        }
        place->pidfd = fd;
        place->until_ns = shm_now_ns() + chaos_between(&chaos->dice, HALT_LEAST_MS, HALT_MOST_MS) * NS_PER_MS;
        return true;
    }
    return false;
}

void chaos_go_on(struct chaos *chaos, bool all)
{
    for (size_t i = 0; i < CHAOS_STOPPED_MAX; i++) {
        struct chaos_stopped *place = &chaos->stopped[i];
        if (place->until_ns == 0 || (!all && shm_now_ns() < place->until_ns))
            continue;
        send_signal(place->pidfd, SIGCONT);
        close(place->pidfd);
        place->until_ns = 0;
    }
}

/* ---- whom ---- */

static uint64_t work_of(const struct shm_slot *slot)
{
    return 1 + atomic_load(&slot->calls) + atomic_load(&slot->commits);
}

/* A living process of this kind, chosen by the dice, that may be hit; NULL: none. */
static struct shm_slot *choose(struct chaos *chaos, uint32_t kind, bool with_coprocess, uint32_t *number)
{
    uint32_t count = chaos->segment.header->slot_count;
    if (count > CHAOS_SLOTS_MAX)
        count = CHAOS_SLOTS_MAX;
    uint32_t first = (uint32_t)(chaos_roll(&chaos->dice) % count);
    for (uint32_t i = 0; i < count; i++) {
        *number = (first + i) % count;
        struct shm_slot *slot = segment_slot(&chaos->segment, *number);
        if (slot->kind != kind || atomic_load(&slot->pid) <= 0 ||
            (with_coprocess && atomic_load(&slot->coprocess) <= 0))
            continue;
        if (kind == SHM_KIND_KEEPER ? chaos->keepers_struck < KEEPERS_A_LIFE
                                    : work_of(slot) > chaos->struck_work[*number])
            return slot;
    }
    return NULL;
}

static bool strike_slot(struct chaos *chaos, uint32_t kind, bool coprocess, bool to_halt)
{
    uint32_t number;
    struct shm_slot *slot = choose(chaos, kind, coprocess, &number);
    if (slot == NULL)
        return false;
    pid_t pid = coprocess ? atomic_load(&slot->coprocess) : atomic_load(&slot->pid);
    uint64_t work = work_of(slot);
    if (!(to_halt ? halt(chaos, pid) : hit(pid)))
        return false;
    if (!to_halt)
        chaos->struck_work[number] = work;
    if (kind == SHM_KIND_KEEPER && !to_halt)
        chaos->keepers_struck++;
    return true;
}

/* ---- when ---- */

static void plan_strike(struct chaos *chaos)
{
    chaos->next_strike_ns =
        shm_now_ns() + chaos_between(&chaos->dice, PAUSE_LEAST_MS, PAUSE_MOST_MS) * NS_PER_MS;
}

void chaos_strike_plan(struct chaos *chaos)
{
    memset(chaos->struck_work, 0, sizeof chaos->struck_work);
    chaos->keepers_struck = 0;
    plan_strike(chaos);
    uint64_t whole_ms = chaos->options->seconds * 1000, pace_ms = whole_ms / 5;
    if (pace_ms < FELLING_LEAST_MS)
        pace_ms = whole_ms / 2 < FELLING_LEAST_MS ? whole_ms / 2 : FELLING_LEAST_MS;
    chaos->next_felling_ns =
        shm_now_ns() + chaos_between(&chaos->dice, pace_ms / 2, pace_ms * 3 / 2) * NS_PER_MS;
}

/* The supervisor alone, or all of them at one instant. */
static void fell(struct chaos *chaos)
{
    bool all = chaos_roll(&chaos->dice) % 3 == 0;
    for (uint32_t i = 0; all && i < chaos->segment.header->slot_count; i++)
        hit(atomic_load(&segment_slot(&chaos->segment, i)->pid));
    chaos->felled = true;
    if (hit(chaos->daemon))
        chaos->blows[all ? CHAOS_FAMILY : CHAOS_SUPERVISOR]++;
    chaos->next_felling_ns = UINT64_MAX; /* planned anew when the next one is up */
}

void chaos_strike_due(struct chaos *chaos)
{
    uint64_t now_ns = shm_now_ns();
    if (!chaos->up || now_ns < chaos->next_strike_ns)
        return;
    if (now_ns >= chaos->next_felling_ns) {
        fell(chaos);
        return;
    }
    uint64_t roll = chaos_roll(&chaos->dice) % 100;
    if (roll < 45)
        chaos->blows[CHAOS_WORKER] += strike_slot(chaos, SHM_KIND_WORKER, false, false);
    else if (roll < 67)
        chaos->blows[CHAOS_COPROCESS] += strike_slot(chaos, SHM_KIND_WORKER, true, false);
    else if (roll < 75)
        chaos->blows[CHAOS_PRODUCER] += strike_slot(chaos, SHM_KIND_PRODUCER, false, false);
    else if (roll < 80)
        chaos->blows[CHAOS_KEEPER] += strike_slot(chaos, SHM_KIND_KEEPER, false, false);
    else if (roll < 97)
        chaos->blows[CHAOS_STOP] +=
            strike_slot(chaos, roll < 90 ? SHM_KIND_WORKER : SHM_KIND_PRODUCER, roll < 85, true);
    else
        chaos->blows[CHAOS_STOP] += halt(chaos, chaos->daemon);
    plan_strike(chaos);
}
