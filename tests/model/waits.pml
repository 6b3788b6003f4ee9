/* SPDX-License-Identifier: MIT */
/*
 * Sleep and wake-up: no process sleeps for ever while there is work for it, whichever process is killed.
 *
 *   producer()    src/process/producer.c: run_producer_turn, sleep_until_work (wishes: space_wanted, tickets_wanted)
 *   worker()      src/process/worker.c: run_worker_turn, take_events, sleep_worker_until;
 *                 src/process/worker_commit.c: hand_over_events
 *   prepare, nap  shm/wake.c: wake_prepare; wake_sleep (the kernel compares the word and queues the sleeper in one
 *                 step) and wake_cancel
 *   wake_slot, wake_stage (wake_unless_chosen), wake_for_leftover, wake_waiters_for_room (wake_slot_if_blocked), wake_ticket_freed
 *                 shm/wake.c
 *   supervisor()  supervisor/recover.c: recover_events, with wake_source, then slot_clear and a new start
 *
 * One stage has two workers, and one producer waits for room in its ring and for tickets. A ring is its count here
 * (rounds.pml); a ticket without an owner is a number (tickets.pml). All sleep without a time-out. One event may run
 * so long that it ends only when all others are done: the other worker must do them. By `timeout` all are done.
 * Where little is left the real worker puts wake_for_leftover off, to its next turn or its committer
 * (wake_for_old_leftover); here it is a step that may come late anyway.
 * ELSEWHERE is not in it: here no process waits for two things but the producer, whom wake_stage does not know.
 */
#ifndef EVENTS
#define EVENTS 3
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef LIMIT
#define LIMIT 1
#endif
#ifndef TICKETS
#define TICKETS 2
#endif
#define PRODUCER 2 /* 0, 1: workers */

/* the segment */
bool sleeping[3], woken[3], blocked; /* the wake words; the producer's state */
byte count = 0, unused = TICKETS;
bool space_wanted, tickets_wanted, orphans;
/* the kernel */
bool queued[3], dead[3], reaped[3];
/* the store, and what a process holds */
byte ready = EVENTS, done = 0, lost = 0;
bool hand[3], long_one, hangs[2];
byte kills = KILLS;

inline call(process)
{
    queued[process] = false
}

inline wake_slot(process)
{
    d_step {
#ifdef PASS_OVER_WOKEN
        was = sleeping[process] && !woken[process];
#else
        was = sleeping[process];
#endif
#ifndef NO_WOKEN
        woken[process] = true
#endif
    };
    if
    :: was -> call(process)
    :: !was
    fi;
    was = false
}

inline wake_stage()
{
    d_step {
        was = sleeping[0] && !woken[0];
#ifndef NO_WOKEN
        woken[0] = woken[0] || was
#endif
    };
    if
    :: was -> call(0)
    :: !was ->
        d_step {
            was = sleeping[1] && !woken[1];
#ifndef NO_WOKEN
            woken[1] = woken[1] || was
#endif
        };
        if
        :: was -> call(1)
        :: !was
        fi
    fi;
    was = false
}

inline prepare()
{
    d_step { sleeping[me] = true; woken[me] = false }
}

inline cancel()
{
    d_step { sleeping[me] = false; woken[me] = false }
}

inline nap()
{
    d_step { queued[me] = sleeping[me] && !woken[me] };
end_nap:
    !queued[me];
    cancel()
}

proctype producer()
{
    byte me = PRODUCER;
    bool was, look, wants;
begin:
    {
        orphans = true;
        do
        :: d_step { dead[me] == false -> look = orphans; orphans = false };
            if
            :: look -> d_step { ready = ready + lost; unused = unused + lost; lost = 0; look = false }
            :: !look ->
                if
                :: ready > 0 && count < LIMIT && unused > 0 ->
                    d_step { ready--; unused--; hand[me] = true };
                    d_step { hand[me] = false; count++ };
                    wake_stage()
                :: else ->
                    wants = ready > 0;
                    blocked = wants;
#ifndef LOOK_FIRST
                    prepare();
#endif
                    if
                    :: wants ->
#ifndef NO_SPACE_WANTED
                        space_wanted = true;
#endif
                        tickets_wanted = true
                    :: !wants
                    fi;
                    look = orphans;
                    if
                    :: !look && wants && count < LIMIT -> look = unused > 0
                    :: else
                    fi;
#ifdef LOOK_FIRST
                    prepare();
#endif
                    if
                    :: look -> cancel()
                    :: !look -> nap()
                    fi;
                    d_step { blocked = false; look = false; wants = false }
                fi
            fi
        od
    } unless { dead[me] };
    d_step { was = false; look = false; wants = false; blocked = false; reaped[me] = true };
end_dead:
    !reaped[me];
    goto begin
}

inline wake_waiters_for_room()
{
    if
    :: space_wanted ->
        if
        :: count <= LIMIT / 2 ->
            d_step { look = space_wanted; space_wanted = false };
            if
            :: look && blocked -> wake_slot(PRODUCER)
            :: else
            fi
        :: else
        fi
    :: else
    fi;
    look = false
}

inline wake_ticket_freed()
{
    d_step { look = tickets_wanted; tickets_wanted = false };
    if
    :: look -> wake_slot(PRODUCER)
    :: !look
    fi;
    look = false
}

proctype worker(byte me)
{
    bool was, look;
begin:
    {
        do
        :: d_step { dead[me] == false -> look = count > 0; count = (look -> count - 1 : count); hand[me] = look };
            if
            :: look ->
                look = false;
#ifndef NO_WAKE_ROOM
                wake_waiters_for_room();
#endif
                if
                :: count > 0 -> wake_stage() /* wake_for_leftover */
                :: else
                fi;
                if
                #if TICKETS > 1
                :: d_step { !long_one -> long_one = true; hangs[me] = true };
end_long:
                    done == EVENTS - 1
#endif
                :: true
                fi;
#ifdef WAKE_FIRST
                wake_ticket_freed();
#endif
                d_step { hand[me] = false; hangs[me] = false; unused++; done++ };
#if !defined(WAKE_FIRST) && !defined(NO_TICKET_WAKE)
                wake_ticket_freed()
#endif
            :: !look ->
#ifdef LOOK_FIRST
                look = count > 0;
                prepare();
#else
                prepare();
                look = count > 0;
#endif
                if
                :: look -> cancel()
                :: !look -> nap()
                fi;
                look = false
            fi
        od
    } unless { dead[me] };
    d_step { was = false; look = false; reaped[me] = true };
end_dead:
    !reaped[me];
    goto begin
}

proctype supervisor()
{
    byte p;
    bool was;
end:
    do
    :: d_step { reaped[0] || reaped[1] || reaped[2] -> p = (reaped[0] -> 0 : (reaped[1] -> 1 : 2)) };
        d_step {
            if
            :: hand[p] ->
                hand[p] = false;
                lost++;
                orphans = true;
                if
                :: p < 2 && hangs[p] -> hangs[p] = false; long_one = false
                :: else
                fi
            :: else
            fi
        };
#ifndef NO_WAKE_SOURCE
        wake_slot(PRODUCER);
        wake_slot(0);
        wake_slot(1);
#endif
        d_step { sleeping[p] = false; woken[p] = false; queued[p] = false; dead[p] = false; reaped[p] = false; p = 0 }
    od
}

proctype killer()
{
    do
    :: d_step { kills > 0 && !dead[0] -> kills--; dead[0] = true }
    :: d_step { kills > 0 && !dead[1] -> kills--; dead[1] = true }
    :: d_step { kills > 0 && !dead[2] -> kills--; dead[2] = true }
    :: timeout -> assert(done == EVENTS && ready == 0 && unused == TICKETS); break
    od
}

init {
    atomic {
        run producer();
        run worker(0);
        run worker(1);
        run supervisor();
        run killer()
    }
}
