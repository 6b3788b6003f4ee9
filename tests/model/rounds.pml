/* SPDX-License-Identifier: MIT */
/*
 * A ring by itself. Two processes push, two pop, while the ring comes round; any of them is killed at any step.
 *
 *   pusher()  shm/ring.c: ring_push      popper()  shm/ring.c: ring_pop      forward()  advance_hint
 *
 * Each d_step is one load or one compare-and-swap. `pushed`, `popped` and `order` stand outside: they record what has
 * really happened. The checker verifies:
 *   1. What was pushed is popped once, in the order of the pushes.
 *   2. An answer `full` or `empty` is true at the instant of the load that decides it.
 *   3. By `timeout` no living process is held up by a killed one.
 *   4. No process loops for ever: every wait is a blocking step here, so -DNP searches for cycles.
 * Cycle numbers do not come back in it (ring.c, invariant 4).
 */
#ifndef ITEMS
#define ITEMS 2 /* that each of the two pushes */
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef SIZE
#define SIZE 2
#endif
#define word_of(position) (position % SIZE)
#define cycle_of(position) (position / SIZE)

byte cycle[SIZE], entry[SIZE], head, tail;
byte pushed, popped, order[2 * ITEMS], sent[2]; /* what has happened */
bool dead[4];
byte kills = KILLS;

#define alive !dead[me] /* a step of who is dead is not taken */

inline forward(hint, position)
{
    d_step {
        alive;
        if
        :: hint == position -> hint = position + 1
        :: else
        fi
    }
}

proctype pusher(byte me)
{
    byte at, c, e;
    bool no_room, done;
    do
    :: d_step { alive && sent[me] < ITEMS -> at = tail };
        d_step {
            alive ->
            c = cycle[word_of(at)];
            e = entry[word_of(at)];
            no_room = c < cycle_of(at);
            assert(!no_room || pushed - popped == SIZE)
        };
        if
        :: no_room
        :: !no_room && (c != cycle_of(at) || e != 0) ->
#ifndef NO_HELP_TAIL
            forward(tail, at)
#endif
        :: !no_room && c == cycle_of(at) && e == 0 ->
            d_step {
                alive;
                if
#ifdef NO_CYCLE
                :: entry[word_of(at)] == 0 ->
#else
                :: cycle[word_of(at)] == c && entry[word_of(at)] == 0 ->
#endif
                    assert(at == pushed && pushed - popped < SIZE);
                    entry[word_of(at)] = me * ITEMS + sent[me] + 1;
                    order[pushed] = me * ITEMS + sent[me] + 1;
                    pushed++;
                    sent[me]++;
                    done = true
                :: else
                fi
            };
            if
            :: done -> done = false; forward(tail, at)
            :: !done
            fi
        fi;
        alive && (!no_room || pushed - popped < SIZE);
        no_room = false
    od
}

proctype popper(byte me)
{
    byte at, c, e;
    bool done;
    do
    :: d_step { alive -> at = head };
        d_step {
            alive ->
            c = cycle[word_of(at)];
            e = entry[word_of(at)];
#ifdef EMPTY_BY_HINT
            assert(at != tail || pushed == popped);
#endif
            assert(c != cycle_of(at) || e != 0 || pushed == popped)
        };
        if
        :: c != cycle_of(at) ->
#ifndef NO_HELP_HEAD
            forward(head, at)
#endif
        :: c == cycle_of(at) && e == 0 -> alive && pushed > popped
        :: c == cycle_of(at) && e != 0 ->
            d_step {
                alive;
                if
                :: cycle[word_of(at)] == c && entry[word_of(at)] == e ->
                    assert(at == popped && e == order[popped]);
#ifndef NO_CYCLE
                    cycle[word_of(at)] = c + 1;
#endif
                    entry[word_of(at)] = 0;
                    popped++;
                    done = true
                :: else
                fi
            };
            if
            :: done -> done = false; forward(head, at)
            :: !done
            fi
        fi
    od
}

active proctype killer()
{
    do
    :: d_step { kills > 0 && !dead[0] -> kills--; dead[0] = true }
    :: d_step { kills > 0 && !dead[1] -> kills--; dead[1] = true }
    :: d_step { kills > 0 && !dead[2] -> kills--; dead[2] = true }
    :: d_step { kills > 0 && !dead[3] -> kills--; dead[3] = true }
    :: timeout ->
        if
        :: dead[2] && dead[3] /* no process is left to make room */
        :: else ->
            assert(pushed == popped);
            assert(dead[0] || sent[0] == ITEMS);
            assert(dead[1] || sent[1] == ITEMS)
        fi;
        break
    od
}

init {
    atomic {
        run pusher(0);
        run pusher(1);
        run popper(2);
        run popper(3)
    }
}
