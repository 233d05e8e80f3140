/* Appending: reserve, write, commit by one store; under a lock that the next one takes over from the dead.
 * Mirrors native/src/log.c: begin, find_room, refresh_limit, copy_around_stub, finish; native/src/log.h: A1 to A5;
 * native/src/take.c: begin, take_run, finish; native/src/group.h: T1 to T5. The lock itself is in lock.pml.
 * RUN -DDEATHS=0
 * RUN -DDEATHS=2 -DVICTIMS=2 -DONE_CONSUMER
 * RUN -DDEATHS=2 -DFIRST_VICTIM=2 -DVICTIMS=2 -DONE_PRODUCER
 * MUTANTS -DDEATHS=1 -DVICTIMS=2 -DONE_CONSUMER
 *
 * A frame is two cells of a ring of six: a header (sequence, tag) and a body (tag). So frame p has the sequence p / 2, and
 * the stub at `tail` too. A producer puts two frames one by one, another puts two at once, as many as fit; two
 * consumers take. Each may be killed. Checked: what is taken was committed, is whole, comes in order and once; what was
 * confirmed is in; who copies out is not overwritten; the stub always has the right number.
 */
#define N       4
#ifndef VICTIMS
#define VICTIMS 4
#endif
#ifndef DEATHS
#define DEATHS  2
#endif
#include "death.h"

#define CELLS   6
#define STUB    1
#define SPAN    2
#define FRAMES  4 /* all together; tags 1 to 4 */
#define GARBAGE 99
#define AT(p)   ((p) % CELLS)

byte sequence[CELLS], tag[CELLS]; /* the ring */
byte tail = 0, known_tail = 0, known_sequence = 0, limit = 0;
byte read = 0, acked = 0;
byte lock = 0, group_lock = 0; /* 0, or 1 + who */

bool committed[FRAMES + 1], confirmed[FRAMES + 1], taken[FRAMES + 1]; /* ghosts */

#define MINE (me + 1)
/* What rp_lock_try and rp_lock_sleep come to, see lock.pml: true when it is ours. */
#define CAN_LOCK(l) (l == 0 || killed[l - 1])

inline check_stub() {
    assert(sequence[AT(tail)] == tail / SPAN)
}

/* A3 to A5 for `count` frames at `t`, whose tags begin at `first`. */
inline append(first, count) {
    i = 0;
    do
    :: i < count ->
#ifdef MUTATION_COPY_OVER_STUB
       sequence[AT(t + SPAN * i)] = GARBAGE; /* what the prepared frames say, before the numbers are filled in */
#endif
       atomic { tag[AT(t + SPAN * i)] = first + i; sequence[AT(t + SPAN * i)] = number + i };
#ifndef MUTATION_COMMIT_BEFORE_BODY
       tag[AT(t + SPAN * i + 1)] = first + i;
#endif
       i++
    :: else -> break
    od;
#ifndef MUTATION_STUB_AFTER_COMMIT
    sequence[AT(t + SPAN * count)] = number + count;
#endif
    atomic { /* the only commit point */
        tail = t + SPAN * count;
        for (i : 0 .. count - 1) { committed[first + i] = true };
        i = 0
    };
#ifdef MUTATION_COMMIT_BEFORE_BODY
    for (i : 0 .. count - 1) { tag[AT(t + SPAN * i + 1)] = first + i };
#endif
#ifdef MUTATION_STUB_AFTER_COMMIT
    sequence[AT(t + SPAN * count)] = number + count;
#endif
#ifndef MUTATION_KNOWN_TAIL_FIRST
    known_sequence = number + count;
    known_tail = t + SPAN * count;
#else
    known_tail = t + SPAN * count;
    known_sequence = number + count;
#endif
    lock = 0;
    atomic { for (i : 0 .. count - 1) { confirmed[first + i] = true }; i = 0 }
}

#ifndef MUTATION_STUB_HAS_NO_ROOM
#define ROOM (CELLS - STUB - (t - limit))
#else
#define ROOM (CELLS - (t - limit))
#endif

#define WANTED (me == 1 && done == 0 -> 2 : 1)

proctype producer(byte me) {
    byte t, number, done, fits, i;
    ALIVE(me, {
        do
        :: done < 2 ->
           atomic { CAN_LOCK(lock) -> lock = MINE };
           atomic {
               t = tail; /* nobody else moves it, nor the caches */
               if
               :: known_tail == t -> number = known_sequence
               :: else -> number = sequence[AT(t)]
               fi
           };
           if
           :: ROOM < SPAN * WANTED -> limit = acked
           :: else
           fi;
           fits = ROOM / SPAN;
           if
           :: fits == 0 -> lock = 0; (CELLS - STUB - (tail - acked) >= SPAN) /* sleeps: wait.pml */
           :: fits > 0 && (fits == 1 || WANTED == 1) ->
              append(1 + 2 * me + done, 1); done++
           :: else -> append(1 + 2 * me + done, 2); done = done + 2
           fi;
           t = 0; number = 0; fits = 0
        :: else -> break
        od;
        ended[me] = true
    })
}

/* Taking one frame at most once; what was taken dies with who took it. */
proctype consumer(byte me) {
    byte p, t, s, head, body;
    ALIVE(me, {
        do
        :: atomic {
               CAN_LOCK(group_lock) && read < tail -> /* else it sleeps: wait.pml */
               if
               :: group_lock != 0 && acked != read -> acked = read /* repair: no lease here. A death in it is one before it */
               :: else
               fi;
               group_lock = MINE; p = read
           };
           t = tail;
           atomic { s = sequence[AT(t)]; assert(t != tail || s == t / SPAN) };
           if
           :: t == p -> group_lock = 0
           :: else ->
#ifdef MUTATION_RELEASE_BEFORE_COPY
              acked = p + SPAN;
#endif
              atomic { s = sequence[AT(p)]; head = tag[AT(p)] };
              body = tag[AT(p + 1)];
              assert(s == p / SPAN);
              assert(head == body);
              assert(committed[head]);
              assert(!taken[head]);
              assert(head % 2 == 1 || taken[head - 1]); /* in its producer's order */
              atomic { read = p + SPAN; taken[head] = true };
              acked = p + SPAN;
              group_lock = 0
           fi;
           atomic { p = 0; t = 0; s = 0; head = 0; body = 0 }
        od
    })
}

#ifdef ONE_CONSUMER
#define CONSUMERS_ARE_DEAD killed[2]
#else
#define CONSUMERS_ARE_DEAD (killed[2] && killed[3])
#endif

init {
    byte i;
    atomic {
#ifndef ONE_PRODUCER
        run producer(0);
#else
        ended[0] = true;
        committed[1] = true; committed[2] = true; taken[1] = true; taken[2] = true;
#endif
        run producer(1);
        run consumer(2);
#ifndef ONE_CONSUMER
        run consumer(3);
#endif
        run killer()
    };
    timeout ->
    check_stub();
    assert(acked <= read && read <= tail && tail + STUB - acked <= CELLS);
    if
    :: CONSUMERS_ARE_DEAD
    :: else ->
       assert(ended[0] || killed[0]);
       assert(ended[1] || killed[1]);
       assert(read == tail);
       for (i : 1 .. FRAMES) { assert(taken[i] == committed[i]); assert(committed[i] || !confirmed[i]) };
       assert(killed[0] || (committed[1] && committed[2]));
       assert(killed[1] || (committed[3] && committed[4]))
    fi
}
