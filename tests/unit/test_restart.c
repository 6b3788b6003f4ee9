/* SPDX-License-Identifier: MIT */
/* The restart policy: when an exited process is started again. */
#include "supervisor/restart.h"

#include "tests/lib/unit.h"

#define SECOND UINT64_C(1000000000)
#define LONGEST_MS 30000

static const struct restart_life useless = {.born_ns = SECOND, .now_ns = 2 * SECOND, .ready = true};

static void test_first_at_once_then_doubled(void)
{
    struct restart restart = {0};
    static const uint64_t expected[] = {0, 250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        CU_ASSERT_EQUAL(restart_after_exit(&restart, &useless, LONGEST_MS), expected[i]);
    for (int i = 0; i < 1000; i++)
        CU_ASSERT_EQUAL(restart_after_exit(&restart, &useless, LONGEST_MS), LONGEST_MS);
}

static void test_longest_pause_is_the_stages(void)
{
    struct restart restart = {0};
    static const uint64_t expected[] = {0, 250, 300, 300};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        CU_ASSERT_EQUAL(restart_after_exit(&restart, &useless, 300), expected[i]);
    restart = (struct restart){.level = 5};
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &useless, UINT64_MAX), 4000);
    restart = (struct restart){.level = 1};
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &useless, 100), 100);
}

static void test_useful_life_begins_again(void)
{
    struct restart restart = {.level = 6};
    struct restart_life life = useless;
    life.made_progress = true;
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 0);
    CU_ASSERT_EQUAL(restart.level, 1);
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &useless, LONGEST_MS), 250);
}

static void test_giving_up_is_not_useful(void)
{
    struct restart restart = {.level = 3};
    struct restart_life life = useless;
    life.made_progress = life.gave_up_over_store = true;
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 1000);
    CU_ASSERT_TRUE(
        restart_while_alive(&restart, &(struct restart_life){.ready = true, .made_progress = true}));
    CU_ASSERT_FALSE(restart_degraded(&restart));
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 2000); /* it was reset too early */
    life.now_ns = life.born_ns + 60 * SECOND;
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 0);
    CU_ASSERT_TRUE(
        restart_while_alive(&restart, &(struct restart_life){.ready = true, .made_progress = true}));
    life.gave_up_over_store = false;
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 0);
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &useless, LONGEST_MS), 250);
}

static void test_long_life_begins_again(void)
{
    struct restart restart = {.level = 6};
    struct restart_life life = useless;
    life.now_ns = life.born_ns + 60 * SECOND - 1;
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 8000);
    life.now_ns = life.born_ns + 60 * SECOND;
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 0);
    /* a minute of trying to get ready is not useful */
    restart.level = 6;
    life.ready = false;
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 8000);
}

static void test_suspect_event_does_not_slow_restarts(void)
{
    struct restart restart = {0};
    struct restart_life life = useless;
    life.is_event_suspect = true;
    for (int i = 0; i < 10; i++)
        CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 0);
    CU_ASSERT_EQUAL(restart.level, 0);
    /* but a stage that is being slowed down stays so, at its pace */
    restart.level = 3;
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 500);
    CU_ASSERT_EQUAL(restart.level, 3);
}

static void test_operators_restart_is_no_crash(void)
{
    struct restart restart = {.level = 4};
    struct restart_life life = useless;
    life.requested = true;
    CU_ASSERT_EQUAL(restart_after_exit(&restart, &life, LONGEST_MS), 0);
    CU_ASSERT_EQUAL(restart.level, 4);
}

static void test_degraded_from_second_useless_life(void)
{
    struct restart restart = {0};
    CU_ASSERT_FALSE(restart_degraded(&restart));
    restart_after_exit(&restart, &useless, LONGEST_MS);
    CU_ASSERT_FALSE(restart_degraded(&restart));
    restart_after_exit(&restart, &useless, LONGEST_MS);
    CU_ASSERT_TRUE(restart_degraded(&restart));
}

static void test_reset_while_alive(void)
{
    struct restart restart = {.level = 3};
    struct restart_life life = useless;
    CU_ASSERT_FALSE(restart_while_alive(&restart, &life));
    CU_ASSERT_TRUE(restart_degraded(&restart));
    life.made_progress = true;
    CU_ASSERT_TRUE(restart_while_alive(&restart, &life));
    CU_ASSERT_FALSE(restart_degraded(&restart));
    CU_ASSERT_FALSE(restart_while_alive(&restart, &life)); /* nothing left to reset: no change to tell */
    restart.level = 3;
    life.made_progress = false;
    life.now_ns = life.born_ns + 61 * SECOND;
    CU_ASSERT_TRUE(restart_while_alive(&restart, &life));
}

UNIT_MAIN("restart",
          {"the first restart is immediate, then pauses double up to the longest, for ever",
           test_first_at_once_then_doubled},
          {"the longest pause holds, whatever it is", test_longest_pause_is_the_stages},
          {"a process that answered a call starts from the beginning", test_useful_life_begins_again},
          {"so does one that was at work for a minute", test_long_life_begins_again},
          {"one that gave up over its store does not", test_giving_up_is_not_useful},
          {"an event that crashed here before is blamed, not the process",
           test_suspect_event_does_not_slow_restarts},
          {"an operator's restart changes nothing", test_operators_restart_is_no_crash},
          {"degraded from the second useless life in a row", test_degraded_from_second_useless_life},
          {"a process at work again is reset", test_reset_while_alive})
