/* SPDX-License-Identifier: MIT */
/*
 * The state of tickets.pml: its scope, the segment, the store, the living processes, and the steps that change them.
 * Each d_step is one instruction of the program that others can see, or one transaction of the store.
 *
 *   push, pop    shm/ring.c: ring_push, ring_pop        pass   shm/ticket.c: ticket_pass_on
 *   claim        src/process/producer_claim.c: process_producer_commit_claim        release   unlock_orphan_batch
 *   places       no function: what must be so at every instant
 */
#ifndef EVENTS
#define EVENTS 1
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef RETRIES
#define RETRIES 0
#endif
#ifndef STOPS
#define STOPS 0 /* crashes of the supervisor */
#endif
#ifndef TICKETS
#define TICKETS 2
#endif
#ifndef SIZE
#define SIZE 4 /* words of a ring */
#endif
#ifndef PER_STAGE
#define PER_STAGE 2 /* workers of a stage; 1 or 2 */
#endif
#define PRODUCER (2 * PER_STAGE) /* before it the workers, first those of stage 0 */
#define PROCESSES (PRODUCER + 1)
#define NOBODY 7
#define reaped(process) (alive[process] == REAPED)
#define stage_of(process) (process / PER_STAGE)

#define KILLED 0
#define ALIVE 1
#define REAPED 2

#define FREE 0
#define LOADING 1
#define QUEUED 2
#define RUNNING 3
#define ORPHANED 4
#define READY 0
#define LOCKED 1
#define DONE 2

/* the segment */
byte phase[TICKETS], at[TICKETS], owner[TICKETS], event[TICKETS], token[TICKETS];
byte word[2 * SIZE], head[2], count[2];
bool orphans = false, fallen = false;
/* the store */
byte state[EVENTS], done[EVENTS], lock[EVENTS];
byte claims = 0, retries = RETRIES;
/* the system */
byte alive[PROCESSES]; /* ALIVE, KILLED, REAPED */
bool supervised = true;
byte kills = KILLS, stops = STOPS;
byte hands[EVENTS]; /* the process that processes it now, + 1 */

byte i, n; /* of places(), 0 between its steps */

inline push(ring, ticket, ok)
{
    ok = count[ring] < SIZE;
    if
    :: ok ->
        word[ring * SIZE + (head[ring] + count[ring]) % SIZE] = ticket + 1;
        count[ring]++
    :: else
    fi
}

inline pop(ring, ticket)
{
    ticket = word[ring * SIZE + head[ring]] - 1;
    word[ring * SIZE + head[ring]] = 0;
    head[ring] = (head[ring] + 1) % SIZE;
    count[ring]--
}

inline places()
{
    i = 0;
    do
    :: i < EVENTS ->
        n = 0;
        if
        :: state[i] == LOCKED ->
            if
            :: phase[0] != FREE && event[0] == i && token[0] == lock[i] -> n++
            :: else
            fi;
            if
            :: TICKETS > 1 && phase[TICKETS - 1] != FREE && event[TICKETS - 1] == i && token[TICKETS - 1] == lock[i] -> n++
            :: else
            fi;
            assert(n == 1)
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0;
    n = 0
}

#define owned_by(t, me) ((phase[t] == LOADING || phase[t] == RUNNING) && owner[t] == me)

inline queue(t, stage)
{
    d_step {
        assert(owned_by(t, me));
        phase[t] = QUEUED;
        at[t] = stage;
        owner[t] = NOBODY
    }
}

inline pass(t, stage) /* the copy of its number is all that the process needs after the first step */
{
    queue(t, stage);
    d_step {
        push(stage, t, ok);
#ifndef NO_FALLEN
        if
        :: !ok -> fallen = true
        :: else
        fi;
#endif
        ok = false
    }
}

/* Only what is claimed at this instant is bound: the ticket is LOADING, and its owner alone looks at it. */
inline claim(e, t)
{
    d_step {
        assert(state[e] == READY && phase[t] == FREE);
        phase[t] = LOADING;
        owner[t] = me
    };
#ifndef BIND_LATE
    d_step {
        event[t] = e;
        token[t] = claims + 1
    };
#endif
    d_step {
        assert(state[e] == READY);
        claims++;
        state[e] = LOCKED;
        lock[e] = claims;
        s = done[e]
    };
#ifdef BIND_LATE
    d_step {
        event[t] = e;
        token[t] = claims
    };
#endif
}

inline release(t)
{
#ifdef FREE_FIRST
    d_step {
        phase[t] == ORPHANED;
        phase[t] = FREE;
        owner[t] = NOBODY
    };
#endif
    d_step {
#ifdef RELEASE_BY_EVENT
        if
        :: state[event[t]] == LOCKED -> state[event[t]] = READY
#else
        if
        :: state[event[t]] == LOCKED && lock[event[t]] == token[t] -> state[event[t]] = READY
#endif
        :: else
        fi
    };
#ifndef FREE_FIRST
    d_step {
        phase[t] = FREE;
        owner[t] = NOBODY;
        event[t] = 0;
        token[t] = 0
    };
#endif
}
