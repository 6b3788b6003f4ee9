/* SPDX-License-Identifier: MIT */
/*
 * Stand-ins for the bodies of producer, worker and keeper. A struct in shared memory (instance_world)
 * replaces the store; it outlives every process but the test. enum doom says what happens when a stage gets
 * an event.
 */
#ifndef TESTS_LIB_SUPERVISOR_BODIES_H
#define TESTS_LIB_SUPERVISOR_BODIES_H

#include "shm/segment.h"

#define INSTANCE_EVENTS 2000
#define INSTANCE_STAGES 2
#define INSTANCE_WORKERS 3 /* of each stage */
#define INSTANCE_BATCH 4
#define INSTANCE_MAX_CRASHES 3

enum doom {
    DOOM_NONE,
    DOOM_SEGV,      /* crashes at every attempt, with output on its stderr */
    DOOM_SEGV_ONCE, /* crashes at the first attempt only */
    DOOM_EXIT,      /* exits with 3 */
    DOOM_BROKEN,    /* the worker gives up over its program, and reports the cause */
    DOOM_HANG,      /* never returns; has a child of its own */
    DOOM_WAIT,      /* waits until let_go is set */
    DOOM_FLOOD      /* prints without end for a while */
};

struct instance_event {
    _Atomic uint32_t doom, done, dead; /* done: how often it reached its end */
    _Atomic uint32_t crashes, timeouts, released;
    _Atomic uint32_t tries[INSTANCE_STAGES];
    _Atomic uint32_t cause_kind;
    _Atomic int32_t cause_code;
    char cause_message[SHM_TEXT_BYTES];
};

struct instance_world {
    _Atomic uint32_t events;      /* how many there are; ids are 1 .. events */
    _Atomic uint32_t let_go;      /* DOOM_WAIT ends */
    _Atomic uint32_t waiting;     /* how many wait or hang */
    _Atomic uint32_t open_fails;  /* workers of stage 0 cannot be opened */
    _Atomic uint32_t keeper_busy; /* so many starts of the keeper fail for now */
    _Atomic uint32_t keeper_refuses;
    _Atomic uint32_t fall_out;   /* the next worker to take an entry out of a ring crashes over it */
    _Atomic uint32_t fill_ring;  /* the next worker of stage 0 finds the second ring full of stale entries */
    _Atomic uint32_t stale;      /* how many it put there */
    _Atomic uint32_t batch;      /* how many events a worker takes at a time, at most INSTANCE_BATCH; 0 = 1 */
    _Atomic uint32_t call_us;    /* how long each call takes */
    _Atomic uint32_t never_ends; /* the producer does not say that the source has ended */
    _Atomic uint32_t sequence;   /* counts orderly ends */
    _Atomic uint32_t worker_end, producer_end, keeper_end; /* the last of each kind */
    _Atomic uint32_t keeper_starts;
    _Atomic int32_t grandchild; /* DOOM_HANG's child */
    struct instance_event event[INSTANCE_EVENTS + 1];
};

extern struct instance_world *instance_world;

#endif
