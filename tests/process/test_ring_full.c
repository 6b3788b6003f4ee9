/* SPDX-License-Identifier: MIT */
/* A ring that stale copies have filled to the brim takes no push: what was handed over then is put in later
 * by the supervisor, and lost to nobody. */
#include <signal.h>

#include "tests/lib/supervisor_fixture.h"

static void test_full_ring_loses_nothing(void)
{
    instance_prepare(40);
    atomic_store(&instance_world->never_ends, 1);
    atomic_store(&instance_world->fill_ring, 1);
    instance_start();
    CU_ASSERT(UNTIL(INSTANCE_PATIENCE_MS, instance_events_done() == 40));
    CU_ASSERT(atomic_load(&instance_world->stale) > 0);
    CU_ASSERT(instance_log_has("requeue source=quakes"));
    CU_ASSERT_FALSE(instance_log_has("crash process"));
    kill(instance.pid, SIGTERM);
    struct error error;
    CU_ASSERT_EQUAL(instance_wait(&error), 0);
    for (uint32_t id = 1; id <= 40; id++) {
        CU_ASSERT_EQUAL(instance_world->event[id].done, 1);
        CU_ASSERT_EQUAL(instance_world->event[id].tries[1], 1);
    }
    instance_end();
}

UNIT_MAIN("ring full", {"a full ring loses nothing", test_full_ring_loses_nothing})
