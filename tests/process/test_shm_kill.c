/* SPDX-License-Identifier: MIT */
/*
 * Stress of shm/ with real processes, killed at random. The parent is the supervisor: it forks a producer and
 * three workers for each of three stages, lets events flow, sends SIGKILL, reaps, recovers, forks again. The
 * store is in row_store.h; children sleep without time-outs.
 *
 * It shows that no kill blocks, loses or doubles an event:
 *  - a worker that takes an event finds it in nobody else's hands, and in the store locked by the ticket's
 * token at this stage; its commit always succeeds;
 *  - now and then all children are killed at once: each event is then in exactly one place, READY or DONE in
 * the store, or LOCKED by the token of exactly one ticket, which stands in its stage's ring or is ORPHANED;
 *  - events move on as long as there are any: a standstill of WATCHDOG_SECONDS fails;
 *  - in the end all events are DONE and all tickets FREE.
 *
 * usage: test_shm_kill [SEED [KILLS]], or EVENTPIPE_SEED=SEED; the seed in use is printed.
 */
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/row_store.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/shm_steps.h"

#define STAGES 3
#define WORKERS 3
#define LIMIT 4
#define TICKETS 24
#define BATCH 3
#define SLOTS (2 + STAGES * WORKERS) /* slot 0, the keeper's, stays empty */
#define PRODUCER 1
#define WORK_NS 12000 /* a stage takes up to so long for an event */

static struct segment segment;
static struct shm_source *source;
static struct row_store *store;

static void violation(const char *what, int64_t event, uint64_t detail)
{
    atomic_store(&store->violation, 1);
    fprintf(stderr, "violation: %s: event %" PRId64 ", %" PRIx64 "\n", what, event, detail);
}

/* --- the producer, in a child */

struct claims {
    int64_t events[TICKETS * 4]; /* READY again, to be claimed before new ones */
    uint32_t count;
};

/* Puts an event back among those to be claimed; with all tickets' events and a batch there is still room. */
static void claims_add(struct claims *claims, int64_t event)
{
    if (claims->count < TICKETS * 4)
        claims->events[claims->count++] = event;
    else
        violation("more events released than can be in flight", event, claims->count);
}

static void free_orphans(struct claims *claims)
{
    atomic_store(&source->orphans, 0);
    for (uint32_t i = 0; i < source->ticket_count; i++) {
        struct ticket_view view = ticket_read(&segment, i);
        if (view.phase != TICKET_ORPHANED)
            continue;
        if (row_store_unlock(store, view.event, view.token) && claims != NULL)
            claims_add(claims, view.event);
        ticket_free_orphan(&segment, i);
    }
}

/* A successor does not know what the one before it had released or created and not yet claimed: it looks. */
static void claims_find(struct claims *claims)
{
    uint32_t created = atomic_load(&store->created);
    for (uint32_t event = row_store_first(store); event < created; event++)
        if (row_state(atomic_load(&store->rows[event].word)) == ROW_READY)
            claims_add(claims, event);
}

static bool next_event(struct claims *claims, int64_t *event)
{
    if (claims->count == 0)
        return row_store_ingest(store, event);
    *event = claims->events[--claims->count];
    return true;
}

/* Bound before it is claimed, so that whoever finds the ticket orphaned knows what to release. */
static void claim(uint32_t ticket, int64_t event, uint32_t *stage)
{
    uint64_t token = atomic_fetch_add(&source->claims, 1) + 1;
    ticket_bind(&segment, ticket, event, token);
    if (!row_store_claim(store, event, token, stage))
        violation("a claim failed", event, atomic_load(&store->rows[event].word));
}

/* Claims a batch in one go, then hands it on. Returns false when there was nothing, or no ticket. */
static bool produce_batch(struct steps *steps, struct claims *claims, bool *no_ticket)
{
    uint32_t tickets[BATCH], stages[BATCH], count = 0;
    int64_t event;
    *no_ticket = false;
    while (count < BATCH) {
        uint32_t ticket = ticket_load(&segment, source, steps->slot_index, &steps->hint);
        *no_ticket = ticket == SHM_NO_TICKET;
        if (*no_ticket)
            break;
        if (!next_event(claims, &event)) {
            ticket_free(&segment, ticket, steps->slot_index);
            break;
        }
        claim(ticket, event, &stages[count]);
        tickets[count++] = ticket;
    }
    for (uint32_t i = 0; i < count; i++)
        steps_hand_on(steps, tickets[i], stages[i]);
    return count > 0;
}

static bool producer_has_work(const struct claims *claims, bool no_ticket)
{
    if (atomic_load(&source->orphans) != 0 || steps_stopping(&(struct steps){.segment = &segment}))
        return true;
    if (no_ticket)
        return ticket_count(&segment, source, NULL, NULL) < source->ticket_count;
    return claims->count > 0 || atomic_load(&store->created) < atomic_load(&store->allowed);
}

static void producer_run(struct steps *steps)
{
    struct claims claims = {.count = 0};
    bool no_ticket;
    free_orphans(NULL);
    claims_find(&claims);
    while (!steps_stopping(steps)) {
        if (atomic_load(&source->orphans) != 0)
            free_orphans(&claims);
        slot_set_state(steps->slot, SHM_SLOT_BUSY);
        if (produce_batch(steps, &claims, &no_ticket))
            continue;
        slot_set_state(steps->slot, SHM_SLOT_IDLE);
        uint32_t key = wake_prepare(steps->slot);
        if (no_ticket)
            wake_want_ticket(source);
        if (producer_has_work(&claims, no_ticket))
            wake_cancel(steps->slot);
        else
            wake_sleep(steps->slot, key, WAKE_FOREVER);
    }
}

/* --- a worker, in a child */

static void hold(const struct steps *steps, const struct ticket_view *view)
{
    struct row *row = &store->rows[view->event];
    uint32_t before = atomic_exchange(&row->holder, steps->slot_index + 1);
    uint64_t word = atomic_load(&row->word);
    if (before != 0)
        violation("owned twice", view->event, before - 1);
    if (word != row_word(ROW_LOCKED, steps->stage->position, view->token))
        violation("the store does not agree with the ticket", view->event, word);
}

static void work_batch(struct steps *steps, const uint32_t tickets[], const struct ticket_view views[],
                       uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        hold(steps, &views[i]);
        uint64_t now_ns = shm_now_ns(), until_ns = now_ns + (uint64_t)views[i].event * 7919 % WORK_NS;
        slot_begin_event(steps->slot, tickets[i], &(struct slot_event){.id = views[i].event}, now_ns);
        while ((now_ns = shm_now_ns()) < until_ns)
            continue; /* the stage at work */
        slot_end_event(steps->slot, now_ns);
    }
    slot_set_state(steps->slot, SHM_SLOT_COMMITTING);
    for (uint32_t i = 0; i < count; i++)
        if (!row_store_commit(store, views[i].event, views[i].token, steps->stage->position, STAGES))
            violation("a commit failed", views[i].event, atomic_load(&store->rows[views[i].event].word));
    for (uint32_t i = 0; i < count; i++) {
        atomic_store(&store->rows[views[i].event].holder, 0);
        steps_hand_on(steps, tickets[i], steps->stage->position + 1);
    }
}

static void process_worker_run_batch(struct steps *steps)
{
    while (!steps_stopping(steps)) {
        uint32_t tickets[BATCH];
        struct ticket_view views[BATCH];
        uint32_t count = steps_take(steps, tickets, views, BATCH);
        if (count > 0)
            work_batch(steps, tickets, views, count);
        else
            steps_idle(steps);
    }
}

/* --- the supervisor: the test itself */

#define WATCHDOG_SECONDS 20
#define EVENTS_PER_KILL \
    2000u              /* at most; when they are used up the children sleep, and are killed in their sleep */
#define CHECK_EVERY 25 /* kills */

static uint64_t random_state;

static uint32_t random_below(uint32_t bound) /* xorshift64* */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * UINT64_C(2685821657736338717)) >> 33) % bound;
}

static pid_t supervisor_pid;
static bool requeue_left;
static uint32_t kills, kills_in_state[16], orphaned, requeued;

static _Noreturn void give_up(const char *why)
{
    fprintf(stderr, "failed: %s (created %u, first open %u, kills %u)\n", why, atomic_load(&store->created),
            row_store_first(store), kills);
    for (uint32_t i = PRODUCER; i < SLOTS; i++) {
        struct shm_slot *slot = segment_slot(&segment, i);
        fprintf(stderr, "  slot %u pid %d %s wake %u\n", i, atomic_load(&slot->pid),
                shm_slot_state_name(atomic_load(&slot->state)), atomic_load(&slot->wake));
    }
    for (uint32_t i = 0; i < STAGES; i++) {
        const struct shm_ring *ring = &segment_stage(&segment, i)->ring;
        fprintf(stderr, "  ring %u: head %" PRIu64 " tail %" PRIu64 " count %u wanted %u\n", i,
                atomic_load(&ring->head), atomic_load(&ring->tail), ring_count(ring),
                atomic_load(&ring->space_wanted));
    }
    for (uint32_t i = 0; i < TICKETS; i++) {
        struct ticket_view view = ticket_read(&segment, i);
        fprintf(stderr, "  ticket %u phase %u stage %u slot %u event %" PRId64 "\n", i, view.phase,
                view.stage, view.slot, view.event);
    }
    for (uint32_t i = PRODUCER; i < SLOTS; i++)
        if (atomic_load(&segment_slot(&segment, i)->pid) > 0)
            kill(atomic_load(&segment_slot(&segment, i)->pid), SIGKILL);
    exit(EXIT_FAILURE);
}

static _Noreturn void child_run(uint32_t index)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != supervisor_pid)
        _exit(EXIT_FAILURE);
    segment_close_lock(&segment);
    struct steps steps = steps_for(&segment, index);
    if (index == PRODUCER)
        producer_run(&steps);
    else
        process_worker_run_batch(&steps);
    _exit(EXIT_SUCCESS);
}

static void spawn(uint32_t index)
{
    struct shm_slot *slot = segment_slot(&segment, index);
    slot_open(slot);
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0)
        child_run(index);
    slot_set_pid(slot, pid);
}

/* The order of DESIGN section 5: what it owned is orphaned, what fell out goes back, all look again. */
static void recover(uint32_t index)
{
    bool orphans = false;
    for (uint32_t i = 0; i < TICKETS; i++) {
        struct ticket_view view = ticket_read(&segment, i);
        uint32_t holder = index + 1;
        if (view.phase == TICKET_RUNNING && view.slot == index)
            atomic_compare_exchange_strong(&store->rows[view.event].holder, &holder, 0);
        if (ticket_mark_orphaned(&segment, i, index)) {
            orphans = true;
            orphaned++;
        }
    }
    if (orphans)
        atomic_store(&source->orphans, 1);
    requeued += ticket_requeue_lost(&segment, source, &requeue_left);
    slot_clear(segment_slot(&segment, index), SHM_SLOT_BACKOFF);
    wake_source(&segment, source);
}

static uint32_t slot_of(pid_t pid)
{
    for (uint32_t i = PRODUCER; i < SLOTS; i++)
        if (atomic_load(&segment_slot(&segment, i)->pid) == pid)
            return i;
    give_up("a child that is nobody's");
}

/* Reaps and recovers; returns how many. Any end but by our signal is a failure, and so is any end once
 * stopped but an orderly one. */
static uint32_t reap(int options, bool respawn, int expected)
{
    uint32_t count = 0;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, options)) > 0; count++) {
        if (status != expected)
            give_up("a child ended by itself");
        uint32_t index = slot_of(pid);
        recover(index);
        if (respawn)
            spawn(index);
    }
    if (requeue_left)
        requeued += ticket_requeue_lost(&segment, source, &requeue_left);
    if (requeued > 0)
        wake_source(&segment, source);
    if (atomic_load(&store->violation) != 0)
        give_up("an invariant does not hold");
    return count;
}

/* Until a child ends, or the time has passed. */
static void wait_child(long nanoseconds)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigtimedwait(&set, NULL, &(struct timespec){.tv_nsec = nanoseconds});
}

static void check_standstill(void)
{
    static uint32_t commits;
    static uint64_t since_ns;
    uint64_t now_ns = shm_now_ns();
    if (since_ns == 0)
        since_ns = now_ns;
    uint32_t seen = atomic_load(&store->commits);
    if (seen != commits || row_store_first(store) == atomic_load(&store->allowed)) {
        commits = seen;
        since_ns = now_ns;
    } else if (now_ns - since_ns > WATCHDOG_SECONDS * UINT64_C(1000000000)) {
        give_up("a standstill");
    }
}

static void kill_one(void)
{
    struct shm_slot *slot = segment_slot(&segment, PRODUCER + random_below(SLOTS - PRODUCER));
    uint32_t state = atomic_load(&slot->state);
    kill(atomic_load(&slot->pid), SIGKILL);
    kills_in_state[state & 15]++;
    kills++;
}

/* --- everything in exactly one place */

struct places {
    uint32_t in_ring[STAGES][TICKETS];
};

struct ring_walk {
    uint32_t *in_ring;
};

static void on_entry(uint32_t ticket, void *user)
{
    if (ticket < TICKETS)
        ((struct ring_walk *)user)->in_ring[ticket]++;
}

static bool check_ticket(const struct places *places, uint32_t ticket)
{
    struct ticket_view view = ticket_read(&segment, ticket);
    if (view.phase == TICKET_FREE)
        return true;
    uint64_t word = atomic_load(&store->rows[view.event].word);
    if (view.phase == TICKET_QUEUED) {
        if (word != row_word(ROW_LOCKED, view.stage, view.token))
            violation("a queued ticket without the store's lock", view.event, word);
        else if (places->in_ring[view.stage][ticket] == 0 && !requeue_left)
            violation("a queued ticket in no ring", view.event, ticket);
    } else if (view.phase != TICKET_ORPHANED) {
        violation("a ticket is owned though all are dead", view.event, ticket);
    }
    return false;
}

static void check_rows(void)
{
    uint32_t created = atomic_load(&store->created);
    for (uint32_t event = row_store_first(store); event < created; event++) {
        uint64_t word = atomic_load(&store->rows[event].word);
        uint32_t owners = 0;
        for (uint32_t i = 0; i < TICKETS; i++) {
            struct ticket_view view = ticket_read(&segment, i);
            owners += view.phase != TICKET_FREE && view.event == event && view.token == row_token(word);
        }
        if (row_state(word) == ROW_NONE || (row_state(word) == ROW_LOCKED && owners != 1))
            violation("an event in no place, or in two", event, word);
        if (atomic_load(&store->rows[event].holder) != 0)
            violation("an event in a crashed worker's hands", event, word);
    }
}

/* All children are dead and recovered. Returns how many tickets are not FREE. */
static uint32_t check_places(void)
{
    struct places places = {0};
    uint32_t used = 0;
    for (uint32_t i = 0; i < STAGES; i++) {
        struct ring_walk walk = {places.in_ring[i]};
        ring_each(&segment, &segment_stage(&segment, i)->ring, on_entry, &walk);
    }
    for (uint32_t i = 0; i < TICKETS; i++)
        used += !check_ticket(&places, i);
    check_rows();
    if (atomic_load(&store->violation) != 0)
        give_up("after a recovery");
    return used;
}

static void kill_all_and_check(void)
{
    for (uint32_t i = PRODUCER; i < SLOTS; i++)
        kill(atomic_load(&segment_slot(&segment, i)->pid), SIGKILL);
    for (uint32_t dead = 0; dead < SLOTS - PRODUCER;)
        dead += reap(0, false, SIGKILL);
    kills += SLOTS - PRODUCER;
    check_places();
    for (uint32_t i = PRODUCER; i < SLOTS; i++)
        spawn(i);
}

static void allow_events(uint32_t count)
{
    uint32_t allowed = atomic_load(&store->allowed);
    atomic_store(&store->allowed, allowed + count < store->capacity ? allowed + count : store->capacity);
    wake_slot(segment_slot(&segment, PRODUCER));
}

static void run(uint32_t target)
{
    uint32_t next_check = CHECK_EVERY;
    for (uint32_t i = PRODUCER; i < SLOTS; i++)
        spawn(i);
    while (kills < target) {
        wait_child(random_below(2500000));
        reap(WNOHANG, true, SIGKILL);
        for (uint32_t burst = random_below(8) == 0 ? 3 : 1; burst > 0; burst--)
            kill_one();
        if (kills >= next_check) {
            kill_all_and_check();
            next_check = kills + CHECK_EVERY;
        }
        allow_events(random_below(EVENTS_PER_KILL));
        check_standstill();
    }
    allow_events(10 *
                 EVENTS_PER_KILL); /* and a while without kills, whose recovery would hide a lost wake-up */
    while (row_store_first(store) < atomic_load(&store->allowed)) {
        wait_child(1000000);
        reap(WNOHANG, true, SIGKILL);
        check_standstill();
    }
}

static void stop(void)
{
    while (ticket_count(&segment, source, NULL, NULL) > 0) { /* the last is freed after its commit */
        wait_child(1000000);
        reap(WNOHANG, true, SIGKILL);
        if (shm_now_ns() - segment.header->started_ns > UINT64_C(600000000000))
            give_up("tickets are left");
    }
    atomic_store(&segment.header->phase, SHM_PHASE_STOPPED);
    wake_source(&segment, source);
    alarm(WATCHDOG_SECONDS);
    reap(0, false, 0);
    alarm(0);
    if (check_places() != 0)
        give_up("tickets are left at the end");
}

int main(int argc, char **argv)
{
    const char *given = argc > 1 ? argv[1] : getenv("EVENTPIPE_SEED");
    uint64_t seed =
        given != NULL ? strtoull(given, NULL, 10) : (shm_now_ns() ^ (uint64_t)getpid() << 40) % 1000000000;
    uint32_t target = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 400;
    sigset_t set;
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);
    random_state = seed * UINT64_C(2654435761) + 88172645463325252u;
    supervisor_pid = getpid();
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL); /* waited for; children never look at it */
    segment = shm_fixture(STAGES, WORKERS, LIMIT, TICKETS);
    source = segment_source(&segment, 0);
    store = row_store_make(target * EVENTS_PER_KILL + 20 * EVENTS_PER_KILL);
    if (store == NULL) {
        fprintf(stderr, "no memory for %u kills\n", target);
        return EXIT_FAILURE;
    }
    run(target);
    stop();
    printf("%u kills, %u events, all done once; %u tickets orphaned, %u put back; killed while", kills,
           atomic_load(&store->created), orphaned, requeued);
    for (uint32_t i = 0; i < 16; i++)
        if (kills_in_state[i] > 0)
            printf(" %s %u", shm_slot_state_name(i), kills_in_state[i]);
    printf("\n");
    segment_close(&segment);
    return EXIT_SUCCESS;
}
