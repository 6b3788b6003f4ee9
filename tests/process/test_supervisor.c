/* SPDX-License-Identifier: MIT */
/* The supervisor with an instance of stand-in processes: starts, exits of all kinds, recovery, restarts, the
 * end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "tests/lib/supervisor_fixture.h"

#define CHECK_DONE(n) CU_ASSERT_EQUAL(instance_events_done(), n)

static int run_to_end(struct error *error)
{
    instance_start();
    return instance_wait(error);
}

static void test_runs_until_all_have_ended(void)
{
    instance_prepare(200);
    struct error error;
    CU_ASSERT_EQUAL(run_to_end(&error), 0);
    CHECK_DONE(200);
    for (uint32_t id = 1; id <= 200; id++) {
        CU_ASSERT_EQUAL(instance_world->event[id].done, 1);
        CU_ASSERT_EQUAL(instance_world->event[id].tries[0], 1);
    }
    CU_ASSERT_EQUAL(segment_attach(instance.name, &instance.segment), -ENOENT);
    CU_ASSERT_NOT_EQUAL(access(instance.control, F_OK), 0);
    CU_ASSERT_EQUAL(instance_world->keeper_starts, 1);
    /* the order of going: workers, producer, keeper */
    CU_ASSERT(instance_world->worker_end < instance_world->producer_end);
    CU_ASSERT(instance_world->producer_end < instance_world->keeper_end);
    instance_end();
}

static void test_crash_is_blamed_on_the_current_event(void)
{
    instance_prepare(100);
    atomic_store(&instance_world->batch, INSTANCE_BATCH);
    atomic_store(&instance_world->event[7].doom, DOOM_SEGV);
    atomic_store(&instance_world->event[8].doom, DOOM_EXIT);
    atomic_store(&instance_world->event[9].doom, DOOM_BROKEN);
    atomic_store(&instance_world->event[50].doom, DOOM_SEGV_ONCE);
    struct error error;
    CU_ASSERT_EQUAL(run_to_end(&error), 0);
    CHECK_DONE(97);
    const struct instance_event *event = instance_world->event;
    CU_ASSERT_EQUAL(event[7].crashes, INSTANCE_MAX_CRASHES);
    CU_ASSERT_EQUAL(event[7].cause_kind, SHM_CAUSE_SIGNAL);
    CU_ASSERT_EQUAL(event[7].cause_code, SIGSEGV);
    CU_ASSERT_STRING_EQUAL(
        event[7].cause_message,
        "signal 11 (Segmentation fault); last stderr output: about to fail | null pointer, of course");
    CU_ASSERT_EQUAL(event[8].cause_kind, SHM_CAUSE_EXIT);
    CU_ASSERT_EQUAL(event[8].cause_code, 3);
    CU_ASSERT_STRING_EQUAL(event[8].cause_message, "exit code 3");
    CU_ASSERT_EQUAL(event[9].cause_kind, SHM_CAUSE_MALFORMED);
    CU_ASSERT_STRING_EQUAL(event[9].cause_message, "its program gave a malformed answer");
    CU_ASSERT_EQUAL(event[50].crashes, 1);
    CU_ASSERT_EQUAL(event[50].done, 1);
    uint32_t released = 0;
    for (uint32_t id = 1; id <= 100; id++)
        released += event[id].released;
    CU_ASSERT(released > 0); /* those that were held with them */
    for (uint32_t id = 1; id <= 100; id++)
        if (id != 7 && id != 8 && id != 9 && id != 50) {
            CU_ASSERT_EQUAL(event[id].crashes, 0);
            CU_ASSERT_EQUAL(event[id].done, 1);
        }
    CU_ASSERT(instance_log_has("quakes/first["));
    CU_ASSERT(instance_log_has("]: about to fail"));
    instance_end();
}

static void test_overrun_is_killed_with_all_its_children(void)
{
    instance_prepare(30);
    instance.stages[0].timeout_ms = 200;
    atomic_store(&instance_world->event[5].doom, DOOM_HANG);
    uint64_t begin = shm_now_ns();
    instance_start();
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance_world->grandchild) != 0));
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance_world->event[5].timeouts) == 1));
    CU_ASSERT(shm_now_ns() - begin >= UINT64_C(200000000));
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    CHECK_DONE(29);
    CU_ASSERT_EQUAL(instance_world->event[5].cause_kind, SHM_CAUSE_TIMEOUT);
    CU_ASSERT_STRING_EQUAL(instance_world->event[5].cause_message, "timed out after 200ms");
    CU_ASSERT_FALSE(instance_process_exists(instance_world->grandchild));
    instance_end();
}

static void test_producer_crashes(void)
{
    instance_prepare(50);
    atomic_store(&instance_world->event[50].doom, DOOM_WAIT);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    const struct shm_slot *slot =
        segment_slot(&instance.segment, segment_source(&instance.segment, 0)->producer_slot);
    for (int i = 0; i < 2; i++) {
        CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&slot->pid) > 0));
        pid_t pid = atomic_load(&slot->pid);
        uint32_t generation = atomic_load(&slot->generation);
        kill(pid, SIGKILL);
        CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS,
                        atomic_load(&slot->generation) == generation + 1 && atomic_load(&slot->pid) > 0));
    }
    CU_ASSERT_EQUAL(slot->restarts, 2);
    char message[SHM_TEXT_BYTES];
    text_get(&slot->last_exit, message, sizeof message);
    CU_ASSERT_STRING_EQUAL(message, "signal 9 (Killed)");
    atomic_store(&instance_world->let_go, 1);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    CHECK_DONE(50);
    instance_end();
}

static void test_what_fell_out_of_a_ring_comes_back(void)
{
    instance_prepare(20);
    atomic_store(&instance_world->fall_out, 1);
    struct error error;
    CU_ASSERT_EQUAL(run_to_end(&error), 0);
    CHECK_DONE(20);
    CU_ASSERT_EQUAL(instance_world->fall_out, 0);
    CU_ASSERT(instance_log_has(
        "requeue source=quakes events=")); /* and maybe one that another had just taken out */
    for (uint32_t id = 1; id <= 20; id++)
        CU_ASSERT_EQUAL(instance_world->event[id].crashes, 0);
    instance_end();
}

static void test_random_kills_lose_nothing(void)
{
    instance_prepare(1500);
    atomic_store(&instance_world->call_us, 1000);
    atomic_store(&instance_world->batch, 2);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    uint32_t slots = instance.segment.header->slot_count, seed = 4711, kills = 0;
    while (kills < 40 && instance_events_done() < 1500) {
        uint32_t before = instance_events_done();
        seed = seed * 1103515245 + 12345;
        pid_t pid = atomic_load(&segment_slot(&instance.segment, (seed >> 16) % slots)->pid);
        if (pid > 0 && kill(pid, SIGKILL) == 0)
            kills++;
        CU_ASSERT(
            UNTIL(INSTANCE_PATIENCE_MS, instance_events_done() >= 1500 || instance_events_done() > before));
    }
    CU_ASSERT(kills >= 20);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    uint32_t dead = 0;
    for (uint32_t id = 1; id <= 1500; id++) {
        dead += atomic_load(&instance_world->event[id].dead);
        CU_ASSERT(instance_world->event[id].done > 0 || instance_world->event[id].dead > 0);
    }
    CU_ASSERT(dead <= kills / INSTANCE_MAX_CRASHES);
    instance_end();
}

static void test_supervisor_crashes(void)
{
    instance_prepare(10);
    atomic_store(&instance_world->never_ends, 1);
    atomic_store(&instance_world->event[1].doom, DOOM_HANG);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS,
                    instance_events_done() == 9 && atomic_load(&instance_world->grandchild) != 0));
    pid_t pids[16];
    uint32_t slots = instance.segment.header->slot_count;
    for (uint32_t i = 0; i < slots; i++)
        pids[i] = atomic_load(&segment_slot(&instance.segment, i)->pid);
    kill(instance.pid, SIGKILL);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), EP_ESYSTEM);
    CU_ASSERT_STRING_EQUAL(error.message, "the supervisor was killed by signal 9");
    for (uint32_t i = 0; i < slots; i++)
        CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, !instance_process_exists(pids[i])));
    /* no process was left to do it; without exec, it holds what its parent held */
    kill(atomic_load(&instance_world->grandchild), SIGKILL);
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, !segment_owner_lives(&instance.segment)));
    segment_close(&instance.segment);
    /* its successor takes over what it left: segment, socket, lock */
    atomic_store(&instance_world->never_ends, 0);
    atomic_store(&instance_world->event[1].doom, DOOM_NONE);
    CU_ASSERT_EQUAL(run_to_end(&error), 0);
    CHECK_DONE(10);
    instance_end();
}

static void test_stop_finishes_the_current_event(void)
{
    instance_prepare(100);
    atomic_store(&instance_world->never_ends, 1);
    for (uint32_t id = 1; id <= 100; id++)
        atomic_store(&instance_world->event[id].doom, DOOM_WAIT);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance_world->waiting) == INSTANCE_WORKERS));
    kill(instance.pid, SIGTERM);
    CU_ASSERT(
        UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance.segment.header->phase) == SHM_PHASE_STOPPING));
    atomic_store(&instance_world->let_go, 1);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    uint32_t begun = 0, blamed = 0;
    for (uint32_t id = 1; id <= 100; id++) {
        begun += atomic_load(&instance_world->event[id].tries[0]);
        blamed += atomic_load(&instance_world->event[id].crashes);
    }
    CU_ASSERT_EQUAL(begun, INSTANCE_WORKERS); /* the current events, no other */
    CU_ASSERT_EQUAL(blamed, 0);
    CU_ASSERT(instance_world->keeper_end > instance_world->producer_end);
    CU_ASSERT(instance_world->producer_end > instance_world->worker_end);
    instance_end();
}

static void hang_and_stop(bool twice)
{
    instance_prepare(3);
    atomic_store(&instance_world->never_ends, 1);
    atomic_store(&instance_world->event[2].doom, DOOM_HANG);
    instance.stages[0].timeout_ms = 0;
    instance.config.drain_timeout_ms = twice ? 3600000 : 300;
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS,
                    atomic_load(&instance_world->waiting) == 1 && instance_events_done() == 2));
    kill(instance.pid, SIGTERM);
    if (twice) {
        CU_ASSERT(
            UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance.segment.header->phase) == SHM_PHASE_STOPPING));
        kill(instance.pid, SIGTERM); /* at once: one order sent twice, as timeout(1) does */
        CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS,
                        kill(instance.pid, SIGTERM) != 0 ||
                            !instance_process_exists(atomic_load(&instance_world->grandchild))));
    }
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    CU_ASSERT_EQUAL(instance_world->event[2].crashes, 0); /* our doing, not its */
    CU_ASSERT_FALSE(instance_process_exists(instance_world->grandchild));
    instance_end();
}

static void test_drain_deadline(void)
{
    hang_and_stop(false);
}

static void test_second_signal_ends_it_now(void)
{
    hang_and_stop(true);
}

static void test_bad_starts_back_off(void)
{
    instance_prepare(20);
    instance.stages[0].restart_max_backoff_ms = 300;
    atomic_store(&instance_world->open_fails, 1);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    const struct shm_stage *stage = segment_stage(&instance.segment, 0);
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&stage->degraded) == 1));
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance_worker(0, 0)->restarts) >= 3));
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance_worker(0, 0)->state) == SHM_SLOT_BACKOFF));
    CU_ASSERT(atomic_load(&instance_worker(0, 0)->restart_at_ns) > 0);
    char message[SHM_TEXT_BYTES];
    text_get(&instance_worker(0, 0)->last_exit, message, sizeof message);
    CU_ASSERT_STRING_EQUAL(message, "no such program");
    CU_ASSERT(
        UNTIL(INSTANCE_PATIENCE_MS, instance_log_has("ready processes="))); /* degraded is started, too */
    atomic_store(&instance_world->never_ends, 1);
    atomic_store(&instance_world->open_fails, 0);
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, instance_events_done() == 20));
    /* a worker that answered calls gets its backoff reset at the next turn; one without an event does not */
    kill(instance.pid, SIGTERM);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    CU_ASSERT(instance_log_has("degraded stage=quakes/first"));
    instance_end();
}

static void test_store_that_cannot_be_had(void)
{
    instance_prepare(5);
    atomic_store(&instance_world->keeper_refuses, 1);
    struct error error;
    CU_ASSERT_EQUAL(run_to_end(&error), EP_ESTORE);
    CU_ASSERT_STRING_EQUAL(error.message, "the store is of another age");
    CU_ASSERT_EQUAL(instance_world->keeper_starts, 1);
    CHECK_DONE(0);
    instance_end();

    instance_prepare(5); /* for now only: tried again */
    atomic_store(&instance_world->keeper_busy, 2);
    CU_ASSERT_EQUAL(run_to_end(&error), 0);
    CU_ASSERT_EQUAL(instance_world->keeper_starts, 3);
    CU_ASSERT(instance_log_has("the store is locked"));
    CHECK_DONE(5);
    instance_end();
}

static void test_keeper_crashes(void)
{
    instance_prepare(5);
    atomic_store(&instance_world->never_ends, 1);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    const struct shm_slot *keeper = segment_slot(&instance.segment, instance.segment.header->keeper_slot);
    kill(atomic_load(&keeper->pid), SIGKILL);
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance_world->keeper_starts) == 2 &&
                                              atomic_load(&keeper->state) == SHM_SLOT_IDLE));
    /* it may have crashed between a change of an operator's and telling the producers of it */
    for (uint32_t i = 0; i < instance.segment.header->source_count; i++)
        CU_ASSERT_EQUAL(atomic_load(&segment_source(&instance.segment, i)->rescan), 1);
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS,
                    strstr(instance_ask("{\"command\":\"queue\"}\n"), "keeper read") != NULL));
    kill(instance.pid, SIGTERM);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    instance_end();
}

static void test_process_groups(void)
{
    instance_prepare(3);
    atomic_store(&instance_world->never_ends, 1);
    instance_start();
    CU_ASSERT_FATAL(instance_runs());
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS,
                    atomic_load(&instance_worker(1, INSTANCE_WORKERS - 1)->state) == SHM_SLOT_IDLE));
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS,
                    atomic_load(&instance_worker(0, INSTANCE_WORKERS - 1)->state) == SHM_SLOT_IDLE));
    for (uint32_t stage = 0; stage < INSTANCE_STAGES; stage++)
        for (uint32_t i = 0; i < INSTANCE_WORKERS; i++)
            CU_ASSERT_EQUAL(getpgid(instance_worker(stage, i)->pid),
                            segment_stage(&instance.segment, stage)->process_group);
    CU_ASSERT_NOT_EQUAL(segment_stage(&instance.segment, 0)->process_group,
                        segment_stage(&instance.segment, 1)->process_group);
    CU_ASSERT_NOT_EQUAL(getpgid(instance_worker(0, 0)->pid), getpgid(instance.pid));
    CU_ASSERT_NOT_EQUAL(getpgid(instance.pid), getpgrp());
    /* a stage killed whole: a new group; the other stage has not noticed */
    int32_t old = segment_stage(&instance.segment, 0)->process_group,
            other = segment_stage(&instance.segment, 1)->process_group;
    kill(-old, SIGKILL);
    for (uint32_t i = 0; i < INSTANCE_WORKERS; i++)
        CU_ASSERT(
            UNTIL(INSTANCE_PATIENCE_MS, atomic_load(&instance_worker(0, i)->generation) == 2 &&
                                            atomic_load(&instance_worker(0, i)->state) == SHM_SLOT_IDLE));
    CU_ASSERT_EQUAL(segment_stage(&instance.segment, 1)->process_group, other);
    for (uint32_t i = 0; i < INSTANCE_WORKERS; i++) {
        CU_ASSERT_EQUAL(getpgid(instance_worker(0, i)->pid),
                        segment_stage(&instance.segment, 0)->process_group);
        CU_ASSERT_EQUAL(instance_worker(1, i)->generation, 1);
    }
    kill(instance.pid, SIGINT);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    instance_end();
}

static void test_flood_of_output(void)
{
    instance_prepare(30);
    atomic_store(&instance_world->event[3].doom, DOOM_FLOOD);
    struct error error;
    CU_ASSERT_EQUAL(run_to_end(&error), 0);
    CHECK_DONE(30);
    CU_ASSERT(instance_log_has("water water water 0"));
    CU_ASSERT_FALSE(instance_log_has("water water water 19999"));
    struct stat status;
    CU_ASSERT(stat(instance.log_path, &status) == 0 && status.st_size < 200000);
    instance_end();
}

UNIT_MAIN("supervisor",
          {"all events go through, then all end cleanly, and nothing is left",
           test_runs_until_all_have_ended},
          {"a crash is blamed on the current event, with its last stderr output",
           test_crash_is_blamed_on_the_current_event},
          {"an event that runs too long is killed, with its worker's children",
           test_overrun_is_killed_with_all_its_children},
          {"a crashed producer's successor goes on", test_producer_crashes},
          {"what fell out of a ring comes back", test_what_fell_out_of_a_ring_comes_back},
          {"random kills lose nothing", test_random_kills_lose_nothing},
          {"a crashed supervisor's children exit, and its successor goes on", test_supervisor_crashes},
          {"a stop finishes the current events, and begins no other", test_stop_finishes_the_current_event},
          {"the drain deadline ends who does not stop, without blame", test_drain_deadline},
          {"so does a second signal, at once", test_second_signal_ends_it_now},
          {"a stage that cannot be opened is tried again at a slower pace", test_bad_starts_back_off},
          {"a store of another age is refused, a locked one waited for", test_store_that_cannot_be_had},
          {"a crashed keeper comes again", test_keeper_crashes},
          {"one process group a stage", test_process_groups},
          {"a flood of output is cut and blocks no process", test_flood_of_output})
