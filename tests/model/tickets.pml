/* SPDX-License-Identifier: MIT */
/*
 * Tickets, rings and recovery: no kill loses an event, gives it two owners, or keeps it for ever.
 *
 * One source with two stages of PER_STAGE workers. Ring 1 has two processes that push (the workers of stage 0) and two
 * that pop (those of stage 1), ring 0 the producer and the workers of stage 0. Any of them, and the supervisor, is killed
 * at any step, KILLS times. A ring's push and pop are one step here; rounds.pml shows that they are.
 *
 *   producer()   src/producer_claim.c: release_orphans, claim_due (load_ticket), claim_publish; producer_open
 *   worker()     src/worker.c: worker_take, run_event; src/worker_commit.c: worker_commit, hand_over
 *   supervisor() supervisor/recover.c: recover_one; shm/ticket.c: ticket_requeue_lost; supervisor/watch.c
 *   push, pop    shm/ring.c: ring_push_over, ring_pop        pass   shm/ticket.c: ticket_pass
 *   start_anew   the next supervisor: a fresh segment, and a store whose locks of before are void
 *
 * Each d_step is one instruction of the program that others can see, or one transaction of the store.
 * killer() holds `places` at every instant; `timeout` is the standstill: by then all events must be done.
 * What guards the events is left out by one -D each, and the checker must see it: tickets.sh lists them, each in a
 * scope in which it shows.
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
#define STOPS 0 /* deaths of the supervisor */
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
byte hands[EVENTS]; /* who has it in hand now: process + 1 */

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
#ifdef BURY_FIRST
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
#ifndef BURY_FIRST
    d_step {
        phase[t] = FREE;
        owner[t] = NOBODY;
        event[t] = 0;
        token[t] = 0
    };
#endif
}

proctype producer(byte me)
{
    byte t, e, s; /* s: the stage at which the event goes on (chain_next) */
    bool ok;
begin:
    {
#ifndef NO_OPENING_LOOK
        orphans = true;
#endif
        skip;
end:
        do
        :: d_step { orphans -> orphans = false; t = 0 };
            do
            :: t < TICKETS ->
                if
                :: phase[t] == ORPHANED -> release(t)
                :: phase[t] != ORPHANED
                fi;
                t++
            :: t == TICKETS -> t = 0; break
            od
        :: d_step { state[0] == READY && !orphans && (phase[0] == FREE || phase[TICKETS - 1] == FREE) ->
                e = 0; t = (phase[0] == FREE -> 0 : TICKETS - 1) };
            claim(e, t);
            pass(t, s);
            d_step { e = 0; t = 0; s = 0 }
        :: d_step { EVENTS > 1 && state[EVENTS - 1] == READY && !orphans &&
                    (phase[0] == FREE || phase[TICKETS - 1] == FREE) ->
                e = EVENTS - 1; t = (phase[0] == FREE -> 0 : TICKETS - 1) };
            claim(e, t);
            pass(t, s);
            d_step { e = 0; t = 0; s = 0 }
        od
    } unless { alive[me] == KILLED };
    d_step { t = 0; e = 0; s = 0; ok = false; alive[me] = REAPED };
end_dead:
    do
    :: alive[me] == ALIVE -> break
    :: d_step { alive[me] == KILLED -> alive[me] = REAPED } /* before its first step */
    od;
    goto begin
}

proctype worker(byte me)
{
    byte t, e;
    bool ok;
begin:
    {
        skip;
end:
        do
        :: d_step { count[stage_of(me)] > 0; pop(stage_of(me), t) };
            d_step {
#ifdef TAKE_BLIND
                ok = true;
#else
                ok = phase[t] == QUEUED && at[t] == stage_of(me);
#endif
                if
                :: ok ->
                    phase[t] = RUNNING;
                    at[t] = stage_of(me);
                    owner[t] = me;
                    e = event[t];
                    assert(hands[e] == 0);
                    assert(state[e] == LOCKED && lock[e] == token[t] && done[e] == stage_of(me));
                    hands[e] = me + 1
                :: else
                fi
            };
            if
            :: ok ->
                ok = false;
#ifdef HAND_OVER_FIRST
                if
                :: stage_of(me) == 0 -> queue(t, 1)
                :: else
                fi;
#endif
                /* the answer's transaction; then what becomes of the ticket */
                if
                :: d_step {
                        assert(state[e] == LOCKED && lock[e] == token[t]);
                        done[e]++;
                        hands[e] = 0;
                        state[e] = (done[e] == 2 -> DONE : LOCKED)
                    };
                    if
                    :: stage_of(me) == 0 ->
#ifdef HAND_OVER_FIRST
                        d_step { push(1, t, ok); ok = false }
#else
                        pass(t, 1)
#endif
                    :: else ->
                        d_step { assert(owned_by(t, me)); phase[t] = FREE; owner[t] = NOBODY; event[t] = 0; token[t] = 0 }
                    fi
                :: d_step { /* to be tried again: READY at once */
                        retries > 0 ->
                        retries--;
                        assert(state[e] == LOCKED && lock[e] == token[t]);
                        hands[e] = 0;
                        state[e] = READY
                    };
                    d_step { assert(owned_by(t, me)); phase[t] = FREE; owner[t] = NOBODY; event[t] = 0; token[t] = 0 }
                fi
            :: else
            fi;
            d_step { t = 0; e = 0 }
        od
    } unless { alive[me] == KILLED };
    d_step { t = 0; e = 0; ok = false; alive[me] = REAPED };
end_dead:
    do
    :: alive[me] == ALIVE -> break
    :: d_step { alive[me] == KILLED -> alive[me] = REAPED } /* before its first step */
    od;
    goto begin
}

inline requeue_lost()
{
    /* rings first */
    j = 0;
    do
    :: j < 2 * SIZE ->
        d_step {
            if
#ifdef ANY_RING
            :: word[j] != 0 -> seen[word[j] - 1] = true
#else
            :: word[j] != 0 && phase[word[j] - 1] == QUEUED && at[word[j] - 1] == j / SIZE -> seen[word[j] - 1] = true
#endif
            :: else
            fi;
            j++
        }
    :: else -> break
    od;
    j = 0;
    do
    :: j < TICKETS ->
        d_step {
            if
            :: phase[j] == QUEUED && !seen[j] -> ring = at[j]; lost = true
            :: else
            fi
        };
        d_step {
            if
            :: lost ->
                push(ring, j, ok);
                left = left || !ok
            :: else
            fi;
            ok = false;
            lost = false;
            ring = 0;
            seen[j] = false;
            j++
        }
    :: else -> j = 0; break
    od;
    skip
}

proctype supervisor()
{
    byte p, j, ring;
    bool seen[TICKETS], lost, ok, left;
begin:
    {
        skip;
end:
        do
        :: d_step {
                reaped(0) || reaped(1) || reaped(PRODUCER - 2) || reaped(PRODUCER - 1) || reaped(PRODUCER);
                do
                :: !reaped(p) -> p++
                :: else -> break
                od
            };
            j = 0;
            do
            :: j < TICKETS ->
                d_step {
#ifndef NO_ORPHANS
                    if
#ifdef ORPHAN_ANYBODYS
                    :: phase[j] == LOADING || phase[j] == RUNNING ->
#else
                    :: owned_by(j, p) ->
#endif
                        phase[j] = ORPHANED;
                        if
                        :: event[j] < EVENTS && hands[event[j]] == p + 1 -> hands[event[j]] = 0
                        :: else
                        fi;
                        lost = true
                    :: else
                    fi;
#endif
                    j++
                }
            :: else -> j = 0; break
            od;
            skip;
            d_step {
                orphans = orphans || lost;
                lost = false
            };
#ifndef NO_REQUEUE
            requeue_lost();
#endif
            d_step { alive[p] = ALIVE; p = 0 } /* watch_restarts */
        :: d_step { fallen -> fallen = false };
            requeue_lost()
        :: d_step { left && (count[0] < SIZE || count[1] < SIZE) -> left = false };
            requeue_lost()
        od
    } unless { !supervised };
    /* The next one waits for the lock that the family holds until its last process is gone. */
#ifndef EARLY_START
    reaped(0) && reaped(1) && reaped(PRODUCER - 2) && reaped(PRODUCER - 1) && reaped(PRODUCER);
#endif
    d_step { /* start_anew */
        p = 0;
        do
        :: p < TICKETS -> phase[p] = FREE; at[p] = 0; owner[p] = NOBODY; event[p] = 0; token[p] = 0; seen[p] = false; p++
        :: else -> break
        od;
        p = 0;
        do
        :: p < 2 * SIZE -> word[p] = 0; p++
        :: else -> break
        od;
        head[0] = 0; head[1] = 0; count[0] = 0; count[1] = 0;
        orphans = false; fallen = false; lost = false; left = false; ok = false; ring = 0; j = 0;
        p = 0;
        do
        :: p < EVENTS ->
#ifndef KEEP_LOCKS
            if
            :: state[p] == LOCKED -> state[p] = READY
            :: else
            fi;
#endif
            hands[p] = 0;
            p++
        :: else -> break
        od;
        p = 0;
        do
        :: p < PROCESSES -> alive[p] = ALIVE; p++
        :: else -> break
        od;
        p = 0;
        supervised = true
    };
    goto begin
}

#define strike(process) kills > 0 && alive[process] == ALIVE && supervised -> kills--; alive[process] = KILLED; places()
#define follow(process) !supervised && alive[process] == ALIVE -> alive[process] = KILLED; places()

proctype killer()
{
end:
    do
    :: d_step { strike(0) }
    :: d_step { strike(1) }
    :: d_step { strike(PRODUCER - 2) }
    :: d_step { strike(PRODUCER - 1) }
    :: d_step { strike(PRODUCER) }
    :: d_step { stops > 0 && supervised -> stops--; supervised = false; places() }
    :: d_step { follow(0) } /* PR_SET_PDEATHSIG, each in its time */
    :: d_step { follow(1) }
    :: d_step { follow(PRODUCER - 2) }
    :: d_step { follow(PRODUCER - 1) }
    :: d_step { follow(PRODUCER) }
    :: timeout ->
        places();
        i = 0;
        do
        :: i < EVENTS -> assert(state[i] == DONE && done[i] == 2); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < TICKETS -> assert(phase[i] == FREE); i++
        :: else -> break
        od;
        break
    od
}

init {
    atomic {
        i = 0;
        do
        :: i < PROCESSES -> alive[i] = ALIVE; i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < TICKETS -> owner[i] = NOBODY; i++
        :: else -> break
        od;
        i = 0;
        run producer(PRODUCER);
        run worker(0);
        run worker(1);
#if PER_STAGE == 2
        run worker(2);
        run worker(3);
#endif
        run supervisor();
        run killer()
    }
}
