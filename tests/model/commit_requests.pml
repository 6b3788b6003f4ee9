/* SPDX-License-Identifier: MIT */
/*
 * Group commit. Whichever process is killed, each answer is committed once, its owner hears only of what is on the
 * disk, and no process sleeps for ever.
 *
 *   worker()           src/process/group_commit.c: process_group_commit, wait_for_leader, finish_waiting,
 *                      commit_as_leader, complete_requests; process_worker_commit_pending, which tries again
 *   submit, poll,      shm/commit_request.c: commit_request_submit, commit_request_poll, commit_request_wait (the
 *   sleep_until_change kernel compares and queues in one step)
 *   collect, take      src/process/group_commit.c: collect_requests; shm/commit_request.c: commit_request_withdraw,
 *                      commit_request_take
 *   leave              src/store/sqlite/sqlite.c: store_sqlite_release_write_lock; shm/commit_request.c:
 *                      commit_request_notify
 *   apply              one group in a transaction; `again`: find_completed
 *   supervisor()       supervisor/recover.c: commit_request_recover; then the producer unlocks by token, and a new
 *                      process starts
 *
 * WORKERS workers commit ROUNDS answers each. An answer names its event's row and token, and leaves both
 * (STORE_ADVANCE), so a second commit of it would change the row again. The write lock is one step here
 * (write_lock.pml); a killed holder frees it. A transaction is seen as a whole or not at all. FAULTS of them fail, or the
 * sync after them fails. KILLS of the processes crash at any step. Only then, or where a process goes on without the write
 * lock, may a wake-up come from the end of a slice. In all other searches there are no slices.
 */
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef FAULTS
#define FAULTS 0
#endif
#if (KILLS > 0 || defined(NO_WRITE_LOCK)) && !defined(NO_SLICES)
#define SLICES
#endif

#define NONE 0
#define WAITING 1
#define NOTIFIED 2
#define TAKEN 3
#define DONE 4
#define RETURNED 5
#define LOST 6

#define TAKES 2 /* commit requests of others in one transaction */

/* A version is a row's token and its number among the worker's rows. */
#define version_of(worker) (token[worker * ROUNDS + round[worker]] * ROUNDS + round[worker] + 1)
#define row_of(worker, version) (worker * ROUNDS + (version - 1) % ROUNDS)
#define waits(worker) (state[worker] == WAITING || state[worker] == NOTIFIED)

/* the segment: a word is its state and its half (taker or result) */
byte state[WORKERS], half[WORKERS], head[WORKERS], tail[WORKERS]; /* a body has two ends */
bool bit_of[WORKERS];
/* the kernel */
byte write_lock = 0; /* worker + 1 */
bool asleep[WORKERS], killed[WORKERS], dead[WORKERS];
/* the store */
byte token[WORKERS * ROUNDS], tally[WORKERS * ROUNDS];
bool synced[WORKERS * ROUNDS];
/* what the workers do, and what is left */
byte round[WORKERS], current[WORKERS]; /* current: the version that is committed now */
bool through[WORKERS];
byte kills = KILLS, faults = FAULTS, w;

/* ---- the owner ---- */

inline submit()
{
    head[me] = current[me];
    tail[me] = current[me];
#ifdef BIT_FIRST
    bit_of[me] = true;
    d_step { state[me] = WAITING; half[me] = 0 }
#else
    d_step { state[me] = WAITING; half[me] = 0 };
    bit_of[me] = true
#endif
}

inline poll()
{
    d_step {
        if
        :: state[me] == NOTIFIED -> state[me] = WAITING
        :: else
        fi
    };
    d_step { seen = (state[me] == NOTIFIED -> WAITING : state[me]); result = half[me] }
}

inline sleep_until_change()
{
    seen = state[me];
    if
    :: seen == WAITING || seen == TAKEN ->
        asleep[me] = state[me] == seen;
        if
        :: !asleep[me]
#ifdef SLICES
        /* the slice is over; shown only where there is something new to see */
        :: d_step { asleep[me] && (state[me] != seen || (seen == WAITING && write_lock == 0)) -> asleep[me] = false }
#endif
        fi
    :: else
    fi;
    seen = NONE
}

/* ---- the holder of the write lock, and who has left it ---- */

inline notify()
{
    s = (me + 1) % WORKERS;
    do
    :: s != me ->
        if
        :: bit_of[s] ->
            d_step {
                ok = state[s] == WAITING;
                state[s] = (ok -> NOTIFIED : state[s])
            };
            if
            :: ok -> asleep[s] = false; break
            :: !ok && state[s] == NOTIFIED -> break
            :: !ok && state[s] != NOTIFIED
            fi
        :: else
        fi;
        s = (s + 1) % WORKERS
    :: else -> break
    od;
    atomic { s = 0; ok = false }
}

/* NO_WRITE_LOCK: the time for it may be over, and the store's own lock must do. */
inline enter()
{
    if
    :: d_step { write_lock == 0 -> write_lock = me + 1 }
#ifdef NO_WRITE_LOCK
    :: write_lock != 0
#endif
    fi
}

inline leave()
{
    if
    :: write_lock == me + 1 ->
#ifdef NOTIFY_FIRST
        notify();
        write_lock = 0
#else
        write_lock = 0;
#ifndef NO_NOTIFY
        notify()
#endif
#endif
    :: else
    fi
}

/* Ends in ok: a copy that is whole, of a commit request that is ours. */
inline take()
{
    bit_of[s] = false;
#ifdef TRY_EACH
    d_step {
        ok = state[s] == WAITING;
        if
        :: ok -> state[s] = TAKEN; half[s] = me
        :: else
        fi
    };
    if
    :: !ok ->
        d_step {
            ok = state[s] == NOTIFIED;
            if
            :: ok -> state[s] = TAKEN; half[s] = me
            :: else
            fi
        }
    :: else
    fi;
#else
    d_step {
        ok = waits(s);
        if
        :: ok -> state[s] = TAKEN; half[s] = me
        :: else
        fi
    };
#endif
    if
    :: ok ->
        seen = head[s];
        copy = tail[s];
        d_step {
#ifndef NO_SECOND_LOOK
            ok = state[s] == TAKEN && half[s] == me;
#endif
            assert(!ok || copy == seen);
            seen = NONE
        }
    :: else
    fi
}

inline complete_one(owner, as, value)
{
    d_step {
        ok = state[owner] == TAKEN && half[owner] == me;
        if
        :: ok -> state[owner] = as; half[owner] = value
        :: else
        fi
    };
    if
    :: ok ->
#ifndef NO_WAKE
        asleep[owner] = false;
#endif
        ok = false
    :: else
    fi
}

inline collect()
{
    s = (me + 1) % WORKERS;
    do
    :: s != me && n < TAKES ->
        if
        :: bit_of[s] ->
            take();
            if
#ifndef TAKE_TWICE
            :: ok && n > 0 && from[0] == s -> complete_one(s, RETURNED, 0)
            :: ok && (n == 0 || from[0] != s) -> d_step { from[n] = s; version[n] = copy; n++ }
#else
            :: ok -> d_step { from[n] = s; version[n] = copy; n++ }
#endif
            :: else
            fi;
            d_step { ok = false; copy = 0 }
        :: else
        fi;
        s = (s + 1) % WORKERS
    :: else -> break
    od;
    s = 0
}

/* Within the transaction. */
inline apply(owner, what, once_more, changed)
{
    w = row_of(owner, what);
    changed = token[w] == (what - 1) / ROUNDS;
    if
#ifndef NO_AGAIN_CHECK
    :: changed && once_more && tally[w] > 0 /* find_completed */
    :: changed && !(once_more && tally[w] > 0) ->
#else
    :: changed ->
#endif
        tally[w]++;
        assert(tally[w] == 1);
        wrote = true
    :: !changed
    fi;
    w = 0
}

inline sync()
{
    d_step {
        w = 0;
        do
#ifdef SYNC_WRITTEN
        :: w < WORKERS * ROUNDS && wrote -> synced[w] = synced[w] || tally[w] > 0; w++
#else
        :: w < WORKERS * ROUNDS && (wrote || again) -> synced[w] = synced[w] || tally[w] > 0; w++
#endif
        :: else -> break
        od;
        w = 0;
        wrote = false
    }
}

/* An owner is told only of its own answer, and only of what is committed and on the disk. */
inline complete(as)
{
    do
    :: s < n ->
        d_step {
            if
            :: state[from[s]] == TAKEN && half[from[s]] == me ->
                assert(version[s] == current[from[s]]);
                assert(as != DONE || (applied[s] && tally[row_of(from[s], version[s])] == 1 &&
                                      synced[row_of(from[s], version[s])]))
            :: else
            fi
        };
        complete_one(from[s], as, applied[s]);
        d_step { from[s] = 0; version[s] = 0; applied[s] = false; s++ }
    :: else -> n = 0; break
    od;
    s = 0
}

proctype worker(byte me)
{
    byte s, seen, copy, n, from[TAKES], version[TAKES];
    bool applied[TAKES], ok, again, alone, submitted, wrote, result;
begin:
    {
        skip;
        do
        :: d_step { round[me] < ROUNDS -> current[me] = version_of(me) };
start: /* process_group_commit */
            alone = again;
            if
            :: alone -> goto queue
            :: d_step { !alone && write_lock == 0 -> write_lock = me + 1 }; goto inside
            :: !alone && write_lock != 0
            fi;
            submit();
            submitted = true;
#ifdef SLEEP_UNTRIED
            sleep_until_change();
#endif
wait_for_leader:
            poll();
            if
            :: seen == WAITING ->
                if
                :: d_step { write_lock == 0 -> write_lock = me + 1; seen = NONE }; goto inside
                :: write_lock != 0 -> sleep_until_change(); goto wait_for_leader
#ifdef SLICES
                :: d_step { write_lock != 0 -> seen = NONE }; goto queue /* out of patience */
#endif
                fi
            :: seen == TAKEN -> sleep_until_change(); goto wait_for_leader
            :: seen == DONE ->
                d_step { state[me] = NONE; half[me] = 0; submitted = false; seen = NONE };
                goto told
            :: seen == RETURNED || seen == LOST ->
                d_step {
                    state[me] = NONE; half[me] = 0; submitted = false; alone = true;
                    again = seen == LOST; seen = NONE
                }
            :: seen == NONE -> assert(false)
            fi;
queue:
            enter();
inside:
            if
            :: submitted ->
                d_step {
                    ok = waits(me);
                    if
                    :: ok -> state[me] = NONE
                    :: else
                    fi
                };
                if
                :: ok -> bit_of[me] = false
#ifdef IGNORE_WITHDRAW
                :: !ok
#else
                :: !ok ->
                    leave();
                    sleep_until_change();
                    goto wait_for_leader
#endif
                fi;
                d_step { ok = false; submitted = false }
            :: else
            fi;
            if
            :: !alone ->
                collect();
                if
                :: collect() /* before the end of the transaction */
                :: true
                fi
            :: else
            fi;
transaction:
            if
            :: d_step {
                    apply(me, current[me], again, result);
                    do
                    :: s < n -> apply(from[s], version[s], false, applied[s]); s++
                    :: else -> break
                    od;
                    s = 0
                };
                leave();
#ifdef COMPLETE_FIRST
                complete(DONE);
#endif
                if
                :: sync()
                :: d_step { faults > 0 -> faults-- };
#ifdef RETURN_AFTER_COMMIT
                    complete(RETURNED);
#endif
                    killed[me] = true /* the process ends by itself */
                fi;
                complete(DONE);
                goto told
            :: d_step { faults > 0 -> faults-- }; /* STORE_SQLITE_PARTED: to be done event by event */
                leave();
                enter();
                goto transaction
            :: d_step { faults > 0 -> faults--; alone = n > 0 };
                leave();
                complete(RETURNED);
                if
                :: alone -> goto queue
                :: else ->
#ifdef FORGET_DOUBT
                    again = false;
#endif
                    goto start
                fi
            fi;
told:
            atomic {
                assert(result && tally[row_of(me, current[me])] == 1 && synced[row_of(me, current[me])]);
                round[me]++;
                current[me] = 0;
                result = false;
                again = false;
                alone = false
            }
        :: else -> break
        od;
        through[me] = true
    } unless { killed[me] };
    d_step {
        if
        :: through[me]
        :: else ->
            if
            :: write_lock == me + 1 -> write_lock = 0
            :: else
            fi;
            asleep[me] = false;
            s = 0; seen = NONE; copy = 0; n = 0;
            from[0] = 0; from[1] = 0; version[0] = 0; version[1] = 0; applied[0] = false; applied[1] = false;
            ok = false; again = false; alone = false; submitted = false; wrote = false; result = false;
            dead[me] = true
        fi
    };
    if
    :: through[me]
    :: else -> !dead[me]; goto begin
    fi
}

proctype supervisor()
{
    byte p, other;
    do
    :: d_step { dead[0] || dead[1] || dead[WORKERS - 1] -> p = (dead[0] -> 0 : (dead[1] -> 1 : WORKERS - 1)) };
        bit_of[p] = false;
#ifndef NO_RECOVER
        d_step { state[p] = NONE; half[p] = 0 };
#endif
        do
        :: other < WORKERS ->
#ifndef NO_LOST
            if
            :: d_step { state[other] == TAKEN && half[other] == p -> state[other] = LOST; half[other] = 0 };
                asleep[other] = false
            :: else
            fi;
#endif
            other++
        :: else -> other = 0; break
        od;
        atomic { /* released: done, or to be done with another token; then the successor */
            if
            :: tally[p * ROUNDS + round[p]] > 0 -> round[p]++
            :: else -> token[p * ROUNDS + round[p]]++
            fi;
            current[p] = 0;
            killed[p] = false;
            dead[p] = false;
            p = 0
        }
    od
}

proctype killer()
{
    do
    :: d_step { kills > 0 && !killed[0] && !through[0] && round[0] < ROUNDS -> kills--; killed[0] = true }
    :: d_step { kills > 0 && !killed[1] && !through[1] && round[1] < ROUNDS -> kills--; killed[1] = true }
#if WORKERS > 2
    :: d_step { kills > 0 && !killed[2] && !through[2] && round[2] < ROUNDS -> kills--; killed[2] = true }
#endif
    :: timeout ->
        atomic {
            w = 0;
            do
            :: w < WORKERS -> assert(through[w] && state[w] == NONE); w++
            :: else -> break
            od;
            w = 0;
            do
            :: w < WORKERS * ROUNDS -> assert(tally[w] == 1); w++
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
        :: w < WORKERS -> run worker(w); w++
        :: else -> break
        od;
        w = 0;
        run supervisor();
        run killer()
    }
}
