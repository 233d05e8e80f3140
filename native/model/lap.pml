/* Readers that hold nobody back: they copy first, then ask `oldest` if what they copied was intact.
 * Mirrors native/src/log.c: give_up_oldest; native/src/cursor.c: rp_cursor_read, skip_lost, rp_cursor_open;
 * native/src/take.c: take_lossy; native/src/group.c: repair, repair_behind_oldest.
 * RUN -DDEATHS=0
 * RUN -DDEATHS=1 -DFIRST_VICTIM=2 -DVICTIMS=2 -DONE_PRODUCER -DPUTS=3
 * RUN -DDEATHS=1 -DVICTIMS=2 -DONE_TAKER
 * LARGE -DDEATHS=1 -DFIRST_VICTIM=2 -DVICTIMS=2 -DONE_PRODUCER -DPUTS=4
 * MUTANTS -DDEATHS=0
 * MUTANT REPAIR_ONLY_WHAT_IS_THERE -DDEATHS=1 -DFIRST_VICTIM=2 -DVICTIMS=2 -DONE_PRODUCER -DPUTS=3
 *
 * A frame is two cells of a ring of six, as in append.pml; history is kept, nobody gates. Two producers put two frames
 * each, or one all, one by one; two takers share a lossy group and take up to two frames at once, three times each. Each may be
 * killed. Checked: what is accepted is whole and as numbered; the numbers that were missed are counted exactly;
 * nobody finds the log corrupt. (A private cursor is the same without a lock, and its death leaves nothing.)
 */
#define N       4
#ifndef VICTIMS
#define VICTIMS 4
#endif
#include "death.h"

#define CELLS   6
#define STUB    1
#define SPAN    2
#ifndef PUTS
#define PUTS    2
#endif
#define TAKES   2
#define MOST    2
#define AT(p)   ((p) % CELLS)

byte sequence[CELLS], tag[CELLS];
byte tail = 0, oldest = 0;
byte lock = 0, group_lock = 0;
byte read = 0, group_sequence = 0;

#define MINE (me + 1)
#define CAN_LOCK(l) (l == 0 || killed[l - 1])

/* A2: before the bytes change, and a release fence keeps it so. */
inline give_up_oldest() {
    do
    :: t + SPAN + STUB - new > CELLS -> new = new + SPAN
    :: else -> break
    od
}

proctype producer(byte me) {
    byte t, new, done;
    ALIVE(me, {
        do
        :: done < PUTS ->
           atomic { CAN_LOCK(lock) -> lock = MINE; t = tail; new = oldest; give_up_oldest() };
#ifndef MUTATION_OLDEST_AFTER_BYTES
           oldest = new;
#endif
           atomic { sequence[AT(t)] = t / SPAN; tag[AT(t)] = t / SPAN };
           tag[AT(t + 1)] = t / SPAN;
           sequence[AT(t + SPAN)] = t / SPAN + 1;
#ifdef MUTATION_OLDEST_AFTER_BYTES
           oldest = new;
#endif
           tail = t + SPAN;
           atomic { lock = 0; done++; t = 0; new = 0 }
        :: else -> break
        od;
        ended[me] = true
    })
}

/* rp_cursor_open from the start, in skip_lost: at `p` with the number `s`. */
inline open_at_oldest() {
    do
    :: o = oldest;
       s = sequence[AT(o)];
#ifndef MUTATION_OPEN_WITHOUT_A_SECOND_LOOK
       if
       :: oldest > o
       :: else -> break
       fi
#else
       break
#endif
    od
}

inline repair() {
    s = sequence[AT(read)];
    if
    :: oldest <= read -> group_sequence = s
    :: else ->
#ifndef MUTATION_REPAIR_ONLY_WHAT_IS_THERE
       open_at_oldest();
       if
       :: s < group_sequence -> group_sequence = s /* the dead one had got further: `read` is behind */
       :: else
       fi
#else
       skip
#endif
    fi
}

proctype taker(byte me) {
    byte p, number, t, o, s, i, takes;
    byte heads[MOST], bodies[MOST], numbers[MOST];
    bool died, intact;
    ALIVE(me, {
        do
        :: takes < TAKES ->
           atomic { CAN_LOCK(group_lock) -> died = group_lock != 0; group_lock = MINE };
           if
           :: died -> repair()
           :: else
           fi;
           atomic { p = read; number = group_sequence };
           do
           :: t = tail;
              if
              :: t == p -> break
              :: else
              fi;
#ifdef MUTATION_LOOK_BEFORE_COPY
              intact = oldest <= p;
#endif
              i = 0;
              do
              :: i < MOST && p + SPAN * i < t && t - p <= CELLS - STUB ->
                 atomic { numbers[i] = sequence[AT(p + SPAN * i)]; heads[i] = tag[AT(p + SPAN * i)] };
                 bodies[i] = tag[AT(p + SPAN * i + 1)];
                 i++
              :: else -> break
              od;
#ifndef MUTATION_LOOK_BEFORE_COPY
              intact = oldest <= p;
#endif
              if
              :: intact ->
                 atomic {
                     assert(i > 0); /* else it says that the log is corrupt */
                     t = i;
                     for (i : 0 .. t - 1) {
                         assert(numbers[i] == p / SPAN + i && heads[i] == numbers[i] && bodies[i] == numbers[i])
                     };
                     assert(number == p / SPAN);
                     p = p + SPAN * t; number = number + t
                 };
                 break
              :: else ->
                 open_at_oldest();
                 atomic {
                     assert(o >= p && s >= number); /* else it says that the log is corrupt */
                     assert(s == o / SPAN); /* so `lost` grows by what was really lost */
                     p = o; number = s
                 }
              fi
           od;
           group_sequence = number;
           read = p;
           atomic {
               group_lock = 0; takes++;
               p = 0; number = 0; t = 0; o = 0; s = 0; i = 0; died = false; intact = false;
               heads[0] = 0; heads[1] = 0; bodies[0] = 0; bodies[1] = 0; numbers[0] = 0; numbers[1] = 0
           }
        :: else -> break
        od;
        ended[me] = true
    })
}

init {
    byte i;
    atomic {
        run producer(0);
#ifndef ONE_PRODUCER
        run producer(1);
#else
        ended[1] = true;
#endif
        run taker(2);
#ifndef ONE_TAKER
        run taker(3);
#else
        ended[3] = true;
#endif
        run killer()
    };
    timeout ->
    for (i : 0 .. N - 1) { assert(ended[i] || killed[i]) };
    assert(sequence[AT(tail)] == tail / SPAN);
    assert(oldest <= tail && tail + STUB - oldest <= CELLS)
}
