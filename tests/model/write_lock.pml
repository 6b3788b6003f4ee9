/* SPDX-License-Identifier: MIT */
/*
 * The write lock: no kill leaves it held, and no process sleeps waiting for a write lock that is free.
 *
 *   writer()  shm/write_lock.c: write_lock_acquire (trylock, then wait_for_write_lock in slices), write_lock_release;
 *             inside it the C library's robust mutex: the word holds the owner and a bit that says a process sleeps
 *   killed    the kernel marks a crashed owner's mutex and wakes one sleeper; it does nothing for a process that has
 *             released the mutex and has not yet made the call that wakes the next
 *   look      the end of a slice, TRY_INTERVAL_MS: the sleeper tries again
 *
 * WRITERS processes enter ROUNDS times each; KILLS of them crash at any step. By `timeout` each is through or dead.
 */
#ifndef WRITERS
#define WRITERS 3
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif

byte holder = 0; /* process + 1 */
bool sleepers = false, crashed = false;
bool asleep[WRITERS], killed[WRITERS], through[WRITERS];
byte kills = KILLS, inside = 0, w;

inline wake_one()
{
    w = 0;
    do
    :: w < WRITERS && !asleep[w] -> w++
    :: w < WRITERS && asleep[w] -> asleep[w] = false; break
    :: w == WRITERS -> break
    od;
    w = 0
}

proctype writer(byte me)
{
    byte round = 0;
    bool woke = false;
    {
        do
        :: round < ROUNDS ->
            do
            :: d_step { holder == 0 -> holder = me + 1; sleepers = sleepers || woke; crashed = false; inside++; assert(inside == 1) };
                break
            :: d_step { holder != 0 -> sleepers = true };
                d_step { /* the kernel compares the word and queues the sleeper in one step */
                    if
                    :: holder != 0 && sleepers -> asleep[me] = true; woke = true
                    :: else
                    fi
                };
                if
                :: !asleep[me]
#ifndef ONE_LONG_SLEEP
                :: d_step { asleep[me] && holder == 0 -> asleep[me] = false } /* the slice is over */
#endif
                fi
            od;
            skip; /* the transaction */
            d_step { assert(holder == me + 1); inside--; holder = 0; woke = sleepers; sleepers = false };
            if
            :: woke -> d_step { wake_one() }
            :: else
            fi;
            d_step { woke = false; round++ }
        :: else -> break
        od;
        through[me] = true
    } unless { killed[me] };
    d_step {
        asleep[me] = false;
        if
#ifdef NOT_ROBUST
        :: false
#else
        :: holder == me + 1 -> inside--; holder = 0; crashed = true; sleepers = false; wake_one()
#endif
        :: else
        fi
    }
}

active proctype killer()
{
    do
    :: d_step { kills > 0 && !killed[0] && !through[0] -> kills--; killed[0] = true }
    :: d_step { kills > 0 && !killed[1] && !through[1] -> kills--; killed[1] = true }
    :: d_step { kills > 0 && !killed[WRITERS - 1] && !through[WRITERS - 1] -> kills--; killed[WRITERS - 1] = true }
    :: timeout ->
        atomic {
            w = 0;
            do
            :: w < WRITERS -> assert(through[w] || killed[w]); w++
            :: else -> break
            od;
            w = 0
        };
        break
    od
}

init {
    atomic {
        w = 0;
        do
        :: w < WRITERS -> run writer(w); w++
        :: else -> break
        od;
        w = 0
    }
}
