/* SPDX-License-Identifier: MIT */
/*
 * Tickets, rings and recovery: no kill loses an event, gives it two owners, or keeps it for ever.
 *
 * One source has two stages of PER_STAGE workers. Two processes push to ring 1 (the workers of stage 0) and two pop
 * from it (those of stage 1). The producer and the workers of stage 0 share ring 0. Any of them, and the supervisor,
 * is killed at any step, KILLS times. A ring's push and pop are one step here; rounds.pml shows that they are.
 *
 *   producer()    src/process/producer_claim.c: process_producer_unlock_orphaned, process_producer_claim_events
 *                 (process_producer_commit_claim), process_producer_publish_claim; open_producer
 *   worker()      src/process/worker.c: take_events, run_event; src/process/worker_commit.c: process_worker_commit_pending,
 *                 hand_over_events
 *   supervisor()  supervisor/recover.c: recover_one; shm/ticket.c: ticket_requeue_lost; supervisor/watch.c
 *   start_again   the next supervisor: a fresh segment, and a store that has made the earlier locks void
 *
 * Each d_step is one instruction of the program that others can see, or one transaction of the store.
 * killer() checks `places` at every instant. `timeout` is the standstill: by then all events must be done.
 * One -D each leaves out a step that guards the events, and the checker must find an error then. tickets.sh lists
 * them, each in a scope in which it shows.
 *
 * What the processes share, and its C functions: tickets_state.pml.
 */
#include "tickets_state.pml"

proctype producer(byte me)
{
    byte t, e, s; /* s: the stage at which the event goes on (process_chain_find_next) */
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
            d_step { alive[p] = ALIVE; p = 0 } /* watch_start_due */
        :: d_step { fallen -> fallen = false };
            requeue_lost()
        :: d_step { left && (count[0] < SIZE || count[1] < SIZE) -> left = false };
            requeue_lost()
        od
    } unless { !supervised };
    /* The next one waits for the lock that the instance holds until its last process is gone. */
#ifndef EARLY_START
    reaped(0) && reaped(1) && reaped(PRODUCER - 2) && reaped(PRODUCER - 1) && reaped(PRODUCER);
#endif
    d_step { /* start_again */
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
