/* SPDX-License-Identifier: MIT */
/*
 * What the tests of group commit share: a store of held events, a segment, and workers in processes of their
 * own that commit what they are told to. The test itself is whoever else there is: it holds the write lock,
 * takes commit requests, recovers.
 */
#ifndef TESTS_LIB_GROUP_RIG_H
#define TESTS_LIB_GROUP_RIG_H

#include <stdatomic.h>
#include <unistd.h>

#include "shm/write_lock.h"
#include "src/process/group_codec.h"
#include "src/process/group_commit.h"
#include "src/store/sqlite/sqlite.h"
#include "tests/lib/shm_fixture.h"
#include "tests/lib/store_files.h"
#include "tests/lib/wal_syncs.h"

#define GROUP_RIG_WORKERS 40
#define GROUP_RIG_WORKER 2       /* slot of the first of them; 0 is the keeper's, 1 the producer's */
#define GROUP_RIG_ANSWERS 20     /* of one worker, at most */
#define GROUP_RIG_WATCHDOG_S 240 /* what hangs ends the test */
#define GROUP_RIG_TEST_SLOT 0    /* the test's own */

struct group_rig_worker { /* what the test and one worker tell each other */
    struct store_answer answers[GROUP_RIG_ANSWERS];
    size_t count;
    _Atomic bool open; /* it has its store */
    _Atomic bool go;
    _Atomic bool stands;  /* its wal_syncs_before has acted, and it stays there */
    _Atomic int refusals; /* EP_ESTOREBUSY that it got */
    bool applied[GROUP_RIG_ANSWERS];
    int code;
    pid_t pid;
};

struct group_rig {       /* shared by all */
    _Atomic int commits; /* transactions of workers */
    struct group_rig_worker workers[GROUP_RIG_WORKERS];
};

extern struct segment group_rig_segment;
extern struct group_rig *group_rig;
extern struct held group_rig_held;
extern struct group_rig_worker *group_rig_self; /* in a worker */
/* The worker of a slot. */
struct group_rig_worker *group_rig_at(uint32_t slot);
void group_rig_nap(void);

/* A store of `count` events, all held, and nobody at work yet. The test has no handle: workers are forked. */
void group_rig_begin(size_t count);

/* After the last worker was forked. */
void group_rig_open(void);
void group_rig_end(void);

/* ---- workers ---- */

/* Told before it is forked: `count` answers from this event on. */
struct group_rig_worker *group_rig_report(uint32_t slot, enum store_change change, size_t first,
                                          size_t count);

/* prepare: done in the worker once it has opened its store; NULL = nothing. */
void group_rig_fork(uint32_t slot, void prepare(struct store *store));

/* Lets the worker commit. */
void group_rig_go(uint32_t slot);

/* The state of its commit request, without touching it. */
enum commit_request_state group_rig_state(uint32_t slot);

/* A request that waits is complete once its bit is set, too: submit sets the state first, then the bit. */
void group_rig_await(uint32_t slot, enum commit_request_state state);

/* How it ended: 0 = it came through. */
int group_rig_wait(uint32_t slot);

/* How many of its answers were applied. */
size_t group_rig_applied(uint32_t slot);

/* It came through, and all its answers were committed. */
void group_rig_through(uint32_t slot);

/* ---- the test's part ---- */
/* Takes the write lock. */
void group_rig_shut(void);

/* Releases it, and wakes whoever waits for it. */
void group_rig_let_go(void);

#endif
